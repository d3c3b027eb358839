//! Machines that are left running: `coop run --detach` and the verbs that reach them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use rustix::process::Signal;

use crate::support::{self, Done, RUN_DEADLINE, eventually, give, small, temp_folder};

/// A machine's place, with a folder for its sockets; whatever is left in there is killed.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(temp_folder());
        fs::create_dir(place.folder().join("r")).unwrap();
        give(&place.folder().join("r"));
        place
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = support::coop();
        command.current_dir(self.folder()).args(words);
        command.env("XDG_RUNTIME_DIR", self.folder().join("r"));
        command
    }

    #[track_caller]
    fn coop(&self, words: &[&str], code: i32) -> Done {
        support::run(&mut self.command(words), RUN_DEADLINE).expect(code)
    }

    #[track_caller]
    fn leave(&self, more: &[&str]) -> String {
        let target = small().to_str().unwrap();
        let words = [&["run", target, "--detach"][..], more].concat();
        let name = self.coop(&words, 0).text();
        name.trim_end().to_owned()
    }

    fn machines(&self) -> Vec<serde_json::Value> {
        let listed = self.coop(&["ps", "--json"], 0);
        let value: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        value["machines"].as_array().unwrap().clone()
    }

    fn is_empty(&self) -> bool {
        let entries = fs::read_dir(self.folder().join("r/coop")).unwrap();
        entries.count() == 1
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for machine in self.machines() {
            let pid = machine["pid"]
                .as_i64()
                .and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

#[test]
fn a_machine_is_left_reached_and_stopped() {
    let place = Place::new();
    let id = place.leave(&[]);
    let machines = place.machines();
    assert_eq!(machines.len(), 1, "{machines:?}");
    assert_eq!(machines[0]["id"], *id);
    assert_eq!(machines[0]["name"], "small");
    assert!(place.coop(&["ps"], 0).text().starts_with(&id));

    // Codes, streams and input.
    let line = "cat; echo out; echo err >&2; exit 7";
    let mut command = place.command(&["exec", &id, "--", "sh", "-c", line]);
    let done = support::run_with_input(&mut command, b"given ", RUN_DEADLINE).expect(7);
    assert_eq!(
        (done.text().as_str(), done.stderr.as_str()),
        ("given out\n", "err\n")
    );
    place.coop(&["exec", "small", "--", "sh", "-c", "echo 1 > /kept"], 0);
    let kept = place.coop(&["exec", &id, "--", "cat", "/kept"], 0);
    assert_eq!(kept.text(), "1\n");
    place.coop(&["exec", &id, "--", "/nowhere"], 127);

    // Files.
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(place.folder().join("a"), &content).unwrap();
    give(&place.folder().join("a"));
    place.coop(&["cp", "a", &format!("{id}:/tmp/b c")], 0);
    place.coop(&["cp", &format!("{id}:/tmp/b c"), "d"], 0);
    assert!(fs::read(place.folder().join("d")).unwrap() == content);
    place.coop(&["cp", &format!("{id}:/nowhere"), "d"], 1);
    assert!(fs::read(place.folder().join("d")).unwrap() == content);
    place.coop(&["cp", "a", "b"], 2);
    place.coop(&["cp", ".", &format!("{id}:/tmp/x")], 2);

    // The console, which has a shell.
    let mut command = place.command(&["attach", &id]);
    let shell = b"echo from-$((40+2))\nexit\n";
    support::run_with_input(&mut command, shell, RUN_DEADLINE);
    assert!(eventually(Duration::from_secs(30), || place
        .machines()
        .is_empty()));
    assert!(eventually(Duration::from_secs(10), || place.is_empty()));
    place.coop(&["exec", &id, "--", "true"], 2);
    place.coop(&["stop", "small"], 2);
}

#[test]
fn commands_and_ends_of_machines_that_were_left() {
    let place = Place::new();
    let first = place.leave(&["--", "sh", "-c", "echo started; echo too >&2; sleep 1000"]);
    let second = place.leave(&["--", "sh", "-c", "sleep 1000"]);
    assert_eq!(place.machines().len(), 2);
    let said = || place.coop(&["logs", &first], 0).text();
    assert!(eventually(Duration::from_secs(30), || {
        let said = said();
        said.contains("started\n") && said.contains("too\n")
    }));
    let ambiguous = place.coop(&["stop", "small"], 2);
    assert!(
        ambiguous.stderr.contains("2 machines"),
        "{}",
        ambiguous.stderr
    );
    place.coop(&["attach", &first], 1);
    place.coop(&["stop", &first], 0);
    place.coop(&["kill", &second], 0);
    assert!(eventually(Duration::from_secs(10), || place.is_empty()));
    let brief = place.leave(&["--", "true"]);
    assert!(!brief.is_empty());
    assert!(eventually(Duration::from_secs(30), || place.is_empty()));
    // What keeps a machine from starting is told as without --detach.
    let refused = place.coop(&["run", "none", "--detach"], 2);
    assert!(
        refused.stderr.contains("there is neither"),
        "{}",
        refused.stderr
    );
}
