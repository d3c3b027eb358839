//! The fields of an inode.

use super::ReadError;
use super::volume::{Volume, as_u64};
use crate::ext4::checksum::{self, Checksum};
use crate::ext4::encoding::decode_time;
use crate::ext4::format::{
    EXT4_GOOD_OLD_INODE_SIZE, I_BLOCK_SIZE, INODE_CHECKSUM_HI_OFFSET, INODE_CHECKSUM_LO_OFFSET,
    RawInode, incompat, inode_flags, join_u16, join_u32, mode, ro_compat,
};
use crate::tree::{Metadata, Times};

/// Flags that change what the content means.
const FLAGS_UNREADABLE: [(u32, &str); 5] = [
    (0x200, "e2compr compression"),
    (inode_flags::ENCRYPT, "encryption"),
    (inode_flags::VERITY, "verity"),
    (inode_flags::EA_INODE, "an attribute's value as an inode"),
    (inode_flags::CASEFOLD, "casefold"),
];
/// Flags that `chattr` sets, that have an effect in ext4, and that a tree cannot hold.
const FLAGS_LOST: [(u32, &str); 9] = [
    (0x8, "the flag S (synchronous)"),
    (inode_flags::IMMUTABLE, "the flag i (immutable)"),
    (inode_flags::APPEND, "the flag a (append only)"),
    (0x40, "the flag d (no dump)"),
    (0x80, "the flag A (no access times)"),
    (0x4000, "the flag j (journalled data)"),
    (0x1_0000, "the flag D (synchronous directory)"),
    (0x200_0000, "the flag x (direct access)"),
    (0x2000_0000, "the flag P (project hierarchy)"),
];
/// Flags that say where content is, which the reader knows; and those that ext4 keeps and never
/// looks at: s (secure deletion), u (undelete), c (compress), t (no tail-merging), T (top of a
/// hierarchy: a hint to the allocator), and what e2compr and directory indexes left behind.
const FLAGS_READ: u32 = inode_flags::INDEX
    | inode_flags::HUGE_FILE
    | inode_flags::EXTENTS
    | inode_flags::INLINE_DATA
    | 0x1
    | 0x2
    | 0x4
    | 0x100
    | 0x400
    | 0x2000
    | 0x8000
    | 0x2_0000
    | 0x40_0000;

/// An inode with a verified checksum.
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) raw: RawInode,
    /// `s_inode_size` bytes.
    pub(super) bytes: Vec<u8>,
    /// Where `bytes` are in the image; `None` where the journal has them in another form.
    pub(super) image_offset: Option<u64>,
    /// Size in bytes.
    size: u64,
    /// The block of attributes, 0 for none.
    attribute_block: u64,
    /// Seed of the checksums of what belongs to the inode.
    pub(super) seed: Option<Checksum>,
}

impl Inode {
    /// Reads and verifies an inode.
    pub(super) fn read(volume: &Volume, number: u32) -> Result<Self, ReadError> {
        let (bytes, image_offset) = volume.inode_bytes(number)?;
        let mut whole = [0; RawInode::SIZE];
        let used = bytes.len().min(RawInode::SIZE);
        whole[..used].copy_from_slice(&bytes[..used]);
        let raw = RawInode::decode(&whole);
        let raw = raw.ok_or_else(|| ReadError::corrupt(place(number), "it is too short"))?;
        let seed = volume
            .seed
            .map(|seed| seed.of_inode(number, raw.i_generation));
        let has_high_size =
            raw.i_mode & mode::S_IFMT == mode::S_IFREG || volume.has_incompat(incompat::LARGEDIR);
        let size_high = if has_high_size { raw.i_size_high } else { 0 };
        let attributes_high = if volume.has_incompat(incompat::IS_64BIT) {
            raw.l_i_file_acl_high
        } else {
            0
        };
        let inode = Self {
            number,
            size: join_u32(size_high, raw.i_size_lo),
            attribute_block: join_u32(u32::from(attributes_high), raw.i_file_acl_lo),
            raw,
            bytes,
            image_offset,
            seed,
        };
        inode.check()?;
        Ok(inode)
    }

    /// "inode 12", for messages.
    pub(super) fn place(&self) -> String {
        place(self.number)
    }

    fn check(&self) -> Result<(), ReadError> {
        let extra = usize::from(self.raw.i_extra_isize);
        if self.bytes.len() > EXT4_GOOD_OLD_INODE_SIZE
            && (extra % 4 != 0 || self.fields_end() > self.bytes.len())
        {
            return Err(ReadError::corrupt(self.place(), "its size is impossible"));
        }
        if let Some(seed) = self.seed
            && !self.checksum_matches(seed)
        {
            return Err(ReadError::checksum(self.place()));
        }
        Ok(())
    }

    fn checksum_matches(&self, seed: Checksum) -> bool {
        let low = self.raw.l_i_checksum_lo;
        if self.has_field(INODE_CHECKSUM_HI_OFFSET + 2) {
            let stored = join_u16(self.raw.i_checksum_hi, low);
            return checksum::inode(seed, &self.bytes) == stored;
        }
        seed.add(&self.bytes[..INODE_CHECKSUM_LO_OFFSET])
            .add(&[0; 2])
            .add(&self.bytes[INODE_CHECKSUM_LO_OFFSET + 2..])
            .low()
            == low
    }

    /// Where the inode's own fields end and its attributes begin.
    pub(super) fn fields_end(&self) -> usize {
        if self.bytes.len() == EXT4_GOOD_OLD_INODE_SIZE {
            return EXT4_GOOD_OLD_INODE_SIZE;
        }
        EXT4_GOOD_OLD_INODE_SIZE.saturating_add(usize::from(self.raw.i_extra_isize))
    }

    fn has_field(&self, end: usize) -> bool {
        end <= self.fields_end()
    }

    pub(super) fn format(&self) -> u16 {
        self.raw.i_mode & mode::S_IFMT
    }

    pub(super) fn is_directory(&self) -> bool {
        self.format() == mode::S_IFDIR
    }

    pub(super) fn has_flag(&self, flag: u32) -> bool {
        self.raw.i_flags & flag != 0
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The block of attributes, 0 for none.
    pub(super) fn attribute_block(&self) -> u64 {
        self.attribute_block
    }

    /// Whether a symbolic link's target lies in `i_block` (`ext4_inode_is_fast_symlink`): it then
    /// has no block but, perhaps, one of attributes. Where attributes may have inodes, which count
    /// too, the length decides.
    pub(super) fn is_fast_symlink(&self, volume: &Volume) -> bool {
        if volume.has_incompat(incompat::EA_INODE) {
            return (1..as_u64(I_BLOCK_SIZE)).contains(&self.size);
        }
        let high = if volume.has_ro_compat(ro_compat::HUGE_FILE) {
            self.raw.l_i_blocks_high
        } else {
            0
        };
        let sectors = join_u32(u32::from(high), self.raw.i_blocks_lo);
        let attributes = if self.attribute_block == 0 {
            0
        } else {
            as_u64(volume.block_size).saturating_mul(volume.cluster_blocks) / 512
        };
        attributes == sectors
    }

    /// Refuses what could only be carried over with a loss.
    pub(super) fn check_supported(&self) -> Result<(), ReadError> {
        let names = FLAGS_UNREADABLE.iter().chain(&FLAGS_LOST);
        for (flag, name) in names {
            if self.has_flag(*flag) {
                return Err(ReadError::unsupported(self.place(), *name));
            }
        }
        let unknown = self.raw.i_flags & !FLAGS_READ;
        if unknown != 0 {
            return Err(ReadError::unsupported(
                self.place(),
                format!("the unknown flag {unknown:#x}"),
            ));
        }
        if self.has_field(RawInode::SIZE) && self.raw.i_projid != 0 {
            return Err(ReadError::unsupported(self.place(), "a project id"));
        }
        Ok(())
    }

    /// Mode, owner and times; where the inode has no birth time, the change time stands in.
    pub(super) fn metadata(&self) -> Metadata {
        let raw = &self.raw;
        let time = |low, extra, extra_end| {
            decode_time(low, if self.has_field(extra_end) { extra } else { 0 })
        };
        let changed = time(raw.i_ctime, raw.i_ctime_extra, 0x88);
        let created = if self.has_field(0x94) {
            time(raw.i_crtime, raw.i_crtime_extra, 0x98)
        } else {
            changed
        };
        Metadata {
            mode: raw.i_mode & !mode::S_IFMT,
            uid: join_u16(raw.l_i_uid_high, raw.i_uid),
            gid: join_u16(raw.l_i_gid_high, raw.i_gid),
            times: Times {
                modified: time(raw.i_mtime, raw.i_mtime_extra, 0x8C),
                accessed: time(raw.i_atime, raw.i_atime_extra, 0x90),
                changed,
                created,
            },
            ..Metadata::default()
        }
    }
}

pub(super) fn place(number: u32) -> String {
    format!("inode {number}")
}
