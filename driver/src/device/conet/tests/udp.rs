//! UDP both ways, and names.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
    UdpRepr,
};

use super::super::{
    GATEWAY, GUEST, MTU_MAX, NAME_SERVER, NetBackend, Offloads, Transport, UDP_FLOWS_MAX,
    UserOptions,
};
use super::{Bench, PATIENCE, allowed, ethernet, forward, options, pattern};

/// A frame with a datagram of the guest.
pub(super) fn datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: from.port(),
        dst_port: to.port(),
    };
    let header = Ipv4Repr {
        src_addr: *from.ip(),
        dst_addr: *to.ip(),
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; header.buffer_len() + header.payload_len];
    let mut packet = Ipv4Packet::new_unchecked(bytes.as_mut_slice());
    header.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &(*from.ip()).into(),
        &(*to.ip()).into(),
        payload.len(),
        |room| room.copy_from_slice(payload),
        &checksums,
    );
    ethernet(0x0800, &bytes)
}

/// Answers `count` datagrams on loopback.
fn answer(
    count: usize,
    mut make: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        for _ in 0..count {
            let (length, peer) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&make(&buffer[..length]), peer).unwrap();
        }
    });
    (address, thread)
}

fn gateway(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(GATEWAY, port)
}

const DNS: SocketAddrV4 = SocketAddrV4::new(NAME_SERVER, 53);

#[test]
fn datagrams_are_echoed() {
    let mut bench = Bench::new(allowed());
    let (address, thread) = answer(3, <[u8]>::to_vec);
    let handle = bench.bind_udp(4000);
    for payload in [&b"one"[..], b"", b"three"] {
        bench.send_udp(handle, gateway(address.port()), payload);
        let (echoed, from) = bench.receive_udp(handle);
        assert_eq!(echoed, payload);
        assert_eq!(from, gateway(address.port()));
    }
    assert_eq!(bench.net.counters().udp_flows, 1);
    thread.join().unwrap();
}

#[test]
fn large_datagrams_cross_a_large_link() {
    let mut bench = Bench::new(UserOptions {
        mtu: MTU_MAX,
        ..allowed()
    });
    let (address, thread) = answer(1, <[u8]>::to_vec);
    let handle = bench.bind_udp(4000);
    let payload: Vec<u8> = (0..60_000).map(pattern).collect();
    bench.send_udp(handle, gateway(address.port()), &payload);
    assert_eq!(bench.receive_udp(handle).0, payload);
    thread.join().unwrap();
}

#[test]
fn large_answers_come_in_fragments() {
    let mut bench = Bench::new(allowed());
    let payload: Vec<u8> = (0..5000).map(pattern).collect();
    let sent = payload.clone();
    let (address, thread) = answer(1, move |_| sent.clone());
    let from = SocketAddrV4::new(GUEST, 4000);
    let mut frames = bench.raw(&datagram(from, gateway(address.port()), b"more"));
    thread.join().unwrap();
    while frames.len() < 4 {
        assert!(bench.rest(PATIENCE));
        frames.extend(bench.raw(b""));
    }
    let mut whole = vec![0; 5008];
    for (index, frame) in frames.iter().enumerate() {
        assert!(frame.len() <= 14 + 1500);
        let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!(packet.more_frags(), index < 3);
        let at = usize::from(packet.frag_offset());
        whole[at..at + packet.payload().len()].copy_from_slice(packet.payload());
    }
    let datagram = UdpPacket::new_checked(&whole[..]).unwrap();
    assert!(datagram.verify_checksum(&GATEWAY.into(), &GUEST.into()));
    assert_eq!(datagram.payload(), payload);
}

fn is_told_unreachable(frames: &[Vec<u8>]) -> bool {
    frames.iter().any(|frame| {
        let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        packet.next_header() == IpProtocol::Icmp
            && Icmpv4Packet::new_checked(packet.payload())
                .unwrap()
                .msg_type()
                == Icmpv4Message::DstUnreachable
    })
}

#[test]
fn closed_addresses_are_unreachable() {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut bench = Bench::new(options());
    let from = SocketAddrV4::new(GUEST, 4000);
    let mut addresses = vec![
        GATEWAY,
        NAME_SERVER,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(10, 0, 2, 40),
    ];
    addresses.extend(super::super::route::some_own_address());
    for address in addresses {
        let frame = datagram(from, SocketAddrV4::new(address, port), b"secret");
        assert!(is_told_unreachable(&bench.raw(&frame)), "{address}");
    }
    for group in [Ipv4Addr::new(224, 0, 0, 251), Ipv4Addr::BROADCAST] {
        let frame = datagram(from, SocketAddrV4::new(group, port), b"secret");
        assert!(bench.raw(&frame).is_empty(), "{group}");
    }
    assert_eq!(bench.net.counters().udp_flows, 0);
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 16]).is_err(), "nothing got through");
}

#[test]
fn a_closed_port_of_the_host_is_told() {
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut bench = Bench::new(allowed());
    let from = SocketAddrV4::new(GUEST, 4000);
    let mut answers = bench.raw(&datagram(from, gateway(port), b"anyone?"));
    if answers.is_empty() {
        assert!(bench.rest(PATIENCE));
        answers = bench.raw(b"");
    }
    assert!(is_told_unreachable(&answers));
}

#[test]
fn flows_are_bounded() {
    let (address, _thread) = answer(1, <[u8]>::to_vec);
    let mut bench = Bench::new(allowed());
    for port in 1..=u16::try_from(UDP_FLOWS_MAX + 50).unwrap() {
        let from = SocketAddrV4::new(GUEST, port);
        bench.raw(&datagram(from, gateway(address.port()), b"x"));
    }
    assert_eq!(bench.net.counters().udp_flows, UDP_FLOWS_MAX);
    bench.net.reset(Offloads::default());
    assert_eq!(bench.net.counters().udp_flows, 0);
    assert_eq!(bench.net.timers(), 0);
}

const QUESTION: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01";

#[test]
fn names_are_asked_of_the_hosts_server() {
    let (address, thread) = answer(1, |question| {
        assert_eq!(question, QUESTION);
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        answer
    });
    let mut bench = Bench::new(UserOptions {
        resolvers: vec![address],
        ..options()
    });
    let handle = bench.bind_udp(4000);
    bench.send_udp(handle, DNS, QUESTION);
    let (answer, from) = bench.receive_udp(handle);
    assert_eq!(answer[..4], [0x12, 0x34, 0x81, 0x00]);
    assert_eq!(from, DNS);
    thread.join().unwrap();
}

#[test]
fn a_dead_name_server_gives_way_to_the_next() {
    let dead = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let (address, thread) = answer(1, |_| b"answer".to_vec());
    let mut bench = Bench::new(UserOptions {
        resolvers: vec![dead, address],
        ..options()
    });
    let handle = bench.bind_udp(4000);
    bench.send_udp(handle, DNS, QUESTION);
    assert_eq!(bench.receive_udp(handle).0, b"answer");
    thread.join().unwrap();
}

#[test]
fn a_silent_name_server_gives_way_when_asked_again() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, thread) = answer(1, |_| b"answer".to_vec());
    let mut bench = Bench::new(UserOptions {
        resolvers: vec![silent.local_addr().unwrap(), address],
        ..options()
    });
    let handle = bench.bind_udp(4000);
    bench.send_udp(handle, DNS, QUESTION);
    bench.linger(Duration::from_millis(20));
    bench.send_udp(handle, DNS, QUESTION);
    assert_eq!(bench.receive_udp(handle).0, b"answer");
    thread.join().unwrap();
}

#[test]
fn without_a_name_server_questions_fail_at_once() {
    let dead = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    for resolvers in [vec![], vec![dead]] {
        let mut bench = Bench::new(UserOptions {
            resolvers,
            ..options()
        });
        let handle = bench.bind_udp(4000);
        bench.send_udp(handle, DNS, QUESTION);
        let answer = bench.receive_udp(handle).0;
        assert_eq!(answer[..4], [0x12, 0x34, 0x81, 0x82], "server failure");
    }
}

#[test]
fn a_forwarded_port_serves_several_peers() {
    let mut bench = Bench::new(UserOptions {
        forwards: vec![forward(Transport::Udp, 53)],
        ..options()
    });
    let port = bench.bound[0].host_port;
    let handle = bench.bind_udp(53);
    let peers: Vec<UdpSocket> = (0..3)
        .map(|_| {
            let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            peer.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            peer
        })
        .collect();
    for (index, peer) in peers.iter().enumerate() {
        let payload = format!("peer {index}");
        peer.send(payload.as_bytes()).unwrap();
        let (received, from) = bench.receive_udp(handle);
        assert_eq!(received, payload.as_bytes());
        assert_eq!(*from.ip(), GATEWAY);
        bench.send_udp(handle, from, payload.to_uppercase().as_bytes());
    }
    bench.linger(Duration::from_millis(20));
    for (index, peer) in peers.iter().enumerate() {
        let mut buffer = [0; 64];
        let length = peer.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], format!("PEER {index}").as_bytes());
    }
    assert_eq!(bench.net.counters().udp_flows, 3);
}
