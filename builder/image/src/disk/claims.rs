//! That no two parts of a disk lie on one place of its file.
//!
//! One bit for each unit of the file would be too much for large files, so that these are looked at
//! in windows, one after the other.

use super::DiskError;

/// Units that are looked at in one go: two times 8 MiB of bits.
const WINDOW_UNITS: u64 = 1 << 26;
/// How often a disk's tables are read at most: enough for 256 TiB in clusters of 64 KiB, for 2 TiB
/// in sectors.
pub(super) const WINDOWS_MAX: u64 = 64;
/// Bytes of tables that are read in all windows together: minutes of work. Enough for 32 TiB of data in
/// clusters of 64 KiB, for 2 TiB in such of 4 KiB; a sparse file of a few MiB could have any number.
const TABLE_BYTES_MAX: u64 = 32 << 30;
/// A table of fewer bytes counts as so many: it has to be gone to all the same.
const TABLE_BYTES_MIN: u64 = 4096;

/// What may still be read of a disk's tables.
#[derive(Debug)]
pub(super) struct Budget {
    format: &'static str,
    left: u64,
}

impl Budget {
    pub(super) fn new(format: &'static str) -> Self {
        Self {
            format,
            left: TABLE_BYTES_MAX,
        }
    }

    /// Takes the bytes of one table off.
    pub(super) fn spend(&mut self, table_bytes: u64) -> Result<(), DiskError> {
        let left = self.left.checked_sub(table_bytes.max(TABLE_BYTES_MIN));
        self.left = left.ok_or_else(|| DiskError::Limit {
            format: self.format,
            what: "the reading of all its tables, in bytes,".to_owned(),
            limit: TABLE_BYTES_MAX,
        })?;
        Ok(())
    }
}

/// Who has each unit of a part of a file.
#[derive(Debug)]
pub(super) struct Claims {
    unit_bytes: u64,
    /// Number of the first unit.
    first: u64,
    /// Units that belong to one part, and units that belong to compressed ones.
    alone: Vec<u64>,
    shared: Vec<u64>,
}

/// What a part wants of its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// To be the only one.
    Alone,
    /// To share them with others that share.
    Shared,
}

impl Claims {
    /// The windows of a file.
    pub(super) fn windows(
        format: &'static str,
        file_bytes: u64,
        unit_bytes: u64,
    ) -> Result<impl Iterator<Item = Self>, DiskError> {
        let units = file_bytes.div_ceil(unit_bytes.max(1));
        let count = units.div_ceil(WINDOW_UNITS);
        if count > WINDOWS_MAX {
            return Err(DiskError::Limit {
                format,
                what: format!("a file of {file_bytes} bytes in units of {unit_bytes} bytes"),
                limit: WINDOWS_MAX
                    .saturating_mul(WINDOW_UNITS)
                    .saturating_mul(unit_bytes),
            });
        }
        Ok((0..count).map(move |index| {
            let first = index * WINDOW_UNITS;
            let words = WINDOW_UNITS.min(units - first).div_ceil(64);
            let words = usize::try_from(words).unwrap_or(0);
            Self {
                unit_bytes,
                first,
                alone: vec![0; words],
                shared: vec![0; words],
            }
        }))
    }

    /// Claims what of `length` bytes lies in the window; `false` where somebody has it.
    pub(super) fn claim(&mut self, offset: u64, length: u64, claim: Claim) -> bool {
        let end = offset.saturating_add(length).div_ceil(self.unit_bytes);
        let start = (offset / self.unit_bytes).max(self.first);
        let window_end = self.first + super::as_u64(self.alone.len()) * 64;
        let end = end.min(window_end);
        let mut unit = start;
        while unit < end {
            // As many as are in one word.
            let count = (64 - unit % 64).min(end - unit);
            let bits = (u64::MAX >> (64 - count)) << (unit % 64);
            let word = usize::try_from((unit - self.first) / 64).unwrap_or(usize::MAX);
            let taken = match claim {
                Claim::Alone => self.alone[word] | self.shared[word],
                Claim::Shared => self.alone[word],
            };
            if taken & bits != 0 {
                return false;
            }
            match claim {
                Claim::Alone => self.alone[word] |= bits,
                Claim::Shared => self.shared[word] |= bits,
            }
            unit += count;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_unit_is_given_twice() {
        let mut windows = Claims::windows("a", 1000 * 512, 512).unwrap();
        let mut claims = windows.next().unwrap();
        assert!(windows.next().is_none());
        assert!(claims.claim(0, 512, Claim::Alone));
        assert!(claims.claim(60 * 512, 200 * 512, Claim::Alone));
        assert!(!claims.claim(259 * 512, 512, Claim::Alone));
        assert!(!claims.claim(1, 1, Claim::Shared));
        assert!(claims.claim(300 * 512 - 1, 2, Claim::Shared));
        assert!(claims.claim(300 * 512, 700, Claim::Shared));
        assert!(!claims.claim(301 * 512, 512, Claim::Alone));
        assert!(claims.claim(260 * 512, 39 * 512, Claim::Alone));
        assert!(claims.claim(1 << 60, 1 << 60, Claim::Alone));
    }

    #[test]
    fn tables_are_read_until_the_budget_ends() {
        let mut budget = Budget::new("a");
        budget.spend(TABLE_BYTES_MAX - 2 * TABLE_BYTES_MIN).unwrap();
        budget.spend(4).unwrap();
        budget.spend(TABLE_BYTES_MIN).unwrap();
        let error = budget.spend(1).unwrap_err().to_string();
        assert!(
            error.contains("more than coop takes (34359738368)"),
            "{error}"
        );
    }

    #[test]
    fn large_files_are_looked_at_in_windows() {
        let bytes = (WINDOW_UNITS + 100) * 512;
        let windows: Vec<_> = Claims::windows("a", bytes, 512).unwrap().collect();
        assert_eq!(windows.len(), 2);
        let edge = WINDOW_UNITS * 512;
        for mut claims in windows {
            assert!(claims.claim(edge - 512, 1024, Claim::Alone));
            let is_second = claims.first > 0;
            assert_eq!(claims.claim(edge - 512, 512, Claim::Alone), is_second);
            assert_eq!(claims.claim(edge, 512, Claim::Alone), !is_second);
        }
        let error = Claims::windows("a", u64::MAX, 512).err().unwrap();
        assert!(error.to_string().contains("more than coop takes"));
    }
}
