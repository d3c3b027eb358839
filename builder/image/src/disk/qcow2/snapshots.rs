//! What snapshots are called.

use std::fs::File;

use super::format::{SNAPSHOT_TABLE_BYTES_MAX, u16_at, u32_at, u64_at};
use super::header::Header;
use super::{corrupt, limit};
use crate::disk::layer::read_exact;
use crate::disk::{DiskError, LeftBehind, as_u64};

/// Size of an entry without what follows it, in bytes.
const ENTRY_BYTES: usize = 40;
/// Bytes that an entry may have beside its two names.
const EXTRA_BYTES_MAX: u32 = 1024;
/// Bytes of a name that are kept, for people.
const NAME_BYTES_MAX: usize = 256;

/// Reads the names of all snapshots.
pub(super) fn read(file: &File, header: &Header) -> Result<Vec<LeftBehind>, DiskError> {
    let mut found = Vec::new();
    let mut at = header.snapshots_offset;
    let failed = |number: u32, what: &str| corrupt(format!("its snapshot {number}"), what);
    for number in 1..=header.snapshots {
        if at.saturating_sub(header.snapshots_offset) > SNAPSHOT_TABLE_BYTES_MAX {
            let what = format!("a table of {} snapshots in so many bytes", header.snapshots);
            return Err(limit(what, SNAPSHOT_TABLE_BYTES_MAX));
        }
        let bytes = |at: u64, length: usize| {
            let end = at.checked_add(as_u64(length));
            if end.is_none_or(|end| end > header.file_bytes) {
                return Err(failed(number, "it is cut short"));
            }
            let mut bytes = vec![0; length];
            read_exact(file, &mut bytes, at)?;
            Ok(bytes)
        };
        let entry = bytes(at, ENTRY_BYTES)?;
        let id_bytes = usize::from(u16_at(&entry, 12));
        let name_bytes = usize::from(u16_at(&entry, 14));
        let extra_bytes = u32_at(&entry, 36);
        if extra_bytes > EXTRA_BYTES_MAX {
            return Err(failed(number, "it has too much unknown data"));
        }
        let extra_bytes = usize::try_from(extra_bytes).unwrap_or(0);
        let rest = bytes(
            at + as_u64(ENTRY_BYTES),
            extra_bytes + id_bytes + name_bytes,
        )?;
        let (extra, names) = rest.split_at(extra_bytes);
        let (id, name) = names.split_at(id_bytes);
        let name = if name.is_empty() { id } else { name };
        let name = name.get(..NAME_BYTES_MAX).unwrap_or(name);
        found.push(LeftBehind::Snapshot {
            name: crate::tree::display(name),
            has_machine_state: u32_at(&entry, 32) != 0 || u64_at(extra, 0) != 0,
        });
        at += as_u64((ENTRY_BYTES + rest.len()).next_multiple_of(8));
    }
    Ok(found)
}
