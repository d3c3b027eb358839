//! The fields of an inode.

use super::ReadError;
use super::volume::Volume;
use crate::ext4::checksum::{self, Checksum};
use crate::ext4::encoding::decode_time;
use crate::ext4::format::{
    EXT4_GOOD_OLD_INODE_SIZE, INODE_CHECKSUM_HI_OFFSET, INODE_CHECKSUM_LO_OFFSET, RawInode,
    inode_flags, join_u16, join_u32, mode,
};
use crate::tree::{Metadata, Times};

/// Flags that change what the content means.
const FLAGS_UNREADABLE: [(u32, &str); 5] = [
    (inode_flags::ENCRYPT, "encryption"),
    (inode_flags::VERITY, "verity"),
    (inode_flags::EA_INODE, "an attribute's value as an inode"),
    (inode_flags::INLINE_DATA, "inline_data"),
    (inode_flags::CASEFOLD, "casefold"),
];
/// Flags that `chattr` sets and a tree cannot hold.
const FLAGS_LOST: [(u32, &str); 9] = [
    (0x4, "the flag c (compressed)"),
    (0x8, "the flag S (synchronous)"),
    (inode_flags::IMMUTABLE, "the flag i (immutable)"),
    (inode_flags::APPEND, "the flag a (append only)"),
    (0x40, "the flag d (no dump)"),
    (0x80, "the flag A (no access times)"),
    (0x4000, "the flag j (journalled data)"),
    (0x1_0000, "the flag D (synchronous directory)"),
    (0x2000_0000, "the flag P (project hierarchy)"),
];

/// An inode with a verified checksum.
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) raw: RawInode,
    /// `s_inode_size` bytes.
    pub(super) bytes: Vec<u8>,
    /// Seed of the checksums of what belongs to the inode.
    pub(super) seed: Option<Checksum>,
}

impl Inode {
    /// Reads and verifies an inode.
    pub(super) fn read(volume: &Volume, number: u32) -> Result<Self, ReadError> {
        let bytes = volume.inode_bytes(number)?;
        let mut whole = [0; RawInode::SIZE];
        let used = bytes.len().min(RawInode::SIZE);
        whole[..used].copy_from_slice(&bytes[..used]);
        let raw = RawInode::decode(&whole);
        let raw = raw.ok_or_else(|| ReadError::corrupt(place(number), "it is too short"))?;
        let seed = volume
            .seed
            .map(|seed| seed.of_inode(number, raw.i_generation));
        let inode = Self {
            number,
            raw,
            bytes,
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
        join_u32(self.raw.i_size_high, self.raw.i_size_lo)
    }

    /// The block of attributes, 0 for none.
    pub(super) fn attribute_block(&self) -> u64 {
        join_u32(
            u32::from(self.raw.l_i_file_acl_high),
            self.raw.i_file_acl_lo,
        )
    }

    /// Whether a symbolic link's target lies in the inode: it then has no block but, perhaps, one
    /// of attributes.
    pub(super) fn is_fast_symlink(&self, block_size: usize) -> bool {
        let sectors = join_u32(u32::from(self.raw.l_i_blocks_high), self.raw.i_blocks_lo);
        let attributes = if self.attribute_block() == 0 {
            0
        } else {
            block_size / 512
        };
        u64::try_from(attributes).ok() == Some(sectors)
    }

    /// Refuses what could only be carried over with a loss.
    pub(super) fn check_supported(&self) -> Result<(), ReadError> {
        let names = FLAGS_UNREADABLE.iter().chain(&FLAGS_LOST);
        for (flag, name) in names {
            if self.has_flag(*flag) {
                return Err(ReadError::unsupported(self.place(), *name));
            }
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
