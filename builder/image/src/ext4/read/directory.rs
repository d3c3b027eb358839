//! The names in a folder.
//!
//! An index (htree) hides itself from those who read the folder block by block: its root and nodes
//! look like unused entries. So names are read linearly, and the index matters only for its
//! checksums.

use super::ReadError;
use super::inode::Inode;
use super::mapping;
use super::volume::{Volume, as_u64};
use crate::ext4::checksum::{self, Checksum};
use crate::ext4::format::{
    DX_NODE_ENTRIES_OFFSET, DX_ROOT_ENTRIES_OFFSET, DirEntryHead, DirEntryTail, DxCountLimit,
    DxEntry, DxTail, EXT4_FT_DIR_CSUM, file_type, incompat, inode_flags,
};
use crate::tree::Name;

/// A name and what it stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: Name,
    pub(super) inode: u32,
    /// `file_type`, [`file_type::UNKNOWN`] where the file system keeps none.
    pub(super) file_type: u8,
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Names but `.` and `..`, in the folder's order.
    pub(super) names: Vec<Named>,
    /// What `..` stands for.
    pub(super) parent: Option<u32>,
    /// How many blocks it has.
    pub(super) blocks: u64,
}

/// Reads a folder.
pub(super) fn read(volume: &Volume, inode: &Inode) -> Result<Listing, ReadError> {
    let corrupt = |reason: &str| ReadError::corrupt(inode.place(), reason);
    let block_size = as_u64(volume.block_size);
    let size = inode.size();
    if size == 0 || !size.is_multiple_of(block_size) {
        return Err(corrupt("the size of the directory is impossible"));
    }
    let blocks = size / block_size;
    let mut listing = Listing {
        blocks,
        ..Listing::default()
    };
    let mut next = 0_u64;
    for run in mapping::runs(volume, inode)? {
        let hole = || corrupt("the directory has a hole");
        if next >= blocks {
            break;
        }
        let start = run.physical.filter(|_| run.logical == next);
        let start = start.ok_or_else(hole)?;
        for distance in 0..run.length.min(blocks.saturating_sub(next)) {
            let block = volume.block(start.saturating_add(distance))?;
            if let Some(seed) = inode.seed {
                check_checksum(inode, seed, &block, next)?;
            }
            read_block(volume, inode, &block, next == 0, &mut listing)?;
            next = next.saturating_add(1);
        }
    }
    if next < blocks {
        return Err(corrupt("the directory has a hole"));
    }
    Ok(listing)
}

fn check_checksum(
    inode: &Inode,
    seed: Checksum,
    block: &[u8],
    index: u64,
) -> Result<(), ReadError> {
    let place = || format!("{}, directory block {index}", inode.place());
    let matches = if let Some(is_root) = index_node(inode, block, index) {
        let start = if is_root {
            DX_ROOT_ENTRIES_OFFSET
        } else {
            DX_NODE_ENTRIES_OFFSET
        };
        let tail = block
            .get(start..)
            .and_then(DxCountLimit::decode)
            .filter(|counts| counts.count <= counts.limit)
            .and_then(|counts| {
                let length = usize::from(counts.limit).checked_mul(DxEntry::SIZE)?;
                DxTail::decode(block.get(start.checked_add(length)?..)?)
            });
        tail.is_some_and(|tail| {
            checksum::index_block(seed, block, is_root) == Some(tail.dt_checksum)
        })
    } else {
        let start = block.len().saturating_sub(DirEntryTail::SIZE);
        let tail = block.get(start..).and_then(DirEntryTail::decode);
        tail.is_some_and(|tail| {
            tail.det_reserved_zero1 == 0
                && usize::from(tail.det_rec_len) == DirEntryTail::SIZE
                && tail.det_reserved_zero2 == 0
                && tail.det_reserved_ft == EXT4_FT_DIR_CSUM
                && checksum::directory_block(seed, block) == tail.det_checksum
        })
    };
    if !matches {
        return Err(ReadError::checksum(place()));
    }
    Ok(())
}

/// Whether a block is a node of the folder's index (`Some(true)`: its root).
fn index_node(inode: &Inode, block: &[u8], index: u64) -> Option<bool> {
    if !inode.has_flag(inode_flags::INDEX) {
        return None;
    }
    if index == 0 {
        return Some(true);
    }
    let head = DirEntryHead::decode(block)?;
    let spans_all = record_length(head.rec_len, block.len()) == block.len();
    (head.inode == 0 && spans_all).then_some(false)
}

/// Blocks of 64 KiB have records that 16 bits cannot count.
fn record_length(rec_len: u16, block_size: usize) -> usize {
    if block_size < 1 << 16 {
        return usize::from(rec_len);
    }
    if rec_len == 0 || rec_len == u16::MAX {
        return block_size;
    }
    usize::from(rec_len & !3) | (usize::from(rec_len & 3) << 16)
}

fn read_block(
    volume: &Volume,
    inode: &Inode,
    block: &[u8],
    is_first: bool,
    listing: &mut Listing,
) -> Result<(), ReadError> {
    let malformed = || ReadError::corrupt(inode.place(), "the directory is malformed");
    let has_types = volume.superblock.s_feature_incompat & incompat::FILETYPE != 0;
    let mut rest = block;
    let mut index = 0_usize;
    while !rest.is_empty() {
        let head = DirEntryHead::decode(rest).ok_or_else(malformed)?;
        let length = record_length(head.rec_len, block.len());
        let used = DirEntryHead::SIZE.saturating_add(usize::from(head.name_len));
        if !length.is_multiple_of(4) || length < used.next_multiple_of(4) || length > rest.len() {
            return Err(malformed());
        }
        let (record, after) = rest.split_at(length);
        if head.inode != 0 {
            let name = record.get(DirEntryHead::SIZE..used).ok_or_else(malformed)?;
            let dots = match name {
                b"." if is_first && index == 0 => head.inode == inode.number,
                b".." if is_first && index == 1 => {
                    listing.parent = Some(head.inode);
                    true
                }
                b"." | b".." => false,
                _ if is_first && index < 2 => false,
                _ => {
                    listing.names.push(Named {
                        name: name.into(),
                        inode: head.inode,
                        file_type: if has_types {
                            head.file_type
                        } else {
                            file_type::UNKNOWN
                        },
                    });
                    true
                }
            };
            if !dots {
                return Err(malformed());
            }
        }
        rest = after;
        index = index.saturating_add(1);
    }
    Ok(())
}
