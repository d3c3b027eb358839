//! What a step writes, line by line.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use coop_runtime::event::{Event, Observer};

use super::log::StepLog;
use super::secrets::Mask;

/// How many of a failed script's last lines are kept for the message.
const TAIL_LINES: usize = 20;
/// The longest line of a guest that is passed on, in bytes; longer ones are cut into several.
const LINE_BYTES_MAX: usize = 4096;

/// Where the lines of a step go.
pub(super) struct Listeners {
    observer: Arc<dyn Observer>,
    log: Option<Arc<StepLog>>,
    mask: Mask,
    tail: Mutex<VecDeque<String>>,
}

impl Listeners {
    pub(super) fn new(
        observer: Arc<dyn Observer>,
        log: Option<Arc<StepLog>>,
        mask: Mask,
    ) -> Arc<Self> {
        Arc::new(Self {
            observer,
            log,
            mask,
            tail: Mutex::default(),
        })
    }

    /// The last lines so far.
    pub(super) fn tail(&self) -> Vec<String> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.iter().cloned().collect()
    }

    fn hear(&self, line: String) {
        self.observer.event(&Event::GuestLine { line: &line });
        if let Some(log) = &self.log {
            log.line(&line);
        }
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    }
}

/// Cuts a stream into lines.
pub(super) struct Lines {
    line: Vec<u8>,
    listeners: Arc<Listeners>,
}

impl Lines {
    /// One of the streams of a step.
    pub(super) fn new(listeners: Arc<Listeners>) -> Self {
        Self {
            line: Vec::new(),
            listeners,
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.pass_on(&line);
    }

    /// Passes on what is there of a line that does not end, but for what may be the beginning of
    /// a secret.
    fn cut_line(&mut self) {
        let undecided = self.listeners.mask.undecided(&self.line);
        let rest = self.line.split_off(self.line.len() - undecided);
        let line = std::mem::replace(&mut self.line, rest);
        self.pass_on(&line);
    }

    fn pass_on(&self, line: &[u8]) {
        let shown = self.listeners.mask.hide(line);
        let text = String::from_utf8_lossy(&shown);
        // A progress bar rewrites its line; only its last state matters.
        let text = text
            .trim_end_matches('\r')
            .rsplit('\r')
            .next()
            .unwrap_or("");
        let line = text.chars().filter(|c| !c.is_control()).collect();
        self.listeners.hear(line);
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line();
                continue;
            }
            self.line.push(*byte);
            if self.line.len() >= LINE_BYTES_MAX && self.line.len().is_multiple_of(LINE_BYTES_MAX) {
                self.cut_line();
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
    use crate::guest::{Secrets, Step};
    use coop_runtime::event::Silent;

    #[test]
    fn lines_are_cut_cleaned_and_kept() {
        let listeners = Listeners::new(Arc::new(Silent), None, Mask::default());
        let mut lines = Lines::new(Arc::clone(&listeners));
        for number in 0..TAIL_LINES {
            writeln!(lines, "line {number}").unwrap();
        }
        lines
            .write_all(b"10%\r50%\r100%\r\n\x1b[1mbold\xff")
            .unwrap();
        drop(lines);
        let tail = listeners.tail();
        assert_eq!(tail.len(), TAIL_LINES);
        assert_eq!(tail[0], "line 2");
        assert_eq!(tail[TAIL_LINES - 2], "100%");
        assert_eq!(tail[TAIL_LINES - 1], "[1mbold\u{fffd}");
    }

    #[test]
    fn no_cut_shows_a_part_of_a_secret() {
        let (mut secrets, mut step) = (Secrets::default(), Step::new("a", Vec::new()));
        secrets.insert("token", b"0123456789".to_vec());
        step.secrets.push("token".to_owned());
        for before in LINE_BYTES_MAX - 12..=LINE_BYTES_MAX {
            let listeners = Listeners::new(Arc::new(Silent), None, secrets.mask(&step));
            let mut lines = Lines::new(Arc::clone(&listeners));
            let text = format!("{}0123456789 tail", "x".repeat(before));
            lines.write_all(text.as_bytes()).unwrap();
            drop(lines);
            let shown = listeners.tail().concat();
            assert_eq!(shown, format!("{}*** tail", "x".repeat(before)));
        }
    }
}
