//! Where a guest's TCP connection goes on: a socket of the host's network, or a service of coop.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt;

/// A stream that never blocks.
#[derive(Debug)]
pub(super) enum HostSocket {
    /// A connection of the host.
    Tcp(TcpStream),
    /// One end of a pair whose other end a service has.
    Service(UnixStream),
}

impl HostSocket {
    /// Two ends: ours, and the service's, which blocks.
    pub(super) fn service() -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self::Service(ours), theirs))
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).read(buffer),
            Self::Service(stream) => (&*stream).read(buffer),
        }
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).write(bytes),
            Self::Service(stream) => (&*stream).write(bytes),
        }
    }

    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Service(stream) => stream.take_error(),
        }
    }

    /// Whether the other end has been reached.
    pub(super) fn is_connected(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.peer_addr().is_ok(),
            Self::Service(_) => true,
        }
    }

    /// Tells the other end that no more will come.
    pub(super) fn finish(&self) {
        // A peer that has gone already needs no notice.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Service(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Sets what a connection of the host needs; each is a help, none is needed.
    pub(super) fn prepare(&self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_nodelay(true);
            // Finds out about peers that have vanished, without waking the guest.
            let _ = sockopt::set_socket_keepalive(stream, true);
        }
    }

    /// Makes the coming close a reset, where there is such a thing.
    pub(super) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }
}

impl AsFd for HostSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Service(stream) => stream.as_fd(),
        }
    }
}
