//! Machines that are left running: `coop run --detach` and the verbs that reach them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{self, Done, RUN_DEADLINE, debian, eventually, give, small, temp_folder};
use crate::terminal::Terminal;

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
        command.env("XDG_STATE_HOME", self.folder().join("s"));
        command
    }

    #[track_caller]
    fn coop(&self, words: &[&str], code: i32) -> Done {
        support::run(&mut self.command(words), RUN_DEADLINE).expect(code)
    }

    #[track_caller]
    fn leave(&self, more: &[&str]) -> String {
        self.leave_one(small(), more)
    }

    #[track_caller]
    fn leave_one(&self, target: &Path, more: &[&str]) -> String {
        let target = target.to_str().unwrap();
        let words = [&["run", target, "--detach"][..], more].concat();
        let name = self.coop(&words, 0).text();
        name.trim_end().to_owned()
    }

    fn machines(&self) -> Vec<Value> {
        self.listed(&["ps", "--json"])
    }

    /// What is kept of a machine.
    fn kept(&self, id: &str) -> Value {
        let mut listed = self.listed(&["ps", "--all", "--json"]).into_iter();
        listed.find(|one| one["id"] == id).unwrap_or_default()
    }

    fn listed(&self, words: &[&str]) -> Vec<Value> {
        let listed = self.coop(words, 0);
        let value: Value = serde_json::from_slice(&listed.stdout).unwrap();
        value["machines"].as_array().unwrap().clone()
    }

    fn is_empty(&self) -> bool {
        let entries = fs::read_dir(self.folder().join("r/coop")).unwrap();
        entries.count() == 1
    }
}

fn process(machine: &Value) -> Option<rustix::process::Pid> {
    let pid = machine["pid"].as_i64()?;
    rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)
}

impl Drop for Place {
    fn drop(&mut self) {
        for machine in self.machines() {
            if let Some(pid) = process(&machine) {
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

    // Files need some programs in the guest, which this one has not.
    fs::write(place.folder().join("a"), "a").unwrap();
    give(&place.folder().join("a"));
    let refused = place.coop(&["cp", "a", &format!("{id}:/tmp/a")], 1);
    let why = "the guest has no chmod";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    let listed = place.coop(&["exec", &id, "--", "sh", "-c", "echo /tmp/.* /tmp/*"], 0);
    assert_eq!(listed.text(), "/tmp/. /tmp/.. /tmp/*\n");

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
        refused.stderr.contains("no such file"),
        "{}",
        refused.stderr
    );
}

#[test]
fn what_became_of_machines_is_kept() {
    let place = Place::new();
    let words = ["--", "sh", "-c", "echo out; echo err >&2; exit 7"];
    let first = place.leave(&words);
    assert!(eventually(Duration::from_secs(30), || {
        place.kept(&first)["state"] == "ended"
    }));
    let kept = place.kept(&first);
    assert_eq!(kept["exit_code"], 7);
    assert_eq!(kept["cause"], "exited");
    assert_eq!(kept["name"], "small");
    assert!(kept["ended"].as_u64() >= kept["started"].as_u64());
    assert!(kept["pid"].is_null());
    let listed = place.coop(&["ps", "-a"], 0).text();
    assert!(listed.contains("exit 7, "), "{listed}");
    assert!(place.coop(&["ps"], 0).text().is_empty());
    for named in ["small", &first] {
        let logs = place.coop(&["logs", "-f", named], 0);
        // Two streams keep no order.
        assert!(["out\nerr\n", "err\nout\n"].contains(&&*logs.text()));
        assert!(
            logs.stderr.contains("exited with code 7"),
            "{}",
            logs.stderr
        );
    }
    let refused = place.coop(&["exec", "small", "--", "true"], 2);
    assert!(
        refused.stderr.contains("coop logs small"),
        "{}",
        refused.stderr
    );

    // Another one takes the name, and is stopped; what coop stop waits for is written.
    let second = place.leave(&[]);
    assert!(!place.coop(&["logs", "small"], 0).text().contains("out"));
    place.coop(&["stop", "small"], 0);
    let kept = place.kept(&second);
    assert_eq!(
        (&kept["exit_code"], &kept["cause"]),
        (&0.into(), &"powered_off".into())
    );
    assert!(
        place
            .coop(&["logs", "small"], 0)
            .stderr
            .contains("powered off")
    );
    assert_eq!(place.coop(&["logs", &first], 0).text().len(), 8);

    // One is killed, and the other one's coop is.
    let third = place.leave(&["--", "sleep", "1000"]);
    place.coop(&["kill", &third], 0);
    assert_eq!(place.kept(&third)["exit_code"], 137);
    let fourth = place.leave(&["--", "sh", "-c", "echo last; sleep 1000"]);
    assert!(eventually(Duration::from_secs(30), || {
        place.coop(&["logs", &fourth], 0).text() == "last\n"
    }));
    let pid = process(&place.machines()[0]).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    assert!(eventually(Duration::from_secs(10), || {
        place.kept(&fourth)["state"] == "lost"
    }));
    let logs = place.coop(&["logs", &fourth], 0);
    assert_eq!(logs.text(), "last\n");
    assert!(logs.stderr.contains("is lost"), "{}", logs.stderr);
    assert_eq!(place.listed(&["ps", "--all", "--json"]).len(), 4);
    assert!(place.machines().is_empty());
}

#[test]
fn a_place_that_keeps_nothing_is_told_of() {
    let place = Place::new();
    fs::write(place.folder().join("s"), "").unwrap();
    let target = small().to_str().unwrap();
    let left = place.coop(&["run", target, "--detach", "--", "true"], 0);
    assert!(left.stderr.contains("goes when it ends"), "{}", left.stderr);
    assert!(eventually(Duration::from_secs(30), || place.is_empty()));
}

#[test]
fn files_go_in_and_out_whole_and_with_their_modes() {
    let place = Place::new();
    let id = place.leave_one(debian(), &[]);
    let host = |name: &str| place.folder().join(name);
    let guest = |path: &str| format!("{id}:{path}");
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(host("a"), &content).unwrap();
    give(&host("a"));
    for bits in [0o640, 0o755] {
        let mode = std::fs::Permissions::from_mode(bits);
        fs::set_permissions(host("a"), mode).unwrap();
        place.coop(&["cp", "a", &guest("/tmp/b c")], 0);
        place.coop(&["cp", &guest("/tmp/b c"), "d"], 0);
        assert!(fs::read(host("d")).unwrap() == content);
        let copied = fs::metadata(host("d")).unwrap().permissions().mode();
        assert_eq!(copied & 0o7777, bits);
    }
    place.coop(&["cp", "a", &guest("/root")], 0);
    fs::remove_file(host("a")).unwrap();
    place.coop(&["cp", &guest("/root/a"), "."], 0);
    assert!(fs::read(host("a")).unwrap() == content);
    for (words, code, why) in [
        ([&*guest("/nowhere"), "d"], 1, "was not copied"),
        ([&*guest("/etc"), "d"], 2, "is a folder; coop cp copies"),
        (["a", &guest("/none/a")], 1, "there is no folder /none/"),
        (["a", &guest("/dev/null")], 1, "is no regular file"),
        ([".", &guest("/tmp/x")], 2, "is a folder; coop cp copies"),
        (["none", &guest("/tmp/x")], 2, "there is no such file"),
        (["a", "b"], 2, "one of the two is MACHINE:PATH"),
    ] {
        let refused = place.coop(&["cp", words[0], words[1]], code);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    assert!(fs::read(host("d")).unwrap() == content);
}

/// A person at a terminal, and a machine that was left.
#[test]
fn a_person_comes_and_goes() {
    let place = Place::new();
    let id = place.leave_one(debian(), &["--node", "box"]);
    let at = |words: &[&str]| Terminal::run(&place.command(words), RUN_DEADLINE);

    // The console: size, raw mode, another size; Ctrl-] q leaves the machine alone.
    let mut terminal = at(&["attach", "box"]);
    terminal.expect("Ctrl-] and q leave it");
    terminal.expect_raw();
    terminal.send("\r");
    terminal.expect("# ");
    terminal.send("stty size; echo first-$((6*7))\r");
    terminal.expect("30 100");
    terminal.expect("first-42");
    terminal.resize(77, 22);
    terminal.send("until stty size | grep '^22 77'; do sleep 0.1; done\r");
    terminal.expect("22 77\r");
    terminal.send("sleep 1000\r");
    terminal.expect("sleep 1000");
    // Ctrl-C is the guest's.
    terminal.send("\x03");
    terminal.expect("# ");
    terminal.send("\x1dq");
    assert_eq!(terminal.end(), Some(0));
    assert_eq!(place.machines().len(), 1);

    // A signal to coop leaves as well, and gives the terminal back.
    let terminal = at(&["attach", &id]);
    terminal.expect_raw();
    terminal.signal(Signal::TERM);
    assert_eq!(terminal.end(), Some(143));

    // A command with a terminal.
    let mut terminal = at(&["exec", "-t", "box", "--", "sh"]);
    terminal.expect_raw();
    terminal.expect("# ");
    terminal.send("tty; stty size\r");
    terminal.expect("/dev/pts/");
    terminal.expect("30 100");
    terminal.resize(66, 33);
    terminal.send("until stty size | grep '^33 66'; do sleep 0.1; done\r");
    terminal.expect("33 66\r");
    terminal.send("exit 5\r");
    assert_eq!(terminal.end(), Some(5));

    // Whoever leaves a command ends it, whether it wants to or not.
    let running = || {
        let line = "grep -l ^sleep /proc/[0-9]*/cmdline | wc -l";
        place
            .coop(&["exec", "box", "--", "sh", "-c", line], 0)
            .text()
            != "0\n"
    };
    for (leave, code) in [(None, 129), (Some(Signal::TERM), 143)] {
        let mut terminal = at(&[
            "exec",
            "-t",
            "box",
            "--",
            "sh",
            "-c",
            "trap '' TERM; sleep 999",
        ]);
        terminal.expect_raw();
        assert!(eventually(Duration::from_secs(30), running));
        match leave {
            None => terminal.send("\x1dq"),
            Some(signal) => terminal.signal(signal),
        }
        assert_eq!(terminal.end(), Some(code));
        assert!(eventually(Duration::from_secs(30), || !running()));
    }
    let refused = place.coop(&["exec", "-t", "box", "--", "true"], 2);
    assert!(
        refused.stderr.contains("needs a terminal"),
        "{}",
        refused.stderr
    );

    // The machine ends under whoever looks.
    let terminal = at(&["attach", "box"]);
    terminal.expect_raw();
    place.coop(&["stop", "box"], 0);
    assert_eq!(terminal.end(), Some(0));
}
