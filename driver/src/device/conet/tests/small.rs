//! ARP, DHCP, pings, and making a network.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, Icmpv4Message, Icmpv4Packet,
    Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr,
};

use super::super::{
    BROADCAST, Forward, GATEWAY, GATEWAY_MAC, GUEST, NAME_SERVER, NetError, Transport, UserNetwork,
    UserOptions,
};
use super::{Bench, GUEST_MAC, ethernet, forward, options};

pub(super) fn arp(target: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(GUEST_MAC),
        source_protocol_addr: GUEST,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut payload = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(payload.as_mut_slice()));
    ethernet(0x0806, &payload)
}

pub(super) fn ping(target: Ipv4Addr) -> Vec<u8> {
    let echo = Icmpv4Repr::EchoRequest {
        ident: 7,
        seq_no: 9,
        data: b"hello",
    };
    let header = Ipv4Repr {
        src_addr: GUEST,
        dst_addr: target,
        next_header: IpProtocol::Icmp,
        payload_len: echo.buffer_len(),
        hop_limit: 64,
    };
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; header.buffer_len() + echo.buffer_len()];
    let mut packet = Ipv4Packet::new_unchecked(bytes.as_mut_slice());
    header.emit(&mut packet, &checksums);
    echo.emit(
        &mut Icmpv4Packet::new_unchecked(packet.payload_mut()),
        &checksums,
    );
    ethernet(0x0800, &bytes)
}

#[test]
fn arp_is_answered_for_gateway_and_name_server_only() {
    let mut bench = Bench::new(options());
    for target in [GATEWAY, NAME_SERVER] {
        let answers = bench.raw(&arp(target));
        let frame = EthernetFrame::new_checked(&answers[0][..]).unwrap();
        assert_eq!(frame.dst_addr(), EthernetAddress(GUEST_MAC));
        let packet = ArpPacket::new_checked(frame.payload()).unwrap();
        assert_eq!(packet.operation(), ArpOperation::Reply);
        assert_eq!(packet.source_hardware_addr(), GATEWAY_MAC);
        assert_eq!(packet.source_protocol_addr(), target.octets());
    }
    // The guest looks whether anyone has its address; nobody may answer.
    for target in [GUEST, Ipv4Addr::new(10, 0, 2, 77), BROADCAST] {
        assert!(bench.raw(&arp(target)).is_empty(), "{target}");
    }
}

#[test]
fn gateway_and_name_server_answer_pings() {
    let mut bench = Bench::new(options());
    for target in [GATEWAY, NAME_SERVER] {
        let answers = bench.raw(&ping(target));
        let frame = EthernetFrame::new_checked(&answers[0][..]).unwrap();
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!((packet.src_addr(), packet.dst_addr()), (target, GUEST));
        let echo = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert!(echo.verify_checksum());
        assert_eq!(echo.msg_type(), Icmpv4Message::EchoReply);
        assert_eq!((echo.echo_ident(), echo.echo_seq_no()), (7, 9));
        assert_eq!(echo.data(), b"hello");
    }
}

#[test]
fn other_pings_are_prohibited() {
    let mut bench = Bench::new(options());
    let answers = bench.raw(&ping(Ipv4Addr::new(198, 51, 100, 1)));
    let frame = EthernetFrame::new_checked(&answers[0][..]).unwrap();
    let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
    let error = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    assert_eq!(error.msg_type(), Icmpv4Message::DstUnreachable);
    assert!(bench.raw(&ping(Ipv4Addr::BROADCAST)).is_empty());
    assert!(bench.raw(&ping(Ipv4Addr::new(224, 0, 0, 1))).is_empty());
}

#[test]
fn dhcp_gives_the_guest_its_address() {
    use dhcproto::v4::{DhcpOption, Message, MessageType};
    use dhcproto::{Decodable, Encodable};

    let mut bench = Bench::new(options());
    let mut ask = |kind: MessageType| {
        let mut message = Message::default();
        message.set_chaddr(&GUEST_MAC);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message
            .opts_mut()
            .insert(DhcpOption::RequestedIpAddress(GUEST));
        let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        let frame = super::udp::datagram(from, to, &message.to_vec().unwrap());
        let answers = bench.raw(&frame);
        let frame = EthernetFrame::new_checked(&answers[0][..]).unwrap();
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        assert_eq!(packet.src_addr(), GATEWAY);
        Message::from_bytes(&packet.payload()[8..]).unwrap()
    };
    let offer = ask(MessageType::Discover);
    assert_eq!(offer.opts().msg_type(), Some(MessageType::Offer));
    assert_eq!(offer.yiaddr(), GUEST);
    let ack = ask(MessageType::Request);
    assert_eq!(ack.opts().msg_type(), Some(MessageType::Ack));
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = UserNetwork::bind(UserOptions {
        forwards: vec![Forward {
            host_port: port,
            ..forward(Transport::Tcp, 22)
        }],
        ..options()
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("tcp port {port} of the host is in use by another program")
    );
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = UserNetwork::bind(UserOptions {
        forwards: vec![Forward {
            host_port: port,
            ..forward(Transport::Udp, 53)
        }],
        ..options()
    })
    .unwrap_err();
    assert!(matches!(error, NetError::PortInUse { port: named, .. } if named == port));
}

#[test]
fn ranges_are_bound_and_reported() {
    let (_net, bound) = UserNetwork::bind(UserOptions {
        forwards: vec![Forward {
            count: 3,
            ..forward(Transport::Tcp, 8000)
        }],
        ..options()
    })
    .unwrap();
    let guests: Vec<u16> = bound.iter().map(|port| port.guest_port).collect();
    assert_eq!(guests, [8000, 8001, 8002]);
    assert!(bound.iter().all(|port| port.host_port != 0));
}

#[test]
fn senseless_options_are_refused() {
    let refused = |options: UserOptions| UserNetwork::bind(options).unwrap_err().to_string();
    let with = |one: Forward| UserOptions {
        forwards: vec![one],
        ..options()
    };
    let tcp = forward(Transport::Tcp, 22);
    for bad in [
        Forward { count: 0, ..tcp },
        Forward {
            guest_port: 0,
            ..tcp
        },
        Forward {
            guest_port: 65_535,
            count: 2,
            ..tcp
        },
        Forward {
            host_port: 65_535,
            count: 2,
            ..tcp
        },
    ] {
        assert!(refused(with(bad)).contains("is not valid"));
    }
    assert!(refused(with(Forward { count: 257, ..tcp })).contains("257 forwarded ports"));
    assert!(
        refused(UserOptions {
            mtu: 500,
            ..options()
        })
        .contains("MTU of 500 bytes")
    );
    assert!(refused(UserOptions::new([1, 0, 0, 0, 0, 0])).contains("hardware address"));
    assert!(refused(UserOptions::new(GATEWAY_MAC)).contains("hardware address"));
}
