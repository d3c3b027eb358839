//! The bytes of an archive: a stream that can only be read on, or a blob that can be skipped in.

use std::fmt;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use crate::tree::Blob;

use super::format::BLOCK_BYTES;

/// A blob is read through a window of this size, so that the headers and contents of small files
/// come many at a time.
const WINDOW_BYTES: usize = 64 << 10;
/// A stream is read in pieces of this size, or larger ones where a reader of content wants them.
const STREAM_BYTES: usize = 128 << 10;
/// A stream is skipped in pieces of this size.
const SKIP_BYTES: usize = 64 << 10;

/// The archive ended where more must be.
#[derive(Debug)]
struct End;

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the archive ends within an entry")
    }
}

impl std::error::Error for End {}

/// An error that says that the archive ended; a reader's own errors of that kind are others.
pub(super) fn end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, End)
}

/// Whether an error is [`end`]'s.
pub(super) fn is_end(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<End>())
}

/// Sequential input that knows its offset.
pub(super) struct Input<'a> {
    source: Source<'a>,
    offset: u64,
}

enum Source<'a> {
    Stream {
        reader: BufReader<Box<dyn Read + 'a>>,
        /// What was looked at and comes again.
        again: Vec<u8>,
    },
    Blob {
        blob: Arc<dyn Blob>,
        window: Vec<u8>,
        window_offset: u64,
        /// The byte before the offset was skipped, and nobody knows yet whether it is there.
        is_unsure: bool,
    },
}

impl<'a> Input<'a> {
    pub(super) fn stream(reader: impl Read + 'a) -> Self {
        Self {
            source: Source::Stream {
                reader: BufReader::with_capacity(STREAM_BYTES, Box::new(reader)),
                again: Vec::new(),
            },
            offset: 0,
        }
    }

    pub(super) fn blob(blob: Arc<dyn Blob>) -> Self {
        Self {
            source: Source::Blob {
                blob,
                window: Vec::new(),
                window_offset: 0,
                is_unsure: false,
            },
            offset: 0,
        }
    }

    /// Bytes read or skipped so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Fills `buffer` unless the input ends; gives how many bytes came.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0_usize;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// As [`Input::fill`], and the bytes come again.
    pub(super) fn peek(&mut self, block: &mut [u8; BLOCK_BYTES]) -> io::Result<usize> {
        let start = self.offset;
        let count = self.fill(block)?;
        self.offset = start;
        if let Source::Stream { again, .. } = &mut self.source {
            again.splice(..0, block[..count].iter().copied());
        }
        Ok(count)
    }

    /// Moves on by `length` bytes, which must be there; a blob says so at the next reading.
    pub(super) fn skip(&mut self, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let target = self.offset.checked_add(length).ok_or_else(end)?;
        let is_covered = self.in_window(target.saturating_sub(1));
        if let Source::Blob { is_unsure, .. } = &mut self.source {
            *is_unsure = !is_covered;
            self.offset = target;
            return Ok(());
        }
        let most = usize::try_from(length).unwrap_or(SKIP_BYTES);
        let mut scratch = vec![0; most.min(SKIP_BYTES)];
        while self.offset < target {
            let left = usize::try_from(target.saturating_sub(self.offset)).unwrap_or(SKIP_BYTES);
            let piece = left.min(scratch.len());
            if self.fill(&mut scratch[..piece])? < piece {
                return Err(end());
            }
        }
        Ok(())
    }

    /// Reads a stream to its end, so that a decompressor checks its trailer; a blob has none.
    /// False where more than `limit` bytes come.
    pub(super) fn drain(&mut self, limit: u64) -> io::Result<bool> {
        if matches!(self.source, Source::Blob { .. }) {
            return Ok(true);
        }
        let mut scratch = vec![0; SKIP_BYTES];
        let mut drained = 0_u64;
        loop {
            let count = self.fill(&mut scratch)?;
            if count == 0 {
                return Ok(true);
            }
            drained = drained.saturating_add(as_u64(count));
            if drained > limit {
                return Ok(false);
            }
        }
    }

    fn in_window(&self, offset: u64) -> bool {
        match &self.source {
            Source::Stream { .. } => false,
            Source::Blob {
                window,
                window_offset,
                ..
            } => offset
                .checked_sub(*window_offset)
                .is_some_and(|distance| distance < as_u64(window.len())),
        }
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let inside = self.in_window(self.offset);
        let count = match &mut self.source {
            Source::Stream { reader, again } if again.is_empty() => reader.read(buffer)?,
            Source::Stream { again, .. } => {
                let count = again.len().min(buffer.len());
                buffer[..count].copy_from_slice(&again[..count]);
                again.drain(..count);
                count
            }
            Source::Blob {
                blob,
                window,
                window_offset,
                is_unsure,
            } => {
                let is_large = buffer.len() >= WINDOW_BYTES;
                if !inside && !is_large {
                    window.resize(WINDOW_BYTES, 0);
                    let count = blob.read_at(window, self.offset);
                    window.truncate(*count.as_ref().unwrap_or(&0));
                    count?;
                    *window_offset = self.offset;
                }
                let count = if inside || !is_large {
                    let start = usize::try_from(self.offset.saturating_sub(*window_offset));
                    let available = start.ok().and_then(|start| window.get(start..));
                    let available = available.unwrap_or_default();
                    let count = available.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&available[..count]);
                    count
                } else {
                    blob.read_at(buffer, self.offset)?
                };
                if count == 0
                    && *is_unsure
                    && blob.read_at(&mut [0], self.offset.saturating_sub(1))? == 0
                {
                    return Err(end());
                }
                *is_unsure = false;
                count
            }
        };
        self.offset = self.offset.saturating_add(as_u64(count));
        Ok(count)
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
