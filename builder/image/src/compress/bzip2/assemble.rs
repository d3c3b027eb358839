//! The blocks of bzip2 streams, unpacked by several threads and put in order.
//!
//! One thread cuts the input at the magic numbers and hands each block to the workers before
//! anybody knows whether it is one: the pattern may stand in a block's data, though by chance it
//! does so once in 2^48 bits. The reader goes from block to block as a single decoder would, since
//! each says where it ends; what starts elsewhere was no block and is dropped. An input that has
//! many such places was made so: then no more work is done ahead.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::super::Compression::Bzip2;
use super::super::as_u64;
use super::super::error::{CompressError, corrupt, trailing, truncated};
use super::super::lane::{LaneReader, Next, Piece, Pieces, Pool, Unwanted, lane};
use super::super::workers::{Workers, spawn};
use super::block::{self, BlockBits, Outcome};
use super::scan::{MAGIC_BITS, Magic};
use super::segment::{BZIP2_BLOCK_BYTES_MAX, Segment, SegmentEnd, Segments};
use super::{HEADER_BYTES, Start, stream_start};

/// After so many places that looked like a block and were none, blocks are unpacked one by one.
const FALSE_MAGICS_MAX: u32 = 16;
/// Bits of a stream's checksum, behind its end's magic number.
const CHECKSUM_BITS: u64 = 32;

/// A segment, and where it starts like a block the lane on which that comes.
struct Item {
    segment: Arc<Segment>,
    lane: Option<LaneReader<Outcome>>,
}

type Order = SyncSender<io::Result<Item>>;

/// Starts the threads that unpack `input`.
pub(in super::super) fn start(
    input: impl Read + Send + 'static,
    threads: NonZeroUsize,
    pool: &Pool,
) -> io::Result<Assembler> {
    // So many blocks are unpacked, or wait for the reader.
    let (order, items) = sync_channel(threads.get().saturating_mul(2));
    let ahead = Arc::new(AtomicBool::new(true));
    let mut cutter = Cutter {
        segments: Segments::new(input),
        order,
        workers: Workers::start(threads)?,
        ahead: Arc::clone(&ahead),
        pool: pool.clone(),
    };
    spawn(move || {
        let _ = cutter.run();
    })?;
    Ok(Assembler {
        items,
        waiting: VecDeque::new(),
        ahead,
        false_magics: 0,
        pool: pool.clone(),
        place: Place::Start,
        level: 0,
        checksum: 0,
    })
}

struct Cutter<R> {
    segments: Segments<R>,
    order: Order,
    workers: Workers,
    ahead: Arc<AtomicBool>,
    pool: Pool,
}

impl<R: Read> Cutter<R> {
    fn run(&mut self) -> Result<(), Unwanted> {
        loop {
            let segment = match self.segments.next() {
                Ok(Some(segment)) => Arc::new(segment),
                Ok(None) => return Ok(()),
                Err(error) => return self.order.send(Err(error)).map_err(|_| Unwanted),
            };
            let is_block = segment.kind == Some(Magic::Block);
            if !is_block || !self.ahead.load(Ordering::Relaxed) {
                let lane = None;
                let item = Item { segment, lane };
                self.order.send(Ok(item)).map_err(|_| Unwanted)?;
                continue;
            }
            let (writer, reader) = lane(&self.pool);
            let item = Item {
                segment: Arc::clone(&segment),
                lane: Some(reader),
            };
            self.order.send(Ok(item)).map_err(|_| Unwanted)?;
            self.workers.run(move || {
                let bits = bits_of(&segment, &VecDeque::new());
                block::unpack(segment.level, &bits, writer);
            });
        }
    }
}

/// The bits of a block, with those of the segments that follow.
fn bits_of(segment: &Segment, following: &VecDeque<Item>) -> BlockBits {
    let first_byte = segment.start / 8;
    let mut bytes = segment.bytes.clone();
    let mut ends = Vec::new();
    let mut last = segment.end;
    for item in following {
        let next = &item.segment;
        if let SegmentEnd::Magic(end) = last {
            ends.push(end.saturating_sub(segment.start));
        }
        // Each brings the bytes from the one in which it starts.
        let known = usize::try_from((next.start / 8).saturating_sub(first_byte));
        bytes.truncate(known.unwrap_or(usize::MAX));
        bytes.extend_from_slice(&next.bytes);
        last = next.end;
    }
    if let SegmentEnd::Magic(end) = last {
        ends.push(end.saturating_sub(segment.start));
    }
    BlockBits {
        bytes,
        start_bit: u32::try_from(segment.start % 8).unwrap_or(0),
        ends,
        at_input_end: last == SegmentEnd::Input,
        offset: first_byte,
    }
}

/// What comes next.
enum Place {
    /// The first stream's header.
    Start,
    /// A block or a stream's end, at this bit of the input.
    Magic(u64),
    /// The rest of a block.
    Block {
        segment: Arc<Segment>,
        lane: LaneReader<Outcome>,
        /// Whether all that may belong to it was given to the decoder.
        whole: bool,
    },
}

/// The plain bytes of all streams, in order.
pub(in super::super) struct Assembler {
    items: Receiver<io::Result<Item>>,
    /// Items that were looked at early.
    waiting: VecDeque<Item>,
    ahead: Arc<AtomicBool>,
    false_magics: u32,
    pool: Pool,
    place: Place,
    /// Of the current stream, 1 to 9.
    level: u8,
    /// Of the current stream's blocks so far.
    checksum: u32,
}

impl Pieces for Assembler {
    fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        loop {
            let proceed = match &mut self.place {
                Place::Block { lane, .. } => match lane.next()? {
                    Next::Piece(piece) => return Ok(Some(piece)),
                    Next::End(outcome) => self.end_block(outcome).map(|()| true),
                },
                Place::Start => self.first_stream().map(|()| true),
                Place::Magic(bit) => {
                    let bit = *bit;
                    self.at_magic(bit)
                }
            };
            if !proceed? {
                return Ok(None);
            }
        }
    }
}

impl Assembler {
    fn item(&mut self) -> io::Result<Item> {
        match self.waiting.pop_front() {
            Some(item) => Ok(item),
            None => self.receive(),
        }
    }

    fn receive(&self) -> io::Result<Item> {
        match self.items.recv() {
            Ok(item) => item,
            Err(_) => Err(CompressError::ThreadLost.into()),
        }
    }

    /// Looks ahead until so many bytes follow `segment`'s start, or the input ends.
    fn look_ahead(&mut self, segment: &Segment, bytes: usize) -> io::Result<()> {
        loop {
            let last = self.waiting.back().map_or(segment, |item| &item.segment);
            let end = (last.start / 8).saturating_add(as_u64(last.bytes.len()));
            let wanted = (segment.start / 8).saturating_add(as_u64(bytes));
            if !matches!(last.end, SegmentEnd::Magic(_)) || end >= wanted {
                return Ok(());
            }
            let item = self.receive()?;
            self.waiting.push_back(item);
        }
    }

    fn first_stream(&mut self) -> io::Result<()> {
        let item = self.item()?;
        self.begin_stream(&item.segment, 0).map(drop)
    }

    /// Reads the header `skip` bytes behind the segment's first; false where the input ends there.
    fn begin_stream(&mut self, segment: &Segment, skip: usize) -> io::Result<bool> {
        // The header and the magic number behind it.
        self.look_ahead(segment, skip.saturating_add(HEADER_BYTES + 7))?;
        let bits = bits_of(segment, &self.waiting);
        let offset = bits.offset.saturating_add(as_u64(skip));
        let rest = bits.bytes.get(skip..).unwrap_or_default();
        match stream_start(rest) {
            Start::End => return Ok(false),
            Start::Foreign => return Err(trailing(Bzip2, offset)),
            Start::Short => {
                let end = offset.saturating_add(as_u64(rest.len()));
                return Err(truncated(Bzip2, end));
            }
            Start::Stream(level) => self.level = level,
        }
        self.checksum = 0;
        let next = offset.saturating_add(as_u64(HEADER_BYTES));
        let next = next.saturating_mul(8);
        let follows = |segment: &Segment| segment.end == SegmentEnd::Magic(next);
        if !follows(segment) && !self.waiting.iter().any(|item| follows(&item.segment)) {
            let behind = &rest[HEADER_BYTES..];
            return Err(match bits.at_input_end && may_be_magic(behind) {
                true => truncated(Bzip2, offset.saturating_add(as_u64(rest.len()))),
                false => corrupt(Bzip2, next / 8, "neither a block nor the stream's end"),
            });
        }
        self.place = Place::Magic(next);
        Ok(true)
    }

    /// Goes on at a magic number; false at the end of the input.
    fn at_magic(&mut self, bit: u64) -> io::Result<bool> {
        let item = self.item()?;
        if item.segment.start < bit {
            self.false_magics = self.false_magics.saturating_add(1);
            if self.false_magics > FALSE_MAGICS_MAX {
                self.ahead.store(false, Ordering::Relaxed);
            }
            return Ok(true);
        }
        match item.segment.kind {
            _ if item.segment.start > bit => Err(CompressError::ThreadLost.into()),
            Some(Magic::Block) => self.begin_block(item).map(|()| true),
            _ => self.end_stream(&item.segment),
        }
    }

    fn begin_block(&mut self, item: Item) -> io::Result<()> {
        match item.lane {
            Some(lane) if item.segment.level == self.level => {
                self.place = Place::Block {
                    segment: item.segment,
                    lane,
                    whole: false,
                };
                Ok(())
            }
            _ => self.unpack_alone(item.segment),
        }
    }

    /// Unpacks a block with all that may belong to it, on a thread of its own: the workers may be
    /// waiting for the reader.
    fn unpack_alone(&mut self, segment: Arc<Segment>) -> io::Result<()> {
        self.look_ahead(&segment, BZIP2_BLOCK_BYTES_MAX)?;
        let bits = bits_of(&segment, &self.waiting);
        let (writer, lane) = lane(&self.pool);
        let level = self.level;
        spawn(move || block::unpack(level, &bits, writer))?;
        self.place = Place::Block {
            segment,
            lane,
            whole: true,
        };
        Ok(())
    }

    fn end_block(&mut self, outcome: Outcome) -> io::Result<()> {
        let Place::Block { segment, whole, .. } = &self.place else {
            return Ok(());
        };
        let segment = Arc::clone(segment);
        match outcome {
            Outcome::Complete { length, checksum } => {
                self.checksum = self.checksum.rotate_left(1) ^ checksum;
                self.place = Place::Magic(segment.start.saturating_add(length));
                Ok(())
            }
            Outcome::Incomplete if *whole => Err(CompressError::BlockTooLong {
                offset: segment.start / 8,
                limit: as_u64(BZIP2_BLOCK_BYTES_MAX),
            }
            .into()),
            Outcome::Incomplete => self.unpack_alone(segment),
        }
    }

    /// Compares the stream's checksum and goes on to the next; false at the end of the input.
    fn end_stream(&mut self, segment: &Segment) -> io::Result<bool> {
        let start_bit = segment.start % 8;
        let end_bit = start_bit.saturating_add(MAGIC_BITS + CHECKSUM_BITS);
        let end = usize::try_from(end_bit.div_ceil(8)).unwrap_or(usize::MAX);
        self.look_ahead(segment, end)?;
        let bits = bits_of(segment, &self.waiting);
        let length = as_u64(bits.bytes.len());
        let stored = bits.bytes.get(6..end).map(|bytes| {
            let value = bytes
                .iter()
                .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
            // The checksum's bits, and those that fill the last byte.
            let right = as_u64(end).saturating_mul(8).saturating_sub(end_bit);
            u32::try_from((value >> right) & u64::from(u32::MAX)).unwrap_or(0)
        });
        match stored {
            None => Err(truncated(Bzip2, bits.offset.saturating_add(length))),
            Some(stored) if stored != self.checksum => Err(corrupt(
                Bzip2,
                bits.offset,
                "the stream's checksum does not fit its blocks",
            )),
            Some(_) => self.begin_stream(segment, end),
        }
    }
}

/// Whether a magic number may start so, cut short.
fn may_be_magic(bytes: &[u8]) -> bool {
    let magic = |value: u64| {
        let all = (value << 16).to_be_bytes();
        bytes.len() < 6 && all.starts_with(bytes)
    };
    magic(super::scan::BLOCK_MAGIC) || magic(super::scan::END_MAGIC)
}
