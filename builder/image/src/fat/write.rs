//! Writing an image: everything has its place before the first byte is written.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::geometry::{FIRST_CLUSTER, Geometry};
use super::name;
use super::scan::{Folder, Item, Target, scan};
use super::time::Stamp;
use super::{ENTRY_BYTES, FatError, FatType, LABEL_LENGTH_MAX, Options, attribute};
use crate::tree::{InodeId, Kind, Segment, Tree, display, read_exact_at};

/// An image whose size is not given is a multiple of this.
const GRANULE_BYTES: u64 = 1 << 20;
/// How often a size is tried: each try is at least what was missing larger.
const TRIES_MAX: usize = 64;
/// Content is copied in pieces of this many bytes.
const PIECE_BYTES: usize = 1 << 20;
/// Media descriptor of a disk that cannot be removed.
const MEDIA: u8 = 0xF8;
/// Sectors of FAT32's information, and of the boot sector's copy.
const INFORMATION_SECTOR: u16 = 1;
const BACKUP_SECTOR: u16 = 6;
/// Asks the firmware to go on with the next disk: `int 18h`, and a halt.
const BOOT_CODE: [u8; 5] = [0xCD, 0x18, 0xF4, 0xEB, 0xFD];

/// Makes `output`, whose former content is lost, a FAT volume with what is in the tree. The same
/// tree and options give the same bytes. Gives the image's size in bytes.
///
/// # Errors
/// An option is out of its range, the tree has what FAT cannot hold or does not fit, or reading
/// content or writing fails.
pub fn write(tree: &Tree, options: &Options, output: &File) -> Result<u64, FatError> {
    check_label(&options.label)?;
    Geometry::check(options)?;
    let folders = scan(tree, options)?;
    let geometry = fitting(&folders, options)?;
    let places = Places::assign(&folders, &geometry, options);
    output.set_len(0).map_err(FatError::Write)?;
    output
        .set_len(geometry.size_bytes())
        .map_err(FatError::Write)?;
    let writer = Writer {
        tree,
        options,
        geometry: &geometry,
        folders: &folders,
        places: &places,
        output,
    };
    writer.boot_sectors()?;
    writer.tables()?;
    for (index, folder) in folders.iter().enumerate() {
        writer.folder(index, folder)?;
    }
    Ok(geometry.size_bytes())
}

fn check_label(label: &str) -> Result<(), FatError> {
    let is_fine = label.len() <= LABEL_LENGTH_MAX
        && label.bytes().all(name::is_label_letter)
        && label.trim() == label;
    if is_fine {
        return Ok(());
    }
    let shown = label.escape_debug();
    Err(FatError::InvalidOption(format!(
        "the label '{shown}' is not made of up to 11 capitals, digits and signs"
    )))
}

/// The geometry of the size that was asked for, or of the smallest that fits.
fn fitting(folders: &[Folder], options: &Options) -> Result<Geometry, FatError> {
    let slots = folders.first().map_or(0, |root| root.slots(&options.label));
    let slots = u64::try_from(slots).unwrap_or(u64::MAX);
    let smallest = match options.fat_type {
        Some(FatType::Fat32) => 33 * GRANULE_BYTES,
        Some(FatType::Fat16) => 3 * GRANULE_BYTES,
        _ => GRANULE_BYTES,
    };
    let content: u64 = sizes(folders).sum();
    let mut size_bytes = options.size_bytes.unwrap_or_else(|| {
        let size = content.saturating_add(smallest);
        size / GRANULE_BYTES * GRANULE_BYTES
    });
    let mut tries = 0;
    loop {
        let geometry = Geometry::choose(options, size_bytes, slots);
        let missing = match geometry {
            Ok(geometry) => {
                let needed = clusters_needed(folders, &geometry, options);
                if needed <= geometry.clusters {
                    return Ok(geometry);
                }
                if options.size_bytes.is_some() {
                    return Err(FatError::TooSmall {
                        size_bytes,
                        needed,
                        clusters: geometry.clusters,
                    });
                }
                (needed - geometry.clusters) * geometry.cluster_bytes()
            }
            // With large sectors the smallest volume is larger.
            Err(error) if options.size_bytes.is_some() || tries >= TRIES_MAX => return Err(error),
            Err(_) => size_bytes / 4,
        };
        tries += 1;
        size_bytes = size_bytes
            .saturating_add(missing.max(GRANULE_BYTES))
            .next_multiple_of(GRANULE_BYTES);
    }
}

fn sizes(folders: &[Folder]) -> impl Iterator<Item = u64> {
    let items = folders.iter().flat_map(|folder| &folder.items);
    items.map(|item| match item.target {
        Target::File(_, size) => u64::from(size),
        Target::Folder(_) => 0,
    })
}

fn clusters_needed(folders: &[Folder], geometry: &Geometry, options: &Options) -> u64 {
    let cluster = geometry.cluster_bytes();
    let of_folders = folders
        .iter()
        .map(|folder| folder_clusters(folder, geometry, options));
    let of_files = sizes(folders).map(|size| size.div_ceil(cluster));
    of_folders.chain(of_files).sum()
}

fn folder_clusters(folder: &Folder, geometry: &Geometry, options: &Options) -> u64 {
    if folder.id == InodeId::ROOT && geometry.root_entries > 0 {
        return 0;
    }
    let bytes = folder.slots(&options.label) * ENTRY_BYTES;
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    bytes.div_ceil(geometry.cluster_bytes()).max(1)
}

/// The first cluster of everything; each lies in one piece, folders first.
struct Places {
    folders: Vec<u32>,
    /// In the order of the items, folder by folder; 0 for what is empty or a folder.
    files: Vec<Vec<u32>>,
    /// Length of each piece in clusters, in their order.
    pieces: Vec<u32>,
    /// The first free cluster.
    free: u32,
}

impl Places {
    fn assign(folders: &[Folder], geometry: &Geometry, options: &Options) -> Self {
        let mut places = Self {
            folders: Vec::new(),
            files: Vec::new(),
            pieces: Vec::new(),
            free: FIRST_CLUSTER,
        };
        for folder in folders {
            let place = places.take(folder_clusters(folder, geometry, options));
            places.folders.push(place);
        }
        for folder in folders {
            let of_item = |item: &Item| match item.target {
                Target::File(_, size) => u64::from(size).div_ceil(geometry.cluster_bytes()),
                Target::Folder(_) => 0,
            };
            let files = folder.items.iter().map(|item| places.take(of_item(item)));
            let files = files.collect();
            places.files.push(files);
        }
        places
    }

    /// `fitting` has seen to it that there are enough, fewer than 2^28.
    fn take(&mut self, count: u64) -> u32 {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count == 0 {
            return 0;
        }
        let first = self.free;
        self.pieces.push(count);
        self.free = first.saturating_add(count);
        first
    }
}

struct Writer<'a> {
    tree: &'a Tree,
    options: &'a Options,
    geometry: &'a Geometry,
    folders: &'a [Folder],
    places: &'a Places,
    output: &'a File,
}

impl Writer<'_> {
    fn put(&self, bytes: &[u8], offset: u64) -> Result<(), FatError> {
        self.output
            .write_all_at(bytes, offset)
            .map_err(FatError::Write)
    }

    fn boot_sectors(&self) -> Result<(), FatError> {
        let sector = boot_sector(self.geometry, self.options, self.places.folders[0]);
        self.put(&sector, 0)?;
        if self.geometry.fat_type != FatType::Fat32 {
            return Ok(());
        }
        let used = u64::from(self.places.free - FIRST_CLUSTER);
        let free = u32::try_from(self.geometry.clusters - used).unwrap_or(u32::MAX);
        let mut information = vec![0; 512];
        information[..4].copy_from_slice(b"RRaA");
        information[484..488].copy_from_slice(b"rrAa");
        information[488..492].copy_from_slice(&free.to_le_bytes());
        // Where to look for free clusters: behind the last used one.
        let last = self.places.free - 1;
        information[492..496].copy_from_slice(&last.to_le_bytes());
        information[510..].copy_from_slice(&[0x55, 0xAA]);
        let size = self.geometry.sector_bytes;
        for first in [0, u64::from(BACKUP_SECTOR)] {
            self.put(&sector, first * size)?;
            let place = first + u64::from(INFORMATION_SECTOR);
            self.put(&information, place * size)?;
        }
        Ok(())
    }

    /// The tables as far as they are used; behind lie zeroes already.
    fn tables(&self) -> Result<(), FatError> {
        let mut numbers = Table::new(self.geometry.fat_type);
        numbers.push(0x0FFF_FF00 | u32::from(MEDIA));
        numbers.push(END);
        let mut cluster = FIRST_CLUSTER;
        for length in &self.places.pieces {
            for _ in 1..*length {
                cluster += 1;
                numbers.push(cluster);
            }
            numbers.push(END);
            cluster += 1;
        }
        for index in 0..self.geometry.fats {
            self.put(&numbers.bytes, self.geometry.fat_byte(index))?;
        }
        Ok(())
    }

    fn folder(&self, index: usize, folder: &Folder) -> Result<(), FatError> {
        let mut bytes = Vec::new();
        let own = self.places.folders[index];
        if index > 0 {
            // The root is 0 here, wherever it is.
            let parent = match folder.parent {
                0 => 0,
                parent => self.places.folders[parent],
            };
            let stamps = [folder.stamp, self.folders[folder.parent].stamp];
            for ((name, cluster), stamp) in [(b".          ", own), (b"..         ", parent)]
                .into_iter()
                .zip(stamps)
            {
                bytes.extend(entry(name, attribute::FOLDER, stamp, cluster, 0));
            }
        } else if !self.options.label.is_empty() {
            let label = padded(&self.options.label);
            bytes.extend(entry(&label, attribute::LABEL, folder.stamp, 0, 0));
        }
        for (item, place) in folder.items.iter().zip(&self.places.files[index]) {
            if item.has_long {
                bytes.extend(long_entries(item));
            }
            let (cluster, size) = match item.target {
                Target::Folder(folder) => (self.places.folders[folder], 0),
                Target::File(id, size) => {
                    self.content(folder, item, id, *place)?;
                    (*place, size)
                }
            };
            bytes.extend(entry(
                &item.short,
                item.attributes,
                item.stamp,
                cluster,
                size,
            ));
        }
        let place = if own == 0 {
            self.geometry.root_byte()
        } else {
            self.geometry.cluster_byte(own)
        };
        self.put(&bytes, place)
    }

    fn content(
        &self,
        folder: &Folder,
        item: &Item,
        id: InodeId,
        cluster: u32,
    ) -> Result<(), FatError> {
        let Kind::File(content) = &self.tree.inode(id).kind else {
            return Ok(());
        };
        let start = self.geometry.cluster_byte(cluster);
        for segment in &content.segments {
            self.segment(segment, content.size, start)
                .map_err(|error| match error {
                    FatError::Content { source, .. } => FatError::Content {
                        path: display(&[&folder.path, item.name.as_bytes()].concat()),
                        source,
                    },
                    other => other,
                })?;
        }
        Ok(())
    }

    fn segment(&self, segment: &Segment, size: u64, start: u64) -> Result<(), FatError> {
        let failed = |source| FatError::Content {
            path: String::new(),
            source,
        };
        let end = segment.offset.checked_add(segment.length);
        if end.is_none_or(|end| end > size) {
            return Err(failed(std::io::ErrorKind::InvalidData.into()));
        }
        let blob = self.tree.blob(segment.blob);
        let mut buffer = vec![0; PIECE_BYTES];
        let mut done = 0;
        while done < segment.length {
            let left = usize::try_from(segment.length - done).unwrap_or(usize::MAX);
            let piece = &mut buffer[..left.min(PIECE_BYTES)];
            read_exact_at(&**blob, piece, segment.blob_offset + done).map_err(failed)?;
            self.put(piece, start + segment.offset + done)?;
            done += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}

/// The end of a chain; cut to the table's width.
const END: u32 = 0x0FFF_FFFF;

/// The numbers of a table as bytes.
struct Table {
    fat_type: FatType,
    bytes: Vec<u8>,
    is_odd: bool,
}

impl Table {
    fn new(fat_type: FatType) -> Self {
        Self {
            fat_type,
            bytes: Vec::new(),
            is_odd: false,
        }
    }

    fn push(&mut self, number: u32) {
        let [low, middle, ..] = number.to_le_bytes();
        match self.fat_type {
            FatType::Fat32 => self.bytes.extend(number.to_le_bytes()),
            FatType::Fat16 => self.bytes.extend([low, middle]),
            // Two numbers share three bytes.
            FatType::Fat12 if self.is_odd => {
                if let Some(last) = self.bytes.last_mut() {
                    *last |= low << 4;
                }
                self.bytes.push(low >> 4 | middle << 4);
            }
            FatType::Fat12 => self.bytes.extend([low, middle & 0x0F]),
        }
        self.is_odd = !self.is_odd;
    }
}

fn padded(label: &str) -> [u8; 11] {
    let mut padded = [b' '; 11];
    padded[..label.len()].copy_from_slice(label.as_bytes());
    padded
}

fn entry(name: &[u8; 11], attributes: u8, stamp: Stamp, cluster: u32, size: u32) -> Vec<u8> {
    let [low_0, low_1, high_0, high_1] = cluster.to_le_bytes();
    let mut bytes = name.to_vec();
    // No case flags, no hundredths of a second.
    bytes.extend([attributes, 0, 0]);
    for number in [stamp.time, stamp.date, stamp.date] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([high_0, high_1]);
    for number in [stamp.time, stamp.date] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([low_0, low_1]);
    bytes.extend(size.to_le_bytes());
    bytes
}

/// The pieces of a long name, the last first.
fn long_entries(item: &Item) -> Vec<u8> {
    let units: Vec<u16> = item.name.encode_utf16().collect();
    let checksum = name::checksum(&item.short);
    let pieces: Vec<&[u16]> = units.chunks(name::UNITS).collect();
    let mut bytes = Vec::new();
    for (index, piece) in pieces.iter().enumerate().rev() {
        let mut letters = piece.to_vec();
        if letters.len() < name::UNITS {
            letters.push(0);
            letters.resize(name::UNITS, 0xFFFF);
        }
        let letters: Vec<u8> = letters.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let last = if index + 1 == pieces.len() { 0x40 } else { 0 };
        bytes.push(last | u8::try_from(index + 1).unwrap_or(0));
        bytes.extend(&letters[..10]);
        bytes.extend([attribute::LONG_NAME, 0, checksum]);
        bytes.extend(&letters[10..22]);
        bytes.extend([0, 0]);
        bytes.extend(&letters[22..]);
    }
    bytes
}

fn boot_sector(geometry: &Geometry, options: &Options, root: u32) -> Vec<u8> {
    let is_fat32 = geometry.fat_type == FatType::Fat32;
    let mut bytes = vec![0xEB, if is_fat32 { 0x58 } else { 0x3C }, 0x90];
    bytes.extend(b"COOP    ");
    let word = |bytes: &mut Vec<u8>, number: u64| {
        // All of these were chosen to fit.
        bytes.extend(u16::try_from(number).unwrap_or(0).to_le_bytes());
    };
    word(&mut bytes, geometry.sector_bytes);
    bytes.push(u8::try_from(geometry.cluster_sectors).unwrap_or(0));
    word(&mut bytes, geometry.reserved_sectors);
    bytes.push(u8::try_from(geometry.fats).unwrap_or(0));
    word(&mut bytes, geometry.root_entries);
    let total = u32::try_from(geometry.total_sectors).unwrap_or(0);
    let is_small = !is_fat32 && total < 0x1_0000;
    word(&mut bytes, if is_small { u64::from(total) } else { 0 });
    bytes.push(MEDIA);
    word(&mut bytes, if is_fat32 { 0 } else { geometry.fat_sectors });
    // Sectors of a track and heads, which nobody has any more.
    word(&mut bytes, 63);
    word(&mut bytes, 255);
    bytes.extend(options.hidden_sectors.to_le_bytes());
    bytes.extend(if is_small { 0 } else { total }.to_le_bytes());
    if is_fat32 {
        let sectors = u32::try_from(geometry.fat_sectors).unwrap_or(0);
        bytes.extend(sectors.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(root.to_le_bytes());
        word(&mut bytes, u64::from(INFORMATION_SECTOR));
        word(&mut bytes, u64::from(BACKUP_SECTOR));
        bytes.extend([0; 12]);
    }
    bytes.extend([0x80, 0, 0x29]);
    bytes.extend(options.volume_id.to_le_bytes());
    let label = if options.label.is_empty() {
        "NO NAME"
    } else {
        &options.label
    };
    bytes.extend(padded(label));
    bytes.extend(match geometry.fat_type {
        FatType::Fat12 => b"FAT12   ",
        FatType::Fat16 => b"FAT16   ",
        FatType::Fat32 => b"FAT32   ",
    });
    bytes.extend(BOOT_CODE);
    bytes.resize(510, 0);
    bytes.extend([0x55, 0xAA]);
    bytes
}
