//! The bundle: an appliance as an OCI artifact, in one file or in a registry.
//!
//! [`Package`] is the mapping: the config is `appliance.json`, every file of the appliance is a
//! layer, and the digest of the manifest names the whole. [`Blobs`] is where content comes from: a
//! [`Layout`], which is a bundle file or an appliance just packed, or a registry. [`install`] makes a
//! folder of it again. [`AttachedSignature`] is what goes with it; [`crate::trust`] says what that is
//! worth.

mod archive;
mod blobs;
mod chunks;
mod digest;
mod error;
mod install;
mod layout;
pub mod media;
mod oci;
mod package;
mod signed;
#[cfg(test)]
mod tests;

pub use blobs::{Blobs, Checked, read_small};
pub use chunks::CHUNK_BYTES;
pub use digest::{BlobDigest, InvalidBlobDigest};
pub use error::BundleError;
pub use install::{install, verify};
pub use layout::{Layout, is_bundle, write_bundle};
pub use oci::{DOCUMENT_BYTES_MAX, Descriptor, OciIndex, OciManifest};
pub use package::{FILE_BYTES_MAX, LAYERS_MAX, Package};
pub use signed::{
    AttachedSignature, SIGNATURE_BYTES_MAX, SIGNATURES_MAX, SignatureArtifact, SignatureForm,
};
