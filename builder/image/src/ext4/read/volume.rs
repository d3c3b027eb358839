//! Superblock, group descriptors, and blocks as the journal leaves them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::ReadError;
use super::journal;
use crate::ext4::checksum::{self, Checksum};
use crate::ext4::format::{
    EXT4_CRC32C_CHKSUM, EXT4_DYNAMIC_REV, EXT4_ERROR_FS, EXT4_GOOD_OLD_INODE_SIZE,
    EXT4_SUPER_MAGIC, GroupDesc, SUPERBLOCK_OFFSET, SuperBlock, incompat, join_u32, ro_compat,
};
use crate::tree::{Blob, read_exact_at};

/// Blocks of 64 KiB at most.
const LOG_BLOCK_SIZE_MAX: u32 = 6;
/// The smallest block, as its logarithm.
const LOG_BLOCK_SIZE_BASE: u32 = 10;
/// How many blocks are kept after reading.
const CACHE_SLOTS: u64 = 1024;
/// Size of a group descriptor without the feature `64bit`.
const GROUP_DESC_SIZE_SMALL: usize = 32;
/// The largest group descriptor (`EXT4_MAX_DESC_SIZE` is a block; the smallest block has this).
const GROUP_DESC_SIZE_MAX: usize = 1024;

/// Features that change nothing for reading, or that the modules of this folder know.
const INCOMPAT_READ: u32 = incompat::FILETYPE
    | incompat::RECOVER
    | incompat::EXTENTS
    | incompat::IS_64BIT
    | incompat::MMP
    | incompat::FLEX_BG
    | incompat::EA_INODE
    | incompat::CSUM_SEED
    | incompat::LARGEDIR
    | incompat::INLINE_DATA
    | incompat::ENCRYPT;
/// Likewise.
const RO_COMPAT_READ: u32 = ro_compat::SPARSE_SUPER
    | ro_compat::LARGE_FILE
    | ro_compat::BTREE_DIR
    | ro_compat::HUGE_FILE
    | ro_compat::GDT_CSUM
    | ro_compat::DIR_NLINK
    | ro_compat::EXTRA_ISIZE
    | ro_compat::QUOTA
    | ro_compat::METADATA_CSUM
    | ro_compat::READONLY
    | ro_compat::PROJECT
    | ro_compat::VERITY
    | ro_compat::ORPHAN_PRESENT;

/// Names of what is refused.
const INCOMPAT_NAMES: [(u32, &str); 5] = [
    (incompat::COMPRESSION, "compression"),
    (incompat::JOURNAL_DEV, "a journal device"),
    (incompat::META_BG, "meta_bg"),
    (incompat::DIRDATA, "dirdata"),
    (incompat::CASEFOLD, "casefold"),
];

/// Where the newest version of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replacement {
    /// The block of the journal, counted in the image.
    pub(super) block: u64,
    /// Whether the journal has zeroes where the block has the journal's magic.
    pub(super) escaped: bool,
}

/// Blocks with their numbers, by slot.
type Cache = BTreeMap<u64, (u64, Rc<[u8]>)>;

/// An opened file system.
pub(super) struct Volume {
    image: Arc<dyn Blob>,
    pub(super) superblock: SuperBlock,
    pub(super) block_size: usize,
    pub(super) blocks_count: u64,
    /// Seed of all checksums, where the file system has any.
    pub(super) seed: Option<Checksum>,
    /// Blocks that the journal has in a newer version.
    pub(super) replaced: BTreeMap<u64, Replacement>,
    cache: RefCell<Cache>,
}

impl Volume {
    /// Reads the superblock, and the journal where it needs recovery.
    pub(super) fn open(image: Arc<dyn Blob>) -> Result<Self, ReadError> {
        let mut bytes = [0; SuperBlock::SIZE];
        match read_exact_at(&*image, &mut bytes, SUPERBLOCK_OFFSET) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(ReadError::NotExt4);
            }
            Err(source) => {
                return Err(ReadError::Io {
                    offset: SUPERBLOCK_OFFSET,
                    source,
                });
            }
        }
        let mut volume = Self::from_superblock(image, &bytes)?;
        volume.check_length()?;
        if volume.superblock.s_feature_incompat & incompat::RECOVER != 0 {
            let replaced = journal::replay(&volume)?;
            volume = volume.reopen(replaced)?;
        }
        if volume.superblock.s_state & EXT4_ERROR_FS != 0 {
            return Err(ReadError::corrupt(
                "superblock",
                "the file system's kernel has recorded errors in it",
            ));
        }
        Ok(volume)
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
        let superblock = SuperBlock::decode(bytes).ok_or(ReadError::NotExt4)?;
        if superblock.s_magic != EXT4_SUPER_MAGIC {
            return Err(ReadError::NotExt4);
        }
        check_features(&superblock)?;
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
        if superblock.s_log_cluster_size != superblock.s_log_block_size {
            return Err(corrupt("the cluster size differs from the block size"));
        }
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
            seed: has_checksums.then_some(seed),
            replaced: BTreeMap::new(),
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
        let bits = as_u64(self.block_size) * 8;
        let fits = |count: u32| count > 0 && u64::from(count) <= bits;
        if !fits(superblock.s_inodes_per_group) || !fits(superblock.s_blocks_per_group) {
            return corrupt("the size of a group is impossible");
        }
        let expected_first = u32::from(self.block_size == 1024);
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
        let desc_size = self.group_desc_size();
        let sizes = GROUP_DESC_SIZE_SMALL..=GROUP_DESC_SIZE_MAX;
        if !desc_size.is_power_of_two() || !sizes.contains(&desc_size) {
            return corrupt("the size of a group descriptor is impossible");
        }
        Ok(())
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

    fn groups_count(&self) -> u64 {
        self.blocks_count
            .saturating_sub(u64::from(self.superblock.s_first_data_block))
            .div_ceil(u64::from(self.superblock.s_blocks_per_group))
    }

    fn group_desc_size(&self) -> usize {
        if self.superblock.s_feature_incompat & incompat::IS_64BIT != 0 {
            usize::from(self.superblock.s_desc_size)
        } else {
            GROUP_DESC_SIZE_SMALL
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
        let slot = number % CACHE_SLOTS;
        if let Some((cached, block)) = self.cache.borrow().get(&slot)
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
        self.cache
            .borrow_mut()
            .insert(slot, (number, Rc::clone(&block)));
        Ok(block)
    }

    /// The first block of a group's inode table.
    fn inode_table(&self, group: u64) -> Result<u64, ReadError> {
        let size = self.group_desc_size();
        let per_block = as_u64(self.block_size / size);
        let table = u64::from(self.superblock.s_first_data_block) + 1;
        let block = self.block(table.saturating_add(group / per_block))?;
        let start = to_usize(group % per_block).saturating_mul(size);
        let place = || format!("block group descriptor {group}");
        let bytes = block
            .get(start..start.saturating_add(size))
            .ok_or_else(|| ReadError::corrupt(place(), "it is outside its block"))?;
        let mut whole = [0; GroupDesc::SIZE];
        let used = size.min(GroupDesc::SIZE);
        whole[..used].copy_from_slice(&bytes[..used]);
        let desc = GroupDesc::decode(&whole)
            .ok_or_else(|| ReadError::corrupt(place(), "it is too short"))?;
        if let Some(seed) = self.seed {
            let number = u32::try_from(group)
                .map_err(|_| ReadError::corrupt(place(), "there are too many groups"))?;
            if checksum::group_desc(seed, number, bytes) != desc.bg_checksum {
                return Err(ReadError::checksum(place()));
            }
        }
        Ok(join_u32(desc.bg_inode_table_hi, desc.bg_inode_table_lo))
    }

    /// The bytes of an inode, its checksum not yet verified.
    pub(super) fn inode_bytes(&self, number: u32) -> Result<Vec<u8>, ReadError> {
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
        block
            .get(start..start.saturating_add(inode_size))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| ReadError::corrupt(place(), "it is outside its block"))
    }
}

fn check_features(superblock: &SuperBlock) -> Result<(), ReadError> {
    let unsupported = |what: String| Err(ReadError::unsupported("superblock", what));
    if superblock.s_rev_level < EXT4_DYNAMIC_REV {
        return unsupported("revision 0 of the format".into());
    }
    if superblock.s_creator_os != 0 {
        return unsupported("a file system made for another system than Linux".into());
    }
    let refused = superblock.s_feature_incompat & !INCOMPAT_READ;
    if refused != 0 {
        let known = INCOMPAT_NAMES.iter().find(|(bit, _)| refused & bit != 0);
        return unsupported(known.map_or_else(
            || format!("the incompatible feature {refused:#x}"),
            |(_, name)| (*name).to_string(),
        ));
    }
    let refused = superblock.s_feature_ro_compat & !RO_COMPAT_READ;
    if refused & ro_compat::BIGALLOC != 0 {
        return unsupported("bigalloc".into());
    }
    if refused != 0 {
        return unsupported(format!("the read-only compatible feature {refused:#x}"));
    }
    Ok(())
}

/// A length in memory as a file offset.
pub(super) fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// An offset within a block as an index; too large ones fail the bounds check that follows.
pub(super) fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
