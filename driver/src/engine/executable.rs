//! Where a kernel's executable is loaded.

use std::io::{self, Read};
use std::path::Path;

/// Bytes of an ELF file's header (System V ABI, "ELF Header", 64 bits).
const HEADER_BYTES: usize = 64;
/// Bytes of one entry of its program header table.
const ENTRY_BYTES: usize = 56;
/// Entries of that table that are looked at, at most.
const ENTRIES_MAX: u16 = 64;
/// The kind of an entry that is loaded.
const LOAD: u32 = 1;
/// ELF, 64 bits, little-endian.
const IDENTIFICATION: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
/// The kind of a file that is loaded where it says.
const EXECUTABLE: u16 = 2;
/// Size of a page in bytes.
const PAGE_BYTES: u64 = 4096;

fn number<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    let part = at.checked_add(N).and_then(|end| bytes.get(at..end));
    part.and_then(|part| part.try_into().ok())
        .ok_or_else(|| bad("its headers are cut short"))
}

fn bad(reason: &str) -> io::Error {
    let message = format!("not a User-Mode-Linux kernel: {reason}");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The lowest virtual address of a kernel's image, which stands for guest address 0.
///
/// # Errors
/// The file cannot be read, or is no 64-bit executable with a fixed address.
pub(super) fn image_base(vmlinux: &Path) -> io::Result<u64> {
    let mut start = Vec::new();
    let wanted = HEADER_BYTES + ENTRY_BYTES * usize::from(ENTRIES_MAX);
    let wanted = u64::try_from(wanted).map_err(io::Error::other)?;
    fs_err::File::open(vmlinux)?
        .take(wanted)
        .read_to_end(&mut start)?;
    parse(&start)
}

fn parse(start: &[u8]) -> io::Result<u64> {
    if !start.starts_with(&IDENTIFICATION) || u16::from_le_bytes(number(start, 16)?) != EXECUTABLE {
        return Err(bad("it is no 64-bit executable with a fixed address"));
    }
    let table = usize::try_from(u64::from_le_bytes(number(start, 32)?));
    let table = table.map_err(|_| bad("its headers are out of range"))?;
    let count = u16::from_le_bytes(number(start, 56)?).min(ENTRIES_MAX);
    let mut lowest = None;
    for index in 0..usize::from(count) {
        let entry = table
            .checked_add(index * ENTRY_BYTES)
            .ok_or_else(|| bad("its headers are out of range"))?;
        if u32::from_le_bytes(number(start, entry)?) == LOAD {
            let address = u64::from_le_bytes(number(start, entry + 16)?);
            lowest = Some(lowest.map_or(address, |lowest: u64| lowest.min(address)));
        }
    }
    let lowest = lowest.ok_or_else(|| bad("nothing of it is loaded"))?;
    Ok(lowest - lowest % PAGE_BYTES)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A program that is loaded at `address` and starts with `code`.
    pub(crate) fn program(address: u64, code: &[u8]) -> Vec<u8> {
        let mut file = IDENTIFICATION.to_vec();
        file.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        file.extend(EXECUTABLE.to_le_bytes());
        file.extend(62u16.to_le_bytes()); // x86-64
        file.extend(1u32.to_le_bytes());
        let entry = address + 120;
        file.extend(entry.to_le_bytes());
        file.extend(64u64.to_le_bytes()); // program headers
        file.extend(0u64.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 56, 1, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        file.extend(LOAD.to_le_bytes());
        file.extend(7u32.to_le_bytes());
        let size = u64::try_from(120 + code.len()).unwrap();
        for word in [0, address, address, size, size, PAGE_BYTES] {
            file.extend(word.to_le_bytes());
        }
        file.extend(code);
        file
    }

    #[test]
    fn the_lowest_segment_counts_and_rubbish_does_not() {
        let file = program(0x6000_0000, b"code");
        assert_eq!(parse(&file).unwrap(), 0x6000_0000);
        for length in 0..64 + 24 {
            assert!(parse(&file[..length]).is_err(), "{length}");
        }
        for at in 0..120 {
            for value in [0, 0xff] {
                let mut broken = file.clone();
                broken[at] = value;
                let _ = parse(&broken);
            }
        }
        assert!(image_base(Path::new("/nowhere")).is_err());
    }
}
