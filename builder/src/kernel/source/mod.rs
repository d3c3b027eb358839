//! The source of a kernel: where it comes from, and how it gets, verified and patched, into a
//! folder.
//!
//! | module | what |
//! |---|---|
//! | `origin` | from what the recipe says to one pinned package or archive, and its patches |
//! | `packed` | that file as a stream of a tar's bytes: nothing in between is written to disk |
//! | `unpack` | the stream into a folder, with rules that no archive gets around |
//! | `folder` | a folder below which no link is followed |
//! | `filter` | what no build of ours reads |
//! | `kept` | what configuration reads, kept in the store |
//! | `patch` | patches: read, checked, applied |
//! | `version` | which kernel it is |
//!
//! This is the one place where coop unpacks something into the host's file system: make and the
//! compiler want files.

mod filter;
mod folder;
mod kept;
mod origin;
mod packed;
mod patch;
#[cfg(test)]
mod tests;
mod unpack;
mod version;

use std::io;
use std::path::{Path, PathBuf};

use coop_image::tar::TarError;
use coop_runtime::event::Observer;

use crate::debian::deb::DebError;
use crate::debian::mirror::MirrorError;
use crate::debian::suite::DebianError;
use crate::fetch::{FetchError, Fetcher};
use crate::recipe::KernelSource;
use crate::source::{Archive, NamedFileError};
use crate::store::StoreError;

pub use origin::{ResolvedSource, resolve};
pub use patch::{PatchError, patched};
pub use version::KernelVersion;

/// Why a kernel's source cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No mirror.
    #[error("kernel source: {0}")]
    Mirror(#[from] MirrorError),
    /// The suite.
    #[error("kernel source: {0}")]
    Debian(#[from] DebianError),
    /// The suite has no such package.
    #[error("suite '{suite}' has no package '{package}'{hint}")]
    NoPackage {
        /// What was asked for.
        package: String,
        /// Where.
        suite: String,
        /// What there is, as part of the sentence.
        hint: String,
    },
    /// The package is not one with a kernel's source.
    #[error(
        "package '{0}' has no kernel source; those that have are named like 'linux-source-7.2'"
    )]
    OtherPackage(String),
    /// A damaged package.
    #[error("kernel source: {0}")]
    Deb(#[from] DebError),
    /// The download.
    #[error("kernel source: {0}")]
    Fetch(#[from] FetchError),
    /// The cache folder.
    #[error("kernel source: {0}")]
    Store(#[from] StoreError),
    /// The archive is not there, or not what it should be.
    #[error("kernel source: {0}")]
    Named(#[from] NamedFileError),
    /// The archive cannot be opened.
    #[error("kernel source: {0}")]
    Io(#[from] io::Error),
    /// The archive is damaged or exceeds a limit.
    #[error("{name}: {source}")]
    Archive {
        /// The source.
        name: String,
        /// Where and what.
        source: TarError,
    },
    /// A file's content cannot be read from the archive.
    #[error("{name}: {entry} cannot be read: {source}")]
    Unreadable {
        /// The source.
        name: String,
        /// The file.
        entry: String,
        /// What the decompressor says.
        source: io::Error,
    },
    /// An entry that coop does not unpack to the host.
    #[error("{name}: '{entry}' {problem}")]
    Refused {
        /// The source.
        name: String,
        /// The entry's path.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The folder cannot be used.
    #[error("the folder '{}' for the kernel's source {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of the source cannot be written: the host's matter, mostly a full disk.
    #[error("{path} of the kernel's source cannot be written: {source}")]
    Write {
        /// Its path in the source.
        path: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// What was unpacked is no kernel.
    #[error("{name} is no kernel source: {problem}")]
    NotAKernel {
        /// The source.
        name: String,
        /// What is missing.
        problem: String,
    },
    /// A patch cannot be read.
    #[error(transparent)]
    Patch(PatchError),
    /// A patch does not fit.
    #[error("{patch}; the source is {name}")]
    Patching {
        /// Which patch, file and hunk.
        patch: PatchError,
        /// What they were applied to.
        name: String,
    },
    /// Whoever watches called it off.
    #[error("unpacking {0} was called off")]
    Cancelled(String),
}

/// How much of a source is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What a build of our targets needs: no documentation, other architectures, or self-tests.
    Build,
    /// What configuration of our targets reads: Kconfig, makefiles, and scripts. It is kept in the
    /// store, so that only the first time takes long.
    Configuration,
    /// All of it.
    Whole,
}

/// A source in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTree {
    /// The folder with the top Makefile.
    pub root: PathBuf,
    /// Which kernel it is, by its Makefile, patched.
    pub version: KernelVersion,
    /// The latest time of any file, in seconds since 1970: for `SOURCE_DATE_EPOCH`.
    pub epoch_seconds: i64,
    /// Files and symbolic links that were unpacked.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files and symbolic links that were left out.
    pub left_out: u64,
}

/// Fetches and verifies a source, unpacks what a build needs into an empty folder that nobody else
/// writes to, and applies the patches. After an error the folder holds a part of it.
///
/// # Errors
/// [`SourceError`].
pub fn prepare(
    source: &KernelSource,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
    into: &Path,
) -> Result<SourceTree, SourceError> {
    resolve(source, fetcher, archive, observer)?.prepare(fetcher, observer, into, Extent::Build)
}
