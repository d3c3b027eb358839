//! The recipe's source, known before it is fetched.

use coop_image::tree::Timestamp;

use super::{BuildError, BuildRequest};
use crate::debian::suite::SuiteRequest;
use crate::recipe;
use crate::source::{
    ResolvedDebian, ResolvedDisk, ResolvedTarball, SourceTree, resolve_debian, resolve_disk,
    resolve_tarball,
};
use crate::store::StoreError;

/// What the recipe's source came to.
pub(super) enum Source<'r> {
    Debian(Box<ResolvedDebian>),
    Tarball(Box<ResolvedTarball<'r>>),
    Disk(Box<ResolvedDisk<'r>>),
}

impl<'r> Source<'r> {
    pub(super) fn resolve(request: &BuildRequest<'r>) -> Result<Self, BuildError> {
        let BuildRequest {
            recipe,
            fetcher,
            archive,
            observer,
            ..
        } = request;
        Ok(match &recipe.rootfs.source {
            recipe::Source::Debian(debian) => Self::Debian(Box::new(resolve_debian(
                debian,
                fetcher,
                archive,
                &**observer,
            )?)),
            recipe::Source::Tarball(tarball) => Self::Tarball(Box::new(resolve_tarball(
                tarball,
                fetcher,
                archive.pins,
                &**observer,
            )?)),
            recipe::Source::Disk(disk) => Self::Disk(Box::new(resolve_disk(
                disk,
                fetcher,
                archive.pins,
                &**observer,
            )?)),
        })
    }

    /// Whether there are packages that the guest configures.
    pub(super) fn configures(&self) -> bool {
        match self {
            Self::Debian(debian) => debian.configures(),
            Self::Tarball(_) | Self::Disk(_) => false,
        }
    }

    pub(super) fn fields(&self) -> Vec<(String, String)> {
        match self {
            Self::Debian(debian) => debian.fields(),
            Self::Tarball(tarball) => tarball.fields(),
            Self::Disk(disk) => disk.fields(),
        }
    }

    pub(super) fn resolved(&self) -> Vec<String> {
        match self {
            Self::Debian(debian) => debian.resolved(),
            Self::Tarball(tarball) => tarball.resolved(),
            Self::Disk(disk) => disk.resolved(),
        }
    }

    /// The indices of the archives, one line each.
    pub(super) fn suites(&self) -> &[String] {
        match self {
            Self::Debian(debian) => debian.suites(),
            Self::Tarball(_) | Self::Disk(_) => &[],
        }
    }

    /// The suites that steps may have packages from, each with its index pinned.
    pub(super) fn archives(&self) -> &[SuiteRequest] {
        match self {
            Self::Debian(debian) => debian.archives(),
            Self::Tarball(_) | Self::Disk(_) => &[],
        }
    }

    /// The latest time in the image, where it is known without reading the source.
    pub(super) fn epoch(
        &self,
        request: &BuildRequest<'_>,
    ) -> Result<Option<Timestamp>, StoreError> {
        match self {
            Self::Debian(debian) => Ok(Some(debian.epoch())),
            Self::Tarball(tarball) => tarball.epoch(request.fetcher.store()),
            Self::Disk(disk) => disk.epoch(request.fetcher.store()),
        }
    }

    pub(super) fn unpack(self, request: &BuildRequest<'_>) -> Result<SourceTree, BuildError> {
        let BuildRequest {
            fetcher, observer, ..
        } = request;
        Ok(match self {
            Self::Debian(debian) => debian.unpack(fetcher, &**observer)?,
            Self::Tarball(tarball) => tarball.unpack(fetcher, &**observer)?,
            Self::Disk(disk) => disk.unpack(fetcher, &**observer)?,
        })
    }
}
