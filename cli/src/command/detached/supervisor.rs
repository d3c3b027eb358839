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

use coop_runtime::{ExecRequest, ExecStreams, Exit, Resizer, Running, Size};
use serde_json::{Value, json};

use super::protocol::{CHUNK_BYTES, Frames, Kind, SOCKET, receive, send};
use super::{DESCRIPTION, Described};
use crate::failure::Failure;
use crate::render::data;
use crate::signals::{Signal, Watch};

/// How much of what a machine says is kept.
const LOG_BYTES_MAX: usize = 1 << 20;
/// Pieces that wait for a slow reader; one that is slower is let go.
const PIECES_MAX: usize = 1024;
/// How long a guest may take to end after it was asked to.
const SHUT_DOWN_PATIENCE: Duration = Duration::from_secs(20);
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
            heard.signal = Some(signal);
            if let Some(machine) = heard.machine.clone() {
                thread::spawn(move || machine.shut_down(SHUT_DOWN_PATIENCE));
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
        command: &[OsString],
        described: &Described,
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
        let mut console = None;
        if let Some(taken) = running.take_console() {
            let (mut output, shared) = (taken.output, Arc::clone(&log));
            thread::spawn(move || pump(&mut *output, &shared));
            console = Some(ConsoleEnd {
                input: Mutex::new(taken.input),
                resizer: taken.resizer,
            });
        }
        if running.wait_ready().is_err() {
            running.kill();
            return Err(Failure::sentence(
                crate::failure::FAILED,
                running.wait().cause.to_string(),
            ));
        }
        let folder = running.folder();
        let listener = UnixListener::bind(folder.join(SOCKET)).map_err(host)?;
        fs_err::write(folder.join(DESCRIPTION), described.to_json().to_string()).map_err(host)?;
        let served = Arc::new(Served {
            running: Arc::clone(&running),
            log,
            console,
            clients: AtomicUsize::new(0),
        });
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        data(&format!("{name}\n"));
        // Nobody is told anything from here on: what is inherited is let go.
        let null = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null");
        let null = null.map_err(host)?;
        for replaced in [
            rustix::stdio::dup2_stdout(&null),
            rustix::stdio::dup2_stderr(&null),
        ] {
            replaced.map_err(|error| Failure::work(&error))?;
        }
        let shared = Arc::clone(&served);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let served = Arc::clone(&shared);
                served.clients.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    // A client that left is nobody's concern.
                    let _ = served.serve(client);
                    served.clients.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        if !command.is_empty() {
            served.run(command);
        }
        drop(running.wait());
        served.log.end();
        for _ in 0..FAREWELLS_MAX {
            if served.clients.load(Ordering::SeqCst) == 0 {
                break;
            }
            thread::sleep(FAREWELL);
        }
        Ok(())
    }
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
    listeners: Vec<SyncSender<Vec<u8>>>,
    has_ended: bool,
}

impl Log {
    fn add(&self, bytes: &[u8]) {
        let mut said = lock(&self.0);
        said.kept.extend_from_slice(bytes);
        // Half of it goes at once, so that not every piece moves the rest.
        if said.kept.len() > LOG_BYTES_MAX {
            let surplus = said.kept.len() - LOG_BYTES_MAX / 2;
            said.kept.drain(..surplus);
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
        (said.kept.clone(), receiver)
    }

    fn end(&self) {
        let mut said = lock(&self.0);
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
    /// Runs the machine's one command, and ends the machine with it.
    fn run(self: &Arc<Self>, command: &[OsString]) {
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
        if let Ok(execution) = self.running.exec(&request, streams) {
            // Its end is the machine's, however it comes.
            let _ = execution.wait();
        }
        self.running.shut_down(SHUT_DOWN_PATIENCE);
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
                exit(&socket, 0)
            }
            Some("kill") => {
                self.running.kill();
                drop(self.running.wait());
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
                // The machine has ended.
                let _ = exit(socket, 0);
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

impl Described {
    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "pid": std::process::id(),
            "target": self.target,
            "started": self.started,
        })
    }
}
