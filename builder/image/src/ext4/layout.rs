//! The plan of a whole image: how large it is and where every block goes. Pure arithmetic.

use std::ops::Range;

use super::error::WriteError;
use super::extent::{self, BlockExtent};
use super::format::EXT_INIT_MAX_LEN;
use super::geometry::{BLOCKS_MAX, Cursor, Geometry, Placement, Run, merge};
use super::jbd2::JBD2_MIN_JOURNAL_BLOCKS;
use super::kept::{Kept, Track};
use super::options::{Inodes, Journal, Options, Size};
use super::scan::{Node, Scan, chunks};
use crate::tree::Kind;

/// After so many corrections the size of an image must have settled.
const ROUNDS_MAX: usize = 256;
/// Up to this many bytes of free space get many inodes under [`Inodes::Auto`].
const DENSE_BYTES: u64 = 128 << 20;
/// Bytes per inode of that free space.
const DENSE_BYTES_PER_INODE: u64 = 4096;
/// Bytes of further free space per inode.
const BYTES_PER_INODE: u64 = 16384;
/// The journal takes no shorter pieces than this between what is placed already, in blocks: what a
/// stream leaves free for descriptors is longer, and filled.
const JOURNAL_PIECE_MIN: u64 = 64;

/// The blocks of one inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Area {
    extents: Range<usize>,
    tree: Range<usize>,
    /// Sum of the extents' lengths.
    pub(crate) blocks: u64,
}

/// Where everything goes.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) geometry: Geometry,
    pub(crate) placement: Placement,
    /// The double indirect block of the resize inode.
    pub(crate) resize_block: Option<u64>,
    pub(crate) journal: Area,
    /// By position of the node.
    pub(crate) areas: Vec<Area>,
    /// By position in the scan's table.
    pub(crate) attribute_blocks: Vec<u64>,
    /// By position in the scan's table of values.
    pub(crate) values: Vec<Area>,
    pub(crate) orphan_file: Area,
    /// All blocks in use, with the boot block; sorted, merged.
    used: Vec<Run>,
    extents: Vec<BlockExtent>,
    tree_blocks: Vec<u64>,
}

impl Layout {
    /// Decides size and places.
    ///
    /// # Errors
    /// What the tree needs does not fit the size, or is more than ext4 can address.
    pub(crate) fn plan(
        scan: &Scan<'_>,
        kept: &Kept,
        options: &Options,
    ) -> Result<Self, WriteError> {
        match options.size {
            Size::Auto {
                free_percent,
                free_bytes_min,
            } => {
                let block_bytes = u64::from(options.block_size.bytes());
                let free = Free {
                    percent: u64::from(free_percent),
                    blocks_min: free_bytes_min.div_ceil(block_bytes),
                };
                plan_auto(scan, kept, options, &free)
            }
            Size::Bytes(bytes) => plan_fixed(scan, kept, options, bytes),
        }
    }

    /// The extents of an area.
    pub(crate) fn extents(&self, area: &Area) -> &[BlockExtent] {
        &self.extents[area.extents.clone()]
    }

    /// The blocks of an area's extent tree.
    pub(crate) fn tree_blocks(&self, area: &Area) -> &[u64] {
        &self.tree_blocks[area.tree.clone()]
    }

    /// Every block of an area in logical order, holes left out.
    pub(crate) fn blocks(&self, area: &Area) -> impl Iterator<Item = u64> {
        self.extents(area)
            .iter()
            .flat_map(|extent| extent.start..extent.start + u64::from(extent.length))
    }

    /// Runs of blocks in use within `from..to`.
    pub(crate) fn used_within(&self, from: u64, to: u64) -> impl Iterator<Item = Run> {
        let first = self.used.partition_point(|run| run.end() <= from);
        self.used[first..]
            .iter()
            .take_while(move |run| run.start < to)
            .map(move |run| {
                let start = run.start.max(from);
                let length = run.end().min(to) - start;
                Run { start, length }
            })
    }

    /// Number of blocks in use within `from..to`.
    pub(crate) fn used_blocks(&self, from: u64, to: u64) -> u64 {
        self.used_within(from, to).map(|run| run.length).sum()
    }

    /// The block after the last in use.
    fn end(&self) -> u64 {
        self.used.last().map_or(0, |run| run.end())
    }

    /// Places the journal and then folders, links and attributes together in front, so that a walk
    /// through all names reads one stretch of the image; then the content of files in the order of
    /// their numbers, unless it stays where it is.
    fn place(scan: &Scan<'_>, kept: &Kept, geometry: Geometry, journal_blocks: u64) -> Self {
        let placement = geometry.place(&kept.taken);
        let taken = merge(placement.runs.iter().chain(&kept.taken).copied());
        let block_bytes = geometry.block_bytes();
        let gap_min = journal_blocks.min(JOURNAL_PIECE_MIN);
        let mut placer = Placer::new(Cursor::new(&geometry, &taken, gap_min), block_bytes);
        let journal = placer.place_whole(journal_blocks);
        let journal_runs = placer.cursor.into_given();
        let taken = merge(taken.iter().chain(&journal_runs).copied());
        let mut placer = Placer {
            cursor: Cursor::new(&geometry, &taken, 1),
            ..placer
        };
        let resize_block = (geometry.reserved_gdt_blocks > 0).then(|| placer.cursor.take(1).start);
        let mut areas = vec![Area::default(); scan.nodes.len()];
        for (node, area) in scan.nodes.iter().zip(&mut areas) {
            if !matches!(node.inode.kind, Kind::File(_)) {
                *area = placer.place_whole(node.blocks);
            }
        }
        let attribute_blocks = scan
            .attribute_blocks
            .iter()
            .map(|_| placer.cursor.take(1).start)
            .collect();
        let values = scan
            .values
            .iter()
            .map(|value| placer.place_whole(scan.value_blocks(value)))
            .collect();
        let orphan_file = placer.place_whole(scan.orphan_blocks);
        let mut places = kept.places();
        for (node, area) in scan.nodes.iter().zip(&mut areas) {
            if let Kind::File(content) = &node.inode.kind {
                let runs = chunks(content, block_bytes)
                    .map(|chunk| (chunk.logical, chunk.blocks, places.next().flatten()));
                *area = placer.place(runs, &kept.track);
            }
        }
        let Placer {
            cursor,
            extents,
            tree_blocks,
            ..
        } = placer;
        let given = cursor.into_given();
        let boot = Run {
            start: 0,
            length: u64::from(geometry.first_data_block()),
        };
        let used = [&placement.runs, &journal_runs, &given, &kept.staying];
        let used = merge(used.into_iter().flatten().copied().chain([boot]));
        Self {
            geometry,
            resize_block,
            journal,
            areas,
            attribute_blocks,
            values,
            orphan_file,
            used,
            extents,
            tree_blocks,
            placement,
        }
    }
}

/// Gives out blocks.
struct Placer<'p> {
    cursor: Cursor<'p>,
    block_bytes: u64,
    extents: Vec<BlockExtent>,
    tree_blocks: Vec<u64>,
}

impl<'p> Placer<'p> {
    fn new(cursor: Cursor<'p>, block_bytes: u64) -> Self {
        Self {
            cursor,
            block_bytes,
            extents: Vec::new(),
            tree_blocks: Vec::new(),
        }
    }

    /// Places so many blocks from the first on.
    fn place_whole(&mut self, blocks: u64) -> Area {
        self.place([(0, blocks, None)].into_iter(), &Track::default())
    }

    /// Places (logical block, count, place on the track where it stays).
    fn place(
        &mut self,
        runs: impl Iterator<Item = (u64, u64, Option<u64>)>,
        track: &Track,
    ) -> Area {
        let first = self.extents.len();
        let mut blocks = 0;
        for (logical, count, place) in runs {
            blocks += count;
            let mut done = 0;
            while done < count {
                let left = count - done;
                let run = match place {
                    Some(place) => track.block(place + done),
                    None => self.cursor.take(left.min(u64::from(EXT_INIT_MAX_LEN))),
                };
                let length = run.length.min(left).min(u64::from(EXT_INIT_MAX_LEN));
                self.add(first, logical + done, Run { length, ..run });
                done += length;
            }
        }
        let tree_first = self.tree_blocks.len();
        let count = self.extents.len() - first;
        for _ in 0..extent::tree_blocks(count, self.block_bytes) {
            self.tree_blocks.push(self.cursor.take(1).start);
        }
        Area {
            extents: first..self.extents.len(),
            tree: tree_first..self.tree_blocks.len(),
            blocks,
        }
    }

    fn add(&mut self, first: usize, logical: u64, run: Run) {
        let extent = BlockExtent {
            // Scan refuses files whose blocks do not fit.
            logical: u32::try_from(logical).unwrap_or(u32::MAX),
            length: u32::try_from(run.length).unwrap_or(u32::MAX),
            start: run.start,
        };
        match self.extents[first..].last_mut() {
            Some(last) if last.absorbs(&extent) => last.length += extent.length,
            _ => self.extents.push(extent),
        }
    }
}

/// Blocks of the journal for a file system of so many (mke2fs's table); the orphan file needs one.
fn journal_blocks(options: &Options, blocks: u64) -> u64 {
    match options.journal {
        Journal::None => 0,
        Journal::Blocks(count) => u64::from(count),
        Journal::Auto => match blocks {
            0..0x800 if !options.orphan_file => 0,
            0..0x800 => u64::from(JBD2_MIN_JOURNAL_BLOCKS),
            0x800..0x8000 => 1024,
            0x8000..0x4_0000 => 4096,
            0x4_0000..0x8_0000 => 8192,
            0x8_0000..0x40_0000 => 16384,
            0x40_0000..0x80_0000 => 32768,
            0x80_0000..0x100_0000 => 65536,
            0x100_0000..0x200_0000 => 131_072,
            _ => 262_144,
        },
    }
}

/// How many inodes a file system of `blocks` shall have of which `free` stay free.
fn inodes(scan: &Scan<'_>, options: &Options, blocks: u64, free: u64) -> u64 {
    let used = u64::from(scan.inodes());
    let block_bytes = u64::from(options.block_size.bytes());
    match options.inodes {
        Inodes::Count(count) => used.max(u64::from(count)),
        Inodes::PerBytes(bytes) => used.max(blocks * block_bytes / u64::from(bytes)),
        Inodes::Auto => {
            let free_bytes = free * block_bytes;
            let dense = free_bytes.min(DENSE_BYTES);
            used + dense / DENSE_BYTES_PER_INODE + (free_bytes - dense) / BYTES_PER_INODE
        }
    }
}

/// What shall stay free.
struct Free {
    percent: u64,
    blocks_min: u64,
}

impl Free {
    /// Of so many blocks.
    fn of(&self, blocks: u64) -> u64 {
        (blocks * self.percent / 100).max(self.blocks_min)
    }

    /// How many blocks there must be where so many are in use.
    fn with(&self, used: u64) -> u64 {
        let by_percent = (used * 100).div_ceil(100 - self.percent);
        by_percent.max(used.saturating_add(self.blocks_min))
    }
}

/// The smallest size at which everything fits and the share is free. Every correction makes the
/// image larger, so it settles at the first size that needs none.
fn plan_auto(
    scan: &Scan<'_>,
    kept: &Kept,
    options: &Options,
    free: &Free,
) -> Result<Layout, WriteError> {
    let too_large = || WriteError::TooLarge {
        block_size_bytes: options.block_size.bytes(),
    };
    let mut tree_blocks = 0;
    let mut blocks = free.with(scan.blocks + 2);
    for _ in 0..ROUNDS_MAX {
        if blocks > BLOCKS_MAX {
            return Err(too_large());
        }
        let inodes = inodes(scan, options, blocks, free.of(blocks));
        let per_group = u64::from(options.block_size.bytes()) * 8;
        // A group's inode bitmap is one block.
        let blocks_for_inodes = (inodes / per_group) * per_group;
        if blocks < blocks_for_inodes {
            blocks = blocks_for_inodes;
            continue;
        }
        let gdt_max = kept.gdt_blocks_max;
        let Some(geometry) = Geometry::new(options.block_size, blocks, inodes, gdt_max) else {
            blocks += per_group;
            continue;
        };
        if let Some(lacks) = geometry.last_group_lacks() {
            blocks += lacks;
            continue;
        }
        let journal = journal_blocks(options, blocks);
        let bookkeeping = geometry.bookkeeping_blocks();
        let needed = free.with(bookkeeping + journal + scan.blocks + tree_blocks);
        if needed > blocks {
            blocks = needed;
            continue;
        }
        let layout = Layout::place(scan, kept, geometry, journal);
        let placed = u64::try_from(layout.tree_blocks.len()).unwrap_or(u64::MAX);
        if placed > tree_blocks {
            tree_blocks = placed;
        } else if layout.end() > blocks {
            blocks = layout.end();
        } else {
            return Ok(layout);
        }
    }
    Err(too_large())
}

/// The largest file system in so many bytes; with fewer inodes where only then everything fits.
fn plan_fixed(
    scan: &Scan<'_>,
    kept: &Kept,
    options: &Options,
    bytes: u64,
) -> Result<Layout, WriteError> {
    let block_bytes = u64::from(options.block_size.bytes());
    let blocks = bytes / block_bytes;
    if blocks > BLOCKS_MAX {
        return Err(WriteError::TooLarge {
            block_size_bytes: options.block_size.bytes(),
        });
    }
    let free = blocks.saturating_sub(scan.blocks + journal_blocks(options, blocks));
    let wanted = inodes(scan, options, blocks, free);
    let mut needed = scan.blocks;
    for inodes in [wanted, u64::from(scan.inodes())] {
        let Some(geometry) = fixed_geometry(options, blocks, inodes, kept.gdt_blocks_max) else {
            continue;
        };
        let (blocks, journal) = (geometry.blocks, journal_blocks(options, geometry.blocks));
        let layout = Layout::place(scan, kept, geometry, journal);
        if layout.end() <= blocks {
            return Ok(layout);
        }
        needed = layout.end();
    }
    Err(WriteError::TooSmall {
        size_bytes: bytes,
        needed: format!(
            "content and bookkeeping need at least {needed} blocks of {block_bytes} bytes and {} inodes",
            scan.inodes()
        ),
    })
}

/// Divides a fixed number of blocks, without a last group that would be too small.
fn fixed_geometry(
    options: &Options,
    blocks: u64,
    inodes: u64,
    gdt_blocks_max: u64,
) -> Option<Geometry> {
    let geometry = Geometry::new(options.block_size, blocks, inodes, gdt_blocks_max)?;
    if geometry.last_group_lacks().is_none() {
        return Some(geometry);
    }
    let shorter = geometry.group_start(geometry.groups - 1);
    Geometry::new(options.block_size, shorter, inodes, gdt_blocks_max)
}

/// Whether an inode's blocks are described by extents.
pub(crate) fn has_extents(node: &Node<'_>) -> bool {
    match node.inode.kind {
        Kind::Directory(_) | Kind::File(_) => true,
        Kind::Symlink(_) => node.blocks > 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::BlockSize;
    use crate::tree::{Content, Entries, Inode, InodeId, Metadata, Timestamp, Tree};

    fn directory() -> Inode {
        Inode {
            metadata: Metadata::default(),
            kind: Kind::Directory(Entries::new()),
        }
    }

    /// A tree of files with so many bytes each.
    fn tree_of(files: u64, size: u64) -> Tree {
        let mut tree = Tree::new(Metadata::default());
        let blob = tree.add_blob(std::sync::Arc::new(Vec::new())).unwrap();
        for at in 0..files {
            let kind = Kind::File(Content::contiguous(blob, 0, size));
            let metadata = Metadata::default();
            let id = tree.add_inode(Inode { metadata, kind }).unwrap();
            let name = format!("file {at}");
            tree.link(InodeId::ROOT, name.as_bytes(), id).unwrap();
        }
        tree
    }

    fn options(block_size: BlockSize, size: Size) -> Options {
        Options {
            block_size,
            size,
            ..Options::new([1; 16], [2; 16], Timestamp::default())
        }
    }

    #[test]
    fn automatic_sizes_settle_near_the_smallest() {
        let lost_found = directory();
        for block_size in [BlockSize::Kib1, BlockSize::Kib2, BlockSize::Kib4] {
            for (files, size) in [
                (0, 0),
                (3000, 10),
                (300, 40_000),
                (40, 5 << 20),
                (3, 9 << 30),
            ] {
                let tree = tree_of(files, size);
                let scan =
                    Scan::new(&tree, &lost_found, &options(block_size, Size::Bytes(0))).unwrap();
                for free_percent in [0, 1, 15, 50, 90] {
                    let auto = options(block_size, Size::with_free_percent(free_percent));
                    let layout = Layout::plan(&scan, &Kept::nothing(), &auto).unwrap();
                    let blocks = layout.geometry.blocks;
                    let free = blocks - layout.used_blocks(0, blocks);
                    let wanted = blocks * u64::from(free_percent) / 100;
                    assert!(free >= wanted);
                    // What is above the share makes the last group large enough.
                    let slack = layout.geometry.super_blocks() + 2048 + 60;
                    assert!(
                        free <= wanted + slack,
                        "{free} of {blocks} are free, not {wanted}"
                    );
                    let bytes = blocks * layout.geometry.block_bytes();
                    let fixed = options(block_size, Size::Bytes(bytes));
                    // Other numbers of inodes can make the last group too small.
                    assert!(
                        Layout::plan(&scan, &Kept::nothing(), &fixed)
                            .unwrap()
                            .geometry
                            .blocks
                            <= blocks
                    );
                }
            }
        }
    }

    #[test]
    fn inode_policies() {
        let lost_found = directory();
        let tree = tree_of(3000, 10);
        let scan = Scan::new(
            &tree,
            &lost_found,
            &options(BlockSize::Kib4, Size::Bytes(0)),
        )
        .unwrap();
        let plan = |inodes, size| {
            let options = Options {
                inodes,
                ..options(BlockSize::Kib4, size)
            };
            Layout::plan(&scan, &Kept::nothing(), &options).map(|layout| layout.geometry.inodes())
        };
        let auto = Size::with_free_percent(5);
        assert!((3010..3200).contains(&plan(Inodes::Count(5), auto).unwrap()));
        assert!((10_000_000..10_010_000).contains(&plan(Inodes::Count(10_000_000), auto).unwrap()));
        let one_gib = Size::Bytes(1 << 30);
        assert!((65_536..66_000).contains(&plan(Inodes::PerBytes(16_384), one_gib).unwrap()));
        assert!(matches!(
            plan(Inodes::Count(u32::MAX), auto),
            Err(WriteError::TooLarge { .. })
        ));
    }
}
