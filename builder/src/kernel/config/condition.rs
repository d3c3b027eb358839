//! For which kernels a line of a fragment is meant.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::kernel::Target;

/// The first two numbers of a kernel's version; the rest changes no symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// As the 6 of 6.12.
    pub major: u32,
    /// As the 12 of 6.12.
    pub minor: u32,
}

impl Version {
    /// Reads `6.12` and nothing longer.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self {
            major: number(major)?,
            minor: number(minor)?,
        })
    }

    /// Reads the beginning of a release, as `uname -r` gives it: `7.2.13-amd64`, `6.9-rc1`.
    #[must_use]
    pub fn of_release(release: &str) -> Option<Self> {
        let mut numbers = release.split(|character: char| !character.is_ascii_digit());
        Some(Self {
            major: number(numbers.next()?)?,
            minor: number(numbers.next()?)?,
        })
    }

    /// Reads `VERSION` and `PATCHLEVEL` at the head of a kernel tree's Makefile.
    #[must_use]
    pub fn of_makefile(text: &str) -> Option<Self> {
        let value = |name: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                (key.trim() == name).then(|| number(value.trim()))?
            })
        };
        Some(Self {
            major: value("VERSION")?,
            minor: value("PATCHLEVEL")?,
        })
    }
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// For which kernels a paragraph is meant; everything that is stated must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Only for this target.
    pub only: Option<Target>,
    /// Not for versions before this one.
    pub from: Option<Version>,
    /// Not for versions after this one.
    pub until: Option<Version>,
}

impl Condition {
    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, target: Target, version: Version) -> bool {
        self.only.is_none_or(|only| only == target)
            && self.from.is_none_or(|from| version >= from)
            && self.until.is_none_or(|until| version <= until)
    }

    /// Adds what a line says after `#:`.
    ///
    /// # Errors
    /// A lowercase sentence: an unknown condition, or one that is there already.
    pub(super) fn add(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let twice = match *words.as_slice() {
            ["only", target] => {
                let target = Target::parse(target).ok_or_else(|| unknown(line))?;
                self.only.replace(target).is_some()
            }
            ["from", version] => {
                let version = Version::parse(version).ok_or_else(|| unknown(line))?;
                self.from.replace(version).is_some()
            }
            ["until", version] => {
                let version = Version::parse(version).ok_or_else(|| unknown(line))?;
                self.until.replace(version).is_some()
            }
            _ => return Err(unknown(line)),
        };
        if twice {
            let word = words.first().copied().unwrap_or_default();
            return Err(format!("the paragraph has two conditions '{word}'"));
        }
        Ok(())
    }
}

fn unknown(line: &str) -> String {
    let line = super::wanted::shorten(line.trim());
    format!(
        "'{line}' is not a condition; known are 'only um', 'only x86_64', 'from 6.16' and 'until 6.15'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn version(major: u32, minor: u32) -> Version {
        Version { major, minor }
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(Version::parse("6.12"), Some(version(6, 12)));
        for bad in ["", "6", "6.", "6.12.3", "6.x", "+6.1", "99999999999.1"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
        assert_eq!(Version::of_release("7.2.13-amd64"), Some(version(7, 2)));
        assert_eq!(Version::of_release("6.9-rc1"), Some(version(6, 9)));
        assert_eq!(Version::of_release("nonsense"), None);
        assert!(version(6, 9) < version(6, 12));
        let makefile = "# SPDX\nVERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 13\nEXTRAVERSION =\n";
        assert_eq!(Version::of_makefile(makefile), Some(version(7, 2)));
        assert_eq!(Version::of_makefile("VERSION = 7\n"), None);
    }

    #[test]
    fn conditions_hold_where_they_say() {
        let mut condition = Condition::default();
        assert!(condition.holds(Target::X86_64, version(1, 0)));
        for line in [" only um", "from 6.12", " until 6.15 "] {
            condition.add(line).unwrap();
        }
        let held = [
            (Target::Um, version(6, 11), false),
            (Target::Um, version(6, 12), true),
            (Target::Um, version(6, 15), true),
            (Target::Um, version(6, 16), false),
            (Target::X86_64, version(6, 12), false),
        ];
        for (target, version, holds) in held {
            assert_eq!(condition.holds(target, version), holds, "{version}");
        }
        assert!(condition.add("only um").unwrap_err().contains("two"));
        for bad in [
            "",
            "only",
            "only arm64",
            "from 6",
            "since 6.1",
            "from 6.1 6.2",
        ] {
            assert!(Condition::default().add(bad).is_err(), "{bad}");
        }
    }
}
