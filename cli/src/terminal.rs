//! The person's terminal: raw while a guest has it, and as it was before on every way out.
//!
//! The ways out are: the guard is dropped, a panic (the hook restores first, so that its message
//! is readable), and signals, which are caught (see `signals`) and end in the guard's drop. Only
//! SIGKILL cannot be helped.

use std::io::{IsTerminal, Read as _, Write as _};
use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// How the terminal was before it became raw.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
static PANIC_HOOK: Once = Once::new();

/// Whether a person sits at both ends.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The terminal's columns and rows.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// While this lives, the terminal passes every byte on as it is typed.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Makes the terminal on stdin raw.
    ///
    /// # Errors
    /// Stdin is no terminal, or it does not take the mode.
    pub(crate) fn enter() -> std::io::Result<Self> {
        restore_after_panic();
        let stdin = std::io::stdin();
        let saved = tcgetattr(&stdin)?;
        let mut raw = saved.clone();
        raw.make_raw();
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        let guard = Self(());
        tcsetattr(&stdin, OptionalActions::Drain, &raw)?;
        Ok(guard)
    }
}

/// How long what a person types may be, in bytes.
const TYPED_BYTES_MAX: usize = 4096;
/// Ctrl-C, where it makes no signal.
const INTERRUPT: u8 = 0x03;

/// Asks the person at the terminal, whatever stdin is, for a line that nobody shall see.
///
/// # Errors
/// There is no terminal, or the person has changed their mind.
pub(crate) fn ask_secret(prompt: &str) -> std::io::Result<Vec<u8>> {
    let mut options = std::fs::OpenOptions::new();
    let terminal = options.read(true).write(true).open("/dev/tty");
    let mut terminal = terminal.map_err(|_| std::io::Error::other("there is no terminal"))?;
    let before = tcgetattr(&terminal)?;
    let mut quiet = before.clone();
    // Without signals nothing ends the program while the terminal is quiet.
    quiet
        .local_modes
        .remove(LocalModes::ECHO | LocalModes::ISIG);
    terminal.write_all(prompt.as_bytes())?;
    tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
    let mut typed = vec![0; TYPED_BYTES_MAX];
    let count = terminal.read(&mut typed);
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    terminal.write_all(b"\n")?;
    typed.truncate(count?);
    match typed.split_last() {
        Some((b'\n', line)) if !line.contains(&INTERRUPT) => Ok(line.to_vec()),
        _ => Err(std::io::Error::other("no password was given")),
    }
}

fn restore_after_panic() {
    PANIC_HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// The terminal's modes, which come back when this is dropped, whatever a program did to them.
pub(crate) struct Kept(RawMode);

impl Kept {
    /// Remembers the modes of the terminal on stdin.
    ///
    /// # Errors
    /// Stdin is no terminal.
    pub(crate) fn new() -> std::io::Result<Self> {
        restore_after_panic();
        let saved = tcgetattr(std::io::stdin())?;
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        Ok(Self(RawMode(())))
    }
}

fn restore() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(saved) = saved {
        // If the terminal is gone there is nothing to restore.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &saved);
    }
}

/// What a person can ask of coop itself while the guest has the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// Ctrl-] q: end the guest now.
    Kill,
}

/// The byte that begins an escape: Ctrl-].
const ESCAPE: u8 = 0x1d;

/// Finds escapes in what is typed: Ctrl-] and `q` ends the guest, Ctrl-] twice sends one.
#[derive(Debug, Default)]
pub(crate) struct EscapeFilter {
    pending: bool,
}

impl EscapeFilter {
    /// Takes typed bytes; gives those that are the guest's, up to an escape.
    pub(crate) fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, Option<Escape>) {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for &byte in typed {
            if std::mem::take(&mut self.pending) {
                match byte {
                    b'q' | b'Q' => return (passed, Some(Escape::Kill)),
                    ESCAPE => passed.push(ESCAPE),
                    other => passed.extend([ESCAPE, other]),
                }
            } else if byte == ESCAPE {
                self.pending = true;
            } else {
                passed.push(byte);
            }
        }
        (passed, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_found() {
        let mut filter = EscapeFilter::default();
        assert_eq!(filter.feed(b"ls\r"), (b"ls\r".to_vec(), None));
        assert_eq!(filter.feed(b"a\x1d"), (b"a".to_vec(), None));
        assert_eq!(filter.feed(b"qrest"), (Vec::new(), Some(Escape::Kill)));
        assert_eq!(filter.feed(b"\x1d\x1dq"), (b"\x1dq".to_vec(), None));
        assert_eq!(filter.feed(b"\x1dx"), (b"\x1dx".to_vec(), None));
    }
}
