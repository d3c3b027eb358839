//! Appliances in registries: the few calls of the OCI distribution specification (1.1) that push and
//! pull need.
//!
//! Content is streamed, in bounded memory; what comes is checked against digests and sizes on the
//! way, and manifests are of the kind that was asked for or refused. Interrupted work goes on where
//! it ended: blobs that the registry has are not sent again, half an upload is gone on with by the
//! address that the registry gave for it, and half a download lies in the store.
//!
//! What somebody is known by goes to the registry's own origin, and to where it has tokens given
//! out if that is encrypted; never through a redirect. There is no default registry.

mod access;
pub mod answers;
mod blobs;
mod challenge;
mod credentials;
mod download;
mod error;
mod helper;
mod manifest;
mod offered;
mod progress;
mod pull;
mod push;
mod reference;
mod referrers;
mod together;
mod token;
mod transport;
mod upload;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Mutex;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;

pub use access::Access;
pub use credentials::{Credential, Credentials, CredentialsError};
pub use error::RegistryError;
pub use offered::Offered;
pub use push::Pushed;
pub use reference::{DEFAULT_TAG, InvalidReference, Reference, SCHEME, Version};

use transport::Transport;

/// How a registry is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Without TLS, also where the registry is not on this machine.
    pub plain_http: bool,
    /// How many times one request is tried that failed for a reason that may go away, at least 1.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles each time.
    pub backoff: Duration,
    /// How long a registry may stay silent.
    pub silence: Duration,
    /// Blobs larger than this are sent in pieces of this size, in bytes.
    pub chunk_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plain_http: false,
            attempts: 5,
            backoff: Duration::from_millis(500),
            silence: Duration::from_secs(60),
            // The least that all known registries take as the most.
            chunk_bytes: 4 << 20,
        }
    }
}

/// One repository of a registry, and who asks for it.
#[derive(Debug)]
pub struct Registry {
    transport: Transport,
    base: Url,
    reference: Reference,
    access: Access,
    credential: Option<Credential>,
    /// What the registry was last content with.
    authorization: Mutex<Option<HeaderValue>>,
    /// Of several that are unknown at a time one becomes known.
    becoming: Mutex<()>,
    options: Options,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
