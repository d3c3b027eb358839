//! `coop pull`: an appliance out of a registry into the store.

use coop_appliance::bundle::{Blobs, Package};
use coop_runtime::event::Observer;

use super::Registry;
use super::blobs::Stored;
use super::error::RegistryError;
use super::progress::Progress;
use super::together::each;
use crate::store::Store;

/// What observers see it as.
const TASK: &str = "pull";

impl Registry {
    /// Brings all blobs of an appliance into the store, and says how they are read there.
    ///
    /// # Errors
    /// As [`Registry::offered`]; or the store fails. What came stays there for the next attempt.
    pub fn pull<'s>(
        &self,
        package: &Package,
        store: &'s Store,
        observer: &dyn Observer,
    ) -> Result<impl Blobs + use<'s>, RegistryError> {
        let all = package.blobs();
        let total = all.iter().map(|blob| blob.size).sum();
        let progress = Progress::start(TASK, total, observer);
        each(all, &progress, |blob| self.download(blob, store, &progress))?;
        drop(progress);
        Ok(Stored(store))
    }
}
