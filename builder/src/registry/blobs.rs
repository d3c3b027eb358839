//! The store as a place where a registry's blobs come from.

use std::io::{self, Read};

use coop_appliance::bundle::{Blobs, BundleError, Descriptor};

use super::Registry;
use super::error::RegistryError;
use super::progress::Progress;
use crate::digest::Digest;
use crate::store::{Store, StoreError};

/// Blobs that lie in the store.
#[derive(Debug)]
pub(super) struct Stored<'s>(pub(super) &'s Store);

impl Blobs for Stored<'_> {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, BundleError> {
        Ok(Box::new(file(self.0, blob)?))
    }
}

fn file(store: &Store, blob: &Descriptor) -> Result<fs_err::File, BundleError> {
    match store.blob(&Digest::from(*blob.digest.as_bytes())) {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(BundleError::Missing(blob.digest)),
        Err(StoreError::Io(error)) => Err(error.into()),
        Err(error) => Err(io::Error::other(error).into()),
    }
}

/// Small blobs that come into the store when they are opened.
pub(super) struct Fetched<'a> {
    pub(super) registry: &'a Registry,
    pub(super) store: &'a Store,
}

impl Blobs for Fetched<'_> {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, BundleError> {
        self.registry
            .download(blob, self.store, &Progress::silent())
            .map_err(io::Error::other)?;
        Ok(Box::new(file(self.store, blob)?))
    }
}

/// What went wrong below [`Fetched`].
pub(super) fn cause(error: BundleError) -> RegistryError {
    match error {
        BundleError::Io(error) => match error.downcast::<RegistryError>() {
            Ok(error) => error,
            Err(error) => error.into(),
        },
        other => other.into(),
    }
}
