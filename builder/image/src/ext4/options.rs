//! What the caller of the writer decides, and what it hears back.

use std::num::NonZeroUsize;

use super::format;
use crate::tree::Timestamp;

/// The longest label of a file system in bytes.
pub const LABEL_LENGTH_MAX: usize = 16;
/// The largest share of the image that may be left free or reserved, in percent.
pub const PERCENT_MAX: u8 = 90;

/// Size of a block; small blocks waste less behind small files, large ones need less bookkeeping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockSize {
    /// 1024 bytes.
    Kib1,
    /// 2048 bytes.
    Kib2,
    /// 4096 bytes.
    #[default]
    Kib4,
}

impl BlockSize {
    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        1024 << self.log()
    }

    /// `s_log_block_size`: 1024 shifted left by this is the size.
    pub(crate) fn log(self) -> u32 {
        match self {
            Self::Kib1 => 0,
            Self::Kib2 => 1,
            Self::Kib4 => 2,
        }
    }
}

/// Size of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As small as the content allows, with room left free: the larger of the two.
    Auto {
        /// Percent of the image's blocks, at most [`PERCENT_MAX`].
        free_percent: u8,
        /// At least so many bytes.
        free_bytes_min: u64,
    },
    /// Exactly so many bytes; the file system leaves a last part unused where that is no whole
    /// block or too small for a block group.
    Bytes(u64),
}

impl Size {
    /// As small as the content allows, with this share free, in percent.
    #[must_use]
    pub fn with_free_percent(free_percent: u8) -> Self {
        Self::Auto {
            free_percent,
            free_bytes_min: 0,
        }
    }
}

/// Whether and how large a journal the file system has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Journal {
    /// By the size of the file system, as mke2fs does it: none below 2048 blocks, then 1024 blocks
    /// and more.
    #[default]
    Auto,
    /// No journal.
    None,
    /// So many blocks, at least 1024.
    Blocks(u32),
}

/// How many inodes the file system has; always at least as many as the tree needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inodes {
    /// What the tree needs, and one more for every 4 KiB (from 512 MiB on: 16 KiB) that stay free.
    #[default]
    Auto,
    /// One for so many bytes of the image, at least 1024.
    PerBytes(u32),
    /// At least so many.
    Count(u32),
}

/// What a file system is made with, besides the tree. Everything that other tools take from the
/// clock or from chance is stated here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of a block.
    pub block_size: BlockSize,
    /// Size of the image.
    pub size: Size,
    /// Identifies the file system; also the seed of its checksums.
    pub uuid: [u8; 16],
    /// Seed of the hashes of names in large folders.
    pub hash_seed: [u8; 16],
    /// The label, at most [`LABEL_LENGTH_MAX`] bytes without NUL.
    pub label: String,
    /// The journal.
    pub journal: Journal,
    /// How many inodes.
    pub inodes: Inodes,
    /// Whether a file keeps track of orphans (`orphan_file`: Linux 5.15 and later), where there is
    /// a journal: several processors can then remove files at once.
    pub orphan_file: bool,
    /// Percent of the blocks that only root may use, at most [`PERCENT_MAX`].
    pub reserved_percent: u8,
    /// When the file system was made: for the superblock and the inodes that the tree does not
    /// have (journal, lost+found).
    pub time: Timestamp,
    /// How many threads may work at once; changes nothing in the image.
    pub threads: NonZeroUsize,
}

impl Options {
    /// The defaults: blocks of 4096 bytes, automatic size without free space, a journal, nothing
    /// reserved, one thread.
    #[must_use]
    pub fn new(uuid: [u8; 16], hash_seed: [u8; 16], time: Timestamp) -> Self {
        Self {
            block_size: BlockSize::default(),
            size: Size::with_free_percent(0),
            uuid,
            hash_seed,
            label: String::new(),
            journal: Journal::default(),
            inodes: Inodes::default(),
            orphan_file: false,
            reserved_percent: 0,
            time,
            threads: NonZeroUsize::MIN,
        }
    }
}

/// What an image came out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Length of the image file in bytes.
    pub size_bytes: u64,
    /// Size of a block in bytes.
    pub block_size_bytes: u32,
    /// All blocks of the file system.
    pub blocks: u64,
    /// Blocks that are free.
    pub blocks_free: u64,
    /// Blocks of the journal.
    pub blocks_journal: u64,
    /// All inodes.
    pub inodes: u32,
    /// Inodes that are free.
    pub inodes_free: u32,
}

/// Size of an inode in bytes.
pub(crate) const INODE_SIZE: usize = 256;
/// Size of an inode in bytes.
pub(crate) const INODE_SIZE_U64: u64 = 256;
/// Size of an inode in bytes.
pub(crate) const INODE_SIZE_U32: u32 = 256;
/// Bytes in an inode that attributes may take.
pub(crate) const INODE_XATTR_SIZE: usize = INODE_SIZE - format::RawInode::SIZE;
/// Logarithm of the number of block groups whose bitmaps and inode tables lie together.
pub(crate) const LOG_GROUPS_PER_FLEX: u8 = 4;
/// Number of block groups whose bitmaps and inode tables lie together.
pub(crate) const GROUPS_PER_FLEX: u32 = 1 << LOG_GROUPS_PER_FLEX;
