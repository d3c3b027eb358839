use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use coop_guest::frame::{DATA_MAX, REQUEST_MAX};
use coop_guest::message::{ExecId, Exit, Output, Phase, VERSION, WINDOW};

use super::*;

/// The guest's end, driven by a test.
struct Guest {
    stream: UnixStream,
    decoder: Decoder,
}

impl Guest {
    fn say(&mut self, reply: &Reply<'_>) {
        let mut frame = Vec::new();
        reply.append_to(&mut frame);
        self.stream.write_all(&frame).unwrap();
    }

    /// The next request, handed to `see`.
    fn hear<T>(&mut self, see: impl FnOnce(Request<'_>) -> T) -> T {
        loop {
            if let Some(body) = self.decoder.take().unwrap() {
                let body = body.to_vec();
                return see(Request::decode(&body).unwrap());
            }
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the host has hung up");
            self.decoder.push(&buffer[..count]);
        }
    }

    fn hear_exec(&mut self) -> ExecId {
        self.hear(|request| match request {
            Request::Exec { id, .. } => id,
            other => panic!("{other:?}"),
        })
    }

    fn boot(&mut self) {
        self.say(&Reply::Hello {
            version: VERSION,
            boot_us: 5,
        });
        self.say(&Reply::Phase {
            phase: Phase::Ready,
            boot_us: 9,
        });
    }
}

fn start() -> (Session, Guest, Receiver<SessionEvent>) {
    let (host, guest) = UnixStream::pair().unwrap();
    let (sender, events) = channel();
    let listener = Box::new(move |event| drop(sender.send(event)));
    let reader = Box::new(host.try_clone().unwrap());
    let session = Session::start(reader, Box::new(host), listener).unwrap();
    let guest = Guest {
        stream: guest,
        decoder: Decoder::new(REQUEST_MAX),
    };
    (session, guest, events)
}

/// A writer that tells what it got.
struct Told(std::sync::mpsc::Sender<Vec<u8>>);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).unwrap();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A writer whose reader has left.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn request() -> ExecRequest {
    ExecRequest {
        argv: vec!["true".into()],
        ..ExecRequest::default()
    }
}

fn sinks() -> ExecStreams {
    ExecStreams {
        stdin: None,
        stdout: Box::new(std::io::sink()),
        stderr: Box::new(std::io::sink()),
    }
}

#[test]
fn a_boot_is_told_and_waited_for() {
    let (session, mut guest, events) = start();
    let soon = Instant::now() + Duration::from_millis(20);
    assert_eq!(session.wait_ready(Some(soon)), Err(SessionEnd::Late));
    guest.boot();
    session.wait_ready(None).unwrap();
    let time = Duration::from_micros;
    let first = events.recv().unwrap();
    assert_eq!(first, SessionEvent::Phase(BootPhase::Agent, time(5)));
    let second = events.recv().unwrap();
    assert_eq!(second, SessionEvent::Phase(BootPhase::Ready, time(9)));
}

#[test]
fn outputs_are_kept_apart_and_whole() {
    let (session, mut guest, _events) = start();
    guest.boot();
    let (out, stdout) = channel();
    let (err, stderr) = channel();
    let streams = ExecStreams {
        stdin: None,
        stdout: Box::new(Told(out)),
        stderr: Box::new(Told(err)),
    };
    let execution = session.exec(&request(), streams).unwrap();
    let id = guest.hear_exec();
    for round in 0..3_u8 {
        for output in [Output::Stdout, Output::Stderr] {
            let data = &[round; 100];
            guest.say(&Reply::Output { id, output, data });
        }
    }
    let exit = Exit::Code(7);
    guest.say(&Reply::Exited { id, exit });
    assert_eq!(execution.wait().unwrap(), exit);
    let expected = [[0; 100], [1; 100], [2; 100]].concat();
    assert_eq!(stdout.iter().collect::<Vec<_>>().concat(), expected);
    assert_eq!(stderr.iter().collect::<Vec<_>>().concat(), expected);
    assert_eq!(session.last_exit(), Some(exit));
}

#[test]
fn input_stops_at_the_window_and_goes_on_with_credit() {
    let (session, mut guest, _events) = start();
    guest.boot();
    let (source, mut feed) = std::io::pipe().unwrap();
    let streams = ExecStreams {
        stdin: Some(source.into()),
        ..sinks()
    };
    let execution = session.exec(&request(), streams).unwrap();
    let window = usize::try_from(WINDOW).unwrap();
    let feeder = thread::spawn(move || feed.write_all(&vec![3; window + 1000]).unwrap());
    let id = guest.hear_exec();
    let take = |guest: &mut Guest| {
        guest.hear(|request| match request {
            Request::Stdin { data, .. } => data.len(),
            other => panic!("{other:?}"),
        })
    };
    let mut got = 0;
    while got < window {
        got += take(&mut guest);
    }
    assert_eq!(got, window);
    // A signal passes though the window is used up.
    execution.signal(2).unwrap();
    guest.hear(|request| assert_eq!(request, Request::Signal { id, signal: 2 }));
    guest.say(&Reply::Credit { id, bytes: 1000 });
    while got < window + 1000 {
        got += take(&mut guest);
    }
    feeder.join().unwrap();
    guest.say(&Reply::Credit { id, bytes: 1000 });
    guest.hear(|request| assert_eq!(request, Request::StdinEnd { id }));
}

#[test]
fn a_reader_that_leaves_closes_the_output_in_the_guest() {
    let (session, mut guest, _events) = start();
    guest.boot();
    let streams = ExecStreams {
        stdout: Box::new(Broken),
        ..sinks()
    };
    let execution = session.exec(&request(), streams).unwrap();
    let id = guest.hear_exec();
    let output = Output::Stdout;
    let data = b"x";
    guest.say(&Reply::Output { id, output, data });
    guest.hear(|request| assert_eq!(request, Request::CloseOutput { id, output }));
    let exit = Exit::Signal(13);
    guest.say(&Reply::Exited { id, exit });
    assert_eq!(execution.wait().unwrap(), exit);
}

/// A writer that waits for leave.
struct Stuck(Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_guest_that_sends_more_than_it_may_loses_its_session() {
    let (session, mut guest, _events) = start();
    guest.boot();
    let (leave, stuck) = channel();
    let streams = ExecStreams {
        stdout: Box::new(Stuck(stuck)),
        ..sinks()
    };
    let execution = session.exec(&request(), streams).unwrap();
    let id = guest.hear_exec();
    let data = &[0; DATA_MAX];
    let output = Output::Stdout;
    for _ in 0..5 {
        guest.say(&Reply::Output { id, output, data });
    }
    let end = session.board.wait(None, |state| state.ended.clone());
    assert!(matches!(end, Some(SessionEnd::Protocol(_))));
    drop(leave);
    assert!(matches!(execution.wait(), Err(ExecError::Unfinished(_))));
}

#[test]
fn a_flood_that_nobody_takes_is_a_breach() {
    let mut state = state::State::default();
    let id = ExecId(0);
    state.execs.insert(id, state::Exec::new().unwrap());
    let version = VERSION;
    let boot_us = 0;
    state.hear(&Reply::Hello { version, boot_us }).unwrap();
    let data = &[0; DATA_MAX];
    let output = Output::Stderr;
    for _ in 0..4 {
        state.hear(&Reply::Output { id, output, data }).unwrap();
    }
    let more = state.hear(&Reply::Output {
        id,
        output,
        data: b"x",
    });
    assert!(matches!(more, Err(SessionEnd::Protocol(_))));
}

#[test]
fn everybody_who_waits_hears_of_the_end() {
    let (session, mut guest, _events) = start();
    guest.boot();
    let execution = session.exec(&request(), sinks()).unwrap();
    guest.hear_exec();
    drop(guest);
    assert!(matches!(execution.wait(), Err(ExecError::Unfinished(_))));
    assert_eq!(session.wait_stopped(None), None);
    assert!(session.exec(&request(), sinks()).is_err());
}

#[test]
fn a_failed_boot_and_a_stop_are_answered() {
    let (session, mut guest, _events) = start();
    guest.say(&Reply::Hello {
        version: VERSION,
        boot_us: 0,
    });
    guest.say(&Reply::Failed { text: "no root" });
    guest.hear(|request| assert_eq!(request, Request::Bye));
    let failed = SessionEnd::BootFailed("no root".to_owned());
    assert_eq!(session.wait_ready(None), Err(failed));

    let (session, mut guest, _events) = start();
    guest.boot();
    session.shut_down().unwrap();
    guest.hear(|request| assert_eq!(request, Request::Shutdown));
    guest.say(&Reply::Stopped {
        clean: true,
        text: "",
    });
    guest.hear(|request| assert_eq!(request, Request::Bye));
    assert!(session.wait_stopped(None).unwrap().clean);
}

#[test]
fn a_guests_sentences_are_bounded_and_printable() {
    let (session, mut guest, events) = start();
    guest.boot();
    for _ in 0..100 {
        guest.say(&Reply::Warning {
            text: "a\x1b[2Jb\n",
        });
    }
    let warnings = events.iter().skip(2).take(100);
    let plain = SessionEvent::Warning("a[2Jb".to_owned());
    assert!(warnings.into_iter().all(|event| event == plain));
    guest.say(&Reply::Warning { text: "more" });
    let end = session.board.wait(None, |state| state.ended.clone());
    assert!(matches!(end, Some(SessionEnd::Protocol(_))));
}

#[test]
fn a_guest_that_reads_nothing_holds_nobody_up() {
    let (session, mut guest, _events) = start();
    guest.boot();
    let execution = session.exec(&request(), sinks()).unwrap();
    // Far more than a socket holds.
    for _ in 0..200_000 {
        execution.signal(1).unwrap();
    }
    session.shut_down().unwrap();
    drop(guest);
    assert!(execution.wait().is_err());
}

#[test]
fn a_boot_does_not_go_backwards() {
    let (session, mut guest, _events) = start();
    guest.boot();
    guest.say(&Reply::Phase {
        phase: Phase::Ready,
        boot_us: 10,
    });
    let end = session.board.wait(None, |state| state.ended.clone());
    assert!(matches!(end, Some(SessionEnd::Protocol(_))));
}

#[test]
fn nonsense_ends_the_session_and_nothing_else() {
    for bytes in [
        &[0xff; 64][..],
        &[1, 0, 0, 0, 0x42],
        &[1, 0, 0, 0, 0x84],
        &[0, 0, 0, 0],
        // A phase before the greeting.
        &[10, 0, 0, 0, 0x82, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let (session, mut guest, _events) = start();
        guest.stream.write_all(bytes).unwrap();
        let end = session.wait_ready(None).unwrap_err();
        assert!(matches!(end, SessionEnd::Protocol(_)), "{end:?}");
    }
}
