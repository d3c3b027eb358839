//! The store as a place where a pulled appliance's blobs come from.

use std::io::Read;

use coop_appliance::bundle::{Blobs, BundleError, Descriptor};

use crate::digest::Digest;
use crate::store::{Store, StoreError};

/// Blobs that lie in the store.
#[derive(Debug)]
pub(super) struct Stored<'s>(pub(super) &'s Store);

impl Blobs for Stored<'_> {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, BundleError> {
        let digest = Digest::from(*blob.digest.as_bytes());
        match self.0.blob(&digest) {
            Ok(Some(file)) => Ok(Box::new(file)),
            Ok(None) => Err(BundleError::Missing(blob.digest)),
            Err(StoreError::Io(error)) => Err(error.into()),
            Err(error) => Err(std::io::Error::other(error).into()),
        }
    }
}
