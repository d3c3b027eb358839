//! Files that a command finds and nobody else keeps: they lie in memory, and go with the command.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use coop_guest::message::{TransientFile, User};
use rustix::fs::{Mode, fchmod, fchown};
use rustix::process::{Gid, Uid};

use crate::failure::{Doing, Failure};

/// Where such files may lie: a file system in memory.
const FOLDER: &str = "/run";

/// The files of one command; they are removed when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Files(Vec<PathBuf>);

impl Files {
    /// Writes files that belong to a user, or to root.
    pub(crate) fn write(files: &[TransientFile], user: Option<&User>) -> Result<Self, Failure> {
        let mut written = Self::default();
        for file in files {
            let path = Path::new(std::ffi::OsStr::from_bytes(&file.path));
            let plain = path
                .components()
                .skip(1)
                .all(|part| matches!(part, Component::Normal(_)));
            if !path.starts_with(FOLDER) || !plain {
                let path = path.display();
                return Err(Failure::new(format!(
                    "{path} is not a plain path below {FOLDER}"
                )));
            }
            written.add(path, file, user)?;
        }
        Ok(written)
    }

    fn add(
        &mut self,
        path: &Path,
        file: &TransientFile,
        user: Option<&User>,
    ) -> Result<(), Failure> {
        let what = || format!("write {}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).doing(what)?;
        }
        // What an earlier command left there, link or not, is not written through.
        let _ = fs::remove_file(path);
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(0o400).open(path);
        let mut opened = opened.doing(what)?;
        self.0.push(path.to_owned());
        opened.write_all(&file.content).doing(what)?;
        if let Some(user) = user {
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            fchown(opened.as_fd(), Some(uid), Some(gid)).doing(what)?;
        }
        fchmod(opened.as_fd(), Mode::from_bits_truncate(file.mode.into())).doing(what)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}
