//! Where a root file system comes from: the recipe's `rootfs.source`.

mod archive;
mod debian;
mod disk;
mod named;
mod tarball;
mod time;

use coop_image::tree::{Timestamp, Tree};

pub use archive::Archive;
pub use debian::{DebianSourceError, ResolvedDebian, closure, debian, pins, resolve_debian};
pub use disk::{DiskSourceError, ResolvedDisk, resolve_disk};
pub use named::{NamedFileError, address, host_file};
pub use tarball::{ResolvedTarball, TarballError, resolve_tarball};

/// A root file system as its source gives it.
#[derive(Debug)]
pub struct SourceTree {
    /// The file system.
    pub tree: Tree,
    /// The latest time that anything in the image may have: a property of the source.
    pub epoch: Timestamp,
    /// A script that the guest must run to finish what the source only unpacked.
    pub configure: Option<String>,
    /// What the source resolved to: one line for each input, pinned by digest, sorted.
    pub resolved: Vec<String>,
}
