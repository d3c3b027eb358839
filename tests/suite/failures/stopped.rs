//! Builds that are stopped half-way, politely and not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{DEADLINE, Place, tiny};
use crate::support;

/// How long the kernel may take to end a guest whose program died.
const DEATH: Duration = Duration::from_secs(10);

/// A program that runs until it is told otherwise.
struct Background(Child);

impl Background {
    fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        Self(child.unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap()
    }

    /// Waits for a line on stderr with this text; the rest is read and forgotten.
    #[track_caller]
    fn wait_for(&mut self, text: &'static str) {
        let lines = BufReader::new(self.0.stderr.take().unwrap()).lines();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let start = Instant::now();
        let mut seen = Vec::new();
        while let Ok(line) = receiver.recv_timeout(DEADLINE.saturating_sub(start.elapsed())) {
            if line.contains(text) {
                return;
            }
            seen.push(line);
        }
        panic!("'{text}' did not come: {seen:?}");
    }

    /// Sends the program, and it alone, a signal, and waits for its end.
    #[track_caller]
    fn signal(mut self, signal: Signal) -> ExitStatus {
        kill_process(self.pid(), signal).unwrap();
        support::wait(&mut self.0, DEADLINE).expect("no end after a signal")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // The group is empty where all is well.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.0.wait();
    }
}

#[track_caller]
fn expect_no_process(place: &Place) {
    let text = place.folder.path().display().to_string();
    let start = Instant::now();
    while start.elapsed() < DEATH {
        if support::processes_naming(&text).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{:?}", support::processes_naming(&text));
}

/// Builds again, and looks whether the build before left anything after that.
#[track_caller]
fn build_again(place: &Place, mut command: Command) {
    support::run(&mut command, DEADLINE).expect(0);
    assert_eq!(super::names(&place.path("out")), ["app"]);
    assert!(place.output().join("appliance.json").is_file());
    place.expect_no_residue();
}

fn waiting_in_the_guest(place: &Place) -> (Background, std::path::PathBuf) {
    tiny::appliance();
    let cache = place.own_cache();
    let recipe = tiny::recipe("  run: [\"echo half-way; sleep 600\"]\n");
    let mut command = place.build(&recipe, &["--offline"]);
    let mut build = Background::start(command.env("COOP_CACHE", &cache));
    build.wait_for("half-way");
    (build, cache)
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let place = Place::new();
    let (build, _) = waiting_in_the_guest(&place);
    assert_eq!(build.signal(Signal::INT).code(), Some(130));
    expect_no_process(&place);
    place.expect_nothing_left();
}

#[test]
fn a_build_killed_in_the_guest_is_cleaned_up_after_by_the_next() {
    let place = Place::new();
    let (build, cache) = waiting_in_the_guest(&place);
    assert_eq!(build.signal(Signal::KILL).code(), None);
    expect_no_process(&place);
    assert!(!place.output().exists());
    let mut again = place.build(&tiny::recipe("  run: [\"echo done\"]\n"), &["--offline"]);
    again.env("COOP_CACHE", cache);
    build_again(&place, again);
}

/// A server that sends half of a file and waits, until it is told to send all.
struct Halting {
    port: u16,
    whole: Arc<AtomicBool>,
    half_sent: Arc<AtomicBool>,
}

impl Halting {
    fn start(bytes: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            whole: Arc::default(),
            half_sent: Arc::default(),
        };
        let bytes = Arc::new(bytes);
        let (whole, half_sent) = (Arc::clone(&server.whole), Arc::clone(&server.half_sent));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (whole, half_sent) = (Arc::clone(&whole), Arc::clone(&half_sent));
                let bytes = Arc::clone(&bytes);
                std::thread::spawn(move || serve(stream, &bytes, &whole, &half_sent));
            }
        });
        server
    }
}

fn serve(mut stream: TcpStream, bytes: &[u8], whole: &AtomicBool, half_sent: &AtomicBool) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while lines
        .next()
        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
    {}
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
    let _ = stream.write_all(head.as_bytes());
    if whole.load(Ordering::SeqCst) {
        let _ = stream.write_all(bytes);
        return;
    }
    let _ = stream.write_all(&bytes[..bytes.len() / 2]);
    half_sent.store(true, Ordering::SeqCst);
    // Nothing comes until the other side is gone.
    let _ = stream.read(&mut [0]);
}

#[test]
fn a_build_killed_in_a_download_is_cleaned_up_after_by_the_next() {
    tiny::appliance();
    let archive = support::home().join("tiny.tar");
    let server = Halting::start(fs::read(&archive).unwrap());
    let place = Place::new();
    let cache = place.own_cache();
    let recipe = format!(
        "name: tiny\nrootfs:\n  source:\n    tarball: {{url: \"http://127.0.0.1:{}/t.tar\", \
         sha256: {}}}\n",
        server.port,
        support::sha256(&archive)
    );
    let command = || {
        let mut command = place.build(&recipe, &[]);
        command.env("COOP_CACHE", &cache).env_remove("http_proxy");
        command
    };
    let build = Background::start(&mut command());
    let start = Instant::now();
    while !server.half_sent.load(Ordering::SeqCst) {
        assert!(start.elapsed() < DEADLINE, "nothing was asked for");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(build.signal(Signal::KILL).code(), None);
    expect_no_process(&place);
    assert!(!place.output().exists());
    server.whole.store(true, Ordering::SeqCst);
    build_again(&place, command());
}
