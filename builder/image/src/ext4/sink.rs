//! A buffer in front of the image that turns neighbouring pieces into few large writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Size of the buffer in bytes: large enough to make system calls rare, small enough to stay in
/// the processor's cache.
const BUFFER_SIZE: usize = 1 << 20;

/// Collects pieces that lie one after the other in the image. Gaps between pieces are not
/// written, unless they are short.
pub(crate) struct Sink<'f> {
    file: &'f File,
    buffer: Vec<u8>,
    start: u64,
    used: usize,
    /// Gaps up to this are filled with zeroes.
    gap_max: u64,
}

impl<'f> Sink<'f> {
    /// A sink that fills gaps of up to `gap_max` bytes: for content less than a block, as the gap
    /// then belongs to blocks of the same files; for everything else 0.
    pub(crate) fn new(file: &'f File, gap_max: u64) -> Self {
        Self {
            file,
            buffer: vec![0; BUFFER_SIZE],
            start: 0,
            used: 0,
            gap_max,
        }
    }

    /// The most that one piece can have.
    pub(crate) const PIECE_MAX: usize = BUFFER_SIZE;

    /// Room for a piece at `offset` of the image; holds arbitrary bytes, so fill it whole.
    ///
    /// # Errors
    /// What was collected before could not be written.
    pub(crate) fn piece(&mut self, offset: u64, length: usize) -> io::Result<&mut [u8]> {
        let end = self.start + u64::try_from(self.used).unwrap_or(u64::MAX);
        let gap = offset
            .checked_sub(end)
            .filter(|gap| self.used > 0 && *gap <= self.gap_max)
            .and_then(|gap| usize::try_from(gap).ok())
            .filter(|gap| self.used + gap + length <= BUFFER_SIZE);
        match gap {
            Some(gap) => {
                self.buffer[self.used..self.used + gap].fill(0);
                self.used += gap;
            }
            None => {
                self.flush()?;
                self.start = offset;
            }
        }
        let at = self.used;
        self.used += length;
        self.buffer
            .get_mut(at..at + length)
            .ok_or_else(|| io::Error::other("a piece is larger than the buffer"))
    }

    /// Like [`Sink::piece`], filled with zeroes.
    ///
    /// # Errors
    /// As [`Sink::piece`].
    pub(crate) fn zeroed(&mut self, offset: u64, length: usize) -> io::Result<&mut [u8]> {
        let piece = self.piece(offset, length)?;
        piece.fill(0);
        Ok(piece)
    }

    /// Writes what was collected.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let used = std::mem::take(&mut self.used);
        if used == 0 {
            return Ok(());
        }
        self.file.write_all_at(&self.buffer[..used], self.start)
    }
}
