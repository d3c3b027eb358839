//! Where the content of files stays while a tree points at it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::tree::BlobId;

/// Content is copied in pieces of this size.
const COPY_BYTES: usize = 256 << 10;

/// Takes the stored bytes of files and says where they are kept.
pub trait ContentSink {
    /// Keeps `length` bytes, which `bytes` gives and which are `archive_offset` bytes from the
    /// start of the uncompressed archive; gives the blob and the offset in it.
    ///
    /// A sink that needs no copy may leave `bytes` unread.
    ///
    /// # Errors
    /// `bytes` ends early or cannot be read, or the bytes cannot be written.
    fn keep(
        &mut self,
        bytes: &mut dyn Read,
        archive_offset: u64,
        length: u64,
    ) -> io::Result<(BlobId, u64)>;
}

/// Content stays in the archive, an uncompressed file.
#[derive(Clone, Copy, Debug)]
pub struct InPlace {
    /// The archive as a blob of the tree.
    pub blob: BlobId,
}

impl ContentSink for InPlace {
    fn keep(&mut self, _: &mut dyn Read, offset: u64, _: u64) -> io::Result<(BlobId, u64)> {
        Ok((self.blob, offset))
    }
}

/// A file that content is appended to, from any number of threads.
///
/// Each append claims its range first and fills it afterwards, so the file has the bytes of one
/// append together, and appends in whatever order their threads ran.
#[derive(Debug)]
pub struct Spool {
    file: Arc<File>,
    end: AtomicU64,
}

impl Spool {
    /// A spool that begins where the file ends now.
    ///
    /// # Errors
    /// The file's length cannot be read.
    pub fn new(file: Arc<File>) -> io::Result<Self> {
        let end = AtomicU64::new(file.metadata()?.len());
        Ok(Self { file, end })
    }

    /// Appends exactly `length` bytes and gives their offset in the file.
    ///
    /// # Errors
    /// `bytes` ends early or cannot be read, or the file cannot be written; the claimed range
    /// then stays unused.
    pub fn append(&self, bytes: &mut dyn Read, length: u64) -> io::Result<u64> {
        let start = self
            .end
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |end| {
                end.checked_add(length)
            })
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let most = usize::try_from(length).map_or(COPY_BYTES, |length| length.min(COPY_BYTES));
        let mut buffer = vec![0; most];
        let mut done = 0_u64;
        while done < length {
            let left = usize::try_from(length.saturating_sub(done)).unwrap_or(most);
            let piece = &mut buffer[..left.min(most)];
            bytes.read_exact(piece)?;
            self.file.write_all_at(piece, start.saturating_add(done))?;
            done = done.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        }
        Ok(start)
    }
}

/// Content is copied to the end of a [`Spool`].
#[derive(Clone, Copy, Debug)]
pub struct SpoolSink<'a> {
    /// The spool.
    pub spool: &'a Spool,
    /// The spool's file as a blob of the tree.
    pub blob: BlobId,
}

impl ContentSink for SpoolSink<'_> {
    fn keep(&mut self, bytes: &mut dyn Read, _: u64, length: u64) -> io::Result<(BlobId, u64)> {
        Ok((self.blob, self.spool.append(bytes, length)?))
    }
}

/// Reads a shared file from its start without moving the file's own position.
#[derive(Debug)]
pub(super) struct FileReader {
    file: Arc<File>,
    offset: u64,
}

impl FileReader {
    pub(super) fn new(file: Arc<File>) -> Self {
        Self { file, offset: 0 }
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        let moved = u64::try_from(count).unwrap_or(u64::MAX);
        self.offset = self.offset.saturating_add(moved);
        Ok(count)
    }
}
