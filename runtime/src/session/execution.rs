//! One command in the guest.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::thread::JoinHandle;

use coop_guest::frame::REQUEST_MAX;
use coop_guest::message::{
    Exec as WireExec, ExecId, Exit, Input, Output, Request, Size, TransientFile, User,
};

use super::state::Exec;
use super::{Session, SessionEnd, pump};

/// A command to run in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The program, looked up in the guest's PATH, and its arguments.
    pub argv: Vec<OsString>,
    /// Variables on top of the guest's own.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it starts; `/` if not given.
    pub folder: Option<OsString>,
    /// As whom it runs; root if not given.
    pub user: Option<User>,
    /// A terminal of this size for all three streams, if one is wanted.
    pub terminal: Option<Size>,
    /// Files below `/run` that are there while it runs, and belong to its user.
    pub files: Vec<TransientFile>,
}

/// A command's streams on the host.
pub struct ExecStreams {
    /// What the command reads; `/dev/null` if not given.
    pub stdin: Option<OwnedFd>,
    /// Where its output goes; with a terminal, its errors too.
    pub stdout: Box<dyn Write + Send>,
    /// Where its errors go.
    pub stderr: Box<dyn Write + Send>,
}

/// Why a command gave no exit status.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The session is over.
    #[error(transparent)]
    Session(#[from] SessionEnd),
    /// Arguments, environment and files are too long for one request.
    #[error(
        "the command has {bytes} bytes of arguments, environment and files, more than {REQUEST_MAX}"
    )]
    TooLong {
        /// Their size.
        bytes: usize,
    },
    /// The agent could not run it, or the guest ended before it.
    #[error("the command has not run to its end: {0}")]
    Unfinished(String),
    /// The host cannot take its output.
    #[error("cannot write the command's output: {0}")]
    Output(std::io::Error),
    /// The host is out of threads or descriptors.
    #[error("cannot serve the command's streams: {0}")]
    Host(std::io::Error),
}

type OutputThread = JoinHandle<std::io::Result<()>>;

/// A command that runs in the guest, or has.
pub struct Execution {
    session: Session,
    id: ExecId,
    outputs: Vec<OutputThread>,
    on_exit: Option<Box<dyn FnOnce() + Send>>,
}

impl Execution {
    pub(super) fn start(
        session: &Session,
        request: &ExecRequest,
        streams: ExecStreams,
    ) -> Result<Self, ExecError> {
        let exec = Exec::new().map_err(|error| ExecError::Host(error.into()))?;
        let wake = Arc::clone(&exec.wake_input);
        let id = session.board.change(|state| {
            if let Some(end) = &state.ended {
                return Err(end.clone());
            }
            let id = ExecId(state.next_id);
            state.next_id = state.next_id.wrapping_add(1);
            state.execs.insert(id, exec);
            Ok(id)
        })?;
        let mut execution = Self {
            session: session.clone(),
            id,
            outputs: Vec::new(),
            on_exit: None,
        };
        execution.ask(request, streams.stdin.is_some())?;
        for (output, writer) in [
            (Output::Stdout, streams.stdout),
            (Output::Stderr, streams.stderr),
        ] {
            let session = session.clone();
            let thread = spawn("output", move || pump::output(&session, id, output, writer))?;
            execution.outputs.push(thread);
        }
        if let Some(source) = streams.stdin {
            let session = session.clone();
            // Its end needs no waiting: it stops by itself when the command has ended.
            spawn("input", move || pump::input(&session, id, &source, &wake))?;
        }
        Ok(execution)
    }

    fn ask(&self, request: &ExecRequest, with_input: bool) -> Result<(), ExecError> {
        let bytes = |text: &OsString| text.as_bytes().to_vec();
        let variable = |(name, value): &(OsString, OsString)| (bytes(name), bytes(value));
        let exec = WireExec {
            argv: request.argv.iter().map(bytes).collect(),
            environment: request.environment.iter().map(variable).collect(),
            folder: request.folder.as_ref().map(bytes),
            user: request.user.clone(),
            input: match (request.terminal, with_input) {
                (Some(size), _) => Input::Terminal(size),
                (None, true) => Input::Pipe,
                (None, false) => Input::Null,
            },
            files: request.files.clone(),
        };
        let request = Request::Exec { id: self.id, exec };
        let mut frame = Vec::new();
        request.append_to(&mut frame);
        let bytes = frame.len();
        if bytes > REQUEST_MAX {
            return Err(ExecError::TooLong { bytes });
        }
        Ok(self.session.send(&request)?)
    }

    /// Calls this when [`Execution::wait`] sees the command's end.
    pub(crate) fn on_exit(mut self, call: Box<dyn FnOnce() + Send>) -> Self {
        self.on_exit = Some(call);
        self
    }

    /// Sends a signal to the command's process group. One that has ended does not hear it.
    ///
    /// # Errors
    /// The session is over.
    pub fn signal(&self, number: u8) -> Result<(), SessionEnd> {
        self.handle().signal(number)
    }

    /// Something with which other threads can reach the command.
    #[must_use]
    pub fn handle(&self) -> ExecHandle {
        ExecHandle {
            session: self.session.clone(),
            id: self.id,
        }
    }

    /// Waits until the command has ended and all its output is written.
    ///
    /// # Errors
    /// The guest ended first, or the output cannot be written. A reader of the output that left
    /// (`BrokenPipe`) is no error: the command saw it and decided.
    pub fn wait(mut self) -> Result<Exit, ExecError> {
        let mut failure = None;
        for thread in self.outputs.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                Ok(Err(error)) => failure = Some(ExecError::Output(error)),
                Err(_) => {
                    let error = std::io::Error::other("the thread that writes it panicked");
                    failure = Some(ExecError::Output(error));
                }
            }
        }
        let exit = self
            .session
            .board
            .wait(None, |state| match state.execs.get(&self.id) {
                Some(exec) => exec.exit.clone(),
                None => Some(Err("it was given up".to_owned())),
            });
        if let Some(call) = self.on_exit.take() {
            call();
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        match exit {
            Some(Ok(exit)) => Ok(exit),
            Some(Err(why)) => Err(ExecError::Unfinished(why)),
            None => Err(SessionEnd::Late.into()),
        }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        let removed = self
            .session
            .board
            .change(|state| state.execs.remove(&self.id));
        if let Some(exec) = removed {
            // The input's thread looks for the command and does not find it.
            let _ = rustix::io::write(&*exec.wake_input, &1_u64.to_ne_bytes());
        }
    }
}

/// Reaches a command from another thread. Cheap to clone.
#[derive(Clone)]
pub struct ExecHandle {
    session: Session,
    id: ExecId,
}

impl ExecHandle {
    /// Sends a signal to the command's process group. One that has ended does not hear it.
    ///
    /// # Errors
    /// The session is over.
    pub fn signal(&self, number: u8) -> Result<(), SessionEnd> {
        let (id, signal) = (self.id, number);
        self.session.send(&Request::Signal { id, signal })
    }

    /// Tells the command's terminal of another size.
    ///
    /// # Errors
    /// The session is over.
    pub fn resize(&self, size: Size) -> Result<(), SessionEnd> {
        let id = self.id;
        self.session.send(&Request::Resize { id, size })
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, ExecError> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map_err(ExecError::Host)
}
