//! Block groups: how a number of blocks divides into them, and where their bookkeeping lies.

use super::format::GroupDesc;
use super::options::{BlockSize, GROUPS_PER_FLEX, INODE_SIZE_U32};

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: u64,
    pub(crate) length: u64,
}

impl Run {
    /// The block after the last.
    pub(crate) fn end(self) -> u64 {
        self.start + self.length
    }
}

/// The reserve for a growing table of descriptors suffices for so many times the first size.
const GROWTH_FACTOR: u64 = 1024;
/// A last block group that has fewer blocks than this beyond its own bookkeeping is not made.
const LAST_GROUP_BLOCKS_MIN: u64 = 50;
/// The largest number of blocks. The descriptors of so many groups fit the first.
pub(crate) const BLOCKS_MAX: u64 = 1 << 36;
/// The largest number of blocks with a reserve for a growing table of descriptors: the inode that
/// owns it has block numbers of 32 bits.
const RESIZE_BLOCKS_MAX: u64 = 0xFFFF_FFFF;

/// How a file system divides into block groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) block_size: BlockSize,
    pub(crate) blocks: u64,
    pub(crate) groups: u32,
    pub(crate) inodes_per_group: u32,
    /// Blocks of a group's inode table.
    pub(crate) itable_blocks: u32,
    /// Blocks of the group descriptor table.
    pub(crate) gdt_blocks: u32,
    /// Blocks behind that table into which it may grow.
    pub(crate) reserved_gdt_blocks: u32,
}

impl Geometry {
    /// Divides `blocks` into groups with room for at least `inodes`, with descriptors and their
    /// reserve in at most `gdt_blocks_max` blocks. `None` where ext4 cannot address so much.
    pub(crate) fn new(
        block_size: BlockSize,
        blocks: u64,
        inodes: u64,
        gdt_blocks_max: u64,
    ) -> Option<Self> {
        let bytes = block_size.bytes();
        let per_group = u64::from(bytes) * 8;
        let first = first_data_block(block_size);
        if blocks > BLOCKS_MAX || blocks <= u64::from(first) {
            return None;
        }
        let groups = (blocks - u64::from(first)).div_ceil(per_group);
        let inodes_per_block = bytes / INODE_SIZE_U32;
        let granularity = u64::from(inodes_per_block.max(8));
        let inodes_per_group = inodes.div_ceil(groups).next_multiple_of(granularity);
        if inodes_per_group > per_group || inodes_per_group * groups > u64::from(u32::MAX) {
            return None;
        }
        let inodes_per_group = u32::try_from(inodes_per_group).ok()?;
        let descriptors_per_block = u64::from(bytes) / 64;
        const { assert!(GroupDesc::SIZE == 64) };
        let gdt_blocks = groups.div_ceil(descriptors_per_block);
        let largest = blocks.saturating_mul(GROWTH_FACTOR).min(RESIZE_BLOCKS_MAX);
        let reserved = (largest.max(blocks) - u64::from(first))
            .div_ceil(per_group)
            .div_ceil(descriptors_per_block)
            .min(gdt_blocks_max)
            .saturating_sub(gdt_blocks)
            .min(u64::from(bytes) / 4);
        if gdt_blocks > gdt_blocks_max {
            return None;
        }
        let geometry = Self {
            block_size,
            blocks,
            groups: u32::try_from(groups).ok()?,
            inodes_per_group,
            itable_blocks: inodes_per_group / inodes_per_block,
            gdt_blocks: u32::try_from(gdt_blocks).ok()?,
            reserved_gdt_blocks: u32::try_from(reserved).ok()?,
        };
        let fits = geometry.super_blocks() + 2 + u64::from(geometry.itable_blocks) < per_group;
        fits.then_some(geometry)
    }

    /// Size of a block in bytes.
    pub(crate) fn block_bytes(&self) -> u64 {
        u64::from(self.block_size.bytes())
    }

    /// Blocks in every group but the last.
    pub(crate) fn blocks_per_group(&self) -> u64 {
        self.block_bytes() * 8
    }

    /// The block with which group 0 begins.
    pub(crate) fn first_data_block(&self) -> u32 {
        first_data_block(self.block_size)
    }

    /// All inodes.
    pub(crate) fn inodes(&self) -> u32 {
        self.inodes_per_group * self.groups
    }

    /// The first block of a group.
    pub(crate) fn group_start(&self, group: u32) -> u64 {
        u64::from(self.first_data_block()) + u64::from(group) * self.blocks_per_group()
    }

    /// The block after the last of a group.
    pub(crate) fn group_end(&self, group: u32) -> u64 {
        self.group_start(group + 1).min(self.blocks)
    }

    /// Blocks of superblock, descriptors and their reserve.
    pub(crate) fn super_blocks(&self) -> u64 {
        1 + u64::from(self.gdt_blocks) + u64::from(self.reserved_gdt_blocks)
    }

    /// The run of superblock, descriptors and reserve, in the groups that have one.
    pub(crate) fn super_run(&self, group: u32) -> Option<Run> {
        has_super(group).then(|| Run {
            start: self.group_start(group),
            length: self.super_blocks(),
        })
    }

    /// Blocks that are not for content: boot block, superblocks, descriptors, bitmaps, inode
    /// tables, and the block of the resize inode.
    pub(crate) fn bookkeeping_blocks(&self) -> u64 {
        let supers = (0..self.groups).filter(|group| has_super(*group)).count();
        u64::from(self.first_data_block())
            + u64::try_from(supers).unwrap_or(u64::MAX) * self.super_blocks()
            + u64::from(self.groups) * (2 + u64::from(self.itable_blocks))
            + u64::from(self.reserved_gdt_blocks > 0)
    }

    /// How many blocks a last group of the present size lacks (`Some(short)`), if it does.
    pub(crate) fn last_group_lacks(&self) -> Option<u64> {
        let last = self.groups - 1;
        let present = self.group_end(last) - self.group_start(last);
        let needed = 2
            + u64::from(self.itable_blocks)
            + self.super_run(last).map_or(0, |run| run.length)
            + LAST_GROUP_BLOCKS_MIN;
        (last > 0 && present < needed && present < self.blocks_per_group())
            .then(|| needed - present)
    }

    /// Places bitmaps and inode tables: those of sixteen groups together at the start of the first,
    /// around superblocks and what is `taken` (sorted, merged). They may reach past the end.
    pub(crate) fn place(&self, taken: &[Run]) -> Placement {
        let mut placement = Placement {
            groups: Vec::new(),
            runs: Vec::new(),
        };
        let supers: Vec<Run> = (0..self.groups)
            .filter_map(|group| self.super_run(group))
            .collect();
        let obstacles = merge([supers.iter(), taken.iter()].into_iter().flatten().copied());
        let mut tables = supers;
        let mut at = 0;
        let mut next = 0;
        let mut flex_start = 0;
        while flex_start < self.groups {
            at = self.group_start(flex_start).max(at);
            let flex_end = self.groups.min(flex_start + GROUPS_PER_FLEX);
            let count = flex_end - flex_start;
            let mut take = |length: u32| {
                let length = u64::from(length);
                while let Some(run) = obstacles.get(next).filter(|run| run.start < at + length) {
                    at = run.end().max(at);
                    next += 1;
                }
                let start = at;
                at += length;
                tables.push(Run { start, length });
                start
            };
            let block_bitmaps: Vec<_> = (0..count).map(|_| take(1)).collect();
            let inode_bitmaps: Vec<_> = (0..count).map(|_| take(1)).collect();
            let inode_tables: Vec<_> = (0..count).map(|_| take(self.itable_blocks)).collect();
            for ((block_bitmap, inode_bitmap), inode_table) in block_bitmaps
                .into_iter()
                .zip(inode_bitmaps)
                .zip(inode_tables)
            {
                placement.groups.push(Group {
                    block_bitmap,
                    inode_bitmap,
                    inode_table,
                });
            }
            flex_start = flex_end;
        }
        placement.runs = merge(tables.into_iter());
        placement
    }
}

/// Sorts runs and joins those that touch or overlap; empty ones are left out.
pub(crate) fn merge(runs: impl Iterator<Item = Run>) -> Vec<Run> {
    let mut sorted: Vec<Run> = runs.filter(|run| run.length > 0).collect();
    sorted.sort_unstable_by_key(|run| run.start);
    let mut merged: Vec<Run> = Vec::new();
    for run in sorted {
        match merged.last_mut() {
            Some(last) if run.start <= last.end() => {
                last.length = last.length.max(run.end() - last.start);
            }
            _ => merged.push(run),
        }
    }
    merged
}

fn first_data_block(block_size: BlockSize) -> u32 {
    u32::from(block_size == BlockSize::Kib1)
}

/// Whether a group has a copy of the superblock (`sparse_super`): 0, 1 and the powers of 3, 5, 7.
pub(crate) fn has_super(group: u32) -> bool {
    group <= 1
        || [3, 5, 7].iter().any(|base| {
            let mut power = group;
            while power.is_multiple_of(*base) {
                power /= base;
            }
            power == 1
        })
}

/// The groups with a copy of the superblock among the first `groups`, rising.
pub(crate) fn super_groups(groups: u64) -> Vec<u64> {
    let powers = |base: u64| {
        std::iter::successors(Some(base), move |power| power.checked_mul(base))
            .take_while(move |power| *power < groups)
    };
    let mut found: Vec<u64> = (0..groups.min(2)).collect();
    found.extend([3, 5, 7].into_iter().flat_map(powers));
    found.sort_unstable();
    found
}

/// Where the bookkeeping of one group lies: block numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) block_bitmap: u64,
    pub(crate) inode_bitmap: u64,
    pub(crate) inode_table: u64,
}

/// Where the bookkeeping of all groups lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) groups: Vec<Group>,
    /// Everything that is not content: superblocks, descriptors, bitmaps, tables; sorted, merged.
    pub(crate) runs: Vec<Run>,
}

/// Hands out the blocks between those that are taken, in order, and goes on past the end: whether
/// the file system is large enough shows [`Cursor::into_given`].
#[derive(Debug)]
pub(crate) struct Cursor<'p> {
    ahead: std::slice::Iter<'p, Run>,
    /// The next run that is taken, if any.
    next: Option<Run>,
    at: u64,
    /// Shorter gaps are passed over.
    gap_min: u64,
    /// What was handed out.
    given: Vec<Run>,
}

impl<'p> Cursor<'p> {
    /// `taken` is sorted and merged; gaps of fewer than `gap_min` blocks are passed over.
    pub(crate) fn new(geometry: &Geometry, taken: &'p [Run], gap_min: u64) -> Self {
        let mut ahead = taken.iter();
        Self {
            next: ahead.next().copied(),
            ahead,
            at: u64::from(geometry.first_data_block()),
            gap_min,
            given: Vec::new(),
        }
    }

    /// One to `length` blocks in one run.
    pub(crate) fn take(&mut self, length: u64) -> Run {
        let entered = self.given.last().is_some_and(|run| run.end() == self.at);
        let mut gap_min = if entered { 1 } else { self.gap_min };
        while let Some(run) = self.next.filter(|run| run.start < self.at + gap_min) {
            self.at = run.end().max(self.at);
            self.next = self.ahead.next().copied();
            gap_min = self.gap_min;
        }
        let gap = self.next.map_or(u64::MAX, |run| run.start - self.at);
        let run = Run {
            start: self.at,
            length: length.min(gap),
        };
        self.at = run.end();
        match self.given.last_mut() {
            Some(last) if last.end() == run.start => last.length += run.length,
            _ => self.given.push(run),
        }
        run
    }

    /// Everything that was handed out, in order.
    pub(crate) fn into_given(self) -> Vec<Run> {
        self.given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_are_sparse() {
        let with: Vec<u32> = (0..130).filter(|group| has_super(*group)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
        for groups in [0, 1, 2, 3, 4, 50, 130] {
            let with = (0..groups).filter(|group| has_super(*group));
            let expected: Vec<u64> = with.map(u64::from).collect();
            assert_eq!(super_groups(groups.into()), expected);
        }
    }

    #[test]
    fn bookkeeping_never_overlaps() {
        for block_size in [BlockSize::Kib1, BlockSize::Kib2, BlockSize::Kib4] {
            for blocks in [3000, 8192, 8193, 40_000, 300_000, 1_500_000] {
                for inodes in [16, 5_000, blocks / 4] {
                    let Some(geometry) = Geometry::new(block_size, blocks, inodes, u64::MAX) else {
                        continue;
                    };
                    let placement = geometry.place(&[]);
                    let bookkeeping_end = placement.runs.last().unwrap().end();
                    if bookkeeping_end > blocks {
                        continue;
                    }
                    for pair in placement.runs.windows(2) {
                        assert!(pair[0].end() < pair[1].start);
                    }
                    let mut cursor = Cursor::new(&geometry, &placement.runs, 1);
                    let mut taken = 0;
                    let mut end = 0;
                    while end < bookkeeping_end {
                        let run = cursor.take(777);
                        taken += run.length;
                        end = run.end();
                    }
                    let first = u64::from(geometry.first_data_block());
                    let bookkeeping: u64 = placement.runs.iter().map(|run| run.length).sum();
                    assert_eq!(taken + bookkeeping + first, end);
                }
            }
        }
    }
}
