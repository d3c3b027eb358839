//! Output files that hold the old result or the new one, whole.
//!
//! A file without a name is filled and then takes the destination's name in one step, so a killed
//! program leaves nothing. Where the file system has no files without names, one beside the
//! destination takes its place; a killed program leaves that behind, unlocked, and the next one
//! with the same destination removes it.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, linkat, openat, renameat};
use rustix::io::Errno;

use crate::publish::{absolute, in_folder, open_folder, split, staging_prefix};

/// Where the kernel shows a process's descriptors as links.
const DESCRIPTORS: &str = "/proc/self/fd";
/// Names that are tried for the step between no name and the destination's.
const NAMES_TRIED_MAX: u32 = 1000;

/// A file that becomes the destination, or vanishes.
#[derive(Debug)]
pub struct StagedFile {
    file: Arc<File>,
    /// The file's own name, where it has one.
    name: Option<PathBuf>,
    destination: PathBuf,
    folder: OwnedFd,
}

impl StagedFile {
    /// Makes an empty file for `destination`, in its folder, which must exist. A destination that
    /// is a symbolic link stays one: the file that it leads to is replaced.
    ///
    /// # Errors
    /// What the file system says; or the destination exists and is no regular file.
    pub fn new(destination: &Path) -> io::Result<Self> {
        let destination = match fs::canonicalize(destination) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => absolute(destination)?,
            Err(error) => return Err(error),
        };
        if destination.exists() && !destination.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!(
                    "'{}' exists and is not a regular file; it is not overwritten",
                    destination.display()
                ),
            ));
        }
        let (parent, name) = split(&destination)?;
        let folder = open_folder(parent)?;
        remove_stale(parent, &staging_prefix(name));
        let (file, name) = match nameless(&folder) {
            Some(file) => (file, None),
            None => named(parent, &staging_prefix(name))?,
        };
        // It is new, so nobody else has the lock; some file systems know no locks.
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(Self {
            file: Arc::new(file),
            name,
            destination,
            folder,
        })
    }

    /// The file to fill.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Gives the file the destination's name, and the permissions of what had it before. With
    /// `sync` the file is on the disk before it has the name.
    ///
    /// # Errors
    /// What the file system says; the destination is then as it was.
    pub fn publish(self, sync: bool) -> io::Result<()> {
        let before = fs::metadata(&self.destination);
        let mode = before.map(|before| before.permissions().mode() & 0o777);
        self.replace(mode.ok(), sync)
    }

    /// As [`StagedFile::publish`], with permission bits that are given.
    ///
    /// # Errors
    /// What the file system says; the destination is then as it was.
    pub fn publish_with_mode(self, mode: u32) -> io::Result<()> {
        self.replace(Some(mode), false)
    }

    fn replace(mut self, mode: Option<u32>, sync: bool) -> io::Result<()> {
        let destination = self.destination.clone();
        let failed = |error: io::Error| in_folder(&error, &destination);
        if let Some(mode) = mode {
            self.file
                .set_permissions(Permissions::from_mode(mode))
                .map_err(failed)?;
        }
        if sync {
            self.file.sync_all().map_err(failed)?;
        }
        self.take_name().map_err(failed)?;
        if sync {
            rustix::fs::fsync(&self.folder).map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }

    /// As [`StagedFile::publish`] with the file on the disk, where nothing has the destination's
    /// name yet; the file keeps its permissions.
    ///
    /// # Errors
    /// What the file system says, also that something has the name; it is then as it was.
    pub fn publish_new(self) -> io::Result<()> {
        let destination = self.destination.clone();
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let shown = destination.display();
                io::Error::new(
                    error.kind(),
                    format!("{shown} exists; it is not overwritten"),
                )
            }
            _ => in_folder(&error, &destination),
        };
        self.file.sync_all().map_err(failed)?;
        let (_, target) = split(&destination)?;
        match &self.name {
            None => self.link(target.as_ref()),
            Some(name) => {
                let (_, own) = split(name)?;
                linkat(&self.folder, own, &self.folder, target, AtFlags::empty())
            }
        }
        .map_err(|error| failed(error.into()))?;
        rustix::fs::fsync(&self.folder).map_err(|error| failed(error.into()))?;
        Ok(())
    }

    fn take_name(&mut self) -> io::Result<()> {
        let (_, target) = split(&self.destination)?;
        let target = target.to_owned();
        if self.name.is_none() {
            match self.link(target.as_ref()) {
                Err(Errno::EXIST) => {}
                linked => return Ok(linked?),
            }
            self.name = Some(self.link_beside()?);
        }
        if let Some(name) = &self.name {
            let (_, own) = split(name)?;
            renameat(&self.folder, own, &self.folder, &target)?;
            self.name = None;
        }
        Ok(())
    }

    /// Gives the file a name beside the destination's, which a link cannot take over.
    fn link_beside(&self) -> io::Result<PathBuf> {
        let (parent, target) = split(&self.destination)?;
        for attempt in 0..NAMES_TRIED_MAX {
            let mut name = staging_prefix(target);
            name.push(format!("{}-{attempt}", std::process::id()));
            match self.link(name.as_ref()) {
                Ok(()) => return Ok(parent.join(name)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn link(&self, name: &Path) -> Result<(), Errno> {
        let own = format!("{DESCRIPTORS}/{}", self.file.as_raw_fd());
        linkat(CWD, own, &self.folder, name, AtFlags::SYMLINK_FOLLOW)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // What cannot be removed is removed by the next use of the destination.
            let _ = fs::remove_file(name);
        }
    }
}

/// `None` where the file system has no files without names, or none that could get one later.
fn nameless(folder: &OwnedFd) -> Option<File> {
    if !Path::new(DESCRIPTORS).exists() {
        return None;
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(folder, ".", flags, Mode::from_raw_mode(0o666)).ok()?;
    Some(file.into())
}

fn named(parent: &Path, prefix: &std::ffi::OsStr) -> io::Result<(File, Option<PathBuf>)> {
    let staged = tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(parent)
        .map_err(|error| in_folder(&error, parent))?;
    let (file, path) = staged.keep().map_err(|error| error.error)?;
    Ok((file, Some(path)))
}

/// Removes the files of programs that were killed.
fn remove_stale(parent: &Path, prefix: &std::ffi::OsStr) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let is_staged = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes());
        if !is_staged || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let abandoned = fs::File::open(entry.path())
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if abandoned {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn listing(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_new_file_replaces_the_old_one_whole() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("out");
        for text in ["old", "new"] {
            let staged = StagedFile::new(&out).unwrap();
            staged.file().write_all_at(text.as_bytes(), 0).unwrap();
            assert_ne!(fs::read(&out).ok().as_deref(), Some(text.as_bytes()));
            staged.publish(true).unwrap();
            assert_eq!(fs::read_to_string(&out).unwrap(), text);
        }
        fs::set_permissions(&out, Permissions::from_mode(0o640)).unwrap();
        StagedFile::new(&out).unwrap().publish(false).unwrap();
        let mode = fs::metadata(&out).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        drop(StagedFile::new(&out).unwrap());
        drop(StagedFile::new(&home.path().join("other")).unwrap());
        assert_eq!(listing(home.path()), ["out"]);
    }

    #[test]
    fn a_new_file_replaces_nothing() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("out");
        for is_named in [false, true] {
            let staged = || {
                let mut staged = StagedFile::new(&out).unwrap();
                if is_named {
                    let (file, name) = named(home.path(), &staging_prefix("out".as_ref())).unwrap();
                    flock(&file, FlockOperation::LockExclusive).unwrap();
                    (staged.file, staged.name) = (Arc::new(file), name);
                }
                staged
            };
            let (first, second) = (staged(), staged());
            first.file().write_all_at(b"first", 0).unwrap();
            first.publish_new().unwrap();
            let error = second.publish_new().unwrap_err();
            assert!(error.to_string().contains("not overwritten"), "{error}");
            assert_eq!(fs::read_to_string(&out).unwrap(), "first");
            assert_eq!(listing(home.path()), ["out"]);
            fs::remove_file(&out).unwrap();
        }
    }

    #[test]
    fn a_file_with_a_name_of_its_own_does_as_well() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("out");
        let prefix = staging_prefix("out".as_ref());
        for publish in [false, true] {
            let mut staged = StagedFile::new(&out).unwrap();
            let (file, name) = named(home.path(), &prefix).unwrap();
            (staged.file, staged.name) = (Arc::new(file), name);
            assert_eq!(listing(home.path()).len(), 1);
            if publish {
                staged.publish(true).unwrap();
            }
        }
        assert_eq!(listing(home.path()), ["out"]);
    }

    #[test]
    fn what_killed_programs_left_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("out");
        fs::write(home.path().join(".out.coop-new-killed"), "").unwrap();
        let alive = fs::File::create(home.path().join(".out.coop-new-alive")).unwrap();
        flock(&alive, FlockOperation::LockExclusive).unwrap();
        StagedFile::new(&out).unwrap().publish(false).unwrap();
        assert_eq!(listing(home.path()), [".out.coop-new-alive", "out"]);
    }

    #[test]
    fn links_lead_to_the_file_and_other_things_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let (out, link) = (home.path().join("out"), home.path().join("link"));
        fs::write(&out, "old").unwrap();
        std::os::unix::fs::symlink("out", &link).unwrap();
        StagedFile::new(&link).unwrap().publish(false).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&out).unwrap(), "");
        let error = StagedFile::new(home.path()).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
        assert!(StagedFile::new(&home.path().join("no/out")).is_err());
    }
}
