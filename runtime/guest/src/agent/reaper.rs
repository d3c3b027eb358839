//! Noticing that children have ended.
//!
//! A thread waits for any child without taking its status, wakes the server through a pipe, and
//! goes on only after the server has reaped. So there is one place that reaps, and a process
//! number cannot be used again while the server still takes it for a child's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Sender, channel};

use coop_guest::message::Exit;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, wait, waitid};

use crate::failure::{Doing, Failure};

pub(crate) struct Reaper {
    wake: OwnedFd,
    go_on: Sender<()>,
}

impl Reaper {
    pub(crate) fn start() -> Result<Self, Failure> {
        let (wake, waker) = pipe_with(PipeFlags::CLOEXEC).doing(|| "make a pipe".into())?;
        let (go_on, told) = channel();
        let watch = move || {
            loop {
                match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                    Ok(_) => {
                        if rustix::io::write(&waker, &[1]).is_err() {
                            return;
                        }
                    }
                    Err(Errno::INTR) => continue,
                    // No child at all: sleep until the server has one.
                    Err(_) => {}
                }
                if told.recv().is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("reaper".into())
            .stack_size(64 << 10)
            .spawn(watch)
            .doing(|| "start a thread".into())?;
        Ok(Self { wake, go_on })
    }

    /// Becomes readable when a child has ended.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Must be called after a child was started.
    pub(crate) fn child_started(&self) {
        let _ = self.go_on.send(());
    }

    /// Takes the status of every child that has ended. To be called when [`Self::fd`] is readable.
    pub(crate) fn reap(&self) -> Vec<(Pid, Exit)> {
        let mut byte = [0];
        let _ = rustix::io::read(&self.wake, &mut byte[..]);
        let ended = reap_all();
        let _ = self.go_on.send(());
        ended
    }
}

/// Takes the status of every child that has ended, without waiting.
pub(crate) fn reap_all() -> Vec<(Pid, Exit)> {
    let mut ended = Vec::new();
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let byte = |value: i32| u8::try_from(value).unwrap_or(u8::MAX);
                let exit = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Exit::Code(byte(code)),
                    (None, Some(signal)) => Exit::Signal(byte(signal)),
                    (None, None) => continue,
                };
                ended.push((pid, exit));
            }
            Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return ended,
        }
    }
}

/// Whether there is any child, ended or not.
pub(crate) fn any_child() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    waitid(WaitId::All, options).is_ok()
}
