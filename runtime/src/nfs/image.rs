//! An ext4 image as an export.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coop_image::ext4;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::access::Squash;
use super::export::Export;
use crate::random;

/// Why an image cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The host's file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A guest writes to it.
    #[error("{} is in use by a guest that writes to it", path.display())]
    InUse {
        /// The image.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// Why.
        source: ext4::ReadError,
    },
}

impl Export {
    /// Opens an image, which nobody can open for writing while the export is there. Handles are
    /// made with a key of this export alone.
    ///
    /// # Errors
    /// It cannot be opened, holds no ext4 that coop reads, or is in use.
    pub fn open(path: &Path, squash: Squash) -> Result<Self, ExportError> {
        let file = fs_err::File::open(path)?.into_parts().0;
        let path = path.to_owned();
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(ExportError::InUse { path }),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let tree = ext4::read(Arc::new(file));
        let tree = tree.map_err(|source| ExportError::Image { path, source })?;
        Ok(Self::new(tree, random::bytes()?, squash))
    }
}
