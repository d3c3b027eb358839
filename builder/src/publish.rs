//! Output folders that hold the old result or the new one, whole.
//!
//! A result is made in a folder beside its destination and takes the destination's name in one
//! step. A build that was killed leaves its folder behind, unlocked; the next build to the same
//! destination removes it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, open, renameat_with};

use crate::store::is_abandoned;

/// How often another build may take a new folder for a dead one's.
const ATTEMPTS_MAX: usize = 16;
/// Between a destination's name and the random part of a staging folder's.
pub(crate) const MARK: &str = ".coop-new-";

/// A folder that becomes the destination, or vanishes.
#[derive(Debug)]
pub struct Staging {
    folder: tempfile::TempDir,
    /// After the folder, so that it is dropped after it.
    parents: MadeFolders,
    destination: PathBuf,
    /// Locked as long as the build lives, so that others know.
    _lock: OwnedFd,
}

impl Staging {
    /// Makes an empty folder beside `destination`, whose parents are made as needed.
    ///
    /// # Errors
    /// What the file system says; or the destination exists and is neither an empty folder nor
    /// one that holds `expected_member`, so that nobody loses a folder by a typing error.
    pub fn new(destination: &Path, expected_member: &str) -> io::Result<Self> {
        refuse_foreign(destination, expected_member)?;
        let destination = absolute(destination)?;
        let (parent, name) = split(&destination)?;
        let parents = MadeFolders::make(parent)?;
        let (folder, lock) = locked_folder(parent, name)?;
        remove_stale(parent, name, folder.path());
        Ok(Self {
            folder,
            parents,
            destination,
            _lock: lock,
        })
    }

    /// The folder to fill.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives the folder the destination's name; what was there before is removed afterwards.
    ///
    /// # Errors
    /// What the file system says; the destination is then as it was.
    pub fn publish(mut self) -> io::Result<()> {
        sync_all(self.folder.path())?;
        let from = self.folder.path();
        // Others may build the same: who comes later replaces.
        let (new, exchange) = (RenameFlags::NOREPLACE, RenameFlags::EXCHANGE);
        let rename = |flags| renameat_with(CWD, from, CWD, &self.destination, flags);
        let renamed = match rename(new) {
            // The old result takes the staging folder's name and is removed with it.
            Err(rustix::io::Errno::EXIST) => rename(exchange),
            // Not every file system knows the first flag.
            Err(rustix::io::Errno::INVAL) if !self.destination.exists() => {
                rustix::fs::rename(from, &self.destination)
            }
            other => other,
        };
        renamed.map_err(|error| in_folder(&error.into(), &self.destination))?;
        self.parents.0.clear();
        let (parent, _) = split(&self.destination)?;
        rustix::fs::fsync(open_folder(parent)?)?;
        Ok(())
    }
}

/// Has a folder and all in it on the disk. The builder put everything there: folders are few, and
/// none is a link.
fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    rustix::fs::fsync(open_folder(folder)?)?;
    Ok(())
}

/// Folders that were made on the way to a destination, the innermost first. Dropping it removes
/// those that are empty.
#[derive(Debug)]
struct MadeFolders(Vec<PathBuf>);

impl MadeFolders {
    fn make(folder: &Path) -> io::Result<Self> {
        let missing = folder.ancestors().take_while(|one| !one.exists());
        let made = Self(missing.map(Path::to_owned).collect());
        fs::create_dir_all(folder)?;
        Ok(made)
    }
}

impl Drop for MadeFolders {
    fn drop(&mut self) {
        for folder in &self.0 {
            // One that somebody else uses by now is not empty and stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    // `out/` and `out/.` name the same folder as `out`.
    Ok(std::path::absolute(path)?.components().collect())
}

pub(crate) fn split(destination: &Path) -> io::Result<(&Path, &OsStr)> {
    match (destination.parent(), destination.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(io::Error::other(format!(
            "'{}' cannot be an output's name",
            destination.display()
        ))),
    }
}

pub(crate) fn staging_prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(MARK);
    prefix
}

pub(crate) fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|error| in_folder(&error.into(), path))
}

pub(crate) fn in_folder(error: &io::Error, folder: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", folder.display()))
}

fn refuse_foreign(destination: &Path, expected_member: &str) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(destination) else {
        return Ok(());
    };
    let known = metadata.is_dir()
        && (destination.join(expected_member).exists()
            || fs::read_dir(destination)?.next().is_none());
    if known {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!(
            "'{}' exists and is not an appliance; it is not overwritten",
            destination.display()
        ),
    ))
}

/// Makes a folder that others see to be somebody's.
fn locked_folder(parent: &Path, name: &OsStr) -> io::Result<(tempfile::TempDir, OwnedFd)> {
    for _ in 0..ATTEMPTS_MAX {
        let folder = tempfile::Builder::new()
            .prefix(&staging_prefix(name))
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in(parent)
            .map_err(|error| in_folder(&error, parent))?;
        let Ok(lock) = open_folder(folder.path()) else {
            continue;
        };
        // Where there are no locks, others leave it alone because it is young.
        let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        // Another build may have taken it for a dead one's before it was locked.
        if locked != Err(rustix::io::Errno::WOULDBLOCK) && folder.path().exists() {
            return Ok((folder, lock));
        }
    }
    let error = io::Error::other("new folders vanish at once");
    Err(in_folder(&error, parent))
}

/// Removes the staging folders of builds that were killed. What cannot be removed stays: it is in
/// nobody's way.
fn remove_stale(parent: &Path, name: &OsStr, own: &Path) {
    let prefix = staging_prefix(name);
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let is_staging = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes());
        if !is_staging {
            continue;
        }
        let abandoned = entry.path() != own && is_abandoned(&entry.path(), own);
        if abandoned {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_new_result_replaces_the_old_one_whole() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("a/out");
        for text in ["old", "new"] {
            let staging = Staging::new(&out, "manifest").unwrap();
            fs::write(staging.path().join("manifest"), text).unwrap();
            staging.publish().unwrap();
            assert_eq!(fs::read_to_string(out.join("manifest")).unwrap(), text);
        }
        assert_eq!(listing(&home.path().join("a")), ["out"]);
    }

    #[test]
    fn an_abandoned_build_leaves_nothing_in_the_end() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("out");
        drop(Staging::new(&out, "manifest").unwrap());
        drop(Staging::new(&home.path().join("a/b/out"), "manifest").unwrap());
        assert!(listing(home.path()).is_empty());
        fs::create_dir(home.path().join(".out.coop-new-killed")).unwrap();
        let alive = Staging::new(&out, "manifest").unwrap();
        let second = Staging::new(&out, "manifest").unwrap();
        assert_eq!(listing(home.path()).len(), 2, "only the dead one is gone");
        drop((alive, second));
    }

    #[test]
    fn a_foreign_folder_is_not_overwritten() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("letter"), "dear").unwrap();
        let error = Staging::new(home.path(), "manifest").unwrap_err();
        assert!(error.to_string().contains("is not an appliance"), "{error}");
    }
}
