//! Trees that steps leave, in the store.
//!
//! A tree is kept as a compact ext4 image without a journal, made by our own writer and read by our
//! own reader: it has a place for everything that a tree has, and content stays in it, so taking it
//! out of the store costs no more than reading its inodes.

use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use coop_image::ext4::{self, Journal, ReadError, WriteError};
use coop_image::tree::{Timestamp, Tree};

use crate::digest::Digest;
use crate::store::{DerivedKey, Store, StoreError};

/// The store's kind of trees.
const TREE_KIND: &str = "tree-1";
/// Identity of every kept image; nobody ever mounts one.
const SEED: [u8; 16] = *b"coop kept tree\0\x01";

/// Why a step's tree cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A file of the host cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The cache has no place for it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be written.
    #[error("the tree that a step left cannot be kept: {0}")]
    Write(#[from] WriteError),
    /// What was just written cannot be read.
    #[error("the tree that a step left cannot be read back: {0}")]
    Read(#[from] ReadError),
}

/// The trees of one build. What it keeps comes to the disk while the build goes on.
#[derive(Debug)]
pub(crate) struct Trees<'s> {
    store: &'s Store,
    /// Nothing is taken from the store, and nothing is kept there.
    is_anew: bool,
    publishing: Mutex<Vec<JoinHandle<Result<(), StoreError>>>>,
}

fn derived(key: Digest) -> DerivedKey<'static> {
    DerivedKey {
        kind: TREE_KIND,
        input: key,
    }
}

impl<'s> Trees<'s> {
    /// Trees of a store.
    #[must_use]
    pub(crate) fn new(store: &'s Store) -> Self {
        Self {
            store,
            is_anew: false,
            publishing: Mutex::default(),
        }
    }

    /// Trees that are made again, whatever the store has.
    #[must_use]
    pub(crate) fn anew(store: &'s Store) -> Self {
        Self {
            is_anew: true,
            ..Self::new(store)
        }
    }

    /// Whether the store has the tree of a step; nothing of it is read.
    #[must_use]
    pub(crate) fn has(&self, key: Digest) -> bool {
        !self.is_anew && self.store.has_derived(derived(key))
    }

    /// Takes a tree out of the store. One that cannot be read is set aside, and is then missing.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn load(&self, key: Digest) -> Result<Option<Tree>, StoreError> {
        if self.is_anew {
            return Ok(None);
        }
        let Some(file) = self.store.derived(derived(key))? else {
            return Ok(None);
        };
        match ext4::read(Arc::new(file.into_parts().0)) {
            Ok(tree) => Ok(Some(tree)),
            Err(_) => {
                self.store.set_aside(derived(key))?;
                Ok(None)
            }
        }
    }

    /// Keeps a tree, and gives it back as every later build will have it.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub(crate) fn keep(&self, key: Digest, tree: &Tree) -> Result<Tree, PlanError> {
        let temp = self.store.temp_file()?;
        let options = ext4::Options {
            journal: Journal::None,
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            ..ext4::Options::new(SEED, SEED, Timestamp::default())
        };
        ext4::write(tree, &options, temp.as_file())?;
        let kept = ext4::read(Arc::new(temp.reopen()?))?;
        if self.is_anew {
            return Ok(kept);
        }
        let store = self.store.clone();
        let publish = move || store.publish_derived(temp, derived(key)).map(|_| ());
        let thread = std::thread::Builder::new()
            .name("coop-keep".into())
            .spawn(publish)?;
        let mut publishing = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        publishing.push(thread);
        Ok(kept)
    }

    /// Waits until everything kept is in the store.
    ///
    /// # Errors
    /// What could not be published; the build has what it needs all the same.
    pub(crate) fn settle(self) -> Result<(), StoreError> {
        let publishing = self
            .publishing
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut result = Ok(());
        for thread in publishing {
            let ended = thread.join();
            let failed = || Err(io::Error::other("a thread that publishes ended").into());
            result = result.and(ended.unwrap_or_else(|_| failed()));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use coop_image::tree::{Content, Inode, InodeId, Kind, Metadata, Times};
    use fs_err as fs;

    use super::*;

    fn sample() -> Tree {
        let mut tree = Tree::new(Metadata {
            mode: 0o755,
            ..Metadata::default()
        });
        let mut metadata = Metadata {
            mode: 0o4711,
            uid: 70_000,
            gid: 5,
            times: Times::all(Timestamp {
                seconds: 1_700_000_000,
                nanoseconds: 123_456_789,
            }),
            ..Metadata::default()
        };
        metadata.xattrs.insert(
            b"security.capability"[..].into(),
            vec![1, 0, 0, 2].into_boxed_slice(),
        );
        let content = tree.add_bytes(vec![7; 100_000]).unwrap();
        let mut put = |name: &[u8], kind: Kind| {
            let id = tree
                .add_inode(Inode {
                    metadata: metadata.clone(),
                    kind,
                })
                .unwrap();
            tree.link(InodeId::ROOT, name, id).unwrap();
            id
        };
        let file = put(b"file", Kind::File(content));
        put(
            b"hole",
            Kind::File(Content {
                size: 1 << 30,
                segments: Box::default(),
            }),
        );
        put(b"link", Kind::Symlink(b"/a/b"[..].into()));
        put(b"pipe", Kind::Fifo);
        put(b"socket", Kind::Socket);
        put(b"null", Kind::CharDevice { major: 1, minor: 3 });
        put(
            b"disk",
            Kind::BlockDevice {
                major: 259,
                minor: 70_000,
            },
        );
        tree.link(InodeId::ROOT, b"hard", file).unwrap();
        tree
    }

    fn assert_same(left: &Tree, right: &Tree) {
        let flat = |tree: &Tree| -> Vec<(Vec<u8>, Metadata, String, Vec<u8>)> {
            let each = |(path, id): (Vec<u8>, InodeId)| {
                let Inode { metadata, kind } = tree.inode(id).clone();
                let content = match &kind {
                    Kind::File(content) if content.size < 1 << 20 => {
                        tree.read_file(id, 1 << 20).unwrap()
                    }
                    _ => Vec::new(),
                };
                let shown = match kind {
                    Kind::File(content) => format!("file of {}", content.size),
                    Kind::Directory(entries) => format!("{:?}", entries.len()),
                    other => format!("{other:?}"),
                };
                (path, metadata, shown, content)
            };
            tree.paths().into_iter().map(each).collect()
        };
        assert_eq!(flat(left), flat(right));
    }

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let trees = Trees::new(&store);
        let key = Digest::of(b"k");
        assert!(!trees.has(key) && trees.load(key).unwrap().is_none());
        let kept = trees.keep(key, &sample()).unwrap();
        assert_same(&kept, &sample());
        trees.settle().unwrap();
        let trees = Trees::new(&store);
        assert!(trees.has(key));
        assert_same(&trees.load(key).unwrap().unwrap(), &sample());
        // Whoever has it keeps it, whatever becomes of the store.
        let found = trees.load(key).unwrap().unwrap();
        fs::remove_dir_all(store.root().join("object")).unwrap();
        assert_same(&found, &sample());
        assert!(trees.load(key).unwrap().is_none());
    }

    /// Damage is found by its checksums or size, or does not matter; nothing panics.
    #[test]
    fn damaged_trees_are_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of(b"k");
        let keep = || {
            let trees = Trees::new(&store);
            trees.keep(key, &sample()).unwrap();
            trees.settle().unwrap();
        };
        keep();
        let path = store.derived_path(derived(key)).unwrap();
        let good = fs::read(&path).unwrap();
        let load = || Trees::new(&store).load(key).unwrap();
        for cut in [0, 1, 1024, 4096, good.len() - 1] {
            fs::write(&path, &good[..cut]).unwrap();
            assert!(load().is_none(), "cut at {cut}");
            assert!(!path.exists());
            keep();
        }
        let mut found = 0;
        for at in (0..good.len().min(1 << 16)).step_by(997) {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            fs::write(&path, &bad).unwrap();
            if load().is_none() {
                found += 1;
                keep();
            }
        }
        assert!(found > 5, "{found}");
    }
}
