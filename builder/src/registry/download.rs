//! Blobs into the store: gone on with where an earlier attempt or process ended, and checked on the
//! way.

use std::io::{self, Read, Seek, SeekFrom, Write};

use coop_appliance::bundle::Descriptor;
use reqwest::blocking::Response;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, StatusCode};

use super::error::RegistryError;
use super::progress::Progress;
use super::transport::{Ask, shown, status_error, text};
use super::{Registry, length_of};
use crate::digest::{Digest, Hasher};
use crate::fetch::causes;
use crate::store::{PartialBlob, Store};

const BUFFER_BYTES: usize = 128 << 10;

/// What came of a blob so far.
struct Coming {
    partial: PartialBlob,
    hasher: Hasher,
    length: u64,
    /// Whether it is of more than one answer: then a wrong digest may be nobody's fault.
    is_joined: bool,
}

impl Registry {
    /// Brings a blob into the store, unless it is there.
    pub(super) fn download(
        &self,
        blob: &Descriptor,
        store: &Store,
        progress: &Progress<'_>,
    ) -> Result<(), RegistryError> {
        let digest = Digest::from(*blob.digest.as_bytes());
        if let Some(file) = store.blob(&digest)?
            && file.metadata()?.len() == blob.size
        {
            progress.add(blob.size);
            return Ok(());
        }
        let mut coming = Coming::open(store, &digest, blob.size)?;
        progress.add(coming.length);
        self.again(|| self.go_on(blob, &mut coming, store, progress))?;
        if coming.digest() != digest && coming.is_joined {
            progress.take_off(coming.length);
            coming.clear().map_err(|error| store.explain(error))?;
            self.again(|| self.go_on(blob, &mut coming, store, progress))?;
        }
        let actual = coming.digest();
        if actual != digest {
            // Nobody shall go on with it.
            coming.clear().map_err(|error| store.explain(error))?;
            return Err(RegistryError::Mismatch {
                url: shown(&self.blob_url(blob)?),
                expected: blob.digest,
                actual: (*actual.as_bytes()).into(),
            });
        }
        store.publish_partial(coming.partial)?;
        Ok(())
    }

    fn blob_url(&self, blob: &Descriptor) -> Result<reqwest::Url, RegistryError> {
        self.url(&format!("blobs/{}", blob.digest))
    }

    /// Appends to what is there until the end of the blob.
    fn go_on(
        &self,
        blob: &Descriptor,
        coming: &mut Coming,
        store: &Store,
        progress: &Progress<'_>,
    ) -> Result<(), RegistryError> {
        if coming.length == blob.size {
            return Ok(());
        }
        let url = self.blob_url(blob)?;
        let mut ask = Ask::new(Method::GET, url.clone());
        ask.may_leave = true;
        if coming.length > 0 {
            ask = ask.header(RANGE, format!("bytes={}-", coming.length));
        }
        let mut response = self.call(&ask)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response) == Some(coming.length) => {
                coming.is_joined = true;
            }
            StatusCode::OK => {
                progress.take_off(coming.length);
                coming.clear().map_err(|error| store.explain(error))?;
            }
            _ => return Err(status_error(&url, response)),
        }
        let name = shown(&url);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            if progress.is_cancelled() {
                return Err(RegistryError::Cancelled(name));
            }
            let count = match response.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let reason = causes(&error);
                    return Err(RegistryError::Network { url: name, reason });
                }
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            if coming.length.saturating_add(length_of(bytes)) > blob.size {
                coming.clear().map_err(|error| store.explain(error))?;
                return Err(RegistryError::TooLong {
                    url: name,
                    limit_bytes: blob.size,
                });
            }
            coming.append(bytes).map_err(|error| store.explain(error))?;
            progress.add(length_of(bytes));
        }
        if coming.length < blob.size {
            return Err(RegistryError::Short {
                url: name,
                expected_bytes: blob.size,
                actual_bytes: coming.length,
            });
        }
        Ok(())
    }
}

impl Coming {
    /// Hashes what an earlier process left.
    fn open(store: &Store, digest: &Digest, size_bytes: u64) -> Result<Self, RegistryError> {
        let partial = store.partial(digest)?;
        let mut coming = Self {
            partial,
            hasher: Hasher::new(),
            length: 0,
            is_joined: false,
        };
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = coming.partial.file().read(&mut buffer)?;
            if count == 0 {
                break;
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            coming.hasher.update(bytes);
            coming.length = coming.length.saturating_add(length_of(bytes));
        }
        coming.is_joined = coming.length > 0;
        if coming.length > size_bytes {
            coming.clear().map_err(|error| store.explain(error))?;
        }
        Ok(coming)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.partial.file();
        // A failed write may have written a part.
        file.seek(SeekFrom::Start(self.length))?;
        file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.length = self.length.saturating_add(length_of(bytes));
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.partial.clear()?;
        self.hasher = Hasher::new();
        self.length = 0;
        self.is_joined = false;
        Ok(())
    }

    fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }
}

fn begins_at(response: &Response) -> Option<u64> {
    range_start(text(response.headers(), &CONTENT_RANGE)?)
}

/// Where the bytes begin that come, by their `Content-Range: bytes FIRST-LAST/SIZE`.
#[must_use]
pub fn range_start(range: &str) -> Option<u64> {
    let (start, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    start.trim().parse().ok()
}
