//! FAT12, FAT16 and FAT32 with long names.
//!
//! Follows Microsoft's "FAT32 File System Specification" 1.03, and Linux where images in the wild
//! do not. FAT keeps names (without regard to case), content, the time of modification to two
//! seconds, and whether a file is read-only; no owners, modes, links or devices. What it cannot hold
//! is refused, or dropped where [`Permissions::Dropped`] says so. Times are taken as UTC.
//!
//! The `fatfs` crate is not used but in tests: its 0.3.6 writes long names for `.` and `..` (which
//! fsck.fat calls damage), takes times from a global clock, does not show where content lies, and
//! trusts the chains of an image.
//!
//! | module | what |
//! |---|---|
//! | `geometry` | type, cluster size and places of the parts, new or of a boot sector |
//! | `name` | long and short names |
//! | `time` | dates and times of entries |
//! | `scan` | what of a tree becomes an entry |
//! | `write`, `read` | images |

mod geometry;
mod name;
mod read;
mod scan;
#[cfg(test)]
mod tests;
mod time;
mod write;

use std::io;

pub use read::{ReadOptions, Volume, read};
pub use write::write;

use crate::tree::{Timestamp, TreeError};

/// The longest label in bytes.
pub const LABEL_LENGTH_MAX: usize = 11;
/// The most entries of a folder: long names take several.
pub const FOLDER_ENTRIES_MAX: usize = 65_536;
/// The largest file in bytes.
pub const FILE_BYTES_MAX: u64 = 0xFFFF_FFFF;

/// How wide the numbers in the allocation table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FatType {
    /// 12 bits: up to 4084 clusters.
    Fat12,
    /// 16 bits: up to 65524 clusters.
    Fat16,
    /// 28 of 32 bits.
    Fat32,
}

/// The owner and modes that everything has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uniform {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode of folders.
    pub directory_mode: u16,
    /// Mode of files; those that are read-only have it without its write bits.
    pub file_mode: u16,
}

impl Default for Uniform {
    /// Root's; folders 0755, files 0644.
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            directory_mode: 0o755,
            file_mode: 0o644,
        }
    }
}

/// What becomes of owners, modes, attributes and hard links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permissions {
    /// Everything must have these; other owners and modes, attributes and hard links are refused.
    Uniform(Uniform),
    /// They are not kept; a file with several names becomes several files.
    Dropped,
}

/// How an image is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of the image in bytes, whole sectors; `None` makes it as small as the content allows,
    /// in whole MiB.
    pub size_bytes: Option<u64>,
    /// `None`: FAT32 from 512 MiB on, else 12 or 16 by the number of clusters, as mkfs.fat has it.
    pub fat_type: Option<FatType>,
    /// 512, 1024, 2048 or 4096.
    pub sector_bytes: u32,
    /// Size of a cluster: a power of two, up to 128 sectors; `None`: as mkfs.fat has it.
    pub cluster_bytes: Option<u32>,
    /// Identifies the volume.
    pub volume_id: u32,
    /// At most [`LABEL_LENGTH_MAX`] capitals, digits and signs that a short name may have; may be
    /// empty.
    pub label: String,
    /// Sectors before the volume on its disk, for old boot loaders.
    pub hidden_sectors: u32,
    /// The time of everything; `None`: of modification, from the tree.
    pub time: Option<Timestamp>,
    /// What becomes of owners and modes.
    pub permissions: Permissions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size_bytes: None,
            fat_type: None,
            sector_bytes: 512,
            cluster_bytes: None,
            volume_id: 0,
            label: String::new(),
            hidden_sectors: 0,
            time: None,
            permissions: Permissions::Uniform(Uniform::default()),
        }
    }
}

/// Why an image could not be written or read. Paths are inside the image.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// An option is out of its range.
    #[error("invalid FAT option: {0}")]
    InvalidOption(String),
    /// The tree does not fit.
    #[error(
        "a FAT image of {size_bytes} bytes is too small: it needs {needed} clusters and has {clusters}"
    )]
    TooSmall {
        /// The size that was asked for.
        size_bytes: u64,
        /// How many clusters the tree needs.
        needed: u64,
        /// How many there are.
        clusters: u64,
    },
    /// Something that FAT cannot hold.
    #[error("'{path}': FAT cannot hold {what}")]
    Unrepresentable {
        /// What it is in the tree.
        path: String,
        /// What cannot be held.
        what: String,
    },
    /// Two names in a folder that FAT takes for one.
    #[error("'{path}' and '{other}' are one name to FAT, which ignores case")]
    Collision {
        /// The one.
        path: String,
        /// The other.
        other: String,
    },
    /// Content could not be read.
    #[error("cannot read the content of '{path}'")]
    Content {
        /// Whose.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The image could not be written.
    #[error("cannot write the FAT image")]
    Write(#[source] io::Error),
    /// No FAT boot sector.
    #[error("the image holds no FAT file system: {0}")]
    NotFat(&'static str),
    /// The image breaks the format.
    #[error("damaged FAT image, '{path}': {reason}")]
    Corrupt {
        /// In which folder or file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The image cannot be read.
    #[error("cannot read the FAT image at byte {offset}: {source}")]
    Read {
        /// Where, in bytes.
        offset: u64,
        /// What the operating system says.
        source: io::Error,
    },
    /// The tree cannot take what the image has.
    #[error("the FAT image does not fit into a tree: {0}")]
    Tree(#[from] TreeError),
}

/// Size of an entry of a folder in bytes.
const ENTRY_BYTES: usize = 32;

/// Attributes of an entry.
mod attribute {
    pub(super) const READ_ONLY: u8 = 0x01;
    pub(super) const LABEL: u8 = 0x08;
    pub(super) const FOLDER: u8 = 0x10;
    pub(super) const ARCHIVE: u8 = 0x20;
    /// All of this set: a piece of a long name.
    pub(super) const LONG_NAME: u8 = 0x0F;
    pub(super) const LONG_NAME_MASK: u8 = 0x3F;
}
