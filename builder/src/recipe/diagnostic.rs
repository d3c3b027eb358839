//! What is wrong with a recipe, and exactly where.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// A stretch of the recipe's text, within one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// Length in characters, at least 1.
    pub width: usize,
    /// The line's text, without its end.
    pub text: String,
}

/// What is wrong. Every sentence is about the recipe: the fault is the recipe's, except for
/// [`Problem::NotSupported`] and [`Problem::Limit`], which name a limit of coop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is not YAML.
    #[error("invalid YAML: {0}")]
    Syntax(String),
    /// The text is larger or deeper than coop reads.
    #[error("{0}")]
    Limit(String),
    /// A key that the schema does not have.
    #[error("unknown key '{key}' in {within}")]
    UnknownKey {
        /// The key.
        key: String,
        /// The map's path, as `rootfs.source`, or `the recipe`.
        within: String,
    },
    /// A key of the schema that this version does not act on.
    #[error("{0} is not supported yet")]
    NotSupported(String),
    /// A key that must be there.
    #[error("{within} needs '{key}'")]
    Missing {
        /// The key.
        key: String,
        /// The map's path.
        within: String,
    },
    /// The value has another form than the schema wants.
    #[error("{path} must be {expected}, but this is {found}")]
    WrongType {
        /// The value's path.
        path: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The value has the right form and the wrong content.
    #[error("{path}: {reason}")]
    Value {
        /// The value's path.
        path: String,
        /// A lowercase sentence.
        reason: String,
    },
    /// `${name}` without such a variable.
    #[error("undefined variable '{0}'")]
    UndefinedVariable(String),
    /// A variable without a value in the recipe that was given none.
    #[error("variable '{0}' has no value")]
    UnsetVariable(String),
    /// A `--set` for a variable that the recipe does not have.
    #[error("the recipe has no variable '{0}' to set")]
    UnknownSet(String),
    /// A file that the recipe names cannot be used.
    #[error("{path}: {reason}")]
    File {
        /// The value's path.
        path: String,
        /// A lowercase sentence with the file's name.
        reason: String,
    },
}

/// One error in a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The recipe's file.
    pub file: PathBuf,
    /// Where in the file; absent where the error is not in its text.
    pub place: Option<Place>,
    /// What is wrong.
    pub problem: Problem,
    /// How to go on, a lowercase sentence.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(place) = &self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for Diagnostic {}

/// Something doubtful that does not stop the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The recipe's file.
    pub file: PathBuf,
    /// Where in the file.
    pub place: Option<Place>,
    /// A lowercase sentence.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(place) = &self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A position in the text: what a node keeps, before anyone asks for the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Line, counted from 1; 0 where unknown.
    pub(super) line: usize,
    /// Column in characters, counted from 1.
    pub(super) column: usize,
    /// Length in characters.
    pub(super) width: usize,
}

/// The recipe's text with its name.
pub(super) struct Source<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
    /// The only names that its files may have, where it is not the reader's own recipe.
    pub(super) names: Option<&'a BTreeSet<String>>,
}

/// The longest piece of a line that is shown, in characters.
const LINE_SHOWN_MAX: usize = 400;

impl Source<'_> {
    /// Cuts the line out of the text; a stretch over several lines ends with its first.
    pub(super) fn place(&self, position: Position) -> Option<Place> {
        let index = position.line.checked_sub(1)?;
        let line = self.text.lines().nth(index).unwrap_or_default();
        let text: String = line.chars().take(LINE_SHOWN_MAX).collect();
        let length = text.chars().count();
        let column = position.column.clamp(1, length.saturating_add(1));
        let rest = length.saturating_sub(column.saturating_sub(1));
        Some(Place {
            line: position.line,
            column,
            width: position.width.clamp(1, rest.max(1)),
            text,
        })
    }
}

/// Finds the known word that was probably meant.
pub(super) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word_is_near() {
        assert_eq!(nearest("hostnam", ["hostname", "files"]), Some("hostname"));
        assert_eq!(nearest("colour", ["hostname", "files"]), None);
        assert_eq!(nearest("rn", ["run", "rootfs"]), Some("run"));
    }

    #[test]
    fn a_place_never_leaves_its_line() {
        let source = Source {
            file: Path::new("r.yaml"),
            text: "abc\ndef",
            names: None,
        };
        let at = |line, column, width| {
            source.place(Position {
                line,
                column,
                width,
            })
        };
        assert_eq!(at(0, 1, 1), None);
        let place = at(2, 2, 900).unwrap();
        assert_eq!((place.column, place.width, &*place.text), (2, 2, "def"));
        let beyond = at(9, 7, 0).unwrap();
        assert_eq!((beyond.column, beyond.width), (1, 1));
    }
}
