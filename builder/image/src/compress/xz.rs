//! The .xz format, stream by stream.
//!
//! liblzma's threaded decoder takes the blocks of a stream in parallel where their headers give
//! sizes (`xz -T`, `--block-size`), and works as its ordinary decoder otherwise or where the
//! threads would need more than [`MEMORY_THREADED_BYTES`] each. Between and after streams are
//! zeroes, a multiple of four; anything else is refused, as `xz` does.

use std::io::{self, BufRead, Read};
use std::num::NonZeroUsize;

use liblzma::stream::{self, Action, MtStreamBuilder, Status, Stream};

use super::Compression::Xz;
use super::XZ_MEMORY_MAX_BYTES;
use super::error::{CompressError, corrupt, trailing, truncated};
use super::input::Input;

const MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
/// A stream header starts with the magic and two bytes of flags.
const START_BYTES: usize = 8;
/// None, CRC32, CRC64 and SHA-256; the other numbers are kept for later.
const CHECKS_KNOWN: [u8; 4] = [0, 1, 4, 10];
/// What each thread may use for blocks in flight: twice 24 MiB is what a block of `xz -6` needs.
/// Above it, and above [`XZ_MEMORY_MAX_BYTES`] in sum, liblzma uses fewer threads.
const MEMORY_THREADED_BYTES: u64 = 96 << 20;

/// The plain bytes of all streams.
pub(super) struct XzReader<R> {
    input: Input<R>,
    threads: NonZeroUsize,
    stream: Option<Stream>,
    finished: bool,
}

impl<R: Read> XzReader<R> {
    pub(super) fn new(input: Input<R>, threads: NonZeroUsize) -> Self {
        Self {
            input,
            threads,
            stream: None,
            finished: false,
        }
    }

    fn decoder(&self) -> io::Result<Stream> {
        let threads = u32::try_from(self.threads.get()).unwrap_or(u32::MAX);
        let stream = if threads == 1 {
            Stream::new_stream_decoder(XZ_MEMORY_MAX_BYTES, 0)
        } else {
            let threaded = MEMORY_THREADED_BYTES.saturating_mul(u64::from(threads));
            MtStreamBuilder::new()
                .threads(threads)
                .memlimit_threading(threaded.min(XZ_MEMORY_MAX_BYTES))
                .memlimit_stop(XZ_MEMORY_MAX_BYTES)
                .decoder()
        };
        Ok(stream?)
    }

    /// Skips padding and looks at the next stream's header; false is the end of the input.
    fn next_stream(&mut self) -> io::Result<bool> {
        let padding_start = self.input.offset();
        loop {
            let available = self.input.fill_buf()?;
            let zeroes = available.iter().take_while(|byte| **byte == 0).count();
            if zeroes == 0 {
                break;
            }
            self.input.consume(zeroes);
        }
        let offset = self.input.offset();
        if !offset.saturating_sub(padding_start).is_multiple_of(4) {
            let reason = "stream padding is not a multiple of four bytes";
            return Err(corrupt(Xz, offset, reason));
        }
        let start = self.input.peek(START_BYTES)?;
        if start.is_empty() {
            return Ok(false);
        }
        let known = start.len().min(MAGIC.len());
        if start[..known] != MAGIC[..known] {
            return Err(trailing(Xz, offset));
        }
        if let Some(check) = start.get(START_BYTES - 1)
            && !CHECKS_KNOWN.contains(check)
        {
            let reason = format!("its checksum is of the unknown type {check}");
            return Err(corrupt(Xz, offset, reason));
        }
        Ok(true)
    }

    /// Decodes once; gives the bytes produced and whether the stream ended.
    fn step(&mut self, stream: &mut Stream, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        let available = self.input.fill_buf()?;
        let at_end = available.is_empty();
        let action = if at_end { Action::Finish } else { Action::Run };
        let (total_in, total_out) = (stream.total_in(), stream.total_out());
        let status = stream.process(available, buffer, action);
        let consumed = difference(stream.total_in(), total_in);
        let produced = difference(stream.total_out(), total_out);
        self.input.consume(consumed);
        let status = status.map_err(|error| self.explain(error))?;
        // A decoder that waits for its threads may come back without progress, but not twice.
        if status == Status::MemNeeded && consumed == 0 && produced == 0 {
            let offset = self.input.offset();
            return Err(match at_end {
                true => truncated(Xz, offset),
                false => corrupt(Xz, offset, "it cannot be decoded further"),
            });
        }
        let ended = status == Status::StreamEnd;
        Ok((produced, ended))
    }

    fn explain(&self, error: stream::Error) -> io::Error {
        let offset = self.input.offset();
        match error {
            stream::Error::MemLimit => CompressError::Memory {
                format: Xz.name(),
                offset,
                limit: XZ_MEMORY_MAX_BYTES,
            }
            .into(),
            stream::Error::Mem => io::ErrorKind::OutOfMemory.into(),
            stream::Error::Options => corrupt(Xz, offset, "it uses an unknown filter or option"),
            error => corrupt(Xz, offset, error),
        }
    }
}

fn difference(now: u64, before: u64) -> usize {
    usize::try_from(now.saturating_sub(before)).unwrap_or(usize::MAX)
}

impl<R: Read> Read for XzReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.finished && !buffer.is_empty() {
            let Some(mut stream) = self.stream.take() else {
                if self.next_stream()? {
                    self.stream = Some(self.decoder()?);
                } else {
                    self.finished = true;
                }
                continue;
            };
            let (count, ended) = self.step(&mut stream, buffer)?;
            if !ended {
                self.stream = Some(stream);
            }
            if count > 0 {
                return Ok(count);
            }
        }
        Ok(0)
    }
}
