//! SHA-256 of files, which are large and have holes.

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use fs_err as fs;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sha2::{Digest, Sha256};

/// Files are read in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;
/// How many pieces are read ahead.
const PIECES_AHEAD: usize = 4;
/// What is hashed for a hole, again and again: it stays in the processor's cache.
const ZEROES: [u8; 16 << 10] = [0; 16 << 10];

/// The SHA-256 of a file's content. Holes are hashed as the zeroes that they are, without reading
/// them; a second thread reads ahead.
///
/// # Errors
/// The file cannot be read; the error names it.
pub fn sha256_of_file(path: &Path) -> io::Result<[u8; 32]> {
    let file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    std::thread::scope(|scope| {
        let (filled, pieces) = sync_channel(PIECES_AHEAD);
        let (recycle, empty) = channel();
        let reader = std::thread::Builder::new()
            .name("coop-read".into())
            .spawn_scoped(scope, || {
                Reader {
                    file,
                    filled,
                    empty,
                }
                .run()
            })?;
        for piece in pieces {
            match piece {
                Piece::Data(bytes) => {
                    hasher.update(&bytes);
                    // The reader may have come to the end already.
                    let _ = recycle.send(bytes);
                }
                Piece::Hole(length) => hash_zeroes(&mut hasher, length),
            }
        }
        reader
            .join()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })?;
    Ok(hasher.finalize().into())
}

pub(crate) fn hash_zeroes(hasher: &mut Sha256, mut length: u64) {
    while length > 0 {
        let count = usize::try_from(length).map_or(ZEROES.len(), |left| left.min(ZEROES.len()));
        hasher.update(&ZEROES[..count]);
        length = length.saturating_sub(as_u64(count));
    }
}

enum Piece {
    Data(Vec<u8>),
    Hole(u64),
}

struct Reader {
    file: fs::File,
    filled: SyncSender<Piece>,
    empty: Receiver<Vec<u8>>,
}

impl Reader {
    /// Sends the content to the end; a file that shrinks meanwhile ends where it then ends.
    fn run(mut self) -> io::Result<()> {
        let mut at = 0;
        loop {
            let Some(data) = self.next_data(at)? else {
                return Ok(());
            };
            let hole = Piece::Hole(data.start.saturating_sub(at));
            at = data.end;
            if self.filled.send(hole).is_err() || data.is_empty() || !self.send_data(data)? {
                return Ok(());
            }
        }
    }

    /// Where data stands at `at` or later; empty where only a hole is left, `None` at the end. A
    /// file system that knows of no holes says that all is data.
    fn next_data(&self, at: u64) -> io::Result<Option<Range<u64>>> {
        let metadata = self.file.metadata()?;
        if !metadata.is_file() || metadata.len() == 0 {
            // What has no size may still have content, or an error of its own.
            return Ok((at == 0).then_some(0..u64::MAX));
        }
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
            Ok(start) => start.max(at),
            Err(Errno::NXIO) => {
                let size = metadata.len();
                return Ok((size > at).then_some(size..size));
            }
            Err(_) if at == 0 => return Ok(Some(0..u64::MAX)),
            Err(error) => return Err(self.named(error)),
        };
        let seek = |to| rustix::fs::seek(&self.file, to).map_err(|error| self.named(error));
        let end = seek(SeekFrom::Hole(start))?;
        seek(SeekFrom::Start(start))?;
        Ok((end > start).then_some(start..end))
    }

    fn named(&self, error: Errno) -> io::Error {
        let error = io::Error::from(error);
        let path = self.file.path().display();
        io::Error::new(
            error.kind(),
            format!("cannot find holes in {path}: {error}"),
        )
    }

    /// Sends what stands there, which is where the file's position is; false where the file ends
    /// before or nobody wants more.
    fn send_data(&mut self, data: Range<u64>) -> io::Result<bool> {
        let mut left = data.end.saturating_sub(data.start);
        while left > 0 {
            let mut bytes = self.empty.try_recv().unwrap_or_default();
            let wanted = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            bytes.resize(wanted, 0);
            let count = match self.file.read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            bytes.truncate(count);
            left = left.saturating_sub(as_u64(count));
            if self.filled.send(Piece::Data(bytes)).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub(crate) fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn files_with_holes_have_the_digest_of_their_content() {
        let folder = std::env::temp_dir().join(format!("coop-digest-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("file");
        let runs: [&[(u64, usize)]; 6] = [
            &[],
            &[(0, 5)],
            &[(0, 3 << 20)],
            &[(1 << 20, 70_000), (7 << 20, 1)],
            &[(0, 4096), (2 << 20, 2 << 20)],
            &[((9 << 20) - 1, 1)],
        ];
        for (runs, size) in runs
            .iter()
            .flat_map(|runs| [0, 12_345_678].map(|size| (runs, size)))
        {
            let file = std::fs::File::create(&path).unwrap();
            for (offset, length) in *runs {
                file.write_all_at(&vec![0xa5; *length], *offset).unwrap();
            }
            let size = size.max(file.metadata().unwrap().len());
            file.set_len(size).unwrap();
            let expected: [u8; 32] = Sha256::digest(std::fs::read(&path).unwrap()).into();
            assert_eq!(sha256_of_file(&path).unwrap(), expected, "{runs:?} {size}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        let error = sha256_of_file(&path).unwrap_err().to_string();
        assert!(error.contains("coop-digest"), "{error}");
        // Nothing that can be positioned, and no end that its metadata tells.
        let version = std::fs::read("/proc/version").unwrap();
        let found = sha256_of_file(Path::new("/proc/version")).unwrap();
        assert_eq!(found, <[u8; 32]>::from(Sha256::digest(version)));
        assert!(sha256_of_file(Path::new("/proc/self")).is_err());
    }
}
