//! The host's side of the agent's protocol.
//!
//! One thread reads what the agent says and sorts it, another writes what the host says; neither
//! waits for anything else, so a command whose output nobody takes does not hold up another's end. Each command has a thread for
//! its input and one for each output, which wait for their streams and grant credit. The guest is
//! hostile: whatever it sends, this side neither panics nor stores more than the windows allow; a
//! guest that breaks the protocol loses its session.

mod execution;
mod outbox;
mod pump;
mod state;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coop_guest::frame::{Decoder, REPLY_MAX};
use coop_guest::message::{Reply, Request};

pub use execution::{ExecError, ExecHandle, ExecRequest, ExecStreams, Execution};
use outbox::Outbox;
use state::Board;
pub use state::{BootPhase, SessionEnd, Stopped};

/// Bytes read from the port at a time.
const READ_BYTES: usize = 64 << 10;

/// What the session tells whoever started it, at once and from its own thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The boot has come so far; the time is the guest's, since its kernel's start.
    Phase(BootPhase, Duration),
    /// The agent found something that is not as it should be.
    Warning(String),
    /// The guest's processes are gone and its file systems unmounted; it is about to power off.
    Stopped {
        /// Whether every file system was left clean.
        clean: bool,
    },
    /// The session is over.
    Ended(SessionEnd),
}

/// Told of [`SessionEvent`]s; must not block.
pub type SessionListener = Box<dyn Fn(SessionEvent) + Send>;

/// A conversation with one guest's agent. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    board: Arc<Board>,
    outbox: Arc<Outbox>,
}

impl Session {
    /// Starts to listen and to speak. The threads end when `reader` does and `writer` takes no more.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn start(
        reader: Box<dyn Read + Send>,
        writer: Box<dyn Write + Send>,
        listener: SessionListener,
    ) -> std::io::Result<Self> {
        let session = Self {
            board: Arc::new(Board::default()),
            outbox: Arc::new(Outbox::default()),
        };
        let (board, outbox) = (Arc::clone(&session.board), Arc::clone(&session.outbox));
        std::thread::Builder::new()
            .name("agent-writer".into())
            .spawn(move || {
                outbox.deliver(writer);
                board.change(|state| state.end(SessionEnd::Closed));
            })?;
        let listening = session.clone();
        let spawned = std::thread::Builder::new()
            .name("agent-reader".into())
            .spawn(move || {
                let end = listening.listen(reader, &listener);
                listening.board.change(|state| state.end(end.clone()));
                listening.outbox.close();
                listener(SessionEvent::Ended(end));
            });
        if let Err(error) = spawned {
            session.outbox.close();
            return Err(error);
        }
        Ok(session)
    }

    /// Waits until commands can be run.
    ///
    /// # Errors
    /// The boot failed, the session ended, or the deadline passed.
    pub fn wait_ready(&self, deadline: Option<Instant>) -> Result<(), SessionEnd> {
        self.board
            .wait(deadline, |state| match (&state.ended, state.ready) {
                (Some(end), _) => Some(Err(end.clone())),
                (None, true) => Some(Ok(())),
                (None, false) => None,
            })
            .unwrap_or(Err(SessionEnd::Late))
    }

    /// Runs a command; returns as soon as it was asked for.
    ///
    /// # Errors
    /// The session is over, the request is too large, or the host has no thread left.
    pub fn exec(
        &self,
        request: &ExecRequest,
        streams: ExecStreams,
    ) -> Result<Execution, ExecError> {
        Execution::start(self, request, streams)
    }

    /// Asks the guest to end everything and to power off. Beside a real init this asks that init.
    ///
    /// # Errors
    /// The session is over.
    pub fn shut_down(&self) -> Result<(), SessionEnd> {
        self.send(&Request::Shutdown)
    }

    /// Waits for the agent's last word before it powers off. Nothing where the guest ended without
    /// one or the deadline passed.
    #[must_use]
    pub fn wait_stopped(&self, deadline: Option<Instant>) -> Option<Stopped> {
        let stopped = self.board.wait(deadline, |state| {
            (state.stopped.is_some() || state.ended.is_some()).then(|| state.stopped.clone())
        });
        stopped.flatten()
    }

    /// The guest is gone: everybody who waits is told.
    pub fn guest_ended(&self) {
        self.board.change(|state| state.end(SessionEnd::Closed));
    }

    /// Why the session ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<SessionEnd> {
        self.board.look(|state| state.ended.clone())
    }

    /// How the last command that has ended did.
    #[must_use]
    pub fn last_exit(&self) -> Option<coop_guest::message::Exit> {
        self.board.look(|state| state.last_exit)
    }

    /// Never waits: a guest that does not read must not hold up whoever wants to end it.
    fn send(&self, request: &Request<'_>) -> Result<(), SessionEnd> {
        let mut frame = Vec::new();
        request.append_to(&mut frame);
        let put = self.outbox.put(&frame);
        if let Err(end @ SessionEnd::Protocol(_)) = &put {
            self.board.change(|state| state.end(end.clone()));
        }
        put
    }

    /// Reads until the session is over, and says why it is.
    fn listen(&self, mut reader: Box<dyn Read + Send>, listener: &SessionListener) -> SessionEnd {
        let mut decoder = Decoder::new(REPLY_MAX);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return SessionEnd::Closed,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return SessionEnd::Closed,
            };
            decoder.push(buffer.get(..count).unwrap_or_default());
            loop {
                match decoder.take() {
                    Ok(None) => break,
                    Ok(Some(body)) => {
                        if let Err(end) = self.hear(body, listener) {
                            return end;
                        }
                    }
                    Err(error) => return SessionEnd::Protocol(error.to_string()),
                }
            }
        }
    }

    fn hear(&self, body: &[u8], listener: &SessionListener) -> Result<(), SessionEnd> {
        let reply = Reply::decode(body).map_err(|error| SessionEnd::Protocol(error.to_string()))?;
        if let Some(event) = self.board.change(|state| state.hear(&reply))? {
            listener(event);
        }
        if matches!(reply, Reply::Stopped { .. } | Reply::Failed { .. }) {
            // The guest waits for this before it powers off. One that is gone needs no leave.
            let _ = self.send(&Request::Bye);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
