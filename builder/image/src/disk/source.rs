//! What can be copied: bytes with holes.

use super::DiskError;
use crate::tree::Blob;

/// What a part of a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes, which may be zeroes.
    Data,
    /// Zeroes that take no room.
    Hole,
}

/// A part of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes, at least 1.
    pub length: u64,
    /// What it is.
    pub kind: ExtentKind,
}

impl Extent {
    /// The first byte behind it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// Bytes of a known length that know where they are holes: a disk, a part of one, a disk around a
/// file system.
///
/// As a [`Blob`] it reads up to its end, and gives a [`DiskError`] inside the [`std::io::Error`].
pub trait Source: Blob {
    /// Its length in bytes.
    fn size_bytes(&self) -> u64;

    /// The extent that begins at `offset`, which is less than the size. It ends at the end of the
    /// source at the latest, and the next one may be of the same kind.
    ///
    /// # Errors
    /// The source is damaged or cannot be read.
    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError>;
}

/// The extents of a source in order, without gap, neighbours of a kind put together; looked for as
/// they are asked for. After an error nothing follows.
#[derive(Clone, Debug)]
pub struct Extents<'s> {
    source: &'s dyn Source,
    offset: u64,
    next: Option<Extent>,
}

impl<'s> Extents<'s> {
    /// Begins with the first byte.
    #[must_use]
    pub fn new(source: &'s dyn Source) -> Self {
        Self {
            source,
            offset: 0,
            next: None,
        }
    }

    fn advance(&mut self) -> Result<Option<Extent>, DiskError> {
        let mut found = self.next.take();
        while self.offset < self.source.size_bytes() {
            let extent = self.source.extent_at(self.offset)?;
            self.offset = extent.end();
            match &mut found {
                None => found = Some(extent),
                Some(before) if before.kind == extent.kind => before.length += extent.length,
                Some(_) => {
                    self.next = Some(extent);
                    break;
                }
            }
        }
        Ok(found)
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent, DiskError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.advance();
        if found.is_err() {
            self.offset = u64::MAX;
            self.next = None;
        }
        found.transpose()
    }
}
