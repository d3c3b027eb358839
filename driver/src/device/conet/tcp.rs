//! TCP: `smoltcp` ends the guest's connection, a socket of the host goes on from there.
//!
//! Every flow has a socket set of its own, so a packet costs the same however many flows there
//! are. A guest's SYN is kept until the host has connected; only then is it answered, so the guest
//! sees a refusal as a refusal.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};

use super::host_socket::HostSocket;
use super::options::{GATEWAY, TCP_BUFFER_BYTES, TCP_FLOWS_MAX};
use super::policy::Verdict;
use super::reactor::{Micros, Ready, Token};
use super::service::Service;
use super::stack::Stack;

/// How long the guest may stay silent while a connection opens or closes.
const SILENCE_SECONDS_MAX: u64 = 60;
/// First port of the gateway that stands for a connection from the host.
const FORWARD_PORT_FIRST: u16 = 49_152;

/// Both ends of a connection as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TcpKey {
    /// The guest's end.
    pub(super) guest: SocketAddrV4,
    /// The far end.
    pub(super) remote: SocketAddrV4,
}

/// How far a flow has come.
#[derive(Debug)]
enum Stage {
    /// The host connects; the guest's SYN waits, and further addresses to try.
    Connecting {
        syn: Vec<u8>,
        next: VecDeque<SocketAddr>,
    },
    /// Bytes flow, or will.
    Open { handle: SocketHandle },
}

/// What a step of a flow came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It waits for the guest, the host or the time.
    Waits,
    /// It has more for the guest than there is room for.
    Stalled,
    /// It is over.
    Done,
}

#[derive(Debug)]
struct TcpFlow {
    key: TcpKey,
    stage: Stage,
    sockets: SocketSet<'static>,
    host: HostSocket,
    readable: bool,
    writable: bool,
    /// The host has sent its last byte.
    host_finished: bool,
    /// The guest has sent its last byte, and the host knows.
    guest_finished: bool,
    /// The host's socket has failed.
    failed: bool,
    /// In the list of flows with work to do.
    queued: bool,
    timer: Option<Micros>,
}

/// All TCP flows of a network.
#[derive(Debug, Default)]
pub(super) struct TcpTable {
    flows: HashMap<u64, TcpFlow>,
    numbers: HashMap<TcpKey, u64>,
    work: VecDeque<u64>,
    next_number: u64,
    next_port: u16,
}

impl TcpTable {
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether flows wait for room in the queue to the guest.
    pub(super) fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    /// Takes a segment of the guest.
    pub(super) fn segment(
        &mut self,
        stack: &mut Stack,
        frame: &[u8],
        key: TcpKey,
        (opens, resets): (bool, bool),
        resolvers: &[SocketAddr],
    ) {
        if let Some(&number) = self.numbers.get(&key) {
            let Some(flow) = self.flows.get_mut(&number) else {
                return;
            };
            match flow.stage {
                Stage::Open { .. } => {
                    stack.ingress(frame, &mut flow.sockets);
                    self.queue(number);
                }
                Stage::Connecting { .. } if resets => self.remove(stack, number),
                Stage::Connecting { .. } => {}
            }
            return;
        }
        if !opens {
            return refuse(stack, frame);
        }
        let targets = match stack.policy.judge_tcp(key.remote) {
            _ if self.flows.len() >= TCP_FLOWS_MAX => VecDeque::new(),
            Verdict::Open(address) => VecDeque::from([address]),
            Verdict::NameServer => resolvers.iter().copied().collect(),
            Verdict::Refused => VecDeque::new(),
            Verdict::Service(service) if self.serve(stack, frame, key, &service) => return,
            Verdict::Service(_) => VecDeque::new(),
            Verdict::Silent => return,
        };
        if !self.connect(stack, frame, key, targets) {
            stack.refused += 1;
            refuse(stack, frame);
        }
    }

    /// Joins the guest to a service of coop. False: the host has no descriptors left.
    fn serve(&mut self, stack: &mut Stack, syn: &[u8], key: TcpKey, service: &Service) -> bool {
        let Ok((ours, theirs)) = HostSocket::service() else {
            return false;
        };
        let stage = Stage::Connecting {
            syn: Vec::new(),
            next: VecDeque::new(),
        };
        let Some(number) = self.insert(stack, TcpFlow::new(key, stage, ours)) else {
            return false;
        };
        (service.accept)(theirs);
        if let Some(flow) = self.flows.get_mut(&number) {
            flow.open(stack, syn);
        }
        self.queue(number);
        true
    }

    /// Begins to connect to the first of `targets` that can be tried. False: none can.
    fn connect(
        &mut self,
        stack: &mut Stack,
        syn: &[u8],
        key: TcpKey,
        mut next: VecDeque<SocketAddr>,
    ) -> bool {
        let Some(host) = connect_first(&mut next) else {
            return false;
        };
        let host = HostSocket::Tcp(host);
        let stage = Stage::Connecting {
            syn: syn.to_vec(),
            next,
        };
        self.insert(stack, TcpFlow::new(key, stage, host)).is_some()
    }

    /// Takes a connection that the host accepted for a port of the guest.
    pub(super) fn accepted(&mut self, stack: &mut Stack, host: TcpStream, guest_port: u16) {
        let guest = SocketAddrV4::new(stack.policy.guest, guest_port);
        let key = (self.flows.len() < TCP_FLOWS_MAX).then(|| self.free_key(guest));
        let unblocked = host.set_nonblocking(true);
        let host = HostSocket::Tcp(host);
        let (Some(Some(key)), Ok(())) = (key, unblocked) else {
            stack.refused += 1;
            host.reset_on_close();
            return;
        };
        let mut socket = new_socket();
        let connected = socket.connect(
            stack.context(),
            (*key.guest.ip(), key.guest.port()),
            (*key.remote.ip(), key.remote.port()),
        );
        if connected.is_err() {
            stack.refused += 1;
            host.reset_on_close();
            return;
        }
        host.prepare();
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        let mut flow = TcpFlow::new(key, Stage::Open { handle }, host);
        flow.sockets = sockets;
        if let Some(number) = self.insert(stack, flow) {
            self.queue(number);
        }
    }

    /// A port of the gateway from which no connection to `guest` comes yet.
    fn free_key(&mut self, guest: SocketAddrV4) -> Option<TcpKey> {
        // There are more ports than flows.
        for _ in 0..=TCP_FLOWS_MAX {
            self.next_port = self.next_port.checked_add(1).unwrap_or(FORWARD_PORT_FIRST);
            self.next_port = self.next_port.max(FORWARD_PORT_FIRST);
            let key = TcpKey {
                guest,
                remote: SocketAddrV4::new(GATEWAY, self.next_port),
            };
            if !self.numbers.contains_key(&key) {
                return Some(key);
            }
        }
        None
    }

    fn insert(&mut self, stack: &mut Stack, flow: TcpFlow) -> Option<u64> {
        let number = self.next_number;
        if stack.reactor.watch(&flow.host, Token::Tcp(number)).is_err() {
            stack.refused += 1;
            return None;
        }
        self.next_number += 1;
        self.numbers.insert(flow.key, number);
        self.flows.insert(number, flow);
        Some(number)
    }

    /// Takes what happened to a flow's socket of the host.
    pub(super) fn ready(&mut self, stack: &mut Stack, number: u64, ready: Ready) {
        let Some(flow) = self.flows.get_mut(&number) else {
            return;
        };
        if matches!(flow.stage, Stage::Connecting { .. }) {
            if ready.writable {
                self.connected(stack, number);
            }
            return;
        }
        flow.readable |= ready.readable;
        flow.writable |= ready.writable;
        flow.failed |= ready.failed && !matches!(flow.host.take_error(), Ok(None));
        self.queue(number);
    }

    /// The host's attempt to connect has come to an end.
    fn connected(&mut self, stack: &mut Stack, number: u64) {
        let Some(flow) = self.flows.get_mut(&number) else {
            return;
        };
        let Stage::Connecting { syn, next } = &mut flow.stage else {
            return;
        };
        match flow.host.take_error() {
            Ok(None) if flow.host.is_connected() => {
                let syn = std::mem::take(syn);
                flow.open(stack, &syn);
                self.queue(number);
            }
            // Woken before the end.
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => match connect_first(next) {
                Some(host) if stack.reactor.watch(&host, Token::Tcp(number)).is_ok() => {
                    flow.host = HostSocket::Tcp(host);
                }
                _ => {
                    let syn = std::mem::take(syn);
                    self.remove(stack, number);
                    refuse(stack, &syn);
                }
            },
        }
    }

    /// Takes a timer of a flow.
    pub(super) fn timer(&mut self, number: u64) {
        if let Some(flow) = self.flows.get_mut(&number) {
            flow.timer = None;
            self.queue(number);
        }
    }

    /// Lets every flow work, for the guest's hardware address has become known.
    pub(super) fn queue_all(&mut self) {
        let mut numbers: Vec<u64> = self.flows.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.queue(number);
        }
    }

    fn queue(&mut self, number: u64) {
        if let Some(flow) = self.flows.get_mut(&number)
            && !flow.queued
        {
            flow.queued = true;
            self.work.push_back(number);
        }
    }

    /// Moves bytes for every flow that has any, until none has or the guest's queue is full.
    pub(super) fn work(&mut self, stack: &mut Stack) {
        while stack.out.has_room()
            && let Some(number) = self.work.pop_front()
        {
            let Some(flow) = self.flows.get_mut(&number) else {
                continue;
            };
            flow.queued = false;
            match flow.step(stack) {
                Step::Waits => flow.schedule(stack, Token::Tcp(number)),
                Step::Stalled => self.queue(number),
                Step::Done => self.remove(stack, number),
            }
        }
    }

    fn remove(&mut self, stack: &mut Stack, number: u64) {
        if let Some(flow) = self.flows.remove(&number) {
            self.numbers.remove(&flow.key);
            stack
                .reactor
                .reschedule(Token::Tcp(number), flow.timer, None);
            let orderly = flow.host_finished && flow.guest_finished;
            if !orderly && matches!(flow.stage, Stage::Open { .. }) {
                flow.host.reset_on_close();
            }
        }
    }

    /// Ends every flow at once, as when the guest starts anew.
    pub(super) fn clear(&mut self, stack: &mut Stack) {
        let numbers: Vec<u64> = self.flows.keys().copied().collect();
        for number in numbers {
            self.remove(stack, number);
        }
        self.work.clear();
    }
}

impl TcpFlow {
    fn new(key: TcpKey, stage: Stage, host: HostSocket) -> Self {
        Self {
            key,
            stage,
            sockets: SocketSet::new(Vec::new()),
            host,
            readable: false,
            writable: false,
            host_finished: false,
            guest_finished: false,
            failed: false,
            queued: false,
            timer: None,
        }
    }

    /// Answers the guest's SYN.
    fn open(&mut self, stack: &mut Stack, syn: &[u8]) {
        let mut socket = new_socket();
        let remote = (*self.key.remote.ip(), self.key.remote.port());
        // Cannot fail: the port is not zero and the socket is new.
        let _ = socket.listen(remote);
        self.host.prepare();
        let handle = self.sockets.add(socket);
        self.stage = Stage::Open { handle };
        self.readable = true;
        self.writable = true;
        stack.ingress(syn, &mut self.sockets);
    }

    /// Moves what can be moved.
    fn step(&mut self, stack: &mut Stack) -> Step {
        let Stage::Open { handle } = self.stage else {
            return Step::Waits;
        };
        loop {
            let moved = self.fill_guest(handle) | self.drain_guest(handle);
            let socket: &mut Socket<'_> = self.sockets.get_mut(handle);
            if self.failed {
                socket.abort();
            }
            socket.set_timeout(timeout(socket.state()));
            loop {
                if !stack.out.has_room() {
                    return Step::Stalled;
                }
                if !stack.egress(&mut self.sockets) {
                    break;
                }
            }
            if self.is_over(handle) {
                return Step::Done;
            }
            if !moved {
                return Step::Waits;
            }
        }
    }

    /// Reads from the host into the guest's window.
    fn fill_guest(&mut self, handle: SocketHandle) -> bool {
        let socket: &mut Socket<'_> = self.sockets.get_mut(handle);
        let mut moved = false;
        while self.readable && !self.host_finished && !self.failed && socket.can_send() {
            let host = &self.host;
            let read = socket.send(|buffer| match host.read(buffer) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok(0)) => {
                    self.host_finished = true;
                    socket.close();
                    moved = true;
                }
                Ok(Ok(_)) => moved = true,
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(_)) | Err(_) => self.failed = true,
            }
        }
        moved
    }

    /// Writes to the host what the guest has sent.
    fn drain_guest(&mut self, handle: SocketHandle) -> bool {
        let socket: &mut Socket<'_> = self.sockets.get_mut(handle);
        let mut moved = false;
        while self.writable && !self.failed && socket.can_recv() {
            let host = &self.host;
            let written = socket.recv(|buffer| match host.write(buffer) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match written {
                Ok(Ok(count)) => moved |= count > 0,
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(_)) => self.failed = true,
                Err(_) => break,
            }
        }
        if !self.guest_finished && socket.peek(0) == Err(RecvError::Finished) {
            self.guest_finished = true;
            self.host.finish();
            moved = true;
        }
        moved
    }

    fn is_over(&self, handle: SocketHandle) -> bool {
        let socket: &Socket<'_> = self.sockets.get(handle);
        match socket.state() {
            // A reset that was due has gone out by now, or cannot; only the host may still be
            // owed some bytes.
            State::Closed => self.failed || !socket.can_recv(),
            // A SYN that was not one after all, or a reset before the connection was open.
            State::Listen => true,
            // Nothing gets lost on this link, so nothing has to be waited for.
            State::TimeWait => self.guest_finished,
            _ => false,
        }
    }

    fn schedule(&mut self, stack: &mut Stack, token: Token) {
        let next = stack.next_turn(&self.sockets);
        stack.reactor.reschedule(token, self.timer, next);
        self.timer = next;
    }
}

/// Refuses a segment: `smoltcp` resets what belongs to no socket.
fn refuse(stack: &mut Stack, frame: &[u8]) {
    stack.ingress(frame, &mut SocketSet::new(Vec::new()));
}

fn new_socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; TCP_BUFFER_BYTES]);
    let mut socket = Socket::new(buffer(), buffer());
    // The host's side has gathered the bytes already, and a batch of segments is acknowledged once.
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket
}

/// How long the guest may be silent in a state.
fn timeout(state: State) -> Option<smoltcp::time::Duration> {
    match state {
        State::SynSent | State::SynReceived | State::FinWait1 | State::Closing | State::LastAck => {
            Some(smoltcp::time::Duration::from_secs(SILENCE_SECONDS_MAX))
        }
        _ => None,
    }
}

/// Begins to connect to the first address that does not fail at once.
fn connect_first(next: &mut VecDeque<SocketAddr>) -> Option<TcpStream> {
    while let Some(address) = next.pop_front() {
        if let Ok(host) = begin_connect(address) {
            return Some(host);
        }
    }
    None
}

fn begin_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = rustix::net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(ipproto::TCP),
    )?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}
