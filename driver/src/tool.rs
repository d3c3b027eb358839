//! Runs a tool of the host, such as a compiler, behind walls: it works on files that a stranger
//! wrote, and a Makefile is a program.
//!
//! The walls, from the outside: a process group that nothing leaves and that is killed whole at
//! the work's end, when it is called off, and when this program dies; no new privileges; limits;
//! Landlock, where the host has it: what may be read and executed are the host's programs and
//! what the options name, what may be written is what the options name; and a system call filter
//! without sockets, namespaces, mounts or other processes. The environment is what the options
//! say and nothing else.

use std::ffi::OsString;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coop_driver_sys::spawn::{Confinement, Limits, confine};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use crate::sandbox::{self, Access, PathRule, SandboxError};
use rustix::termios::tcgetwinsize;

/// Descriptors that one process may have.
const DESCRIPTORS_MAX: u64 = 4096;
/// Processes and threads of the user altogether, so that a tool that only makes more of itself
/// comes to an end.
const PROCESSES_MAX: u64 = 16_384;
/// How often it is looked whether the work was called off.
const CANCEL_INTERVAL_MS: i64 = 100;
/// How long a tool that is called off may take to clean up.
const TERM_PATIENCE: Duration = Duration::from_secs(2);
/// How long the end of a killed group is waited for.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Where programs and what they read lie on a host, as far as there is such a place.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix/store",
    "/gnu/store",
];
/// What of the host's settings and state a compiler's run reads. Not all of `/etc`: a kernel's
/// configuration can name files that are built into the kernel.
const SETTINGS: &[&str] = &[
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/perl",
    "/etc/ssl/openssl.cnf",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
    // objtool reads its own limits. What /proc tells of processes outside of the walls is what it
    // tells everybody: Landlock keeps their memory and environment from being read.
    "/proc",
    "/sys/devices/system/cpu",
];
/// Devices that may be written too.
const SINKS: &[&str] = &["/dev/null", "/dev/full"];

/// Ends the group when this program is gone: its end of the pipe is then closed. The tool itself
/// also dies with this program, but its children would not.
const WATCHED: &str = "exec 3<&0 </dev/null; \
    { read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 & \
    exec 3<&-; exec \"$@\"";
/// The same for a tool that has a terminal, which it finds as its standard error.
const WATCHED_ON_TERMINAL: &str = "exec 3<&0 <&2; \
    { read -r _ <&3; kill -KILL 0; } </dev/null >/dev/null 2>&1 & \
    exec 3<&-; exec \"$@\"";
/// What runs it.
const SHELL: &str = "/bin/sh";

/// What to run. All paths are absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolOptions {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it is started.
    pub folder: PathBuf,
    /// What it may read and execute, beside the host's programs. What does not exist is left out.
    pub readable: Vec<PathBuf>,
    /// Folders in which it may do as it likes.
    pub writable: Vec<PathBuf>,
    /// The largest file that it may write, in bytes.
    pub file_bytes_max: u64,
}

/// How a tool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolEnd {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal.
    Signalled(i32),
    /// It was called off.
    Cancelled,
}

/// Why a tool could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// No walls.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The host does not start it.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// What it said cannot be read, or the caller could not take it.
    #[error("the output of {program}: {source}")]
    Output {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether a path, links followed, is below the folders with the host's programs, which tools may
/// read and execute.
#[must_use]
pub fn is_system(path: &Path) -> bool {
    SYSTEM.iter().any(|system| path.starts_with(system))
}

/// Runs a tool to its end, on the calling thread. `output` is given what it says on its standard
/// output and error, in the order in which it comes; an error there ends the tool. When
/// `is_cancelled` becomes true, the tool is asked to end, and then killed, with all of its
/// children. None of these is left when this returns.
///
/// # Errors
/// See [`ToolError`]. That the tool fails is no error here, but an end.
pub fn run(
    options: &ToolOptions,
    output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<ToolEnd, ToolError> {
    let start = |source| cannot_start(options, source);
    let (reader, writer) = io::pipe().map_err(start)?;
    let mut command = command(options, WATCHED);
    command
        .stdout(writer.try_clone().map_err(start)?)
        .stderr(writer);
    let group = spawn(options, command)?;
    watch(group, reader, output, is_cancelled).map_err(|source| ToolError::Output {
        program: options.program.clone(),
        source,
    })
}

/// Runs a tool that a person uses on a terminal, as [`run`] does otherwise. `terminal` is open for
/// reading and writing; it does not become the tool's controlling terminal, so the tool cannot
/// type into it, and learns of a new size from here. The terminal's modes are the caller's matter.
///
/// # Errors
/// See [`ToolError`].
pub fn run_on_terminal(
    options: &ToolOptions,
    terminal: &impl AsFd,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<ToolEnd, ToolError> {
    let start = |source| cannot_start(options, source);
    let side = || terminal.as_fd().try_clone_to_owned().map_err(start);
    let mut command = command(options, WATCHED_ON_TERMINAL);
    command.stdout(side()?).stderr(side()?);
    let group = spawn(options, command)?;
    attend(group, terminal, is_cancelled).map_err(start)
}

fn cannot_start(options: &ToolOptions, source: io::Error) -> ToolError {
    ToolError::Start {
        program: options.program.clone(),
        source,
    }
}

/// Starts it behind its walls.
fn spawn(options: &ToolOptions, mut command: Command) -> Result<Group, ToolError> {
    let start = |source| cannot_start(options, source);
    let (landlock, _) = sandbox::ruleset(&path_rules(options))?;
    let confinement = Confinement {
        processor: None,
        limits: Limits {
            core_bytes: Some(0),
            file_bytes: Some(options.file_bytes_max),
            descriptors: Some(DESCRIPTORS_MAX),
            processes: Some(PROCESSES_MAX),
        },
        landlock,
        filter: sandbox::tool_filter()?,
    };
    confine(&mut command, confinement).map_err(start)?;
    let child = command.spawn().map_err(start)?;
    // Our copies of the pipe's other end are in there.
    drop(command);
    Group::new(child).map_err(start)
}

fn command(options: &ToolOptions, watched: &str) -> Command {
    let mut command = Command::new(SHELL);
    command
        .args(["-c", watched, "sh"])
        .arg(&options.program)
        .args(&options.arguments)
        .env_clear()
        .envs(options.environment.iter().map(|(key, value)| (key, value)))
        .current_dir(&options.folder)
        .stdin(Stdio::piped());
    command
}

fn path_rules(options: &ToolOptions) -> Vec<PathRule> {
    let rule = |path: &Path, access| PathRule {
        path: path.to_owned(),
        access,
    };
    let mut rules = Vec::new();
    let system = SYSTEM.iter().map(Path::new);
    let readable = system.chain(options.readable.iter().map(PathBuf::as_path));
    rules.extend(readable.map(|path| rule(path, Access::Execute)));
    rules.extend(
        SETTINGS
            .iter()
            .map(|path| rule(path.as_ref(), Access::Read)),
    );
    rules.extend(SINKS.iter().map(|path| rule(path.as_ref(), Access::Write)));
    rules.retain(|rule| rule.path.exists());
    // What is missing of these is an error.
    let writable = options.writable.iter();
    rules.extend(writable.map(|path| rule(path, Access::Work)));
    rules
}

/// A child and its process group. Dropping it kills the group.
struct Group {
    child: Child,
    process: Pid,
    is_over: bool,
}

impl Group {
    fn new(mut child: Child) -> io::Result<Self> {
        let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let Some(process) = process else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::ErrorKind::InvalidData.into());
        };
        Ok(Self {
            child,
            process,
            is_over: false,
        })
    }

    fn signal(&self, signal: Signal) {
        // The leader has not been waited for, so the number is still the group's.
        let _ = kill_process_group(self.process, signal);
    }

    /// Whether the leader has ended; it stays waitable.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        !matches!(waitid(WaitId::Pid(self.process), options), Ok(None))
    }

    /// Kills what is left of the group, and takes the leader's status.
    fn finish(mut self) -> io::Result<ToolEnd> {
        use std::os::unix::process::ExitStatusExt as _;
        self.signal(Signal::KILL);
        self.is_over = true;
        let status = self.child.wait()?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => ToolEnd::Exited(code),
            (None, signal) => ToolEnd::Signalled(signal.unwrap_or(0)),
        })
    }

    fn cancel(self) -> io::Result<ToolEnd> {
        self.signal(Signal::TERM);
        let patience = Instant::now() + TERM_PATIENCE;
        while !self.has_ended() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.finish()?;
        Ok(ToolEnd::Cancelled)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_over {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn watch(
    group: Group,
    mut reader: PipeReader,
    output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    is_cancelled: &dyn Fn() -> bool,
) -> io::Result<ToolEnd> {
    let process = pidfd_open(group.process, PidfdFlags::empty())?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut is_open = true;
    loop {
        if is_cancelled() {
            let end = group.cancel()?;
            drain(&mut reader, &mut buffer, &mut |_| Ok(()))?;
            return Ok(end);
        }
        let mut descriptors = vec![PollFd::new(&process, PollFlags::IN)];
        if is_open {
            descriptors.push(PollFd::new(&reader, PollFlags::IN));
        }
        wait(&mut descriptors, CANCEL_INTERVAL_MS)?;
        let ready = |index: usize| {
            let descriptor: Option<&PollFd<'_>> = descriptors.get(index);
            descriptor.is_some_and(|descriptor| !descriptor.revents().is_empty())
        };
        let (ended, readable) = (ready(0), ready(1));
        if readable {
            let count = read(&mut reader, &mut buffer)?;
            is_open = count > 0;
            output(&buffer[..count])?;
        } else if ended {
            break;
        }
    }
    let end = group.finish()?;
    if is_open {
        drain(&mut reader, &mut buffer, output)?;
    }
    Ok(end)
}

/// Waits for the end of a tool on a terminal, and tells it when the terminal has another size.
fn attend(
    group: Group,
    terminal: &impl AsFd,
    is_cancelled: &dyn Fn() -> bool,
) -> io::Result<ToolEnd> {
    let process = pidfd_open(group.process, PidfdFlags::empty())?;
    let size = || {
        let size = tcgetwinsize(terminal).ok()?;
        Some((size.ws_col, size.ws_row))
    };
    let mut known = size();
    loop {
        if is_cancelled() {
            return group.cancel();
        }
        let mut descriptors = [PollFd::new(&process, PollFlags::IN)];
        wait(&mut descriptors, CANCEL_INTERVAL_MS)?;
        if !descriptors[0].revents().is_empty() {
            return group.finish();
        }
        let now = size();
        if now != known {
            known = now;
            group.signal(Signal::WINCH);
        }
    }
}

fn wait(descriptors: &mut [PollFd<'_>], milliseconds: i64) -> io::Result<()> {
    let timeout = Timespec {
        tv_sec: milliseconds / 1000,
        tv_nsec: (milliseconds % 1000) * 1_000_000,
    };
    match poll(descriptors, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn read(reader: &mut PipeReader, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// What the group said before it was killed. The end of it comes when the last one's files are
/// closed, a moment after the kill.
fn drain(
    reader: &mut PipeReader,
    buffer: &mut [u8],
    output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let patience = Instant::now() + DRAIN_PATIENCE;
    while Instant::now() < patience {
        let mut descriptors = [PollFd::new(&*reader, PollFlags::IN)];
        wait(&mut descriptors, CANCEL_INTERVAL_MS)?;
        if descriptors[0].revents().is_empty() {
            continue;
        }
        let count = read(reader, buffer)?;
        if count == 0 {
            return Ok(());
        }
        output(&buffer[..count])?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "tool_tests.rs"]
mod tests;
