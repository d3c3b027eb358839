//! Every media type of a bundle, in one place.

/// What an appliance's OCI manifest says that it is (`artifactType`).
pub const APPLIANCE: &str = "application/vnd.coop.appliance.v1";
/// Its config: the bytes of `appliance.json`.
pub const CONFIG: &str = "application/vnd.coop.appliance.config.v1+json";
/// A layer that is a file as it is: what people read (the kernel's .config, the evidence).
pub const FILE: &str = "application/vnd.coop.appliance.file.v1";
/// A layer that is a file in chunks of zstd, holes left out (see `chunks.rs`): what machines
/// read (kernels, cobds).
pub const CHUNKS: &str = "application/vnd.coop.appliance.chunks.v1+zstd";
/// What a signature's OCI manifest says that it is (`artifactType`); its `subject` is the
/// appliance's manifest, its config is [`EMPTY`] and its layers are signatures.
pub const SIGNATURE: &str = "application/vnd.coop.signature.v1";
/// A layer that is the text of a minisign signature file.
pub const MINISIGN: &str = "application/vnd.coop.signature.minisign.v1";
/// A layer that is a raw Ed25519 signature of 64 bytes.
pub const ED25519: &str = "application/vnd.coop.signature.ed25519.v1";

/// An OCI image manifest, which has room for other artifacts since version 1.1.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The config of a manifest that needs none: the two bytes `{}`.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Annotation of a layer: the file's path inside the appliance.
pub const TITLE: &str = "org.opencontainers.image.title";
/// Annotation of the appliance's manifest: the recipe's description.
pub const DESCRIPTION: &str = "org.opencontainers.image.description";
/// Annotation of a manifest in a layout's index: its name there.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
