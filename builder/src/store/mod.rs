//! The content-addressed cache folder.
//!
//! ```text
//! ROOT/v1/blob/ab/abcd…       downloads by their SHA-256, immutable
//! ROOT/v1/partial/ab/abcd…    the beginnings of blobs, which nobody believes (see `partial`)
//! ROOT/v1/object/ab/abcd…     what was computed, by its own SHA-256, immutable
//! ROOT/v1/result/KIND/ab/…    which object an input led to, by the input's digest
//! ROOT/v1/note/KIND/ab/…      small values by the digest of their key, replaceable
//! ROOT/v1/appliance/…         what `coop run RECIPE` boots, by the digest of its inputs
//! ROOT/v1/bad/                what did not have its digest or size any more; nobody reads it
//! ROOT/v1/temp/NAME/          one folder for each running process
//! ROOT/v1/derived/KIND/ab/…   what an earlier coop computed; becomes an object when it is used
//! ```
//!
//! A file gets its final name by fsync and rename, so it is there whole or not at all; several
//! processes may publish the same content, the last rename wins with the same bytes. No lock is
//! needed for that. What a killed process left in its temporary folder is removed by the next one
//! that makes such a folder; that alone looks at locks, and never at locks alone (see `life`).
//!
//! Whatever is opened may be removed meanwhile: its bytes stay as long as it is open. So nothing
//! here opens the same path twice.

mod derived;
mod life;
mod partial;
mod removal;
mod session;
mod usage;
mod verify;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fs_err as fs;
use tempfile::NamedTempFile;

pub use derived::DerivedKey;
pub(crate) use life::is_abandoned;
pub use partial::PartialBlob;
pub use removal::TempFolder;
use session::Session;
pub use usage::{Entry, GcOptions, GcReport, Part};
pub use verify::{VerifyReport, Wrong};

use crate::digest::Digest;

/// Version of the layout, part of every path.
const LAYOUT: &str = "v1";
/// The largest note, in bytes.
const NOTE_BYTES_MAX: u64 = 1 << 20;

/// Why the store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made or written: the host's matter.
    #[error("the cache folder '{}' cannot be used: {source}", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The disk (or quota) is full: the host's matter.
    #[error("no space left in the cache folder '{}'", path.display())]
    Full {
        /// The store's root.
        path: PathBuf,
    },
    /// Some other file operation failed.
    #[error("the cache failed: {0}")]
    Io(#[from] io::Error),
    /// A temporary file does not have the digest that it was to be published under.
    #[error("content for {expected} has the digest {actual}")]
    Mismatch {
        /// What was asked for.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
    },
}

/// The cache folder, shared by any number of threads and processes.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    session: Arc<OnceLock<Session>>,
}

impl Store {
    /// Opens the store below `root`, making the folder if it is missing.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the folder cannot be made.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let unusable = |source| StoreError::Unusable {
            path: root.to_owned(),
            source,
        };
        let absolute = std::path::absolute(root).map_err(unusable)?;
        let versioned = absolute.join(LAYOUT);
        fs::create_dir_all(&versioned).map_err(unusable)?;
        Ok(Self {
            root: versioned,
            session: Arc::default(),
        })
    }

    /// The folder with the layout's version in it.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the blob with this digest is or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        sharded(&self.root.join("blob"), digest)
    }

    /// Opens a blob, if the store has it.
    ///
    /// # Errors
    /// What the operating system says, other than that it is missing.
    pub fn blob(&self, digest: &Digest) -> Result<Option<fs::File>, StoreError> {
        let file = open_if_there(&self.blob_path(digest))?;
        Ok(file.inspect(usage::touch))
    }

    /// A temporary file on the store's file system; it vanishes when dropped.
    ///
    /// # Errors
    /// The folder is not writable, or full.
    pub fn temp_file(&self) -> Result<NamedTempFile, StoreError> {
        NamedTempFile::new_in(self.session()?).map_err(|error| self.explain(error))
    }

    /// A temporary folder on the store's file system; it vanishes when dropped.
    ///
    /// # Errors
    /// The folder is not writable, or full.
    pub fn temp_folder(&self) -> Result<TempFolder, StoreError> {
        TempFolder::new_in(self.session()?).map_err(|error| self.explain(error))
    }

    /// Gives a finished temporary file its place as a blob. The caller has hashed what it wrote.
    ///
    /// # Errors
    /// The file cannot be flushed or renamed.
    pub fn publish(&self, file: NamedTempFile, digest: &Digest) -> Result<fs::File, StoreError> {
        self.place(file, &self.blob_path(digest))
    }

    /// Stores bytes as a blob and says which digest they have.
    ///
    /// # Errors
    /// The folder is not writable, or full.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.blob(&digest)?.is_none() {
            self.publish(self.filled(bytes)?, &digest)?;
        }
        Ok(digest)
    }

    /// A small value that was remembered under a key.
    ///
    /// # Errors
    /// What the operating system says, other than that it is missing.
    pub fn note(&self, kind: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut file) = open_if_there(&self.note_path(kind, key))? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(&mut file, NOTE_BYTES_MAX), &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Remembers a small value under a key, in place of an earlier one.
    ///
    /// # Errors
    /// The folder is not writable, or full.
    pub fn put_note(&self, kind: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.place(self.filled(value)?, &self.note_path(kind, key))?;
        Ok(())
    }

    /// Makes "no space" a sentence of its own.
    #[must_use]
    pub fn explain(&self, error: io::Error) -> StoreError {
        let path = self.root.clone();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::Unusable {
                    path,
                    source: error,
                }
            }
            _ => StoreError::Io(error),
        }
    }

    fn note_path(&self, kind: &str, key: &str) -> PathBuf {
        let digest = Digest::of(key.as_bytes());
        sharded(&self.root.join("note").join(kind), &digest)
    }

    fn filled(&self, bytes: &[u8]) -> Result<NamedTempFile, StoreError> {
        let mut file = self.temp_file()?;
        file.write_all(bytes).map_err(|error| self.explain(error))?;
        Ok(file)
    }

    /// Flush, make the folder, rename, and give back the handle, which reads from the start.
    fn place(&self, file: NamedTempFile, path: &Path) -> Result<fs::File, StoreError> {
        let result = (|| {
            file.as_file().sync_all()?;
            let placed = self.rename(file, path)?;
            // The name itself must survive a power cut too.
            fs::File::open(path.parent().unwrap_or(&self.root))?.sync_all()?;
            Ok(placed)
        })();
        result.map_err(|error| self.explain(error))
    }

    /// As `place`, for what is no loss when the power fails.
    fn rename(&self, file: NamedTempFile, path: &Path) -> io::Result<fs::File> {
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        let mut placed = file.persist(path).map_err(|error| error.error)?;
        io::Seek::rewind(&mut placed)?;
        Ok(fs::File::from_parts(placed, path))
    }

    fn session(&self) -> Result<&Path, StoreError> {
        if let Some(session) = self.session.get() {
            return Ok(session.folder());
        }
        let made = Session::new(&self.root.join("temp")).map_err(|error| self.explain(error))?;
        // Where two threads came here at once, the loser's folder vanishes again.
        Ok(self.session.get_or_init(|| made).folder())
    }
}

fn open_if_there(path: &Path) -> Result<Option<fs::File>, StoreError> {
    match fs::File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn sharded(folder: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    folder.join(&name[..2]).join(name)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use tempfile::TempDir;

    use super::*;

    pub(super) fn opened() -> (TempDir, Store) {
        let folder = TempDir::new().unwrap();
        let store = Store::open(&folder.path().join("cache")).unwrap();
        (folder, store)
    }

    #[test]
    fn blobs_come_back() {
        let (_folder, store) = opened();
        assert!(store.blob(&Digest::of(b"x")).unwrap().is_none());
        let digest = store.put(b"hello").unwrap();
        assert_eq!(store.put(b"hello").unwrap(), digest);
        let mut text = String::new();
        let mut file = store.blob(&digest).unwrap().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn notes_are_replaced() {
        let (_folder, store) = opened();
        assert_eq!(store.note("date", "a/b").unwrap(), None);
        store.put_note("date", "a/b", b"1").unwrap();
        store.put_note("date", "a/b", b"2").unwrap();
        assert_eq!(store.note("date", "a/b").unwrap().unwrap(), b"2");
        assert_eq!(store.note("date", "a/c").unwrap(), None);
    }

    #[test]
    fn an_unusable_folder_is_named() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Store::open(&file.join("cache")).unwrap_err();
        assert!(error.to_string().contains("file/cache"), "{error}");
    }
}
