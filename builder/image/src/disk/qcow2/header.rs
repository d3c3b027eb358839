//! The header, its extensions, and what they say that the disk needs.

use std::fs::File;

use super::format::{
    BACKING_NAME_BYTES_MAX, CLUSTER_BITS, COMPRESSION_TYPE, DAMAGED, DATA_FILE, DIRTY, EXTENDED_L2,
    EXTENSION_BACKING_FORMAT, EXTENSION_BITMAPS, EXTENSION_DATA_FILE, EXTENSION_END,
    EXTENSION_FEATURE_NAMES, FEATURE_NAME_BYTES, HEADER_2_BYTES, HEADER_3_BYTES, L1_BYTES_MAX,
    MAGIC, SNAPSHOTS_MAX, SUBCLUSTERS_CLUSTER_BITS_MIN, u32_at, u64_at,
};
use super::{corrupt, limit, unsupported};
use crate::disk::DiskError;
use crate::disk::layer::{read_exact, size_of};
use crate::disk::unpack::Codec;

/// What a header says, checked as far as it goes by itself.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) file_bytes: u64,
    pub(super) cluster_bits: u32,
    /// Of the disk.
    pub(super) size_bytes: u64,
    pub(super) l1_offset: u64,
    /// Entries of the first level that the disk's size needs.
    pub(super) l1_entries: u64,
    pub(super) snapshots: u32,
    pub(super) snapshots_offset: u64,
    pub(super) is_dirty: bool,
    pub(super) has_subclusters: bool,
    pub(super) codec: Codec,
    pub(super) bitmaps: u32,
    pub(super) backing: Option<String>,
    pub(super) backing_format: Option<String>,
    /// The data file's name; empty where there is one without a name.
    pub(super) data_file: Option<String>,
}

impl Header {
    pub(super) fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Size of a second-level entry in bytes.
    pub(super) fn entry_bytes(&self) -> u64 {
        if self.has_subclusters { 16 } else { 8 }
    }

    /// Bytes of the disk that one second-level table describes.
    pub(super) fn table_spans(&self) -> u64 {
        self.cluster_bytes() / self.entry_bytes() * self.cluster_bytes()
    }

    pub(super) fn read(file: &File) -> Result<Self, DiskError> {
        let file_bytes = size_of(file)?;
        let head = head(file, file_bytes)?;
        if head.len() < usize::try_from(HEADER_2_BYTES).unwrap_or(0) || !head.starts_with(&MAGIC) {
            return Err(corrupt("its header", "it is cut short"));
        }
        let version = u32_at(&head, 4);
        if !matches!(version, 2 | 3) {
            return Err(unsupported(format!("version {version}")));
        }
        match u32_at(&head, 32) {
            0 => {}
            1 => return Err(unsupported("encryption (AES)")),
            2 => return Err(unsupported("encryption (LUKS)")),
            other => return Err(unsupported(format!("encryption of method {other}"))),
        }
        let cluster_bits = u32_at(&head, 20);
        if !CLUSTER_BITS.contains(&cluster_bits) {
            let what = format!("clusters of 2^{cluster_bits} bytes are impossible");
            return Err(corrupt("its header", what));
        }
        let mut header = Self {
            version,
            file_bytes,
            cluster_bits,
            size_bytes: u64_at(&head, 24),
            l1_offset: u64_at(&head, 40),
            l1_entries: 0,
            snapshots: u32_at(&head, 60),
            snapshots_offset: u64_at(&head, 64),
            is_dirty: false,
            has_subclusters: false,
            codec: Codec::Deflate,
            bitmaps: 0,
            backing: None,
            backing_format: None,
            data_file: None,
        };
        if header.snapshots > SNAPSHOTS_MAX {
            let what = format!("{} snapshots", header.snapshots);
            return Err(limit(what, SNAPSHOTS_MAX.into()));
        }
        header.extensions(&head)?;
        header.features(&head)?;
        header.check_size(u32_at(&head, 36))?;
        header.backing = backing_name(file, &head, header.cluster_bytes())?;
        Ok(header)
    }

    /// What newer versions have.
    fn features(&mut self, head: &[u8]) -> Result<(), DiskError> {
        if self.version == 2 {
            self.data_file = None;
            return Ok(());
        }
        let features = u64_at(head, 72);
        let known = DIRTY | DAMAGED | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;
        if features & !known != 0 {
            let bit = (features & !known).trailing_zeros();
            return Err(unsupported(feature_name(head, bit)));
        }
        if features & DAMAGED != 0 {
            let what = "it is marked as damaged; qemu-img check -r all may repair it";
            return Err(corrupt("its header", what));
        }
        self.is_dirty = features & DIRTY != 0;
        self.has_subclusters = features & EXTENDED_L2 != 0;
        if self.has_subclusters && self.cluster_bits < SUBCLUSTERS_CLUSTER_BITS_MIN {
            let what = format!("clusters of 2^{} bytes have no parts", self.cluster_bits);
            return Err(corrupt("its header", what));
        }
        match (features & DATA_FILE != 0, &self.data_file) {
            (true, None) => self.data_file = Some(String::new()),
            (false, Some(_)) => self.data_file = None,
            _ => {}
        }
        // Headers of before that field are shorter, or have zeroes there.
        let kind = match header_length(head) {
            HEADER_3_BYTES => 0,
            _ => head.get(104).copied().unwrap_or(0),
        };
        self.codec = match (kind, features & COMPRESSION_TYPE != 0) {
            (0, false) => Codec::Deflate,
            (1, true) => Codec::Zstd,
            (0 | 1, _) => return Err(corrupt("its header", "two words on compression differ")),
            (other, _) => return Err(unsupported(format!("compression of type {other}"))),
        };
        Ok(())
    }

    fn check_size(&mut self, l1_entries: u32) -> Result<(), DiskError> {
        let size = self.size_bytes;
        if !size.is_multiple_of(512) || i64::try_from(size).is_err() {
            let what = format!("a size of {size} bytes is impossible");
            return Err(corrupt("its header", what));
        }
        self.l1_entries = size.div_ceil(self.table_spans());
        if self.l1_entries > L1_BYTES_MAX / 8 {
            let what = format!("a first-level table of {} entries", self.l1_entries);
            return Err(limit(what, L1_BYTES_MAX / 8));
        }
        if u64::from(l1_entries) < self.l1_entries {
            let what = format!("{l1_entries} entries are too few for {size} bytes of disk");
            return Err(corrupt(super::L1_PLACE, what));
        }
        let end = self.l1_offset.checked_add(self.l1_entries * 8);
        let is_whole = self.l1_offset.is_multiple_of(self.cluster_bytes());
        if !is_whole || end.is_none_or(|end| end > self.file_bytes) {
            let what = format!("it cannot be at byte {}", self.l1_offset);
            return Err(corrupt(super::L1_PLACE, what));
        }
        Ok(())
    }

    /// Reads the extensions in the first cluster.
    fn extensions(&mut self, head: &[u8]) -> Result<(), DiskError> {
        walk_extensions(head, self.cluster_bits, |kind, bytes| {
            match kind {
                EXTENSION_BACKING_FORMAT => {
                    self.backing_format = Some(text("the backing file's format", bytes)?);
                }
                EXTENSION_BITMAPS => self.bitmaps = u32_at(bytes, 0),
                EXTENSION_DATA_FILE => {
                    self.data_file = Some(text("the data file's name", bytes)?);
                }
                _ => {}
            }
            Ok(())
        })
    }
}

/// Bytes that have every header and the extensions that coop knows.
const HEAD_BYTES: u64 = 64 << 10;

fn head(file: &File, file_bytes: u64) -> Result<Vec<u8>, DiskError> {
    let length = file_bytes.min(HEAD_BYTES);
    let mut head = vec![0; usize::try_from(length).unwrap_or(0)];
    read_exact(file, &mut head, 0)?;
    Ok(head)
}

fn header_length(head: &[u8]) -> u32 {
    match u32_at(head, 4) {
        2 => HEADER_2_BYTES,
        _ => u32_at(head, 100),
    }
}

fn walk_extensions(
    head: &[u8],
    cluster_bits: u32,
    mut each: impl FnMut(u32, &[u8]) -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    let length = header_length(head);
    let cluster_bytes = 1_usize << cluster_bits;
    let head = head.get(..cluster_bytes).unwrap_or(head);
    let minimum = match u32_at(head, 4) {
        2 => HEADER_2_BYTES,
        _ => HEADER_3_BYTES,
    };
    let mut at = usize::try_from(length).unwrap_or(usize::MAX);
    if length < minimum || !length.is_multiple_of(8) || at > head.len() {
        return Err(corrupt(
            "its header",
            format!("a length of {length} bytes is impossible"),
        ));
    }
    // Each one moves on by 8 bytes at least.
    while head.len() - at >= 8 {
        let kind = u32_at(head, at);
        if kind == EXTENSION_END {
            return Ok(());
        }
        let length = usize::try_from(u32_at(head, at + 4)).unwrap_or(usize::MAX);
        let start = at + 8;
        let Some(bytes) = start
            .checked_add(length)
            .and_then(|end| head.get(start..end))
        else {
            let what = "an extension does not fit into it";
            return Err(corrupt("its header", what));
        };
        each(kind, bytes)?;
        at = (start + length.next_multiple_of(8)).min(head.len());
    }
    Ok(())
}

/// What the disk itself calls an incompatible feature.
fn feature_name(head: &[u8], bit: u32) -> String {
    let mut name = None;
    // Damage shows elsewhere: this is only about a name.
    let _ = walk_extensions(head, u32_at(head, 20), |kind, bytes| {
        if kind == EXTENSION_FEATURE_NAMES {
            let entries = bytes.chunks_exact(FEATURE_NAME_BYTES);
            let mut entries = entries.filter(|entry| entry[0] == 0 && u32::from(entry[1]) == bit);
            name = entries.next().map(|entry| {
                let text = entry[2..].split(|byte| *byte == 0).next();
                crate::tree::display(text.unwrap_or_default())
            });
        }
        Ok(())
    });
    match name {
        Some(name) => format!("feature {bit} ('{name}')"),
        None => format!("feature {bit}"),
    }
}

fn backing_name(file: &File, head: &[u8], cluster_bytes: u64) -> Result<Option<String>, DiskError> {
    let (offset, length) = (u64_at(head, 8), u32_at(head, 16));
    if offset == 0 {
        return Ok(None);
    }
    let end = offset.checked_add(length.into());
    if length > BACKING_NAME_BYTES_MAX || end.is_none_or(|end| end > cluster_bytes) {
        let what = format!("{length} bytes at byte {offset} are impossible");
        return Err(corrupt("the backing file's name", what));
    }
    if length == 0 {
        return Ok(None);
    }
    let mut name = vec![0; usize::try_from(length).unwrap_or(0)];
    read_exact(file, &mut name, offset)?;
    text("the backing file's name", &name).map(Some)
}

fn text(place: &str, bytes: &[u8]) -> Result<String, DiskError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(corrupt(place, "it is no text")),
    }
}
