//! `coop build --debug-shell`: a shell in the guest of a step that failed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use coop_builder::guest::{Debugger, GuestError};
use coop_runtime::{ExecError, ExecHandle, ExecRequest, ExecStreams, Running, Size};

use crate::render::{line, plain};
use crate::signals::{Signal, Watch};
use crate::terminal::{self, EscapeFilter, RawMode};

/// The size of a terminal that does not say.
const SIZE_UNKNOWN: (u16, u16) = (80, 25);
/// The signal that nothing withstands.
const SIGKILL: u8 = 9;

/// Gives the person at the terminal a shell.
#[derive(Debug)]
pub(super) struct DebugShell {
    /// TERM.
    pub(super) terminal: Option<OsString>,
}

impl Debugger for DebugShell {
    fn attend(&self, running: &Running, mut shell: ExecRequest, failure: &GuestError) {
        for text in failure.to_string().lines() {
            line(&plain(text));
        }
        line(
            "a shell in the guest as the step left it; its end is the build's (Ctrl-] and q: at once)",
        );
        if let Some(terminal) = &self.terminal {
            shell.environment.push(("TERM".into(), terminal.clone()));
        }
        if let Err(error) = run(running, shell) {
            line(&format!("the shell ended: {error}"));
        }
    }
}

fn run(running: &Running, mut shell: ExecRequest) -> Result<(), ExecError> {
    let (columns, rows) = terminal::size().unwrap_or(SIZE_UNKNOWN);
    shell.terminal = Some(Size { columns, rows });
    let (ours, theirs) = std::io::pipe().map_err(ExecError::Host)?;
    let screen = std::io::stdout().as_fd().try_clone_to_owned();
    let screen = File::from(screen.map_err(ExecError::Host)?);
    let raw = RawMode::enter().map_err(ExecError::Host)?;
    let streams = ExecStreams {
        stdin: Some(OwnedFd::from(ours)),
        stdout: Box::new(screen),
        stderr: Box::new(std::io::sink()),
    };
    let execution = running.exec(&shell, streams)?;
    carry_input(execution.handle(), theirs);
    let handle = execution.handle();
    let watch = Watch::start(move |signal| {
        if signal == Signal::Resized
            && let Some((columns, rows)) = terminal::size()
        {
            // A shell that has ended has no terminal.
            let _ = handle.resize(Size { columns, rows });
        }
    });
    let ended = execution.wait();
    drop((watch, raw));
    ended.map(drop)
}

/// Carries what is typed to the guest. The thread ends with the shell or with the program: nothing
/// can wake it from a terminal.
fn carry_input(shell: ExecHandle, mut to: impl Write + Send + 'static) {
    thread::spawn(move || {
        let mut filter = EscapeFilter::default();
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stdin.read(&mut buffer) {
            let (passed, escape) = filter.feed(&buffer[..count]);
            let written = to.write_all(&passed).and_then(|()| to.flush());
            if escape.is_some() {
                let _ = shell.signal(SIGKILL);
            }
            if written.is_err() || escape.is_some() {
                break;
            }
        }
    });
}
