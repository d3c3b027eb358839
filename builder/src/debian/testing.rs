//! An archive that the tests make themselves: a key, a Release file, and packages.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use sequoia_openpgp as openpgp;

use openpgp::cert::prelude::*;
use openpgp::policy::StandardPolicy;
use openpgp::serialize::SerializeInto;
use openpgp::serialize::stream::{Message, Signer};
use tempfile::TempDir;

use crate::debian::keys::Keyring;
use crate::digest::Digest;

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

pub(crate) fn keyring(cert: &Cert) -> Keyring {
    Keyring::parse(&cert.armored().to_vec().unwrap()).unwrap()
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

/// A folder that is an archive with the suite `trixie`.
pub(crate) struct Archive {
    pub(crate) folder: TempDir,
    pub(crate) key: Cert,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            key: new_key(None),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.folder.path().display())
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Publishes the stanzas of a Packages file; `date` and `more` go into the Release file.
    pub(crate) fn publish(&self, packages: &str, date: &str, more: &str) {
        let path = "main/binary-amd64/Packages";
        self.write(&format!("dists/trixie/{path}"), packages.as_bytes());
        let digest = Digest::of(packages.as_bytes());
        let size = packages.len();
        self.write_release(&format!(
            "Origin: Debian\nSuite: stable\nCodename: trixie\nDate: {date}\n{more}\
             Architectures: all amd64\nComponents: main\nSHA256:\n {digest} {size} {path}\n"
        ));
    }

    pub(crate) fn write_release(&self, text: &str) {
        self.write("dists/trixie/InRelease", &clear_sign(&self.key, text));
    }
}
