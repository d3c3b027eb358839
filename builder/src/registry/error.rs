//! Why registries are not what they should be.

use std::io;

use coop_appliance::bundle::{BlobDigest, BundleError};

use crate::store::StoreError;

use super::credentials::CredentialsError;

/// Why an appliance could not be pushed or pulled. Addresses in it have no query, which may hold
/// tokens.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The server answered with something else than what was asked for.
    #[error("'{url}': the registry answered {status}{detail}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status with its reason.
        status: String,
        /// What the registry says of it, begun with `: `, or nothing.
        detail: String,
        /// Whether it may go away by itself.
        temporary: bool,
    },
    /// There is no such repository, tag or blob.
    #[error("the registry has no '{0}'")]
    Missing(String),
    /// The registry wants to know who asks, and nobody's word was enough.
    #[error("the registry {authority} does not let {whom} {work} '{repository}'{detail}")]
    Denied {
        /// `HOST[:PORT]`.
        authority: String,
        /// `anybody` or a user.
        whom: String,
        /// `pull from` or `push to`.
        work: &'static str,
        /// The repository.
        repository: String,
        /// What the registry says of it, begun with `: `, or nothing.
        detail: String,
    },
    /// The registry asks for something that coop cannot give.
    #[error(
        "the registry {authority} asks for '{scheme}' authorisation, and coop knows Basic and Bearer"
    )]
    Challenge {
        /// `HOST[:PORT]`.
        authority: String,
        /// What it asks for.
        scheme: String,
    },
    /// The registry sends whoever asks for a token to a place where secrets are not sent.
    #[error(
        "the registry {authority} wants tokens asked for at '{realm}', {problem}; nothing was sent there"
    )]
    Realm {
        /// `HOST[:PORT]`.
        authority: String,
        /// The address.
        realm: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What gives out tokens gave none.
    #[error("'{realm}' gave no token: {problem}")]
    Token {
        /// The address.
        realm: String,
        /// What it gave.
        problem: String,
    },
    /// A redirect, or an address for an upload, that is not followed.
    #[error("'{url}': the registry sends on to '{target}', {problem}")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Where it is said to be.
        target: String,
        /// What is wrong with that.
        problem: &'static str,
    },
    /// No connection, a broken one, or a silent server.
    #[error("'{url}': {reason}")]
    Network {
        /// What was asked for.
        url: String,
        /// What went wrong, from the outermost to the innermost cause.
        reason: String,
    },
    /// More bytes than were announced or are allowed.
    #[error("'{url}' is longer than {limit_bytes} bytes")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The size named by the manifest, or the limit.
        limit_bytes: u64,
    },
    /// Fewer bytes than were announced.
    #[error("'{url}' ended after {actual_bytes} of {expected_bytes} bytes")]
    Short {
        /// What was asked for.
        url: String,
        /// The size named by the manifest.
        expected_bytes: u64,
        /// What came.
        actual_bytes: u64,
    },
    /// Other bytes than were named.
    #[error("'{url}' has the digest {actual}, not {expected}")]
    Mismatch {
        /// What was asked for.
        url: String,
        /// What was named.
        expected: BlobDigest,
        /// What came.
        actual: BlobDigest,
    },
    /// A manifest of another kind than what was asked for, or one that contradicts itself.
    #[error("'{url}' {problem}")]
    Manifest {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The registry took an upload for something else.
    #[error("the upload to '{url}' failed: {problem}")]
    Upload {
        /// Where to.
        url: String,
        /// What happened.
        problem: String,
    },
    /// The host's certificates or network stack cannot be used.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
    /// Whoever watches called it off.
    #[error("the work on '{0}' was called off")]
    Cancelled(String),
    /// What somebody is known by cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// What was pushed or pulled is no appliance, or not the one that it says.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A file of this machine cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The cache folder fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RegistryError {
    /// Whether it may go away by itself.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Status { temporary, .. } => *temporary,
            Self::Network { .. } | Self::Short { .. } => true,
            _ => false,
        }
    }
}
