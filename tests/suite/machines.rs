//! The shipped recipes as machines: somebody logs in, connects, and fetches a page.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::support::{self, Done, Process, coop, oracle, recipe, run, temp_folder};
use super::terminal::Terminal;

/// A build from packages that are not in the cache yet, on a busy machine.
const BUILD: Duration = Duration::from_mins(8);
/// A boot of systemd, on a busy machine.
const BOOT: Duration = Duration::from_mins(2);

fn build(recipe: &Path, output: &Path, sets: &[String]) -> Done {
    let mut command = coop();
    command.arg("build").arg(recipe).arg("-o").arg(output);
    for set in sets {
        command.args(["--set", set]);
    }
    run(&mut command, BUILD).expect(0)
}

/// A port of the loopback that nobody has at the moment.
fn free_port() -> u16 {
    let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    TcpListener::bind(any).unwrap().local_addr().unwrap().port()
}

/// A machine in the background; killed when the test is over.
fn background(appliance: &Path) -> Process {
    let mut command = coop();
    command.arg("run").arg(appliance).stdin(Stdio::null());
    Process::start(&mut command, BUILD)
}

/// Tries again until something works, but not for ever.
fn until<T>(patience: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(result) = attempt() {
            return Some(result);
        }
        if started.elapsed() > patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn key_pair(folder: &Path) -> (PathBuf, String) {
    let key = folder.join("key");
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]);
    run(command.arg(&key), Duration::from_secs(20)).expect(0);
    let public = fs::read_to_string(folder.join("key.pub")).unwrap();
    (key, public.trim().to_owned())
}

#[test]
fn a_server_is_reached_by_ssh_and_powers_off() {
    if !oracle("ssh") || !oracle("ssh-keygen") {
        return;
    }
    let folder = temp_folder();
    let port = free_port();
    // The private key must be the caller's own, so it lies where the program does not look.
    let secret = tempfile::tempdir().unwrap();
    let (key, public) = key_pair(secret.path());
    let out = folder.path().join("server");
    let sets = [format!("ssh_key={public}"), format!("ssh_port={port}")];
    build(&recipe("server.yaml"), &out, &sets);
    let machine = background(&out);
    let ssh = |words: &str| {
        let mut command = Command::new("ssh");
        command
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "ConnectTimeout=20",
            ])
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args(["-o", "LogLevel=ERROR", "-p", &port.to_string(), "-i"])
            .arg(&key)
            .args(["root@127.0.0.1", words]);
        run(&mut command, BOOT)
    };
    let state = until(BOOT, || {
        let done = ssh("systemctl is-system-running --wait; systemctl --failed --no-legend");
        (done.code() == Some(0)).then(|| done.text())
    });
    assert_eq!(state.as_deref(), Some("running\n"));
    assert_eq!(ssh("hostname; exit 5").expect(5).text(), "server\n");
    // The connection may break before the command has ended.
    let _ = ssh("systemctl poweroff");
    machine.end().expect(0);
}

#[test]
fn a_page_comes_through_a_forward() {
    let folder = temp_folder();
    let port = free_port();
    let out = folder.path().join("web");
    build(&recipe("web.yaml"), &out, &[format!("port={port}")]);
    let machine = background(&out);
    let page = until(BOOT, || {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut stream = TcpStream::connect(address).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .ok()?;
        stream
            .write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    });
    assert!(page.unwrap().contains("Welcome to an appliance of coop"));
    let instances = support::processes_naming(&out.display().to_string());
    assert!(!instances.is_empty());
    machine.signal(rustix::process::Signal::TERM);
    let code = machine.end().code();
    assert!(matches!(code, Some(0 | 143)), "{code:?}");
    assert_eq!(
        support::processes_naming(&out.display().to_string()),
        Vec::<String>::new()
    );
}

const LOGIN: &str = "\
name: login
rootfs:
  source:
    debian: {suite: trixie, packages: [systemd-sysv]}
  users:
    - {name: root, password: {plain: correct horse}}
devices:
  memory: 512MiB
";

#[test]
fn a_person_logs_in_and_powers_off() {
    if !oracle("setsid") {
        return;
    }
    let folder = temp_folder();
    let recipe = folder.path().join("login.yaml");
    fs::write(&recipe, LOGIN).unwrap();
    let out = folder.path().join("login");
    let built = build(&recipe, &out, &[]);
    assert!(built.stderr.contains("warning"), "a plain password warns");
    let mut person = Terminal::start(&["run", out.to_str().unwrap()], BUILD);
    person.expect("login login: ");
    person.send("root\r");
    person.expect("Password: ");
    person.send("correct horse\r");
    person.expect("root@login:~#");
    person.send("stty size; echo pass''ed\r");
    person.expect("30 100");
    person.expect("passed");
    assert!(!person.text().contains("correct horse"));
    person.send("poweroff\r");
    assert_eq!(person.end(), Some(0));
}

#[test]
fn poweroff_works_without_an_init_system() {
    if !oracle("setsid") {
        return;
    }
    let debian = support::debian().to_str().unwrap();
    let mut person = Terminal::start(&["run", debian], BOOT);
    person.expect("# ");
    person.send("poweroff\r");
    assert_eq!(person.end(), Some(0));
}

#[test]
fn a_terminated_program_restores_the_terminal() {
    if !oracle("setsid") {
        return;
    }
    let debian = support::debian().to_str().unwrap();
    let mut person = Terminal::start(&["run", debian], BOOT);
    person.expect("# ");
    let process = i32::try_from(person.process_id()).unwrap();
    let process = rustix::process::Pid::from_raw(process).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    // The guest shuts down cleanly.
    assert_eq!(person.end(), Some(0));
}
