//! What coop and its guests do not touch: namespaces and mounts of the host, and its loopback.

use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fs_err as fs;

use crate::support::{self, RUN_DEADLINE};

/// System calls for namespaces and mounts; clone and clone3 only with certain flags.
const FORBIDDEN: &[&str] = &[
    "unshare",
    "setns",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "fsopen",
    "fsmount",
    "fspick",
    "open_tree",
    "move_mount",
    "mount_setattr",
];
/// Following every process slows a guest down: each of its system calls is a signal.
const TRACED_DEADLINE: Duration = Duration::from_secs(300);

#[test]
fn no_namespace_and_no_mount_is_even_tried() {
    if !support::oracle("strace") {
        return;
    }
    let folder = support::temp_folder();
    let output = folder.path().join("out");
    // The step boots a guest during the build too.
    let recipe = folder.path().join("recipe.yaml");
    let text = fs::read_to_string(support::recipe("tarball.yaml")).unwrap();
    let step = "rootfs:\n  run: [echo built > /etc/note]\n";
    fs::write(&recipe, text.replace("rootfs:\n", step)).unwrap();
    let [_, set, archive] = support::from_archive(support::small_archive());
    let build: Vec<OsString> = vec![
        "build".into(),
        "-o".into(),
        output.clone().into(),
        recipe.into(),
        set,
        archive,
    ];
    let run = ["run".into(), output.into()]
        .into_iter()
        .chain(["--", "cat", "/etc/note"].map(Into::into));
    for (name, words) in [("build", build), ("run", run.collect())] {
        let log = folder.path().join(name);
        let mut command = support::unprivileged("strace");
        support::plain_environment(&mut command);
        command
            .args(["-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-o"])
            .arg(&log)
            .arg(format!(
                "--trace=execve,clone,clone3,{}",
                FORBIDDEN.join(",")
            ))
            // Where they are tried all the same they fail, and the work should not need them.
            .arg(format!("--inject={}:error=EPERM", FORBIDDEN.join(",")))
            .arg(support::program())
            .args(&words);
        let done = support::run(&mut command, TRACED_DEADLINE).expect(0);
        if name == "run" {
            assert_eq!(done.text(), "built\n");
        }
        let log = fs::read_to_string(log).unwrap();
        assert!(
            log.contains("vmlinux") && log.contains("clone"),
            "the guest was not followed:\n{log}"
        );
        for line in log.lines() {
            let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
            let name = call.split('(').next().unwrap_or_default();
            assert!(!FORBIDDEN.contains(&name), "{line}");
            assert!(!call.contains("CLONE_NEW"), "{line}");
        }
    }
}

/// A listener on all of the host's addresses that greets and counts.
struct Greeter {
    port: u16,
    greeted: Arc<AtomicUsize>,
}

impl Greeter {
    fn start() -> Self {
        let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let greeted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&greeted);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.and_then(|mut stream| stream.write_all(b"hello from the host\n"));
            }
        });
        Self { port, greeted }
    }

    /// What a guest that connects to each of the addresses says.
    fn connect(&self, options: &[&str], addresses: &[String]) -> Vec<String> {
        let port = self.port;
        let tries: Vec<String> = addresses
            .iter()
            .map(|address| {
                format!("(exec 3<>/dev/tcp/{address}/{port} && cat <&3) 2>&1 | tail -n 1")
            })
            .collect();
        let mut command = support::coop();
        command.arg("run").arg(support::debian()).args(options);
        command.args(["--", "bash", "-c", &tries.join("\n")]);
        let done = support::run(&mut command, RUN_DEADLINE).expect(0);
        done.text().lines().map(str::to_owned).collect()
    }
}

/// The address that the host would send from, if it has a route; nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[test]
fn the_host_is_closed_to_the_guest_unless_allowed() {
    let greeter = Greeter::start();
    let gateway = "10.0.2.2".to_owned();
    let addresses: Vec<String> = [gateway]
        .into_iter()
        .chain(own_address().map(|address| address.to_string()))
        .collect();
    let closed = greeter.connect(&[], &addresses);
    assert_eq!(closed.len(), addresses.len());
    for line in closed {
        assert!(line.contains("Connection refused"), "{line}");
    }
    assert_eq!(greeter.greeted.load(Ordering::SeqCst), 0);
    let open = greeter.connect(&["--allow-host"], &addresses);
    assert!(
        open.iter().all(|line| line == "hello from the host"),
        "{open:?}"
    );
    assert_eq!(open.len(), addresses.len());
    assert_eq!(greeter.greeted.load(Ordering::SeqCst), addresses.len());
}
