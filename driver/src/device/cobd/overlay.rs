//! A disk whose changes are thrown away.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::file::{FileDisk, zero_range};
use super::{Disk, DiskError};
use crate::transport::{AccessError, Readable, Writable};

/// The unit in which the overlay replaces its base, in bytes.
pub const CLUSTER_BYTES: u64 = 4096;

/// Which clusters the overlay holds: one bit each.
#[derive(Debug)]
struct Bitmap(Vec<u64>);

impl Bitmap {
    fn new(clusters: u64) -> io::Result<Self> {
        let words = usize::try_from(clusters.div_ceil(64)).map_err(io::Error::other)?;
        Ok(Self(vec![0; words]))
    }

    fn place(cluster: u64) -> (Option<usize>, u64) {
        (usize::try_from(cluster / 64).ok(), 1 << (cluster % 64))
    }

    fn has(&self, cluster: u64) -> bool {
        let (word, bit) = Self::place(cluster);
        word.and_then(|word| self.0.get(word))
            .is_some_and(|word| word & bit != 0)
    }

    fn set(&mut self, cluster: u64) {
        let (word, bit) = Self::place(cluster);
        if let Some(word) = word.and_then(|word| self.0.get_mut(word)) {
            *word |= bit;
        }
    }
}

/// A read-only base, and an unlinked sparse file with the clusters that the guest has written.
#[derive(Debug)]
pub struct Overlay {
    /// Locked against writers.
    base: FileDisk,
    changes: File,
    changed: Bitmap,
    size_bytes: u64,
}

impl Overlay {
    /// Opens an image that stays as it is; what the guest writes goes to an unlinked file in
    /// `folder`.
    ///
    /// # Errors
    /// The image cannot be used (see [`FileDisk::open_read_only`]), or the folder cannot hold a
    /// file.
    pub fn open(image: &Path, folder: &Path) -> Result<Self, DiskError> {
        let base = FileDisk::open_read_only(image)?;
        let size_bytes = base.size_bytes();
        let changes = tempfile::tempfile_in(folder)
            .and_then(|file| file.set_len(size_bytes).map(|()| file))
            .map_err(|source| DiskError::OverlayFolder {
                folder: folder.to_owned(),
                source,
            })?;
        let changed = Bitmap::new(size_bytes.div_ceil(CLUSTER_BYTES))?;
        Ok(Self {
            base,
            changes,
            changed,
            size_bytes,
        })
    }

    /// The longest run from `at` that lies wholly in the overlay, or wholly in the base.
    fn run(&self, at: u64, length: u64) -> (bool, u64) {
        let end = at.saturating_add(length);
        let first = at / CLUSTER_BYTES;
        let inside = self.changed.has(first);
        let mut cluster = first + 1;
        while cluster * CLUSTER_BYTES < end && self.changed.has(cluster) == inside {
            cluster += 1;
        }
        (inside, (cluster * CLUSTER_BYTES).min(end) - at)
    }

    /// Copies one cluster of the base, so that a part of it can be replaced.
    fn adopt(&mut self, cluster: u64) -> io::Result<()> {
        if self.changed.has(cluster) {
            return Ok(());
        }
        let at = cluster * CLUSTER_BYTES;
        let length = CLUSTER_BYTES.min(self.size_bytes.saturating_sub(at));
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.base.file().read_exact_at(&mut bytes, at)?;
        self.changes.write_all_at(&bytes, at)?;
        self.changed.set(cluster);
        Ok(())
    }

    /// Adopts the clusters that a change of this range covers in part only.
    fn adopt_edges(&mut self, at: u64, length: u64) -> io::Result<()> {
        let end = at.saturating_add(length);
        if !at.is_multiple_of(CLUSTER_BYTES) {
            self.adopt(at / CLUSTER_BYTES)?;
        }
        if !end.is_multiple_of(CLUSTER_BYTES) && end != self.size_bytes {
            self.adopt(end / CLUSTER_BYTES)?;
        }
        Ok(())
    }

    fn mark(&mut self, at: u64, length: u64) {
        let end = at.saturating_add(length);
        for cluster in at / CLUSTER_BYTES..end.div_ceil(CLUSTER_BYTES) {
            self.changed.set(cluster);
        }
    }
}

impl Disk for Overlay {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, at: u64, target: Writable<'_>) -> Result<(), AccessError> {
        let (mut at, mut rest) = (at, target);
        while !rest.is_empty() {
            let length = u64::try_from(rest.len()).map_err(io::Error::other)?;
            let (changed, run) = self.run(at, length);
            let (now, later) = rest.split_at(usize::try_from(run).map_err(io::Error::other)?)?;
            let file = if changed {
                &self.changes
            } else {
                self.base.file()
            };
            now.read_from_file(file, at)?;
            at = at.saturating_add(run);
            rest = later;
        }
        Ok(())
    }

    fn write(&mut self, at: u64, source: Readable<'_>) -> Result<(), AccessError> {
        let length = u64::try_from(source.len()).map_err(io::Error::other)?;
        self.adopt_edges(at, length)?;
        source.write_to_file(&self.changes, at)?;
        self.mark(at, length);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Nothing of it is to outlive even this process.
        Ok(())
    }

    fn discard(&mut self, at: u64, length: u64) -> io::Result<()> {
        self.write_zeroes(at, length, true)
    }

    fn write_zeroes(&mut self, at: u64, length: u64, _unmap: bool) -> io::Result<()> {
        self.adopt_edges(at, length)?;
        zero_range(&self.changes, at, length, true)?;
        self.mark(at, length);
        Ok(())
    }
}
