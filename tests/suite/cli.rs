//! The program from outside: exit codes, and what goes to which stream.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use fs_err as fs;
use tempfile::TempDir;

const GOOD: &str = "name: a\nrootfs:\n  source:\n    debian: {suite: trixie}\n";

/// Runs `coop` in a folder with nothing of this process's environment.
fn coop(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coop"))
        .args(words)
        .current_dir(folder)
        .env_clear()
        .env("COOP_CACHE", folder.join("cache"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn with_recipe(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("r.yaml"), text).unwrap();
    folder
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_right_recipe_is_right() {
    let folder = with_recipe(GOOD);
    let output = coop(folder.path(), &["check", "r.yaml"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "r.yaml: the recipe is right\n");
    // There is no cache, so of packages and kernel nothing is known; none is made.
    let error = text(&output.stderr);
    assert!(
        error.lines().all(|line| line.starts_with("note: ")),
        "{error}"
    );
    assert!(!folder.path().join("cache").exists());
}

#[test]
fn a_wrong_recipe_shows_its_line_on_stderr() {
    let folder = with_recipe(&format!("{GOOD}  hostnam: web\n"));
    for verb in [
        &["check", "r.yaml"][..],
        &["build", "r.yaml"],
        &["run", "r.yaml"],
    ] {
        let output = coop(folder.path(), verb);
        assert_eq!(output.status.code(), Some(2), "{verb:?}");
        assert_eq!(text(&output.stdout), "");
        let error = text(&output.stderr);
        assert!(
            error.contains("error: unknown key 'hostnam' in rootfs"),
            "{error}"
        );
        assert!(error.contains("r.yaml:5:3"), "{error}");
        assert!(error.contains("5 |   hostnam: web"), "{error}");
        assert!(error.contains("hint: did you mean 'hostname'?"), "{error}");
        assert!(
            !error.contains('\u{1b}'),
            "colours without a terminal: {error}"
        );
    }
    assert!(!folder.path().join("out").exists());
}

#[test]
fn errors_are_data_with_json() {
    let folder = with_recipe(&format!("{GOOD}devices: {{cofs: []}}\n"));
    for verb in ["check", "build", "run"] {
        let output = coop(folder.path(), &[verb, "r.yaml", "--json"]);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(text(&output.stderr), "");
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let error = &value["errors"][0];
        assert_eq!(error["message"], "devices.cofs is not supported yet");
        assert_eq!(error["place"]["line"], 5);
        assert_eq!(error["place"]["column"], 11);
    }
    let folder = with_recipe(GOOD);
    let output = coop(folder.path(), &["check", "r.yaml", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["recipe"]["rootfs"]["hostname"], "a");
}

#[test]
fn an_alias_bomb_is_refused_at_once() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        let list = [before.as_str(); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    let folder = with_recipe(&bomb);
    let output = coop(folder.path(), &["check", "r.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("too many"));
}

#[test]
fn wrong_usage_is_2() {
    let folder = with_recipe(GOOD);
    for (words, part) in [
        (&["buld"][..], "unrecognized subcommand"),
        (&["serve", "r.yaml"], "--listen"),
        (&["check"], "required"),
        (&["check", "r.yaml", "--set", "x"], "write NAME=VALUE"),
        (&["check", "r.yaml", "--set", "x=1"], "no variable 'x'"),
        (&["check", "none.yaml"], "no such file"),
        (&["run", "r.yaml", "--memory", "1MB"], "write 1MiB"),
        (&["run", "r.yaml", "-p", "tcp:1"], "is not a forward"),
        (&["run", "r.yaml", "--cpus", "0"], "1..=1024"),
        (&["run", "r.yaml", "--share", "a:b"], "not supported yet"),
        (&["run", "none"], "no such file"),
        (&["run", "@none.conf"], "none.conf: there is no such file"),
        (&["lock", "r.yaml", "--locked"], "coop lock makes one"),
        (&["verify", "r.yaml", "--plain-http"], "is for registries"),
        (
            &["explain", "r.yaml", "--secret", "a=b"],
            "unexpected argument",
        ),
        (&["build", "oci://h/a"], "hint: coop pull oci://h/a"),
        (&["diff", ".", "@x.conf"], "hint: coop run @x.conf boots it"),
        (&["pack", "r.yaml"], "hint: coop build r.yaml makes"),
        (
            &["test", "oci://h/a"],
            "not a recipe or an appliance's folder",
        ),
    ] {
        let output = coop(folder.path(), words);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {error}");
        assert!(error.contains(part), "{words:?}: {error}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn options_that_mean_nothing_are_refused_by_name() {
    let folder = with_recipe(GOOD);
    fs::create_dir(folder.path().join("built")).unwrap();
    fs::write(folder.path().join("built/appliance.json"), "{}").unwrap();
    fs::write(folder.path().join("x.conf"), "mem=64\n").unwrap();
    for (words, part) in [
        (
            &["run", "built", "--set", "a=b"][..],
            "--set is for recipes",
        ),
        (
            &["run", "built", "--kernel", "auto"],
            "--kernel is for recipes",
        ),
        (&["test", "built", "--locked"], "--locked is for recipes"),
        (
            &["run", "@x.conf", "--secret", "a=b"],
            "--secret is for recipes",
        ),
        (
            &["run", "built", "--plain-http"],
            "--plain-http is for registries",
        ),
        (&["run", "built", "--key", "k"], "your own"),
        (
            &["run", "built", "--detach", "--json"],
            "cannot be used with",
        ),
        (&["logs", "none"], "no machine 'none'"),
        (&["cp", "a", "b"], "MACHINE:PATH"),
    ] {
        let output = coop(folder.path(), words);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {error}");
        assert!(error.contains(part), "{words:?}: {error}");
    }
}

#[test]
fn names_that_are_no_text_are_data_too() {
    use std::os::unix::ffi::OsStrExt;
    let folder = with_recipe(GOOD);
    fs::create_dir(folder.path().join("tree")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_coop"))
        .args(["image", "build", "tree", "--json", "-o"])
        .arg(std::ffi::OsStr::from_bytes(b"\xff.cobd"))
        .current_dir(folder.path())
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["image"], "\u{fffd}.cobd");
}

#[test]
fn a_shell_completes_words() {
    let folder = with_recipe(GOOD);
    let script = coop(folder.path(), &["completions", "bash"]);
    fs::write(folder.path().join("coop.bash"), &script.stdout).unwrap();
    let ask = "source ./coop.bash
        for line in 'coop ru' 'coop run --per' 'coop run --su' 'coop cache v' 'coop run --kernel p' \
            'coop build --lo' 'coop lock --lo' 'coop lock --u'; do
            COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
            _coop coop \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
            echo \"${COMPREPLY[@]}\"
        done";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ask]).current_dir(folder.path());
    let completed = bash.output().unwrap();
    assert_eq!(text(&completed.stderr), "");
    assert_eq!(
        text(&completed.stdout),
        "run\n--persist\n\nverify\nprebuilt\n--locked\n\n--update\n"
    );
}

/// A reader that leaves is nobody's fault; a disk that is full is told.
#[test]
fn what_cannot_be_printed_is_told() {
    let schema = |stdout: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coop"));
        command.arg("schema").env_clear().stdout(stdout);
        command.output().unwrap()
    };
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let output = schema(full.unwrap().into_parts().0.into());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("standard output"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = schema(writer.into());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn help_goes_to_stdout() {
    let folder = with_recipe(GOOD);
    let output = coop(folder.path(), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("Usage: coop"));
    let output = coop(folder.path(), &["--version"]);
    assert!(text(&output.stdout).starts_with("coop "));
}

#[test]
fn a_folder_without_a_manifest_is_no_appliance() {
    let folder = with_recipe(GOOD);
    let output = coop(folder.path(), &["inspect", "."]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("appliance.json"));
}
