//! Writing a GPT or an MBR.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::gpt::{self, crc32};
use super::mbr;
use super::{
    GPT_ENTRIES_BYTES_MAX, Guid, LOGICAL_MAX, Partition, PartitionError, PartitionType, SectorSize,
    Table, TableKind, check_overlaps,
};

/// Partitions for which no place is given begin at a multiple of this many bytes.
pub const ALIGNMENT_BYTES: u64 = 1 << 20;
/// How many entries every GPT has at least.
const GPT_ENTRIES_MIN: u64 = 128;
/// Addresses of cylinders and heads that say: look at the sectors.
const NO_CHS: [u8; 3] = [0xFE, 0xFF, 0xFF];
/// The largest GUID table's name, in UTF-16 units.
const NAME_UNITS: usize = gpt::NAME_UNITS;

/// A table to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTable {
    /// Which table, and the disk's identity: [`TableKind::Gpt`] (its other fields say nothing here)
    /// or [`TableKind::Mbr`].
    pub kind: TableKind,
    /// Unit of the table's addresses.
    pub sector_size: SectorSize,
    /// Size of the disk in bytes; `None` makes it as small as the partitions allow.
    pub size_bytes: Option<u64>,
    /// Numbered as they come: 1 and on; an MBR's logical ones from 5, behind all others.
    pub partitions: Vec<NewPartition>,
}

/// A partition to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartition {
    /// What it is for; of the table's kind.
    pub kind: PartitionType,
    /// GPT's name, at most 36 UTF-16 units; empty for MBR.
    pub name: String,
    /// GPT's identifier; zero for MBR.
    pub uuid: Guid,
    /// Where it begins; `None`: at the next multiple of [`ALIGNMENT_BYTES`].
    pub first_byte: Option<u64>,
    /// Its length in bytes: whole sectors.
    pub length_bytes: u64,
    /// GPT's attribute bits; 0 for MBR.
    pub attributes: u64,
    /// MBR's active flag, or GPT's attribute 2.
    pub is_bootable: bool,
    /// Whether it is one of an MBR's logical partitions. Before each lies 1 MiB with its record.
    pub is_logical: bool,
}

/// A table's bytes and what they say, before they are written anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// The table as [`super::read`] would give it.
    pub table: Table,
    /// Bytes and where they go, none in a partition.
    pub pieces: Vec<(u64, Vec<u8>)>,
}

/// Lays a table out without writing it.
///
/// # Errors
/// The partitions do not fit or overlap, are too many, have names, types or identities that the
/// table cannot have.
pub fn plan(table: &NewTable) -> Result<Plan, PartitionError> {
    let (layout, pieces) = match &table.kind {
        TableKind::Gpt { disk, .. } => gpt_table(table, *disk)?,
        TableKind::Mbr { signature } => mbr_table(table, *signature)?,
        TableKind::Bare(_) => return Err(invalid("a bare file system has no table")),
    };
    Ok(Plan {
        size_bytes: layout.size_bytes,
        table: layout.table,
        pieces,
    })
}

/// Writes a table around the partitions of `output`, whose size it sets; what is in the partitions
/// stays. Gives the table as [`super::read`] would.
///
/// # Errors
/// As for [`plan`]; or the disk cannot be written.
pub fn write(output: &File, table: &NewTable) -> Result<Table, PartitionError> {
    let plan = plan(table)?;
    output
        .set_len(plan.size_bytes)
        .map_err(PartitionError::Write)?;
    for (offset, bytes) in plan.pieces {
        let written = output.write_all_at(&bytes, offset);
        written.map_err(PartitionError::Write)?;
    }
    Ok(plan.table)
}

fn invalid(reason: impl ToString) -> PartitionError {
    PartitionError::Invalid(reason.to_string())
}

/// Bytes and where they go.
type Pieces = Vec<(u64, Vec<u8>)>;

struct Layout {
    size_bytes: u64,
    table: Table,
}

/// Gives each partition its place, the logical ones with room for their record.
fn place(table: &NewTable, first_byte: u64) -> Result<Vec<(u64, u64)>, PartitionError> {
    let sector = table.sector_size.bytes();
    let mut free = first_byte;
    let mut places = Vec::new();
    for (partition, number) in table.partitions.iter().zip(1_u32..) {
        let too_large = || invalid(format!("partition {number} is too large"));
        let is_whole = |bytes: u64| bytes.is_multiple_of(sector);
        if partition.length_bytes == 0
            || !is_whole(partition.length_bytes)
            || !is_whole(partition.first_byte.unwrap_or(0))
        {
            let what = format!("partition {number} is not made of whole sectors");
            return Err(invalid(what));
        }
        let start = match partition.first_byte {
            Some(start) => start,
            None => {
                let record = if partition.is_logical {
                    ALIGNMENT_BYTES
                } else {
                    0
                };
                let aligned = free.checked_next_multiple_of(ALIGNMENT_BYTES);
                let start = aligned.and_then(|aligned| aligned.checked_add(record));
                start.ok_or_else(too_large)?
            }
        };
        let end = start.checked_add(partition.length_bytes);
        let end = end.filter(|end| i64::try_from(*end).is_ok());
        free = free.max(end.ok_or_else(too_large)?);
        places.push((start, partition.length_bytes));
    }
    Ok(places)
}

fn partition_of(
    new: &NewPartition,
    number: u32,
    (first_byte, length_bytes): (u64, u64),
    uuid: String,
    attributes: u64,
) -> Partition {
    Partition {
        number,
        kind: new.kind,
        name: new.name.clone(),
        first_byte,
        length_bytes,
        uuid,
        attributes,
        is_bootable: new.is_bootable,
        is_extended: false,
    }
}

fn check_inside(partitions: &[Partition], from: u64, to: u64) -> Result<(), PartitionError> {
    for partition in partitions {
        if partition.first_byte < from || partition.end() > to {
            return Err(PartitionError::Outside {
                number: partition.number,
                first_byte: partition.first_byte,
                end_byte: partition.end(),
                of: "the part of the disk that the table leaves",
            });
        }
    }
    Ok(())
}

/// The size that was asked for, or enough for what ends at `end` and `tail` more bytes.
fn disk_size(table: &NewTable, end: u64, tail: u64) -> Result<u64, PartitionError> {
    let size = match table.size_bytes {
        Some(size) => Some(size),
        None => end
            .checked_add(tail)
            .and_then(|end| end.checked_next_multiple_of(ALIGNMENT_BYTES)),
    };
    let size = size.filter(|size| i64::try_from(*size).is_ok());
    let size = size.ok_or_else(|| invalid("the disk is too large"))?;
    if !size.is_multiple_of(table.sector_size.bytes()) {
        return Err(invalid("the disk is not made of whole sectors"));
    }
    Ok(size)
}

fn gpt_table(table: &NewTable, disk: Guid) -> Result<(Layout, Pieces), PartitionError> {
    let sector = table.sector_size.bytes();
    let count = u64::try_from(table.partitions.len()).unwrap_or(u64::MAX);
    // Other tools want whole sectors of entries, of the usual size.
    let count = count.max(GPT_ENTRIES_MIN).next_multiple_of(32);
    let entries_bytes = count.saturating_mul(u64::from(gpt::ENTRY_BYTES));
    if entries_bytes > GPT_ENTRIES_BYTES_MAX {
        return Err(invalid("there are too many partitions"));
    }
    let entries_sectors = entries_bytes.div_ceil(sector);
    let head = (2 + entries_sectors) * sector;
    let tail = (1 + entries_sectors) * sector;
    let places = place(table, head)?;
    let end = places.iter().map(|(start, length)| start + length).max();
    let size_bytes = disk_size(table, end.unwrap_or(head), tail)?;
    let last = (size_bytes / sector).saturating_sub(1);
    if size_bytes < head.saturating_add(tail).saturating_add(sector) {
        return Err(invalid("the disk is too small for a GPT"));
    }
    let partitions = gpt_partitions(table, &places)?;
    check_overlaps(&partitions)?;
    check_inside(&partitions, head, size_bytes - tail)?;
    let mut entries = Vec::new();
    for (new, partition) in table.partitions.iter().zip(&partitions) {
        entries.extend(gpt_entry(new, partition, sector));
    }
    entries.resize(usize::try_from(entries_bytes).unwrap_or(usize::MAX), 0);
    let header = |own: u64, other: u64, entries_at: u64| {
        gpt_header(
            [own, other, 2 + entries_sectors, last - 1 - entries_sectors],
            disk,
            entries_at,
            u32::try_from(count).unwrap_or(u32::MAX),
            crc32(&entries),
            table.sector_size,
        )
    };
    let backup_entries = last - entries_sectors;
    let pieces = vec![
        (0, protective(last)),
        (sector, header(1, last, 2)),
        (2 * sector, entries.clone()),
        (last * sector, header(last, 1, backup_entries)),
        (backup_entries * sector, entries),
    ];
    let kind = TableKind::Gpt {
        disk,
        from_backup: false,
        damage: None,
        is_hybrid: false,
    };
    let table = Table {
        kind,
        sector_size: table.sector_size,
        partitions,
    };
    Ok((Layout { size_bytes, table }, pieces))
}

fn gpt_partitions(
    table: &NewTable,
    places: &[(u64, u64)],
) -> Result<Vec<Partition>, PartitionError> {
    let mut partitions: Vec<Partition> = Vec::new();
    for ((new, place), number) in table.partitions.iter().zip(places).zip(1..) {
        let refuse = |what: &str| Err(invalid(format!("partition {number} {what}")));
        if !matches!(new.kind, PartitionType::Gpt(kind) if !kind.is_zero()) {
            return refuse("has a type that is not a GPT's");
        }
        if new.is_logical {
            return refuse("is logical, and GPT has no logical partitions");
        }
        if new.name.encode_utf16().count() > NAME_UNITS || new.name.contains('\0') {
            return refuse("has a name with a NUL or of more than 36 UTF-16 units");
        }
        let uuid = new.uuid.to_string();
        if new.uuid.is_zero() || partitions.iter().any(|other| other.uuid == uuid) {
            return refuse("has no identifier of its own");
        }
        let boot = if new.is_bootable { gpt::LEGACY_BOOT } else { 0 };
        let attributes = new.attributes | boot;
        let mut partition = partition_of(new, number, *place, uuid, attributes);
        partition.is_bootable = attributes & gpt::LEGACY_BOOT != 0;
        partitions.push(partition);
    }
    Ok(partitions)
}

fn gpt_entry(new: &NewPartition, partition: &Partition, sector: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let PartitionType::Gpt(kind) = new.kind {
        bytes.extend(kind.0);
    }
    bytes.extend(new.uuid.0);
    bytes.extend((partition.first_byte / sector).to_le_bytes());
    bytes.extend((partition.end() / sector).saturating_sub(1).to_le_bytes());
    bytes.extend(partition.attributes.to_le_bytes());
    bytes.extend(new.name.encode_utf16().flat_map(u16::to_le_bytes));
    bytes.resize(usize::try_from(gpt::ENTRY_BYTES).unwrap_or(usize::MAX), 0);
    bytes
}

/// A sector with a header; `sectors` are its own, the other header's, and the usable ones.
fn gpt_header(
    sectors: [u64; 4],
    disk: Guid,
    entries_at: u64,
    count: u32,
    entries_crc: u32,
    size: SectorSize,
) -> Vec<u8> {
    let mut bytes = gpt::SIGNATURE.to_vec();
    for number in [gpt::REVISION, gpt::HEADER_BYTES, 0, 0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(sectors.iter().flat_map(|sector| sector.to_le_bytes()));
    bytes.extend(disk.0);
    bytes.extend(entries_at.to_le_bytes());
    for number in [count, gpt::ENTRY_BYTES, entries_crc] {
        bytes.extend(number.to_le_bytes());
    }
    let crc = crc32(&bytes);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes.resize(usize::try_from(size.bytes()).unwrap_or(usize::MAX), 0);
    bytes
}

/// The MBR that keeps old tools away from a GPT whose last sector this is.
fn protective(last: u64) -> Vec<u8> {
    let mut bytes = boot_record(0);
    let count = u32::try_from(last).unwrap_or(u32::MAX);
    put_entry(&mut bytes, 0, 0, mbr::PROTECTIVE, 1, count);
    // The specification wants its true first address here: cylinder 0, head 0, sector 2.
    bytes[mbr::ENTRIES_AT + 1..mbr::ENTRIES_AT + 4].copy_from_slice(&[0, 2, 0]);
    bytes[mbr::ENTRIES_AT + 5..mbr::ENTRIES_AT + 8].fill(0xFF);
    bytes
}

fn boot_record(signature: u32) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[mbr::DISK_SIGNATURE_AT..mbr::DISK_SIGNATURE_AT + 4]
        .copy_from_slice(&signature.to_le_bytes());
    bytes[510..].copy_from_slice(&mbr::BOOT_SIGNATURE.to_le_bytes());
    bytes
}

fn put_entry(record: &mut [u8], index: usize, status: u8, kind: u8, first: u32, count: u32) {
    let at = mbr::ENTRIES_AT + index * mbr::ENTRY_BYTES;
    let mut entry = vec![status];
    entry.extend(NO_CHS);
    entry.push(kind);
    entry.extend(NO_CHS);
    entry.extend(first.to_le_bytes());
    entry.extend(count.to_le_bytes());
    record[at..at + mbr::ENTRY_BYTES].copy_from_slice(&entry);
}

fn mbr_table(table: &NewTable, signature: u32) -> Result<(Layout, Pieces), PartitionError> {
    let sector = table.sector_size.bytes();
    let places = place(table, sector)?;
    let end = places.iter().map(|(start, length)| start + length).max();
    let size_bytes = disk_size(table, end.unwrap_or(sector), 0)?;
    let partitions = mbr_partitions(table, signature, &places)?;
    check_overlaps(&partitions)?;
    check_inside(&partitions, sector, size_bytes)?;
    let in_sectors = |bytes: u64| {
        u32::try_from(bytes / sector).map_err(|_| {
            invalid("an MBR has no addresses beyond 4294967295 sectors: make it a GPT")
        })
    };
    let mut pieces = Vec::new();
    let mut record = boot_record(signature);
    let primary = partitions.iter().filter(|found| found.number <= 4);
    for (slot, partition) in primary.enumerate() {
        let (first, count) = (
            in_sectors(partition.first_byte)?,
            in_sectors(partition.length_bytes)?,
        );
        let status = u8::try_from(partition.attributes).unwrap_or(0);
        put_entry(
            &mut record,
            slot,
            status,
            type_byte(partition),
            first,
            count,
        );
    }
    pieces.push((0, record));
    let logical: Vec<_> = partitions.iter().filter(|found| found.number > 4).collect();
    for (index, partition) in logical.iter().enumerate() {
        let mut record = boot_record(0);
        let own = partition.first_byte - ALIGNMENT_BYTES;
        let status = u8::try_from(partition.attributes).unwrap_or(0);
        let count = in_sectors(partition.length_bytes)?;
        let distance = in_sectors(ALIGNMENT_BYTES)?;
        put_entry(
            &mut record,
            0,
            status,
            type_byte(partition),
            distance,
            count,
        );
        if let Some(next) = logical.get(index + 1) {
            let from = logical[0].first_byte - ALIGNMENT_BYTES;
            let first = in_sectors(next.first_byte - ALIGNMENT_BYTES - from)?;
            let count = in_sectors(next.length_bytes + ALIGNMENT_BYTES)?;
            put_entry(&mut record, 1, 0, EXTENDED, first, count);
        }
        pieces.push((own, record));
    }
    let table = Table {
        kind: TableKind::Mbr { signature },
        sector_size: table.sector_size,
        partitions,
    };
    Ok((Layout { size_bytes, table }, pieces))
}

/// Type of the partition around the logical ones (with sectors, not cylinders).
const EXTENDED: u8 = 0x0F;

fn type_byte(partition: &Partition) -> u8 {
    match partition.kind {
        PartitionType::Mbr(byte) => byte,
        PartitionType::Gpt(_) => 0,
    }
}

/// Primary ones, then the extended one where it is needed, then the logical ones.
fn mbr_partitions(
    table: &NewTable,
    signature: u32,
    places: &[(u64, u64)],
) -> Result<Vec<Partition>, PartitionError> {
    let mut primary = Vec::new();
    let mut logical: Vec<Partition> = Vec::new();
    for ((new, place), index) in table.partitions.iter().zip(places).zip(1_u32..) {
        let refuse = |what: &str| Err(invalid(format!("partition {index} {what}")));
        match new.kind {
            PartitionType::Mbr(0 | 0x05 | 0x0F | 0x85 | mbr::PROTECTIVE) => {
                return refuse("has a type that is made by coop only");
            }
            PartitionType::Mbr(_) => {}
            PartitionType::Gpt(_) => return refuse("has a type that is not an MBR's"),
        }
        if !new.name.is_empty() || !new.uuid.is_zero() || new.attributes != 0 {
            return refuse("has a name, identifier or attributes, which an MBR cannot hold");
        }
        if !new.is_logical && !logical.is_empty() {
            return refuse("is not logical, but comes behind logical ones");
        }
        let list = if new.is_logical {
            &mut logical
        } else {
            &mut primary
        };
        let base = if new.is_logical { 5 } else { 1 };
        let number = base + u32::try_from(list.len()).unwrap_or(u32::MAX - base);
        let uuid = format!("{signature:08x}-{number:02x}");
        let status = if new.is_bootable { mbr::ACTIVE } else { 0 };
        list.push(partition_of(new, number, *place, uuid, u64::from(status)));
    }
    if logical.len() > LOGICAL_MAX {
        return Err(PartitionError::TooManyLogical);
    }
    check_records(&logical)?;
    if let (Some(first), Some(last)) = (logical.first(), logical.last()) {
        let number = u32::try_from(primary.len() + 1).unwrap_or(u32::MAX);
        let first_byte = first.first_byte - ALIGNMENT_BYTES;
        primary.push(Partition {
            number,
            kind: PartitionType::Mbr(EXTENDED),
            name: String::new(),
            first_byte,
            length_bytes: last.end() - first_byte,
            uuid: format!("{signature:08x}-{number:02x}"),
            attributes: 0,
            is_bootable: false,
            is_extended: true,
        });
    }
    if primary.len() > 4 {
        return Err(invalid(
            "an MBR has four primary partitions, one of them for all logical ones",
        ));
    }
    primary.extend(logical);
    Ok(primary)
}

/// Logical partitions come in order, each behind the 1 MiB that has its record.
fn check_records(logical: &[Partition]) -> Result<(), PartitionError> {
    let mut free = 0;
    for partition in logical {
        let record = partition.first_byte.checked_sub(ALIGNMENT_BYTES);
        if record.is_none_or(|record| record < free || record == 0) {
            return Err(invalid(format!(
                "there is not 1 MiB before logical partition {}",
                partition.number
            )));
        }
        free = partition.end();
    }
    Ok(())
}
