//! A kernel in memory, wherever it comes from.

use std::collections::BTreeMap;

use coop_image::tree::{Content, Inode, InodeId, Kind, Tree, TreeError};

use super::Target;

/// A file that lies beside the kernel so that it starts on any host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// File name: `ld.so` or the library's soname.
    pub name: String,
    /// The file.
    pub bytes: Vec<u8>,
}

/// A kernel with everything that an appliance takes from it.
#[derive(Debug)]
pub struct KernelFiles {
    /// What it is built for.
    pub target: Target,
    /// `uname -r`.
    pub release: String,
    /// The executable; of a dynamic one the interpreter is relative.
    pub vmlinux: Vec<u8>,
    /// What a boot loader starts (`bzImage`); only [`Target::X86_64`] has one.
    pub boot_image: Option<Vec<u8>>,
    /// Its `.config`.
    pub config: String,
    /// The same without what follows from the rest (`savedefconfig`), where the source is at hand.
    pub minimal_config: Option<String>,
    /// The modules with depmod's files: the root of the tree is what becomes
    /// `/lib/modules/RELEASE`. Absent where the kernel has none.
    pub modules: Option<Tree>,
    /// The loader and the C library; empty for a static kernel.
    pub libraries: Vec<Library>,
}

/// Copies what is in a folder of one tree into a folder of another. Hard links stay such; content
/// is referred to, not copied.
///
/// # Errors
/// A name is there already, or the tree is full.
pub(super) fn graft(
    from: &Tree,
    top: InodeId,
    to: &mut Tree,
    folder: InodeId,
) -> Result<(), TreeError> {
    let mut inodes = BTreeMap::from([(top, folder)]);
    let mut blobs = BTreeMap::new();
    let mut pending = vec![top];
    while let Some(id) = pending.pop() {
        let Some(entries) = from.entries(id) else {
            continue;
        };
        let Some(parent) = inodes.get(&id).copied() else {
            continue;
        };
        for (name, child) in entries {
            let copy = match inodes.get(child) {
                Some(copy) => *copy,
                None => {
                    let copy = copy_inode(from, *child, to, &mut blobs)?;
                    inodes.insert(*child, copy);
                    pending.push(*child);
                    copy
                }
            };
            to.link(parent, name, copy)?;
        }
    }
    Ok(())
}

fn copy_inode(
    from: &Tree,
    id: InodeId,
    to: &mut Tree,
    blobs: &mut BTreeMap<coop_image::tree::BlobId, coop_image::tree::BlobId>,
) -> Result<InodeId, TreeError> {
    let Inode { metadata, kind } = from.inode(id).clone();
    let kind = match kind {
        Kind::Directory(_) => Kind::Directory(BTreeMap::new()),
        Kind::File(content) => {
            let mut segments = content.segments;
            for segment in &mut segments {
                segment.blob = match blobs.get(&segment.blob) {
                    Some(blob) => *blob,
                    None => {
                        let blob = to.add_blob(from.blob(segment.blob).clone())?;
                        blobs.insert(segment.blob, blob);
                        blob
                    }
                };
            }
            Kind::File(Content {
                segments,
                ..content
            })
        }
        other => other,
    };
    to.add_inode(Inode { metadata, kind })
}
