//! Which blocks an inode has: extent trees, and the block maps of older files.

use std::collections::BTreeSet;

use super::ReadError;
use super::inode::Inode;
use super::volume::{Volume, as_u64};
use crate::ext4::checksum;
use crate::ext4::format::{
    EXT_INIT_MAX_LEN, EXT4_EXT_MAGIC, EXT4_IND_BLOCK, EXT4_MAX_EXTENT_DEPTH, EXTENT_TAIL_SIZE,
    Extent, ExtentHeader, ExtentIdx, inode_flags, join_u32,
};

/// Blocks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First block in the file.
    pub(super) logical: u64,
    /// How many blocks, never zero.
    pub(super) length: u64,
    /// First block in the image; `None` where the blocks are allocated and unwritten, so that
    /// they read as zeroes.
    pub(super) physical: Option<u64>,
}

/// Every run of an inode by rising `logical`, none overlapping, all inside the image.
pub(super) fn runs(volume: &Volume, inode: &Inode) -> Result<Vec<Run>, ReadError> {
    let mut runs = Runs {
        volume,
        inode,
        found: Vec::new(),
        next_logical: 0,
    };
    if inode.has_flag(inode_flags::EXTENTS) {
        runs.extent_node(&inode.raw.i_block, None, u64::from(u32::MAX) + 1)?;
    } else {
        runs.block_map()?;
    }
    Ok(runs.found)
}

struct Runs<'a> {
    volume: &'a Volume,
    inode: &'a Inode,
    found: Vec<Run>,
    /// The first block that the next run may have.
    next_logical: u64,
}

impl Runs<'_> {
    fn corrupt(&self, reason: &str) -> ReadError {
        ReadError::corrupt(self.inode.place(), reason)
    }

    /// Adds a run, joined to the last one where it continues it.
    fn push(&mut self, run: Run, end: u64) -> Result<(), ReadError> {
        let run_end = run.logical.saturating_add(run.length);
        if run.logical < self.next_logical || run_end > end {
            return Err(self.corrupt("its blocks are out of order"));
        }
        if let Some(start) = run.physical
            && !self.volume.has_blocks(start, run.length)
        {
            return Err(self.corrupt("it has blocks outside the image"));
        }
        self.next_logical = run_end;
        if let Some(last) = self.found.last_mut()
            && last.logical.saturating_add(last.length) == run.logical
            && match (last.physical, run.physical) {
                (Some(a), Some(b)) => a.saturating_add(last.length) == b,
                (a, b) => a == b,
            }
        {
            last.length = last.length.saturating_add(run.length);
            return Ok(());
        }
        self.found.push(run);
        Ok(())
    }

    /// One node and what is below it; recursion ends at [`EXT4_MAX_EXTENT_DEPTH`], since each
    /// level must be one less than that above it. Blocks must rise throughout the tree, so no node
    /// can be visited twice.
    fn extent_node(
        &mut self,
        node: &[u8],
        expected_depth: Option<u16>,
        end: u64,
    ) -> Result<(), ReadError> {
        let malformed = |runs: &Self| runs.corrupt("its extent tree is malformed");
        let header = ExtentHeader::decode(node).ok_or_else(|| malformed(self))?;
        let entries_at = |index: usize| {
            let start = ExtentHeader::SIZE.checked_add(index.checked_mul(Extent::SIZE)?)?;
            node.get(start..start.checked_add(Extent::SIZE)?)
        };
        let capacity = node.len().saturating_sub(ExtentHeader::SIZE) / Extent::SIZE;
        if header.eh_magic != EXT4_EXT_MAGIC
            || usize::from(header.eh_max) > capacity
            || header.eh_entries > header.eh_max
            || header.eh_depth > EXT4_MAX_EXTENT_DEPTH
            || expected_depth.is_some_and(|depth| depth != header.eh_depth)
            || (expected_depth.is_some() && header.eh_entries == 0)
        {
            return Err(malformed(self));
        }
        let count = usize::from(header.eh_entries);
        for index in 0..count {
            let entry = entries_at(index).ok_or_else(|| malformed(self))?;
            let Some(child_depth) = header.eh_depth.checked_sub(1) else {
                self.extent(entry, end)?;
                continue;
            };
            let entry = ExtentIdx::decode(entry).ok_or_else(|| malformed(self))?;
            let next = entries_at(index.saturating_add(1))
                .filter(|_| index.saturating_add(1) < count)
                .and_then(ExtentIdx::decode)
                .map_or(end, |next| u64::from(next.ei_block));
            if u64::from(entry.ei_block) < self.next_logical || next > end {
                return Err(malformed(self));
            }
            self.next_logical = u64::from(entry.ei_block);
            let block = join_u32(u32::from(entry.ei_leaf_hi), entry.ei_leaf_lo);
            self.extent_block(block, child_depth, next)?;
        }
        Ok(())
    }

    fn extent_block(&mut self, number: u64, depth: u16, end: u64) -> Result<(), ReadError> {
        if !self.volume.has_blocks(number, 1) {
            return Err(self.corrupt("its extent tree leaves the image"));
        }
        let block = self.volume.block(number)?;
        if let Some(seed) = self.inode.seed {
            let header = ExtentHeader::decode(&block);
            let covered = header.map_or(0, |header| {
                ExtentHeader::SIZE
                    .saturating_add(usize::from(header.eh_max).saturating_mul(Extent::SIZE))
            });
            let stored = block
                .get(covered..covered.saturating_add(EXTENT_TAIL_SIZE))
                .and_then(|bytes| bytes.first_chunk())
                .map(|bytes| u32::from_le_bytes(*bytes));
            let sum = block.get(..covered);
            let sum = sum.map(|covered| checksum::extent_block(seed, covered));
            if stored.is_none() || sum != stored {
                return Err(ReadError::checksum(format!(
                    "{}, extent block {number}",
                    self.inode.place()
                )));
            }
        }
        self.extent_node(&block, Some(depth), end)
    }

    fn extent(&mut self, entry: &[u8], end: u64) -> Result<(), ReadError> {
        let extent = Extent::decode(entry);
        let extent = extent.ok_or_else(|| self.corrupt("its extent tree is malformed"))?;
        let start = join_u32(u32::from(extent.ee_start_hi), extent.ee_start_lo);
        let (length, physical) = match extent.ee_len.checked_sub(EXT_INIT_MAX_LEN) {
            Some(unwritten) if unwritten > 0 => {
                if !self.volume.has_blocks(start, u64::from(unwritten)) {
                    return Err(self.corrupt("it has blocks outside the image"));
                }
                (unwritten, None)
            }
            _ => (extent.ee_len, Some(start)),
        };
        if length == 0 {
            return Err(self.corrupt("it has an extent of no length"));
        }
        let run = Run {
            logical: u64::from(extent.ee_block),
            length: u64::from(length),
            physical,
        };
        self.push(run, end)
    }

    /// Direct, indirect, double and triple indirect blocks.
    fn block_map(&mut self) -> Result<(), ReadError> {
        let pointers = pointers(&self.inode.raw.i_block);
        let blocks = self
            .inode
            .size()
            .div_ceil(as_u64(self.volume.block_size))
            .min(u64::from(u32::MAX));
        let mut visited = BTreeSet::new();
        let mut logical = 0_u64;
        for (index, pointer) in pointers.iter().enumerate() {
            let level = match index.checked_sub(EXT4_IND_BLOCK) {
                None => 0,
                Some(above) => above.saturating_add(1),
            };
            self.map_pointer(*pointer, level, &mut logical, blocks, &mut visited)?;
        }
        Ok(())
    }

    /// One pointer and what is below it; `level` is 3 at most, so recursion is.
    fn map_pointer(
        &mut self,
        pointer: u32,
        level: usize,
        logical: &mut u64,
        blocks: u64,
        visited: &mut BTreeSet<u32>,
    ) -> Result<(), ReadError> {
        let per_block = as_u64(self.volume.block_size / 4);
        let covered = (0..level).fold(1_u64, |covered, _| covered.saturating_mul(per_block));
        if pointer == 0 || *logical >= blocks {
            *logical = logical.saturating_add(covered);
            return Ok(());
        }
        let Some(below) = level.checked_sub(1) else {
            let run = Run {
                logical: *logical,
                length: 1,
                physical: Some(u64::from(pointer)),
            };
            *logical = logical.saturating_add(1);
            return self.push(run, u64::MAX);
        };
        // A map that leads to one of its own blocks again would never end.
        if !visited.insert(pointer) || !self.volume.has_blocks(u64::from(pointer), 1) {
            return Err(self.corrupt("its block map is malformed"));
        }
        let block = self.volume.block(u64::from(pointer))?;
        for pointer in pointers(&block) {
            if *logical >= blocks {
                break;
            }
            self.map_pointer(pointer, below, logical, blocks, visited)?;
        }
        Ok(())
    }
}

fn pointers(bytes: &[u8]) -> Vec<u32> {
    bytes
        .chunks_exact(4)
        .map(|bytes| {
            bytes
                .iter()
                .rev()
                .fold(0, |number, byte| (number << 8) | u32::from(*byte))
        })
        .collect()
}
