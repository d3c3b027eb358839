//! Reading an MBR and the chain of its logical partitions.

use std::collections::BTreeSet;

use super::probe::{FileSystem, file_system_of};
use super::{
    Disk, LOGICAL_MAX, Partition, PartitionError, PartitionType, ReadOptions, SectorSize, Table,
    TableKind, check_overlaps, u16_at, u32_at,
};

/// The last two bytes of a boot record.
pub(super) const BOOT_SIGNATURE: u16 = 0xAA55;
/// Where the four entries begin.
pub(super) const ENTRIES_AT: usize = 446;
/// Size of an entry in bytes.
pub(super) const ENTRY_BYTES: usize = 16;
/// Where the disk's signature is.
pub(super) const DISK_SIGNATURE_AT: usize = 440;
/// Status of the partition to boot from.
pub(super) const ACTIVE: u8 = 0x80;
/// Type of the entry that protects a GPT.
pub(super) const PROTECTIVE: u8 = 0xEE;

/// A boot record: the master, or one of the chain of logical partitions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    signature: u32,
    entries: [Entry; 4],
}

/// An entry; addresses in sectors.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    status: u8,
    kind: u8,
    first: u64,
    count: u64,
}

impl Entry {
    /// As for Linux, what has no length is not there.
    fn is_used(&self) -> bool {
        self.kind != 0 && self.count != 0
    }

    fn is_extended(&self) -> bool {
        self.is_used() && matches!(self.kind, 0x05 | 0x0F | 0x85)
    }

    fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

impl Record {
    /// `None` where the sector has no boot signature.
    pub(super) fn decode(sector: &[u8]) -> Option<Self> {
        if u16_at(sector, 510) != BOOT_SIGNATURE {
            return None;
        }
        let entry = |index: usize| {
            let at = ENTRIES_AT + index * ENTRY_BYTES;
            Entry {
                status: sector.get(at).copied().unwrap_or(0),
                kind: sector.get(at + 4).copied().unwrap_or(0),
                first: u64::from(u32_at(sector, at + 8)),
                count: u64::from(u32_at(sector, at + 12)),
            }
        };
        Some(Self {
            signature: u32_at(sector, DISK_SIGNATURE_AT),
            entries: [entry(0), entry(1), entry(2), entry(3)],
        })
    }

    fn used(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.is_used())
    }

    /// Whether it says that the disk has a GPT.
    pub(super) fn is_protective(&self) -> bool {
        let protects = |entry: &Entry| entry.kind == PROTECTIVE && entry.first == 1;
        self.used().any(protects) && self.has_statuses()
    }

    /// Whether it has more than the entry that protects a GPT.
    pub(super) fn is_hybrid(&self) -> bool {
        self.used().count() > 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used().next().is_none()
    }

    fn has_statuses(&self) -> bool {
        self.entries
            .iter()
            .all(|entry| matches!(entry.status, 0 | ACTIVE))
    }

    /// Whether it is a table at all, and not a file system's boot sector, whose code lies where the
    /// entries would.
    pub(super) fn is_plausible(&self, size_bytes: u64, whole: Option<FileSystem>) -> bool {
        if !self.has_statuses() {
            return false;
        }
        let sectors = size_bytes / SectorSize::B512.bytes();
        let fits = |entry: &Entry| entry.first > 0 && entry.end() <= sectors;
        // Of a disk that is no file system it may be a table with a fault, which has a name.
        whole.is_none() || (!self.is_empty() && self.used().all(fits))
    }
}

/// Reads the table whose first record is this.
pub(super) fn read(
    disk: Disk<'_>,
    record: &Record,
    options: &ReadOptions,
) -> Result<Table, PartitionError> {
    if let Some(size) = options.sector_size {
        return read_with(disk, record, size);
    }
    let usual = read_with(disk, record, SectorSize::B512);
    if let Ok(table) = &usual
        && (table.partitions.is_empty() || holds_file_systems(disk, table)?)
    {
        return usual;
    }
    match read_with(disk, record, SectorSize::B4096) {
        Ok(table) if holds_file_systems(disk, &table)? => Ok(table),
        _ => usual,
    }
}

fn holds_file_systems(disk: Disk<'_>, table: &Table) -> Result<bool, PartitionError> {
    for partition in table.partitions.iter().filter(|found| !found.is_extended) {
        if file_system_of(disk, partition.first_byte, partition.length_bytes)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read_with(disk: Disk<'_>, record: &Record, size: SectorSize) -> Result<Table, PartitionError> {
    let mut reader = Reader {
        disk,
        size,
        signature: record.signature,
        partitions: Vec::new(),
    };
    let mut extended = None;
    for (number, entry) in (1..).zip(&record.entries) {
        if !entry.is_used() {
            continue;
        }
        if entry.first == 0 {
            let what = format!("partition {number} begins with the table");
            return Err(PartitionError::Mbr(what));
        }
        let whole = (0, disk.sectors(size), "the disk");
        reader.push(number, entry, entry.first, whole)?;
        if entry.is_extended() && extended.replace(entry).is_some() {
            let what = "it has more than one extended partition";
            return Err(PartitionError::Mbr(what.into()));
        }
    }
    if let Some(extended) = extended {
        reader.follow(extended)?;
    }
    check_overlaps(&reader.partitions)?;
    Ok(Table {
        kind: TableKind::Mbr {
            signature: record.signature,
        },
        sector_size: size,
        partitions: reader.partitions,
    })
}

struct Reader<'a> {
    disk: Disk<'a>,
    size: SectorSize,
    signature: u32,
    partitions: Vec<Partition>,
}

impl Reader<'_> {
    /// Adds a partition that must lie within the given sectors.
    fn push(
        &mut self,
        number: u32,
        entry: &Entry,
        first: u64,
        within: (u64, u64, &'static str),
    ) -> Result<(), PartitionError> {
        let end = first.saturating_add(entry.count);
        let bytes = |sectors: u64| sectors.saturating_mul(self.size.bytes());
        let (from, to, of) = within;
        if first < from || end > to {
            return Err(PartitionError::Outside {
                number,
                first_byte: bytes(first),
                end_byte: bytes(end),
                of,
            });
        }
        self.partitions.push(Partition {
            number,
            kind: PartitionType::Mbr(entry.kind),
            name: String::new(),
            first_byte: bytes(first),
            length_bytes: bytes(entry.count),
            uuid: format!("{:08x}-{number:02x}", self.signature),
            attributes: u64::from(entry.status),
            is_bootable: entry.status == ACTIVE,
            is_extended: entry.is_extended(),
        });
        Ok(())
    }

    /// Follows the chain: each record has one logical partition, counted from the record, and where
    /// the next record is, counted from the extended partition.
    fn follow(&mut self, extended: &Entry) -> Result<(), PartitionError> {
        let within = (extended.first, extended.end(), "the extended partition");
        let mut seen = BTreeSet::new();
        let mut next = Some(extended.first);
        let mut number = 5;
        while let Some(sector) = next {
            let broken = |reason| PartitionError::Chain { sector, reason };
            if !(extended.first..extended.end()).contains(&sector) {
                return Err(broken("it lies outside of the extended partition"));
            }
            if !seen.insert(sector) {
                return Err(broken("it runs in a circle"));
            }
            if seen.len() > LOGICAL_MAX {
                return Err(PartitionError::TooManyLogical);
            }
            let start = sector.saturating_mul(self.size.bytes());
            let record = Record::decode(&self.disk.bytes(start, 512)?);
            let Some(record) = record else {
                // A fresh extended partition may have no record at all.
                if seen.len() == 1 && self.disk.bytes(start, 512)?.iter().all(|byte| *byte == 0) {
                    return Ok(());
                }
                return Err(broken("it has no boot record"));
            };
            next = None;
            let mut has_partition = false;
            for entry in record.used() {
                if entry.is_extended() {
                    if next.is_some() {
                        return Err(broken("it has more than one continuation"));
                    }
                    next = Some(extended.first.saturating_add(entry.first));
                } else if has_partition {
                    return Err(broken("it has more than one partition"));
                } else if entry.first == 0 {
                    return Err(broken("its partition begins with it"));
                } else {
                    has_partition = true;
                    self.push(number, entry, sector.saturating_add(entry.first), within)?;
                }
            }
            number += u32::from(has_partition);
        }
        self.check_records(&seen)
    }

    /// A record within a logical partition would be overwritten with it.
    fn check_records(&self, records: &BTreeSet<u64>) -> Result<(), PartitionError> {
        for partition in self.partitions.iter().filter(|found| found.number > 4) {
            let sectors =
                partition.first_byte / self.size.bytes()..partition.end() / self.size.bytes();
            if let Some(sector) = records.range(sectors).next() {
                return Err(PartitionError::Chain {
                    sector: *sector,
                    reason: "it lies in a logical partition",
                });
            }
        }
        Ok(())
    }
}
