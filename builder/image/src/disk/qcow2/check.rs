//! That every table is possible: what it names is in the file, and nothing belongs to two.

use super::corrupt;
use super::format::SUBCLUSTERS;
use super::header::Header;
use super::read::{Entry, Qcow2};
use super::{FORMAT, L1_PLACE};
use crate::disk::DiskError;
use crate::disk::claims::{Budget, Claim, Claims};

/// A part of a file that something uses.
struct Use {
    offset: u64,
    length: u64,
    claim: Claim,
}

impl Qcow2 {
    /// Reads all tables.
    pub(super) fn check(&self) -> Result<(), DiskError> {
        let header = &self.header;
        let cluster_bytes = header.cluster_bytes();
        let mut budget = Budget::new(FORMAT);
        for mut claims in Claims::windows(FORMAT, header.file_bytes, cluster_bytes)? {
            claims.claim(0, cluster_bytes, Claim::Alone);
            if !claims.claim(header.l1_offset, header.l1_entries * 8, Claim::Alone) {
                return Err(corrupt(L1_PLACE, "it lies on the header"));
            }
            let mut packed = 0_u64;
            self.check_tables(&mut budget, &mut |used, is_data| {
                packed += u64::from(used.claim == Claim::Shared);
                let is_here = self.data.is_none() || !is_data;
                !is_here || claims.claim(used.offset, used.length, used.claim)
            })?;
            self.check_packed(packed)?;
        }
        if let Some((_, data_bytes)) = &self.data {
            for mut claims in Claims::windows(FORMAT, *data_bytes, cluster_bytes)? {
                self.check_tables(&mut budget, &mut |used, is_data| {
                    !is_data || claims.claim(used.offset, used.length, used.claim)
                })?;
            }
        }
        Ok(())
    }

    /// That so many compressed clusters are possible. Those that lie on one place would make hours of
    /// work of a small file, and only by bytes they could be told apart.
    fn check_packed(&self, count: u64) -> Result<(), DiskError> {
        let Header {
            file_bytes, codec, ..
        } = self.header;
        let unpacked = count.saturating_mul(self.header.cluster_bytes());
        if unpacked > file_bytes.saturating_mul(codec.ratio_max()) {
            let what = format!("{count} of them cannot be in {file_bytes} bytes");
            return Err(corrupt("its compressed clusters", what));
        }
        Ok(())
    }

    /// Shows each cluster to `claim`, and whether it has data; `false` means that somebody has it.
    fn check_tables(
        &self,
        budget: &mut Budget,
        claim: &mut dyn FnMut(&Use, bool) -> bool,
    ) -> Result<(), DiskError> {
        for index in 0..self.header.l1_entries {
            let Some(table) = self.table(index)? else {
                continue;
            };
            budget.spend(self.header.cluster_bytes())?;
            let used = Use {
                offset: table,
                length: self.header.cluster_bytes(),
                claim: Claim::Alone,
            };
            if !claim(&used, false) {
                let what = format!("the table at byte {table} lies on something else");
                return Err(corrupt(format!("entry {index} of {L1_PLACE}"), what));
            }
            self.check_table(table, index * self.header.table_spans(), claim)?;
        }
        Ok(())
    }

    fn check_table(
        &self,
        table: u64,
        first_byte: u64,
        claim: &mut dyn FnMut(&Use, bool) -> bool,
    ) -> Result<(), DiskError> {
        let cluster_bytes = self.header.cluster_bytes();
        // What is behind the disk's end is not read.
        let inside = self.header.size_bytes.saturating_sub(first_byte);
        let count = inside
            .div_ceil(cluster_bytes)
            .min(self.header.table_spans() / cluster_bytes);
        let mut index = 0;
        while index < count {
            let entries = self.entries(table, index)?;
            let mut number = 0;
            while index < count
                && let Some(entry) = entries.get(number)?
            {
                let left = inside - index * cluster_bytes;
                let done = self.check_entry(entry, left.min(cluster_bytes), claim);
                done.map_err(|what| {
                    corrupt(format!("entry {index} of its table at byte {table}"), what)
                })?;
                index += 1;
                number += 1;
            }
            if number == 0 {
                return Err(corrupt(
                    format!("its table at byte {table}"),
                    "it is cut off",
                ));
            }
        }
        Ok(())
    }

    /// Checks a cluster of which `used_bytes` belong to the disk.
    fn check_entry(
        &self,
        entry: Entry,
        used_bytes: u64,
        claim: &mut dyn FnMut(&Use, bool) -> bool,
    ) -> Result<(), String> {
        let used = match entry {
            Entry::Absent | Entry::Zero | Entry::Plain { there: 0, .. } => return Ok(()),
            Entry::Packed { offset, length } => Use {
                offset,
                length,
                claim: Claim::Shared,
            },
            Entry::Plain { offset, there, .. } => {
                let cluster_bytes = self.header.cluster_bytes();
                let part_bytes = cluster_bytes / SUBCLUSTERS;
                let parts = SUBCLUSTERS - u64::from(there.leading_zeros());
                let length = used_bytes.min(parts * part_bytes);
                let end = offset.checked_add(length);
                if end.is_none_or(|end| end > self.data_file().1) {
                    return Err(format!("its cluster at byte {offset} ends behind the file"));
                }
                Use {
                    offset,
                    length: cluster_bytes,
                    claim: Claim::Alone,
                }
            }
        };
        match claim(&used, true) {
            true => Ok(()),
            false => Err(format!(
                "its cluster at byte {} lies on something else",
                used.offset
            )),
        }
    }
}
