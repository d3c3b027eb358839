//! UDP: every pair of ends has a connected socket of the host, for as long as it is used.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};

use smoltcp::wire::Icmpv4DstUnreachable;

use super::dns;
use super::options::{GATEWAY, NAME_SERVER, UDP_FLOWS_MAX};
use super::policy::Verdict;
use super::reactor::{Micros, Ready, Token};
use super::resolv::DNS_PORT;
use super::stack::Stack;

/// How long a flow lives without a datagram, RFC 4787 4.3.
const IDLE_SECONDS: u64 = 120;
/// How long a flow to a name server lives without a datagram.
const DNS_IDLE_SECONDS: u64 = 20;
/// Longest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// How many datagrams are read from one socket before others have their turn.
const DATAGRAMS_PER_TURN: usize = 64;
/// First port of the gateway that stands for a peer on the host, when its own is taken.
const PEER_PORT_FIRST: u16 = 49_152;

/// Both ends of a flow as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct UdpKey {
    guest: SocketAddrV4,
    remote: SocketAddrV4,
}

/// Where a flow leads on the host's side.
#[derive(Debug)]
enum Way {
    /// A socket that is connected to the far end.
    Connected(UdpSocket),
    /// A name server of the host, and those to try after it.
    NameServer {
        socket: UdpSocket,
        /// Which resolver is next.
        next: usize,
        /// The question that has no answer yet.
        question: Option<Vec<u8>>,
    },
    /// A peer that came through a forwarded port.
    Peer { forward: u64, peer: SocketAddr },
}

#[derive(Debug)]
struct UdpFlow {
    key: UdpKey,
    way: Way,
    queued: bool,
    expires: Micros,
    timer: Option<Micros>,
}

/// A forwarded port.
#[derive(Debug)]
struct UdpForward {
    socket: UdpSocket,
    guest_port: u16,
    queued: bool,
}

/// All UDP flows of a network.
#[derive(Debug)]
pub(super) struct UdpTable {
    flows: HashMap<u64, UdpFlow>,
    numbers: HashMap<UdpKey, u64>,
    peers: HashMap<(u64, SocketAddr), u64>,
    forwards: Vec<UdpForward>,
    work: VecDeque<Token>,
    next_number: u64,
    next_port: u16,
    next_ident: u16,
    buffer: Vec<u8>,
}

impl UdpTable {
    pub(super) fn new() -> Self {
        Self {
            flows: HashMap::new(),
            numbers: HashMap::new(),
            peers: HashMap::new(),
            forwards: Vec::new(),
            work: VecDeque::new(),
            next_number: 0,
            next_port: 0,
            next_ident: 0,
            buffer: vec![0; DATAGRAM_BYTES_MAX],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether sockets wait for room in the queue to the guest.
    pub(super) fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    /// Adds a forwarded port.
    pub(super) fn forward(
        &mut self,
        stack: &Stack,
        socket: UdpSocket,
        guest_port: u16,
    ) -> io::Result<()> {
        let number = u64::try_from(self.forwards.len()).map_err(io::Error::other)?;
        socket.set_nonblocking(true)?;
        stack.reactor.watch(&socket, Token::UdpForward(number))?;
        self.forwards.push(UdpForward {
            socket,
            guest_port,
            queued: false,
        });
        Ok(())
    }

    /// Takes a datagram of the guest. `packet` is the whole IP packet.
    pub(super) fn datagram(
        &mut self,
        stack: &mut Stack,
        guest: SocketAddrV4,
        remote: SocketAddrV4,
        (payload, packet): (&[u8], &[u8]),
        resolvers: &[SocketAddr],
    ) {
        let key = UdpKey { guest, remote };
        if (*remote.ip(), remote.port()) == (NAME_SERVER, DNS_PORT)
            && let Some(answer) = dns::own_answer(payload, &stack.policy.hosts)
        {
            return self.send(stack, key, &answer);
        }
        let number = match self.numbers.get(&key) {
            Some(&number) => number,
            None => match self.open(stack, key, resolvers) {
                Ok(number) => number,
                Err(Refusal::Silent) => return,
                Err(Refusal::NoNameServer) => return self.turn_down(stack, key, payload),
                Err(Refusal::Told) => {
                    stack.refused += 1;
                    let reason = Icmpv4DstUnreachable::PortUnreachable;
                    return stack.sender.unreachable(&mut stack.out, reason, packet);
                }
            },
        };
        let Some(flow) = self.flows.get_mut(&number) else {
            return;
        };
        flow.touch(stack.now);
        match &mut flow.way {
            Way::Connected(socket) => {
                // Like any network, this one may lose datagrams; refusals show on reading.
                if let Err(error) = socket.send(payload)
                    && error.kind() == ErrorKind::ConnectionRefused
                {
                    let reason = Icmpv4DstUnreachable::PortUnreachable;
                    stack.sender.unreachable(&mut stack.out, reason, packet);
                }
            }
            Way::Peer { forward, peer } => {
                let index = usize::try_from(*forward).unwrap_or(usize::MAX);
                if let Some(forward) = self.forwards.get(index) {
                    let _ = forward.socket.send_to(payload, *peer);
                }
            }
            Way::NameServer {
                socket,
                next,
                question,
            } => {
                // A question asked again: the server did not answer, so another one shall.
                let other = resolvers.get(*next).or_else(|| resolvers.first());
                if question.as_deref() == Some(payload)
                    && let Some(&other) = other
                    && let Ok(fresh) = connected(other)
                    && stack.reactor.watch(&fresh, Token::Udp(number)).is_ok()
                {
                    *socket = fresh;
                    *next = if *next < resolvers.len() {
                        *next + 1
                    } else {
                        1
                    };
                }
                let _ = socket.send(payload);
                *question = Some(payload.to_vec());
            }
        }
    }

    fn open(
        &mut self,
        stack: &mut Stack,
        key: UdpKey,
        resolvers: &[SocketAddr],
    ) -> Result<u64, Refusal> {
        let way = match stack.policy.judge(key.remote) {
            Verdict::Open(address) => {
                Way::Connected(connected(address).map_err(|_| Refusal::Told)?)
            }
            Verdict::NameServer => {
                let tried = resolvers
                    .iter()
                    .enumerate()
                    .find_map(|(index, address)| Some((index, connected(*address).ok()?)));
                let (index, socket) = tried.ok_or(Refusal::NoNameServer)?;
                Way::NameServer {
                    socket,
                    next: index + 1,
                    question: None,
                }
            }
            Verdict::Refused | Verdict::Service(_) => return Err(Refusal::Told),
            Verdict::Silent => return Err(Refusal::Silent),
        };
        self.insert(stack, key, way).ok_or(Refusal::Told)
    }

    fn insert(&mut self, stack: &mut Stack, key: UdpKey, way: Way) -> Option<u64> {
        if self.flows.len() >= UDP_FLOWS_MAX {
            self.evict(stack);
        }
        let number = self.next_number;
        match &way {
            Way::Connected(socket) | Way::NameServer { socket, .. } => {
                stack.reactor.watch(socket, Token::Udp(number)).ok()?;
            }
            Way::Peer { forward, peer } => {
                self.peers.insert((*forward, *peer), number);
            }
        }
        self.next_number += 1;
        let mut flow = UdpFlow {
            key,
            way,
            queued: false,
            expires: Micros::default(),
            timer: None,
        };
        flow.touch(stack.now);
        flow.timer = Some(flow.expires);
        stack
            .reactor
            .reschedule(Token::Udp(number), None, flow.timer);
        self.numbers.insert(key, number);
        self.flows.insert(number, flow);
        Some(number)
    }

    /// Ends the flow that was idle longest.
    fn evict(&mut self, stack: &mut Stack) {
        let oldest = self
            .flows
            .iter()
            .map(|(number, flow)| (flow.expires, *number))
            .min();
        if let Some((_, number)) = oldest {
            self.remove(stack, number);
        }
    }

    fn remove(&mut self, stack: &mut Stack, number: u64) {
        if let Some(flow) = self.flows.remove(&number) {
            self.numbers.remove(&flow.key);
            if let Way::Peer { forward, peer } = flow.way {
                self.peers.remove(&(forward, peer));
            }
            stack
                .reactor
                .reschedule(Token::Udp(number), flow.timer, None);
        }
    }

    /// Takes what happened to a socket.
    pub(super) fn ready(&mut self, ready: Ready) {
        if !ready.readable {
            return;
        }
        match ready.token {
            Token::Udp(number) => {
                if let Some(flow) = self.flows.get_mut(&number)
                    && !std::mem::replace(&mut flow.queued, true)
                {
                    self.work.push_back(ready.token);
                }
            }
            Token::UdpForward(number) => {
                let index = usize::try_from(number).unwrap_or(usize::MAX);
                if let Some(forward) = self.forwards.get_mut(index)
                    && !std::mem::replace(&mut forward.queued, true)
                {
                    self.work.push_back(ready.token);
                }
            }
            _ => {}
        }
    }

    /// Takes the timer of a flow: it has expired, or was used meanwhile.
    pub(super) fn timer(&mut self, stack: &mut Stack, number: u64) {
        let Some(flow) = self.flows.get_mut(&number) else {
            return;
        };
        flow.timer = None;
        if flow.expires <= stack.now {
            self.remove(stack, number);
        } else {
            flow.timer = Some(flow.expires);
            stack
                .reactor
                .reschedule(Token::Udp(number), None, flow.timer);
        }
    }

    /// Brings datagrams to the guest until no socket has any or the guest's queue is full.
    pub(super) fn work(&mut self, stack: &mut Stack, resolvers: &[SocketAddr]) {
        while stack.out.has_room()
            && let Some(token) = self.work.pop_front()
        {
            let more = match token {
                Token::Udp(number) => self.read_flow(stack, number, resolvers),
                Token::UdpForward(number) => self.read_forward(stack, number),
                _ => false,
            };
            if more {
                self.work.push_back(token);
            }
        }
    }

    /// Reads from a flow's socket. True: there may be more.
    fn read_flow(&mut self, stack: &mut Stack, number: u64, resolvers: &[SocketAddr]) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let more = self.read_flow_into(stack, number, resolvers, &mut buffer);
        self.buffer = buffer;
        if let Some(flow) = self.flows.get_mut(&number) {
            flow.queued = more;
            return more;
        }
        false
    }

    fn read_flow_into(
        &mut self,
        stack: &mut Stack,
        number: u64,
        resolvers: &[SocketAddr],
        buffer: &mut [u8],
    ) -> bool {
        let mut more = true;
        for _ in 0..DATAGRAMS_PER_TURN {
            if !stack.out.has_room() {
                return true;
            }
            let Some(flow) = self.flows.get_mut(&number) else {
                return false;
            };
            let received = match &flow.way {
                Way::Connected(socket) | Way::NameServer { socket, .. } => socket.recv(buffer),
                Way::Peer { .. } => return false,
            };
            more = received.is_ok();
            match received {
                Ok(count) => {
                    flow.touch(stack.now);
                    let key = flow.key;
                    if let Way::NameServer { question, .. } = &mut flow.way {
                        *question = None;
                    }
                    let payload = buffer.get(..count).unwrap_or_default();
                    self.send(stack, key, payload);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return false;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    self.flow_refused(stack, number, resolvers);
                }
                Err(_) => {}
            }
        }
        more
    }

    /// The far end has no such port: another name server is asked, or the guest is told.
    fn flow_refused(&mut self, stack: &mut Stack, number: u64, resolvers: &[SocketAddr]) {
        let Some(flow) = self.flows.get_mut(&number) else {
            return;
        };
        let key = flow.key;
        match &mut flow.way {
            Way::NameServer {
                socket,
                next,
                question,
            } => {
                let Some(asked) = question.take() else {
                    return;
                };
                while let Some(&address) = resolvers.get(*next) {
                    *next += 1;
                    if let Ok(fresh) = connected(address)
                        && stack.reactor.watch(&fresh, Token::Udp(number)).is_ok()
                        && fresh.send(&asked).is_ok()
                    {
                        *socket = fresh;
                        *question = Some(asked);
                        return;
                    }
                }
                self.turn_down(stack, key, &asked);
            }
            Way::Connected(_) => {
                let empty = stack.sender.datagram_stub(key.guest, key.remote);
                let reason = Icmpv4DstUnreachable::PortUnreachable;
                stack.sender.unreachable(&mut stack.out, reason, &empty);
            }
            Way::Peer { .. } => {}
        }
    }

    /// Reads from a forwarded port. True: there may be more.
    fn read_forward(&mut self, stack: &mut Stack, number: u64) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut more = true;
        for _ in 0..DATAGRAMS_PER_TURN {
            if !stack.out.has_room() {
                break;
            }
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            let Some(forward) = self.forwards.get_mut(index) else {
                more = false;
                break;
            };
            let received = forward.socket.recv_from(&mut buffer);
            more = received.is_ok();
            match received {
                Ok((count, peer)) => {
                    let guest = SocketAddrV4::new(stack.policy.guest, forward.guest_port);
                    let payload = buffer.get(..count).unwrap_or_default();
                    if let Some(key) = self.peer(stack, number, peer, guest) {
                        self.send(stack, key, payload);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    break;
                }
                // Errors that the guest's answers to vanished peers have brought up.
                Err(_) => {}
            }
        }
        self.buffer = buffer;
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(forward) = self.forwards.get_mut(index) {
            forward.queued = more;
        }
        more
    }

    /// The flow of a peer that came through a forwarded port.
    fn peer(
        &mut self,
        stack: &mut Stack,
        forward: u64,
        peer: SocketAddr,
        guest: SocketAddrV4,
    ) -> Option<UdpKey> {
        if let Some(number) = self.peers.get(&(forward, peer)) {
            let flow = self.flows.get_mut(number)?;
            flow.touch(stack.now);
            return Some(flow.key);
        }
        let key = self.free_key(guest, peer.port())?;
        self.insert(stack, key, Way::Peer { forward, peer })?;
        Some(key)
    }

    /// A port of the gateway that stands for a peer: its own, if no other peer has it.
    fn free_key(&mut self, guest: SocketAddrV4, wanted: u16) -> Option<UdpKey> {
        let mut port = wanted;
        // There are more ports than flows.
        for _ in 0..=UDP_FLOWS_MAX {
            let key = UdpKey {
                guest,
                remote: SocketAddrV4::new(GATEWAY, port),
            };
            if port != 0 && !self.numbers.contains_key(&key) {
                return Some(key);
            }
            self.next_port = self.next_port.checked_add(1).unwrap_or(PEER_PORT_FIRST);
            self.next_port = self.next_port.max(PEER_PORT_FIRST);
            port = self.next_port;
        }
        None
    }

    /// Answers a question with "server failure".
    fn turn_down(&mut self, stack: &mut Stack, key: UdpKey, question: &[u8]) {
        if let Some(answer) = dns::server_failure(question) {
            self.send(stack, key, &answer);
        }
    }

    fn send(&mut self, stack: &mut Stack, key: UdpKey, payload: &[u8]) {
        self.next_ident = self.next_ident.wrapping_add(1);
        let sender = stack.sender;
        sender.udp(
            &mut stack.out,
            key.remote,
            key.guest,
            self.next_ident,
            payload,
        );
    }

    /// Ends every flow at once, as when the guest starts anew. Forwarded ports stay.
    pub(super) fn clear(&mut self, stack: &mut Stack) {
        let numbers: Vec<u64> = self.flows.keys().copied().collect();
        for number in numbers {
            self.remove(stack, number);
        }
    }
}

impl UdpFlow {
    fn touch(&mut self, now: Micros) {
        let seconds = match self.way {
            Way::NameServer { .. } => DNS_IDLE_SECONDS,
            Way::Connected(_) | Way::Peer { .. } => IDLE_SECONDS,
        };
        self.expires = now.plus_seconds(seconds);
    }
}

/// Why a flow cannot be opened.
enum Refusal {
    /// The guest gets an ICMP error.
    Told,
    /// The guest gets nothing.
    Silent,
    /// No name server can be asked.
    NoNameServer,
}

/// A socket that is connected to `address`.
fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    Ok(socket)
}
