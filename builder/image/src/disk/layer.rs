//! One file of a disk, or several that are one format's: what a disk is made of.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::DiskError;

/// What a layer has at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing: the layer behind it decides; where there is none, it is a hole.
    Absent,
    /// Zeroes.
    Zero,
    /// Bytes of a file, from this offset on.
    Plain { file: usize, offset: u64 },
    /// A unit that is compressed as a whole; the format knows what the numbers are.
    Packed { at: u64, length: u64 },
}

/// A part of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) place: Place,
}

/// A layer of a disk.
pub(super) trait Layer: fmt::Debug + Send + Sync {
    fn size_bytes(&self) -> u64;

    /// What begins at `offset`, which is less than the size: at least one byte and at most
    /// `length`, which is not 0.
    fn run_at(&self, offset: u64, length: u64) -> Result<Run, DiskError>;

    /// Fills `buffer` from the start of a run that has bytes and is as long.
    fn read(&self, run: &Run, buffer: &mut [u8]) -> Result<(), DiskError>;

    /// The file whose bytes are the layer's.
    fn as_file(&self) -> Option<&File> {
        None
    }
}

/// A file's bytes as they are.
#[derive(Debug)]
pub(super) struct Raw {
    file: File,
    size_bytes: u64,
}

impl Raw {
    pub(super) fn new(file: File) -> Result<Self, DiskError> {
        let size_bytes = size_of(&file)?;
        Ok(Self { file, size_bytes })
    }
}

/// The size of a regular file or a block device.
pub(super) fn size_of(file: &File) -> Result<u64, DiskError> {
    let failed = |source| DiskError::Read { offset: 0, source };
    let kind = file.metadata().map_err(failed)?.file_type();
    if !kind.is_file() && !std::os::unix::fs::FileTypeExt::is_block_device(&kind) {
        return Err(DiskError::NotAFile);
    }
    seek(file, SeekFrom::End(0)).map_err(|error| failed(error.into()))
}

/// Fills `buffer` from a file.
pub(super) fn read_exact(file: &File, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
    let failed = |source| DiskError::Read { offset, source };
    file.read_exact_at(buffer, offset).map_err(failed)
}

/// Whether a hole of the file begins at `offset`, and how long it or the data there is: at least one
/// byte and at most `length`.
pub(super) fn plain_run(file: &File, offset: u64, length: u64) -> Result<(bool, u64), DiskError> {
    let failed = |error: Errno| DiskError::Read {
        offset,
        source: error.into(),
    };
    let end = offset.saturating_add(length);
    let until = |place: u64| place.min(end).saturating_sub(offset).max(1);
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) if data > offset => return Ok((true, until(data))),
        Ok(_) => {}
        // No data from here to the end.
        Err(Errno::NXIO) => return Ok((true, until(end))),
        // The file system, or the device, does not know holes.
        Err(Errno::INVAL) => return Ok((false, until(end))),
        Err(error) => return Err(failed(error)),
    }
    let hole = seek(file, SeekFrom::Hole(offset)).map_err(failed)?;
    Ok((false, until(hole)))
}

impl Layer for Raw {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn run_at(&self, offset: u64, length: u64) -> Result<Run, DiskError> {
        let length = length.min(self.size_bytes.saturating_sub(offset));
        let (is_hole, length) = plain_run(&self.file, offset, length)?;
        let plain = Place::Plain { file: 0, offset };
        Ok(Run {
            offset,
            length,
            place: if is_hole { Place::Zero } else { plain },
        })
    }

    fn read(&self, run: &Run, buffer: &mut [u8]) -> Result<(), DiskError> {
        read_exact(&self.file, buffer, run.offset)
    }

    fn as_file(&self) -> Option<&File> {
        Some(&self.file)
    }
}
