//! The files of a tree: none outside of it, none twice, none without an end.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::KconfigError;
use super::limits::{FILE_BYTES_MAX, FILES_MAX, PATTERN_NAMES_MAX, TREE_BYTES_MAX};

/// Reads the files of one tree.
#[derive(Debug)]
pub(super) struct Files {
    /// None where all are in memory.
    root: Option<PathBuf>,
    read: HashMap<String, Rc<str>>,
    files: usize,
    bytes: u64,
}

impl Files {
    pub(super) fn new(root: &Path) -> Result<Files, KconfigError> {
        let root = fs_err::canonicalize(root)?;
        Ok(Files {
            root: Some(root),
            ..Files::of(std::iter::empty())
        })
    }

    /// Files that are in memory already, and no others.
    pub(super) fn of<'t>(texts: impl Iterator<Item = (&'t str, &'t str)>) -> Files {
        Files {
            root: None,
            read: texts
                .map(|(path, text)| (path.to_owned(), text.into()))
                .collect(),
            files: 0,
            bytes: 0,
        }
    }

    /// The text of a file by its path in the tree; `None` where there is none.
    pub(super) fn text(&mut self, path: &str) -> Result<Option<Rc<str>>, KconfigError> {
        let text = match self.read.get(path) {
            Some(text) => Rc::clone(text),
            None => match self.load(path)? {
                Some(text) => {
                    let text: Rc<str> = text.into();
                    self.read.insert(path.to_owned(), Rc::clone(&text));
                    text
                }
                None => return Ok(None),
            },
        };
        self.files += 1;
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.files > FILES_MAX || self.bytes > TREE_BYTES_MAX {
            return Err(KconfigError::TooMuch {
                what: path.to_owned(),
                limit: format!("{FILES_MAX} files or {TREE_BYTES_MAX} bytes in all"),
            });
        }
        Ok(Some(text))
    }

    fn load(&self, path: &str) -> Result<Option<String>, KconfigError> {
        let Some(root) = &self.root else {
            return Ok(None);
        };
        let found = match fs_err::canonicalize(root.join(path)) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !found.starts_with(root) {
            return Err(KconfigError::Outside(path.to_owned()));
        }
        // Looked at before it is opened: a pipe would wait for ever.
        if !fs_err::metadata(&found)?.is_file() {
            return Err(KconfigError::Invalid {
                place: path.to_owned(),
                problem: "is not a file".to_owned(),
            });
        }
        let mut bytes = Vec::new();
        fs_err::File::open(&found)?
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).map_or(true, |length| length > FILE_BYTES_MAX) {
            return Err(KconfigError::TooMuch {
                what: path.to_owned(),
                limit: format!("{FILE_BYTES_MAX} bytes in one file"),
            });
        }
        Ok(Some(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }))
    }

    /// The paths that a pattern of an include matches, sorted.
    pub(super) fn matching(&self, pattern: &str) -> Result<Vec<String>, KconfigError> {
        let Some(root) = &self.root else {
            return Ok(Vec::new());
        };
        let mut found = vec![String::new()];
        let mut names = 0;
        for part in pattern.split('/') {
            let mut next = Vec::new();
            for folder in &found {
                if !is_pattern(part) {
                    next.push(join(folder, part));
                    continue;
                }
                let Ok(entries) = fs_err::read_dir(root.join(folder)) else {
                    continue;
                };
                for entry in entries {
                    names += 1;
                    if names > PATTERN_NAMES_MAX {
                        return Err(KconfigError::TooMuch {
                            what: pattern.to_owned(),
                            limit: format!("{PATTERN_NAMES_MAX} names for one pattern"),
                        });
                    }
                    if let Some(name) = entry?.file_name().to_str()
                        && matches(part.as_bytes(), name.as_bytes())
                    {
                        next.push(join(folder, name));
                    }
                }
            }
            found = next;
        }
        found.retain(|path| root.join(path).is_file());
        found.sort_unstable();
        Ok(found)
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

/// A path from the tree's root without `.` and `..`; `None` where it leads out of the tree.
pub(super) fn normal(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?'])
}

/// Whether a name is what `*` and `?` describe. Names that begin with a dot are hidden.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // Where to go on when the last star has to take one byte more.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                retry = Some((p, n));
            }
            Some(byte) if *byte == b'?' || name.get(n) == Some(byte) => {
                p += 1;
                n += 1;
            }
            _ => match &mut retry {
                Some((star, taken)) => {
                    *taken += 1;
                    (p, n) = (*star, *taken);
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_paths() {
        let is = |pattern: &str, name: &str| matches(pattern.as_bytes(), name.as_bytes());
        assert!(is("Kconfig*", "Kconfig") && is("*", "a") && is("K*g.?", "Kconfig.x"));
        assert!(is("*a*b", "xaayb") && !is("*a*b", "xaay") && !is("?", "") && !is("*", ".git"));
        assert_eq!(
            normal("fs/ext4", "../Kconfig").as_deref(),
            Some("fs/Kconfig")
        );
        assert_eq!(normal("", "./a//b").as_deref(), Some("a/b"));
        assert_eq!(normal("fs", "../../etc/passwd"), None);
        assert_eq!(normal("", "/etc/passwd"), None);
    }
}
