//! What a user network is made with, and what can go wrong in making it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::service::{SERVICES_MAX, Service};
use super::switch::NODES_MAX;

/// The network that the guest lives in.
pub const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 0);
/// How many leading bits of an address name the network.
pub const PREFIX_BITS: u8 = 24;
/// The network's mask.
pub const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// The network's broadcast address.
pub const BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 255);
/// The gateway. Where the host is allowed, its loopback answers here.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The guest, where it is the only one.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The gateway's hardware address, locally administered.
pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];

/// Largest IP packet on the link unless told otherwise, in bytes.
pub const MTU_DEFAULT: u16 = 1500;
/// Largest IP packet that can be asked for, in bytes: what fits into IPv4's length field, rounded
/// down to a multiple of sixteen.
pub const MTU_MAX: u16 = 65_520;
/// Smallest IP packet size that can be asked for, in bytes: what IPv4 demands, RFC 791.
pub const MTU_MIN: u16 = 576;

/// How many TCP connections can be open at once; more are refused. Each costs a descriptor of the
/// host and up to twice [`TCP_BUFFER_BYTES`] of memory.
pub const TCP_FLOWS_MAX: usize = 512;
/// What is buffered for a TCP connection in each direction, in bytes: the window that the guest
/// sees.
pub const TCP_BUFFER_BYTES: usize = 256 * 1024;
/// How many UDP flows can be open at once; a new one pushes out the one that was idle longest.
pub const UDP_FLOWS_MAX: usize = 256;
/// How many ports of the host can lead into the guest.
pub const FORWARDS_MAX: usize = 256;

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Ports of the host's loopback that lead into the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub transport: Transport,
    /// First port on the host's 127.0.0.1; 0 takes any free one for each of `count`.
    pub host_port: u16,
    /// First port in the guest.
    pub guest_port: u16,
    /// How many ports in a row, at least 1.
    pub count: u16,
}

/// A port of the host's loopback that leads into the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundPort {
    /// TCP or UDP.
    pub transport: Transport,
    /// The port on 127.0.0.1 of the host.
    pub host_port: u16,
    /// The port in the guest.
    pub guest_port: u16,
}

/// What a user network is made with.
#[derive(Clone, Debug)]
pub struct UserOptions {
    /// The guest's hardware address: unicast, see [`stable_mac`].
    pub mac: [u8; 6],
    /// The guest's address, inside [`NETWORK`].
    pub address: Ipv4Addr,
    /// Names that the name server answers by itself, in lowercase, and what they stand for. These
    /// addresses have names then, too.
    pub hosts: BTreeMap<String, Ipv4Addr>,
    /// Largest IP packet on the link, in bytes: [`MTU_MIN`] to [`MTU_MAX`].
    pub mtu: u16,
    /// Ports of the host that lead into the guest.
    pub forwards: Vec<Forward>,
    /// Whether the guest may reach the host's own addresses, and its loopback as [`GATEWAY`].
    pub allow_host: bool,
    /// The host's name servers in order of preference; they may lie on its loopback. Without any,
    /// every query of the guest is answered with a failure.
    pub resolvers: Vec<SocketAddr>,
    /// Ports of [`GATEWAY`] that coop itself serves; they come before the host's loopback.
    pub services: Vec<Service>,
    /// Whether the guest reaches nothing but the services: no other address, and no names.
    pub restricted: bool,
}

impl UserOptions {
    /// Options with the default MTU, no forwards, no way to the host and no name server.
    #[must_use]
    pub fn new(mac: [u8; 6]) -> Self {
        Self {
            mac,
            address: GUEST,
            hosts: BTreeMap::new(),
            mtu: MTU_DEFAULT,
            forwards: Vec::new(),
            allow_host: false,
            resolvers: Vec::new(),
            services: Vec::new(),
            restricted: false,
        }
    }
}

/// Makes a hardware address that is the same whenever `instance` and the device's `index` are:
/// locally administered, unicast, and not the gateway's.
#[must_use]
pub fn stable_mac(instance: &str, index: u8) -> [u8; 6] {
    // FNV-1a, 64 bits: nothing here needs a cryptographic hash.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in instance.bytes().chain([0, index]) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let [a, b, c, d, ..] = hash.to_be_bytes();
    [0x52, 0x54, a, b, c, d]
}

/// Why a user network cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Another program has the port.
    #[error("{transport} port {port} of the host is in use by another program")]
    PortInUse {
        /// TCP or UDP.
        transport: Transport,
        /// The port.
        port: u16,
    },
    /// The host reserves the port.
    #[error("{transport} port {port} of the host is reserved for privileged programs")]
    PortReserved {
        /// TCP or UDP.
        transport: Transport,
        /// The port.
        port: u16,
    },
    /// The forward names no ports, or ports above 65535, or port 0 of the guest.
    #[error("a forward of {count} {transport} ports from {host_port} to {guest_port} is not valid")]
    BadForward {
        /// TCP or UDP.
        transport: Transport,
        /// First port on the host.
        host_port: u16,
        /// First port in the guest.
        guest_port: u16,
        /// How many.
        count: u16,
    },
    /// More ports are forwarded than coop serves.
    #[error("{count} forwarded ports are more than the {FORWARDS_MAX} that coop serves")]
    TooManyForwards {
        /// How many were asked for.
        count: usize,
    },
    /// More services, or two on one port, or one on port 0.
    #[error("the network's services need ports of their own, and are {SERVICES_MAX} at most")]
    BadServices,
    /// The address is the gateway's or the name server's, or outside.
    #[error(
        "a guest cannot have the address {0}: it is not free in the network {NETWORK}/{PREFIX_BITS}"
    )]
    BadAddress(Ipv4Addr),
    /// Too many nodes, or two with one name or address.
    #[error(
        "the nodes of a switch need names and addresses of their own, and are {NODES_MAX} at most"
    )]
    BadNodes,
    /// The MTU is out of range.
    #[error("an MTU of {mtu} bytes is not within {MTU_MIN} and {MTU_MAX}")]
    BadMtu {
        /// What was asked for.
        mtu: u16,
    },
    /// The hardware address is a group's or the gateway's.
    #[error("the hardware address {mac:02x?} cannot be a guest's")]
    BadMac {
        /// What was asked for.
        mac: [u8; 6],
    },
    /// The host refused something.
    #[error("the host refused to {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_stable_local_and_distinct() {
        assert_eq!(stable_mac("web", 0), stable_mac("web", 0));
        assert_ne!(stable_mac("web", 0), stable_mac("web", 1));
        assert_ne!(stable_mac("web", 0), stable_mac("db", 0));
        let [first, ..] = stable_mac("web", 0);
        assert_eq!(first & 0b11, 0b10, "locally administered and unicast");
    }
}
