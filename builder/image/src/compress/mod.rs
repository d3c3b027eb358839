//! Decompression by content.
//!
//! [`decompress`] and [`decompress_threaded`] look at the first bytes, never at a name, and give
//! the plain bytes as a stream, from anything that can be read. Formats that allow several members,
//! streams or frames in a row are read to the last one.
//!
//! | format | threads | what may follow the last member |
//! |---|---|---|
//! | gzip | one | zeroes |
//! | bzip2 | one for each block | nothing |
//! | xz | one for each block of a stream whose headers have sizes | zeroes, a multiple of four |
//! | zstd | one for each frame of up to 4 MiB | nothing |
//!
//! What comes out does not depend on the number of threads, nor does the verdict. Anything else
//! after the last member is refused, though `gzip` and `bzip2` warn and drop it: it may be a member
//! whose first bytes were damaged.
//!
//! # Limits
//! A small input that unpacks to enormous output is stopped by [`Limits`]. Memory does not depend
//! on the input: [`XZ_MEMORY_MAX_BYTES`] for xz, 2^[`ZSTD_WINDOW_LOG_MAX`] bytes for zstd, and for
//! each thread about 5 MiB and two blocks of [`BZIP2_BLOCK_BYTES_MAX`] at most for bzip2; besides
//! some MiB for each thread that wait for the reader.
//!
//! Errors travel as [`io::Error`]s with a [`CompressError`] inside, those of the input unchanged,
//! and come in their place: after the bytes before them, up to the unit that a thread works on.

mod bzip2;
mod error;
mod gzip;
mod input;
mod lane;
mod limits;
mod members;
#[cfg(test)]
mod tests;
mod workers;
mod xz;
mod zstd;

use std::io::{self, Cursor, Read};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use self::bzip2::BZIP2_BLOCK_BYTES_MAX;
pub use error::CompressError;
pub use limits::Limits;

use input::{Counted, Input};
use lane::{LaneReader, PieceReader, Pool};
use limits::Limited;

/// What an xz decoder may allocate, all threads together; `xz -9` needs 65 MiB.
pub const XZ_MEMORY_MAX_BYTES: u64 = 512 << 20;
/// Largest zstd window as a power of two: what `zstd` itself accepts without `--long` (128 MiB).
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// More threads than this are not started.
pub const THREADS_MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Bytes read at the start to recognise the format.
const MAGIC_BYTES: usize = 6;

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

/// How to decompress.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bounds on the output.
    pub limits: Limits,
    /// How many threads unpack, at most [`THREADS_MAX`]; whoever reads is one more.
    pub threads: NonZeroUsize,
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
            [a, b, c, d, ..] if zstd::is_magic([*a, *b, *c, *d]) => Ok(Self::Zstd),
            [0x22..=0x27, 0xb5, 0x2f, 0xfd, ..] => unsupported("a zstd file of before version 0.8"),
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

/// Recognises the format of `input` and gives the plain bytes, unpacked by whoever reads them;
/// plain input passes through, and [`Limits::output_bytes`] holds for it too.
///
/// # Errors
/// The first bytes cannot be read or are of an unsupported format. Later errors come from
/// reading.
pub fn decompress<'a>(
    input: impl Read + Send + 'a,
    limits: Limits,
) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let (bytes, holder) = open(input, limits)?;
    let reader: Box<dyn Read + Send + 'a> = match holder.format {
        Compression::None => holder.hold(bytes),
        format => holder.hold(sequential(format, bytes, NonZeroUsize::MIN)),
    };
    Ok((holder.format, reader))
}

/// As [`decompress`], with threads of its own that work ahead of the reader. Plain input is left
/// to the reader.
///
/// The threads end with the input, at the first error, or when the returned reader is dropped; one
/// that waits for the input then ends when that gives something.
///
/// # Errors
/// As [`decompress`]; a thread cannot be started.
pub fn decompress_threaded(
    input: impl Read + Send + 'static,
    options: Options,
) -> io::Result<(Compression, Box<dyn Read + Send>)> {
    let (bytes, holder) = open(input, options.limits)?;
    let threads = options.threads.min(THREADS_MAX);
    let pool = Pool::default();
    let reader = match holder.format {
        Compression::None => holder.hold(bytes),
        Compression::Bzip2 => {
            holder.hold(PieceReader::new(bzip2::start(bytes, threads, &pool)?, pool))
        }
        Compression::Zstd => {
            holder.hold(PieceReader::new(zstd::start(bytes, threads, &pool)?, pool))
        }
        format @ (Compression::Gzip | Compression::Xz) => {
            let plain = sequential(format, bytes, threads);
            holder.hold(PieceReader::new(on_a_thread(plain, &pool)?, pool))
        }
    };
    Ok((holder.format, reader))
}

/// The decoder that reads a whole input; only xz takes more than one thread.
fn sequential<'a>(
    format: Compression,
    bytes: impl Read + Send + 'a,
    threads: NonZeroUsize,
) -> Box<dyn Read + Send + 'a> {
    let input = Input::new(bytes, 0);
    match format {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(gzip::MembersReader::new(input)),
        Compression::Bzip2 => Box::new(bzip2::Bzip2Reader::new(input)),
        Compression::Xz => Box::new(xz::XzReader::new(input, threads)),
        Compression::Zstd => Box::new(zstd::FramesReader::new(input)),
    }
}

/// Runs a reader on a thread of its own.
fn on_a_thread(mut source: impl Read + Send + 'static, pool: &Pool) -> io::Result<LaneReader<()>> {
    let (writer, reader) = lane::lane(pool);
    workers::spawn(move || {
        if let Ok(result) = writer.copy(&mut source) {
            writer.end(result);
        }
    })?;
    Ok(reader)
}

/// What holds the output of an input to its limits.
struct Holder {
    format: Compression,
    limits: Limits,
    input_bytes: Arc<AtomicU64>,
}

impl Holder {
    fn hold<'a>(&self, reader: impl Read + Send + 'a) -> Box<dyn Read + Send + 'a> {
        Box::new(Limited {
            reader,
            format: self.format,
            limits: self.limits,
            input_bytes: Arc::clone(&self.input_bytes),
            output_bytes: 0,
        })
    }
}

/// Looks at the first bytes; gives all of them.
fn open<'a>(
    mut input: impl Read + Send + 'a,
    limits: Limits,
) -> io::Result<(impl Read + Send + 'a, Holder)> {
    let mut start = Vec::with_capacity(MAGIC_BYTES);
    (&mut input)
        .take(as_u64(MAGIC_BYTES))
        .read_to_end(&mut start)?;
    let holder = Holder {
        format: Compression::detect(&start)?,
        limits,
        input_bytes: Arc::new(AtomicU64::new(0)),
    };
    let bytes = Counted {
        inner: Cursor::new(start).chain(input),
        count: Arc::clone(&holder.input_bytes),
    };
    Ok((bytes, holder))
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
