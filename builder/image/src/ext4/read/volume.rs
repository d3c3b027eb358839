//! The superblock, and blocks as the journal leaves them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::ReadError;
use super::features;
use super::groups::Groups;
use super::journal;
use crate::ext4::checksum::{self, Checksum};
use crate::ext4::format::{
    EXT4_CRC32C_CHKSUM, EXT4_DYNAMIC_REV, EXT4_ERROR_FS, EXT4_GOOD_OLD_FIRST_INO,
    EXT4_GOOD_OLD_INODE_SIZE, EXT4_SUPER_MAGIC, SUPERBLOCK_OFFSET, SuperBlock, incompat, join_u32,
    ro_compat,
};
use crate::tree::{Blob, read_exact_at};

/// Blocks of 64 KiB at most.
const LOG_BLOCK_SIZE_MAX: u32 = 6;
/// The smallest block, as its logarithm.
const LOG_BLOCK_SIZE_BASE: u32 = 10;
/// How many bytes of blocks are kept after reading.
const CACHE_BYTES: usize = 4 << 20;
/// Clusters of 512 MiB at most, as mke2fs makes them.
const LOG_CLUSTER_SIZE_MAX: u32 = 19;
/// `s_inode_size` of revision 0, which has no such field.
const INODE_SIZE_REVISION_0: u16 = 128;
/// Where the newest version of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replacement {
    /// The block of the journal, counted in the image.
    pub(super) block: u64,
    /// Whether the journal has zeroes where the block has the journal's magic.
    pub(super) escaped: bool,
}

/// Blocks with their numbers, by slot.
type Cache = Vec<Option<(u64, Rc<[u8]>)>>;

/// An opened file system.
pub(super) struct Volume {
    image: Arc<dyn Blob>,
    pub(super) superblock: SuperBlock,
    pub(super) block_size: usize,
    pub(super) blocks_count: u64,
    /// Blocks in a cluster: 1 without the feature `bigalloc`.
    pub(super) cluster_blocks: u64,
    /// Seed of the checksums of attribute values, which need no feature.
    pub(super) value_seed: Checksum,
    /// Seed of all other checksums, where the file system has any.
    pub(super) seed: Option<Checksum>,
    /// Blocks that the journal has in a newer version.
    pub(super) replaced: BTreeMap<u64, Replacement>,
    /// What the group descriptors say; nothing while the journal is not yet replayed.
    pub(super) groups: Groups,
    cache: RefCell<Cache>,
}

impl Volume {
    /// Reads the superblock, the journal where it needs recovery, and the group descriptors.
    pub(super) fn open(image: Arc<dyn Blob>) -> Result<Self, ReadError> {
        let bytes = superblock_bytes(&*image)?;
        let mut volume = Self::from_superblock(image, &bytes)?;
        volume.check_length()?;
        if volume.has_incompat(incompat::RECOVER) {
            let replaced = journal::replay(&volume)?;
            volume = volume.reopen(replaced)?;
        }
        volume.groups = volume.read_groups()?;
        Ok(volume)
    }

    /// Whether the superblock in the image says that the journal needs recovery.
    pub(super) fn recorded_recovery(image: &dyn Blob) -> Result<bool, ReadError> {
        let superblock = SuperBlock::decode(&superblock_bytes(image)?);
        let superblock = superblock.ok_or(ReadError::NotExt4)?;
        Ok(superblock.s_feature_incompat & incompat::RECOVER != 0)
    }

    /// Refuses a file system in which its kernel has recorded errors.
    pub(super) fn check_errors(&self) -> Result<(), ReadError> {
        if self.superblock.s_state & EXT4_ERROR_FS != 0 {
            return Err(ReadError::corrupt(
                "superblock",
                "the file system's kernel has recorded errors in it",
            ));
        }
        Ok(())
    }

    pub(super) fn has_incompat(&self, feature: u32) -> bool {
        self.superblock.s_feature_incompat & feature != 0
    }

    pub(super) fn has_ro_compat(&self, feature: u32) -> bool {
        self.superblock.s_feature_ro_compat & feature != 0
    }

    /// The same file system as the journal leaves it.
    fn reopen(self, replaced: BTreeMap<u64, Replacement>) -> Result<Self, ReadError> {
        let recovered = Self {
            replaced,
            cache: RefCell::default(),
            ..self
        };
        let block_size = as_u64(recovered.block_size);
        let block = recovered.block(SUPERBLOCK_OFFSET / block_size)?;
        let start = to_usize(SUPERBLOCK_OFFSET % block_size);
        let bytes = block.get(start..).and_then(|bytes| bytes.first_chunk());
        let bytes = *bytes.ok_or(ReadError::NotExt4)?;
        let again = Self::from_superblock(Arc::clone(&recovered.image), &bytes)?;
        if again.block_size != recovered.block_size || again.blocks_count > recovered.blocks_count {
            return Err(ReadError::corrupt(
                "superblock",
                "the journal changes the size of the file system",
            ));
        }
        Ok(Self {
            replaced: recovered.replaced,
            ..again
        })
    }

    fn from_superblock(
        image: Arc<dyn Blob>,
        bytes: &[u8; SuperBlock::SIZE],
    ) -> Result<Self, ReadError> {
        let corrupt = |reason: &str| ReadError::corrupt("superblock", reason);
        let mut superblock = SuperBlock::decode(bytes).ok_or(ReadError::NotExt4)?;
        if superblock.s_magic != EXT4_SUPER_MAGIC {
            return Err(ReadError::NotExt4);
        }
        features::check(&superblock)?;
        if superblock.s_rev_level < EXT4_DYNAMIC_REV {
            superblock.s_inode_size = INODE_SIZE_REVISION_0;
            superblock.s_first_ino = EXT4_GOOD_OLD_FIRST_INO;
        }
        let has_checksums = superblock.s_feature_ro_compat & ro_compat::METADATA_CSUM != 0;
        if has_checksums && superblock.s_checksum_type != EXT4_CRC32C_CHKSUM {
            return Err(ReadError::unsupported("superblock", "the checksum type"));
        }
        if has_checksums && checksum::superblock(bytes) != superblock.s_checksum {
            return Err(ReadError::checksum("superblock"));
        }
        if superblock.s_log_block_size > LOG_BLOCK_SIZE_MAX {
            return Err(corrupt("the block size is impossible"));
        }
        let has_clusters = superblock.s_feature_ro_compat & ro_compat::BIGALLOC != 0;
        let log_cluster_blocks = superblock
            .s_log_cluster_size
            .checked_sub(superblock.s_log_block_size)
            .filter(|log| *log == 0 || has_clusters)
            .filter(|_| superblock.s_log_cluster_size <= LOG_CLUSTER_SIZE_MAX)
            .ok_or_else(|| corrupt("the cluster size is impossible"))?;
        let block_size = 1_usize << (LOG_BLOCK_SIZE_BASE + superblock.s_log_block_size);
        let is_64bit = superblock.s_feature_incompat & incompat::IS_64BIT != 0;
        let high = if is_64bit {
            superblock.s_blocks_count_hi
        } else {
            0
        };
        let blocks_count = join_u32(high, superblock.s_blocks_count_lo);
        let seed = if superblock.s_feature_incompat & incompat::CSUM_SEED != 0 {
            Checksum::from_seed(superblock.s_checksum_seed)
        } else {
            Checksum::of_uuid(&superblock.s_uuid)
        };
        let volume = Self {
            image,
            superblock,
            block_size,
            blocks_count,
            cluster_blocks: 1 << log_cluster_blocks,
            value_seed: seed,
            seed: has_checksums.then_some(seed),
            replaced: BTreeMap::new(),
            groups: Groups::default(),
            cache: RefCell::default(),
        };
        volume.check_geometry()?;
        Ok(volume)
    }

    fn check_geometry(&self) -> Result<(), ReadError> {
        let corrupt = |reason: &str| Err(ReadError::corrupt("superblock", reason));
        let superblock = &self.superblock;
        let inode_size = usize::from(superblock.s_inode_size);
        if !inode_size.is_power_of_two()
            || !(EXT4_GOOD_OLD_INODE_SIZE..=self.block_size).contains(&inode_size)
        {
            return corrupt("the inode size is impossible");
        }
        if superblock.s_first_ino < EXT4_GOOD_OLD_FIRST_INO {
            return corrupt("the first inode is impossible");
        }
        let bits = as_u64(self.block_size) * 8;
        let clusters = u64::from(superblock.s_blocks_per_group) / self.cluster_blocks;
        let fits = |count: u64| count > 0 && count <= bits;
        if !fits(superblock.s_inodes_per_group.into())
            || !fits(clusters)
            || !u64::from(superblock.s_blocks_per_group).is_multiple_of(self.cluster_blocks)
        {
            return corrupt("the size of a group is impossible");
        }
        let has_clusters = self.has_ro_compat(ro_compat::BIGALLOC);
        if has_clusters && !self.has_incompat(incompat::EXTENTS) {
            return corrupt("it has clusters and no extents");
        }
        let expected_first = u32::from(self.block_size == 1024 && !has_clusters);
        if superblock.s_first_data_block != expected_first {
            return corrupt("the first data block is impossible");
        }
        if self.blocks_count <= u64::from(expected_first) + 1
            || self
                .blocks_count
                .checked_mul(as_u64(self.block_size))
                .is_none()
        {
            return corrupt("the number of blocks is impossible");
        }
        let inodes = self
            .groups_count()
            .checked_mul(u64::from(superblock.s_inodes_per_group));
        if inodes != Some(u64::from(superblock.s_inodes_count)) {
            return corrupt("the number of inodes is impossible");
        }
        self.check_group_desc_size()
    }

    /// The image must have every block, so that content never ends early.
    fn check_length(&self) -> Result<(), ReadError> {
        let end = self.blocks_count.saturating_mul(as_u64(self.block_size));
        let offset = end.saturating_sub(1);
        match self.image.read_at(&mut [0], offset) {
            Ok(0) => Err(ReadError::corrupt(
                "superblock",
                format!("the image is shorter than the file system, which has {end} bytes"),
            )),
            Ok(_) => Ok(()),
            Err(source) => Err(ReadError::Io { offset, source }),
        }
    }

    /// Whether `count` blocks from `start` are inside the file system and not its superblock.
    pub(super) fn has_blocks(&self, start: u64, count: u64) -> bool {
        start > u64::from(self.superblock.s_first_data_block)
            && start
                .checked_add(count)
                .is_some_and(|end| end <= self.blocks_count)
    }

    /// The newest version of a block.
    pub(super) fn block(&self, number: u64) -> Result<Rc<[u8]>, ReadError> {
        if number >= self.blocks_count {
            return Err(ReadError::corrupt(
                format!("block {number}"),
                format!("the file system has {} blocks", self.blocks_count),
            ));
        }
        let slots = CACHE_BYTES / self.block_size;
        let slot = to_usize(number % as_u64(slots));
        if let Some(Some((cached, block))) = self.cache.borrow().get(slot)
            && *cached == number
        {
            return Ok(Rc::clone(block));
        }
        let replacement = self.replaced.get(&number);
        let from = replacement.map_or(number, |replacement| replacement.block);
        let mut bytes = vec![0; self.block_size];
        let offset = from.saturating_mul(as_u64(self.block_size));
        read_exact_at(&*self.image, &mut bytes, offset)
            .map_err(|source| ReadError::Io { offset, source })?;
        if replacement.is_some_and(|replacement| replacement.escaped) {
            bytes[..4].copy_from_slice(&crate::ext4::jbd2::JBD2_MAGIC_NUMBER.to_be_bytes());
        }
        let block: Rc<[u8]> = bytes.into();
        let mut cache = self.cache.borrow_mut();
        if cache.is_empty() {
            cache.resize(slots, None);
        }
        if let Some(place) = cache.get_mut(slot) {
            *place = Some((number, Rc::clone(&block)));
        }
        Ok(block)
    }

    /// The byte of the image at which the newest version of a block begins; `None` where the
    /// journal has it in another form.
    pub(super) fn offset_of(&self, number: u64) -> Option<u64> {
        let from = match self.replaced.get(&number) {
            None => number,
            Some(replacement) if !replacement.escaped => replacement.block,
            Some(_) => return None,
        };
        from.checked_mul(as_u64(self.block_size))
    }

    /// The bytes of an inode, its checksum not yet verified, and where they are in the image.
    pub(super) fn inode_bytes(&self, number: u32) -> Result<(Vec<u8>, Option<u64>), ReadError> {
        let place = || format!("inode {number}");
        let index = number
            .checked_sub(1)
            .filter(|_| number <= self.superblock.s_inodes_count)
            .ok_or_else(|| ReadError::corrupt(place(), "there is no such inode"))?;
        let group = index / self.superblock.s_inodes_per_group;
        let in_group = u64::from(index % self.superblock.s_inodes_per_group);
        let inode_size = usize::from(self.superblock.s_inode_size);
        let per_block = as_u64(self.block_size / inode_size);
        let block_number = self
            .inode_table(u64::from(group))?
            .checked_add(in_group / per_block)
            .filter(|number| self.has_blocks(*number, 1))
            .ok_or_else(|| ReadError::corrupt(place(), "its table is outside the image"))?;
        let block = self.block(block_number)?;
        let start = to_usize(in_group % per_block).saturating_mul(inode_size);
        let bytes = block
            .get(start..start.saturating_add(inode_size))
            .ok_or_else(|| ReadError::corrupt(place(), "it is outside its block"))?;
        let offset = self.offset_of(block_number);
        Ok((
            bytes.to_vec(),
            offset.and_then(|offset| offset.checked_add(as_u64(start))),
        ))
    }
}

fn superblock_bytes(image: &dyn Blob) -> Result<[u8; SuperBlock::SIZE], ReadError> {
    let mut bytes = [0; SuperBlock::SIZE];
    match read_exact_at(image, &mut bytes, SUPERBLOCK_OFFSET) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(ReadError::NotExt4),
        Err(source) => Err(ReadError::Io {
            offset: SUPERBLOCK_OFFSET,
            source,
        }),
    }
}

/// A length in memory as a file offset.
pub(super) fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// An offset within a block as an index; too large ones fail the bounds check that follows.
pub(super) fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
