//! The engine `user`: a User-Mode-Linux kernel in an unprivileged, confined process.

use std::ffi::OsString;
use std::io::{self, PipeReader};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coop_driver_sys::spawn::{Confinement, Limits, confine};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::GuestEnd;
use super::console::{ConsoleSink, Tail, panic_message};
use super::executable::image_base;
use super::memory_folder::PrivateFolder;
use super::processor::{self, Pin, ProcessorError};
use crate::sandbox::{self, Access, LandlockState, PathRule, SandboxError};
use crate::transport::{GuestImage, GuestProcess};

/// Guest memory at least, in bytes: less does not boot.
pub const MEMORY_BYTES_MIN: u64 = 32 << 20;
/// Bytes of the kernel's command line at most (its `COMMAND_LINE_SIZE`).
pub const COMMAND_LINE_BYTES_MAX: usize = 2048;
/// Descriptors that a guest's process may have: one or two for each of the guest's processes.
const DESCRIPTORS_MAX: u64 = 16_384;
/// What a file of the guest's process may be larger than the guest's memory, in bytes.
const FILE_BYTES_SLACK: u64 = 64 << 20;
/// The signal of a panic.
const SIGABRT: i32 = Signal::ABORT.as_raw();
/// The signal of [`Guest::kill`].
const SIGKILL: i32 = Signal::KILL.as_raw();
/// Turns of an empty loop in the 10 ms of the kernel's tick, which it would take 40 ms and more to
/// count at every boot. It uses them for delays of microseconds: what a processor of 5 GHz does, so
/// that none is ever too short.
const LOOPS_PER_TICK: u32 = 50_000_000;
/// The folder inside the instance's for the kernel's own files; short, for a socket lies there.
const KERNEL_FOLDER: &str = "u";
/// Where the host tells what its processors can do.
const CPUINFO: &str = "/proc/cpuinfo";
/// How long a dead guest's console is waited for, if something else holds it open.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(2);

/// A device that the guest's kernel finds at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSocket {
    /// Where the device listens.
    pub socket: PathBuf,
    /// The virtio device number.
    pub device_id: u32,
}

/// Everything that a guest is started with. All paths are absolute.
pub struct UserOptions {
    /// The kernel's executable.
    pub vmlinux: PathBuf,
    /// The folder with `ld.so` and the C library of a dynamic kernel whose interpreter is
    /// `./ld.so`; none for a static one.
    pub libraries: Option<PathBuf>,
    /// The initial RAM file system.
    pub initrd: Option<PathBuf>,
    /// Guest memory in bytes, rounded down to whole MiB.
    pub memory_bytes: u64,
    /// Processors, at least one; more than one need a kernel with `CONFIG_SMP`, and [`Pin`] is
    /// then left out.
    pub cpus: u32,
    /// Where that memory lies; see [`super::choose_memory_folder`].
    pub memory_folder: PathBuf,
    /// Words for the kernel's command line, beside those that the engine sets itself. Words after
    /// `--` are the init program's.
    pub cmdline: Vec<String>,
    /// The devices, in the order in which the guest finds them.
    pub devices: Vec<DeviceSocket>,
    /// A private folder (mode 0700) for the kernel's own files.
    pub folder: PathBuf,
    /// Which processor the guest runs on.
    pub pin: Pin,
    /// Told the guest's process for as long as there is one.
    pub process: GuestProcess,
    /// Gets what the kernel says on its own console.
    pub console: Option<ConsoleSink>,
}

/// Why a guest was not started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Too little memory.
    #[error(
        "{bytes} bytes of guest memory are fewer than the {MEMORY_BYTES_MIN} that a kernel needs"
    )]
    Memory {
        /// What was asked for.
        bytes: u64,
    },
    /// A word of the command line has a blank or a control character in it, or is the engine's.
    #[error("'{word}' cannot be a word of the kernel's command line: {reason}")]
    Word {
        /// The word.
        word: String,
        /// Why not.
        reason: &'static str,
    },
    /// The command line does not fit the kernel.
    #[error("the kernel's command line has {bytes} bytes, and takes {COMMAND_LINE_BYTES_MAX}")]
    CommandLine {
        /// How many it would have.
        bytes: usize,
    },
    /// A path is not absolute, or not text.
    #[error("{path} is not an absolute path without blanks")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// No processor to run on.
    #[error(transparent)]
    Processor(#[from] ProcessorError),
    /// No walls.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The process cannot be started.
    #[error("cannot start {vmlinux}: {source}")]
    Start {
        /// The kernel.
        vmlinux: PathBuf,
        /// What the host says.
        source: io::Error,
    },
}

/// How the guest is confined, for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walls {
    /// Landlock.
    pub landlock: LandlockState,
    /// The processor that the guest is pinned to.
    pub processor: Option<usize>,
}

/// A path as a word of the command line.
fn word(path: &Path) -> Result<&str, EngineError> {
    let text = path.to_str().filter(|text| {
        path.is_absolute()
            && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',')
    });
    text.ok_or_else(|| EngineError::Path {
        path: path.to_owned(),
    })
}

/// Words that the engine sets itself.
const OWN_WORDS: [&str; 9] = [
    "mem",
    "ncpus",
    "seccomp",
    "con",
    "con0",
    "initrd",
    "noreboot",
    "uml_dir",
    "virtio_uml.device",
];

fn check_word(word: &str) -> Result<(), EngineError> {
    let refused = |reason| EngineError::Word {
        word: word.to_owned(),
        reason,
    };
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(refused("it is empty, or has blanks in it"));
    }
    let key = word.split('=').next().unwrap_or(word);
    if OWN_WORDS.contains(&key) {
        return Err(refused("the engine sets it"));
    }
    Ok(())
}

/// The kernel's command line.
fn command_line(options: &UserOptions) -> Result<Vec<String>, EngineError> {
    if options.memory_bytes < MEMORY_BYTES_MIN {
        return Err(EngineError::Memory {
            bytes: options.memory_bytes,
        });
    }
    let mut words = vec![
        format!("mem={}M", options.memory_bytes >> 20),
        "seccomp=on".to_owned(),
        "con=null".to_owned(),
        "con0=fd:0,fd:1".to_owned(),
        "noreboot".to_owned(),
        format!("lpj={LOOPS_PER_TICK}"),
        format!("uml_dir={}/", word(&options.folder.join(KERNEL_FOLDER))?),
    ];
    if options.cpus > 1 {
        words.push(format!("ncpus={}", options.cpus));
    }
    if let Some(initrd) = &options.initrd {
        words.push(format!("initrd={}", word(initrd)?));
    }
    for device in &options.devices {
        words.push(format!(
            "virtio_uml.device={}:{}",
            word(&device.socket)?,
            device.device_id
        ));
    }
    for extra in &options.cmdline {
        check_word(extra)?;
        words.push(extra.clone());
    }
    let bytes = words.iter().map(|word| word.len() + 1).sum();
    if bytes > COMMAND_LINE_BYTES_MAX {
        return Err(EngineError::CommandLine { bytes });
    }
    Ok(words)
}

/// Folders of this guest alone, so that it sees no others.
struct Folders {
    /// For the kernel's own files, in the instance's folder.
    kernel: PathBuf,
    /// For the guest's memory; gone when the guest ends.
    memory: PrivateFolder,
}

impl Folders {
    fn new(options: &UserOptions) -> io::Result<Self> {
        let kernel = options.folder.join(KERNEL_FOLDER);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&kernel)?;
        let memory = PrivateFolder::new(&options.memory_folder)?;
        Ok(Self { kernel, memory })
    }
}

/// The paths that the guest's process needs.
fn path_rules(options: &UserOptions, own: &Folders) -> Vec<PathRule> {
    let mut rules = Vec::new();
    let mut allow = |path: &Path, access| {
        rules.push(PathRule {
            path: path.to_owned(),
            access,
        })
    };
    allow(&options.vmlinux, Access::Execute);
    if let Some(libraries) = &options.libraries {
        // One folder, so that the loader finds them under the short name that the kernel has.
        allow(libraries, Access::Execute);
    }
    if let Some(initrd) = &options.initrd {
        allow(initrd, Access::Read);
    }
    // What the processor can do decides which of its ways to copy and check the kernel takes.
    if Path::new(CPUINFO).exists() {
        allow(Path::new(CPUINFO), Access::Read);
    }
    allow(&own.kernel, Access::Write);
    allow(own.memory.path(), Access::Write);
    for device in &options.devices {
        allow(&device.socket, Access::Write);
    }
    rules
}

/// What is known of the guest's process.
#[derive(Debug, Default)]
struct State {
    /// Nothing once it was waited for.
    alive: Option<Pid>,
    killed: bool,
    end: Option<GuestEnd>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
    tail: Tail,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running guest. Dropping it kills the guest.
#[derive(Debug)]
pub struct Guest {
    shared: Arc<Shared>,
    process_id: u32,
    walls: Walls,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Starts a guest. The devices must listen already.
///
/// # Errors
/// The options make no sense, or the host does not let the kernel start or be confined.
pub fn start(mut options: UserOptions) -> Result<Guest, EngineError> {
    let words = command_line(&options)?;
    let pin = match options.cpus {
        0 | 1 => options.pin,
        // Their threads would take turns on it.
        _ => Pin::Free,
    };
    let processor = processor::choose(pin)?;
    let vmlinux = options.vmlinux.clone();
    let failed = |source| EngineError::Start {
        vmlinux: vmlinux.clone(),
        source,
    };
    let image_base = image_base(&options.vmlinux).map_err(failed)?;
    let folders = Folders::new(&options).map_err(failed)?;
    let (landlock, state) = sandbox::ruleset(&path_rules(&options, &folders))?;
    let walls = Walls {
        landlock: state,
        processor,
    };
    let confinement = Confinement {
        processor,
        limits: Limits {
            core_bytes: Some(0),
            file_bytes: Some(options.memory_bytes.saturating_add(FILE_BYTES_SLACK)),
            descriptors: Some(DESCRIPTORS_MAX),
            processes: None,
        },
        landlock,
        filter: sandbox::filter()?,
    };
    let mut command = command(&options, &folders, words);
    // What the C library says before it gives up goes to the same place as the kernel's words.
    let (console, output) = io::pipe().map_err(failed)?;
    command
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output);
    confine(&mut command, confinement).map_err(failed)?;
    let shared = Arc::new(Shared::default());
    let (started, starting) = sync_channel(1);
    let keeper = Keeper {
        shared: Arc::clone(&shared),
        process: options.process.clone(),
        image_base,
        console,
        folders,
        sink: options.console.take(),
    };
    // The kernel kills the guest when the thread that started it ends, so it gets its own.
    let thread = std::thread::Builder::new()
        .name("guest".to_owned())
        .spawn(move || keeper.run(command, &started))
        .map_err(failed)?;
    let answer = starting
        .recv()
        .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
    let process_id = answer.map_err(failed)?;
    Ok(Guest {
        shared,
        process_id,
        walls,
        thread: Some(thread),
    })
}

fn command(options: &UserOptions, folders: &Folders, words: Vec<String>) -> Command {
    let mut command = Command::new(&options.vmlinux);
    command.args(words.into_iter().map(OsString::from));
    command.env_clear();
    command.env("HOME", &folders.kernel);
    command.env("TMPDIR", folders.memory.path());
    if let Some(libraries) = &options.libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.current_dir(options.libraries.as_ref().unwrap_or(&folders.kernel));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// The thread that owns the guest's process.
struct Keeper {
    shared: Arc<Shared>,
    process: GuestProcess,
    image_base: u64,
    console: PipeReader,
    folders: Folders,
    sink: Option<ConsoleSink>,
}

impl Keeper {
    fn run(self, mut command: Command, started: &SyncSender<io::Result<u32>>) {
        let spawned = command.spawn().and_then(|child| Ok((pid(&child)?, child)));
        // The ruleset's descriptor and the pipe's other end are in there.
        drop(command);
        let (process, mut child) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                // The owner waits for this answer.
                let _ = started.send(Err(error));
                return;
            }
        };
        self.shared.state().alive = Some(process);
        self.process.set(GuestImage {
            process_id: child.id(),
            base: self.image_base,
        });
        let _ = started.send(Ok(child.id()));
        let console = read_console(&self.shared.tail, self.console, self.sink);
        let waited = loop {
            match waitid(
                WaitId::Pid(process),
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        // The process is dead but not yet gone, so its number still names its group.
        self.process.clear();
        let mut state = self.shared.state();
        let _ = kill_process_group(process, Signal::KILL);
        state.alive = None;
        drop(state);
        let status = waited.map_err(io::Error::from).and_then(|_| child.wait());
        if let Some(console) = console {
            let _ = console.recv_timeout(CONSOLE_TIMEOUT);
        }
        drop(self.folders);
        let mut state = self.shared.state();
        let end = end_of(status, state.killed, &self.shared.tail.text());
        state.end = Some(end);
        self.shared.ended.notify_all();
    }
}

/// Starts a thread that reads the kernel's console; the receiver hears of its end.
fn read_console(
    tail: &Tail,
    source: PipeReader,
    sink: Option<ConsoleSink>,
) -> Option<Receiver<()>> {
    let tail = tail.clone();
    let (done, ended) = sync_channel(1);
    let thread = std::thread::Builder::new().name("guest-console".to_owned());
    // Without it the guest runs, and its kernel's words are lost.
    let spawned = thread.spawn(move || {
        tail.fill(source, sink);
        let _ = done.send(());
    });
    spawned.ok().map(|_| ended)
}

impl Guest {
    /// The process's number; it names no other process until the guest has ended.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process_id
    }

    /// How the guest is confined.
    #[must_use]
    pub fn walls(&self) -> Walls {
        self.walls
    }

    /// The end of what the kernel has said on its own console.
    #[must_use]
    pub fn console_tail(&self) -> String {
        self.shared.tail.text()
    }

    /// Kills the guest's process and all of its helpers at once. Nothing where it has ended.
    pub fn kill(&self) {
        let mut state = self.shared.state();
        if let Some(process) = state.alive {
            state.killed = true;
            // The process has not been waited for, so the number is still its own.
            let _ = kill_process_group(process, Signal::KILL);
        }
    }

    /// Waits for the guest's end.
    #[must_use]
    pub fn wait(&self) -> GuestEnd {
        let state = self.shared.state();
        let state = self
            .shared
            .ended
            .wait_while(state, |state| state.end.is_none());
        let state = state.unwrap_or_else(PoisonError::into_inner);
        state.end.clone().unwrap_or(GuestEnd::Killed)
    }

    /// Waits for the guest's end, but not for longer than this.
    #[must_use]
    pub fn wait_timeout(&self, patience: Duration) -> Option<GuestEnd> {
        let state = self.shared.state();
        let waited = self
            .shared
            .ended
            .wait_timeout_while(state, patience, |state| state.end.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.end.clone()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.kill();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pid(child: &Child) -> io::Result<Pid> {
    let number = i32::try_from(child.id()).map_err(io::Error::other)?;
    Pid::from_raw(number).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn end_of(status: io::Result<ExitStatus>, killed: bool, console: &str) -> GuestEnd {
    let Ok(status) = status else {
        return GuestEnd::Signalled { signal: 0 };
    };
    let panic = panic_message(console);
    match (status.signal(), status.code()) {
        (Some(SIGKILL), _) if killed => GuestEnd::Killed,
        (Some(signal), _) => match panic {
            Some(message) if signal == SIGABRT => GuestEnd::Panicked { message },
            _ => GuestEnd::Signalled { signal },
        },
        (None, code) => {
            let code = code
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(u8::MAX);
            GuestEnd::PoweredOff { code }
        }
    }
}
