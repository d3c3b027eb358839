//! Signatures as OCI referrers: a manifest whose subject is the appliance's manifest.

use super::blobs::{Blobs, read_small};
use super::digest::BlobDigest;
use super::error::BundleError;
use super::media;
use super::oci::{Descriptor, OciManifest};

/// The longest signature that is read, in bytes.
pub const SIGNATURE_BYTES_MAX: u64 = 16 << 10;
/// How many signatures of one appliance are looked at.
pub const SIGNATURES_MAX: usize = 64;
/// The config of a manifest that needs none.
const EMPTY_CONFIG: &[u8] = b"{}";

/// A signature's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignatureForm {
    /// The text of a minisign signature file.
    Minisign,
    /// 64 bytes of Ed25519.
    Ed25519,
}

impl SignatureForm {
    fn media_type(self) -> &'static str {
        match self {
            Self::Minisign => media::MINISIGN,
            Self::Ed25519 => media::ED25519,
        }
    }

    fn of(media_type: &str) -> Option<Self> {
        let all = [Self::Minisign, Self::Ed25519];
        all.into_iter().find(|form| form.media_type() == media_type)
    }
}

/// A signature that goes with an appliance, as bytes that nobody has checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttachedSignature {
    /// Its form.
    pub form: SignatureForm,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl AttachedSignature {
    /// The signature as an OCI artifact about `subject`.
    #[must_use]
    pub fn to_artifact(&self, subject: &Descriptor) -> SignatureArtifact {
        let layer = Descriptor::of(self.form.media_type(), &self.bytes);
        let config = Descriptor::of(media::EMPTY, EMPTY_CONFIG);
        let mut manifest = OciManifest::new(media::SIGNATURE, config.clone(), vec![layer.clone()]);
        // A subject is named by type, digest and size alone.
        manifest.subject = Some(Descriptor {
            artifact_type: None,
            annotations: std::collections::BTreeMap::new(),
            ..subject.clone()
        });
        let bytes = manifest.to_bytes();
        let mut descriptor = Descriptor::of(media::OCI_MANIFEST, &bytes);
        descriptor.artifact_type = Some(media::SIGNATURE.to_owned());
        SignatureArtifact {
            descriptor,
            manifest: bytes,
            blobs: vec![(config, EMPTY_CONFIG.to_vec()), (layer, self.bytes.clone())],
        }
    }

    /// Reads the signatures out of a signature's manifest. Those of another subject or of forms
    /// that this program does not know are passed over: they say nothing about the appliance.
    ///
    /// # Errors
    /// The manifest is none, or a signature's blob is missing, too large or another.
    pub fn of_artifact(
        manifest: &[u8],
        subject: BlobDigest,
        blobs: &dyn Blobs,
    ) -> Result<Vec<Self>, BundleError> {
        let manifest = OciManifest::parse(manifest)?;
        let about = manifest.subject.as_ref().map(|subject| subject.digest);
        if manifest.artifact_type.as_deref() != Some(media::SIGNATURE) || about != Some(subject) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for layer in manifest.layers.iter().take(SIGNATURES_MAX) {
            if let Some(form) = SignatureForm::of(&layer.media_type) {
                let bytes = read_small(blobs, layer, "signature", SIGNATURE_BYTES_MAX)?;
                found.push(Self { form, bytes });
            }
        }
        Ok(found)
    }
}

/// A signature with everything that a registry or a layout stores for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureArtifact {
    /// The manifest's descriptor, for the index or the list of referrers.
    pub descriptor: Descriptor,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// Its config and its layer.
    pub blobs: Vec<(Descriptor, Vec<u8>)>,
}
