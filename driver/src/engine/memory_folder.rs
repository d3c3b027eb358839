//! Where the guest's memory lies.
//!
//! A User-Mode-Linux kernel keeps the guest's memory in an unlinked file and maps it executable.
//! A folder mounted `noexec`, or one too small, makes it die without a word; so the folder is
//! tried before.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, statvfs};

/// Bytes of the file with which a folder is tried.
const TRIAL_BYTES: usize = 4096;

/// A folder that cannot hold the guest's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFolder {
    /// The folder.
    pub folder: PathBuf,
    /// Why not.
    pub reason: String,
}

/// No folder can hold the guest's memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place for {} MiB of guest memory: {}", bytes >> 20, list(tried))]
pub struct MemoryFolderError {
    /// Bytes that were looked for.
    pub bytes: u64,
    /// What was tried, in order.
    pub tried: Vec<RefusedFolder>,
}

fn list(tried: &[RefusedFolder]) -> String {
    if tried.is_empty() {
        return "no folder was given".to_owned();
    }
    let each = tried
        .iter()
        .map(|one| format!("{} {}", one.folder.display(), one.reason));
    each.collect::<Vec<_>>().join("; ")
}

/// The first folder in which a file may be made, has room for `bytes`, and may be mapped
/// executable.
///
/// # Errors
/// There is none; the error names each with its reason.
pub fn choose_memory_folder(
    candidates: &[PathBuf],
    bytes: u64,
) -> Result<PathBuf, MemoryFolderError> {
    let mut tried = Vec::new();
    for folder in candidates {
        match check(folder, bytes) {
            Ok(()) => return Ok(folder.clone()),
            Err(reason) => tried.push(RefusedFolder {
                folder: folder.clone(),
                reason,
            }),
        }
    }
    Err(MemoryFolderError { bytes, tried })
}

fn check(folder: &Path, bytes: u64) -> Result<(), String> {
    if !folder.is_absolute() {
        return Err("is not an absolute path".to_owned());
    }
    let mut file =
        tempfile::tempfile_in(folder).map_err(|error| format!("takes no file ({error})"))?;
    file.write_all(&[0; TRIAL_BYTES])
        .map_err(|error| format!("takes no data ({error})"))?;
    coop_driver_sys::map::try_executable(file.as_fd(), TRIAL_BYTES).map_err(|error| {
        format!("is mounted noexec: a file there may not be mapped executable ({error})")
    })?;
    let space =
        statvfs(folder).map_err(|error| format!("does not tell its free space ({error})"))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free < bytes {
        return Err(format!("has only {} MiB free", free >> 20));
    }
    Ok(())
}

/// What the names of private folders begin with.
const PREFIX: &str = "coop-";
/// How often a private folder is made anew that a neighbour took for a stale one.
const ATTEMPTS_MAX: u32 = 8;

/// A folder for one guest's memory. It is empty all the time, for the memory has no name.
///
/// Its lock says that it is in use: one that a killed program left behind is removed by the next.
#[derive(Debug)]
pub(super) struct PrivateFolder {
    path: PathBuf,
    _lock: File,
}

fn lock(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder)
}

impl PrivateFolder {
    /// Makes a folder beneath `parent`, after removing what others left there.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        for _ in 0..ATTEMPTS_MAX {
            let path = tempfile::Builder::new()
                .prefix(PREFIX)
                .tempdir_in(parent)?
                .keep();
            // A neighbour may have looked between the two lines, and removed it.
            if let Ok(lock) = lock(&path)
                && path.exists()
            {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // An empty folder that stays behind harms nobody, and the next guest removes it.
        let _ = fs_err::remove_dir(&self.path);
    }
}

/// Removes empty folders that nobody holds locked; whatever cannot be looked at is left alone.
fn sweep(parent: &Path) {
    let Ok(entries) = fs_err::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let named = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX));
        if named && let Ok(_held) = lock(&entry.path()) {
            let _ = fs_err::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_good_folder_is_taken_and_the_others_are_explained() {
        let good = tempfile::tempdir().unwrap();
        let missing = good.path().join("missing");
        let candidates = [
            missing.clone(),
            PathBuf::from("relative"),
            good.path().to_owned(),
        ];
        assert_eq!(
            choose_memory_folder(&candidates, 1 << 20).unwrap(),
            good.path()
        );
        let error = choose_memory_folder(&candidates, u64::MAX).unwrap_err();
        assert_eq!(error.tried.len(), 3);
        let text = error.to_string();
        assert!(text.contains("missing takes no file"), "{text}");
        assert!(text.contains("relative is not an absolute path"), "{text}");
        assert!(text.contains("MiB free"), "{text}");
        assert!(
            choose_memory_folder(&[], 1)
                .unwrap_err()
                .to_string()
                .contains("no folder was given")
        );
    }

    #[test]
    fn what_a_killed_program_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = parent.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (stale, full, foreign) = (make("coop-stale"), make("coop-full"), make("other"));
        std::fs::write(full.join("file"), "kept").unwrap();
        let first = PrivateFolder::new(parent.path()).unwrap();
        let second = PrivateFolder::new(parent.path()).unwrap();
        assert!(first.path().exists() && full.exists() && foreign.exists() && !stale.exists());
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists());
    }
}
