//! Writing an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::{
    ALIGNMENT, ARCHIVE_ALIGNMENT, CpioError, Entry, EntryKind, NAME_BYTES_MAX, TRAILER, kind,
};
use crate::tree::{SYMLINK_LENGTH_MAX, display};

/// Writes an archive. Folders must come before what is in them, and a file before its further
/// names: the kernel makes none itself.
///
/// # Errors
/// A path is absolute, empty, has `.`, `..` or NUL in it, appears twice or before its folder; a mode
/// is above `0o7777`; a content has 4 GiB or more; a link has no earlier file of its owner and mode;
/// or writing failed.
pub fn write(entries: &[Entry], mut output: impl Write) -> Result<(), CpioError> {
    let inodes = Inodes::of(entries)?;
    let mut written = 0_usize;
    for (index, entry) in entries.iter().enumerate() {
        let inode = inodes.of_entry(entry);
        let inode = inode.ok_or_else(|| refuse(entry, "its file is not before it"))?;
        let of = &entries[inode.entry];
        let content = if index == inode.last {
            content(&of.kind)
        } else {
            &[]
        };
        let bytes = encode_header(entry, &of.kind, inode, content)
            .ok_or_else(|| refuse(entry, "the content has 4 GiB or more"))?;
        for part in [&bytes, content] {
            written = written.saturating_add(write_padded(part, &mut output)?);
        }
    }
    let trailer = header(TRAILER, &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], 11);
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

/// What several names share.
struct Inode {
    number: u32,
    links: u32,
    /// Index of the entry that says what it is.
    entry: usize,
    /// Index of the last of its names, which has the content.
    last: usize,
}

/// Every inode by its first name.
struct Inodes<'a>(BTreeMap<&'a [u8], Inode>);

impl<'a> Inodes<'a> {
    /// Checks the entries on the way.
    fn of(entries: &'a [Entry]) -> Result<Self, CpioError> {
        let mut inodes = Self(BTreeMap::new());
        let mut names = BTreeSet::new();
        for (index, entry) in entries.iter().enumerate() {
            inodes.check(entry, entries)?;
            if !names.insert(&*entry.path) {
                return Err(refuse(entry, "the name is there already"));
            }
            if let EntryKind::Link(target) = &entry.kind {
                let of = inodes.0.get_mut(&**target);
                let of = of.ok_or_else(|| refuse(entry, "its file is not before it"))?;
                of.links = of.links.saturating_add(1);
                of.last = index;
                continue;
            }
            let number = u32::try_from(inodes.0.len()).ok();
            let number = number.and_then(|number| number.checked_add(1));
            let inode = Inode {
                number: number.ok_or_else(|| refuse(entry, "too many entries"))?,
                links: 1 + u32::from(entry.kind == EntryKind::Directory),
                entry: index,
                last: index,
            };
            inodes.0.insert(&entry.path, inode);
        }
        Ok(inodes)
    }

    fn of_entry(&self, entry: &Entry) -> Option<&Inode> {
        let name = match &entry.kind {
            EntryKind::Link(target) => target,
            _ => &entry.path,
        };
        self.0.get(&**name)
    }

    fn check(&self, entry: &Entry, entries: &[Entry]) -> Result<(), CpioError> {
        let path = &*entry.path;
        let mut parts = path.split(|byte| *byte == b'/');
        if parts.any(|part| part.is_empty() || part == b"." || part == b"..") {
            return Err(refuse(entry, "the path is not plain and relative"));
        }
        if path.contains(&0) || path.len() >= NAME_BYTES_MAX || path == TRAILER {
            return Err(refuse(entry, "the kernel cannot take this name"));
        }
        if let Some(slash) = path.iter().rposition(|byte| *byte == b'/')
            && !self.is_folder(&path[..slash], entries)
        {
            return Err(refuse(entry, "its directory is not before it"));
        }
        if entry.mode > 0o7777 {
            return Err(refuse(entry, "the mode is above 7777"));
        }
        match &entry.kind {
            EntryKind::Symlink(target)
                if target.is_empty()
                    || target.len() > SYMLINK_LENGTH_MAX
                    || target.contains(&0) =>
            {
                Err(refuse(entry, "the kernel cannot take this link target"))
            }
            EntryKind::Link(_) => self.check_link(entry, entries),
            _ => Ok(()),
        }
    }

    fn is_folder(&self, path: &[u8], entries: &[Entry]) -> bool {
        let inode = self.0.get(path);
        inode.is_some_and(|inode| entries[inode.entry].kind == EntryKind::Directory)
    }

    /// The kernel gives an inode the owner and mode of the last of its names.
    fn check_link(&self, entry: &Entry, entries: &[Entry]) -> Result<(), CpioError> {
        let Some(of) = self.of_entry(entry).map(|inode| &entries[inode.entry]) else {
            return Err(refuse(entry, "its file is not before it"));
        };
        if matches!(of.kind, EntryKind::Directory | EntryKind::Symlink(_)) {
            return Err(refuse(entry, "the kernel links no directories or links"));
        }
        if (of.mode, of.uid, of.gid) != (entry.mode, entry.uid, entry.gid) {
            return Err(refuse(entry, "its owner or mode is not that of its file"));
        }
        Ok(())
    }
}

fn content(kind: &EntryKind) -> &[u8] {
    match kind {
        EntryKind::File(bytes) | EntryKind::Symlink(bytes) => bytes,
        _ => &[],
    }
}

fn encode_header(entry: &Entry, of: &EntryKind, inode: &Inode, content: &[u8]) -> Option<Vec<u8>> {
    let (type_bits, major, minor) = match of {
        EntryKind::Fifo => (kind::FIFO, 0, 0),
        EntryKind::CharDevice { major, minor } => (kind::CHAR_DEVICE, *major, *minor),
        EntryKind::Directory => (kind::DIRECTORY, 0, 0),
        EntryKind::BlockDevice { major, minor } => (kind::BLOCK_DEVICE, *major, *minor),
        EntryKind::File(_) | EntryKind::Link(_) => (kind::FILE, 0, 0),
        EntryKind::Symlink(_) => (kind::SYMLINK, 0, 0),
        EntryKind::Socket => (kind::SOCKET, 0, 0),
    };
    let numbers = [
        inode.number,
        u32::from(entry.mode) | type_bits,
        entry.uid,
        entry.gid,
        inode.links,
        0,
        u32::try_from(content.len()).ok()?,
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
