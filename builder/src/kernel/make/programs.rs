//! The host's programs: where they are, and running one behind walls.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use coop_runtime::tool::{self, ToolEnd, ToolError, ToolOptions};
use fs_err as fs;

/// The most that a program may say when it is only asked something, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The largest file that a build may write, in bytes: a kernel with all debug information has one.
const FILE_BYTES_MAX: u64 = 8 << 30;

/// The folders in which programs are looked for, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    folders: Vec<PathBuf>,
}

impl Programs {
    /// Takes those of the folders that belong to the host's system. A person's own folders are
    /// left out: the walls keep what is in them from running.
    #[must_use]
    pub fn of_system(folders: &[PathBuf]) -> Self {
        let mut taken = Vec::new();
        for folder in folders {
            // A folder may be there under two names, as /bin and /usr/bin.
            let Ok(real) = fs::canonicalize(folder) else {
                continue;
            };
            if tool::is_system(&real) && !taken.contains(&real) {
                taken.push(real);
            }
        }
        Self { folders: taken }
    }

    /// Takes these folders, whatever they are.
    #[cfg(test)]
    pub(super) fn exactly(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    /// Where a program is, links followed.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        self.folders.iter().find_map(|folder| {
            let path = folder.join(name);
            let metadata = fs::metadata(&path).ok()?;
            let is_program = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
            is_program.then_some(path)
        })
    }

    /// The value of `PATH`.
    pub(super) fn path_variable(&self) -> OsString {
        let mut text = OsString::new();
        for (index, folder) in self.folders.iter().enumerate() {
            if index > 0 {
                text.push(":");
            }
            text.push(folder);
        }
        text
    }

    /// What a program may do, and the least that its environment has.
    pub(super) fn options(&self, program: &Path, folder: &Path) -> ToolOptions {
        let variable = |key: &str, value: &str| (OsString::from(key), OsString::from(value));
        ToolOptions {
            program: program.to_owned(),
            arguments: Vec::new(),
            environment: vec![
                ("PATH".into(), self.path_variable()),
                variable("LC_ALL", "C"),
                variable("TZ", "UTC"),
            ],
            folder: folder.to_owned(),
            readable: self.folders.clone(),
            writable: Vec::new(),
            file_bytes_max: FILE_BYTES_MAX,
        }
    }

    /// What a program says to some arguments, where it ends well.
    pub(super) fn ask(
        &self,
        program: &str,
        arguments: &[&str],
    ) -> Result<Option<String>, ToolError> {
        let Some(path) = self.find(program) else {
            return Ok(None);
        };
        let options = ToolOptions {
            arguments: arguments.iter().map(OsString::from).collect(),
            ..self.options(&path, Path::new("/"))
        };
        let mut answer = Vec::new();
        let end = tool::run(
            &options,
            &mut |bytes| {
                let room = ANSWER_BYTES_MAX.saturating_sub(answer.len());
                answer.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
                Ok(())
            },
            &|| false,
        )?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        Ok((end == ToolEnd::Exited(0)).then_some(text))
    }
}
