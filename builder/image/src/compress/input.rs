//! The compressed bytes: buffered, counted, and with errors of their own told from a decoder's.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::as_u64;

/// Input is read in pieces of this size.
const BUFFER_BYTES: usize = 128 << 10;

/// Counts the bytes that were read, for whoever holds the counter.
pub(super) struct Counted<R> {
    pub(super) inner: R,
    pub(super) count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.fetch_add(as_u64(count), Ordering::Relaxed);
        Ok(count)
    }
}

/// A buffer that knows its offset, can look ahead, and remembers an error of what it reads from.
pub(super) struct Input<R> {
    inner: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    offset: u64,
    failed: bool,
}

impl<R: Read> Input<R> {
    /// `offset` is that of the first byte.
    pub(super) fn new(inner: R, offset: u64) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER_BYTES].into(),
            start: 0,
            end: 0,
            offset,
            failed: false,
        }
    }

    /// Where the next byte stands.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether reading failed: then an error that a decoder gives is the input's.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// The next bytes, `count` of them unless the input ends; they are not consumed.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.end.saturating_sub(self.start) < count && self.more()? {}
        let available = &self.buffer[self.start..self.end];
        Ok(&available[..available.len().min(count)])
    }

    /// Reads once; says whether anything came.
    fn more(&mut self) -> io::Result<bool> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end = self.end.saturating_add(count);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
    }
}

impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.more()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        self.offset = self.offset.saturating_add(as_u64(count));
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
