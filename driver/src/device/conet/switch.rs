//! A switch: several guests of one program on one link, each with a user network of its own.
//!
//! Frames for another node's hardware address, and ARP requests for another node's address, go to
//! that node; all else goes to the node's own network. Nodes need not trust each other: a frame
//! passes only with its sender's own addresses, both in the Ethernet header and in what it carries,
//! nothing but ARP and IPv4 passes, and each pair of nodes has a lane of its own with limits, so
//! that a node that floods another one only loses its own frames.
//!
//! What guests leave out on their way to coop (checksums, the cutting of segments) is put back, or
//! left to a receiver that agreed to do it.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, epoll, eventfd};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol,
    Ipv4Packet, TcpPacket, UdpPacket,
};

use super::frame::ETHERNET_HEADER_BYTES;
use super::options::{GATEWAY_MAC, NetError};
use super::policy::is_node;
use super::{NetBackend, Offloads, Outgoing, checksum};

/// How many nodes one switch joins at most.
pub const NODES_MAX: u8 = 32;
/// How many bytes of one node may wait for another.
const LANE_BYTES_MAX: usize = 256 << 10;
/// How many frames of one node may wait for another.
const LANE_FRAMES_MAX: usize = 256;

/// A node's place on the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name, which the name servers of all nodes answer.
    pub name: String,
    /// Its hardware address: unicast, and nobody else's.
    pub mac: [u8; 6],
    /// Its address, inside the user network and nobody else's.
    pub address: Ipv4Addr,
}

/// One node's plug, not yet in its network.
#[derive(Clone, Debug)]
pub struct Seat {
    shared: Arc<Shared>,
    index: usize,
}

impl PartialEq for Seat {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) && self.index == other.index
    }
}

impl Eq for Seat {}

/// What a switch has seen of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwitchCounters {
    /// Frames of the node that went to other nodes.
    pub passed: u64,
    /// Frames of the node that were refused: with others' addresses, or of a kind that does not
    /// pass.
    pub refused: u64,
    /// Frames of the node that were lost because their receiver did not read.
    pub dropped: u64,
}

#[derive(Debug)]
struct Shared {
    nodes: Vec<Node>,
    inboxes: Vec<Inbox>,
}

/// What waits for one node.
#[derive(Debug)]
struct Inbox {
    lanes: Mutex<Lanes>,
    bell: OwnedFd,
}

#[derive(Debug)]
struct Lanes {
    /// One for each sender.
    lanes: Vec<Lane>,
    /// Whose turn it is.
    next: usize,
}

#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<Passing>,
    bytes: usize,
}

/// A frame on its way from one node to another.
#[derive(Debug)]
struct Passing {
    bytes: Vec<u8>,
    /// The sender may have left its checksum out.
    is_lazy: bool,
}

fn lock(lanes: &Mutex<Lanes>) -> MutexGuard<'_, Lanes> {
    lanes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lanes {
    /// Adds a frame. False: its sender has too many waiting here.
    fn push(&mut self, from: usize, frame: Passing) -> bool {
        let Some(lane) = self.lanes.get_mut(from) else {
            return false;
        };
        let bytes = lane.bytes.saturating_add(frame.bytes.len());
        if bytes > LANE_BYTES_MAX || lane.frames.len() >= LANE_FRAMES_MAX {
            return false;
        }
        lane.bytes = bytes;
        lane.frames.push_back(frame);
        true
    }

    /// The next frame: senders take turns.
    fn pop(&mut self) -> Option<Passing> {
        let count = self.lanes.len();
        for offset in 0..count {
            let at = (self.next + offset) % count;
            if let Some(lane) = self.lanes.get_mut(at)
                && let Some(frame) = lane.frames.pop_front()
            {
                lane.bytes -= frame.bytes.len();
                self.next = (at + 1) % count;
                return Some(frame);
            }
        }
        None
    }

    fn clear(&mut self) {
        for lane in &mut self.lanes {
            *lane = Lane::default();
        }
    }
}

/// Makes a switch for these nodes; gives a seat for each, in their order.
///
/// # Errors
/// More than [`NODES_MAX`], addresses that are not nodes' or shared by two, or the host gives no
/// descriptor.
pub fn switch(nodes: Vec<Node>) -> Result<Vec<Seat>, NetError> {
    let count = nodes.len();
    let is_apart = |(index, node): (usize, &Node)| {
        let same = |other: &Node| {
            other.mac == node.mac || other.address == node.address || other.name == node.name
        };
        !nodes.iter().skip(index + 1).any(same)
            && EthernetAddress(node.mac).is_unicast()
            && node.mac != GATEWAY_MAC
            && is_node(node.address)
    };
    if count > usize::from(NODES_MAX) || !nodes.iter().enumerate().all(is_apart) {
        return Err(NetError::BadNodes);
    }
    let inbox = || {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Inbox {
            lanes: Mutex::new(Lanes {
                lanes: std::iter::repeat_with(Lane::default).take(count).collect(),
                next: 0,
            }),
            bell: eventfd(0, flags)?,
        })
    };
    let inboxes: Result<Vec<Inbox>, io::Error> = nodes.iter().map(|_| inbox()).collect();
    let inboxes = inboxes.map_err(|source| NetError::Host {
        what: "make a switch",
        source,
    })?;
    let shared = Arc::new(Shared { nodes, inboxes });
    let seat = |index| Seat {
        shared: Arc::clone(&shared),
        index,
    };
    Ok((0..count).map(seat).collect())
}

impl Seat {
    /// The node whose seat it is.
    #[must_use]
    pub fn node(&self) -> &Node {
        // There is a seat for each node only.
        &self.shared.nodes[self.index]
    }

    /// Every node of the switch, in order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.shared.nodes
    }

    /// Joins the node's own network to the switch.
    ///
    /// # Errors
    /// The host gives no descriptor.
    pub fn join<B: NetBackend>(&self, own: B) -> Result<Switched<B>, NetError> {
        let join = || -> io::Result<OwnedFd> {
            let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let data = epoll::EventData::new_u64(0);
            epoll::add(&both, own.readiness(), data, epoll::EventFlags::IN)?;
            epoll::add(&both, &self.inbox().bell, data, epoll::EventFlags::IN)?;
            Ok(both)
        };
        let readiness = join().map_err(|source| NetError::Host {
            what: "join a switch",
            source,
        })?;
        Ok(Switched {
            seat: self.clone(),
            own,
            readiness,
            offloads: Offloads::default(),
            arrived: None,
            is_neighbours_turn: false,
            counters: SwitchCounters::default(),
        })
    }

    fn inbox(&self) -> &Inbox {
        &self.shared.inboxes[self.index]
    }
}

/// A network with a switch in front of it.
#[derive(Debug)]
pub struct Switched<B> {
    seat: Seat,
    own: B,
    /// Readable when the own network is, or a neighbour has sent something.
    readiness: OwnedFd,
    offloads: Offloads,
    /// The neighbours' frame that the guest gets next.
    arrived: Option<Arrived>,
    /// Neighbours and the own network take turns.
    is_neighbours_turn: bool,
    counters: SwitchCounters,
}

/// A neighbour's frame as this guest takes it.
#[derive(Debug)]
struct Arrived {
    bytes: Vec<u8>,
    partial_checksum: bool,
    segment_bytes: Option<NonZeroU16>,
}

/// Where a frame goes.
enum Course {
    /// To the node's own network.
    Own,
    /// To another node.
    Neighbour(usize),
    /// Nowhere.
    Refused,
}

impl<B: NetBackend> Switched<B> {
    /// What the switch has seen of this node.
    #[must_use]
    pub fn counters(&self) -> SwitchCounters {
        self.counters
    }

    fn course(&self, frame: &[u8]) -> Course {
        let node = self.seat.node();
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
            return Course::Own;
        };
        if ethernet.src_addr().0 != node.mac {
            return Course::Refused;
        }
        let to = ethernet.dst_addr();
        if to.is_broadcast() {
            return match asked_for(&ethernet, node) {
                Some(address) => match self.find(|other| other.address == address) {
                    Some(neighbour) => Course::Neighbour(neighbour),
                    None => Course::Own,
                },
                None => Course::Own,
            };
        }
        match self.find(|other| other.mac == to.0) {
            Some(neighbour) if may_pass(&ethernet, node) => Course::Neighbour(neighbour),
            Some(_) => Course::Refused,
            None => Course::Own,
        }
    }

    /// Another node.
    fn find(&self, is_it: impl Fn(&Node) -> bool) -> Option<usize> {
        let found = self.seat.nodes().iter().position(is_it)?;
        (found != self.seat.index).then_some(found)
    }

    fn pass(&mut self, to: usize, frame: &[u8]) {
        let Some(inbox) = self.seat.shared.inboxes.get(to) else {
            return;
        };
        let passing = Passing {
            bytes: trimmed(frame).to_vec(),
            is_lazy: self.offloads.guest_omits_checksums,
        };
        if !lock(&inbox.lanes).push(self.seat.index, passing) {
            self.counters.dropped += 1;
            return;
        }
        self.counters.passed += 1;
        // A bell that is full has been rung.
        let _ = rustix::io::write(&inbox.bell, &1_u64.to_ne_bytes());
    }

    /// Longest frame that the guest may send to a neighbour.
    fn frame_bytes_max(&self) -> usize {
        let packet = match self.offloads.guest_sends_large_segments {
            true => usize::from(u16::MAX),
            false => usize::from(self.own.mtu()),
        };
        ETHERNET_HEADER_BYTES + packet
    }

    /// Takes the neighbours' next frame that this guest can have.
    fn refill(&mut self) {
        while self.arrived.is_none() {
            let Some(passing) = lock(&self.seat.inbox().lanes).pop() else {
                return;
            };
            self.arrived = arrive(passing, self.offloads, usize::from(self.own.mtu()));
            if self.arrived.is_none() {
                self.counters.dropped += 1;
            }
        }
    }

    fn gives_neighbours(&self) -> bool {
        self.arrived.is_some() && (self.is_neighbours_turn || self.own.frame().is_none())
    }
}

/// For whom a broadcast ARP request of a node asks. `None`: it is none, or not with the node's own
/// addresses.
fn asked_for(ethernet: &EthernetFrame<&[u8]>, node: &Node) -> Option<Ipv4Addr> {
    match arp(ethernet)? {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } if source_hardware_addr.0 == node.mac && source_protocol_addr == node.address => {
            Some(target_protocol_addr)
        }
        _ => None,
    }
}

fn arp(ethernet: &EthernetFrame<&[u8]>) -> Option<ArpRepr> {
    if ethernet.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
    ArpRepr::parse(&packet).ok()
}

/// Whether a node may send this to another: ARP and IPv4 that say of their sender what is true.
fn may_pass(ethernet: &EthernetFrame<&[u8]>, node: &Node) -> bool {
    match ethernet.ethertype() {
        EthernetProtocol::Arp => matches!(
            arp(ethernet),
            Some(ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, .. })
                if source_hardware_addr.0 == node.mac && source_protocol_addr == node.address
        ),
        EthernetProtocol::Ipv4 => Ipv4Packet::new_checked(ethernet.payload())
            .is_ok_and(|packet| packet.src_addr() == node.address),
        _ => false,
    }
}

/// A frame without what is behind its IPv4 packet. What a receiver is told of a long frame (that it
/// is several, and where their checksums end) is true of the packet alone.
fn trimmed(frame: &[u8]) -> &[u8] {
    let ethernet = EthernetFrame::new_checked(frame).ok();
    let ethernet = ethernet.filter(|frame| frame.ethertype() == EthernetProtocol::Ipv4);
    let packet = ethernet.and_then(|frame| Ipv4Packet::new_checked(frame.payload()).ok());
    let length = packet.map(|packet| ETHERNET_HEADER_BYTES + usize::from(packet.total_len()));
    length.map_or(frame, |length| frame.get(..length).unwrap_or(frame))
}

/// Puts back what the sender left out, or leaves it to a receiver that agreed to that. `None`: the
/// receiver cannot have it.
fn arrive(passing: Passing, offloads: Offloads, mtu: usize) -> Option<Arrived> {
    let Passing { mut bytes, is_lazy } = passing;
    let mut arrived = Arrived {
        bytes: Vec::new(),
        partial_checksum: false,
        segment_bytes: None,
    };
    let is_large = bytes.len() > ETHERNET_HEADER_BYTES + mtu;
    if is_lazy && finish(&mut bytes) == Some(IpProtocol::Tcp) {
        let may_begin = offloads.guest_completes_checksums;
        arrived.partial_checksum = may_begin && checksum::begin(&mut bytes);
    }
    if is_large {
        let may_have = offloads.guest_takes_large_segments && arrived.partial_checksum;
        arrived.segment_bytes = segment_bytes(&bytes, mtu).filter(|_| may_have);
        arrived.segment_bytes?;
    }
    arrived.bytes = bytes;
    Some(arrived)
}

/// Computes the checksum of a whole TCP segment or UDP datagram. `None`: it is another packet, or
/// part of one, and was left alone.
fn finish(frame: &mut [u8]) -> Option<IpProtocol> {
    let packet = frame.get_mut(ETHERNET_HEADER_BYTES..)?;
    let mut packet = Ipv4Packet::new_checked(packet).ok()?;
    if packet.more_frags() || packet.frag_offset() != 0 {
        return None;
    }
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    let protocol = packet.next_header();
    let payload = packet.payload_mut();
    match protocol {
        IpProtocol::Tcp => {
            TcpPacket::new_checked(payload)
                .ok()?
                .fill_checksum(&from, &to);
        }
        IpProtocol::Udp => {
            let mut datagram = UdpPacket::new_checked(payload).ok()?;
            // A checksum of zero means that there is none.
            if datagram.checksum() != 0 {
                datagram.fill_checksum(&from, &to);
            }
        }
        _ => return None,
    }
    Some(protocol)
}

/// The payload of the segments that a long one stands for.
fn segment_bytes(frame: &[u8], mtu: usize) -> Option<NonZeroU16> {
    let packet = Ipv4Packet::new_checked(frame.get(ETHERNET_HEADER_BYTES..)?).ok()?;
    let segment = TcpPacket::new_checked(packet.payload()).ok()?;
    let headers = usize::from(packet.header_len()) + usize::from(segment.header_len());
    let bytes = u16::try_from(mtu.checked_sub(headers)?).ok()?;
    NonZeroU16::new(bytes)
}

impl<B: NetBackend> NetBackend for Switched<B> {
    fn mac(&self) -> [u8; 6] {
        self.own.mac()
    }

    fn mtu(&self) -> u16 {
        self.own.mtu()
    }

    fn transmit(&mut self, frame: &[u8]) {
        match self.course(frame) {
            Course::Own => self.own.transmit(frame),
            Course::Neighbour(_) if frame.len() > self.frame_bytes_max() => {
                self.counters.refused += 1;
            }
            Course::Neighbour(to) => self.pass(to, frame),
            Course::Refused => self.counters.refused += 1,
        }
    }

    fn service(&mut self) {
        // Whoever rings after this has its frame taken by the next call.
        let _ = rustix::io::read(&self.seat.inbox().bell, &mut [0; 8]);
        self.refill();
        self.own.service();
    }

    fn has_work(&self) -> bool {
        self.own.has_work()
    }

    fn frame(&self) -> Option<Outgoing<'_>> {
        match &self.arrived {
            Some(arrived) if self.gives_neighbours() => Some(Outgoing {
                bytes: &arrived.bytes,
                partial_checksum: arrived.partial_checksum,
                segment_bytes: arrived.segment_bytes,
            }),
            _ => self.own.frame(),
        }
    }

    fn pop_frame(&mut self) {
        if self.gives_neighbours() {
            self.arrived = None;
            self.is_neighbours_turn = false;
            self.refill();
        } else {
            self.own.pop_frame();
            self.is_neighbours_turn = true;
        }
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.readiness.as_fd()
    }

    fn reset(&mut self, offloads: Offloads) {
        // What came before was for another life of this guest.
        lock(&self.seat.inbox().lanes).clear();
        self.arrived = None;
        self.offloads = offloads;
        self.own.reset(offloads);
    }
}
