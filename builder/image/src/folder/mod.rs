//! A folder of the host as a tree.
//!
//! Every name is looked at relative to the open folder that it is in, and no symbolic link is
//! followed, so a tree holds nothing that is not below its root, whoever changes the folder
//! meanwhile. Content stays in the files; they are opened when it is read, few at a time, and what
//! has another size, time or identity by then is an error.
//!
//! # What is taken over
//! Names, kinds, permissions, owners, modification times, extended attributes with access control
//! lists and capabilities, hard links, holes, devices, pipes and sockets. All four times of an inode
//! become its modification time: the others say when the host's files were copied and read, and
//! would make each image another one.

mod content;
mod scan;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::tree::{Tree, TreeError};

/// How deep folders may lie in each other: each level needs a descriptor while it is read.
pub const DEPTH_MAX: usize = 1000;

/// How a folder is read.
#[derive(Clone)]
pub struct Options {
    /// Whether file systems that are mounted below the folder belong to it; otherwise they are
    /// empty folders, and listed in [`Found::mounts`].
    pub cross_mounts: bool,
    /// Whether extended attributes are read.
    pub xattrs: bool,
    /// Called now and then, also before a file is opened later for its content; its error ends the
    /// reading.
    pub check: Check,
}

/// See [`Options::check`].
pub type Check = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// A folder as a tree.
#[derive(Debug)]
pub struct Found {
    /// The tree.
    pub tree: Tree,
    /// Paths of folders that are the roots of other file systems and were left empty.
    pub mounts: Vec<Vec<u8>>,
}

/// Why a folder could not be read. Paths begin at the folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The host says no.
    #[error("'{path}': cannot {action}: {source}")]
    Io {
        /// Where.
        path: String,
        /// What was tried.
        action: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// More levels than [`DEPTH_MAX`].
    #[error("'{path}' is more than {DEPTH_MAX} folders deep, coop's limit")]
    Depth {
        /// The folder.
        path: String,
    },
    /// The same folder has two places, as a bind mount makes it.
    #[error("'{path}' is the same folder as '{other}': is one mounted on the other?")]
    Twice {
        /// The second place.
        path: String,
        /// The first one.
        other: String,
    },
    /// What was one thing when it was listed is another by now.
    #[error("'{path}' changed while it was read")]
    Changed {
        /// Where.
        path: String,
    },
    /// The caller's check.
    #[error(transparent)]
    Stopped(io::Error),
    /// The tree cannot take what the folder has.
    #[error("the folder does not fit into a tree: {0}")]
    Tree(#[from] TreeError),
}

/// Reads a folder.
///
/// # Errors
/// Something in it cannot be read, or changes meanwhile.
pub fn read(root: OwnedFd, options: &Options) -> Result<Found, FolderError> {
    scan::scan(Arc::new(root), options)
}
