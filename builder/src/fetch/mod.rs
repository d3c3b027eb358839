//! Downloads into the store: several at once, tried again, resumed, and checked on the way.
//!
//! Nothing is published that does not have the size and SHA-256 that the caller named. Where the
//! content signs itself (an InRelease file), [`Fetcher::read`] hands bounded, unverified bytes to
//! the caller, who verifies them before use.

mod body;
mod error;
mod http;
mod partial;
mod progress;

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use coop_runtime::event::Observer;
use fs_err as fs;

use crate::digest::Digest;
use crate::store::Store;

use body::{Body, open_file};
pub use error::FetchError;
pub(crate) use error::causes;
use error::read_error;
use http::Http;
use partial::Partial;
use progress::Progress;

/// The most that one download may have where its size is not known, in bytes (64 GiB).
pub const DOWNLOAD_BYTES_MAX: u64 = 1 << 36;
const BUFFER_BYTES: usize = 128 << 10;

/// One thing to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// `http:`, `https:` or `file:` URL.
    pub url: String,
    /// What it must hash to.
    pub digest: Digest,
    /// Its exact size in bytes, where it is known.
    pub size_bytes: Option<u64>,
}

/// How hard to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many downloads run at once, at least 1.
    pub parallel: usize,
    /// How many times one download is tried, at least 1.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles each time.
    pub backoff: Duration,
    /// How long a server may stay silent.
    pub silence: Duration,
    /// Use the cache and `file:` URLs only.
    pub offline: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parallel: 8,
            attempts: 5,
            backoff: Duration::from_millis(500),
            silence: Duration::from_secs(60),
            offline: false,
        }
    }
}

/// Downloads into one store.
pub struct Fetcher {
    store: Store,
    options: Options,
    http: Http,
    refused: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Fetcher {
    /// A fetcher that has not connected to anything yet.
    #[must_use]
    pub fn new(store: Store, options: Options) -> Self {
        Self {
            store,
            http: Http::new(options.silence),
            options,
            refused: Mutex::default(),
        }
    }

    /// The addresses that were wanted and not gone to, because the network must not be used.
    #[must_use]
    pub fn refused(&self) -> BTreeSet<String> {
        lock(&self.refused).clone()
    }

    /// Remembers an address that is not gone to.
    pub(crate) fn refuse(&self, url: &str) {
        lock(&self.refused).insert(url.to_owned());
    }

    /// The store that downloads go to.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether the network must not be used.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.options.offline
    }

    /// Brings everything into the store and opens it, in the order of `downloads`. `task` is the
    /// name under which the observer sees the progress, in bytes.
    ///
    /// # Errors
    /// The first failure, after the other downloads that had begun are through or given up.
    pub fn fetch(
        &self,
        downloads: &[Download],
        task: &str,
        observer: &dyn Observer,
    ) -> Result<Vec<fs::File>, FetchError> {
        let mut files = Vec::with_capacity(downloads.len());
        for download in downloads {
            files.push(self.cached(download)?);
        }
        let missing: Vec<usize> = (0..files.len()).filter(|i| files[*i].is_none()).collect();
        if !missing.is_empty() {
            let progress = Progress::start(downloads, &missing, task, observer);
            let fetched = self.fetch_missing(downloads, &missing, &progress);
            progress.finish();
            for (index, file) in fetched? {
                files[index] = Some(file);
            }
        }
        files
            .into_iter()
            .zip(downloads)
            .map(|(file, download)| file.ok_or_else(|| FetchError::Offline(download.url.clone())))
            .collect()
    }

    /// Reads a small file whose content the caller verifies before use.
    ///
    /// # Errors
    /// As a download, or the file is larger than `limit_bytes`.
    pub fn read(&self, url: &str, limit_bytes: u64) -> Result<Vec<u8>, FetchError> {
        self.again(&AtomicBool::new(false), || {
            let body = self.open(url, 0)?;
            let mut bytes = Vec::new();
            let mut limited = body.reader.take(limit_bytes.saturating_add(1));
            limited
                .read_to_end(&mut bytes)
                .map_err(|error| read_error(url, &error))?;
            if bytes.len() as u64 > limit_bytes {
                return Err(FetchError::TooLong {
                    url: url.to_owned(),
                    limit_bytes,
                });
            }
            Ok(bytes)
        })
    }

    /// Brings a file into the store whose digest nobody knows yet, and says its digest and size in
    /// bytes. Whoever asks believes what is at the address.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`].
    pub fn learn(
        &self,
        url: &str,
        task: &str,
        observer: &dyn Observer,
    ) -> Result<(Digest, u64), FetchError> {
        let download = Download {
            url: url.to_owned(),
            digest: Digest::of(b""),
            size_bytes: None,
        };
        let progress = Progress::start(std::slice::from_ref(&download), &[0], task, observer);
        let stop = AtomicBool::new(false);
        let report = |count| {
            progress.add(count);
            if observer.is_cancelled() {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let mut partial = Partial::new(self.store.temp_file()?);
        let fetched = self.again(&stop, || {
            // Without a digest nobody would notice two versions that were joined.
            report(-signed(partial.length));
            partial.reset().map_err(|error| self.store.explain(error))?;
            self.continue_download(&download, &mut partial, &report, &stop)
        });
        progress.finish();
        fetched?;
        let known = (partial.digest(), partial.length);
        self.store.publish(partial.file, &known.0)?;
        Ok(known)
    }

    /// Whether the store has it; what cannot be looked at is not there.
    #[must_use]
    pub fn has(&self, download: &Download) -> bool {
        matches!(self.cached(download), Ok(Some(_))) || download.url.starts_with("file:")
    }

    fn cached(&self, download: &Download) -> Result<Option<fs::File>, FetchError> {
        let Some(file) = self.store.blob(&download.digest)? else {
            return Ok(None);
        };
        let length = file.metadata().map_err(FetchError::File)?.len();
        // A damaged disk may have cut it; then it is fetched again and replaced.
        let whole = download.size_bytes.is_none_or(|size| size == length);
        Ok(whole.then_some(file))
    }

    fn fetch_missing(
        &self,
        downloads: &[Download],
        missing: &[usize],
        progress: &Progress<'_>,
    ) -> Result<Vec<(usize, fs::File)>, FetchError> {
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let fetched = Mutex::new(Vec::new());
        let failed = Mutex::new(None);
        let report = |count| {
            progress.add(count);
            if progress.observer.is_cancelled() {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let Some(&index) = missing.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                match self.download(&downloads[index], &report, &stop) {
                    Ok(file) => lock(&fetched).push((index, file)),
                    Err(error) => {
                        // First the reason, then the stop, which makes others fail.
                        lock(&failed).get_or_insert(error);
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.options.parallel.clamp(1, missing.len()) {
                scope.spawn(work);
            }
        });
        match lock(&failed).take() {
            Some(error) => Err(error),
            None if stop.load(Ordering::Relaxed) => {
                let url = missing.first().map(|index| downloads[*index].url.clone());
                Err(FetchError::Cancelled(url.unwrap_or_default()))
            }
            None => Ok(std::mem::take(&mut *lock(&fetched))),
        }
    }

    fn download(
        &self,
        download: &Download,
        progress: &dyn Fn(i64),
        stop: &AtomicBool,
    ) -> Result<fs::File, FetchError> {
        let mut partial = Partial::new(self.store.temp_file()?);
        self.again(stop, || {
            self.continue_download(download, &mut partial, progress, stop)
        })?;
        if partial.digest() != download.digest && partial.resumed {
            // Two versions of the file may have been joined: once more, in one piece.
            progress(-signed(partial.length));
            partial.reset().map_err(|error| self.store.explain(error))?;
            self.continue_download(download, &mut partial, progress, stop)?;
        }
        let actual = partial.digest();
        if actual != download.digest {
            return Err(FetchError::Mismatch {
                url: download.url.clone(),
                expected: download.digest,
                actual,
            });
        }
        Ok(self.store.publish(partial.file, &download.digest)?)
    }

    /// Appends to what is there until the end of the body.
    fn continue_download(
        &self,
        download: &Download,
        partial: &mut Partial,
        progress: &dyn Fn(i64),
        stop: &AtomicBool,
    ) -> Result<(), FetchError> {
        let url = &download.url;
        if partial.length > 0 && Some(partial.length) == download.size_bytes {
            return Ok(());
        }
        let mut body = self.open(url, partial.length)?;
        if body.offset != partial.length {
            progress(-signed(partial.length));
            partial.reset().map_err(|error| self.store.explain(error))?;
        } else if partial.length > 0 {
            partial.resumed = true;
        }
        let limit_bytes = download.size_bytes.unwrap_or(DOWNLOAD_BYTES_MAX);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(FetchError::Cancelled(url.clone()));
            }
            let count = match body.reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_error(url, &error)),
            };
            if partial.length + count as u64 > limit_bytes {
                let url = url.clone();
                return Err(FetchError::TooLong { url, limit_bytes });
            }
            partial
                .append(&buffer[..count])
                .map_err(|error| self.store.explain(error))?;
            progress(signed(count as u64));
        }
        match download.size_bytes {
            Some(expected_bytes) if partial.length < expected_bytes => Err(FetchError::Short {
                url: url.clone(),
                expected_bytes,
                actual_bytes: partial.length,
            }),
            _ => Ok(()),
        }
    }

    /// Repeats what failed for a reason that may go away.
    fn again<T>(
        &self,
        stop: &AtomicBool,
        mut work: impl FnMut() -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let mut pause = self.options.backoff;
        for _ in 1..self.options.attempts {
            match work() {
                Err(error) if error.is_temporary() && !stop.load(Ordering::Relaxed) => {
                    std::thread::sleep(pause);
                    pause = pause.saturating_mul(2);
                }
                result => return result,
            }
        }
        work()
    }

    fn open(&self, url: &str, offset: u64) -> Result<Body, FetchError> {
        match url.split_once(':') {
            Some(("file", rest)) => open_file(rest),
            Some(("http" | "https", _)) if self.options.offline => {
                self.refuse(url);
                Err(FetchError::Offline(url.to_owned()))
            }
            Some(("http" | "https", _)) => self.http.open(url, offset),
            _ => Err(FetchError::Scheme(url.to_owned())),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
