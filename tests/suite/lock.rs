//! Locks: the same bytes as without one, nothing but what they pin, and no network.

use std::path::Path;

use fs_err as fs;

use crate::support::{
    BUILD_DEADLINE, RUN_DEADLINE, coop, coop_in, oracle, run, sha256, temp_folder,
};

/// A system of several suites, small enough to be built often.
fn recipe(packages: &str) -> String {
    format!(
        "name: locked\n\
         rootfs:\n  \
           source:\n    \
             debian:\n      \
               suite: trixie\n      \
               variant: essential\n      \
               packages: [{packages}]\n      \
               repositories: [{{suite: trixie-updates}}, {{suite: trixie-backports}}]\n\
         kernel: {{package: {{name: user-mode-linux, suite: sid}}}}\n"
    )
}

#[test]
fn a_lock_gives_what_the_archives_gave() {
    let folder = temp_folder();
    let at = folder.path();
    let write = |packages: &str| fs::write(at.join("r.yaml"), recipe(packages)).unwrap();
    write("hostname");
    // Nothing is asked for that is not there.
    let missing = coop_in(at, &["build", "r.yaml", "--locked"]);
    assert_eq!(missing.code(), Some(2));
    assert!(missing.stderr.contains("r.yaml.lock"), "{}", missing.stderr);
    coop_in(at, &["build", "r.yaml", "-o", "live"]).expect(0);
    let wrote = coop_in(at, &["lock", "r.yaml"]).expect(0);
    assert_eq!(wrote.text(), "r.yaml.lock\n");
    let lock = fs::read(at.join("r.yaml.lock")).unwrap();
    coop_in(at, &["lock", "r.yaml", "--check"]).expect(0);
    coop_in(at, &["lock", "r.yaml"]).expect(0);
    assert_eq!(fs::read(at.join("r.yaml.lock")).unwrap(), lock);
    coop_in(at, &["build", "r.yaml", "--locked", "-o", "locked"]).expect(0);
    let digest = |name: &str| sha256(&at.join(name));
    assert_eq!(digest("live/root.cobd"), digest("locked/root.cobd"));
    let done = coop_in(at, &["build", "r.yaml", "-o", "locked"]).expect(0);
    assert!(done.stderr.contains("up to date"), "{}", done.stderr);
    offline_makes_no_connection(at);
    assert_eq!(digest("locked/root.cobd"), digest("offline/root.cobd"));
    // What the lock does not answer is not asked elsewhere.
    write("hostname, nano");
    let refused = coop_in(at, &["build", "r.yaml", "-o", "locked"]);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("coop lock"), "{}", refused.stderr);
    let changed = coop_in(at, &["lock", "r.yaml", "--check"]);
    assert_eq!(changed.code(), Some(1));
    assert!(
        changed.text().contains("hostname, nano"),
        "{}",
        changed.text()
    );
    assert_eq!(fs::read(at.join("r.yaml.lock")).unwrap(), lock);
}

fn offline_makes_no_connection(at: &Path) {
    let words = ["build", "r.yaml", "--offline", "-o", "offline"];
    if !oracle("strace") {
        coop_in(at, &words).expect(0);
        return;
    }
    let mut command = crate::support::unprivileged("strace");
    let calls = at.join("calls");
    crate::support::plain_environment(&mut command);
    command
        .args(["-f", "-qq", "-e", "trace=connect", "-o"])
        .arg(&calls)
        .arg(crate::support::program())
        .current_dir(at)
        .args(words);
    run(&mut command, BUILD_DEADLINE).expect(0);
    let calls = fs::read_to_string(calls).unwrap();
    assert!(!calls.contains("AF_INET"), "{calls}");
}

#[test]
fn a_damaged_lock_is_refused() {
    let folder = temp_folder();
    let at = folder.path();
    fs::write(at.join("r.yaml"), recipe("hostname")).unwrap();
    for (lock, part) in [
        ("", "is not a lock"),
        ("{\"format\": 9}", "the form 9"),
        ("{\"format\": 1, \"suites\": []}", "is not a lock"),
        (
            "{\"format\": 1, \"coop\": \"0\", \"suites\": [], \"answers\": []}",
            "the lock does not have suite sid",
        ),
    ] {
        fs::write(at.join("r.yaml.lock"), lock).unwrap();
        let mut command = coop();
        command.current_dir(at).args(["build", "r.yaml"]);
        let refused = run(&mut command, RUN_DEADLINE);
        assert_eq!(refused.code(), Some(1), "{lock}");
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
        assert!(!at.join("out").exists());
    }
}
