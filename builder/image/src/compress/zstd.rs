//! zstd (RFC 8878), frame by frame.
//!
//! A frame's length is the sum of what its block headers say, so frames are cut without unpacking
//! them and unpacked in parallel (`pzstd`, or frames put together). A frame that is long, needs a
//! large window or is cut short ends that: it and what follows are read by one thread, as is the
//! one frame that `zstd` itself writes.

use std::io::{self, Cursor, Read};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use ::zstd::stream::read::Decoder;

use super::Compression::Zstd;
use super::error::{CompressError, corrupt, trailing, truncated};
use super::input::Input;
use super::lane::{LaneReader, LaneWriter, Next, Piece, Pieces, Pool, Unwanted, lane};
use super::members::{Member, Members};
use super::workers::{Workers, spawn};
use super::{ZSTD_WINDOW_LOG_MAX, as_u64};

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// All but the first byte of a skippable frame's magic; that one is 0x50 to 0x5f.
const MAGIC_SKIPPABLE_END: [u8; 3] = [0x2a, 0x4d, 0x18];
/// Longer frames are not unpacked in parallel.
const FRAME_BYTES_MAX: usize = 4 << 20;
/// Nor are frames whose window is larger.
const PARALLEL_WINDOW_MAX: u64 = 8 << 20;
/// What libzstd says of a window above the limit.
const WINDOW_REASON: &str = "too much memory";

/// Whether a frame may start so.
pub(super) fn is_magic(start: [u8; 4]) -> bool {
    start == MAGIC || (start[0] & 0xf0 == 0x50 && start[1..] == MAGIC_SKIPPABLE_END)
}

/// Reads one frame.
type Frame<R> = Decoder<'static, Input<R>>;
/// Reads all frames, one after the other.
pub(super) type FramesReader<R> = Members<R, Frame<R>>;

impl<R: Read> Member<R> for Frame<R> {
    fn begin(mut input: Input<R>) -> io::Result<Option<Self>> {
        if !next_frame(&mut input)? {
            return Ok(None);
        }
        let mut decoder = Decoder::with_buffer(input)?.single_frame();
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        Ok(Some(decoder))
    }

    fn into_input(self) -> Input<R> {
        self.finish()
    }

    fn explain(&self, error: io::Error) -> io::Error {
        let input = self.get_ref();
        let offset = input.offset();
        if input.failed() {
            return error;
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return truncated(Zstd, offset);
        }
        if error.to_string().contains(WINDOW_REASON) {
            return CompressError::Memory {
                format: Zstd.name(),
                offset,
                limit: 1 << ZSTD_WINDOW_LOG_MAX,
            }
            .into();
        }
        corrupt(Zstd, offset, error)
    }
}

/// Looks at the next frame's magic; false is the end of the input.
fn next_frame(input: &mut Input<impl Read>) -> io::Result<bool> {
    let offset = input.offset();
    let start = input.peek(MAGIC.len())?;
    match *start {
        [] => Ok(false),
        [a, b, c, d] if is_magic([a, b, c, d]) => Ok(true),
        [_, _, _, _] => Err(trailing(Zstd, offset)),
        _ => Err(truncated(Zstd, offset.saturating_add(as_u64(start.len())))),
    }
}

/// The lanes of the frames in their order; `None` is the end.
type Order = SyncSender<Option<LaneReader<()>>>;

/// Starts the threads that unpack `input`.
pub(super) fn start(
    input: impl Read + Send + 'static,
    threads: NonZeroUsize,
    pool: &Pool,
) -> io::Result<Frames> {
    let in_flight = threads.get().saturating_mul(2);
    let (order, frames) = sync_channel(in_flight);
    let workers = Workers::start(threads)?;
    let mut splitter = Splitter {
        input: Input::new(input, 0),
        order,
        workers,
        pool: pool.clone(),
    };
    spawn(move || {
        let _ = splitter.run();
    })?;
    Ok(Frames {
        frames,
        current: None,
    })
}

/// The plain bytes of all frames, in order.
pub(super) struct Frames {
    frames: Receiver<Option<LaneReader<()>>>,
    current: Option<LaneReader<()>>,
}

impl Pieces for Frames {
    fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if let Some(current) = &mut self.current {
                match current.next()? {
                    Next::Piece(piece) => return Ok(Some(piece)),
                    Next::End(()) => self.current = None,
                }
            }
            match self.frames.recv() {
                Ok(Some(lane)) => self.current = Some(lane),
                Ok(None) => return Ok(None),
                Err(_) => return Err(CompressError::ThreadLost.into()),
            }
        }
    }
}

struct Splitter<R> {
    input: Input<R>,
    order: Order,
    workers: Workers,
    pool: Pool,
}

impl<R: Read> Splitter<R> {
    fn run(&mut self) -> Result<(), Unwanted> {
        loop {
            let offset = self.input.offset();
            let mut frame = Vec::new();
            let whole = collect_frame(&mut self.input, &mut frame);
            if frame.is_empty() && whole.is_ok() {
                return self.order.send(None).map_err(|_| Unwanted);
            }
            let (writer, reader) = lane(&self.pool);
            self.order.send(Some(reader)).map_err(|_| Unwanted)?;
            match whole {
                Ok(true) => self
                    .workers
                    .run(move || unpack(writer, Cursor::new(frame), offset)),
                Ok(false) => {
                    unpack(writer, Cursor::new(frame).chain(&mut self.input), offset);
                    return self.order.send(None).map_err(|_| Unwanted);
                }
                Err(error) => {
                    writer.end(Err(error));
                    return Ok(());
                }
            }
        }
    }
}

/// Unpacks frames that start at `offset` of the input.
fn unpack(writer: LaneWriter<()>, frames: impl Read, offset: u64) {
    if let Ok(result) = writer.copy(&mut FramesReader::new(Input::new(frames, offset))) {
        writer.end(result);
    }
}

/// Takes one frame out of the input, unless it ends here. False where the frame cannot be taken
/// whole or is nothing for a thread of its own; what was taken is in `frame` all the same.
fn collect_frame(input: &mut Input<impl Read>, frame: &mut Vec<u8>) -> io::Result<bool> {
    let mut source = Collector { input, frame };
    let Some(magic) = source.take::<4>()? else {
        return Ok(source.frame.is_empty());
    };
    if magic != MAGIC {
        return match source.take()? {
            Some(length) if is_magic(magic) => source.skip(u32::from_le_bytes(length)),
            _ => Ok(false),
        };
    }
    let Some(has_checksum) = source.frame_header()? else {
        return Ok(false);
    };
    loop {
        let Some([low, middle, high]) = source.take()? else {
            return Ok(false);
        };
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let stored = match (header >> 1) & 3 {
            BLOCK_RAW | BLOCK_COMPRESSED => header >> 3,
            BLOCK_RLE => 1,
            _ => return Ok(false),
        };
        if !source.skip(stored)? {
            return Ok(false);
        }
        if header & BLOCK_LAST != 0 {
            return source.skip(if has_checksum { 4 } else { 0 });
        }
    }
}

const BLOCK_LAST: u32 = 1;
const BLOCK_RAW: u32 = 0;
const BLOCK_RLE: u32 = 1;
const BLOCK_COMPRESSED: u32 = 2;

/// Moves bytes from the input into a frame.
struct Collector<'a, R> {
    input: &'a mut Input<R>,
    frame: &'a mut Vec<u8>,
}

impl<R: Read> Collector<'_, R> {
    /// The next bytes; `None` where the input ends before.
    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let start = self.frame.len();
        let length = u32::try_from(N).unwrap_or(u32::MAX);
        if !self.skip(length)? {
            return Ok(None);
        }
        Ok(self.frame[start..].try_into().ok())
    }

    /// Takes `length` bytes; false where the input or [`FRAME_BYTES_MAX`] ends before.
    fn skip(&mut self, length: u32) -> io::Result<bool> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if FRAME_BYTES_MAX.saturating_sub(self.frame.len()) < length {
            return Ok(false);
        }
        let before = self.frame.len();
        (&mut *self.input)
            .take(as_u64(length))
            .read_to_end(self.frame)?;
        Ok(self.frame.len().saturating_sub(before) == length)
    }

    /// Whether a checksum ends the frame; `None` where its header is cut short or its window large.
    fn frame_header(&mut self) -> io::Result<Option<bool>> {
        let Some([descriptor]) = self.take()? else {
            return Ok(None);
        };
        let single_segment = descriptor & 0x20 != 0;
        if !single_segment {
            let Some([window]) = self.take()? else {
                return Ok(None);
            };
            let base = 1_u64 << (10 + u32::from(window >> 3));
            let size = base.saturating_add((base / 8).saturating_mul(u64::from(window & 7)));
            if size > PARALLEL_WINDOW_MAX {
                return Ok(None);
            }
        }
        let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
        if !self.skip(dictionary_bytes)? {
            return Ok(None);
        }
        let size_bytes = match (descriptor >> 6, single_segment) {
            (0, false) => 0,
            (0, true) => 1,
            (1, _) => 2,
            (2, _) => 4,
            _ => 8,
        };
        let start = self.frame.len();
        if !self.skip(size_bytes)? {
            return Ok(None);
        }
        // A single segment's window is its content.
        let content = self.frame[start..]
            .iter()
            .rev()
            .fold(0_u64, |size, byte| size << 8 | u64::from(*byte));
        if single_segment && content > PARALLEL_WINDOW_MAX {
            return Ok(None);
        }
        Ok(Some(descriptor & 0x04 != 0))
    }
}
