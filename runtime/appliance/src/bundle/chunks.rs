//! A file as chunks of zstd, holes left out.
//!
//! The blob is a row of zstd frames (RFC 8878) that any zstd reads; what coop adds stands in
//! skippable frames, all numbers little-endian:
//!
//! ```text
//! head    u32 0x184d2a5c, u32 24, "coopchnk", u32 version = 1, u32 chunk bytes, u64 file size
//! chunk   u32 0x184d2a5c, u32 16, u64 offset, u32 bytes, u32 packed bytes; then one zstd frame of
//!         as many packed bytes, which unpacks to as many bytes, to stand at the offset
//! ```
//!
//! Chunks have 4 MiB, the last one of a file may have less; offsets are multiples of that and
//! ascend. A chunk of zeroes alone is left out, so a hole costs nothing, whatever the file system
//! says of it. Each chunk stands for itself: they are packed and unpacked in parallel, and reading
//! can go on at any. `zstd -d` gives the chunks one after the other. Level and form are fixed, so
//! the same file gives the same bytes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use rayon::prelude::*;
use rustix::fs::SeekFrom;
use sha2::{Digest as _, Sha256};
use zstd::bulk::{Compressor, Decompressor};

use super::blobs::unwrap_io;
use super::digest::BlobDigest;
use super::error::BundleError;
use crate::digest::{as_u64, hash_zeroes};

/// What a chunk has, in bytes of the file.
pub const CHUNK_BYTES: u32 = 4 << 20;
/// The most that a packed chunk may have: zstd's own bound for a chunk lies below.
const PACKED_BYTES_MAX: u32 = CHUNK_BYTES + (64 << 10);
/// zstd's level, which is part of the form: other levels give other bytes.
const LEVEL: i32 = 9;
/// Magic of zstd's skippable frames, one of sixteen.
const SKIPPABLE: u32 = 0x184d_2a5c;
const NAME: [u8; 8] = *b"coopchnk";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 24;
const CHUNK_HEAD_BYTES: usize = 16;
/// What is looked at for holes inside of chunks.
const BLOCK_BYTES: usize = 4096;
/// How many chunks each thread has in memory, and how many all have.
const CHUNKS_PER_THREAD: usize = 2;
const CHUNKS_MAX: usize = 16;

/// One chunk in memory.
struct Chunk {
    offset: u64,
    bytes: Vec<u8>,
}

/// The longest blob that a file of this size can become, in bytes.
pub(super) fn packed_bytes_max(size: u64) -> u64 {
    let frame = |length| as_u64(length).saturating_add(8);
    let chunk = frame(CHUNK_HEAD_BYTES).saturating_add(u64::from(PACKED_BYTES_MAX));
    let chunks = size.div_ceil(u64::from(CHUNK_BYTES)).saturating_mul(chunk);
    chunks.saturating_add(frame(HEAD_BYTES))
}

/// Packs a file. Gives the SHA-256 and the size of what it held.
///
/// # Errors
/// It cannot be read, or the output not written.
pub(super) fn pack(file: &File, mut output: impl Write) -> Result<(BlobDigest, u64), BundleError> {
    let size = file.metadata()?.len();
    let mut head = frame(HEAD_BYTES);
    head.extend_from_slice(&NAME);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&CHUNK_BYTES.to_le_bytes());
    head.extend_from_slice(&size.to_le_bytes());
    output.write_all(&head)?;
    let mut hasher = Zeroing::default();
    let mut next = 0;
    loop {
        let batch = read_batch(file, &mut next, size)?;
        if batch.is_empty() {
            break;
        }
        let (packed, ()) = rayon::join(
            || {
                batch
                    .par_iter()
                    .map(pack_chunk)
                    .collect::<io::Result<Vec<_>>>()
            },
            || batch.iter().for_each(|chunk| hasher.chunk(chunk)),
        );
        for (chunk, packed) in batch.iter().zip(packed?) {
            let mut head = frame(CHUNK_HEAD_BYTES);
            head.extend_from_slice(&chunk.offset.to_le_bytes());
            head.extend_from_slice(&length(&chunk.bytes)?.to_le_bytes());
            head.extend_from_slice(&length(&packed)?.to_le_bytes());
            output.write_all(&head)?;
            output.write_all(&packed)?;
        }
    }
    Ok((hasher.finish(size), size))
}

/// The start of a skippable frame.
fn frame(length: usize) -> Vec<u8> {
    let mut bytes = SKIPPABLE.to_le_bytes().to_vec();
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or_default().to_le_bytes());
    bytes
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn batch_chunks() -> usize {
    let wanted = rayon::current_num_threads().saturating_mul(CHUNKS_PER_THREAD);
    wanted.min(CHUNKS_MAX)
}

/// Reads the next chunks that are not all zeroes; none is the end.
fn read_batch(file: &File, next: &mut u64, size: u64) -> io::Result<Vec<Chunk>> {
    let mut batch = Vec::new();
    while batch.len() < batch_chunks() && *next < size {
        *next = match rustix::fs::seek(file, SeekFrom::Data(*next)) {
            Ok(data) => data.max(*next) / u64::from(CHUNK_BYTES) * u64::from(CHUNK_BYTES),
            Err(rustix::io::Errno::NXIO) => size,
            // A file system that knows of no holes.
            Err(_) => *next,
        };
        let length = size.saturating_sub(*next).min(u64::from(CHUNK_BYTES));
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(&mut bytes, *next)?;
        if !is_zero(&bytes) {
            let offset = *next;
            batch.push(Chunk { offset, bytes });
        }
        *next = next.saturating_add(length);
    }
    Ok(batch)
}

fn pack_chunk(chunk: &Chunk) -> io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    compressor.compress(&chunk.bytes)
}

fn is_zero(bytes: &[u8]) -> bool {
    static ZEROES: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    bytes
        .chunks(BLOCK_BYTES)
        .all(|block| *block == ZEROES[..block.len()])
}

/// Hashes chunks and the zeroes between them.
#[derive(Default)]
struct Zeroing {
    hasher: Sha256,
    at: u64,
}

impl Zeroing {
    fn chunk(&mut self, chunk: &Chunk) {
        hash_zeroes(&mut self.hasher, chunk.offset.saturating_sub(self.at));
        self.hasher.update(&chunk.bytes);
        self.at = chunk.offset.saturating_add(as_u64(chunk.bytes.len()));
    }

    fn finish(mut self, size: u64) -> BlobDigest {
        hash_zeroes(&mut self.hasher, size.saturating_sub(self.at));
        BlobDigest::from(<[u8; 32]>::from(self.hasher.finalize()))
    }
}

/// What a file in chunks has to become.
pub(super) struct Expected<'a> {
    /// Its path, for errors.
    pub(super) path: &'a str,
    /// Its length in bytes.
    pub(super) size: u64,
    /// Its SHA-256 in hexadecimal.
    pub(super) sha256: &'a str,
}

/// Unpacks chunks into an empty file, if there is one, and checks that they are what is expected:
/// never more is unpacked than the file has. Blocks of zeroes become holes.
///
/// # Errors
/// The input cannot be read or breaks the form, the file cannot be written, or it became another
/// one.
pub(super) fn unpack(
    input: impl Read,
    file: Option<&File>,
    expected: &Expected<'_>,
) -> Result<(), BundleError> {
    let mut reader = Reader {
        input,
        expected,
        offset: 0,
        next: 0,
    };
    reader.head()?;
    if let Some(file) = file {
        file.set_len(expected.size)?;
    }
    let mut hasher = Zeroing::default();
    loop {
        let packed = reader.batch()?;
        if packed.is_empty() {
            break;
        }
        let chunks = packed
            .par_iter()
            .map(|packed| packed.unpack(expected))
            .collect::<Result<Vec<_>, _>>()?;
        let (written, ()) = rayon::join(
            || {
                chunks
                    .iter()
                    .try_for_each(|chunk| file.map_or(Ok(()), |file| write_sparse(file, chunk)))
            },
            || chunks.iter().for_each(|chunk| hasher.chunk(chunk)),
        );
        written?;
    }
    let found = hasher.finish(expected.size);
    if found.hex() == expected.sha256 {
        return Ok(());
    }
    Err(BundleError::Layer {
        path: expected.path.escape_debug().to_string(),
        reason: "the file that was unpacked has another digest",
    })
}

fn write_sparse(file: &File, chunk: &Chunk) -> io::Result<()> {
    let mut at = 0;
    for run in chunk
        .bytes
        .chunks(BLOCK_BYTES)
        .collect::<Vec<_>>()
        .chunk_by(|a, b| is_zero(a) == is_zero(b))
    {
        let length = run.iter().map(|block| block.len()).sum::<usize>();
        let end = length.saturating_add(at);
        let bytes = chunk.bytes.get(at..end).unwrap_or_default();
        if !is_zero(bytes) {
            file.write_all_at(bytes, chunk.offset.saturating_add(as_u64(at)))?;
        }
        at = end;
    }
    Ok(())
}

/// A chunk as it came.
struct Packed {
    /// Where it is in the blob.
    from: u64,
    offset: u64,
    length: usize,
    bytes: Vec<u8>,
}

impl Packed {
    fn unpack(&self, expected: &Expected<'_>) -> Result<Chunk, BundleError> {
        let damaged = |reason: String| damaged(expected, self.from, reason);
        let unpacked = Decompressor::new()
            .and_then(|mut one| one.decompress(&self.bytes, self.length))
            .map_err(|error| damaged(error.to_string()))?;
        if unpacked.len() != self.length {
            return Err(damaged(format!(
                "a chunk of {} bytes unpacks to {}",
                self.length,
                unpacked.len()
            )));
        }
        Ok(Chunk {
            offset: self.offset,
            bytes: unpacked,
        })
    }
}

fn damaged(expected: &Expected<'_>, offset: u64, reason: impl Into<String>) -> BundleError {
    BundleError::Chunks {
        path: expected.path.escape_debug().to_string(),
        offset,
        reason: reason.into(),
    }
}

struct Reader<'a, R> {
    input: R,
    expected: &'a Expected<'a>,
    /// Where the input is.
    offset: u64,
    /// Where the next chunk may begin.
    next: u64,
}

impl<R: Read> Reader<'_, R> {
    fn damaged(&self, reason: impl Into<String>) -> BundleError {
        damaged(self.expected, self.offset, reason)
    }

    /// Fills the buffer; false where the input ends before its first byte.
    fn take(&mut self, buffer: &mut [u8]) -> Result<bool, BundleError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(self.damaged("it ends inside of a chunk")),
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unwrap_io(error)),
            }
        }
        self.offset = self.offset.saturating_add(as_u64(buffer.len()));
        Ok(true)
    }

    /// Reads a skippable frame of `N` bytes; `None` at the end.
    fn frame<const N: usize>(&mut self) -> Result<Option<[u8; N]>, BundleError> {
        let mut start = [0; 8];
        if !self.take(&mut start)? {
            return Ok(None);
        }
        if start != *frame(N) {
            return Err(self.damaged("there is no chunk's head"));
        }
        let mut bytes = [0; N];
        match self.take(&mut bytes)? {
            true => Ok(Some(bytes)),
            false => Err(self.damaged("it ends inside of a chunk's head")),
        }
    }

    fn head(&mut self) -> Result<(), BundleError> {
        let head = self.frame::<HEAD_BYTES>()?;
        let mut expected = Vec::from(NAME);
        expected.extend_from_slice(&VERSION.to_le_bytes());
        expected.extend_from_slice(&CHUNK_BYTES.to_le_bytes());
        let Some((start, size)) = head.as_ref().and_then(|head| head.split_at_checked(16)) else {
            return Err(self.damaged("it is empty"));
        };
        if start != expected {
            return Err(self.damaged("its head is of another version"));
        }
        if size != self.expected.size.to_le_bytes() {
            return Err(self.damaged("its file has another size than the appliance says"));
        }
        Ok(())
    }

    /// The next chunks; none is the end.
    fn batch(&mut self) -> Result<Vec<Packed>, BundleError> {
        let mut batch = Vec::new();
        while batch.len() < batch_chunks() {
            match self.chunk()? {
                Some(chunk) => batch.push(chunk),
                None => break,
            }
        }
        Ok(batch)
    }

    fn chunk(&mut self) -> Result<Option<Packed>, BundleError> {
        let Some(head) = self.frame::<CHUNK_HEAD_BYTES>()? else {
            return Ok(None);
        };
        let [
            o0,
            o1,
            o2,
            o3,
            o4,
            o5,
            o6,
            o7,
            p0,
            p1,
            p2,
            p3,
            q0,
            q1,
            q2,
            q3,
        ] = head;
        let offset = u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        let length = u32::from_le_bytes([p0, p1, p2, p3]);
        let packed = u32::from_le_bytes([q0, q1, q2, q3]);
        let room = self.expected.size.saturating_sub(offset);
        if offset < self.next || !offset.is_multiple_of(u64::from(CHUNK_BYTES)) {
            return Err(self.damaged(format!("a chunk may not stand at {offset}")));
        }
        if room == 0 || u64::from(length) != room.min(u64::from(CHUNK_BYTES)) {
            return Err(self.damaged(format!("a chunk at {offset} may not have {length} bytes")));
        }
        if packed > PACKED_BYTES_MAX {
            return Err(self.damaged(format!("a chunk may not have {packed} packed bytes")));
        }
        let from = self.offset;
        let mut bytes = vec![0; usize::try_from(packed).unwrap_or_default()];
        if !self.take(&mut bytes)? {
            return Err(self.damaged("it ends before a chunk"));
        }
        self.next = offset.saturating_add(u64::from(length));
        Ok(Some(Packed {
            from,
            offset,
            length: usize::try_from(length).unwrap_or_default(),
            bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = CHUNK_BYTES as usize;

    fn packed(file: &File) -> Vec<u8> {
        let mut output = Vec::new();
        pack(file, &mut output).unwrap();
        output
    }

    fn unpacked(bytes: &[u8], like: &[u8]) -> Result<File, BundleError> {
        let file = tempfile::tempfile().unwrap();
        let sha256 = BlobDigest::of(like).hex();
        let expected = Expected {
            path: "f",
            size: as_u64(like.len()),
            sha256: &sha256,
        };
        unpack(bytes, Some(&file), &expected)?;
        unpack(bytes, None, &expected)?;
        Ok(file)
    }

    fn content(file: &File) -> Vec<u8> {
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn file(runs: &[(usize, usize)], size: usize) -> File {
        let file = tempfile::tempfile().unwrap();
        for (offset, length) in runs {
            let bytes: Vec<u8> = (0..*length).map(|i| (i % 251) as u8 | 1).collect();
            file.write_all_at(&bytes, *offset as u64).unwrap();
        }
        file.set_len(size as u64).unwrap();
        file
    }

    #[test]
    fn files_come_back_with_their_holes() {
        for (runs, size) in [
            (&[][..], 0),
            (&[], 1),
            (&[(0, 1)], 1),
            (&[], 3 * CHUNK + 7),
            (&[(CHUNK - 1, 2)], 2 * CHUNK),
            (&[(CHUNK, CHUNK)], 3 * CHUNK + 1),
            (&[(5000, 100), (6 * CHUNK + 5, 10)], 7 * CHUNK - 1),
            (&[(CHUNK, 2 * CHUNK + 9)], 19 * CHUNK),
        ] {
            let source = file(runs, size);
            let (bytes, plain) = (packed(&source), content(&source));
            let copy = unpacked(&bytes, &plain).unwrap();
            assert!(content(&copy) == plain, "{runs:?} {size}");
            use std::os::unix::fs::MetadataExt as _;
            let blocks = |file: &File| file.metadata().unwrap().blocks();
            assert!(blocks(&copy) <= blocks(&source), "{runs:?} {size}");
            // What a file system says of holes changes nothing.
            let dense = tempfile::tempfile().unwrap();
            dense.write_all_at(&plain, 0).unwrap();
            assert!(packed(&dense) == bytes, "{runs:?} {size}");
        }
        assert_eq!(packed(&file(&[], 1 << 26)).len(), 32);
        assert_eq!(packed_bytes_max(0), 32);
        assert_eq!(packed_bytes_max(1), 32 + 24 + u64::from(PACKED_BYTES_MAX));
    }

    #[test]
    fn what_breaks_the_form_is_refused() {
        let source = file(&[(0, 10), (CHUNK + 5, 5), (2 * CHUNK, 3)], 2 * CHUNK + 3);
        let (good, plain) = (packed(&source), content(&source));
        assert!(unpacked(&good, &plain).is_ok());
        let changed = |at: usize, to: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + to.len()].copy_from_slice(to);
            bytes
        };
        let second = 32 + 24 + u32::from_le_bytes(good[52..56].try_into().unwrap()) as usize;
        let mut bomb = zstd::bulk::compress(&vec![1; CHUNK + 1], 1).unwrap();
        let mut with_bomb = changed(52, &(bomb.len() as u32).to_le_bytes())[..56].to_vec();
        with_bomb.append(&mut bomb);
        for (bad, says) in [
            (Vec::new(), "it is empty"),
            (good[..31].to_vec(), "ends inside"),
            (good[..second].to_vec(), "another digest"),
            (good[..good.len() - 1].to_vec(), "ends inside"),
            (good[..second + 24].to_vec(), "ends before a chunk"),
            (changed(0, &[0]), "no chunk's head"),
            (changed(16, &[2]), "another version"),
            (changed(24, &[9]), "another size"),
            (changed(32, &[0x5d]), "no chunk's head"),
            (changed(40, &[1]), "may not stand at 1"),
            (changed(47, &[0x80]), "may not have"),
            (changed(43, &[1]), "may not have"),
            (changed(second + 8, &[0, 0, 0]), "may not stand at 0"),
            (changed(48, &[9]), "may not have"),
            (changed(55, &[0xff]), "packed bytes"),
            (changed(56, &[0]), "damaged at byte 56"),
            (with_bomb, "damaged at byte 56"),
        ] {
            let error = unpacked(&bad, &plain).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
    }

    /// Bytes that others have signed must not change.
    #[test]
    fn the_form_is_pinned() {
        let bytes = packed(&file(&[(100, 5000), (3 * CHUNK, 4096)], 4 * CHUNK));
        let found = BlobDigest::of(&bytes);
        assert_eq!((bytes.len(), found.hex().as_str()), PINNED);
    }

    const PINNED: (usize, &str) = (
        896,
        "cba52066e10585a2103b6d002980f4447c135b53162f0323ef9fc80f4b5e5cfa",
    );
}
