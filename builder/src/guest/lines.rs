//! What a step writes, line by line.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use coop_runtime::event::{Event, Observer};

/// How many of a failed script's last lines are kept for the message.
const TAIL_LINES: usize = 20;
/// The longest line of a guest that is passed on, in bytes; longer ones are cut into several.
const LINE_BYTES_MAX: usize = 4096;

/// Cuts a stream into lines for the observer, and keeps the last ones.
pub(super) struct Lines {
    line: Vec<u8>,
    tail: Arc<Mutex<VecDeque<String>>>,
    observer: Arc<dyn Observer>,
}

impl Lines {
    /// A stream whose last lines go to `tail`, together with those of others.
    pub(super) fn new(tail: Arc<Mutex<VecDeque<String>>>, observer: Arc<dyn Observer>) -> Self {
        Self {
            line: Vec::new(),
            tail,
            observer,
        }
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        // A progress bar rewrites its line; only its last state matters.
        let text = text
            .trim_end_matches('\r')
            .rsplit('\r')
            .next()
            .unwrap_or("");
        let line: String = text.chars().filter(|c| !c.is_control()).collect();
        self.line.clear();
        self.observer.event(&Event::GuestLine { line: &line });
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' || self.line.len() == LINE_BYTES_MAX {
                self.end_line();
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coop_runtime::event::Silent;

    #[test]
    fn lines_are_cut_cleaned_and_kept() {
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let mut lines = Lines {
            line: Vec::new(),
            tail: Arc::clone(&tail),
            observer: Arc::new(Silent),
        };
        for number in 0..TAIL_LINES {
            writeln!(lines, "line {number}").unwrap();
        }
        lines
            .write_all(b"10%\r50%\r100%\r\n\x1b[1mbold\xff")
            .unwrap();
        drop(lines);
        let tail = tail.lock().unwrap();
        assert_eq!(tail.len(), TAIL_LINES);
        assert_eq!(tail[0], "line 2");
        assert_eq!(tail[TAIL_LINES - 2], "100%");
        assert_eq!(tail[TAIL_LINES - 1], "[1mbold\u{fffd}");
    }
}
