//! The user network: everything behind the link, in the order in which a frame meets it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;

use smoltcp::wire::{EthernetAddress, Icmpv4DstUnreachable};

use super::dhcp;
use super::frame::{self, ETHERNET_HEADER_BYTES, Inbound, Sender};
use super::options::{
    BoundPort, FORWARDS_MAX, Forward, GATEWAY, GATEWAY_MAC, MTU_MAX, MTU_MIN, NAME_SERVER,
    NetError, Transport, UserOptions,
};
use super::policy::{Policy, is_node};
use super::reactor::{Reactor, Ready, Token};
use super::service::{SERVICES_MAX, Service};
use super::stack::Stack;
use super::tcp::{TcpKey, TcpTable};
use super::udp::UdpTable;
use super::{NetBackend, Offloads, Outgoing};

/// How many connections are taken from one forwarded port before others have their turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Longest IPv4 packet, in bytes.
const PACKET_BYTES_MAX: usize = 65_535;

/// What a user network has seen, and what is open in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserCounters {
    /// Frames of the guest.
    pub frames_in: u64,
    /// Frames that the guest has taken.
    pub frames_out: u64,
    /// Frames of the guest that were cut short, wrongly addressed or otherwise wrong.
    pub malformed: u64,
    /// Frames of the guest that carry what is not supported: IPv6 and IPv4 fragments.
    pub unsupported: u64,
    /// Flows that were refused, by the rules or for want of room.
    pub refused: u64,
    /// Frames that were dropped because the guest does not read.
    pub dropped: u64,
    /// TCP connections that are open now.
    pub tcp_flows: usize,
    /// UDP flows that are open now.
    pub udp_flows: usize,
}

/// A forwarded TCP port.
#[derive(Debug)]
struct TcpForward {
    listener: TcpListener,
    guest_port: u16,
}

/// A network that an ordinary program can make: the guest's connections end here and go on as
/// sockets of the host.
///
/// Nothing in it blocks and it has no thread: whoever owns it hands it the guest's frames, calls
/// [`NetBackend::service`] after each batch and whenever [`NetBackend::readiness`] is readable,
/// and takes the frames that it has for the guest.
pub struct UserNetwork {
    stack: Stack,
    tcp: TcpTable,
    udp: UdpTable,
    forwards: BTreeMap<u64, TcpForward>,
    resolvers: Vec<SocketAddr>,
    mac: EthernetAddress,
    mtu: u16,
    /// The guest sends segments as long as a packet can be.
    large_sends: bool,
    /// The guest has sent a frame since it started: connections to it can be tried.
    guest_seen: bool,
    ready: Vec<Ready>,
    counters: UserCounters,
}

fn check_services(services: &[Service]) -> Result<(), NetError> {
    let ports: BTreeSet<u16> = services.iter().map(|service| service.port).collect();
    let apart = ports.len() == services.len() && !ports.contains(&0);
    if apart && services.len() <= SERVICES_MAX {
        return Ok(());
    }
    Err(NetError::BadServices)
}

impl std::fmt::Debug for UserNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserNetwork")
            .field("mac", &self.mac)
            .field("mtu", &self.mtu)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl UserNetwork {
    /// Makes a network and binds its forwarded ports on 127.0.0.1; they are returned in the order
    /// of `options.forwards`.
    ///
    /// # Errors
    /// A forward that is not valid or whose port is taken, an MTU or hardware address out of
    /// range, or the host's refusal to give a descriptor.
    pub fn bind(options: UserOptions) -> Result<(Self, Vec<BoundPort>), NetError> {
        if !(MTU_MIN..=MTU_MAX).contains(&options.mtu) {
            return Err(NetError::BadMtu { mtu: options.mtu });
        }
        let mac = EthernetAddress(options.mac);
        if !mac.is_unicast() || options.mac == GATEWAY_MAC {
            return Err(NetError::BadMac { mac: options.mac });
        }
        if !is_node(options.address) {
            return Err(NetError::BadAddress(options.address));
        }
        check_services(&options.services)?;
        let reactor = Reactor::new().map_err(|source| NetError::Host {
            what: "make an event queue",
            source,
        })?;
        let sender = Sender {
            from: EthernetAddress(GATEWAY_MAC),
            to: mac,
            mtu: usize::from(options.mtu),
        };
        let mut network = Self {
            stack: Stack::new(sender, reactor, Policy::new(&options)),
            tcp: TcpTable::default(),
            udp: UdpTable::new(),
            forwards: BTreeMap::new(),
            // Names are a way out, too.
            resolvers: match options.restricted {
                true => Vec::new(),
                false => options.resolvers,
            },
            mac,
            mtu: options.mtu,
            large_sends: false,
            guest_seen: false,
            ready: Vec::new(),
            counters: UserCounters::default(),
        };
        let bound = network.bind_forwards(&options.forwards)?;
        Ok((network, bound))
    }

    /// What the network has seen so far.
    #[must_use]
    pub fn counters(&self) -> UserCounters {
        UserCounters {
            refused: self.stack.refused,
            dropped: self.stack.out.dropped,
            tcp_flows: self.tcp.len(),
            udp_flows: self.udp.len(),
            ..self.counters
        }
    }

    /// How many timers run.
    #[cfg(test)]
    pub(super) fn timers(&self) -> usize {
        self.stack.reactor.timers()
    }

    fn bind_forwards(&mut self, forwards: &[Forward]) -> Result<Vec<BoundPort>, NetError> {
        let count = forwards.iter().map(|one| usize::from(one.count)).sum();
        if count > FORWARDS_MAX {
            return Err(NetError::TooManyForwards { count });
        }
        let mut bound = Vec::new();
        for forward in forwards {
            for (host_port, guest_port) in pairs(forward)? {
                let host_port = match forward.transport {
                    Transport::Tcp => self.bind_tcp(host_port, guest_port),
                    Transport::Udp => self.bind_udp(host_port, guest_port),
                }
                .map_err(|source| bind_error(forward.transport, host_port, source))?;
                bound.push(BoundPort {
                    transport: forward.transport,
                    host_port,
                    guest_port,
                });
            }
        }
        Ok(bound)
    }

    fn bind_tcp(&mut self, host_port: u16, guest_port: u16) -> io::Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, host_port))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let number = u64::try_from(self.forwards.len()).map_err(io::Error::other)?;
        self.stack
            .reactor
            .watch(&listener, Token::TcpForward(number))?;
        self.forwards.insert(
            number,
            TcpForward {
                listener,
                guest_port,
            },
        );
        Ok(port)
    }

    fn bind_udp(&mut self, host_port: u16, guest_port: u16) -> io::Result<u16> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, host_port))?;
        let port = socket.local_addr()?.port();
        self.udp.forward(&self.stack, socket, guest_port)?;
        Ok(port)
    }

    /// Whether a frame is one that the guest may send to us. Learns its hardware address.
    fn admit(&mut self, frame: &[u8]) -> bool {
        let Some((from, to)) = frame::addresses(frame) else {
            return false;
        };
        let packet_bytes_max = if self.large_sends {
            PACKET_BYTES_MAX
        } else {
            usize::from(self.mtu)
        };
        if !from.is_unicast() || frame.len() > ETHERNET_HEADER_BYTES + packet_bytes_max {
            return false;
        }
        self.stack.sender.to = from;
        if !std::mem::replace(&mut self.guest_seen, true) {
            self.ready
                .extend(self.forwards.keys().copied().map(may_accept));
        }
        to == self.stack.sender.from || to.is_broadcast() || to.is_multicast()
    }

    fn arp(&mut self, frame: &[u8], request: bool, target: Ipv4Addr) {
        // The link answers for every address; we stand for two.
        if request && target != GATEWAY && target != NAME_SERVER {
            return;
        }
        let none = &mut smoltcp::iface::SocketSet::new(Vec::new());
        self.stack.ingress(frame, none);
        if !request {
            self.tcp.queue_all();
        }
    }

    fn udp(&mut self, guest: SocketAddrV4, remote: SocketAddrV4, payload: &[u8], packet: &[u8]) {
        let dhcp = (guest.port(), remote.port()) == (dhcp::CLIENT_PORT, dhcp::SERVER_PORT);
        if dhcp && (remote.ip().is_broadcast() || *remote.ip() == GATEWAY) {
            self.dhcp(payload);
        } else if is_node(*guest.ip()) {
            self.udp.datagram(
                &mut self.stack,
                guest,
                remote,
                (payload, packet),
                &self.resolvers,
            );
        } else {
            self.counters.malformed += 1;
        }
    }

    fn dhcp(&mut self, message: &[u8]) {
        let Some(answer) = dhcp::answer(message, self.stack.policy.guest, self.mtu) else {
            return;
        };
        let sender = self.stack.sender;
        sender.udp(
            &mut self.stack.out,
            SocketAddrV4::new(GATEWAY, dhcp::SERVER_PORT),
            SocketAddrV4::new(Ipv4Addr::BROADCAST, dhcp::CLIENT_PORT),
            0,
            &answer,
        );
    }

    /// Answers for the gateway and the name server; nobody else can be pinged.
    fn echo(&mut self, (guest, remote): (Ipv4Addr, Ipv4Addr), ids: (u16, u16), data: &[u8]) {
        if is_node(guest) {
            let sender = self.stack.sender;
            sender.echo_reply(&mut self.stack.out, remote, guest, ids, data);
        }
    }

    fn prohibit(&mut self, remote: Ipv4Addr, packet: &[u8], reason: Icmpv4DstUnreachable) {
        self.stack.refused += 1;
        if !remote.is_multicast() && !remote.is_broadcast() {
            let sender = self.stack.sender;
            sender.unreachable(&mut self.stack.out, reason, packet);
        }
    }

    fn accept(&mut self, number: u64) {
        // Until the guest shows itself, whoever connects waits with the kernel.
        let Some(forward) = self.forwards.get(&number).filter(|_| self.guest_seen) else {
            return;
        };
        for _ in 0..ACCEPTS_PER_TURN {
            match forward.listener.accept() {
                Ok((host, _)) => self.tcp.accepted(&mut self.stack, host, forward.guest_port),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The peer has gone again, or we are out of descriptors.
                Err(_) => self.stack.refused += 1,
            }
        }
        // More may wait, and this edge is used up: the next service takes them.
        self.ready.push(may_accept(number));
    }

    fn handle(&mut self, ready: Ready) {
        match ready.token {
            Token::Clock => {}
            Token::Tcp(number) => self.tcp.ready(&mut self.stack, number, ready),
            Token::Udp(_) | Token::UdpForward(_) => self.udp.ready(ready),
            Token::TcpForward(number) => self.accept(number),
        }
    }

    fn run_timers(&mut self) {
        while let Some(token) = self.stack.reactor.pop_due(self.stack.now) {
            match token {
                Token::Tcp(number) => self.tcp.timer(number),
                Token::Udp(number) => self.udp.timer(&mut self.stack, number),
                Token::Clock | Token::TcpForward(_) | Token::UdpForward(_) => {}
            }
        }
    }
}

impl NetBackend for UserNetwork {
    fn mac(&self) -> [u8; 6] {
        self.mac.0
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn transmit(&mut self, frame: &[u8]) {
        self.counters.frames_in += 1;
        self.stack.now = self.stack.reactor.now();
        if !self.admit(frame) {
            self.counters.malformed += 1;
            return;
        }
        match frame::parse(frame, &self.stack.checksums) {
            Inbound::Arp { request, target } => self.arp(frame, request, target),
            Inbound::Tcp {
                guest,
                remote,
                opens,
                resets,
            } if is_node(*guest.ip()) && !remote.ip().is_unspecified() => {
                let key = TcpKey { guest, remote };
                let flags = (opens, resets);
                self.tcp
                    .segment(&mut self.stack, frame, key, flags, &self.resolvers);
            }
            Inbound::Udp {
                guest,
                remote,
                payload,
                packet,
            } => self.udp(guest, remote, payload, packet),
            Inbound::Echo {
                guest,
                remote,
                ident,
                seq_no,
                data,
                ..
            } if remote == GATEWAY || remote == NAME_SERVER => {
                self.echo((guest, remote), (ident, seq_no), data);
            }
            Inbound::Echo { remote, packet, .. } => {
                self.prohibit(remote, packet, Icmpv4DstUnreachable::HostProhibited);
            }
            Inbound::OtherProtocol { remote, packet } => {
                self.prohibit(remote, packet, Icmpv4DstUnreachable::ProtoUnreachable);
            }
            Inbound::Ipv6 | Inbound::Fragment => self.counters.unsupported += 1,
            Inbound::Ignored => {}
            Inbound::Tcp { .. } | Inbound::Malformed => self.counters.malformed += 1,
        }
    }

    fn service(&mut self) {
        self.stack.now = self.stack.reactor.now();
        let mut ready = std::mem::take(&mut self.ready);
        self.stack.reactor.collect(&mut ready);
        for one in ready.drain(..) {
            self.handle(one);
        }
        // `accept` may have left a note meanwhile.
        ready.append(&mut self.ready);
        self.ready = ready;
        self.run_timers();
        self.tcp.work(&mut self.stack);
        self.udp.work(&mut self.stack, &self.resolvers);
        self.stack.reactor.arm();
    }

    fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || (self.stack.out.has_room() && (self.tcp.has_work() || self.udp.has_work()))
    }

    fn frame(&self) -> Option<Outgoing<'_>> {
        self.stack.out.front()
    }

    fn pop_frame(&mut self) {
        self.counters.frames_out += u64::from(self.stack.out.front().is_some());
        self.stack.out.pop();
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.stack.reactor.readiness()
    }

    fn reset(&mut self, offloads: Offloads) {
        self.tcp.clear(&mut self.stack);
        self.udp.clear(&mut self.stack);
        self.stack.reset(offloads);
        self.stack.sender.to = self.mac;
        self.large_sends = offloads.guest_sends_large_segments;
        self.guest_seen = false;
    }
}

/// A note that connections may wait at a forwarded port.
fn may_accept(number: u64) -> Ready {
    Ready {
        token: Token::TcpForward(number),
        readable: true,
        writable: false,
        failed: false,
    }
}

/// The ports of a forward, host's and guest's.
fn pairs(forward: &Forward) -> Result<Vec<(u16, u16)>, NetError> {
    let bad = || NetError::BadForward {
        transport: forward.transport,
        host_port: forward.host_port,
        guest_port: forward.guest_port,
        count: forward.count,
    };
    if forward.count == 0 || forward.guest_port == 0 {
        return Err(bad());
    }
    (0..forward.count)
        .map(|offset| {
            let guest = forward.guest_port.checked_add(offset).ok_or_else(bad)?;
            let host = match forward.host_port {
                0 => 0,
                first => first.checked_add(offset).ok_or_else(bad)?,
            };
            Ok((host, guest))
        })
        .collect()
}

fn bind_error(transport: Transport, port: u16, source: io::Error) -> NetError {
    match source.kind() {
        ErrorKind::AddrInUse => NetError::PortInUse { transport, port },
        ErrorKind::PermissionDenied => NetError::PortReserved { transport, port },
        _ => NetError::Host {
            what: "bind a forwarded port",
            source,
        },
    }
}
