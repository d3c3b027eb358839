//! The little that a forwarder must know of DNS (RFC 1035): how a question is turned down.

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

#[cfg(test)]
mod tests {
    use super::*;

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
