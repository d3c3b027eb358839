//! Whatever has a file system in it.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coop_appliance::{Appliance, ApplianceError, Filesystem, MANIFEST_NAME};
use coop_image::compress;
use coop_image::ext4::{self, ReadError};
use coop_image::folder::{self, FolderError};
use coop_image::tar::{self, TarError};
use coop_image::tree::{Metadata, Tree};
use fs_err as fs;

/// Where a tar header says `ustar`.
const TAR_MAGIC_OFFSET: u64 = 257;
const TAR_MAGIC: &[u8; 5] = b"ustar";
/// Where an ext4 superblock has its number.
const EXT4_MAGIC_OFFSET: u64 = 1024 + 0x38;
const EXT4_MAGIC: [u8; 2] = [0x53, 0xef];

/// Why something could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The image cannot be read.
    #[error("{}: {source}", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// Why.
        source: ReadError,
    },
    /// The archive cannot be read.
    #[error("{}: {source}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: TarError,
    },
    /// The folder cannot be read.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: FolderError,
    },
    /// The appliance cannot be opened.
    #[error(transparent)]
    Appliance(#[from] ApplianceError),
    /// The appliance has no such device with a file system.
    #[error("{} has no cobd '{name}' with an ext4 file system", folder.display())]
    NoCobd {
        /// The appliance.
        folder: PathBuf,
        /// The device.
        name: String,
    },
}

/// Something with a file system in it.
#[derive(Debug)]
pub enum Operand {
    /// An image, an archive or a folder, as a tree.
    Tree(Tree),
    /// An appliance, whose images are not read yet.
    Appliance(Box<Appliance>),
}

impl Operand {
    /// The tree; of an appliance that of the cobd with this name, or of its root.
    ///
    /// # Errors
    /// The appliance has no such cobd, or its image cannot be read.
    pub fn into_tree(self, cobd: Option<&str>) -> Result<Tree, OpenError> {
        match self {
            Self::Tree(tree) => Ok(tree),
            Self::Appliance(appliance) => appliance_tree(&appliance, cobd),
        }
    }
}

/// The tree of one cobd of an appliance; without a name that of the root.
pub(super) fn appliance_tree(appliance: &Appliance, name: Option<&str>) -> Result<Tree, OpenError> {
    let mut devices = appliance.manifest.cobd.iter();
    let found = devices.find(|cobd| match name {
        Some(name) => cobd.name == name,
        None => cobd.mount.as_deref() == Some("/"),
    });
    let found = found.filter(|cobd| cobd.filesystem == Filesystem::Ext4);
    let cobd = found.ok_or_else(|| OpenError::NoCobd {
        folder: appliance.folder.clone(),
        name: name.unwrap_or("root").to_owned(),
    })?;
    read_image(&appliance.path(&cobd.image)?)
}

/// Opens an appliance, a folder, an image or an archive; files are told apart by content. A
/// compressed archive is unpacked, by so many threads, into the file that `make_spool` gives.
///
/// # Errors
/// There is nothing, or it cannot be read.
pub fn open(
    path: &Path,
    make_spool: impl FnOnce() -> io::Result<File>,
    threads: NonZeroUsize,
    check: &folder::Check,
) -> Result<Operand, OpenError> {
    if path.join(MANIFEST_NAME).is_file() {
        return Ok(Operand::Appliance(Box::new(Appliance::open(path)?)));
    }
    let (file, _) = fs::File::open(path)?.into_parts();
    if file.metadata()?.is_dir() {
        return read_folder(path, file, check).map(Operand::Tree);
    }
    if !has(&file, TAR_MAGIC_OFFSET, TAR_MAGIC) && has(&file, EXT4_MAGIC_OFFSET, &EXT4_MAGIC) {
        return read_image(path).map(Operand::Tree);
    }
    let mut tree = Tree::new(Metadata {
        mode: 0o755,
        ..Metadata::default()
    });
    let unpacking = compress::Options {
        limits: compress::Limits::default(),
        threads,
    };
    let options = tar::Options::default();
    tar::read_file(&mut tree, file, make_spool, &options, unpacking).map_err(|source| {
        OpenError::Archive {
            path: path.to_owned(),
            source,
        }
    })?;
    Ok(Operand::Tree(tree))
}

/// Reads an ext2, ext3 or ext4 image.
///
/// # Errors
/// It cannot be read.
pub fn read_image(path: &Path) -> Result<Tree, OpenError> {
    let (file, _) = fs::File::open(path)?.into_parts();
    ext4::read(Arc::new(file)).map_err(|source| OpenError::Image {
        path: path.to_owned(),
        source,
    })
}

fn read_folder(path: &Path, file: File, check: &folder::Check) -> Result<Tree, OpenError> {
    let options = folder::Options {
        cross_mounts: true,
        xattrs: true,
        check: Arc::clone(check),
    };
    let found = folder::read(file.into(), &options).map_err(|source| OpenError::Folder {
        path: path.to_owned(),
        source,
    })?;
    Ok(found.tree)
}

/// Whether the file has these bytes there.
fn has<const N: usize>(file: &File, offset: u64, bytes: &[u8; N]) -> bool {
    let mut found = [0; N];
    file.read_exact_at(&mut found, offset).is_ok() && found == *bytes
}
