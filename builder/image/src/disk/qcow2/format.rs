//! Numbers of qcow2, versions 2 and 3 (QEMU, `docs/interop/qcow2.txt`). All are big-endian.

/// The first four bytes, "QFI" and 0xFB.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Size of version 3's header in bytes, without what came later.
pub(super) const HEADER_3_BYTES: usize = 104;
/// Sizes of clusters, as powers of two.
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// Reference counts of 16 bits, as a power of two: version 2's.
pub(super) const REFCOUNT_ORDER: u32 = 4;
/// The most bytes of a first-level table: QEMU's limit.
pub(super) const L1_BYTES_MAX: u64 = 32 << 20;
/// The most bytes of a table of reference counts: QEMU's limit.
pub(super) const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;

/// An entry of either level: the cluster belongs to nothing else.
pub(super) const COPIED: u64 = 1 << 63;
/// A second-level entry of version 3: zeroes, whatever the offset says.
pub(super) const ZERO: u64 = 1;
