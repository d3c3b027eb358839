//! Copies the content of files from its blobs to its place in the image.
//!
//! Content is read into the buffer of a [`Sink`], where neighbours gather to large writes.
//! `copy_file_range` was slower at every length tried. Writers of one file wait for each other in
//! the kernel, but while one thread writes the others read.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::WriteError;
use super::kept::Kept;
use super::layout::Layout;
use super::scan::{Scan, chunks};
use super::sink::Sink;
use crate::tree::{Content, Kind, Segment, read_exact_at};

/// A batch of work for one thread has about so many bytes of content.
const BATCH_BYTES: u64 = 1 << 20;
/// And no more than so many pieces.
const BATCH_ITEMS: usize = 1024;
/// More threads than this would only wait for each other.
const THREADS_MAX: usize = 16;
/// Longer segments are divided among the threads.
const ITEM_BYTES: u64 = 8 << 20;

/// Copies the content of all files, but what stays where it is.
///
/// # Errors
/// A blob ends early or cannot be read, or the image cannot be written.
pub(crate) fn copy_all(
    scan: &Scan<'_>,
    kept: &Kept,
    layout: &Layout,
    output: &Arc<File>,
    threads: NonZeroUsize,
) -> Result<(), WriteError> {
    let block_bytes = layout.geometry.block_bytes();
    let queue = Mutex::new(Queue {
        scan,
        block_bytes,
        places: kept.places(),
        node: 0,
        ready: VecDeque::new(),
    });
    let failed = AtomicBool::new(false);
    let work = || {
        let mut copier = Copier {
            scan,
            layout,
            sink: Sink::new(Arc::clone(output), block_bytes - 1),
            block_bytes,
        };
        let result = copier.work(&queue, &failed);
        if result.is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        result
    };
    std::thread::scope(|scope| {
        let mut others = Vec::new();
        for _ in 1..threads.get().min(THREADS_MAX) {
            let other = std::thread::Builder::new().spawn_scoped(scope, work);
            others.push(other.map_err(WriteError::Thread)?);
        }
        let mut result = work();
        for other in others {
            let ended = other.join();
            let ended = ended.unwrap_or(Err(WriteError::Layout("a copying thread ended")));
            result = result.and(ended);
        }
        result
    })
}

/// A part of a segment that is to be copied.
struct Item<'s> {
    position: usize,
    segment: &'s Segment,
    /// First byte of the part, from the start of the segment.
    from: u64,
    length: u64,
}

/// What is left to do.
struct Queue<'s, P> {
    scan: &'s Scan<'s>,
    block_bytes: u64,
    /// The place of the next chunk, if it stays there.
    places: P,
    node: usize,
    ready: VecDeque<Item<'s>>,
}

impl<'s, P: Iterator<Item = Option<u64>>> Queue<'s, P> {
    /// The next batch; empty at the end.
    fn batch(&mut self) -> Vec<Item<'s>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES && batch.len() < BATCH_ITEMS {
            if let Some(item) = self.ready.pop_front() {
                bytes += item.length;
                batch.push(item);
            } else if let Some(node) = self.scan.nodes.get(self.node) {
                if let Kind::File(content) = &node.inode.kind {
                    self.prepare(content);
                }
                self.node += 1;
            } else {
                break;
            }
        }
        batch
    }

    /// Divides a file.
    fn prepare(&mut self, content: &'s Content) {
        for chunk in chunks(content, self.block_bytes) {
            if self.places.next().flatten().is_some() {
                continue;
            }
            for segment in &content.segments[chunk.segments] {
                let mut from = 0;
                while from < segment.length {
                    let length = (segment.length - from).min(ITEM_BYTES);
                    self.ready.push_back(Item {
                        position: self.node,
                        segment,
                        from,
                        length,
                    });
                    from += length;
                }
            }
        }
    }
}

struct Copier<'c> {
    scan: &'c Scan<'c>,
    layout: &'c Layout,
    sink: Sink,
    block_bytes: u64,
}

impl Copier<'_> {
    fn work<'s, P: Iterator<Item = Option<u64>>>(
        &mut self,
        queue: &Mutex<Queue<'s, P>>,
        failed: &AtomicBool,
    ) -> Result<(), WriteError> {
        while !failed.load(Ordering::Relaxed) {
            let batch = queue.lock().unwrap_or_else(PoisonError::into_inner).batch();
            if batch.is_empty() {
                break;
            }
            for item in &batch {
                self.copy(item)?;
            }
        }
        self.sink.flush()
    }

    fn copy(&mut self, item: &Item<'_>) -> Result<(), WriteError> {
        let extents = self.layout.extents(&self.layout.areas[item.position]);
        let mut done = 0;
        while done < item.length {
            let at = item.segment.offset + item.from + done;
            let after = extents
                .partition_point(|extent| u64::from(extent.logical) * self.block_bytes <= at);
            let extent = after
                .checked_sub(1)
                .map(|before| &extents[before])
                .ok_or(WriteError::Layout("content without blocks"))?;
            let inside = at - u64::from(extent.logical) * self.block_bytes;
            let left = (u64::from(extent.length) * self.block_bytes)
                .checked_sub(inside)
                .filter(|left| *left > 0)
                .ok_or(WriteError::Layout("content without blocks"))?;
            let to = extent.start * self.block_bytes + inside;
            let length = left.min(item.length - done);
            self.copy_run(item, item.from + done, to, length)?;
            done += length;
        }
        Ok(())
    }

    fn copy_run(
        &mut self,
        item: &Item<'_>,
        mut from: u64,
        mut to: u64,
        mut length: u64,
    ) -> Result<(), WriteError> {
        let segment = item.segment;
        let blob = self.scan.blob(segment.blob);
        while length > 0 {
            let piece_max = u64::try_from(Sink::PIECE_MAX).unwrap_or(u64::MAX);
            let piece = length.min(piece_max);
            let size = usize::try_from(piece).map_err(|_| WriteError::Layout("a large piece"))?;
            let buffer = self.sink.piece(to, size)?;
            read_exact_at(blob, buffer, segment.blob_offset + from)
                .map_err(|source| self.unread(item.position, segment.offset + from, source))?;
            from += piece;
            to += piece;
            length -= piece;
        }
        Ok(())
    }

    fn unread(&self, position: usize, offset: u64, source: io::Error) -> WriteError {
        WriteError::Read {
            path: self.scan.path(position),
            offset,
            source,
        }
    }
}
