//! Files that a recipe names by their address or path, with a digest or without.

use std::fs::File;
use std::io;

use coop_runtime::event::Observer;

use crate::digest::{Digest, InvalidDigest};
use crate::fetch::{Download, FetchError, Fetcher};
use crate::lock::{NotLocked, Pins};
use crate::recipe::{HostFile, TarballLocation};

/// Why a file that a recipe names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NamedFileError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It could not be downloaded.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The recipe's digest is none.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// The lock does not have it.
    #[error(transparent)]
    NotLocked(#[from] NotLocked),
    /// Nobody says which bytes it is.
    #[error(
        "'{0}' has no sha256 in the recipe, and there is no lock that has it; coop lock pins what \
         is there now"
    )]
    Unpinned(String),
    /// It is not the one that the recipe names.
    #[error("{name} has sha256 {found}, but the recipe says {expected}")]
    Changed {
        /// Its name in the recipe.
        name: String,
        /// What it has.
        found: Digest,
        /// What the recipe says.
        expected: Digest,
    },
}

/// A file that a recipe names: known by its digest, and not yet read.
#[derive(Debug)]
pub(super) struct NamedFile {
    /// Its name in the recipe.
    pub(super) name: String,
    /// What it is known by.
    pub(super) digest: Digest,
    place: Place,
}

/// Where the bytes are.
#[derive(Debug)]
enum Place {
    Address(Download),
    Host(File),
}

impl NamedFile {
    /// Finds out which file it is.
    ///
    /// # Errors
    /// It is missing, or is not the one that the recipe pins.
    pub(super) fn resolve(
        location: &TarballLocation,
        fetcher: &Fetcher,
        pins: &Pins,
        observer: &dyn Observer,
    ) -> Result<Self, NamedFileError> {
        Ok(match location {
            TarballLocation::Url { url, sha256 } => {
                let download = address(url, sha256.as_deref(), fetcher, pins, observer)?;
                Self {
                    name: url.clone(),
                    digest: download.digest,
                    place: Place::Address(download),
                }
            }
            TarballLocation::Path { file, sha256 } => {
                let (opened, digest) = host_file(file, sha256.as_deref(), pins)?;
                Self {
                    name: file.written.clone(),
                    digest,
                    place: Place::Host(opened),
                }
            }
        })
    }

    /// Opens it, downloaded where that is needed; `work` says for what.
    ///
    /// # Errors
    /// It cannot be downloaded.
    pub(super) fn open(
        self,
        fetcher: &Fetcher,
        work: &str,
        observer: &dyn Observer,
    ) -> Result<File, FetchError> {
        match self.place {
            Place::Host(file) => Ok(file),
            Place::Address(download) => {
                let url = download.url.clone();
                let mut files = fetcher.fetch(&[download], work, observer)?;
                let file = files.pop().ok_or(FetchError::Offline(url))?;
                Ok(file.into_parts().0)
            }
        }
    }
}

/// What is to be downloaded for an address. Only where a lock is made, and the recipe gives no
/// digest, it is downloaded here, and believed.
///
/// # Errors
/// See [`NamedFileError`].
pub fn address(
    url: &str,
    sha256: Option<&str>,
    fetcher: &Fetcher,
    pins: &Pins,
    observer: &dyn Observer,
) -> Result<Download, NamedFileError> {
    let expected: Option<Digest> = sha256.map(str::parse).transpose()?;
    let known = pins.file(url, expected, || match expected {
        Some(digest) => Ok((None, digest)),
        None if pins.is_making() => {
            let (digest, size) = fetcher.learn(url, "download what is to be pinned", observer)?;
            Ok((Some(size), digest))
        }
        None => Err(NamedFileError::Unpinned(url.to_owned())),
    })?;
    let download = Download {
        url: url.to_owned(),
        digest: known.sha256,
        size_bytes: known.size,
    };
    pins.wants([download.clone()]);
    Ok(download)
}

/// Opens a file of the host, checked against the recipe's digest and the lock's.
///
/// # Errors
/// See [`NamedFileError`].
pub fn host_file(
    file: &HostFile,
    sha256: Option<&str>,
    pins: &Pins,
) -> Result<(File, Digest), NamedFileError> {
    let (opened, size, found) = pins.files().open(&file.path)?;
    if let Some(expected) = sha256.map(str::parse).transpose()?
        && found != expected
    {
        return Err(NamedFileError::Changed {
            name: file.written.clone(),
            found,
            expected,
        });
    }
    // A lock that is made takes the file as it is.
    pins.file(&file.written, Some(found), || {
        Ok::<_, NamedFileError>((Some(size), found))
    })?;
    Ok((opened, found))
}

#[cfg(test)]
mod tests {
    use coop_runtime::event::Silent;
    use fs_err as fs;
    use tempfile::TempDir;

    use super::*;
    use crate::fetch::Options;
    use crate::lock::Lock;
    use crate::store::Store;

    struct Case {
        folder: TempDir,
        fetcher: Fetcher,
        file: HostFile,
    }

    impl Case {
        fn new() -> Self {
            let folder = TempDir::new().unwrap();
            let store = Store::open(&folder.path().join("cache")).unwrap();
            let path = folder.path().join("a.tar");
            fs::write(&path, "one").unwrap();
            Self {
                folder,
                fetcher: Fetcher::new(store, Options::default()),
                file: HostFile {
                    written: "a.tar".to_owned(),
                    path,
                },
            }
        }

        fn url(&self) -> String {
            format!("file://{}/a.tar", self.folder.path().display())
        }

        fn address(&self, sha256: Option<&str>, pins: &Pins) -> Result<Download, NamedFileError> {
            address(&self.url(), sha256, &self.fetcher, pins, &Silent)
        }
    }

    fn making(old: &Lock) -> Pins {
        Pins::making(old.clone(), std::collections::BTreeSet::new())
    }

    #[test]
    fn an_address_without_a_digest_needs_a_lock() {
        let case = Case::new();
        let error = case.address(None, &Pins::live()).unwrap_err();
        assert!(matches!(error, NamedFileError::Unpinned(_)), "{error}");
        let pins = making(&Lock::default());
        let first = case.address(None, &pins).unwrap();
        let lock = pins.seen();
        assert_eq!(
            (first.digest, first.size_bytes),
            (Digest::of(b"one"), Some(3))
        );
        assert!(case.fetcher.store().blob(&first.digest).unwrap().is_some());
        // A new content is not looked at before somebody wants the pin to move.
        fs::write(&case.file.path, "two").unwrap();
        assert_eq!(case.address(None, &making(&lock)).unwrap(), first);
        let locked = Pins::locked(lock.clone());
        assert_eq!(case.address(None, &locked).unwrap(), first);
        let other = Digest::of(b"two").to_string();
        let error = case.address(Some(&other), &locked).unwrap_err();
        assert!(error.to_string().contains("coop lock"), "{error}");
        let moved = case.address(Some(&other), &making(&lock)).unwrap();
        assert_eq!(moved.digest, Digest::of(b"two"));
    }

    #[test]
    fn a_file_is_the_one_that_was_locked() {
        let case = Case::new();
        let pins = making(&Lock::default());
        host_file(&case.file, None, &pins).unwrap();
        let locked = Pins::locked(pins.seen());
        let (_, digest) = host_file(&case.file, None, &locked).unwrap();
        assert_eq!(digest, Digest::of(b"one"));
        assert_eq!(locked.seen(), pins.seen());
        fs::write(&case.file.path, "two").unwrap();
        let locked = Pins::locked(pins.seen());
        let error = host_file(&case.file, None, &locked).unwrap_err();
        assert!(error.to_string().contains("a.tar with sha256"), "{error}");
        assert!(host_file(&case.file, None, &making(&pins.seen())).is_ok());
        let error = host_file(&case.file, Some(&digest.to_string()), &Pins::live()).unwrap_err();
        assert!(matches!(error, NamedFileError::Changed { .. }), "{error}");
    }
}
