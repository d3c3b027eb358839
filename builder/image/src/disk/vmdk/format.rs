//! Numbers of VMDK's sparse extents (VMware, "Virtual Disk Format 5.0"). All are little-endian;
//! places are in sectors.

/// Size of a sector in bytes.
pub(super) const SECTOR_BYTES: u64 = 512;
/// The first four bytes of a sparse extent.
pub(super) const MAGIC: [u8; 4] = *b"KDMV";
/// Start of a descriptor in a file of its own.
pub(super) const DESCRIPTOR_MAGIC: &[u8] = b"# Disk DescriptorFile";
/// Size of a header in bytes.
pub(super) const HEADER_BYTES: usize = 512;

/// Flag: the four bytes of line ends in the header are there.
pub(super) const HAS_LINE_ENDS: u32 = 1;
/// Flag: there is a second copy of the tables.
pub(super) const HAS_COPY: u32 = 1 << 1;
/// Flag: entry 1 of a table means zeroes.
pub(super) const HAS_ZERO_GRAINS: u32 = 1 << 2;
/// Flag: grains are compressed.
pub(super) const IS_COMPRESSED: u32 = 1 << 16;
/// Flag: a marker is before each grain.
pub(super) const HAS_MARKERS: u32 = 1 << 17;
/// What a transfer as text would change.
pub(super) const LINE_ENDS: [u8; 4] = *b"\n \r\n";
/// Compression with zlib, the only one.
pub(super) const DEFLATE: u16 = 1;

/// Place of the directory that says: look at the footer.
pub(super) const AT_END: u64 = u64::MAX;
/// Where the footer is, in bytes before the end: behind it is the marker of the end.
pub(super) const FOOTER_FROM_END: u64 = 1024;
/// A table's entry: zeroes, where the flag says so.
pub(super) const ZERO_GRAIN: u32 = 1;
/// Size of a marker before a grain in bytes: where it belongs, and how long it is.
pub(super) const MARKER_BYTES: u64 = 12;

/// The most entries of a table: what all writers use.
pub(super) const TABLE_ENTRIES_MAX: u32 = 512;
/// The most bytes of a directory.
pub(super) const DIRECTORY_BYTES_MAX: u64 = 32 << 20;
/// The most bytes of a descriptor.
pub(super) const DESCRIPTOR_BYTES_MAX: u64 = 1 << 20;
