//! What the host has said and the guest has not yet taken.

use std::io::Write;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::SessionEnd;

/// Bytes that wait for the guest at most. The windows of inputs and a request or two fit well; only
/// a guest that sends and sends, and never reads its credit, comes so far.
const BYTES_MAX: usize = 16 << 20;

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    closed: bool,
}

/// A queue that never makes its writer wait.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame.
    pub(super) fn put(&self, frame: &[u8]) -> Result<(), SessionEnd> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(SessionEnd::Closed);
        }
        if waiting.bytes.len() + frame.len() > BYTES_MAX {
            return Err(SessionEnd::Protocol("it reads nothing".to_owned()));
        }
        waiting.bytes.extend_from_slice(frame);
        self.bell.notify_all();
        Ok(())
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.bell.notify_all();
    }

    /// Writes what comes until the outbox is closed or the writer fails.
    pub(super) fn deliver(&self, mut writer: Box<dyn Write + Send>) {
        loop {
            let mut waiting = self.lock();
            while waiting.bytes.is_empty() && !waiting.closed {
                let woken = self.bell.wait(waiting);
                waiting = woken.unwrap_or_else(PoisonError::into_inner);
            }
            let bytes = std::mem::take(&mut waiting.bytes);
            drop(waiting);
            if bytes.is_empty() {
                return;
            }
            let written = writer.write_all(&bytes).and_then(|()| writer.flush());
            if written.is_err() {
                return self.close();
            }
        }
    }
}
