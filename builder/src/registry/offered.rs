//! What a registry offers: an appliance with its signatures, before any of its files comes.

use coop_appliance::bundle::{
    AttachedSignature, BlobDigest, Blobs, BundleError, DOCUMENT_BYTES_MAX, Descriptor, Package,
    SIGNATURES_MAX, media, read_small,
};

use super::Registry;
use super::blobs::{Fetched, Stored, cause};
use super::error::RegistryError;
use super::reference::{Reference, Version};
use crate::digest::Digest;
use crate::store::Store;

/// The kind of note that remembers an offer: the manifests' descriptors, the appliance's first.
const NOTE: &str = "offered";

/// An appliance of a registry: everything but its files, and signatures that nobody has checked.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Its manifest and config, which agree.
    pub package: Package,
    /// What came with it.
    pub signatures: Vec<AttachedSignature>,
}

impl Registry {
    /// The appliance that the reference names, and what is signed about it. Whoever asks looks at
    /// the signatures before the files come.
    ///
    /// # Errors
    /// There is none, it is something else than an appliance or contradicts itself, or the registry
    /// cannot be reached, does not allow it, or sends something else than what was asked for.
    pub fn offered(&self, store: &Store) -> Result<Offered, RegistryError> {
        let reference = self.reference();
        let found = self.manifest(&reference.version, media::OCI_MANIFEST)?;
        let found = found.ok_or_else(|| RegistryError::Missing(reference.to_string()))?;
        let blobs = Fetched {
            registry: self,
            store,
        };
        let package = Package::open(found.bytes, &blobs).map_err(cause)?;
        let (signatures, manifests) = self.signatures(found.digest, store)?;
        let offered = Offered {
            package,
            signatures,
        };
        offered.remember(reference, manifests, store)?;
        Ok(offered)
    }

    /// The signatures of a manifest, and the manifests that they are in.
    pub(super) fn signatures(
        &self,
        subject: BlobDigest,
        store: &Store,
    ) -> Result<(Vec<AttachedSignature>, Vec<Vec<u8>>), RegistryError> {
        let blobs = Fetched {
            registry: self,
            store,
        };
        let (mut signatures, mut manifests) = (Vec::new(), Vec::new());
        for referrer in self.referrers(subject, media::SIGNATURE)? {
            let version = Version::Digest(referrer.digest);
            let Some(found) = self.manifest(&version, media::OCI_MANIFEST)? else {
                continue;
            };
            let read = AttachedSignature::of_artifact(&found.bytes, subject, &blobs);
            let read = read.map_err(cause)?;
            if !read.is_empty() {
                signatures.extend(read);
                manifests.push(found.bytes);
            }
            if signatures.len() >= SIGNATURES_MAX {
                break;
            }
        }
        signatures.truncate(SIGNATURES_MAX);
        Ok((signatures, manifests))
    }
}

impl Offered {
    /// What this repository offered under this digest when it was asked last; nothing for a tag,
    /// which may name something else by now.
    ///
    /// # Errors
    /// The store fails.
    pub fn remembered(reference: &Reference, store: &Store) -> Result<Option<Self>, RegistryError> {
        let Version::Digest(digest) = reference.version else {
            return Ok(None);
        };
        let note = store.note(NOTE, &key(reference, digest))?;
        let note = note.and_then(|note| serde_json::from_slice::<Vec<Descriptor>>(&note).ok());
        let manifests = note.unwrap_or_default();
        // What the cache has lost is asked for again.
        Ok(Self::read(digest, &manifests, &Stored(store)).ok())
    }

    fn read(
        digest: BlobDigest,
        manifests: &[Descriptor],
        blobs: &dyn Blobs,
    ) -> Result<Self, BundleError> {
        let missing = BundleError::Missing(digest);
        let (first, others) = manifests.split_first().ok_or(missing)?;
        let read = |blob| read_small(blobs, blob, "manifest", DOCUMENT_BYTES_MAX);
        let package = Package::open(read(first)?, blobs)?;
        let mut signatures = Vec::new();
        for blob in others {
            let found = AttachedSignature::of_artifact(&read(blob)?, digest, blobs)?;
            signatures.extend(found);
        }
        match package.digest() == digest {
            true => Ok(Self {
                package,
                signatures,
            }),
            false => Err(BundleError::Missing(digest)),
        }
    }

    /// Where the files are read, if the store has all of them.
    ///
    /// # Errors
    /// The store fails.
    pub fn stored<'s>(
        &self,
        store: &'s Store,
    ) -> Result<Option<impl Blobs + use<'s>>, RegistryError> {
        for blob in self.package.blobs() {
            let found = store.blob(&Digest::from(*blob.digest.as_bytes()))?;
            let length = found.map(|file| file.metadata()).transpose()?;
            if length.map(|metadata| metadata.len()) != Some(blob.size) {
                return Ok(None);
            }
        }
        Ok(Some(Stored(store)))
    }

    fn remember(
        &self,
        reference: &Reference,
        signatures: Vec<Vec<u8>>,
        store: &Store,
    ) -> Result<(), RegistryError> {
        if signatures.is_empty() {
            return Ok(());
        }
        let mut manifests = vec![self.package.bytes().to_vec()];
        manifests.extend(signatures);
        let mut descriptors = Vec::new();
        for bytes in &manifests {
            store.put(bytes)?;
            descriptors.push(Descriptor::of(media::OCI_MANIFEST, bytes));
        }
        let note = serde_json::to_vec(&descriptors).unwrap_or_default();
        let key = key(reference, self.package.digest());
        Ok(store.put_note(NOTE, &key, &note)?)
    }
}

/// Policies trust keys for repositories, so an offer counts for the one that made it.
fn key(reference: &Reference, digest: BlobDigest) -> String {
    let version = Version::Digest(digest);
    reference.with_version(version).to_string()
}
