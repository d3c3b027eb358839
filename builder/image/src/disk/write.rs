//! Writing disks: every block of zeroes becomes a hole, whatever the source calls it, so that the
//! same bytes give the same disk.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::unpack::UNIT_BYTES_MAX;
use super::{DiskError, Extent, ExtentKind, Extents, Source};
use crate::tree::read_exact_at;

/// Bytes that one thread copies at a time: so no compressed unit is unpacked twice.
const PIECE_BYTES: u64 = UNIT_BYTES_MAX;
/// Blocks of so many zeroes become holes.
const HOLE_BYTES: usize = 4096;
/// More threads than this are not started: each has a piece in memory.
pub const THREADS_MAX: usize = 4;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Size of the disk as a guest sees it, in bytes.
    pub size_bytes: u64,
    /// How many bytes of it are not in holes.
    pub data_bytes: u64,
}

/// Writes the source's bytes to `output`, which has to be empty and becomes as long as the source.
/// Reads and writes with up to `threads` threads, at most [`THREADS_MAX`]; what is written does not
/// depend on their number. Does not sync.
///
/// # Errors
/// The source is damaged, or one of both cannot be read or written; `output` may have a part then.
pub fn write_raw(
    source: &dyn Source,
    output: &File,
    threads: NonZeroUsize,
) -> Result<Written, DiskError> {
    let failed = |source| DiskError::Write { offset: 0, source };
    output.set_len(source.size_bytes()).map_err(failed)?;
    let pieces = Mutex::new(Pieces::new(source));
    let stop = AtomicBool::new(false);
    let work = || {
        let done = copy_pieces(source, output, &pieces, &stop);
        if done.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        done
    };
    let threads = threads.get().min(THREADS_MAX);
    let results: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut results = vec![work()];
        for other in others {
            match other.join() {
                Ok(result) => results.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    let mut written = Written {
        size_bytes: source.size_bytes(),
        data_bytes: 0,
    };
    for result in results {
        written.data_bytes += result?;
    }
    Ok(written)
}

/// The data of a source in pieces that begin and end at multiples of their size.
struct Pieces<'s> {
    extents: Extents<'s>,
    rest: Option<Extent>,
}

impl<'s> Pieces<'s> {
    fn new(source: &'s dyn Source) -> Self {
        Self {
            extents: Extents::new(source),
            rest: None,
        }
    }

    fn next(&mut self) -> Result<Option<(u64, usize)>, DiskError> {
        loop {
            if let Some(rest) = self.rest.take() {
                let to_border = PIECE_BYTES - rest.offset % PIECE_BYTES;
                let length = to_border.min(rest.length);
                if rest.length > length {
                    self.rest = Some(Extent {
                        offset: rest.offset + length,
                        length: rest.length - length,
                        kind: rest.kind,
                    });
                }
                return Ok(Some((rest.offset, usize::try_from(length).unwrap_or(0))));
            }
            match self.extents.next().transpose()? {
                None => return Ok(None),
                Some(extent) if extent.kind == ExtentKind::Data => self.rest = Some(extent),
                Some(_) => {}
            }
        }
    }
}

fn copy_pieces(
    source: &dyn Source,
    output: &File,
    pieces: &Mutex<Pieces<'_>>,
    stop: &AtomicBool,
) -> Result<u64, DiskError> {
    let mut buffer = vec![0; usize::try_from(PIECE_BYTES).unwrap_or(0)];
    let mut copied = 0;
    while !stop.load(Ordering::Relaxed) {
        let next = match pieces.lock() {
            Ok(mut pieces) => pieces.next()?,
            // Another thread panicked, and its panic goes on.
            Err(_) => None,
        };
        let Some((offset, length)) = next else {
            break;
        };
        read_piece(source, &mut buffer[..length], offset)?;
        copied += write_blocks(output, &buffer[..length], offset)?;
    }
    Ok(copied)
}

/// Fills a buffer from a source.
pub(super) fn read_piece(
    source: &dyn Source,
    buffer: &mut [u8],
    offset: u64,
) -> Result<(), DiskError> {
    read_exact_at(source, buffer, offset).map_err(|error| match error.downcast::<DiskError>() {
        Ok(error) => error,
        Err(source) => DiskError::Read { offset, source },
    })
}

/// Writes what is not zero; gives how many bytes that was.
fn write_blocks(output: &File, bytes: &[u8], offset: u64) -> Result<u64, DiskError> {
    let mut copied = 0;
    let mut start = 0;
    while start < bytes.len() {
        let block = |at: usize| &bytes[at..bytes.len().min(at + HOLE_BYTES)];
        if is_zero(block(start)) {
            start += HOLE_BYTES;
            continue;
        }
        let mut end = start;
        while end < bytes.len() && !is_zero(block(end)) {
            end += block(end).len();
        }
        let at = offset.saturating_add(u64::try_from(start).unwrap_or(u64::MAX));
        let failed = |source| DiskError::Write { offset: at, source };
        output
            .write_all_at(&bytes[start..end], at)
            .map_err(failed)?;
        copied += u64::try_from(end - start).unwrap_or(0);
        start = end;
    }
    Ok(copied)
}

/// Whether there is nothing but zeroes.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    rest.iter().all(|byte| *byte == 0)
        && words
            .iter()
            .all(|word| word.iter().fold(0, |all, byte| all | byte) == 0)
}
