//! Where blobs come from: a bundle, a registry, an appliance that was just packed.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::digest::BlobDigest;
use super::error::{BundleError, bound};
use super::oci::Descriptor;

/// A source of blobs. Nothing of what it gives is trusted: whoever reads checks length and digest,
/// by [`Checked`] or [`read_small`].
pub trait Blobs: Sync {
    /// Opens a blob at its beginning.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, BundleError>;
}

/// A blob's bytes. The end of the input is only an end where length and digest are the
/// descriptor's; else it is an error, as is a byte too many.
pub struct Checked<R> {
    inner: R,
    digest: BlobDigest,
    left: u64,
    hasher: Sha256,
    ended: bool,
}

impl<R: Read> Checked<R> {
    /// Reads `inner` as this blob.
    pub fn new(inner: R, blob: &Descriptor) -> Self {
        Self {
            inner,
            digest: blob.digest,
            left: blob.size,
            hasher: Sha256::new(),
            ended: false,
        }
    }

    fn wrong(&self, found: &str) -> io::Error {
        let error = BundleError::Blob {
            digest: self.digest,
            found: found.to_owned(),
        };
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    fn end(&mut self) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let mut more = [0];
        if read_some(&mut self.inner, &mut more)? > 0 {
            return Err(self.wrong("it is longer than its descriptor says"));
        }
        let found = BlobDigest::from(<[u8; 32]>::from(self.hasher.clone().finalize()));
        if found != self.digest {
            return Err(self.wrong(&format!("it has the digest {found}")));
        }
        self.ended = true;
        Ok(0)
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            return self.end();
        }
        let room = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = read_some(&mut self.inner, &mut buffer[..room])?;
        if count == 0 {
            return Err(self.wrong("it is shorter than its descriptor says"));
        }
        self.hasher.update(&buffer[..count]);
        self.left = self.left.saturating_sub(crate::digest::as_u64(count));
        Ok(count)
    }
}

fn read_some(inner: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match inner.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Reads a blob of at most `limit` bytes into memory, and checks it.
///
/// # Errors
/// It is larger, cannot be read, or is another blob; `what` names it.
pub fn read_small(
    blobs: &dyn Blobs,
    blob: &Descriptor,
    what: &str,
    limit: u64,
) -> Result<Vec<u8>, BundleError> {
    bound(&format!("the size of the {what}"), blob.size, limit)?;
    let mut bytes = Vec::new();
    let mut input = Checked::new(blobs.open(blob)?, blob);
    input.read_to_end(&mut bytes).map_err(unwrap_io)?;
    Ok(bytes)
}

/// An error that only went through [`io::Error`] on its way.
pub(super) fn unwrap_io(error: io::Error) -> BundleError {
    match error.downcast::<BundleError>() {
        Ok(inner) => inner,
        Err(error) => BundleError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lying(Vec<u8>);

    impl Blobs for Lying {
        fn open(&self, _: &Descriptor) -> Result<Box<dyn Read + Send + '_>, BundleError> {
            Ok(Box::new(&*self.0))
        }
    }

    #[test]
    fn only_the_very_blob_has_an_end() {
        let blob = Descriptor::of("a/b", b"hello");
        for (given, says) in [
            ("hello", None),
            ("hell", Some("shorter")),
            ("hellos", Some("longer")),
            (
                "hallo",
                Some(
                    "the digest sha256:d3751d33f9cd5049c4af2b462735457e4d3baf130bcbb87f389e349fbaeb20b9",
                ),
            ),
        ] {
            let read = read_small(&Lying(given.into()), &blob, "test", 5);
            match says {
                None => assert_eq!(read.unwrap(), b"hello"),
                Some(says) => {
                    let error = read.unwrap_err();
                    assert!(matches!(error, BundleError::Blob { .. }), "{error}");
                    assert!(error.to_string().contains(says), "{error}");
                }
            }
        }
        let error = read_small(&Lying(Vec::new()), &blob, "test", 4).unwrap_err();
        assert!(error.to_string().contains("the limit is 4"), "{error}");
    }
}
