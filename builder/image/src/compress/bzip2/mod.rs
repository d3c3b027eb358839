//! bzip2: streams one after another, blocks in parallel.
//!
//! | module | what |
//! |---|---|
//! | `scan` | where blocks may start: their magic numbers, at any bit |
//! | `segment` | the input, cut at those places |
//! | `block` | unpacking one block by itself |
//! | `assemble` | putting the blocks in order, and checking what lies between them |
//!
//! Here is the decoder of one thread, for readers that have no threads to spend; it is also what
//! the other is compared with.
//!
//! What follows the last stream and is no stream, which `bzip2` warns of and drops, is refused.

mod assemble;
mod block;
mod scan;
mod segment;

use std::io::{self, BufRead, Read};

use ::bzip2::{Decompress, Status};

use super::Compression::Bzip2;
use super::as_u64;
use super::error::{corrupt, trailing, truncated};
use super::input::Input;

pub(super) use assemble::start;
pub use segment::BZIP2_BLOCK_BYTES_MAX;

/// Length of a stream's header: `BZh` and the level.
const HEADER_BYTES: usize = 4;

/// What stands where a stream may start.
enum Start {
    /// A stream of this level, 1 to 9: its blocks have up to so many times 100,000 bytes.
    Stream(u8),
    /// Something else.
    Foreign,
    /// What there is fits, and is too short.
    Short,
    /// Nothing.
    End,
}

/// Looks at the first bytes of what may be a stream.
fn stream_start(bytes: &[u8]) -> Start {
    match *bytes {
        [] => Start::End,
        [b'B', b'Z', b'h', level @ b'1'..=b'9', ..] => Start::Stream(level.saturating_sub(b'0')),
        [b'B'] | [b'B', b'Z'] | [b'B', b'Z', b'h'] => Start::Short,
        _ => Start::Foreign,
    }
}

/// The plain bytes of all streams, unpacked by whoever reads.
pub(super) struct Bzip2Reader<R> {
    input: Input<R>,
    decoder: Option<Decompress>,
    finished: bool,
}

impl<R: Read> Bzip2Reader<R> {
    pub(super) fn new(input: Input<R>) -> Self {
        Self {
            input,
            decoder: None,
            finished: false,
        }
    }

    fn next_stream(&mut self) -> io::Result<()> {
        let offset = self.input.offset();
        let start = self.input.peek(HEADER_BYTES)?;
        match stream_start(start) {
            Start::Stream(_) => self.decoder = Some(Decompress::new(false)),
            Start::End => self.finished = true,
            Start::Foreign => return Err(trailing(Bzip2, offset)),
            Start::Short => {
                let end = offset.saturating_add(as_u64(start.len()));
                return Err(truncated(Bzip2, end));
            }
        }
        Ok(())
    }

    fn step(&mut self, decoder: &mut Decompress, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        let available = self.input.fill_buf()?;
        let at_end = available.is_empty();
        let (total_in, total_out) = (decoder.total_in(), decoder.total_out());
        let status = decoder.decompress(available, buffer);
        let consumed = block::difference(decoder.total_in(), total_in);
        let produced = block::difference(decoder.total_out(), total_out);
        self.input.consume(consumed);
        let offset = self.input.offset();
        let ended = status.map_err(|error| corrupt(Bzip2, offset, error))? == Status::StreamEnd;
        if at_end && produced == 0 && !ended {
            return Err(truncated(Bzip2, offset));
        }
        Ok((produced, ended))
    }
}

impl<R: Read> Read for Bzip2Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.finished && !buffer.is_empty() {
            let Some(mut decoder) = self.decoder.take() else {
                self.next_stream()?;
                continue;
            };
            let (count, ended) = self.step(&mut decoder, buffer)?;
            if !ended {
                self.decoder = Some(decoder);
            }
            if count > 0 {
                return Ok(count);
            }
        }
        Ok(0)
    }
}
