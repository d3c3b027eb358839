//! From the root folder to the tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claims::Claims;
use super::content::Builder;
use super::directory::{self, Named};
use super::features::SHARED_BLOCKS;
use super::inline::Inline;
use super::inode::{self, Inode};
use super::mapping;
use super::volume::Volume;
use super::xattr;
use super::{Depth, ReadError};
use crate::ext4::encoding::decode_device;
use crate::ext4::format::{EXT4_ROOT_INO, I_BLOCK_SIZE, compat, file_type, mode};
use crate::tree::{
    Blob, BlobId, Content, Entries, Inode as TreeInode, InodeId, Kind, Metadata, Name,
    SYMLINK_LENGTH_MAX, Tree, TreeError,
};

/// The folder in which `e2fsck` puts what it finds.
const LOST_AND_FOUND: &[u8] = b"lost+found";

struct Walk<'v> {
    volume: &'v Volume,
    tree: Tree,
    image: BlobId,
    /// Inodes that have a place in the tree.
    seen: BTreeMap<u32, InodeId>,
    /// Folders whose names are still to be read.
    pending: Vec<Folder>,
    claims: Claims,
    attributes: xattr::Reader<'v>,
}

struct Folder {
    inode: Inode,
    inline: Option<Inline>,
    id: InodeId,
    parent: u32,
    path: Vec<u8>,
}

/// Builds the tree.
pub(super) fn walk(volume: &Volume, image: Arc<dyn Blob>, depth: Depth) -> Result<Tree, ReadError> {
    let mut claims = Claims::new(volume.blocks_count, &volume.groups.system);
    let superblock = &volume.superblock;
    if superblock.s_feature_compat & compat::HAS_JOURNAL != 0 && superblock.s_journal_inum != 0 {
        let journal = Inode::read(volume, superblock.s_journal_inum)?;
        claims.add_mapping(journal.number, &mapping::read(volume, &journal)?)?;
    }
    let root = Inode::read(volume, EXT4_ROOT_INO)?;
    if !root.is_directory() {
        return Err(ReadError::corrupt(root.place(), "it is no directory"));
    }
    root.check_supported().map_err(|error| error.under(b"/"))?;
    let mut attributes = xattr::Reader::new(volume);
    let found = attributes
        .read(&root, &mut claims)
        .map_err(|error| error.under(b"/"))?;
    let mut tree = Tree::new(Metadata {
        xattrs: found.attributes,
        ..root.metadata()
    });
    let image = tree.add_blob(image)?;
    let mut walk = Walk {
        volume,
        tree,
        image,
        seen: BTreeMap::from([(EXT4_ROOT_INO, InodeId::ROOT)]),
        pending: Vec::new(),
        claims,
        attributes,
    };
    walk.pending.push(Folder {
        inode: root,
        inline: found.inline,
        id: InodeId::ROOT,
        parent: EXT4_ROOT_INO,
        path: Vec::new(),
    });
    while let Some(folder) = walk.pending.pop() {
        walk.read_folder(&folder)
            .map_err(|error| error.under(&folder.path))?;
        if depth == Depth::Top {
            break;
        }
    }
    walk.check_claims()?;
    walk.drop_lost_and_found();
    Ok(walk.tree)
}

impl Walk<'_> {
    fn read_folder(&mut self, folder: &Folder) -> Result<(), ReadError> {
        let listing = if let Some(inline) = &folder.inline {
            directory::read_inline(self.volume, &folder.inode, inline)?
        } else {
            let mapping = mapping::read(self.volume, &folder.inode)?;
            self.claims.add_mapping(folder.inode.number, &mapping)?;
            directory::read(self.volume, &folder.inode, &mapping)?
        };
        if listing.parent != Some(folder.parent) {
            return Err(ReadError::corrupt(
                folder.inode.place(),
                "'..' is not the directory above",
            ));
        }
        for named in listing.names {
            let id = self.add(folder, &named)?;
            match self.tree.link(folder.id, &named.name, id) {
                Err(error @ (TreeError::InvalidName(_) | TreeError::Exists(_))) => {
                    return Err(ReadError::corrupt(folder.inode.place(), error));
                }
                linked => linked?,
            }
        }
        Ok(())
    }

    /// The tree's inode for a name, made where the name is the first.
    fn add(&mut self, folder: &Folder, named: &Named) -> Result<InodeId, ReadError> {
        let Some(id) = self.seen.get(&named.inode).copied() else {
            return self
                .add_new(folder, named)
                .map_err(|error| error.named(&named.name));
        };
        if self.tree.entries(id).is_some() {
            return Err(ReadError::corrupt(
                inode::place(named.inode),
                "the directory has two names",
            )
            .named(&named.name));
        }
        Ok(id)
    }

    fn add_new(&mut self, folder: &Folder, named: &Named) -> Result<InodeId, ReadError> {
        let corrupt = |reason: &str| ReadError::corrupt(inode::place(named.inode), reason);
        if named.inode < self.volume.superblock.s_first_ino {
            return Err(corrupt("a name stands for a reserved inode"));
        }
        let inode = Inode::read(self.volume, named.inode)?;
        if inode.raw.i_links_count == 0 {
            return Err(corrupt("a name stands for a deleted inode"));
        }
        inode.check_supported()?;
        let found = self.attributes.read(&inode, &mut self.claims)?;
        let kind = self.kind(&inode, found.inline.as_ref(), named.file_type)?;
        let metadata = Metadata {
            xattrs: found.attributes,
            ..inode.metadata()
        };
        let id = self.tree.add_inode(TreeInode { metadata, kind })?;
        self.seen.insert(named.inode, id);
        if inode.is_directory() {
            let mut path = folder.path.clone();
            path.push(b'/');
            path.extend_from_slice(&named.name);
            self.pending.push(Folder {
                inode,
                inline: found.inline,
                id,
                parent: folder.inode.number,
                path,
            });
        }
        Ok(id)
    }

    fn kind(
        &mut self,
        inode: &Inode,
        inline: Option<&Inline>,
        named_type: u8,
    ) -> Result<Kind, ReadError> {
        let corrupt = |reason: &str| ReadError::corrupt(inode.place(), reason);
        let expected = match inode.format() {
            mode::S_IFDIR => file_type::DIR,
            mode::S_IFREG => file_type::REG_FILE,
            mode::S_IFLNK => file_type::SYMLINK,
            mode::S_IFIFO => file_type::FIFO,
            mode::S_IFSOCK => file_type::SOCK,
            mode::S_IFCHR => file_type::CHRDEV,
            mode::S_IFBLK => file_type::BLKDEV,
            _ => return Err(corrupt("its file type does not exist")),
        };
        if named_type != file_type::UNKNOWN && named_type != expected {
            return Err(corrupt("the directory has it with another file type"));
        }
        let (major, minor) = device(inode);
        let kind = match expected {
            file_type::DIR => Kind::Directory(Entries::new()),
            file_type::REG_FILE => Kind::File(self.content(inode, inline)?),
            file_type::SYMLINK => Kind::Symlink(self.target(inode, inline)?),
            _ if inline.is_some() => return Err(corrupt("it has content and cannot have any")),
            file_type::FIFO => Kind::Fifo,
            file_type::SOCK => Kind::Socket,
            file_type::CHRDEV => Kind::CharDevice { major, minor },
            _ => Kind::BlockDevice { major, minor },
        };
        Ok(kind)
    }

    fn content(&mut self, inode: &Inode, inline: Option<&Inline>) -> Result<Content, ReadError> {
        let size = inode.size();
        if i64::try_from(size).is_err() {
            return Err(ReadError::corrupt(inode.place(), "its size is impossible"));
        }
        let builder = Builder {
            volume: self.volume,
            tree: &mut self.tree,
            image: self.image,
            size,
        };
        if let Some(inline) = inline {
            return builder.inline(inode, inline);
        }
        let mapping = mapping::read(self.volume, inode)?;
        if self.volume.has_ro_compat(SHARED_BLOCKS) {
            for block in &mapping.own {
                self.claims.add(inode.number, *block, 1)?;
            }
        } else {
            self.claims.add_mapping(inode.number, &mapping)?;
        }
        builder.mapped(&mapping)
    }

    fn target(&mut self, inode: &Inode, inline: Option<&Inline>) -> Result<Name, ReadError> {
        let corrupt = |reason: &str| ReadError::corrupt(inode.place(), reason);
        let length = usize::try_from(inode.size())
            .ok()
            .filter(|length| (1..=SYMLINK_LENGTH_MAX).contains(length))
            .ok_or_else(|| corrupt("the length of the link target is impossible"))?;
        let target = if let Some(inline) = inline {
            inline.parts(inode).concat()
        } else if inode.is_fast_symlink(self.volume) {
            // One byte of the 60 is left for a NUL.
            if length >= I_BLOCK_SIZE {
                return Err(corrupt("the length of the link target is impossible"));
            }
            inode.raw.i_block[..length].to_vec()
        } else {
            let mapping = mapping::read(self.volume, inode)?;
            self.claims.add_mapping(inode.number, &mapping)?;
            mapping.content(self.volume, inode)?
        };
        if target.len() != length || target.contains(&0) {
            return Err(corrupt("the link target is cut short"));
        }
        Ok(target.into())
    }

    /// No block may belong to two.
    fn check_claims(&mut self) -> Result<(), ReadError> {
        let Some(conflict) = self.claims.conflict() else {
            return Ok(());
        };
        let error = conflict.error();
        let path = self.seen.get(&conflict.inode).and_then(|id| {
            let paths = self.tree.paths();
            paths.into_iter().find(|(_, found)| found == id)
        });
        Err(match path {
            Some((path, _)) => error.named(&path),
            None => error,
        })
    }

    /// Drops `/lost+found` as every new image has it: empty and only root's.
    fn drop_lost_and_found(&mut self) {
        let Some(id) = self.tree.child(InodeId::ROOT, LOST_AND_FOUND) else {
            return;
        };
        let found = self.tree.inode(id);
        let metadata = &found.metadata;
        let is_root_s = (metadata.uid, metadata.gid, metadata.mode) == (0, 0, 0o700);
        let is_empty = matches!(&found.kind, Kind::Directory(entries) if entries.is_empty());
        if is_root_s && is_empty && metadata.xattrs.is_empty() {
            // It exists, so it can be removed.
            let _ = self.tree.unlink(InodeId::ROOT, LOST_AND_FOUND);
        }
    }
}

fn device(inode: &Inode) -> (u32, u32) {
    let word = |at: usize| {
        let bytes = inode
            .raw
            .i_block
            .get(at..)
            .and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    decode_device([word(0), word(4)])
}
