//! Appliances that are not what they say, and guests that misbehave.

use std::path::PathBuf;
use std::process::Command;

use fs_err as fs;

use super::{DEADLINE, Place, refused, tiny};
use crate::support;

/// A copy of the tiny appliance that a test may break.
fn copied(place: &Place) -> PathBuf {
    let folder = place.path("app");
    let status = Command::new("cp")
        .args(["-a", "--sparse=always"])
        .args([tiny::appliance(), &folder])
        .status();
    assert!(status.unwrap().success());
    folder
}

#[test]
fn an_appliance_that_is_not_what_it_says_does_not_run() {
    let place = Place::new();
    let folder = copied(&place);
    let manifest = folder.join("appliance.json");
    let good = fs::read_to_string(&manifest).unwrap();
    let run = |words: &[&str]| {
        let mut command = place.coop(&["run"]);
        command.arg(&folder).args(["--", "true"]);
        refused(&mut command, 125, words);
        let mut command = place.coop(&["inspect"]);
        refused(command.arg(&folder), 1, words);
        place.expect_no_residue();
    };
    for (from, to, words) in [
        (
            "\"format\": 1",
            "\"format\": 9",
            &["format 9", "reads format 1"][..],
        ),
        (
            "\"root.cobd\"",
            "\"../root.cobd\"",
            &["'../root.cobd'", "not a plain path"],
        ),
        (
            "\"root.cobd\"",
            "\"/etc/passwd\"",
            &["'/etc/passwd'", "not a plain path"],
        ),
        (
            "\"size_bytes\": ",
            "\"size_bytes\": 1",
            &["but the manifest says"],
        ),
        (
            "\"cobd\"",
            "\"cobb\"",
            &["invalid manifest", "cobb", "line"],
        ),
    ] {
        assert!(good.contains(from));
        fs::write(&manifest, good.replacen(from, to, 1)).unwrap();
        run(words);
    }
    fs::write(&manifest, &good).unwrap();
    let image = folder.join("root.cobd");
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    file.set_len(4096).unwrap();
    run(&["root.cobd has 4096 bytes", "but the manifest says"]);
    fs::remove_file(&image).unwrap();
    run(&["root.cobd", "No such file"]);
    assert!(!image.exists());
}

/// Runs a line of shell in the tiny guest.
fn shell(place: &Place, words: &[&str], line: &str) -> Command {
    let mut command = place.coop(&["run"]);
    command.arg(tiny::appliance()).args(words);
    command.args(["--", "sh", "-c", line]);
    command
}

#[test]
fn a_panic_is_told_with_its_text() {
    let place = Place::new();
    let mut command = shell(&place, &[], "echo c > /proc/sysrq-trigger");
    refused(
        &mut command,
        125,
        &[
            "the guest's kernel panicked: sysrq triggered crash",
            "said last",
        ],
    );
    place.expect_no_residue();
}

#[test]
fn a_guest_without_memory_ends_its_command_and_nothing_else() {
    let place = Place::new();
    let line = "tail /dev/zero; echo \"code $?\"";
    let mut command = shell(&place, &["--memory", "64MiB"], line);
    let done = support::run(&mut command, DEADLINE).expect(0);
    assert_eq!(done.text(), "code 137\n", "{}", done.stderr);
    place.expect_no_residue();
}

/// Whatever the guest writes wherever it can, the host goes on and says how it ended.
#[test]
fn a_hostile_guest_does_the_host_no_harm() {
    let place = Place::new();
    let line = "for port in /dev/vport* /proc/1/fd/*; do
            head -c 100000 /dev/urandom > $port &
        done 2> /dev/null
        head -c 100000000 /dev/zero > /dev/hvc0
        head -c 100000 /dev/urandom > /dev/hvc0
        head -c 8000000 /dev/zero
        exec > /dev/null 2>&1 < /dev/null
        exit 5";
    let done = support::run(&mut shell(&place, &[], line), DEADLINE);
    assert!(matches!(done.code(), Some(5 | 125)), "{done:?}");
    assert!(!done.stderr.contains("RUST_BACKTRACE"), "{}", done.stderr);
    if done.code() == Some(5) {
        // More, where a descriptor of the agent led to its stdout.
        assert!(done.stdout.len() >= 8_000_000, "{}", done.stdout.len());
    } else {
        assert!(done.stderr.contains("error: "), "{}", done.stderr);
    }
    place.expect_no_residue();
}
