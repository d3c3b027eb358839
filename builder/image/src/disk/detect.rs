//! Formats by their first and last bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::layer::size_of;
use super::{DiskError, Format};
use crate::compress::{CompressError, Compression};

/// Bytes at the start that are enough for every format.
const HEAD_BYTES: usize = 512;
/// What is at the start of formats that coop knows and does not read.
const REFUSED: [(&[u8], &str); 7] = [
    (b"COWD", "VMDK of ESX (COWD)"),
    (b"\xbe\xba\xfe\xca\0\0\0\0", "VMDK of ESX (SESparse)"),
    (b"QED\0", "QED"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"WithoutFreeSpace", "Parallels"),
    (b"WithouFreSpacExt", "Parallels"),
];
/// What is where in VDI.
const VDI: (usize, &[u8]) = (0x40, b"\x7f\x10\xda\xbe");
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
    for (magic, name) in REFUSED {
        if head.starts_with(magic) {
            return refuse(name);
        }
    }
    if head
        .get(VDI.0..)
        .is_some_and(|rest| rest.starts_with(VDI.1))
    {
        return refuse("VDI");
    }
    match Compression::detect(&head) {
        Ok(Compression::None) => {}
        Ok(other) => return refuse(&format!("compressed file ({})", other.name())),
        Err(CompressError::Unsupported(what)) => return refuse(what),
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
