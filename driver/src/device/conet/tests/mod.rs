//! A guest in memory: a second `smoltcp` on the other end of the link.

mod front;
mod hostile;
mod small;
mod switch;
mod tcp;
mod udp;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp as guest_tcp, udp as guest_udp};
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::{
    BoundPort, Forward, GATEWAY, GATEWAY_MAC, GUEST, NetBackend, Offloads, PREFIX_BITS, Transport,
    UserNetwork, UserOptions,
};

/// How long anything may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const GUEST_BUFFER_BYTES: usize = 256 * 1024;

/// The guest's end of the link.
pub(super) struct Port {
    pub(super) incoming: VecDeque<Vec<u8>>,
    pub(super) outgoing: VecDeque<Vec<u8>>,
    mtu: usize,
    /// Checksums and segments are left out.
    lazy: bool,
}

impl Device for Port {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Incoming(frame), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        (self.outgoing.len() < 64).then_some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        if self.lazy {
            capabilities.checksum.tcp = Checksum::None;
            capabilities.checksum.udp = Checksum::None;
            capabilities.segmentation.tcpv4 = std::num::NonZeroUsize::new(65_535);
        }
        capabilities
    }
}

pub(super) struct Incoming(Vec<u8>);
pub(super) struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame = vec![0; len];
        let result = fill(&mut frame);
        self.0.push_back(frame);
        result
    }
}

/// A guest and its network.
pub(super) struct Bench {
    pub(super) net: UserNetwork,
    pub(super) bound: Vec<BoundPort>,
    pub(super) port: Port,
    iface: Interface,
    pub(super) sockets: SocketSet<'static>,
    start: Instant,
    next_port: u16,
    /// How many frames the guest takes in one step.
    pub(super) appetite: usize,
}

/// All work that can be left out.
pub(super) const LAZY: Offloads = Offloads {
    guest_omits_checksums: true,
    guest_completes_checksums: true,
    guest_sends_large_segments: true,
    guest_takes_large_segments: true,
};

pub(super) fn options() -> UserOptions {
    UserOptions::new(GUEST_MAC)
}

pub(super) fn allowed() -> UserOptions {
    UserOptions {
        allow_host: true,
        ..options()
    }
}

pub(super) fn forward(transport: Transport, guest_port: u16) -> Forward {
    Forward {
        transport,
        host_port: 0,
        guest_port,
        count: 1,
    }
}

impl Bench {
    pub(super) fn new(options: UserOptions) -> Self {
        Self::with(options, Offloads::default())
    }

    /// A guest that leaves out what can be left out.
    pub(super) fn lazy(options: UserOptions) -> Self {
        Self::with(options, LAZY)
    }

    fn with(options: UserOptions, offloads: Offloads) -> Self {
        let mtu = usize::from(options.mtu);
        let (mut net, bound) = UserNetwork::bind(options).unwrap();
        net.reset(offloads);
        let mut port = Port {
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            mtu,
            lazy: offloads == LAZY,
        };
        let config = Config::new(EthernetAddress(GUEST_MAC).into());
        let mut iface = Interface::new(config, &mut port, smoltcp::time::Instant::ZERO);
        iface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(GUEST.into(), PREFIX_BITS))
                .unwrap();
        });
        iface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        Self {
            net,
            bound,
            port,
            iface,
            sockets: SocketSet::new(Vec::new()),
            start: Instant::now(),
            next_port: 20_000,
            appetite: usize::MAX,
        }
    }

    fn now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros(
            i64::try_from(self.start.elapsed().as_micros()).unwrap(),
        )
    }

    /// Lets guest and network work once. True: something moved.
    pub(super) fn step(&mut self) -> bool {
        let now = self.now();
        self.iface.poll(now, &mut self.port, &mut self.sockets);
        let mut moved = !self.port.outgoing.is_empty();
        for frame in self.port.outgoing.drain(..) {
            self.net.transmit(&frame);
        }
        let mut taken = 0;
        loop {
            self.net.service();
            while taken < self.appetite
                && let Some(frame) = self.net.frame()
            {
                self.port.incoming.push_back(frame.bytes.to_vec());
                self.net.pop_frame();
                taken += 1;
            }
            if taken >= self.appetite || !self.net.has_work() {
                break;
            }
        }
        moved |= taken > 0;
        moved
    }

    /// Works until `done`, or panics.
    pub(super) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "{what}: {:?}", self.net);
            if !self.step() {
                self.rest(Duration::from_millis(2));
            }
        }
    }

    /// Works for a while.
    pub(super) fn linger(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            if !self.step() {
                self.rest(Duration::from_millis(2));
            }
        }
    }

    /// Sleeps until the network has something to do. True: it has.
    pub(super) fn rest(&self, time: Duration) -> bool {
        let readiness = self.net.readiness();
        let mut fds = [PollFd::from_borrowed_fd(readiness, PollFlags::IN)];
        let time = Timespec::try_from(time).unwrap();
        poll(&mut fds, Some(&time)).unwrap() > 0
    }

    pub(super) fn tcp(&mut self, handle: SocketHandle) -> &mut guest_tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(super) fn udp(&mut self, handle: SocketHandle) -> &mut guest_udp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn new_tcp() -> guest_tcp::Socket<'static> {
        let buffer = || guest_tcp::SocketBuffer::new(vec![0; GUEST_BUFFER_BYTES]);
        let mut socket = guest_tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        // Else a socket could be taken away before its last acknowledgement has gone out.
        socket.set_ack_delay(None);
        socket
    }

    /// Begins a connection of the guest.
    pub(super) fn dial(&mut self, address: Ipv4Addr, port: u16) -> SocketHandle {
        let mut socket = Self::new_tcp();
        self.next_port = if self.next_port == u16::MAX {
            20_000
        } else {
            self.next_port + 1
        };
        socket
            .connect(self.iface.context(), (address, port), self.next_port)
            .unwrap();
        self.sockets.add(socket)
    }

    /// Connects the guest to a listener on the host's loopback.
    pub(super) fn connect_host(&mut self, host: SocketAddr) -> SocketHandle {
        let handle = self.dial(GATEWAY, host.port());
        self.until("connect", |bench| bench.tcp(handle).may_send());
        handle
    }

    /// Lets the guest listen.
    pub(super) fn listen(&mut self, port: u16) -> SocketHandle {
        let mut socket = Self::new_tcp();
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    /// A UDP socket of the guest.
    pub(super) fn bind_udp(&mut self, port: u16) -> SocketHandle {
        let buffer = || {
            let slots = vec![guest_udp::PacketMetadata::EMPTY; 64];
            guest_udp::PacketBuffer::new(slots, vec![0; 1 << 20])
        };
        let mut socket = guest_udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn send_udp(&mut self, handle: SocketHandle, to: SocketAddrV4, payload: &[u8]) {
        self.udp(handle)
            .send_slice(payload, (*to.ip(), to.port()))
            .unwrap();
    }

    /// Waits for a datagram and its sender.
    pub(super) fn receive_udp(&mut self, handle: SocketHandle) -> (Vec<u8>, SocketAddrV4) {
        self.until("datagram", |bench| bench.udp(handle).can_recv());
        let (payload, meta) = self.udp(handle).recv().unwrap();
        let payload = payload.to_vec();
        let std::net::IpAddr::V4(from) = std::net::IpAddr::from(meta.endpoint.addr) else {
            panic!("a sender without an IPv4 address");
        };
        (payload, SocketAddrV4::new(from, meta.endpoint.port))
    }

    /// Hands raw bytes to the network and returns its answers.
    pub(super) fn raw(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.net.transmit(frame);
        self.net.service();
        let mut answers = Vec::new();
        while let Some(frame) = self.net.frame() {
            answers.push(frame.bytes.to_vec());
            self.net.pop_frame();
        }
        answers
    }
}

/// An Ethernet frame of the guest for the gateway.
pub(super) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(GATEWAY_MAC);
    frame.extend(GUEST_MAC);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Bytes that differ from their neighbours.
pub(super) fn pattern(at: usize) -> u8 {
    u8::try_from((at / 7 + at / 1021) % 251).unwrap()
}
