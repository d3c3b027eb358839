//! The threads that move a command's bytes.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use coop_guest::frame::DATA_MAX;
use coop_guest::message::{ExecId, Output, Request};
use rustix::event::{PollFd, PollFlags, poll};

use super::Session;

/// Moves an output to its writer until the command has ended and nothing is left. An error of the
/// writer closes the output in the guest, and is given where it is more than a reader that left.
pub(super) fn output(
    session: &Session,
    id: ExecId,
    output: Output,
    mut writer: Box<dyn Write + Send>,
) -> std::io::Result<()> {
    let mut result = Ok(());
    loop {
        let taken = session.board.wait(None, |state| {
            let Some(exec) = state.execs.get_mut(&id) else {
                return Some(None);
            };
            let ended = exec.exit.is_some();
            let stream = exec.output(output);
            if stream.queue.is_empty() {
                return ended.then_some(None);
            }
            Some(Some(std::mem::take(&mut stream.queue)))
        });
        let Some(Some(mut bytes)) = taken else {
            return result;
        };
        if result.is_ok() {
            let written = writer.write_all(bytes.make_contiguous());
            if let Err(error) = written.and_then(|()| writer.flush()) {
                // The session's end is seen by the next wait.
                let _ = session.send(&Request::CloseOutput { id, output });
                result = Err(error);
            }
        }
        let bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        session.board.change(|state| {
            if let Some(exec) = state.execs.get_mut(&id) {
                exec.output(output).used(bytes);
            }
        });
        let _ = session.send(&Request::Credit { id, output, bytes });
    }
}

/// Moves a descriptor's bytes to the command until either has no more.
pub(super) fn input(session: &Session, id: ExecId, source: &OwnedFd, wake: &Arc<OwnedFd>) {
    let mut buffer = vec![0; DATA_MAX];
    while let Some(most) = allowed(session, id) {
        if !readable(source, wake) {
            return;
        }
        let room = buffer.len().min(most);
        let Some(room) = buffer.get_mut(..room) else {
            return;
        };
        let count = match rustix::io::read(source, &mut *room) {
            Ok(0) => break,
            Ok(count) => count,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
            // A descriptor that cannot be read has ended.
            Err(_) => break,
        };
        let data = room.get(..count).unwrap_or_default();
        let bytes = u32::try_from(count).unwrap_or(u32::MAX);
        session.board.change(|state| {
            if let Some(exec) = state.execs.get_mut(&id) {
                exec.input_credit = exec.input_credit.saturating_sub(bytes);
            }
        });
        if session.send(&Request::Stdin { id, data }).is_err() {
            return;
        }
    }
    // A command that has ended does not hear it.
    let _ = session.send(&Request::StdinEnd { id });
}

/// Waits for the command to take input; nothing where it never will again.
fn allowed(session: &Session, id: ExecId) -> Option<usize> {
    session.board.wait(None, |state| {
        let Some(exec) = state.execs.get(&id).filter(|exec| !exec.input_closed) else {
            return Some(None);
        };
        let credit = usize::try_from(exec.input_credit).ok()?;
        (credit > 0).then_some(Some(credit))
    })?
}

/// Waits until the source has something or has ended; false when the command reads no more.
fn readable(source: &OwnedFd, wake: &OwnedFd) -> bool {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return false,
        }
        let [source, wake] = fds;
        if !wake.revents().is_empty() {
            return false;
        }
        if !source.revents().is_empty() {
            return true;
        }
    }
}
