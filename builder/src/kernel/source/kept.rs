//! What configuration reads of a source, patched, kept in the store: a plain tar of some ten
//! megabytes, so that the next configuration need not unpack 1.6 GB for it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use coop_image::folder as image_folder;
use coop_image::tar;
use coop_image::tree::{Entries, InodeId, Kind, Times, Timestamp, Tree, TreeError};
use coop_runtime::event::Observer;

use super::SourceError;
use super::folder::Folder;
use crate::digest::Digest;
use crate::store::{DerivedKey, Store};

/// What the store calls it; the number changes with what is in it.
const KIND: &str = "kernel-config-tree-1";
/// The one folder at its top.
const TOP: &[u8] = b"source";
const BUFFER_BYTES: usize = 1 << 18;

fn key(identity: Digest) -> DerivedKey<'static> {
    DerivedKey {
        kind: KIND,
        input: identity,
    }
}

/// The archive, if the store has it.
pub(super) fn find(store: &Store, identity: Digest) -> Result<Option<File>, SourceError> {
    let found = store.derived(key(identity))?;
    Ok(found.map(|file| file.into_parts().0))
}

/// Keeps what is in the folder; the source's time becomes that of its folders.
pub(super) fn put(
    store: &Store,
    identity: Digest,
    folder: &Folder,
    epoch_seconds: i64,
    observer: &dyn Observer,
) -> Result<(), SourceError> {
    if observer.is_cancelled() {
        return Ok(());
    }
    let options = image_folder::Options {
        cross_mounts: false,
        xattrs: false,
        check: Arc::new(|| Ok(())),
    };
    let found = image_folder::read(folder.reopened()?, &options).map_err(io::Error::other)?;
    let tree = below_top(found.tree, epoch_seconds).map_err(io::Error::other)?;
    let mut temp = store.temp_file()?;
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, temp.as_file_mut());
    tar::write(&tree, &mut writer).map_err(|error| match error {
        tar::WriteError::Output(error) => store.explain(error),
        error => io::Error::other(error).into(),
    })?;
    writer.flush().map_err(|error| store.explain(error))?;
    drop(writer);
    store.publish_derived(temp, key(identity))?;
    Ok(())
}

/// The tree in one folder of a new root. Files have their times already; folders and links get the
/// source's.
fn below_top(mut tree: Tree, epoch_seconds: i64) -> Result<Tree, TreeError> {
    for id in tree.ids() {
        let inode = tree.inode_mut(id);
        (inode.metadata.uid, inode.metadata.gid) = (0, 0);
        if !matches!(inode.kind, Kind::File(_)) {
            inode.metadata.times = Times::all(Timestamp::from_seconds(epoch_seconds));
        }
    }
    let root = tree.inode(InodeId::ROOT).clone();
    tree.inode_mut(InodeId::ROOT).kind = Kind::Directory(Entries::new());
    let top = tree.add_inode(root)?;
    tree.link(InodeId::ROOT, TOP, top)?;
    Ok(tree)
}
