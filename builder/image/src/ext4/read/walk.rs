//! From the root folder to the tree.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::ReadError;
use super::directory::{self, Named};
use super::inode::{self, Inode};
use super::mapping::{self, Run};
use super::volume::{Replacement, Volume, as_u64};
use super::xattr;
use crate::ext4::encoding::decode_device;
use crate::ext4::format::{EXT4_ROOT_INO, I_BLOCK_SIZE, file_type, mode};
use crate::tree::{
    Blob, BlobId, Content, Entries, Inode as TreeInode, InodeId, Kind, Metadata, Name,
    SYMLINK_LENGTH_MAX, Segment, Tree, TreeError,
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
    /// Blocks of files and folders met so far.
    blocks: u64,
}

struct Folder {
    inode: Inode,
    id: InodeId,
    parent: u32,
    path: Vec<u8>,
}

/// Builds the tree of everything that has a name.
pub(super) fn walk(volume: &Volume, image: Arc<dyn Blob>) -> Result<Tree, ReadError> {
    let root = Inode::read(volume, EXT4_ROOT_INO)?;
    if !root.is_directory() {
        return Err(ReadError::corrupt(root.place(), "it is no directory"));
    }
    root.check_supported().map_err(|error| error.under(b"/"))?;
    let mut tree = Tree::new(metadata(volume, &root)?);
    let image = tree.add_blob(image)?;
    let mut walk = Walk {
        volume,
        tree,
        image,
        seen: BTreeMap::from([(EXT4_ROOT_INO, InodeId::ROOT)]),
        pending: Vec::new(),
        blocks: 0,
    };
    walk.pending.push(Folder {
        inode: root,
        id: InodeId::ROOT,
        parent: EXT4_ROOT_INO,
        path: Vec::new(),
    });
    while let Some(folder) = walk.pending.pop() {
        walk.read_folder(&folder)
            .map_err(|error| error.under(&folder.path))?;
    }
    walk.drop_lost_and_found();
    Ok(walk.tree)
}

fn metadata(volume: &Volume, inode: &Inode) -> Result<Metadata, ReadError> {
    Ok(Metadata {
        xattrs: xattr::read(volume, inode)?,
        ..inode.metadata()
    })
}

impl Walk<'_> {
    fn read_folder(&mut self, folder: &Folder) -> Result<(), ReadError> {
        let listing = directory::read(self.volume, &folder.inode)?;
        self.count_blocks(&folder.inode, listing.blocks)?;
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

    /// Blocks are not shared, so all files and folders together have no more than the image.
    fn count_blocks(&mut self, inode: &Inode, blocks: u64) -> Result<(), ReadError> {
        self.blocks = self.blocks.saturating_add(blocks);
        if self.blocks > self.volume.blocks_count {
            return Err(ReadError::corrupt(
                inode.place(),
                "files and directories have more blocks than the image",
            ));
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
            ));
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
        let kind = self.kind(&inode, named.file_type)?;
        let metadata = metadata(self.volume, &inode)?;
        let is_directory = inode.is_directory();
        let id = self.tree.add_inode(TreeInode { metadata, kind })?;
        self.seen.insert(named.inode, id);
        if is_directory {
            let mut path = folder.path.clone();
            path.push(b'/');
            path.extend_from_slice(&named.name);
            self.pending.push(Folder {
                inode,
                id,
                parent: folder.inode.number,
                path,
            });
        }
        Ok(id)
    }

    fn kind(&mut self, inode: &Inode, named_type: u8) -> Result<Kind, ReadError> {
        let corrupt = |reason: &str| ReadError::corrupt(inode.place(), reason);
        let (expected, kind) = match inode.format() {
            mode::S_IFDIR => (file_type::DIR, Kind::Directory(Entries::new())),
            mode::S_IFREG => (file_type::REG_FILE, Kind::File(self.content(inode)?)),
            mode::S_IFLNK => (file_type::SYMLINK, Kind::Symlink(self.target(inode)?)),
            mode::S_IFIFO => (file_type::FIFO, Kind::Fifo),
            mode::S_IFSOCK => (file_type::SOCK, Kind::Socket),
            mode::S_IFCHR => {
                let (major, minor) = device(inode);
                (file_type::CHRDEV, Kind::CharDevice { major, minor })
            }
            mode::S_IFBLK => {
                let (major, minor) = device(inode);
                (file_type::BLKDEV, Kind::BlockDevice { major, minor })
            }
            _ => return Err(corrupt("its file type does not exist")),
        };
        if named_type != file_type::UNKNOWN && named_type != expected {
            return Err(corrupt("the directory has it with another file type"));
        }
        Ok(kind)
    }

    fn content(&mut self, inode: &Inode) -> Result<Content, ReadError> {
        let size = inode.size();
        if i64::try_from(size).is_err() {
            return Err(ReadError::corrupt(inode.place(), "its size is impossible"));
        }
        let mut segments = Vec::new();
        for run in mapping::runs(self.volume, inode)? {
            if run.physical.is_some() {
                self.count_blocks(inode, run.length)?;
            }
            self.push_segments(run, size, &mut segments)?;
        }
        Ok(Content {
            size,
            segments: segments.into(),
        })
    }

    /// Segments of one run, without what is beyond the file's end, and with blocks that the
    /// journal has in a newer version taken from there.
    fn push_segments(
        &mut self,
        run: Run,
        size: u64,
        segments: &mut Vec<Segment>,
    ) -> Result<(), ReadError> {
        let Some(start) = run.physical else {
            return Ok(());
        };
        let end = start.saturating_add(run.length);
        let range = (Bound::Included(start), Bound::Excluded(end));
        let replaced: Vec<(u64, Replacement)> = self
            .volume
            .replaced
            .range(range)
            .map(|(block, replacement)| (*block, *replacement))
            .collect();
        let mut next = start;
        for (block, replacement) in replaced {
            self.push_blocks(run, next, block, next, size, segments);
            next = block.saturating_add(1);
            if replacement.escaped {
                self.push_escaped(run, block, size, segments)?;
            } else {
                self.push_blocks(run, block, next, replacement.block, size, segments);
            }
        }
        self.push_blocks(run, next, end, next, size, segments);
        Ok(())
    }

    /// Adds the run's blocks from `from` to `to`, whose bytes are at block `at` of the image.
    fn push_blocks(
        &self,
        run: Run,
        from: u64,
        to: u64,
        at: u64,
        size: u64,
        segments: &mut Vec<Segment>,
    ) {
        let Some((offset, length)) = self.extent_in_file(run, from, to, size) else {
            return;
        };
        let blob_offset = at.saturating_mul(as_u64(self.volume.block_size));
        if let Some(last) = segments.last_mut()
            && last.blob == self.image
            && last.offset.saturating_add(last.length) == offset
            && last.blob_offset.saturating_add(last.length) == blob_offset
        {
            last.length = last.length.saturating_add(length);
            return;
        }
        segments.push(Segment {
            offset,
            length,
            blob: self.image,
            blob_offset,
        });
    }

    /// A block of the journal that begins with the journal's magic is stored without it.
    fn push_escaped(
        &mut self,
        run: Run,
        block: u64,
        size: u64,
        segments: &mut Vec<Segment>,
    ) -> Result<(), ReadError> {
        let next = block.saturating_add(1);
        if let Some((offset, length)) = self.extent_in_file(run, block, next, size) {
            let bytes = self.volume.block(block)?.to_vec();
            let blob = self.tree.add_blob(Arc::new(bytes))?;
            segments.push(Segment {
                offset,
                length,
                blob,
                blob_offset: 0,
            });
        }
        Ok(())
    }

    /// Offset and length in the file of the run's blocks from `from` to `to`; `None` for nothing.
    fn extent_in_file(&self, run: Run, from: u64, to: u64, size: u64) -> Option<(u64, u64)> {
        let block_size = as_u64(self.volume.block_size);
        let distance = from.checked_sub(run.physical?)?;
        let offset = run.logical.checked_add(distance)?.checked_mul(block_size)?;
        let length = to.checked_sub(from)?.checked_mul(block_size)?;
        let length = length.min(size.saturating_sub(offset));
        (length > 0).then_some((offset, length))
    }

    fn target(&self, inode: &Inode) -> Result<Name, ReadError> {
        let corrupt = |reason: &str| ReadError::corrupt(inode.place(), reason);
        let length = usize::try_from(inode.size())
            .ok()
            .filter(|length| (1..=SYMLINK_LENGTH_MAX).contains(length))
            .ok_or_else(|| corrupt("the length of the link target is impossible"))?;
        let mut target = Vec::with_capacity(length);
        if inode.is_fast_symlink(self.volume) {
            // One byte of the 60 is left for a NUL.
            if length >= I_BLOCK_SIZE {
                return Err(corrupt("the length of the link target is impossible"));
            }
            target.extend_from_slice(&inode.raw.i_block[..length]);
        } else {
            for run in mapping::runs(self.volume, inode)? {
                let expected = as_u64(target.len()) / as_u64(self.volume.block_size);
                let Some(start) = run.physical.filter(|_| run.logical == expected) else {
                    return Err(corrupt("the link target has a hole"));
                };
                for distance in 0..run.length {
                    let left = length.saturating_sub(target.len());
                    if left == 0 {
                        break;
                    }
                    let block = self.volume.block(start.saturating_add(distance))?;
                    target.extend_from_slice(&block[..left.min(block.len())]);
                }
            }
        }
        if target.len() != length || target.contains(&0) {
            return Err(corrupt("the link target is cut short"));
        }
        Ok(target.into())
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
