//! Configurations of coLinux and coMosix, made into recipes.
//!
//! ```text
//! file ─text, xml, ini→ Settings ─machine→ Machine ─recipe→ recipe text
//!                           └──────── notes ─┘
//! ```
//!
//! Three grammars are read: coLinux's text (`key=value` words, `@file`), coLinux's XML, and
//! coMosix's ini. Each gives the same `Settings`; from there on nobody asks which it was. What
//! cannot be carried over becomes a [`Note`] with the line where it stands; nothing is dropped
//! silently. A configuration may come from anyone: files, words and devices have limits, XML has
//! no entities, and no file but those that are included is opened.

mod ini;
mod machine;
mod network;
mod paths;
mod recipe;
mod settings;
mod text;
mod words;
mod xml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err as fs;

pub use machine::{Disk, Machine, NfsRoot, Root};
use settings::Settings;

/// The largest configuration file that is read, in bytes.
const FILE_SIZE_MAX: usize = 1 << 20;

/// A grammar that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// coLinux 0.7: words of `key=value`.
    Text,
    /// coLinux until 0.6: XML.
    Xml,
    /// coMosix: an ini file.
    Ini,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "coLinux text",
            Self::Xml => "coLinux XML",
            Self::Ini => "coMosix ini",
        })
    }
}

/// A place in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What became of something that was not carried over as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It is not in the recipe.
    LeftOut,
    /// Something else takes its place.
    Changed,
    /// Whoever uses the recipe has to do something.
    Adapt,
}

impl Outcome {
    /// Its name for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LeftOut => "left_out",
            Self::Changed => "changed",
            Self::Adapt => "adapt",
        }
    }
}

/// Something that was not carried over as it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Where it stands.
    pub at: At,
    /// What became of it.
    pub outcome: Outcome,
    /// What it is, as it is written there.
    pub what: String,
    /// Why, a lowercase sentence.
    pub why: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.at, self.what, self.why)
    }
}

/// Something wrong in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wrong {
    /// Where.
    pub at: At,
    /// A lowercase sentence.
    pub reason: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.reason)
    }
}

/// Why a configuration was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file system says no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is no configuration that coop reads.
    #[error("{}: {reason}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// A lowercase sentence.
        reason: String,
    },
    /// Every error that was found, in the order of the text.
    #[error("{}", lines(.0))]
    Wrong(Vec<Wrong>),
}

fn lines(wrong: &[Wrong]) -> String {
    let each: Vec<String> = wrong.iter().map(Wrong::to_string).collect();
    each.join("\n")
}

/// An imported configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Which grammar it was written in.
    pub dialect: Dialect,
    /// The recipe, with comments.
    pub recipe: String,
    /// What was not carried over as it was, in the order of the text.
    pub notes: Vec<Note>,
    /// The machine that the configuration describes.
    pub machine: Machine,
}

/// Reads a configuration and the files that it includes. Names of files in the recipe begin at the
/// configuration's folder; for a recipe that will lie elsewhere `folder` is put before them.
///
/// # Errors
/// A file cannot be read, is too large or no text, or its content is wrong: then every error.
pub fn import(file: &Path, folder: Option<&Path>) -> Result<Imported, ImportError> {
    read(file, folder, &mut read_text)
}

/// Reads a configuration whose files are in memory: the first is the configuration.
///
/// # Errors
/// As [`import`].
pub fn import_texts(files: &[(&str, &str)]) -> Result<Imported, ImportError> {
    let texts: BTreeMap<&Path, &str> = files
        .iter()
        .map(|(name, text)| (Path::new(*name), *text))
        .collect();
    let first = files.first().map_or("", |(name, _)| *name);
    read(Path::new(first), None, &mut |path| match texts.get(path) {
        Some(text) => Ok((*text).to_owned()),
        None => Err(ImportError::File {
            file: path.to_owned(),
            reason: "there is no such file".to_owned(),
        }),
    })
}

/// Gives a file's text.
type ReadText<'a> = &'a mut dyn FnMut(&Path) -> Result<String, ImportError>;

fn read(file: &Path, folder: Option<&Path>, texts: ReadText<'_>) -> Result<Imported, ImportError> {
    let text = texts(file)?;
    let dialect = dialect(&text);
    let mut settings = Settings::default();
    match dialect {
        Dialect::Text => text::read(file, &text, texts, &mut settings),
        Dialect::Xml => xml::read(file, &text, &mut settings),
        Dialect::Ini => ini::read(file, &text, &mut settings),
    }
    // What is wrong with the whole is a mere consequence of what is wrong with its parts.
    let machine = settings
        .wrong
        .is_empty()
        .then(|| machine::of(&mut settings, file));
    let Some(machine) = machine.filter(|_| settings.wrong.is_empty()) else {
        settings.wrong.sort();
        settings.wrong.dedup();
        return Err(ImportError::Wrong(settings.wrong));
    };
    settings.notes.sort();
    settings.notes.dedup();
    let recipe = recipe::Text {
        machine: &machine,
        dialect,
        file,
        notes: &settings.notes,
        folder,
    };
    let recipe = recipe.render();
    Ok(Imported {
        dialect,
        recipe,
        notes: settings.notes,
        machine,
    })
}

/// XML begins with a tag; an ini file's first line that says something is a section.
fn dialect(text: &str) -> Dialect {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with('<') {
        return Dialect::Xml;
    }
    let first = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with([';', '#']));
    match first {
        Some(line) if line.starts_with('[') => Dialect::Ini,
        _ => Dialect::Text,
    }
}

fn read_text(file: &Path) -> Result<String, ImportError> {
    let wrong = |reason: String| ImportError::File {
        file: file.to_owned(),
        reason,
    };
    // A pipe or a device would be waited for.
    if !fs::metadata(file)?.is_file() {
        return Err(wrong("this is not a regular file".to_owned()));
    }
    let limit = u64::try_from(FILE_SIZE_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    fs::File::open(file)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() > FILE_SIZE_MAX {
        return Err(wrong(format!(
            "it has more than {FILE_SIZE_MAX} bytes, the limit"
        )));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        wrong(format!("it is not UTF-8 at byte {at}; save it as UTF-8"))
    })?;
    if text.contains('\0') {
        return Err(wrong("it has NUL characters, so it is no text".to_owned()));
    }
    Ok(text)
}
