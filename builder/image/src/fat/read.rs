//! Reading an image into a tree whose content points into the image.
//!
//! Nothing of the image is trusted: every chain is followed with all clusters that other chains have
//! taken in mind, so that circles and cross-links end it, and its length must be what its entry says.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::geometry::{FIRST_CLUSTER, Geometry};
use super::name::{self, ShortName};
use super::time::Stamp;
use super::{ENTRY_BYTES, FOLDER_ENTRIES_MAX, FatError, FatType, Uniform, attribute};
use crate::numbers::{u16_at, u32_at};
use crate::tree::{
    Blob, BlobId, Content, Entries, Inode, InodeId, Kind, Metadata, Segment, Times, Tree, display,
    read_exact_at,
};

/// The tables are read in pieces of this many bytes: a multiple of 3 and 4, so that no number is
/// cut.
const WINDOW_BYTES: u64 = 48 << 10;

/// How an image is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The owner and modes that everything gets.
    pub permissions: Uniform,
}

/// A volume.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Width of its table.
    pub fat_type: FatType,
    /// Size of a cluster in bytes.
    pub cluster_bytes: u64,
    /// Identifies the volume; 0 where it has no identity.
    pub volume_id: u32,
    /// The label in the root folder; empty where there is none.
    pub label: String,
    /// Whether it was in use when it was last written.
    pub is_dirty: bool,
    /// What is in it. The root has no time.
    pub tree: Tree,
}

/// Reads the FAT volume that `image`, of `size_bytes`, begins with.
///
/// Hidden, system and archive flags are not kept.
///
/// # Errors
/// No FAT, damage, or the image cannot be read.
pub fn read(
    image: Arc<dyn Blob>,
    size_bytes: u64,
    options: &ReadOptions,
) -> Result<Volume, FatError> {
    let mut boot = [0; 512];
    if size_bytes < 512 {
        return Err(FatError::NotFat("it is shorter than a boot sector"));
    }
    read_at(&*image, &mut boot, 0)?;
    let boot = Boot::decode(&boot, size_bytes)?;
    let mut tree = Tree::new(Metadata {
        mode: options.permissions.directory_mode,
        uid: options.permissions.uid,
        gid: options.permissions.gid,
        ..Metadata::default()
    });
    let blob = tree.add_blob(Arc::clone(&image))?;
    let mut reader = Reader {
        image: &*image,
        blob,
        geometry: boot.geometry,
        active_fat: boot.active_fat,
        window: Vec::new(),
        window_at: u64::MAX,
        taken: BTreeMap::new(),
        uniform: options.permissions,
        tree,
        label: String::new(),
    };
    let is_dirty = boot.is_dirty || reader.is_dirty()?;
    reader.walk(boot.root_cluster)?;
    Ok(Volume {
        fat_type: boot.geometry.fat_type,
        cluster_bytes: boot.geometry.cluster_bytes(),
        volume_id: boot.volume_id,
        label: reader.label,
        is_dirty,
        tree: reader.tree,
    })
}

fn read_at(image: &dyn Blob, buffer: &mut [u8], offset: u64) -> Result<(), FatError> {
    read_exact_at(image, buffer, offset).map_err(|source| FatError::Read { offset, source })
}

/// What a boot sector says, checked.
struct Boot {
    geometry: Geometry,
    root_cluster: u32,
    active_fat: u64,
    volume_id: u32,
    is_dirty: bool,
}

impl Boot {
    fn decode(boot: &[u8; 512], size_bytes: u64) -> Result<Self, FatError> {
        let wide = |at: usize| u64::from(u16_at(boot, at));
        let not = |reason| Err(FatError::NotFat(reason));
        if u16_at(boot, 510) != 0xAA55 || !matches!(boot[0], 0xEB | 0xE9) || boot[21] < 0xF0 {
            return not("there is no boot sector");
        }
        let is_fat32 = u16_at(boot, 22) == 0;
        let either = |small: u64, large: usize| match small {
            0 => u64::from(u32_at(boot, large)),
            small => small,
        };
        let mut geometry = Geometry {
            fat_type: FatType::Fat32,
            sector_bytes: wide(11),
            cluster_sectors: u64::from(boot[13]),
            total_sectors: either(wide(19), 32),
            reserved_sectors: wide(14),
            fats: u64::from(boot[16]),
            fat_sectors: either(wide(22), 36),
            root_entries: wide(17),
            clusters: 0,
        };
        if !matches!(geometry.sector_bytes, 512 | 1024 | 2048 | 4096) {
            return not("the size of its sectors is impossible");
        }
        if !geometry.cluster_sectors.is_power_of_two() || geometry.reserved_sectors == 0 {
            return not("the size of its clusters is impossible");
        }
        if !(1..=4).contains(&geometry.fats) || geometry.fat_sectors == 0 {
            return not("it has no tables");
        }
        if geometry.size_bytes() > size_bytes {
            return not("the image is shorter than the volume");
        }
        let sectors = geometry.size_bytes().checked_sub(geometry.data_byte());
        let clusters = sectors.unwrap_or(0) / geometry.cluster_bytes();
        if clusters == 0 {
            return not("it has no clusters");
        }
        geometry.fat_type = match clusters {
            _ if is_fat32 => FatType::Fat32,
            0..=4084 => FatType::Fat12,
            _ => FatType::Fat16,
        };
        let numbers = geometry.fat_sectors * geometry.sector_bytes * 8 / geometry.fat_type.bits();
        // As for Linux, clusters that the tables have no number for are not there.
        geometry.clusters = clusters.min(numbers.saturating_sub(2));
        if geometry.clusters > geometry.fat_type.clusters_max() {
            return not("it has too many clusters for its tables");
        }
        if is_fat32 != (geometry.root_entries == 0) {
            return not("it has no room for a root folder, or two");
        }
        let extended = if is_fat32 { 64 } else { 36 };
        let mut active_fat = 0;
        if is_fat32 {
            if u16_at(boot, 42) != 0 {
                return not("its version is not 0.0");
            }
            let flags = u16_at(boot, 40);
            if flags & 0x80 != 0 {
                active_fat = u64::from(flags & 0x0F);
            }
            if active_fat >= geometry.fats {
                return not("the table in use does not exist");
            }
        }
        let has_identity = matches!(boot[extended + 2], 0x28 | 0x29);
        Ok(Self {
            geometry,
            root_cluster: if is_fat32 { u32_at(boot, 44) } else { 0 },
            active_fat,
            volume_id: if has_identity {
                u32_at(boot, extended + 3)
            } else {
                0
            },
            is_dirty: boot[extended + 1] & 1 != 0,
        })
    }
}

/// Clusters from the first to before the second.
type Run = (u32, u32);

/// A folder that is to be read: what it is in the tree, its path, and its first cluster.
type Pending = (InodeId, Vec<u8>, u32);

struct Reader<'a> {
    image: &'a dyn Blob,
    blob: BlobId,
    geometry: Geometry,
    active_fat: u64,
    window: Vec<u8>,
    window_at: u64,
    /// The runs of all chains so far: first cluster to the one behind.
    taken: BTreeMap<u32, u32>,
    uniform: Uniform,
    tree: Tree,
    label: String,
}

fn corrupt(path: &[u8], reason: impl ToString) -> FatError {
    FatError::Corrupt {
        path: display(path),
        reason: reason.to_string(),
    }
}

/// The number of a cluster in the table, or what else may stand there.
enum Next {
    Cluster(u32),
    End,
    Wrong,
}

impl Reader<'_> {
    fn walk(&mut self, root_cluster: u32) -> Result<(), FatError> {
        let root = if self.geometry.fat_type == FatType::Fat32 {
            self.folder_bytes(b"/", root_cluster)?
        } else {
            let length = self.geometry.root_entries * ENTRY_BYTES as u64;
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            read_at(self.image, &mut bytes, self.geometry.root_byte())?;
            bytes
        };
        let mut pending = Vec::new();
        self.folder(InodeId::ROOT, b"", &root, &mut pending)?;
        while let Some((id, path, cluster)) = pending.pop() {
            let bytes = self.folder_bytes(&path, cluster)?;
            self.folder(id, &path, &bytes, &mut pending)?;
        }
        Ok(())
    }

    fn folder_bytes(&mut self, path: &[u8], cluster: u32) -> Result<Vec<u8>, FatError> {
        let most = u64::try_from(FOLDER_ENTRIES_MAX * ENTRY_BYTES).unwrap_or(u64::MAX);
        let limit = most.div_ceil(self.geometry.cluster_bytes());
        let runs = self.chain(path, cluster, limit, false)?;
        let mut bytes = Vec::new();
        for (first, end) in runs {
            let length = u64::from(end - first) * self.geometry.cluster_bytes();
            let start = bytes.len();
            let length = usize::try_from(length).unwrap_or(0);
            bytes.resize(start + length, 0);
            let offset = self.geometry.cluster_byte(first);
            read_at(self.image, &mut bytes[start..], offset)?;
        }
        Ok(bytes)
    }

    /// Follows a chain of at most, or exactly, so many clusters.
    fn chain(
        &mut self,
        path: &[u8],
        first: u32,
        clusters: u64,
        is_exact: bool,
    ) -> Result<Vec<Run>, FatError> {
        let mut runs = Vec::new();
        let mut run = (first, first);
        let mut next = first;
        let mut count = 0;
        loop {
            let behind = u64::from(FIRST_CLUSTER) + self.geometry.clusters;
            if next < FIRST_CLUSTER || u64::from(next) >= behind {
                return Err(corrupt(path, format!("cluster {next} does not exist")));
            }
            count += 1;
            if count > clusters {
                return Err(corrupt(path, "its chain of clusters is too long"));
            }
            if next != run.1 {
                self.take(path, run)?;
                runs.push(run);
                run = (next, next);
            }
            run.1 = next + 1;
            match self.next(next)? {
                Next::Cluster(number) => next = number,
                Next::End => break,
                Next::Wrong => {
                    let what = format!("its chain leads to free or bad cluster behind {next}");
                    return Err(corrupt(path, what));
                }
            }
        }
        self.take(path, run)?;
        runs.push(run);
        if is_exact && count < clusters {
            return Err(corrupt(path, "its chain of clusters is too short"));
        }
        Ok(runs)
    }

    /// Notes that a run is in use.
    fn take(&mut self, path: &[u8], (first, end): Run) -> Result<(), FatError> {
        let before = self.taken.range(..end).next_back();
        if let Some((_, behind)) = before.filter(|(_, behind)| **behind > first) {
            let cluster = first.max(behind.saturating_sub(1).min(end - 1));
            return Err(corrupt(path, format!("cluster {cluster} is used twice")));
        }
        self.taken.insert(first, end);
        Ok(())
    }

    /// What the table has for a cluster.
    fn next(&mut self, cluster: u32) -> Result<Next, FatError> {
        let bits = self.geometry.fat_type.bits();
        let at = u64::from(cluster) * bits / 8;
        let index = self.load(at)?;
        let number = match self.geometry.fat_type {
            FatType::Fat32 => u32_at(&self.window, index) & 0x0FFF_FFFF,
            FatType::Fat16 => u32::from(u16_at(&self.window, index)),
            FatType::Fat12 if cluster & 1 == 1 => u32::from(u16_at(&self.window, index) >> 4),
            FatType::Fat12 => u32::from(u16_at(&self.window, index) & 0x0FFF),
        };
        let top = match self.geometry.fat_type {
            FatType::Fat32 => 0x0FFF_FFF8,
            FatType::Fat16 => 0xFFF8,
            FatType::Fat12 => 0x0FF8,
        };
        Ok(match number {
            0 | 1 => Next::Wrong,
            end if end >= top => Next::End,
            bad if bad == top - 1 => Next::Wrong,
            cluster => Next::Cluster(cluster),
        })
    }

    /// Loads the piece of the table with this byte, and says where in it the byte is.
    fn load(&mut self, at: u64) -> Result<usize, FatError> {
        let start = at / WINDOW_BYTES * WINDOW_BYTES;
        if start != self.window_at {
            let table = self.geometry.fat_sectors * self.geometry.sector_bytes;
            let length = table.saturating_sub(start).min(WINDOW_BYTES);
            self.window.resize(usize::try_from(length).unwrap_or(0), 0);
            let offset = self.geometry.fat_byte(self.active_fat) + start;
            // A failure leaves a window that is not asked again.
            self.window_at = u64::MAX;
            read_at(self.image, &mut self.window, offset)?;
            self.window_at = start;
        }
        Ok(usize::try_from(at - start).unwrap_or(usize::MAX))
    }

    /// The second number of the table has a flag that is cleared while the volume is in use.
    fn is_dirty(&mut self) -> Result<bool, FatError> {
        self.load(0)?;
        Ok(match self.geometry.fat_type {
            FatType::Fat32 => u32_at(&self.window, 4) & 0x0800_0000 == 0,
            FatType::Fat16 => u16_at(&self.window, 2) & 0x8000 == 0,
            FatType::Fat12 => false,
        })
    }

    fn folder(
        &mut self,
        id: InodeId,
        path: &[u8],
        bytes: &[u8],
        pending: &mut Vec<Pending>,
    ) -> Result<(), FatError> {
        let mut long = LongName::default();
        for entry in bytes.chunks_exact(ENTRY_BYTES) {
            match entry[0] {
                0 => break,
                0xE5 => {
                    long = LongName::default();
                    continue;
                }
                _ => {}
            }
            let flags = entry[11];
            if flags & attribute::LONG_NAME_MASK == attribute::LONG_NAME {
                long.push(entry);
                continue;
            }
            let mut short: ShortName = [0; 11];
            short.copy_from_slice(&entry[..11]);
            let long = std::mem::take(&mut long).finish(&short);
            if flags & attribute::LABEL != 0 {
                if id == InodeId::ROOT && flags & attribute::FOLDER == 0 {
                    self.label = label_text(&short);
                }
                continue;
            }
            if id != InodeId::ROOT && is_dot(&short) {
                continue;
            }
            let name = match long {
                Some(units) => String::from_utf16(&units)
                    .map_err(|_| corrupt(path, "a long name is not UTF-16"))?,
                None => name::short_text(&short, entry[12]),
            };
            let full = [path, b"/", name.as_bytes()].concat();
            let child = self.child(entry, &full, pending)?;
            self.tree
                .link(id, name.as_bytes(), child)
                .map_err(|error| corrupt(&full, error))?;
        }
        Ok(())
    }

    fn child(
        &mut self,
        entry: &[u8],
        path: &[u8],
        pending: &mut Vec<Pending>,
    ) -> Result<InodeId, FatError> {
        let flags = entry[11];
        let mut cluster = u32::from(u16_at(entry, 26));
        if self.geometry.fat_type == FatType::Fat32 {
            cluster |= u32::from(u16_at(entry, 20)) << 16;
        }
        let size = u64::from(u32_at(entry, 28));
        let is_folder = flags & attribute::FOLDER != 0;
        let (kind, mut mode) = if is_folder {
            (Kind::Directory(Entries::new()), self.uniform.directory_mode)
        } else {
            let content = self.content(path, cluster, size)?;
            (Kind::File(content), self.uniform.file_mode)
        };
        if flags & attribute::READ_ONLY != 0 && !is_folder {
            mode &= !0o222;
        }
        let metadata = Metadata {
            mode,
            uid: self.uniform.uid,
            gid: self.uniform.gid,
            times: times(entry),
            ..Metadata::default()
        };
        let id = self.tree.add_inode(Inode { metadata, kind })?;
        if is_folder {
            pending.push((id, path.to_vec(), cluster));
        }
        Ok(id)
    }

    fn content(&mut self, path: &[u8], cluster: u32, size: u64) -> Result<Content, FatError> {
        if size == 0 && cluster == 0 {
            return Ok(Content::default());
        }
        let clusters = size.div_ceil(self.geometry.cluster_bytes());
        let runs = self.chain(path, cluster, clusters, true)?;
        let mut offset = 0;
        let mut segments = Vec::new();
        for (first, end) in runs {
            let length = u64::from(end - first) * self.geometry.cluster_bytes();
            let length = length.min(size - offset);
            segments.push(Segment {
                offset,
                length,
                blob: self.blob,
                blob_offset: self.geometry.cluster_byte(first),
            });
            offset += length;
        }
        Ok(Content {
            size,
            segments: segments.into(),
        })
    }
}

fn is_dot(short: &ShortName) -> bool {
    short == b".          " || short == b"..         "
}

fn label_text(label: &ShortName) -> String {
    let text: String = label.iter().map(|letter| name::decoded(*letter)).collect();
    text.trim_end().to_string()
}

fn times(entry: &[u8]) -> Times {
    let stamp = |time: Option<usize>, date: usize| Stamp {
        date: u16_at(entry, date),
        time: time.map_or(0, |time| u16_at(entry, time)),
    };
    let modified = stamp(Some(22), 24).timestamp();
    let or_modified = |stamp: Stamp| match stamp.date {
        0 => modified,
        _ => stamp.timestamp(),
    };
    Times {
        modified,
        accessed: or_modified(stamp(None, 18)),
        changed: modified,
        created: or_modified(stamp(Some(14), 16)),
    }
}

/// The pieces of a long name, which come last piece first before their entry.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    checksum: u8,
    /// How many pieces are still missing; `None` before a first or behind a wrong one.
    missing: Option<u8>,
}

impl LongName {
    fn push(&mut self, entry: &[u8]) {
        let (order, checksum) = (entry[0], entry[13]);
        if order & 0x40 != 0 {
            *self = Self {
                units: Vec::new(),
                checksum,
                missing: Some(order & 0x3F),
            };
        } else if self.missing != Some(order) || self.checksum != checksum {
            *self = Self::default();
            return;
        }
        let place = |unit: usize| match unit {
            0..5 => 1 + unit * 2,
            5..11 => 14 + (unit - 5) * 2,
            _ => 28 + (unit - 11) * 2,
        };
        let mut piece: Vec<u16> = (0..name::UNITS)
            .map(|unit| u16_at(entry, place(unit)))
            .collect();
        piece.append(&mut self.units);
        self.units = piece;
        self.missing = self.missing.and_then(|missing| missing.checked_sub(1));
        if self.units.len() > name::UNITS_MAX + name::UNITS {
            *self = Self::default();
        }
    }

    /// The name of the entry that follows, where the pieces are whole and belong to it; as for
    /// others, pieces that do not are ignored.
    fn finish(mut self, short: &ShortName) -> Option<Vec<u16>> {
        if self.missing != Some(0) || self.checksum != name::checksum(short) {
            return None;
        }
        let length = self.units.iter().position(|unit| *unit == 0);
        self.units.truncate(length.unwrap_or(self.units.len()));
        (!self.units.is_empty()).then_some(self.units)
    }
}
