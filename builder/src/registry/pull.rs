//! `coop pull`: an appliance out of a registry into the store.

use coop_appliance::bundle::{
    AttachedSignature, BlobDigest, Blobs, BundleError, DOCUMENT_BYTES_MAX, Descriptor,
    FILE_BYTES_MAX, LAYERS_MAX, OciManifest, Package, SIGNATURE_BYTES_MAX, SIGNATURES_MAX, media,
};
use coop_runtime::event::Observer;

use super::Registry;
use super::blobs::Stored;
use super::error::RegistryError;
use super::manifest::Found;
use super::progress::Progress;
use super::reference::Version;
use crate::store::Store;

/// What observers see it as.
const TASK: &str = "pull";

impl Registry {
    /// The manifest of the appliance that the reference names. Nothing else is read yet: whoever
    /// asks looks at its signatures first.
    ///
    /// # Errors
    /// There is none, it is something else than an appliance's, or the registry cannot be reached,
    /// does not allow it, or sends something else than what was asked for.
    pub fn appliance(&self) -> Result<Found, RegistryError> {
        let reference = self.reference();
        let found = self.manifest(&reference.version, media::OCI_MANIFEST)?;
        let found = found.ok_or_else(|| RegistryError::Missing(reference.to_string()))?;
        check_bounds(&OciManifest::parse(&found.bytes)?)?;
        Ok(found)
    }

    /// The signatures of a manifest, which nobody has checked.
    ///
    /// # Errors
    /// As [`Registry::appliance`]; or a signature's manifest or blob is not what it should be.
    pub fn signatures(
        &self,
        subject: BlobDigest,
        store: &Store,
    ) -> Result<Vec<AttachedSignature>, RegistryError> {
        let silent = Progress::silent();
        let mut signatures = Vec::new();
        for referrer in self.referrers(subject, media::SIGNATURE)? {
            let version = Version::Digest(referrer.digest);
            let Some(found) = self.manifest(&version, media::OCI_MANIFEST)? else {
                continue;
            };
            let manifest = OciManifest::parse(&found.bytes)?;
            let is_about = manifest.subject.as_ref().map(|one| one.digest) == Some(subject);
            if manifest.artifact_type.as_deref() != Some(media::SIGNATURE) || !is_about {
                continue;
            }
            for layer in manifest.layers.iter().take(SIGNATURES_MAX) {
                bound("the size of a signature", layer.size, SIGNATURE_BYTES_MAX)?;
                self.download(layer, store, &silent)?;
            }
            let read = AttachedSignature::of_artifact(&found.bytes, subject, &Stored(store))?;
            signatures.extend(read);
            if signatures.len() >= SIGNATURES_MAX {
                break;
            }
        }
        signatures.truncate(SIGNATURES_MAX);
        Ok(signatures)
    }

    /// Gets an appliance's config: whether it is one at all, and which, is known before its layers
    /// come.
    ///
    /// # Errors
    /// As [`Registry::appliance`]; or the appliance contradicts itself, or the store fails.
    pub fn package(&self, found: Found, store: &Store) -> Result<Package, RegistryError> {
        let manifest = OciManifest::parse(&found.bytes)?;
        check_bounds(&manifest)?;
        self.download(&manifest.config, store, &Progress::silent())?;
        Ok(Package::open(found.bytes, &Stored(store))?)
    }

    /// Brings all blobs of an appliance into the store, and says how they are read there.
    ///
    /// # Errors
    /// As [`Registry::appliance`]; or the store fails. What came stays there for the next attempt.
    pub fn pull<'s>(
        &self,
        package: &Package,
        store: &'s Store,
        observer: &dyn Observer,
    ) -> Result<impl Blobs + use<'s>, RegistryError> {
        let all = package.blobs();
        let total = all.iter().map(|blob| blob.size).sum();
        let progress = Progress::start(TASK, total, observer);
        for blob in all {
            self.download(blob, store, &progress)?;
        }
        drop(progress);
        Ok(Stored(store))
    }
}

/// What must hold before anything that a manifest names is fetched.
fn check_bounds(manifest: &OciManifest) -> Result<(), BundleError> {
    let found = manifest.artifact_type.clone().unwrap_or_default();
    if found != media::APPLIANCE {
        return Err(BundleError::NotAnAppliance {
            what: "its artifact type",
            found: found.escape_debug().to_string(),
            expected: media::APPLIANCE,
        });
    }
    let layers = u64::try_from(manifest.layers.len()).unwrap_or(u64::MAX);
    let most = u64::try_from(LAYERS_MAX).unwrap_or(u64::MAX);
    bound("the number of layers", layers, most)?;
    bound(
        "the size of the config",
        manifest.config.size,
        DOCUMENT_BYTES_MAX,
    )?;
    let mut total = 0_u64;
    for Descriptor { size, .. } in &manifest.layers {
        total = total.saturating_add(*size);
    }
    bound("the size of all layers", total, FILE_BYTES_MAX)
}

fn bound(what: &str, found: u64, limit: u64) -> Result<(), BundleError> {
    if found <= limit {
        return Ok(());
    }
    Err(BundleError::Limit {
        what: what.to_owned(),
        found,
        limit,
    })
}
