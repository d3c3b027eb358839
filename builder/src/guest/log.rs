//! What steps write, kept in a file of the host.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs_err as fs;

/// The largest log, in bytes; what comes then is left out.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// The log of one build. It replaces the one before when its first step begins.
#[derive(Debug)]
pub struct StepLog {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<std::fs::File>,
    bytes: u64,
    /// It cannot be written, which is no reason to stop a build.
    failed: bool,
}

impl StepLog {
    /// A log that nothing was written to yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            state: Mutex::default(),
        }
    }

    /// Where it is, if a step has begun and it could be written.
    #[must_use]
    pub fn written(&self) -> Option<&Path> {
        let state = self.lock();
        (state.file.is_some() && !state.failed).then_some(&*self.path)
    }

    /// Begins a step.
    pub(super) fn begin(&self, step: &str) {
        let mut state = self.lock();
        if state.file.is_none() && !state.failed {
            match create(&self.path) {
                Ok(file) => state.file = Some(file),
                Err(_) => state.failed = true,
            }
        }
        state.put(&format!("== {step}"));
    }

    /// Adds a line.
    pub(super) fn line(&self, line: &str) {
        self.lock().put(line);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, line: &str) {
        let length = u64::try_from(line.len())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let Some(file) = &mut self.file else {
            return;
        };
        if self.failed || self.bytes > LOG_BYTES_MAX {
            return;
        }
        self.bytes = self.bytes.saturating_add(length);
        let written = if self.bytes > LOG_BYTES_MAX {
            writeln!(
                file,
                "== the log has {LOG_BYTES_MAX} bytes, its limit: the rest is left out"
            )
        } else {
            file.write_all(format!("{line}\n").as_bytes())
        };
        self.failed |= written.is_err();
    }
}

/// A new file, which others cannot read: whoever follows the old one keeps it.
fn create(path: &Path) -> std::io::Result<std::fs::File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::File::options();
    options.write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_new_bounded_and_optional() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log/a.log");
        let log = StepLog::new(path.clone());
        log.line("before any step");
        assert!(log.written().is_none() && !path.exists());
        log.begin("one");
        log.line("a");
        assert_eq!(fs::read_to_string(&path).unwrap(), "== one\na\n");
        let long = "x".repeat(1 << 20);
        for _ in 0..70 {
            log.line(&long);
        }
        let size = fs::metadata(&path).unwrap().len();
        assert!(size <= LOG_BYTES_MAX + 200, "{size}");
        let second = StepLog::new(path.clone());
        second.begin("two");
        assert_eq!(second.written(), Some(&*path));
        assert_eq!(fs::read_to_string(&path).unwrap(), "== two\n");
        let nowhere = StepLog::new(path.join("below/a/file"));
        nowhere.begin("x");
        assert!(nowhere.written().is_none());
    }
}
