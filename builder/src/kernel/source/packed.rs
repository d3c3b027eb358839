//! The packed source as a stream of a tar archive's bytes.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use coop_image::compress;
use coop_image::tar::{self, Entries, EntryKind};

use crate::debian::deb;
use crate::debian::suite::SelectedPackage;

/// The most bytes that a kernel's source may unpack to (8 GiB; Linux 7.2 has 1.6).
pub(super) const SOURCE_BYTES_MAX: u64 = 8 << 30;
/// Size and number of the pieces between the thread that unpacks the package and those that unpack
/// what is in it.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_QUEUED_MAX: usize = 16;

/// How many bytes of the packed file have been read.
pub(super) type Count = Arc<AtomicU64>;

/// Reads a file from its start and counts.
struct Counted {
    file: Arc<File>,
    count: Count,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self
            .file
            .read_at(buffer, self.count.load(Ordering::Relaxed))?;
        let added = u64::try_from(count).unwrap_or(u64::MAX);
        self.count.fetch_add(added, Ordering::Relaxed);
        Ok(count)
    }
}

/// An archive, compressed or not, as plain bytes; all processors decompress.
pub(super) fn tarball(file: Arc<File>, count: Count) -> io::Result<Box<dyn Read + Send>> {
    unpacked(Counted { file, count })
}

/// The archive `usr/src/NAME.tar.*` in a package, as plain bytes. Nothing of the package is
/// written to disk: one thread unpacks it and others what is in it.
pub(super) fn in_package(
    package: &SelectedPackage,
    file: File,
    count: Count,
) -> io::Result<Box<dyn Read + Send>> {
    let plain = deb::data_stream(package, file).map_err(io::Error::other)?;
    let wanted = format!("usr/src/{}.tar", package.name);
    let (sender, receiver) = sync_channel(PIECES_QUEUED_MAX);
    std::thread::Builder::new()
        .name("package".to_owned())
        .spawn(move || {
            if let Err(error) = find(plain, &wanted, &sender, &count) {
                // Nobody waits for it where the reader has gone.
                let _ = sender.send(Err(error));
            }
        })?;
    unpacked(Pieces {
        receiver,
        current: Vec::new(),
        position: 0,
        ended: false,
    })
}

fn unpacked(input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let options = compress::Options {
        limits: compress::Limits {
            output_bytes: SOURCE_BYTES_MAX,
            ..compress::Limits::default()
        },
        threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let (_, plain) = compress::decompress_threaded(input, options)?;
    Ok(plain)
}

type Piece = io::Result<Vec<u8>>;

/// Sends the content of the wanted file.
fn find(
    package: impl Read,
    wanted: &str,
    sender: &SyncSender<Piece>,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut entries = Entries::stream(package, tar::Limits::default());
    let mut found = false;
    while let Some(entry) = entries.next_entry().map_err(io::Error::other)? {
        let path = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
        let is_wanted = path.starts_with(wanted.as_bytes());
        if !is_wanted || !matches!(entry.kind, EntryKind::File(_)) {
            continue;
        }
        if std::mem::replace(&mut found, true) {
            let problem = format!("the package has more than one file named {wanted}.*");
            return Err(io::Error::other(problem));
        }
        let mut content = entries.content();
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let limit = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX);
            let length = (&mut content).take(limit).read_to_end(&mut piece)?;
            count.fetch_add(u64::try_from(length).unwrap_or(u64::MAX), Ordering::Relaxed);
            if length == 0 {
                break;
            }
            if sender.send(Ok(piece)).is_err() {
                return Ok(());
            }
        }
    }
    if !found {
        return Err(io::Error::other(format!(
            "the package has no file {wanted}.*; it is no linux-source package"
        )));
    }
    // The empty piece is the end. Where the reader has gone, nobody waits for it.
    let _ = sender.send(Ok(Vec::new()));
    Ok(())
}

/// Reads what the other thread sends.
struct Pieces {
    receiver: Receiver<Piece>,
    current: Vec<u8>,
    position: usize,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() {
            if self.ended {
                return Ok(0);
            }
            let lost = |_| io::Error::other("the thread that unpacks the package ended early");
            (self.current, self.position) = (self.receiver.recv().map_err(lost)??, 0);
            self.ended = self.current.is_empty();
        }
        let available = &self.current[self.position..];
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.position += count;
        Ok(count)
    }
}
