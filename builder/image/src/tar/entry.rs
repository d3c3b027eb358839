//! What an archive says about one file.

use crate::tree::{Metadata, Name};

use super::At;

/// An entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path as the archive has it (`./usr/bin/sh`), without trailing slashes. Nothing about it
    /// has been checked but its length.
    pub path: Name,
    /// What it is.
    pub kind: EntryKind,
    /// Mode, owner by number, times, attributes. Where the archive gives no access or change
    /// time, the modification time stands in.
    pub metadata: Metadata,
    /// The owner's name, empty where the archive has none; coop goes by the numbers.
    pub user_name: Name,
    /// The group's name, likewise.
    pub group_name: Name,
    /// What a hard link carries as its file's content: POSIX lets it, hardly anybody does.
    pub link_content: Option<Layout>,
    /// Offset of the entry's (last) header in the uncompressed archive, in bytes.
    pub header_offset: u64,
    /// Extended header keywords that were not used, and say something about the file.
    pub ignored: Vec<Name>,
}

impl Entry {
    /// Where the entry is, for messages.
    #[must_use]
    pub fn at(&self) -> At {
        At {
            entry: self.path.to_vec(),
            offset: self.header_offset,
        }
    }

    /// How the content that comes with the entry lies in the archive, where it has any.
    #[must_use]
    pub fn layout(&self) -> Option<&Layout> {
        match &self.kind {
            EntryKind::File(layout) => Some(layout),
            _ => self.link_content.as_ref(),
        }
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Directory,
    /// A regular file.
    File(Layout),
    /// Another name of an earlier entry, given as a path in the archive.
    HardLink(Name),
    /// A symbolic link and its target.
    Symlink(Name),
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
}

/// How a file's content lies in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Size of the file in bytes.
    pub size: u64,
    /// Bytes of it that the archive has.
    pub stored: u64,
    /// Offset of these bytes in the uncompressed archive.
    pub offset: u64,
    /// Where they belong in the file; `None` for a file without holes.
    pub runs: Option<Box<[SparseRun]>>,
}

/// A run of stored bytes in a file with holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparseRun {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}
