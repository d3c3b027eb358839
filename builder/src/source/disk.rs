//! A root file system from a disk.

use std::fs::File;

use coop_image::disk::{Chain, ChainError, NoChain, Reference};
use coop_image::tree::Timestamp;
use coop_runtime::event::{Event, Observer};

use super::SourceTree;
use super::named::{NamedFile, NamedFileError, host_file};
use super::time::{known_time, latest_time, remember_time};
use crate::convert::{ConvertError, Input, Which, fixups};
use crate::digest::Digest;
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
    /// The recipe's list of what the disk is made of has too much.
    #[error("the disk {0} does not need the file {1} of its recipe's chain")]
    Needless(String, String),
}

/// A disk that is known and not yet read.
#[derive(Debug)]
pub struct ResolvedDisk<'r> {
    recipe: &'r Disk,
    file: NamedFile,
    /// What the disk may name, in the order of the recipe.
    chain: Vec<(File, Digest)>,
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
    let chain = recipe.chain.iter().map(|file| host_file(file, None, pins));
    Ok(ResolvedDisk {
        recipe,
        file,
        chain: chain.collect::<Result<_, _>>()?,
    })
}

impl ResolvedDisk<'_> {
    /// One line for each input, with its digest.
    #[must_use]
    pub fn resolved(&self) -> Vec<String> {
        let mut resolved = vec![format!("disk sha256:{}", self.file.digest)];
        let chain = self.chain.iter();
        resolved.extend(chain.map(|(_, digest)| format!("disk chain sha256:{digest}")));
        resolved.sort();
        resolved
    }

    /// Everything that can change the tree: names and values.
    #[must_use]
    pub fn fields(&self) -> Vec<(String, String)> {
        let mut fields = vec![
            ("disk".to_owned(), self.file.digest.to_string()),
            ("partition".to_owned(), self.recipe.partition.clone()),
            ("keep_state".to_owned(), self.recipe.keep_state.to_string()),
        ];
        let chain = self.chain.iter();
        fields.extend(chain.map(|(_, digest)| ("chain".to_owned(), digest.to_string())));
        if self.recipe.is_cobd {
            fields.push(("read as".to_owned(), "cobd".to_owned()));
        }
        fields
    }

    /// The latest time that anything in the image may have, if it was read before.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn epoch(&self, store: &Store) -> Result<Option<Timestamp>, StoreError> {
        known_time(store, &self.time_key())
    }

    fn time_key(&self) -> String {
        let mut key = format!("disk {} {}", self.file.digest, self.recipe.partition);
        for (_, digest) in &self.chain {
            key.push_str(&format!(" {digest}"));
        }
        if self.recipe.is_cobd {
            key.push_str(" cobd");
        }
        key
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
        let mut files = self.recipe.chain.iter().zip(self.chain);
        let chain = &mut Listed(files.by_ref().map(|(_, (file, _))| file));
        let input = Input::of_file(name.clone(), file, self.recipe.is_cobd, chain, false)?;
        if let Some((needless, _)) = files.next() {
            return Err(DiskSourceError::Needless(name, needless.written.clone()));
        }
        input.check_unused()?;
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

/// Gives a disk that names other files those of a list, one after the other, and no others: what
/// they are called counts for nothing, so that they may lie anywhere.
struct Listed<I>(I);

impl<I: Iterator<Item = File>> Chain for Listed<I> {
    fn open(&mut self, reference: &Reference<'_>) -> Result<File, ChainError> {
        match self.0.next() {
            Some(file) => Ok(file),
            None => NoChain.open(reference),
        }
    }
}
