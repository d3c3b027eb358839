//! Content that goes to its final place while it arrives, before anything else is known.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::content;
use super::error::WriteError;
use super::geometry::{BLOCKS_MAX, Geometry, Run};
use super::kept::{Kept, Piece, Placed, Track};
use super::layout::Layout;
use super::options::{Options, Size, Summary};
use super::scan::Scan;
use super::sink::{Sink, clear};
use super::write;
use crate::tar::ContentSink;
use crate::tree::{Blob, BlobId, Timestamp, Tree};

/// What an image of unknown size leaves free for group descriptors and their reserve, as a share
/// of a block in blocks: 512 blocks of 4 KiB, 256 of 2 KiB, 128 of 1 KiB. They describe up to
/// 4 TiB, 256 GiB and 16 GiB. What turns out not to be needed is used for folders and inodes.
const GDT_BLOCKS_SHARE: u64 = 8;
/// Content is read in pieces of this size.
const PIECE_BYTES: u64 = 256 << 10;

/// Writes an ext4 image whose content arrives before its tree is known, as from a pipe: content
/// goes straight to its final place in the output, and [`Stream::finish`] puts folders, inodes,
/// journal and bitmaps around it.
///
/// Between the two the tree may be changed at will: what it does not refer to any more becomes free
/// space, which reads as zeroes; what it refers to more than once, or at offsets at which the file
/// system cannot share a block, is copied; content from other blobs is added. Blocks of zeroes are
/// holes in the output, but belong to their files, as in the archive.
///
/// The same content in the same order, tree and options give the same bytes. Memory is 16 bytes
/// for each piece of content and two bits for each block, besides a few buffers.
///
/// Where the size is not given the image can become 4 TiB, 256 GiB or 16 GiB large with blocks of
/// 4, 2 or 1 KiB.
#[derive(Debug)]
pub struct Stream {
    options: Options,
    output: Arc<File>,
    place: Arc<Shared>,
    blob: BlobId,
    pieces: Vec<Piece>,
    /// The next place, in blocks.
    end: u64,
    /// Content may not reach beyond this block.
    blocks_max: u64,
    failed: bool,
}

impl Stream {
    /// Empties `output`, which must be open for reading and writing, and adds a blob to the tree
    /// for the content that will come. Content can be read through the tree until
    /// [`Stream::finish`].
    ///
    /// # Errors
    /// An option is out of its range, the output cannot be emptied, the tree is full, or a thread
    /// cannot be started.
    pub fn new(options: &Options, output: Arc<File>, tree: &mut Tree) -> Result<Self, WriteError> {
        write::check_options(options)?;
        let (blocks_max, gdt_blocks) = limits(options)?;
        write::empty(&output)?;
        let block_bytes = u64::from(options.block_size.bytes());
        let sink = Sink::threaded(Arc::clone(&output), block_bytes - 1, options.threads)?;
        let place = Arc::new(Shared {
            track: Track::new(options.block_size, blocks_max, gdt_blocks),
            output: Arc::clone(&output),
            sink: Mutex::new(Some(sink)),
            end: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let blob = Arc::clone(&place);
        let blob = tree.add_blob(blob).map_err(WriteError::Tree)?;
        Ok(Self {
            options: options.clone(),
            output,
            place,
            blob,
            pieces: Vec::new(),
            end: 0,
            blocks_max,
            failed: false,
        })
    }

    /// Changes what the file system is known by: UUID, hash seed and time may derive from the
    /// tree, which is complete only now.
    pub fn identify(&mut self, uuid: [u8; 16], hash_seed: [u8; 16], time: Timestamp) {
        self.options = Options {
            uuid,
            hash_seed,
            time,
            ..self.options.clone()
        };
    }

    /// Writes everything but the content that came before.
    ///
    /// # Errors
    /// As [`super::write()`]; or content could not be kept before.
    pub fn finish(self, tree: &Tree) -> Result<Summary, WriteError> {
        if self.failed {
            return Err(WriteError::Incomplete);
        }
        let mut sink = self.place.sink().take().ok_or(WriteError::Incomplete)?;
        sink.settle()?;
        drop(sink);
        let options = &self.options;
        write::check_options(options)?;
        let lost_found = write::made_lost_found(options);
        let scan = Scan::new(tree, &lost_found, options)?;
        let placed = Placed {
            blob: self.blob,
            track: &self.place.track,
            pieces: &self.pieces,
            end: self.end,
        };
        let kept = Kept::find(&scan, &placed);
        let layout = Layout::plan(&scan, &kept, options)?;
        let block_bytes = layout.geometry.block_bytes();
        let size_bytes = write::size_bytes(&layout, options);
        let clear_runs = |runs: &[Run]| {
            runs.iter().try_for_each(|run| {
                let (offset, length) = (run.start * block_bytes, run.length * block_bytes);
                clear(&self.output, offset, length)
            })
        };
        clear_runs(&kept.stale)?;
        let before = self.output.metadata().map_err(WriteError::Output)?.len();
        if before < size_bytes {
            write::set_size(&self.output, size_bytes)?;
        }
        content::copy_all(&scan, &kept, &layout, &self.output, options.threads)?;
        self.place.closed.store(true, Ordering::Release);
        clear_runs(&kept.leaving)?;
        if before > size_bytes {
            write::set_size(&self.output, size_bytes)?;
        }
        write::write_rest(&scan, &layout, options, &self.output)
    }

    /// Where in the output a place is and how many bytes follow it there.
    fn target(&self, place: u64) -> (u64, u64) {
        let block_bytes = self.place.track.block_bytes();
        let run = self.place.track.block(place / block_bytes);
        let inside = place % block_bytes;
        let follow = run.length.saturating_mul(block_bytes) - inside;
        (run.start * block_bytes + inside, follow)
    }

    fn check_room(&self, blocks: u64) -> Result<(), WriteError> {
        let last = self.end.checked_add(blocks - 1);
        let fits = last
            .filter(|last| *last < BLOCKS_MAX)
            .is_some_and(|last| self.place.track.block(last).start < self.blocks_max);
        if fits {
            return Ok(());
        }
        let block_size_bytes = self.options.block_size.bytes();
        Err(match self.options.size {
            Size::Bytes(size_bytes) => WriteError::TooSmall {
                size_bytes,
                needed: "the content alone is larger".into(),
            },
            Size::Auto { .. } => WriteError::StreamTooLarge {
                limit_bytes: self.blocks_max * u64::from(block_size_bytes),
                block_size_bytes,
            },
        })
    }

    fn write(&self, bytes: &mut dyn Read, start: u64, length: u64) -> io::Result<()> {
        let mut sink = self.place.sink();
        let sink = sink
            .as_mut()
            .ok_or_else(|| failure(WriteError::Incomplete))?;
        let mut done = 0;
        while done < length {
            let (offset, follow) = self.target(start + done);
            let piece = (length - done).min(follow).min(PIECE_BYTES);
            let size = usize::try_from(piece).unwrap_or(usize::MAX);
            bytes.read_exact(sink.piece(offset, size).map_err(failure)?)?;
            done += piece;
        }
        Ok(())
    }
}

impl ContentSink for Stream {
    /// Errors of the output carry a [`WriteError`].
    fn keep(&mut self, bytes: &mut dyn Read, _: u64, length: u64) -> io::Result<(BlobId, u64)> {
        if self.failed {
            return Err(failure(WriteError::Incomplete));
        }
        let block_bytes = self.place.track.block_bytes();
        let place = self.end * block_bytes;
        if length == 0 {
            return Ok((self.blob, place));
        }
        let blocks = length.div_ceil(block_bytes);
        let kept = self
            .check_room(blocks)
            .map_err(failure)
            .and_then(|()| self.write(bytes, place, length));
        if let Err(error) = kept {
            self.failed = true;
            return Err(error);
        }
        self.end += blocks;
        let end = self.end * block_bytes;
        self.place.end.store(end, Ordering::Release);
        self.pieces.push(Piece { place, length });
        Ok((self.blob, place))
    }
}

/// The end of content and the blocks that are left free for descriptors.
fn limits(options: &Options) -> Result<(u64, u64), WriteError> {
    let block_size_bytes = options.block_size.bytes();
    let block_bytes = u64::from(block_size_bytes);
    let too_large = WriteError::TooLarge { block_size_bytes };
    match options.size {
        Size::Auto { .. } => {
            let gdt_blocks = block_bytes / GDT_BLOCKS_SHARE;
            let groups = gdt_blocks * (block_bytes / 64);
            Ok(((groups * block_bytes * 8).min(BLOCKS_MAX), gdt_blocks))
        }
        Size::Bytes(bytes) => {
            let blocks = bytes / block_bytes;
            if blocks > BLOCKS_MAX {
                return Err(too_large);
            }
            let geometry = Geometry::new(options.block_size, blocks, 1, u64::MAX);
            let geometry = geometry.ok_or_else(|| WriteError::TooSmall {
                size_bytes: bytes,
                needed: "a file system has more bookkeeping".into(),
            })?;
            Ok((blocks, geometry.super_blocks() - 1))
        }
    }
}

fn failure(error: WriteError) -> io::Error {
    let kind = match &error {
        WriteError::Write { source, .. } => source.kind(),
        WriteError::TooSmall { .. } => io::ErrorKind::StorageFull,
        WriteError::StreamTooLarge { .. } => io::ErrorKind::FileTooLarge,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// What the stream and the tree's blob share.
struct Shared {
    track: Track,
    output: Arc<File>,
    /// `None` once nothing more comes.
    sink: Mutex<Option<Sink>>,
    /// The next place, in bytes.
    end: AtomicU64,
    /// Content may have been moved.
    closed: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn sink(&self) -> MutexGuard<'_, Option<Sink>> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blob for Shared {
    /// Places of the track are offsets of the blob.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.closed.load(Ordering::Acquire) {
            return Err(io::Error::other(
                "the content belongs to an ext4 image that is finished",
            ));
        }
        if let Some(sink) = self.sink().as_mut() {
            sink.settle().map_err(failure)?;
        }
        let block_bytes = self.track.block_bytes();
        let run = self.track.block(offset / block_bytes);
        let inside = offset % block_bytes;
        let left = self.end.load(Ordering::Acquire).saturating_sub(offset);
        let follow = run.length.saturating_mul(block_bytes) - inside;
        let length = usize::try_from(follow.min(left)).unwrap_or(usize::MAX);
        let length = length.min(buffer.len());
        let buffer = &mut buffer[..length];
        let count = Blob::read_at(&*self.output, buffer, run.start * block_bytes + inside)?;
        if count == 0 {
            // Zeroes at the end were left out.
            buffer.fill(0);
            return Ok(length);
        }
        Ok(count)
    }
}
