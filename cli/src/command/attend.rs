//! What coop does while a machine runs: it carries the streams, hears signals, and sees the end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use coop_runtime::{Console, ExecHandle, ExecRequest, ExecStreams, Exit, Resizer, Running, Size};

use super::run::End;
use crate::arguments::RunOptions;
use crate::failure::Failure;
use crate::render::line;
use crate::signals::{self, Signal};
use crate::terminal::{self, Escape, EscapeFilter, RawMode};

/// How long a command or a guest may take to end after it was asked to.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How long the guest may take to power off once its command has ended.
pub(super) const SHUT_DOWN_PATIENCE: Duration = Duration::from_secs(20);
/// The size of a terminal that does not say.
const SIZE_UNKNOWN: Size = Size {
    columns: 80,
    rows: 25,
};

/// Hears signals from before the machine starts: one that came between its start and somebody's
/// hearing would end coop alone, and leave the machine's folder behind.
pub(super) struct Attendance {
    hearer: Arc<Mutex<Hearer>>,
    watch: signals::Watch,
}

/// Who hears a signal.
enum Hearer {
    /// There is no machine yet; the first signal that wants an end.
    Nobody(Option<Signal>),
    Machine(Arc<Control>),
}

impl Attendance {
    /// Starts to hear signals. From here on none ends coop by itself.
    pub(super) fn prepare() -> Result<Self, Failure> {
        let hearer = Arc::new(Mutex::new(Hearer::Nobody(None)));
        let shared = Arc::clone(&hearer);
        let watch = signals::Watch::start(move |signal| {
            let control = match &mut *lock(&shared) {
                Hearer::Nobody(_) if signal == Signal::Resized => return,
                Hearer::Nobody(first) => {
                    first.get_or_insert(signal);
                    return;
                }
                Hearer::Machine(control) => Arc::clone(control),
            };
            Control::hear(&control, signal);
        });
        let watch = watch.map_err(|error| Failure::work(&error))?;
        Ok(Self { hearer, watch })
    }

    /// Stays with the machine until it has ended.
    pub(super) fn attend(self, running: Running, options: &RunOptions) -> Result<End, Failure> {
        let console = running.take_console();
        let control = Arc::new(Control {
            running,
            state: Mutex::new(State::default()),
        });
        let hearer = Hearer::Machine(Arc::clone(&control));
        let before = std::mem::replace(&mut *lock(&self.hearer), hearer);
        if let Hearer::Nobody(Some(signal)) = before {
            Control::hear(&control, signal);
        }
        let code = if options.command.is_empty() {
            if let Some(console) = console {
                attend_console(&control, console)?;
            }
            None
        } else {
            run_command(&control, options)?
        };
        let report = control.running.wait();
        drop(self.watch);
        let state = control.lock();
        Ok(End {
            escaped: state.escaped,
            ..End::of(report, code, state.signal)
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the threads around a machine share.
struct Control {
    running: Running,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The signal that asked for the end.
    signal: Option<Signal>,
    escaped: bool,
    command: Option<ExecHandle>,
    console: Option<Resizer>,
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn hear(control: &Arc<Self>, signal: Signal) {
        if signal == Signal::Resized {
            control.resize();
        } else {
            Self::end(control, signal);
        }
    }

    fn resize(&self) {
        let Some((columns, rows)) = terminal::size() else {
            return;
        };
        let state = self.lock();
        if let Some(console) = &state.console {
            console.resize(columns, rows);
        }
        if let Some(command) = &state.command {
            // A command that has ended has no terminal to resize.
            let _ = command.resize(Size { columns, rows });
        }
    }

    /// The first signal asks: the command gets it, a whole system is shut down. After a grace, and
    /// at a second signal, the guest is killed.
    fn end(control: &Arc<Self>, signal: Signal) {
        let (again, command) = {
            let mut state = control.lock();
            (
                state.signal.replace(signal).is_some(),
                state.command.clone(),
            )
        };
        if again {
            control.running.kill();
            return;
        }
        let control = Arc::clone(control);
        // Threads of their own: the next signal must be heard meanwhile.
        thread::spawn(move || match command {
            Some(command) => {
                let asked = command.signal(signal.number());
                if asked.is_err() || control.running.wait_timeout(GRACE).is_none() {
                    control.running.kill();
                }
            }
            None if control.is_up() => control.running.shut_down(GRACE),
            None => control.running.kill(),
        });
    }

    /// Whether there is anybody in the guest to ask.
    fn is_up(&self) -> bool {
        self.lock().console.is_some()
    }

    fn escape(&self, escape: Escape) {
        match escape {
            Escape::Kill => {
                self.lock().escaped = true;
                self.running.kill();
            }
        }
    }
}

/// Runs the one command and shuts the guest down. Nothing is returned where the guest ended
/// first: its report says why.
fn run_command(control: &Arc<Control>, options: &RunOptions) -> Result<Option<u8>, Failure> {
    let host = |error: std::io::Error| Failure::work(&error);
    if control.running.wait_ready().is_err() {
        return Ok(None);
    }
    let raw = options.tty.then(RawMode::enter).transpose().map_err(host)?;
    let size = terminal::size().map_or(SIZE_UNKNOWN, |(columns, rows)| Size { columns, rows });
    let request = ExecRequest {
        argv: options.command.clone(),
        terminal: options.tty.then_some(size),
        ..ExecRequest::default()
    };
    let stdin = if options.tty {
        let (ours, theirs) = std::io::pipe().map_err(host)?;
        carry_input(control, theirs);
        OwnedFd::from(ours)
    } else {
        duplicate(std::io::stdin()).map_err(host)?
    };
    let stderr = File::from(duplicate(std::io::stderr()).map_err(host)?);
    let stdout = if options.json {
        File::from(duplicate(std::io::stderr()).map_err(host)?)
    } else {
        File::from(duplicate(std::io::stdout()).map_err(host)?)
    };
    let streams = ExecStreams {
        stdin: Some(stdin),
        stdout: Box::new(stdout),
        stderr: Box::new(stderr),
    };
    let execution = match control.running.exec(&request, streams) {
        Ok(execution) => execution,
        Err(coop_runtime::ExecError::Session(_)) => return Ok(None),
        Err(error) => return Err(Failure::work(&error)),
    };
    control.lock().command = Some(execution.handle());
    let ended = execution.wait();
    control.lock().command = None;
    drop(raw);
    let code = match ended {
        Ok(exit) => Some(Exit::shell_code(exit)),
        Err(coop_runtime::ExecError::Output(error)) => return Err(Failure::work(&error)),
        // The guest is gone; its report says why.
        Err(_) => None,
    };
    if code.is_some() {
        control.running.shut_down(SHUT_DOWN_PATIENCE);
    }
    Ok(code)
}

fn duplicate(stream: impl AsFd) -> std::io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

/// Joins the terminal to the guest's console until the guest ends.
fn attend_console(control: &Arc<Control>, console: Console) -> Result<(), Failure> {
    let Console {
        mut output,
        input,
        resizer,
    } = console;
    control.lock().console = Some(resizer);
    let raw = if terminal::is_interactive() {
        line("the terminal is the guest's console; Ctrl-] and q end the guest");
        Some(RawMode::enter().map_err(|error| Failure::work(&error))?)
    } else {
        None
    };
    carry_input(control, input);
    let shown = copy(&mut output, &mut std::io::stdout());
    drop(raw);
    if let Err(error) = shown {
        control.running.kill();
        return Err(Failure::work(&error));
    }
    Ok(())
}

/// Copies what comes, as it comes. A reader that went away ends the copy but is no error: the
/// rest is thrown away, for a guest whose console is full would stop.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> std::io::Result<()> {
    let mut buffer = [0; 16 << 10];
    let mut closed = false;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if closed {
            continue;
        }
        let written = to.write_all(&buffer[..count]).and_then(|()| to.flush());
        match written {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => closed = true,
            other => other?,
        }
    }
}

/// Carries what is typed to the guest, and finds escapes if a person types it. The thread ends
/// with the input or with the program: nothing can wake it from a terminal.
fn carry_input(control: &Arc<Control>, mut to: impl Write + Send + 'static) {
    let control = Arc::clone(control);
    let mut filter = terminal::is_interactive().then(EscapeFilter::default);
    thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stdin.read(&mut buffer) {
            let typed = &buffer[..count];
            let (passed, escape) = match &mut filter {
                Some(filter) => filter.feed(typed),
                None => (typed.to_vec(), None),
            };
            let written = to.write_all(&passed).and_then(|()| to.flush());
            if let Some(escape) = escape {
                control.escape(escape);
            }
            if written.is_err() || escape.is_some() {
                break;
            }
        }
    });
}
