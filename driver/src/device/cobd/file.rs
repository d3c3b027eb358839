//! An image file as a disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;

use super::{Disk, DiskError, SECTOR_BYTES};
use crate::transport::{AccessError, Readable, Writable};

/// Zeroes written at a time where the host's file system cannot make them itself.
const ZEROES_BYTES: usize = 1 << 20;

/// A regular file, locked: against everyone else for writing, against writers for reading.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    size_bytes: u64,
    read_only: bool,
    ignore_flush: bool,
}

impl FileDisk {
    /// Opens an image for reading and writing.
    ///
    /// # Errors
    /// It is missing, no regular file, of an odd size, or in use.
    pub fn open_read_write(path: &Path, ignore_flush: bool) -> Result<Self, DiskError> {
        let file = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)?;
        Self::new(path, file.into_parts().0, false, ignore_flush)
    }

    /// Opens an image for reading only.
    ///
    /// # Errors
    /// It is missing, no regular file, of an odd size, or being written by another guest.
    pub fn open_read_only(path: &Path) -> Result<Self, DiskError> {
        let file = fs_err::File::open(path)?;
        Self::new(path, file.into_parts().0, true, false)
    }

    fn new(
        path: &Path,
        file: File,
        read_only: bool,
        ignore_flush: bool,
    ) -> Result<Self, DiskError> {
        let path = path.to_owned();
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(DiskError::NotAFile { path });
        }
        let size_bytes = metadata.len();
        if size_bytes == 0 || !size_bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(DiskError::Size { path, size_bytes });
        }
        let lock = if read_only {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        match flock(&file, lock) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(DiskError::InUse { path }),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        Ok(Self {
            file,
            size_bytes,
            read_only,
            ignore_flush,
        })
    }
}

impl FileDisk {
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

/// Makes a range of a file zero, by a hole if `unmap`, or in place.
pub(super) fn zero_range(file: &File, at: u64, length: u64, unmap: bool) -> io::Result<()> {
    let flags = if unmap {
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE
    } else {
        FallocateFlags::ZERO_RANGE
    };
    match fallocate(file, flags, at, length) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => write_zeroes(file, at, length),
        Err(error) => Err(error.into()),
    }
}

fn write_zeroes(file: &File, at: u64, length: u64) -> io::Result<()> {
    let zeroes = vec![0; usize::try_from(length).map_or(ZEROES_BYTES, |all| all.min(ZEROES_BYTES))];
    let (mut at, mut left) = (at, length);
    while left > 0 {
        let count = usize::try_from(left).map_or(zeroes.len(), |left| left.min(zeroes.len()));
        file.write_all_at(&zeroes[..count], at)?;
        let count = u64::try_from(count).map_err(io::Error::other)?;
        at = at.saturating_add(count);
        left = left.saturating_sub(count);
    }
    Ok(())
}

impl Disk for FileDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, at: u64, target: Writable<'_>) -> Result<(), AccessError> {
        target.read_from_file(&self.file, at)
    }

    fn write(&mut self, at: u64, source: Readable<'_>) -> Result<(), AccessError> {
        source.write_to_file(&self.file, at)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.read_only || self.ignore_flush {
            return Ok(());
        }
        self.file.sync_data()
    }

    fn discard(&mut self, at: u64, length: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, at, length) {
            // A file system without holes keeps the bytes, which a discard allows.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn write_zeroes(&mut self, at: u64, length: u64, unmap: bool) -> io::Result<()> {
        zero_range(&self.file, at, length, unmap)
    }
}
