//! The input of bzip2, cut where magic numbers stand.

use std::io::{self, Read};

use super::super::as_u64;
use super::scan::{Magic, Scanner};
use super::{Start, stream_start};

/// The longest block that is unpacked in parallel, in bytes. 900,000 codes of 20 bits and the
/// longest sensible tables stay below 2.4 MiB.
pub const BZIP2_BLOCK_BYTES_MAX: usize = 4 << 20;
/// Input is read in pieces of this size.
const READ_BYTES: usize = 256 << 10;

/// What lies between two magic numbers, with the first and behind it the second.
pub(super) struct Segment {
    /// What it starts with; `None` for the start of the input.
    pub(super) kind: Option<Magic>,
    /// Where it starts, in bits of the input.
    pub(super) start: u64,
    /// Its bits, from the byte in which it starts.
    pub(super) bytes: Vec<u8>,
    /// Where it ends.
    pub(super) end: SegmentEnd,
    /// The level of the stream that it seems to belong to.
    pub(super) level: u8,
}

/// Where a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SegmentEnd {
    /// Before a magic number at this bit of the input.
    Magic(u64),
    /// With the input.
    Input,
    /// Nowhere within [`BZIP2_BLOCK_BYTES_MAX`]; nothing is read behind it.
    TooFar,
}

/// Cuts the input.
pub(super) struct Segments<R> {
    input: R,
    scanner: Scanner,
    /// Bytes of the input; those before `position` are done with.
    window: Vec<u8>,
    /// Where in the window the byte is in which the current segment starts.
    position: usize,
    /// Where that byte is in the input.
    offset: u64,
    /// Whether the input has ended.
    at_end: bool,
    kind: Option<Magic>,
    /// At which bit of that byte it starts.
    start: usize,
    level: u8,
    finished: bool,
}

impl<R: Read> Segments<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            scanner: Scanner::new(),
            window: Vec::new(),
            position: 0,
            offset: 0,
            at_end: false,
            kind: None,
            start: 0,
            level: 0,
            finished: false,
        }
    }

    /// The next segment; `None` behind the last.
    pub(super) fn next(&mut self) -> io::Result<Option<Segment>> {
        if self.finished {
            return Ok(None);
        }
        let mut from = self.start.saturating_add(usize::from(self.kind.is_some()));
        let found = loop {
            let bytes = self.bytes();
            let found = self.scanner.find(bytes, from);
            if found.is_some() || self.at_end || bytes.len() > BZIP2_BLOCK_BYTES_MAX {
                break found;
            }
            // A magic number may have begun in the last bytes.
            from = from.max(bytes.len().saturating_sub(6).saturating_mul(8));
            self.read()?;
        };
        self.note_level();
        let segment = self.cut(found);
        match found {
            Some((bit, kind)) => {
                self.position = self.position.saturating_add(bit / 8);
                self.offset = self.offset.saturating_add(as_u64(bit / 8));
                (self.start, self.kind) = (bit % 8, Some(kind));
            }
            None => self.finished = true,
        }
        Ok(Some(segment))
    }

    /// What was read, from the byte in which the current segment starts.
    fn bytes(&self) -> &[u8] {
        &self.window[self.position..]
    }

    fn cut(&self, found: Option<(usize, Magic)>) -> Segment {
        let base = self.offset.saturating_mul(8);
        let bytes = self.bytes();
        let (length, end) = match found {
            Some((bit, _)) => (
                bit.saturating_add(48).div_ceil(8),
                SegmentEnd::Magic(base.saturating_add(as_u64(bit))),
            ),
            None if self.at_end => (bytes.len(), SegmentEnd::Input),
            None => (bytes.len(), SegmentEnd::TooFar),
        };
        Segment {
            kind: self.kind,
            start: base.saturating_add(as_u64(self.start)),
            bytes: bytes[..length.min(bytes.len())].to_vec(),
            end,
            level: self.level,
        }
    }

    /// A guess that the order of blocks confirms or not: the level of the last stream that began.
    fn note_level(&mut self) {
        let header = match self.kind {
            None => Some(self.bytes()),
            Some(Magic::Block) => return,
            Some(Magic::End) => {
                let end = self.start.saturating_add(48 + 32).div_ceil(8);
                self.bytes().get(end..)
            }
        };
        if let Start::Stream(level) = stream_start(header.unwrap_or_default()) {
            self.level = level;
        }
    }

    fn read(&mut self) -> io::Result<()> {
        self.window.drain(..self.position);
        self.position = 0;
        let before = self.window.len();
        (&mut self.input)
            .take(as_u64(READ_BYTES))
            .read_to_end(&mut self.window)?;
        self.at_end = self.window.len() == before;
        Ok(())
    }
}
