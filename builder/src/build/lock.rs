//! What a build would ask the archives, asked without building.

use super::kernel::kernel_request;
use super::{BuildError, BuildRequest};
use crate::kernel::{self, Target};
use crate::lock::Lock;
use crate::recipe::{self, Source};
use crate::source::{self, TarballError};

/// Asks the archives all that a build would ask them, or, where the request has a lock, the lock.
/// Little is fetched: indices, and what stands between a metapackage and its kernel.
///
/// # Errors
/// Those of [`BuildError`] that are about names.
pub fn lock(request: &BuildRequest<'_>) -> Result<Lock, BuildError> {
    let BuildRequest {
        recipe,
        fetcher,
        archive,
        observer,
        ..
    } = request;
    match &recipe.rootfs.source {
        Source::Debian(debian) => {
            source::pins(debian, fetcher, archive, &**observer)?;
        }
        Source::Tarball(tarball) => {
            source::pin_tarball(&tarball.location, fetcher, archive.pins, &**observer)
                .map_err(TarballError::from)?;
        }
    }
    kernel::pin(&kernel_request(request, &recipe.kernel))?;
    if recipe.kernel.target() != Target::Um {
        // The guests that build have one of their own.
        kernel::pin(&kernel_request(request, &recipe::Kernel::default()))?;
    }
    Ok(archive.pins.seen())
}
