//! Copies the content of files from its blobs to its place in the image.
//!
//! Content is read into the buffer of a [`Sink`], where neighbours gather to large writes.
//! `copy_file_range` was slower at every length tried, and a second thread no faster: writers of
//! one file wait for each other in the kernel.

use std::fs::File;
use std::io;

use super::error::WriteError;
use super::extent::BlockExtent;
use super::layout::Layout;
use super::scan::Scan;
use super::sink::Sink;
use crate::tree::{Blob, Content, Kind, read_exact_at};

/// Copies the content of all files.
///
/// # Errors
/// A blob ends early or cannot be read, or the image cannot be written.
pub(crate) fn copy_all(scan: &Scan<'_>, layout: &Layout, output: &File) -> Result<(), WriteError> {
    let block_bytes = layout.geometry.block_bytes();
    let mut copier = Copier {
        sink: Sink::new(output, block_bytes - 1),
        block_bytes,
    };
    for (position, (node, area)) in scan.nodes.iter().zip(&layout.areas).enumerate() {
        if let Kind::File(content) = &node.inode.kind {
            copier
                .copy(scan, content, layout.extents(area))
                .map_err(|failure| failure.with_path(|| scan.path(position)))?;
        }
    }
    copier.sink.flush().map_err(WriteError::Write)
}

/// Which side failed.
enum Failure {
    Read(io::Error),
    Write(io::Error),
    Layout,
}

impl Failure {
    fn with_path(self, path: impl FnOnce() -> String) -> WriteError {
        match self {
            Self::Read(source) => WriteError::Read {
                path: path(),
                source,
            },
            Self::Write(source) => WriteError::Write(source),
            Self::Layout => WriteError::Layout("content without blocks"),
        }
    }
}

struct Copier<'f> {
    sink: Sink<'f>,
    block_bytes: u64,
}

impl Copier<'_> {
    /// Walks segments and extents side by side: both rise.
    fn copy(
        &mut self,
        scan: &Scan<'_>,
        content: &Content,
        extents: &[BlockExtent],
    ) -> Result<(), Failure> {
        let mut extents = extents.iter().peekable();
        for segment in &content.segments {
            let blob = scan.blob(segment.blob);
            let mut done = 0;
            while done < segment.length {
                let at = segment.offset + done;
                let extent = extents.peek().ok_or(Failure::Layout)?;
                let start = u64::from(extent.logical) * self.block_bytes;
                let end = start + u64::from(extent.length) * self.block_bytes;
                if at >= end {
                    extents.next();
                    continue;
                }
                let inside = at.checked_sub(start).ok_or(Failure::Layout)?;
                let target = extent.start * self.block_bytes + inside;
                let length = (segment.length - done).min(end - at);
                self.copy_run(blob, segment.blob_offset + done, target, length)?;
                done += length;
            }
        }
        Ok(())
    }

    fn copy_run(
        &mut self,
        blob: &dyn Blob,
        mut from: u64,
        mut to: u64,
        mut length: u64,
    ) -> Result<(), Failure> {
        while length > 0 {
            let piece_max = u64::try_from(Sink::PIECE_MAX).unwrap_or(u64::MAX);
            let piece = length.min(piece_max);
            let size = usize::try_from(piece).map_err(|_| Failure::Layout)?;
            let buffer = self.sink.piece(to, size).map_err(Failure::Write)?;
            read_exact_at(blob, buffer, from).map_err(Failure::Read)?;
            from += piece;
            to += piece;
            length -= piece;
        }
        Ok(())
    }
}
