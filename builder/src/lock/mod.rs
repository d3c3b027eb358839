//! The lock: everything that a recipe's names came to stand for, pinned by digests, in a file beside
//! the recipe.
//!
//! ```text
//! question (suites, names) ─live─→ index, resolver ─→ answer ─┬→ build
//!                          └locked→ the lock's answer ────────┘└→ what was seen: the next lock
//! ```
//!
//! A question is one line of text, so a recipe that asks for something else finds no answer in its
//! old lock, and says which question is new.

mod difference;
mod file;
mod pins;

pub use difference::{Change, differences};
pub use file::{LockError, path_of, read, write};
pub use pins::{NotLocked, Pins};

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// How many indices of a suite a lock remembers beside the newest.
const OLDER_MAX: usize = 16;
/// How many letters a name may differ in from the one that was meant.
const FAR_MAX: usize = 2;
/// The form of the file that this coop reads and writes.
pub const FORMAT: u32 = 1;

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of coop that wrote it.
    pub coop: String,
    /// Every suite that was asked, by its key.
    pub suites: Vec<LockedSuite>,
    /// Every question, in its order.
    pub answers: Vec<Answer>,
    /// Every file that the recipe names, beside its own, by its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<LockedFile>,
}

impl Lock {
    /// Whether a build that was made of what `seen` has would be made of the same with this lock,
    /// which may have more. Names of files are not compared: the evidence has others.
    #[must_use]
    pub fn holds(&self, seen: &Self) -> bool {
        let Self {
            format,
            coop: _,
            suites,
            answers,
            files,
        } = seen;
        let known: BTreeSet<_> = self.files.iter().map(|file| file.sha256).collect();
        *format == self.format
            && suites
                .iter()
                .all(|one| self.suites.iter().any(|known| known.is_as(one)))
            && answers.iter().all(|one| self.answers.contains(one))
            && files.iter().all(|one| known.contains(&one.sha256))
    }

    fn answer(&self, question: &str) -> Option<&Answer> {
        self.answers.iter().find(|one| one.question == question)
    }
}

impl Default for Lock {
    fn default() -> Self {
        Self {
            format: FORMAT,
            coop: env!("CARGO_PKG_VERSION").to_owned(),
            suites: Vec::new(),
            answers: Vec::new(),
            files: Vec::new(),
        }
    }
}

/// A suite's index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedSuite {
    /// The suite's name and, where it is not beside the host's Debian, its archive:
    /// `trixie`, `trixie-security security`, `stable https://…`.
    pub key: String,
    /// The code name that the index says.
    pub codename: String,
    /// When the index was made, in seconds since 1970.
    pub date_seconds: i64,
    /// SHA-256 of the InRelease file.
    pub inrelease: Digest,
    /// Those of indices before it, newest first, where some packages of the lock may still be from
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older: Vec<Digest>,
}

impl LockedSuite {
    /// Whether both have the same index, whatever was before it.
    fn is_as(&self, other: &Self) -> bool {
        self.key == other.key && self.inrelease == other.inrelease
    }

    /// The same with an old lock's indices behind its own.
    fn after(mut self, old: &Self) -> Self {
        if self.inrelease != old.inrelease {
            self.older.push(old.inrelease);
        }
        self.older.extend(&old.older);
        self.older.truncate(OLDER_MAX);
        self
    }
}

/// What a question came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The question, one line.
    pub question: String,
    /// Packages, in the order in which they are unpacked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<LockedPackage>,
    /// Names, where names were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl Answer {
    /// Whether a package is in it, or in its question.
    fn is_about(&self, name: &str) -> bool {
        self.packages.iter().any(|package| package.name == name)
            || subject(&self.question) == Some(name)
    }
}

/// The package whose dependencies a question is about.
fn subject(question: &str) -> Option<&str> {
    let (_, asked) = question.rsplit_once(": ")?;
    asked.strip_prefix("what ")?.strip_suffix(" depends on")
}

/// A name that is to move, and that the lock does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the lock has nothing called '{name}'{}",
    similar.as_ref().map(|name| format!("; did you mean '{name}'?")).unwrap_or_default()
)]
pub struct UnknownName {
    /// The name.
    pub name: String,
    /// The nearest that the lock has.
    pub similar: Option<String>,
}

impl Lock {
    /// Finds out whether the lock has all that is to move: packages by their names, archives by
    /// their addresses.
    ///
    /// # Errors
    /// The first that it does not have.
    pub fn check_names(&self, names: &[String]) -> Result<(), UnknownName> {
        let packages = self.answers.iter().flat_map(|answer| &answer.packages);
        let mut known: BTreeSet<&str> = packages.map(|package| &*package.name).collect();
        let questions = self.answers.iter().map(|answer| &*answer.question);
        known.extend(questions.filter_map(subject));
        known.extend(self.files.iter().map(|file| &*file.name));
        let Some(name) = names.iter().find(|name| !known.contains(name.as_str())) else {
            return Ok(());
        };
        let far = |other: &&str| {
            (
                strsim::damerau_levenshtein(name, other),
                (*other).to_owned(),
            )
        };
        let near = known.iter().map(far).filter(|(far, _)| *far <= FAR_MAX);
        Err(UnknownName {
            name: name.clone(),
            similar: near.min().map(|(_, name)| name),
        })
    }
}

/// A package of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `all` or the architecture.
    pub architecture: String,
    /// The key of its suite.
    pub suite: String,
    /// Where the .deb is, relative to the archive.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
}

/// A file that a recipe names: an archive, a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// Its address, or its path as the recipe writes it.
    pub name: String,
    /// Its size in bytes, where somebody has looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its digest.
    pub sha256: Digest,
}
