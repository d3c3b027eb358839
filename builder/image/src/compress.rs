//! Decompression by content.
//!
//! [`decompress`] looks at the first bytes, never at a name, and gives the plain bytes as a
//! stream. Formats that allow several members or frames in a row (gzip, bzip2, xz, zstd) are read
//! to the last one. [`pipelined`] runs any reader on a thread of its own with a bounded queue, so
//! that decompressing and consuming overlap.
//!
//! A small input that unpacks to enormous output is stopped by [`Limits`]; memory is bounded by
//! [`XZ_MEMORY_MAX_BYTES`] and [`ZSTD_WINDOW_LOG_MAX`], whatever a header asks for. Errors travel as
//! [`io::Error`]s, those of this module with a [`CompressError`] inside.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use liblzma::stream::{Action, MtStreamBuilder, Status, Stream};

/// What an xz decoder may allocate; `xz -9` needs 65 MiB.
pub const XZ_MEMORY_MAX_BYTES: u64 = 512 << 20;
/// Above this the xz decoder uses fewer threads.
const XZ_MEMORY_THREADED_BYTES: u64 = 128 << 20;
/// How many threads the xz decoder takes at most (multi-block streams only).
const XZ_THREADS_MAX: u32 = 8;
/// Largest zstd window as a power of two: what `zstd` itself accepts without `--long` (128 MiB).
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Bytes read at the start to recognise the format.
const MAGIC_BYTES: usize = 6;
/// Input is read in pieces of this size.
const INPUT_BUFFER_BYTES: usize = 64 << 10;
/// Size of one piece in the queue of [`pipelined`].
const PIECE_BYTES: usize = 256 << 10;
/// How many pieces the queue of [`pipelined`] holds.
const PIECES_QUEUED_MAX: usize = 8;

/// A compression format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Plain bytes.
    None,
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// The .xz format.
    Xz,
    /// RFC 8878.
    Zstd,
}

/// Bounds on what comes out of a decompressor.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Total bytes of output.
    pub output_bytes: u64,
    /// Output bytes for each input byte, once [`Limits::RATIO_FREE_BYTES`] have come out.
    pub ratio: u64,
}

impl Limits {
    /// The ratio is looked at only beyond this much output (64 MiB): long runs of zeroes in a
    /// small archive are ordinary.
    pub const RATIO_FREE_BYTES: u64 = 64 << 20;
}

impl Default for Limits {
    /// 1 TiB of output and a ratio of 10,000. Real file systems stay below 100, gzip cannot exceed
    /// 1032; only long runs of one byte in the other formats come near.
    fn default() -> Self {
        Self {
            output_bytes: 1 << 40,
            ratio: 10_000,
        }
    }
}

/// Why a stream was refused; found inside the [`io::Error`]s of this module.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// A compression format that coop does not read.
    #[error("the input is {0}, which is not supported; gzip, bzip2, xz and zstd are")]
    Unsupported(&'static str),
    /// The input is damaged or cut short.
    #[error("the {format} data is damaged or cut short after {input_bytes} bytes: {reason}")]
    Corrupt {
        /// Name of the format.
        format: &'static str,
        /// How much of the input had been read, rounded up to a buffer.
        input_bytes: u64,
        /// What the decoder says.
        reason: String,
    },
    /// More output than [`Limits::output_bytes`].
    #[error("the input unpacks to more than {0} bytes, coop's limit")]
    TooLarge(u64),
    /// More output for each byte of input than [`Limits::ratio`].
    #[error("the input unpacks to more than {0} times its size, coop's limit")]
    Ratio(u64),
    /// The thread of [`pipelined`] ended without a result.
    #[error("the decompressing thread ended early; this is a defect of coop")]
    ThreadLost,
}

impl From<CompressError> for io::Error {
    fn from(error: CompressError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl Compression {
    /// Recognises a format by the first bytes of a stream (six are enough).
    ///
    /// # Errors
    /// [`CompressError::Unsupported`] for formats that are known and not read.
    pub fn detect(start: &[u8]) -> Result<Self, CompressError> {
        let unsupported = |name| Err(CompressError::Unsupported(name));
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Ok(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0x1f, 0x9d, ..] => unsupported("a compress (.Z) file"),
            [0x04, 0x22, 0x4d, 0x18, ..] => unsupported("an lz4 file"),
            [b'L', b'Z', b'I', b'P', ..] => unsupported("an lzip file"),
            [0x89, b'L', b'Z', b'O', ..] => unsupported("an lzop file"),
            [b'7', b'z', 0xbc, 0xaf, ..] => unsupported("a 7z archive"),
            [b'P', b'K', 3, 4, ..] => unsupported("a zip archive"),
            [0x5d, 0, 0, _, _, ..] => unsupported("an lzma-alone file"),
            _ => Ok(Self::None),
        }
    }

    /// The format's usual name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }
}

/// Recognises the format of `input` and gives the plain bytes; plain input passes through, and
/// the limits hold for it too.
///
/// # Errors
/// The first bytes cannot be read or are of an unsupported format. Later errors come from
/// reading.
pub fn decompress<'a>(
    mut input: impl Read + Send + 'a,
    limits: Limits,
) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut start = Vec::with_capacity(MAGIC_BYTES);
    let magic_length = u64::try_from(MAGIC_BYTES).unwrap_or(u64::MAX);
    (&mut input).take(magic_length).read_to_end(&mut start)?;
    let format = Compression::detect(&start)?;
    let rest = Counted {
        inner: Cursor::new(start).chain(input),
        count: 0,
    };
    let buffered = BufReader::with_capacity(INPUT_BUFFER_BYTES, rest);
    let decoder = match format {
        Compression::None => Decoder::Plain(buffered),
        Compression::Gzip => {
            Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(buffered)))
        }
        Compression::Bzip2 => Decoder::Bzip2(bzip2::bufread::MultiBzDecoder::new(buffered)),
        Compression::Xz => Decoder::Xz(Box::new(MultiXzDecoder::new(buffered)?)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Decoder::Zstd(decoder)
        }
    };
    let reader = Limited {
        decoder,
        format,
        limits,
        output_bytes: 0,
    };
    Ok((format, Box::new(reader)))
}

/// Counts the bytes that a decoder took.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count = self.count.saturating_add(as_u64(count));
        Ok(count)
    }
}

type Input<R> = BufReader<Counted<R>>;

enum Decoder<R: Read> {
    Plain(Input<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Input<R>>>),
    Bzip2(bzip2::bufread::MultiBzDecoder<Input<R>>),
    Xz(Box<MultiXzDecoder<Input<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
}

impl<R: Read> Decoder<R> {
    fn input_bytes(&self) -> u64 {
        let input = match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Bzip2(decoder) => decoder.get_ref(),
            Self::Xz(decoder) => &decoder.input,
            Self::Zstd(decoder) => decoder.get_ref(),
        };
        input.get_ref().count
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Bzip2(decoder) => decoder.read(buffer),
            Self::Xz(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// Reads xz streams one after another, with the padding that the format allows between them; the
/// blocks of one stream are decoded in parallel where its headers give their sizes.
struct MultiXzDecoder<R> {
    input: R,
    stream: Stream,
    finished: bool,
}

impl<R: BufRead> MultiXzDecoder<R> {
    fn new(input: R) -> io::Result<Self> {
        Ok(Self {
            input,
            stream: Self::open()?,
            finished: false,
        })
    }

    fn open() -> io::Result<Stream> {
        let threads = std::thread::available_parallelism()
            .ok()
            .and_then(|count| u32::try_from(count.get()).ok())
            .unwrap_or(1)
            .min(XZ_THREADS_MAX);
        let stream = MtStreamBuilder::new()
            .threads(threads)
            .memlimit_threading(XZ_MEMORY_THREADED_BYTES)
            .memlimit_stop(XZ_MEMORY_MAX_BYTES)
            .decoder()?;
        Ok(stream)
    }

    /// Decodes once; gives the bytes produced and whether the stream ended.
    fn step(&mut self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        let available = self.input.fill_buf()?;
        let at_end = available.is_empty();
        let action = if at_end { Action::Finish } else { Action::Run };
        let (total_in, total_out) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.process(available, buffer, action);
        let consumed = difference(self.stream.total_in(), total_in);
        let produced = difference(self.stream.total_out(), total_out);
        self.input.consume(consumed);
        let stream_ended = status? == Status::StreamEnd;
        if produced == 0 && consumed == 0 && !stream_ended {
            let kind = if at_end {
                io::ErrorKind::UnexpectedEof
            } else {
                io::ErrorKind::InvalidData
            };
            return Err(kind.into());
        }
        Ok((produced, stream_ended))
    }

    /// Skips padding (zeroes, a multiple of four) and says whether another stream follows.
    fn skip_padding(&mut self) -> io::Result<bool> {
        let mut padding = 0_usize;
        loop {
            let available = self.input.fill_buf()?;
            let zeroes = available.iter().take_while(|byte| **byte == 0).count();
            if zeroes == 0 {
                let more = !available.is_empty();
                if !padding.is_multiple_of(4) {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "stream padding is not a multiple of four bytes",
                    ));
                }
                return Ok(more);
            }
            padding = padding.wrapping_add(zeroes);
            self.input.consume(zeroes);
        }
    }
}

impl<R: BufRead> Read for MultiXzDecoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.finished && !buffer.is_empty() {
            let (count, stream_ended) = self.step(buffer)?;
            if stream_ended {
                if self.skip_padding()? {
                    self.stream = Self::open()?;
                } else {
                    self.finished = true;
                }
            }
            if count > 0 {
                return Ok(count);
            }
        }
        Ok(0)
    }
}

fn difference(now: u64, before: u64) -> usize {
    usize::try_from(now.saturating_sub(before)).unwrap_or(usize::MAX)
}

/// Holds a decoder to its limits and names the format in its errors.
struct Limited<R: Read> {
    decoder: Decoder<R>,
    format: Compression,
    limits: Limits,
    output_bytes: u64,
}

impl<R: Read> Limited<R> {
    fn check(&self) -> Result<(), CompressError> {
        if self.output_bytes > self.limits.output_bytes {
            return Err(CompressError::TooLarge(self.limits.output_bytes));
        }
        let allowed = self
            .decoder
            .input_bytes()
            .saturating_mul(self.limits.ratio)
            .max(Limits::RATIO_FREE_BYTES);
        if self.format != Compression::None && self.output_bytes > allowed {
            return Err(CompressError::Ratio(self.limits.ratio));
        }
        Ok(())
    }

    /// Decoders report damage with these kinds; anything else is the input's own error.
    fn explain(&self, error: io::Error) -> io::Error {
        use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        let from_decoder = error.raw_os_error().is_none()
            && matches!(
                error.kind(),
                InvalidData | InvalidInput | Other | UnexpectedEof
            );
        if self.format == Compression::None || !from_decoder {
            return error;
        }
        CompressError::Corrupt {
            format: self.format.name(),
            input_bytes: self.decoder.input_bytes(),
            reason: error.to_string(),
        }
        .into()
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.decoder.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(self.explain(error)),
        };
        self.output_bytes = self.output_bytes.saturating_add(as_u64(count));
        self.check()?;
        Ok(count)
    }
}

/// Runs `source` on a thread of its own; at most a few MiB wait in between.
///
/// The thread ends with the source, at the first error, or at its next piece after the returned
/// reader was dropped. Errors of the source come out of the returned reader in their place.
///
/// # Errors
/// The thread cannot be started.
pub fn pipelined(source: impl Read + Send + 'static) -> io::Result<impl Read + Send> {
    let (filled_in, filled) = sync_channel(PIECES_QUEUED_MAX);
    let (recycle, recycled) = channel();
    std::thread::Builder::new()
        .name("coop-unpack".into())
        .spawn(move || fill(source, &filled_in, &recycled))?;
    Ok(Pipelined {
        filled,
        recycle,
        piece: Vec::new(),
        position: 0,
        finished: false,
    })
}

/// `None` is the end of the source: without it, the thread was lost.
type Piece = Option<io::Result<Vec<u8>>>;

fn fill(mut source: impl Read, filled: &SyncSender<Piece>, recycled: &Receiver<Vec<u8>>) {
    let piece_length = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX);
    loop {
        let mut piece = recycled
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(PIECE_BYTES));
        piece.clear();
        let result = (&mut source).take(piece_length).read_to_end(&mut piece);
        // What was read before an error still belongs to the stream.
        let ended = matches!(result, Ok(0));
        if !piece.is_empty() && filled.send(Some(Ok(piece))).is_err() {
            return;
        }
        if let Err(error) = result {
            let _ = filled.send(Some(Err(error)));
            return;
        }
        if ended {
            let _ = filled.send(None);
            return;
        }
    }
}

struct Pipelined {
    filled: Receiver<Piece>,
    recycle: Sender<Vec<u8>>,
    piece: Vec<u8>,
    position: usize,
    finished: bool,
}

impl Read for Pipelined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.piece.len() {
            if self.finished {
                return Ok(0);
            }
            match self.filled.recv() {
                Ok(Some(Ok(piece))) => {
                    // The thread may have ended already; then nobody wants the buffer.
                    let _ = self.recycle.send(std::mem::replace(&mut self.piece, piece));
                    self.position = 0;
                }
                Ok(Some(Err(error))) => {
                    self.finished = true;
                    return Err(error);
                }
                Ok(None) => self.finished = true,
                Err(_) => {
                    self.finished = true;
                    return Err(CompressError::ThreadLost.into());
                }
            }
        }
        let available = &self.piece[self.position..];
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.position += count;
        Ok(count)
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn sample() -> Vec<u8> {
        (0..200_000_u32)
            .flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 20).to_le_bytes())
            .collect()
    }

    fn pack(format: Compression, data: &[u8]) -> Vec<u8> {
        match format {
            Compression::None => data.to_vec(),
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Bzip2 => {
                let mut encoder =
                    bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::stream::encode_all(data, 1).unwrap(),
        }
    }

    fn unpack(bytes: Vec<u8>, limits: Limits) -> io::Result<(Compression, Vec<u8>)> {
        let (format, reader) = decompress(Cursor::new(bytes), limits)?;
        let mut out = Vec::new();
        pipelined(reader)?.read_to_end(&mut out)?;
        Ok((format, out))
    }

    const FORMATS: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Bzip2,
        Compression::Xz,
        Compression::Zstd,
    ];

    #[test]
    fn every_format_is_recognised_and_unpacked_with_all_its_members() {
        let data = sample();
        for format in FORMATS {
            let mut bytes = pack(format, &data);
            assert_eq!(
                unpack(bytes.clone(), Limits::default()).unwrap(),
                (format, data.clone())
            );
            if format == Compression::Xz {
                bytes.extend([0; 8]);
            }
            bytes.extend(pack(format, b"the second member"));
            let (_, out) = unpack(bytes, Limits::default()).unwrap();
            assert_eq!(out.len(), data.len() + 17, "{format:?}");
            assert!(out.ends_with(b"the second member"));
        }
    }

    #[test]
    fn empty_input_is_plain() {
        assert_eq!(
            unpack(Vec::new(), Limits::default()).unwrap(),
            (Compression::None, Vec::new())
        );
        for format in FORMATS {
            assert_eq!(
                unpack(pack(format, b""), Limits::default()).unwrap(),
                (format, Vec::new())
            );
        }
    }

    #[test]
    fn damage_and_truncation_are_errors() {
        let data = sample();
        for format in &FORMATS[1..] {
            let bytes = pack(*format, &data);
            for cut in [bytes.len() / 2, bytes.len() - 1, 7] {
                let error = unpack(bytes[..cut].to_vec(), Limits::default()).unwrap_err();
                assert!(
                    error.to_string().contains(format.name()),
                    "{format:?}: {error}"
                );
            }
            let mut damaged = bytes.clone();
            damaged[bytes.len() / 2] ^= 0x55;
            // zstd's checksum is optional and off here.
            if *format != Compression::Zstd {
                assert!(unpack(damaged, Limits::default()).is_err(), "{format:?}");
            }
            let mut trailing = bytes.clone();
            trailing.extend(b"trailing garbage");
            if *format != Compression::Gzip {
                assert!(unpack(trailing, Limits::default()).is_err(), "{format:?}");
            }
        }
    }

    #[test]
    fn limits_stop_bombs() {
        let limits = Limits {
            output_bytes: 1000,
            ratio: 10,
        };
        for format in FORMATS {
            let error = unpack(pack(format, &[0; 5000]), limits).unwrap_err();
            assert!(
                error.to_string().contains("more than 1000 bytes"),
                "{error}"
            );
        }
        let limits = Limits {
            output_bytes: u64::MAX,
            ratio: 10,
        };
        let zeroes = vec![0; 66 << 20];
        let error = unpack(pack(Compression::Zstd, &zeroes), limits).unwrap_err();
        assert!(error.to_string().contains("10 times"), "{error}");
    }

    #[test]
    fn known_but_unsupported_formats_are_named() {
        for (start, name) in [
            (&b"\x1f\x9d\x90"[..], ".Z"),
            (b"\x04\x22\x4d\x18", "lz4"),
            (b"PK\x03\x04", "zip"),
            (b"LZIP\x01", "lzip"),
        ] {
            let error = Compression::detect(start).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn an_error_of_the_source_comes_after_the_bytes_before_it() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let mut reader = pipelined(Cursor::new(b"first".to_vec()).chain(Failing)).unwrap();
        let mut out = Vec::new();
        let error = reader.read_to_end(&mut out).unwrap_err();
        assert_eq!(out, b"first");
        assert_eq!(error.to_string(), "the disk is gone");
    }
}
