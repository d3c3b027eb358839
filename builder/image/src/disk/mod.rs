//! Disks of other virtual machines.
//!
//! [`Disk::open`] recognises a format by content and gives the bytes that a guest would see, with
//! the holes in them. Partitions are found by [`crate::partition`], which takes a [`Disk`] as it
//! takes any [`Blob`]; a [`View`] is one of them. [`write_raw`] and [`write_qcow2`] write any
//! [`Source`]; [`gpt::wrap`] makes one with a partition table.
//!
//! Disks come from elsewhere: every number is checked, memory is bounded whatever they say, and no
//! file that they name is opened but through a [`Chain`].
//!
//! | module | what |
//! |---|---|
//! | `chain` | files that a disk names |
//! | `claims` | that no two parts lie on one place |
//! | `detect` | formats by content |
//! | `gpt` | a partition table around file systems |
//! | `layer` | what a disk is made of; plain files |
//! | `open` | the layers of a disk |
//! | `pages` | tables, a page at a time |
//! | `qcow2` | QEMU's disks |
//! | `source`, `view` | bytes with holes; a part of them |
//! | `unpack` | compressed units |
//! | `vmdk` | VMware's disks |
//! | `write` | plain disks |

mod chain;
mod claims;
mod detect;
mod error;
pub mod gpt;
mod layer;
mod open;
mod pages;
mod qcow2;
mod source;
#[cfg(test)]
mod tests;
mod unpack;
mod view;
mod vmdk;
mod write;

use std::fmt;
use std::fs::File;
use std::io;

pub use chain::{CHAIN_MAX, Chain, ChainError, Folder, NoChain, Reference, Role};
pub use error::DiskError;
pub use qcow2::{Qcow2Options, write_qcow2};
pub use source::{Extent, ExtentKind, Extents, Source};
pub use view::View;
pub use write::{THREADS_MAX, Written, write_raw};

use layer::{Layer, Place, Raw, Run};

use crate::tree::Blob;

/// How a disk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// The bytes themselves.
    Raw,
    /// QEMU's, versions 2 and 3.
    Qcow2,
    /// VMware's.
    Vmdk,
}

impl Format {
    /// Its name as qemu-img has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
        }
    }
}

/// Something that a disk has besides the bytes that a guest sees, and that reading leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftBehind {
    /// An older state of the disk.
    Snapshot {
        /// What it is called, made printable.
        name: String,
        /// Whether the machine's memory is in it, too.
        has_machine_state: bool,
    },
    /// Lists of blocks that have changed since some backup.
    Bitmaps {
        /// How many.
        count: u32,
    },
    /// The disk was in use, or its machine was stopped hard: the last writes may be missing.
    NotClosed,
}

impl fmt::Display for LeftBehind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot {
                name,
                has_machine_state: false,
            } => write!(formatter, "the snapshot '{name}'"),
            Self::Snapshot { name, .. } => {
                write!(formatter, "the snapshot '{name}' with the machine's state")
            }
            Self::Bitmaps { count } => write!(formatter, "{count} bitmaps of changed blocks"),
            Self::NotClosed => formatter.write_str("writes of a machine that has not closed it"),
        }
    }
}

/// A disk that is read.
#[derive(Debug)]
pub struct Disk {
    format: Format,
    size_bytes: u64,
    left_behind: Vec<LeftBehind>,
    /// What a guest sees first, then what is behind it.
    layers: Vec<Box<dyn Layer>>,
}

impl Disk {
    /// Opens a disk of any format that coop reads, recognised by its content: a regular file or a
    /// block device. Its tables are checked as a whole, so that most of what is wrong shows here.
    ///
    /// What a guest may have written as a plain disk (a cobd, say) goes to [`Disk::open_raw`]: its
    /// first bytes may say anything.
    ///
    /// # Errors
    /// The disk is damaged, not supported, too large, names a file that the chain does not open, or
    /// cannot be read.
    pub fn open(file: File, chain: &mut dyn Chain) -> Result<Self, DiskError> {
        open::open(file, chain)
    }

    /// Opens a file whose bytes are the disk's, whatever they look like.
    ///
    /// # Errors
    /// It is not a regular file and no block device, or cannot be read.
    pub fn open_raw(file: File) -> Result<Self, DiskError> {
        let layer = Raw::new(file)?;
        Ok(Self {
            format: Format::Raw,
            size_bytes: layer.size_bytes(),
            left_behind: Vec::new(),
            layers: vec![Box::new(layer)],
        })
    }

    /// How it is stored.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Its size in bytes as a guest sees it; a plain file's need not be whole sectors.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What the disk has that is not read.
    #[must_use]
    pub fn left_behind(&self) -> &[LeftBehind] {
        &self.left_behind
    }

    /// Its extents in order. What a plain file has as holes are holes; data may be zeroes.
    #[must_use]
    pub fn extents(&self) -> Extents<'_> {
        Extents::new(self)
    }

    /// Reads up to `buffer.len()` bytes at `offset`: fewer only at the disk's end, 0 behind it. Any
    /// number of threads may read at once.
    ///
    /// # Errors
    /// The disk is damaged there, or cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        let left = self.size_bytes.saturating_sub(offset);
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let mut done = 0;
        while done < length {
            let rest = &mut buffer[done..length];
            let at = offset.saturating_add(as_u64(done));
            let (layer, run) = self.run_at(at, as_u64(rest.len()))?;
            let count = usize::try_from(run.length).map_or(rest.len(), |n| n.min(rest.len()));
            match layer {
                Some(layer) => layer.read(&run, &mut rest[..count])?,
                None => rest[..count].fill(0),
            }
            done += count;
        }
        Ok(length)
    }

    /// The run that begins at `offset` and the layer that has its bytes; `None` where it is a hole.
    fn run_at(&self, offset: u64, length: u64) -> Result<(Option<&dyn Layer>, Run), DiskError> {
        let mut length = length.min(self.size_bytes.saturating_sub(offset)).max(1);
        for layer in &self.layers {
            // What is behind may be shorter.
            if offset >= layer.size_bytes() {
                break;
            }
            let inside = length.min(layer.size_bytes() - offset);
            let run = layer.run_at(offset, inside)?;
            match run.place {
                Place::Absent => length = run.length,
                Place::Zero => return Ok((None, run)),
                Place::Plain { .. } | Place::Packed { .. } => return Ok((Some(&**layer), run)),
            }
        }
        let place = Place::Zero;
        let run = Run {
            offset,
            length,
            place,
        };
        Ok((None, run))
    }
}

impl Source for Disk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        let (layer, run) = self.run_at(offset, u64::MAX)?;
        Ok(Extent {
            offset,
            length: run.length,
            kind: match layer {
                Some(_) => ExtentKind::Data,
                None => ExtentKind::Hole,
            },
        })
    }
}

impl Blob for Disk {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Disk::read_at(self, buffer, offset).map_err(DiskError::into_io)
    }

    fn as_file(&self) -> Option<(&File, u64)> {
        match &self.layers[..] {
            [layer] => Some((layer.as_file()?, 0)),
            _ => None,
        }
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
