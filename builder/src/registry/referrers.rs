//! What is about a manifest: its signatures. By the registry's own list, or, where it keeps none, by
//! a tag that is named after the digest (distribution specification, "Referrers API" and
//! "Referrers Tag Schema").

use coop_appliance::bundle::{BlobDigest, Descriptor, OciIndex, SIGNATURES_MAX, media};
use reqwest::header::{ACCEPT, CONTENT_TYPE, LINK};
use reqwest::{Method, StatusCode};

use super::Registry;
use super::error::RegistryError;
use super::manifest::read;
use super::reference::Version;
use super::transport::{Ask, is_same_origin, shown, status_error, text};

/// How many pages of a registry's list are read.
const PAGES_MAX: usize = 16;
/// How many manifests may be about one by a tag, before coop adds no more to them.
const REFERRERS_MAX: usize = 1024;

impl Registry {
    /// The descriptors of manifests of one artifact type about a manifest, at most
    /// [`SIGNATURES_MAX`]. What the list says of them is checked by whoever reads them.
    pub(super) fn referrers(
        &self,
        subject: BlobDigest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let listed = match self.listed(subject, artifact_type)? {
            Some(listed) => listed,
            None => self.tagged(subject)?.manifests,
        };
        let mut seen = std::collections::BTreeSet::new();
        let mut found: Vec<Descriptor> = listed
            .into_iter()
            .filter(|one| one.media_type == media::OCI_MANIFEST)
            // Some registries leave the type out of their list.
            .filter(|one| {
                one.artifact_type
                    .as_deref()
                    .is_none_or(|own| own == artifact_type)
            })
            .filter(|one| seen.insert(one.digest))
            .collect();
        found.truncate(SIGNATURES_MAX);
        Ok(found)
    }

    /// Has a manifest found as being about a subject, where the registry does not see to it.
    pub(super) fn add_referrer(
        &self,
        subject: BlobDigest,
        referrer: &Descriptor,
    ) -> Result<(), RegistryError> {
        let mut index = self.tagged(subject)?;
        if index
            .manifests
            .iter()
            .any(|one| one.digest == referrer.digest)
        {
            return Ok(());
        }
        if index.manifests.len() >= REFERRERS_MAX {
            return Err(RegistryError::Manifest {
                url: self.reference().with_version(tag(subject)).to_string(),
                problem: format!("names {REFERRERS_MAX} manifests already"),
            });
        }
        index.manifests.push(referrer.clone());
        let bytes = index.to_bytes();
        let descriptor = Descriptor::of(media::OCI_INDEX, &bytes);
        self.put_manifest(&tag(subject), &descriptor, &bytes)?;
        Ok(())
    }

    /// The registry's own list; nothing where it keeps none.
    fn listed(
        &self,
        subject: BlobDigest,
        artifact_type: &str,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let mut url = self.url(&format!("referrers/{subject}"))?;
        url.query_pairs_mut()
            .append_pair("artifactType", artifact_type);
        let mut found = Vec::new();
        for _ in 0..PAGES_MAX {
            let (page, next) = match self.again(|| self.page(&url))? {
                Some(page) => page,
                None if found.is_empty() => return Ok(None),
                None => break,
            };
            found.extend(page.manifests);
            match next.and_then(|next| url.join(&next).ok()) {
                Some(next) if is_same_origin(&next, &url) && found.len() < REFERRERS_MAX => {
                    url = next;
                }
                _ => break,
            }
        }
        Ok(Some(found))
    }

    fn page(
        &self,
        url: &reqwest::Url,
    ) -> Result<Option<(OciIndex, Option<String>)>, RegistryError> {
        let ask = Ask::new(Method::GET, url.clone()).header(ACCEPT, media::OCI_INDEX);
        let response = self.call(&ask)?;
        let told = text(response.headers(), &CONTENT_TYPE).unwrap_or_default();
        let told = told.split(';').next().unwrap_or_default().trim().to_owned();
        match response.status() {
            // Registries without such a list have all kinds of answers for unknown addresses.
            StatusCode::OK if !told.eq_ignore_ascii_case(media::OCI_INDEX) => return Ok(None),
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST => {
                return Ok(None);
            }
            _ => return Err(status_error(url, response)),
        }
        let next = text(response.headers(), &LINK).and_then(next_page);
        let bytes = read(
            response,
            &shown(url),
            coop_appliance::bundle::DOCUMENT_BYTES_MAX,
        )?;
        Ok(Some((OciIndex::parse(&bytes)?, next)))
    }

    /// What the tag for a subject names; an empty index where there is none.
    fn tagged(&self, subject: BlobDigest) -> Result<OciIndex, RegistryError> {
        match self.manifest(&tag(subject), media::OCI_INDEX)? {
            Some(found) => Ok(OciIndex::parse(&found.bytes)?),
            None => Ok(OciIndex::new(Vec::new())),
        }
    }
}

fn tag(subject: BlobDigest) -> Version {
    Version::Tag(format!("sha256-{}", subject.hex()))
}

/// The next page of a list, by its `Link: <…>; rel="next"`.
#[must_use]
pub fn next_page(link: &str) -> Option<String> {
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    parameters.contains("next").then(|| target.to_owned())
}
