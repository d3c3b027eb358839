//! Content of files that are opened when somebody reads them.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, ResolveFlags, Stat, openat, openat2};
use rustix::io::Errno;

use super::Check;
use crate::tree::Blob;

/// How many files are open at once; writers read one file after the other, with a few threads.
const OPEN_MAX: usize = 32;

/// What tells that a file is the one that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, u64),
}

impl Identity {
    #[allow(
        clippy::useless_conversion,
        reason = "the types differ between architectures"
    )]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev.into(),
            inode: stat.st_ino.into(),
            size: stat.st_size.into(),
            modified: (
                stat.st_mtime.into(),
                u64::try_from(stat.st_mtime_nsec).unwrap_or(0),
            ),
        }
    }
}

/// What the files of one reading share: the root and those that are open.
pub(super) struct Files {
    root: Arc<OwnedFd>,
    check: Check,
    open: Mutex<VecDeque<(Identity, Arc<File>)>>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Files {
    pub(super) fn new(root: Arc<OwnedFd>, check: Check) -> Self {
        Self {
            root,
            check,
            open: Mutex::default(),
        }
    }

    /// The open file, opened where it is not; the one that was not used for longest is closed.
    fn get(&self, file: &Lazy) -> io::Result<Arc<File>> {
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |open: &mut VecDeque<(Identity, Arc<File>)>| {
            let at = open.iter().position(|(known, _)| *known == file.identity)?;
            let entry = open.remove(at)?;
            let found = Arc::clone(&entry.1);
            open.push_back(entry);
            Some(found)
        };
        if let Some(found) = known(&mut lock()) {
            return Ok(found);
        }
        (self.check)()?;
        let opened = Arc::new(self.open(&file.path())?);
        file.check(&opened)?;
        let mut open = lock();
        let oldest = (open.len() >= OPEN_MAX).then(|| open.pop_front()).flatten();
        open.push_back((file.identity, Arc::clone(&opened)));
        // Closing takes a while, and others wait.
        drop(open);
        drop(oldest);
        Ok(opened)
    }

    /// Opens a path below the root without following a link.
    fn open(&self, path: &[u8]) -> io::Result<File> {
        // A pipe that took the file's place must not make anyone wait.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(&self.root, path, flags, Mode::empty(), resolve) {
            Ok(file) => Ok(file.into()),
            // Kernels before 5.6, and sandboxes.
            Err(Errno::NOSYS | Errno::PERM) => self.open_by_component(path, flags),
            Err(error) => Err(error.into()),
        }
    }

    fn open_by_component(&self, path: &[u8], flags: OFlags) -> io::Result<File> {
        let mut parts = path.split(|byte| *byte == b'/');
        let last = parts.next_back().unwrap_or_default();
        let mut folder: Option<OwnedFd> = None;
        for part in parts {
            let here = folder.as_ref().unwrap_or(&self.root);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = Some(openat(here, part, flags, Mode::empty())?);
        }
        let here = folder.as_ref().unwrap_or(&self.root);
        Ok(openat(here, last, flags, Mode::empty())?.into())
    }
}

/// A file below the root.
#[derive(Debug)]
pub(super) struct Lazy {
    pub(super) files: Arc<Files>,
    /// The folder's path from the root; shared by the files in it.
    pub(super) folder: Arc<[u8]>,
    pub(super) name: Box<[u8]>,
    pub(super) identity: Identity,
}

impl Lazy {
    fn path(&self) -> Vec<u8> {
        if self.folder.is_empty() {
            return self.name.to_vec();
        }
        [&*self.folder, b"/", &*self.name].concat()
    }

    fn check(&self, file: &File) -> io::Result<()> {
        if Identity::of(&rustix::fs::fstat(file)?) == self.identity {
            return Ok(());
        }
        Err(io::Error::other("the file changed while it was read"))
    }
}

impl Blob for Lazy {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = self.files.get(self)?;
        let count = FileExt::read_at(&*file, buffer, offset)?;
        let end = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        // With the last bytes all are there: was it one file all the time?
        if u64::try_from(self.identity.size).is_ok_and(|size| end >= size) {
            self.check(&file)?;
        }
        Ok(count)
    }
}
