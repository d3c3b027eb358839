//! Content that lies in its inode (`inline_data`): first in the place of the block map, then in the
//! value of the attribute `system.data` (spec: inlinedata.rst).

use std::ops::Range;

use super::inode::Inode;
use crate::ext4::format::I_BLOCK_SIZE;

/// Byte offset of `i_block` in an inode.
const I_BLOCK_OFFSET: usize = 0x28;

/// Where the content of an inode is, in the inode's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inline {
    /// The value of `system.data`.
    pub(super) value: Range<usize>,
}

impl Inline {
    /// Both parts as ranges of the inode's bytes, cut to the inode's size. A file may be larger: it
    /// has a hole behind them.
    pub(super) fn ranges(&self, inode: &Inode) -> [Range<usize>; 2] {
        let size = usize::try_from(inode.size()).unwrap_or(usize::MAX);
        let first = size.min(I_BLOCK_SIZE);
        let second = size.saturating_sub(first).min(self.value.len());
        [
            I_BLOCK_OFFSET..I_BLOCK_OFFSET.saturating_add(first),
            self.value.start..self.value.start.saturating_add(second),
        ]
    }

    /// The bytes of both parts.
    pub(super) fn parts<'i>(&self, inode: &'i Inode) -> [&'i [u8]; 2] {
        self.ranges(inode)
            .map(|range| inode.bytes.get(range).unwrap_or_default())
    }
}
