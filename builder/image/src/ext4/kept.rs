//! What of the content that was written before the layout was known can stay where it is.
//!
//! A [`super::Stream`] writes content as it arrives, at *places* counted in bytes without gaps.
//! A [`Track`] says where in the image a place is: everywhere but where superblocks and
//! descriptors of any number of groups will be. Afterwards the tree says which of it is in use.

use super::geometry::{Run, merge, super_groups};
use super::options::BlockSize;
use super::scan::{Chunk, Scan, chunks};
use crate::tree::{BlobId, Content, Kind};

/// Where content goes that arrives before the number of groups is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Track {
    block_bytes: u64,
    gdt_blocks: u64,
    /// (first place, first block) of the spans between superblocks, in blocks; rising.
    spans: Vec<(u64, u64)>,
}

impl Track {
    /// A track around superblocks with `gdt_blocks` blocks of descriptors and their reserve in a
    /// file system of at most `blocks`.
    pub(crate) fn new(block_size: BlockSize, blocks: u64, gdt_blocks: u64) -> Self {
        let block_bytes = u64::from(block_size.bytes());
        let per_group = block_bytes * 8;
        let first = u64::from(block_size == BlockSize::Kib1);
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for group in super_groups(blocks.div_ceil(per_group)) {
            let start = first + group * per_group;
            let place = spans
                .last()
                .map_or(0, |(place, block)| place + (start - block));
            spans.push((place, start + 1 + gdt_blocks));
        }
        Self {
            block_bytes,
            gdt_blocks,
            spans,
        }
    }

    /// The block of a place, and how many blocks from there on follow each other; both in blocks.
    pub(crate) fn block(&self, place: u64) -> Run {
        let after = self.spans.partition_point(|(start, _)| *start <= place);
        let (start, block) = match after.checked_sub(1) {
            Some(at) => self.spans[at],
            None => (0, 0),
        };
        let end = self.spans.get(after).map_or(u64::MAX, |(next, _)| *next);
        Run {
            start: block + (place - start),
            length: end - place,
        }
    }

    /// The runs of blocks of `count` places.
    pub(crate) fn runs(&self, place: u64, count: u64) -> impl Iterator<Item = Run> {
        let mut at = place;
        let end = place + count;
        std::iter::from_fn(move || {
            let left = end.checked_sub(at).filter(|left| *left > 0)?;
            let run = self.block(at);
            let length = run.length.min(left);
            at += length;
            Some(Run { length, ..run })
        })
    }

    /// Size of a block in bytes.
    pub(crate) fn block_bytes(&self) -> u64 {
        self.block_bytes
    }
}

/// Content that was written in one go, from the start of a block on, with zeroes behind it up to
/// the end of its last block. Both in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) place: u64,
    pub(crate) length: u64,
}

/// Everything that was written before the layout.
#[derive(Debug)]
pub(crate) struct Placed<'s> {
    /// The blob of the tree whose offsets are places.
    pub(crate) blob: BlobId,
    pub(crate) track: &'s Track,
    /// By rising place.
    pub(crate) pieces: &'s [Piece],
    /// The place after the last, in blocks.
    pub(crate) end: u64,
}

/// What stays, and what has to go.
#[derive(Debug)]
pub(crate) struct Kept {
    /// For each chunk of each file, by node: the place where it stays, in blocks.
    places: Vec<Option<u64>>,
    /// Blocks that the track leaves for descriptors and their reserve.
    pub(crate) gdt_blocks_max: u64,
    pub(crate) track: Track,
    /// Blocks of content that stays; sorted, merged.
    pub(crate) staying: Vec<Run>,
    /// Blocks that nobody may have: what stays, and what has to be copied; sorted, merged.
    pub(crate) taken: Vec<Run>,
    /// Blocks that hold something that nobody needs.
    pub(crate) stale: Vec<Run>,
    /// Blocks whose content will be copied elsewhere.
    pub(crate) leaving: Vec<Run>,
}

impl Kept {
    /// Nothing was written before.
    pub(crate) fn nothing() -> Self {
        Self {
            places: Vec::new(),
            gdt_blocks_max: u64::MAX,
            track: Track::default(),
            staying: Vec::new(),
            taken: Vec::new(),
            stale: Vec::new(),
            leaving: Vec::new(),
        }
    }

    /// Looks for each chunk whether it can stay: it does where its bytes lie together, from the
    /// start of a block on, with nothing but zeroes behind them, and no chunk before it has them.
    pub(crate) fn find(scan: &Scan<'_>, placed: &Placed<'_>) -> Self {
        let block_bytes = placed.track.block_bytes();
        let mut finder = Finder {
            placed,
            staying: Bits::new(placed.end),
            leaving: Bits::new(placed.end),
        };
        let mut places = Vec::with_capacity(scan.nodes.len());
        for node in &scan.nodes {
            if let Kind::File(content) = &node.inode.kind {
                for chunk in chunks(content, block_bytes) {
                    let place = finder.place(content, &chunk);
                    if place.is_none() {
                        finder.leave(content, &chunk);
                    }
                    places.push(place);
                }
            }
        }
        let Finder {
            staying,
            mut leaving,
            ..
        } = finder;
        leaving.remove(&staying);
        let blocks = |bits: &Bits, value| {
            let places = bits.runs(value);
            merge(places.flat_map(|run| placed.track.runs(run.start, run.length)))
        };
        let (staying_runs, leaving_runs) = (blocks(&staying, true), blocks(&leaving, true));
        let taken = merge(staying_runs.iter().chain(&leaving_runs).copied());
        leaving.insert(&staying);
        Self {
            places,
            gdt_blocks_max: placed.track.gdt_blocks,
            track: placed.track.clone(),
            stale: blocks(&leaving, false),
            staying: staying_runs,
            taken,
            leaving: leaving_runs,
        }
    }

    /// Where the chunks stay, in the order of nodes and chunks; `None` for ever where nothing was
    /// written before.
    pub(crate) fn places(&self) -> impl Iterator<Item = Option<u64>> {
        self.places.iter().copied().chain(std::iter::repeat(None))
    }
}

struct Finder<'s, 'p> {
    placed: &'s Placed<'p>,
    staying: Bits,
    leaving: Bits,
}

impl Finder<'_, '_> {
    /// Claims the place of a chunk that can stay.
    fn place(&mut self, content: &Content, chunk: &Chunk) -> Option<u64> {
        let block_bytes = self.placed.track.block_bytes();
        let [segment] = &content.segments[chunk.segments.clone()] else {
            return None;
        };
        let aligned = segment.offset.is_multiple_of(block_bytes)
            && segment.blob_offset.is_multiple_of(block_bytes);
        if segment.blob != self.placed.blob || !aligned {
            return None;
        }
        let place = segment.blob_offset / block_bytes;
        let end = place.checked_add(chunk.blocks)?;
        if end > self.placed.end
            || !self.zeroes_follow(segment.blob_offset + segment.length)
            || self.staying.any(place, end)
        {
            return None;
        }
        self.staying.set(place, end);
        Some(place)
    }

    /// Whether there are only zeroes from a byte up to the end of its block.
    fn zeroes_follow(&self, end: u64) -> bool {
        if end.is_multiple_of(self.placed.track.block_bytes()) {
            return true;
        }
        let pieces = self.placed.pieces;
        let after = pieces.partition_point(|piece| piece.place < end);
        after
            .checked_sub(1)
            .is_some_and(|at| pieces[at].place + pieces[at].length <= end)
    }

    /// Marks what a chunk is copied from.
    fn leave(&mut self, content: &Content, chunk: &Chunk) {
        let block_bytes = self.placed.track.block_bytes();
        for segment in &content.segments[chunk.segments.clone()] {
            if segment.blob == self.placed.blob {
                let first = segment.blob_offset / block_bytes;
                let end = (segment.blob_offset + segment.length).div_ceil(block_bytes);
                let end = end.min(self.placed.end);
                self.leaving.set(first.min(end), end);
            }
        }
    }
}

/// A set of blocks.
struct Bits {
    words: Vec<u64>,
    length: u64,
}

impl Bits {
    fn new(length: u64) -> Self {
        // As many blocks as were written fit memory 32768 times.
        let words = usize::try_from(length.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            words: vec![0; words],
            length,
        }
    }

    /// Words with the bits of each that are in `from..to`.
    fn masks(from: u64, to: u64) -> impl Iterator<Item = (usize, u64)> {
        (from / 64..to.div_ceil(64)).map(move |word| {
            let start = word * 64;
            let low = u64::MAX << from.saturating_sub(start);
            let past = (start + 64).saturating_sub(to);
            let high = u64::MAX >> past;
            (usize::try_from(word).unwrap_or(usize::MAX), low & high)
        })
    }

    fn any(&self, from: u64, to: u64) -> bool {
        Self::masks(from, to).any(|(word, mask)| self.words[word] & mask != 0)
    }

    fn set(&mut self, from: u64, to: u64) {
        for (word, mask) in Self::masks(from, to) {
            self.words[word] |= mask;
        }
    }

    fn insert(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    fn remove(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
    }

    /// Runs of bits that are `value`.
    fn runs(&self, value: bool) -> impl Iterator<Item = Run> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.find(at, value)?;
            let end = self.find(start, !value).unwrap_or(self.length);
            at = end;
            Some(Run {
                start,
                length: end - start,
            })
        })
    }

    /// The first bit from `at` on that is `value`.
    fn find(&self, at: u64, value: bool) -> Option<u64> {
        let flip = if value { 0 } else { u64::MAX };
        Self::masks(at, self.length)
            .map(|(word, mask)| (word, (self.words[word] ^ flip) & mask))
            .find(|(_, bits)| *bits != 0)
            .and_then(|(word, bits)| {
                Some(u64::try_from(word).ok()? * 64 + u64::from(bits.trailing_zeros()))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_leads_around_superblocks() {
        let track = Track::new(BlockSize::Kib1, 1 << 20, 10);
        assert_eq!(track.block(0).start, 12);
        assert_eq!(track.block(0).length, 8192 - 11);
        // Group 1 begins with block 8193.
        assert_eq!(track.block(8192 - 12).start, 8192);
        assert_eq!(track.block(8192 - 11).start, 8193 + 11);
        let runs: Vec<Run> = track.runs(8180, 3 * 8192).collect();
        assert_eq!(runs.iter().map(|run| run.length).sum::<u64>(), 3 * 8192);
        assert_eq!(runs.len(), 3);
        assert_eq!(runs[1].end(), 1 + 3 * 8192);
        assert_eq!(runs[2].start, 1 + 3 * 8192 + 11);
    }

    #[test]
    fn sets_of_blocks() {
        let mut bits = Bits::new(200);
        bits.set(3, 5);
        bits.set(60, 130);
        bits.set(199, 200);
        assert!(bits.any(0, 4) && !bits.any(5, 60) && !bits.any(7, 7) && bits.any(129, 199));
        let runs: Vec<_> = bits.runs(true).map(|run| (run.start, run.length)).collect();
        assert_eq!(runs, [(3, 2), (60, 70), (199, 1)]);
        let runs: Vec<_> = bits
            .runs(false)
            .map(|run| (run.start, run.length))
            .collect();
        assert_eq!(runs, [(0, 3), (5, 55), (130, 69)]);
        let mut other = Bits::new(200);
        other.set(0, 100);
        bits.remove(&other);
        let runs: Vec<_> = bits.runs(true).map(|run| (run.start, run.length)).collect();
        assert_eq!(runs, [(100, 30), (199, 1)]);
        assert_eq!(Bits::new(0).runs(false).count(), 0);
    }
}
