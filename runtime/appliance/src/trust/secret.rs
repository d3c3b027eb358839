//! Secret keys: minisign's files, with a password or without, and raw Ed25519 in PEM.

use blake2::{Blake2b, Digest as _, digest::consts::U32};
use ed25519_dalek::{Signer as _, SigningKey};

use super::check::message;
use super::error::KeyError;
use super::key::PublicKey;
use super::minisign::{self, MinisignSignature};
use super::pem;
use super::text::{Fields, decode, encode};
use crate::bundle::{AttachedSignature, BlobDigest, SignatureForm};

const WHAT: &str = "secret key";
const CHECKSUM: [u8; 2] = *b"B2";
const SCRYPT: [u8; 2] = *b"Sc";
const NO_PASSWORD: [u8; 2] = [0; 2];
/// Id, secret key and checksum: what a password covers.
const COVERED_BYTES: usize = 8 + 64 + 32;
/// libsodium's block size of scrypt.
const BLOCK: u32 = 8;
/// A password may take 2 to the power of so many rounds, each of which holds 1 KiB of memory:
/// what minisign itself uses.
const ROUNDS_LOG2_MAX: u32 = 20;
/// And so many times that.
const TIMES_MAX: u64 = 16;
/// How many random bytes make a key: its id and its seed.
pub const SEED_BYTES: usize = 8 + 32;

/// A secret key that can sign.
pub struct SecretKey {
    id: Option<[u8; 8]>,
    key: SigningKey,
}

/// Its secret is nobody's to see.
impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretKey").finish_non_exhaustive()
    }
}

/// A secret key's file.
#[derive(Debug)]
pub enum SecretKeyFile {
    /// It can be used as it is.
    Plain(SecretKey),
    /// It wants a password first.
    Encrypted(EncryptedKey),
}

/// A minisign key that a password opens.
#[derive(Debug)]
pub struct EncryptedKey {
    salt: [u8; 32],
    rounds_log2: u32,
    times: u32,
    covered: [u8; COVERED_BYTES],
}

impl SecretKeyFile {
    /// Reads the text of a minisign secret key or of a PEM.
    ///
    /// # Errors
    /// It is neither, or of a kind that is not supported.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let form = |reason| KeyError::Form { what: WHAT, reason };
        if pem::is_pem(text) {
            let key = SigningKey::from_bytes(&pem::private(text)?);
            return Ok(Self::Plain(SecretKey { id: None, key }));
        }
        let mut lines = text.trim().lines().map(str::trim_end);
        let line = match (lines.next(), lines.next(), lines.next()) {
            (Some(first), Some(line), None) if first.starts_with(minisign::COMMENT) => line,
            _ => return Err(form("it is neither minisign's nor a PEM of Ed25519")),
        };
        let bytes = decode(line, WHAT)?;
        let mut fields = Fields(&bytes);
        let mut read = || {
            let head: [[u8; 2]; 3] = [fields.take()?, fields.take()?, fields.take()?];
            let salt: [u8; 32] = fields.take()?;
            let limits: [[u8; 8]; 2] = [fields.take()?, fields.take()?];
            let covered: [u8; COVERED_BYTES] = fields.take()?;
            fields.end((head, salt, limits.map(u64::from_le_bytes), covered))
        };
        let (head, salt, [operations, memory], covered) =
            read().ok_or_else(|| form("its length is wrong"))?;
        let [algorithm, derivation, summed] = head;
        if algorithm != minisign::LEGACY || summed != CHECKSUM {
            return Err(form("its algorithm is not known"));
        }
        match derivation {
            // minisign writes no checksum then.
            NO_PASSWORD => {
                let right = |sum, id, pair: &_| sum == [0; 32] || sum == checksum(id, pair);
                open(&covered, right, form("its checksum is wrong")).map(Self::Plain)
            }
            SCRYPT => {
                let (rounds_log2, times) = parameters(operations, memory)?;
                Ok(Self::Encrypted(EncryptedKey {
                    salt,
                    rounds_log2,
                    times,
                    covered,
                }))
            }
            _ => Err(form("its password's function is not known")),
        }
    }
}

/// libsodium's choice of scrypt's N (as a power of two) and p from its two limits.
fn parameters(operations: u64, memory: u64) -> Result<(u32, u32), KeyError> {
    let block = u64::from(BLOCK);
    let operations = operations.max(32768);
    let by_memory = operations >= memory / 32;
    let most = match by_memory {
        true => memory / (block * 128),
        false => operations / (block * 4),
    };
    // The largest power of two that is at most `most`, at least 2.
    let rounds_log2 = most.max(2).ilog2();
    if rounds_log2 > ROUNDS_LOG2_MAX {
        return Err(KeyError::Rounds {
            found: rounds_log2,
            limit: ROUNDS_LOG2_MAX,
        });
    }
    let times = match by_memory {
        true => ((operations / 4) >> rounds_log2) / block,
        false => 1,
    };
    match u32::try_from(times) {
        Ok(count @ 1..) if times <= TIMES_MAX => Ok((rounds_log2, count)),
        _ => Err(KeyError::Form {
            what: WHAT,
            reason: "its password's limits are out of range",
        }),
    }
}

/// Takes apart what a password covers; `wrong` is what is wrong where `is_right` says no.
fn open(
    covered: &[u8; COVERED_BYTES],
    is_right: impl Fn([u8; 32], [u8; 8], &[u8; 64]) -> bool,
    wrong: KeyError,
) -> Result<SecretKey, KeyError> {
    let mut fields = Fields(covered);
    let mut read = || {
        let (id, pair, sum): ([u8; 8], [u8; 64], [u8; 32]) =
            (fields.take()?, fields.take()?, fields.take()?);
        fields.end((id, pair, sum))
    };
    match read() {
        Some((id, pair, sum)) if is_right(sum, id, &pair) => {
            let key = SigningKey::from_keypair_bytes(&pair);
            let key = key.map_err(|_| KeyError::Form {
                what: WHAT,
                reason: "its two halves are of different keys",
            })?;
            Ok(SecretKey { id: Some(id), key })
        }
        _ => Err(wrong),
    }
}

fn checksum(id: [u8; 8], pair: &[u8; 64]) -> [u8; 32] {
    let covered = [&minisign::LEGACY[..], &id, pair].concat();
    Blake2b::<U32>::digest(covered).into()
}

impl EncryptedKey {
    /// Opens the key. That takes a second and, as minisign makes keys, 1 GiB of memory.
    ///
    /// # Errors
    /// The password is another.
    pub fn open(&self, password: &[u8]) -> Result<SecretKey, KeyError> {
        let log2 = u8::try_from(self.rounds_log2).map_err(|_| KeyError::Password)?;
        // The length is of password hashes only; the output's own counts.
        let parameters = scrypt::Params::new(log2, BLOCK, self.times, 32);
        let parameters = parameters.map_err(|_| KeyError::Password)?;
        let mut bytes = [0; COVERED_BYTES];
        scrypt::scrypt(password, &self.salt, &parameters, &mut bytes)
            .map_err(|_| KeyError::Password)?;
        for (byte, covered) in bytes.iter_mut().zip(&self.covered) {
            *byte ^= covered;
        }
        let right = |sum, id, pair: &_| sum == checksum(id, pair);
        open(&bytes, right, KeyError::Password)
    }
}

impl SecretKey {
    /// Makes a minisign key of random bytes.
    #[must_use]
    pub fn of_seed(seed: &[u8; SEED_BYTES]) -> Self {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        id.copy_from_slice(&seed[..8]);
        secret.copy_from_slice(&seed[8..]);
        Self {
            id: Some(id),
            key: SigningKey::from_bytes(&secret),
        }
    }

    /// The text of minisign's secret key file, without a password; `None` for a raw key.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        let (id, pair) = (self.id?, self.key.to_keypair_bytes());
        let mut bytes = [minisign::LEGACY, NO_PASSWORD, CHECKSUM].concat();
        bytes.extend_from_slice(&[0; 32 + 8 + 8]);
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(&pair);
        bytes.extend_from_slice(&[0; 32]);
        let (comment, line) = (minisign::COMMENT, encode(&bytes));
        Some(format!("{comment}minisign secret key\n{line}\n"))
    }

    /// Its public key.
    ///
    /// # Errors
    /// Never for a key that anybody made.
    pub fn public(&self) -> Result<PublicKey, KeyError> {
        PublicKey::new(self.id, self.key.verifying_key().to_bytes())
    }

    /// Signs an appliance. The same key and appliance give the same bytes.
    #[must_use]
    pub fn sign(&self, manifest: BlobDigest) -> AttachedSignature {
        let message = message(manifest);
        let sign = |bytes: &[u8]| self.key.sign(bytes).to_bytes();
        match self.id {
            Some(id) => {
                let comment = message.trim_end();
                let made = MinisignSignature::make(id, message.as_bytes(), comment, sign);
                AttachedSignature {
                    form: SignatureForm::Minisign,
                    bytes: made.to_text().into_bytes(),
                }
            }
            None => AttachedSignature {
                form: SignatureForm::Ed25519,
                bytes: sign(message.as_bytes()).to_vec(),
            },
        }
    }
}
