//! Frames that no honest guest sends.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::super::{GATEWAY, GUEST, NAME_SERVER, NetBackend, Offloads, TCP_FLOWS_MAX, UserOptions};
use super::{Bench, allowed, ethernet, options};

fn segment(from: SocketAddrV4, to: SocketAddrV4, control: TcpControl, payload: &[u8]) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control,
        seq_number: TcpSeqNumber(1000),
        ack_number: (control != TcpControl::Syn).then_some(TcpSeqNumber(2000)),
        window_len: 1000,
        window_scale: None,
        max_seg_size: (control == TcpControl::Syn).then_some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let header = Ipv4Repr {
        src_addr: *from.ip(),
        dst_addr: *to.ip(),
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; header.buffer_len() + tcp.buffer_len()];
    let mut packet = Ipv4Packet::new_unchecked(bytes.as_mut_slice());
    header.emit(&mut packet, &checksums);
    tcp.emit(
        &mut TcpPacket::new_unchecked(packet.payload_mut()),
        &(*from.ip()).into(),
        &(*to.ip()).into(),
        &checksums,
    );
    ethernet(0x0800, &bytes)
}

/// A SYN of the guest.
pub(super) fn syn(address: Ipv4Addr, port: u16) -> Vec<u8> {
    let from = SocketAddrV4::new(GUEST, 40_000);
    segment(from, SocketAddrV4::new(address, port), TcpControl::Syn, &[])
}

/// A small generator: tests are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// Makes the IPv4 header checksum right, so that a mutation gets past it.
fn repair(frame: &mut [u8]) {
    if frame.len() < 34 || frame[12..14] != [8, 0] {
        return;
    }
    let header = 4 * usize::from(frame[14] & 15);
    if let Ok(mut packet) = Ipv4Packet::new_checked(&mut frame[14..])
        && header >= 20
    {
        packet.fill_checksum();
    }
}

fn seeds(host_port: u16) -> Vec<Vec<u8>> {
    let guest = SocketAddrV4::new(GUEST, 40_000);
    let host = SocketAddrV4::new(GATEWAY, host_port);
    let dhcp = {
        let mut message = vec![1, 1, 6, 0, 1, 2, 3, 4];
        message.resize(236, 0);
        message.extend([99, 130, 83, 99, 53, 1, 1, 50, 4, 10, 0, 2, 15, 255]);
        let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        super::udp::datagram(from, SocketAddrV4::new(Ipv4Addr::BROADCAST, 67), &message)
    };
    vec![
        dhcp,
        super::small::ping(GATEWAY),
        super::small::ping(Ipv4Addr::new(198, 51, 100, 1)),
        super::udp::datagram(guest, host, b"datagram"),
        super::udp::datagram(guest, SocketAddrV4::new(NAME_SERVER, 53), &[0; 17]),
        syn(GATEWAY, host_port),
        segment(guest, host, TcpControl::None, b"payload"),
        segment(guest, host, TcpControl::Fin, b""),
        segment(guest, host, TcpControl::Rst, b""),
        segment(guest, host, TcpControl::Psh, &[7; 900]),
        ethernet(0x0806, &[0, 1, 8, 0, 6, 4, 0, 1]),
        ethernet(0x86dd, &[0x60; 60]),
        ethernet(0x0800, &[0x45; 60]),
    ]
}

#[test]
fn mutated_frames_never_panic() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    // No resolvers and a closed world, so that nothing leaves the machine.
    let mut bench = Bench::new(allowed());
    bench.net.reset(super::LAZY);
    let seeds = seeds(listener.local_addr().unwrap().port());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..60_000 {
        let mut frame = seeds[random.below(seeds.len())].clone();
        for _ in 0..random.below(4) {
            // The addresses stay ours: the mutation is about everything else.
            let at = random.below(frame.len());
            if !(26..34).contains(&at) {
                frame[at] = random.byte();
            }
        }
        if random.below(4) == 0 {
            frame.truncate(random.below(frame.len() + 1));
        }
        if random.below(3) != 0 {
            repair(&mut frame);
        }
        bench.raw(&frame);
        if round % 64 == 0 {
            while listener.accept().is_ok() {}
        }
    }
    let counters = bench.net.counters();
    assert_eq!(counters.frames_in, 60_000);
    assert!(counters.malformed > 1000, "{counters:?}");
}

#[test]
fn truncated_frames_never_panic() {
    let mut bench = Bench::new(options());
    for seed in seeds(9) {
        for length in 0..seed.len() {
            bench.raw(&seed[..length]);
        }
    }
}

#[test]
fn garbage_never_panics() {
    let mut bench = Bench::new(options());
    let mut random = Random(42);
    for _ in 0..20_000 {
        let mut frame: Vec<u8> = (0..random.below(200)).map(|_| random.byte()).collect();
        if frame.len() > 14 {
            frame[..6].fill(0xff);
            frame[6] &= 0xfe;
            frame[12..14].copy_from_slice(&[8, [0, 6][random.below(2)]]);
        }
        bench.raw(&frame);
    }
    assert_eq!(bench.net.counters().tcp_flows, 0);
}

#[test]
fn a_flood_of_connections_is_bounded() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = SocketAddrV4::new(GATEWAY, listener.local_addr().unwrap().port());
    let mut bench = Bench::new(allowed());
    for port in 1..=u16::try_from(TCP_FLOWS_MAX + 100).unwrap() {
        let from = SocketAddrV4::new(GUEST, port);
        bench.raw(&segment(from, to, TcpControl::Syn, &[]));
    }
    let counters = bench.net.counters();
    assert!(counters.tcp_flows <= TCP_FLOWS_MAX, "{counters:?}");
    assert!(counters.refused >= 100, "{counters:?}");
    bench.net.reset(Offloads::default());
    assert_eq!(bench.net.timers(), 0);
}

#[test]
fn a_guest_that_takes_nothing_makes_nothing_grow() {
    let mut bench = Bench::new(options());
    for _ in 0..20_000 {
        bench.net.transmit(&super::small::ping(GATEWAY));
    }
    bench.net.service();
    assert!(bench.net.counters().dropped > 10_000);
    assert!(!bench.net.has_work());
}

#[test]
fn foreign_senders_get_nothing() {
    let mut bench = Bench::new(UserOptions {
        resolvers: vec![],
        ..allowed()
    });
    let to = SocketAddrV4::new(GATEWAY, 9);
    for address in [
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(192, 168, 1, 1),
        Ipv4Addr::new(10, 0, 2, 255),
        GATEWAY,
        NAME_SERVER,
    ] {
        let from = SocketAddrV4::new(address, 4000);
        assert!(
            bench
                .raw(&segment(from, to, TcpControl::Syn, &[]))
                .is_empty()
        );
        assert!(bench.raw(&super::udp::datagram(from, to, b"x")).is_empty());
    }
    let counters = bench.net.counters();
    assert_eq!((counters.tcp_flows, counters.udp_flows), (0, 0));
}

#[test]
fn ipv6_and_fragments_are_counted() {
    let mut bench = Bench::new(options());
    assert!(bench.raw(&ethernet(0x86dd, &[0x60; 60])).is_empty());
    let mut fragment = super::small::ping(GATEWAY);
    fragment[20] = 0x20; // more fragments
    repair(&mut fragment);
    assert!(bench.raw(&fragment).is_empty());
    assert_eq!(bench.net.counters().unsupported, 2);
}
