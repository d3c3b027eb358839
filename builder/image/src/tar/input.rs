//! The bytes of an archive: a stream that can only be read on, or a blob that can be skipped in.

use std::io::{self, Read};
use std::sync::Arc;

use crate::tree::Blob;

/// A blob is read through a window of this size, so that the headers and contents of small files
/// come many at a time.
const WINDOW_BYTES: usize = 16 << 10;
/// A stream is skipped in pieces of this size.
const SKIP_BYTES: usize = 64 << 10;

/// Sequential input that knows its offset.
pub(super) struct Input<'a> {
    source: Source<'a>,
    offset: u64,
}

enum Source<'a> {
    Stream(Box<dyn Read + 'a>),
    Blob {
        blob: Arc<dyn Blob>,
        window: Vec<u8>,
        window_offset: u64,
    },
}

impl<'a> Input<'a> {
    pub(super) fn stream(reader: impl Read + 'a) -> Self {
        Self {
            source: Source::Stream(Box::new(reader)),
            offset: 0,
        }
    }

    pub(super) fn blob(blob: Arc<dyn Blob>) -> Self {
        Self {
            source: Source::Blob {
                blob,
                window: Vec::new(),
                window_offset: 0,
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

    /// Moves on by `length` bytes, which must be there.
    pub(super) fn skip(&mut self, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        if let Source::Blob { blob, .. } = &self.source {
            let end = self.offset.checked_add(length);
            let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
            let covered = self.in_window(end.saturating_sub(1));
            if !covered && blob.read_at(&mut [0], end.saturating_sub(1))? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.offset = end;
            return Ok(());
        }
        let mut scratch = vec![0; SKIP_BYTES];
        let mut left = length;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(SKIP_BYTES).min(SKIP_BYTES);
            self.read_exact(&mut scratch[..piece])?;
            left = left.saturating_sub(as_u64(piece));
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
            Source::Stream(_) => false,
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
            Source::Stream(reader) => reader.read(buffer)?,
            Source::Blob { blob, .. } if !inside && buffer.len() >= WINDOW_BYTES => {
                blob.read_at(buffer, self.offset)?
            }
            Source::Blob {
                blob,
                window,
                window_offset,
            } => {
                if !inside {
                    window.resize(WINDOW_BYTES, 0);
                    let count = blob.read_at(window, self.offset);
                    window.truncate(*count.as_ref().unwrap_or(&0));
                    count?;
                    *window_offset = self.offset;
                }
                let start = usize::try_from(self.offset.saturating_sub(*window_offset));
                let available = start.ok().and_then(|start| window.get(start..));
                let available = available.unwrap_or_default();
                let count = available.len().min(buffer.len());
                buffer[..count].copy_from_slice(&available[..count]);
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
