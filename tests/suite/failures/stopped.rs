//! Builds that are stopped half-way, politely and not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fs_err as fs;
use rustix::process::Signal;

use super::{DEADLINE, Place, tiny};
use crate::support::{self, Process};

/// How long the kernel may take to end a guest whose program died.
const DEATH: Duration = Duration::from_secs(10);

#[track_caller]
fn expect_no_process(place: &Place) {
    let text = place.folder.path().display().to_string();
    let gone = support::eventually(DEATH, || support::processes_naming(&text).is_empty());
    assert!(gone, "{:?}", support::processes_naming(&text));
}

/// Builds again, and looks whether the build before left anything after that.
#[track_caller]
fn build_again(place: &Place, mut command: Command) {
    support::run(&mut command, DEADLINE).expect(0);
    assert_eq!(super::names(&place.path("out")), ["app"]);
    assert!(place.output().join("appliance.json").is_file());
    place.expect_no_residue();
}

fn waiting_in_the_guest(place: &Place) -> (Process, PathBuf) {
    tiny::appliance();
    let cache = support::own_cache(&place.path(""));
    let recipe = tiny::recipe("  run: [\"echo half-way; sleep 600\"]\n");
    let mut command = place.build(&recipe, &["--offline"]);
    let build = Process::start(
        command.env("COOP_CACHE", &cache).stdin(Stdio::null()),
        DEADLINE,
    );
    build.expect_on_stderr("half-way");
    (build, cache)
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let place = Place::new();
    let (build, _) = waiting_in_the_guest(&place);
    build.signal(Signal::INT);
    assert_eq!(build.end().code(), Some(130));
    expect_no_process(&place);
    place.expect_nothing_left();
}

#[test]
fn a_build_killed_in_the_guest_is_cleaned_up_after_by_the_next() {
    let place = Place::new();
    let (build, cache) = waiting_in_the_guest(&place);
    build.signal(Signal::KILL);
    assert_eq!(build.end().code(), None);
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
    let cache = support::own_cache(&place.path(""));
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
    let build = Process::start(command().stdin(Stdio::null()), DEADLINE);
    let asked = support::eventually(DEADLINE, || server.half_sent.load(Ordering::SeqCst));
    assert!(asked, "nothing was downloaded");
    build.signal(Signal::KILL);
    assert_eq!(build.end().code(), None);
    expect_no_process(&place);
    assert!(!place.output().exists());
    server.whole.store(true, Ordering::SeqCst);
    build_again(&place, command());
}
