//! A root file system from a disk.

use coop_image::tree::Timestamp;
use coop_runtime::event::{Event, Observer};

use super::SourceTree;
use super::named::{NamedFile, NamedFileError};
use super::time::{known_time, latest_time, remember_time};
use crate::convert::{ConvertError, Input, Which, fixups};
use crate::fetch::{FetchError, Fetcher};
use crate::lock::Pins;
use crate::recipe::Disk;
use crate::rootfs::RootfsError;
use crate::store::{Store, StoreError};

/// Why a disk did not become a tree.
#[derive(Debug, thiserror::Error)]
pub enum DiskSourceError {
    /// It could not be downloaded.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is not there, or not what it should be.
    #[error(transparent)]
    Named(#[from] NamedFileError),
    /// The cache.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be read, or nothing on it is the root.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// Its root cannot be fitted.
    #[error(transparent)]
    Fix(#[from] RootfsError),
}

/// A disk that is known and not yet read.
#[derive(Debug)]
pub struct ResolvedDisk<'r> {
    recipe: &'r Disk,
    file: NamedFile,
}

/// Finds out which disk it is.
///
/// # Errors
/// It is missing, or is not the one that the recipe pins.
pub fn resolve_disk<'r>(
    recipe: &'r Disk,
    fetcher: &Fetcher,
    pins: &Pins,
    observer: &dyn Observer,
) -> Result<ResolvedDisk<'r>, DiskSourceError> {
    let file = NamedFile::resolve(&recipe.location, fetcher, pins, observer)?;
    Ok(ResolvedDisk { recipe, file })
}

impl ResolvedDisk<'_> {
    /// One line for each input, with its digest.
    #[must_use]
    pub fn resolved(&self) -> Vec<String> {
        vec![format!("disk sha256:{}", self.file.digest)]
    }

    /// Everything that can change the tree: names and values.
    #[must_use]
    pub fn fields(&self) -> Vec<(String, String)> {
        vec![
            ("disk".to_owned(), self.file.digest.to_string()),
            ("partition".to_owned(), self.recipe.partition.clone()),
            ("keep_state".to_owned(), self.recipe.keep_state.to_string()),
        ]
    }

    /// The latest time that anything in the image may have, if it was read before.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn epoch(&self, store: &Store) -> Result<Option<Timestamp>, StoreError> {
        known_time(store, &self.time_key())
    }

    fn time_key(&self) -> String {
        format!("disk {} {}", self.file.digest, self.recipe.partition)
    }

    /// Reads the root into a tree whose content stays where it is, and makes it fit to boot: what
    /// that changes is told.
    ///
    /// # Errors
    /// It cannot be downloaded, is damaged, or has no root that can be read.
    pub fn unpack(
        self,
        fetcher: &Fetcher,
        observer: &dyn Observer,
    ) -> Result<SourceTree, DiskSourceError> {
        let resolved = self.resolved();
        let time_key = self.time_key();
        let name = self.file.name.clone();
        let file = self.file.open(fetcher, "download disk", observer)?;
        let input = Input::of_file(&name, file)?;
        let part = input.choose(&Which::parse(&self.recipe.partition))?;
        let mut tree = input.tree(part)?;
        let epoch = latest_time(&tree);
        let done = fixups::apply(&mut tree, epoch)?;
        for change in &done.changes {
            let message = &change.to_string();
            observer.event(&Event::Note { message });
        }
        for message in &done.stays {
            observer.event(&Event::Note { message });
        }
        remember_time(fetcher.store(), &time_key, epoch)?;
        Ok(SourceTree {
            tree,
            epoch,
            configure: None,
            resolved,
        })
    }
}
