//! Which kernel a source is.

use std::fmt;

use crate::kernel::config::Version;

/// The head of the top Makefile has the version; more is not looked at.
const MAKEFILE_LINES: usize = 20;

/// A kernel's version, as the head of its top Makefile has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// `VERSION`.
    pub major: u32,
    /// `PATCHLEVEL`.
    pub minor: u32,
    /// `SUBLEVEL`.
    pub sublevel: u32,
    /// `EXTRAVERSION`, as `-rc4`; mostly empty.
    pub extra: String,
}

impl fmt::Display for KernelVersion {
    /// As `make kernelversion` says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            major,
            minor,
            sublevel,
            extra,
        } = self;
        write!(f, "{major}.{minor}.{sublevel}{extra}")
    }
}

impl KernelVersion {
    /// What conditions of fragments are about.
    #[must_use]
    pub fn short(&self) -> Version {
        Version {
            major: self.major,
            minor: self.minor,
        }
    }

    /// Reads the top Makefile's head.
    #[must_use]
    pub fn of_makefile(makefile: &[u8]) -> Option<Self> {
        let lines: Vec<&[u8]> = makefile
            .split(|byte| *byte == b'\n')
            .take(MAKEFILE_LINES)
            .collect();
        let value = |wanted: &str| {
            lines.iter().find_map(|line| {
                let (name, value) = std::str::from_utf8(line).ok()?.split_once('=')?;
                (name.trim() == wanted).then(|| value.trim())
            })
        };
        Some(Self {
            major: value("VERSION")?.parse().ok()?,
            minor: value("PATCHLEVEL")?.parse().ok()?,
            sublevel: value("SUBLEVEL")?.parse().ok()?,
            extra: value("EXTRAVERSION").unwrap_or_default().to_owned(),
        })
    }

    /// What a Debian package's version says of the kernel in it: `7.2.13-1`, `7.3~rc4-1~exp1`.
    #[must_use]
    pub fn of_package(version: &str) -> Option<Self> {
        let (upstream, _) = version.rsplit_once('-').unwrap_or((version, ""));
        let (numbers, candidate) = upstream.split_once('~').unwrap_or((upstream, ""));
        let mut parts = numbers.split('.');
        let mut next = || parts.next().unwrap_or("0").parse::<u32>().ok();
        let read = Self {
            major: next()?,
            minor: next()?,
            sublevel: next()?,
            extra: match candidate {
                "" => String::new(),
                candidate => format!("-{candidate}"),
            },
        };
        parts.next().is_none().then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makefiles_and_packages_agree() {
        let head =
            b"# SPDX-License-Identifier: GPL-2.0\nVERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 13\n\
                     EXTRAVERSION =\nNAME = Baby Opossum Posse\n";
        let version = KernelVersion::of_makefile(head).unwrap();
        assert_eq!(version.to_string(), "7.2.13");
        assert_eq!(KernelVersion::of_package("7.2.13-1"), Some(version));
        let candidate = KernelVersion::of_package("7.3~rc4-1~exp1").unwrap();
        assert_eq!(candidate.to_string(), "7.3.0-rc4");
        let backport = KernelVersion::of_package("6.12.107-1~bpo12+1").unwrap();
        assert_eq!(backport.to_string(), "6.12.107");
        for none in ["", "x", "7", "7.x", "7.2.1.5-1", "99999999999.1"] {
            let found = KernelVersion::of_package(none);
            assert_eq!(found.is_some(), none == "7", "{none}");
        }
        assert_eq!(KernelVersion::of_makefile(b"all:\n\ttrue\n"), None);
        assert_eq!(KernelVersion::of_makefile(&[0xff; 4000]), None);
    }
}
