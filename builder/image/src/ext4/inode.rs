//! Inodes: encoded whole, with attributes and checksum.

use super::checksum::{self, Checksum};
use super::encoding::{encode_device, encode_time};
use super::error::WriteError;
use super::extent::{self, TreeBlock};
use super::format::{
    EXTRA_ISIZE, I_BLOCK_SIZE, INODE_CHECKSUM_HI_OFFSET, INODE_CHECKSUM_LO_OFFSET, RawInode,
    inode_flags, mode, split_u32, split_u64,
};
use super::layout::{Area, Layout, has_extents};
use super::options::{BlockSize, INODE_SIZE};
use super::scan::Node;
use super::xattr::{self, FindValue};
use crate::tree::{Kind, Metadata};

/// Bytes in the unit of `i_blocks`.
const SECTOR_BYTES: u64 = 512;

/// The fields of an inode that do not follow from its metadata.
pub(crate) struct Fields {
    /// File type, as in `i_mode`.
    pub(crate) file_type: u16,
    pub(crate) links: u32,
    pub(crate) size: u64,
    pub(crate) flags: u32,
    /// Blocks in use, with those of extent tree and attributes.
    pub(crate) blocks: u64,
    pub(crate) attribute_block: u64,
    /// `l_i_version`.
    pub(crate) version: u32,
    pub(crate) i_block: [u8; I_BLOCK_SIZE],
}

/// Writes inode `number` into `place`, which is zero and [`INODE_SIZE`] long. `seed` is that of the
/// inode.
///
/// # Errors
/// Only what the scan refuses.
pub(crate) fn encode(
    metadata: &Metadata,
    fields: &Fields,
    block_size: BlockSize,
    seed: Checksum,
    find: FindValue<'_>,
    place: &mut [u8],
) -> Result<(), WriteError> {
    let times = metadata.times;
    let time = |time| encode_time(time).ok_or(WriteError::Layout("a time out of range"));
    let (modified, modified_extra) = time(times.modified)?;
    let (accessed, accessed_extra) = time(times.accessed)?;
    let (changed, changed_extra) = time(times.changed)?;
    let (created, created_extra) = time(times.created)?;
    let (uid_high, uid) = split_u32(metadata.uid);
    let (gid_high, gid) = split_u32(metadata.gid);
    let (size_high, size_low) = split_u64(fields.size);
    let sectors = fields.blocks * (u64::from(block_size.bytes()) / SECTOR_BYTES);
    let (sectors_high, sectors_low) = split_u64(sectors);
    let (acl_high, acl_low) = split_u64(fields.attribute_block);
    let raw = RawInode {
        i_mode: fields.file_type | metadata.mode,
        i_uid: uid,
        i_size_lo: size_low,
        i_atime: accessed,
        i_ctime: changed,
        i_mtime: modified,
        i_gid: gid,
        i_links_count: split_u32(fields.links).1,
        i_blocks_lo: sectors_low,
        i_flags: fields.flags,
        l_i_version: fields.version,
        i_block: fields.i_block,
        i_file_acl_lo: acl_low,
        i_size_high: size_high,
        l_i_blocks_high: split_u32(sectors_high).1,
        l_i_file_acl_high: split_u32(acl_high).1,
        l_i_uid_high: uid_high,
        l_i_gid_high: gid_high,
        i_extra_isize: EXTRA_ISIZE,
        i_ctime_extra: changed_extra,
        i_mtime_extra: modified_extra,
        i_atime_extra: accessed_extra,
        i_crtime: created,
        i_crtime_extra: created_extra,
        ..RawInode::zeroed()
    };
    place[..RawInode::SIZE].copy_from_slice(&raw.encode());
    if !metadata.xattrs.is_empty() {
        let block_size = usize::try_from(block_size.bytes()).unwrap_or(usize::MAX);
        let split = xattr::split(metadata, block_size)
            .map_err(|_| WriteError::Layout("attributes that do not fit"))?;
        xattr::encode_inline(&split.inline, find, &mut place[RawInode::SIZE..INODE_SIZE]);
    }
    let (high, low) = split_u32(checksum::inode(seed, &place[..INODE_SIZE]));
    place[INODE_CHECKSUM_LO_OFFSET..][..2].copy_from_slice(&low.to_le_bytes());
    place[INODE_CHECKSUM_HI_OFFSET..][..2].copy_from_slice(&high.to_le_bytes());
    Ok(())
}

/// What `i_block` holds, and the blocks behind it that are not content.
pub(crate) struct Map {
    pub(crate) i_block: [u8; I_BLOCK_SIZE],
    pub(crate) flags: u32,
    /// Blocks of the extent tree with their numbers.
    pub(crate) tree: Vec<TreeBlock>,
}

/// Describes an area by extents.
///
/// # Errors
/// Only a fault in the layout.
pub(crate) fn map_area(layout: &Layout, area: &Area, seed: Checksum) -> Result<Map, WriteError> {
    let block_size = usize::try_from(layout.geometry.block_bytes()).unwrap_or(usize::MAX);
    let (extents, addresses) = (layout.extents(area), layout.tree_blocks(area));
    let encoded = extent::encode(extents, addresses, block_size, seed)
        .ok_or(WriteError::Layout("blocks of an extent tree"))?;
    Ok(Map {
        i_block: encoded.root,
        flags: inode_flags::EXTENTS,
        tree: encoded.blocks,
    })
}

/// Fields of a node of the tree, and the blocks of its extent tree.
///
/// # Errors
/// Only a fault in the layout.
pub(crate) fn fields_of(
    node: &Node<'_>,
    layout: &Layout,
    area: &Area,
    seed: Checksum,
) -> Result<(Fields, Vec<TreeBlock>), WriteError> {
    let block_bytes = layout.geometry.block_bytes();
    let mut map = if has_extents(node) {
        map_area(layout, area, seed)?
    } else {
        Map {
            i_block: inline_block(&node.inode.kind)?,
            flags: 0,
            tree: Vec::new(),
        }
    };
    if node.index.is_some() {
        map.flags |= inode_flags::INDEX;
    }
    let (file_type, size) = match &node.inode.kind {
        Kind::Directory(_) => (mode::S_IFDIR, area.blocks * block_bytes),
        Kind::File(content) => (mode::S_IFREG, content.size),
        Kind::Symlink(target) => (
            mode::S_IFLNK,
            u64::try_from(target.len()).unwrap_or(u64::MAX),
        ),
        Kind::CharDevice { .. } => (mode::S_IFCHR, 0),
        Kind::BlockDevice { .. } => (mode::S_IFBLK, 0),
        Kind::Fifo => (mode::S_IFIFO, 0),
        Kind::Socket => (mode::S_IFSOCK, 0),
    };
    let tree_blocks = u64::try_from(map.tree.len()).unwrap_or(u64::MAX);
    let attribute_block = node
        .attribute_block
        .and_then(|at| layout.attribute_blocks.get(usize::try_from(at).ok()?))
        .copied();
    let fields = Fields {
        file_type,
        links: node.links,
        size,
        flags: map.flags,
        blocks: area.blocks
            + tree_blocks
            + u64::from(attribute_block.is_some())
            + u64::from(node.value_blocks),
        attribute_block: attribute_block.unwrap_or(0),
        version: 0,
        i_block: map.i_block,
    };
    Ok((fields, map.tree))
}

/// `i_block` of what has no blocks: a short link target or a device number.
fn inline_block(kind: &Kind) -> Result<[u8; I_BLOCK_SIZE], WriteError> {
    let mut i_block = [0; I_BLOCK_SIZE];
    match kind {
        Kind::Symlink(target) => i_block
            .get_mut(..target.len())
            .ok_or(WriteError::Layout("a short link target"))?
            .copy_from_slice(target),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            let [old, new] =
                encode_device(*major, *minor).ok_or(WriteError::Layout("a device number"))?;
            i_block[..4].copy_from_slice(&old.to_le_bytes());
            i_block[4..8].copy_from_slice(&new.to_le_bytes());
        }
        _ => {}
    }
    Ok(i_block)
}
