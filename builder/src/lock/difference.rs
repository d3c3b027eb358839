//! What differs between two locks, for people.

use std::collections::BTreeMap;
use std::fmt;

use super::{Answer, Lock, LockedPackage};
use crate::digest::Digest;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A question has no answer any more, or is new.
    Question {
        /// The question.
        question: String,
        /// Whether it is new.
        is_new: bool,
    },
    /// A suite has another index, or none on one side.
    Suite {
        /// Its key.
        key: String,
        /// When each index was made, in seconds since 1970.
        dates: [Option<i64>; 2],
    },
    /// A package of an answer.
    Package {
        /// Its name.
        name: String,
        /// Its versions; where they are equal, the package has other bytes.
        versions: [Option<String>; 2],
    },
    /// Names of an answer.
    Names {
        /// The question.
        question: String,
        /// Those that went and those that came.
        names: [Vec<String>; 2],
    },
    /// A file that the recipe names has other content, or is there on one side only.
    File {
        /// Its name.
        name: String,
        /// On which sides it is.
        sides: [bool; 2],
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Question { question, is_new } => {
                let sign = if *is_new { '+' } else { '-' };
                write!(f, "{sign} {question}")
            }
            Self::Suite { key, dates } => match dates {
                [Some(old), Some(new)] => {
                    let hours = (new - old) / 3600;
                    write!(f, "  suite {key}: another index, {hours} hours newer")
                }
                [None, _] => write!(f, "+ suite {key}"),
                [_, None] => write!(f, "- suite {key}"),
            },
            Self::Package { name, versions } => match versions {
                [Some(old), Some(new)] if old == new => {
                    write!(f, "  {name} {old}: other content")
                }
                [Some(old), Some(new)] => write!(f, "  {name} {old} → {new}"),
                [None, Some(new)] => write!(f, "+ {name} {new}"),
                [old, None] => {
                    write!(f, "- {name} {}", old.as_deref().unwrap_or_default())
                }
            },
            Self::Names { question, names } => {
                let [gone, come] = names.each_ref().map(|names| names.join(", "));
                write!(f, "  {question}: {gone} → {come}")
            }
            Self::File { name, sides } => match sides {
                [true, true] => write!(f, "  {name}: other content"),
                [false, _] => write!(f, "+ {name}"),
                [true, false] => write!(f, "- {name}"),
            },
        }
    }
}

/// How the second lock differs from the first; nothing where both give the same build.
#[must_use]
pub fn differences(old: &Lock, new: &Lock) -> Vec<Change> {
    let mut changes = Vec::new();
    let suites = |lock: &Lock| -> BTreeMap<String, (i64, Digest)> {
        let suites = lock.suites.iter();
        suites
            .map(|suite| (suite.key.clone(), (suite.date_seconds, suite.inrelease)))
            .collect()
    };
    for (key, pair) in pairs(suites(old), suites(new)) {
        if pair[0] != pair[1] {
            let dates = pair.map(|suite| suite.map(|(date, _)| date));
            changes.push(Change::Suite { key, dates });
        }
    }
    let answers = |lock: &Lock| -> BTreeMap<String, Answer> {
        let answers = lock.answers.iter();
        answers
            .map(|one| (one.question.clone(), one.clone()))
            .collect()
    };
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for (question, pair) in pairs(answers(old), answers(new)) {
        match pair {
            [Some(old), Some(new)] => {
                packages(&old.packages, &new.packages, &mut changes);
                if old.names != new.names {
                    let names = [
                        without(&old.names, &new.names),
                        without(&new.names, &old.names),
                    ];
                    changes.push(Change::Names { question, names });
                }
            }
            [old, new] => {
                let is_new = new.is_some();
                gone.extend(old.into_iter().flat_map(|answer| answer.packages));
                come.extend(new.into_iter().flat_map(|answer| answer.packages));
                changes.push(Change::Question { question, is_new });
            }
        }
    }
    if !gone.is_empty() && !come.is_empty() {
        // The recipe asks for something else: what that changes.
        packages(&gone, &come, &mut changes);
    }
    let files = |lock: &Lock| -> BTreeMap<String, Digest> {
        let files = lock.files.iter();
        files.map(|file| (file.name.clone(), file.sha256)).collect()
    };
    for (name, pair) in pairs(files(old), files(new)) {
        if pair[0] != pair[1] {
            let sides = pair.map(|digest| digest.is_some());
            changes.push(Change::File { name, sides });
        }
    }
    changes
}

fn without(names: &[String], others: &[String]) -> Vec<String> {
    let only = names.iter().filter(|name| !others.contains(name));
    only.cloned().collect()
}

fn packages(old: &[LockedPackage], new: &[LockedPackage], changes: &mut Vec<Change>) {
    let by_name = |packages: &[LockedPackage]| -> BTreeMap<String, LockedPackage> {
        let packages = packages.iter();
        packages
            .map(|one| (one.name.clone(), one.clone()))
            .collect()
    };
    for (name, pair) in pairs(by_name(old), by_name(new)) {
        if pair[0] != pair[1] {
            let versions = pair.map(|package| package.map(|package| package.version));
            changes.push(Change::Package { name, versions });
        }
    }
}

/// Both values of every key, by key.
fn pairs<V>(
    old: BTreeMap<String, V>,
    new: BTreeMap<String, V>,
) -> BTreeMap<String, [Option<V>; 2]> {
    let mut pairs: BTreeMap<String, [Option<V>; 2]> = BTreeMap::new();
    for (key, value) in old {
        pairs.insert(key, [Some(value), None]);
    }
    for (key, value) in new {
        pairs.entry(key).or_insert([None, None])[1] = Some(value);
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{LockedFile, LockedSuite};

    fn lock(date: i64, packages: &[(&str, &str)]) -> Lock {
        let package = |(name, version): &(&str, &str)| LockedPackage {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            architecture: "amd64".to_owned(),
            suite: "trixie".to_owned(),
            path: "pool/x.deb".to_owned(),
            size: 1,
            sha256: Digest::of(format!("{name}{version}").as_bytes()),
        };
        Lock {
            suites: vec![LockedSuite {
                key: "trixie".to_owned(),
                codename: "trixie".to_owned(),
                date_seconds: date,
                inrelease: Digest::of(&date.to_le_bytes()),
                older: Vec::new(),
            }],
            answers: vec![Answer {
                question: "q".to_owned(),
                packages: packages.iter().map(package).collect(),
                names: Vec::new(),
            }],
            ..Lock::default()
        }
    }

    fn said(old: &Lock, new: &Lock) -> Vec<String> {
        differences(old, new)
            .iter()
            .map(Change::to_string)
            .collect()
    }

    #[test]
    fn differences_are_told() {
        let old = lock(0, &[("a", "1"), ("b", "1"), ("c", "1")]);
        assert_eq!(said(&old, &old), Vec::<String>::new());
        let mut new = lock(7200, &[("a", "1"), ("b", "2"), ("d", "1")]);
        assert_eq!(
            said(&old, &new),
            [
                "  suite trixie: another index, 2 hours newer",
                "  b 1 → 2",
                "- c 1",
                "+ d 1"
            ]
        );
        new.answers[0].packages[0].sha256 = Digest::of(b"");
        assert!(said(&old, &new).contains(&"  a 1: other content".to_owned()));
        new.answers[0].names = vec!["x".to_owned(), "y".to_owned()];
        new.files = vec![LockedFile {
            name: "root.tar".to_owned(),
            size: Some(1),
            sha256: Digest::of(b""),
        }];
        let told = said(&old, &new);
        assert_eq!(told[told.len() - 2..], ["  q:  → x, y", "+ root.tar"]);
        new.files.clear();
        new.answers[0].question = "r".to_owned();
        assert_eq!(
            said(&old, &new)[1..],
            [
                "- q",
                "+ r",
                "  a 1: other content",
                "  b 1 → 2",
                "- c 1",
                "+ d 1"
            ]
        );
    }
}
