//! A kernel from its source.

use std::path::PathBuf;

use coop_runtime::event::Observer;

use super::FetchedKernel;
use super::config::Wanted;
use crate::fetch::Fetcher;
use crate::recipe::KernelSource;
use crate::source::Archive;

/// What to make, and with what means.
pub struct MakeRequest<'a> {
    /// Source, patches, target and place.
    pub source: &'a KernelSource,
    /// What its configuration is to be, conditions and all, in the order of the recipe.
    pub wanted: &'a [Wanted],
    /// Whether it starts from the architecture's defconfig instead of from nothing.
    pub defconfig: bool,
    /// Whether a wanted symbol that does not hold is a warning instead of an error.
    pub allow_dropped: bool,
    /// Downloads and the store.
    pub fetcher: &'a Fetcher,
    /// Where Debian packages come from.
    pub archive: &'a Archive<'a>,
    /// Where the host's programs are looked for, first folder first.
    pub programs: &'a [PathBuf],
    /// Who watches.
    pub observer: &'a dyn Observer,
}

/// Why a kernel was not made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// This version of coop makes none.
    #[error("kernels from source cannot be built by this version of coop")]
    Unsupported,
}

/// Gives the kernel from the store, or makes it.
///
/// # Errors
/// See [`MakeError`].
pub fn build(_request: &MakeRequest<'_>) -> Result<FetchedKernel, MakeError> {
    Err(MakeError::Unsupported)
}
