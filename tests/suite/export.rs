//! Images for container engines: what is in them, and that they boot without a right.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use serde_json::Value;

use crate::support::{
    Done, NOBODY, RUN_DEADLINE, coop_in, give, is_root, oracle, run, sha256, small, temp_folder,
    unprivileged,
};

/// How long an engine may take with its first image on a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);

fn export(folder: &Path, output: &str) -> Done {
    let appliance = small().display().to_string();
    let words = [
        "export",
        &appliance,
        "--format",
        "container",
        "-o",
        output,
        "--json",
    ];
    coop_in(folder, &words)
}

#[test]
fn an_image_is_the_same_each_time_and_readable_for_others() {
    let folder = temp_folder();
    let mut digests = Vec::new();
    for output in ["a.tar", "b.tar", "layout"] {
        let done = export(folder.path(), output).expect(0);
        let told: Value = serde_json::from_slice(&done.stdout).unwrap();
        digests.push(told["digest"].as_str().unwrap().to_owned());
    }
    let at = |name: &str| folder.path().join(name);
    assert_eq!(sha256(&at("a.tar")), sha256(&at("b.tar")));
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        3,
        "nothing else is left"
    );
    if !oracle("skopeo") {
        return;
    }
    for source in ["oci-archive:a.tar", "oci:layout"] {
        let mut skopeo = unprivileged("skopeo");
        skopeo
            .args(["inspect", source])
            .env("HOME", folder.path())
            .current_dir(folder.path());
        let told = run(&mut skopeo, RUN_DEADLINE).expect(0);
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        assert_eq!(
            (&told["Os"], &told["Architecture"]),
            (&"linux".into(), &"amd64".into())
        );
        assert_eq!(told["Layers"].as_array().unwrap().len(), 2);
        assert_eq!(told["Digest"], digests[0].as_str());
    }
}

#[test]
fn what_is_damaged_or_in_the_way_is_refused() {
    let folder = temp_folder();
    let mut copy = Command::new("cp");
    copy.arg("-a")
        .arg(small())
        .arg(folder.path().join("damaged"));
    run(&mut copy, RUN_DEADLINE).expect(0);
    let config = folder.path().join("damaged/config");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen('C', "K", 1)).unwrap();
    let words = ["export", "damaged", "--format", "container", "-o", "x.tar"];
    let refused = coop_in(folder.path(), &words).expect(1);
    assert!(
        refused.stderr.contains("the manifest says sha256"),
        "{}",
        refused.stderr
    );
    assert!(!folder.path().join("x.tar").exists());
    let refused = export(folder.path(), "damaged").expect(1);
    assert!(
        refused
            .text()
            .contains("is no OCI layout; it is not overwritten"),
        "{}",
        refused.text()
    );
}

/// Gives the engine the host's control groups as one tree, where the host has them in several ways
/// at once: crun takes no such host. Only root may, and only in a view of its own.
const UNIFIED: &str = "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";

/// Podman of the ordinary user, with folders of its own.
fn podman(folder: &Path, words: &[&str]) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            UNIFIED,
            "sh",
            "setpriv",
        ]);
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
        command.args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
        command.args(["--no-new-privs", "podman"]);
        command
    } else {
        Command::new("podman")
    };
    for (variable, name) in [("HOME", "home"), ("XDG_RUNTIME_DIR", "run")] {
        let path = folder.join(name);
        fs::create_dir_all(&path).unwrap();
        give(&path);
        command.env(variable, path);
    }
    command.current_dir(folder).args(words);
    command
}

/// Podman leaves a process that holds its namespaces: it ends with this.
struct Pause<'f>(&'f Path);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        let file = self.0.join("run/libpod/tmp/pause.pid");
        let number = fs::read_to_string(file)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        if let Some(pid) = number.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[test]
fn an_ordinary_users_engine_boots_the_guest() {
    if !oracle("podman") || !oracle("crun") {
        return;
    }
    let folder = temp_folder();
    export(folder.path(), "image.tar").expect(0);
    let _pause = Pause(folder.path());
    // The engine's usual filter of system calls, no capability, no network, nothing to write to.
    let words = [
        "run",
        "--rm",
        "--network=none",
        "--cgroups=disabled",
        "--cap-drop=all",
        "--read-only",
        "oci-archive:image.tar",
        "--",
        "cat",
        "/etc/os-release",
    ];
    let done = run(&mut podman(folder.path(), &words), DEADLINE).expect(0);
    assert!(done.text().contains("ID=debian"), "{}", done.text());
    let words = [
        "run",
        "--rm",
        "--network=none",
        "--cgroups=disabled",
        "localhost/tarball:latest",
        "--",
        "sh",
        "-c",
        "exit 7",
    ];
    run(&mut podman(folder.path(), &words), DEADLINE).expect(7);
}
