//! The borders between the rooms, and the rules that no compiler checks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;

/// Which of our crates each crate may name. Nothing points the other way.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "coop-appliance",
            "coop-builder",
            "coop-image",
            "coop-runtime",
        ],
    ),
    ("builder", &["coop-appliance", "coop-image", "coop-runtime"]),
    ("builder/image", &[]),
    (
        "runtime",
        &["coop-appliance", "coop-driver", "coop-guest", "coop-image"],
    ),
    ("runtime/appliance", &[]),
    ("runtime/guest", &[]),
    ("driver", &["coop-driver-sys"]),
    ("driver/sys", &[]),
];

/// The longest source file, in lines: longer ones hold two concepts.
const LINES_MAX: usize = 900;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn tracked_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !matches!(name.as_str(), "target" | ".git" | "out" | "artifacts") {
                    pending.push(path);
                }
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> BTreeMap<String, String> {
    tracked_files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// Code before the first `#[cfg(test)]`, which by custom is the last item of a file; nothing of a
/// file that is a test module as a whole.
fn product<'t>(name: &str, text: &'t str) -> &'t str {
    let is_test = name.contains("/tests/")
        || ["tests.rs", "testing.rs"]
            .iter()
            .any(|end| name.ends_with(end));
    if is_test {
        return "";
    }
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

#[test]
fn arrows_point_one_way() {
    for (crate_folder, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(crate_folder).join("Cargo.toml")).unwrap();
        let dependencies = manifest
            .split("[dependencies]")
            .nth(1)
            .unwrap_or_default()
            .split("\n[")
            .next()
            .unwrap_or_default();
        for line in dependencies.lines().filter(|l| l.starts_with("coop-")) {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(
                allowed.contains(&name),
                "{crate_folder} depends on {name}, against the arrows of ARCHITECTURE.md"
            );
        }
    }
}

#[test]
fn unsafe_lives_in_one_crate() {
    for (name, text) in sources() {
        if name.starts_with("driver/sys/") || name == "tests/suite/tidy.rs" {
            continue;
        }
        let found = text.lines().find(|l| {
            l.contains("unsafe {") || l.contains("unsafe fn") || l.contains("unsafe impl")
        });
        assert_eq!(found, None, "{name} has unsafe code");
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
}

#[test]
fn libraries_do_not_print_exit_or_read_the_environment() {
    // The agent is a program of its own, and build scripts talk to cargo by printing.
    let exempt = [
        "cli/",
        "tests/",
        "benches/",
        "runtime/guest/src/bin",
        "runtime/guest/src/main",
    ];
    for (name, text) in sources() {
        let is_program = exempt.iter().any(|start| name.starts_with(start));
        if is_program
            || name.ends_with("build.rs") && !name.contains("/src/")
            || name.contains("/examples/")
        {
            continue;
        }
        for word in [
            "println!(",
            "eprintln!(",
            "process::exit(",
            "env::var",
            "env::vars",
            "SystemTime::now",
        ] {
            let found = product(&name, &text)
                .lines()
                .find(|line| line.contains(word) && !line.trim_start().starts_with("//"));
            assert_eq!(found, None, "{name} has {word}");
        }
    }
}

#[test]
fn images_know_no_clock_network_or_environment() {
    for (name, text) in sources() {
        if !name.starts_with("builder/image/src/") {
            continue;
        }
        for word in [
            "std::net",
            "std::env",
            "Instant::now",
            "SystemTime",
            "std::process",
            "HashMap",
        ] {
            let found = product(&name, &text)
                .lines()
                .find(|line| line.contains(word) && !line.trim_start().starts_with("//"));
            assert_eq!(found, None, "{name} has {word}");
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    for (name, text) in sources() {
        if name == "tests/suite/tidy.rs" {
            continue;
        }
        for word in [
            "todo!(",
            "unimplemented!(",
            "FIXME",
            "TODO",
            "#[ignore",
            "assert!(true)",
        ] {
            assert!(!text.contains(word), "{name} has {word}");
        }
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{name} has {lines} lines");
    }
}

#[test]
fn every_shipped_recipe_and_fragment_has_a_comment() {
    for folder in ["recipes", "kernel-config"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file()
                && path
                    .extension()
                    .is_some_and(|e| e == "yaml" || e == "config")
            {
                let text = fs::read_to_string(&path).unwrap();
                assert!(
                    text.starts_with('#'),
                    "{} says nothing of itself",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn no_file_names_a_mirror_or_a_machine() {
    // Put together here so that this file does not name them itself.
    let hosts: Vec<String> = [
        ["deb.", "debian.org"],
        ["snapshot.", "debian.org"],
        ["crates.", "io/api"],
    ]
    .iter()
    .map(|parts| parts.concat())
    .collect();
    let home = ["/ro", "ot/"].concat();
    for path in tracked_files() {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if path.file_name().is_some_and(|n| n == "Cargo.lock") {
            continue;
        }
        for host in &hosts {
            assert!(
                !text.contains(host.as_str()),
                "{} names {host}",
                path.display()
            );
        }
        let source = path.extension().is_some_and(|e| e == "rs");
        // "/root/" is also a path inside guests, so only code that runs on the host is searched.
        if !source {
            continue;
        }
        assert!(
            !text.contains(&format!("{home}.cargo")),
            "{} has a machine's path",
            path.display()
        );
    }
}
