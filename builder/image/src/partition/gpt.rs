//! Reading a GPT.
//!
//! Not through the `gpt` crate: it leaves the entries' checksum unchecked, takes the backup unasked
//! where the first copy is damaged, and allocates as much as a header says.

use super::{
    Disk, GPT_ENTRIES_BYTES_MAX, Guid, Partition, PartitionError, PartitionType, ReadOptions,
    SectorSize, Table, TableKind, check_overlaps, field, u16_at, u32_at, u64_at,
};

pub(super) const SIGNATURE: &[u8; 8] = b"EFI PART";
pub(super) const REVISION: u32 = 0x0001_0000;
/// Size of a header in bytes; newer ones may be longer.
pub(super) const HEADER_BYTES: u32 = 92;
/// Size of the smallest entry in bytes; larger ones are this shifted left.
pub(super) const ENTRY_BYTES: u32 = 128;
const ENTRY_BYTES_MAX: u32 = 4096;
/// UTF-16 units of a name.
pub(super) const NAME_UNITS: usize = 36;
/// Sector of the first header.
const PRIMARY: u64 = 1;
/// Attribute 2: old firmware boots from it.
pub(super) const LEGACY_BOOT: u64 = 1 << 2;

/// Whether there is a header, good or not.
pub(super) fn is_there(disk: Disk<'_>, options: &ReadOptions) -> Result<bool, PartitionError> {
    for size in candidates(options) {
        if header_at(disk, size, PRIMARY)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn candidates(options: &ReadOptions) -> Vec<SectorSize> {
    let given = options.sector_size.map(|size| vec![size]);
    given.unwrap_or_else(|| SectorSize::ALL.to_vec())
}

/// The sector of a header, `None` where it lacks the signature or the disk is too small.
fn header_at(
    disk: Disk<'_>,
    size: SectorSize,
    sector: u64,
) -> Result<Option<Vec<u8>>, PartitionError> {
    if sector >= disk.sectors(size) {
        return Ok(None);
    }
    let bytes = disk.bytes(sector.saturating_mul(size.bytes()), size.bytes())?;
    Ok(Some(bytes).filter(|bytes| bytes.starts_with(SIGNATURE)))
}

/// Reads the table of a disk whose MBR is protective.
pub(super) fn read(
    disk: Disk<'_>,
    options: &ReadOptions,
    is_hybrid: bool,
) -> Result<Table, PartitionError> {
    let mut good: Vec<Both> = Vec::new();
    let mut bad: Vec<Both> = Vec::new();
    for size in candidates(options) {
        let both = Both::read(disk, size)?;
        match both.primary {
            Ok(_) => good.push(both),
            // What has not even a signature matters only where nothing else is there.
            Err(_) => bad.push(both),
        }
    }
    match good.len() {
        0 => {}
        1 => return good.remove(0).into_table(disk, options, is_hybrid),
        _ => return Err(PartitionError::SectorSize),
    }
    let better = bad.iter().position(|both| both.backup.is_ok());
    let better = better.or_else(|| bad.iter().position(|both| both.is_signed));
    bad.remove(better.unwrap_or(0))
        .into_table(disk, options, is_hybrid)
}

/// Both copies for one sector size: each good, or why not.
struct Both {
    size: SectorSize,
    primary: Result<Copy, String>,
    backup: Result<Copy, String>,
    /// Whether the first copy has its signature.
    is_signed: bool,
}

impl Both {
    fn read(disk: Disk<'_>, size: SectorSize) -> Result<Self, PartitionError> {
        let last = disk.sectors(size).saturating_sub(1);
        let header = header_at(disk, size, PRIMARY)?;
        let is_signed = header.is_some();
        let primary = Copy::read(disk, size, PRIMARY, header)?;
        // The disk may have grown since, so that the header's word comes before the disk's end.
        let place = primary.as_ref().map_or(last, |copy| copy.other);
        let backup = if place > last {
            Err(format!("sector {place} is behind the disk's end"))
        } else {
            Copy::read(disk, size, place, header_at(disk, size, place)?)?
        };
        Ok(Self {
            size,
            primary,
            backup,
            is_signed,
        })
    }

    fn into_table(
        self,
        disk: Disk<'_>,
        options: &ReadOptions,
        is_hybrid: bool,
    ) -> Result<Table, PartitionError> {
        let size = self.size;
        let (copy, from_backup, damage) = match (self.primary, self.backup) {
            (Ok(primary), Ok(backup)) => {
                let differs = (primary.entries_crc, primary.disk, primary.usable)
                    != (backup.entries_crc, backup.disk, backup.usable);
                let damage = differs.then(|| "it differs from the primary".to_string());
                (primary, false, damage)
            }
            (Ok(primary), Err(reason)) => (primary, false, Some(reason)),
            (Err(reason), Ok(backup)) if options.use_backup => (backup, true, Some(reason)),
            (Err(reason), Ok(backup)) => {
                return Err(PartitionError::PrimaryDamaged {
                    reason,
                    backup_byte: backup.sector.saturating_mul(size.bytes()),
                });
            }
            (Err(primary), Err(backup)) => {
                return Err(PartitionError::GptDamaged { primary, backup });
            }
        };
        Ok(Table {
            partitions: copy.partitions(disk, size)?,
            kind: TableKind::Gpt {
                disk: copy.disk,
                from_backup,
                damage,
                is_hybrid,
            },
            sector_size: size,
        })
    }
}

/// One copy of the table, its checksums checked.
struct Copy {
    /// Where its header is.
    sector: u64,
    /// Where it says that the other one is.
    other: u64,
    /// First and last sector that partitions may use.
    usable: (u64, u64),
    disk: Guid,
    entry_bytes: u32,
    entries: Vec<u8>,
    entries_crc: u32,
}

impl Copy {
    /// The inner error says why the copy is not good; the outer that the disk cannot be read.
    fn read(
        disk: Disk<'_>,
        size: SectorSize,
        sector: u64,
        header: Option<Vec<u8>>,
    ) -> Result<Result<Self, String>, PartitionError> {
        let Some(header) = header else {
            let what = format!("sector {sector} of {} bytes has no header", size.bytes());
            return Ok(Err(what));
        };
        let place = match Entries::decode(&header, sector, disk.sectors(size), size) {
            Ok(place) => place,
            Err(reason) => return Ok(Err(reason.into())),
        };
        let start = place.sector.saturating_mul(size.bytes());
        let entries = disk.bytes(start, place.bytes)?;
        let entries_crc = u32_at(&header, 88);
        if crc32(&entries) != entries_crc {
            return Ok(Err("the checksum of its entries is wrong".into()));
        }
        Ok(Ok(Self {
            sector,
            other: u64_at(&header, 32),
            usable: place.usable,
            disk: Guid(field(&header, 56)),
            entry_bytes: place.entry_bytes,
            entries,
            entries_crc,
        }))
    }

    fn partitions(
        &self,
        disk: Disk<'_>,
        size: SectorSize,
    ) -> Result<Vec<Partition>, PartitionError> {
        let entry_bytes = usize::try_from(self.entry_bytes).unwrap_or(usize::MAX);
        let mut partitions = Vec::new();
        for (number, entry) in (1..).zip(self.entries.chunks_exact(entry_bytes)) {
            let kind = Guid(field(entry, 0));
            if !kind.is_zero() {
                partitions.push(self.partition(number, kind, entry, disk, size)?);
            }
        }
        check_overlaps(&partitions)?;
        Ok(partitions)
    }

    fn partition(
        &self,
        number: u32,
        kind: Guid,
        entry: &[u8],
        disk: Disk<'_>,
        size: SectorSize,
    ) -> Result<Partition, PartitionError> {
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let bytes = |sector: u64| sector.saturating_mul(size.bytes());
        let end_byte = bytes(last.saturating_add(1));
        if first > last || first < self.usable.0 || last > self.usable.1 {
            return Err(PartitionError::Outside {
                number,
                first_byte: bytes(first),
                end_byte,
                of: if last >= disk.sectors(size) {
                    "the disk"
                } else {
                    "the sectors that the table says are usable"
                },
            });
        }
        let units = (0..NAME_UNITS).map(|unit| u16_at(entry, 56 + unit * 2));
        let name: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        let attributes = u64_at(entry, 48);
        Ok(Partition {
            number,
            kind: PartitionType::Gpt(kind),
            name: String::from_utf16_lossy(&name),
            first_byte: bytes(first),
            length_bytes: end_byte.saturating_sub(bytes(first)),
            uuid: Guid(field(entry, 16)).to_string(),
            attributes,
            is_bootable: attributes & LEGACY_BOOT != 0,
            is_extended: false,
        })
    }
}

/// Where a header says that its entries are.
struct Entries {
    sector: u64,
    bytes: u64,
    entry_bytes: u32,
    usable: (u64, u64),
}

impl Entries {
    /// Checks the header of `sector` on a disk of so many sectors.
    fn decode(
        header: &[u8],
        sector: u64,
        sectors: u64,
        size: SectorSize,
    ) -> Result<Self, &'static str> {
        check_header(header, sector)?;
        let usable = (u64_at(header, 40), u64_at(header, 48));
        let entry_bytes = u32_at(header, 84);
        let is_size = entry_bytes.is_power_of_two();
        if !is_size || !(ENTRY_BYTES..=ENTRY_BYTES_MAX).contains(&entry_bytes) {
            return Err("the size of its entries is impossible");
        }
        let bytes = u64::from(entry_bytes).saturating_mul(u64::from(u32_at(header, 80)));
        if bytes == 0 || bytes > GPT_ENTRIES_BYTES_MAX {
            return Err("the number of its entries is impossible");
        }
        let first = u64_at(header, 72);
        let end = first.saturating_add(bytes.div_ceil(size.bytes()));
        if usable.0 > usable.1.saturating_add(1) || usable.1 >= sectors {
            return Err("its usable sectors are not on the disk");
        }
        let is_before = first > PRIMARY && end <= usable.0;
        let is_behind = first > usable.1 && end <= sectors;
        if !(is_before || is_behind) || (first..end).contains(&sector) {
            return Err("its entries lie outside of the disk or among the partitions");
        }
        Ok(Self {
            sector: first,
            bytes,
            entry_bytes,
            usable,
        })
    }
}

fn check_header(header: &[u8], sector: u64) -> Result<(), &'static str> {
    let length = usize::try_from(u32_at(header, 12)).unwrap_or(usize::MAX);
    if u32_at(header, 12) < HEADER_BYTES || length > header.len() {
        return Err("the length of its header is impossible");
    }
    let mut summed = header[..length].to_vec();
    summed[16..20].fill(0);
    if crc32(&summed) != u32_at(header, 16) {
        return Err("the checksum of its header is wrong");
    }
    if u32_at(header, 8) != REVISION {
        return Err("its revision is not 1.0");
    }
    if u64_at(header, 24) != sector {
        return Err("its header says that it is elsewhere");
    }
    Ok(())
}

/// The usual CRC-32.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
