//! A tar archive into a folder of the host, with rules that no archive gets around.
//!
//! Only folders, files and symbolic links are made. A link is relative and stays inside: its target
//! begins with as many `..` as it likes to have and is deep, and has none further on, so a chain of
//! links stays inside too. Every folder is opened without following links, every file is new. Owners,
//! set-uid bits and attributes are not taken over; times are.
//!
//! One thread reads the archive, makes folders and links, and hands files on in batches; others write
//! them.

use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use coop_image::tar::{self, Entries, Entry, EntryKind, TarError};
use coop_image::tree::{NAME_LENGTH_MAX, display};
use coop_runtime::event::{Event, Observer, Unit};
use rustix::io::Errno;

use super::SourceError;
use super::filter::Filter;
use super::folder::{Folder, finish, is_executable};
use super::packed::{Count, SOURCE_BYTES_MAX};

/// The name under which the observer sees the progress, in bytes of the packed source.
const TASK: &str = "unpack kernel source";
/// The most entries of an archive (Linux 7.2 has 101,053).
const ENTRIES_MAX: u64 = 1_000_000;
/// The longest path in the archive, in bytes.
const PATH_BYTES_MAX: usize = 2048;
/// The deepest path, in components.
const DEPTH_MAX: usize = 64;
/// The longest target of a symbolic link, in bytes.
const TARGET_BYTES_MAX: usize = 1024;
/// Larger files are written as they are read, by the thread that reads.
const BATCHED_FILE_BYTES_MAX: u64 = 1 << 20;
/// What is handed on at once.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_FILES: usize = 128;
/// How many batches wait for each writer.
const BATCHES_QUEUED: usize = 4;
/// Writers wait for the disk, not the processor.
const WRITERS: usize = 4;
/// How often progress is told, in bytes of the packed source.
const PROGRESS_BYTES: u64 = 1 << 20;

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Files and links that were made.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Files and links that were left out.
    pub(super) left_out: u64,
    /// The latest time of any entry, in seconds since 1970.
    pub(super) latest_seconds: i64,
    /// The one folder at the archive's top.
    pub(super) top: Vec<u8>,
}

/// What is unpacked, and whither.
pub(super) struct Unpacking<'a> {
    /// For messages.
    pub(super) name: &'a str,
    /// Which files are wanted.
    pub(super) filter: &'a Filter,
    /// An empty folder that nobody else writes to.
    pub(super) folder: &'a Folder,
    /// Where the packed file is read.
    pub(super) count: Count,
    /// The packed file's size in bytes.
    pub(super) packed_bytes: u64,
    /// Who watches.
    pub(super) observer: &'a dyn Observer,
}

/// A file to write.
struct Job {
    folder: Folder,
    path: Vec<u8>,
    name_start: usize,
    content: Vec<u8>,
    executable: bool,
    modified_seconds: i64,
}

/// Unpacks an archive without the one folder at its top.
pub(super) fn unpack(
    archive: impl Read,
    unpacking: &Unpacking<'_>,
) -> Result<Unpacked, SourceError> {
    let started = Instant::now();
    unpacking.observer.event(&Event::TaskStarted {
        task: TASK,
        total: Some(unpacking.packed_bytes),
        unit: Unit::Bytes,
    });
    let failed = Failed::default();
    let (sender, receiver) = sync_channel(BATCHES_QUEUED * WRITERS);
    let receiver = Mutex::new(receiver);
    let result = std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| write_all(&receiver, &failed));
        }
        let mut reader = Reader {
            unpacking,
            failed: &failed,
            sender,
            batch: Vec::new(),
            batch_bytes: 0,
            trail: Vec::new(),
            told: 0,
            unpacked: Unpacked::default(),
        };
        reader.read(archive)?;
        reader.flush();
        Ok(reader.unpacked)
    });
    unpacking.observer.event(&Event::TaskFinished {
        task: TASK,
        elapsed: started.elapsed(),
    });
    // A writer's error comes first: it made the reader stop.
    match failed.take() {
        Some((path, source)) => Err(unpacking.write_error(&path, source)),
        None => result,
    }
}

/// The first error of a writer.
#[derive(Default)]
struct Failed {
    is_set: AtomicBool,
    first: Mutex<Option<(Vec<u8>, io::Error)>>,
}

impl Failed {
    fn set(&self, path: &[u8], error: io::Error) {
        if let Ok(mut first) = self.first.lock() {
            first.get_or_insert((path.to_owned(), error));
        }
        self.is_set.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    fn take(&self) -> Option<(Vec<u8>, io::Error)> {
        self.first.lock().ok()?.take()
    }
}

fn write_all(batches: &Mutex<Receiver<Vec<Job>>>, failed: &Failed) {
    loop {
        let batch = match batches.lock() {
            Ok(batches) => batches.recv(),
            Err(_) => return,
        };
        let Ok(batch) = batch else {
            return;
        };
        for job in batch {
            // After an error the queue is emptied, so that the reader does not wait for ever.
            if failed.is_set() {
                break;
            }
            if let Err(error) = job.write() {
                failed.set(&job.path, error);
            }
        }
    }
}

impl Job {
    fn write(&self) -> io::Result<()> {
        let mut file = self.folder.create(&self.path[self.name_start..])?;
        file.write_all(&self.content)?;
        finish(&file, self.executable, self.modified_seconds)
    }
}

impl Unpacking<'_> {
    fn write_error(&self, path: &[u8], source: io::Error) -> SourceError {
        match Errno::from_io_error(&source) {
            Some(Errno::EXIST) => self.refused(
                path,
                "comes twice, or in a form that the file system takes for the same name",
            ),
            Some(Errno::NOTDIR | Errno::LOOP) => self.refused(path, "is below a link or a file"),
            _ => SourceError::Write {
                path: display(path),
                source,
            },
        }
    }

    fn refused(&self, path: &[u8], problem: &str) -> SourceError {
        SourceError::Refused {
            name: self.name.to_owned(),
            entry: display(&path[..path.len().min(PATH_BYTES_MAX)]),
            problem: problem.to_owned(),
        }
    }

    fn archive(&self, source: TarError) -> SourceError {
        SourceError::Archive {
            name: self.name.to_owned(),
            source,
        }
    }
}

/// Reads the archive.
struct Reader<'a> {
    unpacking: &'a Unpacking<'a>,
    failed: &'a Failed,
    sender: SyncSender<Vec<Job>>,
    batch: Vec<Job>,
    batch_bytes: usize,
    /// The folders that lead to where the last entry was.
    trail: Vec<(Vec<u8>, Folder)>,
    /// Progress that was told.
    told: u64,
    unpacked: Unpacked,
}

impl Reader<'_> {
    fn read(&mut self, archive: impl Read) -> Result<(), SourceError> {
        let limits = tar::Limits {
            entries: ENTRIES_MAX,
            depth: DEPTH_MAX,
            path_bytes: PATH_BYTES_MAX,
            ..tar::Limits::default()
        };
        let mut entries = Entries::stream(archive, limits);
        loop {
            let next = entries.next_entry();
            let next = next.map_err(|error| self.unpacking.archive(error))?;
            let Some(entry) = next else {
                break;
            };
            self.watch()?;
            self.take(&entry, &mut entries)?;
        }
        if self.unpacked.top.is_empty() {
            return Err(SourceError::NotAKernel {
                name: self.unpacking.name.to_owned(),
                problem: "the archive has nothing in it".to_owned(),
            });
        }
        Ok(())
    }

    /// Tells how far it is, and stops where nobody wants more.
    fn watch(&mut self) -> Result<(), SourceError> {
        let Unpacking {
            observer,
            count,
            packed_bytes,
            name,
            ..
        } = self.unpacking;
        let done = count.load(Ordering::Relaxed).min(*packed_bytes);
        if done >= self.told.saturating_add(PROGRESS_BYTES) {
            self.told = done;
            observer.event(&Event::TaskProgress { task: TASK, done });
        }
        // A writer's error takes this one's place.
        if self.failed.is_set() || observer.is_cancelled() {
            return Err(SourceError::Cancelled((*name).to_owned()));
        }
        Ok(())
    }

    fn take(&mut self, entry: &Entry, entries: &mut Entries<'_>) -> Result<(), SourceError> {
        let time = entry.metadata.times.modified.seconds.max(0);
        self.unpacked.latest_seconds = self.unpacked.latest_seconds.max(time);
        let parts = self.parts(entry)?;
        let Some((top, below)) = parts.split_first() else {
            return Ok(());
        };
        self.check_top(entry, top, below.is_empty())?;
        let Some((name, folders)) = below.split_last() else {
            return Ok(());
        };
        let path = below.join(&b'/');
        if entry.kind == EntryKind::Directory {
            if self.unpacking.filter.wants_folder(&path) {
                self.enter(below, &path)?;
            }
            return Ok(());
        }
        if !self.unpacking.filter.wants(&path) {
            self.unpacked.left_out += 1;
            return Ok(());
        }
        match &entry.kind {
            EntryKind::File(layout) if layout.runs.is_none() => {
                let folder = self.enter(folders, &path)?;
                self.unpacked.files += 1;
                self.unpacked.bytes = self.unpacked.bytes.saturating_add(layout.size);
                let job = Job {
                    folder,
                    name_start: path.len() - name.len(),
                    path,
                    content: Vec::new(),
                    executable: is_executable(entry.metadata.mode),
                    modified_seconds: time,
                };
                self.file(job, layout.size, entries)
            }
            EntryKind::Symlink(target) => {
                self.check_target(&path, target, folders.len())?;
                let folder = self.enter(folders, &path)?;
                self.unpacked.files += 1;
                let made = folder.link(name, target);
                made.map_err(|error| self.unpacking.write_error(&path, error))
            }
            kind => Err(self.unpacking.refused(&entry.path, what_is_wrong(kind))),
        }
    }

    /// The components of an entry's path.
    fn parts<'e>(&self, entry: &'e Entry) -> Result<Vec<&'e [u8]>, SourceError> {
        let refused = |problem: &str| self.unpacking.refused(&entry.path, problem);
        if entry.path.starts_with(b"/") {
            return Err(refused("has an absolute path"));
        }
        let parts: Vec<&[u8]> = entry
            .path
            .split(|byte| *byte == b'/')
            .filter(|part| !matches!(*part, b"" | b"."))
            .collect();
        if parts.len() > DEPTH_MAX {
            return Err(refused("is too deep"));
        }
        for part in &parts {
            if *part == b".." {
                return Err(refused("has '..' in its path"));
            }
            if part.len() > NAME_LENGTH_MAX || part.contains(&0) {
                return Err(refused("has a name that no file can have"));
            }
        }
        Ok(parts)
    }

    fn check_top(&mut self, entry: &Entry, top: &[u8], is_top: bool) -> Result<(), SourceError> {
        if is_top && entry.kind != EntryKind::Directory {
            let problem = "lies at the archive's top; a kernel source has one folder there";
            return Err(self.unpacking.refused(&entry.path, problem));
        }
        if self.unpacked.top.is_empty() {
            self.unpacked.top = top.to_owned();
        }
        if self.unpacked.top != top {
            let problem = format!(
                "is not in '{}'; a kernel source has one folder at its top",
                display(&self.unpacked.top)
            );
            return Err(self.unpacking.refused(&entry.path, &problem));
        }
        Ok(())
    }

    /// Whether a link that is `depth` folders deep stays inside, whatever other links there are.
    fn check_target(&self, path: &[u8], target: &[u8], depth: usize) -> Result<(), SourceError> {
        let refused = |problem: &str| self.unpacking.refused(path, problem);
        if target.starts_with(b"/") {
            return Err(refused("is a symbolic link to an absolute path"));
        }
        if target.is_empty() || target.len() > TARGET_BYTES_MAX || target.contains(&0) {
            return Err(refused("is a symbolic link to what no path can be"));
        }
        let parts = target
            .split(|byte| *byte == b'/')
            .filter(|part| !matches!(*part, b"" | b"."));
        let mut ups = 0;
        let mut has_gone_down = false;
        for part in parts {
            if part != b".." {
                has_gone_down = true;
            } else if has_gone_down {
                return Err(refused("is a symbolic link with '..' behind a name"));
            } else {
                ups += 1;
            }
        }
        match ups > depth {
            true => Err(refused("is a symbolic link that leads out of the source")),
            false => Ok(()),
        }
    }

    /// Opens the folders, making those that are missing.
    fn enter(&mut self, parts: &[&[u8]], path: &[u8]) -> Result<Folder, SourceError> {
        let known = self
            .trail
            .iter()
            .zip(parts)
            .take_while(|((name, _), part)| name == *part)
            .count();
        self.trail.truncate(known);
        for part in &parts[known..] {
            let here = self.here();
            let inner = here.enter_or_make(part);
            let inner = inner.map_err(|error| self.unpacking.write_error(path, error))?;
            self.trail.push((part.to_vec(), inner));
        }
        Ok(self.here().clone())
    }

    fn here(&self) -> &Folder {
        let last = self.trail.last();
        last.map_or(self.unpacking.folder, |(_, folder)| folder)
    }

    fn file(
        &mut self,
        mut job: Job,
        size: u64,
        entries: &mut Entries<'_>,
    ) -> Result<(), SourceError> {
        if self.unpacked.bytes > SOURCE_BYTES_MAX {
            let problem = format!("goes beyond {SOURCE_BYTES_MAX} bytes in all, coop's limit");
            return Err(self.unpacking.refused(&job.path, &problem));
        }
        if size > BATCHED_FILE_BYTES_MAX {
            return self.large_file(&job, entries);
        }
        let length = entries
            .content()
            .read_to_end(&mut job.content)
            .map_err(|error| self.unreadable(&job, error))?;
        self.batch_bytes += length;
        self.batch.push(job);
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_FILES {
            self.flush();
        }
        Ok(())
    }

    fn large_file(&mut self, job: &Job, entries: &mut Entries<'_>) -> Result<(), SourceError> {
        let write_error = |error| self.unpacking.write_error(&job.path, error);
        let name = &job.path[job.name_start..];
        let mut file = job.folder.create(name).map_err(write_error)?;
        let mut content = entries.content();
        let mut buffer = vec![0; BATCH_BYTES];
        loop {
            let read = content.read(&mut buffer);
            let count = match read {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.unreadable(job, error)),
            };
            file.write_all(&buffer[..count]).map_err(write_error)?;
            if self.unpacking.observer.is_cancelled() {
                return Err(SourceError::Cancelled(self.unpacking.name.to_owned()));
            }
        }
        finish(&file, job.executable, job.modified_seconds).map_err(write_error)
    }

    fn unreadable(&self, job: &Job, source: io::Error) -> SourceError {
        SourceError::Unreadable {
            name: self.unpacking.name.to_owned(),
            entry: display(&job.path),
            source,
        }
    }

    /// Hands on what has gathered.
    fn flush(&mut self) {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        // Writers go only after the reader.
        let _ = self.sender.send(batch);
    }
}

fn what_is_wrong(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::HardLink(_) => {
            "is a hard link, which kernel sources do not have; pack it with tar --hard-dereference"
        }
        EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => "is a device",
        EntryKind::Fifo => "is a named pipe",
        EntryKind::File(_) => "is a file with holes, which kernel sources do not have",
        EntryKind::Directory | EntryKind::Symlink(_) => "is not expected here",
    }
}
