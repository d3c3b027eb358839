//! The header of a sparse extent, or its footer.

use std::fs::File;

use super::format::{
    AT_END, DEFLATE, DESCRIPTOR_BYTES_MAX, DIRECTORY_BYTES_MAX, FOOTER_FROM_END, HAS_COPY,
    HAS_LINE_ENDS, HAS_MARKERS, HAS_ZERO_GRAINS, HEADER_BYTES, IS_COMPRESSED, LINE_ENDS, MAGIC,
    SECTOR_BYTES, TABLE_ENTRIES_MAX,
};
use super::{corrupt, limit, unsupported};
use crate::disk::layer::{read_exact, size_of};
use crate::disk::unpack::UNIT_BYTES_MAX;
use crate::disk::{DiskError, as_u64};
use crate::numbers::{u16_at, u32_at, u64_at};

/// What a header says, checked as far as it goes by itself.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) file_bytes: u64,
    /// What the extent describes, in bytes.
    pub(super) size_bytes: u64,
    pub(super) grain_bytes: u64,
    /// Where the directory is, in bytes, and how many entries it needs.
    pub(super) directory: u64,
    pub(super) tables: u64,
    /// Entries of a table.
    pub(super) table_entries: u64,
    pub(super) is_compressed: bool,
    pub(super) has_zero_grains: bool,
    pub(super) was_closed: bool,
    /// Where a descriptor is and its length, in bytes.
    pub(super) descriptor: Option<(u64, u64)>,
}

impl Header {
    /// Bytes of the extent that one table describes.
    pub(super) fn table_spans(&self) -> u64 {
        self.grain_bytes * self.table_entries
    }

    pub(super) fn read(file: &File) -> Result<Self, DiskError> {
        let file_bytes = size_of(file)?;
        let mut bytes = sector(file, 0, file_bytes)?;
        check_magic(&bytes, "its header")?;
        let descriptor = descriptor_place(&bytes, file_bytes)?;
        let mut place = "its header";
        if u64_at(&bytes, 56) == AT_END {
            place = "its footer";
            let at = file_bytes.checked_sub(FOOTER_FROM_END);
            let at = at.filter(|at| *at >= SECTOR_BYTES && at.is_multiple_of(SECTOR_BYTES));
            let at = at.ok_or_else(|| corrupt(place, "it is cut off"))?;
            bytes = sector(file, at, file_bytes)?;
            check_magic(&bytes, place)?;
        }
        let mut header = Self::decode(&bytes, place, file_bytes)?;
        header.descriptor = descriptor;
        Ok(header)
    }

    fn decode(bytes: &[u8], place: &str, file_bytes: u64) -> Result<Self, DiskError> {
        let flags = u32_at(bytes, 8);
        let impossible = |what: String| corrupt(place, format!("{what} is impossible"));
        let grain_sectors = u64_at(bytes, 20);
        let grain_bytes = grain_sectors.checked_mul(SECTOR_BYTES);
        let grain_bytes = grain_bytes.filter(|_| grain_sectors.is_power_of_two());
        let Some(grain_bytes) = grain_bytes else {
            return Err(impossible(format!("a grain of {grain_sectors} sectors")));
        };
        if grain_bytes > UNIT_BYTES_MAX {
            let what = format!("a grain of {grain_bytes} bytes");
            return Err(limit(what, UNIT_BYTES_MAX));
        }
        let table_entries = u32_at(bytes, 44);
        if table_entries == 0 || table_entries > TABLE_ENTRIES_MAX {
            return Err(impossible(format!("a table of {table_entries} entries")));
        }
        let capacity = u64_at(bytes, 12);
        let size_bytes = capacity.checked_mul(SECTOR_BYTES);
        let size_bytes = size_bytes.filter(|size| i64::try_from(*size).is_ok());
        let Some(size_bytes) = size_bytes else {
            return Err(impossible(format!("a size of {capacity} sectors")));
        };
        let mut header = Self {
            file_bytes,
            size_bytes,
            grain_bytes,
            directory: 0,
            tables: 0,
            table_entries: table_entries.into(),
            is_compressed: is_compressed(bytes, flags)?,
            has_zero_grains: flags & HAS_ZERO_GRAINS != 0,
            was_closed: bytes.get(72) == Some(&0),
            descriptor: None,
        };
        header.place_directory(u64_at(bytes, 56))?;
        Ok(header)
    }

    fn place_directory(&mut self, sector: u64) -> Result<(), DiskError> {
        self.tables = self.size_bytes.div_ceil(self.table_spans());
        let length = self.tables * 4;
        if length > DIRECTORY_BYTES_MAX {
            let what = format!("a directory of {} tables", self.tables);
            return Err(limit(what, DIRECTORY_BYTES_MAX / 4));
        }
        let start = sector.checked_mul(SECTOR_BYTES);
        let start = start.filter(|start| {
            let end = start.checked_add(length);
            end.is_some_and(|end| end <= self.file_bytes)
        });
        let outside = || {
            let what = format!("{length} bytes at sector {sector} end behind the file");
            corrupt("its directory", what)
        };
        self.directory = start.ok_or_else(outside)?;
        Ok(())
    }
}

fn sector(file: &File, offset: u64, file_bytes: u64) -> Result<Vec<u8>, DiskError> {
    let length = as_u64(HEADER_BYTES);
    if offset
        .checked_add(length)
        .is_none_or(|end| end > file_bytes)
    {
        return Err(corrupt("its header", "it is cut short"));
    }
    let mut bytes = vec![0; HEADER_BYTES];
    read_exact(file, &mut bytes, offset)?;
    Ok(bytes)
}

fn check_magic(bytes: &[u8], place: &str) -> Result<(), DiskError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(corrupt(place, "it does not begin as one"));
    }
    let version = u32_at(bytes, 4);
    if !(1..=3).contains(&version) {
        return Err(unsupported(format!("version {version}")));
    }
    let flags = u32_at(bytes, 8);
    let known = HAS_LINE_ENDS | HAS_COPY | HAS_ZERO_GRAINS | IS_COMPRESSED | HAS_MARKERS;
    if flags & !known != 0 {
        let what = format!("flag {:#x}", flags & !known);
        return Err(unsupported(what));
    }
    if flags & HAS_LINE_ENDS != 0 && bytes.get(73..77) != Some(&LINE_ENDS[..]) {
        let what = "its line ends were changed, as by a transfer of text";
        return Err(corrupt(place, what));
    }
    Ok(())
}

fn is_compressed(bytes: &[u8], flags: u32) -> Result<bool, DiskError> {
    if flags & IS_COMPRESSED == 0 {
        return Ok(false);
    }
    let method = u16_at(bytes, 77);
    if method != DEFLATE {
        return Err(unsupported(format!("compression of type {method}")));
    }
    if flags & HAS_MARKERS == 0 {
        return Err(unsupported("compression without markers"));
    }
    Ok(true)
}

fn descriptor_place(bytes: &[u8], file_bytes: u64) -> Result<Option<(u64, u64)>, DiskError> {
    let (sector, sectors) = (u64_at(bytes, 28), u64_at(bytes, 36));
    if sector == 0 || sectors == 0 {
        return Ok(None);
    }
    let place = sector.checked_mul(SECTOR_BYTES);
    let place = place.zip(sectors.checked_mul(SECTOR_BYTES));
    let outside = || {
        let what = format!("{sectors} sectors at sector {sector} end behind the file");
        corrupt("its descriptor", what)
    };
    let (offset, length) = place.ok_or_else(outside)?;
    if offset
        .checked_add(length)
        .is_none_or(|end| end > file_bytes)
    {
        return Err(outside());
    }
    if length > DESCRIPTOR_BYTES_MAX {
        let what = format!("a descriptor of {length} bytes");
        return Err(limit(what, DESCRIPTOR_BYTES_MAX));
    }
    Ok(Some((offset, length)))
}
