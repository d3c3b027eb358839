//! Recovery of the journal, without writing: which of its blocks take the place of which others.
//!
//! Follows `Documentation/filesystems/ext4/journal.rst` and the passes of `fs/jbd2/recovery.c`: the
//! log is read from its tail while transactions are complete, revoked blocks are left out, and the
//! last version of every other block wins.

use std::collections::BTreeMap;

use super::ReadError;
use super::inode::Inode;
use super::mapping::{self, Run};
use super::volume::{Replacement, Volume, as_u64};
use crate::ext4::checksum::{self, Checksum};
use crate::ext4::format::join_u32;
use crate::ext4::jbd2::{
    BlockTag, BlockTag3, CommitHeader, JBD2_CRC32C_CHKSUM, JBD2_MAGIC_NUMBER,
    JOURNAL_BLOCK_TAIL_SIZE, JournalHeader, JournalSuperBlock, RevokeHeader, block_type, incompat,
    tag_flags,
};

const PLACE: &str = "journal";
/// Bytes of a UUID behind a tag.
const UUID_BYTES: usize = 16;
/// Offset of `h_chksum[0]` in a commit block.
const COMMIT_CHECKSUM_OFFSET: usize = 0x10;
/// What the reader knows.
const INCOMPAT_READ: u32 = incompat::REVOKE
    | incompat::IS_64BIT
    | incompat::CSUM_V2
    | incompat::CSUM_V3
    | incompat::FAST_COMMIT;
/// `s_feature_compat`: commit blocks have a checksum of their transaction.
const COMPAT_CHECKSUM: u32 = 1;
/// `h_chksum_type` and `h_chksum_size` of such a checksum.
const COMMIT_CRC32: (u8, u8) = (1, 4);
/// Blocks for fast commits where the journal states no number (`JBD2_DEFAULT_FAST_COMMIT_BLOCKS`).
const FAST_COMMIT_BLOCKS: u32 = 256;
/// First tag of a fast commit (`EXT4_FC_TAG_HEAD`) and the length of its value: features, and the
/// transaction that it follows. Little-endian, other than the rest of the journal.
const FAST_COMMIT_HEAD: [u8; 4] = [9, 0, 8, 0];

struct Journal<'v> {
    volume: &'v Volume,
    superblock: JournalSuperBlock,
    runs: Vec<Run>,
    /// The first block behind the log: the end, or where fast commits are.
    end: u32,
    /// Seed of the checksums of versions 2 and 3.
    seed: Option<Checksum>,
}

/// A block of a descriptor.
struct Tag {
    target: u64,
    flags: u32,
    checksum: u32,
}

/// A committed block: what it replaces, and in which transaction.
struct Logged {
    target: u64,
    sequence: u32,
    replacement: Replacement,
    checksum: u32,
}

/// Complete transactions.
#[derive(Default)]
struct Log {
    blocks: Vec<Logged>,
    /// Revoked blocks and the last transaction that revoked them.
    revoked: BTreeMap<u64, u32>,
}

/// Reads the journal of a file system that needs recovery.
pub(super) fn replay(volume: &Volume) -> Result<BTreeMap<u64, Replacement>, ReadError> {
    let mut replaced = BTreeMap::new();
    let journal = Journal::open(volume)?;
    if journal.superblock.s_start == 0 {
        return Ok(replaced);
    }
    let log = journal.scan()?;
    for logged in log.blocks {
        let revoked = log.revoked.get(&logged.target);
        if revoked.is_some_and(|by| is_not_before(*by, logged.sequence)) {
            continue;
        }
        journal.check_data(&logged)?;
        if logged.target >= volume.blocks_count {
            return Err(ReadError::corrupt(
                PLACE,
                format!("it has a block {} for a smaller image", logged.target),
            ));
        }
        replaced.insert(logged.target, logged.replacement);
    }
    Ok(replaced)
}

/// Sequence numbers wrap around.
fn is_not_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) < 1 << 31
}

impl<'v> Journal<'v> {
    fn open(volume: &'v Volume) -> Result<Self, ReadError> {
        let number = volume.superblock.s_journal_inum;
        if number == 0 || volume.superblock.s_journal_dev != 0 {
            return Err(ReadError::unsupported(PLACE, "an external journal"));
        }
        let inode = Inode::read(volume, number)?;
        let runs = mapping::read(volume, &inode)?.runs;
        let mut journal = Self {
            volume,
            superblock: JournalSuperBlock::zeroed(),
            runs,
            end: 0,
            seed: None,
        };
        let block = volume.block(journal.place_of(0)?)?;
        let too_short = || ReadError::corrupt(PLACE, "its superblock is too short");
        let bytes = block.get(..JournalSuperBlock::SIZE).ok_or_else(too_short)?;
        journal.superblock = JournalSuperBlock::decode(bytes).ok_or_else(too_short)?;
        journal.check_superblock(bytes)?;
        Ok(journal)
    }

    fn check_superblock(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let corrupt = |reason: &str| Err(ReadError::corrupt(PLACE, reason));
        self.end = self.superblock.s_maxlen;
        let superblock = &self.superblock;
        let types = [block_type::SUPERBLOCK_V1, block_type::SUPERBLOCK_V2];
        if superblock.h_magic != JBD2_MAGIC_NUMBER || !types.contains(&superblock.h_blocktype) {
            return corrupt("it has no superblock");
        }
        if u64::from(superblock.s_blocksize) != as_u64(self.volume.block_size) {
            return corrupt("its block size is not the file system's");
        }
        if superblock.s_first == 0
            || superblock.s_first >= superblock.s_maxlen
            || superblock.s_start >= superblock.s_maxlen
            || (superblock.s_start != 0 && superblock.s_start < superblock.s_first)
        {
            return corrupt("its bounds are impossible");
        }
        if superblock.s_errno != 0 {
            return corrupt("the file system's kernel has recorded an error in it");
        }
        if superblock.h_blocktype == block_type::SUPERBLOCK_V1 {
            return Ok(());
        }
        let refused = superblock.s_feature_incompat & !INCOMPAT_READ;
        if refused != 0 || superblock.s_feature_ro_compat != 0 {
            let what = if refused & incompat::ASYNC_COMMIT != 0 {
                "recovery of asynchronous commits".to_string()
            } else {
                let read_only = superblock.s_feature_ro_compat;
                format!("the features {refused:#x} and, read-only, {read_only:#x}")
            };
            return Err(ReadError::unsupported(PLACE, what));
        }
        if self.has(incompat::FAST_COMMIT) {
            let blocks = match superblock.s_num_fc_blks {
                0 => FAST_COMMIT_BLOCKS,
                blocks => blocks,
            };
            self.end = superblock.s_maxlen.saturating_sub(blocks);
            if superblock.s_start >= self.end || superblock.s_first >= self.end {
                return corrupt("its bounds are impossible");
            }
        }
        if self.has(incompat::CSUM_V2) || self.has(incompat::CSUM_V3) {
            if superblock.s_checksum_type != JBD2_CRC32C_CHKSUM {
                return Err(ReadError::unsupported(PLACE, "the checksum type"));
            }
            if checksum::journal_superblock(bytes) != superblock.s_checksum {
                return Err(ReadError::checksum("journal superblock"));
            }
            self.seed = Some(Checksum::of_uuid(&superblock.s_uuid));
        }
        Ok(())
    }

    fn has(&self, feature: u32) -> bool {
        self.superblock.h_blocktype == block_type::SUPERBLOCK_V2
            && self.superblock.s_feature_incompat & feature != 0
    }

    /// Where a block of the journal is in the image.
    fn place_of(&self, block: u32) -> Result<u64, ReadError> {
        let block = u64::from(block);
        let after = self.runs.partition_point(|run| run.logical <= block);
        after
            .checked_sub(1)
            .and_then(|index| self.runs.get(index))
            .and_then(|run| {
                let distance = block.checked_sub(run.logical)?;
                (run.written && distance < run.length)
                    .then(|| run.physical.checked_add(distance))
                    .flatten()
            })
            .ok_or_else(|| ReadError::corrupt(PLACE, format!("it has no block {block}")))
    }

    /// `block` and then `count` more, in the ring.
    fn advance(&self, block: u32, count: u32) -> u32 {
        let first = u64::from(self.superblock.s_first);
        let ring = u64::from(self.end).saturating_sub(first);
        let position = u64::from(block)
            .saturating_sub(first)
            .saturating_add(u64::from(count));
        u32::try_from((position % ring.max(1)).saturating_add(first)).unwrap_or(0)
    }

    /// Reads complete transactions; what follows the last one never happened.
    fn scan(&self) -> Result<Log, ReadError> {
        let mut log = Log::default();
        let mut pending = Log::default();
        let mut sequence = self.superblock.s_sequence;
        let mut position = self.superblock.s_start;
        // Each block of the ring can be looked at once.
        let mut left = self.end;
        let mut sum = Crc32::START;
        while left > 0 {
            let block = self.volume.block(self.place_of(position)?)?;
            let header = JournalHeader::decode(&block).filter(|header| {
                header.h_magic == JBD2_MAGIC_NUMBER && header.h_sequence == sequence
            });
            let mut used = 1_u32;
            match header.map(|header| header.h_blocktype) {
                Some(block_type::DESCRIPTOR) if self.tail_matches(&block) => {
                    let tags = self.tags(&block)?;
                    used =
                        u32::try_from(tags.len()).map_or(u32::MAX, |count| count.saturating_add(1));
                    if used > left {
                        break;
                    }
                    if self.has_commit_checksums() {
                        sum = sum.add(&block);
                    }
                    sum = self.log_blocks(&tags, position, sequence, &mut pending, sum)?;
                }
                Some(block_type::REVOKE) if self.tail_matches(&block) => {
                    for target in self.revoked(&block)? {
                        pending.revoked.insert(target, sequence);
                    }
                }
                Some(block_type::COMMIT) if self.commit_matches(&block, sum) => {
                    sum = Crc32::START;
                    log.blocks.append(&mut pending.blocks);
                    // A later transaction's revocation covers an earlier one's.
                    log.revoked.append(&mut pending.revoked);
                    sequence = sequence.wrapping_add(1);
                }
                Some(block_type::COMMIT) if self.has_commit_checksums() => {
                    return Err(ReadError::checksum(format!(
                        "journal, transaction {sequence}"
                    )));
                }
                _ => break,
            }
            left = left.saturating_sub(used);
            position = self.advance(position, used);
        }
        self.check_end(sequence)?;
        self.check_fast_commits(sequence)?;
        Ok(log)
    }

    /// The blocks of one descriptor at `position`, which follow it.
    fn log_blocks(
        &self,
        tags: &[Tag],
        position: u32,
        sequence: u32,
        log: &mut Log,
        mut sum: Crc32,
    ) -> Result<Crc32, ReadError> {
        let mut at = position;
        for tag in tags {
            at = self.advance(at, 1);
            let block = self.place_of(at)?;
            if self.has_commit_checksums() {
                sum = sum.add(&self.volume.block(block)?);
            }
            log.blocks.push(Logged {
                target: tag.target,
                sequence,
                replacement: Replacement {
                    block,
                    escaped: tag.flags & tag_flags::ESCAPE != 0,
                },
                checksum: tag.checksum,
            });
        }
        Ok(sum)
    }

    /// Refuses fast commits that follow the last transaction: they tell in words of their own what
    /// was done, not which blocks it changed.
    fn check_fast_commits(&self, sequence: u32) -> Result<(), ReadError> {
        if !self.has(incompat::FAST_COMMIT) {
            return Ok(());
        }
        // The kernel leaves one block between.
        for position in [Some(self.end), self.end.checked_add(1)]
            .into_iter()
            .flatten()
        {
            if position >= self.superblock.s_maxlen {
                break;
            }
            let block = self.volume.block(self.place_of(position)?)?;
            if block.starts_with(&FAST_COMMIT_HEAD)
                && block.get(8..12) == Some(&sequence.to_le_bytes()[..])
            {
                return Err(ReadError::unsupported(PLACE, "recovery of fast commits"));
            }
        }
        Ok(())
    }

    fn has_commit_checksums(&self) -> bool {
        self.superblock.h_blocktype == block_type::SUPERBLOCK_V2
            && self.superblock.s_feature_compat & COMPAT_CHECKSUM != 0
    }

    /// The log ended before transaction `sequence`. Where that was committed all the same, the log
    /// is damaged, and going on would lose what the guest was told to be safe. Without checksums
    /// a commit block cannot be told from content that looks like one.
    fn check_end(&self, sequence: u32) -> Result<(), ReadError> {
        if self.seed.is_none() {
            return Ok(());
        }
        for position in self.superblock.s_first..self.end {
            let block = self.volume.block(self.place_of(position)?)?;
            let header = JournalHeader::decode(&block).filter(|header| {
                header.h_magic == JBD2_MAGIC_NUMBER
                    && header.h_sequence == sequence
                    && header.h_blocktype == block_type::COMMIT
            });
            if header.is_some() {
                return Err(ReadError::checksum(format!(
                    "journal, transaction {sequence}"
                )));
            }
        }
        Ok(())
    }

    /// The checksum at the end of a descriptor or revoke block.
    fn tail_matches(&self, block: &[u8]) -> bool {
        let Some(seed) = self.seed else { return true };
        let Some((covered, stored)) = block.split_last_chunk::<JOURNAL_BLOCK_TAIL_SIZE>() else {
            return false;
        };
        let sum = seed.add(covered).add(&[0; JOURNAL_BLOCK_TAIL_SIZE]);
        sum.value() == u32::from_be_bytes(*stored)
    }

    /// `sum` is that of the transaction's descriptors and data.
    fn commit_matches(&self, block: &[u8], sum: Crc32) -> bool {
        let Some(commit) = CommitHeader::decode(block) else {
            return false;
        };
        if self.has_commit_checksums() {
            let stored = (commit.h_chksum_type, commit.h_chksum_size);
            let is_unused = stored == (0, 0) && commit.h_chksum[0] == 0;
            return is_unused || (stored == COMMIT_CRC32 && commit.h_chksum[0] == sum.0);
        }
        let Some(seed) = self.seed else { return true };
        let sum = seed
            .add(&block[..COMMIT_CHECKSUM_OFFSET])
            .add(&[0; 4])
            .add(&block[COMMIT_CHECKSUM_OFFSET + 4..]);
        commit.h_chksum[0] == sum.value()
    }

    /// The bytes between a head and the checksum at the end.
    fn body<'b>(&self, block: &'b [u8], head: usize) -> &'b [u8] {
        let tail = if self.seed.is_some() {
            JOURNAL_BLOCK_TAIL_SIZE
        } else {
            0
        };
        let end = block.len().saturating_sub(tail);
        block.get(head..end).unwrap_or_default()
    }

    fn tags(&self, block: &[u8]) -> Result<Vec<Tag>, ReadError> {
        let mut rest = self.body(block, JournalHeader::SIZE);
        let mut tags = Vec::new();
        let cut = || ReadError::corrupt(PLACE, "a descriptor block is malformed");
        loop {
            let (tag, size) = self.tag(rest).ok_or_else(cut)?;
            let mut used = size;
            if tag.flags & tag_flags::SAME_UUID == 0 {
                used = used.saturating_add(UUID_BYTES);
            }
            let is_last = tag.flags & tag_flags::LAST_TAG != 0;
            tags.push(tag);
            rest = rest.get(used..).unwrap_or_default();
            if is_last || rest.len() < size {
                return Ok(tags);
            }
        }
    }

    fn tag(&self, bytes: &[u8]) -> Option<(Tag, usize)> {
        let is_64bit = self.has(incompat::IS_64BIT);
        if self.has(incompat::CSUM_V3) {
            let tag = BlockTag3::decode(bytes)?;
            let high = if is_64bit { tag.t_blocknr_high } else { 0 };
            let tag = Tag {
                target: join_u32(high, tag.t_blocknr),
                flags: tag.t_flags,
                checksum: tag.t_checksum,
            };
            return Some((tag, BlockTag3::SIZE));
        }
        let mut size = if is_64bit { 12 } else { 8 };
        if self.has(incompat::CSUM_V2) {
            size += 2;
        }
        let mut whole = [0; BlockTag::SIZE];
        let used = size.min(BlockTag::SIZE);
        whole[..used].copy_from_slice(bytes.get(..size)?.get(..used)?);
        let tag = BlockTag::decode(&whole)?;
        let high = if is_64bit { tag.t_blocknr_high } else { 0 };
        let tag = Tag {
            target: join_u32(high, tag.t_blocknr),
            flags: u32::from(tag.t_flags),
            checksum: u32::from(tag.t_checksum),
        };
        Some((tag, size))
    }

    fn revoked(&self, block: &[u8]) -> Result<Vec<u64>, ReadError> {
        let malformed = || ReadError::corrupt(PLACE, "a revoke block is malformed");
        let head = RevokeHeader::decode(block).ok_or_else(malformed)?;
        let body = self.body(block, RevokeHeader::SIZE);
        let used = usize::try_from(head.r_count)
            .ok()
            .and_then(|count| count.checked_sub(RevokeHeader::SIZE))
            .and_then(|length| body.get(..length))
            .ok_or_else(malformed)?;
        let size = if self.has(incompat::IS_64BIT) { 8 } else { 4 };
        let numbers = used.chunks_exact(size);
        Ok(numbers
            .map(|bytes| {
                bytes
                    .iter()
                    .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte))
            })
            .collect())
    }

    /// The checksum of a data block, as its tag has it.
    fn check_data(&self, logged: &Logged) -> Result<(), ReadError> {
        let Some(seed) = self.seed else { return Ok(()) };
        let block = self.volume.block(logged.replacement.block)?;
        let sum = seed.add(&logged.sequence.to_be_bytes()).add(&block);
        let matches = if self.has(incompat::CSUM_V3) {
            sum.value() == logged.checksum
        } else {
            u32::from(sum.low()) == logged.checksum
        };
        if !matches {
            return Err(ReadError::checksum(format!(
                "journal, transaction {}, block {}",
                logged.sequence, logged.target
            )));
        }
        Ok(())
    }
}

/// The CRC-32 of a transaction (`crc32_be`): polynomial 04C11DB7, highest bit first, no inversions
/// but that of the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Crc32(u32);

impl Crc32 {
    const START: Self = Self(u32::MAX);
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        let mut first = 0_u32;
        while index < table.len() {
            let mut value = first;
            let mut bit = 0;
            while bit < 8 {
                value = (value << 1) ^ if value >> 31 == 1 { 0x04C1_1DB7 } else { 0 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
            first = first.wrapping_add(1 << 24);
        }
        table
    };

    fn add(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |sum, byte| {
            let [high, ..] = sum.to_be_bytes();
            (sum << 8) ^ Self::TABLE[usize::from(high ^ byte)]
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_transaction_is_crc_32_mpeg_2() {
        assert_eq!(Crc32::START.add(b"123456789"), Crc32(0x0376_E6E7));
    }

    #[test]
    fn sequences_wrap() {
        assert!(is_not_before(5, 5));
        assert!(is_not_before(6, 5));
        assert!(!is_not_before(4, 5));
        assert!(is_not_before(1, u32::MAX));
    }
}
