//! Files with holes: GNU tar's old header form and its PAX forms 0.0, 0.1 and 1.0 (GNU tar manual,
//! "Storing Sparse Files").

use super::entry::SparseRun;
use super::format::{BLOCK_BYTES, SPARSE_ENTRY_BYTES, number};
use super::pax::decimal;

/// What `GNU.sparse.*` records say.
#[derive(Clone, Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    major: Option<u64>,
    minor: Option<u64>,
    /// Numbers of form 0.0 and 0.1: offset, length, offset, length.
    numbers: Vec<u64>,
}

/// Where the map of a PAX sparse file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MapPlace<'a> {
    /// In the records: forms 0.0 and 0.1.
    Records(&'a [u64]),
    /// In front of the content: form 1.0.
    Content,
}

impl PaxSparse {
    /// Takes over one record, its keyword without `GNU.sparse.`; `None` where it is malformed.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"realsize" | b"size" => self.real_size = Some(decimal(value)?),
            b"major" => self.major = Some(decimal(value)?),
            b"minor" => self.minor = Some(decimal(value)?),
            // The count is implied by the numbers themselves.
            b"numblocks" => _ = decimal::<u64>(value)?,
            b"offset" | b"numbytes" => {
                let expects_offset = self.numbers.len().is_multiple_of(2);
                if expects_offset != (key == b"offset") {
                    return None;
                }
                self.numbers.push(decimal(value)?);
            }
            b"map" => {
                let numbers = value.split(|byte| *byte == b',');
                self.numbers = numbers.map(decimal).collect::<Option<_>>()?;
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether anything was said.
    pub(super) fn is_set(&self) -> bool {
        self.name.is_some()
            || self.real_size.is_some()
            || self.major.is_some()
            || self.minor.is_some()
            || !self.numbers.is_empty()
    }

    /// Whether the entry is sparse, and where its map is.
    pub(super) fn map(&self) -> Result<Option<MapPlace<'_>>, String> {
        match (self.major, self.minor) {
            (Some(1), Some(0)) => Ok(Some(MapPlace::Content)),
            (None, None) if self.real_size.is_none() && self.numbers.is_empty() => Ok(None),
            (None, None) | (Some(0), Some(0 | 1)) => Ok(Some(MapPlace::Records(&self.numbers))),
            (major, minor) => Err(format!(
                "sparse format {}.{}",
                major.unwrap_or(0),
                minor.unwrap_or(0)
            )),
        }
    }
}

/// Runs from offset and length pairs.
pub(super) fn runs_from_numbers(numbers: &[u64]) -> Option<Vec<SparseRun>> {
    if !numbers.len().is_multiple_of(2) {
        return None;
    }
    let pairs = numbers.chunks_exact(2);
    Some(
        pairs
            .map(|pair| SparseRun {
                offset: pair[0],
                length: pair[1],
            })
            .collect(),
    )
}

/// Runs of an old GNU header or extension block; an empty slot ends them.
pub(super) fn runs_from_slots(slots: &[u8]) -> Option<Vec<SparseRun>> {
    let mut runs = Vec::new();
    for slot in slots.chunks_exact(SPARSE_ENTRY_BYTES) {
        if slot[0] == 0 {
            break;
        }
        runs.push(SparseRun {
            offset: u64::try_from(number(&slot[..12])?).ok()?,
            length: u64::try_from(number(&slot[12..])?).ok()?,
        });
    }
    Some(runs)
}

/// Checks runs against the file's size and the stored bytes, and drops empty ones.
pub(super) fn check_runs(
    runs: Vec<SparseRun>,
    size: u64,
    stored: u64,
) -> Result<Box<[SparseRun]>, String> {
    let mut end = 0_u64;
    let mut total = 0_u64;
    for run in &runs {
        let run_end = run
            .offset
            .checked_add(run.length)
            .filter(|run_end| run.offset >= end && *run_end <= size)
            .ok_or("the sparse map is out of order or leaves the file")?;
        end = run_end;
        total = total.saturating_add(run.length);
    }
    if total != stored {
        return Err(format!(
            "the sparse map has {total} bytes, the entry {stored}"
        ));
    }
    Ok(runs.into_iter().filter(|run| run.length > 0).collect())
}

/// Parses the map of form 1.0, fed block by block.
#[derive(Debug, Default)]
pub(super) struct MapParser {
    count: Option<u64>,
    numbers: Vec<u64>,
    digits: Vec<u8>,
}

impl MapParser {
    /// Takes the next block; true once the map is complete.
    pub(super) fn push(
        &mut self,
        block: &[u8; BLOCK_BYTES],
        runs_max: usize,
    ) -> Result<bool, String> {
        for byte in block {
            if *byte != b'\n' {
                if self.digits.len() >= 20 {
                    return Err("the sparse map has a number that is too long".into());
                }
                self.digits.push(*byte);
                continue;
            }
            let value = decimal(&self.digits).ok_or("the sparse map has a malformed number")?;
            self.digits.clear();
            match self.count {
                None if value > u64::try_from(runs_max).unwrap_or(u64::MAX) => {
                    return Err(format!("the sparse map has more than {runs_max} runs"));
                }
                None => self.count = Some(value),
                Some(_) => self.numbers.push(value),
            }
            if self.is_complete() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_complete(&self) -> bool {
        let have = u64::try_from(self.numbers.len()).ok();
        have.is_some() && self.count.and_then(|count| count.checked_mul(2)) == have
    }

    pub(super) fn runs(self) -> Option<Vec<SparseRun>> {
        runs_from_numbers(&self.numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_checked() {
        let run = |offset, length| SparseRun { offset, length };
        assert_eq!(
            check_runs(vec![run(0, 4), run(8, 0), run(10, 2)], 12, 6).as_deref(),
            Ok(&[run(0, 4), run(10, 2)][..])
        );
        assert!(check_runs(vec![run(4, 4), run(0, 2)], 12, 6).is_err());
        assert!(check_runs(vec![run(0, 4), run(3, 2)], 12, 6).is_err());
        assert!(check_runs(vec![run(8, 6)], 12, 6).is_err());
        assert!(check_runs(vec![run(u64::MAX, 6)], 12, 6).is_err());
        assert!(check_runs(vec![run(0, 6)], 12, 7).is_err());
    }

    #[test]
    fn the_map_of_form_1_0_ends_by_its_count() {
        let mut block = [0; BLOCK_BYTES];
        block[..14].copy_from_slice(b"2\n0\n4\n8\n1\nrest");
        let mut parser = MapParser::default();
        assert_eq!(parser.push(&block, 10), Ok(true));
        assert_eq!(
            parser.runs().unwrap(),
            [
                SparseRun {
                    offset: 0,
                    length: 4
                },
                SparseRun {
                    offset: 8,
                    length: 1
                }
            ]
        );
        assert!(MapParser::default().push(&block, 1).is_err());
        assert!(MapParser::default().push(&[b'1'; BLOCK_BYTES], 1).is_err());
    }
}
