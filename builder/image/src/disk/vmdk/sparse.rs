//! Grains of a sparse extent by way of its directory and tables.

use std::fs::File;

use super::format::{MARKER_BYTES, SECTOR_BYTES, ZERO_GRAIN};
use super::header::Header;
use super::{FORMAT, corrupt};
use crate::disk::DiskError;
use crate::disk::claims::{Budget, Claim, Claims};
use crate::disk::layer::{Place, Run, read_exact};
use crate::disk::pages::Pages;
use crate::disk::unpack::Unpacker;
use crate::numbers::{u32_at, u64_at};

/// A sparse extent; its file is kept beside it.
#[derive(Debug)]
pub(super) struct Sparse {
    pub(super) header: Header,
    /// Number of its file.
    pub(super) number: usize,
}

/// What reading needs.
#[derive(Clone, Copy)]
pub(super) struct Access<'d> {
    pub(super) file: &'d File,
    pub(super) pages: &'d Pages,
}

/// What a table's entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grain {
    Absent,
    Zero,
    /// In bytes.
    At(u64),
}

/// How a place in the file is shown to those who check it: offset and length in bytes.
type Visit<'v> = &'v mut dyn FnMut(u64, u64) -> bool;

impl Sparse {
    /// The table that an entry of the directory names, if it names one.
    fn table(&self, access: Access<'_>, index: u64) -> Result<Option<u64>, DiskError> {
        let place = || format!("entry {index} of its directory");
        let at = self.header.directory.saturating_add(index * 4);
        let rest = access.pages.at(self.number, access.file, at, 4)?;
        let entry = rest.map(|rest| u32_at(rest.bytes(), 0));
        let entry = entry.ok_or_else(|| corrupt(place(), "it is cut off"))?;
        if entry == 0 {
            return Ok(None);
        }
        let offset = u64::from(entry) * SECTOR_BYTES;
        if offset + self.header.table_entries * 4 > self.header.file_bytes {
            let what = format!("the table at sector {entry} ends behind the file");
            return Err(corrupt(place(), what));
        }
        Ok(Some(offset))
    }

    /// Shows the entries of a table from `index` on, as many as are in one page, until `each` says
    /// that it is enough.
    fn grains(
        &self,
        access: Access<'_>,
        table: u64,
        index: u64,
        mut each: impl FnMut(Grain) -> bool,
    ) -> Result<(), DiskError> {
        let at = table + index * 4;
        let rest = access.pages.at(self.number, access.file, at, 4)?;
        let cut_off = || corrupt(format!("its table at byte {table}"), "it is cut off");
        let rest = rest.ok_or_else(cut_off)?;
        let left = self.header.table_entries.saturating_sub(index);
        let left = usize::try_from(left).unwrap_or(0);
        for entry in rest.bytes().chunks_exact(4).take(left) {
            let grain = match u32_at(entry, 0) {
                0 => Grain::Absent,
                ZERO_GRAIN if self.header.has_zero_grains => Grain::Zero,
                sector => Grain::At(u64::from(sector) * SECTOR_BYTES),
            };
            if !each(grain) {
                break;
            }
        }
        Ok(())
    }

    /// What begins at `offset` of the extent, for `length` bytes at most.
    pub(super) fn run_at(
        &self,
        access: Access<'_>,
        offset: u64,
        length: u64,
    ) -> Result<Run, DiskError> {
        let header = &self.header;
        let (spans, grain_bytes) = (header.table_spans(), header.grain_bytes);
        let length = length.min(spans - offset % spans);
        let mut run = Run {
            offset,
            length,
            place: Place::Absent,
        };
        let Some(table) = self.table(access, offset / spans)? else {
            return Ok(run);
        };
        let inside = offset % grain_bytes;
        let mut first = None;
        let mut found = 0;
        self.grains(access, table, offset % spans / grain_bytes, |grain| {
            let follows = match (first, grain) {
                (None, _) => {
                    first = Some(grain);
                    found = grain_bytes - inside;
                    return !(header.is_compressed && matches!(grain, Grain::At(_)));
                }
                (Some(Grain::At(start)), Grain::At(next)) => {
                    (start + inside).checked_add(found) == Some(next)
                }
                (Some(first), next) => first == next,
            };
            if follows {
                found += grain_bytes;
            }
            follows && found < length
        })?;
        run.length = found.min(length).max(1);
        run.place = match first {
            None | Some(Grain::Absent) => Place::Absent,
            Some(Grain::Zero) => Place::Zero,
            Some(Grain::At(at)) if header.is_compressed => Place::Packed { at, length: 0 },
            Some(Grain::At(at)) => Place::Plain {
                file: self.number,
                offset: at + inside,
            },
        };
        Ok(run)
    }

    /// Fills `buffer` from `offset` of the extent on, all of it in the compressed grain at `at`.
    pub(super) fn read_packed(
        &self,
        access: Access<'_>,
        unpacker: &Unpacker,
        at: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), DiskError> {
        let inside = offset % self.header.grain_bytes;
        let start = offset - inside;
        // The extent's last grain may be shorter.
        let length = self.header.grain_bytes.min(self.header.size_bytes - start);
        let length = usize::try_from(length).unwrap_or(0);
        if inside == 0 && buffer.len() == length {
            return self.unpack(access, unpacker, at, start, buffer);
        }
        let unit = unpacker.kept(at, || {
            let mut unit = vec![0; length];
            self.unpack(access, unpacker, at, start, &mut unit)?;
            Ok(unit)
        })?;
        let inside = usize::try_from(inside).unwrap_or(usize::MAX);
        match unit.get(inside..inside.saturating_add(buffer.len())) {
            Some(part) => buffer.copy_from_slice(part),
            None => return Err(corrupt(grain_at(at), "it is too short")),
        }
        Ok(())
    }

    fn unpack(
        &self,
        access: Access<'_>,
        unpacker: &Unpacker,
        at: u64,
        start: u64,
        output: &mut [u8],
    ) -> Result<(), DiskError> {
        let mut marker = [0; 12];
        read_exact(access.file, &mut marker, at)?;
        let (sector, length) = (u64_at(&marker, 0), u64::from(u32_at(&marker, 8)));
        if sector != start / SECTOR_BYTES {
            let what = format!("its marker says that it is sector {sector}'s");
            return Err(corrupt(grain_at(at), what));
        }
        let end = at + MARKER_BYTES + length;
        if length > self.header.grain_bytes * 2 + SECTOR_BYTES || end > self.header.file_bytes {
            let what = format!("{length} compressed bytes are too many");
            return Err(corrupt(grain_at(at), what));
        }
        let mut input = vec![0; usize::try_from(length).unwrap_or(0)];
        read_exact(access.file, &mut input, at + MARKER_BYTES)?;
        let done = unpacker.unpack(&input, output);
        done.map_err(|what| corrupt(grain_at(at), what))
    }

    /// Reads all tables: what they name is in the file, and nothing belongs to two.
    pub(super) fn check(&self, access: Access<'_>) -> Result<(), DiskError> {
        let header = &self.header;
        // Places are multiples of this.
        let mut unit = header.grain_bytes | header.directory;
        let mut budget = Budget::new(FORMAT);
        self.visit(access, &mut budget, &mut |offset, _| {
            unit |= offset;
            true
        })?;
        let unit = 1 << unit.trailing_zeros().min(62);
        for mut claims in Claims::windows(FORMAT, header.file_bytes, unit)? {
            claims.claim(0, SECTOR_BYTES, Claim::Alone);
            if !claims.claim(header.directory, header.tables * 4, Claim::Alone) {
                return Err(corrupt("its directory", "it lies on the header"));
            }
            self.visit(access, &mut budget, &mut |offset, length| {
                claims.claim(offset, length, Claim::Alone)
            })?;
        }
        Ok(())
    }

    /// Shows every table and grain; `false` means that something else lies there.
    fn visit(
        &self,
        access: Access<'_>,
        budget: &mut Budget,
        claim: Visit<'_>,
    ) -> Result<(), DiskError> {
        for index in 0..self.header.tables {
            let Some(table) = self.table(access, index)? else {
                continue;
            };
            budget.spend(self.header.table_entries * 4)?;
            if !claim(table, self.header.table_entries * 4) {
                let place = format!("entry {index} of its directory");
                let what = format!("the table at byte {table} lies on something else");
                return Err(corrupt(place, what));
            }
            self.visit_table(access, table, index * self.header.table_spans(), claim)?;
        }
        Ok(())
    }

    fn visit_table(
        &self,
        access: Access<'_>,
        table: u64,
        first_byte: u64,
        claim: Visit<'_>,
    ) -> Result<(), DiskError> {
        let header = &self.header;
        let inside = header.size_bytes.saturating_sub(first_byte);
        let count = inside
            .div_ceil(header.grain_bytes)
            .min(header.table_entries);
        let mut index = 0;
        while index < count {
            let before = index;
            let mut done = Ok(());
            self.grains(access, table, index, |grain| {
                let left = inside - index * header.grain_bytes;
                done = self.check_grain(grain, left.min(header.grain_bytes), claim);
                if done.is_ok() {
                    index += 1;
                }
                done.is_ok() && index < count
            })?;
            let place = || format!("entry {index} of its table at byte {table}");
            done.map_err(|what| corrupt(place(), what))?;
            if index == before {
                return Err(corrupt(place(), "it is cut off"));
            }
        }
        Ok(())
    }

    /// Checks a grain of which `used_bytes` belong to the extent.
    fn check_grain(&self, grain: Grain, used_bytes: u64, claim: Visit<'_>) -> Result<(), String> {
        let Grain::At(offset) = grain else {
            return Ok(());
        };
        // How long a compressed grain is, only its marker knows; this says where it belongs, too.
        let (needed, length) = match self.header.is_compressed {
            true => (MARKER_BYTES, SECTOR_BYTES),
            false => (used_bytes, self.header.grain_bytes),
        };
        if offset + needed > self.header.file_bytes {
            return Err(format!("its grain at byte {offset} ends behind the file"));
        }
        match claim(offset, length) {
            true => Ok(()),
            false => Err(format!("its grain at byte {offset} lies on something else")),
        }
    }
}

fn grain_at(at: u64) -> String {
    format!("its compressed grain at byte {at}")
}
