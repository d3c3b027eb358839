//! The proxy through which apt in a step gets its packages: those of the recipe's suites as the
//! build knows them, and so, with a lock, as the lock pins them.
//!
//! ```text
//! apt in the guest ─TCP→ gateway:3142 ─(conet: no port of the host)→ here ─→ store ─→ mirror
//! ```
//!
//! Nothing of the host listens. Indices and packages are verified before the guest sees them and
//! stay in the store, so that no step fetches them twice and a build without a network has them.
//! The guest is not trusted: requests, connections and waiting times have limits.

mod apt;
mod relay;
mod request;
mod shelf;

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::Scope;
use std::time::Duration;

use coop_runtime::event::{Event, Observer};
use coop_runtime::{Accept, Service};

use self::request::{Parsed, Request};
use self::shelf::{Refusal, Shelf};
use super::Network;
use crate::debian::suite::SuiteRequest;
use crate::fetch::Fetcher;

pub(super) use self::apt::{CONFIGURATION, files};
pub use self::request::{Parsed as ParsedRequest, Request as ProxyRequest, parse as parse_request};

/// The port of the gateway where the guest finds the proxy.
pub(super) const PORT: u16 = 3142;
/// The most connections at once; more are closed unheard. apt has one for each archive.
const CONNECTIONS_MAX: usize = 16;
/// The most requests of one connection.
const REQUESTS_MAX: usize = 100_000;
/// How long to wait before looking whether the guest is still there.
const TICK: Duration = Duration::from_secs(1);
/// How many ticks a connection may be idle.
const IDLE_TICKS_MAX: u32 = 600;
/// How long the guest may leave an answer untaken.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a sentence about a refusal may be, in bytes.
const REASON_BYTES_MAX: usize = 400;

/// The archives that steps may have packages from.
#[derive(Clone, Copy, Debug)]
pub struct Packages<'a> {
    /// Downloads, and the store.
    pub fetcher: &'a Fetcher,
    /// The suites, each with its index pinned.
    pub suites: &'a [SuiteRequest],
    /// A lock pins them: their indices may have expired.
    pub is_locked: bool,
}

/// Serves a guest while `work` runs, which is given the service for the guest's network.
pub(super) fn serve<T>(
    packages: &Packages<'_>,
    network: Network,
    observer: &dyn Observer,
    work: impl FnOnce(Service) -> T,
) -> T {
    let over = AtomicBool::new(false);
    let ending = Ending {
        inner: observer,
        over: &over,
    };
    let proxy = Proxy {
        shelf: Shelf::new(packages.fetcher, packages.suites, &ending),
        relays: network == Network::World && !packages.fetcher.is_offline(),
        observer: &ending,
        open: AtomicUsize::new(0),
    };
    let (sender, receiver) = sync_channel(CONNECTIONS_MAX);
    let accept: Accept = Arc::new(move |stream| {
        // One that finds no place is closed.
        let _ = sender.try_send(stream);
    });
    std::thread::scope(|scope| {
        let _end = End(&over);
        let proxy = &proxy;
        scope.spawn(move || proxy.accept(scope, &receiver));
        work(Service { port: PORT, accept })
    })
}

/// Says that the guest has gone, however that came.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Calls downloads off once nobody waits for them.
struct Ending<'a> {
    inner: &'a dyn Observer,
    over: &'a AtomicBool,
}

impl Observer for Ending<'_> {
    fn event(&self, event: &Event<'_>) {
        self.inner.event(event);
    }

    fn is_cancelled(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.inner.is_cancelled()
    }
}

struct Proxy<'a> {
    shelf: Shelf<'a>,
    /// What is not on the shelf but near it is asked of the archive itself.
    relays: bool,
    observer: &'a Ending<'a>,
    open: AtomicUsize,
}

impl Proxy<'_> {
    fn accept<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        receiver: &Receiver<UnixStream>,
    ) {
        while !self.observer.is_cancelled() {
            match receiver.recv_timeout(TICK) {
                Ok(stream) if self.open.load(Ordering::Relaxed) < CONNECTIONS_MAX => {
                    self.open.fetch_add(1, Ordering::Relaxed);
                    scope.spawn(move || {
                        // A guest that goes is no matter.
                        let _ = self.converse(&stream);
                        self.open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Answers one request after the other.
    fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(WRITE_PATIENCE))?;
        let mut buffer = Vec::new();
        for _ in 0..REQUESTS_MAX {
            let request = match self.next(stream, &mut buffer)? {
                Some(Parsed::Whole(request)) => request,
                Some(Parsed::Refused(status, reason)) => {
                    return refuse(stream, status, reason, true);
                }
                Some(Parsed::Partial) | None => return Ok(()),
            };
            buffer.drain(..request.length);
            let stays = self.answer(stream, &request)?;
            if request.closes || !stays {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next request; nothing where the guest has finished, or has been silent for too long.
    fn next(&self, mut stream: &UnixStream, buffer: &mut Vec<u8>) -> io::Result<Option<Parsed>> {
        let mut chunk = [0; 4096];
        let mut idle = 0;
        loop {
            match request::parse(buffer) {
                Parsed::Partial => {}
                parsed => return Ok(Some(parsed)),
            }
            match stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => buffer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    idle += 1;
                    if idle > IDLE_TICKS_MAX || self.observer.is_cancelled() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives whether the connection can be used again.
    fn answer(&self, mut stream: &UnixStream, request: &Request) -> io::Result<bool> {
        match self.shelf.find(&request.address) {
            Ok(file) => {
                let length = file.metadata()?.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\
                     Content-Type: application/octet-stream\r\n\r\n"
                );
                stream.write_all(head.as_bytes())?;
                if !request.is_head {
                    let copied = io::copy(&mut file.take(length), &mut stream)?;
                    return Ok(copied == length);
                }
                Ok(true)
            }
            Err(Refusal::Unknown) if self.relays && self.shelf.is_near(&request.address) => {
                if let Err(error) = relay::relay(stream, request, self.observer) {
                    let reason = format!("the archive cannot be asked: {error}");
                    refuse(stream, 424, &reason, true)?;
                }
                Ok(false)
            }
            Err(Refusal::Unknown) => {
                let reason = "none of the files of the recipe's suites";
                refuse(stream, 404, reason, request.closes).map(|()| true)
            }
            Err(Refusal::Failed(sentence)) => {
                let message = &format!("a step cannot have {}: {sentence}", request.address);
                self.observer.event(&Event::Warning { message });
                let reason = self.shelf.for_guest(&sentence);
                // Whatever may go away by itself was tried again; apt need not.
                refuse(stream, 424, &reason, request.closes).map(|()| true)
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Says no. apt shows the status line, so the sentence stands there; without a body the answer is
/// right for HEAD too.
fn refuse(mut stream: &UnixStream, status: u16, reason: &str, closes: bool) -> io::Result<()> {
    let plain = |character: char| match character {
        ' '..='~' => character,
        _ => '?',
    };
    let reason: String = reason.chars().map(plain).take(REASON_BYTES_MAX).collect();
    let closing = if closes { "Connection: close\r\n" } else { "" };
    let text = format!("HTTP/1.1 {status} {reason}\r\nContent-Length: 0\r\n{closing}\r\n");
    stream.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests;
