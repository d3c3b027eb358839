//! The little that a forwarder must know of DNS (RFC 1035): how a question is turned down, and the
//! names that it answers by itself.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Length of a message's header.
const HEADER_BYTES: usize = 12;
/// The response bit, in the header's third byte.
const RESPONSE: u8 = 0x80;
/// Opcode and "recursion desired", which an answer repeats.
const REPEATED: u8 = 0x79;
/// "Recursion available" and the code "server failure", in the fourth byte.
const SERVER_FAILURE: u8 = 0x82;

/// Makes the answer "server failure" to a question. `None`: it is not a question.
pub(super) fn server_failure(question: &[u8]) -> Option<Vec<u8>> {
    let &[id_high, id_low, flags, ..] = question.first_chunk::<HEADER_BYTES>()?;
    if flags & RESPONSE != 0 {
        return None;
    }
    let mut answer = vec![
        id_high,
        id_low,
        RESPONSE | (flags & REPEATED),
        SERVER_FAILURE,
    ];
    // No section follows: the identifier is what tells the guest which question it was.
    answer.resize(HEADER_BYTES, 0);
    Some(answer)
}

/// Longest question that is looked at, in bytes: a header, a name and its type.
const QUESTION_BYTES_MAX: usize = 512;
/// Types and class of what is asked for.
const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;
/// "Authoritative", in the third byte.
const AUTHORITATIVE: u8 = 0x04;
/// "Recursion available" and no error, in the fourth byte.
const FINE: u8 = 0x80;
/// Opcode, in the third byte: anything but 0 is no plain question.
const OPCODE: u8 = 0x78;
/// How long an answer holds, in seconds: nodes come and go with their program.
const LIFE_SECONDS: u32 = 60;
/// A pointer to the name of the question, right behind the header.
const NAME_OF_QUESTION: [u8; 2] = [0xc0, 12];
/// What names of addresses end in.
const REVERSE: &str = ".in-addr.arpa";

/// Answers a question about one of these names or addresses. `None`: it is about something else.
pub(super) fn own_answer(question: &[u8], hosts: &BTreeMap<String, Ipv4Addr>) -> Option<Vec<u8>> {
    if hosts.is_empty() || question.len() > QUESTION_BYTES_MAX {
        return None;
    }
    let (header, rest) = question.split_first_chunk::<HEADER_BYTES>()?;
    let &[id_high, id_low, flags, _, 0, 1, ..] = header else {
        return None;
    };
    if flags & (RESPONSE | OPCODE) != 0 {
        return None;
    }
    let (name, after) = name(rest)?;
    let (&[type_high, type_low, class_high, class_low], tail) = after.split_first_chunk::<4>()?;
    let kind = u16::from_be_bytes([type_high, type_low]);
    if u16::from_be_bytes([class_high, class_low]) != CLASS_IN {
        return None;
    }
    // A name that is known has no records but this; saying so keeps others from being asked.
    let record = if let Some(address) = hosts.get(&name) {
        let is_asked = matches!(kind, TYPE_A | TYPE_ANY);
        is_asked.then(|| (TYPE_A, address.octets().to_vec()))
    } else {
        let address = reverse(&name)?;
        let (host, _) = hosts.iter().find(|(_, known)| **known == address)?;
        let is_asked = matches!(kind, TYPE_PTR | TYPE_ANY);
        is_asked.then(|| (TYPE_PTR, encode(host)))
    };
    let count = u8::from(record.is_some());
    let mut answer = vec![
        id_high,
        id_low,
        RESPONSE | AUTHORITATIVE | (flags & REPEATED),
        FINE,
    ];
    answer.extend([0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(rest.get(..rest.len() - tail.len())?);
    if let Some((kind, data)) = record {
        answer.extend(NAME_OF_QUESTION);
        answer.extend(kind.to_be_bytes());
        answer.extend(CLASS_IN.to_be_bytes());
        answer.extend(LIFE_SECONDS.to_be_bytes());
        answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}

/// Reads a name, in lowercase and with points between its labels; gives what follows it.
fn name(mut bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut name = String::new();
    loop {
        let (&length, rest) = bytes.split_first()?;
        if length == 0 {
            return Some((name, rest));
        }
        // Nothing points elsewhere in a question.
        if length > 63 {
            return None;
        }
        let (label, rest) = rest.split_at_checked(usize::from(length))?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&std::str::from_utf8(label).ok()?.to_ascii_lowercase());
        bytes = rest;
    }
}

fn encode(host: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in host.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

/// The address whose name is asked for by `15.2.0.10.in-addr.arpa`.
fn reverse(name: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = name.strip_suffix(REVERSE)?.parse().ok()?;
    let [a, b, c, d] = address.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut question = vec![0x12, 0x34, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
        question.extend(encode(name));
        question.extend(kind.to_be_bytes());
        question.extend(CLASS_IN.to_be_bytes());
        // EDNS, as resolvers send it.
        question.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
        question
    }

    fn hosts() -> BTreeMap<String, Ipv4Addr> {
        [("web1".to_owned(), Ipv4Addr::new(10, 0, 2, 15))].into()
    }

    #[test]
    fn known_names_and_addresses_are_answered() {
        let answer = own_answer(&ask("WEB1", TYPE_A), &hosts()).unwrap();
        assert_eq!(
            answer[..12],
            [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]
        );
        assert_eq!(answer[12..22], *b"\x04WEB1\0\0\x01\0\x01"[..10].as_ref());
        assert!(answer.ends_with(&[0, 4, 10, 0, 2, 15]));
        let none = own_answer(&ask("web1", 28), &hosts()).unwrap();
        assert_eq!((none[7], none.len()), (0, 12 + 6 + 4));
        let name = own_answer(&ask("15.2.0.10.in-addr.arpa", TYPE_PTR), &hosts()).unwrap();
        assert!(name.ends_with(b"\x04web1\0"));
        for other in [
            "web2",
            "web1.example.org",
            "16.2.0.10.in-addr.arpa",
            "x.in-addr.arpa",
        ] {
            assert_eq!(own_answer(&ask(other, TYPE_A), &hosts()), None, "{other}");
        }
    }

    #[test]
    fn hostile_questions_get_no_answer() {
        let good = ask("web1", TYPE_A);
        let end = good.len() - 11;
        for length in 0..end {
            assert_eq!(own_answer(&good[..length], &hosts()), None, "{length}");
        }
        assert!(own_answer(&good[..end], &hosts()).is_some());
        for at in 0..good.len() {
            for value in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = own_answer(&bad, &hosts());
            }
        }
        assert_eq!(own_answer(&[0; 600], &hosts()), None);
        assert_eq!(own_answer(&good, &BTreeMap::new()), None);
    }

    #[test]
    fn questions_are_turned_down_by_their_number() {
        let mut question = vec![0x12, 0x34, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 0];
        question.extend(b"\x07example\x03org\x00\x00\x01\x00\x01");
        assert_eq!(
            server_failure(&question).unwrap(),
            [0x12, 0x34, 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        assert_eq!(server_failure(b"short"), None);
        assert_eq!(
            server_failure(&[0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            None
        );
    }
}
