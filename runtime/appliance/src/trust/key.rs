//! Public keys.

use std::fmt;

use ed25519_dalek::{Signature, VerifyingKey};

use super::error::KeyError;
use super::text::{Fields, decode, encode};
use super::{minisign, pem};
use crate::bundle::BlobDigest;

const WHAT: &str = "public key";

/// A public key: minisign's, which has an id, or raw Ed25519.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// minisign's id of the key.
    pub(super) id: Option<[u8; 8]>,
    key: VerifyingKey,
}

impl PublicKey {
    /// Reads the text of a minisign public key, with its comment or without, or of a PEM.
    ///
    /// # Errors
    /// It is neither, or a point that nobody should sign with.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if pem::is_pem(text) {
            return Self::new(None, pem::public(text)?);
        }
        let form = |reason| KeyError::Form { what: WHAT, reason };
        let mut lines = text.trim().lines().map(str::trim_end);
        let mut line = lines.next().unwrap_or_default();
        if line.starts_with(minisign::COMMENT) {
            line = lines.next().unwrap_or_default();
        }
        if lines.next().is_some() {
            return Err(form("it has too many lines"));
        }
        let bytes = decode(line, WHAT)?;
        let mut fields = Fields(&bytes);
        let mut read = || {
            let (algorithm, id, key) = (fields.take()?, fields.take()?, fields.take()?);
            fields.end((algorithm, id, key))
        };
        match read() {
            Some((minisign::LEGACY, id, key)) => Self::new(Some(id), key),
            _ => Err(form("it is neither minisign's nor a PEM of Ed25519")),
        }
    }

    pub(super) fn new(id: Option<[u8; 8]>, bytes: [u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(&bytes).ok();
        let key = key.filter(|key| !key.is_weak()).ok_or(KeyError::Form {
            what: WHAT,
            reason: "its point is not on the curve, or weak",
        })?;
        Ok(Self { id, key })
    }

    /// The text of minisign's public key file; `None` for a raw key, which has no id.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        let id = self.id?;
        let bytes = [&minisign::LEGACY[..], &id, self.key.as_bytes()].concat();
        let (shown, line) = (minisign::shown(id), encode(&bytes));
        Some(format!(
            "{}minisign public key {shown}\n{line}\n",
            minisign::COMMENT
        ))
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        self.key.verify_strict(message, &signature).is_ok()
    }
}

/// The key as people compare it: minisign's id, or the start of a raw key's SHA-256.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "minisign key {}", minisign::shown(id)),
            None => {
                let digest = BlobDigest::of(self.key.as_bytes()).hex();
                write!(f, "Ed25519 key {}", digest.get(..16).unwrap_or_default())
            }
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
