//! What was computed: objects by their own digest, found through the digest of the input.

use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err as fs;
use tempfile::NamedTempFile;

use super::{Store, StoreError, open_if_there, sharded, usage};
use crate::digest::Digest;

/// The longest text of a reference, in bytes.
const REFERENCE_BYTES_MAX: u64 = 200;

/// What publishing looks at: a computation and its input.
#[derive(Clone, Copy, Debug)]
pub struct DerivedKey<'a> {
    /// What was computed, with a version: `deb-data-1`. Letters, digits and `-`.
    pub kind: &'a str,
    /// Digest of all inputs.
    pub input: Digest,
}

/// Which object a computation led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
}

impl Reference {
    fn text(self) -> String {
        format!("sha256:{} {}\n", self.digest, self.size_bytes)
    }

    /// Nothing where the text is damaged: then the object is made again.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (digest, size) = text
            .strip_prefix("sha256:")?
            .strip_suffix('\n')?
            .split_once(' ')?;
        Some(Self {
            digest: digest.parse().ok()?,
            size_bytes: size.parse().ok()?,
        })
    }

    pub(super) fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        let Some(file) = open_if_there(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(REFERENCE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }
}

impl Store {
    fn result_path(&self, key: DerivedKey<'_>) -> PathBuf {
        sharded(&self.root.join("result").join(key.kind), &key.input)
    }

    /// Where an earlier coop kept it.
    fn earlier_path(&self, key: DerivedKey<'_>) -> PathBuf {
        sharded(&self.root.join("derived").join(key.kind), &key.input)
    }

    pub(super) fn object_path(&self, digest: &Digest) -> PathBuf {
        sharded(&self.root.join("object"), digest)
    }

    /// Where the derived object is; nothing may be there.
    ///
    /// # Errors
    /// What the operating system says, other than that it is missing.
    pub fn derived_path(&self, key: DerivedKey<'_>) -> Result<PathBuf, StoreError> {
        let reference = Reference::read(&self.result_path(key))?;
        Ok(match reference {
            Some(reference) => self.object_path(&reference.digest),
            None => self.earlier_path(key),
        })
    }

    /// Opens a derived object, if the store has it. One of another size than it had is set aside.
    ///
    /// # Errors
    /// What the operating system says, other than that it is missing.
    pub fn derived(&self, key: DerivedKey<'_>) -> Result<Option<fs::File>, StoreError> {
        let Some(reference) = Reference::read(&self.result_path(key))? else {
            return self.adopt(key);
        };
        let Some(file) = open_if_there(&self.object_path(&reference.digest))? else {
            return Ok(None);
        };
        if file.metadata()?.len() != reference.size_bytes {
            self.set_aside(key)?;
            return Ok(None);
        }
        usage::touch(&file);
        Ok(Some(file))
    }

    /// Whether the store has a derived object; nothing of it is read.
    #[must_use]
    pub fn has_derived(&self, key: DerivedKey<'_>) -> bool {
        let reference = Reference::read(&self.result_path(key)).ok().flatten();
        let object = reference.map(|reference| self.object_path(&reference.digest));
        object.is_some_and(|path| path.exists()) || self.earlier_path(key).exists()
    }

    /// When the derived object came into the store, in seconds since 1970; its own times tell of
    /// its use.
    ///
    /// # Errors
    /// It is not there.
    pub fn derived_since(&self, key: DerivedKey<'_>) -> std::io::Result<i64> {
        use std::os::unix::fs::MetadataExt as _;
        let found = fs::metadata(self.result_path(key));
        let found = found.or_else(|_| fs::metadata(self.earlier_path(key)))?;
        Ok(found.mtime())
    }

    /// The inputs of all derived objects of a kind, sorted, at most `limit` of them.
    ///
    /// # Errors
    /// The store's folders cannot be read.
    pub fn derived_inputs(&self, kind: &str, limit: usize) -> Result<Vec<Digest>, StoreError> {
        let mut inputs = Vec::new();
        for part in ["result", "derived"] {
            for path in usage::sharded_files(&self.root.join(part).join(kind))? {
                let name = path.file_name().and_then(std::ffi::OsStr::to_str);
                inputs.extend(name.and_then(|name| name.parse::<Digest>().ok()));
            }
        }
        inputs.sort_unstable();
        inputs.dedup();
        inputs.truncate(limit);
        Ok(inputs)
    }

    /// Gives a finished temporary file its place as a derived object, under its digest.
    ///
    /// # Errors
    /// The file cannot be read, flushed or renamed.
    pub fn publish_derived(
        &self,
        file: NamedTempFile,
        key: DerivedKey<'_>,
    ) -> Result<fs::File, StoreError> {
        let reference = reference_of(file.path()).map_err(|error| self.explain(error))?;
        let object = self.place(file, &self.object_path(&reference.digest))?;
        self.refer(key, reference)?;
        Ok(object)
    }

    /// A reference that a power cut takes is a miss, and a half one is none: it is not flushed.
    fn refer(&self, key: DerivedKey<'_>, reference: Reference) -> Result<(), StoreError> {
        let file = self.filled(reference.text().as_bytes())?;
        let placed = self.rename(file, &self.result_path(key));
        placed.map_err(|error| self.explain(error))?;
        Ok(())
    }

    /// Makes an object of what an earlier coop computed.
    fn adopt(&self, key: DerivedKey<'_>) -> Result<Option<fs::File>, StoreError> {
        let path = self.earlier_path(key);
        let Some(file) = open_if_there(&path)? else {
            return Ok(None);
        };
        let reference = reference_of(&path)?;
        let object = self.object_path(&reference.digest);
        if let Some(folder) = object.parent() {
            fs::create_dir_all(folder)?;
        }
        // Where there are no hard links, it stays what it was.
        if object.exists() || fs::hard_link(&path, &object).is_ok() {
            self.refer(key, reference)?;
        }
        Ok(Some(file))
    }

    /// Forgets a derived object that is not what it was, so that it is made again. Its bytes are
    /// kept in the folder `bad`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_aside(&self, key: DerivedKey<'_>) -> Result<(), StoreError> {
        let path = self.result_path(key);
        if let Some(reference) = Reference::read(&path)? {
            let object = self.object_path(&reference.digest);
            self.move_to_bad(&object, "object")?;
        }
        for path in [path, self.earlier_path(key)] {
            remove_if_there(&path)?;
        }
        Ok(())
    }

    /// Forgets a download that is not what it was, so that it is fetched again.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_blob_aside(&self, digest: &Digest) -> Result<(), StoreError> {
        self.move_to_bad(&self.blob_path(digest), "blob")
    }

    pub(super) fn move_to_bad(&self, path: &Path, what: &str) -> Result<(), StoreError> {
        let bad = self.root.join("bad");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let moved = fs::create_dir_all(&bad)
            .and_then(|()| fs::rename(path, bad.join(format!("{what}-{name}"))));
        match moved {
            // Somebody else has done it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| self.explain(error)),
        }
    }

    /// Hashes a derived object. One that is not what it was is set aside.
    ///
    /// # Errors
    /// What the file system says.
    pub fn is_derived_whole(&self, key: DerivedKey<'_>) -> Result<bool, StoreError> {
        let Some(reference) = Reference::read(&self.result_path(key))? else {
            return Ok(true);
        };
        let path = self.object_path(&reference.digest);
        match reference_of(&path) {
            Ok(found) if found == reference => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
            _ => {
                self.set_aside(key)?;
                Ok(false)
            }
        }
    }

    /// Hashes a download. One that is not what it was is set aside.
    ///
    /// # Errors
    /// What the file system says.
    pub fn is_blob_whole(&self, digest: &Digest) -> Result<bool, StoreError> {
        match reference_of(&self.blob_path(digest)) {
            Ok(found) if found.digest == *digest => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
            _ => {
                self.set_blob_aside(digest)?;
                Ok(false)
            }
        }
    }
}

pub(super) fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a file's content is known by.
pub(super) fn reference_of(path: &Path) -> std::io::Result<Reference> {
    Ok(Reference {
        digest: coop_appliance::sha256_of_file(path)?.into(),
        size_bytes: fs::metadata(path)?.len(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::tests::opened;
    use super::*;

    fn key(input: &str) -> DerivedKey<'static> {
        DerivedKey {
            kind: "test-1",
            input: Digest::of(input.as_bytes()),
        }
    }

    fn publish(store: &Store, input: &str, content: &str) -> String {
        let mut file = store.temp_file().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        text(store.publish_derived(file, key(input)).unwrap())
    }

    fn text(mut file: fs::File) -> String {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    fn found(store: &Store, input: &str) -> Option<String> {
        let there = store.has_derived(key(input));
        let found = store.derived(key(input)).unwrap().map(text);
        assert_eq!(there, found.is_some());
        found
    }

    #[test]
    fn results_share_their_objects() {
        let (_folder, store) = opened();
        assert_eq!(found(&store, "a"), None);
        for input in ["a", "b"] {
            assert_eq!(publish(&store, input, "same"), "same");
            assert_eq!(found(&store, input).unwrap(), "same");
        }
        let objects = usage::sharded_files(&store.root.join("object")).unwrap();
        assert_eq!(objects.len(), 1);
        publish(&store, "a", "other");
        assert_eq!(found(&store, "a").unwrap(), "other");
        let inputs = store.derived_inputs("test-1", 10).unwrap();
        assert_eq!(inputs.len(), 2);
        assert_eq!(store.derived_inputs("test-1", 1).unwrap(), inputs[..1]);
    }

    #[test]
    fn what_was_cut_off_is_set_aside() {
        let (_folder, store) = opened();
        publish(&store, "a", "content");
        let path = store.derived_path(key("a")).unwrap();
        fs::write(&path, "conten").unwrap();
        assert!(store.derived(key("a")).unwrap().is_none());
        assert!(!path.exists());
        let bad: Vec<_> = fs::read_dir(store.root.join("bad")).unwrap().collect();
        assert_eq!(bad.len(), 1);
        publish(&store, "a", "content");
        assert_eq!(found(&store, "a").unwrap(), "content");
        // Of the same size, which only hashing tells.
        fs::write(&path, "kontent").unwrap();
        assert_eq!(found(&store, "a").unwrap(), "kontent");
        assert!(!store.is_derived_whole(key("a")).unwrap());
        assert_eq!(found(&store, "a"), None);
    }

    #[test]
    fn damaged_references_are_misses() {
        let (_folder, store) = opened();
        publish(&store, "a", "content");
        let path = store.result_path(key("a"));
        let good = fs::read_to_string(&path).unwrap();
        for bad in ["", "sha256:", &good[1..], &good[..good.len() - 1], "x\n"] {
            fs::write(&path, bad).unwrap();
            assert_eq!(found(&store, "a"), None, "{bad}");
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(found(&store, "a").unwrap(), "content");
    }

    #[test]
    fn what_an_earlier_coop_made_is_used() {
        let (_folder, store) = opened();
        let path = store.earlier_path(key("a"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "earlier").unwrap();
        assert_eq!(store.derived_inputs("test-1", 10).unwrap().len(), 1);
        assert_eq!(found(&store, "a").unwrap(), "earlier");
        fs::remove_file(&path).unwrap();
        assert_eq!(found(&store, "a").unwrap(), "earlier");
    }
}
