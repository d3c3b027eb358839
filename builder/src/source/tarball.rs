//! A root file system from an archive.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;

use coop_image::tree::{Metadata, Timestamp, Tree};
use coop_image::{compress, tar};
use coop_runtime::event::{Event, Observer};

use super::SourceTree;
use super::named::{NamedFile, NamedFileError};
use super::time::{known_time, latest_time, remember_time};
use crate::fetch::{FetchError, Fetcher};
use crate::lock::Pins;
use crate::recipe::Tarball;
use crate::store::{Store, StoreError};

/// Why an archive did not become a tree.
#[derive(Debug, thiserror::Error)]
pub enum TarballError {
    /// The archive cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It could not be downloaded.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is not there, or not what it should be.
    #[error(transparent)]
    Named(#[from] NamedFileError),
    /// The cache has no place for its content.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is no archive that can be read.
    #[error("{name}: {source}")]
    Archive {
        /// Its name in the recipe.
        name: String,
        /// What is wrong, with entry and offset.
        source: tar::TarError,
    },
}

/// An archive that is known and not yet read.
#[derive(Debug)]
pub struct ResolvedTarball<'r> {
    recipe: &'r Tarball,
    file: NamedFile,
}

/// Finds out which archive it is.
///
/// # Errors
/// It is missing, or is not the one that the recipe pins.
pub fn resolve_tarball<'r>(
    recipe: &'r Tarball,
    fetcher: &Fetcher,
    pins: &Pins,
    observer: &dyn Observer,
) -> Result<ResolvedTarball<'r>, TarballError> {
    let file = NamedFile::resolve(&recipe.location, fetcher, pins, observer)?;
    Ok(ResolvedTarball { recipe, file })
}

impl ResolvedTarball<'_> {
    /// One line for each input, with its digest.
    #[must_use]
    pub fn resolved(&self) -> Vec<String> {
        vec![format!("tarball sha256:{}", self.file.digest)]
    }

    /// Everything that can change the tree: names and values.
    #[must_use]
    pub fn fields(&self) -> Vec<(String, String)> {
        let stripped = self.recipe.strip_components.to_string();
        vec![
            ("archive".to_owned(), self.file.digest.to_string()),
            ("strip_components".to_owned(), stripped),
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
        format!("{} {}", self.file.digest, self.recipe.strip_components)
    }

    /// Reads the archive into a tree. A plain archive's content stays where it is; a compressed one
    /// is unpacked into the store's temporary space.
    ///
    /// # Errors
    /// It cannot be downloaded, or is damaged.
    pub fn unpack(
        self,
        fetcher: &Fetcher,
        observer: &dyn Observer,
    ) -> Result<SourceTree, TarballError> {
        let resolved = self.resolved();
        let time_key = self.time_key();
        let name = self.file.name.clone();
        let file = self.file.open(fetcher, "download archive", observer)?;
        let tree = read(self.recipe, &name, file, fetcher, observer)?;
        let epoch = latest_time(&tree);
        remember_time(fetcher.store(), &time_key, epoch)?;
        Ok(SourceTree {
            tree,
            epoch,
            configure: None,
            resolved,
        })
    }
}

fn read(
    recipe: &Tarball,
    name: &str,
    file: File,
    fetcher: &Fetcher,
    observer: &dyn Observer,
) -> Result<Tree, TarballError> {
    let options = tar::Options {
        strip_components: usize::try_from(recipe.strip_components).unwrap_or(usize::MAX),
        ..tar::Options::default()
    };
    let mut tree = Tree::new(Metadata {
        mode: 0o755,
        ..Metadata::default()
    });
    let spool = || {
        let spool = fetcher.store().temp_file().map_err(io::Error::other)?;
        Ok(spool.into_file())
    };
    let unpacking = compress::Options {
        limits: compress::Limits::default(),
        threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let summary =
        tar::read_file(&mut tree, file, spool, &options, unpacking).map_err(|source| {
            TarballError::Archive {
                name: name.to_owned(),
                source,
            }
        })?;
    for (keyword, count) in summary.ignored {
        observer.event(&Event::Warning {
            message: &format!("{name}: {count} entries have '{keyword}', which images cannot hold"),
        });
    }
    Ok(tree)
}
