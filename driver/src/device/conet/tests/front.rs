//! The virtio-net device before a scripted backend, and before the user network.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smoltcp::wire::EthernetFrame;

use super::super::{Conet, GATEWAY, NetBackend, Offloads, Outgoing, UserNetwork};
use super::{GUEST_MAC, LAZY, options};
use crate::transport::Waker;
use crate::transport::mock::{Bench, SHARED_BASE, bench};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const HEADER: usize = 12;

#[derive(Clone, Debug, Default)]
struct Packet {
    bytes: Vec<u8>,
    partial: bool,
    segment: Option<NonZeroU16>,
}

/// What a test and its backend share.
#[derive(Debug, Default)]
struct Script {
    taken: Vec<Vec<u8>>,
    coming: VecDeque<Packet>,
    offloads: Option<Offloads>,
}

#[derive(Debug)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    waiting: VecDeque<Packet>,
    bell: Waker,
}

impl NetBackend for Scripted {
    fn mac(&self) -> [u8; 6] {
        GUEST_MAC
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn transmit(&mut self, frame: &[u8]) {
        self.script.lock().unwrap().taken.push(frame.to_vec());
    }

    fn service(&mut self) {
        self.bell.clear();
        self.waiting.append(&mut self.script.lock().unwrap().coming);
    }

    fn has_work(&self) -> bool {
        false
    }

    fn frame(&self) -> Option<Outgoing<'_>> {
        self.waiting.front().map(|packet| Outgoing {
            bytes: &packet.bytes,
            partial_checksum: packet.partial,
            segment_bytes: packet.segment,
        })
    }

    fn pop_frame(&mut self) {
        self.waiting.pop_front();
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn reset(&mut self, offloads: Offloads) {
        self.script.lock().unwrap().offloads = Some(offloads);
    }
}

/// A device with its script, and the bell that makes the backend look at it.
struct Stage {
    bench: Bench,
    script: Arc<Mutex<Script>>,
    bell: Waker,
}

impl Stage {
    fn new() -> Self {
        let script = Arc::<Mutex<Script>>::default();
        let bell = Waker::new().unwrap();
        let backend = Scripted {
            script: Arc::clone(&script),
            waiting: VecDeque::new(),
            bell: bell.clone(),
        };
        Self {
            bench: bench(Conet::new(backend)),
            script,
            bell,
        }
    }

    fn send_to_guest(&self, packet: Packet) {
        self.script.lock().unwrap().coming.push_back(packet);
        self.bell.wake();
    }

    fn taken(&self) -> Vec<Vec<u8>> {
        self.script.lock().unwrap().taken.clone()
    }

    /// Offers a receive buffer; returns its address.
    fn offer(&mut self, bytes: u32) -> u64 {
        let address = self.bench.guest.allocate(usize::try_from(bytes).unwrap());
        self.bench
            .guest
            .offer_chain(RECEIVE, &[(address, bytes, true)]);
        address
    }

    /// Waits for the next filled receive buffer: how many bytes.
    fn filled(&mut self) -> usize {
        usize::try_from(self.bench.guest.wait(RECEIVE).1).unwrap()
    }
}

fn numbered(length: usize) -> Packet {
    Packet {
        bytes: (0..length).map(super::pattern).collect(),
        ..Packet::default()
    }
}

#[test]
fn the_configuration_tells_address_link_and_mtu() {
    let mut stage = Stage::new();
    let config = stage.bench.guest.config(12);
    assert_eq!(config[..6], GUEST_MAC);
    assert_eq!(config[6..], [1, 0, 1, 0, 0xdc, 5]);
    stage.bench.stop();
    assert_eq!(stage.script.lock().unwrap().offloads, Some(LAZY));
}

#[test]
fn frames_of_the_guest_reach_the_backend_without_header() {
    let mut stage = Stage::new();
    let guest = &mut stage.bench.guest;
    // Linux puts the header before the frame or into a descriptor of its own.
    let (used, _) = guest.call(TRANSMIT, &[&[0; HEADER], b"frame one"], &[]);
    assert_eq!(used, 0);
    guest.call(TRANSMIT, &[&[&[0; HEADER][..], b"frame two"].concat()], &[]);
    guest.call(TRANSMIT, &[&[0; 5], &[0; 7], b"frame", b" three"], &[]);
    assert_eq!(
        stage.taken(),
        [&b"frame one"[..], b"frame two", b"frame three"]
    );
    assert_eq!(stage.bench.stop().malformed, 0);
}

#[test]
fn a_frame_fills_one_buffer_behind_its_header() {
    let mut stage = Stage::new();
    let address = stage.offer(2000);
    stage.send_to_guest(numbered(60));
    assert_eq!(stage.filled(), HEADER + 60);
    let bytes = stage.bench.guest.read(address, HEADER + 60);
    assert_eq!(bytes[..HEADER], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(bytes[HEADER..], numbered(60).bytes);
    assert!(stage.bench.guest.interrupted(RECEIVE));
    stage.bench.stop();
}

#[test]
fn a_long_segment_is_merged_over_buffers() {
    let mut stage = Stage::new();
    let addresses: Vec<u64> = (0..5).map(|_| stage.offer(1500)).collect();
    stage.send_to_guest(Packet {
        partial: true,
        segment: NonZeroU16::new(1460),
        ..numbered(4000)
    });
    stage.send_to_guest(numbered(100));
    let lengths = [1500, 1500, HEADER + 4000 - 3000];
    let mut bytes = Vec::new();
    for (address, length) in addresses.iter().zip(lengths) {
        assert_eq!(stage.filled(), length);
        bytes.extend(stage.bench.guest.read(*address, length));
    }
    // NEEDS_CSUM, TCPV4, hdr_len 54, gso_size 1460, csum_start 34, csum_offset 16, 3 buffers.
    assert_eq!(bytes[..HEADER], [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 3, 0]);
    assert_eq!(bytes[HEADER..], numbered(4000).bytes);
    assert_eq!(stage.filled(), HEADER + 100);
    stage.bench.stop();
}

#[test]
fn frames_wait_for_buffers() {
    let mut stage = Stage::new();
    stage.send_to_guest(numbered(70));
    stage.send_to_guest(numbered(2000));
    let guest = &mut stage.bench.guest;
    assert_eq!(guest.wait_for(RECEIVE, Duration::from_millis(50)), None);
    stage.offer(1000);
    assert_eq!(stage.filled(), HEADER + 70);
    // Two thirds of the second frame's buffers do not start it.
    stage.offer(1000);
    stage.offer(1000);
    let guest = &mut stage.bench.guest;
    assert_eq!(guest.wait_for(RECEIVE, Duration::from_millis(50)), None);
    stage.offer(1000);
    let lengths: Vec<usize> = (0..3).map(|_| stage.filled()).collect();
    assert_eq!(lengths, [1000, 1000, HEADER]);
    stage.bench.stop();
}

#[test]
fn buffers_too_small_for_a_frame_serve_the_next() {
    let mut stage = Stage::new();
    for _ in 0..64 {
        stage.offer(16);
    }
    stage.send_to_guest(numbered(1500));
    stage.send_to_guest(numbered(4));
    assert_eq!(stage.filled(), HEADER + 4);
    assert_eq!(stage.bench.stop().failed, 1);
}

#[test]
fn malformed_chains_are_refused_and_counted() {
    let mut stage = Stage::new();
    let guest = &mut stage.bench.guest;
    let refused = [
        guest.call(TRANSMIT, &[&[0; HEADER]], &[]).0,
        guest.call(TRANSMIT, &[&[0; 3]], &[]).0,
        guest.call(TRANSMIT, &[&[0; HEADER], b"frame"], &[16]).0,
        guest.call(TRANSMIT, &[&vec![0; 70_000]], &[]).0,
        guest.call(TRANSMIT, &[], &[64]).0,
    ];
    assert_eq!(refused, [0; 5]);
    // Receive buffers that are too short, or that the guest wants read.
    let address = guest.allocate(64);
    guest.offer_chain(RECEIVE, &[(address, 11, true)]);
    guest.offer_chain(RECEIVE, &[(address, 32, false), (address, 32, true)]);
    guest.offer_chain(RECEIVE, &[(SHARED_BASE + (1 << 40), 64, true)]);
    stage.offer(100);
    stage.send_to_guest(numbered(50));
    let lengths: Vec<usize> = (0..4).map(|_| stage.filled()).collect();
    assert_eq!(lengths, [0, 0, 0, HEADER + 50]);
    let (used, _) = stage
        .bench
        .guest
        .call(TRANSMIT, &[&[0; HEADER], b"still alive"], &[]);
    assert_eq!(used, 0);
    assert_eq!(stage.taken(), [b"still alive"]);
    assert_eq!(stage.bench.stop().malformed, 8);
}

#[test]
fn many_frames_pass_in_order() {
    let mut stage = Stage::new();
    let count = 1000;
    for index in 0..count {
        let mut packet = numbered(60);
        packet.bytes[..2].copy_from_slice(&u16::to_be_bytes(index));
        stage.send_to_guest(packet);
    }
    for index in 0..count {
        let address = stage.offer(128);
        assert_eq!(stage.filled(), HEADER + 60);
        let bytes = stage.bench.guest.read(address + 12, 2);
        assert_eq!(bytes, u16::to_be_bytes(index));
    }
    stage.bench.stop();
}

#[test]
fn a_ping_travels_through_front_and_user_network() {
    let (network, _) = UserNetwork::bind(options()).unwrap();
    let mut bench = bench(Conet::new(network));
    let address = bench.guest.allocate(2048);
    bench.guest.offer_chain(RECEIVE, &[(address, 2048, true)]);
    let frame = super::small::ping(GATEWAY);
    bench.guest.call(TRANSMIT, &[&[0; HEADER], &frame], &[]);
    let (_, used) = bench.guest.wait(RECEIVE);
    let answer = bench.guest.read(address, usize::try_from(used).unwrap());
    let answer = EthernetFrame::new_checked(&answer[HEADER..]).unwrap();
    assert_eq!(answer.dst_addr().as_bytes(), GUEST_MAC);
    assert_eq!(bench.stop().malformed, 0);
}
