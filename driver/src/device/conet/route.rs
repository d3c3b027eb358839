//! Which addresses are the host's own: the kernel's answer, not a list of ours.
//!
//! One `RTM_GETROUTE` question (rtnetlink(7)) per new flow. It is always up to date and knows
//! secondary addresses, local routes and broadcast addresses of any interface.

use std::net::{Ipv4Addr, UdpSocket};

use rustix::buffer::spare_capacity;
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `RTM_GETROUTE` and its answer `RTM_NEWROUTE`.
const RTM_GETROUTE: u16 = 26;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
/// Length of `struct nlmsghdr`, and of a whole question: header, `struct rtmsg`, one attribute.
const HEADER_BYTES: usize = 16;
const QUESTION_BYTES: u32 = 36;
const AF_INET: u8 = 2;
const RTA_DST: u16 = 1;
/// Where `rtm_type` lies in an answer.
const RTM_TYPE_AT: usize = HEADER_BYTES + 7;
/// Values of `rtm_type`.
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const RTN_ANYCAST: u8 = 4;
const RTN_MULTICAST: u8 = 5;
/// Longest answer that is looked at, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// Whose an address is, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteKind {
    /// The host's own.
    Host,
    /// A group's: broadcast, anycast, multicast.
    Group,
    /// Anyone else's, or nobody's: connecting will show.
    Elsewhere,
}

/// Asks the kernel about routes.
#[derive(Debug)]
pub(super) struct Routes {
    socket: Option<OwnedFd>,
    sequence: u32,
    answer: Vec<u8>,
}

impl Routes {
    pub(super) fn new() -> Self {
        Self {
            socket: rustix::net::socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                None, // NETLINK_ROUTE is protocol 0.
            )
            .ok(),
            sequence: 0,
            answer: Vec::with_capacity(ANSWER_BYTES_MAX),
        }
    }

    /// Whose `address` is. Where the kernel does not tell, an address that can be bound is taken
    /// for the host's own.
    pub(super) fn kind(&mut self, address: Ipv4Addr) -> RouteKind {
        match self.ask(address) {
            Some(RTN_UNICAST) => RouteKind::Elsewhere,
            Some(RTN_LOCAL) => RouteKind::Host,
            Some(RTN_BROADCAST | RTN_ANYCAST | RTN_MULTICAST) => RouteKind::Group,
            Some(_) | None if UdpSocket::bind((address, 0)).is_ok() => RouteKind::Host,
            Some(_) | None => RouteKind::Elsewhere,
        }
    }

    fn ask(&mut self, address: Ipv4Addr) -> Option<u8> {
        let socket = self.socket.as_ref()?;
        self.sequence = self.sequence.wrapping_add(1);
        let question = question(self.sequence, address);
        rustix::net::send(socket, &question, SendFlags::DONTWAIT).ok()?;
        // The kernel answers before `send` returns. An answer to an older question can only lie
        // here if reading it failed then.
        for _ in 0..4 {
            self.answer.clear();
            rustix::net::recv(
                socket,
                spare_capacity(&mut self.answer),
                RecvFlags::DONTWAIT,
            )
            .ok()?;
            let (kind, sequence) = (self.answer.get(4..6)?, self.answer.get(8..12)?);
            if sequence == self.sequence.to_ne_bytes() {
                return (kind == RTM_NEWROUTE.to_ne_bytes())
                    .then(|| self.answer.get(RTM_TYPE_AT).copied())?;
            }
        }
        None
    }
}

/// A question for the route to `address`, in the host's byte order as netlink has it.
fn question(sequence: u32, address: Ipv4Addr) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(QUESTION_BYTES.to_ne_bytes());
    bytes.extend(RTM_GETROUTE.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    // struct rtmsg: family, length of the destination in bits, and zeroes.
    bytes.extend([AF_INET, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(8_u16.to_ne_bytes());
    bytes.extend(RTA_DST.to_ne_bytes());
    bytes.extend(address.octets());
    bytes
}

/// An address of the host other than loopback, by asking which one it would use to go out.
#[cfg(test)]
pub(super) fn some_own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(own) if !own.is_loopback() => Some(own),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_its_own() {
        let mut routes = Routes::new();
        assert_eq!(routes.kind(Ipv4Addr::LOCALHOST), RouteKind::Host);
        assert_eq!(routes.kind(Ipv4Addr::new(127, 9, 9, 9)), RouteKind::Host);
        assert_eq!(
            routes.kind(Ipv4Addr::new(198, 51, 100, 1)),
            RouteKind::Elsewhere
        );
        if let Some(own) = some_own_address() {
            assert_eq!(routes.kind(own), RouteKind::Host);
        }
    }

    #[test]
    fn without_netlink_binding_tells() {
        let mut routes = Routes {
            socket: None,
            sequence: 0,
            answer: Vec::new(),
        };
        assert_eq!(routes.kind(Ipv4Addr::LOCALHOST), RouteKind::Host);
        assert_eq!(
            routes.kind(Ipv4Addr::new(198, 51, 100, 1)),
            RouteKind::Elsewhere
        );
    }
}
