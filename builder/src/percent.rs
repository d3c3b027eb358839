//! Percent-encoding, RFC 3986 section 2.1.

/// Writes bytes that are neither letters, digits nor in `kept` as `%XX`.
pub(crate) fn encode(bytes: &[u8], kept: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || kept.contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Takes each `%XX` out; nothing where a `%` has no two digits behind it.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, others) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(digits[0])? * 16 + digit(digits[1])?;
        bytes.push(u8::try_from(value).ok()?);
        rest = others;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let all: Vec<u8> = (0..=255).collect();
        let text = encode(&all, b"-_~");
        assert!(text.is_ascii() && !text.contains([' ', '/']));
        assert_eq!(decode(&text), Some(all));
        assert_eq!(encode(b"debian/g++_1~2", b"/+_~"), "debian/g++_1~2");
        assert_eq!(encode("a%b<\u{e9}".as_bytes(), b""), "a%25b%3C%C3%A9");
        assert_eq!(decode("g%2b%2B"), Some(b"g++".to_vec()));
        for text in ["%", "a%0", "%+1", "%zz", "%\u{e9}"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
