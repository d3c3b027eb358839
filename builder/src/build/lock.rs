//! What a build would ask the archives, asked without building.

use std::collections::{BTreeMap, BTreeSet};

use super::kernel::kernel_request;
use super::{BuildError, BuildRequest, Source};
use crate::kernel::{self, KernelRequest, ObtainError, Target};
use crate::lock::Lock;
use crate::recipe;

/// Asks the archives all that a build would ask them, or, where the request has a lock, the lock.
/// Little is fetched: indices, and what stands between a metapackage and its kernel.
///
/// # Errors
/// Those of [`BuildError`] that are about names.
pub fn lock(request: &BuildRequest<'_>) -> Result<Lock, BuildError> {
    Source::resolve(request)?;
    kernels(request, kernel::pin)?;
    Ok(request.archive.pins.seen())
}

fn kernels(
    request: &BuildRequest<'_>,
    pin: impl Fn(&KernelRequest<'_>) -> Result<(), ObtainError>,
) -> Result<(), ObtainError> {
    let recipe = request.recipe;
    pin(&kernel_request(request, &recipe.kernel))?;
    if recipe.kernel.target() != Target::Um {
        // The guests that build have one of their own.
        pin(&kernel_request(request, &recipe::Kernel::default()))?;
    }
    Ok(())
}

/// Brings all that a build fetches into the store, and says how many files that are and how many
/// bytes, as far as these are known beforehand.
///
/// # Errors
/// Those of [`lock`], and [`BuildError::Fetch`].
pub fn fetch(request: &BuildRequest<'_>) -> Result<(usize, u64), BuildError> {
    let fetched = fetch_all(request);
    or_missing(request, fetched)
}

fn fetch_all(request: &BuildRequest<'_>) -> Result<(usize, u64), BuildError> {
    let (fetcher, pins) = (request.fetcher, request.archive.pins);
    let mut done = BTreeSet::new();
    let mut some = || -> Result<u64, BuildError> {
        let mut downloads = pins.downloads();
        downloads.retain(|download| done.insert(download.digest));
        fetcher.fetch(&downloads, "download", &*request.observer)?;
        Ok(downloads.iter().filter_map(|one| one.size_bytes).sum())
    };
    Source::resolve(request)?;
    let of_root = some()?;
    kernels(request, kernel::pin)?;
    let of_kernels = some()?;
    Ok((done.len(), of_root + of_kernels))
}

/// Something that a build without a network misses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// Where it is.
    pub url: String,
    /// Its size in bytes, where it is known.
    pub size_bytes: Option<u64>,
}

/// What failed without a network failed because something is missing; then all that is missing is
/// told at once.
pub(super) fn or_missing<T>(
    request: &BuildRequest<'_>,
    result: Result<T, BuildError>,
) -> Result<T, BuildError> {
    if result.is_ok() || !request.fetcher.is_offline() || request.observer.is_cancelled() {
        return result;
    }
    match missing(request) {
        list if list.is_empty() => result,
        list => Err(BuildError::Offline(list)),
    }
}

fn missing(request: &BuildRequest<'_>) -> Vec<Missing> {
    let (fetcher, pins) = (request.fetcher, request.archive.pins);
    // Why one of them fails is not the matter here: what it misses it has told.
    let _ = Source::resolve(request);
    let _ = kernels(request, kernel::pin_missing);
    let mut list: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for url in fetcher.refused() {
        list.insert(url, None);
    }
    for download in pins.downloads() {
        if !fetcher.has(&download) {
            list.insert(download.url, download.size_bytes);
        }
    }
    let list = list.into_iter();
    list.map(|(url, size_bytes)| Missing { url, size_bytes })
        .collect()
}

/// The sentence of what is missing.
pub(super) fn sentence(list: &[Missing]) -> String {
    let known: u64 = list.iter().filter_map(|one| one.size_bytes).sum();
    let (count, verb) = match list.len() {
        1 => ("1 file".to_owned(), "is"),
        count => (format!("{count} files"), "are"),
    };
    let mut text = format!(
        "{count} ({known} bytes, as far as known) {verb} not in the cache, and offline was asked for:"
    );
    for Missing { url, size_bytes } in list {
        let size = match size_bytes {
            Some(size) => format!("{size} bytes"),
            None => "size not known".to_owned(),
        };
        text.push_str(&format!("\n  {url} ({size})"));
    }
    text
}
