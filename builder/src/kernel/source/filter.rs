//! What of a kernel's source is not needed to build it for our targets.
//!
//! Of 94,752 files of Linux 7.2, documentation, the other architectures and the self-tests are
//! 33,574; no build of ours reads them, but for what is kept below by name. What a patch touches is
//! never left out.

use std::collections::BTreeSet;

/// The architectures whose folders are kept: our targets', which share a lot.
const ARCHITECTURES: [&[u8]; 2] = [b"um", b"x86"];
/// Folders of which only the files that tell Kconfig and make about them are kept.
const LEFT_OUT: [&[u8]; 2] = [b"Documentation/", b"tools/testing/"];
/// `lib/test_bitmap.c` and others include headers that lie right in it.
const SELFTESTS: &[u8] = b"tools/testing/selftests/";
const ARCH: &[u8] = b"arch/";
/// What the names of files begin with that Kconfig and make read.
const DESCRIPTIONS: [&[u8]; 3] = [b"Kconfig", b"Makefile", b"Kbuild"];
/// Folders of which configuration reads other files.
const CONFIGURATION: [&[u8]; 4] = [
    b"scripts/",
    b"kernel/configs/",
    b"arch/um/configs/",
    b"arch/x86/configs/",
];

/// Which files of a source are unpacked.
#[derive(Clone, Debug)]
pub(super) enum Filter {
    /// All.
    Nothing,
    /// What a build needs, and these paths.
    Needless {
        /// What patches touch.
        touched: BTreeSet<Vec<u8>>,
    },
    /// What configuration needs, and these paths.
    Configuration {
        /// What patches touch.
        touched: BTreeSet<Vec<u8>>,
    },
}

impl Filter {
    /// Whether the file or link at this path, relative to the tree's top, is unpacked.
    pub(super) fn wants(&self, path: &[u8]) -> bool {
        match self {
            Self::Nothing => true,
            Self::Needless { touched } => is_needed(path) || touched.contains(path),
            Self::Configuration { touched } => is_configuration(path) || touched.contains(path),
        }
    }

    /// Whether a folder is made though nothing in it may be unpacked.
    pub(super) fn wants_folder(&self, path: &[u8]) -> bool {
        self.wants(&[path, b"/"].concat())
    }
}

/// Kconfig's own files and make's.
fn is_description(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    DESCRIPTIONS.iter().any(|known| name.starts_with(known))
}

/// What allnoconfig, defconfig, olddefconfig and menuconfig read: on Linux 7.2 all the rest of
/// their 1,750 files lies in `scripts`.
fn is_configuration(path: &[u8]) -> bool {
    CONFIGURATION.iter().any(|folder| path.starts_with(folder)) || is_description(path)
}

fn is_needed(path: &[u8]) -> bool {
    if is_description(path) {
        return true;
    }
    if let Some(rest) = path.strip_prefix(ARCH) {
        // A file right in arch/ belongs to all of them.
        let slash = rest.iter().position(|byte| *byte == b'/');
        return slash.is_none_or(|slash| ARCHITECTURES.contains(&&rest[..slash]));
    }
    if let Some(rest) = path.strip_prefix(SELFTESTS) {
        return !rest.contains(&b'/');
    }
    !LEFT_OUT.iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stays() {
        let touched = BTreeSet::from([b"Documentation/admin-guide/x.rst".to_vec()]);
        let filter = Filter::Needless { touched };
        for kept in [
            "Makefile",
            "Documentation/Kconfig",
            "Documentation/admin-guide/x.rst",
            "arch/Kconfig",
            "arch/um/kernel/irq.c",
            "arch/x86/um/Kconfig",
            "arch/arm64/crypto/Kconfig",
            "tools/objtool/check.c",
            "tools/arch/arm64/include/asm/barrier.h",
            "tools/testing/selftests/kselftest_module.h",
            "samples/hidraw/hid-example.c",
        ] {
            assert!(filter.wants(kept.as_bytes()), "{kept}");
        }
        for left in [
            "Documentation/admin-guide/y.rst",
            "arch/arm64/boot/dts/a.dts",
            "arch/umbrella/a.c",
            "tools/testing/selftests/mm/a.c",
        ] {
            assert!(!filter.wants(left.as_bytes()), "{left}");
            assert!(Filter::Nothing.wants(left.as_bytes()), "{left}");
        }
        let touched = BTreeSet::from([b"fs/a.c".to_vec()]);
        let filter = Filter::Configuration { touched };
        for (path, expected) in [
            ("fs/a.c", true),
            ("fs/Kconfig", true),
            ("scripts/kconfig/conf.c", true),
            ("arch/um/configs/x86_64_defconfig", true),
            ("fs/b.c", false),
            ("arch/um/kernel/irq.c", false),
        ] {
            assert_eq!(filter.wants(path.as_bytes()), expected, "{path}");
        }
    }
}
