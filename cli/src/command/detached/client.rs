//! What reaches a machine through its control socket.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coop_builder::staged_file::StagedFile;
use serde_json::{Value, json};

use super::protocol::{CHUNK_BYTES, Frames, Kind, SOCKET, receive, request, send};
use super::{Ended, machine};
use crate::arguments::{CpOptions, ExecOptions, LogsOptions, MachineOptions};
use crate::environment::Environment;
use crate::failure::{COOP_FAILED, FAILED, Failure};
use crate::render::line;
use crate::signals::{Signal, Watch};
use crate::terminal::{self, EscapeFilter, RawMode};

type Socket = Arc<Mutex<UnixStream>>;

/// A request that was made.
struct Talk {
    from: UnixStream,
    to: Socket,
}

fn work(error: &std::io::Error) -> Failure {
    Failure::work(error)
}

fn ask(named: &str, asked: &Value, environment: &Environment) -> Result<Talk, Failure> {
    let found = machine(named, environment)?;
    let talk = || -> std::io::Result<Talk> {
        let mut from = UnixStream::connect(found.folder.join(SOCKET))?;
        request(&mut from, asked)?;
        let to = Arc::new(Mutex::new(from.try_clone()?));
        Ok(Talk { from, to })
    };
    talk().map_err(|error| {
        let message = format!("{}: cannot reach its supervisor: {error}", found.id);
        Failure::sentence(FAILED, message)
    })
}

impl Talk {
    /// Passes on what comes until the end, which is a code.
    fn listen(mut self, output: &mut dyn Write, errors: &mut dyn Write) -> Ended {
        loop {
            let frame = receive(&mut self.from).map_err(|error| work(&error))?;
            let (to, bytes): (&mut dyn Write, Vec<u8>) = match frame {
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

    /// Carries a stream to the machine; the thread ends with it or with the program.
    fn carry(&self, mut input: impl Read + Send + 'static, mut filter: Option<EscapeFilter>) {
        let to = Arc::clone(&self.to);
        std::thread::spawn(move || {
            let mut frames = Frames {
                socket: Arc::clone(&to),
                kind: Kind::Input,
            };
            let mut buffer = vec![0; CHUNK_BYTES];
            while let Ok(count @ 1..) = input.read(&mut buffer) {
                let typed = &buffer[..count];
                let (passed, escape) = match &mut filter {
                    Some(filter) => filter.feed(typed),
                    None => (typed.to_vec(), None),
                };
                let written = frames.write_all(&passed);
                if escape.is_some() {
                    // Only the console is left: the machine goes on.
                    let socket = to.lock().unwrap_or_else(PoisonError::into_inner);
                    let _ = socket.shutdown(std::net::Shutdown::Both);
                    return;
                }
                if written.is_err() {
                    return;
                }
            }
            say(&to, Kind::InputEnd, &[]);
        });
    }

    /// Passes signals and the terminal's size on while it lives.
    fn signals(&self, with_signals: bool) -> std::io::Result<Watch> {
        let to = Arc::clone(&self.to);
        Watch::start(move |signal| match signal {
            Signal::Resized => tell_size(&to),
            other if with_signals => say(&to, Kind::Signal, &[other.number()]),
            _ => {
                let socket = to.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = socket.shutdown(std::net::Shutdown::Both);
            }
        })
    }
}

/// A machine that has ended hears nothing.
fn say(to: &Socket, kind: Kind, bytes: &[u8]) {
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
    let talk = ask(&found.id, &json!({ "verb": verb }), environment)?;
    // It may be gone before it can say so.
    let mut from = talk.from;
    while let Ok(Some(_)) = receive(&mut from) {}
    Ok(0)
}

/// `coop logs`: what the machine has said on its console, or its command.
pub(crate) fn logs(options: &LogsOptions, environment: &Environment) -> Ended {
    let asked = json!({ "verb": "logs", "follow": options.follow });
    let talk = ask(&options.machine.machine, &asked, environment)?;
    talk.listen(&mut std::io::stdout(), &mut std::io::sink())
}

/// `coop attach`: joins the terminal to the machine's console.
pub(crate) fn attach(options: &MachineOptions, environment: &Environment) -> Ended {
    let talk = ask(&options.machine, &json!({ "verb": "attach" }), environment)?;
    let mut raw = None;
    if terminal::is_interactive() {
        line("the terminal is the guest's console; Ctrl-] and q leave it, and the guest goes on");
        raw = Some(RawMode::enter().map_err(|error| work(&error))?);
    }
    let watch = talk.signals(false).map_err(|error| work(&error))?;
    tell_size(&talk.to);
    talk.carry(std::io::stdin(), raw.is_some().then(EscapeFilter::default));
    let mut from = talk.from;
    let mut stdout = std::io::stdout();
    let mut ended = Ok(0);
    // Whoever leaves closes the socket.
    while let Ok(Some((kind, bytes))) = receive(&mut from) {
        match kind {
            Kind::Output
                if stdout
                    .write_all(&bytes)
                    .and_then(|()| stdout.flush())
                    .is_ok() => {}
            Kind::Failed => {
                let why = String::from_utf8_lossy(&bytes).into_owned();
                ended = Err(Failure::sentence(FAILED, why));
            }
            _ => break,
        }
    }
    drop((raw, watch));
    ended
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
        let talk = ask(&options.machine.machine, &asked, environment)?;
        let raw = options.tty.then(RawMode::enter).transpose();
        let raw = raw.map_err(|error| work(&error))?;
        let watch = talk.signals(true).map_err(|error| work(&error))?;
        talk.carry(std::io::stdin(), options.tty.then(EscapeFilter::default));
        let ended = talk.listen(&mut std::io::stdout(), &mut std::io::stderr());
        drop((raw, watch));
        ended
    };
    ended().map_err(|failure| failure.with_work_code(COOP_FAILED))
}

/// One end of a copy.
enum Place {
    Host(PathBuf),
    Guest(String, Vec<u8>),
}

/// `MACHINE:PATH`; a path of the host with a colon begins with `/` or `./`.
fn place(text: &std::ffi::OsStr) -> Place {
    let bytes = text.as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':');
    let machine = colon.and_then(|colon| std::str::from_utf8(&bytes[..colon]).ok());
    match (machine, colon) {
        (Some(machine), Some(colon)) if !machine.is_empty() && !machine.contains('/') => {
            Place::Guest(machine.to_owned(), bytes[colon + 1..].to_vec())
        }
        _ => Place::Host(PathBuf::from(text)),
    }
}

/// `coop cp`: copies one file, by `cat` in the guest.
pub(crate) fn copy(options: &CpOptions, environment: &Environment) -> Ended {
    match (place(&options.source), place(&options.destination)) {
        (Place::Host(from), Place::Guest(named, to)) => copy_in(&from, &named, &to, environment),
        (Place::Guest(named, from), Place::Host(to)) => copy_out(&named, &from, &to, environment),
        _ => Err(
            Failure::usage("one of the two is MACHINE:PATH, and one is a path of the host")
                .with_hint("write a path of the host that has a colon as ./a:b"),
        ),
    }
}

/// The shell's `$1` is the path, so that no byte of it means anything.
fn in_shell(script: &str, path: &[u8]) -> Value {
    let script = script.as_bytes();
    json!({ "verb": "exec", "argv": [b"/bin/sh", b"-c".as_slice(), script, b"sh", path] })
}

fn copy_in(from: &Path, named: &str, to: &[u8], environment: &Environment) -> Ended {
    if !from.is_file() {
        let message = format!(
            "{} is not a file; coop cp copies single files",
            from.display()
        );
        return Err(Failure::usage(message));
    }
    let (file, _) = fs_err::File::open(from)
        .map_err(|error| work(&error))?
        .into_parts();
    let asked = in_shell("test ! -d \"$1\" && cat > \"$1\"", to);
    let talk = ask(named, &asked, environment)?;
    talk.carry(file, None);
    finish(
        talk.listen(&mut std::io::sink(), &mut std::io::stderr()),
        to,
    )
}

fn copy_out(named: &str, from: &[u8], to: &Path, environment: &Environment) -> Ended {
    let staged = StagedFile::new(to).map_err(|error| work(&error))?;
    let asked = in_shell("cat < \"$1\"", from);
    let talk = ask(named, &asked, environment)?;
    say(&talk.to, Kind::InputEnd, &[]);
    let mut file: &File = staged.file();
    let ended = finish(talk.listen(&mut file, &mut std::io::stderr()), from)?;
    staged.publish(false).map_err(|error| work(&error))?;
    Ok(ended)
}

fn finish(ended: Ended, path: &[u8]) -> Ended {
    match ended? {
        0 => Ok(0),
        _ => {
            let path = std::ffi::OsString::from_vec(path.to_vec());
            let message = format!("{} in the guest was not copied", path.display());
            Err(Failure::sentence(FAILED, message))
        }
    }
}
