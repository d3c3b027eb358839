//! A running machine's private folder, and those that a crash left behind.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};

/// The file in the folder of all instances that orders their coming and going.
const GATE: &str = "gate";
/// The file in an instance's folder that its machine holds locked while it lives.
const LOCK: &str = "lock";
/// What the names of instances begin with.
const PREFIX: &str = "m";
/// Names that are tried before it is given up.
const NAMES_MAX: u32 = 10_000;

/// Instances made by this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A private folder, mode 0700. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Instance {
    folder: PathBuf,
    parent: PathBuf,
    _lock: File,
}

impl Instance {
    /// Makes a folder in `parent`, which is made too, and removes those of machines that died
    /// without doing so.
    pub(crate) fn create(parent: &Path) -> std::io::Result<Self> {
        // Nobody looks for dead instances between a folder's making and its locking.
        let _gate = enter_private(parent)?;
        remove_dead(parent);
        for _ in 0..NAMES_MAX {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let folder = parent.join(format!("{PREFIX}{:x}.{number:x}", std::process::id()));
            let lock = match create_held(&folder) {
                Ok(lock) => lock,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            };
            return Ok(Self {
                folder,
                parent: parent.to_owned(),
                _lock: lock,
            });
        }
        Err(std::io::Error::other(format!(
            "{} has no free name for a machine",
            parent.display()
        )))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // What cannot be removed now, the next machine's start removes.
        let _gate = enter(&self.parent);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The folders of machines that live, by name: those whose locks are held.
///
/// # Errors
/// The folder of all instances is not this user's alone, or cannot be read.
pub fn living_machines(parent: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !parent.exists() {
        return Ok(Vec::new());
    }
    check_private(parent)?;
    let living = machines_in(parent)?.filter(|folder| is_held(folder));
    let mut living: Vec<PathBuf> = living.collect();
    living.sort();
    Ok(living)
}

/// The folders with names of machines, in no order.
pub(crate) fn machines_in(parent: &Path) -> std::io::Result<impl Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(parent)?.flatten();
    Ok(entries.filter_map(|entry| {
        let name = entry.file_name();
        let is_machine = name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
        is_machine.then(|| entry.path())
    }))
}

/// Makes a machine's private folder, and holds the lock in it.
pub(crate) fn create_held(folder: &Path) -> std::io::Result<File> {
    std::fs::DirBuilder::new().mode(0o700).create(folder)?;
    let lock = fs::File::create(folder.join(LOCK))?.into_parts().0;
    // Whoever looks whether it is held has it for a moment.
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

/// Whether a machine holds the lock in its folder. One that cannot be asked does.
pub(crate) fn is_held(folder: &Path) -> bool {
    match fs::File::open(folder.join(LOCK)) {
        Ok(lock) => {
            let (lock, _) = lock.into_parts();
            flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
        }
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Somebody else's folder would let them put their own sockets in the way.
pub(crate) fn check_private(parent: &Path) -> std::io::Result<()> {
    let metadata = fs::symlink_metadata(parent)?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    if metadata.is_dir() && own && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(std::io::Error::new(
        std::io::ErrorKind::PermissionDenied,
        format!("{} is not a folder of this user alone", parent.display()),
    ))
}

/// Makes a folder that is this user's alone where there is none, and waits for the turn in it.
pub(crate) fn enter_private(parent: &Path) -> std::io::Result<File> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(parent).map_err(|error| {
        std::io::Error::new(
            error.kind(),
            format!("cannot make {}: {error}", parent.display()),
        )
    })?;
    check_private(parent)?;
    enter(parent)
}

/// Waits for the turn to make or remove instances; it ends when the file is dropped.
fn enter(parent: &Path) -> std::io::Result<File> {
    let gate = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(parent.join(GATE))?
        .into_parts()
        .0;
    flock(&gate, FlockOperation::LockExclusive)?;
    Ok(gate)
}

/// Removes the folders whose machines are dead: the kernel has released their locks.
fn remove_dead(parent: &Path) {
    let Ok(folders) = machines_in(parent) else {
        return;
    };
    for dead in folders.filter(|folder| !is_held(folder)) {
        let _ = fs::remove_dir_all(dead);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_private_apart_and_gone_afterwards() {
        let parent = tempfile::tempdir().unwrap();
        let parent = parent.path().join("deep/er");
        let first = Instance::create(&parent).unwrap();
        let second = Instance::create(&parent).unwrap();
        assert_ne!(first.folder(), second.folder());
        let mode = fs::metadata(first.folder()).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700);
        let gone = first.folder().to_owned();
        drop(first);
        assert!(!gone.exists() && second.folder().exists());
        assert_eq!(living_machines(&parent).unwrap(), [second.folder()]);
    }

    #[test]
    fn what_a_crash_left_is_removed_and_what_lives_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        let living = Instance::create(parent.path()).unwrap();
        for dead in ["m1.0", "m2.0"] {
            fs::create_dir(parent.path().join(dead)).unwrap();
        }
        fs::write(parent.path().join("m1.0/lock"), "").unwrap();
        fs::write(parent.path().join("m1.0/s"), "").unwrap();
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();
        let next = Instance::create(parent.path()).unwrap();
        assert!(!parent.path().join("m1.0").exists());
        assert!(!parent.path().join("m2.0").exists());
        assert!(living.folder().exists() && next.folder().exists() && other.exists());
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(parent.path(), open).unwrap();
        let error = Instance::create(parent.path()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    }
}
