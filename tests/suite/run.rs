//! Runs: a command's streams and code, ends of every kind, and that nothing stays behind.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fs_err as fs;
use rustix::process::Signal;

use crate::support::{self, Process, RUN_DEADLINE};

/// How long processes may take to be gone after the one that owned them.
const AFTERMATH: Duration = Duration::from_secs(5);

/// A temporary folder of the host that a run has for itself, so that what it leaves there shows.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(support::temp_folder())
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = support::coop();
        command
            .args(["run", "--progress", "none"])
            .arg(support::small())
            .args(words)
            .env("TMPDIR", self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn start(&self, words: &[&str]) -> Process {
        Process::start(&mut self.command(words), RUN_DEADLINE)
    }

    /// No process that was started with a path in here lives, and nothing but the locks of an
    /// empty list of instances is left.
    #[track_caller]
    fn assert_nothing_left(&self) {
        let path = self.0.path().to_str().unwrap();
        assert!(
            support::eventually(AFTERMATH, || support::processes_naming(path).is_empty()),
            "{:?}",
            support::processes_naming(path)
        );
        let left: Vec<PathBuf> = files(self.0.path())
            .into_iter()
            .filter(|path| path.file_name() != Some(OsStr::new("gate")))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Every file, socket and folder below a folder that is not a folder of instances.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_folder = fs::symlink_metadata(&path).unwrap().is_dir();
        if is_folder {
            found.extend(files(&path));
        }
        let is_list = is_folder && path.join("gate").exists();
        if !is_list {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_recipe_runs_in_one_command() {
    support::debian();
    let mut command = support::coop();
    command
        .args(["run"])
        .arg(support::recipe("debian.yaml"))
        .args(["--", "cat", "/etc/os-release"])
        .current_dir(support::debian_folder());
    let done = support::run(&mut command, RUN_DEADLINE).expect(0);
    let text = done.text();
    assert!(text.lines().any(|l| l == "ID=debian"), "{text}");
    assert!(
        text.lines().any(|l| l == "VERSION_CODENAME=trixie"),
        "{text}"
    );
    assert_eq!(done.stderr, "");
}

#[test]
fn a_command_passes_its_code() {
    let script = "read line; echo out $line; echo err >&2; exit 7";
    for (words, code) in [
        (&["sh", "-c", script][..], 7),
        (&["no-such-command"], 127),
        (&["/no/such/command"], 127),
        (&["/etc/passwd"], 126),
        (&["/tmp"], 126),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["sh", "-c", "kill -SEGV $$"], 139),
    ] {
        support::in_small(words).expect(code);
    }
}

#[test]
fn streams_arrive_whole_and_apart() {
    // Longer than every buffer on the way, and without a pattern that a lost part would keep.
    let mut state = 1_u64;
    let input: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(1 << 19)
    .flatten()
    .collect();
    let mut command = support::coop();
    command.arg("run").arg(support::small()).args([
        "--",
        "sh",
        "-c",
        "echo first >&2; cat; echo last >&2",
    ]);
    let done = support::run_with_input(&mut command, &input, RUN_DEADLINE).expect(0);
    assert_eq!(done.stderr, "first\nlast\n");
    assert_eq!(done.stdout.len(), input.len());
    assert!(done.stdout == input, "the bytes differ");
}

#[test]
fn a_command_that_takes_too_long_is_124_and_leaves_nothing() {
    let scratch = Scratch::new();
    support::small();
    let done = scratch
        .start(&["--timeout", "2s", "--", "sleep", "60"])
        .end()
        .expect(124);
    assert!(done.elapsed < Duration::from_secs(4), "{:?}", done.elapsed);
    assert!(done.elapsed >= Duration::from_secs(2), "{:?}", done.elapsed);
    assert!(
        done.stderr.contains("longer than it may"),
        "{}",
        done.stderr
    );
    scratch.assert_nothing_left();
}

#[test]
fn a_report_is_data() {
    let scratch = Scratch::new();
    let words = ["--json", "--", "sh", "-c", "echo x; exit 3"];
    let done = scratch.start(&words).end().expect(3);
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["cause"], "exited");
    assert_eq!(report["exit_code"], 3);
    assert_eq!(report["clean"], true);
    let phases = report["phases"].as_array().unwrap();
    let names: Vec<&str> = phases
        .iter()
        .map(|phase| phase["phase"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "process",
            "kernel",
            "agent",
            "modules",
            "root",
            "ready",
            "command",
            "exited",
            "shut_down",
            "unmounted",
            "ended"
        ]
    );
    let times: Vec<u64> = phases
        .iter()
        .map(|phase| phase["at_us"].as_u64().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(report["wall_us"].as_u64() >= times.last().copied());
    assert!(report["devices"]["cobd0"]["requests"].as_u64() > Some(0));
    assert_eq!(done.stderr, "x\n");
    scratch.assert_nothing_left();
}

#[test]
fn signals_end_the_command_and_the_guest() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let scratch = Scratch::new();
        let process = scratch.start(&["--", "sh", "-c", "echo up; sleep 1000"]);
        process.expect("up\n");
        process.signal(signal);
        process.end().expect(code);
        scratch.assert_nothing_left();
    }
}

#[test]
fn a_command_may_end_in_its_own_way() {
    let scratch = Scratch::new();
    let script = "trap 'echo stopping; exit 9' TERM; echo up; while :; do sleep 0.1; done";
    let process = scratch.start(&["--", "sh", "-c", script]);
    process.expect("up\n");
    process.signal(Signal::TERM);
    assert_eq!(process.end().expect(9).text(), "up\nstopping\n");
    scratch.assert_nothing_left();
}

#[test]
fn a_signal_during_the_boot_ends_it() {
    let scratch = Scratch::new();
    let path = scratch.0.path().to_str().unwrap();
    let process = scratch.start(&["--", "sleep", "1000"]);
    let guest_runs = || {
        support::processes_naming(path)
            .iter()
            .any(|line| line.contains("virtio_uml.device"))
    };
    assert!(support::eventually(RUN_DEADLINE, guest_runs));
    process.signal(Signal::TERM);
    process.end().expect(143);
    scratch.assert_nothing_left();
}

#[test]
fn a_killed_coop_takes_its_guest_along() {
    let scratch = Scratch::new();
    let process = scratch.start(&["--", "sh", "-c", "echo up; sleep 1000"]);
    process.expect("up\n");
    process.signal(Signal::KILL);
    assert_eq!(process.end().code(), None);
    let path = scratch.0.path().to_str().unwrap();
    assert!(support::eventually(AFTERMATH, || {
        support::processes_naming(path).is_empty()
    }));
    // Its folder could not be removed by anybody; the next run does that.
    scratch.start(&["--", "true"]).end().expect(0);
    scratch.assert_nothing_left();
}

#[test]
fn what_a_guest_writes_is_kept_only_if_asked_for() {
    let folder = support::temp_folder();
    for entry in fs::read_dir(support::small()).unwrap() {
        let path = entry.unwrap().path();
        copy(&path, &folder.path().join(path.file_name().unwrap()));
    }
    let image = folder.path().join("root.cobd");
    let before = support::sha256(&image);
    let run = |options: &[&str], script: &str| {
        let mut command = support::coop();
        command.arg("run").arg(folder.path()).args(options);
        command.args(["--", "sh", "-c", script]);
        support::run(&mut command, RUN_DEADLINE).expect(0).text()
    };
    let write_and_read = "echo new > /tmp/f; cat /tmp/f; echo changed > /etc/passwd";
    assert_eq!(run(&[], write_and_read), "new\n");
    assert_eq!(support::sha256(&image), before);
    assert_eq!(run(&["--persist"], "echo kept > /etc/note"), "");
    assert_ne!(support::sha256(&image), before);
    assert_eq!(run(&[], "cat /etc/note"), "kept\n");
}

#[test]
fn an_appliance_for_other_machines_is_for_qemu() {
    let folder = support::temp_folder();
    let appliance = folder.path().join("it's foreign");
    copy(support::small(), &appliance);
    let manifest = appliance.join("appliance.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(
        &manifest,
        text.replace(r#""target": "um""#, r#""target": "x86_64""#),
    )
    .unwrap();
    let mut command = support::coop();
    command.arg("run").arg(&appliance);
    let refused = support::run(&mut command, RUN_DEADLINE).expect(1);
    for part in [
        "x86_64",
        "qemu-system-x86_64 -snapshot",
        "serial=cobd0",
        r"it'\''s",
    ] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let mut inspect = support::coop();
    inspect.arg("inspect").arg(&appliance);
    let inspected = support::run(&mut inspect, RUN_DEADLINE).expect(0);
    assert!(inspected.text().contains("x86_64"), "{}", inspected.text());
    // What is for QEMU is not built only to be refused.
    let recipe = folder.path().join("r.yaml");
    fs::write(
        &recipe,
        "name: a\nrootfs: {source: {debian: {suite: trixie}}}\n\
         kernel: {source: {debian: linux-source-7.2, target: x86_64}}\n",
    )
    .unwrap();
    let mut command = support::coop();
    command.args(["run", "--offline"]).arg(&recipe);
    let refused = support::run(&mut command, RUN_DEADLINE).expect(1);
    assert!(refused.stderr.contains("coop build"), "{}", refused.stderr);
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            copy(&path, &to.join(path.file_name().unwrap()));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
    support::give(to);
}
