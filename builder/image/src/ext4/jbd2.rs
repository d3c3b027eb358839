//! The journal on disk: structures and constants under the kernel's names.
//!
//! Follows the kernel's `Documentation/filesystems/ext4/journal.rst` and `include/linux/jbd2.h`.
//! All integers are big-endian.
#![allow(
    dead_code,
    reason = "the format is stated whole, whatever reader and writer use of it"
)]

use super::structure::structure;

/// `h_magic` of every journal block that is not data.
pub(crate) const JBD2_MAGIC_NUMBER: u32 = 0xC03B_3998;
/// A journal has at least so many blocks.
pub(crate) const JBD2_MIN_JOURNAL_BLOCKS: u32 = 1024;
/// `s_checksum_type`: crc32c.
pub(crate) const JBD2_CRC32C_CHKSUM: u8 = 4;

/// `h_blocktype`.
pub(crate) mod block_type {
    pub(crate) const DESCRIPTOR: u32 = 1;
    pub(crate) const COMMIT: u32 = 2;
    pub(crate) const SUPERBLOCK_V1: u32 = 3;
    pub(crate) const SUPERBLOCK_V2: u32 = 4;
    pub(crate) const REVOKE: u32 = 5;
}

/// `s_feature_incompat`.
pub(crate) mod incompat {
    pub(crate) const REVOKE: u32 = 0x1;
    pub(crate) const IS_64BIT: u32 = 0x2;
    pub(crate) const ASYNC_COMMIT: u32 = 0x4;
    pub(crate) const CSUM_V2: u32 = 0x8;
    pub(crate) const CSUM_V3: u32 = 0x10;
    pub(crate) const FAST_COMMIT: u32 = 0x20;
}

/// `t_flags` of a tag.
pub(crate) mod tag_flags {
    /// The data block began with the magic, which was replaced by zero.
    pub(crate) const ESCAPE: u32 = 1;
    /// No UUID follows this tag.
    pub(crate) const SAME_UUID: u32 = 2;
    pub(crate) const DELETED: u32 = 4;
    pub(crate) const LAST_TAG: u32 = 8;
}

structure! {
    /// Head of every journal block that is not data (`journal_header_t`).
    JournalHeader, 12, big {
        0 h_magic: u32,
        4 h_blocktype: u32,
        8 h_sequence: u32,
    }
}

structure! {
    /// The journal's superblock, its first block (`journal_superblock_t`).
    JournalSuperBlock, 1024, big {
        0x00 h_magic: u32,
        0x04 h_blocktype: u32,
        0x08 h_sequence: u32,
        0x0C s_blocksize: u32,
        0x10 s_maxlen: u32,
        0x14 s_first: u32,
        0x18 s_sequence: u32,
        0x1C s_start: u32,
        0x20 s_errno: u32,
        0x24 s_feature_compat: u32,
        0x28 s_feature_incompat: u32,
        0x2C s_feature_ro_compat: u32,
        0x30 s_uuid: [u8; 16],
        0x40 s_nr_users: u32,
        0x44 s_dynsuper: u32,
        0x48 s_max_transaction: u32,
        0x4C s_max_trans_data: u32,
        0x50 s_checksum_type: u8,
        0x51 s_padding2: [u8; 3],
        0x54 s_num_fc_blks: u32,
        0x58 s_head: u32,
        0x5C s_padding: [u32; 40],
        0xFC s_checksum: u32,
        0x100 s_users: [u8; 768],
    }
}

/// Byte offset of [`JournalSuperBlock::s_checksum`], which counts as zero in its own checksum.
pub(crate) const JOURNAL_CHECKSUM_OFFSET: usize = 0xFC;

structure! {
    /// A tag of a descriptor block with [`incompat::CSUM_V3`] (`journal_block_tag3_t`).
    BlockTag3, 16, big {
        0 t_blocknr: u32,
        4 t_flags: u32,
        8 t_blocknr_high: u32,
        12 t_checksum: u32,
    }
}

structure! {
    /// A tag of a descriptor block without [`incompat::CSUM_V3`] (`journal_block_tag_t`). The last
    /// field is there only with [`incompat::IS_64BIT`].
    BlockTag, 12, big {
        0 t_blocknr: u32,
        4 t_checksum: u16,
        6 t_flags: u16,
        8 t_blocknr_high: u32,
    }
}

structure! {
    /// A commit block (`struct commit_header`).
    CommitHeader, 60, big {
        0x00 h_magic: u32,
        0x04 h_blocktype: u32,
        0x08 h_sequence: u32,
        0x0C h_chksum_type: u8,
        0x0D h_chksum_size: u8,
        0x0E h_padding: [u8; 2],
        0x10 h_chksum: [u32; 8],
        0x30 h_commit_sec: u64,
        0x38 h_commit_nsec: u32,
    }
}

structure! {
    /// Head of a revoke block (`jbd2_journal_revoke_header_t`); block numbers of 4 bytes (8 with
    /// [`incompat::IS_64BIT`]) follow. `r_count` is the number of bytes in use, with this head.
    RevokeHeader, 16, big {
        0 h_magic: u32,
        4 h_blocktype: u32,
        8 h_sequence: u32,
        12 r_count: u32,
    }
}

/// Size of the checksum at the end of descriptor and revoke blocks (`struct jbd2_journal_block_tail`).
pub(crate) const JOURNAL_BLOCK_TAIL_SIZE: usize = 4;
