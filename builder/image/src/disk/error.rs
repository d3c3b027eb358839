//! Why a disk could not be read or written.

use std::io;

use super::chain::{ChainError, Role};
use crate::partition::PartitionError;

/// Why a disk could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A format that coop knows and does not read.
    #[error("the disk's format is not supported: {0}")]
    Unknown(String),
    /// A file that a disk may be in.
    #[error("it is {0}: unpack it, and give the disk that is in it")]
    Packed(String),
    /// A folder, a pipe or a terminal.
    #[error("it is neither a regular file nor a block device")]
    NotAFile,
    /// Something that the format has and coop does not read.
    #[error("{format} disk: {what} is not supported")]
    Unsupported {
        /// The format.
        format: &'static str,
        /// What it is.
        what: String,
    },
    /// The disk breaks its format.
    #[error("damaged {format} disk, {place}: {reason}")]
    Corrupt {
        /// The format.
        format: &'static str,
        /// Where.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// Nothing wrong, but larger or deeper than coop takes.
    #[error("{format} disk: {what} is more than coop takes ({limit})")]
    Limit {
        /// The format.
        format: &'static str,
        /// What is too large.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A file that the disk names was not opened.
    #[error("the disk needs {role} '{name}', {reason}")]
    Reference {
        /// What it is for the disk.
        role: Role,
        /// Its name as the disk has it, made printable.
        name: String,
        /// Why not.
        reason: ChainError,
    },
    /// Something is wrong with a file that the disk names.
    #[error("{role} '{name}': {source}")]
    Within {
        /// What it is for the disk.
        role: Role,
        /// Its name as the disk has it, made printable.
        name: String,
        /// What is wrong with it.
        source: Box<DiskError>,
    },
    /// A request outside of the disk; whoever asked is at fault.
    #[error("{length} bytes at byte {offset} are not within the disk of {size_bytes} bytes")]
    Outside {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// The disk's size in bytes.
        size_bytes: u64,
    },
    /// What shall be written is impossible.
    #[error("cannot make the disk: {0}")]
    Invalid(String),
    /// No partition table can be made.
    #[error(transparent)]
    Table(#[from] PartitionError),
    /// A file cannot be read.
    #[error("cannot read the disk at byte {offset} of its file: {source}")]
    Read {
        /// Where in the file, in bytes.
        offset: u64,
        /// What the operating system says.
        source: io::Error,
    },
    /// The new disk cannot be written.
    #[error("cannot write the disk at byte {offset} of its file: {source}")]
    Write {
        /// Where in the file, in bytes.
        offset: u64,
        /// What the operating system says.
        source: io::Error,
    },
}

impl DiskError {
    /// As an operating system's error, with this one inside: for [`crate::tree::Blob`].
    pub(super) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Read { source, .. } => source.kind(),
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }
}
