//! OpenPGP: which certificates speak for an archive, and what they have signed.

use std::io::Read;
use std::time::{Duration, SystemTime};

use sequoia_openpgp as openpgp;

use openpgp::cert::prelude::*;
use openpgp::parse::Parse;
use openpgp::parse::stream::{
    GoodChecksum, MessageLayer, MessageStructure, VerificationError, VerificationHelper,
    VerifierBuilder,
};
use openpgp::policy::StandardPolicy;
use openpgp::types::RevocationStatus;
use openpgp::{Cert, KeyHandle};

/// The certificates of Debian's archive; `archive-keys.README` says how the file was made.
const DEBIAN_ARCHIVE_KEYS: &[u8] = include_bytes!("archive-keys.asc");
/// The largest keyring, in bytes.
const KEYRING_BYTES_MAX: usize = 16 << 20;
/// The most certificates in a keyring.
const CERTIFICATES_MAX: usize = 1000;

/// Why something signed is not believed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The keyring is no OpenPGP file, is too large, or has no certificate in it.
    #[error("the keyring cannot be used: {0}")]
    Keyring(String),
    /// The text is not signed as it should be, or not by anybody in the keyring.
    #[error("the signature is not valid: {0}")]
    Signature(String),
}

/// Certificates that are trusted to sign an archive's index.
#[derive(Clone, Debug)]
pub struct Keyring {
    certificates: Vec<Cert>,
}

impl Keyring {
    /// Debian's own archive keys, embedded in the program.
    ///
    /// # Errors
    /// Never in practice: a test reads the embedded file.
    pub fn debian() -> Result<Self, KeysError> {
        Self::parse(DEBIAN_ARCHIVE_KEYS)
    }

    /// Reads a keyring, binary or armoured.
    ///
    /// # Errors
    /// [`KeysError::Keyring`].
    pub fn parse(bytes: &[u8]) -> Result<Self, KeysError> {
        if bytes.len() > KEYRING_BYTES_MAX {
            let text = format!("it has more than {KEYRING_BYTES_MAX} bytes");
            return Err(KeysError::Keyring(text));
        }
        let unreadable = |error: openpgp::anyhow::Error| KeysError::Keyring(format!("{error:#}"));
        let parser = CertParser::from_bytes(bytes).map_err(unreadable)?;
        let certificates: Vec<Cert> = parser
            .take(CERTIFICATES_MAX)
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        if certificates.is_empty() {
            return Err(KeysError::Keyring("it has no certificate in it".to_owned()));
        }
        Ok(Self { certificates })
    }

    /// Verifies a text with an inline signature (an InRelease file) as of the instant `now`, and
    /// returns the signed part alone.
    ///
    /// At least one signature must be good, of a certificate in the keyring that is neither expired
    /// nor revoked at `now`, with algorithms that are not weak; a wrong signature by a known
    /// certificate spoils the whole.
    ///
    /// # Errors
    /// [`KeysError::Signature`].
    pub fn verify(&self, signed: &[u8], now_seconds: i64) -> Result<Vec<u8>, KeysError> {
        let invalid = |error: openpgp::anyhow::Error| KeysError::Signature(format!("{error:#}"));
        let seconds = u64::try_from(now_seconds).unwrap_or(0);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let policy = StandardPolicy::at(now);
        let helper = Helper {
            keyring: self,
            policy: &policy,
            now,
        };
        let mut verifier = VerifierBuilder::from_bytes(signed)
            .and_then(|builder| builder.with_policy(&policy, now, helper))
            .map_err(invalid)?;
        let mut text = Vec::new();
        verifier
            .read_to_end(&mut text)
            .map_err(|error| KeysError::Signature(error.to_string()))?;
        Ok(text)
    }
}

struct Helper<'a> {
    keyring: &'a Keyring,
    policy: &'a StandardPolicy<'a>,
    now: SystemTime,
}

impl VerificationHelper for Helper<'_> {
    fn get_certs(&mut self, _ids: &[KeyHandle]) -> openpgp::Result<Vec<Cert>> {
        Ok(self.keyring.certificates.clone())
    }

    fn check(&mut self, structure: MessageStructure<'_>) -> openpgp::Result<()> {
        let mut layers = structure.into_iter();
        let (Some(MessageLayer::SignatureGroup { results }), None) = (layers.next(), layers.next())
        else {
            return Err(openpgp::anyhow::anyhow!("it is not a plain signed text"));
        };
        let mut good = 0;
        let mut problems = Vec::new();
        for result in results {
            match result {
                Ok(checksum) => match self.check_now(&checksum) {
                    Ok(()) => good += 1,
                    Err(error) => problems.push(format!("{error:#}")),
                },
                Err(error @ VerificationError::BadSignature { .. }) => {
                    return Err(openpgp::anyhow::anyhow!("{error}"));
                }
                Err(VerificationError::MissingKey { sig }) => {
                    let issuers = sig.get_issuers();
                    let issuer = issuers
                        .first()
                        .map_or_else(String::new, ToString::to_string);
                    problems.push(format!("the key {issuer} is not in the keyring"));
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        match good {
            0 if problems.is_empty() => Err(openpgp::anyhow::anyhow!("there is no signature")),
            0 => Err(openpgp::anyhow::anyhow!("{}", problems.join("; "))),
            _ => Ok(()),
        }
    }
}

impl Helper<'_> {
    /// The library asks whether the key was good when it signed; a key that has expired or was
    /// revoked since then could have been misused with an old date.
    fn check_now(&self, checksum: &GoodChecksum<'_>) -> openpgp::Result<()> {
        let key = checksum
            .ka
            .amalgamation()
            .clone()
            .with_policy(self.policy, self.now)?;
        let certificate = checksum.ka.cert().with_policy(self.policy, self.now)?;
        certificate.alive()?;
        key.alive()?;
        let revoked = |status| matches!(status, RevocationStatus::Revoked(_));
        if revoked(certificate.revocation_status()) || revoked(key.revocation_status()) {
            let fingerprint = key.key().fingerprint();
            return Err(openpgp::anyhow::anyhow!("the key {fingerprint} is revoked"));
        }
        Ok(())
    }
}
