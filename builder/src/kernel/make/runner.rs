//! Running make behind walls, in a folder of its own.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coop_runtime::event::Observer;
use coop_runtime::tool::{self, ToolEnd, ToolOptions};
use fs_err as fs;

use super::log::Log;
use super::{MakeError, Programs};
use crate::calendar::Moment;
use crate::kernel::Target;

/// Who built it and where, as the kernel's banner has it: the same wherever it was.
const BUILDER: &str = "coop";
/// How often a caller that waits for something looks around.
pub(super) const WAIT_INTERVAL: Duration = Duration::from_millis(100);

/// Folders of one build. Only `source` may be anywhere; the others are in one temporary folder.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    /// The unpacked source; nothing is written there.
    pub(super) source: PathBuf,
    /// What make makes.
    pub(super) build: PathBuf,
    /// Where modules are installed.
    pub(super) install: PathBuf,
    /// Home and temporary files.
    home: PathBuf,
}

impl Folders {
    /// Makes the folders in `temporary`, which is empty but for, perhaps, the source.
    pub(super) fn new(source: &Path, temporary: &Path) -> io::Result<Self> {
        let folders = Self {
            source: fs::canonicalize(source)?,
            build: temporary.join("build"),
            install: temporary.join("install"),
            home: temporary.join("home"),
        };
        for folder in [&folders.build, &folders.install, &folders.home] {
            fs::create_dir_all(folder)?;
        }
        Ok(folders)
    }
}

/// What all runs of one build share.
pub(super) struct Runner<'a> {
    pub(super) programs: &'a Programs,
    pub(super) folders: Folders,
    pub(super) target: Target,
    /// The time that stands in the kernel, in seconds since 1970.
    pub(super) epoch_seconds: i64,
    pub(super) observer: &'a dyn Observer,
    pub(super) log: Log,
}

/// The kernel's word for a target.
pub(super) fn architecture(target: Target) -> &'static str {
    match target {
        Target::Um => "um",
        Target::X86_64 => "x86_64",
    }
}

/// The variables of a kernel's build that the same source gives the same bytes with. The folders'
/// paths are taken out of everything that the compiler writes.
pub(super) fn variables(
    target: Target,
    epoch_seconds: i64,
    source: &Path,
    build: &Path,
) -> Vec<(OsString, OsString)> {
    let map = |folder: &Path| {
        let mut flag = OsString::from("-ffile-prefix-map=");
        flag.push(folder);
        flag.push("=.");
        flag
    };
    let mut flags = map(build);
    flags.push(" ");
    flags.push(map(source));
    let epoch = epoch_seconds.max(0).to_string();
    let text: [(&str, &str); 9] = [
        ("ARCH", architecture(target)),
        ("SUBARCH", "x86"),
        ("KBUILD_BUILD_USER", BUILDER),
        ("KBUILD_BUILD_HOST", BUILDER),
        ("KBUILD_BUILD_VERSION", "1"),
        ("KBUILD_BUILD_TIMESTAMP", &date(epoch_seconds.max(0))),
        ("SOURCE_DATE_EPOCH", &epoch),
        ("KCONFIG_NOTIMESTAMP", "1"),
        // modules_install would run depmod, whose files coop writes itself.
        ("DEPMOD", "true"),
    ];
    let text = text.iter().map(|(key, value)| (key.into(), value.into()));
    text.chain([("KCFLAGS".into(), flags.clone()), ("KAFLAGS".into(), flags)])
        .collect()
}

/// A time as people and date(1) read it: `2026-11-01 12:00:00 UTC`.
fn date(seconds: i64) -> String {
    let Moment {
        year,
        month,
        day,
        hour,
        minute,
        second,
    } = Moment::of(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

impl Runner<'_> {
    /// Runs make for some targets; `each_line` sees what it says.
    ///
    /// # Errors
    /// [`MakeError::Failed`] with `doing` in it, [`MakeError::Cancelled`], or the host's failure.
    pub(super) fn make(
        &mut self,
        doing: &'static str,
        arguments: &[&OsStr],
        each_line: &mut dyn FnMut(&str),
    ) -> Result<(), MakeError> {
        let options = self.options(arguments)?;
        let words: Vec<String> = arguments
            .iter()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect();
        let log = &mut self.log;
        log.begin(&format!("make {}", words.join(" ")))?;
        let observer = self.observer;
        let end = tool::run(&options, &mut |bytes| log.take(bytes, each_line), &|| {
            observer.is_cancelled()
        })?;
        log.end(each_line);
        let how = match end {
            ToolEnd::Exited(0) => return Ok(()),
            ToolEnd::Cancelled => return Err(MakeError::Cancelled),
            ToolEnd::Exited(code) => format!("make exited with {code}"),
            ToolEnd::Signalled(signal) => format!("make was killed by signal {signal}"),
        };
        Err(MakeError::Failed {
            doing,
            how,
            lines: self.log.reason(),
            log: self.log.path().to_owned(),
        })
    }

    /// Runs make for a goal that a person sees on a terminal and answers. Nothing of it is logged.
    ///
    /// # Errors
    /// As [`Runner::make`].
    pub(super) fn make_on_terminal(
        &mut self,
        doing: &'static str,
        goal: &str,
        variables: [(OsString, OsString); 1],
        terminal: &impl AsFd,
    ) -> Result<(), MakeError> {
        let mut options = self.options(&[goal.as_ref()])?;
        options.environment.extend(variables);
        let observer = self.observer;
        let end = tool::run_on_terminal(&options, terminal, &|| observer.is_cancelled())?;
        match end {
            ToolEnd::Exited(0) => Ok(()),
            ToolEnd::Cancelled => Err(MakeError::Cancelled),
            _ => Err(MakeError::Failed {
                doing,
                how: "the terminal shows why".to_owned(),
                lines: Vec::new(),
                log: self.log.path().to_owned(),
            }),
        }
    }

    /// Runs another program in the build folder.
    pub(super) fn run(
        &mut self,
        doing: &'static str,
        program: &'static str,
        arguments: &[&OsStr],
    ) -> Result<(), MakeError> {
        let path = self
            .programs
            .find(program)
            .ok_or(MakeError::Gone(program))?;
        let options = ToolOptions {
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            ..self.walled(&path)
        };
        let (log, observer) = (&mut self.log, self.observer);
        log.begin(program)?;
        let end = tool::run(&options, &mut |bytes| log.take(bytes, &mut |_| {}), &|| {
            observer.is_cancelled()
        })?;
        match end {
            ToolEnd::Exited(0) => Ok(()),
            ToolEnd::Cancelled => Err(MakeError::Cancelled),
            _ => Err(MakeError::Failed {
                doing,
                how: format!("{program} failed"),
                lines: self.log.reason(),
                log: self.log.path().to_owned(),
            }),
        }
    }

    fn options(&self, arguments: &[&OsStr]) -> Result<ToolOptions, MakeError> {
        let make = self.programs.find("make").ok_or(MakeError::Gone("make"))?;
        let mut output = OsString::from("O=");
        output.push(&self.folders.build);
        let source = (&self.folders.source).into();
        let mut all = vec!["--no-print-directory".into(), "-C".into(), source, output];
        all.extend(arguments.iter().map(|text| (*text).to_owned()));
        let mut options = ToolOptions {
            arguments: all,
            ..self.walled(&make)
        };
        options.environment.extend(variables(
            self.target,
            self.epoch_seconds,
            &self.folders.source,
            &self.folders.build,
        ));
        options.environment.extend([
            ("INSTALL_MOD_PATH".into(), (&self.folders.install).into()),
            ("INSTALL_MOD_STRIP".into(), "1".into()),
        ]);
        Ok(options)
    }

    fn walled(&self, program: &Path) -> ToolOptions {
        let folders = &self.folders;
        let mut options = self.programs.options(program, &folders.build);
        options
            .environment
            .push(("HOME".into(), (&folders.home).into()));
        options
            .environment
            .push(("TMPDIR".into(), (&folders.home).into()));
        options.readable.push(folders.source.clone());
        options.writable = vec![
            folders.build.clone(),
            folders.install.clone(),
            folders.home.clone(),
        ];
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_of_this_build_is_in_what_names_the_builder() {
        let all = variables(Target::Um, 0, "/a/source".as_ref(), "/a/build".as_ref());
        let naming = |key: &str| {
            let found = all.iter().find(|(name, _)| name == key);
            found.map(|(_, value)| value.to_string_lossy().into_owned())
        };
        assert_eq!(naming("ARCH").as_deref(), Some("um"));
        assert_eq!(naming("KBUILD_BUILD_HOST").as_deref(), Some("coop"));
        assert_eq!(
            naming("KCFLAGS").as_deref(),
            Some("-ffile-prefix-map=/a/build=. -ffile-prefix-map=/a/source=.")
        );
    }
}
