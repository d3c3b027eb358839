//! Is an appliance trusted?

use super::error::TrustError;
use super::key::PublicKey;
use super::minisign::MinisignSignature;
use super::policy::{Policy, TrustedKey};
use crate::bundle::{AttachedSignature, BlobDigest, SignatureForm};

/// What is signed: a line that names the manifest and that no other use of a key has.
#[must_use]
pub fn message(manifest: BlobDigest) -> String {
    format!("coop appliance {manifest}\n")
}

/// What is to be trusted.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The digest of the manifest.
    pub manifest: BlobDigest,
    /// The appliance's name.
    pub appliance: &'a str,
    /// Where it was pulled from, without tag and digest; `None` for a file.
    pub reference: Option<&'a str>,
}

/// Whose signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// What the policy calls the key.
    pub name: String,
    /// The key as [`PublicKey`] shows it.
    pub key: String,
}

/// Finds a signature over the subject by a key that the policy trusts for it.
///
/// # Errors
/// There is none. Of several reasons the gravest is given.
pub fn check(
    subject: &Subject<'_>,
    signatures: &[AttachedSignature],
    policy: &Policy,
) -> Result<Signer, TrustError> {
    let message = message(subject.manifest);
    let mut reason = match (signatures, &policy.keys[..]) {
        ([], _) => TrustError::Unsigned,
        (_, []) => TrustError::NoKeys,
        _ => TrustError::NoRawKey,
    };
    for signature in signatures {
        let found = match signature.form {
            SignatureForm::Minisign => minisign(subject, &message, &signature.bytes, policy),
            SignatureForm::Ed25519 => raw(subject, &message, &signature.bytes, policy),
        };
        match found {
            Ok(key) => {
                return Ok(Signer {
                    name: key.name.clone(),
                    key: key.key.to_string(),
                });
            }
            Err(other) if gravity(&other) > gravity(&reason) => reason = other,
            Err(_) => {}
        }
    }
    Err(reason)
}

fn gravity(error: &TrustError) -> u8 {
    match error {
        TrustError::NoRawKey => 0,
        TrustError::Damaged(_) => 1,
        TrustError::OtherKey { .. } => 2,
        TrustError::NoKeys | TrustError::Unsigned => 3,
        TrustError::OtherAppliance { .. } => 4,
        TrustError::Swapped { .. } => 5,
    }
}

fn minisign<'p>(
    subject: &Subject<'_>,
    message: &str,
    bytes: &[u8],
    policy: &'p Policy,
) -> Result<&'p TrustedKey, TrustError> {
    let text = String::from_utf8_lossy(bytes);
    let signature = MinisignSignature::parse(&text).map_err(TrustError::Damaged)?;
    let mut reason = TrustError::OtherKey {
        key: signature.key(),
    };
    // Ids are no more than hints: several keys may have one.
    for key in policy.keys.iter().filter(|key| signature.is_of(&key.key)) {
        let other = match signature.verifies(message.as_bytes(), &key.key) {
            true if covers(key, subject) => return Ok(key),
            true => other_appliance(key, subject),
            false => TrustError::Swapped {
                name: key.name.clone(),
            },
        };
        if gravity(&other) > gravity(&reason) {
            reason = other;
        }
    }
    Err(reason)
}

fn raw<'p>(
    subject: &Subject<'_>,
    message: &str,
    bytes: &[u8],
    policy: &'p Policy,
) -> Result<&'p TrustedKey, TrustError> {
    let signature: &[u8; 64] = bytes.try_into().map_err(|_| {
        TrustError::Damaged(super::error::KeyError::Form {
            what: "Ed25519 signature",
            reason: "it does not have 64 bytes",
        })
    })?;
    let made = |key: &PublicKey| key.id.is_none() && key.verifies(message.as_bytes(), signature);
    let mut reason = TrustError::NoRawKey;
    for key in policy.keys.iter().filter(|key| made(&key.key)) {
        if covers(key, subject) {
            return Ok(key);
        }
        reason = other_appliance(key, subject);
    }
    Err(reason)
}

fn covers(key: &TrustedKey, subject: &Subject<'_>) -> bool {
    key.covers(subject.appliance, subject.reference)
}

fn other_appliance(key: &TrustedKey, subject: &Subject<'_>) -> TrustError {
    let name = subject.appliance.escape_debug();
    TrustError::OtherAppliance {
        name: key.name.clone(),
        subject: match subject.reference {
            Some(reference) => format!("'{name}' of {}", reference.escape_debug()),
            None => format!("'{name}' in a file"),
        },
    }
}
