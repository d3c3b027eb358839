//! Frames of the guest, taken apart and put together.
//!
//! Ethernet II (IEEE 802.3), ARP (RFC 826), IPv4 (RFC 791), UDP (RFC 768) and ICMP (RFC 792).
//! TCP is taken apart only as far as its flow must be known; `smoltcp` does the rest.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv4Repr, IpProtocol,
    Ipv4Packet, Ipv4Repr, TcpPacket, UdpPacket,
};

use super::out::OutQueue;

/// Bytes of an Ethernet header.
pub(super) const ETHERNET_HEADER_BYTES: usize = 14;
/// Bytes of an IPv4 header without options.
pub(super) const IPV4_HEADER_BYTES: usize = 20;
/// Bytes of a UDP header.
const UDP_HEADER_BYTES: usize = 8;
/// Largest UDP payload that fits into an IPv4 packet.
const UDP_PAYLOAD_MAX: usize = 65_535 - IPV4_HEADER_BYTES - UDP_HEADER_BYTES;
/// How much of a refused packet travels back in an ICMP error, RFC 1812 4.3.2.3.
const ICMP_QUOTE_BYTES: usize = 548;
/// Time to live of what we send.
const HOP_LIMIT: u8 = 64;

/// A frame of the guest, as far as it concerns us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound<'f> {
    /// ARP: who asks, and for whom.
    Arp {
        /// A request, not a reply.
        request: bool,
        /// The protocol address that is asked for.
        target: Ipv4Addr,
    },
    /// A TCP segment.
    Tcp {
        /// The guest's end.
        guest: SocketAddrV4,
        /// The far end.
        remote: SocketAddrV4,
        /// SYN without ACK, FIN or RST: wants to open a connection.
        opens: bool,
        /// RST.
        resets: bool,
    },
    /// A UDP datagram.
    Udp {
        /// The guest's end.
        guest: SocketAddrV4,
        /// The far end.
        remote: SocketAddrV4,
        /// What it carries.
        payload: &'f [u8],
        /// The whole IP packet, for an ICMP error to quote.
        packet: &'f [u8],
    },
    /// An ICMP echo request.
    Echo {
        /// The guest's address.
        guest: Ipv4Addr,
        /// Whom it pings.
        remote: Ipv4Addr,
        /// Identifier.
        ident: u16,
        /// Sequence number.
        seq_no: u16,
        /// What is to be echoed.
        data: &'f [u8],
        /// The whole IP packet, for an ICMP error to quote.
        packet: &'f [u8],
    },
    /// Another IP protocol.
    OtherProtocol {
        /// Whom it is for.
        remote: Ipv4Addr,
        /// The whole IP packet, for an ICMP error to quote.
        packet: &'f [u8],
    },
    /// IPv6, which the user network does not carry.
    Ipv6,
    /// A fragment of an IPv4 packet.
    Fragment,
    /// Correct, but nothing that we answer.
    Ignored,
    /// Cut short, a wrong checksum, or otherwise not what it claims to be.
    Malformed,
}

/// The sender's and the receiver's hardware address of a frame, when it is long enough.
pub(super) fn addresses(frame: &[u8]) -> Option<(EthernetAddress, EthernetAddress)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    Some((frame.src_addr(), frame.dst_addr()))
}

/// Takes a frame apart. Checksums are checked unless `checksums` says that the guest leaves them
/// to us.
pub(super) fn parse<'f>(frame: &'f [u8], checksums: &ChecksumCapabilities) -> Inbound<'f> {
    let Ok(frame) = EthernetFrame::new_checked(frame) else {
        return Inbound::Malformed;
    };
    match frame.ethertype() {
        EthernetProtocol::Arp => parse_arp(frame.payload()),
        EthernetProtocol::Ipv4 => {
            parse_ipv4(frame.payload(), checksums).unwrap_or(Inbound::Malformed)
        }
        EthernetProtocol::Ipv6 => Inbound::Ipv6,
        EthernetProtocol::Unknown(_) => Inbound::Ignored,
    }
}

fn parse_arp(payload: &[u8]) -> Inbound<'_> {
    let repr = ArpPacket::new_checked(payload).and_then(|packet| ArpRepr::parse(&packet));
    match repr {
        Ok(ArpRepr::EthernetIpv4 {
            operation,
            target_protocol_addr,
            ..
        }) => Inbound::Arp {
            request: operation == ArpOperation::Request,
            target: target_protocol_addr,
        },
        _ => Inbound::Malformed,
    }
}

fn parse_ipv4<'f>(payload: &'f [u8], checksums: &ChecksumCapabilities) -> Option<Inbound<'f>> {
    let packet = Ipv4Packet::new_checked(payload).ok()?;
    let whole = payload.get(..usize::from(packet.total_len()))?;
    if packet.more_frags() || packet.frag_offset() != 0 {
        return Some(Inbound::Fragment);
    }
    // The link is memory: nothing is damaged on the way, but an IP header is cheap to check.
    Ipv4Repr::parse(&packet, &ChecksumCapabilities::default()).ok()?;
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    let inner = whole.get(usize::from(packet.header_len())..)?;
    match packet.next_header() {
        IpProtocol::Tcp => parse_tcp(from, to, inner),
        IpProtocol::Udp => parse_udp(from, to, inner, whole, checksums),
        IpProtocol::Icmp => parse_icmp(from, to, inner, whole),
        _ => Some(Inbound::OtherProtocol {
            remote: to,
            packet: whole,
        }),
    }
}

fn parse_tcp<'f>(from: Ipv4Addr, to: Ipv4Addr, inner: &[u8]) -> Option<Inbound<'f>> {
    let segment = TcpPacket::new_checked(inner).ok()?;
    if segment.src_port() == 0 || segment.dst_port() == 0 {
        return None;
    }
    Some(Inbound::Tcp {
        guest: SocketAddrV4::new(from, segment.src_port()),
        remote: SocketAddrV4::new(to, segment.dst_port()),
        opens: segment.syn() && !segment.ack() && !segment.fin() && !segment.rst(),
        resets: segment.rst(),
    })
}

fn parse_udp<'f>(
    from: Ipv4Addr,
    to: Ipv4Addr,
    inner: &'f [u8],
    whole: &'f [u8],
    checksums: &ChecksumCapabilities,
) -> Option<Inbound<'f>> {
    let datagram = UdpPacket::new_checked(inner).ok()?;
    if datagram.src_port() == 0 || datagram.dst_port() == 0 {
        return None;
    }
    // A checksum of zero means that there is none.
    if checksums.udp.rx()
        && datagram.checksum() != 0
        && !datagram.verify_checksum(&from.into(), &to.into())
    {
        return None;
    }
    Some(Inbound::Udp {
        guest: SocketAddrV4::new(from, datagram.src_port()),
        remote: SocketAddrV4::new(to, datagram.dst_port()),
        payload: datagram.payload(),
        packet: whole,
    })
}

fn parse_icmp<'f>(
    from: Ipv4Addr,
    to: Ipv4Addr,
    inner: &'f [u8],
    whole: &'f [u8],
) -> Option<Inbound<'f>> {
    let message = Icmpv4Packet::new_checked(inner).ok()?;
    if !message.verify_checksum() {
        return None;
    }
    if message.msg_type() != Icmpv4Message::EchoRequest {
        return Some(Inbound::Ignored);
    }
    Some(Inbound::Echo {
        guest: from,
        remote: to,
        ident: message.echo_ident(),
        seq_no: message.echo_seq_no(),
        data: message.data(),
        packet: whole,
    })
}

/// Writes frames for the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    /// The gateway's hardware address.
    pub(super) from: EthernetAddress,
    /// The guest's hardware address.
    pub(super) to: EthernetAddress,
    /// Largest IP packet on the link, in bytes.
    pub(super) mtu: usize,
}

impl Sender {
    /// Sends a UDP datagram, in fragments where it is longer than the link allows. A payload that
    /// no UDP datagram can carry is dropped.
    pub(super) fn udp(
        &self,
        out: &mut OutQueue,
        from: SocketAddrV4,
        to: SocketAddrV4,
        ident: u16,
        payload: &[u8],
    ) {
        if payload.len() > UDP_PAYLOAD_MAX {
            return;
        }
        let Ok(len) = u16::try_from(UDP_HEADER_BYTES + payload.len()) else {
            return;
        };
        let mut datagram = vec![0; usize::from(len)];
        let mut packet = UdpPacket::new_unchecked(datagram.as_mut_slice());
        packet.set_src_port(from.port());
        packet.set_dst_port(to.port());
        packet.set_len(len);
        packet.payload_mut().copy_from_slice(payload);
        packet.fill_checksum(&(*from.ip()).into(), &(*to.ip()).into());
        self.ipv4(out, IpProtocol::Udp, *from.ip(), *to.ip(), ident, &datagram);
    }

    /// Answers an ICMP echo request.
    pub(super) fn echo_reply(
        &self,
        out: &mut OutQueue,
        from: Ipv4Addr,
        to: Ipv4Addr,
        (ident, seq_no): (u16, u16),
        data: &[u8],
    ) {
        let repr = Icmpv4Repr::EchoReply {
            ident,
            seq_no,
            data,
        };
        self.icmp(out, from, to, &repr);
    }

    /// Tells the guest why `packet`, one of its own, went nowhere. The answer comes from the
    /// packet's destination.
    pub(super) fn unreachable(
        &self,
        out: &mut OutQueue,
        reason: Icmpv4DstUnreachable,
        packet: &[u8],
    ) {
        let Ok(quoted) = Ipv4Packet::new_checked(packet) else {
            return;
        };
        let Ok(header) = Ipv4Repr::parse(&quoted, &ChecksumCapabilities::ignored()) else {
            return;
        };
        let payload = quoted.payload();
        let data = payload.get(..ICMP_QUOTE_BYTES).unwrap_or(payload);
        let repr = Icmpv4Repr::DstUnreachable {
            reason,
            header,
            data,
        };
        self.icmp(out, header.dst_addr, header.src_addr, &repr);
    }

    /// The head of a datagram that the guest once sent, for an ICMP error to quote.
    pub(super) fn datagram_stub(&self, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
        let repr = Ipv4Repr {
            src_addr: *from.ip(),
            dst_addr: *to.ip(),
            next_header: IpProtocol::Udp,
            payload_len: UDP_HEADER_BYTES,
            hop_limit: HOP_LIMIT,
        };
        let mut bytes = vec![0; IPV4_HEADER_BYTES + UDP_HEADER_BYTES];
        let mut packet = Ipv4Packet::new_unchecked(bytes.as_mut_slice());
        repr.emit(&mut packet, &ChecksumCapabilities::default());
        let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
        datagram.set_src_port(from.port());
        datagram.set_dst_port(to.port());
        // Cannot fail: eight.
        datagram.set_len(u16::try_from(UDP_HEADER_BYTES).unwrap_or(0));
        bytes
    }

    fn icmp(&self, out: &mut OutQueue, from: Ipv4Addr, to: Ipv4Addr, repr: &Icmpv4Repr<'_>) {
        let mut message = vec![0; repr.buffer_len()];
        repr.emit(
            &mut Icmpv4Packet::new_unchecked(message.as_mut_slice()),
            &ChecksumCapabilities::default(),
        );
        self.ipv4(out, IpProtocol::Icmp, from, to, 0, &message);
    }

    /// Sends one IP packet, in as many fragments as the link needs.
    fn ipv4(
        &self,
        out: &mut OutQueue,
        protocol: IpProtocol,
        from: Ipv4Addr,
        to: Ipv4Addr,
        ident: u16,
        payload: &[u8],
    ) {
        // A fragment's offset counts in units of eight bytes.
        let piece_bytes = self.mtu.saturating_sub(IPV4_HEADER_BYTES) & !7;
        let whole = payload.len() + IPV4_HEADER_BYTES <= self.mtu;
        let piece_bytes = if whole { payload.len() } else { piece_bytes }.max(8);
        let mut offset = 0;
        for piece in payload.chunks(piece_bytes) {
            let last = offset + piece.len() == payload.len();
            let Ok(frag_offset) = u16::try_from(offset) else {
                return;
            };
            self.fragment(
                out,
                &Fragment {
                    protocol,
                    from,
                    to,
                    ident,
                    offset: frag_offset,
                    more: !last,
                },
                piece,
            );
            offset += piece.len();
        }
    }

    fn fragment(&self, out: &mut OutQueue, header: &Fragment, piece: &[u8]) {
        let repr = Ipv4Repr {
            src_addr: header.from,
            dst_addr: header.to,
            next_header: header.protocol,
            payload_len: piece.len(),
            hop_limit: HOP_LIMIT,
        };
        let frame_bytes = ETHERNET_HEADER_BYTES + repr.buffer_len() + piece.len();
        out.push_with(frame_bytes, |bytes| {
            let mut frame = EthernetFrame::new_unchecked(bytes);
            EthernetRepr {
                src_addr: self.from,
                dst_addr: self.to,
                ethertype: EthernetProtocol::Ipv4,
            }
            .emit(&mut frame);
            let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
            repr.emit(&mut packet, &ChecksumCapabilities::ignored());
            packet.set_ident(header.ident);
            packet.set_dont_frag(false);
            packet.set_more_frags(header.more);
            packet.set_frag_offset(header.offset);
            packet.fill_checksum();
            packet.payload_mut().copy_from_slice(piece);
        });
    }
}

/// What distinguishes one fragment from the next.
struct Fragment {
    protocol: IpProtocol,
    from: Ipv4Addr,
    to: Ipv4Addr,
    ident: u16,
    /// In bytes, a multiple of eight.
    offset: u16,
    more: bool,
}
