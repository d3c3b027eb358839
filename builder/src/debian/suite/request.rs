//! What is asked of which suite, and what is said of the answer.

use crate::debian::keys::Keyring;
use crate::debian::mirror::Mirror;
use crate::debian::resolve::Variant;
use crate::digest::Digest;
use crate::fetch::Download;
use crate::lock::LockedPackage;

/// The component that a request without components means.
pub(super) const DEFAULT_COMPONENT: &str = "main";

/// Which suite of which archive.
#[derive(Clone, Debug)]
pub struct SuiteRequest {
    /// The archive.
    pub mirror: Mirror,
    /// What a lock calls it; nothing for the Debian archive at hand.
    pub archive: String,
    /// Suite or codename.
    pub suite: String,
    /// `main` where there are none.
    pub components: Vec<String>,
    /// Debian's name of the architecture.
    pub architecture: String,
    /// Whether the architecture is not the one that recipes mean without naming it.
    pub named_architecture: bool,
    /// Further architectures that packages may have, for suites that have them.
    pub foreign: Vec<String>,
    /// Who may sign; Debian's own keys where there is none. With those, the archive must also call
    /// itself Debian's.
    pub keyring: Option<Keyring>,
    /// What its packages are preferred with, as apt has it (apt_preferences(5)); where nobody says,
    /// what the suite itself asks for.
    pub priority: Option<u16>,
    /// The present, in seconds since 1970.
    pub now_seconds: i64,
    /// The InRelease file that a lock names.
    pub pinned: Option<Digest>,
}

impl SuiteRequest {
    /// What a lock calls the suite's index.
    pub(crate) fn key(&self) -> String {
        format!("{} {}", self.suite, self.archive)
            .trim_end()
            .to_owned()
    }

    /// The suite in a question: with what its answer depends on besides.
    pub(super) fn in_question(&self) -> String {
        let mut text = self.key();
        if self.components.iter().any(|name| name != DEFAULT_COMPONENT) {
            text.push_str(&format!(" ({})", self.components.join(" ")));
        }
        if let Some(priority) = self.priority {
            text.push_str(&format!(" at {priority}"));
        }
        if self.named_architecture {
            text.push_str(&format!(" for {}", self.architecture));
        }
        if !self.foreign.is_empty() {
            text.push_str(&format!(" with {}", self.foreign.join(" ")));
        }
        text
    }
}

/// What to install from a suite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// What is there anyway.
    pub variant: Variant,
    /// Names, each with a constraint or a suite if wanted: `nginx-light`, `libc6 (>= 2.41)`,
    /// `linux-source/trixie-backports`.
    pub packages: Vec<String>,
    /// Whether recommended packages are taken too.
    pub recommends: bool,
    /// Packages that are not taken, whatever others say.
    pub exclude: Vec<String>,
}

impl Selection {
    pub(super) fn question(&self) -> String {
        let mut parts = vec![match self.variant {
            Variant::Minimal => "minimal",
            Variant::Essential => "essential",
            Variant::Nothing => "nothing",
        }];
        parts.extend(self.packages.iter().map(String::as_str));
        if self.recommends {
            parts.push("what is recommended");
        }
        let without = self.exclude.iter().map(|name| format!("without {name}"));
        let without: Vec<String> = without.collect();
        parts.extend(without.iter().map(String::as_str));
        parts.join(", ")
    }
}

/// A package that was chosen: what a lock has to name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `all` or the architecture.
    pub architecture: String,
    /// What a lock calls its suite.
    pub suite: String,
    /// Where it is in its archive.
    pub path: String,
    /// Where the .deb is and how it is known.
    pub download: Download,
}

impl SelectedPackage {
    pub(super) fn locked(&self) -> LockedPackage {
        LockedPackage {
            name: self.name.clone(),
            version: self.version.clone(),
            architecture: self.architecture.clone(),
            suite: self.suite.clone(),
            path: self.path.clone(),
            size: self.download.size_bytes.unwrap_or_default(),
            sha256: self.download.digest,
        }
    }

    /// The package as one line that pins it: `libc6 2.41-12 amd64 sha256:…`.
    #[must_use]
    pub fn pin(&self) -> String {
        format!(
            "{} {} {} sha256:{}",
            self.name, self.version, self.architecture, self.download.digest
        )
    }
}

/// What a selection came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The packages, those that others depend on first.
    pub packages: Vec<SelectedPackage>,
    /// The names of those that were asked for, or are there anyway; the others are there for them.
    pub requested: Vec<String>,
}

/// What is known of a suite that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuiteFacts {
    /// The code name that its index says.
    pub codename: String,
    /// When the index was made, in seconds since 1970.
    pub date_seconds: i64,
    /// SHA-256 of the InRelease file.
    pub digest: Digest,
}
