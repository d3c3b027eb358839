//! One bzip2 block by itself.
//!
//! A block has no length: it ends where its last code ends, which only unpacking shows, and the
//! magic number of the next block or of the stream's end must stand there. The decoder of the
//! `bzip2` crate gets a stream header and then the bits from the block's magic number on. Just
//! before each place where a magic number was found it gets them byte by byte, so that the byte in
//! which the block ends is known; then the following magic number, which it refuses unless the
//! block ended exactly before it. No bit that is not in the input is given to it, so what comes
//! out is what a decoder that read the whole stream gives.

use std::io;

use ::bzip2::Decompress;

use super::super::Compression::Bzip2;
use super::super::as_u64;
use super::super::error::{corrupt, truncated};
use super::super::lane::{LaneWriter, Piece, Unwanted};
use super::scan::MAGIC_BITS;

/// How many bytes before a possible end are given one by one. The decoder takes up to eight bytes
/// at once where it has as many, and knows the block's end when it needs no more.
const SINGLE_BYTES: usize = 16;

/// The bits of a block, with what is known of them.
pub(super) struct BlockBits {
    /// From the byte in which the block starts; behind the last end are at least the bits of a
    /// magic number.
    pub(super) bytes: Vec<u8>,
    /// At which bit of the first byte the block starts.
    pub(super) start_bit: u32,
    /// Where magic numbers were found, in bits from the block's start, ascending.
    pub(super) ends: Vec<u64>,
    /// Whether the input ends with `bytes`.
    pub(super) at_input_end: bool,
    /// The block's offset in the input, in bytes.
    pub(super) offset: u64,
}

/// How a block came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is whole and right, and ends before the magic number this many bits from its start.
    Complete {
        /// Bits.
        length: u64,
        /// Its checksum.
        checksum: u32,
    },
    /// It does not end within the given bits; nothing was sent.
    Incomplete,
}

/// Unpacks a block of a stream of this level (1 to 9) into a lane.
pub(super) fn unpack(level: u8, block: &BlockBits, writer: LaneWriter<Outcome>) {
    let unpacking = Unpacking {
        decoder: Decompress::new(false),
        piece: writer.piece(),
        writer: &writer,
        data: block.shifted(),
        fed: 0,
        offset: block.offset,
    };
    match unpacking.run(level, block) {
        Ok(outcome) => writer.end(Ok(outcome)),
        Err(Stop::Failed(error)) => writer.end(Err(error)),
        Err(Stop::Unwanted) => {}
    }
}

impl BlockBits {
    /// The bits from the block's start on, moved to the start of a byte.
    fn shifted(&self) -> Vec<u8> {
        if self.start_bit == 0 {
            return self.bytes.clone();
        }
        let (left, right) = (self.start_bit, 8 - self.start_bit);
        let mut shifted = Vec::with_capacity(self.bytes.len());
        let mut rest = self.bytes.as_slice();
        while let Some(chunk) = rest.first_chunk::<8>()
            && let Some(next) = rest.get(8)
        {
            let bits = u64::from_be_bytes(*chunk) << left | u64::from(*next >> right);
            shifted.extend_from_slice(&bits.to_be_bytes());
            rest = &rest[8..];
        }
        shifted.extend(rest.windows(2).map(|two| two[0] << left | two[1] >> right));
        // The last byte has fewer bits. They count where a magic number ends in them; at the end of
        // the input they cannot complete anything.
        if let Some(last) = rest.last()
            && !self.at_input_end
        {
            shifted.push(last << left);
        }
        shifted
    }
}

/// Why a block is not unpacked further.
enum Stop {
    Unwanted,
    Failed(io::Error),
}

impl From<Unwanted> for Stop {
    fn from(_: Unwanted) -> Self {
        Self::Unwanted
    }
}

struct Unpacking<'a> {
    decoder: Decompress,
    piece: Piece,
    writer: &'a LaneWriter<Outcome>,
    data: Vec<u8>,
    /// How much of the data the decoder has.
    fed: usize,
    offset: u64,
}

impl Unpacking<'_> {
    fn run(mut self, level: u8, block: &BlockBits) -> Result<Outcome, Stop> {
        let header = [b'B', b'Z', b'h', b'0'.saturating_add(level)];
        let started = self.decoder.decompress(&header, &mut []);
        started.map_err(|error| self.corrupt(error))?;
        for end in &block.ends {
            let stop = usize::try_from(end.div_ceil(8)).unwrap_or(usize::MAX);
            if self.feed(stop.saturating_sub(SINGLE_BYTES))? {
                return Err(self.nothing_follows());
            }
            while self.fed < stop {
                if !self.feed(self.fed.saturating_add(1))? {
                    continue;
                }
                if self.fed < stop {
                    return Err(self.nothing_follows());
                }
                self.drain()?;
                return self.followed_by_magic(*end);
            }
        }
        if !block.at_input_end {
            return Ok(Outcome::Incomplete);
        }
        if self.feed(self.data.len())? {
            self.drain()?;
            // What follows is either no magic number or not all of it.
            let rest = self.data.get(self.fed..).unwrap_or_default();
            let followed = self.decoder.decompress(rest, &mut []);
            followed.map_err(|_| self.nothing_follows())?;
        }
        let end = self.offset.saturating_add(as_u64(block.bytes.len()));
        Err(Stop::Failed(truncated(Bzip2, end)))
    }

    /// Gives the decoder the data up to `stop`; true where it has the whole block before that.
    fn feed(&mut self, stop: usize) -> Result<bool, Stop> {
        let stop = stop.min(self.data.len());
        while self.fed < stop {
            let (consumed, produced) = self.step(stop)?;
            if produced > 0 {
                return Ok(true);
            }
            if consumed == 0 {
                return Err(self.corrupt("it cannot be decoded further"));
            }
        }
        Ok(false)
    }

    /// Sends the rest of a block that the decoder has; it compares the checksum at the end.
    fn drain(&mut self) -> Result<(), Stop> {
        loop {
            if self.piece.filled == self.piece.bytes.len() {
                let empty = self.writer.piece();
                self.writer
                    .send(std::mem::replace(&mut self.piece, empty))?;
            }
            let (_, produced) = self.step(self.fed)?;
            if produced == 0 {
                let last = Piece {
                    bytes: Vec::new(),
                    filled: 0,
                };
                self.writer.send(std::mem::replace(&mut self.piece, last))?;
                return Ok(());
            }
        }
    }

    /// Lets the decoder read the magic number that was found `end` bits from the start.
    fn followed_by_magic(mut self, end: u64) -> Result<Outcome, Stop> {
        let stop = usize::try_from(end.saturating_add(MAGIC_BITS).div_ceil(8));
        let stop = stop.unwrap_or(usize::MAX).min(self.data.len());
        let magic = self.data.get(self.fed..stop).unwrap_or_default();
        let read = self.decoder.decompress(magic, &mut []);
        read.map_err(|_| self.nothing_follows())?;
        let checksum = self.data.get(CHECKSUM_AT..).and_then(<[u8]>::first_chunk);
        Ok(Outcome::Complete {
            length: end,
            checksum: checksum.map_or(0, |bytes| u32::from_be_bytes(*bytes)),
        })
    }

    fn step(&mut self, stop: usize) -> Result<(usize, usize), Stop> {
        let input = self.data.get(self.fed..stop).unwrap_or_default();
        let output = &mut self.piece.bytes[self.piece.filled..];
        let (total_in, total_out) = (self.decoder.total_in(), self.decoder.total_out());
        let status = self.decoder.decompress(input, output);
        status.map_err(|error| self.corrupt(error))?;
        let consumed = difference(self.decoder.total_in(), total_in);
        let produced = difference(self.decoder.total_out(), total_out);
        self.fed = self.fed.saturating_add(consumed);
        self.piece.filled = self.piece.filled.saturating_add(produced);
        Ok((consumed, produced))
    }

    fn corrupt(&self, reason: impl ToString) -> Stop {
        Stop::Failed(corrupt(Bzip2, self.offset, reason))
    }

    fn nothing_follows(&self) -> Stop {
        self.corrupt("neither another block nor the end of the stream follows the block")
    }
}

/// Where a block has its checksum: behind the magic number.
const CHECKSUM_AT: usize = 6;

pub(super) fn difference(now: u64, before: u64) -> usize {
    usize::try_from(now.saturating_sub(before)).unwrap_or(usize::MAX)
}
