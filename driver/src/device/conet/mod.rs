//! conet: the guest's network device, and the networks behind it.
//!
//! Three parts that know little of each other. The *front* is a virtio-net device and sees
//! descriptors; a *backend* ([`NetBackend`]) sees Ethernet frames; the *user network*
//! ([`UserNetwork`]) is the backend that needs no privilege. It gives the guest 10.0.2.15/24 by
//! DHCP (or statically, the agent may as well set it), a gateway that answers pings at 10.0.2.2,
//! and a name server at 10.0.2.3 that passes questions on to the host's.
//!
//! What the guest may reach is written in `policy.rs`. IPv6 is not supported: its frames are
//! dropped and counted. So are IPv4 fragments of the guest; large datagrams for the guest are
//! fragmented. Pings go no further than the gateway.
//!
//! Nothing a guest sends can make it grow: connections, flows, buffers and waiting frames have
//! named limits in `options.rs` and `out.rs`, and a guest that does not read only closes its own
//! windows.

mod checksum;
mod dhcp;
mod dns;
mod frame;
mod front;
mod host_socket;
mod options;
mod out;
mod policy;
mod reactor;
mod resolv;
mod route;
mod service;
mod stack;
mod switch;
mod tcp;
mod udp;
mod user;

#[cfg(test)]
mod tests;

use std::num::NonZeroU16;
use std::os::fd::BorrowedFd;

pub use front::Conet;
pub use options::{
    BROADCAST, BoundPort, FORWARDS_MAX, Forward, GATEWAY, GATEWAY_MAC, GUEST, MTU_DEFAULT, MTU_MAX,
    MTU_MIN, NAME_SERVER, NETMASK, NETWORK, NetError, PREFIX_BITS, TCP_BUFFER_BYTES, TCP_FLOWS_MAX,
    Transport, UDP_FLOWS_MAX, UserOptions, stable_mac,
};
pub use resolv::parse_resolv_conf;
pub use service::{Accept, SERVICES_MAX, Service};
pub use switch::{NODES_MAX, Node, Seat, SwitchCounters, Switched, switch};
pub use user::{UserCounters, UserNetwork};

/// What lies behind a network device. It sees frames, never descriptors, and it never blocks.
///
/// One thread owns it. After a batch of [`transmit`](Self::transmit), and whenever
/// [`readiness`](Self::readiness) becomes readable, that thread calls [`service`](Self::service)
/// and hands [`frame`](Self::frame)s to the guest as long as the guest has buffers; again while
/// [`has_work`](Self::has_work) says so. When the guest has new buffers it does the same.
pub trait NetBackend: Send {
    /// The guest's hardware address.
    fn mac(&self) -> [u8; 6];
    /// Largest IP packet that a frame may carry, in bytes.
    fn mtu(&self) -> u16;
    /// Takes an Ethernet frame of the guest, without its checksum. Any bytes are safe.
    fn transmit(&mut self, frame: &[u8]);
    /// Does what is due.
    fn service(&mut self);
    /// Whether [`service`](Self::service) would do more right now.
    fn has_work(&self) -> bool;
    /// The oldest Ethernet frame for the guest.
    fn frame(&self) -> Option<Outgoing<'_>>;
    /// Lets the oldest frame for the guest go.
    fn pop_frame(&mut self);
    /// A descriptor that is readable (as poll(2) sees it) when [`service`](Self::service) has
    /// something to do. It stays the same.
    fn readiness(&self) -> BorrowedFd<'_>;
    /// Forgets the guest: its driver has started anew, and agreed to leave some work out. Until
    /// the first call nothing is left out.
    fn reset(&mut self, offloads: Offloads);
}

impl<B: NetBackend + ?Sized> NetBackend for Box<B> {
    fn mac(&self) -> [u8; 6] {
        (**self).mac()
    }

    fn mtu(&self) -> u16 {
        (**self).mtu()
    }

    fn transmit(&mut self, frame: &[u8]) {
        (**self).transmit(frame);
    }

    fn service(&mut self) {
        (**self).service();
    }

    fn has_work(&self) -> bool {
        (**self).has_work()
    }

    fn frame(&self) -> Option<Outgoing<'_>> {
        (**self).frame()
    }

    fn pop_frame(&mut self) {
        (**self).pop_frame();
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        (**self).readiness()
    }

    fn reset(&mut self, offloads: Offloads) {
        (**self).reset(offloads);
    }
}

/// Work that guest and device leave out because their link is memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The guest may leave TCP and UDP checksums out: they are not checked.
    pub guest_omits_checksums: bool,
    /// The guest takes frames with [`Outgoing::partial_checksum`].
    pub guest_completes_checksums: bool,
    /// The guest sends TCP segments longer than the MTU, up to the longest IP packet.
    pub guest_sends_large_segments: bool,
    /// The guest takes frames with [`Outgoing::segment_bytes`]; only together with
    /// `guest_completes_checksums`.
    pub guest_takes_large_segments: bool,
}

/// A frame for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The Ethernet frame without its checksum.
    pub bytes: &'a [u8],
    /// It is TCP over IPv4 without IP options, and its checksum covers only the pseudo header.
    pub partial_checksum: bool,
    /// It is TCP and longer than the MTU: it stands for segments with so many bytes of payload.
    pub segment_bytes: Option<NonZeroU16>,
}
