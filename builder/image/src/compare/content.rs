//! Where two files differ, byte by byte.

use std::io;

use crate::tree::{Content, Segment, Tree, read_exact_at};

/// Content is compared in pieces of this size.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// Reads one file's bytes in order, without reading holes.
pub(super) struct Cursor<'a> {
    tree: &'a Tree,
    segments: std::iter::Peekable<std::slice::Iter<'a, Segment>>,
    side: &'static str,
    buffer: &'a mut [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        content: &'a Content,
        side: &'static str,
        buffer: &'a mut [u8],
    ) -> Self {
        Self {
            tree,
            segments: content.segments.iter().peekable(),
            side,
            buffer,
        }
    }

    /// Where data begins, at `offset` or behind it; `size` where none does.
    fn data_from(&mut self, offset: u64, size: u64) -> u64 {
        while let Some(segment) = self.segments.peek() {
            if segment.offset.saturating_add(segment.length) > offset {
                return segment.offset.max(offset);
            }
            self.segments.next();
        }
        size
    }

    /// Fills the first `length` bytes of the buffer with those at `offset`.
    fn read(&mut self, offset: u64, length: usize) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let at = offset.saturating_add(as_u64(done));
            let end = offset.saturating_add(as_u64(length));
            let start = self.data_from(at, end).min(end);
            let hole = to_usize(start.saturating_sub(at))?;
            self.buffer[done..done + hole].fill(0);
            done += hole;
            let Some(segment) = self.segments.peek().filter(|_| done < length) else {
                continue;
            };
            let inside = start.saturating_sub(segment.offset);
            let data = to_usize((segment.length - inside).min(end - start))?;
            let blob = self.tree.blob(segment.blob);
            let target = &mut self.buffer[done..done + data];
            read_exact_at(&**blob, target, segment.blob_offset.saturating_add(inside))?;
            done += data;
        }
        Ok(())
    }
}

/// Which side could not be read.
pub(super) type SideError = (&'static str, io::Error);

/// The first offset at which two files of one size differ, and the bytes there.
pub(super) fn first_difference(
    cursors: &mut [Cursor<'_>; 2],
    size: u64,
) -> Result<Option<(u64, [u8; 2])>, SideError> {
    let mut offset = 0;
    loop {
        let [one, two] = &mut *cursors;
        let data = one.data_from(offset, size).min(two.data_from(offset, size));
        offset = data.max(offset);
        if offset >= size {
            return Ok(None);
        }
        let left = size.saturating_sub(offset);
        let length = usize::try_from(left)
            .unwrap_or(PIECE_BYTES)
            .min(PIECE_BYTES);
        for cursor in &mut *cursors {
            let side = cursor.side;
            cursor.read(offset, length).map_err(|error| (side, error))?;
        }
        let [one, two] = &*cursors;
        let (ours, theirs) = (&one.buffer[..length], &two.buffer[..length]);
        if ours != theirs {
            let at = ours
                .iter()
                .zip(theirs)
                .position(|(a, b)| a != b)
                .unwrap_or(0);
            let found = offset.saturating_add(as_u64(at));
            return Ok(Some((found, [ours[at], theirs[at]])));
        }
        offset = offset.saturating_add(as_u64(length));
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn to_usize(length: u64) -> io::Result<usize> {
    usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory.into())
}
