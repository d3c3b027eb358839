//! Directory blocks: one plain block where the names fit, else an index of hashes over leaves.

use super::checksum::{self, Checksum};
use super::format::{
    DX_HASH_HALF_MD4, DX_NODE_ENTRIES_OFFSET, DX_ROOT_ENTRIES_OFFSET, DirEntryHead, DirEntryTail,
    DxCountLimit, DxEntry, DxRootInfo, DxTail, EXT4_FT_DIR_CSUM, file_type,
};
use super::hash::half_md4;
use crate::tree::InodeId;

/// Directory entries begin at multiples of this.
const ENTRY_ALIGN: usize = 4;
/// Bytes that `.` and `..` take together.
const DOTS_SIZE: usize = 24;
/// Bytes that `/lost+found` has at least, so that a repair need not allocate.
pub(crate) const LOST_FOUND_SIZE: u32 = 16 * 1024;

/// A name and what it stands for: an inode of the tree, or the `lost+found` that it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'t> {
    pub(crate) name: &'t [u8],
    pub(crate) id: Option<InodeId>,
}

/// The number and `file_type` of an entry's inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) number: u32,
    pub(crate) file_type: u8,
}

/// What the blocks of one directory need to know of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) number: u32,
    pub(crate) parent: u32,
    /// The checksum seed of the inode.
    pub(crate) seed: Checksum,
}

fn entry_size(name: &[u8]) -> usize {
    (DirEntryHead::SIZE + name.len()).next_multiple_of(ENTRY_ALIGN)
}

/// Whether these names and the dots fit one block.
pub(crate) fn fits_one_block(entries: &[Entry<'_>], block_size: usize) -> bool {
    let names: usize = entries.iter().map(|entry| entry_size(entry.name)).sum();
    DOTS_SIZE + names + DirEntryTail::SIZE <= block_size
}

/// The layout of an indexed directory: block 0 is the root of the index, then inner nodes where
/// there are any, then leaves.
#[derive(Debug)]
pub(crate) struct Index<'t> {
    /// By hash, equal hashes by name.
    entries: Vec<(u32, Entry<'t>)>,
    /// Index in `entries` of the first entry of each leaf.
    leaf_starts: Vec<usize>,
    /// Inner nodes between root and leaves.
    nodes: usize,
}

fn index_limit(block_size: usize, entries_offset: usize) -> usize {
    (block_size - entries_offset - DxTail::SIZE) / DxEntry::SIZE
}

impl<'t> Index<'t> {
    /// Plans the index; `None` where two levels do not suffice.
    pub(crate) fn plan(entries: &[Entry<'t>], seed: [u32; 4], block_size: usize) -> Option<Self> {
        let mut hashed: Vec<_> = entries
            .iter()
            .map(|entry| (half_md4(entry.name, seed), *entry))
            .collect();
        hashed.sort_unstable_by_key(|(hash, entry)| (*hash, entry.name));
        let capacity = block_size - DirEntryTail::SIZE;
        let mut leaf_starts = vec![0];
        let mut used = 0;
        for (at, (_, entry)) in hashed.iter().enumerate() {
            let size = entry_size(entry.name);
            if used + size > capacity {
                leaf_starts.push(at);
                used = 0;
            }
            used += size;
        }
        let root_limit = index_limit(block_size, DX_ROOT_ENTRIES_OFFSET);
        let node_limit = index_limit(block_size, DX_NODE_ENTRIES_OFFSET);
        let nodes = if leaf_starts.len() <= root_limit {
            0
        } else {
            leaf_starts.len().div_ceil(node_limit)
        };
        (nodes <= root_limit).then_some(Self {
            entries: hashed,
            leaf_starts,
            nodes,
        })
    }

    /// How many blocks the directory has.
    pub(crate) fn blocks(&self) -> usize {
        1 + self.nodes + self.leaf_starts.len()
    }

    /// The hash from which on a leaf is responsible; the lowest bit says that the leaf before it
    /// ends with the same hash.
    fn leaf_hash(&self, leaf: usize) -> u32 {
        let start = self.leaf_starts[leaf];
        let hash = self.entries[start].0;
        let continued = start > 0 && self.entries[start - 1].0 == hash;
        hash | u32::from(continued)
    }

    /// Encodes one block of the directory; `block` is all zero.
    pub(crate) fn encode_block(
        &self,
        number: usize,
        directory: &Identity,
        target: &dyn Fn(&Entry<'_>) -> Target,
        block: &mut [u8],
    ) {
        let first_leaf = 1 + self.nodes;
        if number == 0 {
            self.encode_root(directory, block);
        } else if number < first_leaf {
            self.encode_node(number - 1, directory, block);
        } else {
            let leaf = number - first_leaf;
            let start = self.leaf_starts[leaf];
            let end = self.leaf_starts.get(leaf + 1).copied();
            let entries = &self.entries[start..end.unwrap_or(self.entries.len())];
            let entries = entries.iter().map(|(_, entry)| (entry.name, target(entry)));
            encode_leaf(entries, directory, block);
        }
    }

    fn encode_root(&self, directory: &Identity, block: &mut [u8]) {
        let rest = block.len() - DOTS_SIZE / 2;
        put_entry(block, 0, DOTS_SIZE / 2, b".", directory.itself());
        put_entry(block, DOTS_SIZE / 2, rest, b"..", directory.above());
        let info = DxRootInfo {
            reserved_zero: 0,
            hash_version: DX_HASH_HALF_MD4,
            info_length: 8,
            indirect_levels: u8::from(self.nodes > 0),
            unused_flags: 0,
        };
        block[DOTS_SIZE..DX_ROOT_ENTRIES_OFFSET].copy_from_slice(&info.encode());
        let node_limit = index_limit(block.len(), DX_NODE_ENTRIES_OFFSET);
        if self.nodes == 0 {
            let children = (0..self.leaf_starts.len()).map(|leaf| (self.leaf_hash(leaf), 1 + leaf));
            encode_index(children, true, directory, block);
        } else {
            let children =
                (0..self.nodes).map(|node| (self.leaf_hash(node * node_limit), 1 + node));
            encode_index(children, true, directory, block);
        }
    }

    fn encode_node(&self, node: usize, directory: &Identity, block: &mut [u8]) {
        let head = DirEntryHead {
            rec_len: record_length(block.len()),
            ..DirEntryHead::zeroed()
        };
        block[..DirEntryHead::SIZE].copy_from_slice(&head.encode());
        let limit = index_limit(block.len(), DX_NODE_ENTRIES_OFFSET);
        let first = node * limit;
        let end = (first + limit).min(self.leaf_starts.len());
        let children = (first..end).map(|leaf| (self.leaf_hash(leaf), 1 + self.nodes + leaf));
        encode_index(children, false, directory, block);
    }
}

impl Identity {
    fn itself(&self) -> Target {
        Target {
            number: self.number,
            file_type: file_type::DIR,
        }
    }

    fn above(&self) -> Target {
        Target {
            number: self.parent,
            file_type: file_type::DIR,
        }
    }
}

/// Encodes the entries of an index node: (hash, block); the hash of the first is implied, its place
/// holds limit and count.
fn encode_index(
    children: impl ExactSizeIterator<Item = (u32, usize)>,
    is_root: bool,
    directory: &Identity,
    block: &mut [u8],
) {
    let start = if is_root {
        DX_ROOT_ENTRIES_OFFSET
    } else {
        DX_NODE_ENTRIES_OFFSET
    };
    let limit = index_limit(block.len(), start);
    let counts = DxCountLimit {
        limit: u16::try_from(limit).unwrap_or(u16::MAX),
        count: u16::try_from(children.len()).unwrap_or(u16::MAX),
    };
    for (at, (hash, child)) in children.enumerate() {
        let entry = DxEntry {
            hash,
            block: u32::try_from(child).unwrap_or(u32::MAX),
        };
        let offset = start + at * DxEntry::SIZE;
        block[offset..offset + DxEntry::SIZE].copy_from_slice(&entry.encode());
    }
    block[start..start + DxCountLimit::SIZE].copy_from_slice(&counts.encode());
    let sum = checksum::index_block(directory.seed, block, is_root).unwrap_or(0);
    let tail = DxTail {
        dt_reserved: 0,
        dt_checksum: sum,
    };
    let tail_at = start + limit * DxEntry::SIZE;
    block[tail_at..tail_at + DxTail::SIZE].copy_from_slice(&tail.encode());
}

fn record_length(length: usize) -> u16 {
    // Blocks have at most 4096 bytes.
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn put_entry(block: &mut [u8], at: usize, length: usize, name: &[u8], target: Target) {
    let head = DirEntryHead {
        inode: target.number,
        rec_len: record_length(length),
        name_len: u8::try_from(name.len()).unwrap_or(u8::MAX),
        file_type: target.file_type,
    };
    let name_at = at + DirEntryHead::SIZE;
    block[at..name_at].copy_from_slice(&head.encode());
    block[name_at..name_at + name.len()].copy_from_slice(name);
}

/// Encodes one plain block: entries, the last one stretched to the checksum at the end. Without
/// entries the block has one that is unused.
pub(crate) fn encode_leaf<'n>(
    entries: impl Iterator<Item = (&'n [u8], Target)>,
    directory: &Identity,
    block: &mut [u8],
) {
    let end = block.len() - DirEntryTail::SIZE;
    let mut at = 0;
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        let unused = Target {
            number: 0,
            file_type: file_type::UNKNOWN,
        };
        put_entry(block, 0, end, b"", unused);
    }
    while let Some((name, target)) = entries.next() {
        let length = if entries.peek().is_some() {
            entry_size(name)
        } else {
            end - at
        };
        put_entry(block, at, length, name, target);
        at += length;
    }
    let tail = DirEntryTail {
        det_rec_len: record_length(DirEntryTail::SIZE),
        det_reserved_ft: EXT4_FT_DIR_CSUM,
        det_checksum: checksum::directory_block(directory.seed, block),
        ..DirEntryTail::zeroed()
    };
    block[end..].copy_from_slice(&tail.encode());
}

/// Encodes the first block of a directory without index.
pub(crate) fn encode_first(
    entries: &[Entry<'_>],
    directory: &Identity,
    target: &dyn Fn(&Entry<'_>) -> Target,
    block: &mut [u8],
) {
    let dots = [(&b"."[..], directory.itself()), (b"..", directory.above())];
    let names = entries.iter().map(|entry| (entry.name, target(entry)));
    encode_leaf(dots.into_iter().chain(names), directory, block);
}
