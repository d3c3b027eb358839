//! Unified diffs, as diff(1) and git write them, into changes of files.
//!
//! Strict where `patch` guesses: a hunk has exactly the lines that its head says, every hunk has a
//! file, and every path stays inside the tree. Text around the changes (mail headers, messages,
//! `Index:` lines) is passed over.

use coop_image::tree::display;

use super::{Change, FilePatch, Hunk, Operation, PatchError};

/// The most files that one patch changes.
const FILES_MAX: usize = 100_000;
/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// How much of a path that is refused is shown.
const PATH_SHOWN_BYTES: usize = 200;
/// What stands for "no file".
const NOTHING: &[u8] = b"/dev/null";
/// Modes that git writes for regular files.
const PLAIN_MODE: &[u8] = b"100644";
const EXECUTABLE_MODE: &[u8] = b"100755";

/// Reads a patch whose last line ends with a line feed. The first component of each path is
/// dropped, as `patch -p1` does.
pub(super) fn parse<'a>(name: &str, text: &'a [u8]) -> Result<Vec<FilePatch<'a>>, PatchError> {
    let mut parser = Parser {
        name,
        lines: text.split_inclusive(|byte| *byte == b'\n').collect(),
        next: 0,
        files: Vec::new(),
    };
    parser.read()?;
    Ok(parser.files)
}

struct Parser<'a, 'n> {
    name: &'n str,
    lines: Vec<&'a [u8]>,
    next: usize,
    files: Vec<FilePatch<'a>>,
}

/// What the lines between `diff --git` and the first hunk say.
#[derive(Default)]
struct GitHead {
    /// The two names of the `diff --git` line, where it can be told where one ends.
    names: Option<(Vec<u8>, Vec<u8>)>,
    executable: Option<bool>,
    created: bool,
    deleted: bool,
    renamed: Option<bool>,
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
}

impl<'a> Parser<'a, '_> {
    fn read(&mut self) -> Result<(), PatchError> {
        while let Some(line) = self.peek() {
            if line.starts_with(b"diff --git ") {
                self.read_git()?;
            } else if self.is_at_names() {
                self.read_plain()?;
            } else if is_hunk_head(line) {
                return Err(self.syntax("a hunk without the name of a file before it"));
            } else if line.starts_with(b"***************") {
                return Err(self.syntax("a context diff; coop reads unified ones (diff -u)"));
            } else if line.starts_with(b"@@@ ") {
                return Err(self.syntax("a combined diff of a merge; make one against one parent"));
            } else if is_binary(line) {
                return Err(self.syntax("a change of a binary file, which coop does not apply"));
            } else {
                self.next += 1;
            }
            if self.files.len() > FILES_MAX {
                return Err(self.syntax(&format!("more than {FILES_MAX} files")));
            }
        }
        Ok(())
    }

    fn peek(&self) -> Option<&'a [u8]> {
        self.lines.get(self.next).copied()
    }

    /// Whether `---` and `+++` lines come, and a hunk behind them.
    fn is_at_names(&self) -> bool {
        let line = |ahead: usize| self.lines.get(self.next + ahead).copied().unwrap_or(b"");
        line(0).starts_with(b"--- ") && line(1).starts_with(b"+++ ") && is_hunk_head(line(2))
    }

    fn syntax(&self, problem: &str) -> PatchError {
        PatchError::Syntax {
            patch: self.name.to_owned(),
            line: self.next + 1,
            problem: problem.to_owned(),
        }
    }

    fn read_plain(&mut self) -> Result<(), PatchError> {
        let (old, new) = self.read_names()?;
        let hunks = self.read_hunks()?;
        let operation = match (&old, &new) {
            (None, None) => return Err(self.syntax("a change from nothing to nothing")),
            (None, Some(_)) => Operation::Create,
            (Some(_), None) => Operation::Delete,
            (Some(_), Some(_)) => Operation::Modify,
        };
        self.push(old, new, operation, None, hunks)
    }

    fn read_git(&mut self) -> Result<(), PatchError> {
        let head = self.read_git_head()?;
        let mut names = None;
        let mut hunks = Vec::new();
        if self.is_at_names() {
            names = Some(self.read_names()?);
            hunks = self.read_hunks()?;
        }
        let operation = match head.renamed {
            _ if head.created => Operation::Create,
            _ if head.deleted => Operation::Delete,
            Some(true) => Operation::Rename,
            Some(false) => Operation::Copy,
            None => Operation::Modify,
        };
        if matches!(operation, Operation::Rename | Operation::Copy) {
            let (Some(from), Some(to)) = (&head.from, &head.to) else {
                return Err(self.syntax("a rename or copy without both names"));
            };
            // These two have no prefix.
            let old = Some(self.checked(from, from)?);
            let new = Some(self.checked(to, to)?);
            return self.push(old, new, operation, head.executable, hunks);
        }
        let (old, new) = match (names, head.names) {
            (Some(names), _) => names,
            (None, Some((old, new))) => {
                let old = self.path(&old)?;
                let new = self.path(&new)?;
                (Some(old), Some(new))
            }
            (None, None) => {
                return Err(self.syntax("the names before it cannot be told from one another"));
            }
        };
        if operation == Operation::Modify && hunks.is_empty() && head.executable.is_none() {
            return Ok(());
        }
        let (old, new) = match operation {
            Operation::Create => (None, new),
            Operation::Delete => (old, None),
            _ => (old, new),
        };
        self.push(old, new, operation, head.executable, hunks)
    }

    fn read_git_head(&mut self) -> Result<GitHead, PatchError> {
        let mut head = GitHead::default();
        let first = self.peek().unwrap_or_default();
        head.names = split_names(trim_end(
            first.strip_prefix(b"diff --git ").unwrap_or(first),
        ));
        if head.names.as_ref().is_some_and(|(old, new)| old == new) {
            return Err(self.syntax("names without a/ and b/; make it without --no-prefix"));
        }
        self.next += 1;
        while let Some(line) = self.peek() {
            let line = trim_end(line);
            let value = |prefix: &str| line.strip_prefix(prefix.as_bytes());
            if let Some(mode) = value("new file mode ") {
                head.created = true;
                head.executable = Some(self.mode(mode)?);
            } else if let Some(mode) = value("deleted file mode ") {
                head.deleted = true;
                self.mode(mode)?;
            } else if let Some(mode) = value("new mode ") {
                head.executable = Some(self.mode(mode)?);
            } else if let Some(name) = value("rename from ") {
                (head.renamed, head.from) = (Some(true), unquoted(name));
            } else if let Some(name) = value("copy from ") {
                (head.renamed, head.from) = (Some(false), unquoted(name));
            } else if let Some(name) = value("rename to ").or_else(|| value("copy to ")) {
                head.to = unquoted(name);
            } else if is_binary(line) {
                return Err(self.syntax("a change of a binary file, which coop does not apply"));
            } else if ![
                "old mode ",
                "similarity index ",
                "dissimilarity index ",
                "index ",
            ]
            .iter()
            .any(|known| value(known).is_some())
            {
                break;
            }
            self.next += 1;
        }
        Ok(head)
    }

    fn mode(&self, mode: &[u8]) -> Result<bool, PatchError> {
        match mode {
            PLAIN_MODE => Ok(false),
            EXECUTABLE_MODE => Ok(true),
            b"120000" => Err(self.syntax("a symbolic link; coop's patches change files only")),
            other => {
                let mode = display(&other[..other.len().min(20)]);
                Err(self.syntax(&format!("the mode '{mode}'; it must be 100644 or 100755")))
            }
        }
    }

    /// The `---` and `+++` lines; `None` is `/dev/null`.
    #[expect(clippy::type_complexity, reason = "two paths")]
    fn read_names(&mut self) -> Result<(Option<Vec<u8>>, Option<Vec<u8>>), PatchError> {
        let mut names = [None, None];
        for (name, prefix) in names.iter_mut().zip([b"--- ", b"+++ "]) {
            let line = self.peek().unwrap_or_default();
            let text = line.strip_prefix(prefix).unwrap_or(line);
            if text.ends_with(b"\r\n") {
                return Err(self.syntax("lines that end as Windows has it; convert it (dos2unix)"));
            }
            let text = text.split(|byte| *byte == b'\t').next().unwrap_or(text);
            let written = unquoted(trim_end(text))
                .ok_or_else(|| self.syntax("a name in quotes that cannot be read"))?;
            if written != NOTHING {
                *name = Some(self.path(&written)?);
            }
            self.next += 1;
        }
        Ok(names.into())
    }

    /// Drops the first component and checks what is left.
    fn path(&self, written: &[u8]) -> Result<Vec<u8>, PatchError> {
        let slash = written.iter().position(|byte| *byte == b'/');
        let slash = slash.ok_or_else(|| {
            let problem = "has no folder in front; patches are applied as 'patch -p1' does";
            self.bad_path(written, problem)
        })?;
        self.checked(written, &written[slash + 1..])
    }

    fn bad_path(&self, written: &[u8], problem: &str) -> PatchError {
        PatchError::Path {
            patch: self.name.to_owned(),
            line: self.next + 1,
            path: display(&written[..written.len().min(PATH_SHOWN_BYTES)]),
            problem: problem.to_owned(),
        }
    }

    fn checked(&self, written: &[u8], rest: &[u8]) -> Result<Vec<u8>, PatchError> {
        let fail = |problem: &str| self.bad_path(written, problem);
        if rest.len() > PATH_BYTES_MAX {
            return Err(fail("is too long"));
        }
        if rest.contains(&0) {
            return Err(fail("has a NUL byte in it"));
        }
        for part in rest.split(|byte| *byte == b'/') {
            match part {
                b"" => return Err(fail("is absolute or has an empty component")),
                b"." | b".." => return Err(fail("has '.' or '..' in it")),
                part if part.eq_ignore_ascii_case(b".git") => {
                    return Err(fail("is git's own"));
                }
                _ => {}
            }
        }
        Ok(rest.to_owned())
    }

    fn push(
        &mut self,
        old: Option<Vec<u8>>,
        new: Option<Vec<u8>>,
        operation: Operation,
        executable: Option<bool>,
        hunks: Vec<Hunk<'a>>,
    ) -> Result<(), PatchError> {
        let target = match (&old, &new) {
            (Some(path), None) | (_, Some(path)) => path.clone(),
            (None, None) => return Err(self.syntax("a change of no file")),
        };
        self.files.push(FilePatch {
            old: old.unwrap_or_else(|| target.clone()),
            new: target,
            operation,
            executable,
            hunks,
        });
        Ok(())
    }

    fn read_hunks(&mut self) -> Result<Vec<Hunk<'a>>, PatchError> {
        let mut hunks = Vec::new();
        while let Some(line) = self.peek() {
            if is_hunk_head(line) {
                hunks.push(self.read_hunk()?);
                continue;
            }
            // A hunk that is longer than its head says would lose changes without a word.
            let is_signature = line.starts_with(b"--");
            if matches!(line.first(), Some(b'+' | b' ')) || (line[0] == b'-' && !is_signature) {
                return Err(self.syntax("more lines in the hunk before it than its head says"));
            }
            break;
        }
        Ok(hunks)
    }

    fn read_hunk(&mut self) -> Result<Hunk<'a>, PatchError> {
        let head = self.peek().unwrap_or_default();
        let Some((old, new)) = hunk_ranges(head) else {
            return Err(self.syntax("a hunk's head that cannot be read"));
        };
        let mut hunk = Hunk {
            old_start: old.0,
            new_start: new.0,
            changes: Vec::new(),
        };
        self.next += 1;
        let (mut old_left, mut new_left) = (old.1, new.1);
        while old_left > 0 || new_left > 0 {
            let short = "fewer lines in the hunk before it than its head says";
            let line = self.peek().ok_or_else(|| self.syntax(short))?;
            let (change, text) = match line.split_first() {
                Some((b' ', text)) => (Change::Keep, text),
                Some((b'-', text)) => (Change::Remove, text),
                Some((b'+', text)) => (Change::Add, text),
                // Mailers drop the space of an empty line.
                Some((b'\n', _)) => (Change::Keep, line),
                _ => return Err(self.syntax(short)),
            };
            let enough = match change {
                Change::Keep => old_left > 0 && new_left > 0,
                Change::Remove => old_left > 0,
                Change::Add => new_left > 0,
            };
            if !enough {
                return Err(self.syntax("a hunk with other lines than its head says"));
            }
            old_left -= usize::from(change != Change::Add);
            new_left -= usize::from(change != Change::Remove);
            self.next += 1;
            let text = match self.peek() {
                Some([b'\\', ..]) => {
                    self.next += 1;
                    text.strip_suffix(b"\n").unwrap_or(text)
                }
                _ => text,
            };
            hunk.changes.push((change, text));
        }
        Ok(hunk)
    }
}

fn is_binary(line: &[u8]) -> bool {
    line.starts_with(b"GIT binary patch")
        || (line.starts_with(b"Binary files ") && trim_end(line).ends_with(b" differ"))
}

fn is_hunk_head(line: &[u8]) -> bool {
    line.starts_with(b"@@ -")
}

/// `@@ -START[,COUNT] +START[,COUNT] @@`.
fn hunk_ranges(head: &[u8]) -> Option<((usize, usize), (usize, usize))> {
    let text = head.strip_prefix(b"@@ -")?;
    let end = text.windows(3).position(|window| window == b" @@")?;
    let text = std::str::from_utf8(&text[..end]).ok()?;
    let (old, new) = text.split_once(" +")?;
    let range = |text: &str| {
        let (start, count) = text.split_once(',').unwrap_or((text, "1"));
        let number = |text: &str| {
            text.parse::<u32>()
                .ok()
                .and_then(|n| usize::try_from(n).ok())
        };
        Some((number(start)?, number(count)?))
    };
    Some((range(old)?, range(new)?))
}

fn trim_end(line: &[u8]) -> &[u8] {
    line.trim_ascii_end()
}

/// The two names of a `diff --git` line, which have no end of their own: they are quoted, or the
/// same but for their first component.
fn split_names(text: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    if text.starts_with(b"\"") {
        let end = text.windows(3).position(|window| window == b"\" \"")?;
        return Some((unquoted(&text[..=end])?, unquoted(&text[end + 2..])?));
    }
    let rest_of = |name: &[u8]| {
        let slash = name.iter().position(|byte| *byte == b'/')?;
        Some(name[slash..].to_owned())
    };
    let spaces = (0..text.len()).filter(|index| text[*index] == b' ');
    let mut splits = spaces.map(|index| (&text[..index], &text[index + 1..]));
    let (old, new) = splits.find(|(old, new)| {
        old == new || (rest_of(old).is_some() && rest_of(old) == rest_of(new))
    })?;
    Some((old.to_owned(), new.to_owned()))
}

/// A name as git quotes it where it has unusual bytes.
fn unquoted(name: &[u8]) -> Option<Vec<u8>> {
    let Some(inner) = name.strip_prefix(b"\"") else {
        return Some(name.to_owned());
    };
    let inner = inner.strip_suffix(b"\"")?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b'a' => 7,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 11,
            b'f' => 12,
            b'r' => b'\r',
            quoted @ (b'"' | b'\\') => quoted,
            first @ b'0'..=b'3' => {
                let digits = [first, rest.next()?, rest.next()?];
                let text = std::str::from_utf8(&digits).ok()?;
                u8::from_str_radix(text, 8).ok()?
            }
            _ => return None,
        });
    }
    Some(bytes)
}
