//! Names of blobs: `sha256:` and 64 hexadecimal digits.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The only algorithm that is read and written.
const ALGORITHM: &str = "sha256:";

/// A blob's SHA-256, shown as OCI has it: `sha256:` and 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobDigest([u8; 32]);

impl BlobDigest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest's 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its 64 hexadecimal digits alone.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads 64 lowercase hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }
}

/// Other cases are other names to a registry, so only one is a digest.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl From<[u8; 32]> for BlobDigest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}{}", self.hex())
    }
}

impl fmt::Debug for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that names no blob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a digest that coop reads (sha256: and 64 lowercase hexadecimal digits)")]
pub struct InvalidBlobDigest(String);

impl FromStr for BlobDigest {
    type Err = InvalidBlobDigest;

    fn from_str(text: &str) -> Result<Self, InvalidBlobDigest> {
        let digest = text.strip_prefix(ALGORITHM).and_then(Self::from_hex);
        digest.ok_or_else(|| {
            let shown = text.chars().take(80).collect::<String>();
            InvalidBlobDigest(shown.escape_debug().to_string())
        })
    }
}

impl Serialize for BlobDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Passes bytes on and hashes them.
pub(super) struct Hashing<T> {
    inner: T,
    hasher: Sha256,
    count: u64,
}

impl<T> Hashing<T> {
    pub(super) fn new(inner: T) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            count: 0,
        }
    }

    /// What went through since it was last asked: its digest and length.
    pub(super) fn take(&mut self) -> (BlobDigest, u64) {
        let digest = BlobDigest(self.hasher.finalize_reset().into());
        (digest, std::mem::take(&mut self.count))
    }

    fn saw(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.count = self
            .count
            .saturating_add(crate::digest::as_u64(bytes.len()));
    }
}

impl<W: io::Write> io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.saw(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_spelling_is_a_digest() {
        let text = BlobDigest::of(b"").to_string();
        assert_eq!(text.parse(), Ok(BlobDigest::of(b"")));
        for bad in [
            "",
            &text[7..],
            &text[..70],
            &text.to_uppercase(),
            &text.replace("sha256", "sha512"),
            "sha256:../../../../../../../../../../../../../../../../../etc/passwd00",
        ] {
            assert!(bad.parse::<BlobDigest>().is_err(), "{bad}");
        }
    }
}
