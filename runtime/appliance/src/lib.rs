//! The appliance: the folder that a build yields and a run opens.
//!
//! This crate is the contract between builder and runtime and knows nothing of either. The folder
//! holds `appliance.json` (the [`Manifest`]), the kernel with its `config`, the cobds, and the
//! evidence; every file that the manifest names lies inside the folder and has its digest there.

pub mod bundle;
mod digest;
mod manifest;
mod processors;
mod root;
pub mod trust;

pub use digest::sha256_of_file;
pub use manifest::{
    Appliance, ApplianceError, Cobd, Cocon, Conet, EVIDENCE_FOLDER, FORMAT, Filesystem, Forward,
    Kernel, MANIFEST_NAME, Machine, Manifest, Member, Protocol, Readonly, Target, TestStep,
    Writable,
};
pub use processors::processors_of_config;
pub use root::{NfsRoot, Root};
