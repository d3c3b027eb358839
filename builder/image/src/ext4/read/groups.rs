//! Block groups: where their descriptors are, and what these say.

use super::ReadError;
use super::volume::{Volume, as_u64, to_usize};
use crate::ext4::checksum;
use crate::ext4::format::{
    GROUP_DESC_CHECKSUM_OFFSET, GroupDesc, SUPERBLOCK_OFFSET, incompat, join_u16, join_u32,
    ro_compat,
};

/// Size of a group descriptor without the feature `64bit`.
const GROUP_DESC_SIZE_SMALL: usize = 32;
/// The largest group descriptor (`EXT4_MAX_DESC_SIZE` is a block; the smallest block has this).
const GROUP_DESC_SIZE_MAX: usize = 1024;
/// The polynomial of CRC-16/ARC, bits reversed.
const CRC16_POLYNOMIAL: u16 = 0xA001;

/// What all descriptors together say.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// First block of each group's inode table.
    pub(super) tables: Vec<u64>,
    /// Runs of blocks (start, count) that hold the file system's own structures: superblocks,
    /// descriptors, bitmaps, inode tables.
    pub(super) system: Vec<(u64, u64)>,
    /// Free clusters (blocks without the feature `bigalloc`).
    pub(super) clusters_free: u64,
    /// Free inodes.
    pub(super) inodes_free: u64,
}

impl Volume {
    pub(super) fn groups_count(&self) -> u64 {
        self.blocks_count
            .saturating_sub(u64::from(self.superblock.s_first_data_block))
            .div_ceil(u64::from(self.superblock.s_blocks_per_group))
    }

    fn group_first_block(&self, group: u64) -> u64 {
        group
            .saturating_mul(u64::from(self.superblock.s_blocks_per_group))
            .saturating_add(u64::from(self.superblock.s_first_data_block))
    }

    fn group_desc_size(&self) -> usize {
        if self.has_incompat(incompat::IS_64BIT) {
            usize::from(self.superblock.s_desc_size)
        } else {
            GROUP_DESC_SIZE_SMALL
        }
    }

    fn descriptors_per_block(&self) -> u64 {
        as_u64(self.block_size / self.group_desc_size().max(1)).max(1)
    }

    pub(super) fn check_group_desc_size(&self) -> Result<(), ReadError> {
        let size = self.group_desc_size();
        if !size.is_power_of_two() || !(GROUP_DESC_SIZE_SMALL..=GROUP_DESC_SIZE_MAX).contains(&size)
        {
            return Err(ReadError::corrupt(
                "superblock",
                format!("the size of a group descriptor, {size} bytes, is impossible"),
            ));
        }
        Ok(())
    }

    /// Whether a group begins with a copy of the superblock.
    fn group_has_superblock(&self, group: u64) -> bool {
        let superblock = &self.superblock;
        if group == 0 {
            return true;
        }
        if superblock.s_feature_compat & crate::ext4::format::compat::SPARSE_SUPER2 != 0 {
            let backups = superblock.s_backup_bgs.map(u64::from);
            return backups.contains(&group);
        }
        if group == 1 || superblock.s_feature_ro_compat & ro_compat::SPARSE_SUPER == 0 {
            return true;
        }
        [3, 5, 7].into_iter().any(|base| is_power_of(group, base))
    }

    /// Whether this block of descriptors lies in the groups that it describes (`meta_bg`), not
    /// behind the superblock.
    fn is_in_meta_group(&self, index: u64) -> bool {
        self.has_incompat(incompat::META_BG) && index >= u64::from(self.superblock.s_first_meta_bg)
    }

    /// The block with the superblock in it.
    fn superblock_block(&self) -> u64 {
        SUPERBLOCK_OFFSET / as_u64(self.block_size)
    }

    /// Where the block of descriptors number `index` is (`descriptor_loc` in `fs/ext4/super.c`).
    fn descriptor_block(&self, index: u64) -> u64 {
        if !self.is_in_meta_group(index) {
            return self
                .superblock_block()
                .saturating_add(index)
                .saturating_add(1);
        }
        let group = index.saturating_mul(self.descriptors_per_block());
        let first = self.group_first_block(group);
        // In group 0 the superblock may not be the first block.
        let first = if group == 0 {
            self.superblock_block()
        } else {
            first
        };
        first.saturating_add(u64::from(self.group_has_superblock(group)))
    }

    /// A verified descriptor.
    fn descriptor(&self, group: u64) -> Result<GroupDesc, ReadError> {
        let size = self.group_desc_size();
        let per_block = self.descriptors_per_block();
        let number = self.descriptor_block(group / per_block);
        let place = || format!("block group descriptor {group}, block {number}");
        let block = self.block(number)?;
        let start = to_usize(group % per_block).saturating_mul(size);
        let bytes = block
            .get(start..start.saturating_add(size))
            .ok_or_else(|| ReadError::corrupt(place(), "it is outside its block"))?;
        let mut whole = [0; GroupDesc::SIZE];
        let used = size.min(GroupDesc::SIZE);
        whole[..used].copy_from_slice(&bytes[..used]);
        let desc = GroupDesc::decode(&whole)
            .ok_or_else(|| ReadError::corrupt(place(), "it is too short"))?;
        let index = u32::try_from(group)
            .map_err(|_| ReadError::corrupt(place(), "there are too many groups"))?;
        let sum = if let Some(seed) = self.seed {
            Some(checksum::group_desc(seed, index, bytes))
        } else if self.superblock.s_feature_ro_compat & ro_compat::GDT_CSUM != 0 {
            Some(crc16_of(&self.superblock.s_uuid, index, bytes))
        } else {
            None
        };
        if sum.is_some_and(|sum| sum != desc.bg_checksum) {
            return Err(ReadError::checksum(place()));
        }
        Ok(desc)
    }

    /// The first block of a group's inode table.
    pub(super) fn inode_table(&self, group: u64) -> Result<u64, ReadError> {
        if let Some(table) = self.groups.tables.get(to_usize(group)) {
            return Ok(*table);
        }
        let desc = self.descriptor(group)?;
        Ok(join_u32(desc.bg_inode_table_hi, desc.bg_inode_table_lo))
    }

    /// Reads every descriptor.
    pub(super) fn read_groups(&self) -> Result<Groups, ReadError> {
        let superblock = &self.superblock;
        let table_blocks = u64::from(superblock.s_inodes_per_group)
            .saturating_mul(u64::from(superblock.s_inode_size))
            .div_ceil(as_u64(self.block_size));
        let mut groups = Groups::default();
        let count = self.groups_count();
        for group in 0..count {
            let desc = self.descriptor(group)?;
            let bitmaps = [
                join_u32(desc.bg_block_bitmap_hi, desc.bg_block_bitmap_lo),
                join_u32(desc.bg_inode_bitmap_hi, desc.bg_inode_bitmap_lo),
            ];
            let table = join_u32(desc.bg_inode_table_hi, desc.bg_inode_table_lo);
            for (start, length) in bitmaps
                .map(|bitmap| (bitmap, 1))
                .into_iter()
                .chain([(table, table_blocks)])
            {
                if !self.has_blocks(start, length) {
                    return Err(ReadError::corrupt(
                        format!("block group descriptor {group}"),
                        format!("block {start} is outside the image"),
                    ));
                }
                groups.add_system(start, length);
            }
            groups.tables.push(table);
            self.add_descriptors_of(group, count, &mut groups);
            groups.clusters_free = groups.clusters_free.saturating_add(u64::from(join_u16(
                desc.bg_free_blocks_count_hi,
                desc.bg_free_blocks_count_lo,
            )));
            groups.inodes_free = groups.inodes_free.saturating_add(u64::from(join_u16(
                desc.bg_free_inodes_count_hi,
                desc.bg_free_inodes_count_lo,
            )));
        }
        Ok(groups)
    }

    /// Superblock and descriptors, or their copies, at the start of a group
    /// (`ext4_num_base_meta_blocks`).
    fn add_descriptors_of(&self, group: u64, count: u64, groups: &mut Groups) {
        let per_block = self.descriptors_per_block();
        let has_superblock = self.group_has_superblock(group);
        let index = group / per_block;
        let tables = if self.is_in_meta_group(index) {
            // The first, the second and the last of the groups that one block describes have it.
            let within = group % per_block;
            u64::from(within <= 1 || within == per_block.saturating_sub(1))
        } else if has_superblock {
            let all = count.div_ceil(per_block);
            if self.has_incompat(incompat::META_BG) {
                all.min(u64::from(self.superblock.s_first_meta_bg))
            } else {
                all
            }
        } else {
            0
        };
        let first = if group == 0 {
            self.superblock_block()
        } else {
            self.group_first_block(group)
        };
        let length = u64::from(has_superblock).saturating_add(tables);
        if length > 0 {
            groups.add_system(first, length);
        }
    }
}

impl Groups {
    /// Adds a run, joined to the last one where it continues it.
    fn add_system(&mut self, start: u64, length: u64) {
        if let Some((last, count)) = self.system.last_mut()
            && last.saturating_add(*count) == start
        {
            *count = count.saturating_add(length);
            return;
        }
        self.system.push((start, length));
    }
}

fn is_power_of(number: u64, base: u64) -> bool {
    let mut power = base;
    while power < number {
        power = power.saturating_mul(base);
    }
    power == number
}

/// `bg_checksum` with the feature `uninit_bg` alone: CRC-16 of UUID, number and descriptor.
fn crc16_of(uuid: &[u8; 16], group: u32, bytes: &[u8]) -> u16 {
    let (before, rest) = bytes.split_at(GROUP_DESC_CHECKSUM_OFFSET.min(bytes.len()));
    let after = rest.get(2..).unwrap_or_default();
    [&uuid[..], &group.to_le_bytes(), before, after]
        .into_iter()
        .flatten()
        .fold(u16::MAX, |sum, byte| {
            (0..8).fold(sum ^ u16::from(*byte), |sum, _| {
                (sum >> 1) ^ if sum & 1 == 1 { CRC16_POLYNOMIAL } else { 0 }
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers() {
        let found: Vec<u64> = (1..400)
            .filter(|group| [3, 5, 7].into_iter().any(|base| is_power_of(*group, base)))
            .collect();
        assert_eq!(found, [3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343]);
    }
}
