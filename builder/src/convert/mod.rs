//! Disks of other virtual machines: what is on them, one of their file systems as a cobd, a cobd as
//! a disk, and a disk as an appliance.
//!
//! | module | what |
//! |---|---|
//! | `input` | a disk or a cobd that is opened, and its partitions |
//! | `in_use` | whether somebody writes to it |
//! | `choice` | which of them is meant |
//! | `copy` | the bytes, into a file that appears whole |
//! | `wrap` | a disk around a file system |
//! | `left` | what a conversion leaves behind |
//! | `machine` | for which machine a root's programs are |
//! | `fixups` | what a root needs so that it boots here |
//! | `appliance` | the recipe of an appliance from a disk |

mod appliance;
mod choice;
mod copy;
pub mod fixups;
mod in_use;
mod input;
mod left;
mod machine;
mod wrap;

use std::io;
use std::path::PathBuf;

use coop_image::disk::{ChainError, DiskError};
use coop_image::ext4::ReadError;
use coop_image::partition::{FileSystem, PartitionError};

use crate::recipe::Diagnostic;
use crate::rootfs::RootfsError;

pub use appliance::{Prepared, RootSize, Wanted, prepare};
pub use choice::Which;
pub use copy::{Converted, OutputFormat, Request, convert};
pub use input::{Input, OpenOptions, Part};
pub use left::{Left, LeftKind};

/// Why a disk was not converted. Outputs are then as they were.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A file of the host.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The disk cannot be opened or read.
    #[error("{name}: {source}")]
    Disk {
        /// The disk.
        name: String,
        /// Why.
        source: DiskError,
    },
    /// Its partitions cannot be found.
    #[error("{name}: {source}")]
    Table {
        /// The disk.
        name: String,
        /// Why.
        source: PartitionError,
    },
    /// Nothing on the disk is what was asked for.
    #[error("{name}: {reason}{list}")]
    Choice {
        /// The disk.
        name: String,
        /// What was looked for, and why it is not there.
        reason: String,
        /// The partitions, each on a line that begins with a line's end; empty where the disk has
        /// no table.
        list: String,
        /// What may have a root, and is not looked into.
        closed: Option<FileSystem>,
    },
    /// The file system is not one that can be read file by file.
    #[error("{name}: {part} is {kind}; coop reads the files of ext2, ext3 and ext4 only")]
    NotExt4 {
        /// The disk.
        name: String,
        /// Which partition.
        part: String,
        /// What it is: a phrase without a verb.
        kind: &'static str,
        /// The same, where it is known.
        found: Option<FileSystem>,
    },
    /// The file system cannot be read.
    #[error("{name}: {part}: {source}")]
    FileSystem {
        /// The disk.
        name: String,
        /// Which partition.
        part: String,
        /// Why.
        source: ReadError,
    },
    /// Somebody writes to the disk.
    #[error("{0} is in use: a machine that runs may write to it, or to what it is made of")]
    InUse(String),
    /// The file system is larger than its place.
    #[error("{name}: {what}")]
    CutOff {
        /// The disk.
        name: String,
        /// Which one, and how much is missing.
        what: String,
    },
    /// The root file system cannot be fitted.
    #[error(transparent)]
    Fix(#[from] RootfsError),
    /// The new disk cannot be written.
    #[error("{}: {source}", path.display())]
    Output {
        /// The output.
        path: PathBuf,
        /// Why.
        source: DiskError,
    },
    /// What would be read is what would be written.
    #[error("{} would take its own source's place", .0.display())]
    Same(PathBuf),
    /// The recipe of the appliance is not sound, which its names can make it.
    #[error("no appliance can be made: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Recipe(Vec<Diagnostic>),
    /// Something that this kind of conversion does not do.
    #[error("{0}")]
    Unsupported(String),
}

impl ConvertError {
    /// Whether the disk names a file that nobody allowed it.
    #[must_use]
    pub fn is_refused_file(&self) -> bool {
        let Self::Disk { source, .. } = self else {
            return false;
        };
        let mut error = source;
        while let DiskError::Within { source, .. } = error {
            error = source;
        }
        let DiskError::Reference { reason, .. } = error else {
            return false;
        };
        matches!(reason, ChainError::Refused)
    }
}
