//! ext4 on disk: structures and constants under the kernel's names, nothing else.
//!
//! Follows the kernel's `Documentation/filesystems/ext4/` (named in the doc comments as "spec") and
//! `fs/ext4/ext4.h`. All integers are little-endian; the journal's big-endian structures are in
//! [`super::jbd2`]. Structures decode to and encode from native integers.
#![allow(
    dead_code,
    reason = "the format is stated whole, whatever reader and writer use of it"
)]

use super::structure::structure;

/// Byte offset of the primary superblock in the image.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
/// `s_magic`.
pub(crate) const EXT4_SUPER_MAGIC: u16 = 0xEF53;
/// `s_rev_level` with variable inode sizes and feature bits.
pub(crate) const EXT4_DYNAMIC_REV: u32 = 1;
/// `s_checksum_type`: crc32c.
pub(crate) const EXT4_CRC32C_CHKSUM: u8 = 1;
/// `s_state`: cleanly unmounted.
pub(crate) const EXT4_VALID_FS: u16 = 1;
/// `s_state`: errors were seen.
pub(crate) const EXT4_ERROR_FS: u16 = 2;
/// `s_state`: orphans are being recovered.
pub(crate) const EXT4_ORPHAN_FS: u16 = 4;
/// `s_errors`: go on after an error.
pub(crate) const EXT4_ERRORS_CONTINUE: u16 = 1;
/// `s_flags`: directory hashes take names as signed characters.
pub(crate) const EXT2_FLAGS_SIGNED_HASH: u32 = 1;
/// `s_flags`: directory hashes take names as unsigned characters.
pub(crate) const EXT2_FLAGS_UNSIGNED_HASH: u32 = 2;
/// `s_default_mount_opts`: `user.` attributes.
pub(crate) const EXT4_DEFM_XATTR_USER: u32 = 4;
/// `s_default_mount_opts`: POSIX ACLs.
pub(crate) const EXT4_DEFM_ACL: u32 = 8;
/// `s_jnl_backup_type`: `s_jnl_blocks` holds the journal inode's `i_block` and size.
pub(crate) const EXT3_JNL_BACKUP_BLOCKS: u8 = 1;

/// Feature bits that a kernel may ignore (`s_feature_compat`).
pub(crate) mod compat {
    pub(crate) const DIR_PREALLOC: u32 = 0x1;
    pub(crate) const HAS_JOURNAL: u32 = 0x4;
    pub(crate) const EXT_ATTR: u32 = 0x8;
    pub(crate) const RESIZE_INODE: u32 = 0x10;
    pub(crate) const DIR_INDEX: u32 = 0x20;
    pub(crate) const SPARSE_SUPER2: u32 = 0x200;
    pub(crate) const FAST_COMMIT: u32 = 0x400;
    pub(crate) const STABLE_INODES: u32 = 0x800;
    pub(crate) const ORPHAN_FILE: u32 = 0x1000;
}

/// Feature bits that must be known to mount at all (`s_feature_incompat`).
pub(crate) mod incompat {
    pub(crate) const COMPRESSION: u32 = 0x1;
    pub(crate) const FILETYPE: u32 = 0x2;
    pub(crate) const RECOVER: u32 = 0x4;
    pub(crate) const JOURNAL_DEV: u32 = 0x8;
    pub(crate) const META_BG: u32 = 0x10;
    pub(crate) const EXTENTS: u32 = 0x40;
    pub(crate) const IS_64BIT: u32 = 0x80;
    pub(crate) const MMP: u32 = 0x100;
    pub(crate) const FLEX_BG: u32 = 0x200;
    pub(crate) const EA_INODE: u32 = 0x400;
    pub(crate) const DIRDATA: u32 = 0x1000;
    pub(crate) const CSUM_SEED: u32 = 0x2000;
    pub(crate) const LARGEDIR: u32 = 0x4000;
    pub(crate) const INLINE_DATA: u32 = 0x8000;
    pub(crate) const ENCRYPT: u32 = 0x10000;
    pub(crate) const CASEFOLD: u32 = 0x20000;
}

/// Feature bits that must be known to mount for writing (`s_feature_ro_compat`).
pub(crate) mod ro_compat {
    pub(crate) const SPARSE_SUPER: u32 = 0x1;
    pub(crate) const LARGE_FILE: u32 = 0x2;
    pub(crate) const BTREE_DIR: u32 = 0x4;
    pub(crate) const HUGE_FILE: u32 = 0x8;
    pub(crate) const GDT_CSUM: u32 = 0x10;
    pub(crate) const DIR_NLINK: u32 = 0x20;
    pub(crate) const EXTRA_ISIZE: u32 = 0x40;
    pub(crate) const QUOTA: u32 = 0x100;
    pub(crate) const BIGALLOC: u32 = 0x200;
    pub(crate) const METADATA_CSUM: u32 = 0x400;
    pub(crate) const READONLY: u32 = 0x1000;
    pub(crate) const PROJECT: u32 = 0x2000;
    pub(crate) const VERITY: u32 = 0x8000;
    pub(crate) const ORPHAN_PRESENT: u32 = 0x10000;
}

structure! {
    /// The superblock (spec: super.rst, `struct ext4_super_block`).
    SuperBlock, 1024, little {
        0x000 s_inodes_count: u32,
        0x004 s_blocks_count_lo: u32,
        0x008 s_r_blocks_count_lo: u32,
        0x00C s_free_blocks_count_lo: u32,
        0x010 s_free_inodes_count: u32,
        0x014 s_first_data_block: u32,
        0x018 s_log_block_size: u32,
        0x01C s_log_cluster_size: u32,
        0x020 s_blocks_per_group: u32,
        0x024 s_clusters_per_group: u32,
        0x028 s_inodes_per_group: u32,
        0x02C s_mtime: u32,
        0x030 s_wtime: u32,
        0x034 s_mnt_count: u16,
        0x036 s_max_mnt_count: u16,
        0x038 s_magic: u16,
        0x03A s_state: u16,
        0x03C s_errors: u16,
        0x03E s_minor_rev_level: u16,
        0x040 s_lastcheck: u32,
        0x044 s_checkinterval: u32,
        0x048 s_creator_os: u32,
        0x04C s_rev_level: u32,
        0x050 s_def_resuid: u16,
        0x052 s_def_resgid: u16,
        0x054 s_first_ino: u32,
        0x058 s_inode_size: u16,
        0x05A s_block_group_nr: u16,
        0x05C s_feature_compat: u32,
        0x060 s_feature_incompat: u32,
        0x064 s_feature_ro_compat: u32,
        0x068 s_uuid: [u8; 16],
        0x078 s_volume_name: [u8; 16],
        0x088 s_last_mounted: [u8; 64],
        0x0C8 s_algorithm_usage_bitmap: u32,
        0x0CC s_prealloc_blocks: u8,
        0x0CD s_prealloc_dir_blocks: u8,
        0x0CE s_reserved_gdt_blocks: u16,
        0x0D0 s_journal_uuid: [u8; 16],
        0x0E0 s_journal_inum: u32,
        0x0E4 s_journal_dev: u32,
        0x0E8 s_last_orphan: u32,
        0x0EC s_hash_seed: [u32; 4],
        0x0FC s_def_hash_version: u8,
        0x0FD s_jnl_backup_type: u8,
        0x0FE s_desc_size: u16,
        0x100 s_default_mount_opts: u32,
        0x104 s_first_meta_bg: u32,
        0x108 s_mkfs_time: u32,
        0x10C s_jnl_blocks: [u32; 17],
        0x150 s_blocks_count_hi: u32,
        0x154 s_r_blocks_count_hi: u32,
        0x158 s_free_blocks_count_hi: u32,
        0x15C s_min_extra_isize: u16,
        0x15E s_want_extra_isize: u16,
        0x160 s_flags: u32,
        0x164 s_raid_stride: u16,
        0x166 s_mmp_interval: u16,
        0x168 s_mmp_block: u64,
        0x170 s_raid_stripe_width: u32,
        0x174 s_log_groups_per_flex: u8,
        0x175 s_checksum_type: u8,
        0x176 s_encryption_level: u8,
        0x177 s_reserved_pad: u8,
        0x178 s_kbytes_written: u64,
        0x180 s_snapshot_inum: u32,
        0x184 s_snapshot_id: u32,
        0x188 s_snapshot_r_blocks_count: u64,
        0x190 s_snapshot_list: u32,
        0x194 s_error_count: u32,
        0x198 s_first_error_time: u32,
        0x19C s_first_error_ino: u32,
        0x1A0 s_first_error_block: u64,
        0x1A8 s_first_error_func: [u8; 32],
        0x1C8 s_first_error_line: u32,
        0x1CC s_last_error_time: u32,
        0x1D0 s_last_error_ino: u32,
        0x1D4 s_last_error_line: u32,
        0x1D8 s_last_error_block: u64,
        0x1E0 s_last_error_func: [u8; 32],
        0x200 s_mount_opts: [u8; 64],
        0x240 s_usr_quota_inum: u32,
        0x244 s_grp_quota_inum: u32,
        0x248 s_overhead_clusters: u32,
        0x24C s_backup_bgs: [u32; 2],
        0x254 s_encrypt_algos: [u8; 4],
        0x258 s_encrypt_pw_salt: [u8; 16],
        0x268 s_lpf_ino: u32,
        0x26C s_prj_quota_inum: u32,
        0x270 s_checksum_seed: u32,
        0x274 s_wtime_hi: u8,
        0x275 s_mtime_hi: u8,
        0x276 s_mkfs_time_hi: u8,
        0x277 s_lastcheck_hi: u8,
        0x278 s_first_error_time_hi: u8,
        0x279 s_last_error_time_hi: u8,
        0x27A s_first_error_errcode: u8,
        0x27B s_last_error_errcode: u8,
        0x27C s_encoding: u16,
        0x27E s_encoding_flags: u16,
        0x280 s_orphan_file_inum: u32,
        0x284 s_reserved: [u32; 94],
        0x3FC s_checksum: u32,
    }
}

/// Byte offset of [`SuperBlock::s_checksum`]: the checksum covers what is before it.
pub(crate) const SUPERBLOCK_CHECKSUM_OFFSET: usize = 0x3FC;

/// `bg_flags`: the inode bitmap is not initialised; no inode of the group is in use.
pub(crate) const EXT4_BG_INODE_UNINIT: u16 = 1;
/// `bg_flags`: the block bitmap is not initialised; only the group's own metadata is in use.
pub(crate) const EXT4_BG_BLOCK_UNINIT: u16 = 2;
/// `bg_flags`: the unused part of the inode table is zero on disk.
pub(crate) const EXT4_BG_INODE_ZEROED: u16 = 4;

structure! {
    /// A block group descriptor with `s_desc_size` 64 (spec: group_descr.rst,
    /// `struct ext4_group_desc`). With `s_desc_size` 32 the part from 0x20 on is missing: decode
    /// those from 32 bytes followed by 32 zeroes.
    GroupDesc, 64, little {
        0x00 bg_block_bitmap_lo: u32,
        0x04 bg_inode_bitmap_lo: u32,
        0x08 bg_inode_table_lo: u32,
        0x0C bg_free_blocks_count_lo: u16,
        0x0E bg_free_inodes_count_lo: u16,
        0x10 bg_used_dirs_count_lo: u16,
        0x12 bg_flags: u16,
        0x14 bg_exclude_bitmap_lo: u32,
        0x18 bg_block_bitmap_csum_lo: u16,
        0x1A bg_inode_bitmap_csum_lo: u16,
        0x1C bg_itable_unused_lo: u16,
        0x1E bg_checksum: u16,
        0x20 bg_block_bitmap_hi: u32,
        0x24 bg_inode_bitmap_hi: u32,
        0x28 bg_inode_table_hi: u32,
        0x2C bg_free_blocks_count_hi: u16,
        0x2E bg_free_inodes_count_hi: u16,
        0x30 bg_used_dirs_count_hi: u16,
        0x32 bg_itable_unused_hi: u16,
        0x34 bg_exclude_bitmap_hi: u32,
        0x38 bg_block_bitmap_csum_hi: u16,
        0x3A bg_inode_bitmap_csum_hi: u16,
        0x3C bg_reserved: u32,
    }
}

/// Byte offset of [`GroupDesc::bg_checksum`], which counts as zero in its own checksum.
pub(crate) const GROUP_DESC_CHECKSUM_OFFSET: usize = 0x1E;

/// The inode of bad blocks; reserved, always empty here.
pub(crate) const EXT4_BAD_INO: u32 = 1;
/// The root folder.
pub(crate) const EXT4_ROOT_INO: u32 = 2;
/// Owns the blocks reserved for a growing table of group descriptors.
pub(crate) const EXT4_RESIZE_INO: u32 = 7;
/// The journal.
pub(crate) const EXT4_JOURNAL_INO: u32 = 8;
/// The first inode that is not reserved.
pub(crate) const EXT4_GOOD_OLD_FIRST_INO: u32 = 11;
/// Bytes of an inode before `i_extra_isize`.
pub(crate) const EXT4_GOOD_OLD_INODE_SIZE: usize = 128;
/// The highest link count; folders with more have the count 1 (`dir_nlink`).
pub(crate) const EXT4_LINK_MAX: u32 = 65000;
/// Pointers in `i_block` without extents: direct blocks.
pub(crate) const EXT4_NDIR_BLOCKS: usize = 12;
/// Index in `i_block` of the indirect block.
pub(crate) const EXT4_IND_BLOCK: usize = 12;
/// Index in `i_block` of the double indirect block.
pub(crate) const EXT4_DIND_BLOCK: usize = 13;
/// Index in `i_block` of the triple indirect block.
pub(crate) const EXT4_TIND_BLOCK: usize = 14;
/// Bytes of `i_block`; a shorter link target lives in it.
pub(crate) const I_BLOCK_SIZE: usize = 60;

/// File types in `i_mode`.
pub(crate) mod mode {
    pub(crate) const S_IFMT: u16 = 0xF000;
    pub(crate) const S_IFIFO: u16 = 0x1000;
    pub(crate) const S_IFCHR: u16 = 0x2000;
    pub(crate) const S_IFDIR: u16 = 0x4000;
    pub(crate) const S_IFBLK: u16 = 0x6000;
    pub(crate) const S_IFREG: u16 = 0x8000;
    pub(crate) const S_IFLNK: u16 = 0xA000;
    pub(crate) const S_IFSOCK: u16 = 0xC000;
}

/// `i_flags`.
pub(crate) mod inode_flags {
    pub(crate) const IMMUTABLE: u32 = 0x10;
    pub(crate) const APPEND: u32 = 0x20;
    pub(crate) const ENCRYPT: u32 = 0x800;
    pub(crate) const INDEX: u32 = 0x1000;
    pub(crate) const HUGE_FILE: u32 = 0x40000;
    pub(crate) const EXTENTS: u32 = 0x80000;
    pub(crate) const VERITY: u32 = 0x10_0000;
    pub(crate) const EA_INODE: u32 = 0x20_0000;
    pub(crate) const INLINE_DATA: u32 = 0x1000_0000;
    pub(crate) const CASEFOLD: u32 = 0x4000_0000;
}

structure! {
    /// An inode without the attributes that follow it (spec: inodes.rst, `struct ext4_inode`).
    /// What is beyond 128 + `i_extra_isize` does not count.
    RawInode, 160, little {
        0x00 i_mode: u16,
        0x02 i_uid: u16,
        0x04 i_size_lo: u32,
        0x08 i_atime: u32,
        0x0C i_ctime: u32,
        0x10 i_mtime: u32,
        0x14 i_dtime: u32,
        0x18 i_gid: u16,
        0x1A i_links_count: u16,
        0x1C i_blocks_lo: u32,
        0x20 i_flags: u32,
        0x24 l_i_version: u32,
        0x28 i_block: [u8; 60],
        0x64 i_generation: u32,
        0x68 i_file_acl_lo: u32,
        0x6C i_size_high: u32,
        0x70 i_obso_faddr: u32,
        0x74 l_i_blocks_high: u16,
        0x76 l_i_file_acl_high: u16,
        0x78 l_i_uid_high: u16,
        0x7A l_i_gid_high: u16,
        0x7C l_i_checksum_lo: u16,
        0x7E l_i_reserved: u16,
        0x80 i_extra_isize: u16,
        0x82 i_checksum_hi: u16,
        0x84 i_ctime_extra: u32,
        0x88 i_mtime_extra: u32,
        0x8C i_atime_extra: u32,
        0x90 i_crtime: u32,
        0x94 i_crtime_extra: u32,
        0x98 i_version_hi: u32,
        0x9C i_projid: u32,
    }
}

/// `i_extra_isize` of an inode with all fields of [`RawInode`].
pub(crate) const EXTRA_ISIZE: u16 = 32;
/// Byte offset of `l_i_checksum_lo`, which counts as zero in its own checksum.
pub(crate) const INODE_CHECKSUM_LO_OFFSET: usize = 0x7C;
/// Byte offset of `i_checksum_hi`, which counts as zero in its own checksum.
pub(crate) const INODE_CHECKSUM_HI_OFFSET: usize = 0x82;

/// `eh_magic`.
pub(crate) const EXT4_EXT_MAGIC: u16 = 0xF30A;
/// The longest initialised extent in blocks; a larger `ee_len` means unwritten, `ee_len` less this.
pub(crate) const EXT_INIT_MAX_LEN: u16 = 1 << 15;
/// The deepest extent tree that the kernel accepts.
pub(crate) const EXT4_MAX_EXTENT_DEPTH: u16 = 5;

structure! {
    /// Head of each node of an extent tree (spec: ifork.rst, `struct ext4_extent_header`).
    ExtentHeader, 12, little {
        0 eh_magic: u16,
        2 eh_entries: u16,
        4 eh_max: u16,
        6 eh_depth: u16,
        8 eh_generation: u32,
    }
}

structure! {
    /// Entry of an inner node (`struct ext4_extent_idx`).
    ExtentIdx, 12, little {
        0 ei_block: u32,
        4 ei_leaf_lo: u32,
        8 ei_leaf_hi: u16,
        10 ei_unused: u16,
    }
}

structure! {
    /// Entry of a leaf (`struct ext4_extent`).
    Extent, 12, little {
        0 ee_block: u32,
        4 ee_len: u16,
        6 ee_start_hi: u16,
        8 ee_start_lo: u32,
    }
}

/// Size of `struct ext4_extent_tail` (one checksum), right behind the last possible entry.
pub(crate) const EXTENT_TAIL_SIZE: usize = 4;

/// `file_type` of a directory entry.
pub(crate) mod file_type {
    pub(crate) const UNKNOWN: u8 = 0;
    pub(crate) const REG_FILE: u8 = 1;
    pub(crate) const DIR: u8 = 2;
    pub(crate) const CHRDEV: u8 = 3;
    pub(crate) const BLKDEV: u8 = 4;
    pub(crate) const FIFO: u8 = 5;
    pub(crate) const SOCK: u8 = 6;
    pub(crate) const SYMLINK: u8 = 7;
}

structure! {
    /// Head of a directory entry; the name follows (spec: directory.rst,
    /// `struct ext4_dir_entry_2`). `rec_len` is a multiple of 4.
    DirEntryHead, 8, little {
        0 inode: u32,
        4 rec_len: u16,
        6 name_len: u8,
        7 file_type: u8,
    }
}

structure! {
    /// The checksum at the end of a directory block, disguised as an unused entry
    /// (`struct ext4_dir_entry_tail`).
    DirEntryTail, 12, little {
        0 det_reserved_zero1: u32,
        4 det_rec_len: u16,
        6 det_reserved_zero2: u8,
        7 det_reserved_ft: u8,
        8 det_checksum: u32,
    }
}

/// `det_reserved_ft`.
pub(crate) const EXT4_FT_DIR_CSUM: u8 = 0xDE;

/// `dx_root_info.hash_version` and `s_def_hash_version`: half of MD4. Whether characters count as
/// signed says `s_flags`.
pub(crate) const DX_HASH_HALF_MD4: u8 = 1;
/// The hash that marks the end of a folder and that no name may have, before the shift by one.
pub(crate) const EXT4_HTREE_EOF_32BIT: u32 = 0x7FFF_FFFF;

structure! {
    /// Information of an index root, after `.` and `..` (`struct dx_root_info`).
    DxRootInfo, 8, little {
        0 reserved_zero: u32,
        4 hash_version: u8,
        5 info_length: u8,
        6 indirect_levels: u8,
        7 unused_flags: u8,
    }
}

structure! {
    /// Count of the entries of an index node, in the place of the first entry's hash
    /// (`struct dx_countlimit`). Both numbers count that first entry.
    DxCountLimit, 4, little {
        0 limit: u16,
        2 count: u16,
    }
}

structure! {
    /// Entry of an index node (`struct dx_entry`).
    DxEntry, 8, little {
        0 hash: u32,
        4 block: u32,
    }
}

structure! {
    /// Checksum of an index node, behind the last possible entry (`struct dx_tail`).
    DxTail, 8, little {
        0 dt_reserved: u32,
        4 dt_checksum: u32,
    }
}

/// Byte offset of the entries in an index root: `.`, `..` and [`DxRootInfo`] are before them.
pub(crate) const DX_ROOT_ENTRIES_OFFSET: usize = 32;
/// Byte offset of the entries in another index node: a fake directory entry is before them.
pub(crate) const DX_NODE_ENTRIES_OFFSET: usize = 8;

/// `ob_magic`.
pub(crate) const EXT4_ORPHAN_BLOCK_MAGIC: u32 = 0x0B10_CA04;

structure! {
    /// The end of a block of the orphan file; before it are inode numbers, 0 where there is none
    /// (spec: orphan.rst, `struct ext4_orphan_block_tail`).
    OrphanBlockTail, 8, little {
        0 ob_magic: u32,
        4 ob_checksum: u32,
    }
}

/// Magic of attributes in an inode and of an attribute block.
pub(crate) const EXT4_XATTR_MAGIC: u32 = 0xEA02_0000;
/// How many inodes may share an attribute block.
pub(crate) const EXT4_XATTR_REFCOUNT_MAX: u32 = 1024;
/// Names and values are padded to a multiple of this.
pub(crate) const EXT4_XATTR_PAD: usize = 4;
/// Size of `struct ext4_xattr_ibody_header`: only the magic. Value offsets count from behind it.
pub(crate) const XATTR_IBODY_HEADER_SIZE: usize = 4;

/// `e_name_index`: what the name on disk leaves out.
pub(crate) mod xattr_index {
    pub(crate) const USER: u8 = 1;
    pub(crate) const POSIX_ACL_ACCESS: u8 = 2;
    pub(crate) const POSIX_ACL_DEFAULT: u8 = 3;
    pub(crate) const TRUSTED: u8 = 4;
    pub(crate) const SECURITY: u8 = 6;
    pub(crate) const SYSTEM: u8 = 7;
}

structure! {
    /// Head of an attribute block (spec: attributes.rst, `struct ext4_xattr_header`). Value
    /// offsets count from the start of the block.
    XattrHeader, 32, little {
        0x00 h_magic: u32,
        0x04 h_refcount: u32,
        0x08 h_blocks: u32,
        0x0C h_hash: u32,
        0x10 h_checksum: u32,
        0x14 h_reserved: [u32; 3],
    }
}

/// Byte offset of [`XattrHeader::h_checksum`], which counts as zero in its own checksum.
pub(crate) const XATTR_CHECKSUM_OFFSET: usize = 0x10;

structure! {
    /// Head of an attribute; the name follows (`struct ext4_xattr_entry`). Four zero bytes end the
    /// list.
    XattrEntry, 16, little {
        0 e_name_len: u8,
        1 e_name_index: u8,
        2 e_value_offs: u16,
        4 e_value_inum: u32,
        8 e_value_size: u32,
        12 e_hash: u32,
    }
}

/// The two low halves of a 32-bit number: high, low.
pub(crate) fn split_u32(value: u32) -> (u16, u16) {
    let [a, b, c, d] = value.to_le_bytes();
    (u16::from_le_bytes([c, d]), u16::from_le_bytes([a, b]))
}

/// The two halves of a 64-bit number: high, low.
pub(crate) fn split_u64(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (
        u32::from_le_bytes([e, f, g, h]),
        u32::from_le_bytes([a, b, c, d]),
    )
}

/// Joins the halves of a 64-bit number.
pub(crate) fn join_u32(high: u32, low: u32) -> u64 {
    (u64::from(high) << 32) | u64::from(low)
}

/// Joins the halves of a 32-bit number.
pub(crate) fn join_u16(high: u16, low: u16) -> u32 {
    (u32::from(high) << 16) | u32::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_decode_what_they_encode() {
        let mut bytes = [0_u8; SuperBlock::SIZE];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(at % 251).unwrap();
        }
        let superblock = SuperBlock::decode(&bytes).unwrap();
        assert_eq!(superblock.encode(), bytes);
        assert_eq!(superblock.s_log_block_size, 0x1B1A_1918);
        assert!(SuperBlock::decode(&bytes[..1023]).is_none());
        assert_eq!(RawInode::decode(&bytes).unwrap().encode(), bytes[..160]);
        assert_eq!(GroupDesc::zeroed().encode(), [0; 64]);
    }

    #[test]
    fn halves() {
        assert_eq!(split_u32(0x1234_5678), (0x1234, 0x5678));
        assert_eq!(join_u16(0x1234, 0x5678), 0x1234_5678);
        let (high, low) = split_u64(0x0123_4567_89AB_CDEF);
        assert_eq!(join_u32(high, low), 0x0123_4567_89AB_CDEF);
    }
}
