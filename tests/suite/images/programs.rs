//! e2fsprogs: the installed one, and the one that `COOP_TEST_E2FSPROGS` names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use coop_image::ext4::Summary;

use super::facts::Snapshot;
use super::generate::FUTURE;
use super::{required, skip};

/// The end of what e2fsck says of an inode with a time in [`FUTURE`].
const FUTURE_COMPLAINT: &str = "beyond 2310-04-04 are likely pre-1970.";

/// How many inodes have a time in [`FUTURE`].
pub fn future_inodes(expected: &Snapshot) -> usize {
    let inodes = expected
        .iter()
        .filter(|(path, facts)| facts.first.as_ref() == Some(*path));
    inodes
        .filter(|(_, facts)| facts.times().any(|time| FUTURE.contains(&time.seconds)))
        .count()
}

/// One version of e2fsprogs.
#[derive(Clone, Debug)]
pub struct Programs {
    pub version: String,
    folder: PathBuf,
    libraries: Option<OsString>,
}

impl Programs {
    /// Both versions, as far as they are there.
    pub fn all() -> Vec<Self> {
        let mut found = Vec::new();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let installed = std::env::split_paths(&path)
            .chain(system)
            .find(|folder| folder.join("e2fsck").is_file());
        match installed {
            Some(folder) => found.extend(Self::new(folder, None)),
            None => missing("e2fsck is not installed"),
        }
        match std::env::var_os("COOP_TEST_E2FSPROGS") {
            Some(root) => {
                let root = PathBuf::from(root);
                let libraries = ["lib", "usr/lib"]
                    .into_iter()
                    .flat_map(|folder| fs_err::read_dir(root.join(folder)).into_iter().flatten())
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|path| path.is_dir());
                let libraries = std::env::join_paths(libraries).unwrap();
                found.extend(Self::new(root.join("sbin"), Some(libraries)));
            }
            None => missing("COOP_TEST_E2FSPROGS does not name a newer e2fsprogs"),
        }
        found
    }

    fn new(folder: PathBuf, libraries: Option<OsString>) -> Option<Self> {
        let mut programs = Self {
            version: String::new(),
            folder,
            libraries,
        };
        let output = programs.command("e2fsck").arg("-V").output();
        let Ok(output) = output else {
            missing(&format!("no e2fsck in {}", programs.folder.display()));
            return None;
        };
        let text = String::from_utf8_lossy(&output.stderr);
        let version = text.split_whitespace().nth(1);
        programs.version = version.unwrap_or_default().into();
        Some(programs)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        command.env("LC_ALL", "C.UTF-8");
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// Checks an image; whatever is said beyond the passes and the counts is a complaint. The
    /// counts are compared with those of the writer. `future` inodes have times in
    /// [`FUTURE`], of which it has to complain.
    pub fn check(
        &self,
        path: &Path,
        summary: Option<&Summary>,
        future: usize,
    ) -> Result<(), String> {
        let output = self.command("e2fsck").arg("-fn").arg(path).output();
        let output = output.map_err(|error| format!("e2fsck: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let failed = |what: &str| Err(format!("e2fsck {}: {what}\n{text}{errors}", self.version));
        if !output.status.success() {
            return failed(&output.status.to_string());
        }
        let version_line = |line: &&str| line.starts_with("e2fsck ") && line.ends_with(')');
        let said = errors.lines().filter(|line| !version_line(line)).count();
        let is_future = |line: &&&str| line.ends_with(FUTURE_COMPLAINT);
        let is_noise = |line: &str| {
            line.is_empty() || line.starts_with("Pass ") || line == "Fix? no" || is_future(&&line)
        };
        let complaints = text.lines().filter(|line| is_future(&line)).count();
        if complaints != future {
            return failed(&format!(
                "{complaints} complaints of the future, not {future}"
            ));
        }
        let lines: Vec<&str> = match future {
            0 => text
                .lines()
                .filter(|line| !line.starts_with("Pass "))
                .collect(),
            _ => text.lines().filter(|line| !is_noise(line)).collect(),
        };
        let [counts] = lines[..] else {
            return failed("complaints");
        };
        if said > 0 {
            return failed("complaints");
        }
        match summary {
            Some(summary) if !counts.ends_with(&blocks_line(summary)) => {
                failed(&format!("other counts than {}", blocks_line(summary)))
            }
            Some(summary) if !counts.contains(&inodes_line(summary)) => {
                failed(&format!("other counts than {}", inodes_line(summary)))
            }
            _ => Ok(()),
        }
    }

    /// Copies everything out that debugfs can copy.
    pub fn dump(&self, path: &Path, to: &Path) -> Result<(), String> {
        let output = self
            .command("debugfs")
            .arg("-R")
            .arg(format!("rdump / {}", to.display()))
            .arg(path)
            .output();
        let output = output.map_err(|error| format!("debugfs: {error}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let odd: Vec<&str> = errors.lines().skip(1).collect();
        if output.status.success() && odd.is_empty() {
            return Ok(());
        }
        Err(format!("debugfs {}: {}", self.version, odd.join("\n")))
    }
}

fn blocks_line(summary: &Summary) -> String {
    let used = summary.blocks - summary.blocks_free;
    format!(", {used}/{} blocks", summary.blocks)
}

fn inodes_line(summary: &Summary) -> String {
    let used = summary.inodes - summary.inodes_free;
    format!(": {used}/{} files (", summary.inodes)
}

fn missing(reason: &str) {
    assert!(!required(), "{reason}");
    skip(reason);
}
