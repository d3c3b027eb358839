//! The walls from inside: a shell behind them tries what a guest's process must not do.

use std::path::{Path, PathBuf};
use std::process::Command;

use coop_driver_sys::spawn::{Confinement, confine};

use super::{Access, LandlockState, PathRule, filter, ruleset};

/// Runs a shell script behind the walls; it may write in `folder` and execute the host's programs.
fn behind_walls(folder: &Path, script: &str) -> (i32, String) {
    let programs = ["/bin", "/usr", "/lib", "/lib64", "/etc/ld.so.cache"];
    let mut rules: Vec<PathRule> = programs
        .iter()
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .map(|path| PathRule {
            path,
            access: Access::Execute,
        })
        .collect();
    rules.push(PathRule {
        path: folder.to_owned(),
        access: Access::Write,
    });
    let (landlock, _) = ruleset(&rules).unwrap();
    let filter = filter().unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).current_dir(folder);
    confine(
        &mut command,
        Confinement {
            landlock,
            filter,
            ..Confinement::default()
        },
    )
    .unwrap();
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

fn has_landlock() -> bool {
    let there = ruleset(&[]).unwrap().1 != LandlockState::Absent;
    if !there {
        eprintln!("skipped: this host's kernel has no landlock");
    }
    there
}

#[test]
fn what_a_guest_needs_works() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = behind_walls(folder.path(), "echo hello >>f && cat f && rm f && (exit 3)");
    assert_eq!((code, text.as_str()), (3, "hello\n"));
}

#[test]
fn files_elsewhere_are_out_of_reach() {
    if !has_landlock() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let path = secret.display();
    for script in [
        format!("cat {path}"),
        format!("echo x >>{path}"),
        format!("rm {path}"),
        format!("ls {}", outside.path().display()),
        "cp /bin/sh own && ./own -c true".to_owned(),
        format!("kill -0 {}", std::process::id()),
    ] {
        let (code, text) = behind_walls(folder.path(), &format!("{{ {script}; }} 2>/dev/null"));
        assert!(code != 0 && text.is_empty(), "{script}: {code} {text}");
    }
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
}

#[test]
fn calls_that_a_guest_does_not_need_fail_and_do_not_kill() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), "kept").unwrap();
    for script in [
        "unshare -U true",
        "unshare -m true",
        "mount -t tmpfs none .",
        "chroot . /bin/true",
        "bash -c 'echo x >/dev/tcp/127.0.0.1/9'",
        "echo cut >f",
        "truncate -s 1 f",
        "setsid true",
        "mknod n p",
    ] {
        let (code, _) = behind_walls(folder.path(), &format!("{{ {script}; }} 2>/dev/null"));
        assert!((1..128).contains(&code), "{script}: {code}");
    }
    assert_eq!(std::fs::read(folder.path().join("f")).unwrap(), b"kept");
}
