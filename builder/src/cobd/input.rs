//! An archive that is read as it comes: from a file, a pipe or a terminal.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use coop_runtime::event::{Event, Observer, Unit};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;

/// An archive and what to call it.
#[derive(Debug)]
pub struct Archive {
    /// For messages: the path as it was given, or `standard input`.
    pub name: String,
    /// The archive, from its present position on.
    pub file: File,
}

/// What progress calls the reading.
pub(super) const TASK: &str = "read archive";
/// Progress is told each time so many bytes more were read.
const PROGRESS_BYTES: u64 = 4 << 20;
/// How long a reader sleeps in a pipe before it looks whether it was called off.
const PATIENCE_MS: i64 = 100;

/// Reads the archive's bytes, tells the observer, and stops when the work is called off.
pub(super) struct Watched {
    file: File,
    observer: Arc<dyn Observer>,
    /// Whether a read may wait for ever.
    may_wait: bool,
    done: u64,
    told: u64,
}

impl Watched {
    pub(super) fn new(file: File, observer: Arc<dyn Observer>) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&file)?;
        let regular = FileType::from_raw_mode(stat.st_mode).is_file();
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        observer.event(&Event::TaskStarted {
            task: TASK,
            total: regular.then(|| u64::try_from(stat.st_size).unwrap_or(0)),
            unit: Unit::Bytes,
        });
        Ok(Self {
            file,
            observer,
            may_wait: !regular,
            done: 0,
            told: 0,
        })
    }

    fn wait(&self) -> io::Result<()> {
        let patience = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: PATIENCE_MS * 1_000_000,
        };
        loop {
            let mut files = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut files, Some(&patience)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => self.check()?,
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.observer.is_cancelled() {
            return Err(io::Error::other("the work was called off"));
        }
        Ok(())
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        if self.may_wait {
            self.wait()?;
        }
        let count = self.file.read(buffer)?;
        self.done = self
            .done
            .saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if self.done.saturating_sub(self.told) >= PROGRESS_BYTES {
            self.told = self.done;
            self.observer.event(&Event::TaskProgress {
                task: TASK,
                done: self.done,
            });
        }
        Ok(count)
    }
}
