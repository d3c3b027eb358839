//! Superblock, group descriptors and bitmaps, with their copies.

use super::checksum::{self, Checksum};
use super::error::WriteError;
use super::format::{
    self, EXT2_FLAGS_SIGNED_HASH, EXT3_JNL_BACKUP_BLOCKS, EXT4_BG_BLOCK_UNINIT,
    EXT4_BG_INODE_UNINIT, EXT4_BG_INODE_ZEROED, EXT4_CRC32C_CHKSUM, EXT4_DEFM_ACL,
    EXT4_DEFM_XATTR_USER, EXT4_DYNAMIC_REV, EXT4_ERRORS_CONTINUE, EXT4_GOOD_OLD_FIRST_INO,
    EXT4_JOURNAL_INO, EXT4_SUPER_MAGIC, EXT4_VALID_FS, EXTRA_ISIZE, GroupDesc, I_BLOCK_SIZE,
    SUPERBLOCK_OFFSET, SuperBlock, compat, incompat, ro_compat, split_u32, split_u64,
};
use super::geometry::Geometry;
use super::layout::Layout;
use super::options::{LOG_GROUPS_PER_FLEX, Options};
use super::scan::{Scan, number_of};
use super::sink::Sink;
use crate::tree::{Kind, Timestamp};

/// Pointers that `s_jnl_blocks` keeps of the journal's `i_block`.
const JOURNAL_POINTERS: usize = 15;
/// `s_max_mnt_count`: no check after a number of mounts.
const NO_MOUNT_LIMIT: u16 = u16::MAX;

/// A time as the superblock has it: 40 unsigned bits of seconds, (low, high). `None` before 1970 or
/// beyond.
pub(crate) fn encode_time(time: Timestamp) -> Option<(u32, u8)> {
    let (high, low) = split_u64(u64::try_from(time.seconds).ok()?);
    Some((low, u8::try_from(high).ok()?))
}

/// The groups but the first that have copies of superblock and descriptors.
pub(crate) fn backup_groups(geometry: &Geometry) -> impl Iterator<Item = u32> {
    (1..geometry.groups).filter(|group| geometry.super_run(*group).is_some())
}

/// Everything that is written last.
pub(crate) struct Tables<'w> {
    pub(crate) scan: &'w Scan<'w>,
    pub(crate) layout: &'w Layout,
    pub(crate) options: &'w Options,
    pub(crate) seed: Checksum,
    /// The journal's `i_block`.
    pub(crate) journal: Option<[u8; I_BLOCK_SIZE]>,
}

impl Tables<'_> {
    /// Writes bitmaps, the copies, then descriptors and superblock.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn write(&self, sink: &mut Sink) -> Result<(), WriteError> {
        let geometry = &self.layout.geometry;
        let mut descriptors = Vec::new();
        let directories = self.directories();
        for group in 0..geometry.groups {
            let at = usize::try_from(group).unwrap_or(usize::MAX);
            let mut descriptor = self.descriptor(group, directories[at]);
            self.write_block_bitmap(group, &mut descriptor, sink)?;
            self.write_inode_bitmap(group, &mut descriptor, sink)?;
            descriptor.bg_checksum = checksum::group_desc(self.seed, group, &descriptor.encode());
            descriptors.extend_from_slice(&descriptor.encode());
        }
        let superblock = self.superblock();
        for group in backup_groups(geometry).chain([0]) {
            self.write_copy(group, &superblock, &descriptors, sink)?;
        }
        Ok(())
    }

    /// Folders by group.
    fn directories(&self) -> Vec<u32> {
        let geometry = &self.layout.geometry;
        let mut counts = vec![0; usize::try_from(geometry.groups).unwrap_or(usize::MAX)];
        for (position, node) in self.scan.nodes.iter().enumerate() {
            if matches!(node.inode.kind, Kind::Directory(_)) {
                let group = (number_of(position) - 1) / geometry.inodes_per_group;
                counts[usize::try_from(group).unwrap_or(usize::MAX)] += 1;
            }
        }
        counts
    }

    /// The inodes in use in a group: always its first ones.
    fn inodes_used(&self, group: u32) -> u32 {
        let per_group = self.layout.geometry.inodes_per_group;
        self.scan
            .inodes()
            .saturating_sub(group * per_group)
            .min(per_group)
    }

    fn descriptor(&self, group: u32, directories: u32) -> GroupDesc {
        let geometry = &self.layout.geometry;
        let at = usize::try_from(group).unwrap_or(usize::MAX);
        let place = self.layout.placement.groups[at];
        let (start, end) = (geometry.group_start(group), geometry.group_end(group));
        let used = self.layout.used_blocks(start, end);
        let inodes_used = self.inodes_used(group);
        let mut flags = EXT4_BG_INODE_ZEROED;
        if inodes_used == 0 {
            flags |= EXT4_BG_INODE_UNINIT;
        }
        // Uninitialised means: superblock copy and nothing else. The last group's bitmap has to
        // mark what is beyond the end.
        let copy = geometry.super_run(group).map_or(0, |run| run.length);
        if used == copy && group > 0 && group + 1 < geometry.groups {
            flags |= EXT4_BG_BLOCK_UNINIT;
        }
        let (block_bitmap_hi, block_bitmap_lo) = split_u64(place.block_bitmap);
        let (inode_bitmap_hi, inode_bitmap_lo) = split_u64(place.inode_bitmap);
        let (inode_table_hi, inode_table_lo) = split_u64(place.inode_table);
        let free_blocks = u32::try_from(end - start - used).unwrap_or(u32::MAX);
        let (free_blocks_hi, free_blocks_lo) = split_u32(free_blocks);
        let (free_inodes_hi, free_inodes_lo) = split_u32(geometry.inodes_per_group - inodes_used);
        let (directories_hi, directories_lo) = split_u32(directories);
        GroupDesc {
            bg_block_bitmap_lo: block_bitmap_lo,
            bg_inode_bitmap_lo: inode_bitmap_lo,
            bg_inode_table_lo: inode_table_lo,
            bg_free_blocks_count_lo: free_blocks_lo,
            bg_free_inodes_count_lo: free_inodes_lo,
            bg_used_dirs_count_lo: directories_lo,
            bg_flags: flags,
            bg_itable_unused_lo: free_inodes_lo,
            bg_block_bitmap_hi: block_bitmap_hi,
            bg_inode_bitmap_hi: inode_bitmap_hi,
            bg_inode_table_hi: inode_table_hi,
            bg_free_blocks_count_hi: free_blocks_hi,
            bg_free_inodes_count_hi: free_inodes_hi,
            bg_used_dirs_count_hi: directories_hi,
            bg_itable_unused_hi: free_inodes_hi,
            ..GroupDesc::zeroed()
        }
    }

    fn write_block_bitmap(
        &self,
        group: u32,
        descriptor: &mut GroupDesc,
        sink: &mut Sink,
    ) -> Result<(), WriteError> {
        if descriptor.bg_flags & EXT4_BG_BLOCK_UNINIT != 0 {
            return Ok(());
        }
        let geometry = &self.layout.geometry;
        let at = format::join_u32(descriptor.bg_block_bitmap_hi, descriptor.bg_block_bitmap_lo);
        let bitmap = self.bitmap(at, sink)?;
        let (start, end) = (geometry.group_start(group), geometry.group_end(group));
        let mut set = |from: u64, to: u64| set_bits(bitmap, from - start, to - start);
        for run in self.layout.used_within(start, end) {
            set(run.start, run.end());
        }
        set(end, start + geometry.blocks_per_group());
        let sum = self.seed.add(bitmap).value();
        let (high, low) = split_u32(sum);
        descriptor.bg_block_bitmap_csum_lo = low;
        descriptor.bg_block_bitmap_csum_hi = high;
        Ok(())
    }

    fn write_inode_bitmap(
        &self,
        group: u32,
        descriptor: &mut GroupDesc,
        sink: &mut Sink,
    ) -> Result<(), WriteError> {
        if descriptor.bg_flags & EXT4_BG_INODE_UNINIT != 0 {
            return Ok(());
        }
        let per_group = self.layout.geometry.inodes_per_group;
        let at = format::join_u32(descriptor.bg_inode_bitmap_hi, descriptor.bg_inode_bitmap_lo);
        let bitmap = self.bitmap(at, sink)?;
        set_bits(bitmap, 0, u64::from(self.inodes_used(group)));
        let bits = self.layout.geometry.blocks_per_group();
        set_bits(bitmap, u64::from(per_group), bits);
        let covered = usize::try_from(per_group / 8).unwrap_or(usize::MAX);
        let (high, low) = split_u32(self.seed.add(&bitmap[..covered]).value());
        descriptor.bg_inode_bitmap_csum_lo = low;
        descriptor.bg_inode_bitmap_csum_hi = high;
        Ok(())
    }

    fn bitmap<'s>(&self, block: u64, sink: &'s mut Sink) -> Result<&'s mut [u8], WriteError> {
        let bytes = self.layout.geometry.block_bytes();
        sink.zeroed(block * bytes, usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Superblock, descriptors and the reserve behind them in one group; group 0 is the original.
    fn write_copy(
        &self,
        group: u32,
        superblock: &SuperBlock,
        descriptors: &[u8],
        sink: &mut Sink,
    ) -> Result<(), WriteError> {
        let geometry = &self.layout.geometry;
        let block_bytes = geometry.block_bytes();
        let start = geometry.group_start(group) * block_bytes;
        let table = start + block_bytes;
        let pieces = descriptors.chunks(Sink::PIECE_MAX);
        let mut at = table;
        for piece in pieces {
            sink.piece(at, piece.len())?.copy_from_slice(piece);
            at += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        }
        if group == 0 {
            self.write_resize_blocks(sink)?;
        }
        let mut copy = SuperBlock {
            s_block_group_nr: split_u32(group).1,
            ..superblock.clone()
        };
        copy.s_checksum = checksum::superblock(&copy.encode());
        let offset = if group == 0 { SUPERBLOCK_OFFSET } else { start };
        sink.piece(offset, SuperBlock::SIZE)?
            .copy_from_slice(&copy.encode());
        Ok(())
    }

    /// The double indirect block points to the reserved descriptor blocks of group 0; each of these
    /// points to its copies.
    fn write_resize_blocks(&self, sink: &mut Sink) -> Result<(), WriteError> {
        let geometry = &self.layout.geometry;
        let Some(top) = self.layout.resize_block else {
            return Ok(());
        };
        let bytes = geometry.block_bytes();
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        let pointers = size / 4;
        let first = u64::from(geometry.first_data_block()) + 1 + u64::from(geometry.gdt_blocks);
        let reserved = first..first + u64::from(geometry.reserved_gdt_blocks);
        let copies: Vec<u64> = backup_groups(geometry)
            .map(|group| geometry.group_start(group) - geometry.group_start(0))
            .collect();
        if !copies.is_empty() {
            for block in reserved.clone() {
                let place = sink.zeroed(block * bytes, size)?;
                for (place, distance) in place.chunks_exact_mut(4).zip(&copies) {
                    place.copy_from_slice(&split_u64(block + distance).1.to_le_bytes());
                }
            }
        }
        let place = sink.zeroed(top * bytes, size)?;
        let gdt_blocks = usize::try_from(geometry.gdt_blocks).unwrap_or(usize::MAX);
        for (at, block) in reserved.enumerate() {
            let at = (gdt_blocks + at) % pointers * 4;
            place[at..at + 4].copy_from_slice(&split_u64(block).1.to_le_bytes());
        }
        Ok(())
    }

    /// The superblock without group number and checksum.
    fn superblock(&self) -> SuperBlock {
        let geometry = &self.layout.geometry;
        let options = self.options;
        let used = self.layout.used_blocks(0, geometry.blocks);
        let reserved = geometry.blocks * u64::from(options.reserved_percent) / 100;
        let free = geometry.blocks - used;
        let reserved = reserved.min(free);
        let (blocks_hi, blocks_lo) = split_u64(geometry.blocks);
        let (reserved_hi, reserved_lo) = split_u64(reserved);
        let (free_hi, free_lo) = split_u64(free);
        let (time, time_hi) = encode_time(options.time).unwrap_or_default();
        let per_group = u32::try_from(geometry.blocks_per_group()).unwrap_or(u32::MAX);
        let mut volume_name = [0; 16];
        let label = options.label.as_bytes();
        volume_name[..label.len()].copy_from_slice(label);
        let mut superblock = SuperBlock {
            s_inodes_count: geometry.inodes(),
            s_blocks_count_lo: blocks_lo,
            s_r_blocks_count_lo: reserved_lo,
            s_free_blocks_count_lo: free_lo,
            s_free_inodes_count: geometry.inodes() - self.scan.inodes(),
            s_first_data_block: geometry.first_data_block(),
            s_log_block_size: options.block_size.log(),
            s_log_cluster_size: options.block_size.log(),
            s_blocks_per_group: per_group,
            s_clusters_per_group: per_group,
            s_inodes_per_group: geometry.inodes_per_group,
            s_wtime: time,
            s_max_mnt_count: NO_MOUNT_LIMIT,
            s_magic: EXT4_SUPER_MAGIC,
            s_state: EXT4_VALID_FS,
            s_errors: EXT4_ERRORS_CONTINUE,
            s_lastcheck: time,
            s_rev_level: EXT4_DYNAMIC_REV,
            s_first_ino: EXT4_GOOD_OLD_FIRST_INO,
            s_inode_size: 256,
            s_feature_compat: compat::EXT_ATTR | compat::DIR_INDEX,
            s_feature_incompat: incompat::FILETYPE
                | incompat::EXTENTS
                | incompat::IS_64BIT
                | incompat::FLEX_BG,
            s_feature_ro_compat: ro_compat::SPARSE_SUPER
                | ro_compat::LARGE_FILE
                | ro_compat::HUGE_FILE
                | ro_compat::DIR_NLINK
                | ro_compat::EXTRA_ISIZE
                | ro_compat::METADATA_CSUM,
            s_uuid: options.uuid,
            s_volume_name: volume_name,
            s_reserved_gdt_blocks: split_u32(geometry.reserved_gdt_blocks).1,
            s_def_hash_version: format::DX_HASH_HALF_MD4,
            s_desc_size: 64,
            s_default_mount_opts: EXT4_DEFM_XATTR_USER | EXT4_DEFM_ACL,
            s_mkfs_time: time,
            s_blocks_count_hi: blocks_hi,
            s_r_blocks_count_hi: reserved_hi,
            s_free_blocks_count_hi: free_hi,
            s_min_extra_isize: EXTRA_ISIZE,
            s_want_extra_isize: EXTRA_ISIZE,
            s_flags: EXT2_FLAGS_SIGNED_HASH,
            s_log_groups_per_flex: LOG_GROUPS_PER_FLEX,
            s_checksum_type: EXT4_CRC32C_CHKSUM,
            s_wtime_hi: time_hi,
            s_mkfs_time_hi: time_hi,
            s_lastcheck_hi: time_hi,
            ..SuperBlock::zeroed()
        };
        for (word, bytes) in superblock
            .s_hash_seed
            .iter_mut()
            .zip(options.hash_seed.chunks_exact(4))
        {
            *word = bytes.try_into().map_or(0, u32::from_le_bytes);
        }
        if geometry.reserved_gdt_blocks > 0 {
            superblock.s_feature_compat |= compat::RESIZE_INODE;
        }
        if !self.scan.values.is_empty() {
            superblock.s_feature_incompat |= incompat::EA_INODE;
        }
        if let Some(number) = self.scan.orphan_file() {
            superblock.s_feature_compat |= compat::ORPHAN_FILE;
            superblock.s_orphan_file_inum = number;
        }
        if let Some(i_block) = &self.journal {
            superblock.s_feature_compat |= compat::HAS_JOURNAL;
            superblock.s_journal_inum = EXT4_JOURNAL_INO;
            superblock.s_jnl_backup_type = EXT3_JNL_BACKUP_BLOCKS;
            superblock.s_jnl_blocks = self.journal_backup(i_block);
        }
        superblock
    }

    fn journal_backup(&self, i_block: &[u8]) -> [u32; JOURNAL_POINTERS + 2] {
        let mut backup = [0; JOURNAL_POINTERS + 2];
        for (word, bytes) in backup.iter_mut().zip(i_block.chunks_exact(4)) {
            *word = bytes.try_into().map_or(0, u32::from_le_bytes);
        }
        let size = self.layout.journal.blocks * self.layout.geometry.block_bytes();
        let (high, low) = split_u64(size);
        backup[JOURNAL_POINTERS] = high;
        backup[JOURNAL_POINTERS + 1] = low;
        backup
    }
}

/// Sets the bits `from..to`, lowest bit of each byte first.
fn set_bits(bitmap: &mut [u8], from: u64, to: u64) {
    let mut at = from;
    while at < to {
        let byte = usize::try_from(at / 8).unwrap_or(usize::MAX);
        if at.is_multiple_of(8) && to - at >= 8 {
            let end = usize::try_from(to / 8).unwrap_or(usize::MAX);
            bitmap[byte..end].fill(u8::MAX);
            at = to / 8 * 8;
        } else {
            bitmap[byte] |= 1 << (at % 8);
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_set_exactly() {
        for (from, to) in [
            (0, 0),
            (0, 1),
            (3, 5),
            (7, 9),
            (0, 16),
            (5, 29),
            (8, 24),
            (31, 32),
        ] {
            let mut bitmap = [0_u8; 4];
            set_bits(&mut bitmap, from, to);
            for at in 0..32_u64 {
                let byte = bitmap[usize::try_from(at / 8).unwrap()];
                assert_eq!(byte >> (at % 8) & 1 == 1, (from..to).contains(&at));
            }
        }
    }
}
