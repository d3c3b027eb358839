//! What a build says: all of it in a file of the store, and the part that says why it failed.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::FlockOperation;

use crate::digest::Digest;
use crate::store::Store;

/// The largest log, in bytes; what a build says beyond it is not kept.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// The longest line that is looked at, in bytes; longer ones are cut into several.
const LINE_BYTES_MAX: usize = 4096;
/// Lines of a failure that are shown.
const EXCERPT_LINES_MAX: usize = 20;
/// Lines before an error that belong to it: "In file included from", "In function".
const LINES_BEFORE: usize = 3;
/// Lines behind an error that belong to it: the source, and the mark below it.
const LINES_BEHIND: usize = 4;

/// The log of one kernel's builds; the latest attempt replaces the one before. As long as it is
/// open, nobody else builds that kernel.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: fs::File,
    written: u64,
    line: Vec<u8>,
    excerpt: Excerpt,
}

impl Log {
    /// Where a kernel's log is.
    pub(super) fn path_of(store: &Store, key: &Digest) -> PathBuf {
        store.root().join("log/kernel").join(format!("{key}.log"))
    }

    /// Opens the log and takes the lock that comes with it; `wait` is called now and then while
    /// somebody else has it, and its error ends the waiting.
    pub(super) fn open<E: From<io::Error>>(
        path: &Path,
        mut wait: impl FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut options = fs::OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => wait()?,
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            written: 0,
            line: Vec::new(),
            excerpt: Excerpt::default(),
        })
    }

    /// Forgets what the attempt before said.
    pub(super) fn start(&mut self) -> io::Result<()> {
        self.written = 0;
        self.excerpt = Excerpt::default();
        self.file.set_len(0)?;
        io::Seek::rewind(&mut self.file)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes output; `each_line` sees its lines.
    pub(super) fn take(&mut self, bytes: &[u8], each_line: &mut dyn FnMut(&str)) -> io::Result<()> {
        let room = LOG_BYTES_MAX.saturating_sub(self.written);
        let kept = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        self.file.write_all(&bytes[..kept])?;
        self.written = self.written.saturating_add(kept as u64);
        for &byte in bytes {
            if byte == b'\n' || self.line.len() == LINE_BYTES_MAX {
                self.end_line(each_line);
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
        Ok(())
    }

    /// Ends what was said so far: the next that is said is another program's.
    pub(super) fn end(&mut self, each_line: &mut dyn FnMut(&str)) {
        if !self.line.is_empty() {
            self.end_line(each_line);
        }
    }

    /// A program begins; its errors are what is looked for.
    pub(super) fn begin(&mut self, heading: &str) -> io::Result<()> {
        self.take(format!("+ {heading}\n").as_bytes(), &mut |_| {})?;
        self.excerpt = Excerpt::default();
        Ok(())
    }

    fn end_line(&mut self, each_line: &mut dyn FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.line);
        let line: String = text
            .chars()
            .filter(|c| !c.is_control() || *c == '\t')
            .collect();
        self.line.clear();
        each_line(&line);
        self.excerpt.take(line);
    }

    /// The lines that say why it failed.
    pub(super) fn reason(&self) -> Vec<String> {
        self.excerpt.lines()
    }
}

/// Finds the first errors among lines. Of a build with many processes the last lines are those
/// that other processes still said.
#[derive(Clone, Debug, Default)]
struct Excerpt {
    recent: VecDeque<String>,
    errors: Vec<String>,
    /// How many of the next lines still belong to the error before.
    behind: usize,
}

impl Excerpt {
    fn take(&mut self, line: String) {
        if self.errors.len() < EXCERPT_LINES_MAX {
            if is_error(&line) {
                if self.behind == 0 {
                    let before = self.recent.iter().rev().take(LINES_BEFORE);
                    let mut before: Vec<String> = before
                        .take_while(|line| !is_progress(line))
                        .cloned()
                        .collect();
                    before.reverse();
                    self.errors.append(&mut before);
                }
                self.errors.push(line.clone());
                self.behind = LINES_BEHIND;
            } else if self.behind > 0 && !is_progress(&line) {
                self.errors.push(line.clone());
                self.behind -= 1;
            }
        }
        if self.recent.len() == EXCERPT_LINES_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(line);
    }

    fn lines(&self) -> Vec<String> {
        if self.errors.is_empty() {
            return self.recent.iter().cloned().collect();
        }
        let lines = self.errors.iter().take(EXCERPT_LINES_MAX);
        lines.cloned().collect()
    }
}

/// Whether a line is one that says what is made next: two blanks, a word in capitals, a path.
pub(super) fn is_progress(line: &str) -> bool {
    progress(line).is_some()
}

/// The word and the path of such a line.
pub(super) fn progress(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("  ")?;
    let (word, rest) = rest.split_once(' ')?;
    let capital = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if word.is_empty() || !word.bytes().all(capital) {
        return None;
    }
    let rest = rest.trim_start();
    let path = rest.strip_prefix("[M]").unwrap_or(rest).trim_start();
    (!path.is_empty()).then_some((word, path))
}

/// Whether a line says what went wrong.
fn is_error(line: &str) -> bool {
    const WORDS: &[&str] = &[
        "error:",
        "Error ",
        "ERROR:",
        "undefined reference",
        "cannot find",
        "command not found",
        "No such file",
        "No space left",
        "No rule to make target",
        "Permission denied",
        "Killed",
    ];
    // What make itself says behind an error (`make[2]: *** [f.o] Error 1`) adds nothing, unless
    // nothing else was said; but what a signal ended had no words of its own.
    let code = line.rsplit_once("] Error ");
    let by_make =
        line.contains("*** [") && code.is_some_and(|(_, code)| code.parse::<u8>().is_ok());
    let waits = line.contains("Waiting for unfinished jobs");
    let says = line.contains("*** ") || WORDS.iter().any(|word| line.contains(word));
    says && !by_make && !waits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> Vec<String> {
        let mut excerpt = Excerpt::default();
        text.lines().for_each(|line| excerpt.take(line.to_owned()));
        excerpt.lines()
    }

    #[test]
    fn the_first_error_is_shown_and_not_the_last_lines() {
        let mut text =
            "  CC      a.o\nIn file included from a.c:1:\na.h:2:1: error: expected ';'\n \
                        2 | int x\n   | ^\nmake[2]: *** [Makefile:1: a.o] Error 1\n"
                .to_owned();
        for number in 0..100 {
            text.push_str(&format!("  CC      b/{number}.o\n"));
        }
        text.push_str("make: *** [Makefile:1: all] Error 2\n");
        let lines = reason(&text);
        assert_eq!(lines[0], "In file included from a.c:1:");
        assert_eq!(lines[1], "a.h:2:1: error: expected ';'");
        assert!(lines.iter().all(|line| !line.contains("CC")), "{lines:?}");
    }

    #[test]
    fn where_nothing_looks_like_an_error_the_last_lines_are_shown() {
        let lines = reason("one\ntwo\nthree");
        assert_eq!(lines, ["one", "two", "three"]);
        let many = reason(&"a.c:1: error: x\n".repeat(100));
        assert_eq!(many.len(), EXCERPT_LINES_MAX);
    }

    #[test]
    fn lines_of_progress_are_known() {
        assert_eq!(progress("  CC      fs/a.o"), Some(("CC", "fs/a.o")));
        assert_eq!(progress("  CC [M]  fs/a.o"), Some(("CC", "fs/a.o")));
        for line in ["", "  ", "  CC", "  cc a.o", "CC a.o", "   2 | int x"] {
            assert_eq!(progress(line), None, "{line}");
        }
    }

    #[test]
    fn a_log_is_replaced_by_the_next_attempt_and_locked_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log/a.log");
        let never = || -> io::Result<()> { panic!("it is locked") };
        let mut log = Log::open(&path, never).unwrap();
        let mut lines = Vec::new();
        log.start().unwrap();
        log.take(b"one\ntw", &mut |line| lines.push(line.to_owned()))
            .unwrap();
        log.take(b"o\nthree", &mut |line| lines.push(line.to_owned()))
            .unwrap();
        log.end(&mut |line| lines.push(line.to_owned()));
        assert_eq!(lines, ["one", "two", "three"]);
        let mut waited = 0;
        let refused = Log::open(&path, || {
            waited += 1;
            match waited {
                3 => Err(io::Error::from(io::ErrorKind::TimedOut)),
                _ => Ok(()),
            }
        });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(log);
        let mut log = Log::open(&path, never).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\nthree");
        log.start().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
