//! Which blocks an inode has: extent trees, and the block maps of older files.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::ReadError;
use super::inode::Inode;
use super::volume::{Volume, as_u64, to_usize};
use crate::ext4::checksum;
use crate::ext4::format::{
    EXT_INIT_MAX_LEN, EXT4_EXT_MAGIC, EXT4_IND_BLOCK, EXT4_MAX_EXTENT_DEPTH, EXTENT_TAIL_SIZE,
    Extent, ExtentHeader, ExtentIdx, inode_flags, join_u32,
};

/// Blocks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First block in the file.
    pub(super) logical: u64,
    /// How many blocks, never zero.
    pub(super) length: u64,
    /// First block in the image.
    pub(super) physical: u64,
    /// Whether the blocks hold content; where they do not, they are allocated and read as zeroes.
    pub(super) written: bool,
}

/// The blocks of an inode.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    /// Every run by rising `logical`, none overlapping another, all inside the image.
    pub(super) runs: Vec<Run>,
    /// Blocks that hold the mapping itself, inside the image.
    pub(super) own: Vec<u64>,
}

impl Mapping {
    /// The content of something small that has no holes; the caller has checked its size.
    pub(super) fn content(&self, volume: &Volume, inode: &Inode) -> Result<Vec<u8>, ReadError> {
        let size = to_usize(inode.size());
        let mut content = Vec::new();
        for run in &self.runs {
            let expected = as_u64(content.len()).div_ceil(as_u64(volume.block_size));
            for distance in 0..run.length {
                let left = size.saturating_sub(content.len());
                if left == 0 {
                    return Ok(content);
                }
                if !run.written || run.logical != expected {
                    return Err(ReadError::corrupt(inode.place(), "its content has a hole"));
                }
                let block = volume.block(run.physical.saturating_add(distance))?;
                content.extend_from_slice(&block[..left.min(block.len())]);
            }
        }
        if content.len() < size {
            return Err(ReadError::corrupt(
                inode.place(),
                "its content is cut short",
            ));
        }
        Ok(content)
    }
}

/// Reads the mapping of an inode that has one.
pub(super) fn read(volume: &Volume, inode: &Inode) -> Result<Mapping, ReadError> {
    let mut reader = Reader {
        volume,
        inode,
        found: Mapping::default(),
        next_logical: 0,
    };
    if inode.has_flag(inode_flags::EXTENTS) {
        reader.extent_tree()?;
    } else {
        reader.block_map()?;
    }
    Ok(reader.found)
}

struct Reader<'a> {
    volume: &'a Volume,
    inode: &'a Inode,
    found: Mapping,
    /// The first block that the next run may have.
    next_logical: u64,
}

/// A node of an extent tree while what is below it is read.
struct Node {
    /// `None`: the root, in the inode.
    number: Option<u64>,
    bytes: Rc<[u8]>,
    header: ExtentHeader,
    /// The entry to read next.
    next: u16,
    /// The first block in the file that is beyond the node.
    end: u64,
}

impl Reader<'_> {
    fn corrupt(&self, block: Option<u64>, reason: &str) -> ReadError {
        corrupt(self.inode, block, reason)
    }

    /// Adds a run, joined to the last one where it continues it. `at` is the block that says so.
    fn push(&mut self, run: Run, end: u64, at: Option<u64>) -> Result<(), ReadError> {
        let run_end = run.logical.saturating_add(run.length);
        if run.logical < self.next_logical || run_end > end {
            return Err(self.corrupt(
                at,
                &format!("its blocks are out of order at {}", run.logical),
            ));
        }
        if !self.volume.has_blocks(run.physical, run.length) {
            return Err(self.corrupt(
                at,
                &format!(
                    "it has {} blocks at {}, outside the image",
                    run.length, run.physical
                ),
            ));
        }
        self.next_logical = run_end;
        if let Some(last) = self.found.runs.last_mut()
            && last.logical.saturating_add(last.length) == run.logical
            && last.physical.saturating_add(last.length) == run.physical
            && last.written == run.written
        {
            last.length = last.length.saturating_add(run.length);
            return Ok(());
        }
        self.found.runs.push(run);
        Ok(())
    }

    /// The whole tree. Blocks of the file must rise from leaf to leaf, each of which has at least
    /// one, so no node can be visited twice.
    fn extent_tree(&mut self) -> Result<(), ReadError> {
        let all = u64::from(u32::MAX) + 1;
        let header = self.extent_header(None, &self.inode.raw.i_block, None)?;
        if header.eh_depth == 0 {
            // By far the most frequent case, without a copy.
            let inode = self.inode;
            return self.leaf(None, &inode.raw.i_block, &header, all);
        }
        let mut path = vec![Node {
            number: None,
            bytes: self.inode.raw.i_block.into(),
            header,
            next: 0,
            end: all,
        }];
        while let Some(node) = path.last_mut() {
            if node.next == node.header.eh_entries {
                path.pop();
                continue;
            }
            let index = node.next;
            node.next = node.next.saturating_add(1);
            if let Some(child) = self.child(node, index)? {
                path.push(child);
            }
        }
        Ok(())
    }

    fn extent_header(
        &self,
        number: Option<u64>,
        bytes: &[u8],
        expected_depth: Option<u16>,
    ) -> Result<ExtentHeader, ReadError> {
        let malformed = || self.corrupt(number, "its extent tree is malformed");
        let header = ExtentHeader::decode(bytes).ok_or_else(malformed)?;
        let capacity = bytes.len().saturating_sub(ExtentHeader::SIZE) / Extent::SIZE;
        if header.eh_magic != EXT4_EXT_MAGIC
            || usize::from(header.eh_max) > capacity
            || header.eh_entries > header.eh_max
            || header.eh_depth > EXT4_MAX_EXTENT_DEPTH
            || expected_depth.is_some_and(|depth| depth != header.eh_depth)
            || (header.eh_entries == 0 && (expected_depth.is_some() || header.eh_depth > 0))
        {
            return Err(malformed());
        }
        Ok(header)
    }

    /// Reads what an entry of an inner node leads to: a leaf at once, another node as the result.
    fn child(&mut self, node: &Node, index: u16) -> Result<Option<Node>, ReadError> {
        let inode = self.inode;
        let malformed = || corrupt(inode, node.number, "its extent tree is malformed");
        let entry = |index: u16| {
            (index < node.header.eh_entries)
                .then(|| entry_at(&node.bytes, index))
                .flatten()
                .and_then(ExtentIdx::decode)
        };
        let this = entry(index).ok_or_else(malformed)?;
        let start = u64::from(this.ei_block);
        let after = entry(index.saturating_add(1));
        let end = after.map_or(node.end, |after| u64::from(after.ei_block));
        if start < self.next_logical || end > node.end {
            return Err(malformed());
        }
        self.next_logical = start;
        let number = join_u32(u32::from(this.ei_leaf_hi), this.ei_leaf_lo);
        if !self.volume.has_blocks(number, 1) {
            let reason = format!("its extent tree leads to block {number}, outside the image");
            return Err(self.corrupt(node.number, &reason));
        }
        let bytes = self.volume.block(number)?;
        self.check_checksum(number, &bytes)?;
        let depth = node.header.eh_depth.checked_sub(1);
        let depth = depth.ok_or_else(malformed)?;
        let header = self.extent_header(Some(number), &bytes, Some(depth))?;
        self.found.own.push(number);
        if depth == 0 {
            self.leaf(Some(number), &bytes, &header, end)?;
            return Ok(None);
        }
        Ok(Some(Node {
            number: Some(number),
            bytes,
            header,
            next: 0,
            end,
        }))
    }

    fn check_checksum(&self, number: u64, bytes: &[u8]) -> Result<(), ReadError> {
        let Some(seed) = self.inode.seed else {
            return Ok(());
        };
        let header = ExtentHeader::decode(bytes);
        let covered = header.map_or(0, |header| {
            ExtentHeader::SIZE
                .saturating_add(usize::from(header.eh_max).saturating_mul(Extent::SIZE))
        });
        let stored = bytes
            .get(covered..covered.saturating_add(EXTENT_TAIL_SIZE))
            .and_then(|bytes| bytes.first_chunk())
            .map(|bytes| u32::from_le_bytes(*bytes));
        let sum = bytes.get(..covered);
        let sum = sum.map(|covered| checksum::extent_block(seed, covered));
        if stored.is_none() || sum != stored {
            return Err(ReadError::checksum(format!(
                "{}, extent block {number}",
                self.inode.place()
            )));
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        number: Option<u64>,
        bytes: &[u8],
        header: &ExtentHeader,
        end: u64,
    ) -> Result<(), ReadError> {
        if self.found.runs.is_empty() {
            // Most files have one leaf, with one extent.
            self.found.runs = Vec::with_capacity(header.eh_entries.into());
        }
        for index in 0..header.eh_entries {
            let extent = entry_at(bytes, index).and_then(Extent::decode);
            let extent =
                extent.ok_or_else(|| self.corrupt(number, "its extent tree is malformed"))?;
            // More than the longest length means: unwritten, by so much more.
            let (length, written) = match extent.ee_len.checked_sub(EXT_INIT_MAX_LEN) {
                Some(unwritten) if unwritten > 0 => (unwritten, false),
                _ => (extent.ee_len, true),
            };
            if length == 0 {
                return Err(self.corrupt(number, "it has an extent of no length"));
            }
            let run = Run {
                logical: u64::from(extent.ee_block),
                length: u64::from(length),
                physical: join_u32(u32::from(extent.ee_start_hi), extent.ee_start_lo),
                written,
            };
            self.push(run, end, number)?;
        }
        Ok(())
    }

    /// Direct, indirect, double and triple indirect blocks.
    fn block_map(&mut self) -> Result<(), ReadError> {
        let blocks = self
            .inode
            .size()
            .div_ceil(as_u64(self.volume.block_size))
            .min(u64::from(u32::MAX));
        let per_block = as_u64(self.volume.block_size / 4);
        let mut visited = BTreeSet::new();
        let mut logical = 0_u64;
        for (index, pointer) in pointers(&self.inode.raw.i_block).into_iter().enumerate() {
            let level = match index.checked_sub(EXT4_IND_BLOCK) {
                None => 0,
                Some(above) => above.saturating_add(1),
            };
            // Pointers that are still to be followed, by their level: 3 at most.
            let mut path = vec![(None, vec![pointer].into_iter(), level)];
            while let Some((at, rest, level)) = path.last_mut() {
                let (at, level) = (*at, *level);
                let Some(pointer) = rest.next().filter(|_| logical < blocks) else {
                    path.pop();
                    continue;
                };
                let Some(below) = level.checked_sub(1) else {
                    self.map_block(pointer, logical, at)?;
                    logical = logical.saturating_add(1);
                    continue;
                };
                if pointer == 0 {
                    let covered = (0..level).fold(1, |all: u64, _| all.saturating_mul(per_block));
                    logical = logical.saturating_add(covered);
                    continue;
                }
                // A map that leads to one of its own blocks again would never end.
                let number = u64::from(pointer);
                if !visited.insert(pointer) || !self.volume.has_blocks(number, 1) {
                    let reason = format!("its block map leads to block {number}");
                    return Err(self.corrupt(at, &reason));
                }
                let block = self.volume.block(number)?;
                self.found.own.push(number);
                path.push((Some(number), pointers(&block).into_iter(), below));
            }
        }
        Ok(())
    }

    /// One block of a block map; 0 is a hole.
    fn map_block(&mut self, pointer: u32, logical: u64, at: Option<u64>) -> Result<(), ReadError> {
        if pointer == 0 {
            return Ok(());
        }
        let run = Run {
            logical,
            length: 1,
            physical: u64::from(pointer),
            written: true,
        };
        self.push(run, u64::MAX, at)
    }
}

/// An error at a block of the mapping, `None` being the inode.
fn corrupt(inode: &Inode, block: Option<u64>, reason: &str) -> ReadError {
    let place = block.map_or_else(
        || inode.place(),
        |block| format!("{}, block {block}", inode.place()),
    );
    ReadError::corrupt(place, reason)
}

/// The bytes of an entry of an extent tree's node.
fn entry_at(bytes: &[u8], index: u16) -> Option<&[u8]> {
    let start = ExtentHeader::SIZE.checked_add(usize::from(index).checked_mul(Extent::SIZE)?)?;
    bytes.get(start..start.checked_add(Extent::SIZE)?)
}

fn pointers(bytes: &[u8]) -> Vec<u32> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}
