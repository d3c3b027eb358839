use std::collections::BTreeMap;

use super::table::parse;
use super::*;

fn packages<'a>(names: &[&'a str]) -> BTreeSet<&'a str> {
    names.iter().copied().collect()
}

#[test]
fn the_table_is_read_whole_and_in_order() {
    let table = table();
    let names: BTreeSet<&str> = table.iter().map(|need| need.package).collect();
    assert!(names.len() >= 100, "{}", names.len());
    let mut firsts = include_str!("table.txt")
        .lines()
        .filter_map(|line| line.strip_prefix('[')?.split([' ', ']']).next());
    assert!(firsts.by_ref().is_sorted());
    for need in &table {
        assert!(!need.why.is_empty() && !need.source.is_empty());
        assert!(!need.why.ends_with('.'), "{need:?}");
        for symbol in need.any_of.iter().chain(&need.only_if) {
            assert!(!symbol.starts_with("CONFIG_"), "{need:?}");
        }
    }
}

#[test]
fn nothing_is_said_twice() {
    let mut seen = BTreeMap::new();
    for need in table() {
        // One symbol may be asked for both with and without others beside it, but not twice alone.
        let key = (need.package, need.any_of.clone());
        assert!(seen.insert(key, ()).is_none(), "{need:?}");
    }
    let mut groups = BTreeSet::new();
    for line in include_str!("table.txt").lines() {
        if let Some(names) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            for name in names.split(' ') {
                assert!(groups.insert(name), "{name}");
            }
        }
    }
}

#[test]
fn wrong_lines_have_numbers() {
    for (text, line) in [
        ("required A: x", 1),
        ("[a]\nrequired A: x", 2),
        ("[a\nsource: s", 1),
        ("[a]\nsource: s\nneeded A: x", 3),
        ("[a]\nsource: s\nrequired A", 3),
        ("[a]\nsource: s\nrequired A|: x", 3),
        ("[a]\nsource: s\nrequired A if: x", 3),
        ("[a]\nsource: s\nrequired A  B: x", 3),
    ] {
        assert_eq!(parse(text), Err(line), "{text}");
    }
    let text = "[a b]\nsource: s\n# c\nrequired A B|C if D: x: y\n";
    let needs = parse(text).unwrap();
    assert_eq!(needs.len(), 4);
    assert_eq!(needs[1].any_of, ["B", "C"]);
    assert_eq!(needs[1].only_if, Some("D"));
    assert_eq!(needs[3].package, "b");
    assert_eq!(needs[3].why, "x: y");
}

#[test]
fn what_is_not_met_is_named_with_its_reason() {
    let config = "CONFIG_INET=y\n# CONFIG_TUN is not set\n";
    let unmet = unmet(&packages(&["openvpn", "no-such-package"]), config);
    let symbols: Vec<&str> = unmet.iter().map(|one| &*one.symbol).collect();
    assert_eq!(symbols, ["CONFIG_TUN", "CONFIG_OVPN"]);
    assert_eq!(unmet[0].level, Level::Required);
    let text = unmet[0].to_string();
    assert!(
        text.starts_with("package openvpn needs CONFIG_TUN: the tunnel is"),
        "{text}"
    );
    assert!(unmet[1].to_string().contains("would like CONFIG_OVPN"));
}

#[test]
fn a_module_is_enough_and_so_is_one_of_several() {
    let snapd = packages(&["snapd"]);
    let has = |config: &str, symbol: &str| {
        let unmet = unmet(&snapd, config);
        unmet.iter().any(|one| one.symbol.contains(symbol))
    };
    assert!(has("", "CONFIG_SQUASHFS or CONFIG_FUSE_FS"));
    assert!(!has("CONFIG_FUSE_FS=m\n", "CONFIG_FUSE_FS"));
    // Compressors are asked for only where there is a squashfs.
    assert!(!has("CONFIG_FUSE_FS=m\n", "CONFIG_SQUASHFS_XZ"));
    assert!(has("CONFIG_SQUASHFS=y\n", "CONFIG_SQUASHFS_XZ"));
}

#[test]
fn nothing_installed_needs_nothing() {
    assert_eq!(unmet(&BTreeSet::new(), ""), []);
}

/// What every recipe of ours installs, said by name, and what comes with each Debian.
fn shipped_packages() -> BTreeSet<String> {
    let mut packages: BTreeSet<String> = ["libc6", "mount", "util-linux"]
        .map(str::to_owned)
        .into_iter()
        .collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "yaml") {
            continue;
        }
        let text = fs_err::read_to_string(path).unwrap();
        let lists = text.split("packages: [").skip(1);
        for list in lists.filter_map(|rest| rest.split(']').next()) {
            packages.extend(list.split(',').map(|name| name.trim().to_owned()));
        }
    }
    packages
}

#[test]
fn the_fragments_have_what_their_packages_need() {
    use crate::kernel::config::{DEFAULT_FRAGMENTS, Version, fragment, merge, parse};

    let packages = packages(&[
        "btrfs-progs",
        "buildah",
        "conntrack",
        "containerd",
        "crun",
        "docker.io",
        "dosfstools",
        "erofs-utils",
        "exfatprogs",
        "firewalld",
        "fuse-overlayfs",
        "iptables",
        "lxc",
        "nftables",
        "passt",
        "podman",
        "runc",
        "slirp4netns",
        "squashfs-tools",
        "systemd-container",
        "ufw",
        "xfsprogs",
    ]);
    let more = ["filesystems", "netfilter", "containers"];
    let mut wanted = Vec::new();
    for name in DEFAULT_FRAGMENTS.iter().copied().chain(more) {
        wanted.extend(parse(fragment(name).unwrap(), name).unwrap());
    }
    for target in [crate::kernel::Target::Um, crate::kernel::Target::X86_64] {
        let merged = merge(&wanted, target, Version::parse("6.12").unwrap());
        assert_eq!(unmet(&packages, &merged.text()), []);
    }
}

#[test]
fn the_default_kernel_has_what_the_shipped_recipes_need() {
    let packages = shipped_packages();
    assert!(packages.contains("systemd-sysv") && packages.contains("openssh-server"));
    let packages: BTreeSet<&str> = packages.iter().map(String::as_str).collect();
    let wanted = crate::kernel::config::default_wanted().unwrap();
    for version in ["6.16", "7.2"] {
        let version = crate::kernel::config::Version::parse(version).unwrap();
        let merged = crate::kernel::config::merge(&wanted, crate::kernel::Target::Um, version);
        assert_eq!(merged.conflicts, []);
        let mut unmet = unmet(&packages, &merged.text());
        unmet.retain(|one| one.level == Level::Required);
        assert_eq!(unmet, []);
    }
}
