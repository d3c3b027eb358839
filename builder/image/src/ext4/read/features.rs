//! Features by name, and which of them the reader knows.

use super::ReadError;
use crate::ext4::format::{EXT4_DYNAMIC_REV, SuperBlock, compat, incompat, ro_compat};

/// A bit and the name that mke2fs has for it.
type Names = [(u32, &'static str)];

/// All of these change nothing for reading.
const COMPAT: &Names = &[
    (compat::DIR_PREALLOC, "dir_prealloc"),
    (0x2, "imagic_inodes"),
    (compat::HAS_JOURNAL, "has_journal"),
    (compat::EXT_ATTR, "ext_attr"),
    (compat::RESIZE_INODE, "resize_inode"),
    (compat::DIR_INDEX, "dir_index"),
    (0x40, "lazy_bg"),
    (0x100, "snapshot_bitmap"),
    (compat::SPARSE_SUPER2, "sparse_super2"),
    (compat::FAST_COMMIT, "fast_commit"),
    (compat::STABLE_INODES, "stable_inodes"),
    (compat::ORPHAN_FILE, "orphan_file"),
];
const INCOMPAT: &Names = &[
    (incompat::COMPRESSION, "compression"),
    (incompat::FILETYPE, "filetype"),
    (incompat::RECOVER, "needs_recovery"),
    (incompat::JOURNAL_DEV, "journal_dev"),
    (incompat::META_BG, "meta_bg"),
    (incompat::EXTENTS, "extent"),
    (incompat::IS_64BIT, "64bit"),
    (incompat::MMP, "mmp"),
    (incompat::FLEX_BG, "flex_bg"),
    (incompat::EA_INODE, "ea_inode"),
    (incompat::DIRDATA, "dirdata"),
    (incompat::CSUM_SEED, "metadata_csum_seed"),
    (incompat::LARGEDIR, "large_dir"),
    (incompat::INLINE_DATA, "inline_data"),
    (incompat::ENCRYPT, "encrypt"),
    (incompat::CASEFOLD, "casefold"),
];
const RO_COMPAT: &Names = &[
    (ro_compat::SPARSE_SUPER, "sparse_super"),
    (ro_compat::LARGE_FILE, "large_file"),
    (ro_compat::BTREE_DIR, "btree_dir"),
    (ro_compat::HUGE_FILE, "huge_file"),
    (ro_compat::GDT_CSUM, "uninit_bg"),
    (ro_compat::DIR_NLINK, "dir_nlink"),
    (ro_compat::EXTRA_ISIZE, "extra_isize"),
    (HAS_SNAPSHOT, "snapshot"),
    (ro_compat::QUOTA, "quota"),
    (ro_compat::BIGALLOC, "bigalloc"),
    (ro_compat::METADATA_CSUM, "metadata_csum"),
    (REPLICA, "replica"),
    (ro_compat::READONLY, "read-only"),
    (ro_compat::PROJECT, "project"),
    (SHARED_BLOCKS, "shared_blocks"),
    (ro_compat::VERITY, "verity"),
    (ro_compat::ORPHAN_PRESENT, "orphan_present"),
];

/// Snapshots of next3 (`s_feature_ro_compat`).
const HAS_SNAPSHOT: u32 = 0x80;
/// Never used by a released kernel (`s_feature_ro_compat`).
const REPLICA: u32 = 0x800;
/// Files share blocks, as `mke2fs -E android_sparse` with deduplication makes them; read-only for
/// every kernel (`s_feature_ro_compat`).
pub(super) const SHARED_BLOCKS: u32 = 0x4000;

/// Incompatible features that are refused as a whole. What encryption, verity and casefold do is
/// done to single inodes, and refused there.
const INCOMPAT_REFUSED: u32 = incompat::COMPRESSION | incompat::JOURNAL_DEV | incompat::DIRDATA;
/// Read-only compatible features that are refused as a whole.
const RO_COMPAT_REFUSED: u32 = HAS_SNAPSHOT | REPLICA;

/// Refuses what the reader does not know, by name.
pub(super) fn check(superblock: &SuperBlock) -> Result<(), ReadError> {
    let refused = |what: String| Err(ReadError::unsupported("superblock", what));
    if superblock.s_rev_level > EXT4_DYNAMIC_REV {
        return refused(format!("revision {} of the format", superblock.s_rev_level));
    }
    if superblock.s_creator_os != 0 {
        return refused("a file system made for another system than Linux".into());
    }
    let words = [
        (superblock.s_feature_incompat, INCOMPAT, INCOMPAT_REFUSED),
        (superblock.s_feature_ro_compat, RO_COMPAT, RO_COMPAT_REFUSED),
    ];
    for ((present, table, unread), kind) in words.into_iter().zip(["incompatible", "read-only"]) {
        let known = table.iter().fold(0, |known, (bit, _)| known | bit);
        if let Some((_, name)) = table.iter().find(|(bit, _)| present & unread & bit != 0) {
            return refused(format!("the feature {name}"));
        }
        if present & !known != 0 {
            let bits = present & !known;
            return refused(format!("the {kind} feature {bits:#x}"));
        }
    }
    Ok(())
}

/// The features of a file system by mke2fs's names; one without a name by its bit.
pub(super) fn names(superblock: &SuperBlock) -> Vec<String> {
    let words = [
        (superblock.s_feature_compat, COMPAT, "compat"),
        (superblock.s_feature_incompat, INCOMPAT, "incompat"),
        (superblock.s_feature_ro_compat, RO_COMPAT, "ro_compat"),
    ];
    let mut names = Vec::new();
    for (present, table, kind) in words {
        for bit in (0..u32::BITS).map(|at| 1_u32 << at) {
            if present & bit != 0 {
                let name = table.iter().find(|(known, _)| *known == bit);
                names.push(name.map_or_else(
                    || format!("{kind} {bit:#x}"),
                    |(_, name)| (*name).to_string(),
                ));
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_names() {
        let mut superblock = SuperBlock::zeroed();
        superblock.s_rev_level = 1;
        superblock.s_feature_compat = compat::HAS_JOURNAL | 1 << 31;
        superblock.s_feature_incompat = incompat::EXTENTS;
        superblock.s_feature_ro_compat = SHARED_BLOCKS;
        assert_eq!(
            names(&superblock),
            [
                "has_journal",
                "compat 0x80000000",
                "extent",
                "shared_blocks"
            ]
        );
        assert!(check(&superblock).is_ok());
        superblock.s_feature_incompat |= 1 << 30;
        let error = check(&superblock).unwrap_err().to_string();
        assert!(error.contains("incompatible feature 0x40000000"), "{error}");
        superblock.s_feature_incompat = incompat::DIRDATA;
        let error = check(&superblock).unwrap_err().to_string();
        assert!(error.contains("the feature dirdata"), "{error}");
    }
}
