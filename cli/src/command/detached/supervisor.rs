//! The process that stays behind with a machine: it keeps what the machine says, and serves the
//! control socket.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use coop_runtime::{
    Console, ExecRequest, ExecStreams, Exit, LOG_BYTES_MAX, Record, Resizer, Running, Size,
};
use serde_json::Value;

use super::super::attend::SHUT_DOWN_PATIENCE;
use super::super::run::{End, not_up};
use super::protocol::{CHUNK_BYTES, Frames, Kind, SOCKET, receive, send};
use super::{DESCRIPTION, Described, now, records};
use crate::arguments::RunOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{json as render_json, line};
use crate::signals::{Signal, Watch};

/// Pieces that wait for a slow reader; one that is slower is let go.
const PIECES_MAX: usize = 1024;
const TOO_SLOW: &str = "the machine says more than is read here";
/// How long clients may take to hear of the end.
const FAREWELL: Duration = Duration::from_millis(20);
const FAREWELLS_MAX: u32 = 50;
/// Ends a command whose client has left.
const SIGHUP: u8 = 1;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears signals from before the machine starts.
pub(in super::super) struct Ears {
    machine: Arc<Mutex<Heard>>,
    _watch: Watch,
}

#[derive(Default)]
struct Heard {
    machine: Option<Arc<Running>>,
    signal: Option<Signal>,
}

impl Ears {
    /// Leaves the terminal's session, and starts to hear signals.
    pub(in super::super) fn open() -> Result<Self, Failure> {
        // Where it leads a session already, it has no terminal either.
        let _ = rustix::process::setsid();
        let machine = Arc::new(Mutex::new(Heard::default()));
        let shared = Arc::clone(&machine);
        let watch = Watch::start(move |signal| {
            if signal == Signal::Resized {
                return;
            }
            let mut heard = lock(&shared);
            let is_second = heard.signal.replace(signal).is_some();
            match heard.machine.clone() {
                Some(machine) if is_second => machine.kill(),
                Some(machine) => {
                    thread::spawn(move || machine.shut_down(SHUT_DOWN_PATIENCE));
                }
                None => {}
            }
        });
        let watch = watch.map_err(|error| Failure::work(&error))?;
        Ok(Self {
            machine,
            _watch: watch,
        })
    }

    /// Stays with the machine. Whoever asked for it is told its name once it is up.
    pub(in super::super) fn attend(
        self,
        running: Running,
        options: &RunOptions,
        described: &Described,
        environment: &Environment,
    ) -> Result<(), Failure> {
        let host = |error: std::io::Error| Failure::work(&error);
        let running = Arc::new(running);
        {
            let mut heard = lock(&self.machine);
            heard.machine = Some(Arc::clone(&running));
            if heard.signal.is_some() {
                running.kill();
            }
        }
        let log = Arc::new(Log::default());
        let (console, pump) = match running.take_console() {
            Some(console) => {
                let (end, pump) = listen(console, &log);
                (Some(end), Some(pump))
            }
            None => (None, None),
        };
        if running.wait_ready().is_err() {
            return Err(not_up(&running));
        }
        let folder = running.folder();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let description = described.to_json();
        log.keep_by(environment, &name, &description);
        let listener = UnixListener::bind(folder.join(SOCKET)).map_err(host)?;
        fs_err::write(folder.join(DESCRIPTION), description.to_string()).map_err(host)?;
        let served = Arc::new(Served {
            running: Arc::clone(&running),
            log,
            console,
            clients: AtomicUsize::new(0),
        });
        if writeln!(std::io::stdout(), "{name}").is_err() {
            // Who asked for it has left, and nobody knows its name.
            running.kill();
        }
        let_go_of_streams()?;
        answer(&served, listener);
        let code = match options.command.is_empty() {
            true => None,
            false => served.run(&options.command),
        };
        let report = running.wait();
        if let Some(pump) = pump {
            // The console ends with its device; what it said last is not lost.
            let _ = pump.join();
        }
        let end = End {
            // Only coop kill, or an end that nobody came to, stops it otherwise.
            escaped: true,
            ..End::of(report, code, lock(&self.machine).signal)
        };
        served.log.end(&ended(&description, &end, options));
        for _ in 0..FAREWELLS_MAX {
            if served.clients.load(Ordering::SeqCst) == 0 {
                break;
            }
            thread::sleep(FAREWELL);
        }
        Ok(())
    }
}

/// Keeps what a console says, from a thread of its own.
fn listen(console: Console, log: &Arc<Log>) -> (ConsoleEnd, thread::JoinHandle<()>) {
    let Console {
        mut output,
        input,
        resizer,
    } = console;
    let log = Arc::clone(log);
    let pump = thread::spawn(move || pump(&mut *output, &log));
    let input = Mutex::new(input);
    (ConsoleEnd { input, resizer }, pump)
}

/// Nobody is told anything from here on: what is inherited is let go.
fn let_go_of_streams() -> Result<(), Failure> {
    let mut null = fs_err::OpenOptions::new();
    let null = null.read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| Failure::work(&error))?;
    for replaced in [
        rustix::stdio::dup2_stdout(&null),
        rustix::stdio::dup2_stderr(&null),
    ] {
        replaced.map_err(|error| Failure::work(&error))?;
    }
    Ok(())
}

/// Serves whoever comes to the control socket.
fn answer(served: &Arc<Served>, listener: UnixListener) {
    let served = Arc::clone(served);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let served = Arc::clone(&served);
            served.clients.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                // A client that left is nobody's concern.
                let _ = served.serve(client);
                served.clients.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
}

/// The description of a machine that has ended.
fn ended(description: &Value, end: &End, options: &RunOptions) -> Value {
    let mut description = description.clone();
    description["ended"] = now().into();
    description["exit_code"] = end.exit_code(options).into();
    description["cause"] = render_json::cause(&end.report.cause).into();
    description["message"] = end.report.cause.to_string().into();
    description
}

fn pump(from: &mut dyn Read, log: &Log) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        log.add(&buffer[..count]);
    }
}

/// What the machine says: the last of it, and who listens.
#[derive(Default)]
struct Log(Mutex<Said>);

#[derive(Default)]
struct Said {
    kept: Vec<u8>,
    /// What stays of it when the machine has ended.
    record: Option<Record>,
    listeners: Vec<SyncSender<Vec<u8>>>,
    has_ended: bool,
}

impl Said {
    fn last(&self) -> &[u8] {
        &self.kept[self.kept.len().saturating_sub(LOG_BYTES_MAX)..]
    }
}

impl Log {
    /// Begins the machine's record; what it has said is the record's beginning.
    fn keep_by(&self, environment: &Environment, name: &str, description: &Value) {
        let Some(records) = records(environment) else {
            return line("warning: what the machine says goes when it ends; set XDG_STATE_HOME");
        };
        let mut said = lock(&self.0);
        match records.begin(name, description.to_string().as_bytes()) {
            Ok(mut record) => {
                record.say(said.last());
                said.record = Some(record);
            }
            Err(error) => line(&format!(
                "warning: what the machine says goes when it ends: {error}"
            )),
        }
    }

    fn add(&self, bytes: &[u8]) {
        let mut said = lock(&self.0);
        said.kept.extend_from_slice(bytes);
        // Half of it goes at once, so that not every piece moves the rest.
        if said.kept.len() > 2 * LOG_BYTES_MAX {
            said.kept = said.last().to_owned();
        }
        if let Some(record) = &mut said.record {
            record.say(bytes);
        }
        said.listeners
            .retain(|listener| listener.try_send(bytes.to_vec()).is_ok());
    }

    /// What is kept, and what comes.
    fn listen(&self) -> (Vec<u8>, Receiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::sync_channel(PIECES_MAX);
        let mut said = lock(&self.0);
        if !said.has_ended {
            said.listeners.push(sender);
        }
        (said.last().to_owned(), receiver)
    }

    /// Whether the machine has ended, and its record is written.
    fn has_ended(&self) -> bool {
        lock(&self.0).has_ended
    }

    fn wait_end(&self) {
        // It may be let go again and again while the machine says much.
        while !self.has_ended() {
            self.listen().1.into_iter().for_each(drop);
        }
    }

    fn end(&self, description: &Value) {
        let mut said = lock(&self.0);
        if let Some(record) = said.record.take() {
            // Nobody is there to be told; the machine shows as one that was killed.
            let _ = record.end(description.to_string().as_bytes());
        }
        said.has_ended = true;
        said.listeners.clear();
    }
}

struct Writer(Arc<Served>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.log.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct ConsoleEnd {
    input: Mutex<Box<dyn Write + Send>>,
    resizer: Resizer,
}

struct Served {
    running: Arc<Running>,
    log: Arc<Log>,
    console: Option<ConsoleEnd>,
    clients: AtomicUsize,
}

type Socket = Arc<Mutex<UnixStream>>;

fn fail(socket: &Socket, why: &str) -> std::io::Result<()> {
    send(&mut *lock(socket), Kind::Failed, why.as_bytes())
}

fn exit(socket: &Socket, code: u8) -> std::io::Result<()> {
    send(&mut *lock(socket), Kind::Exit, &[code])
}

impl Served {
    /// Runs the machine's one command, and ends the machine with it. Nothing is returned where the
    /// guest ended first.
    fn run(self: &Arc<Self>, command: &[OsString]) -> Option<u8> {
        let request = ExecRequest {
            argv: command.to_owned(),
            ..ExecRequest::default()
        };
        let writer = || Box::new(Writer(Arc::clone(self)));
        let streams = ExecStreams {
            stdin: None,
            stdout: writer(),
            stderr: writer(),
        };
        let execution = self.running.exec(&request, streams).ok();
        let ended = execution.and_then(|execution| execution.wait().ok());
        self.running.shut_down(SHUT_DOWN_PATIENCE);
        ended.map(Exit::shell_code)
    }

    fn serve(&self, mut client: UnixStream) -> std::io::Result<()> {
        let Some((Kind::Request, text)) = receive(&mut client)? else {
            return Ok(());
        };
        let request: Value = serde_json::from_slice(&text).unwrap_or_default();
        let socket: Socket = Arc::new(Mutex::new(client.try_clone()?));
        match request["verb"].as_str() {
            Some("stop") => {
                self.running.shut_down(SHUT_DOWN_PATIENCE);
                self.log.wait_end();
                exit(&socket, 0)
            }
            Some("kill") => {
                self.running.kill();
                self.log.wait_end();
                exit(&socket, 0)
            }
            Some("logs") => self.logs(&socket, request["follow"] == true),
            Some("attach") => self.attach(client, &socket),
            Some("exec") => self.exec(client, &socket, &request),
            _ => fail(&socket, "the machine's coop knows no such request"),
        }
    }

    fn logs(&self, socket: &Socket, follow: bool) -> std::io::Result<()> {
        let (kept, coming) = self.log.listen();
        self.pass(socket, &kept)?;
        if follow {
            for piece in coming {
                self.pass(socket, &piece)?;
            }
            if !self.log.has_ended() {
                return fail(socket, TOO_SLOW);
            }
        }
        exit(socket, 0)
    }

    #[expect(clippy::unused_self, reason = "it reads better beside its callers")]
    fn pass(&self, socket: &Socket, bytes: &[u8]) -> std::io::Result<()> {
        let (socket, kind) = (Arc::clone(socket), Kind::Output);
        Frames { socket, kind }.write_all(bytes)
    }

    fn attach(&self, mut client: UnixStream, socket: &Socket) -> std::io::Result<()> {
        let Some(console) = &self.console else {
            return fail(
                socket,
                "the machine runs one command and has no console; see coop logs",
            );
        };
        let (_, coming) = self.log.listen();
        thread::scope(|scope| {
            scope.spawn(|| {
                for piece in coming {
                    if self.pass(socket, &piece).is_err() {
                        return;
                    }
                }
                let _ = match self.log.has_ended() {
                    true => exit(socket, 0),
                    false => fail(socket, TOO_SLOW),
                };
                let _ = lock(socket).shutdown(std::net::Shutdown::Both);
            });
            while let Ok(Some((kind, bytes))) = receive(&mut client) {
                match (kind, size(&bytes)) {
                    (Kind::Input, _) => lock(&console.input).write_all(&bytes)?,
                    (Kind::Resize, Some(size)) => console.resizer.resize(size.columns, size.rows),
                    _ => {}
                }
            }
            // The other thread sees it with the next thing that is said.
            client.shutdown(std::net::Shutdown::Both)
        })
    }

    fn exec(
        &self,
        mut client: UnixStream,
        socket: &Socket,
        request: &Value,
    ) -> std::io::Result<()> {
        let bytes = |value: &Value| serde_json::from_value::<Vec<u8>>(value.clone()).ok();
        let argv: Option<Vec<OsString>> = request["argv"].as_array().and_then(|words| {
            words
                .iter()
                .map(|word| bytes(word).map(OsString::from_vec))
                .collect()
        });
        let Some(argv) = argv.filter(|argv| !argv.is_empty()) else {
            return fail(socket, "there is no command");
        };
        let asked = ExecRequest {
            argv,
            terminal: bytes(&request["terminal"]).and_then(|bytes| size(&bytes)),
            ..ExecRequest::default()
        };
        let (ours, theirs) = std::io::pipe()?;
        let frames = |kind| {
            Box::new(Frames {
                socket: Arc::clone(socket),
                kind,
            })
        };
        let streams = ExecStreams {
            stdin: Some(OwnedFd::from(ours)),
            stdout: frames(Kind::Output),
            stderr: frames(Kind::Errors),
        };
        let execution = match self.running.exec(&asked, streams) {
            Ok(execution) => execution,
            Err(error) => return fail(socket, &error.to_string()),
        };
        let handle = execution.handle();
        thread::spawn(move || {
            let mut input = Some(theirs);
            while let Ok(Some((kind, bytes))) = receive(&mut client) {
                match kind {
                    Kind::Input => {
                        let written = input.as_mut().map(|input| input.write_all(&bytes));
                        if written.is_some_and(|written| written.is_err()) {
                            input = None;
                        }
                    }
                    Kind::InputEnd => input = None,
                    Kind::Resize => {
                        size(&bytes).map(|size| handle.resize(size));
                    }
                    Kind::Signal => {
                        bytes.first().map(|number| handle.signal(*number));
                    }
                    _ => {}
                }
            }
            // Whoever wanted it has left, or it has ended and does not hear it.
            let _ = handle.signal(SIGHUP);
        });
        let ended = execution.wait();
        let told = match ended.map(Exit::shell_code) {
            Ok(code) => exit(socket, code),
            Err(error) => fail(socket, &error.to_string()),
        };
        let _ = lock(socket).shutdown(std::net::Shutdown::Both);
        told
    }
}

fn size(bytes: &[u8]) -> Option<Size> {
    let [a, b, c, d] = bytes.try_into().ok()?;
    Some(Size {
        columns: u16::from_le_bytes([a, b]),
        rows: u16::from_le_bytes([c, d]),
    })
}
