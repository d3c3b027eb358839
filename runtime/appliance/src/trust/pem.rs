//! Raw Ed25519 keys in PEM, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write
//! them (RFC 8410). For one algorithm their DER is a fixed prefix and 32 bytes.

use super::error::KeyError;
use super::text::{Fields, decode};

/// SubjectPublicKeyInfo: sequence, algorithm 1.3.101.112, bit string of 32 bytes.
const PUBLIC: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// PrivateKeyInfo, version 0: algorithm 1.3.101.112, octet string in an octet string of 32 bytes.
const PRIVATE: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const PUBLIC_LABEL: &str = "PUBLIC KEY";
const PRIVATE_LABEL: &str = "PRIVATE KEY";

/// Whether a text is meant to be PEM.
pub(super) fn is_pem(text: &str) -> bool {
    text.trim_start().starts_with("-----BEGIN")
}

pub(super) fn public(text: &str) -> Result<[u8; 32], KeyError> {
    read(text, PUBLIC_LABEL, "Ed25519 public key", &PUBLIC)
}

pub(super) fn private(text: &str) -> Result<[u8; 32], KeyError> {
    read(text, PRIVATE_LABEL, "Ed25519 private key", &PRIVATE)
}

fn read(text: &str, label: &str, what: &'static str, prefix: &[u8]) -> Result<[u8; 32], KeyError> {
    let wrong = |reason| KeyError::Form { what, reason };
    let mut lines = text.trim().lines().map(str::trim_end);
    let first = lines.next().unwrap_or_default();
    if first == "-----BEGIN ENCRYPTED PRIVATE KEY-----" {
        let what = "encrypted PEM keys";
        return Err(KeyError::Unsupported { what });
    }
    if first == "-----BEGIN OPENSSH PRIVATE KEY-----" {
        let what = "keys of OpenSSH";
        return Err(KeyError::Unsupported { what });
    }
    if first != format!("-----BEGIN {label}-----") {
        return Err(wrong("its PEM is of something else"));
    }
    let mut body = String::new();
    let end = format!("-----END {label}-----");
    loop {
        match lines.next() {
            Some(line) if line == end => break,
            Some(line) => body.push_str(line),
            None => return Err(wrong("its PEM has no end")),
        }
    }
    if lines.next().is_some() {
        return Err(wrong("there is more after its PEM"));
    }
    let bytes = decode(&body, what)?;
    let key = bytes.strip_prefix(prefix).and_then(|rest| {
        let mut fields = Fields(rest);
        let key = fields.take()?;
        fields.end(key)
    });
    key.ok_or_else(|| wrong("it is of another algorithm"))
}
