//! Which inode has which blocks, so that no block is taken for two things.
//!
//! Claims are collected while the tree grows and compared at the end, sorted: that is as fast as
//! not comparing them at all. Together they can never be more blocks than the image has, which
//! bounds the time and memory that an image with shared blocks could cost.

use super::ReadError;
use super::inode;
use super::mapping::Mapping;

/// A run of blocks and the inode that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    start: u64,
    end: u64,
    /// 0: the file system's own structures.
    inode: u32,
}

/// All blocks that have been met in use.
#[derive(Debug)]
pub(super) struct Claims {
    claims: Vec<Claim>,
    blocks: u64,
    blocks_max: u64,
}

/// A block with two owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) block: u64,
    pub(super) inode: u32,
    other: u32,
}

impl Claims {
    /// Claims in an image of so many blocks, of which `system` are the file system's own.
    pub(super) fn new(blocks_max: u64, system: &[(u64, u64)]) -> Self {
        let claims = system.iter().map(|(start, count)| Claim {
            start: *start,
            end: start.saturating_add(*count),
            inode: 0,
        });
        Self {
            claims: claims.collect(),
            blocks: 0,
            blocks_max,
        }
    }

    /// Adds the blocks of an inode.
    ///
    /// # Errors
    /// The conflict, where there must be one by now.
    pub(super) fn add(&mut self, inode: u32, start: u64, count: u64) -> Result<(), ReadError> {
        self.claims.push(Claim {
            start,
            end: start.saturating_add(count),
            inode,
        });
        self.blocks = self.blocks.saturating_add(count);
        if self.blocks > self.blocks_max {
            return Err(self.conflict().map_or_else(
                || ReadError::corrupt(inode::place(inode), "it has more blocks than the image"),
                Conflict::error,
            ));
        }
        Ok(())
    }

    /// Adds all blocks of an inode.
    ///
    /// # Errors
    /// As [`Claims::add`].
    pub(super) fn add_mapping(&mut self, inode: u32, mapping: &Mapping) -> Result<(), ReadError> {
        for run in &mapping.runs {
            self.add(inode, run.physical, run.length)?;
        }
        for block in &mapping.own {
            self.add(inode, *block, 1)?;
        }
        Ok(())
    }

    /// The first block that two have claimed.
    pub(super) fn conflict(&mut self) -> Option<Conflict> {
        self.claims.sort_unstable();
        self.claims.windows(2).find_map(|pair| {
            let [first, second] = pair else { return None };
            (second.start < first.end).then(|| Conflict {
                block: second.start,
                inode: first.inode.max(second.inode),
                other: first.inode.min(second.inode),
            })
        })
    }
}

impl Conflict {
    pub(super) fn error(self) -> ReadError {
        let reason = match self.other {
            0 => format!(
                "block {} is one of the file system's own structures",
                self.block
            ),
            other if other == self.inode => format!("it has block {} twice", self.block),
            other => format!("block {} belongs to inode {other} too", self.block),
        };
        ReadError::corrupt(inode::place(self.inode), reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_block_has_two_owners() {
        let mut claims = Claims::new(100, &[(1, 4), (50, 10)]);
        claims.add(12, 5, 5).unwrap();
        claims.add(13, 10, 40).unwrap();
        assert_eq!(claims.conflict(), None);
        claims.add(14, 59, 2).unwrap();
        let conflict = claims.conflict().unwrap();
        assert_eq!(
            conflict.error().to_string(),
            "damaged ext4 image, inode 14: block 59 is one of the file system's own structures"
        );
        let error = claims.add(15, 5, 90).unwrap_err().to_string();
        assert!(
            error.contains("inode 15: block 5 belongs to inode 12 too"),
            "{error}"
        );
        let mut claims = Claims::new(100, &[]);
        claims.add(12, 5, 5).unwrap();
        claims.add(12, 9, 5).unwrap();
        let error = claims.conflict().unwrap().error().to_string();
        assert!(error.contains("inode 12: it has block 9 twice"), "{error}");
    }
}
