//! The wire between a guest and its devices: virtio queues over vhost-user.
//!
//! A device has three parts. The *front* implements [`Device`]: it knows a virtio device's
//! requests and nothing of rings, sockets or guest memory. The *transport* (this module) serves
//! one front over one socket with two threads: one answers the guest kernel's control messages and
//! never waits for I/O, because the guest holds a spinlock meanwhile; the other runs the front.
//! The *backend* (a file, a network stack) is the front's own business and never sees a chain's
//! descriptors.
//!
//! ```text
//! guest kernel ⇄ socket ⇄ control thread ─commands→ device thread: Device::process(queue, queues)
//!      └── rings in shared memory, kick and call ────────┘  ↑ Waker::wake from any thread
//! ```
//!
//! Servers are bound before the guest starts ([`DeviceServer::start`]) and stopped after it ended
//! ([`DeviceServer::stop`]). The program must leave `SIGPIPE` ignored, as Rust's runtime sets it.
//!
//! The crate `vhost-user-backend` is not used: its device thread reads the guest's kick
//! descriptor, which a hostile guest can make block for ever, and it ends on the first error.

mod chain;
mod control;
mod memory;
#[cfg(test)]
pub(crate) mod mock;
mod queues;
mod report;
mod server;
#[cfg(test)]
mod tests;
mod waker;
mod worker;

use std::os::fd::BorrowedFd;

pub use chain::{AccessError, CHAIN_BYTES_MAX, Chain, Readable, SEGMENTS_MAX, Writable};
pub use memory::{GuestImage, GuestProcess};
pub use queues::{QUEUE_SIZE_MAX, Queues};
pub use report::DeviceReport;
pub use server::{
    DeviceServer, FailureHandler, SOCKET_PATH_BYTES_MAX, ServeOptions, TransportError,
};
pub use waker::Waker;

/// Queues that a device has at most.
pub const QUEUES_MAX: usize = 64;

/// The front of a virtio device: what the guest's driver talks to.
///
/// All methods but the first six run on the device's own thread, one at a time; there it may
/// block on its backend's I/O. The first six are called once, before any thread starts. Methods
/// must not panic on anything that the guest sends; a panic is caught and ends the device.
pub trait Device: Send {
    /// The virtio device number (virtio 1.3, section 5): 1 network, 2 block, 3 console, 4 entropy.
    fn device_id(&self) -> u32;

    /// How many queues the device has, at most [`QUEUES_MAX`].
    fn queue_count(&self) -> usize;

    /// Feature bits of this kind of device. The transport adds those of rings and transport.
    fn features(&self) -> u64 {
        0
    }

    /// The configuration space. It does not change while the device is served; the guest reads
    /// zeroes beyond its end, and writes to it are refused.
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Hands over the means to be called at [`Device::wake`]; called once, before the guest.
    fn attach(&mut self, waker: Waker) {
        let _ = waker;
    }

    /// A descriptor that the device waits for besides its queues: [`Device::wake`] is called as
    /// long as it is readable.
    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The guest's driver has chosen features, and is about to start the queues.
    fn negotiate(&mut self, features: u64) {
        let _ = features;
    }

    /// The guest has put chains into `queue`. The device takes what it wants; it is called again
    /// only when the guest adds more, or after it has taken all. Chains left in the ring (a
    /// receive queue's) are there for [`Device::wake`].
    fn process(&mut self, queue: usize, queues: &mut Queues);

    /// [`Waker::wake`] was called at least once since the last time, or [`Device::readiness`] is
    /// readable.
    fn wake(&mut self, queues: &mut Queues) {
        let _ = queues;
    }

    /// The guest has stopped a queue: chains of it that the device kept are void.
    fn stopped(&mut self, queue: usize) {
        let _ = queue;
    }
}
