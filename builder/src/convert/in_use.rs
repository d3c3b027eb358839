//! Whether somebody writes to a disk while it is read: the copy would be neither its old state nor
//! its new one.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use coop_image::disk::{Chain, ChainError, Reference};
use fs_err as fs;
use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::Errno;

/// Where the kernel shows all locks of files.
const LOCKS: &str = "/proc/locks";
/// QEMU locks this byte of every file that it may write to (`block/file-posix.c`,
/// `RAW_LOCK_PERM_BASE` and `BLK_PERM_WRITE`).
const QEMU_WRITES: u64 = 101;

/// Whether a machine has a file open for writing: one of coop's by its lock, or one of QEMU's.
/// If not, none of coop's can have it as long as the file is open here.
pub(super) fn is_written(file: &File) -> bool {
    // Some file systems know no locks.
    let locked = flock(file, FlockOperation::NonBlockingLockShared);
    if locked == Err(Errno::WOULDBLOCK) {
        return true;
    }
    let Ok(metadata) = file.metadata() else {
        return false;
    };
    let device = metadata.dev();
    let id = format!(
        "{:02x}:{:02x}:{}",
        major(device),
        minor(device),
        metadata.ino()
    );
    let locks = fs::read_to_string(LOCKS).unwrap_or_default();
    locks.lines().any(|line| is_qemus(line, &id))
}

/// `1: OFDLCK ADVISORY  READ -1 fe:00:1234 100 101`, the last two the first and the last byte.
fn is_qemus(line: &str, id: &str) -> bool {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, "OFDLCK" | "POSIX", _, _, _, file, first, last] = words[..] else {
        return false;
    };
    let first = first.parse::<u64>().unwrap_or(u64::MAX);
    // `EOF` is the last byte of a lock without an end.
    let last = last.parse::<u64>().unwrap_or(u64::MAX);
    file == id && (first..=last).contains(&QEMU_WRITES)
}

/// Opens what another chain opens, and knows whether somebody writes to any of it.
pub(super) struct Watching<'c> {
    pub(super) chain: &'c mut dyn Chain,
    pub(super) is_written: bool,
}

impl Chain for Watching<'_> {
    fn open(&mut self, reference: &Reference<'_>) -> Result<File, ChainError> {
        let file = self.chain.open(reference)?;
        self.is_written |= is_written(&file);
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_that_write_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, "x").unwrap();
        let open = || File::open(&path).unwrap();
        let (first, second) = (open(), open());
        assert!(!is_written(&first) && !is_written(&second));
        drop(second);
        let machine = open();
        let lock = || flock(&machine, FlockOperation::NonBlockingLockExclusive);
        assert!(lock().is_err(), "it is held as long as it is read");
        drop(first);
        lock().unwrap();
        assert!(is_written(&open()));
    }

    #[test]
    fn locks_of_qemu_are_known() {
        let id = "fe:00:12";
        for (line, expected) in [
            ("1: OFDLCK ADVISORY  READ -1 fe:00:12 100 101", true),
            ("1: OFDLCK ADVISORY  READ -1 fe:00:12 101 101", true),
            ("9: POSIX  ADVISORY  WRITE 77 fe:00:12 0 EOF", true),
            ("1: OFDLCK ADVISORY  READ -1 fe:00:12 100 100", false),
            ("1: OFDLCK ADVISORY  READ -1 fe:00:12 201 201", false),
            ("1: OFDLCK ADVISORY  READ -1 fe:00:123 100 101", false),
            ("1: FLOCK  ADVISORY  READ 7 fe:00:12 0 EOF", false),
            ("1: -> OFDLCK ADVISORY  READ -1 fe:00:12 100 101", false),
            ("", false),
        ] {
            assert_eq!(is_qemus(line, id), expected, "{line}");
        }
    }
}
