//! Downloads into the store: several at once, tried again, resumed, and checked on the way.
//!
//! Nothing is published that does not have the size and SHA-256 that the caller named. Where the
//! content signs itself (an InRelease file), [`Fetcher::read`] hands bounded, unverified bytes to
//! the caller, who verifies them before use.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use coop_runtime::event::{Event, Observer, Unit};
use fs_err as fs;
use reqwest::StatusCode;
use reqwest::blocking::{Client, ClientBuilder};
use reqwest::header::{CONTENT_RANGE, LOCATION, RANGE};
use tempfile::NamedTempFile;

use crate::digest::{Digest, Hasher};
use crate::percent;
use crate::store::{Store, StoreError};

/// The most that one download may have where its size is not known, in bytes (64 GiB).
pub const DOWNLOAD_BYTES_MAX: u64 = 1 << 36;
const REDIRECTS_MAX: usize = 10;
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

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A URL that is neither `http:`, `https:` nor `file:`: the recipe's or the redirect's fault.
    #[error("'{0}' is not an http:, https: or file: URL")]
    Scheme(String),
    /// A redirect to what is not fetched from there: the server's fault.
    #[error("'{url}': the server redirects to '{target}', which is not an http: or https: URL")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Where it is said to be.
        target: String,
    },
    /// The network must not be used and the cache does not have it.
    #[error("'{0}' is not in the cache, and offline was asked for")]
    Offline(String),
    /// The server answered with something else than the file.
    #[error("'{url}': the server answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status with its reason.
        status: String,
        /// Whether it may go away by itself.
        temporary: bool,
    },
    /// No connection, a broken one, or a silent server.
    #[error("'{url}': {reason}")]
    Network {
        /// What was asked for.
        url: String,
        /// What went wrong, from the outermost to the innermost cause.
        reason: String,
    },
    /// A local file cannot be read.
    #[error("{0}")]
    File(#[source] io::Error),
    /// More bytes than were announced or are allowed.
    #[error("'{url}' is longer than {limit_bytes} bytes")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The size named by the signed index, or the limit.
        limit_bytes: u64,
    },
    /// Fewer bytes than were announced.
    #[error("'{url}' ended after {actual_bytes} of {expected_bytes} bytes")]
    Short {
        /// What was asked for.
        url: String,
        /// The size named by the signed index.
        expected_bytes: u64,
        /// What came.
        actual_bytes: u64,
    },
    /// Other bytes than were named.
    #[error("'{url}' has the SHA-256 {actual}, not {expected}")]
    Mismatch {
        /// What was asked for.
        url: String,
        /// What was named.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The host's certificates or network stack cannot be used.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
    /// Whoever watches called it off, or another download of the same work failed.
    #[error("the download of '{0}' was called off")]
    Cancelled(String),
    /// The cache folder fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FetchError {
    fn is_temporary(&self) -> bool {
        match self {
            Self::Status { temporary, .. } => *temporary,
            Self::Network { .. } | Self::Short { .. } => true,
            _ => false,
        }
    }

    /// Whether the server says that there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Status { status, .. } => status.starts_with("404") || status.starts_with("410"),
            Self::File(error) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Downloads into one store.
pub struct Fetcher {
    store: Store,
    options: Options,
    client: OnceLock<Client>,
    client_without_tls: OnceLock<Client>,
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
            options,
            client: OnceLock::new(),
            client_without_tls: OnceLock::new(),
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

    /// One download without a progress of its own.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`].
    pub fn fetch_one(&self, download: &Download) -> Result<fs::File, FetchError> {
        match self.cached(download)? {
            Some(file) => Ok(file),
            None => self.download(download, &|_| {}, &AtomicBool::new(false)),
        }
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
            Some(("http" | "https", _)) => self.open_http(url, offset),
            _ => Err(FetchError::Scheme(url.to_owned())),
        }
    }

    fn open_http(&self, url: &str, offset: u64) -> Result<Body, FetchError> {
        let mut request = self.client(url)?.get(url);
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let response = request.send().map_err(|error| request_error(url, error))?;
        let status = response.status();
        let offset = match status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if content_range_start(&response) == Some(offset) => offset,
            _ if status.is_redirection() && response.headers().contains_key(LOCATION) => {
                let target = response.headers().get(LOCATION);
                let target = target.and_then(|target| target.to_str().ok());
                return Err(FetchError::Redirect {
                    url: url.to_owned(),
                    target: target.unwrap_or_default().escape_debug().to_string(),
                });
            }
            _ => {
                let temporary = status.is_server_error()
                    || status == StatusCode::TOO_MANY_REQUESTS
                    || status == StatusCode::REQUEST_TIMEOUT;
                return Err(FetchError::Status {
                    url: url.to_owned(),
                    status: status.to_string(),
                    temporary,
                });
            }
        };
        Ok(Body {
            reader: Box::new(response),
            offset,
        })
    }

    /// A host without certificates can still use a mirror that is reached without TLS: what comes
    /// from there is verified all the same.
    fn client(&self, url: &str) -> Result<&Client, FetchError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = match client_builder(&self.options).build() {
            Err(_) if url.starts_with("http:") => {
                if let Some(client) = self.client_without_tls.get() {
                    return Ok(client);
                }
                let client = client_builder(&self.options).tls_certs_only([]).build();
                let client = client.map_err(|error| FetchError::Client(causes(&error)))?;
                return Ok(self.client_without_tls.get_or_init(|| client));
            }
            client => client.map_err(|error| FetchError::Client(causes(&error)))?,
        };
        Ok(self.client.get_or_init(|| client))
    }
}

fn client_builder(options: &Options) -> ClientBuilder {
    let redirects = reqwest::redirect::Policy::custom(|attempt| {
        if !matches!(attempt.url().scheme(), "http" | "https") {
            let target = attempt.url().to_string();
            attempt.error(FetchError::Redirect {
                url: String::new(),
                target,
            })
        } else if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error(FetchError::Client("too many redirects".to_owned()))
        } else {
            attempt.follow()
        }
    });
    Client::builder()
        .user_agent(concat!("coop/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.silence)
        // For a blocking client this bounds each read, not the whole download.
        .timeout(options.silence)
        .redirect(redirects)
}

/// Bytes of a file from some offset on.
struct Body {
    reader: Box<dyn Read>,
    offset: u64,
}

/// A download under way.
struct Partial {
    file: NamedTempFile,
    hasher: Hasher,
    length: u64,
    resumed: bool,
}

impl Partial {
    fn new(file: NamedTempFile) -> Self {
        Self {
            file,
            hasher: Hasher::new(),
            length: 0,
            resumed: false,
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.file.as_file().set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hasher = Hasher::new();
        self.length = 0;
        self.resumed = false;
        Ok(())
    }

    fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }
}

/// Adds up what the threads have received.
struct Progress<'a> {
    task: &'a str,
    observer: &'a dyn Observer,
    done: AtomicU64,
    started: Instant,
}

impl<'a> Progress<'a> {
    fn start(
        downloads: &[Download],
        missing: &[usize],
        task: &'a str,
        observer: &'a dyn Observer,
    ) -> Self {
        let sizes = missing.iter().map(|index| downloads[*index].size_bytes);
        observer.event(&Event::TaskStarted {
            task,
            total: sizes.sum(),
            unit: Unit::Bytes,
        });
        Self {
            task,
            observer,
            done: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    fn add(&self, count: i64) {
        let before = self
            .done
            .fetch_add(count.cast_unsigned(), Ordering::Relaxed);
        self.observer.event(&Event::TaskProgress {
            task: self.task,
            done: before.wrapping_add(count.cast_unsigned()),
        });
    }

    fn finish(&self) {
        self.observer.event(&Event::TaskFinished {
            task: self.task,
            elapsed: self.started.elapsed(),
        });
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

fn open_file(rest: &str) -> Result<Body, FetchError> {
    let path = file_path(rest).ok_or_else(|| FetchError::Scheme(format!("file:{rest}")))?;
    let file = fs::File::open(path).map_err(FetchError::File)?;
    Ok(Body {
        reader: Box::new(file),
        offset: 0,
    })
}

/// The path of a `file:` URL (RFC 8089) whose scheme is cut off; only this machine's files.
fn file_path(rest: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let path = match rest.strip_prefix("//") {
        Some(authority) => authority.strip_prefix("localhost").unwrap_or(authority),
        None => rest,
    };
    if !path.starts_with('/') {
        return None;
    }
    let bytes = percent::decode(path)?;
    Some(std::ffi::OsString::from_vec(bytes).into())
}

fn content_range_start(response: &reqwest::blocking::Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .trim()
        .parse()
        .ok()
}

fn request_error(url: &str, error: reqwest::Error) -> FetchError {
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        if let Some(FetchError::Redirect { target, .. }) = cause.downcast_ref() {
            return FetchError::Redirect {
                url: url.to_owned(),
                target: target.clone(),
            };
        }
        source = cause.source();
    }
    FetchError::Network {
        url: url.to_owned(),
        reason: causes(&error.without_url()),
    }
}

fn read_error(url: &str, error: &io::Error) -> FetchError {
    FetchError::Network {
        url: url.to_owned(),
        reason: causes(error),
    }
}

/// An error and what caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
