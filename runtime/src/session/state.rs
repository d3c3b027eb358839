//! What is known about a session, and waiting for it to change.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coop_guest::message::{ExecId, Exit, Output, Phase, Reply, VERSION, WINDOW};
use rustix::event::{EventfdFlags, eventfd};

use super::SessionEvent;

/// Warnings that an agent has at most; the honest one has a handful.
const WARNINGS_MAX: usize = 100;

/// How far a guest's boot has come, as its agent tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BootPhase {
    /// The agent runs.
    Agent,
    /// The kernel's modules are loaded.
    Modules,
    /// The root file system is mounted.
    Root,
    /// Commands can be run; in init mode the real init is about to start.
    Ready,
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionEnd {
    /// The guest has ended or has closed the agent's port.
    #[error("the guest has ended")]
    Closed,
    /// The guest could not boot.
    #[error("the guest cannot boot: {0}")]
    BootFailed(String),
    /// The guest broke the protocol.
    #[error("the guest's agent breaks the protocol: {0}")]
    Protocol(String),
    /// The agent has not answered in time.
    #[error("the guest's agent has not answered in time")]
    Late,
}

/// The agent's last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Whether every file system was left clean.
    pub clean: bool,
    /// What was not clean, else empty.
    pub why: String,
}

/// One command, as far as the host knows.
pub(super) struct Exec {
    /// Output that nobody has taken yet, and how much more the guest may send.
    pub(super) outputs: [Stream; 2],
    /// How much input the guest would take now.
    pub(super) input_credit: u32,
    /// The command reads no more.
    pub(super) input_closed: bool,
    pub(super) exit: Option<Result<Exit, String>>,
    /// Wakes the thread that waits for input.
    pub(super) wake_input: Arc<std::os::fd::OwnedFd>,
}

pub(super) struct Stream {
    pub(super) queue: VecDeque<u8>,
    window: u32,
}

impl Stream {
    fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            window: WINDOW,
        }
    }

    /// The host has used so many bytes.
    pub(super) fn used(&mut self, bytes: u32) {
        self.window = self.window.saturating_add(bytes).min(WINDOW);
    }
}

impl Exec {
    pub(super) fn new() -> Result<Self, rustix::io::Errno> {
        Ok(Self {
            outputs: [Stream::new(), Stream::new()],
            input_credit: WINDOW,
            input_closed: false,
            exit: None,
            wake_input: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
        })
    }

    pub(super) fn output(&mut self, output: Output) -> &mut Stream {
        let [stdout, stderr] = &mut self.outputs;
        match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    fn finish(&mut self, exit: Result<Exit, String>) {
        self.exit.get_or_insert(exit);
        self.close_input();
    }

    fn close_input(&mut self) {
        self.input_closed = true;
        // It fails only where it is full, and then it wakes as well.
        let _ = rustix::io::write(&*self.wake_input, &1_u64.to_ne_bytes());
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) next_id: u32,
    pub(super) execs: BTreeMap<ExecId, Exec>,
    pub(super) ready: bool,
    pub(super) stopped: Option<Stopped>,
    pub(super) ended: Option<SessionEnd>,
    pub(super) last_exit: Option<Exit>,
    greeted: bool,
    phase: Option<BootPhase>,
    warnings: usize,
}

/// A guest's sentence as a terminal may show it.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

impl State {
    pub(super) fn end(&mut self, end: SessionEnd) {
        let end = self.ended.get_or_insert(end).to_string();
        for exec in self.execs.values_mut() {
            exec.finish(Err(end.clone()));
        }
    }

    /// Takes in what the agent says.
    pub(super) fn hear(&mut self, reply: &Reply<'_>) -> Result<Option<SessionEvent>, SessionEnd> {
        let broken = |why: &str| Err(SessionEnd::Protocol(why.to_owned()));
        if !self.greeted && !matches!(reply, Reply::Hello { .. }) {
            return broken("it does not begin with a greeting");
        }
        match reply {
            Reply::Hello { version, boot_us } => {
                if self.greeted || *version != VERSION {
                    return broken(&format!("greeting of version {version}"));
                }
                self.greeted = true;
                let time = Duration::from_micros(*boot_us);
                return Ok(Some(SessionEvent::Phase(BootPhase::Agent, time)));
            }
            Reply::Phase { phase, boot_us } => {
                let phase = match phase {
                    Phase::Modules => BootPhase::Modules,
                    Phase::Root => BootPhase::Root,
                    Phase::Ready => BootPhase::Ready,
                };
                if self.phase.replace(phase) >= Some(phase) {
                    return broken("its boot goes backwards");
                }
                self.ready = phase == BootPhase::Ready;
                let time = Duration::from_micros(*boot_us);
                return Ok(Some(SessionEvent::Phase(phase, time)));
            }
            Reply::Failed { text } => self.end(SessionEnd::BootFailed(printable(text))),
            Reply::Warning { text } => {
                self.warnings += 1;
                if self.warnings > WARNINGS_MAX {
                    return broken("it warns without end");
                }
                return Ok(Some(SessionEvent::Warning(printable(text))));
            }
            Reply::Stopped { clean, text } => {
                self.stopped = Some(Stopped {
                    clean: *clean,
                    why: printable(text),
                });
                return Ok(Some(SessionEvent::Stopped { clean: *clean }));
            }
            _ => self.hear_of_command(reply)?,
        }
        Ok(None)
    }

    fn hear_of_command(&mut self, reply: &Reply<'_>) -> Result<(), SessionEnd> {
        let id = match reply {
            Reply::Started { id }
            | Reply::Refused { id, .. }
            | Reply::Output { id, .. }
            | Reply::Credit { id, .. }
            | Reply::StdinClosed { id }
            | Reply::Exited { id, .. } => *id,
            _ => return Ok(()),
        };
        let Some(exec) = self.execs.get_mut(&id) else {
            // Its owner has let it go.
            return Ok(());
        };
        match reply {
            Reply::Refused { text, .. } => exec.finish(Err(printable(text))),
            Reply::Output { output, data, .. } => {
                let stream = exec.output(*output);
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let left = stream.window.checked_sub(length);
                stream.window = left.ok_or_else(|| {
                    SessionEnd::Protocol("more output than it was allowed".to_owned())
                })?;
                stream.queue.extend(*data);
            }
            Reply::Credit { bytes, .. } => {
                exec.input_credit = exec.input_credit.saturating_add(*bytes).min(WINDOW);
            }
            Reply::StdinClosed { .. } => exec.close_input(),
            Reply::Exited { exit, .. } => {
                exec.finish(Ok(*exit));
                self.last_exit = Some(*exit);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The state, and a bell that rings whenever it changes.
#[derive(Default)]
pub(super) struct Board {
    state: Mutex<State>,
    bell: Condvar,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.bell.notify_all();
        result
    }

    /// Waits until `look` finds something; nothing when the deadline passes first.
    pub(super) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            state = match deadline {
                None => {
                    let waited = self.bell.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    let waited = self.bell.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}
