//! A folder of the host that a tree is made in: no symbolic link is followed below it, so nothing
//! outside of it is ever read or written, whatever the names and links in it say.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps, fchmod, fstat, futimens,
    mkdirat, openat, symlinkat, unlinkat,
};
use rustix::io::Errno;

const FOLDER_MODE: u32 = 0o755;
const PLAIN_MODE: u32 = 0o644;
const EXECUTABLE_MODE: u32 = 0o755;
/// Any of these makes a file executable.
const EXECUTE_BITS: u32 = 0o111;
/// How many folders are looked into for a name like a missing one.
const FOLDERS_SEARCHED_MAX: usize = 20_000;

/// An open folder.
#[derive(Clone, Debug)]
pub(super) struct Folder(Arc<OwnedFd>);

/// What a path names.
#[derive(Debug)]
pub(super) enum Found {
    /// A regular file.
    File {
        /// Its content.
        content: Vec<u8>,
        /// Whether anybody may execute it.
        executable: bool,
    },
    /// Something else, or the way leads through something else.
    Other,
    /// Nothing.
    Nothing,
}

impl Folder {
    /// Opens a folder of the host.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(Arc::new(openat(CWD, path, flags, Mode::empty())?)))
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        for entry in Dir::read_from(&*self.0)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Another descriptor of it.
    pub(super) fn reopened(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// The folder of this name in it.
    pub(super) fn enter(&self, name: &[u8]) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(&*self.0, name, flags, Mode::empty())?;
        Ok(Self(Arc::new(opened)))
    }

    /// The same, made where nothing has the name.
    pub(super) fn enter_or_make(&self, name: &[u8]) -> io::Result<Self> {
        match self.enter(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                mkdirat(&*self.0, name, Mode::from_raw_mode(FOLDER_MODE))?;
                let made = self.enter(name)?;
                // What the umask took away.
                fchmod(&*made.0, Mode::from_raw_mode(FOLDER_MODE))?;
                Ok(made)
            }
            entered => entered,
        }
    }

    /// A new file; nothing may have its name.
    pub(super) fn create(&self, name: &[u8]) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&*self.0, name, flags, Mode::from_raw_mode(PLAIN_MODE))?.into())
    }

    /// A new symbolic link; nothing may have its name.
    pub(super) fn link(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        Ok(symlinkat(target, &*self.0, name)?)
    }

    /// The file at a path below; more than `limit_bytes` are an error.
    pub(super) fn read(&self, path: &[u8], limit_bytes: u64) -> io::Result<Found> {
        let Some((parent, name)) = self.parent_of(path)? else {
            return Ok(Found::Nothing);
        };
        let Some(parent) = parent else {
            return Ok(Found::Other);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&*parent.0, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(Errno::LOOP) => return Ok(Found::Other),
            Err(error) => return Err(error.into()),
        };
        let state = fstat(&file)?;
        if FileType::from_raw_mode(state.st_mode) != FileType::RegularFile {
            return Ok(Found::Other);
        }
        let mut content = Vec::new();
        File::from(file)
            .take(limit_bytes.saturating_add(1))
            .read_to_end(&mut content)?;
        if u64::try_from(content.len()).is_ok_and(|length| length > limit_bytes) {
            let problem = format!("it has more than {limit_bytes} bytes, coop's limit");
            return Err(io::Error::other(problem));
        }
        Ok(Found::File {
            content,
            executable: state.st_mode & EXECUTE_BITS != 0,
        })
    }

    /// Removes the file or link at a path below, if there is one.
    pub(super) fn remove(&self, path: &[u8]) -> io::Result<()> {
        let Some((Some(parent), name)) = self.parent_of(path)? else {
            return Ok(());
        };
        match unlinkat(&*parent.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A new file at a path below, with the folders that it needs.
    pub(super) fn make_file(
        &self,
        path: &[u8],
        content: &[u8],
        executable: bool,
        modified_seconds: i64,
    ) -> io::Result<()> {
        let mut here = self.clone();
        let (folders, name) = split(path);
        for part in folders {
            here = here.enter_or_make(part)?;
        }
        let mut file = here.create(name)?;
        file.write_all(content)?;
        finish(&file, executable, modified_seconds)
    }

    /// Paths of files that are named as the last component of `path`, or almost, at most `most`.
    pub(super) fn similar(&self, path: &[u8], most: usize) -> Vec<Vec<u8>> {
        let (_, name) = split(path);
        let wanted = String::from_utf8_lossy(path).into_owned();
        let mut found: Vec<(bool, usize, Vec<u8>)> = Vec::new();
        let mut waiting = vec![(Vec::new(), self.clone())];
        let mut searched = 0;
        while let Some((prefix, folder)) = waiting.pop() {
            searched += 1;
            if searched > FOLDERS_SEARCHED_MAX {
                break;
            }
            for entry in Dir::read_from(&*folder.0).into_iter().flatten().flatten() {
                let own = entry.file_name().to_bytes();
                let full = [&*prefix, own].concat();
                if own == b"." || own == b".." {
                    continue;
                }
                if entry.file_type() == FileType::Directory {
                    if let Ok(inner) = folder.enter(own) {
                        waiting.push(([&*full, b"/"].concat(), inner));
                    }
                    continue;
                }
                let distance = strsim::levenshtein(&wanted, &String::from_utf8_lossy(&full));
                if own == name || distance <= 2 {
                    found.push((own != name, distance, full));
                }
            }
        }
        found.sort();
        found
            .into_iter()
            .take(most)
            .map(|(_, _, path)| path)
            .collect()
    }

    /// The folder and the last component; the folder is `None` where something else than folders
    /// leads there, and all is `None` where nothing does.
    fn parent_of<'p>(&self, path: &'p [u8]) -> io::Result<Option<(Option<Self>, &'p [u8])>> {
        let (folders, name) = split(path);
        let mut here = self.clone();
        for part in folders {
            here = match here.enter(part) {
                Ok(inner) => inner,
                Err(error) => {
                    return match Errno::from_io_error(&error) {
                        Some(Errno::NOENT) => Ok(None),
                        Some(Errno::NOTDIR | Errno::LOOP) => Ok(Some((None, name))),
                        _ => Err(error),
                    };
                }
            };
        }
        Ok(Some((Some(here), name)))
    }
}

/// Gives a new file its mode and its time.
pub(super) fn finish(file: &File, executable: bool, modified_seconds: i64) -> io::Result<()> {
    let mode = if executable {
        EXECUTABLE_MODE
    } else {
        PLAIN_MODE
    };
    fchmod(file, Mode::from_raw_mode(mode))?;
    let time = Timespec {
        tv_sec: modified_seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(futimens(file, &times)?)
}

/// Whether a mode of an archive makes a file executable.
pub(super) fn is_executable(mode: u16) -> bool {
    u32::from(mode) & EXECUTE_BITS != 0
}

/// The folders of a path, and its last component.
fn split(path: &[u8]) -> (impl Iterator<Item = &[u8]>, &[u8]) {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (folders, name) = match slash {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    };
    let parts = folders.split(|byte| *byte == b'/');
    (parts.filter(|part| !part.is_empty()), name)
}
