//! Manifests of a repository: read with every check that does not need to understand them, and
//! written.

use std::io::Read;

use coop_appliance::bundle::{
    BlobDigest, BundleError, DOCUMENT_BYTES_MAX, Descriptor, OciIndex, OciManifest, media,
};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use reqwest::{Method, StatusCode};

use super::Registry;
use super::error::RegistryError;
use super::reference::Version;
use super::transport::{Ask, shown, status_error, text};
use crate::fetch::causes;

/// The digest of what is sent, as the registry has it.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Says that the registry lists what is about another manifest by itself.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// How much of a foreign media type is shown, in characters.
const SHOWN_CHARACTERS_MAX: usize = 120;

/// A manifest as a registry sent it.
#[derive(Debug)]
pub(super) struct Found {
    /// Its bytes, as they were sent.
    pub(super) bytes: Vec<u8>,
    /// Their digest.
    pub(super) digest: BlobDigest,
}

impl Registry {
    /// The manifest of a tag or digest, which must be of this media type by all that tells it: the
    /// header, and the document; nothing where there is none.
    pub(super) fn manifest(
        &self,
        version: &Version,
        media_type: &str,
    ) -> Result<Option<Found>, RegistryError> {
        self.again(|| self.manifest_once(version, media_type))
    }

    fn manifest_once(
        &self,
        version: &Version,
        media_type: &str,
    ) -> Result<Option<Found>, RegistryError> {
        let url = self.url(&format!("manifests/{}", version.word()))?;
        let ask = Ask::new(Method::GET, url.clone()).header(ACCEPT, media_type);
        let response = self.call(&ask)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(status_error(&url, response)),
        }
        let name = shown(&url);
        let wrong = |problem: String| RegistryError::Manifest {
            url: name.clone(),
            problem,
        };
        let told = text(response.headers(), &CONTENT_TYPE).unwrap_or_default();
        let told = told.split(';').next().unwrap_or_default().trim();
        if !told.eq_ignore_ascii_case(media_type) {
            return Err(wrong(format!(
                "was sent as '{}', where '{media_type}' was asked for",
                short(told)
            )));
        }
        let named = text(response.headers(), &CONTENT_DIGEST).map(str::to_owned);
        let bytes = read(response, &name, DOCUMENT_BYTES_MAX)?;
        let digest = BlobDigest::of(&bytes);
        let expected = match version {
            Version::Digest(digest) => Some(*digest),
            // What is no digest that coop knows says nothing.
            Version::Tag(_) => named.and_then(|text| text.parse::<BlobDigest>().ok()),
        };
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(RegistryError::Mismatch {
                url: name,
                expected,
                actual: digest,
            });
        }
        let read = match media_type {
            media::OCI_INDEX => OciIndex::parse(&bytes).map(drop),
            _ => OciManifest::parse(&bytes).map(drop),
        };
        match read {
            Ok(()) => Ok(Some(Found { bytes, digest })),
            Err(BundleError::Document { reason, .. }) => {
                Err(wrong(format!("is not what it was sent as: {reason}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a manifest whose blobs are there. Says whether the registry lists it by itself as
    /// being about its subject.
    ///
    /// # Errors
    /// The registry cannot be reached, does not allow it, or calls it something else.
    pub(super) fn put_manifest(
        &self,
        version: &Version,
        descriptor: &Descriptor,
        bytes: &[u8],
    ) -> Result<bool, RegistryError> {
        let url = self.url(&format!("manifests/{}", version.word()))?;
        self.again(|| {
            let ask = Ask::new(Method::PUT, url.clone())
                .header(CONTENT_TYPE, descriptor.media_type.as_str())
                .body(bytes);
            let response = self.call(&ask)?;
            if response.status() != StatusCode::CREATED {
                return Err(status_error(&url, response));
            }
            let named = text(response.headers(), &CONTENT_DIGEST);
            if let Some(actual) = named.and_then(|text| text.parse::<BlobDigest>().ok())
                && actual != descriptor.digest
            {
                return Err(RegistryError::Mismatch {
                    url: shown(&url),
                    expected: descriptor.digest,
                    actual,
                });
            }
            Ok(response.headers().contains_key(SUBJECT))
        })
    }
}

/// Reads a document whole.
pub(super) fn read(
    response: reqwest::blocking::Response,
    url: &str,
    limit_bytes: u64,
) -> Result<Vec<u8>, RegistryError> {
    let too_long = || RegistryError::TooLong {
        url: url.to_owned(),
        limit_bytes,
    };
    let announced = response.content_length();
    if announced.is_some_and(|length| length > limit_bytes) {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    response
        .take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| RegistryError::Network {
            url: url.to_owned(),
            reason: causes(&error),
        })?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= limit_bytes => Ok(bytes),
        _ => Err(too_long()),
    }
}

fn short(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARACTERS_MAX).collect();
    cut.escape_debug().to_string()
}
