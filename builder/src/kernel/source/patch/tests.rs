//! Patches against a folder, with patch(1) and git as second opinions.

use std::process::{Command, Stdio};

use coop_runtime::event::Silent;
use fs_err as fs;
use tempfile::TempDir;

use super::*;
use crate::kernel::source::folder::Folder;

const TIME: i64 = 1_789_000_000;

struct Case {
    home: TempDir,
}

impl Case {
    /// A tree with these files beside a folder for patches.
    fn new(files: &[(&str, &str)]) -> Self {
        let home = TempDir::new().unwrap();
        fs::create_dir(home.path().join("patches")).unwrap();
        let case = Self { home };
        fs::create_dir(case.tree()).unwrap();
        for (path, text) in files {
            let path = case.tree().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        case
    }

    fn tree(&self) -> std::path::PathBuf {
        self.home.path().join("tree")
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.tree().join(path)).ok()
    }

    fn host_file(&self, name: &str) -> HostFile {
        HostFile {
            written: format!("patches/{name}"),
            path: self.home.path().join("patches").join(name),
        }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> HostFile {
        let file = self.host_file(name);
        fs::create_dir_all(file.path.parent().unwrap()).unwrap();
        fs::write(&file.path, text.as_ref()).unwrap();
        file
    }

    fn apply_files(&self, files: &[HostFile]) -> Result<bool, PatchError> {
        let patches = read_all(files)?;
        apply(
            &patches,
            &Folder::open(&self.tree()).unwrap(),
            TIME,
            &Silent,
        )
    }

    fn apply(&self, text: impl AsRef<[u8]>) -> Result<bool, PatchError> {
        self.apply_files(&[self.write("0001-x.patch", text)])
    }

    fn refusal(&self, text: impl AsRef<[u8]>) -> String {
        self.apply(text).unwrap_err().to_string()
    }
}

const BEFORE: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\n";
const CHANGE: &str = "--- a/fs/a.c\t2026-01-01\n+++ b/fs/a.c\t2026-01-02\n@@ -2,5 +2,5 @@ context\n \
                      two\n three\n-four\n+FOUR\n five\n six\n";

#[test]
fn a_plain_diff_is_applied_wherever_its_lines_are() {
    let case = Case::new(&[("fs/a.c", BEFORE)]);
    assert!(case.apply(CHANGE).unwrap());
    assert_eq!(case.text("fs/a.c").unwrap(), BEFORE.replace("four", "FOUR"));
    let shifted = format!("zero\nzero\n{BEFORE}");
    let case = Case::new(&[("fs/a.c", &shifted)]);
    case.apply(CHANGE).unwrap();
    assert_eq!(
        case.text("fs/a.c").unwrap(),
        shifted.replace("four", "FOUR")
    );
    // It has one time, and the mode of files.
    let state = fs::metadata(case.tree().join("fs/a.c")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((state.mode() & 0o7777, state.mtime()), (0o644, TIME));
}

#[test]
fn what_does_not_fit_is_named() {
    let changed = BEFORE.replace("three", "3");
    let case = Case::new(&[("fs/a.c", &changed), ("fs/other.c", "")]);
    assert_eq!(
        case.refusal(CHANGE),
        "patches/0001-x.patch does not apply: fs/a.c, hunk 1 at line 2 (line 3 is '3', the patch \
         has 'three')"
    );
    assert_eq!(case.text("fs/a.c").unwrap(), changed);
    assert_eq!(
        case.refusal(CHANGE.replace("fs/a.c", "fs/othr.c")),
        "patches/0001-x.patch does not apply: there is no fs/othr.c (there is fs/other.c)"
    );
    assert_eq!(
        case.refusal(CHANGE.replace("fs/a.c", "mm/other.c")),
        "patches/0001-x.patch does not apply: there is no mm/other.c (there is fs/other.c)"
    );
    let windows = BEFORE.replace('\n', "\r\n");
    let case = Case::new(&[("fs/a.c", &windows)]);
    let refusal = case.refusal(CHANGE);
    assert!(
        refusal.contains("the file has Windows line ends and the patch has not"),
        "{refusal}"
    );
    let refusal = case.refusal(CHANGE.replace('\n', "\r\n"));
    assert!(
        refusal.contains("lines that end as Windows has it"),
        "{refusal}"
    );
    let case = Case::new(&[("fs/a.c", "one\ntwo\n")]);
    let refusal = case.refusal(CHANGE);
    assert!(
        refusal.contains("the file ends before line 3, which should be 'three'"),
        "{refusal}"
    );
}

#[test]
fn what_is_applied_already_is_said_so() {
    let case = Case::new(&[("fs/a.c", BEFORE)]);
    case.apply(CHANGE).unwrap();
    assert_eq!(
        case.refusal(CHANGE),
        "patches/0001-x.patch is in the source already: fs/a.c has its changes; leave the patch out"
    );
    let create = "--- /dev/null\n+++ b/new/b.c\n@@ -0,0 +1 @@\n+int b;\n";
    case.apply(create).unwrap();
    assert!(
        case.refusal(create)
            .contains("is in the source already: new/b.c")
    );
    let other = create.replace("int b", "int c");
    assert!(
        case.refusal(other)
            .contains("it makes new/b.c, which is there already")
    );
    let rename = "diff --git a/fs/a.c b/fs/c.c\nsimilarity index 100%\nrename from fs/a.c\nrename to \
                  fs/c.c\n";
    case.apply(rename).unwrap();
    assert!(
        case.refusal(rename)
            .contains("is in the source already: fs/c.c")
    );
}

#[test]
fn later_hunks_name_their_lines() {
    let long: String = (1..=60).map(|n| format!("line {n}\n")).collect();
    let two = "--- a/a\n+++ b/a\n@@ -1,4 +1,6 @@\n line 1\n+new\n+new\n line 2\n line 3\n line 4\n\
               @@ -39,4 +41,4 @@\n line 39\n-line 40\n+LINE 40\n line 41\n line 42\n";
    let case = Case::new(&[("a", &long)]);
    case.apply(two).unwrap();
    assert!(
        case.text("a")
            .unwrap()
            .contains("line 39\nLINE 40\nline 41\n")
    );
    let case = Case::new(&[("a", &long.replace("line 41\n", "other\n"))]);
    assert!(
        case.refusal(two)
            .contains("a, hunk 2 at line 39 (line 41 is 'other'")
    );
}

#[test]
fn git_patches_create_delete_rename_and_change_modes() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new(&[("fs/a.c", BEFORE), ("gone.c", "a\nb\n"), ("tool.sh", "x\n")]);
    let patch = format!(
        "From 0123 Mon Sep 17 00:00:00 2001\nFrom: A <a@example.invalid>\nSubject: [PATCH] x\n\n \
         indented text\n--- not a name\n---\n fs/a.c | 2 +-\n\n\
         diff --git a/fs/a.c b/fs/b.c\nsimilarity index 90%\nrename from fs/a.c\nrename to fs/b.c\n\
         index 1..2 100644\n{}\
         diff --git a/gone.c b/gone.c\ndeleted file mode 100644\nindex 1..0\n--- a/gone.c\n+++ \
         /dev/null\n@@ -1,2 +0,0 @@\n-a\n-b\n\
         diff --git a/tool.sh b/tool.sh\nold mode 100644\nnew mode 100755\n\
         diff --git a/new/empty b/new/empty\nnew file mode 100644\nindex 000..e69\n\
         diff --git a/new/run b/new/run\nnew file mode 100755\nindex 0..1\n--- /dev/null\n+++ \
         b/new/run\n@@ -0,0 +1 @@\n+#!/bin/sh\n\\ No newline at end of file\n\
         diff --git a/tool.sh b/copy.sh\nsimilarity index 100%\ncopy from tool.sh\ncopy to copy.sh\n\
         -- \n2.43.0\n\n",
        CHANGE.replace("b/fs/a.c", "b/fs/b.c")
    );
    case.apply(&patch).unwrap();
    assert_eq!(case.text("fs/a.c"), None);
    assert_eq!(case.text("fs/b.c").unwrap(), BEFORE.replace("four", "FOUR"));
    assert_eq!(case.text("gone.c"), None);
    assert_eq!(case.text("new/empty").unwrap(), "");
    assert_eq!(case.text("new/run").unwrap(), "#!/bin/sh");
    assert_eq!(case.text("copy.sh").unwrap(), "x\n");
    for (path, expected) in [("tool.sh", 0o755), ("new/run", 0o755), ("fs/b.c", 0o644)] {
        let mode = fs::metadata(case.tree().join(path)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o7777, expected, "{path}");
    }
    let removing_less = patch[patch.find("diff --git a/gone").unwrap()..]
        .split("diff --git a/tool")
        .next()
        .unwrap()
        .to_owned();
    let case = Case::new(&[("gone.c", "a\nb\nc\n")]);
    assert!(
        case.refusal(&removing_less)
            .contains("more than it removes")
    );
}

#[test]
fn paths_stay_inside() {
    let case = Case::new(&[("fs/a.c", BEFORE)]);
    for (path, problem) in [
        ("../../etc/passwd", "'.' or '..'"),
        ("b/../../x", "'.' or '..'"),
        ("b//etc/x", "absolute"),
        ("/", "absolute"),
        ("b/.git/hooks/x", "git's own"),
        ("b/x/.GIT/config", "git's own"),
        ("a.c", "no folder in front"),
        ("\"b/\\056\\056/x\"", "'.' or '..'"),
        ("\"b/x", "in quotes"),
    ] {
        let patch = format!("--- /dev/null\n+++ {path}\n@@ -0,0 +1 @@\n+x\n");
        let refusal = case.refusal(patch);
        assert!(refusal.contains(problem), "{path}: {refusal}");
        let renames = format!(
            "diff --git a/fs/a.c b/x\nrename from fs/a.c\nrename to {}\n",
            path.strip_prefix("b/").unwrap_or(path)
        );
        if path != "a.c" && !path.starts_with('"') {
            assert!(case.apply(renames).is_err(), "{path}");
        }
    }
    // A link in the tree, wherever it leads, is neither followed nor replaced.
    let outside = case.home.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("a.c"), BEFORE).unwrap();
    std::os::unix::fs::symlink(&outside, case.tree().join("link")).unwrap();
    std::os::unix::fs::symlink(outside.join("a.c"), case.tree().join("file")).unwrap();
    for target in ["link/a.c", "file"] {
        let refusal = case.refusal(CHANGE.replace("fs/a.c", target));
        assert!(refusal.contains("is no regular file"), "{refusal}");
    }
    let create = "--- /dev/null\n+++ b/link/new.c\n@@ -0,0 +1 @@\n+x\n";
    assert!(case.apply(create).is_err());
    assert_eq!(fs::read_to_string(outside.join("a.c")).unwrap(), BEFORE);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn what_is_no_patch_is_refused() {
    let case = Case::new(&[("fs/a.c", BEFORE)]);
    let head = "--- a/fs/a.c\n+++ b/fs/a.c\n";
    for (text, problem) in [
        (String::new(), "has no change in it"),
        ("just text\n".into(), "has no change in it"),
        (
            "diff --git fs/a.c fs/a.c\nindex 1..2\n".into(),
            "make it without --no-prefix",
        ),
        (
            "@@ -1 +1 @@\n-a\n+b\n".into(),
            "0001-x.patch:1: a hunk without",
        ),
        ("*** a\n--- b\n***************\n".into(), "a context diff"),
        ("@@@ -1 -1 +1 @@@\n".into(), "combined diff"),
        (
            "diff --git a/x b/x\nindex 1..2\nGIT binary patch\n".into(),
            "binary file",
        ),
        ("Binary files a/x and b/x differ\n".into(), "binary file"),
        (format!("{head}@@ -1 +1 @@\n-a\n"), "fewer lines"),
        (format!("{head}@@ -1 +1 @@\n-a\n+b\n+c\n"), "more lines"),
        (format!("{head}@@ -1 +1 @@\n-a\n-b\n"), "other lines"),
        (format!("{head}@@ -1 +1 @@\n?\n"), "fewer lines"),
        (
            format!("{head}@@ -x +1 @@\n-a\n"),
            "head that cannot be read",
        ),
        (
            format!("{head}@@ -99999999999999999999 +1 @@\n-a\n"),
            "head that cannot",
        ),
        (
            "diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 \
             @@\n+y\n"
                .into(),
            "symbolic link",
        ),
        (
            "diff --git a/x b/x\nnew file mode 160000\n".into(),
            "the mode '160000'",
        ),
        ("diff --git a/x b/x\nrename from x\n".into(), "both names"),
        (
            "diff --git one two three\nnew file mode 100644\n".into(),
            "cannot be told",
        ),
        (
            "--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n".into(),
            "from nothing",
        ),
    ] {
        let refusal = case.refusal(&text);
        assert!(refusal.contains(problem), "{text:?}: {refusal}");
    }
    // Whatever is done to a good patch, it neither panics nor leaves the tree half changed.
    for index in 0..CHANGE.len() {
        let mut bytes = CHANGE.as_bytes().to_vec();
        for value in [0, b'\n', b'9', b'-', 0xff] {
            bytes[index] = value;
            let _ = case.apply(&bytes);
            fs::write(case.tree().join("fs/a.c"), BEFORE).unwrap();
        }
        let _ = case.apply(&CHANGE[..index]);
        fs::write(case.tree().join("fs/a.c"), BEFORE).unwrap();
    }
}

#[test]
fn a_series_is_applied_whole_or_not_at_all() {
    let case = Case::new(&[("fs/a.c", BEFORE)]);
    let first = case.write("1.patch", CHANGE);
    let second = case.write("2.patch", CHANGE);
    let refusal = case.apply_files(&[first, second]).unwrap_err().to_string();
    assert!(
        refusal.starts_with("patches/2.patch is in the source already"),
        "{refusal}"
    );
    assert_eq!(case.text("fs/a.c").unwrap(), BEFORE);
}

#[test]
fn compressed_patches_are_read() {
    use std::io::Write as _;
    let case = Case::new(&[("fs/a.c", BEFORE)]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(CHANGE.as_bytes()).unwrap();
    case.apply(packed.finish().unwrap()).unwrap();
    assert!(case.text("fs/a.c").unwrap().contains("FOUR"));
}

/// What `diff -u` makes of random changes is applied to a file that others have changed as well,
/// as patch(1) does without fuzz.
#[test]
fn patch_agrees() {
    let works = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !works("patch") || !works("diff") {
        let required = std::env::var_os("COOP_REQUIRE_ORACLES").is_some_and(|v| v == "1");
        assert!(!required, "patch or diff is missing");
        eprintln!("skipped: patch or diff is missing");
        return;
    }
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let (mut applied, mut refused) = (0, 0);
    for round in 0..120 {
        let lines = next(60);
        let base: Vec<String> = (0..lines).map(|_| format!("line {}\n", next(12))).collect();
        let mut edited = |lines: &[String], most: u64| {
            let mut lines = lines.to_vec();
            for _ in 0..=next(most) {
                let at = usize::try_from(next(lines.len() as u64 + 1)).unwrap();
                match next(3) {
                    0 => lines.insert(at, format!("new {}\n", next(5))),
                    1 if at < lines.len() => drop(lines.remove(at)),
                    _ if at < lines.len() => lines[at] = format!("changed {}\n", next(5)),
                    _ => {}
                }
            }
            lines
        };
        let new = edited(&base, 6).concat();
        let other = edited(&base, 3).concat();
        let base = base.concat();
        let case = Case::new(&[("f", &other)]);
        let home = case.home.path();
        fs::create_dir_all(home.join("a")).unwrap();
        fs::create_dir_all(home.join("b")).unwrap();
        fs::write(home.join("a/f"), &base).unwrap();
        fs::write(home.join("b/f"), &new).unwrap();
        let diff = Command::new("diff")
            .args(["-u", "a/f", "b/f"])
            .current_dir(home)
            .output()
            .unwrap();
        if diff.stdout.is_empty() || other.is_empty() || new.is_empty() || base.is_empty() {
            continue;
        }
        fs::write(home.join("x.patch"), &diff.stdout).unwrap();
        fs::create_dir(home.join("oracle")).unwrap();
        fs::write(home.join("oracle/f"), &other).unwrap();
        let theirs = |program: &str, arguments: &[&str]| {
            fs::write(home.join("oracle/f"), &other).unwrap();
            let status = Command::new(program)
                .args(arguments)
                .args(["../x.patch", "-p1"])
                .current_dir(home.join("oracle"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            let works = status.is_ok_and(|status| status.success());
            works.then(|| fs::read_to_string(home.join("oracle/f")).unwrap())
        };
        let patch = [
            "--batch",
            "--forward",
            "--fuzz=0",
            "-r-",
            "--no-backup-if-mismatch",
            "-i",
        ];
        // They differ in what a hunk near a file's end must meet; ours is git's reading.
        let both = [theirs("git", &["apply"]), theirs("patch", &patch)];
        if case.apply(&diff.stdout).is_ok() {
            applied += 1;
            assert!(both.contains(&case.text("f")), "round {round}: {both:?}");
        } else {
            refused += 1;
            assert!(both.contains(&None), "round {round}: {both:?}");
        }
    }
    assert!(applied > 20 && refused > 5, "{applied} {refused}");
}
