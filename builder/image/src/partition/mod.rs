//! Partition tables: GPT and MBR.
//!
//! GPT follows the UEFI specification 2.10, chapter 5; MBR follows what Linux makes of it
//! (`block/partitions/msdos.c`): addresses of cylinders and heads are ignored, logical partitions
//! are numbered from 5 in the order of their chain. Tables come from downloaded disks, so every
//! number is checked: what overlaps, lies outside, or runs in a circle is refused.
//!
//! | module | what |
//! |---|---|
//! | `gpt`, `mbr` | reading the two tables |
//! | `kind` | identifiers and types, and what they are called |
//! | `probe` | file systems by their magic: disks without a table, and what a partition holds |
//! | `volume` | a file system's label and identifier |
//! | `write` | writing both tables |

mod gpt;
mod kind;
mod mbr;
mod probe;
#[cfg(test)]
mod tests;
mod volume;
mod write;

use std::io;

pub use kind::{Guid, PartitionType};
pub use probe::FileSystem;
pub use volume::{Volume, volume};
pub use write::{ALIGNMENT_BYTES, NewPartition, NewTable, Plan, plan, write};

use crate::numbers::{field, u16_at, u32_at, u64_at};
use crate::tree::{Blob, read_exact_at};

/// The most bytes of entries that a GPT may have: 8192 of the usual size.
pub const GPT_ENTRIES_BYTES_MAX: u64 = 1 << 20;
/// The most logical partitions: Linux numbers partitions up to 255.
pub const LOGICAL_MAX: usize = 251;

/// Unit of a table's addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SectorSize {
    /// 512 bytes.
    #[default]
    B512,
    /// 4096 bytes.
    B4096,
}

impl SectorSize {
    const ALL: [Self; 2] = [Self::B512, Self::B4096];

    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

/// How a table is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The disk's sectors; `None` looks for them: a GPT's place shows them, behind an MBR the file
    /// systems do, and where nothing does they have 512 bytes.
    pub sector_size: Option<SectorSize>,
    /// Whether a GPT with a damaged first copy is read from its second one, at the disk's end.
    pub use_backup: bool,
}

/// What a disk is divided into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which table, and what only this kind has.
    pub kind: TableKind,
    /// Unit of the table's addresses.
    pub sector_size: SectorSize,
    /// By number; none overlap, but that an extended partition contains the logical ones.
    pub partitions: Vec<Partition>,
}

/// A kind of table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// A GUID partition table.
    Gpt {
        /// Identifies the disk.
        disk: Guid,
        /// Whether it was read from the copy at the disk's end.
        from_backup: bool,
        /// What is wrong with the other copy.
        damage: Option<String>,
        /// Whether the protective MBR has partitions of its own, which are ignored.
        is_hybrid: bool,
    },
    /// A master boot record.
    Mbr {
        /// Identifies the disk; 0 where it has no identity.
        signature: u32,
    },
    /// No table: the whole disk is one file system.
    Bare(FileSystem),
}

/// A part of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// As Linux numbers it: from 1; logical partitions from 5.
    pub number: u32,
    /// What it says that it is for.
    pub kind: PartitionType,
    /// GPT's name; what is no UTF-16 is replaced. Empty for MBR.
    pub name: String,
    /// Where it begins, in bytes.
    pub first_byte: u64,
    /// Its length in bytes.
    pub length_bytes: u64,
    /// What Linux calls `PARTUUID`: GPT's identifier, or `SIGNATURE-NN` of an MBR.
    pub uuid: String,
    /// GPT's attribute bits; for MBR the status byte.
    pub attributes: u64,
    /// Whether old firmware boots from it: MBR's active flag, GPT's attribute 2.
    pub is_bootable: bool,
    /// Whether it only contains the logical partitions.
    pub is_extended: bool,
}

impl Partition {
    /// The first byte behind it; readers and writers have checked that it exists.
    fn end(&self) -> u64 {
        self.first_byte.saturating_add(self.length_bytes)
    }
}

/// Why a table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// Neither a table nor a file system that coop knows.
    #[error("the disk has no partition table and no file system that is known")]
    NoTable,
    /// The first copy of a GPT is damaged, but the second is not.
    #[error(
        "the primary partition table (GPT) is damaged: {reason}; its backup at byte \
         {backup_byte} is good, and is used only on request"
    )]
    PrimaryDamaged {
        /// What is wrong with the first copy.
        reason: String,
        /// Where the good header is.
        backup_byte: u64,
    },
    /// No copy of a GPT is good.
    #[error("the partition table (GPT) is damaged: {primary}; and so is its backup: {backup}")]
    GptDamaged {
        /// What is wrong with the first copy.
        primary: String,
        /// What is wrong with the second.
        backup: String,
    },
    /// A GPT that neither firmware nor kernel would look for.
    #[error("the disk has a GPT, but no protective MBR that says so")]
    Unprotected,
    /// Good GPTs at the places of both sector sizes.
    #[error("the disk has a GPT for sectors of 512 and one of 4096 bytes: state the sector size")]
    SectorSize,
    /// An MBR that is none.
    #[error("the partition table (MBR) is damaged: {0}")]
    Mbr(String),
    /// A boot record of the chain of logical partitions is wrong.
    #[error("the chain of logical partitions is damaged at sector {sector}: {reason}")]
    Chain {
        /// Where the boot record is.
        sector: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// More than [`LOGICAL_MAX`].
    #[error("the disk has more than {LOGICAL_MAX} logical partitions")]
    TooManyLogical,
    /// A partition is not where partitions may be.
    #[error("partition {number} (bytes {first_byte} to {end_byte}) lies outside of {of}")]
    Outside {
        /// Its number.
        number: u32,
        /// Where it begins.
        first_byte: u64,
        /// Where it ends.
        end_byte: u64,
        /// What it should be in.
        of: &'static str,
    },
    /// Two partitions have a byte in common.
    #[error("partitions {first} and {second} overlap")]
    Overlap {
        /// Number of the one that begins first.
        first: u32,
        /// Number of the other.
        second: u32,
    },
    /// The disk cannot be read.
    #[error("cannot read the disk at byte {offset}: {source}")]
    Read {
        /// Where, in bytes.
        offset: u64,
        /// What the operating system says.
        source: io::Error,
    },
    /// A new table is impossible.
    #[error("cannot make the partition table: {0}")]
    Invalid(String),
    /// The disk cannot be written.
    #[error("cannot write the partition table: {0}")]
    Write(#[source] io::Error),
}

/// Reads the partition table of a disk of `size_bytes`.
///
/// A GPT is one where its protective MBR says so; as Linux does it, a forgotten GPT under a plain
/// MBR is ignored. The boot sector of a file system looks like an MBR: it is taken for one only
/// where all its entries are possible and one is used.
///
/// # Errors
/// There is no table, it is damaged, or the disk cannot be read.
pub fn read(
    disk: &dyn Blob,
    size_bytes: u64,
    options: &ReadOptions,
) -> Result<Table, PartitionError> {
    let disk = Disk { disk, size_bytes };
    let first = disk.bytes(0, 512.min(size_bytes))?;
    let record = mbr::Record::decode(&first);
    if record.as_ref().is_some_and(mbr::Record::is_protective) {
        let is_hybrid = record.is_some_and(|record| record.is_hybrid());
        return gpt::read(disk, options, is_hybrid);
    }
    let whole = probe::file_system_of(disk, 0, size_bytes)?;
    if let Some(record) = record
        && record.is_plausible(size_bytes, whole)
    {
        let is_forgotten = record.is_empty() && gpt::is_there(disk, options)?;
        return if is_forgotten {
            Err(PartitionError::Unprotected)
        } else {
            mbr::read(disk, &record, options)
        };
    }
    if let Some(found) = whole {
        return Ok(Table {
            kind: TableKind::Bare(found),
            sector_size: options.sector_size.unwrap_or_default(),
            partitions: Vec::new(),
        });
    }
    if gpt::is_there(disk, options)? {
        return Err(PartitionError::Unprotected);
    }
    Err(PartitionError::NoTable)
}

/// A disk that is read.
#[derive(Clone, Copy)]
struct Disk<'a> {
    disk: &'a dyn Blob,
    size_bytes: u64,
}

impl Disk<'_> {
    /// Reads what must lie inside the disk; callers bound the length.
    fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>, PartitionError> {
        let failed = |source| PartitionError::Read { offset, source };
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > self.size_bytes) {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        let length =
            usize::try_from(length).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        let mut bytes = vec![0; length];
        read_exact_at(self.disk, &mut bytes, offset).map_err(failed)?;
        Ok(bytes)
    }

    fn sectors(&self, size: SectorSize) -> u64 {
        self.size_bytes / size.bytes()
    }
}

/// Refuses partitions that share a byte; an extended partition is compared with its like only.
fn check_overlaps(partitions: &[Partition]) -> Result<(), PartitionError> {
    let logical = |partition: &&Partition| {
        partition.number > 4 && matches!(partition.kind, PartitionType::Mbr(_))
    };
    let mut groups = [
        partitions.iter().filter(logical).collect::<Vec<_>>(),
        partitions
            .iter()
            .filter(|partition| !logical(partition))
            .collect(),
    ];
    for group in &mut groups {
        group.sort_by_key(|partition| (partition.first_byte, partition.number));
        for pair in group.windows(2) {
            if pair[0].end() > pair[1].first_byte {
                return Err(PartitionError::Overlap {
                    first: pair[0].number,
                    second: pair[1].number,
                });
            }
        }
    }
    Ok(())
}
