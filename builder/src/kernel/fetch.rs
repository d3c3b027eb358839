//! Brings the recipe's kernel package, and the C library that it was built against.

use coop_image::tree::Tree;
use coop_runtime::event::Observer;

use super::{KernelError, KernelFiles, prebuilt};
use crate::debian::deb::{DebError, fetch_debs};
use crate::debian::mirror::MirrorError;
use crate::debian::suite::{DebianError, SelectedPackage, Suite, SuiteRequest};
use crate::debian::unpack::{UnpackError, unpack_files};
use crate::fetch::Fetcher;
use crate::recipe;
use crate::source::Archive;

/// The packages with the dynamic loader, the C library, and what its threads need at their end.
const LIBRARIES: [&str; 2] = ["libc6", "libgcc-s1"];
/// The only package whose layout is known.
const USER_MODE_LINUX: &str = "user-mode-linux";

/// Why the kernel's package cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KernelSourceError {
    /// The package is one whose files coop does not know.
    #[error(
        "kernel.package '{0}' is not supported yet; '{USER_MODE_LINUX}' is the one whose kernel \
         coop can start"
    )]
    Unsupported(String),
    /// No mirror.
    #[error("kernel: {0}")]
    Mirror(#[from] MirrorError),
    /// The suite.
    #[error("kernel: {0}")]
    Debian(#[from] DebianError),
    /// The download, or a damaged package.
    #[error("kernel: {0}")]
    Deb(#[from] DebError),
    /// The package's files.
    #[error("kernel: {0}")]
    Unpack(#[from] UnpackError),
    /// The package's kernel cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// A kernel and what it came from.
#[derive(Debug)]
pub struct FetchedKernel {
    /// What goes into the appliance.
    pub files: KernelFiles,
    /// One line for each package, archive, patch and compiler, with its digest.
    pub resolved: Vec<String>,
}

/// Fetches the package and the same suite's C library, and takes the kernel out.
///
/// # Errors
/// See [`KernelSourceError`].
pub fn fetch(
    package: &recipe::KernelPackage,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<FetchedKernel, KernelSourceError> {
    let recipe::KernelPackage { name, suite } = package;
    if name != USER_MODE_LINUX {
        return Err(KernelSourceError::Unsupported(name.clone()));
    }
    let request = SuiteRequest {
        suite: suite.clone(),
        ..archive.request(archive.mirror(None)?)
    };
    let suite = Suite::open(fetcher, &request, observer)?;
    let mut packages = vec![suite.find(name)?];
    for library in LIBRARIES {
        packages.push(suite.find(library)?);
    }
    let trees = fetch_debs(fetcher, &packages, observer)?
        .iter()
        .map(unpack_files)
        .collect::<Result<Vec<Tree>, _>>()?;
    Ok(FetchedKernel {
        files: prebuilt(&trees[0], &trees[1..])?,
        resolved: packages.iter().map(SelectedPackage::pin).collect(),
    })
}
