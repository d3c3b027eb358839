//! What a file's blocks are as segments of the image, in their newest versions.

use std::ops::Bound;
use std::sync::Arc;

use super::ReadError;
use super::inline::Inline;
use super::inode::Inode;
use super::mapping::{Mapping, Run};
use super::volume::{Replacement, Volume, as_u64};
use crate::tree::{BlobId, Content, Segment, Tree};

/// Makes the segments of one file.
pub(super) struct Builder<'a> {
    pub(super) volume: &'a Volume,
    pub(super) tree: &'a mut Tree,
    /// The image.
    pub(super) image: BlobId,
    /// Size of the file in bytes.
    pub(super) size: u64,
}

impl Builder<'_> {
    /// The content that a mapping leads to.
    pub(super) fn mapped(mut self, mapping: &Mapping) -> Result<Content, ReadError> {
        // Nearly always as many as runs.
        let mut segments = Vec::with_capacity(mapping.runs.len());
        for run in mapping.runs.iter().filter(|run| run.written) {
            self.push_run(*run, &mut segments)?;
        }
        Ok(Content {
            size: self.size,
            segments: segments.into(),
        })
    }

    /// The content that lies in the inode.
    pub(super) fn inline(self, inode: &Inode, inline: &Inline) -> Result<Content, ReadError> {
        let mut segments = Vec::new();
        let mut offset = 0;
        for (range, bytes) in inline.ranges(inode).into_iter().zip(inline.parts(inode)) {
            let length = as_u64(bytes.len());
            if length == 0 {
                continue;
            }
            let (blob, blob_offset) = match inode.image_offset {
                Some(start) => (self.image, start.saturating_add(as_u64(range.start))),
                None => (self.tree.add_blob(Arc::new(bytes.to_vec()))?, 0),
            };
            segments.push(Segment {
                offset,
                length,
                blob,
                blob_offset,
            });
            offset = offset.saturating_add(length);
        }
        Ok(Content {
            size: self.size,
            segments: segments.into(),
        })
    }

    /// Segments of one run, without what is beyond the file's end, and with blocks that the
    /// journal has in a newer version taken from there.
    fn push_run(&mut self, run: Run, segments: &mut Vec<Segment>) -> Result<(), ReadError> {
        let (start, end) = (run.physical, run.physical.saturating_add(run.length));
        let range = (Bound::Included(start), Bound::Excluded(end));
        let replaced = self.volume.replaced.range(range);
        let mut next = start;
        for (block, replacement) in replaced {
            self.push_blocks(run, (next, *block), next, segments);
            next = block.saturating_add(1);
            match replacement {
                Replacement { escaped: true, .. } => self.push_escaped(run, *block, segments)?,
                Replacement { block: at, .. } => {
                    self.push_blocks(run, (*block, next), *at, segments);
                }
            }
        }
        self.push_blocks(run, (next, end), next, segments);
        Ok(())
    }

    /// Adds the run's blocks from `from` to `to`, whose bytes are at block `at` of the image.
    fn push_blocks(&self, run: Run, (from, to): (u64, u64), at: u64, segments: &mut Vec<Segment>) {
        let Some((offset, length)) = self.extent_in_file(run, from, to) else {
            return;
        };
        let blob_offset = at.saturating_mul(as_u64(self.volume.block_size));
        if let Some(last) = segments.last_mut()
            && last.blob == self.image
            && last.offset.saturating_add(last.length) == offset
            && last.blob_offset.saturating_add(last.length) == blob_offset
        {
            last.length = last.length.saturating_add(length);
            return;
        }
        segments.push(Segment {
            offset,
            length,
            blob: self.image,
            blob_offset,
        });
    }

    /// A block of the journal that begins with the journal's magic is stored without it.
    fn push_escaped(
        &mut self,
        run: Run,
        block: u64,
        segments: &mut Vec<Segment>,
    ) -> Result<(), ReadError> {
        if let Some((offset, length)) = self.extent_in_file(run, block, block.saturating_add(1)) {
            let bytes = self.volume.block(block)?.to_vec();
            let blob = self.tree.add_blob(Arc::new(bytes))?;
            segments.push(Segment {
                offset,
                length,
                blob,
                blob_offset: 0,
            });
        }
        Ok(())
    }

    /// Offset and length in the file of the run's blocks from `from` to `to`; `None` for nothing.
    fn extent_in_file(&self, run: Run, from: u64, to: u64) -> Option<(u64, u64)> {
        let block_size = as_u64(self.volume.block_size);
        let distance = from.checked_sub(run.physical)?;
        let offset = run.logical.checked_add(distance)?.checked_mul(block_size)?;
        let length = to.checked_sub(from)?.checked_mul(block_size)?;
        let length = length.min(self.size.saturating_sub(offset));
        (length > 0).then_some((offset, length))
    }
}
