//! The checksums of `metadata_csum`: crc32c without the usual inversions.
//!
//! ext4 feeds a running crc32c register from piece to piece and stores it as it is, where the
//! common definition inverts it before and after (spec: checksums.rst).
#![allow(
    dead_code,
    reason = "the checksums are stated whole, whatever reader and writer use of them"
)]

use super::format::{
    DX_NODE_ENTRIES_OFFSET, DX_ROOT_ENTRIES_OFFSET, GROUP_DESC_CHECKSUM_OFFSET,
    INODE_CHECKSUM_HI_OFFSET, INODE_CHECKSUM_LO_OFFSET, SUPERBLOCK_CHECKSUM_OFFSET,
    XATTR_CHECKSUM_OFFSET,
};
use super::jbd2::JOURNAL_CHECKSUM_OFFSET;

/// A crc32c register: begin with a seed, add pieces, read [`Checksum::value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksum(u32);

impl Checksum {
    /// The register before the first byte.
    pub(crate) const START: Self = Self(u32::MAX);

    /// The seed of a file system: its UUID.
    pub(crate) fn of_uuid(uuid: &[u8; 16]) -> Self {
        Self::START.add(uuid)
    }

    /// The seed that the superblock states (`s_checksum_seed` with the feature `csum_seed`).
    pub(crate) fn from_seed(seed: u32) -> Self {
        Self(seed)
    }

    /// The register after more bytes.
    #[must_use]
    pub(crate) fn add(self, bytes: &[u8]) -> Self {
        Self(!crc32c::crc32c_append(!self.0, bytes))
    }

    /// The register after a little-endian number.
    #[must_use]
    pub(crate) fn add_u32(self, value: u32) -> Self {
        self.add(&value.to_le_bytes())
    }

    /// The register as it is stored.
    pub(crate) fn value(self) -> u32 {
        self.0
    }

    /// The part that is stored where there is room for 16 bits only.
    pub(crate) fn low(self) -> u16 {
        let [a, b, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// The seed of what belongs to one inode: its directory and extent blocks and itself.
    #[must_use]
    pub(crate) fn of_inode(self, number: u32, generation: u32) -> Self {
        self.add_u32(number).add_u32(generation)
    }
}

/// `s_checksum` of an encoded superblock; no seed.
pub(crate) fn superblock(bytes: &[u8]) -> u32 {
    Checksum::START
        .add(&bytes[..SUPERBLOCK_CHECKSUM_OFFSET])
        .value()
}

/// `bg_checksum` of an encoded descriptor of `s_desc_size` bytes.
pub(crate) fn group_desc(seed: Checksum, group: u32, bytes: &[u8]) -> u16 {
    let after = GROUP_DESC_CHECKSUM_OFFSET + 2;
    seed.add_u32(group)
        .add(&bytes[..GROUP_DESC_CHECKSUM_OFFSET])
        .add(&[0; 2])
        .add(&bytes[after..])
        .low()
}

/// The checksum of a whole encoded inode of `s_inode_size` (at least 160) bytes with an
/// `i_extra_isize` of at least 4; `seed` is that of the inode.
pub(crate) fn inode(seed: Checksum, bytes: &[u8]) -> u32 {
    seed.add(&bytes[..INODE_CHECKSUM_LO_OFFSET])
        .add(&[0; 2])
        .add(&bytes[INODE_CHECKSUM_LO_OFFSET + 2..INODE_CHECKSUM_HI_OFFSET])
        .add(&[0; 2])
        .add(&bytes[INODE_CHECKSUM_HI_OFFSET + 2..])
        .value()
}

/// `det_checksum` of a directory block without an index; `seed` is that of the inode.
pub(crate) fn directory_block(seed: Checksum, block: &[u8]) -> u32 {
    let tail = block
        .len()
        .saturating_sub(super::format::DirEntryTail::SIZE);
    seed.add(&block[..tail]).value()
}

/// `dt_checksum` of an index node, of which the entries with the count begin at
/// [`DX_ROOT_ENTRIES_OFFSET`] or [`DX_NODE_ENTRIES_OFFSET`]; `seed` is that of the inode. `None`
/// where the counts lead out of the block.
pub(crate) fn index_block(seed: Checksum, block: &[u8], is_root: bool) -> Option<u32> {
    let start = if is_root {
        DX_ROOT_ENTRIES_OFFSET
    } else {
        DX_NODE_ENTRIES_OFFSET
    };
    let counts = super::format::DxCountLimit::decode(block.get(start..)?)?;
    let end = start + usize::from(counts.count) * super::format::DxEntry::SIZE;
    let tail = start + usize::from(counts.limit) * super::format::DxEntry::SIZE;
    Some(
        seed.add(block.get(..end)?)
            .add(block.get(tail..tail + 4)?)
            .add(&[0; 4])
            .value(),
    )
}

/// `et_checksum` of a block of an extent tree of which `covered` is everything before the
/// checksum: the head and room for `eh_max` entries; `seed` is that of the inode.
pub(crate) fn extent_block(seed: Checksum, covered: &[u8]) -> u32 {
    seed.add(covered).value()
}

/// `ob_checksum` of a block of the orphan file of which `numbers` is everything before the tail;
/// `seed` is that of the inode.
pub(crate) fn orphan_block(seed: Checksum, block_number: u64, numbers: &[u8]) -> u32 {
    seed.add(&block_number.to_le_bytes()).add(numbers).value()
}

/// `h_checksum` of an attribute block at the given block number.
pub(crate) fn xattr_block(seed: Checksum, block_number: u64, block: &[u8]) -> u32 {
    seed.add(&block_number.to_le_bytes())
        .add(&block[..XATTR_CHECKSUM_OFFSET])
        .add(&[0; 4])
        .add(&block[XATTR_CHECKSUM_OFFSET + 4..])
        .value()
}

/// `s_checksum` of an encoded journal superblock of 1024 bytes; no seed.
pub(crate) fn journal_superblock(bytes: &[u8]) -> u32 {
    Checksum::START
        .add(&bytes[..JOURNAL_CHECKSUM_OFFSET])
        .add(&[0; 4])
        .add(&bytes[JOURNAL_CHECKSUM_OFFSET + 4..])
        .value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_register_is_the_common_crc_without_inversions() {
        // The check value of crc32c for "123456789" is E3069283.
        let sum = Checksum::START.add(b"1234").add(b"56789");
        assert_eq!(!sum.value(), 0xE306_9283);
        assert_eq!(sum.low(), !0x9283);
    }
}
