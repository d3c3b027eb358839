//! The messages, and their one encoding.
//!
//! A body is a kind byte and the kind's fields in order: numbers little-endian, byte strings behind
//! a 32-bit count, options behind a 0 or 1. Data is what is left of the body.

use std::fmt;

use crate::frame::{self, DATA_MAX};
use crate::wire::{Put, Reader, WireError};

/// The protocol's version. Agent and host come from one build, so there is only one.
pub const VERSION: u16 = 1;
/// Bytes of one stream that may be under way before its receiver gives credit.
pub const WINDOW: u32 = 256 << 10;
/// The longest sentence in a message, in bytes.
pub const TEXT_MAX: usize = 4 << 10;
/// The port's name, under which the guest's kernel shows it in `/sys/class/virtio-ports`.
pub const PORT_NAME: &str = "coop.agent";

/// The host's number for a command. Numbers are not used again within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecId(pub u32);

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Which of a command's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// Standard output, or all that a terminal shows.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Who runs a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The main group's number.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// What a command reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing: `/dev/null`.
    Null,
    /// What the host sends.
    Pipe,
    /// A terminal of this size, which is also its output and error.
    Terminal(Size),
}

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program, looked up in PATH, and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// Variables on top of the agent's own.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where it starts; `/` if not given.
    pub folder: Option<Vec<u8>>,
    /// As whom it runs; root if not given.
    pub user: Option<User>,
    /// What it reads.
    pub input: Input,
    /// Files that are there while it runs.
    pub files: Vec<TransientFile>,
}

/// A file that is written for a command, belongs to its user, and is removed when it has ended.
#[derive(Clone, PartialEq, Eq)]
pub struct TransientFile {
    /// Where: a path below `/run`, which is a file system in memory.
    pub path: Vec<u8>,
    /// Permission bits.
    pub mode: u16,
    /// What it holds.
    pub content: Vec<u8>,
}

impl fmt::Debug for TransientFile {
    /// Says nothing of the content, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = String::from_utf8_lossy(&self.path);
        let size = self.content.len();
        write!(f, "TransientFile({path:?}, {:o}, {size} bytes)", self.mode)
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this code. 127: there is no such program; 126: it cannot be executed.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

impl Exit {
    /// The code that a shell would report: 128 and the number for a signal.
    #[must_use]
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// How far the guest's boot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The modules are loaded.
    Modules,
    /// The root file system is mounted.
    Root,
    /// Commands can be run; in init mode the real init is about to start.
    Ready,
}

/// What the host asks of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Run a command.
    Exec {
        /// Its number from now on.
        id: ExecId,
        /// What to run.
        exec: Exec,
    },
    /// Input for a command, at most [`DATA_MAX`] bytes and within its window.
    Stdin {
        /// The command.
        id: ExecId,
        /// The bytes.
        data: &'a [u8],
    },
    /// The input ends here.
    StdinEnd {
        /// The command.
        id: ExecId,
    },
    /// The host has used so many bytes of an output.
    Credit {
        /// The command.
        id: ExecId,
        /// Which output.
        output: Output,
        /// How many bytes.
        bytes: u32,
    },
    /// Nobody wants this output any more: the command finds it closed.
    CloseOutput {
        /// The command.
        id: ExecId,
        /// Which output.
        output: Output,
    },
    /// Send a signal to the command's process group.
    Signal {
        /// The command.
        id: ExecId,
        /// The signal's number.
        signal: u8,
    },
    /// The terminal has a new size.
    Resize {
        /// The command.
        id: ExecId,
        /// The size.
        size: Size,
    },
    /// End everything, unmount, power off.
    Shutdown,
    /// The host has seen [`Reply::Stopped`] or [`Reply::Failed`].
    Bye,
}

/// What the agent says to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The agent runs; its first message.
    Hello {
        /// [`VERSION`].
        version: u16,
        /// Time since the kernel's start, in microseconds of the guest's clock.
        boot_us: u64,
    },
    /// The boot has come so far.
    Phase {
        /// How far.
        phase: Phase,
        /// Time since the kernel's start, in microseconds of the guest's clock.
        boot_us: u64,
    },
    /// The boot failed; the guest powers off after [`Request::Bye`].
    Failed {
        /// Why: a lowercase sentence.
        text: &'a str,
    },
    /// Something is not as it should be, but the boot goes on.
    Warning {
        /// What: a lowercase sentence.
        text: &'a str,
    },
    /// The command has a process.
    Started {
        /// The command.
        id: ExecId,
    },
    /// The command could not even be tried. Nothing more is said about it.
    Refused {
        /// The command.
        id: ExecId,
        /// Why: a lowercase sentence.
        text: &'a str,
    },
    /// Output of a command, at most [`DATA_MAX`] bytes and within its window.
    Output {
        /// The command.
        id: ExecId,
        /// Which output.
        output: Output,
        /// The bytes.
        data: &'a [u8],
    },
    /// The command has read so many bytes of its input.
    Credit {
        /// The command.
        id: ExecId,
        /// How many bytes.
        bytes: u32,
    },
    /// The command has closed its input: more of it would be thrown away.
    StdinClosed {
        /// The command.
        id: ExecId,
    },
    /// The command is over and all its output was sent.
    Exited {
        /// The command.
        id: ExecId,
        /// How it ended.
        exit: Exit,
    },
    /// Everything is unmounted or read-only; the guest powers off after [`Request::Bye`].
    Stopped {
        /// Whether every file system was left clean.
        clean: bool,
        /// What was not clean, else empty.
        text: &'a str,
    },
}

mod kind {
    pub(super) const EXEC: u8 = 0x01;
    pub(super) const STDIN: u8 = 0x02;
    pub(super) const STDIN_END: u8 = 0x03;
    pub(super) const REQUEST_CREDIT: u8 = 0x04;
    pub(super) const SIGNAL: u8 = 0x05;
    pub(super) const RESIZE: u8 = 0x06;
    pub(super) const SHUTDOWN: u8 = 0x07;
    pub(super) const BYE: u8 = 0x08;
    pub(super) const CLOSE_OUTPUT: u8 = 0x09;

    pub(super) const HELLO: u8 = 0x81;
    pub(super) const PHASE: u8 = 0x82;
    pub(super) const FAILED: u8 = 0x83;
    pub(super) const WARNING: u8 = 0x84;
    pub(super) const STARTED: u8 = 0x85;
    pub(super) const REFUSED: u8 = 0x86;
    pub(super) const OUTPUT: u8 = 0x87;
    pub(super) const REPLY_CREDIT: u8 = 0x88;
    pub(super) const STDIN_CLOSED: u8 = 0x89;
    pub(super) const EXITED: u8 = 0x8a;
    pub(super) const STOPPED: u8 = 0x8b;
}

fn unknown<T>(field: &'static str, value: u8) -> Result<T, WireError> {
    let value = value.into();
    Err(WireError::Unknown { field, value })
}

fn id(reader: &mut Reader<'_>) -> Result<ExecId, WireError> {
    Ok(ExecId(reader.u32()?))
}

fn size(reader: &mut Reader<'_>) -> Result<Size, WireError> {
    Ok(Size {
        columns: reader.u16()?,
        rows: reader.u16()?,
    })
}

fn put_size(body: &mut Vec<u8>, size: Size) {
    body.u16(size.columns);
    body.u16(size.rows);
}

/// A sentence's part that fits: cut at a character's border.
fn fitting(text: &str) -> &str {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

impl Output {
    fn from_wire(value: u8) -> Result<Self, WireError> {
        match value {
            1 => Ok(Self::Stdout),
            2 => Ok(Self::Stderr),
            value => unknown("output", value),
        }
    }

    fn to_wire(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

impl Phase {
    fn from_wire(value: u8) -> Result<Self, WireError> {
        match value {
            1 => Ok(Self::Modules),
            2 => Ok(Self::Root),
            3 => Ok(Self::Ready),
            value => unknown("phase", value),
        }
    }

    fn to_wire(self) -> u8 {
        match self {
            Self::Modules => 1,
            Self::Root => 2,
            Self::Ready => 3,
        }
    }
}

impl Exec {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            argv: reader.list(|r| Ok(r.bytes()?.to_vec()))?,
            environment: reader.list(|r| Ok((r.bytes()?.to_vec(), r.bytes()?.to_vec())))?,
            folder: reader.option(|r| Ok(r.bytes()?.to_vec()))?,
            user: reader.option(|r| {
                Ok(User {
                    uid: r.u32()?,
                    gid: r.u32()?,
                    groups: r.list(Reader::u32)?,
                })
            })?,
            input: match reader.u8()? {
                0 => Input::Null,
                1 => Input::Pipe,
                2 => Input::Terminal(size(reader)?),
                value => return unknown("input", value),
            },
            files: reader.list(|r| {
                Ok(TransientFile {
                    path: r.bytes()?.to_vec(),
                    mode: r.u16()?,
                    content: r.bytes()?.to_vec(),
                })
            })?,
        })
    }

    fn encode(&self, body: &mut Vec<u8>) {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        body.u32(count(self.argv.len()));
        for argument in &self.argv {
            body.bytes(argument);
        }
        body.u32(count(self.environment.len()));
        for (name, value) in &self.environment {
            body.bytes(name);
            body.bytes(value);
        }
        body.u8(self.folder.is_some().into());
        if let Some(folder) = &self.folder {
            body.bytes(folder);
        }
        body.u8(self.user.is_some().into());
        if let Some(user) = &self.user {
            body.u32(user.uid);
            body.u32(user.gid);
            body.u32(count(user.groups.len()));
            for group in &user.groups {
                body.u32(*group);
            }
        }
        match self.input {
            Input::Null => body.u8(0),
            Input::Pipe => body.u8(1),
            Input::Terminal(size) => {
                body.u8(2);
                put_size(body, size);
            }
        }
        body.u32(count(self.files.len()));
        for file in &self.files {
            body.bytes(&file.path);
            body.u16(file.mode);
            body.bytes(&file.content);
        }
    }
}

impl<'a> Request<'a> {
    /// Reads a frame's body.
    ///
    /// # Errors
    /// The body is not a request.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let r = &mut reader;
        let request = match r.u8()? {
            kind::EXEC => Self::Exec {
                id: id(r)?,
                exec: Exec::decode(r)?,
            },
            kind::STDIN => Self::Stdin {
                id: id(r)?,
                data: r.rest(),
            },
            kind::STDIN_END => Self::StdinEnd { id: id(r)? },
            kind::REQUEST_CREDIT => Self::Credit {
                id: id(r)?,
                output: Output::from_wire(r.u8()?)?,
                bytes: r.u32()?,
            },
            kind::CLOSE_OUTPUT => Self::CloseOutput {
                id: id(r)?,
                output: Output::from_wire(r.u8()?)?,
            },
            kind::SIGNAL => Self::Signal {
                id: id(r)?,
                signal: r.u8()?,
            },
            kind::RESIZE => Self::Resize {
                id: id(r)?,
                size: size(r)?,
            },
            kind::SHUTDOWN => Self::Shutdown,
            kind::BYE => Self::Bye,
            value => return unknown("request", value),
        };
        reader.end()?;
        Ok(request)
    }

    /// Appends the request as a frame.
    pub fn append_to(&self, buffer: &mut Vec<u8>) {
        frame::append(buffer, |body| match self {
            Self::Exec { id, exec } => {
                body.u8(kind::EXEC);
                body.u32(id.0);
                exec.encode(body);
            }
            Self::Stdin { id, data } => {
                body.u8(kind::STDIN);
                body.u32(id.0);
                body.put(data);
            }
            Self::StdinEnd { id } => {
                body.u8(kind::STDIN_END);
                body.u32(id.0);
            }
            Self::Credit { id, output, bytes } => {
                body.u8(kind::REQUEST_CREDIT);
                body.u32(id.0);
                body.u8(output.to_wire());
                body.u32(*bytes);
            }
            Self::CloseOutput { id, output } => {
                body.u8(kind::CLOSE_OUTPUT);
                body.u32(id.0);
                body.u8(output.to_wire());
            }
            Self::Signal { id, signal } => {
                body.u8(kind::SIGNAL);
                body.u32(id.0);
                body.u8(*signal);
            }
            Self::Resize { id, size } => {
                body.u8(kind::RESIZE);
                body.u32(id.0);
                put_size(body, *size);
            }
            Self::Shutdown => body.u8(kind::SHUTDOWN),
            Self::Bye => body.u8(kind::BYE),
        });
    }
}

impl<'a> Reply<'a> {
    /// Reads a frame's body.
    ///
    /// # Errors
    /// The body is not a reply.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let r = &mut reader;
        let reply = match r.u8()? {
            kind::HELLO => Self::Hello {
                version: r.u16()?,
                boot_us: r.u64()?,
            },
            kind::PHASE => Self::Phase {
                phase: Phase::from_wire(r.u8()?)?,
                boot_us: r.u64()?,
            },
            kind::FAILED => Self::Failed { text: r.text()? },
            kind::WARNING => Self::Warning { text: r.text()? },
            kind::STARTED => Self::Started { id: id(r)? },
            kind::REFUSED => Self::Refused {
                id: id(r)?,
                text: r.text()?,
            },
            kind::OUTPUT => Self::Output {
                id: id(r)?,
                output: Output::from_wire(r.u8()?)?,
                data: r.rest(),
            },
            kind::REPLY_CREDIT => Self::Credit {
                id: id(r)?,
                bytes: r.u32()?,
            },
            kind::STDIN_CLOSED => Self::StdinClosed { id: id(r)? },
            kind::EXITED => Self::Exited {
                id: id(r)?,
                exit: match r.u8()? {
                    0 => Exit::Code(r.u8()?),
                    1 => Exit::Signal(r.u8()?),
                    value => return unknown("exit", value),
                },
            },
            kind::STOPPED => Self::Stopped {
                clean: r.flag()?,
                text: r.text()?,
            },
            value => return unknown("reply", value),
        };
        reader.end()?;
        Ok(reply)
    }

    /// Appends the reply as a frame. Sentences are cut to [`TEXT_MAX`].
    pub fn append_to(&self, buffer: &mut Vec<u8>) {
        frame::append(buffer, |body| match self {
            Self::Hello { version, boot_us } => {
                body.u8(kind::HELLO);
                body.u16(*version);
                body.u64(*boot_us);
            }
            Self::Phase { phase, boot_us } => {
                body.u8(kind::PHASE);
                body.u8(phase.to_wire());
                body.u64(*boot_us);
            }
            Self::Failed { text } => {
                body.u8(kind::FAILED);
                body.bytes(fitting(text).as_bytes());
            }
            Self::Warning { text } => {
                body.u8(kind::WARNING);
                body.bytes(fitting(text).as_bytes());
            }
            Self::Started { id } => {
                body.u8(kind::STARTED);
                body.u32(id.0);
            }
            Self::Refused { id, text } => {
                body.u8(kind::REFUSED);
                body.u32(id.0);
                body.bytes(fitting(text).as_bytes());
            }
            Self::Output { id, output, data } => {
                body.u8(kind::OUTPUT);
                body.u32(id.0);
                body.u8(output.to_wire());
                body.put(data.get(..DATA_MAX).unwrap_or(data));
            }
            Self::Credit { id, bytes } => {
                body.u8(kind::REPLY_CREDIT);
                body.u32(id.0);
                body.u32(*bytes);
            }
            Self::StdinClosed { id } => {
                body.u8(kind::STDIN_CLOSED);
                body.u32(id.0);
            }
            Self::Exited { id, exit } => {
                body.u8(kind::EXITED);
                body.u32(id.0);
                match exit {
                    Exit::Code(code) => body.put(&[0, *code]),
                    Exit::Signal(signal) => body.put(&[1, *signal]),
                }
            }
            Self::Stopped { clean, text } => {
                body.u8(kind::STOPPED);
                body.u8((*clean).into());
                body.bytes(fitting(text).as_bytes());
            }
        });
    }
}

#[cfg(test)]
mod tests;
