//! The host's files that a build takes: each is hashed once, however many parts of the build ask,
//! and is the same one until the build is done.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs_err as fs;

use crate::digest::Digest;
use crate::guest::{MountError, digest_of_source};

/// A file had another content than when it was first looked at.
#[derive(Debug, thiserror::Error)]
#[error("{} changed while the build ran; build again", .0.display())]
struct Changed(PathBuf);

/// What the files of the host were when they were first looked at, by their paths.
#[derive(Debug, Default)]
pub struct FileDigests {
    files: Mutex<BTreeMap<PathBuf, Known>>,
    mounts: Mutex<BTreeMap<PathBuf, Digest>>,
}

/// A file that was hashed.
#[derive(Clone, Copy, Debug)]
struct Known {
    stamp: Stamp,
    sha256: Digest,
}

/// What changes where a file does; where it is the same the file is not hashed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl FileDigests {
    /// The digest of a file's content.
    ///
    /// # Errors
    /// It cannot be read, or it changed since it was first looked at.
    pub(crate) fn digest(&self, path: &Path) -> io::Result<Digest> {
        Ok(self.open(path)?.2)
    }

    /// Opens a file: it, its size in bytes and its digest.
    ///
    /// # Errors
    /// As of [`FileDigests::digest`].
    pub(crate) fn open(&self, path: &Path) -> io::Result<(File, u64, Digest)> {
        let (file, _) = fs::File::open(path)?.into_parts();
        let stamp = Stamp::of(&file.metadata()?);
        let size_bytes = stamp.size_bytes;
        let known = lock(&self.files).get(path).copied();
        if let Some(known) = known.filter(|known| known.stamp == stamp) {
            return Ok((file, size_bytes, known.sha256));
        }
        let sha256 = coop_appliance::sha256_of_file(path)?.into();
        // Neither was the name given to another file meanwhile, nor was this one written.
        let is_same = Stamp::of(&fs::metadata(path)?) == stamp;
        if !is_same || known.is_some_and(|known| known.sha256 != sha256) {
            return Err(changed(path));
        }
        lock(&self.files).insert(path.to_owned(), Known { stamp, sha256 });
        Ok((file, size_bytes, sha256))
    }

    /// A file's content, if it has not more than so many bytes.
    ///
    /// # Errors
    /// As of [`FileDigests::digest`].
    pub(crate) fn read(&self, path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
        let (file, size_bytes, sha256) = self.open(path)?;
        if size_bytes > most {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if !u64::try_from(bytes.len()).is_ok_and(|length| length <= most) {
            return Ok(None);
        }
        match Digest::of(&bytes) == sha256 {
            true => Ok(Some(bytes)),
            false => Err(changed(path)),
        }
    }

    /// The digest of what a step sees of the host, which is compared once more when it is shown.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn mount(&self, path: &Path) -> Result<Digest, MountError> {
        if let Some(known) = lock(&self.mounts).get(path) {
            return Ok(*known);
        }
        let digest = digest_of_source(path)?;
        lock(&self.mounts).insert(path.to_owned(), digest);
        Ok(digest)
    }

    /// Makes sure that all files are what they were, at the end of a build: what it made is of one
    /// state of them.
    ///
    /// # Errors
    /// As of [`FileDigests::digest`].
    pub(crate) fn check(&self) -> io::Result<()> {
        let paths: Vec<PathBuf> = lock(&self.files).keys().cloned().collect();
        paths.iter().try_for_each(|path| {
            self.digest(path)?;
            Ok(())
        })
    }
}

/// The error of a file that is not what it was.
pub(crate) fn changed(path: &Path) -> io::Error {
    io::Error::other(Changed(path.to_owned()))
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_one_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("one");
        let files = FileDigests::default();
        let one = Digest::of(b"one");
        assert_eq!(files.digest(&path).unwrap(), one);
        assert_eq!(files.read(&path, 3).unwrap().unwrap(), b"one");
        assert_eq!(files.read(&path, 2).unwrap(), None);
        files.check().unwrap();
        // Another file with the same content is as good.
        fs::remove_file(&path).unwrap();
        write("one");
        files.check().unwrap();
        write("three");
        let error = files.check().unwrap_err().to_string();
        assert!(error.contains("a changed while the build ran"), "{error}");
        assert!(files.open(&path).is_err() && files.read(&path, 9).is_err());
        assert_eq!(
            FileDigests::default().digest(&path).unwrap(),
            Digest::of(b"three")
        );
        write("one");
        assert_eq!(files.digest(&path).unwrap(), one);
        fs::remove_file(&path).unwrap();
        let error = files.check().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_known_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "one").unwrap();
        let files = FileDigests::default();
        files.digest(&path).unwrap();
        let other = Digest::of(b"other");
        for known in lock(&files.files).values_mut() {
            known.sha256 = other;
        }
        assert_eq!(files.digest(&path).unwrap(), other);
        assert!(files.read(&path, 9).is_err());
        let mount = files.mount(folder.path()).unwrap();
        fs::write(folder.path().join("b"), "two").unwrap();
        assert_eq!(files.mount(folder.path()).unwrap(), mount);
    }
}
