//! Nodes behind a switch: who reaches whom, and who cannot pretend to be another.

use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket,
    UdpPacket,
};

use super::{LAZY, NetBackend, Offloads, UserNetwork, UserOptions};
use crate::device::conet::{
    GATEWAY, GATEWAY_MAC, NAME_SERVER, NODES_MAX, Node, Seat, Switched, stable_mac, switch,
};

const BROADCAST: [u8; 6] = [0xff; 6];

fn node(index: u8) -> Node {
    let name = format!("n{index}");
    Node {
        mac: stable_mac(&name, 0),
        address: Ipv4Addr::new(10, 0, 2, 15 + index),
        name,
    }
}

fn plug(seat: &Seat, offloads: Offloads) -> Switched<UserNetwork> {
    let node = seat.node();
    let options = UserOptions {
        address: node.address,
        hosts: seat
            .nodes()
            .iter()
            .map(|node| (node.name.clone(), node.address))
            .collect(),
        ..UserOptions::new(node.mac)
    };
    let (own, _) = UserNetwork::bind(options).unwrap();
    let mut plugged = seat.join(own).unwrap();
    plugged.reset(offloads);
    plugged
}

fn nodes(count: u8, offloads: Offloads) -> Vec<Switched<UserNetwork>> {
    let seats = switch((0..count).map(node).collect()).unwrap();
    seats.iter().map(|seat| plug(seat, offloads)).collect()
}

fn take(net: &mut Switched<UserNetwork>) -> Vec<Vec<u8>> {
    net.service();
    let mut frames = Vec::new();
    while let Some(frame) = net.frame() {
        frames.push(frame.bytes.to_vec());
        net.pop_frame();
    }
    frames
}

fn frame(from: [u8; 6], to: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to);
    frame.extend(from);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

fn arp(operation: ArpOperation, from: &Node, mac: [u8; 6], to: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: from.address,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: to,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(bytes.as_mut_slice()));
    bytes
}

/// An IPv4 packet with a transport header whose checksum was left out.
fn packet(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, payload: usize) -> Vec<u8> {
    let inner = match protocol {
        IpProtocol::Tcp => 20 + payload,
        _ => 8 + payload,
    };
    let repr = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: inner,
        hop_limit: 64,
    };
    let mut bytes = vec![0; 20 + inner];
    let mut packet = Ipv4Packet::new_unchecked(bytes.as_mut_slice());
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    if protocol == IpProtocol::Tcp {
        let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
        segment.set_src_port(1000);
        segment.set_dst_port(2000);
        segment.set_header_len(20);
        segment.set_ack(true);
        segment.set_checksum(0x1234);
    } else {
        let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
        datagram.set_src_port(1000);
        datagram.set_dst_port(2000);
        datagram.set_len(u16::try_from(inner).unwrap());
        datagram.set_checksum(0x1234);
    }
    bytes
}

fn has_something(net: &Switched<UserNetwork>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(net.readiness(), PollFlags::IN)];
    let time = Timespec::try_from(Duration::ZERO).unwrap();
    poll(&mut fds, Some(&time)).unwrap() > 0
}

#[test]
fn nodes_find_and_reach_each_other() {
    let mut nets = nodes(3, Offloads::default());
    let (a, b) = (node(0), node(1));
    let ask = arp(ArpOperation::Request, &a, a.mac, b.address);
    let ask = frame(a.mac, BROADCAST, 0x0806, &ask);
    nets[0].transmit(&ask);
    assert!(has_something(&nets[1]), "the neighbour is woken");
    assert_eq!(take(&mut nets[1]), [ask]);
    assert!(!has_something(&nets[1]));
    assert!(take(&mut nets[2]).is_empty(), "it was not asked for");
    let answer = arp(ArpOperation::Reply, &b, b.mac, a.address);
    let answer = frame(b.mac, a.mac, 0x0806, &answer);
    nets[1].transmit(&answer);
    let data = packet(b.address, a.address, IpProtocol::Icmp, 30);
    let data = frame(b.mac, a.mac, 0x0800, &data);
    nets[1].transmit(&data);
    assert_eq!(take(&mut nets[0]), [answer, data]);
    assert_eq!(nets[1].counters().passed, 2);
}

#[test]
fn the_gateway_is_everybodys_own() {
    let mut nets = nodes(2, Offloads::default());
    let a = node(0);
    for address in [GATEWAY, NAME_SERVER] {
        let ask = arp(ArpOperation::Request, &a, a.mac, address);
        nets[0].transmit(&frame(a.mac, BROADCAST, 0x0806, &ask));
        let answers = take(&mut nets[0]);
        assert_eq!(answers.len(), 1, "{address}");
        assert_eq!(answers[0][6..12], GATEWAY_MAC);
        assert!(take(&mut nets[1]).is_empty());
    }
}

#[test]
fn nobody_is_another() {
    let mut nets = nodes(3, Offloads::default());
    let (a, b, c) = (node(0), node(1), node(2));
    let from = |mac, address| {
        let bytes = packet(address, b.address, IpProtocol::Udp, 3);
        frame(mac, b.mac, 0x0800, &bytes)
    };
    let claims = Node {
        address: c.address,
        ..a.clone()
    };
    let lies = [
        // Another's hardware address, on a packet, a request and for the own network.
        from(c.mac, a.address),
        frame(
            c.mac,
            BROADCAST,
            0x0806,
            &arp(ArpOperation::Request, &a, a.mac, b.address),
        ),
        frame(
            c.mac,
            GATEWAY_MAC,
            0x0800,
            &packet(a.address, GATEWAY, IpProtocol::Udp, 1),
        ),
        // Another's address, in a packet, in an answer, in a request, and with another's too.
        from(a.mac, c.address),
        from(a.mac, GATEWAY),
        frame(
            a.mac,
            b.mac,
            0x0806,
            &arp(ArpOperation::Reply, &claims, a.mac, b.address),
        ),
        frame(
            a.mac,
            b.mac,
            0x0806,
            &arp(ArpOperation::Reply, &a, c.mac, b.address),
        ),
        frame(
            a.mac,
            BROADCAST,
            0x0806,
            &arp(ArpOperation::Request, &claims, a.mac, b.address),
        ),
        // What says nothing of its sender that could be checked.
        frame(a.mac, b.mac, 0x86dd, &[0x60; 60]),
        frame(a.mac, b.mac, 0x88b5, b"anything"),
        frame(a.mac, b.mac, 0x0800, &[0x45; 10]),
        frame(a.mac, b.mac, 0x0806, &[0; 3]),
        // Longer than the link takes.
        frame(
            a.mac,
            b.mac,
            0x0800,
            &packet(a.address, b.address, IpProtocol::Udp, 3000),
        ),
    ];
    for lie in &lies {
        nets[0].transmit(lie);
        assert!(take(&mut nets[1]).is_empty(), "{lie:02x?}");
        assert!(take(&mut nets[2]).is_empty(), "{lie:02x?}");
    }
    nets[0].transmit(&[]);
    nets[0].transmit(&[0xff; 13]);
    assert_eq!(nets[0].counters().passed, 0);
    nets[0].transmit(&from(a.mac, a.address));
    assert_eq!(take(&mut nets[1]).len(), 1, "the truth passes");
}

#[test]
fn a_flood_costs_nobody_else() {
    let mut nets = nodes(3, Offloads::default());
    let (a, b, c) = (node(0), node(1), node(2));
    let to_b = |from: &Node, size| {
        let bytes = packet(from.address, b.address, IpProtocol::Udp, size);
        frame(from.mac, b.mac, 0x0800, &bytes)
    };
    for size in [1, 1400] {
        for _ in 0..5000 {
            nets[0].transmit(&to_b(&a, size));
        }
    }
    nets[2].transmit(&to_b(&c, 7));
    assert!(nets[0].counters().dropped > 9000);
    assert_eq!(nets[2].counters().dropped, 0);
    // The own network is heard among them too.
    let ask = arp(ArpOperation::Request, &b, b.mac, GATEWAY);
    nets[1].transmit(&frame(b.mac, BROADCAST, 0x0806, &ask));
    let frames = take(&mut nets[1]);
    assert!(frames.len() < 300, "{}", frames.len());
    let from = |mac: [u8; 6]| frames.iter().position(|frame| frame[6..12] == mac).unwrap();
    assert!(from(c.mac) < 4 && from(GATEWAY_MAC) < 4);
    // A guest that starts anew gets nothing of that.
    nets[0].transmit(&to_b(&a, 1));
    nets[1].reset(Offloads::default());
    assert!(take(&mut nets[1]).is_empty());
}

#[test]
fn what_was_left_out_is_put_back() {
    let (a, b) = (node(0), node(1));
    let send_padded = |protocol, size, offloads, padding| {
        let seats = switch(vec![a.clone(), b.clone()]).unwrap();
        let (mut from, mut to) = (plug(&seats[0], LAZY), plug(&seats[1], offloads));
        let mut bytes = packet(a.address, b.address, protocol, size);
        bytes.resize(bytes.len() + padding, 0);
        from.transmit(&frame(a.mac, b.mac, 0x0800, &bytes));
        to.service();
        let given = to.frame().map(|frame| {
            (
                frame.bytes.to_vec(),
                frame.partial_checksum,
                frame.segment_bytes,
            )
        });
        to.pop_frame();
        given
    };
    let send = |protocol, size, offloads| send_padded(protocol, size, offloads, 0);
    let ends = (a.address.into(), b.address.into());
    let (bytes, partial, _) = send(IpProtocol::Tcp, 100, Offloads::default()).unwrap();
    let segment = TcpPacket::new_checked(&bytes[34..]).unwrap();
    assert!(!partial && segment.verify_checksum(&ends.0, &ends.1));
    for offloads in [LAZY, Offloads::default()] {
        let (bytes, partial, _) = send(IpProtocol::Udp, 100, offloads).unwrap();
        let datagram = UdpPacket::new_checked(&bytes[34..]).unwrap();
        assert!(!partial && datagram.verify_checksum(&ends.0, &ends.1));
    }
    let (_, partial, segment) = send(IpProtocol::Tcp, 100, LAZY).unwrap();
    assert!(partial && segment.is_none());
    let (_, partial, segment) = send(IpProtocol::Tcp, 9000, LAZY).unwrap();
    assert_eq!((partial, segment.unwrap().get()), (true, 1460));
    assert!(send(IpProtocol::Tcp, 9000, Offloads::default()).is_none());
    assert!(send(IpProtocol::Udp, 9000, LAZY).is_none());
    // What is behind a packet is none of it, and makes it no longer.
    for padding in [6, 9000] {
        let padded = send_padded(IpProtocol::Tcp, 100, LAZY, padding);
        assert_eq!(padded, send(IpProtocol::Tcp, 100, LAZY));
    }
}

#[test]
fn a_switch_has_nodes_that_differ() {
    assert!(switch((0..NODES_MAX).map(node).collect()).is_ok());
    assert!(switch((0..=NODES_MAX).map(node).collect()).is_err());
    let (a, b) = (node(0), node(1));
    for bad in [
        Node {
            mac: a.mac,
            ..b.clone()
        },
        Node {
            address: a.address,
            ..b.clone()
        },
        Node {
            name: a.name.clone(),
            ..b.clone()
        },
        Node {
            address: GATEWAY,
            ..b.clone()
        },
        Node {
            address: Ipv4Addr::new(10, 0, 3, 1),
            ..b.clone()
        },
        Node {
            mac: GATEWAY_MAC,
            ..b.clone()
        },
        Node {
            mac: BROADCAST,
            ..b
        },
    ] {
        assert!(switch(vec![a.clone(), bad.clone()]).is_err(), "{bad:?}");
    }
}
