//! The shipped fragments on the kernel's own trees: folders in `COOP_TEST_LINUX`, separated by
//! colons, configured by their own `make` (flex, bison and a compiler are needed) outside of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

use super::{DEFAULT_FRAGMENTS, DotConfig, Version, fragment, fragment_names, merge, parse, unmet};
use crate::kernel::kconfig::Kconfig;
use crate::kernel::{Target, needs};

const TARGETS: [Target; 2] = [Target::Um, Target::X86_64];

/// Everything that goes together, for a machine with all of it.
const LARGE: [&str; 10] = [
    "tiny",
    "base",
    "engine",
    "virtio",
    "overlay",
    "nfs-root",
    "filesystems",
    "netfilter",
    "containers",
    "debug",
];

fn trees() -> Vec<PathBuf> {
    let folders = std::env::var_os("COOP_TEST_LINUX").unwrap_or_default();
    if folders.is_empty() {
        eprintln!("skipped: COOP_TEST_LINUX names no kernel trees");
    }
    std::env::split_paths(&folders)
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect()
}

fn version(tree: &Path) -> Version {
    Version::of_makefile(&fs::read_to_string(tree.join("Makefile")).unwrap()).unwrap()
}

/// The symbols of the fragments, composed in that order, that do not hold.
fn not_held(tree: &Path, target: Target, into: &Path, names: &[&str]) -> BTreeSet<String> {
    let mut wanted = Vec::new();
    for name in names {
        wanted.extend(parse(fragment(name).unwrap(), name).unwrap());
    }
    let merged = merge(&wanted, target, version(tree));
    let all = into.join("wanted.config");
    fs::write(&all, merged.text()).unwrap();
    let made = Command::new("make")
        .arg("-C")
        .arg(tree)
        .arg(format!("O={}", into.display()))
        .arg(format!("ARCH={}", target.name()))
        // What allnoconfig writes is complete: olddefconfig would leave it as it is.
        .args(["-s", "allnoconfig"])
        .env("KCONFIG_ALLCONFIG", &all)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{names:?}: {said}");
    let config = DotConfig::parse(&fs::read_to_string(into.join(".config")).unwrap());
    let unmet = unmet(&merged.wanted, &config, false);
    unmet.into_iter().map(|one| one.wanted.symbol).collect()
}

/// What a fragment, asked for alone, is known not to get, and says so in its head.
fn known(name: &str, target: Target, version: Version) -> &'static [&'static str] {
    let is_old = version < Version::parse("6.19").unwrap();
    match (name, target) {
        ("smp", Target::Um) if is_old => &["CONFIG_CPUSETS", "CONFIG_NR_CPUS", "CONFIG_SMP"],
        ("virtual-time", Target::X86_64) => &["CONFIG_UML_TIME_TRAVEL_SUPPORT"],
        _ => &[],
    }
}

#[test]
fn every_fragment_holds_alone_and_with_the_others() {
    for tree in trees() {
        let version = version(&tree);
        for target in TARGETS {
            let folder = tempfile::tempdir().unwrap();
            for name in fragment_names() {
                let not_held = not_held(&tree, target, folder.path(), &[name]);
                let known = known(name, target, version);
                assert!(
                    not_held.iter().eq(known),
                    "{name} on {target:?} {version}: {not_held:?}"
                );
            }
            for with in [None, Some("smp"), Some("virtual-time")] {
                let names: Vec<&str> = LARGE.into_iter().chain(with).collect();
                let not_held = not_held(&tree, target, folder.path(), &names);
                let known = with.map_or(&[][..], |name| known(name, target, version));
                assert!(
                    not_held.iter().eq(known),
                    "{names:?} on {target:?} {version}: {not_held:?}"
                );
            }
            let not_held = not_held(&tree, target, folder.path(), DEFAULT_FRAGMENTS);
            assert_eq!(not_held, BTreeSet::new(), "{target:?} {version}");
        }
    }
}

#[test]
fn every_symbol_that_a_package_needs_exists_somewhere() {
    let trees = trees();
    let mut missing: BTreeMap<&str, &str> = BTreeMap::new();
    for need in needs::table() {
        let symbols = need.any_of.into_iter().chain(need.only_if);
        missing.extend(symbols.map(|symbol| (symbol, need.package)));
    }
    for tree in &trees {
        for target in TARGETS {
            let kconfig = Kconfig::read(tree, target).unwrap();
            missing.retain(|symbol, _| kconfig.symbol(&format!("CONFIG_{symbol}")).is_none());
        }
    }
    assert!(trees.is_empty() || missing.is_empty(), "{missing:?}");
}
