//! ssh host keys: Ed25519 (RFC 8709) in OpenSSH's own format (PROTOCOL.key), without a passphrase.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

const KIND: &[u8] = b"ssh-ed25519";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
const END: &str = "-----END OPENSSH PRIVATE KEY-----\n";
/// Characters in a line between the two.
const LINE: usize = 70;
/// What the private part's length is a multiple of, in bytes.
const BLOCK: usize = 8;

/// A key's two files.
pub(super) struct Pair {
    pub(super) private: String,
    pub(super) public: String,
}

/// Makes a key of 32 random bytes; `check` is any number.
pub(super) fn make(seed: &[u8; 32], check: [u8; 4], comment: &str) -> Pair {
    let public = SigningKey::from_bytes(seed).verifying_key().to_bytes();
    let mut blob = Vec::new();
    string(&mut blob, KIND);
    string(&mut blob, &public);
    let mut secret = Vec::new();
    secret.extend(check);
    secret.extend(check);
    string(&mut secret, KIND);
    string(&mut secret, &public);
    string(&mut secret, &[*seed, public].concat());
    string(&mut secret, comment.as_bytes());
    let mut pad = 1;
    while secret.len() % BLOCK != 0 {
        secret.push(pad);
        pad += 1;
    }
    let mut whole = MAGIC.to_vec();
    string(&mut whole, b"none");
    string(&mut whole, b"none");
    string(&mut whole, b"");
    whole.extend(1_u32.to_be_bytes());
    string(&mut whole, &blob);
    string(&mut whole, &secret);
    let mut private = BEGIN.to_owned();
    let text = STANDARD.encode(whole);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
        private.push_str(line);
        private.push('\n');
        rest = after;
    }
    private.push_str(END);
    Pair {
        private,
        public: format!("ssh-ed25519 {} {comment}\n", STANDARD.encode(blob)),
    }
}

/// Appends a string with its length.
fn string(bytes: &mut Vec<u8>, of: &[u8]) {
    // None of ours is longer than a few hundred bytes.
    bytes.extend(u32::try_from(of.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(of);
}

/// Whether a text is a private key, by its first and last line.
pub(super) fn is_private(text: &str) -> bool {
    text.starts_with(BEGIN) && text.ends_with(END)
}

/// Whether a text is one line with a public key.
pub(super) fn is_public(text: &str) -> bool {
    text.starts_with("ssh-ed25519 ") && text.ends_with('\n') && text.lines().count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// RFC 8032 7.1, the first test vector.
    #[test]
    fn the_public_key_is_the_seeds() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let bytes = |hex: &str| -> Vec<u8> {
            let digits = (0..hex.len()).step_by(2);
            digits
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect()
        };
        let pair = make(&bytes(seed).try_into().unwrap(), [1; 4], "me");
        let blob = pair.public.split(' ').nth(1).unwrap();
        assert!(STANDARD.decode(blob).unwrap().ends_with(&bytes(public)));
        assert!(is_private(&pair.private) && is_public(&pair.public));
        assert!(!is_private("") && !is_public("ssh-ed25519 x\nssh-rsa y\n"));
    }

    #[test]
    fn openssh_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        for (seed, comment) in [([7; 32], "root@web1"), ([255; 32], ""), ([0; 32], "a b c")] {
            let pair = make(&seed, [9, 8, 7, 6], comment);
            let path = folder.path().join("key");
            std::fs::write(&path, &pair.private).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let asked = std::process::Command::new("ssh-keygen")
                .arg("-y")
                .arg("-f")
                .arg(&path)
                .output();
            let Ok(asked) = asked else {
                let required = std::env::var_os("COOP_REQUIRE_ORACLES").is_some();
                assert!(!required, "ssh-keygen is missing");
                return;
            };
            assert!(
                asked.status.success(),
                "{}",
                String::from_utf8_lossy(&asked.stderr)
            );
            let said = String::from_utf8(asked.stdout).unwrap();
            assert_eq!(said.trim_end(), pair.public.trim_end());
        }
    }
}
