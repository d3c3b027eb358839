//! What goes wrong with keys, policies and signatures.

use std::io;

/// Why a key or a signature could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It breaks its form.
    #[error("this is no {what}: {reason}")]
    Form {
        /// What was looked for.
        what: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// A form that coop does not read.
    #[error("{what} are not supported")]
    Unsupported {
        /// The form.
        what: &'static str,
    },
    /// The password does not open the key.
    #[error("the password does not open this key")]
    Password,
    /// The key asks for more memory than is given to a password.
    #[error("the key's password takes 2^{found} rounds, and the limit is 2^{limit}")]
    Rounds {
        /// What the key asks for.
        found: u32,
        /// What is given.
        limit: u32,
    },
}

/// Why a policy could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is not what the grammar says.
    #[error("{0}")]
    Syntax(String),
    /// A key's entry is not sound.
    #[error("key '{name}': {reason}")]
    Entry {
        /// The key's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A key cannot be read.
    #[error("key '{name}': {source}")]
    Key {
        /// The key's name.
        name: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// A key's file cannot be read.
    #[error("key '{name}': {source}")]
    Io {
        /// The key's name.
        name: String,
        /// What the file system says.
        source: io::Error,
    },
}

/// Why an appliance is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is no trusted key to compare with.
    #[error("no key is trusted for anything")]
    NoKeys,
    /// It came without a signature.
    #[error("it is not signed")]
    Unsigned,
    /// Its signatures are by others.
    #[error("it is signed by {key}, which is not trusted")]
    OtherKey {
        /// The key.
        key: String,
    },
    /// A raw signature tells of no key.
    #[error("no trusted Ed25519 key made its signature: another key did, or it was changed")]
    NoRawKey,
    /// The key is trusted, but for other appliances.
    #[error(
        "it is signed by key '{name}', which is trusted for other appliances, not for {subject}"
    )]
    OtherAppliance {
        /// The key's name in the policy.
        name: String,
        /// What was to be trusted.
        subject: String,
    },
    /// A signature cannot be read.
    #[error("its signature cannot be used: {0}")]
    Damaged(KeyError),
    /// The signature of a trusted key is not of this appliance.
    #[error("the signature of key '{name}' is not of this appliance: it was swapped or changed")]
    Swapped {
        /// The key's name in the policy.
        name: String,
    },
}

impl TrustError {
    /// Whether somebody who wants to do without trust may go on: not where a trusted key's signature
    /// says that this is something else.
    #[must_use]
    pub fn may_be_waived(&self) -> bool {
        !matches!(self, Self::Swapped { .. })
    }
}
