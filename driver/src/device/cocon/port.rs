//! One port's bytes between the device's thread and the host's threads.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::transport::Waker;

#[derive(Debug)]
struct State {
    from_guest: VecDeque<u8>,
    from_guest_max: usize,
    to_guest: VecDeque<u8>,
    to_guest_max: usize,
    /// The guest has the port open now.
    open: bool,
    /// It has had it open and closed it.
    closed: bool,
    /// The device is gone, and with it the guest.
    device_gone: bool,
    reader_gone: bool,
    /// The device holds a chain until there is room.
    device_waits: bool,
    waker: Option<Waker>,
}

impl State {
    fn wake_device(&self) {
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    readable: Condvar,
    writable: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a port: the device's side, and the host's reader and writer.
pub(super) fn port(from_guest_max: usize, to_guest_max: usize) -> (Port, PortReader, PortWriter) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            from_guest: VecDeque::new(),
            from_guest_max,
            to_guest: VecDeque::new(),
            to_guest_max,
            open: false,
            closed: false,
            device_gone: false,
            reader_gone: false,
            device_waits: false,
            waker: None,
        }),
        readable: Condvar::new(),
        writable: Condvar::new(),
    });
    let reader = PortReader(Arc::clone(&shared));
    let writer = PortWriter(Arc::clone(&shared));
    (Port(shared), reader, writer)
}

/// The device's side; no method blocks.
#[derive(Debug)]
pub(super) struct Port(Arc<Shared>);

impl Port {
    pub(super) fn attach(&self, waker: Waker) {
        self.0.lock().waker = Some(waker);
    }

    pub(super) fn set_open(&self, open: bool) {
        let mut state = self.0.lock();
        state.closed = state.open && !open;
        state.open = open;
        self.0.readable.notify_all();
        self.0.writable.notify_all();
    }

    /// How many of `wanted` bytes can be pushed now. Where there is no room, the device is woken
    /// when there is. Without a reader everything fits, to be thrown away.
    pub(super) fn room(&self, wanted: usize) -> usize {
        let mut state = self.0.lock();
        if state.reader_gone {
            return wanted;
        }
        let room = state.from_guest_max.saturating_sub(state.from_guest.len());
        state.device_waits = room == 0;
        room.min(wanted)
    }

    pub(super) fn push(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        if !state.reader_gone {
            state.from_guest.extend(bytes);
            self.0.readable.notify_all();
        }
    }

    /// Whether there is something that the guest would get. Before it has opened the port it would
    /// throw it away.
    pub(super) fn has_input(&self) -> bool {
        let state = self.0.lock();
        state.open && !state.to_guest.is_empty()
    }

    /// Takes up to `most` bytes for the guest.
    pub(super) fn take(&self, most: usize) -> Vec<u8> {
        let mut state = self.0.lock();
        let count = state.to_guest.len().min(most);
        let bytes = state.to_guest.drain(..count).collect();
        self.0.writable.notify_all();
        bytes
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.device_gone = true;
        state.waker = None;
        self.0.readable.notify_all();
        self.0.writable.notify_all();
    }
}

/// What the guest writes to a port. Reading blocks until there is something, and ends when the
/// guest closes the port or is gone. Where it is dropped, the guest's output is thrown away.
#[derive(Debug)]
pub struct PortReader(Arc<Shared>);

impl Read for PortReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        while state.from_guest.is_empty() {
            if state.device_gone || state.closed || buffer.is_empty() {
                return Ok(0);
            }
            let waited = self.0.readable.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let count = state.from_guest.read(buffer)?;
        if std::mem::take(&mut state.device_waits) {
            state.wake_device();
        }
        Ok(count)
    }
}

impl Drop for PortReader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.reader_gone = true;
        state.from_guest = VecDeque::new();
        state.wake_device();
    }
}

/// What the guest reads from a port. Writing blocks while the guest leaves too much unread, and
/// fails with `BrokenPipe` once the guest has closed the port or is gone. What is written before
/// the guest opens the port waits for it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PortWriter(Arc<Shared>);

impl Write for PortWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        loop {
            if state.device_gone || state.closed {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let room = state.to_guest_max.saturating_sub(state.to_guest.len());
            let count = room.min(buffer.len());
            if let Some(bytes) = buffer
                .get(..count)
                .filter(|_| count > 0 || buffer.is_empty())
            {
                state.to_guest.extend(bytes);
                state.wake_device();
                return Ok(count);
            }
            let waited = self.0.writable.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
