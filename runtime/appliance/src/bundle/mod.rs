//! The bundle: an appliance as an OCI artifact, in one file or in a registry.
//!
//! [`Package`] is the mapping: the config is `appliance.json`, every file of the appliance is a
//! layer, and the digest of the manifest names the whole. [`Blobs`] is where content comes from.

mod blobs;
mod digest;
mod error;
pub mod media;
mod oci;
mod package;
mod signed;

pub use blobs::{Blobs, Checked, read_small};
pub use digest::{BlobDigest, InvalidBlobDigest};
pub use error::BundleError;
pub use oci::{DOCUMENT_BYTES_MAX, Descriptor, OciIndex, OciManifest};
pub use package::{FILE_BYTES_MAX, LAYERS_MAX, Package};
pub use signed::{
    AttachedSignature, SIGNATURE_BYTES_MAX, SIGNATURES_MAX, SignatureArtifact, SignatureForm,
};
