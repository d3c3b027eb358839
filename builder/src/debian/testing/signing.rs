//! A key of the tests' own, and what it signs. The integration suite uses this file too.

use std::io::Write;
use std::time::{Duration, SystemTime};

use sequoia_openpgp as openpgp;

use openpgp::cert::prelude::*;
use openpgp::policy::StandardPolicy;
use openpgp::serialize::stream::{Message, Signer};

/// 2026-09-12 07:55:41 UTC.
pub(crate) const NOW: i64 = 1_789_199_741;
pub(crate) const NOW_TEXT: &str = "Sat, 12 Sep 2026 07:55:41 UTC";
pub(crate) const HOUR: i64 = 3600;

pub(crate) fn instant(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap())
}

/// A certificate with its secret key, made an hour before [`NOW`].
pub(crate) fn new_key(valid_seconds: Option<u64>) -> Cert {
    let (cert, _) = CertBuilder::new()
        .add_userid("Test Archive <archive@example.invalid>")
        .add_signing_subkey()
        .set_creation_time(instant(NOW - HOUR))
        .set_validity_period(valid_seconds.map(Duration::from_secs))
        .generate()
        .unwrap();
    cert
}

/// Signs a text as an InRelease file is signed, as of [`NOW`].
pub(crate) fn clear_sign(cert: &Cert, text: &str) -> Vec<u8> {
    let policy = StandardPolicy::new();
    let key = cert
        .keys()
        .secret()
        .with_policy(&policy, instant(NOW))
        .for_signing()
        .next()
        .unwrap();
    let pair = key.key().clone().into_keypair().unwrap();
    let mut signed = Vec::new();
    let signer = Signer::new(Message::new(&mut signed), pair).unwrap();
    let mut signer = signer
        .cleartext()
        .creation_time(instant(NOW))
        .build()
        .unwrap();
    signer.write_all(text.as_bytes()).unwrap();
    signer.finalize().unwrap();
    signed
}
