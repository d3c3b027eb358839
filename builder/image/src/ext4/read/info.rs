//! What a file system says about itself, for those who make another one like it or show it.

use std::sync::Arc;

use super::ReadError;
use super::features;
use super::inode::Inode;
use super::volume::{Volume, as_u64};
use crate::ext4::format::{EXT4_ERROR_FS, compat, incompat, join_u32};
use crate::tree::{Blob, Name, Timestamp};

/// A file system's parameters and counts, as its journal leaves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The label, at most 16 bytes, without NUL.
    pub label: Name,
    /// Identifies the file system.
    pub uuid: [u8; 16],
    /// Seed of the hashes of names in large folders, as [`Options`](crate::ext4::Options) takes it.
    pub hash_seed: [u8; 16],
    /// When the file system was made; whole seconds.
    pub created: Timestamp,
    /// Size of a block in bytes: 1024 to 65536.
    pub block_size_bytes: u32,
    /// Size of the unit of allocation in bytes: more than a block with `bigalloc` only.
    pub cluster_size_bytes: u64,
    /// All blocks.
    pub blocks: u64,
    /// Blocks that are free, those that only root may use among them.
    pub blocks_free: u64,
    /// Blocks that only root may use.
    pub blocks_reserved: u64,
    /// Blocks of the journal; 0 for none, or one on another device.
    pub blocks_journal: u64,
    /// Blocks in a group.
    pub blocks_per_group: u32,
    /// Size of an inode in bytes.
    pub inode_size_bytes: u32,
    /// All inodes.
    pub inodes: u32,
    /// Inodes that are free.
    pub inodes_free: u32,
    /// Features by mke2fs's names (`has_journal`, `64bit`), in the order of their bits.
    pub features: Vec<String>,
    /// How often the file system was mounted for writing since it was made or checked.
    pub mounts: u16,
    /// When it was mounted for writing last; 1970 for never.
    pub mounted: Timestamp,
    /// The image was not unmounted cleanly: a kernel would recover its journal first.
    pub needs_recovery: bool,
    /// The file system's kernel has recorded errors, so that [`read()`](super::read) refuses it.
    pub has_errors: bool,
}

impl Info {
    /// Length of the file system in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.blocks.saturating_mul(u64::from(self.block_size_bytes))
    }

    /// Blocks in use.
    #[must_use]
    pub fn blocks_used(&self) -> u64 {
        self.blocks.saturating_sub(self.blocks_free)
    }

    /// Inodes in use, reserved ones among them.
    #[must_use]
    pub fn inodes_used(&self) -> u32 {
        self.inodes.saturating_sub(self.inodes_free)
    }

    /// The share of the blocks that only root may use, in percent, rounded to the nearest.
    #[must_use]
    pub fn reserved_percent(&self) -> u8 {
        let parts = u128::from(self.blocks_reserved) * 100 + u128::from(self.blocks / 2);
        let percent = parts.checked_div(u128::from(self.blocks)).unwrap_or(0);
        u8::try_from(percent.min(100)).unwrap_or(100)
    }
}

/// Reads what the file system in `image` says about itself: superblock and block groups, after
/// recovery of the journal in memory. `image` must begin with the file system.
///
/// # Errors
/// No ext4, damage in what was read, a feature that is not supported, or the image cannot be read.
pub fn read_info(image: Arc<dyn Blob>) -> Result<Info, ReadError> {
    let needs_recovery = Volume::recorded_recovery(&*image)?;
    let volume = Volume::open(image)?;
    let superblock = &volume.superblock;
    let has_64bit = superblock.s_feature_incompat & incompat::IS_64BIT != 0;
    let wide = |high: u32, low: u32| join_u32(if has_64bit { high } else { 0 }, low);
    let label_end = superblock.s_volume_name.iter().position(|byte| *byte == 0);
    let label = &superblock.s_volume_name[..label_end.unwrap_or(superblock.s_volume_name.len())];
    let mut hash_seed = [0; 16];
    for (bytes, word) in hash_seed.chunks_exact_mut(4).zip(superblock.s_hash_seed) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let block_size = as_u64(volume.block_size);
    let seconds = join_u32(u32::from(superblock.s_mkfs_time_hi), superblock.s_mkfs_time);
    let mounted = join_u32(u32::from(superblock.s_mtime_hi), superblock.s_mtime);
    Ok(Info {
        label: label.into(),
        uuid: superblock.s_uuid,
        hash_seed,
        created: Timestamp::from_seconds(i64::try_from(seconds).unwrap_or(i64::MAX)),
        block_size_bytes: u32::try_from(volume.block_size).unwrap_or(u32::MAX),
        cluster_size_bytes: block_size.saturating_mul(volume.cluster_blocks),
        blocks: volume.blocks_count,
        blocks_free: volume
            .groups
            .clusters_free
            .saturating_mul(volume.cluster_blocks)
            .min(volume.blocks_count),
        blocks_reserved: wide(
            superblock.s_r_blocks_count_hi,
            superblock.s_r_blocks_count_lo,
        ),
        blocks_journal: journal_blocks(&volume)?,
        blocks_per_group: superblock.s_blocks_per_group,
        inode_size_bytes: u32::from(superblock.s_inode_size),
        inodes: superblock.s_inodes_count,
        inodes_free: u32::try_from(volume.groups.inodes_free)
            .unwrap_or(u32::MAX)
            .min(superblock.s_inodes_count),
        features: features::names(superblock),
        mounts: superblock.s_mnt_count,
        mounted: Timestamp::from_seconds(i64::try_from(mounted).unwrap_or(i64::MAX)),
        needs_recovery,
        has_errors: superblock.s_state & EXT4_ERROR_FS != 0,
    })
}

fn journal_blocks(volume: &Volume) -> Result<u64, ReadError> {
    let superblock = &volume.superblock;
    if superblock.s_feature_compat & compat::HAS_JOURNAL == 0 || superblock.s_journal_inum == 0 {
        return Ok(0);
    }
    let journal = Inode::read(volume, superblock.s_journal_inum)?;
    Ok(journal.size() / as_u64(volume.block_size))
}
