//! Who may have made an appliance: keys, signatures, and which of them are trusted.
//!
//! A signature is over [`message`], a line with the digest of the appliance's manifest, which names
//! every other byte. Keys and signatures are minisign's (so that `minisign` makes and verifies them
//! too) or raw Ed25519 (`openssl`). Ed25519 is `ed25519-dalek`'s, with its strict verification; the
//! files around it are small enough to be read here.

mod check;
mod error;
mod key;
mod minisign;
mod pem;
mod policy;
mod secret;
#[cfg(test)]
mod tests;
mod text;

pub use check::{Signer, Subject, check, message};
pub use error::{KeyError, PolicyError, TrustError};
pub use key::PublicKey;
pub use minisign::MinisignSignature;
pub use policy::{POLICY_BYTES_MAX, Policy, TrustedKey};
pub use secret::{EncryptedKey, SEED_BYTES, SecretKey, SecretKeyFile};

/// The longest key file that is read, in bytes.
pub const KEY_BYTES_MAX: u64 = 16 << 10;
