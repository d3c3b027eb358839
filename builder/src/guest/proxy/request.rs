//! What a guest asks of the proxy: one HTTP/1.1 request after the other, RFC 9112. Any bytes are
//! safe.

use crate::debian::is_plain_path;
use crate::percent;

/// The longest head of a request, in bytes.
pub(super) const HEAD_BYTES_MAX: usize = 16 << 10;
/// The most header fields of a request.
const FIELDS_MAX: usize = 64;
/// The longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 4 << 10;

/// A request for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Host, port where it is not 80, and path, without escapes: `mirror.example/debian/dists/…`.
    pub address: String,
    /// Only the head of the answer is wanted.
    pub is_head: bool,
    /// The connection is to be closed afterwards.
    pub closes: bool,
    /// How many bytes of what was read it takes.
    pub length: usize,
}

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a request.
    Partial,
    /// A request.
    Whole(Request),
    /// Nothing that the proxy serves: an HTTP status, and why. The connection ends with it.
    Refused(u16, &'static str),
}

/// Reads the head of a request.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Parsed::Partial,
        Ok(_) => return Parsed::Refused(431, "the request is too long"),
        Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Refused(431, "the request has too many fields");
        }
        Err(_) => return Parsed::Refused(400, "this is no HTTP request"),
    };
    let is_head = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        Some("CONNECT") => {
            return Parsed::Refused(403, "encrypted connections are not served; use http: here");
        }
        _ => return Parsed::Refused(405, "nothing but GET and HEAD is served"),
    };
    let field = |name: &str| {
        let mut fields = head.headers.iter();
        let found = fields.find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| field.value.trim_ascii())
    };
    let has_body = field("Transfer-Encoding").is_some()
        || field("Content-Length").is_some_and(|length| length != b"0");
    if has_body {
        return Parsed::Refused(400, "a request for a file has no body");
    }
    let Some(address) = address(head.path.unwrap_or_default(), field("Host")) else {
        return Parsed::Refused(400, "this is no address of a file that is served");
    };
    let says_close = field("Connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    Parsed::Whole(Request {
        address,
        is_head,
        closes: says_close || head.version != Some(1),
        length,
    })
}

/// Host and path of a request's target, in absolute or in origin form.
fn address(target: &str, host: Option<&[u8]>) -> Option<String> {
    if target.len() > ADDRESS_BYTES_MAX {
        return None;
    }
    let (host, path) = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest.split_once('/')?,
        Some(_) => return None,
        None => (std::str::from_utf8(host?).ok()?, target.strip_prefix('/')?),
    };
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    let host = host
        .strip_suffix(":80")
        .unwrap_or(host)
        .to_ascii_lowercase();
    if host.is_empty() || !host.bytes().all(is_host_byte) {
        return None;
    }
    let path = String::from_utf8(percent::decode(path)?).ok()?;
    let is_plain = is_plain_path(&path) && !path.contains(['?', '#']);
    is_plain.then(|| format!("{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Whole(request) => request,
            other => panic!("{text:?} is {other:?}"),
        }
    }

    #[test]
    fn both_forms_of_a_target_are_read() {
        let first = "GET http://A.invalid:80/debian/g%2b%2b_1%7e.deb HTTP/1.1\r\nHost: x\r\n\r\n";
        let request = whole(&format!("{first}GET"));
        assert_eq!(request.address, "a.invalid/debian/g++_1~.deb");
        assert_eq!(request.length, first.len());
        assert!(!request.closes && !request.is_head);
        let request =
            whole("HEAD /a/b HTTP/1.1\r\nhost: m.invalid:8080\r\nconnection: Close\r\n\r\n");
        assert_eq!(request.address, "m.invalid:8080/a/b");
        assert!(request.closes && request.is_head);
        assert!(whole("GET http://h/a HTTP/1.0\r\n\r\n").closes);
        assert_eq!(parse(b"GET http://h/a HTTP/1.1\r\nHost:"), Parsed::Partial);
    }

    #[test]
    fn what_is_no_request_for_a_file_is_refused() {
        for (text, status) in [
            ("CONNECT h:443 HTTP/1.1\r\n\r\n", 403),
            ("POST http://h/a HTTP/1.1\r\n\r\n", 405),
            ("GET https://h/a HTTP/1.1\r\n\r\n", 400),
            ("GET http://h HTTP/1.1\r\n\r\n", 400),
            ("GET /a HTTP/1.1\r\n\r\n", 400),
            ("GET http://h/../a HTTP/1.1\r\n\r\n", 400),
            ("GET http://h/%2e%2e/a HTTP/1.1\r\n\r\n", 400),
            ("GET http://h/a%0 HTTP/1.1\r\n\r\n", 400),
            ("GET http://h/a%20b HTTP/1.1\r\n\r\n", 400),
            ("GET http://h/a?b HTTP/1.1\r\n\r\n", 400),
            ("GET http://u@h/a HTTP/1.1\r\n\r\n", 400),
            ("GET http://h/a HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 400),
            ("\0\0\0\0", 400),
        ] {
            match parse(text.as_bytes()) {
                Parsed::Refused(found, _) => assert_eq!(found, status, "{text:?}"),
                other => panic!("{text:?} is {other:?}"),
            }
        }
        let long = format!("GET http://h/{} HTTP/1.1\r\n", "a".repeat(HEAD_BYTES_MAX));
        assert!(matches!(parse(long.as_bytes()), Parsed::Refused(431, _)));
        let many = format!("GET http://h/a HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
        assert!(matches!(parse(many.as_bytes()), Parsed::Refused(431, _)));
    }

    #[test]
    fn mutations_never_panic() {
        let good =
            b"GET http://h.invalid/debian/a%2bb HTTP/1.1\r\nHost: h\r\nRange: bytes=1-\r\n\r\n";
        for at in 0..good.len() {
            for value in [0, b' ', b'%', b'/', b'\n', 0x7f, 0xff] {
                let mut bytes = good.to_vec();
                bytes[at] = value;
                let _ = parse(&bytes);
            }
            let _ = parse(&good[..at]);
        }
    }
}
