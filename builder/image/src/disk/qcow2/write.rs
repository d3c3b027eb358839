//! Writing version 3: from the first byte to the last, with the tables' clusters where their first
//! use was, and the reference counts at the end.
//!
//! Header and first-level table come first, then each second-level table before its data. Clusters
//! of zeroes have no data: they are marked as zeroes, or there is no second-level table for them.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::format::{
    CLUSTER_BITS, COPIED, HEADER_3_BYTES, L1_BYTES_MAX, MAGIC, REFCOUNT_ORDER,
    REFCOUNT_TABLE_BYTES_MAX, ZERO,
};
use crate::disk::write::{is_zero, read_piece};
use crate::disk::{DiskError, ExtentKind, Extents, Source, Written, as_u64};

/// Guests count in sectors, so that the size of a disk is a multiple of this.
const SECTOR_BYTES: u64 = 512;
/// Bytes that are read at a time, at most; a multiple of every size of cluster.
const PIECE_BYTES: u64 = 2 << 20;
/// Entries of a table that are written at a time, at most.
const ENTRIES_MAX: usize = 32 << 10;

/// How a qcow2 shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qcow2Options {
    /// Size of a cluster in bytes: a power of two from 512 to 2 MiB. Small ones follow holes more
    /// closely and make disks of many GiB impossible.
    pub cluster_bytes: u32,
}

impl Default for Qcow2Options {
    /// QEMU's usual 64 KiB.
    fn default() -> Self {
        Self {
            cluster_bytes: 64 << 10,
        }
    }
}

/// Writes the source's bytes as a qcow2 of version 3 to `output`, which has to be empty. Zeroes fill
/// the last sector. The same bytes give the same file, however the source is stored. Memory: some
/// MiB and the first-level table, 8 bytes for each 512 MiB of disk at the usual size of clusters.
/// Does not sync.
///
/// # Errors
/// The size of clusters is none, or too small for the disk; the source is damaged; one of both
/// cannot be read or written. `output` may have a part then.
pub fn write_qcow2(
    source: &dyn Source,
    output: &File,
    options: &Qcow2Options,
) -> Result<Written, DiskError> {
    let mut writer = Writer::new(source.size_bytes(), output, options)?;
    let mut buffer = vec![0; usize::try_from(PIECE_BYTES).unwrap_or(0)];
    let mut done = 0;
    for extent in Extents::new(source) {
        let extent = extent?;
        if extent.kind == ExtentKind::Hole {
            continue;
        }
        // Clusters are whole, though extents may not be; what is done is not done twice.
        let cluster_bytes = writer.cluster_bytes;
        let mut at = (extent.offset - extent.offset % cluster_bytes).max(done);
        let end = extent.end().next_multiple_of(cluster_bytes);
        while at < end {
            let length = (end - at).min(PIECE_BYTES - at % PIECE_BYTES);
            let there = length.min(source.size_bytes() - at);
            let there = usize::try_from(there).unwrap_or(0);
            let piece = &mut buffer[..usize::try_from(length).unwrap_or(0)];
            read_piece(source, &mut piece[..there], at)?;
            piece[there..].fill(0);
            writer.piece(piece, at)?;
            at += length;
            done = at;
        }
    }
    writer.finish()
}

struct Writer<'f> {
    output: &'f File,
    size_bytes: u64,
    cluster_bytes: u64,
    /// Bytes of disk that one second-level table describes.
    table_spans: u64,
    l1: Vec<u64>,
    /// The second-level table that is being filled: its place in the first level, and entries.
    table: Option<(usize, Vec<u64>)>,
    /// Where the next cluster goes.
    end: u64,
    data_bytes: u64,
}

impl<'f> Writer<'f> {
    fn new(size_bytes: u64, output: &'f File, options: &Qcow2Options) -> Result<Self, DiskError> {
        let invalid = |what: String| DiskError::Invalid(what);
        let cluster_bytes = u64::from(options.cluster_bytes);
        if !cluster_bytes.is_power_of_two() || !CLUSTER_BITS.contains(&cluster_bytes.ilog2()) {
            let what = "is no power of two from 512 to 2097152";
            return Err(invalid(format!(
                "a cluster of {cluster_bytes} bytes {what}"
            )));
        }
        let table_spans = cluster_bytes * (cluster_bytes / 8);
        let rounded = size_bytes.checked_next_multiple_of(SECTOR_BYTES);
        let count = |rounded: u64| rounded.div_ceil(table_spans).max(1);
        let fits = |rounded: &u64| count(*rounded) <= L1_BYTES_MAX / 8;
        let size_bytes = rounded.filter(fits).ok_or_else(|| {
            invalid(format!(
                "a disk of {size_bytes} bytes is too large for clusters of {cluster_bytes} bytes"
            ))
        })?;
        let l1 = vec![0; usize::try_from(count(size_bytes)).unwrap_or(0)];
        let l1_bytes = (as_u64(l1.len()) * 8).next_multiple_of(cluster_bytes);
        Ok(Self {
            output,
            size_bytes,
            cluster_bytes,
            table_spans,
            l1,
            table: None,
            end: cluster_bytes + l1_bytes,
            data_bytes: 0,
        })
    }

    /// Writes the clusters of a piece that are not zero.
    fn piece(&mut self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let cluster = usize::try_from(self.cluster_bytes).unwrap_or(usize::MAX);
        let used = |start: usize| {
            let bytes = bytes.get(start..start + cluster);
            bytes.is_some_and(|bytes| !is_zero(bytes))
        };
        let mut start = 0;
        while start < bytes.len() {
            if !used(start) {
                start += cluster;
                continue;
            }
            // As many clusters as are neighbours here and there.
            let at = offset + as_u64(start);
            self.enter(at)?;
            let first = self.end;
            let mut end = start;
            let border = (at / self.table_spans + 1) * self.table_spans;
            while used(end) && offset + as_u64(end) < border {
                self.map(offset + as_u64(end));
                end += cluster;
            }
            self.put(&bytes[start..end], first)?;
            self.data_bytes += as_u64(end - start);
            start = end;
        }
        Ok(())
    }

    /// Makes the table for `offset` the one that is being filled.
    fn enter(&mut self, offset: u64) -> Result<(), DiskError> {
        let index = usize::try_from(offset / self.table_spans).unwrap_or(usize::MAX);
        if self.table.as_ref().is_some_and(|(at, _)| *at == index) {
            return Ok(());
        }
        self.leave()?;
        self.l1[index] = self.end | COPIED;
        self.end += self.cluster_bytes;
        let entries = usize::try_from(self.cluster_bytes / 8).unwrap_or(0);
        self.table = Some((index, vec![ZERO; entries]));
        Ok(())
    }

    /// Writes the table that is being filled.
    fn leave(&mut self) -> Result<(), DiskError> {
        let Some((index, mut entries)) = self.table.take() else {
            return Ok(());
        };
        // Nothing lies behind the disk's end.
        let start = as_u64(index) * self.table_spans;
        let clusters = (self.size_bytes - start).div_ceil(self.cluster_bytes);
        let inside = usize::try_from(clusters).unwrap_or(usize::MAX);
        for entry in entries.iter_mut().skip(inside) {
            *entry = 0;
        }
        self.put_entries(&entries, self.l1[index] & !COPIED)
    }

    fn map(&mut self, offset: u64) {
        let slot = offset % self.table_spans / self.cluster_bytes;
        if let Some((_, entries)) = &mut self.table {
            entries[usize::try_from(slot).unwrap_or(usize::MAX)] = self.end | COPIED;
        }
        self.end += self.cluster_bytes;
    }

    fn put(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let failed = |source| DiskError::Write { offset, source };
        self.output.write_all_at(bytes, offset).map_err(failed)
    }

    /// Writes a table, a piece at a time: that of the first level may have 32 MiB.
    fn put_entries(&self, entries: &[u64], offset: u64) -> Result<(), DiskError> {
        let mut at = offset;
        for piece in entries.chunks(ENTRIES_MAX) {
            let bytes: Vec<u8> = piece.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            self.put(&bytes, at)?;
            at += as_u64(bytes.len());
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Written, DiskError> {
        self.leave()?;
        self.put_entries(&self.l1, self.cluster_bytes)?;
        let counts = Counts::of(self.end, self.cluster_bytes);
        if counts.table * self.cluster_bytes > REFCOUNT_TABLE_BYTES_MAX {
            return Err(DiskError::Invalid(format!(
                "{} bytes of data are too many for clusters of {} bytes",
                self.data_bytes, self.cluster_bytes
            )));
        }
        self.put_counts(&counts)?;
        self.put(&self.header(&counts), 0)?;
        let length = counts.clusters * self.cluster_bytes;
        let failed = |source| DiskError::Write {
            offset: length,
            source,
        };
        self.output.set_len(length).map_err(failed)?;
        Ok(Written {
            size_bytes: self.size_bytes,
            data_bytes: self.data_bytes,
        })
    }

    /// Every cluster has one user: blocks with ones for them, and the table that finds the blocks.
    fn put_counts(&self, counts: &Counts) -> Result<(), DiskError> {
        let blocks_at = self.end + counts.table * self.cluster_bytes;
        let per_block = self.cluster_bytes / 2;
        let mut table = Vec::new();
        for index in 0..counts.blocks {
            let at = blocks_at + index * self.cluster_bytes;
            table.push(at);
            let used = per_block.min(counts.clusters - index * per_block);
            let used = usize::try_from(used).unwrap_or(0);
            let mut block = [0_u8, 1].repeat(used);
            block.resize(usize::try_from(self.cluster_bytes).unwrap_or(0), 0);
            self.put(&block, at)?;
        }
        self.put_entries(&table, self.end)
    }

    fn header(&self, counts: &Counts) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let cluster_bits = self.cluster_bytes.ilog2();
        let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let four = |bytes: &mut Vec<u8>, number: u32| bytes.extend(number.to_be_bytes());
        let eight = |bytes: &mut Vec<u8>, number: u64| bytes.extend(number.to_be_bytes());
        four(&mut bytes, 3);
        // No backing file: offset and length of its name.
        eight(&mut bytes, 0);
        four(&mut bytes, 0);
        four(&mut bytes, cluster_bits);
        eight(&mut bytes, self.size_bytes);
        // No encryption.
        four(&mut bytes, 0);
        four(&mut bytes, short(as_u64(self.l1.len())));
        eight(&mut bytes, self.cluster_bytes);
        eight(&mut bytes, self.end);
        four(&mut bytes, short(counts.table));
        // No snapshots: how many, and where.
        four(&mut bytes, 0);
        eight(&mut bytes, 0);
        // No features: incompatible, compatible, automatically cleared.
        for _ in 0..3 {
            eight(&mut bytes, 0);
        }
        four(&mut bytes, REFCOUNT_ORDER);
        four(&mut bytes, HEADER_3_BYTES);
        bytes
    }
}

/// How many clusters the reference counts need, their own among those that are counted.
struct Counts {
    blocks: u64,
    table: u64,
    /// All clusters of the file.
    clusters: u64,
}

impl Counts {
    fn of(end: u64, cluster_bytes: u64) -> Self {
        let others = end / cluster_bytes;
        let mut counts = Self {
            blocks: 1,
            table: 1,
            clusters: others + 2,
        };
        loop {
            let blocks = counts.clusters.div_ceil(cluster_bytes / 2);
            let table = (blocks * 8).div_ceil(cluster_bytes);
            if (blocks, table) == (counts.blocks, counts.table) {
                return counts;
            }
            counts = Self {
                blocks,
                table,
                clusters: others + blocks + table,
            };
        }
    }
}
