//! What reaches a machine through its control socket.

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use coop_runtime::Recorded;
use serde_json::{Value, json};

use super::super::attend::GRACE;
use super::list::ago;
use super::protocol::{CHUNK_BYTES, Frames, Kind, SOCKET, receive, request, send};
use super::{Ended, Found, find, machine, now, record};
use crate::arguments::{ExecOptions, LogsOptions, MachineOptions};
use crate::environment::Environment;
use crate::failure::{COOP_FAILED, FAILED, Failure};
use crate::render::{line, plain};
use crate::signals::{Signal, Watch};
use crate::terminal::{self, Escape, EscapeFilter, RawMode};

type Socket = Arc<Mutex<UnixStream>>;

/// The code of a command whose client has left: a hangup ends it.
const HUNG_UP: u8 = 129;

/// A request that was made.
pub(super) struct Talk {
    from: UnixStream,
    pub(super) to: Socket,
    door: Arc<Door>,
}

/// The way out before the end.
struct Door {
    /// The code of whoever has left.
    left: OnceLock<u8>,
    /// Out of the lock, which a writer holds whom nobody reads.
    socket: UnixStream,
}

impl Door {
    /// Leaves with this code; the machine goes on.
    fn leave(&self, code: u8) {
        let _ = self.left.set(code);
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

pub(super) fn work(error: &std::io::Error) -> Failure {
    Failure::work(error)
}

pub(super) fn ask(found: &Found, asked: &Value) -> Result<Talk, Failure> {
    let talk = || -> std::io::Result<Talk> {
        let mut from = UnixStream::connect(found.folder.join(SOCKET))?;
        request(&mut from, asked)?;
        let to = Arc::new(Mutex::new(from.try_clone()?));
        let door = Arc::new(Door {
            left: OnceLock::new(),
            socket: from.try_clone()?,
        });
        Ok(Talk { from, to, door })
    };
    talk().map_err(|error| {
        let message = format!("{}: cannot reach its supervisor: {error}", found.id);
        Failure::sentence(FAILED, message)
    })
}

impl Talk {
    /// Passes on what comes until the end, which is a code.
    pub(super) fn listen(mut self, output: &mut dyn Write, errors: &mut dyn Write) -> Ended {
        loop {
            let frame = receive(&mut self.from);
            if let Some(code) = self.door.left.get() {
                return Ok(*code);
            }
            let (to, bytes): (&mut dyn Write, Vec<u8>) = match frame.map_err(|e| work(&e))? {
                Some((Kind::Exit, bytes)) => return Ok(bytes.first().copied().unwrap_or(FAILED)),
                Some((Kind::Failed, why)) => {
                    let why = String::from_utf8_lossy(&why).into_owned();
                    return Err(Failure::sentence(FAILED, why));
                }
                Some((Kind::Output, bytes)) => (output, bytes),
                Some((Kind::Errors, bytes)) => (errors, bytes),
                Some(_) => continue,
                None => return Err(Failure::sentence(FAILED, "the machine has ended")),
            };
            let written = to.write_all(&bytes).and_then(|()| to.flush());
            match written {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(0),
                other => other.map_err(|error| work(&error))?,
            }
        }
    }

    /// Carries a stream to the machine; the thread ends with it or with the program. An escape that
    /// a person types leaves with its code, and what cannot be read leaves as a failure.
    pub(super) fn carry(
        &self,
        mut input: impl Read + Send + 'static,
        mut escape: Option<(EscapeFilter, u8)>,
    ) -> JoinHandle<std::io::Result<()>> {
        let (to, door) = (Arc::clone(&self.to), Arc::clone(&self.door));
        std::thread::spawn(move || {
            let mut frames = Frames {
                socket: Arc::clone(&to),
                kind: Kind::Input,
            };
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let count = match input.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        door.leave(FAILED);
                        return Err(error);
                    }
                };
                let typed = &buffer[..count];
                let (passed, found) = match &mut escape {
                    Some((filter, code)) => {
                        let (passed, found) = filter.feed(typed);
                        (passed, found.map(|Escape::Kill| *code))
                    }
                    None => (typed.to_vec(), None),
                };
                if frames.write_all(&passed).is_err() {
                    // Whoever listens hears why.
                    return Ok(());
                }
                if let Some(code) = found {
                    door.leave(code);
                    return Ok(());
                }
            }
            say(&to, Kind::InputEnd, &[]);
            Ok(())
        })
    }

    /// Passes the terminal's size on while it lives, and tells it now. A signal leaves; where there
    /// is a command, it gets the first one, and some time to end.
    fn signals(&self, with_command: bool) -> std::io::Result<Watch> {
        let (to, door) = (Arc::clone(&self.to), Arc::clone(&self.door));
        let mut is_second = false;
        let watch = Watch::start(move |signal| {
            let code = signal.shell_code();
            match signal {
                Signal::Resized => tell_size(&to),
                _ if with_command && !std::mem::replace(&mut is_second, true) => {
                    say(&to, Kind::Signal, &[signal.number()]);
                    let door = Arc::clone(&door);
                    std::thread::spawn(move || {
                        std::thread::sleep(GRACE);
                        door.leave(code);
                    });
                }
                _ => door.leave(code),
            }
        });
        tell_size(&self.to);
        watch
    }
}

/// A machine that has ended hears nothing.
pub(super) fn say(to: &Socket, kind: Kind, bytes: &[u8]) {
    let mut socket = to.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = send(&mut *socket, kind, bytes);
}

fn size_bytes() -> Option<[u8; 4]> {
    let (columns, rows) = terminal::size()?;
    let ([a, b], [c, d]) = (columns.to_le_bytes(), rows.to_le_bytes());
    Some([a, b, c, d])
}

fn tell_size(to: &Socket) {
    if let Some(bytes) = size_bytes() {
        say(to, Kind::Resize, &bytes);
    }
}

/// `coop stop`: asks the guest to shut down, and waits for it.
pub(crate) fn stop(options: &MachineOptions, environment: &Environment) -> Ended {
    end("stop", options, environment)
}

/// `coop kill`: ends the guest at once.
pub(crate) fn kill(options: &MachineOptions, environment: &Environment) -> Ended {
    end("kill", options, environment)
}

fn end(verb: &str, options: &MachineOptions, environment: &Environment) -> Ended {
    let found = machine(&options.machine, environment)?;
    let talk = ask(&found, &json!({ "verb": verb }))?;
    // It may be gone before it can say so.
    let mut from = talk.from;
    while let Ok(Some(_)) = receive(&mut from) {}
    Ok(0)
}

/// `coop logs`: what the machine has said on its console, or its command.
pub(crate) fn logs(options: &LogsOptions, environment: &Environment) -> Ended {
    let named = &options.machine.machine;
    let asked = json!({ "verb": "logs", "follow": options.follow });
    let Some(found) = find(named, environment)? else {
        return match record(named, environment)? {
            Some((recorded, description)) => tell(&recorded, &description),
            None => machine(named, environment).map(|_| FAILED),
        };
    };
    ask(&found, &asked)?.listen(&mut std::io::stdout(), &mut std::io::sink())
}

/// What a machine has said that has ended, and how it did.
fn tell(recorded: &Recorded, description: &Value) -> Ended {
    let said = recorded.log().map_err(|error| work(&error))?;
    let mut stdout = std::io::stdout();
    match stdout.write_all(&said).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(0),
        other => other.map_err(|error| work(&error))?,
    }
    let id = &recorded.machine;
    let why = description["message"].as_str();
    line(&plain(
        &match (recorded.lives, description["ended"].as_u64(), why) {
            (true, ..) => format!("{id} is about to end"),
            (false, Some(ended), Some(why)) => {
                format!("{id} ended {}: {why}", ago(now().saturating_sub(ended)))
            }
            _ => format!("{id} is lost: its coop was killed, or the host went down"),
        },
    ));
    Ok(0)
}

/// `coop attach`: joins the terminal to the machine's console.
pub(crate) fn attach(options: &MachineOptions, environment: &Environment) -> Ended {
    let found = machine(&options.machine, environment)?;
    let talk = ask(&found, &json!({ "verb": "attach" }))?;
    let watch = talk.signals(false).map_err(|error| work(&error))?;
    let mut raw = None;
    if terminal::is_interactive() {
        line("the terminal is the guest's console; Ctrl-] and q leave it, and the guest goes on");
        raw = Some(RawMode::enter().map_err(|error| work(&error))?);
    }
    let escape = raw.is_some().then(|| (EscapeFilter::default(), 0));
    talk.carry(std::io::stdin(), escape);
    let ended = talk.listen(&mut std::io::stdout(), &mut std::io::sink());
    drop((raw, watch));
    ended
}

/// Whether all that was to be carried could be read.
pub(super) fn read_whole(carried: JoinHandle<std::io::Result<()>>) -> std::io::Result<()> {
    carried.join().unwrap_or(Ok(()))
}

/// `coop exec`: runs a command in the machine, and ends with its code.
pub(crate) fn exec(options: &ExecOptions, environment: &Environment) -> Ended {
    if options.tty && !terminal::is_interactive() {
        return Err(Failure::usage("--tty needs a terminal on stdin and stdout"));
    }
    let argv: Vec<&[u8]> = options.command.iter().map(|word| word.as_bytes()).collect();
    let size = options.tty.then(|| size_bytes().unwrap_or([80, 0, 25, 0]));
    let asked = json!({ "verb": "exec", "argv": argv, "terminal": size });
    let ended = || {
        let talk = ask(&machine(&options.machine.machine, environment)?, &asked)?;
        let watch = talk.signals(true).map_err(|error| work(&error))?;
        let raw = options.tty.then(RawMode::enter).transpose();
        let raw = raw.map_err(|error| work(&error))?;
        let escape = raw.is_some().then(|| (EscapeFilter::default(), HUNG_UP));
        let carried = talk.carry(std::io::stdin(), escape);
        let ended = talk.listen(&mut std::io::stdout(), &mut std::io::stderr());
        drop((raw, watch));
        // Else it waits for more input, which nobody wants.
        if carried.is_finished() {
            read_whole(carried).map_err(|error| work(&error).about(Path::new("standard input")))?;
        }
        ended
    };
    ended().map_err(|failure| failure.with_work_code(COOP_FAILED))
}
