//! Numbers in bytes of which nobody knows how many there are. Little-endian.

/// `LENGTH` bytes at `at`, or zeroes where there are fewer.
pub(crate) fn field<const LENGTH: usize>(bytes: &[u8], at: usize) -> [u8; LENGTH] {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.first_chunk().copied().unwrap_or([0; LENGTH])
}

/// The number at `at`, or 0 where the bytes end before it does.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

/// As [`u16_at`].
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

/// As [`u16_at`].
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}
