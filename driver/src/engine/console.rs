//! The kernel's own console: what it says while it boots, and when it panics.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of the kernel's console that are kept.
pub const CONSOLE_TAIL_BYTES_MAX: usize = 64 << 10;
/// Bytes of a panic's message that are told.
const MESSAGE_BYTES_MAX: usize = 400;
/// What a panic begins with.
const PANIC: &str = "Kernel panic - not syncing: ";

/// Told everything that the kernel says, in pieces as they come, on a thread of its own.
pub type ConsoleSink = Box<dyn FnMut(&[u8]) + Send>;

/// The end of what the kernel has said.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let over = tail.len().saturating_sub(CONSOLE_TAIL_BYTES_MAX);
        tail.drain(..over);
    }

    /// As text; bytes that are none become replacement characters.
    pub(super) fn text(&self) -> String {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(tail.make_contiguous()).into_owned()
    }

    /// Reads until the end of `source`.
    pub(super) fn fill(&self, mut source: impl Read, mut sink: Option<ConsoleSink>) {
        let mut buffer = [0; 8192];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    let bytes = &buffer[..count];
                    self.push(bytes);
                    if let Some(sink) = &mut sink {
                        sink(bytes);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// The cause that a panic names, if there was one.
pub(super) fn panic_message(text: &str) -> Option<String> {
    let start = text.rfind(PANIC)? + PANIC.len();
    let line = text.get(start..)?.lines().next()?.trim_end();
    let printable = line.chars().filter(|c| !c.is_control());
    let mut message = String::new();
    for character in printable {
        if message.len() + character.len_utf8() > MESSAGE_BYTES_MAX {
            break;
        }
        message.push(character);
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_panic_is_told_in_one_line() {
        let text = "[ 1.0] Kernel panic - not syncing: first\n[ 2.0] Kernel panic - not syncing: VFS: no root\r\n[ 2.1] CPU: 0\n";
        assert_eq!(panic_message(text).unwrap(), "VFS: no root");
        assert_eq!(panic_message("all is well"), None);
        let long = format!("{PANIC}{}", "ä\x1b".repeat(1000));
        assert_eq!(panic_message(&long).unwrap(), "ä".repeat(200));
    }

    #[test]
    fn the_tail_is_bounded() {
        let tail = Tail::default();
        let mut seen = 0;
        let counter = Arc::new(Mutex::new(0));
        let inner = Arc::clone(&counter);
        let sink: ConsoleSink = Box::new(move |bytes| *inner.lock().unwrap() += bytes.len());
        tail.fill(vec![b'x'; 200_000].as_slice(), Some(sink));
        seen += *counter.lock().unwrap();
        assert_eq!((tail.text().len(), seen), (CONSOLE_TAIL_BYTES_MAX, 200_000));
    }
}
