//! Services that coop itself gives the guest, without a port of the host.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// How many services a network has at most.
pub const SERVICES_MAX: usize = 16;

/// Takes one end of a connection whose other end is the guest's.
///
/// Called from the network's own thread, so it must not block: it hands the connection on.
pub type Accept = Arc<dyn Fn(UnixStream) + Send + Sync>;

/// A TCP port of the gateway that coop serves.
#[derive(Clone)]
pub struct Service {
    /// The port, as the guest sees it.
    pub port: u16,
    /// Who takes connections.
    pub accept: Accept,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Service {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port && Arc::ptr_eq(&self.accept, &other.accept)
    }
}

impl Eq for Service {}
