//! A process's folder for temporary files, and the removal of what dead processes left.
//!
//! A folder is locked and has its sign of life in it before it gets the name under which others
//! look at it, so that nobody takes a new one for a dead one. A dead one first loses its name, which
//! is quick, and is removed on the side: nobody waits until the disk images of a killed build are
//! gone.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};

use super::life::{self, LOCK_NAME, Sign};
use super::removal;

/// Begins the name of a folder that is not ready yet.
const NEW: &str = ".new-";
/// Begins the name of a folder whose process is ready.
const OWN: &str = "p-";
/// Begins the name of a folder whose process is dead.
const DEAD: &str = "dead-";

/// A process's folder for temporary files. It vanishes when dropped.
#[derive(Debug)]
pub(super) struct Session {
    folder: PathBuf,
    /// Holds the lock; the kernel drops it with the process, however that ends.
    _lock: File,
}

impl Session {
    /// Makes a folder in `temp`, and has dead ones removed.
    pub(super) fn new(temp: &Path) -> io::Result<Self> {
        fs::create_dir_all(temp)?;
        let new = tempfile::Builder::new().prefix(NEW).tempdir_in(temp)?;
        let path = new.path().join(LOCK_NAME);
        fs::write(&path, Sign::own().text())?;
        let mut options = fs::OpenOptions::new();
        let lock = options.write(true).open(&path)?.into_parts().0;
        // Where there are no locks, the sign of life stands alone.
        let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        let name = new.path().file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        let name = name.strip_prefix(NEW).unwrap_or(&name);
        let folder = temp.join(format!("{OWN}{name}"));
        fs::rename(new.path(), &folder)?;
        // The folder has another name now, so nothing is removed here.
        drop(new);
        let observer = life::Observer::new(&folder.join(LOCK_NAME))?;
        let session = Self {
            folder,
            _lock: lock,
        };
        reap(temp, &session.folder, &observer);
        Ok(session)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = removal::remove(&self.folder);
    }
}

/// Takes the names of dead processes' folders away and has them removed by a thread of its own. Of
/// what cannot be removed (another user's) nobody is told: it harms nobody.
fn reap(temp: &Path, own: &Path, observer: &life::Observer) {
    let mut dead = Vec::new();
    for entry in fs::read_dir(temp).into_iter().flatten().flatten() {
        let path = entry.path();
        if path == own || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(DEAD) {
            dead.push(path);
            continue;
        }
        let is_dead = match name.starts_with(NEW) {
            true => observer.is_forgotten(&path),
            false => observer.is_dead(&path.join(LOCK_NAME)),
        };
        let aside = temp.join(format!("{DEAD}{name}"));
        if is_dead && fs::rename(&path, &aside).is_ok() {
            dead.push(aside);
        }
    }
    if !dead.is_empty() {
        let remove = move || {
            for folder in dead {
                let _ = removal::remove(&folder);
            }
        };
        // If the process ends before that, the next one goes on.
        let _ = std::thread::Builder::new()
            .name("coop-remove".into())
            .spawn(remove);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn left(temp: &Path) -> usize {
        fs::read_dir(temp).unwrap().count()
    }

    /// Removing runs on the side.
    fn eventually(holds: impl Fn() -> bool) -> bool {
        (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            holds()
        })
    }

    fn dead_folder(temp: &Path, name: &str, sign: &str) -> PathBuf {
        let folder = temp.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("half"), "half").unwrap();
        fs::write(folder.join(LOCK_NAME), sign).unwrap();
        folder
    }

    #[test]
    fn a_dead_process_is_cleaned_up_after_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let kept = store.temp_file().unwrap();
        let temp = store.root().join("temp");
        // As an earlier coop made it, as this one does, and half removed already.
        let old = dead_folder(&temp, ".tmpold", "");
        let gone = Sign {
            process: "1 1".to_owned(),
            ..Sign::own()
        };
        let dead = dead_folder(&temp, "p-dead", &gone.text());
        let half = dead_folder(&temp, "dead-half", "");
        // A process of another machine, of which only time can tell.
        let other = Sign {
            boot: "other".to_owned(),
            host: "other".to_owned(),
            ..gone
        };
        let foreign = dead_folder(&temp, "p-foreign", &other.text());
        let unready = temp.join(".new-unready");
        fs::create_dir(&unready).unwrap();
        let second = Store::open(folder.path()).unwrap();
        let there = second.temp_folder().unwrap();
        assert!(!old.exists() && !dead.exists());
        assert!(eventually(|| !half.exists() && left(&temp) == 4));
        assert!(kept.path().exists() && there.path().exists());
        assert!(foreign.exists() && unready.exists());
        drop((there, second));
        assert_eq!(left(&temp), 3);
        drop((kept, store));
        assert_eq!(left(&temp), 2);
    }
}
