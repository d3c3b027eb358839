//! Numbers of qcow2, versions 2 and 3 (QEMU, `docs/interop/qcow2.txt`). All are big-endian.

use crate::numbers::field;

/// The first four bytes, "QFI" and 0xFB.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Size of version 2's header in bytes.
pub(super) const HEADER_2_BYTES: u32 = 72;
/// Size of version 3's header in bytes, without what came later.
pub(super) const HEADER_3_BYTES: u32 = 104;
/// Sizes of clusters, as powers of two.
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// Reference counts of 16 bits, as a power of two: version 2's.
pub(super) const REFCOUNT_ORDER: u32 = 4;
/// The most bytes of a first-level table: QEMU's limit.
pub(super) const L1_BYTES_MAX: u64 = 32 << 20;
/// The most bytes of a table of reference counts: QEMU's limit.
pub(super) const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
/// The most snapshots: QEMU's limit.
pub(super) const SNAPSHOTS_MAX: u32 = 65_536;
/// The most bytes of the table of them, whose names stay in memory: QEMU's limit has 64 times as many.
pub(super) const SNAPSHOT_TABLE_BYTES_MAX: u64 = 1 << 20;
/// The most bytes of a backing file's name.
pub(super) const BACKING_NAME_BYTES_MAX: u32 = 1023;

/// Incompatible feature: reference counts may be wrong.
pub(super) const DIRTY: u64 = 1;
/// Incompatible feature: somebody found damage.
pub(super) const DAMAGED: u64 = 1 << 1;
/// Incompatible feature: data lies in another file.
pub(super) const DATA_FILE: u64 = 1 << 2;
/// Incompatible feature: clusters are not compressed with zlib.
pub(super) const COMPRESSION_TYPE: u64 = 1 << 3;
/// Incompatible feature: entries of the second level have 16 bytes and parts.
pub(super) const EXTENDED_L2: u64 = 1 << 4;

/// Header extensions: the end, the backing file's format, names of features, bitmaps, the data
/// file's name.
pub(super) const EXTENSION_END: u32 = 0;
pub(super) const EXTENSION_BACKING_FORMAT: u32 = 0xE279_2ACA;
pub(super) const EXTENSION_FEATURE_NAMES: u32 = 0x6803_F857;
pub(super) const EXTENSION_BITMAPS: u32 = 0x2385_2875;
pub(super) const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
/// Size of a feature's name with its two numbers, in bytes.
pub(super) const FEATURE_NAME_BYTES: usize = 48;

/// An entry of either level: the cluster belongs to nothing else.
pub(super) const COPIED: u64 = 1 << 63;
/// A second-level entry: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// A second-level entry of version 3: zeroes, whatever the offset says.
pub(super) const ZERO: u64 = 1;
/// An entry of either level: where its cluster begins.
pub(super) const OFFSET: u64 = 0x00FF_FFFF_FFFF_FE00;
/// Parts of a cluster that an entry of 16 bytes tells apart.
pub(super) const SUBCLUSTERS: u64 = 32;
/// Sizes of clusters that have such parts begin here, as a power of two.
pub(super) const SUBCLUSTERS_CLUSTER_BITS_MIN: u32 = 14;

/// A big-endian number, or 0 where the bytes end before it does.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(field(bytes, at))
}

/// As [`u16_at`].
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(field(bytes, at))
}

/// As [`u16_at`].
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(field(bytes, at))
}
