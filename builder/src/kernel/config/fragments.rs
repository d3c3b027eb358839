//! The fragments that coop carries: every file of `kernel-config/`.

use super::{FragmentError, Wanted, parse};

macro_rules! fragments {
    ($($name:literal),* $(,)?) => {
        &[$((
            $name,
            include_str!(concat!("../../../../kernel-config/", $name, ".config")),
        )),*]
    };
}

/// Name and text, sorted by name. A test compares the names with the folder.
const FRAGMENTS: &[(&str, &str)] = fragments![
    "base",
    "containers",
    "debug",
    "engine",
    "filesystems",
    "netfilter",
    "nfs-root",
    "overlay",
    "smp",
    "tiny",
    "virtio",
    "virtual-time",
];

/// What the kernel of a recipe without `kernel:` is composed of, in this order: a Debian with
/// systemd on the user engine, with throw-away overlays, shared folders and roots on servers.
pub const DEFAULT_FRAGMENTS: &[&str] = &["base", "engine", "virtio", "overlay", "nfs-root", "tiny"];

/// The names of the fragments that coop carries, sorted.
pub fn fragment_names() -> impl Iterator<Item = &'static str> {
    FRAGMENTS.iter().map(|(name, _)| *name)
}

/// The text of a fragment that coop carries.
#[must_use]
pub fn fragment(name: &str) -> Option<&'static str> {
    let found = FRAGMENTS.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text)
}

/// What [`DEFAULT_FRAGMENTS`] want, in their order.
///
/// # Errors
/// Never: a test reads every fragment that is carried.
pub fn default_wanted() -> Result<Vec<Wanted>, FragmentError> {
    let mut wanted = Vec::new();
    for name in DEFAULT_FRAGMENTS {
        let text = fragment(name).unwrap_or_default();
        wanted.extend(parse(text, &format!("fragment {name}"))?);
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fs_err as fs;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_carried() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel-config");
        let files = fs::read_dir(folder).unwrap().map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".config").map(str::to_owned)
        });
        let mut names: Vec<String> = files.flatten().collect();
        names.sort();
        assert!(fragment_names().eq(names.iter().map(String::as_str)));
    }

    #[test]
    fn our_fragments_can_be_read() {
        for name in fragment_names() {
            let wanted = parse(fragment(name).unwrap(), name).unwrap();
            assert!(!wanted.is_empty(), "{name}");
        }
        assert!(
            DEFAULT_FRAGMENTS
                .iter()
                .all(|name| fragment(name).is_some())
        );
        assert!(!default_wanted().unwrap().is_empty());
    }

    #[test]
    fn only_smp_and_virtual_time_disagree() {
        use crate::kernel::Target;
        use crate::kernel::config::{Version, merge};

        for (target, version) in [(Target::Um, "7.2"), (Target::X86_64, "6.12")] {
            let version = Version::parse(version).unwrap();
            for (without, conflicts) in [("smp", 0), ("virtual-time", 0), ("", 1)] {
                let mut wanted = Vec::new();
                for name in fragment_names().filter(|name| *name != without) {
                    wanted.extend(parse(fragment(name).unwrap(), name).unwrap());
                }
                let merged = merge(&wanted, target, version);
                assert_eq!(merged.conflicts.len(), conflicts, "{:?}", merged.conflicts);
            }
        }
    }
}
