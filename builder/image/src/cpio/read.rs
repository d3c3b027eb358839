//! Reading archives.

use std::collections::BTreeMap;
use std::io::Read;

use super::{ALIGNMENT, CpioError, Entry, EntryKind, HEADER_BYTES, NAME_BYTES_MAX, TRAILER, kind};
use crate::tree::{SYMLINK_LENGTH_MAX, display};

/// Reads an archive, or several in a row as the kernel takes them (with zeroes between), of at most
/// `limit_bytes`. Checksums (`070702`) are checked. Times and the numbers of inodes and of the
/// device that an entry was on are not kept.
///
/// # Errors
/// The archive is damaged, has no trailer, is too large, or cannot be read.
pub fn read(input: impl Read, limit_bytes: u64) -> Result<Vec<Entry>, CpioError> {
    let mut bytes = Vec::new();
    input
        .take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > limit_bytes) {
        return Err(CpioError::TooLarge(limit_bytes));
    }
    let mut entries = Vec::new();
    let mut links = Links::new();
    let mut is_open = false;
    let mut offset = 0_usize;
    while let Some(start) = next_header(&bytes, offset) {
        let header =
            Header::decode(&bytes, start).map_err(|reason| corrupt(start, None, reason))?;
        offset = header.next;
        is_open = header.name != TRAILER;
        if is_open {
            place(&header, &mut entries, &mut links)
                .map_err(|reason| corrupt(start, Some(header.name), reason))?;
        } else {
            settle(&mut links, &mut entries);
        }
    }
    if is_open {
        return Err(corrupt(bytes.len(), None, "the archive has no end"));
    }
    Ok(entries)
}

fn corrupt(offset: usize, path: Option<&[u8]>, reason: &str) -> CpioError {
    CpioError::Corrupt {
        offset: u64::try_from(offset).unwrap_or(u64::MAX),
        path: path.map(display),
        reason: reason.into(),
    }
}

/// Skips the zeroes between archives; they fill whole words.
fn next_header(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let zeroes = rest.iter().position(|byte| *byte != 0)?;
    from.checked_add(zeroes / ALIGNMENT * ALIGNMENT)
}

/// Inodes with several names by device and number: all the entries that are names of it.
type Links = BTreeMap<[u32; 3], Vec<usize>>;

/// Appends an entry, or a further name of an earlier one.
fn place(
    header: &Header<'_>,
    entries: &mut Vec<Entry>,
    links: &mut Links,
) -> Result<(), &'static str> {
    let mut entry = Entry {
        path: header.name.to_vec(),
        mode: u16::try_from(header.mode & 0o7777).unwrap_or(0),
        uid: header.uid,
        gid: header.gid,
        kind: header.kind()?,
    };
    let is_linkable = !matches!(entry.kind, EntryKind::Directory | EntryKind::Symlink(_));
    if header.links < 2 || !is_linkable {
        entries.push(entry);
        return Ok(());
    }
    let index = entries.len();
    let names = links.entry(header.inode).or_default();
    if let Some(first) = names.first().and_then(|first| entries.get_mut(*first)) {
        merge(first, &mut entry)?;
    }
    names.push(index);
    entries.push(entry);
    Ok(())
}

/// As with the kernel, the last name of an inode decides on owner and mode. The next archive begins
/// with no inodes.
fn settle(links: &mut Links, entries: &mut [Entry]) {
    for names in std::mem::take(links).into_values() {
        let Some(last) = names.last().and_then(|last| entries.get(*last)) else {
            continue;
        };
        let (mode, uid, gid) = (last.mode, last.uid, last.gid);
        for name in names {
            if let Some(entry) = entries.get_mut(name) {
                (entry.mode, entry.uid, entry.gid) = (mode, uid, gid);
            }
        }
    }
}

/// Makes `entry` a link to `first`, which takes over its content.
fn merge(first: &mut Entry, entry: &mut Entry) -> Result<(), &'static str> {
    if first.path == entry.path {
        return Err("it is a hard link to itself");
    }
    let kind = std::mem::replace(&mut entry.kind, EntryKind::Link(first.path.clone()));
    match (&mut first.kind, kind) {
        (EntryKind::File(_), EntryKind::File(content)) if content.is_empty() => Ok(()),
        (EntryKind::File(former), EntryKind::File(content)) => {
            *former = content;
            Ok(())
        }
        (first, kind) if *first == kind => Ok(()),
        _ => Err("it is a hard link to something of another type"),
    }
}

/// A header with its name and content.
struct Header<'a> {
    inode: [u32; 3],
    mode: u32,
    links: u32,
    uid: u32,
    gid: u32,
    device: (u32, u32),
    name: &'a [u8],
    content: &'a [u8],
    checksum: Option<u32>,
    /// Where the next header begins.
    next: usize,
}

impl<'a> Header<'a> {
    fn decode(bytes: &'a [u8], start: usize) -> Result<Self, &'static str> {
        let cut = "the archive ends within an entry";
        let from = |at: usize| bytes.get(at..).unwrap_or_default();
        let magic = from(start).get(..6).ok_or(cut)?;
        let has_checksum = match magic {
            b"070701" => false,
            b"070702" => true,
            b"070707" => return Err("the format is odc, only newc is supported"),
            _ => return Err("there is no newc header (a compressed archive is to be unpacked)"),
        };
        let header = from(start).get(..HEADER_BYTES).ok_or(cut)?;
        let mut numbers = [0_u32; 13];
        for (number, digits) in numbers.iter_mut().zip(header[6..].chunks_exact(8)) {
            *number = hexadecimal(digits).ok_or("a number is malformed")?;
        }
        let [
            inode,
            mode,
            uid,
            gid,
            links,
            _,
            size,
            device_major,
            device_minor,
            major,
            minor,
            name_length,
            checksum,
        ] = numbers;
        let length = |number: u32| usize::try_from(number).map_err(|_| cut);
        let name_length = length(name_length)?;
        if name_length == 0 || name_length > NAME_BYTES_MAX {
            return Err("the length of the name is impossible");
        }
        let name_start = start.checked_add(HEADER_BYTES).ok_or(cut)?;
        let name = from(name_start).get(..name_length).ok_or(cut)?;
        let name = name
            .strip_suffix(b"\0")
            .filter(|name| !name.is_empty() && !name.contains(&0))
            .ok_or("the name is empty or does not end with its only NUL")?;
        // Both sums are within the archive, so that they cannot overflow.
        let content_start = name_start
            .saturating_add(name_length)
            .next_multiple_of(ALIGNMENT);
        let content = from(content_start).get(..length(size)?).ok_or(cut)?;
        let next = content_start.saturating_add(content.len());
        Ok(Self {
            inode: [device_major, device_minor, inode],
            mode,
            links,
            uid,
            gid,
            device: (major, minor),
            name,
            content,
            checksum: has_checksum.then_some(checksum),
            next: next.next_multiple_of(ALIGNMENT),
        })
    }

    fn kind(&self) -> Result<EntryKind, &'static str> {
        if self.mode > 0o177_777 {
            return Err("the mode is impossible");
        }
        let (major, minor) = self.device;
        let kind = match self.mode & kind::MASK {
            kind::FILE => return self.file(),
            kind::SYMLINK => return self.symlink(),
            kind::FIFO => EntryKind::Fifo,
            kind::CHAR_DEVICE => EntryKind::CharDevice { major, minor },
            kind::DIRECTORY => EntryKind::Directory,
            kind::BLOCK_DEVICE => EntryKind::BlockDevice { major, minor },
            kind::SOCKET => EntryKind::Socket,
            _ => return Err("its file type does not exist"),
        };
        if !self.content.is_empty() {
            return Err("it has content but is no file");
        }
        Ok(kind)
    }

    /// GNU cpio gives the checksum of the content to names without content, too.
    fn file(&self) -> Result<EntryKind, &'static str> {
        let sum = |sum: u32, byte: &u8| sum.wrapping_add(u32::from(*byte));
        match self.checksum {
            Some(expected)
                if !self.content.is_empty() && self.content.iter().fold(0, sum) != expected =>
            {
                Err("the checksum of its content is wrong")
            }
            _ => Ok(EntryKind::File(self.content.to_vec())),
        }
    }

    fn symlink(&self) -> Result<EntryKind, &'static str> {
        let length = self.content.len();
        if length == 0 || length > SYMLINK_LENGTH_MAX || self.content.contains(&0) {
            return Err("the target of the link is impossible");
        }
        Ok(EntryKind::Symlink(self.content.to_vec()))
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        value.checked_mul(16)?.checked_add(digit)
    })
}
