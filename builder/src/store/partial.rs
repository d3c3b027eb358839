//! Downloads under way that outlive their process, so that the next one goes on with them.
//!
//! ```text
//! ROOT/v1/partial/ab/abcd…    the beginning of the blob with this digest, as somebody sent it
//! ```
//!
//! Nobody believes what lies there: whoever goes on hashes it first. One process at a time has such
//! a file, by a lock; another one that wants the same blob meanwhile makes a file of its own.

use std::io::{Seek, SeekFrom};
use std::path::PathBuf;

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use tempfile::{NamedTempFile, TempPath};

use super::{Store, StoreError, sharded};
use crate::digest::Digest;

/// The beginning of a blob. Dropping it leaves what it has for the next process, unless nobody else
/// could find it.
#[derive(Debug)]
pub struct PartialBlob {
    file: std::fs::File,
    place: Place,
    digest: Digest,
}

#[derive(Debug)]
enum Place {
    /// Where the next process looks.
    Kept(PathBuf),
    /// A file of this process alone.
    Own(TempPath),
}

impl Store {
    /// Opens what there is of a blob, at its beginning; an empty file where there is nothing.
    ///
    /// # Errors
    /// The folder is not writable, or full.
    pub fn partial(&self, digest: &Digest) -> Result<PartialBlob, StoreError> {
        let path = sharded(&self.root().join("partial"), digest);
        let opened = (|| {
            fs::create_dir_all(path.parent().unwrap_or(self.root()))?;
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(&path)
        })();
        let file = opened.map_err(|error| self.explain(error))?.into_parts().0;
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        // Whoever had it may have given it its final name before it was locked.
        let is_there = || {
            let same = |other: std::fs::Metadata| {
                use std::os::unix::fs::MetadataExt;
                file.metadata().is_ok_and(|own| own.ino() == other.ino())
            };
            fs::symlink_metadata(&path).is_ok_and(same)
        };
        if locked.is_ok() && is_there() {
            return Ok(PartialBlob {
                file,
                place: Place::Kept(path),
                digest: *digest,
            });
        }
        let (file, path) = self.temp_file()?.into_parts();
        Ok(PartialBlob {
            file,
            place: Place::Own(path),
            digest: *digest,
        })
    }

    /// Gives a blob whose bytes the caller has hashed its place.
    ///
    /// # Errors
    /// The file cannot be flushed or renamed.
    pub fn publish_partial(&self, partial: PartialBlob) -> Result<fs::File, StoreError> {
        let path = match partial.place {
            Place::Kept(path) => {
                TempPath::try_from_path(path).map_err(|error| self.explain(error))?
            }
            Place::Own(path) => path,
        };
        let file = NamedTempFile::from_parts(partial.file, path);
        self.publish(file, &partial.digest)
    }
}

impl PartialBlob {
    /// Its bytes.
    pub fn file(&mut self) -> &mut std::fs::File {
        &mut self.file
    }

    /// Lets go of all that is there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn clear(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::tests::opened;
    use super::*;

    #[test]
    fn the_next_process_goes_on() {
        let (_folder, store) = opened();
        let digest = Digest::of(b"hello");
        let mut first = store.partial(&digest).unwrap();
        first.file().write_all(b"he").unwrap();
        let mut other = store.partial(&digest).unwrap();
        other.file().write_all(b"hello").unwrap();
        drop(first);
        let mut second = store.partial(&digest).unwrap();
        let mut text = String::new();
        second.file().read_to_string(&mut text).unwrap();
        assert_eq!(text, "he");
        second.clear().unwrap();
        second.file().write_all(b"hello").unwrap();
        for partial in [other, second] {
            let mut file = store.publish_partial(partial).unwrap();
            text.clear();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
        assert_eq!(
            store
                .partial(&digest)
                .unwrap()
                .file()
                .metadata()
                .unwrap()
                .len(),
            0
        );
        let listed = store.entries().unwrap();
        let kinds: Vec<&str> = listed.iter().map(|entry| entry.kind.as_str()).collect();
        assert!(
            kinds.contains(&"download") && kinds.contains(&"partial"),
            "{kinds:?}"
        );
        assert!(store.verify(&|_| {}).unwrap().bad.is_empty());
    }
}
