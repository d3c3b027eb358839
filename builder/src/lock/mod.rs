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
            && suites.iter().all(|one| self.suites.contains(one))
            && answers.iter().all(|one| self.answers.contains(one))
            && files.iter().all(|one| known.contains(&one.sha256))
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
