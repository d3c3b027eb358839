//! A root file system from an archive.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;

use coop_image::tree::{Metadata, Timestamp, Tree};
use coop_image::{compress, tar};
use coop_runtime::event::{Event, Observer};

use super::SourceTree;
use super::named::{self, NamedFileError};
use crate::digest::Digest;
use crate::fetch::{FetchError, Fetcher};
use crate::lock::Pins;
use crate::recipe::{Tarball, TarballLocation};
use crate::store::StoreError;

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

/// Reads an archive into a tree. A plain archive's content stays where it is; a compressed one is
/// unpacked into the store's temporary space.
///
/// # Errors
/// The archive is missing, is not the one that the recipe pins, or is damaged.
pub fn tarball(
    recipe: &Tarball,
    fetcher: &Fetcher,
    pins: &Pins,
    observer: &dyn Observer,
) -> Result<SourceTree, TarballError> {
    let (name, file, digest) = open(recipe, fetcher, pins, observer)?;
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
                name: name.clone(),
                source,
            }
        })?;
    for (keyword, count) in summary.ignored {
        observer.event(&Event::Warning {
            message: &format!("{name}: {count} entries have '{keyword}', which images cannot hold"),
        });
    }
    let epoch = latest_time(&tree);
    Ok(SourceTree {
        tree,
        epoch,
        configure: None,
        resolved: vec![format!("tarball sha256:{digest}")],
    })
}

fn open(
    recipe: &Tarball,
    fetcher: &Fetcher,
    pins: &Pins,
    observer: &dyn Observer,
) -> Result<(String, File, Digest), TarballError> {
    match &recipe.location {
        TarballLocation::Url { url, sha256 } => {
            let download = named::address(url, sha256.as_deref(), fetcher, pins, observer)?;
            let digest = download.digest;
            let mut files = fetcher.fetch(&[download], "download archive", observer)?;
            let file = files
                .pop()
                .ok_or_else(|| FetchError::Offline(url.clone()))?;
            Ok((url.clone(), file.into_parts().0, digest))
        }
        TarballLocation::Path { file, sha256 } => {
            let (opened, digest) = named::host_file(file, sha256.as_deref(), pins)?;
            Ok((file.written.clone(), opened, digest))
        }
    }
}

/// Has the archive pinned, without reading it.
///
/// # Errors
/// It is missing, or is not the one that the recipe pins.
pub fn pin_tarball(
    location: &TarballLocation,
    fetcher: &Fetcher,
    pins: &Pins,
    observer: &dyn Observer,
) -> Result<(), NamedFileError> {
    match location {
        TarballLocation::Url { url, sha256 } => {
            named::address(url, sha256.as_deref(), fetcher, pins, observer)?;
        }
        TarballLocation::Path { file, sha256 } => {
            named::host_file(file, sha256.as_deref(), pins)?;
        }
    }
    Ok(())
}

/// The time of the youngest entry: nothing that coop adds is younger than the archive itself.
fn latest_time(tree: &Tree) -> Timestamp {
    let times = tree.inodes().iter().map(|i| i.metadata.times.modified);
    times.max().unwrap_or_default()
}
