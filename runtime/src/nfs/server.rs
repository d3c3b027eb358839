//! Connections: a thread for each, one call after the other.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coop_driver::device::conet::{Accept, Service};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::export::Export;
use super::record;

/// The port that NFS is known by.
pub const PORT: u16 = 2049;
/// How many connections are served at once; further ones are closed.
const CONNECTIONS_MAX: usize = 128;
/// How many of them one address has at most, so that no client alone keeps the others out.
pub(super) const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;
/// How long a connection may be silent; its client opens another when it has something to say.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);
/// How long a client may take to fetch a reply.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a server waits that could not accept a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a server that waits looks whether it is to end.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Serves an export to whoever connects.
#[derive(Clone, Debug)]
pub struct NfsServer {
    export: Arc<Export>,
    open: Open,
}

impl NfsServer {
    /// A server without connections; several can have one export.
    #[must_use]
    pub fn new(export: impl Into<Arc<Export>>) -> Self {
        Self {
            export: export.into(),
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
                server.attend(stream, None);
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
                Ok((stream, client)) => self.accept(stream, client.ip()),
                Err(error) if is_for_good(&error) => return Err(error),
                // A client that is gone already, or a host that is short of descriptors.
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
        Ok(())
    }

    fn accept(&self, stream: TcpStream, client: IpAddr) {
        let prepared = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| stream.set_read_timeout(Some(SILENCE_MAX)))
            .and_then(|()| stream.set_write_timeout(Some(WRITE_PATIENCE)));
        // One that is gone already is no matter.
        if prepared.is_ok() {
            self.attend(stream, Some(client));
        }
    }

    /// Answers a connection in a thread of its own. One that finds no place is closed.
    fn attend<S>(&self, stream: S, client: Option<IpAddr>)
    where
        S: Send + 'static,
        for<'s> &'s S: Read + Write,
    {
        let Some(place) = Place::take(&self.open, client) else {
            return;
        };
        let export = Arc::clone(&self.export);
        let thread = std::thread::Builder::new().name("nfs".to_owned());
        // A host without threads has no place either.
        let _ = thread.spawn(move || {
            let _place = place;
            // However a connection ends, its client connects again or is gone.
            let _ = export.converse(&stream, &stream);
        });
    }
}

/// Whether no other connection can go better: the socket is none that listens.
fn is_for_good(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        None | Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)
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

/// The connections that are served, by their clients; a guest of coop's own has no address.
type Open = Arc<Mutex<BTreeMap<Option<IpAddr>, usize>>>;

fn lock(open: &Open) -> MutexGuard<'_, BTreeMap<Option<IpAddr>, usize>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of the connections that are served at once.
struct Place {
    open: Open,
    client: Option<IpAddr>,
}

impl Place {
    fn take(open: &Open, client: Option<IpAddr>) -> Option<Self> {
        let mut clients = lock(open);
        let all: usize = clients.values().sum();
        let own = clients.get(&client).copied().unwrap_or(0);
        if all >= CONNECTIONS_MAX || own >= CONNECTIONS_PER_ADDRESS_MAX {
            return None;
        }
        clients.insert(client, own + 1);
        let open = Arc::clone(open);
        Some(Self { open, client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = lock(&self.open);
        match clients.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(clients.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_takes_all_places() {
        let open = Open::default();
        let take = |client: u8| Place::take(&open, Some(IpAddr::from([192, 0, 2, client])));
        let mut held: Vec<Place> = (0..CONNECTIONS_MAX).filter_map(|_| take(1)).collect();
        assert_eq!(held.len(), CONNECTIONS_PER_ADDRESS_MAX);
        held.extend((0..CONNECTIONS_MAX).filter_map(|_| take(2)));
        assert_eq!(held.len(), CONNECTIONS_MAX);
        assert!(take(3).is_none(), "all places are taken");
        held.pop();
        assert!(take(3).is_some() && take(1).is_none());
        held.clear();
        assert!(lock(&open).is_empty());
    }
}
