//! The way to the host: frames over a virtio-console port.

use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use coop_guest::boot;
use coop_guest::frame::{Decoder, REQUEST_MAX};
use coop_guest::message::{Reply, Request};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{self, OptionalActions};

use crate::failure::{Doing, Failure};

/// How long the port may take to appear and the host to open it.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two looks.
const APPEAR_PAUSE: Duration = Duration::from_millis(2);
/// Bytes of replies above which commands' outputs are not read any more.
const QUEUE_HIGH: usize = 256 << 10;

/// Whether the host is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    There,
    Gone,
}

pub(crate) struct Channel {
    port: OwnedFd,
    /// Whether there is somebody at the other end.
    listened: bool,
    decoder: Decoder,
    queue: Vec<u8>,
    sent: usize,
}

impl Channel {
    /// Finds and opens what the configuration names; waits until the host has it open too.
    pub(crate) fn open(name: &boot::Channel) -> Result<Self, Failure> {
        let deadline = Instant::now() + APPEAR_TIMEOUT;
        let port = match name {
            boot::Channel::Port(port) => open_port(port, deadline)?,
            boot::Channel::Device(path) => open_raw(path)?,
            // It takes every word, and a reader finds nobody there.
            boot::Channel::Nobody => open_node("/dev/null".as_ref())?,
        };
        let mut channel = Self::on(port);
        channel.listened = name != &boot::Channel::Nobody;
        // The kernel reports "hung up" on a port until the host has opened it.
        while channel.readiness(PollFlags::OUT).contains(PollFlags::HUP) {
            if Instant::now() >= deadline {
                return Err(Failure::new("the host does not open the agent's port"));
            }
            sleep(APPEAR_PAUSE);
        }
        Ok(channel)
    }

    /// A channel on an open, non-blocking descriptor.
    pub(crate) fn on(port: OwnedFd) -> Self {
        Self {
            port,
            listened: true,
            decoder: Decoder::new(REQUEST_MAX),
            queue: Vec::new(),
            sent: 0,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }

    /// A second descriptor of the same port, for a server beside the real init.
    pub(crate) fn duplicate(&self) -> std::io::Result<OwnedFd> {
        self.port.try_clone()
    }

    fn readiness(&self, flags: PollFlags) -> PollFlags {
        let mut fds = [PollFd::new(&self.port, flags)];
        let _ = poll(&mut fds, Some(&rustix::time::Timespec::default()));
        let [fd] = fds;
        fd.revents()
    }

    /// Queues a reply.
    pub(crate) fn send(&mut self, reply: &Reply<'_>) {
        reply.append_to(&mut self.queue);
    }

    /// Whether there is somebody who may send requests.
    pub(crate) fn is_listened(&self) -> bool {
        self.listened
    }

    /// Whether there is something to write.
    pub(crate) fn pending(&self) -> bool {
        self.sent < self.queue.len()
    }

    /// Whether so much is queued that outputs should wait.
    pub(crate) fn full(&self) -> bool {
        self.queue.len() - self.sent >= QUEUE_HIGH
    }

    /// Writes what the port takes without waiting.
    pub(crate) fn flush(&mut self) -> Host {
        while let Some(unsent) = self.queue.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match rustix::io::write(&self.port, unsent) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Host::Gone,
            }
        }
        if !self.pending() {
            self.queue.clear();
            self.sent = 0;
        } else if self.sent >= QUEUE_HIGH {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        Host::There
    }

    /// Reads what has arrived, without waiting.
    pub(crate) fn receive(&mut self) -> Host {
        let mut buffer = [0; 32 << 10];
        loop {
            match rustix::io::read(&self.port, &mut buffer[..]) {
                Ok(0) => return Host::Gone,
                Ok(count) => {
                    self.decoder.push(buffer.get(..count).unwrap_or_default());
                    return Host::There;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Host::There,
                Err(_) => return Host::Gone,
            }
        }
    }

    /// The next request that has arrived whole.
    pub(crate) fn request(&mut self) -> Result<Option<Request<'_>>, Failure> {
        let body = self.decoder.take().doing(|| "read a frame".into())?;
        body.map(Request::decode)
            .transpose()
            .doing(|| "read a request".into())
    }

    /// Writes everything that is queued, then waits for the host's last word; gives up at the
    /// deadline.
    pub(crate) fn part(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline && self.flush() == Host::There {
            if !self.pending() && self.receive() == Host::Gone {
                return;
            }
            loop {
                match self.request() {
                    Ok(Some(Request::Bye)) | Err(_) => return,
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                }
            }
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, self.pending());
            let mut fds = [PollFd::new(&self.port, flags)];
            let pause = rustix::time::Timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            };
            let _ = poll(&mut fds, Some(&pause));
        }
    }
}

fn open_port(name: &str, deadline: Instant) -> Result<OwnedFd, Failure> {
    loop {
        if let Some(node) = find_port(name) {
            return open_node(&node);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(format!(
                "the kernel shows no virtio-console port named {name}"
            )));
        }
        sleep(APPEAR_PAUSE);
    }
}

fn find_port(name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports").ok()?.flatten() {
        let found = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        let node = PathBuf::from("/dev").join(entry.file_name());
        if found.trim_end() == name && node.exists() {
            return Some(node);
        }
    }
    None
}

fn open_node(node: &std::path::Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(node)
        .doing(|| format!("open {}", node.display()))?;
    Ok(file.into())
}

fn open_raw(path: &str) -> Result<OwnedFd, Failure> {
    let port = open_node(path.as_ref())?;
    let mut modes = termios::tcgetattr(&port).doing(|| format!("read the modes of {path}"))?;
    modes.make_raw();
    termios::tcsetattr(&port, OptionalActions::Now, &modes)
        .doing(|| format!("set the modes of {path}"))?;
    Ok(port)
}
