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
use crate::fetch::{Download, FetchError, Fetcher};
use crate::lock::Pins;
use crate::recipe::{Tarball, TarballLocation};
use crate::store::{Store, StoreError};

/// The store's kind of notes with the latest time of an archive's entries, or of a disk's files.
const TIME_NOTE: &str = "archive-time-1";

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
    name: String,
    digest: Digest,
    place: Place,
}

/// Where the bytes are.
#[derive(Debug)]
enum Place {
    Address(Download),
    Host(File),
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
    let (name, digest, place) = match &recipe.location {
        TarballLocation::Url { url, sha256 } => {
            let download = named::address(url, sha256.as_deref(), fetcher, pins, observer)?;
            (url.clone(), download.digest, Place::Address(download))
        }
        TarballLocation::Path { file, sha256 } => {
            let (opened, digest) = named::host_file(file, sha256.as_deref(), pins)?;
            (file.written.clone(), digest, Place::Host(opened))
        }
    };
    Ok(ResolvedTarball {
        recipe,
        name,
        digest,
        place,
    })
}

impl ResolvedTarball<'_> {
    /// One line for each input, with its digest.
    #[must_use]
    pub fn resolved(&self) -> Vec<String> {
        vec![format!("tarball sha256:{}", self.digest)]
    }

    /// Everything that can change the tree: names and values.
    #[must_use]
    pub fn fields(&self) -> Vec<(String, String)> {
        let stripped = self.recipe.strip_components.to_string();
        vec![
            ("archive".to_owned(), self.digest.to_string()),
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
        format!("{} {}", self.digest, self.recipe.strip_components)
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
        let Self {
            recipe,
            name,
            place,
            ..
        } = self;
        let file = match place {
            Place::Host(file) => file,
            Place::Address(download) => {
                let url = download.url.clone();
                let mut files = fetcher.fetch(&[download], "download archive", observer)?;
                let file = files.pop().ok_or(FetchError::Offline(url))?;
                file.into_parts().0
            }
        };
        let tree = read(recipe, &name, file, fetcher, observer)?;
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

/// The latest time of what was read before under this key.
pub(super) fn known_time(store: &Store, key: &str) -> Result<Option<Timestamp>, StoreError> {
    let note = store.note(TIME_NOTE, key)?;
    let text = note.and_then(|bytes| String::from_utf8(bytes).ok());
    let (seconds, nanoseconds) = match text.as_deref().and_then(|text| text.split_once(' ')) {
        Some((seconds, nanoseconds)) => (seconds.parse(), nanoseconds.parse()),
        None => return Ok(None),
    };
    Ok(match (seconds, nanoseconds) {
        (Ok(seconds), Ok(nanoseconds)) => Some(Timestamp {
            seconds,
            nanoseconds,
        }),
        _ => None,
    })
}

/// Keeps the latest time for [`known_time`].
pub(super) fn remember_time(store: &Store, key: &str, time: Timestamp) -> Result<(), StoreError> {
    let text = format!("{} {}", time.seconds, time.nanoseconds);
    store.put_note(TIME_NOTE, key, text.as_bytes())
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

/// The time of the youngest entry: nothing that coop adds is younger than the archive itself.
pub(super) fn latest_time(tree: &Tree) -> Timestamp {
    let times = tree.inodes().iter().map(|i| i.metadata.times.modified);
    times.max().unwrap_or_default()
}
