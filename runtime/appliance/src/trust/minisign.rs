//! minisign's signature files: four lines, the second and the last base64.
//!
//! The first signature is over the message (`Ed`) or its BLAKE2b-512 (`ED`); the second is over the
//! first and the trusted comment.

use blake2::{Blake2b512, Digest as _};

use super::error::KeyError;
use super::key::PublicKey;
use super::text::{Fields, decode, encode};

/// In front of what nobody has signed.
pub(super) const COMMENT: &str = "untrusted comment: ";
const TRUSTED_COMMENT: &str = "trusted comment: ";
/// Signatures over the message itself; all keys have it too.
pub(super) const LEGACY: [u8; 2] = *b"Ed";
/// Signatures over the message's BLAKE2b-512.
const PREHASHED: [u8; 2] = *b"ED";
const WHAT: &str = "minisign signature";

/// A minisign signature file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinisignSignature {
    prehashed: bool,
    id: [u8; 8],
    signature: [u8; 64],
    comment: String,
    global: [u8; 64],
}

/// A key's id as minisign shows it.
pub(super) fn shown(id: [u8; 8]) -> String {
    format!("{:016X}", u64::from_le_bytes(id))
}

pub(super) fn prehash(message: &[u8]) -> [u8; 64] {
    Blake2b512::digest(message).into()
}

impl MinisignSignature {
    /// Reads the text of a signature file.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let form = |reason| KeyError::Form { what: WHAT, reason };
        let text = text.strip_suffix('\n').unwrap_or(text);
        let lines: Vec<&str> = text.split('\n').take(5).collect();
        let lines: Vec<&str> = lines
            .iter()
            .map(|line| line.trim_end_matches('\r'))
            .collect();
        let &[untrusted, first, comment, global] = &lines[..] else {
            return Err(form("it does not have four lines"));
        };
        let Some(comment) = comment.strip_prefix(TRUSTED_COMMENT) else {
            return Err(form("it has no trusted comment"));
        };
        if !untrusted.starts_with(COMMENT.trim_end()) {
            return Err(form("it has no untrusted comment"));
        }
        let (first, global) = (decode(first, WHAT)?, decode(global, WHAT)?);
        let mut fields = Fields(&first);
        let mut read = || {
            let (algorithm, id, signature) = (fields.take()?, fields.take()?, fields.take()?);
            fields.end((algorithm, id, signature))
        };
        let (algorithm, id, signature) = read().ok_or_else(|| form("its length is wrong"))?;
        let prehashed = match algorithm {
            PREHASHED => true,
            LEGACY => false,
            _ => return Err(form("its algorithm is not known")),
        };
        let global = global.try_into();
        Ok(Self {
            prehashed,
            id,
            signature,
            comment: comment.to_owned(),
            global: global.map_err(|_| form("its length is wrong"))?,
        })
    }

    /// Signs with `sign`, which knows the key of this id.
    pub(super) fn make(
        id: [u8; 8],
        message: &[u8],
        comment: &str,
        sign: impl Fn(&[u8]) -> [u8; 64],
    ) -> Self {
        let signature = sign(&prehash(message));
        Self {
            prehashed: true,
            id,
            signature,
            comment: comment.to_owned(),
            global: sign(&[&signature, comment.as_bytes()].concat()),
        }
    }

    /// The text of the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let algorithm = if self.prehashed { PREHASHED } else { LEGACY };
        let first = encode(&[&algorithm[..], &self.id, &self.signature].concat());
        let global = encode(&self.global);
        let comment = &self.comment;
        format!(
            "{COMMENT}signature by minisign key {}\n{first}\n{TRUSTED_COMMENT}{comment}\n{global}\n",
            shown(self.id)
        )
    }

    /// The key that it says to be of, as [`PublicKey`] shows it.
    #[must_use]
    pub fn key(&self) -> String {
        format!("minisign key {}", shown(self.id))
    }

    pub(super) fn is_of(&self, key: &PublicKey) -> bool {
        key.id == Some(self.id)
    }

    /// Whether this key made it, over this message, with its comment.
    #[must_use]
    pub fn verifies(&self, message: &[u8], key: &PublicKey) -> bool {
        let digest = prehash(message);
        let signed = if self.prehashed { &digest } else { message };
        let commented = [&self.signature, self.comment.as_bytes()].concat();
        self.is_of(key)
            && key.verifies(signed, &self.signature)
            && key.verifies(&commented, &self.global)
    }
}
