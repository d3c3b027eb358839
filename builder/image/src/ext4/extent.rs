//! Extent trees.

use super::checksum::{self, Checksum};
use super::format::{
    EXT_INIT_MAX_LEN, EXT4_EXT_MAGIC, EXTENT_TAIL_SIZE, Extent, ExtentHeader, ExtentIdx,
    I_BLOCK_SIZE, split_u32, split_u64,
};

/// Entries in `i_block`.
const ROOT_ENTRIES: usize = (I_BLOCK_SIZE - ExtentHeader::SIZE) / Extent::SIZE;

/// A run of blocks of a file, at most [`EXT_INIT_MAX_LEN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockExtent {
    /// First block in the file.
    pub(crate) logical: u32,
    pub(crate) length: u32,
    /// First block in the image.
    pub(crate) start: u64,
}

impl BlockExtent {
    /// Whether `next` continues this extent and both fit one.
    pub(crate) fn absorbs(&self, next: &Self) -> bool {
        self.logical.checked_add(self.length) == Some(next.logical)
            && self.start + u64::from(self.length) == next.start
            && self.length + next.length <= u32::from(EXT_INIT_MAX_LEN)
    }
}

/// Entries in a block of an extent tree.
fn capacity(block_size: usize) -> usize {
    (block_size - ExtentHeader::SIZE) / Extent::SIZE
}

/// How many blocks the tree over so many extents has, the root in the inode not counted.
pub(crate) fn tree_blocks(extents: usize, block_bytes: u64) -> usize {
    let capacity = capacity(usize::try_from(block_bytes).unwrap_or(usize::MAX));
    let mut total = 0;
    let mut level = extents;
    while level > ROOT_ENTRIES {
        level = level.div_ceil(capacity);
        total += level;
    }
    total
}

/// The number of a block of an extent tree, and its bytes.
pub(crate) type TreeBlock = (u64, Vec<u8>);

/// An encoded extent tree.
pub(crate) struct Encoded {
    /// `i_block`.
    pub(crate) root: [u8; I_BLOCK_SIZE],
    pub(crate) blocks: Vec<TreeBlock>,
}

/// Encodes the tree over `extents` with its blocks at `addresses`: leaves first, then level by
/// level. `seed` is that of the inode. `None` where there are not [`tree_blocks`] addresses.
pub(crate) fn encode(
    extents: &[BlockExtent],
    addresses: &[u64],
    block_size: usize,
    seed: Checksum,
) -> Option<Encoded> {
    let capacity = capacity(block_size);
    let mut blocks = Vec::with_capacity(addresses.len());
    let mut addresses = addresses.iter();
    let mut level: Vec<(u32, [u8; Extent::SIZE])> = extents
        .iter()
        .map(|extent| (extent.logical, encode_extent(extent)))
        .collect();
    let mut depth = 0;
    while level.len() > ROOT_ENTRIES {
        let mut above = Vec::with_capacity(level.len().div_ceil(capacity));
        for node in level.chunks(capacity) {
            let address = *addresses.next()?;
            let mut block = vec![0; block_size];
            let covered = ExtentHeader::SIZE + capacity * Extent::SIZE;
            encode_node(node, depth, capacity, &mut block);
            let sum = checksum::extent_block(seed, &block[..covered]);
            block[covered..covered + EXTENT_TAIL_SIZE].copy_from_slice(&sum.to_le_bytes());
            blocks.push((address, block));
            above.push((node[0].0, encode_index(node[0].0, address)));
        }
        level = above;
        depth += 1;
    }
    let mut root = [0; I_BLOCK_SIZE];
    encode_node(&level, depth, ROOT_ENTRIES, &mut root);
    addresses
        .next()
        .is_none()
        .then_some(Encoded { root, blocks })
}

fn encode_node(entries: &[(u32, [u8; Extent::SIZE])], depth: u16, max: usize, node: &mut [u8]) {
    let count = |value| u16::try_from(value).unwrap_or(u16::MAX);
    let header = ExtentHeader {
        eh_magic: EXT4_EXT_MAGIC,
        eh_entries: count(entries.len()),
        eh_max: count(max),
        eh_depth: depth,
        eh_generation: 0,
    };
    node[..ExtentHeader::SIZE].copy_from_slice(&header.encode());
    let places = node[ExtentHeader::SIZE..].chunks_exact_mut(Extent::SIZE);
    for (place, (_, bytes)) in places.zip(entries) {
        place.copy_from_slice(bytes);
    }
}

fn encode_extent(extent: &BlockExtent) -> [u8; Extent::SIZE] {
    let (high, low) = split_u64(extent.start);
    Extent {
        ee_block: extent.logical,
        ee_len: split_u32(extent.length).1,
        ee_start_hi: split_u32(high).1,
        ee_start_lo: low,
    }
    .encode()
}

fn encode_index(logical: u32, address: u64) -> [u8; ExtentIdx::SIZE] {
    let (high, low) = split_u64(address);
    ExtentIdx {
        ei_block: logical,
        ei_leaf_lo: low,
        ei_leaf_hi: split_u32(high).1,
        ei_unused: 0,
    }
    .encode()
}
