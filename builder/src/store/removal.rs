//! Removing large folders.
//!
//! An unpacked kernel has sixty thousand files, and whoever waits for coop waits for their removal
//! too. Files of different folders are removed side by side.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use fs_err as fs;
use tempfile::TempDir;

/// Threads that remove; the journal takes no more side by side.
const THREADS: usize = 4;
/// How deep the folders are that are handed out: `drivers` alone has half of a kernel's files.
const HANDED_OUT_DEPTH: usize = 3;

/// A temporary folder that is removed, however large it is, when dropped.
#[derive(Debug)]
pub struct TempFolder(TempDir);

impl TempFolder {
    /// A new, empty folder in another.
    pub(super) fn new_in(parent: &Path) -> io::Result<Self> {
        Ok(Self(TempDir::new_in(parent)?))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        remove_side_by_side(self.path());
    }
}

/// Removes a folder and all that is in it. Links are removed, not followed.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    remove_side_by_side(folder);
    fs::remove_dir_all(folder)
}

/// Removes most of what is in a folder; what resists is for others to tell of.
fn remove_side_by_side(folder: &Path) {
    let folders = Mutex::new(folders_below(folder));
    let next = || folders.lock().ok()?.pop_front();
    std::thread::scope(|scope| {
        let work = || {
            while let Some(folder) = next() {
                let _ = fs::remove_dir_all(folder);
            }
        };
        for _ in 1..THREADS {
            // Where there is no thread to be had, the others do it.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

/// The folders at the depth where the work is divided.
fn folders_below(folder: &Path) -> VecDeque<PathBuf> {
    let mut level = vec![folder.to_owned()];
    for _ in 0..HANDED_OUT_DEPTH {
        let entries = level.iter().filter_map(|folder| fs::read_dir(folder).ok());
        level = entries
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
    }
    level.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree that is deeper than what is handed out, with a link to a folder that must stay.
    fn tree(folder: &Path, outside: &Path) {
        for path in ["a/b/c/d", "a/b/e", "f", "g/h/i/j/k"] {
            fs::create_dir_all(folder.join(path)).unwrap();
            fs::write(folder.join(path).join("file"), "x").unwrap();
        }
        for path in ["link", "a/b/link", "g/h/i/link"] {
            fs::os::unix::fs::symlink(outside, folder.join(path)).unwrap();
        }
    }

    #[test]
    fn all_goes_and_links_are_not_followed() {
        let place = TempDir::new().unwrap();
        let outside = place.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        let inside = place.path().join("inside");
        tree(&inside, &outside);
        remove(&inside).unwrap();
        assert!(!inside.exists());
        let folder = TempFolder::new_in(place.path()).unwrap();
        let path = folder.path().to_owned();
        tree(&path, &outside);
        drop(folder);
        assert!(!path.exists());
        assert!(outside.join("kept").exists());
        assert!(remove(&path).is_err());
    }
}
