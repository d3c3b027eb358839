//! Blobs to a registry: what it has is not sent, and half an upload is gone on with.
//!
//! A blob that is no larger than a piece goes in one request (a POST for the address, a PUT with
//! the bytes); a larger one in pieces (PATCH), after each of which the registry says how far it is
//! and where the next one goes to. That is remembered in the store, so that another process goes on
//! behind the last piece. A registry that takes no pieces gets the blob in one stream.

use std::io::{self, Read};

use coop_appliance::bundle::{Blobs, Descriptor};
use reqwest::blocking::{Body, Response};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, RANGE};
use reqwest::{Method, StatusCode, Url};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::error::RegistryError;
use super::progress::Progress;
use super::transport::{Ask, location, shown, status_error, text};
use super::{Registry, length_of};
use crate::fetch::causes;
use crate::store::Store;

/// The least size of a piece that a registry takes, in bytes.
const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");
/// The largest piece that coop holds in memory, whatever a registry wants, in bytes.
const CHUNK_BYTES_MAX: usize = 64 << 20;
/// The kind of note that remembers an upload.
const NOTE: &str = "upload";
const BYTES: &str = "application/octet-stream";
/// How long the answer to a piece may take: slow lines have to send it first.
const PIECE_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long the answer to a whole blob may take.
const STREAM_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// How much is read at once of what is skipped.
const SKIP_BYTES: u64 = 1 << 20;

/// An upload under way: where the next bytes go to, and how many the registry has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Upload {
    location: String,
    offset: u64,
}

/// What became of an upload.
enum Outcome {
    Done,
    /// The registry takes no pieces.
    NoPieces(Upload),
}

impl Registry {
    /// Whether the repository has a blob.
    pub(super) fn has(&self, blob: &Descriptor) -> Result<bool, RegistryError> {
        let url = self.url(&format!("blobs/{}", blob.digest))?;
        self.again(|| {
            let mut ask = Ask::new(Method::HEAD, url.clone());
            ask.may_leave = true;
            let response = self.call(&ask)?;
            match response.status() {
                StatusCode::OK => {
                    let size = text(response.headers(), &CONTENT_LENGTH);
                    let size = size.and_then(|size| size.parse::<u64>().ok());
                    Ok(size.is_none_or(|size| size == blob.size))
                }
                StatusCode::NOT_FOUND => Ok(false),
                _ => Err(status_error(&url, response)),
            }
        })
    }

    /// Brings a blob to the repository, unless it is there; says whether it was sent.
    pub(super) fn upload(
        &self,
        blob: &Descriptor,
        blobs: &dyn Blobs,
        store: &Store,
        progress: &Progress<'_>,
    ) -> Result<bool, RegistryError> {
        if self.has(blob)? {
            progress.add(blob.size);
            return Ok(false);
        }
        let key = format!("{} {}", self.url("")?, blob.digest);
        let sending = Sending {
            registry: self,
            blob,
            blobs,
            store,
            progress,
            key,
        };
        if usize::try_from(blob.size).is_ok_and(|size| size <= self.options.chunk_bytes) {
            sending.in_one()?;
        } else {
            sending.in_pieces()?;
        }
        Ok(true)
    }
}

struct Sending<'a> {
    registry: &'a Registry,
    blob: &'a Descriptor,
    blobs: &'a dyn Blobs,
    store: &'a Store,
    progress: &'a Progress<'a>,
    /// What the upload is remembered under.
    key: String,
}

impl Sending<'_> {
    fn in_one(&self) -> Result<(), RegistryError> {
        let mut bytes = Vec::new();
        let input = self.blobs.open(self.blob)?;
        input.take(self.blob.size).read_to_end(&mut bytes)?;
        self.registry.again(|| {
            let begun = self.begin()?.0;
            let url = self.address(&begun.location)?;
            self.finish(&url, &bytes)
        })?;
        self.progress.add(self.blob.size);
        Ok(())
    }

    fn in_pieces(&self) -> Result<(), RegistryError> {
        let outcome = match self.remembered()? {
            Some(upload) => match self.pieces(upload, self.registry.options.chunk_bytes) {
                // The registry may have forgotten or cancelled it, or have other bytes.
                Err(
                    RegistryError::Status { .. }
                    | RegistryError::Missing(_)
                    | RegistryError::Upload { .. },
                ) => self.anew()?,
                other => other?,
            },
            None => self.anew()?,
        };
        match outcome {
            Outcome::Done => {}
            Outcome::NoPieces(upload) => self.stream(&upload)?,
        }
        self.remember(None)
    }

    fn anew(&self) -> Result<Outcome, RegistryError> {
        let mut attempts = self.registry.options.attempts.max(1);
        loop {
            let (upload, least) = self.registry.again(|| self.begin())?;
            let chunk_bytes = self.registry.options.chunk_bytes.max(least);
            attempts -= 1;
            match self.pieces(upload, chunk_bytes) {
                Err(error) if attempts > 0 && may_begin_again(&error) => {}
                other => return other,
            }
        }
    }

    /// Gets an address for an upload, and the least size of a piece that the registry takes.
    fn begin(&self) -> Result<(Upload, usize), RegistryError> {
        let url = self.registry.url("blobs/uploads/")?;
        let ask = Ask::new(Method::POST, url.clone()).header(CONTENT_LENGTH, "0");
        let response = self.registry.call(&ask)?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(status_error(&url, response));
        }
        let least = text(response.headers(), &CHUNK_MIN).and_then(|size| size.parse().ok());
        let upload = Upload {
            location: self.next_location(&url, &response)?,
            offset: 0,
        };
        Ok((upload, least.unwrap_or(0).min(CHUNK_BYTES_MAX)))
    }

    /// Sends pieces from where the upload is to the end.
    fn pieces(&self, mut upload: Upload, chunk_bytes: usize) -> Result<Outcome, RegistryError> {
        let size = self.blob.size;
        let mut source = Source::open(self.blobs, self.blob);
        self.progress.add(upload.offset);
        let mut failures = 0;
        let sent = (|| {
            while upload.offset < size {
                if self.progress.is_cancelled() {
                    return Err(RegistryError::Cancelled(self.blob.digest.to_string()));
                }
                let piece = source.piece(upload.offset, chunk_bytes)?;
                let next = match self.piece(&upload, piece) {
                    Ok(Some(next)) => next,
                    Ok(None) if upload.offset == 0 => {
                        return Ok(Outcome::NoPieces(upload.clone()));
                    }
                    Ok(None) => {
                        return Err(self.failed(&upload.location, "it takes no further pieces"));
                    }
                    Err(error) if error.is_temporary() => {
                        failures += 1;
                        if failures >= self.registry.options.attempts {
                            return Err(error);
                        }
                        self.asked_again(&upload, error)?
                    }
                    Err(error) => return Err(error),
                };
                let went_on = next.offset > upload.offset;
                if next.offset < upload.offset || next.offset > size || !went_on && failures == 0 {
                    let problem = format!(
                        "it says that it has {} of {size} bytes after a piece from byte {} on",
                        next.offset, upload.offset
                    );
                    return Err(self.failed(&upload.location, &problem));
                }
                if went_on {
                    failures = 0;
                }
                self.progress.add(next.offset - upload.offset);
                upload = next;
                self.remember(Some(&upload))?;
            }
            let url = self.address(&upload.location)?;
            self.finish(&url, &[])?;
            Ok(Outcome::Done)
        })();
        if !matches!(sent, Ok(Outcome::Done)) {
            self.progress.take_off(upload.offset);
        }
        sent
    }

    /// Sends a piece; nothing where the registry takes none.
    fn piece(&self, upload: &Upload, piece: &[u8]) -> Result<Option<Upload>, RegistryError> {
        let url = self.address(&upload.location)?;
        let end = upload.offset.saturating_add(length_of(piece));
        let mut ask = Ask::new(Method::PATCH, url.clone())
            .header(CONTENT_TYPE, BYTES)
            .header(
                CONTENT_RANGE,
                format!("{}-{}", upload.offset, end.saturating_sub(1)),
            )
            .body(piece);
        ask.patience = Some(PIECE_PATIENCE);
        let response = self.registry.call(&ask)?;
        match response.status() {
            // The specification has 202; some registries answer 204.
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT => {
                let offset = received(&response).unwrap_or(end);
                let location = self.next_location(&url, &response)?;
                Ok(Some(Upload { location, offset }))
            }
            StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::NOT_IMPLEMENTED => Ok(None),
            _ => Err(status_error(&url, response)),
        }
    }

    /// Where an upload is whose last piece went wrong.
    fn asked_again(&self, upload: &Upload, error: RegistryError) -> Result<Upload, RegistryError> {
        let mut failure = Some(error);
        self.registry.again(|| match failure.take() {
            // The pause comes first.
            Some(error) => Err(error),
            None => {
                let now = self.status(upload)?;
                // One that does not tell may have any part of the piece.
                now.ok_or_else(|| {
                    self.failed(&upload.location, "it does not say what it has of it")
                })
            }
        })
    }

    /// Where an upload is; nothing where the registry does not tell. `0-0` is what registries say
    /// that have nothing, for there is no range of no bytes, and what Docker's says of everything.
    fn status(&self, upload: &Upload) -> Result<Option<Upload>, RegistryError> {
        let url = self.address(&upload.location)?;
        let response = self.registry.call(&Ask::new(Method::GET, url.clone()))?;
        if response.status() != StatusCode::NO_CONTENT && response.status() != StatusCode::ACCEPTED
        {
            return Err(status_error(&url, response));
        }
        let location = match location(&response) {
            Some(_) => self.next_location(&url, &response)?,
            None => upload.location.clone(),
        };
        let offset = received(&response).filter(|offset| *offset > 1);
        Ok(offset.map(|offset| Upload { location, offset }))
    }

    /// Ends an upload with its last bytes.
    fn finish(&self, url: &Url, bytes: &[u8]) -> Result<(), RegistryError> {
        let mut ask = Ask::new(Method::PUT, self.with_digest(url))
            .header(CONTENT_TYPE, BYTES)
            .body(bytes);
        ask.patience = Some(PIECE_PATIENCE);
        let response = self.registry.call(&ask)?;
        match response.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(status_error(url, response)),
        }
    }

    /// Sends a blob in one request of any length.
    fn stream(&self, upload: &Upload) -> Result<(), RegistryError> {
        let url = self.address(&upload.location)?;
        let mut ask = Ask::new(Method::PUT, self.with_digest(&url)).header(CONTENT_TYPE, BYTES);
        ask.patience = Some(STREAM_PATIENCE);
        // The client's thread outlives what it reads from, so a pipe is between.
        let (reader, mut writer) = io::pipe()?;
        let response = std::thread::scope(|scope| {
            let feeding = scope.spawn(move || -> Result<(), RegistryError> {
                let input = self.blobs.open(self.blob)?;
                io::copy(&mut input.take(self.blob.size), &mut writer)?;
                Ok(())
            });
            let body = Body::sized(reader, self.blob.size);
            let response = self.registry.call_stream(&ask, body);
            match (feeding.join(), response) {
                (Ok(Err(RegistryError::Io(error))), response)
                    if error.kind() == io::ErrorKind::BrokenPipe =>
                {
                    response
                }
                (Ok(Err(error)), _) => Err(error),
                (_, response) => response,
            }
        })?;
        match response.status() {
            StatusCode::CREATED => {
                self.progress.add(self.blob.size);
                Ok(())
            }
            _ => Err(status_error(&url, response)),
        }
    }

    fn with_digest(&self, url: &Url) -> Url {
        let mut url = url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.blob.digest.to_string());
        url
    }

    fn address(&self, location: &str) -> Result<Url, RegistryError> {
        location
            .parse()
            .map_err(|_| self.failed("", "its address is none"))
    }

    /// Where a response has the next request of an upload go to.
    fn next_location(&self, from: &Url, response: &Response) -> Result<String, RegistryError> {
        let target = location(response).unwrap_or_default();
        let refuse = |problem| RegistryError::Redirect {
            url: shown(from),
            target: target
                .split('?')
                .next()
                .unwrap_or_default()
                .escape_debug()
                .to_string(),
            problem,
        };
        if target.is_empty() {
            return Err(self.failed(from.as_str(), "it has no address for it"));
        }
        let next = from
            .join(&target)
            .map_err(|_| refuse("which is no address"))?;
        self.registry
            .transport
            .may_go(&self.registry.base, &next)
            .map_err(refuse)?;
        Ok(next.to_string())
    }

    /// An upload that an earlier process did not end, as far as the registry still knows it.
    fn remembered(&self) -> Result<Option<Upload>, RegistryError> {
        let Some(note) = self.store.note(NOTE, &self.key)? else {
            return Ok(None);
        };
        let Ok(upload) = serde_json::from_slice::<Upload>(&note) else {
            return Ok(None);
        };
        let is_possible = upload.offset > 0 && upload.offset <= self.blob.size;
        let Some(url) = upload.location.parse::<Url>().ok().filter(|_| is_possible) else {
            return Ok(None);
        };
        if self
            .registry
            .transport
            .may_go(&self.registry.base, &url)
            .is_err()
        {
            return Ok(None);
        }
        match self.status(&upload) {
            Ok(Some(now)) if now.offset <= self.blob.size => Ok(Some(now)),
            // It knows it and does not say how far it is; it will complain of a wrong next piece.
            Ok(None) => Ok(Some(upload)),
            Ok(Some(_)) | Err(RegistryError::Status { .. } | RegistryError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remember(&self, upload: Option<&Upload>) -> Result<(), RegistryError> {
        let text = match upload {
            Some(upload) => serde_json::to_vec(upload).unwrap_or_default(),
            None => Vec::new(),
        };
        Ok(self.store.put_note(NOTE, &self.key, &text)?)
    }

    fn failed(&self, location: &str, problem: &str) -> RegistryError {
        let url = location
            .parse()
            .map_or_else(|_| String::new(), |url| shown(&url));
        RegistryError::Upload {
            url,
            problem: problem.to_owned(),
        }
    }
}

/// Whether an upload that went wrong may go right from its beginning.
fn may_begin_again(error: &RegistryError) -> bool {
    error.is_temporary()
        || matches!(
            error,
            RegistryError::Upload { .. } | RegistryError::Missing(_)
        )
}

fn received(response: &Response) -> Option<u64> {
    received_by(text(response.headers(), &RANGE)?)
}

/// How many bytes of an upload the registry has, by its `Range: 0-LAST`.
#[must_use]
pub fn received_by(range: &str) -> Option<u64> {
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (start, last) = range.split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (start.trim() == "0").then(|| last.saturating_add(1))
}

/// A blob's bytes from any offset on. Going back begins at its beginning again.
struct Source<'a> {
    blobs: &'a dyn Blobs,
    blob: &'a Descriptor,
    reader: Option<Box<dyn Read + Send + 'a>>,
    /// Where the reader stands.
    position: u64,
    /// The last piece, and where it begins.
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> Source<'a> {
    fn open(blobs: &'a dyn Blobs, blob: &'a Descriptor) -> Self {
        Self {
            blobs,
            blob,
            reader: None,
            position: 0,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// The bytes from an offset on, as many as there are and a piece may have.
    fn piece(&mut self, offset: u64, length: usize) -> Result<&[u8], RegistryError> {
        let end = self.start.saturating_add(length_of(&self.buffer));
        if self.start <= offset && offset < end {
            // What the registry has of the last piece is cut off.
            let had = usize::try_from(offset - self.start).unwrap_or(self.buffer.len());
            self.buffer.drain(..had.min(self.buffer.len()));
            self.start = offset;
            return Ok(&self.buffer);
        }
        let mut reader = match self.reader.take() {
            Some(reader) if self.position <= offset => reader,
            _ => {
                self.position = 0;
                self.blobs.open(self.blob)?
            }
        };
        while self.position < offset {
            let wanted = (offset - self.position).min(SKIP_BYTES);
            let skipped = io::copy(&mut reader.by_ref().take(wanted), &mut io::sink())?;
            if skipped == 0 {
                return Err(self.cut());
            }
            self.position = self.position.saturating_add(skipped);
        }
        self.buffer.clear();
        let left = usize::try_from(self.blob.size - offset).unwrap_or(length);
        let wanted = u64::try_from(left.min(length)).unwrap_or(u64::MAX);
        let count = reader.by_ref().take(wanted).read_to_end(&mut self.buffer)?;
        if length_of(&self.buffer) != wanted {
            return Err(self.cut());
        }
        self.position = self
            .position
            .saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        self.start = offset;
        self.reader = Some(reader);
        Ok(&self.buffer)
    }

    fn cut(&self) -> RegistryError {
        let problem = format!("{} is shorter than it was", self.blob.digest);
        RegistryError::Io(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            causes(&io::Error::other(problem)),
        ))
    }
}
