//! Where the guest's memory lies.
//!
//! A User-Mode-Linux kernel keeps the guest's memory in an unlinked file and maps it executable.
//! A folder mounted `noexec`, or one too small, makes it die without a word; so the folder is
//! tried before.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

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
}
