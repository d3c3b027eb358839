//! The names in a folder.
//!
//! An index (htree) hides itself from those who read the folder block by block: its root and nodes
//! look like unused entries. So names are read linearly, and the index matters only for its
//! checksums.

use super::ReadError;
use super::inline::Inline;
use super::inode::Inode;
use super::mapping::Mapping;
use super::volume::{Volume, as_u64};
use crate::ext4::checksum::{self, Checksum};
use crate::ext4::format::{
    DX_NODE_ENTRIES_OFFSET, DX_ROOT_ENTRIES_OFFSET, DirEntryHead, DirEntryTail, DxCountLimit,
    DxEntry, DxTail, EXT4_FT_DIR_CSUM, file_type, incompat, inode_flags,
};
use crate::tree::Name;

/// The shortest record: of a name of one byte.
const RECORD_LENGTH_MIN: usize = 12;

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
}

/// Reads a folder that has blocks.
pub(super) fn read(
    volume: &Volume,
    inode: &Inode,
    mapping: &Mapping,
) -> Result<Listing, ReadError> {
    let corrupt = |reason: &str| ReadError::corrupt(inode.place(), reason);
    let block_size = as_u64(volume.block_size);
    let size = inode.size();
    if size == 0 || !size.is_multiple_of(block_size) {
        return Err(corrupt("the size of the directory is impossible"));
    }
    let blocks = size / block_size;
    let mut listing = Listing::default();
    let mut next = 0_u64;
    for run in &mapping.runs {
        if next >= blocks {
            break;
        }
        if !run.written || run.logical != next {
            return Err(corrupt("the directory has a hole"));
        }
        for distance in 0..run.length.min(blocks.saturating_sub(next)) {
            let number = run.physical.saturating_add(distance);
            let block = volume.block(number)?;
            if let Some(seed) = inode.seed {
                check_checksum(inode, seed, &block, next, number)?;
            }
            let place = || format!("{}, directory block {number}", inode.place());
            let area = Area {
                volume,
                bytes: &block,
                dots: (next == 0).then_some(inode.number),
                place: &place,
            };
            area.read(&mut listing)?;
            next = next.saturating_add(1);
        }
    }
    if next < blocks {
        return Err(corrupt("the directory has a hole"));
    }
    Ok(listing)
}

/// Reads a folder whose names are in its inode: the parent's number and names in `i_block`, more
/// names in an attribute, which has none where it is empty.
pub(super) fn read_inline(
    volume: &Volume,
    inode: &Inode,
    inline: &Inline,
) -> Result<Listing, ReadError> {
    let place = || inode.place();
    let mut listing = Listing::default();
    for (index, bytes) in inline.parts(inode).into_iter().enumerate() {
        let bytes = if index == 0 {
            let malformed = || ReadError::corrupt(place(), "the directory is malformed");
            let (parent, names) = bytes.split_first_chunk().ok_or_else(malformed)?;
            listing.parent = Some(u32::from_le_bytes(*parent));
            names
        } else {
            bytes
        };
        let area = Area {
            volume,
            bytes,
            dots: None,
            place: &place,
        };
        area.read(&mut listing)?;
    }
    Ok(listing)
}

fn check_checksum(
    inode: &Inode,
    seed: Checksum,
    block: &[u8],
    index: u64,
    number: u64,
) -> Result<(), ReadError> {
    let place = || format!("{}, directory block {number}", inode.place());
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

/// Bytes that records fill.
struct Area<'a> {
    volume: &'a Volume,
    bytes: &'a [u8],
    /// Where the folder's block begins with `.` and `..`: its inode.
    dots: Option<u32>,
    /// Names the area in messages.
    place: &'a dyn Fn() -> String,
}

impl Area<'_> {
    fn malformed(&self, at: usize, reason: &str) -> ReadError {
        ReadError::corrupt(
            (self.place)(),
            format!("the directory is malformed at byte {at}: {reason}"),
        )
    }

    fn read(&self, listing: &mut Listing) -> Result<(), ReadError> {
        let mut rest = self.bytes;
        let mut index = 0_usize;
        while !rest.is_empty() {
            let at = self.bytes.len().saturating_sub(rest.len());
            let head = DirEntryHead::decode(rest);
            let head = head.ok_or_else(|| self.malformed(at, "a record is cut short"))?;
            let length = record_length(head.rec_len, self.volume.block_size);
            let used = DirEntryHead::SIZE.saturating_add(usize::from(head.name_len));
            if !length.is_multiple_of(4)
                || length < used.next_multiple_of(4).max(RECORD_LENGTH_MIN)
                || length > rest.len()
            {
                let reason = format!("a record has {length} bytes");
                return Err(self.malformed(at, &reason));
            }
            let (record, after) = rest.split_at(length);
            let name = record.get(DirEntryHead::SIZE..used).unwrap_or_default();
            self.read_record(&head, name, index, listing)
                .map_err(|reason| self.malformed(at, reason))?;
            rest = after;
            index = index.saturating_add(1);
        }
        if self.dots.is_some() && listing.parent.is_none() {
            return Err(self.malformed(0, "'..' is missing"));
        }
        Ok(())
    }

    fn read_record(
        &self,
        head: &DirEntryHead,
        name: &[u8],
        index: usize,
        listing: &mut Listing,
    ) -> Result<(), &'static str> {
        match (self.dots, index) {
            (Some(inode), 0) => {
                let is_self = name == b"." && head.inode == inode;
                return is_self
                    .then_some(())
                    .ok_or("'.' is not the directory itself");
            }
            (Some(_), 1) => {
                listing.parent = (name == b".." && head.inode != 0).then_some(head.inode);
                return Ok(());
            }
            _ => {}
        }
        if head.inode == 0 {
            return Ok(());
        }
        if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err("a name is impossible");
        }
        let has_types = self.volume.has_incompat(incompat::FILETYPE);
        listing.names.push(Named {
            name: name.into(),
            inode: head.inode,
            file_type: if has_types {
                head.file_type
            } else {
                file_type::UNKNOWN
            },
        });
        Ok(())
    }
}
