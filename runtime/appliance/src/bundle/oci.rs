//! The documents of OCI's image specification (1.1), as far as coop writes them.
//!
//! Keys that are not known are skipped, as the specification asks; what decides about meaning is
//! checked where it is used. What coop writes is compact JSON, keys in the order of declaration and
//! annotations in byte order, so the same appliance has the same bytes.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::digest::BlobDigest;
use super::error::BundleError;
use super::media;

/// The version of every document.
const SCHEMA_VERSION: u32 = 2;
/// The largest manifest or index that is read, in bytes: what registries take.
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// Names a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: BlobDigest,
    /// Its length in bytes.
    pub size: u64,
    /// What a manifest is the manifest of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Describes bytes.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: BlobDigest::of(bytes),
            size: crate::digest::as_u64(bytes.len()),
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The same with an annotation.
    #[must_use]
    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// An OCI image manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciManifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::OCI_MANIFEST`].
    pub media_type: String,
    /// What it is the manifest of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config's blob.
    pub config: Descriptor,
    /// The layers' blobs.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl OciManifest {
    /// A manifest of an artifact.
    #[must_use]
    pub fn new(artifact_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            media_type: media::OCI_MANIFEST.to_owned(),
            artifact_type: Some(artifact_type.to_owned()),
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Reads a manifest. A document that could be read as an index too is refused.
    ///
    /// # Errors
    /// It is too large, no manifest, or of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        const WHAT: &str = "manifest";
        let shape: Shape = parse(bytes, WHAT)?;
        shape.check(WHAT, media::OCI_MANIFEST)?;
        if shape.manifests.is_some() {
            let reason = "it has a list of manifests, as an index has".to_owned();
            return Err(BundleError::Document { what: WHAT, reason });
        }
        parse(bytes, WHAT)
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

/// An OCI image index: the list of a layout's manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciIndex {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::OCI_INDEX`].
    #[serde(default = "index_type")]
    pub media_type: String,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Indices of layouts often do not say what they are.
fn index_type() -> String {
    media::OCI_INDEX.to_owned()
}

impl OciIndex {
    /// An index of these manifests.
    #[must_use]
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            media_type: index_type(),
            manifests,
            annotations: BTreeMap::new(),
        }
    }

    /// Reads an index. A document that could be read as a manifest too is refused.
    ///
    /// # Errors
    /// It is too large, no index, or of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        const WHAT: &str = "index";
        let shape: Shape = parse(bytes, WHAT)?;
        shape.check(WHAT, media::OCI_INDEX)?;
        if shape.layers.is_some() || shape.config.is_some() {
            let reason = "it has a config or layers, as a manifest has".to_owned();
            return Err(BundleError::Document { what: WHAT, reason });
        }
        parse(bytes, WHAT)
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

/// What tells documents apart, so that none is taken for another.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

impl Shape {
    fn check(&self, what: &'static str, media_type: &str) -> Result<(), BundleError> {
        let found = self.media_type.as_deref().unwrap_or(media_type);
        let reason = if self.schema_version != SCHEMA_VERSION {
            format!(
                "it has schema version {}, this program reads {SCHEMA_VERSION}",
                self.schema_version
            )
        } else if found != media_type {
            format!("its media type is '{}'", found.escape_debug())
        } else {
            return Ok(());
        };
        Err(BundleError::Document { what, reason })
    }
}

fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8], what: &'static str) -> Result<T, BundleError> {
    let size = crate::digest::as_u64(bytes.len());
    if size > DOCUMENT_BYTES_MAX {
        let reason = format!("it is larger than {DOCUMENT_BYTES_MAX} bytes");
        return Err(BundleError::Document { what, reason });
    }
    serde_json::from_slice(bytes).map_err(|error| BundleError::Document {
        what,
        reason: error.to_string(),
    })
}

fn to_bytes(document: &impl Serialize) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "strings, numbers and maps of strings have a JSON form"
    )]
    serde_json::to_vec(document).expect("the document has a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> OciManifest {
        let config = Descriptor::of(media::CONFIG, b"{}");
        let layer = Descriptor::of(media::FILE, b"a")
            .annotated(media::TITLE, "z")
            .annotated("a", "b");
        OciManifest::new(media::APPLIANCE, config, vec![layer])
    }

    #[test]
    fn bytes_are_pinned() {
        let bytes = manifest().to_bytes();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert_eq!(
            text,
            "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\
             \"artifactType\":\"application/vnd.coop.appliance.v1\",\"config\":{\"mediaType\":\
             \"application/vnd.coop.appliance.config.v1+json\",\"digest\":\"sha256:\
             44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\"size\":2},\
             \"layers\":[{\"mediaType\":\"application/vnd.coop.appliance.file.v1\",\"digest\":\
             \"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb\",\
             \"size\":1,\"annotations\":{\"a\":\"b\",\"org.opencontainers.image.title\":\"z\"}}]}"
        );
        assert_eq!(OciManifest::parse(&bytes).unwrap(), manifest());
        let index = OciIndex::new(vec![Descriptor::of(media::OCI_MANIFEST, &bytes)]);
        assert_eq!(OciIndex::parse(&index.to_bytes()).unwrap(), index);
    }

    #[test]
    fn no_document_is_taken_for_another() {
        let text = String::from_utf8(manifest().to_bytes()).unwrap();
        let index = String::from_utf8(OciIndex::new(Vec::new()).to_bytes()).unwrap();
        for (bad, says) in [
            (
                text.replace("\"layers\"", "\"manifests\":[],\"layers\""),
                "as an index has",
            ),
            (
                text.replace("image.manifest", "image.index"),
                "media type is",
            ),
            (text.replace("ion\":2", "ion\":1"), "schema version 1"),
            (
                text.replace("\"config\":{", "\"layers\":[],\"config\":{"),
                "duplicate",
            ),
            (text.replace("\"size\":2", "\"size\":-2"), "invalid value"),
            (index.clone(), "media type is"),
            (" ".repeat(5 << 20), "larger than"),
        ] {
            let error = OciManifest::parse(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let both = index.replace("\"manifests\"", "\"layers\":[],\"manifests\"");
        let error = OciIndex::parse(both.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("as a manifest has"), "{error}");
        // A layout's index often has no media type.
        let bare = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(OciIndex::parse(bare).unwrap(), OciIndex::new(Vec::new()));
    }
}
