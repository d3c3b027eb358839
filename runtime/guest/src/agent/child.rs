//! A command and its streams.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use coop_guest::frame::DATA_MAX;
use coop_guest::message::{Exec, Exit, Input, Output, Size, WINDOW};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::failure::{Doing, Failure};
use crate::files::Files;
use crate::session;

/// How long a terminal may still have something to say after its session's leader has ended: what
/// was written arrives at our side a little later.
const TERMINAL_GRACE: Duration = Duration::from_millis(300);
/// Bytes of each output that are passed on after the command has ended. What the command itself
/// wrote fits into a pipe; the limit is for something that it left behind and that never stops.
const AFTERMATH_MAX: usize = 1 << 20;

/// What reading an output gave.
pub(crate) enum Got<'a> {
    Data(Output, &'a [u8]),
    Nothing,
}

pub(crate) struct Child {
    pid: Pid,
    terminal: Option<Rc<OwnedFd>>,
    input: Option<Rc<OwnedFd>>,
    pending: VecDeque<u8>,
    input_ends: bool,
    pub(crate) sources: Vec<Source>,
    ended: Option<(Exit, Instant)>,
    /// Go with the command.
    _files: Files,
}

/// One output of a command.
pub(crate) struct Source {
    output: Output,
    fd: Option<Rc<OwnedFd>>,
    credit: usize,
    aftermath: usize,
    /// Nothing was there at the last look since the command ended.
    dry: bool,
}

impl Child {
    /// Starts a command with the given variables and no others.
    pub(crate) fn start(
        exec: &Exec,
        environment: &[(OsString, OsString)],
    ) -> Result<Self, Failure> {
        if exec.argv.first().is_none_or(Vec::is_empty) {
            return Err(Failure::new("a command without a program"));
        }
        let own = exec
            .environment
            .iter()
            .cloned()
            .map(|(name, value)| (OsString::from_vec(name), OsString::from_vec(value)));
        let variables: Vec<(OsString, OsString)> = environment.iter().cloned().chain(own).collect();
        let files = Files::write(&exec.files, exec.user.as_ref())?;
        let spawn = |mut command: Command| {
            let streams = Streams::open(exec.input)?;
            let child = command
                .env_clear()
                .envs(variables.iter().cloned())
                .stdin(streams.child_input)
                .stdout(streams.child_output)
                .stderr(streams.child_error)
                .spawn()
                .doing(|| "start a process".into())?;
            Ok((child, streams.terminal, streams.input, streams.sources))
        };
        let direct = session::direct(exec, &variables).map(&spawn);
        let (child, terminal, input, sources) = match direct {
            Some(Ok(started)) => started,
            // What is wrong is for the session to find out and to say where it belongs.
            _ => {
                let mut command = Command::new("/proc/self/exe");
                command.args(session::words(exec));
                spawn(command)?
            }
        };
        Ok(Self {
            pid: Pid::from_child(&child),
            terminal,
            input,
            pending: VecDeque::new(),
            input_ends: false,
            sources,
            ended: None,
            _files: files,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The descriptor to watch for writing, and whether there is something to write. Watching it
    /// without that still tells that the command has closed its end.
    pub(crate) fn input(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let fd = self.input.as_ref()?;
        Some(((**fd).as_fd(), !self.pending.is_empty()))
    }

    /// Takes input from the host.
    pub(crate) fn feed(&mut self, data: &[u8]) {
        if self.input.is_some() && !self.input_ends {
            self.pending.extend(data);
        }
    }

    /// No more input will come.
    pub(crate) fn end_input(&mut self) {
        self.input_ends = true;
        // A terminal stays open: its output comes through the same descriptor.
        if self.pending.is_empty() && self.terminal.is_none() {
            self.input = None;
        }
    }

    /// Writes input that the command takes. Gives the number of bytes and whether the command has
    /// closed its end.
    pub(crate) fn write_input(&mut self) -> (usize, bool) {
        let Some(fd) = &self.input else {
            return (0, false);
        };
        let mut written = 0;
        loop {
            let (front, _) = self.pending.as_slices();
            if front.is_empty() {
                break;
            }
            match rustix::io::write(fd.as_ref(), front) {
                Ok(count) => {
                    self.pending.drain(..count.min(front.len()));
                    written += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.close_input();
                    return (written, true);
                }
            }
        }
        if self.input_ends {
            self.end_input();
        }
        (written, false)
    }

    /// The command has closed its end.
    pub(crate) fn close_input(&mut self) {
        self.input = None;
        self.pending = VecDeque::new();
    }

    /// Reads from one output as much as the host allows, into `buffer`.
    pub(crate) fn read<'a>(&mut self, at: usize, buffer: &'a mut [u8]) -> Got<'a> {
        let ended = self.ended.is_some();
        let Some(source) = self.sources.get_mut(at) else {
            return Got::Nothing;
        };
        let Some(fd) = &source.fd else {
            return Got::Nothing;
        };
        let most = buffer.len().min(source.credit).min(DATA_MAX);
        let Some(buffer) = buffer.get_mut(..most).filter(|room| !room.is_empty()) else {
            return Got::Nothing;
        };
        match rustix::io::read(fd.as_ref(), &mut *buffer) {
            Ok(0) => source.fd = None,
            Ok(count) => {
                source.credit -= count.min(source.credit);
                if ended {
                    source.aftermath += count;
                    if source.aftermath >= AFTERMATH_MAX {
                        source.fd = None;
                    }
                }
                return Got::Data(source.output, buffer.get(..count).unwrap_or_default());
            }
            Err(Errno::AGAIN) => source.dry = ended,
            Err(Errno::INTR) => {}
            // A terminal says EIO when nobody has its other end.
            Err(_) => source.fd = None,
        }
        Got::Nothing
    }

    /// The host has used so many bytes of an output.
    pub(crate) fn credit(&mut self, output: Output, bytes: u32) {
        for source in self
            .sources
            .iter_mut()
            .filter(|source| source.output == output)
        {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            source.credit = source.credit.saturating_add(bytes).min(window());
        }
    }

    /// Nobody wants an output any more: the command's next write to it fails.
    pub(crate) fn close_output(&mut self, output: Output) {
        for source in self
            .sources
            .iter_mut()
            .filter(|source| source.output == output)
        {
            source.fd = None;
        }
    }

    /// Sends a signal to the command's session.
    pub(crate) fn signal(&self, number: u8) {
        let Some(signal) = Signal::from_named_raw(number.into()) else {
            return;
        };
        // A reaped process's number may be somebody else's.
        if self.ended.is_some() {
            return;
        }
        // The group exists as soon as the new process has made its session.
        if kill_process_group(self.pid, signal).is_err() {
            let _ = kill_process(self.pid, signal);
        }
    }

    pub(crate) fn resize(&self, size: Size) {
        if let Some(terminal) = &self.terminal {
            let _ = tcsetwinsize(terminal.as_ref(), winsize(size));
        }
    }

    /// The command's process has ended; its output may not have.
    pub(crate) fn has_ended(&mut self, exit: Exit) {
        self.ended = Some((exit, Instant::now()));
        self.close_input();
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// How the command ended, once all its output is read.
    pub(crate) fn finished(&self) -> Option<Exit> {
        let (exit, since) = self.ended?;
        let grace_over = self.terminal.is_none() || since.elapsed() >= TERMINAL_GRACE;
        let done = |source: &Source| source.fd.is_none() || (source.dry && grace_over);
        self.sources.iter().all(done).then_some(exit)
    }

    /// When to look again though nothing happens.
    pub(crate) fn look_again_at(&self) -> Option<Instant> {
        let (_, since) = self.ended?;
        self.terminal.as_ref()?;
        Some(since + TERMINAL_GRACE)
    }
}

impl Source {
    fn new(output: Output, fd: Rc<OwnedFd>) -> Self {
        Self {
            output,
            fd: Some(fd),
            credit: window(),
            aftermath: 0,
            dry: false,
        }
    }

    /// The descriptor, if the host allows more output.
    pub(crate) fn wanted(&self) -> Option<BorrowedFd<'_>> {
        let fd = self.fd.as_ref().filter(|_| self.credit > 0)?;
        Some((**fd).as_fd())
    }
}

fn window() -> usize {
    usize::try_from(WINDOW).unwrap_or(usize::MAX)
}

fn winsize(size: Size) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Both ends of what a command reads and writes.
struct Streams {
    child_input: Stdio,
    child_output: Stdio,
    child_error: Stdio,
    terminal: Option<Rc<OwnedFd>>,
    input: Option<Rc<OwnedFd>>,
    sources: Vec<Source>,
}

impl Streams {
    fn open(input: Input) -> Result<Self, Failure> {
        match input {
            Input::Terminal(size) => Self::terminal(size).doing(|| "make a terminal".into()),
            Input::Pipe => Self::pipes(true).doing(|| "make pipes".into()),
            Input::Null => Self::pipes(false).doing(|| "make pipes".into()),
        }
    }

    fn terminal(size: Size) -> Result<Self, Errno> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags)?;
        unlockpt(&ours)?;
        tcsetwinsize(&ours, winsize(size))?;
        let theirs = ioctl_tiocgptpeer(&ours, flags)?;
        do_not_wait(&ours)?;
        let ours = Rc::new(ours);
        Ok(Self {
            child_input: Stdio::from(theirs.try_clone().map_err(|_| Errno::MFILE)?),
            child_output: Stdio::from(theirs.try_clone().map_err(|_| Errno::MFILE)?),
            child_error: Stdio::from(theirs),
            terminal: Some(ours.clone()),
            input: Some(ours.clone()),
            sources: vec![Source::new(Output::Stdout, ours)],
        })
    }

    fn pipes(with_input: bool) -> Result<Self, Errno> {
        let (child_input, input) = if with_input {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            do_not_wait(&ours)?;
            (Stdio::from(theirs), Some(Rc::new(ours)))
        } else {
            (Stdio::null(), None)
        };
        let mut outputs = Vec::new();
        let mut sources = Vec::new();
        for output in [Output::Stdout, Output::Stderr] {
            let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
            do_not_wait(&ours)?;
            sources.push(Source::new(output, Rc::new(ours)));
            outputs.push(Stdio::from(theirs));
        }
        let child_error = outputs.pop().unwrap_or_else(Stdio::null);
        let child_output = outputs.pop().unwrap_or_else(Stdio::null);
        Ok(Self {
            child_input,
            child_output,
            child_error,
            terminal: None,
            input,
            sources,
        })
    }
}

/// The flag belongs to our end alone: each end of a pipe or terminal has its own.
fn do_not_wait(fd: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)
}
