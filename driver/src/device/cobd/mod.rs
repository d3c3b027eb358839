//! cobd, the cooperative block device: a virtio block front over an image of the host.
//!
//! [`Cobd`] is the front (virtio 1.3, section 5.2). What it stores its sectors in is a [`Disk`]:
//! a file ([`FileDisk`]), or a throw-away [`Overlay`] over a file that is never written.

mod file;
mod front;
mod overlay;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use file::FileDisk;
pub use front::{Cobd, SERIAL_BYTES};
pub use overlay::{CLUSTER_BYTES, Overlay};

use crate::transport::{AccessError, Readable, Writable};

/// Bytes in a sector, the unit of virtio's block device whatever the disk is made of.
pub const SECTOR_BYTES: u64 = 512;

/// Where a block device's sectors are kept.
///
/// The front has checked every range: it lies inside [`Disk::size_bytes`], and starts and ends at
/// a sector. A call may block on the host's I/O.
pub trait Disk: Send {
    /// Size in bytes, a multiple of [`SECTOR_BYTES`]; it does not change.
    fn size_bytes(&self) -> u64;

    /// Whether writing is refused.
    fn is_read_only(&self) -> bool;

    /// Fills `target` with the bytes at `at`.
    ///
    /// # Errors
    /// The host cannot read, or `target` cannot be reached.
    fn read(&mut self, at: u64, target: Writable<'_>) -> Result<(), AccessError>;

    /// Replaces the bytes at `at` by `source`.
    ///
    /// # Errors
    /// The host cannot write, or `source` cannot be reached.
    fn write(&mut self, at: u64, source: Readable<'_>) -> Result<(), AccessError>;

    /// Returns once everything written so far would outlive a crash of the host.
    ///
    /// # Errors
    /// The host cannot.
    fn flush(&mut self) -> io::Result<()>;

    /// Forgets `length` bytes at `at`: they may read as anything afterwards.
    ///
    /// # Errors
    /// The host cannot.
    fn discard(&mut self, at: u64, length: u64) -> io::Result<()>;

    /// Makes `length` bytes at `at` zero, giving up their space only if `unmap`.
    ///
    /// # Errors
    /// The host cannot.
    fn write_zeroes(&mut self, at: u64, length: u64, unmap: bool) -> io::Result<()>;
}

/// How an image is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskMode {
    /// What the guest writes stays, and nobody else may use the image meanwhile.
    ReadWrite {
        /// Does not wait for the host's disk when the guest flushes: for images that are thrown
        /// away when the host crashes.
        ignore_flush: bool,
    },
    /// The guest cannot write.
    ReadOnly,
    /// What the guest writes is gone when the device ends; the image itself is never written.
    Overlay {
        /// Where the unlinked file lies that holds what the guest wrote.
        folder: PathBuf,
    },
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The host says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Only regular files are images.
    #[error("image {path} is not a regular file")]
    NotAFile {
        /// The image.
        path: PathBuf,
    },
    /// The image does not end at a sector.
    #[error("image {path} has {size_bytes} bytes, which is not a positive multiple of 512")]
    Size {
        /// The image.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// Somebody else has locked the image.
    #[error("image {path} is in use by another guest")]
    InUse {
        /// The image.
        path: PathBuf,
    },
    /// The folder for what the guest writes cannot hold a file.
    #[error("cannot make a temporary file in {folder}: {source}")]
    OverlayFolder {
        /// The folder.
        folder: PathBuf,
        /// What the host says.
        source: io::Error,
    },
}

/// Opens an image in one of the three ways.
///
/// # Errors
/// See [`DiskError`].
pub fn open(path: &std::path::Path, mode: &DiskMode) -> Result<Box<dyn Disk>, DiskError> {
    Ok(match mode {
        DiskMode::ReadWrite { ignore_flush } => {
            Box::new(FileDisk::open_read_write(path, *ignore_flush)?)
        }
        DiskMode::ReadOnly => Box::new(FileDisk::open_read_only(path)?),
        DiskMode::Overlay { folder } => Box::new(Overlay::open(path, folder)?),
    })
}
