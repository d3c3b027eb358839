//! What a conversion leaves behind: nothing of a disk is dropped without being named.

use std::fmt;

use coop_image::disk;
use coop_image::partition::{Guid, PartitionType, TableKind};
use coop_image::tree::{display, read_exact_at};
use serde::Serialize;

use super::{ConvertError, Input, Part};
use crate::recipe::ByteCount;

/// Code in a boot record ends where the disk's identity is.
const BOOT_CODE_BYTES: usize = 440;
/// So much behind the boot record is looked at for a boot loader's next stage.
const GAP_BYTES_MAX: u64 = 1 << 20;

/// What kind of thing was left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftKind {
    /// A boot loader outside of file systems.
    BootLoader,
    /// Another partition.
    Partition,
    /// The partition table.
    Table,
    /// An older state of the disk.
    Snapshot,
    /// Something else that the disk's format has.
    Other,
}

/// One thing that was left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Its kind.
    pub kind: LeftKind,
    /// Which one: a phrase without a verb.
    pub what: String,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What taking one part of a disk leaves behind.
pub(super) fn beside(input: &Input, part: &Part) -> Result<Vec<Left>, ConvertError> {
    let mut left = of_format(input);
    if input.is_bare() {
        return Ok(left);
    }
    let table = match &input.table.kind {
        TableKind::Gpt {
            is_hybrid: true, ..
        } => "the partition table (GPT, and a hybrid MBR beside it)",
        TableKind::Gpt { .. } => "the partition table (GPT)",
        _ => "the partition table (MBR)",
    };
    left.push(Left {
        kind: LeftKind::Table,
        what: table.to_owned(),
    });
    if has_boot_code(input)? {
        left.push(Left {
            kind: LeftKind::BootLoader,
            what: "the boot loader in the disk's first sectors".to_owned(),
        });
    }
    let others = input.parts.iter();
    let others = others.filter(|other| other.number() != part.number());
    left.extend(others.map(describe));
    Ok(left)
}

/// What only the disk's format has.
pub(super) fn of_format(input: &Input) -> Vec<Left> {
    let left = input.disk.left_behind().iter();
    left.map(|one| Left {
        kind: match one {
            disk::LeftBehind::Snapshot { .. } => LeftKind::Snapshot,
            _ => LeftKind::Other,
        },
        what: one.to_string(),
    })
    .collect()
}

fn describe(part: &Part) -> Left {
    let is_loader = match part.kind() {
        Some(PartitionType::Gpt(guid)) => guid == Guid::BIOS_BOOT || guid == Guid::EFI_SYSTEM,
        Some(PartitionType::Mbr(byte)) => byte == 0xEF,
        None => false,
    };
    let mut what = format!("{part}: {}, ", ByteCount(part.length_bytes));
    match (&part.volume, part.kind()) {
        (None, Some(kind)) => what.push_str(kind.name()),
        _ => what.push_str(part.nature()),
    }
    let name = part.partition.as_ref().map_or("", |one| &*one.name);
    if !part.label().is_empty() {
        what.push_str(&format!(" '{}'", part.label()));
    } else if !name.is_empty() {
        what.push_str(&format!(" '{}'", display(name.as_bytes())));
    }
    if is_loader {
        what.push_str(", for booting");
    }
    let kind = match is_loader {
        true => LeftKind::BootLoader,
        false => LeftKind::Partition,
    };
    Left { kind, what }
}

/// Whether there is code in the boot record, or something between it and the first partition.
fn has_boot_code(input: &Input) -> Result<bool, ConvertError> {
    let first = input.parts.iter().map(|part| part.first_byte).min();
    let gap_end = match input.table.kind {
        TableKind::Mbr { .. } => first.unwrap_or(0).min(GAP_BYTES_MAX),
        // There the table is.
        _ => 0,
    };
    let length = gap_end.max(512).min(input.disk.size_bytes());
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    read_exact_at(&*input.disk, &mut bytes, 0)?;
    let code = bytes.get(..BOOT_CODE_BYTES).unwrap_or_default();
    let gap = bytes.get(512..).unwrap_or_default();
    Ok(code.iter().chain(gap).any(|byte| *byte != 0))
}
