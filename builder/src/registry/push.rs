//! `coop push`: an appliance and its signatures to a registry.

use coop_appliance::bundle::{AttachedSignature, Blobs, Descriptor, Package};
use coop_runtime::event::Observer;

use super::Registry;
use super::error::RegistryError;
use super::progress::Progress;
use super::reference::Version;
use super::together::each;
use crate::store::Store;

/// What observers see it as.
const TASK: &str = "push";

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The appliance's manifest.
    pub descriptor: Descriptor,
    /// The manifest by its digest: what `coop pull` gets whatever becomes of the tag.
    pub pinned: String,
    /// How many blobs were sent, and how many bytes they have.
    pub sent: (usize, u64),
    /// How many blobs the registry had already.
    pub there: usize,
    /// How many signatures are about the manifest.
    pub signatures: usize,
}

impl Registry {
    /// Brings an appliance to the repository: first what it is made of, then the manifest, then what
    /// is about it, and the tag at last, so that nobody pulls by a tag what is not whole.
    ///
    /// # Errors
    /// The registry cannot be reached, does not allow it, or takes something for something else.
    pub fn push(
        &self,
        package: &Package,
        blobs: &dyn Blobs,
        signatures: &[AttachedSignature],
        store: &Store,
        observer: &dyn Observer,
    ) -> Result<Pushed, RegistryError> {
        let descriptor = package.descriptor();
        let all = package.blobs();
        let total = all.iter().map(|blob| blob.size).sum();
        let progress = Progress::start(TASK, total, observer);
        let count = all.len();
        let sent = each(all, &progress, |blob| {
            let is_sent = self.upload(blob, blobs, store, &progress)?;
            Ok(is_sent.then_some(blob.size))
        })?;
        let sizes: Vec<u64> = sent.into_iter().flatten().collect();
        let sent = (sizes.len(), sizes.iter().sum());
        let by_digest = Version::Digest(descriptor.digest);
        self.put_manifest(&by_digest, &descriptor, package.bytes())?;
        for signature in signatures {
            self.attach(signature, &descriptor, store)?;
        }
        if let Version::Tag(_) = self.reference().version {
            self.put_manifest(&self.reference().version, &descriptor, package.bytes())?;
        }
        Ok(Pushed {
            pinned: self.reference().with_version(by_digest).to_string(),
            descriptor,
            sent,
            there: count.saturating_sub(sent.0),
            signatures: signatures.len(),
        })
    }

    /// Brings a signature to the repository, as a manifest whose subject is the appliance's.
    ///
    /// # Errors
    /// As [`Registry::push`].
    pub fn attach(
        &self,
        signature: &AttachedSignature,
        subject: &Descriptor,
        store: &Store,
    ) -> Result<(), RegistryError> {
        let artifact = signature.to_artifact(subject);
        let silent = Progress::silent();
        for (blob, bytes) in &artifact.blobs {
            self.upload(blob, &Given(bytes), store, &silent)?;
        }
        let version = Version::Digest(artifact.descriptor.digest);
        let is_listed = self.put_manifest(&version, &artifact.descriptor, &artifact.manifest)?;
        if !is_listed {
            self.add_referrer(subject.digest, &artifact.descriptor)?;
        }
        Ok(())
    }
}

/// One blob that is in memory.
struct Given<'a>(&'a [u8]);

impl Blobs for Given<'_> {
    fn open(
        &self,
        _: &Descriptor,
    ) -> Result<Box<dyn std::io::Read + Send + '_>, coop_appliance::bundle::BundleError> {
        Ok(Box::new(self.0))
    }
}
