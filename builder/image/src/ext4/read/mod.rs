//! Reads an ext4 image into a [`Tree`] whose content points into the image.
//!
//! Written for images that a guest's kernel has changed, and so for untrusted ones: every structure
//! is bounds-checked, every checksum that `metadata_csum` gives to what is read is verified, and
//! nothing recurses without a bound. A journal that needs recovery is replayed in memory: the image
//! is never written.
//!
//! | module | what |
//! |---|---|
//! | `volume` | superblock, blocks as the journal leaves them |
//! | `features` | features by name |
//! | `groups` | block groups and their descriptors |
//! | `info` | what the file system says about itself |
//! | `journal` | which blocks of the journal take the place of which others |
//! | `inode` | an inode's fields |
//! | `inline` | content in the inode |
//! | `mapping` | extents and block maps: which blocks an inode has |
//! | `content` | these as segments of the image |
//! | `directory` | names |
//! | `xattr` | extended attributes |
//! | `claims` | that no block belongs to two |
//! | `walk` | from the root to the tree |
//!
//! # What is read
//! ext2, ext3 and ext4 of revisions 0 and 1, blocks of 1 to 64 KiB, inodes of 128 bytes and more,
//! block maps and extents, `inline_data`, indexed folders of any depth, `ea_inode`, `bigalloc`,
//! `meta_bg`, `sparse_super2`, `shared_blocks`, `uninit_bg`, `metadata_csum` and its seed, `64bit`.
//!
//! # What is refused by name
//! External journals, fast and asynchronous commits that are still to be replayed, features of
//! other systems (`compression`, `dirdata`), what a tree cannot hold (encrypted, verity and
//! casefolded inodes, project ids, `chattr` flags with an effect), attributes above 64 KiB, and a
//! file system in which its kernel has recorded errors.
//!
//! # What is left out
//! Inodes without a name (orphans, the journal, quota files and what these limit), what lies
//! behind a file's end, unwritten extents (they read as holes), flags that ext4 ignores, and
//! `/lost+found` where it is empty, mode 0700 and root's: it belongs to the image, not to the
//! tree.

mod claims;
mod content;
mod directory;
mod features;
mod groups;
mod info;
mod inline;
mod inode;
mod journal;
mod mapping;
#[cfg(test)]
mod tests;
mod volume;
mod walk;
mod xattr;

pub use info::{Info, read_info};

use std::io;
use std::sync::Arc;

use crate::tree::{Blob, Tree, TreeError};

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No ext4 superblock.
    #[error("the image holds no ext4 file system")]
    NotExt4,
    /// Something that ext4 has and coop does not read.
    #[error("ext4 image, {place}: {what} is not supported")]
    Unsupported {
        /// Where.
        place: String,
        /// The feature.
        what: String,
    },
    /// The image breaks the format.
    #[error("damaged ext4 image, {place}: {reason}")]
    Corrupt {
        /// Where.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A checksum does not match.
    #[error("damaged ext4 image, {place}: invalid checksum")]
    Checksum {
        /// Where.
        place: String,
    },
    /// The image cannot be read.
    #[error("cannot read the ext4 image at byte {offset}: {source}")]
    Io {
        /// Where, in bytes.
        offset: u64,
        /// What the operating system says.
        source: io::Error,
    },
    /// The tree cannot take what the image has.
    #[error("the ext4 image does not fit into a tree: {0}")]
    Tree(#[from] TreeError),
}

impl ReadError {
    fn corrupt(place: impl ToString, reason: impl ToString) -> Self {
        Self::Corrupt {
            place: place.to_string(),
            reason: reason.to_string(),
        }
    }

    fn unsupported(place: impl ToString, what: impl ToString) -> Self {
        Self::Unsupported {
            place: place.to_string(),
            what: what.to_string(),
        }
    }

    fn checksum(place: impl ToString) -> Self {
        Self::Checksum {
            place: place.to_string(),
        }
    }

    /// Says by which name the place is known in its folder.
    fn named(mut self, name: &[u8]) -> Self {
        if let Some(place) = self.place_mut() {
            *place = format!("'{}', {place}", crate::tree::display(name));
        }
        self
    }

    /// Says in which folder the place is.
    fn under(mut self, folder: &[u8]) -> Self {
        let folder = if folder.is_empty() { b"/" } else { folder };
        if let Some(place) = self.place_mut() {
            *place = format!("in '{}', {place}", crate::tree::display(folder));
        }
        self
    }

    fn place_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Unsupported { place, .. }
            | Self::Corrupt { place, .. }
            | Self::Checksum { place } => Some(place),
            Self::NotExt4 | Self::Io { .. } | Self::Tree(_) => None,
        }
    }
}

/// Reads the file system in `image`, which must begin with it (no partition table).
///
/// # Errors
/// No ext4, damage, something that is not supported, or the image cannot be read.
pub fn read(image: Arc<dyn Blob>) -> Result<Tree, ReadError> {
    let volume = volume::Volume::open(Arc::clone(&image))?;
    volume.check_errors()?;
    walk::walk(&volume, image, Depth::All)
}

/// As [`read`], with the root folder's own names only: its folders are empty, and what lies in them
/// may be damaged. Says in little memory what a file system is for.
///
/// # Errors
/// As [`read`], of what it looks at.
pub fn read_top(image: Arc<dyn Blob>) -> Result<Tree, ReadError> {
    let volume = volume::Volume::open(Arc::clone(&image))?;
    walk::walk(&volume, image, Depth::Top)
}

/// How much of a file system is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// Everything that has a name.
    All,
    /// What the root folder names.
    Top,
}
