//! Archives that no sane program writes, each with what GNU tar says about it.

mod ends;
mod extended;
mod fields;
mod links;
mod names;
mod sparse;
mod types;

use std::fs;
use std::path::Path;

use super::raw::{Raw, archive};
use super::{look, read_with};
use crate::tar::Options;
use crate::testing::{
    Description, assert_same, describe_folder, describe_tree, have, is_root, sh, skip,
};

/// What becomes of an archive.
enum Verdict {
    /// GNU tar extracts it without a word, and coop's tree is the same.
    Same,
    /// Both refuse it; coop says this.
    BothRefuse(&'static str),
    /// GNU tar extracts something else, or fails; coop's tree has these paths and no others, and
    /// says this about each.
    Better(&'static [&'static str]),
    /// GNU tar extracts it, or a part; coop refuses, saying this.
    Stricter(&'static str),
}

use Verdict::{Better, BothRefuse, Same, Stricter};

struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    verdict: Verdict,
}

fn case(what: &'static str, verdict: Verdict, entries: &[Raw]) -> Case {
    whole(what, verdict, archive(entries))
}

fn whole(what: &'static str, verdict: Verdict, bytes: Vec<u8>) -> Case {
    Case {
        what,
        bytes,
        verdict,
    }
}

fn file(path: &str) -> Raw {
    Raw::file(path, "text")
}

fn all() -> Vec<Case> {
    let groups = [
        fields::numbers(),
        names::paths(),
        types::types(),
        extended::extended(),
        sparse::sparse(),
        links::links(),
        links::contests(),
        ends::ends(),
    ];
    groups.into_iter().flatten().collect()
}

/// The paths of a list like `/path: what is said`.
fn assert_says(found: &Description, expected: &[&str], what: &str) {
    let paths = expected.iter().map(|line| line.split_once(": ").unwrap().0);
    assert!(found.keys().eq(paths), "{what}: {found:?}");
    for line in expected {
        let (path, text) = line.split_once(": ").unwrap();
        assert!(found[path].contains(text), "{what}: {path} {}", found[path]);
    }
}

/// Extracts every archive of a folder with GNU tar; gives the exit codes.
fn extract_all(folder: &Path, count: usize) -> Vec<String> {
    let script = format!(
        "umask 022
        for n in $(seq 0 {}); do
            mkdir out-$n; s=0
            tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf $n.tar -C out-$n 2>$n.err || s=$?
            echo $s
        done",
        count - 1
    );
    let codes = String::from_utf8(sh(folder, &script)).unwrap();
    codes.lines().map(Into::into).collect()
}

/// Folders that GNU tar had to make itself, or changed through a link, are of now.
fn settle(expected: &mut Description, found: &Description) {
    for (path, line) in expected {
        if line.starts_with("directory") && !line.contains("time 1000.") {
            *line = found.get(path).cloned().unwrap_or_default();
        }
    }
}

#[test]
fn nasty_archives_end_as_the_table_says() {
    let cases = all();
    let temp = tempfile::tempdir().unwrap();
    let mut codes = Vec::new();
    if !is_root() {
        skip("devices, owners and attributes of GNU tar's need root");
    } else if have("tar") {
        for (index, case) in cases.iter().enumerate() {
            fs::write(temp.path().join(format!("{index}.tar")), &case.bytes).unwrap();
        }
        codes = extract_all(temp.path(), cases.len());
    }
    for (index, case) in cases.iter().enumerate() {
        let what = case.what;
        let result = read_with(&case.bytes, &Options::default());
        let gnu = codes.get(index).map(|code| {
            let folder = temp.path().join(format!("out-{index}"));
            (code.as_str(), describe_folder(&folder, look()))
        });
        let found = result.map(|(tree, _)| {
            let mut found = describe_tree(&tree, look());
            found.remove("/");
            found
        });
        match (&case.verdict, found) {
            (Same, Ok(found)) => {
                if let Some((code, mut expected)) = gnu {
                    assert_eq!(code, "0", "{what}");
                    settle(&mut expected, &found);
                    assert_same(&found, &expected, what);
                }
            }
            (Better(expected), Ok(found)) => {
                assert_says(&found, expected, what);
                if let Some((code, mut folder)) = gnu {
                    settle(&mut folder, &found);
                    assert!(
                        code != "0" || folder != found,
                        "{what}: GNU tar does it too"
                    );
                }
            }
            (BothRefuse(expected) | Stricter(expected), Err(error)) => {
                let error = error.to_string();
                assert!(error.contains(expected), "{what}: {error}");
                let is_stricter = matches!(case.verdict, Stricter(_));
                if let Some((code, _)) = gnu {
                    assert_eq!(
                        code == "0",
                        is_stricter,
                        "{what}: GNU tar ended with {code}"
                    );
                }
            }
            (_, other) => panic!("{what}: {other:?}"),
        }
    }
}
