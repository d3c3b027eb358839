//! Clusters by way of the two levels of tables.

use std::fs::File;

use super::corrupt;
use super::format::{COMPRESSED, COPIED, OFFSET, SUBCLUSTERS, ZERO, u64_at};
use super::header::Header;
use super::snapshots;
use crate::disk::layer::{Layer, Place, Run, read_exact, size_of};
use crate::disk::open::{Behind, Opened, Opener};
use crate::disk::pages::{Pages, Rest};
use crate::disk::unpack::Unpacker;
use crate::disk::{DiskError, Format, LeftBehind, Role, as_u64};

/// Bits of a first-level entry that have no meaning.
const L1_RESERVED: u64 = !(OFFSET | COPIED);
/// Bits of a second-level entry that have no meaning; in version 2 neither has [`ZERO`].
const L2_RESERVED: u64 = !(OFFSET | COPIED | COMPRESSED | ZERO);

/// A qcow2 without what is behind it.
#[derive(Debug)]
pub(super) struct Qcow2 {
    pub(super) header: Header,
    pub(super) file: File,
    /// Where the data is, and how long that file is, if it is not in `file`.
    pub(super) data: Option<(File, u64)>,
    pages: Pages,
    unpacker: Unpacker,
}

/// What a second-level entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Absent,
    Zero,
    /// A cluster at this offset. Which of its parts are there and which are zeroes, by bits; all
    /// are there where clusters have no parts.
    Plain {
        offset: u64,
        there: u32,
        zero: u32,
    },
    /// So many bytes from this offset on.
    Packed {
        offset: u64,
        length: u64,
    },
}

/// Opens a qcow2, with its data file but without its backing file.
pub(in crate::disk) fn open(file: File, opener: &mut Opener<'_>) -> Result<Opened, DiskError> {
    let header = Header::read(&file)?;
    let mut left_behind = snapshots::read(&file, &header)?;
    if header.bitmaps > 0 {
        let count = header.bitmaps;
        left_behind.push(LeftBehind::Bitmaps { count });
    }
    if header.is_dirty {
        left_behind.push(LeftBehind::NotClosed);
    }
    let data = match &header.data_file {
        None => None,
        Some(name) if name.is_empty() => {
            return Err(corrupt("its header", "its data file has no name"));
        }
        Some(name) => {
            let data = opener.open(Role::Data, name)?;
            let bytes = size_of(&data)?;
            Some((data, bytes))
        }
    };
    let behind = header.backing.as_ref().map(|name| Behind {
        role: Role::Backing,
        name: name.clone(),
        format: header.backing_format.clone(),
    });
    let disk = Qcow2 {
        unpacker: Unpacker::new(header.codec),
        pages: Pages::default(),
        header,
        file,
        data,
    };
    disk.check()?;
    Ok(Opened {
        format: Format::Qcow2,
        layer: Box::new(disk),
        left_behind,
        behind,
    })
}

impl Qcow2 {
    /// The second-level table that an entry of the first level names, if it names one.
    pub(super) fn table(&self, index: u64) -> Result<Option<u64>, DiskError> {
        let place = || format!("entry {index} of its first-level table");
        let at = self.header.l1_offset.saturating_add(index * 8);
        let rest = self.pages.at(0, &self.file, at, 8)?;
        let entry = rest.map(|rest| u64_at(rest.bytes(), 0));
        let entry = entry.ok_or_else(|| corrupt(place(), "it is cut off"))?;
        if entry & L1_RESERVED != 0 {
            return Err(corrupt(place(), format!("{entry:#018x} is impossible")));
        }
        let offset = entry & OFFSET;
        if offset == 0 {
            return Ok(None);
        }
        self.check_cluster(offset)
            .map_err(|what| corrupt(place(), what))?;
        Ok(Some(offset))
    }

    /// That a cluster with a table is in the file.
    fn check_cluster(&self, offset: u64) -> Result<(), String> {
        let cluster_bytes = self.header.cluster_bytes();
        let end = offset.checked_add(cluster_bytes);
        if !offset.is_multiple_of(cluster_bytes) {
            return Err(format!("byte {offset} is no cluster's first"));
        }
        if end.is_none_or(|end| end > self.header.file_bytes) {
            return Err(format!("byte {offset} lies behind the file's end"));
        }
        Ok(())
    }

    /// Entries of a second-level table from `index` on: as many as are in one page.
    pub(super) fn entries(&self, table: u64, index: u64) -> Result<Entries<'_>, DiskError> {
        let size = self.header.entry_bytes();
        let at = table.saturating_add(index * size);
        let rest = self.pages.at(0, &self.file, at, 16.min(usize_of(size)))?;
        let rest =
            rest.ok_or_else(|| corrupt(format!("its table at byte {table}"), "it is cut off"))?;
        let left = self.header.cluster_bytes() / size - index;
        Ok(Entries {
            disk: self,
            table,
            first: index,
            rest,
            left,
        })
    }

    fn decode(&self, entry: u64, bitmap: u64) -> Result<Entry, String> {
        if entry & COMPRESSED != 0 {
            return self.decode_packed(entry);
        }
        let has_zero = self.header.version >= 3 && !self.header.has_subclusters;
        let offset = entry & OFFSET;
        if entry & L2_RESERVED != 0 || (entry & ZERO != 0 && !has_zero) {
            return Err(format!("{entry:#018x} is impossible"));
        }
        // In a data file the first cluster is one like others.
        let is_there = offset != 0 || (self.data.is_some() && entry & COPIED != 0);
        if self.header.has_subclusters {
            return self.decode_parts(offset, is_there, bitmap);
        }
        if entry & ZERO != 0 {
            return Ok(Entry::Zero);
        }
        if !is_there {
            return Ok(Entry::Absent);
        }
        self.check_data(offset)?;
        Ok(Entry::Plain {
            offset,
            there: u32::MAX,
            zero: 0,
        })
    }

    fn decode_parts(&self, offset: u64, is_there: bool, bitmap: u64) -> Result<Entry, String> {
        let there = u32::try_from(bitmap & u64::from(u32::MAX)).unwrap_or(0);
        let zero = u32::try_from(bitmap >> 32).unwrap_or(0);
        if there & zero != 0 || (there != 0 && !is_there) {
            return Err(format!("parts {bitmap:#018x} are impossible"));
        }
        match (there, zero) {
            (0, 0) => return Ok(Entry::Absent),
            (0, u32::MAX) => return Ok(Entry::Zero),
            _ => {}
        }
        if there != 0 {
            self.check_data(offset)?;
        }
        Ok(Entry::Plain {
            offset,
            there,
            zero,
        })
    }

    fn check_data(&self, offset: u64) -> Result<(), String> {
        if !offset.is_multiple_of(self.header.cluster_bytes()) {
            return Err(format!("byte {offset} is no cluster's first"));
        }
        Ok(())
    }

    /// Where a compressed cluster begins, and how many sectors it touches.
    fn decode_packed(&self, entry: u64) -> Result<Entry, String> {
        if self.data.is_some() {
            return Err("a cluster of a data file cannot be compressed".into());
        }
        let offset_bits = 62 - (self.header.cluster_bits - 8);
        let offset = entry & ((1 << offset_bits) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> offset_bits;
        let end = (offset / 512).saturating_add(sectors).saturating_add(1) * 512;
        // The last one need not fill its last sector.
        let end = end.min(self.header.file_bytes);
        if offset >= end {
            return Err(format!("byte {offset} lies behind the file's end"));
        }
        let length = end - offset;
        Ok(Entry::Packed { offset, length })
    }

    /// The file that has the data, and its size.
    pub(super) fn data_file(&self) -> (&File, u64) {
        match &self.data {
            Some((file, bytes)) => (file, *bytes),
            None => (&self.file, self.header.file_bytes),
        }
    }

    fn unpack(&self, offset: u64, length: u64, output: &mut [u8]) -> Result<(), DiskError> {
        let mut input = vec![0; usize_of(length)];
        read_exact(&self.file, &mut input, offset)?;
        let done = self.unpacker.unpack(&input, output);
        done.map_err(|what| corrupt(format!("its compressed cluster at byte {offset}"), what))
    }

    /// What an entry says of the disk from `inside` its cluster on, and for how many bytes.
    fn part(&self, entry: Entry, inside: u64) -> (Place, u64) {
        let cluster_bytes = self.header.cluster_bytes();
        let rest = cluster_bytes - inside;
        match entry {
            Entry::Absent => (Place::Absent, rest),
            Entry::Zero => (Place::Zero, rest),
            Entry::Packed { offset, length } => (Place::Packed { at: offset, length }, rest),
            Entry::Plain {
                offset,
                there: u32::MAX,
                ..
            } => (plain(offset + inside), rest),
            Entry::Plain {
                offset,
                there,
                zero,
            } => {
                let part_bytes = cluster_bytes / SUBCLUSTERS;
                let bit = |index: u64| (there >> index & 1, zero >> index & 1);
                let first = inside / part_bytes;
                let same = (first..SUBCLUSTERS).take_while(|index| bit(*index) == bit(first));
                let length = as_u64(same.count()) * part_bytes - inside % part_bytes;
                let place = match bit(first) {
                    (1, _) => plain(offset + inside),
                    (_, 1) => Place::Zero,
                    _ => Place::Absent,
                };
                (place, length)
            }
        }
    }
}

fn plain(offset: u64) -> Place {
    Place::Plain { file: 0, offset }
}

fn usize_of(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// Entries of a second-level table, in one page.
pub(super) struct Entries<'d> {
    disk: &'d Qcow2,
    table: u64,
    first: u64,
    rest: Rest,
    /// How many the table has from `first` on.
    left: u64,
}

impl Entries<'_> {
    /// The entry so many after the first one; `None` where the page or the table ends.
    pub(super) fn get(&self, number: u64) -> Result<Option<Entry>, DiskError> {
        let size = self.disk.header.entry_bytes();
        let start = usize_of(number * size);
        let bytes = self.rest.bytes().get(start..start + usize_of(size));
        let Some(bytes) = bytes.filter(|_| number < self.left) else {
            return Ok(None);
        };
        let entry = self.disk.decode(u64_at(bytes, 0), u64_at(bytes, 8));
        entry.map(Some).map_err(|what| {
            let index = self.first + number;
            corrupt(
                format!("entry {index} of its table at byte {}", self.table),
                what,
            )
        })
    }
}

impl Layer for Qcow2 {
    fn size_bytes(&self) -> u64 {
        self.header.size_bytes
    }

    fn run_at(&self, offset: u64, length: u64) -> Result<Run, DiskError> {
        let spans = self.header.table_spans();
        let cluster_bytes = self.header.cluster_bytes();
        let length = length.min(spans - offset % spans);
        let run = |length, place| Run {
            offset,
            length,
            place,
        };
        let Some(table) = self.table(offset / spans)? else {
            return Ok(run(length, Place::Absent));
        };
        let index = offset % spans / cluster_bytes;
        let entries = self.entries(table, index)?;
        let Some(first) = entries.get(0)? else {
            return Err(corrupt(
                format!("its table at byte {table}"),
                "it is cut off",
            ));
        };
        let (place, mut found) = self.part(first, offset % cluster_bytes);
        let mut number = 1;
        // A run goes on with whole clusters that are of a kind and follow in the file.
        while found < length
            && (offset + found).is_multiple_of(cluster_bytes)
            && let Some(entry) = entries.get(number)?
        {
            let (next, more) = self.part(entry, 0);
            let follows = match (place, next) {
                (Place::Absent, Place::Absent) | (Place::Zero, Place::Zero) => true,
                (Place::Plain { offset, .. }, Place::Plain { offset: next, .. }) => {
                    offset.checked_add(found) == Some(next)
                }
                _ => false,
            };
            if !follows {
                break;
            }
            found += more;
            number += 1;
        }
        Ok(run(found.min(length), place))
    }

    fn read(&self, run: &Run, buffer: &mut [u8]) -> Result<(), DiskError> {
        let cluster_bytes = self.header.cluster_bytes();
        match run.place {
            Place::Plain { offset, .. } => read_exact(self.data_file().0, buffer, offset),
            Place::Packed { at, length } => {
                let inside = usize_of(run.offset % cluster_bytes);
                if inside == 0 && as_u64(buffer.len()) == cluster_bytes {
                    return self.unpack(at, length, buffer);
                }
                let unit = self.unpacker.kept(at, || {
                    let mut unit = vec![0; usize_of(cluster_bytes)];
                    self.unpack(at, length, &mut unit)?;
                    Ok(unit)
                })?;
                let part = unit.get(inside..inside + buffer.len());
                buffer.copy_from_slice(part.unwrap_or_default());
                Ok(())
            }
            Place::Absent | Place::Zero => {
                buffer.fill(0);
                Ok(())
            }
        }
    }
}
