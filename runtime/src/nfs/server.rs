//! Connections: a thread for each, one call after the other.

use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coop_driver::device::conet::{Accept, Service};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::export::Export;
use super::record;

/// The port that NFS is known by.
pub const PORT: u16 = 2049;
/// How many connections are served at once; further ones are closed.
pub const CONNECTIONS_MAX: usize = 64;
/// How long a connection may be silent; its client opens another when it has something to say.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);
/// How long a client may take to fetch a reply.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// How often a server that waits looks whether it is to end.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Serves an export to whoever connects.
#[derive(Clone, Debug)]
pub struct NfsServer {
    export: Arc<Export>,
    open: Arc<AtomicUsize>,
}

impl NfsServer {
    /// A server without connections.
    #[must_use]
    pub fn new(export: Export) -> Self {
        Self {
            export: Arc::new(export),
            open: Arc::default(),
        }
    }

    /// The server as a port of a guest's gateway. Its threads end with the guest's connections.
    #[must_use]
    pub fn service(&self, port: u16) -> Service {
        let server = self.clone();
        let accept: Accept = Arc::new(move |stream: UnixStream| {
            let timeouts = stream
                .set_read_timeout(Some(SILENCE_MAX))
                .and_then(|()| stream.set_write_timeout(Some(WRITE_PATIENCE)));
            if timeouts.is_ok() {
                server.attend(stream.try_clone(), stream);
            }
        });
        Service { port, accept }
    }

    /// Serves whoever connects to a listening socket, until `is_over` says so. Connections that
    /// are open then end with the process.
    ///
    /// # Errors
    /// The socket fails.
    pub fn serve(&self, listener: &TcpListener, is_over: &dyn Fn() -> bool) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        while !is_over() {
            let mut ready = [PollFd::new(listener, PollFlags::IN)];
            match poll(&mut ready, Some(&TICK)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            match listener.accept() {
                Ok((stream, _)) => self.accept(stream),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn accept(&self, stream: TcpStream) {
        let prepared = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| stream.set_read_timeout(Some(SILENCE_MAX)))
            .and_then(|()| stream.set_write_timeout(Some(WRITE_PATIENCE)));
        // One that is gone already is no matter.
        if prepared.is_ok() {
            self.attend(stream.try_clone(), stream);
        }
    }

    /// Answers a connection in a thread of its own. One that finds no place is closed.
    fn attend<S: Read + Write + Send + 'static>(&self, reader: io::Result<S>, writer: S) {
        let Ok(reader) = reader else {
            return;
        };
        let Some(place) = Place::take(&self.open) else {
            return;
        };
        let export = Arc::clone(&self.export);
        let thread = std::thread::Builder::new().name("nfs".to_owned());
        // A host without threads has no place either.
        let _ = thread.spawn(move || {
            let _place = place;
            // However a connection ends, its client connects again or is gone.
            let _ = export.converse(reader, writer);
        });
    }
}

/// Whether another connection may go better.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(
        error.kind(),
        WouldBlock | Interrupted | ConnectionAborted | ConnectionReset
    )
}

impl Export {
    /// Answers what comes in on a connection, one call after the other, until it ends.
    ///
    /// # Errors
    /// The connection breaks, or what comes in is no call or too long for one.
    pub fn converse(&self, reader: impl Read, mut writer: impl Write) -> io::Result<()> {
        let mut reader = BufReader::new(reader);
        let mut call = Vec::new();
        while record::read(&mut reader, &mut call)? {
            let Some(reply) = self.reply(&call) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            record::write(&mut writer, reply)?;
        }
        Ok(())
    }
}

/// One of the connections that are served at once.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(open));
        let before = open.fetch_add(1, Ordering::AcqRel);
        (before < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
