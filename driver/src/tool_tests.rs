//! A shell behind the walls tries what a Makefile of a stranger might.

use std::cell::Cell;
use std::path::Path;

use super::*;
use crate::sandbox::{LandlockState, landlock_state};

fn options(folder: &Path, script: &str) -> ToolOptions {
    ToolOptions {
        program: SHELL.into(),
        arguments: vec!["-c".into(), script.into()],
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        folder: folder.to_owned(),
        readable: Vec::new(),
        writable: vec![folder.to_owned()],
        file_bytes_max: 1 << 20,
    }
}

fn shell(folder: &Path, script: &str) -> (ToolEnd, String) {
    let mut text = Vec::new();
    let end = run(
        &options(folder, script),
        &mut |bytes| {
            text.extend_from_slice(bytes);
            Ok(())
        },
        &|| false,
    );
    (end.unwrap(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_tool_works_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let script = "echo one >f && cat f && printf '#!/bin/sh\\necho two >&2' >p && chmod +x p \
                  && ./p && mkfifo q && cat < /dev/null && echo x >/dev/null && env && exit 3";
    let (end, text) = shell(folder.path(), script);
    assert_eq!(end, ToolEnd::Exited(3), "{text}");
    assert!(text.starts_with("one\ntwo\n"), "{text}");
    assert!(!text.contains("HOME="), "{text}");
}

#[test]
fn what_is_outside_stays_as_it_is_and_unread() {
    if landlock_state() == LandlockState::Absent {
        eprintln!("skipped: this host's kernel has no landlock");
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
        format!("mv {path} ."),
        format!("ln {path} own"),
        format!("ls {}", outside.path().display()),
        "cat /etc/shadow /etc/hostname".to_owned(),
        "cat /proc/1/environ".to_owned(),
        format!("kill -0 {}", std::process::id()),
        "mknod d c 1 3".to_owned(),
    ] {
        let (end, text) = shell(folder.path(), &format!("{{ {script}; }} 2>/dev/null"));
        assert!(
            end != ToolEnd::Exited(0) && text.is_empty(),
            "{script}: {end:?} {text}"
        );
    }
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
}

#[test]
fn there_is_no_network_and_no_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for script in [
        format!("bash -c 'echo x >/dev/tcp/127.0.0.1/{port}'"),
        format!("bash -c 'echo x >/dev/udp/127.0.0.1/{port}'"),
        "unshare -U true".to_owned(),
        "unshare -m true".to_owned(),
        "mount -t tmpfs none .".to_owned(),
        "chroot . /bin/true".to_owned(),
        "setsid -f -w true".to_owned(),
        "dd if=/dev/zero of=large bs=64k count=32".to_owned(),
    ] {
        let (end, text) = shell(folder.path(), &format!("{{ {script}; }} 2>/dev/null"));
        assert_ne!(end, ToolEnd::Exited(0), "{script}: {text}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody connected");
}

/// Whether a process with this word in its command line runs.
fn is_running(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|part| part == word.as_bytes())
    })
}

#[test]
fn the_whole_group_ends_with_the_tool() {
    let folder = tempfile::tempdir().unwrap();
    // A number that no other process sleeps for.
    let number = format!("{}.25", 100_000 + std::process::id());
    let (end, text) = shell(folder.path(), &format!("sleep {number} & echo started"));
    assert_eq!((end, text.as_str()), (ToolEnd::Exited(0), "started\n"));
    assert!(!is_running(&number));
}

#[test]
fn a_tool_that_is_called_off_leaves_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let number = format!("{}.5", 100_000 + std::process::id());
    let started = Cell::new(false);
    let script = format!("trap '' TERM; (trap '' TERM; sleep {number}) & echo started; wait");
    let end = run(
        &options(folder.path(), &script),
        &mut |_| {
            started.set(true);
            Ok(())
        },
        &|| started.get(),
    );
    assert_eq!(end.unwrap(), ToolEnd::Cancelled);
    assert!(!is_running(&number));
}

#[test]
fn failures_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (end, _) = shell(folder.path(), "kill -SEGV $$");
    assert_eq!(end, ToolEnd::Signalled(11));
    let full = run(
        &options(folder.path(), "echo x; sleep 60"),
        &mut |_| Err(io::ErrorKind::StorageFull.into()),
        &|| false,
    );
    assert!(matches!(full, Err(ToolError::Output { .. })));
    let missing = ToolOptions {
        writable: vec![folder.path().join("missing")],
        ..options(folder.path(), "true")
    };
    let refused = run(&missing, &mut |_| Ok(()), &|| false);
    if landlock_state() != LandlockState::Absent {
        assert!(matches!(refused, Err(ToolError::Sandbox(_))));
    }
}

#[test]
fn a_tool_has_a_terminal_but_cannot_type_into_it() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use std::os::fd::AsFd;
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let name = ptsname(&keyboard, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let terminal = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The shell's `read` wants a whole line; a program of another session has no terminal to open.
    let script = "test -t 0 && test -t 1 && test -t 2 || exit 9; trap 'echo wide >size' WINCH; \
                  (: </dev/tty) 2>/dev/null && exit 8; \
                  echo ready >&2; read -r word; echo \"$word\" >said; \
                  read -r word; exit 5";
    let mut written = std::fs::File::from(keyboard.as_fd().try_clone_to_owned().unwrap());
    let thread = std::thread::spawn({
        let said = folder.path().join("said");
        move || {
            io::Write::write_all(&mut written, b"hello\n").unwrap();
            until(|| said.exists());
            let mut new = tcgetwinsize(&written).unwrap();
            new.ws_col = 77;
            rustix::termios::tcsetwinsize(&written, new).unwrap();
            // A shell runs a trap when it is done with what it is at.
            std::thread::sleep(Duration::from_millis(300));
            io::Write::write_all(&mut written, b"end\n").unwrap();
        }
    });
    let end = run_on_terminal(&options(folder.path(), script), &terminal, &|| false);
    thread.join().unwrap();
    assert_eq!(end.unwrap(), ToolEnd::Exited(5));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("said"), "hello\n");
    assert_eq!(read("size"), "wide\n");
}

fn until(holds: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !holds() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(5));
    }
}
