//! What goes wrong with bundles, and whose fault it is.

use std::io;

use super::digest::BlobDigest;
use crate::manifest::ApplianceError;

/// Why a bundle could not be written, read or installed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file system, or who gives the blobs, says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The appliance itself is not sound.
    #[error(transparent)]
    Appliance(#[from] ApplianceError),
    /// A manifest, index or layout file is not what OCI or coop says.
    #[error("the {what} cannot be used: {reason}")]
    Document {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Something other than an appliance.
    #[error("this is not an appliance of coop: {what} is '{found}', not '{expected}'")]
    NotAnAppliance {
        /// Which field says so.
        what: &'static str,
        /// What it says.
        found: String,
        /// What appliances say.
        expected: &'static str,
    },
    /// The manifest and `appliance.json` tell of different files.
    #[error("the manifest and the appliance do not agree about '{path}': {reason}")]
    Layer {
        /// The file.
        path: String,
        /// How they differ.
        reason: &'static str,
    },
    /// A blob is not what its descriptor says.
    #[error("the blob {digest} is damaged or was swapped: {found}")]
    Blob {
        /// The descriptor's digest.
        digest: BlobDigest,
        /// What was found.
        found: String,
    },
    /// A blob is not there.
    #[error("the blob {0} is missing")]
    Missing(BlobDigest),
    /// Something is larger or more than this program takes.
    #[error("{what} is {found}, and the limit is {limit}")]
    Limit {
        /// What is too much.
        what: String,
        /// How much there is.
        found: u64,
        /// How much may be.
        limit: u64,
    },
    /// A layer in chunks breaks that form.
    #[error("the chunks of '{path}' are damaged at byte {offset}: {reason}")]
    Chunks {
        /// The file.
        path: String,
        /// Where in the blob.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The tar archive is none, or not one that a bundle may be.
    #[error("this is no bundle of coop: {reason} (at byte {offset})")]
    Archive {
        /// Where the entry stands.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
}

/// Holds something to its limit.
pub(super) fn bound(what: &str, found: u64, limit: u64) -> Result<(), BundleError> {
    if found <= limit {
        return Ok(());
    }
    Err(BundleError::Limit {
        what: what.to_owned(),
        found,
        limit,
    })
}
