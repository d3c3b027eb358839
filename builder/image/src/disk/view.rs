//! A part of a disk as a source of its own.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{DiskError, Extent, Extents, Source};
use crate::tree::Blob;

/// A part of a disk: a partition, say.
#[derive(Clone, Debug)]
pub struct View {
    disk: Arc<dyn Source>,
    offset: u64,
    length: u64,
}

impl View {
    /// `length` bytes from byte `offset` of the disk on.
    ///
    /// # Errors
    /// [`DiskError::Outside`].
    pub fn new(disk: Arc<dyn Source>, offset: u64, length: u64) -> Result<Self, DiskError> {
        let size_bytes = disk.size_bytes();
        if offset
            .checked_add(length)
            .is_none_or(|end| end > size_bytes)
        {
            return Err(DiskError::Outside {
                offset,
                length,
                size_bytes,
            });
        }
        Ok(Self {
            disk,
            offset,
            length,
        })
    }

    /// Its extents, whose offsets count from its own first byte.
    #[must_use]
    pub fn extents(&self) -> Extents<'_> {
        Extents::new(self)
    }
}

impl Source for View {
    fn size_bytes(&self) -> u64 {
        self.length
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        let found = self.disk.extent_at(self.offset.saturating_add(offset))?;
        Ok(Extent {
            offset,
            length: found.length.min(self.length.saturating_sub(offset)),
            kind: found.kind,
        })
    }
}

impl Blob for View {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.length.saturating_sub(offset);
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if length == 0 {
            return Ok(0);
        }
        let offset = self.offset.saturating_add(offset);
        self.disk.read_at(&mut buffer[..length], offset)
    }

    fn as_file(&self) -> Option<(&File, u64)> {
        let (file, offset) = self.disk.as_file()?;
        Some((file, offset.checked_add(self.offset)?))
    }
}
