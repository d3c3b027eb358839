//! Formats by their first and last bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::layer::size_of;
use super::{DiskError, Format};
use crate::compress::{CompressError, Compression};

/// Bytes at the start that are enough for every format.
const HEAD_BYTES: usize = 512;
/// What is where in formats that coop knows and does not read.
const REFUSED: [(usize, &[u8], &str); 8] = [
    (0, b"COWD", "VMDK of ESX (COWD)"),
    (0, b"\xbe\xba\xfe\xca\0\0\0\0", "VMDK of ESX (SESparse)"),
    (0, b"QED\0", "QED"),
    (0, b"vhdxfile", "VHDX"),
    (0, b"conectix", "VHD"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
    (0x40, b"\x7f\x10\xda\xbe", "VDI"),
];
/// What is where in a tar archive (POSIX, ustar); an OVA is one.
const TAR: (usize, &[u8]) = (257, b"ustar");
/// What is at the start of the last sector of plain disks that have a trailer.
const TRAILERS: [(&[u8], &str); 2] = [(b"conectix", "VHD"), (b"koly", "Apple's disk image (DMG)")];
/// Start of a text that describes a VMDK.
const DESCRIPTOR: &[u8] = b"# Disk DescriptorFile";

/// The format of a file, by content.
pub(super) fn detect(file: &File) -> Result<Format, DiskError> {
    let size_bytes = size_of(file)?;
    let head = bytes_at(file, 0, size_bytes)?;
    if head.starts_with(b"QFI\xfb") {
        return Ok(Format::Qcow2);
    }
    if head.starts_with(b"KDMV") || head.starts_with(DESCRIPTOR) {
        return Ok(Format::Vmdk);
    }
    let refuse = |what: &str| Err(DiskError::Unknown(what.to_owned()));
    let has = |at: usize, magic| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    for (at, magic, name) in REFUSED {
        if has(at, magic) {
            return refuse(name);
        }
    }
    let packed = |what: &str| Err(DiskError::Packed(what.to_owned()));
    if has(TAR.0, TAR.1) {
        return packed("a tar archive, as an OVA is one");
    }
    match Compression::detect(&head) {
        Ok(Compression::None) => {}
        Ok(other) => return packed(&format!("a compressed file ({})", other.name())),
        Err(CompressError::Unsupported(what)) => return packed(what),
        Err(_) => {}
    }
    if size_bytes > 512 {
        let tail = bytes_at(file, size_bytes - 512, size_bytes)?;
        for (magic, name) in TRAILERS {
            if tail.starts_with(magic) {
                return refuse(name);
            }
        }
    }
    Ok(Format::Raw)
}

/// Up to a sector.
fn bytes_at(file: &File, offset: u64, size_bytes: u64) -> Result<Vec<u8>, DiskError> {
    let left = size_bytes.saturating_sub(offset);
    let length = usize::try_from(left).map_or(HEAD_BYTES, |left| left.min(HEAD_BYTES));
    let mut bytes = vec![0; length];
    let failed = |source| DiskError::Read { offset, source };
    file.read_exact_at(&mut bytes, offset).map_err(failed)?;
    Ok(bytes)
}
