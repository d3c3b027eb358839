//! A DHCP server (RFC 2131, options RFC 2132) with one address to give.

use std::net::Ipv4Addr;

use super::options::{BROADCAST, GATEWAY, NAME_SERVER, NETMASK};

/// The server's and the client's port.
pub(super) const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;

/// Length of the fixed part, up to the cookie.
const FIXED_BYTES: usize = 236;
/// Length of a reply: what the oldest clients expect at least, RFC 951.
const REPLY_BYTES_MIN: usize = 300;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const ETHERNET_ADDRESS_BYTES: u8 = 6;
/// A lease without end: nobody else wants the address, and an idle guest shall not wake to renew.
const LEASE_SECONDS: u32 = u32::MAX;

const OPTION_PAD: u8 = 0;
const OPTION_NETMASK: u8 = 1;
const OPTION_ROUTER: u8 = 3;
const OPTION_NAME_SERVER: u8 = 6;
const OPTION_MTU: u8 = 26;
const OPTION_BROADCAST: u8 = 28;
const OPTION_REQUESTED: u8 = 50;
const OPTION_LEASE: u8 = 51;
const OPTION_MESSAGE_TYPE: u8 = 53;
const OPTION_SERVER: u8 = 54;
const OPTION_END: u8 = 255;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const INFORM: u8 = 8;

/// What a client's message says, as far as it matters.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    message_type: Option<u8>,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

/// Answers a client's message. `None`: it is not one, or not one that wants an answer.
pub(super) fn answer(message: &[u8], guest: Ipv4Addr, mtu: u16) -> Option<Vec<u8>> {
    let (&[op, kind, length, ..], cookie) = (
        message.first_chunk::<4>()?,
        message.get(FIXED_BYTES..FIXED_BYTES + 4)?,
    );
    if (op, kind, length) != (BOOT_REQUEST, ETHERNET, ETHERNET_ADDRESS_BYTES) || cookie != COOKIE {
        return None;
    }
    let asked = parse_options(message.get(FIXED_BYTES + 4..)?)?;
    if asked.server.is_some_and(|server| server != GATEWAY) {
        return None;
    }
    let current = Ipv4Addr::from(*message.get(12..16)?.first_chunk::<4>()?);
    match asked.message_type? {
        DISCOVER => reply(message, OFFER, guest, mtu),
        INFORM => reply(message, ACK, guest, mtu),
        REQUEST if asked.requested.unwrap_or(current) == guest => reply(message, ACK, guest, mtu),
        REQUEST => reply(message, NAK, guest, mtu),
        _ => None,
    }
}

fn parse_options(mut options: &[u8]) -> Option<Asked> {
    let mut asked = Asked::default();
    loop {
        match options {
            [] | [OPTION_END, ..] => return Some(asked),
            [OPTION_PAD, rest @ ..] => options = rest,
            [code, length, rest @ ..] => {
                let value = rest.get(..usize::from(*length))?;
                options = rest.get(usize::from(*length)..)?;
                match (*code, value) {
                    (OPTION_MESSAGE_TYPE, [value]) => asked.message_type = Some(*value),
                    (OPTION_REQUESTED, &[a, b, c, d]) => {
                        asked.requested = Some(Ipv4Addr::new(a, b, c, d));
                    }
                    (OPTION_SERVER, &[a, b, c, d]) => {
                        asked.server = Some(Ipv4Addr::new(a, b, c, d));
                    }
                    _ => {}
                }
            }
            [_] => return None,
        }
    }
}

fn reply(request: &[u8], message_type: u8, guest: Ipv4Addr, mtu: u16) -> Option<Vec<u8>> {
    let granted = message_type != NAK;
    let informs = parse_options(request.get(FIXED_BYTES + 4..)?)?.message_type == Some(INFORM);
    let yours = if granted && !informs {
        guest
    } else {
        Ipv4Addr::UNSPECIFIED
    };
    let mut bytes = Vec::with_capacity(REPLY_BYTES_MIN);
    bytes.extend([BOOT_REPLY, ETHERNET, ETHERNET_ADDRESS_BYTES, 0]);
    bytes.extend(request.get(4..8)?); // xid
    bytes.extend([0, 0]); // secs
    bytes.extend(request.get(10..12)?); // flags
    bytes.extend(request.get(12..16)?); // ciaddr
    bytes.extend(yours.octets());
    bytes.extend(Ipv4Addr::UNSPECIFIED.octets()); // siaddr: nothing to boot from
    bytes.extend(request.get(24..28)?); // giaddr
    bytes.extend(request.get(28..44)?); // chaddr
    bytes.resize(FIXED_BYTES, 0); // sname and file
    bytes.extend(COOKIE);
    option(&mut bytes, OPTION_MESSAGE_TYPE, &[message_type]);
    option(&mut bytes, OPTION_SERVER, &GATEWAY.octets());
    if granted {
        if !informs {
            option(&mut bytes, OPTION_LEASE, &LEASE_SECONDS.to_be_bytes());
        }
        option(&mut bytes, OPTION_NETMASK, &NETMASK.octets());
        option(&mut bytes, OPTION_ROUTER, &GATEWAY.octets());
        option(&mut bytes, OPTION_NAME_SERVER, &NAME_SERVER.octets());
        option(&mut bytes, OPTION_BROADCAST, &BROADCAST.octets());
        option(&mut bytes, OPTION_MTU, &mtu.to_be_bytes());
    }
    bytes.push(OPTION_END);
    if bytes.len() < REPLY_BYTES_MIN {
        bytes.resize(REPLY_BYTES_MIN, OPTION_PAD);
    }
    Some(bytes)
}

fn option(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    if let Ok(length) = u8::try_from(value.len()) {
        bytes.extend([code, length]);
        bytes.extend(value);
    }
}

#[cfg(test)]
mod tests {
    use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
    use dhcproto::{Decodable, Encodable};

    use super::super::options::GUEST;
    use super::*;

    fn ask(kind: MessageType, requested: Option<Ipv4Addr>) -> Vec<u8> {
        let mut message = Message::default();
        message.set_chaddr(&[0x52, 0x54, 0, 1, 2, 3]);
        message.set_xid(0xdead_beef);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        if let Some(address) = requested {
            message
                .opts_mut()
                .insert(DhcpOption::RequestedIpAddress(address));
        }
        message.to_vec().unwrap()
    }

    fn decode(bytes: &[u8]) -> Message {
        Message::from_bytes(bytes).unwrap()
    }

    #[test]
    fn discover_is_offered_the_address() {
        let reply = decode(&answer(&ask(MessageType::Discover, None), GUEST, 1500).unwrap());
        assert_eq!(reply.opts().msg_type(), Some(MessageType::Offer));
        assert_eq!(reply.xid(), 0xdead_beef);
        assert_eq!(reply.yiaddr(), GUEST);
        assert_eq!(reply.chaddr(), [0x52, 0x54, 0, 1, 2, 3]);
        let options = reply.opts();
        assert_eq!(
            options.get(OptionCode::Router),
            Some(&DhcpOption::Router(vec![GATEWAY]))
        );
        assert_eq!(
            options.get(OptionCode::DomainNameServer),
            Some(&DhcpOption::DomainNameServer(vec![NAME_SERVER]))
        );
        assert_eq!(
            options.get(OptionCode::SubnetMask),
            Some(&DhcpOption::SubnetMask(NETMASK))
        );
        assert_eq!(
            options.get(OptionCode::InterfaceMtu),
            Some(&DhcpOption::InterfaceMtu(1500))
        );
    }

    #[test]
    fn only_the_one_address_is_granted() {
        let granted =
            decode(&answer(&ask(MessageType::Request, Some(GUEST)), GUEST, 1500).unwrap());
        assert_eq!(granted.opts().msg_type(), Some(MessageType::Ack));
        let other = Ipv4Addr::new(192, 168, 1, 5);
        let refused =
            decode(&answer(&ask(MessageType::Request, Some(other)), GUEST, 1500).unwrap());
        assert_eq!(refused.opts().msg_type(), Some(MessageType::Nak));
        assert_eq!(refused.yiaddr(), Ipv4Addr::UNSPECIFIED);
    }

    #[test]
    fn other_messages_get_no_answer() {
        assert_eq!(answer(&ask(MessageType::Release, None), GUEST, 1500), None);
        assert_eq!(answer(&ask(MessageType::Offer, None), GUEST, 1500), None);
    }

    #[test]
    fn damaged_messages_never_panic() {
        let good = ask(MessageType::Request, Some(GUEST));
        for length in 0..good.len() {
            let _ = answer(&good[..length], GUEST, 1500);
        }
        for at in 0..good.len() {
            for value in [0, 1, 255] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = answer(&bad, GUEST, 1500);
            }
        }
    }
}
