//! Why downloads fail, and which failures may go away by themselves.

use std::io;

use crate::digest::Digest;
use crate::store::StoreError;

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A URL that is neither `http:`, `https:` nor `file:`: the recipe's or the redirect's fault.
    #[error("'{0}' is not an http:, https: or file: URL")]
    Scheme(String),
    /// A redirect to what is not fetched from there: the server's fault.
    #[error("'{url}': the server redirects to '{target}', which is not an http: or https: URL")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Where it is said to be.
        target: String,
    },
    /// The network must not be used and the cache does not have it.
    #[error("'{0}' is not in the cache, and offline was asked for")]
    Offline(String),
    /// The server answered with something else than the file.
    #[error("'{url}': the server answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status with its reason.
        status: String,
        /// Whether it may go away by itself.
        temporary: bool,
    },
    /// No connection, a broken one, or a silent server.
    #[error("'{url}': {reason}")]
    Network {
        /// What was asked for.
        url: String,
        /// What went wrong, from the outermost to the innermost cause.
        reason: String,
    },
    /// A local file cannot be read.
    #[error("{0}")]
    File(#[source] io::Error),
    /// More bytes than were announced or are allowed.
    #[error("'{url}' is longer than {limit_bytes} bytes")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The size named by the signed index, or the limit.
        limit_bytes: u64,
    },
    /// Fewer bytes than were announced.
    #[error("'{url}' ended after {actual_bytes} of {expected_bytes} bytes")]
    Short {
        /// What was asked for.
        url: String,
        /// The size named by the signed index.
        expected_bytes: u64,
        /// What came.
        actual_bytes: u64,
    },
    /// Other bytes than were named.
    #[error("'{url}' has the SHA-256 {actual}, not {expected}")]
    Mismatch {
        /// What was asked for.
        url: String,
        /// What was named.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The host's certificates or network stack cannot be used.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
    /// Whoever watches called it off, or another download of the same work failed.
    #[error("the download of '{0}' was called off")]
    Cancelled(String),
    /// The cache folder fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FetchError {
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Status { temporary, .. } => *temporary,
            Self::Network { .. } | Self::Short { .. } => true,
            _ => false,
        }
    }

    /// Whether the server says that there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Status { status, .. } => status.starts_with("404") || status.starts_with("410"),
            Self::File(error) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

pub(super) fn read_error(url: &str, error: &io::Error) -> FetchError {
    FetchError::Network {
        url: url.to_owned(),
        reason: causes(error),
    }
}

/// An error and what caused it, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
