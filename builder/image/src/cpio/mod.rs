//! cpio archives in the `newc` form, as the kernel unpacks an initramfs.
//!
//! Follows the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`, and where that
//! is silent `init/initramfs.c`. Archives are small and stay in memory. What [`write()`] yields may
//! be followed by another archive: it is padded to a multiple of [`ARCHIVE_ALIGNMENT`] bytes. Inode
//! numbers count from 1 and times are zero, so the same entries always give the same bytes.
//!
//! A file with several names is stored once for each name, with one inode number and the content at
//! the last of them; here the first name is the file and the others are [`EntryKind::Link`]s to it.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;

pub use read::read;
pub use write::write;

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
mod kind {
    pub(super) const MASK: u32 = 0o170_000;
    pub(super) const FIFO: u32 = 0o010_000;
    pub(super) const CHAR_DEVICE: u32 = 0o020_000;
    pub(super) const DIRECTORY: u32 = 0o040_000;
    pub(super) const BLOCK_DEVICE: u32 = 0o060_000;
    pub(super) const FILE: u32 = 0o100_000;
    pub(super) const SYMLINK: u32 = 0o120_000;
    pub(super) const SOCKET: u32 = 0o140_000;
}

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

    /// One more name for a file, device, pipe or socket that stands earlier in the archive.
    #[must_use]
    pub fn link(path: &str, of: &Self) -> Self {
        Self {
            path: path.into(),
            kind: EntryKind::Link(of.path.clone()),
            ..of.clone()
        }
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
    /// One more name of what an earlier entry is: that entry's path. Owner and mode are the same.
    Link(Vec<u8>),
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
    /// The archive breaks its format, or has what coop does not read.
    #[error("damaged cpio archive, {}byte {offset}: {reason}", of_entry(.path.as_deref()))]
    Corrupt {
        /// Offset of the header, in bytes.
        offset: u64,
        /// Path of the entry, where it is known.
        path: Option<String>,
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

fn of_entry(path: Option<&str>) -> String {
    path.map_or_else(String::new, |path| format!("entry '{path}' at "))
}
