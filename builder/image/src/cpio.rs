//! cpio archives in the `newc` form, as the kernel unpacks an initramfs.
//!
//! Follows the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`. Archives are
//! small and stay in memory. What [`write()`] yields may be followed by another archive: it is
//! padded to a multiple of [`ARCHIVE_ALIGNMENT`] bytes. Inode numbers count from 1 and times are
//! zero, so the same entries always give the same bytes.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use crate::tree::display;

/// The length of an archive is a multiple of this.
pub const ARCHIVE_ALIGNMENT: usize = 512;
/// Size of a header in bytes: the magic and 13 numbers of 8 hexadecimal digits.
const HEADER_BYTES: usize = 110;
/// Name of the entry that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";
/// The kernel refuses longer names (`PATH_MAX`, with the NUL).
const NAME_BYTES_MAX: usize = 4096;
/// Headers and contents begin at multiples of this.
const ALIGNMENT: usize = 4;
/// Type bits of a mode.
const TYPE_MASK: u32 = 0o170_000;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path without a slash in front: `dev/console`.
    pub path: Vec<u8>,
    /// Permission bits, at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub kind: EntryKind,
}

impl Entry {
    /// A folder of root's.
    #[must_use]
    pub fn directory(path: &str, mode: u16) -> Self {
        Self::of_root(path, mode, EntryKind::Directory)
    }

    /// A regular file of root's.
    #[must_use]
    pub fn file(path: &str, mode: u16, content: Vec<u8>) -> Self {
        Self::of_root(path, mode, EntryKind::File(content))
    }

    /// A symbolic link of root's.
    #[must_use]
    pub fn symlink(path: &str, target: &str) -> Self {
        Self::of_root(path, 0o777, EntryKind::Symlink(target.into()))
    }

    /// A character device of root's.
    #[must_use]
    pub fn char_device(path: &str, mode: u16, major: u32, minor: u32) -> Self {
        Self::of_root(path, mode, EntryKind::CharDevice { major, minor })
    }

    fn of_root(path: &str, mode: u16, kind: EntryKind) -> Self {
        Self {
            path: path.into(),
            mode,
            uid: 0,
            gid: 0,
            kind,
        }
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Directory,
    /// A regular file and its content.
    File(Vec<u8>),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl EntryKind {
    fn type_bits(&self) -> u32 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice { .. } => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice { .. } => 0o060_000,
            Self::File(_) => 0o100_000,
            Self::Symlink(_) => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }

    fn content(&self) -> &[u8] {
        match self {
            Self::File(bytes) | Self::Symlink(bytes) => bytes,
            _ => &[],
        }
    }

    fn device(&self) -> (u32, u32) {
        match self {
            Self::CharDevice { major, minor } | Self::BlockDevice { major, minor } => {
                (*major, *minor)
            }
            _ => (0, 0),
        }
    }
}

/// Why an archive cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CpioError {
    /// An entry that the kernel would not unpack.
    #[error("cannot write cpio entry '{path}': {reason}")]
    Entry {
        /// Path of the entry.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The archive breaks its format.
    #[error("damaged cpio archive at byte {offset}: {reason}")]
    Corrupt {
        /// Offset of the header, in bytes.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The archive is larger than the reader was told to accept.
    #[error("the cpio archive has more than {0} bytes")]
    TooLarge(u64),
    /// Reading or writing failed.
    #[error("cannot transfer the cpio archive: {0}")]
    Io(#[from] io::Error),
}

/// Writes an archive. Folders must come before what is in them: the kernel makes none itself.
///
/// # Errors
/// A path is absolute, empty, has `.`, `..` or NUL in it, appears twice or before its folder, a
/// mode is above `0o7777`, a content has 4 GiB or more; or writing failed.
pub fn write(entries: &[Entry], mut output: impl Write) -> Result<(), CpioError> {
    let mut folders = BTreeSet::new();
    let mut names = BTreeSet::new();
    let mut written = 0_usize;
    let mut number = 0_u32;
    for entry in entries {
        check(entry, &folders, &mut names)?;
        if entry.kind == EntryKind::Directory {
            folders.insert(&*entry.path);
        }
        number = number
            .checked_add(1)
            .ok_or_else(|| refuse(entry, "too many entries"))?;
        let bytes = encode_header(entry, number)
            .ok_or_else(|| refuse(entry, "the content has 4 GiB or more"))?;
        for part in [&bytes, entry.kind.content()] {
            written = written.saturating_add(write_padded(part, &mut output)?);
        }
    }
    let trailer = header(TRAILER, &[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 11);
    written = written.saturating_add(write_padded(&trailer, &mut output)?);
    let end = written.next_multiple_of(ARCHIVE_ALIGNMENT);
    output.write_all(&[0; ARCHIVE_ALIGNMENT][..end.saturating_sub(written)])?;
    Ok(())
}

fn refuse(entry: &Entry, reason: &'static str) -> CpioError {
    CpioError::Entry {
        path: display(&entry.path),
        reason,
    }
}

fn check<'a>(
    entry: &'a Entry,
    folders: &BTreeSet<&[u8]>,
    names: &mut BTreeSet<&'a [u8]>,
) -> Result<(), CpioError> {
    let path = &*entry.path;
    let parts = || path.split(|byte| *byte == b'/');
    if parts().any(|part| part.is_empty() || part == b"." || part == b"..") {
        return Err(refuse(entry, "the path is not plain and relative"));
    }
    if path.contains(&0) || path.len() >= NAME_BYTES_MAX || path == TRAILER {
        return Err(refuse(entry, "the kernel cannot take this name"));
    }
    if let Some(slash) = path.iter().rposition(|byte| *byte == b'/')
        && !folders.contains(&path[..slash])
    {
        return Err(refuse(entry, "its directory is not before it"));
    }
    if !names.insert(path) {
        return Err(refuse(entry, "the name is there already"));
    }
    if entry.mode > 0o7777 {
        return Err(refuse(entry, "the mode is above 7777"));
    }
    Ok(())
}

fn encode_header(entry: &Entry, number: u32) -> Option<Vec<u8>> {
    let links = if entry.kind == EntryKind::Directory {
        2
    } else {
        1
    };
    let (major, minor) = entry.kind.device();
    let numbers = [
        number,
        u32::from(entry.mode) | entry.kind.type_bits(),
        links,
        entry.uid,
        entry.gid,
        0,
        u32::try_from(entry.kind.content().len()).ok()?,
        0,
        0,
        major,
        minor,
    ];
    let name_length = u32::try_from(entry.path.len()).ok()?.checked_add(1)?;
    Some(header(&entry.path, &numbers, name_length))
}

/// Header and name, without padding.
fn header(name: &[u8], numbers: &[u32; 11], name_length: u32) -> Vec<u8> {
    let mut bytes = b"070701".to_vec();
    for number in numbers.iter().chain(&[name_length, 0]) {
        bytes.extend(format!("{number:08X}").bytes());
    }
    bytes.extend(name);
    bytes.push(0);
    bytes
}

fn write_padded(bytes: &[u8], output: &mut impl Write) -> io::Result<usize> {
    let padded = bytes.len().next_multiple_of(ALIGNMENT);
    output.write_all(bytes)?;
    output.write_all(&[0; ALIGNMENT][..padded.saturating_sub(bytes.len())])?;
    Ok(padded)
}

/// Reads an archive, or several in a row, of at most `limit_bytes`. Times, inode numbers and the
/// numbers of the device that an entry was on are not kept.
///
/// # Errors
/// The archive is damaged, too large, has hard links, or cannot be read.
pub fn read(input: impl Read, limit_bytes: u64) -> Result<Vec<Entry>, CpioError> {
    let mut bytes = Vec::new();
    input
        .take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > limit_bytes) {
        return Err(CpioError::TooLarge(limit_bytes));
    }
    let mut entries = Vec::new();
    let mut offset = 0_usize;
    while let Some(start) = next_header(&bytes, offset) {
        let (entry, end) = decode(&bytes, start).map_err(|reason| CpioError::Corrupt {
            offset: u64::try_from(start).unwrap_or(u64::MAX),
            reason,
        })?;
        entries.extend(entry);
        offset = end;
    }
    Ok(entries)
}

/// Skips the zeroes between archives; they fill whole words.
fn next_header(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let zeroes = rest.iter().position(|byte| *byte != 0)?;
    from.checked_add(zeroes / ALIGNMENT * ALIGNMENT)
}

/// One entry, `None` for a trailer, and where the next header begins.
fn decode(bytes: &[u8], start: usize) -> Result<(Option<Entry>, usize), String> {
    let cut = || "the archive ends within an entry".to_string();
    let end_of = |from: usize, length: usize| from.checked_add(length).ok_or_else(cut);
    let header_end = end_of(start, HEADER_BYTES)?;
    let header = bytes.get(start..header_end).ok_or_else(cut)?;
    if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
        return Err("there is no newc header".into());
    }
    let mut numbers = [0_u32; 13];
    for (number, digits) in numbers.iter_mut().zip(header[6..].chunks_exact(8)) {
        *number = hexadecimal(digits).ok_or("a number is malformed")?;
    }
    let [
        _,
        mode,
        links,
        uid,
        gid,
        _,
        size,
        _,
        _,
        major,
        minor,
        name_length,
        _,
    ] = numbers;
    let length = |number: u32| usize::try_from(number).map_err(|_| cut());
    let name_length = length(name_length)?;
    if name_length == 0 || name_length > NAME_BYTES_MAX {
        return Err("the length of the name is impossible".into());
    }
    let name_end = end_of(header_end, name_length)?;
    let name = bytes.get(header_end..name_end).ok_or_else(cut)?;
    let name = name
        .strip_suffix(b"\0")
        .filter(|name| !name.contains(&0))
        .ok_or("the name does not end with its only NUL")?;
    let content_start = name_end.next_multiple_of(ALIGNMENT);
    let content_end = end_of(content_start, length(size)?)?;
    let next = content_end.next_multiple_of(ALIGNMENT);
    if name == TRAILER {
        return Ok((None, next));
    }
    let content = bytes.get(content_start..content_end).ok_or_else(cut)?;
    let kind = match mode & TYPE_MASK {
        0o010_000 => EntryKind::Fifo,
        0o020_000 => EntryKind::CharDevice { major, minor },
        0o040_000 => EntryKind::Directory,
        0o060_000 => EntryKind::BlockDevice { major, minor },
        0o100_000 if links > 1 => return Err("hard links are not supported".into()),
        0o100_000 => EntryKind::File(content.to_vec()),
        0o120_000 => EntryKind::Symlink(content.to_vec()),
        0o140_000 => EntryKind::Socket,
        other => return Err(format!("the file type {other:o} does not exist")),
    };
    let entry = Entry {
        path: name.to_vec(),
        mode: u16::try_from(mode & 0o7777).unwrap_or(0),
        uid,
        gid,
        kind,
    };
    Ok((Some(entry), next))
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        value.checked_mul(16)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{have, is_root, sh};

    fn sample() -> Vec<Entry> {
        let mut entries = vec![
            Entry::directory("dev", 0o755),
            Entry::char_device("dev/console", 0o600, 5, 1),
            Entry::file("init", 0o755, b"#!/bin/sh\n".to_vec()),
            Entry::file("empty", 0o644, Vec::new()),
            Entry::symlink("lib", "usr/lib"),
            Entry::file("odd", 0o4755, vec![7; 1021]),
            Entry {
                path: b"latin-\xe9".to_vec(),
                mode: 0o1777,
                uid: 70_000,
                gid: 3,
                kind: EntryKind::Directory,
            },
        ];
        if !is_root() {
            entries.remove(1);
            entries[5].uid = 0;
            entries[5].gid = 0;
        }
        entries
    }

    fn bytes_of(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(entries, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_reads_back_even_concatenated() {
        let mut bytes = bytes_of(&sample());
        assert_eq!(bytes.len() % ARCHIVE_ALIGNMENT, 0);
        assert_eq!(read(&bytes[..], 1 << 20).unwrap(), sample());
        bytes.extend(bytes_of(&[Entry::file("second", 0o644, vec![1])]));
        let both = read(&bytes[..], 1 << 20).unwrap();
        assert_eq!(both.len(), sample().len() + 1);
        assert!(matches!(
            read(&bytes[..], 100),
            Err(CpioError::TooLarge(100))
        ));
        assert_eq!(read(&[][..], 0).unwrap(), []);
    }

    #[test]
    fn the_bytes_are_these() {
        let bytes = bytes_of(&[Entry::file("a", 0o644, b"hi".to_vec())]);
        let header = |numbers: &str| format!("070701{}", numbers.replace(' ', ""));
        let zeroes = "00000000 00000000 00000000 00000000";
        let expected = [
            header("00000001 000081A4 00000001 00000000 00000000 00000000 00000002"),
            format!("{zeroes} 00000002 00000000").replace(' ', ""),
            "a\0hi\0\0".into(),
            header("00000000 00000000 00000001 00000000 00000000 00000000 00000000"),
            format!("{zeroes} 0000000B 00000000").replace(' ', ""),
            "TRAILER!!!\0\0\0\0".into(),
        ]
        .concat();
        assert_eq!(bytes[..expected.len()], *expected.as_bytes());
        assert!(bytes[expected.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn bsdtar_lists_the_same() {
        if !have("bsdtar") {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("a.cpio"), bytes_of(&sample())).unwrap();
        let listing = sh(temp.path(), "bsdtar --numeric-owner -tvf a.cpio");
        let listing = String::from_utf8_lossy(&listing);
        assert_eq!(listing.lines().count(), sample().len());
        for part in ["-rwsr-xr-x", "1021", "lib -> usr/lib", "drwxrwxrwt"] {
            assert!(listing.contains(part), "{part}: {listing}");
        }
    }

    #[test]
    fn what_the_kernel_would_not_unpack_is_refused() {
        let file = |path: &str| Entry::file(path, 0o644, Vec::new());
        for (entries, expected) in [
            (vec![file("/init")], "plain and relative"),
            (vec![file("a/../b")], "plain and relative"),
            (vec![file("")], "plain and relative"),
            (vec![file("modules/a.ko")], "not before it"),
            (vec![file("a"), file("a")], "already"),
            (vec![file("TRAILER!!!")], "name"),
            (vec![Entry::file("a", 0o100_644, vec![])], "7777"),
        ] {
            let error = write(&entries, Vec::new()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn one_byte_mutations_and_cuts_never_panic() {
        let bytes = bytes_of(&sample());
        for index in 0..bytes.len() {
            let _ = read(&bytes[..index], 1 << 20);
            for value in [0, b'0', b'F', b'g', 0xff] {
                let mut mutated = bytes.clone();
                mutated[index] = value;
                let _ = read(&mutated[..], 1 << 20);
            }
        }
        assert!(read(&bytes[..300], 1 << 20).is_err());
    }
}
