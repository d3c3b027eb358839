//! The same file system in another size: read, laid out anew, and written.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coop_image::ext4::{
    self, BlockSize, Info, Inodes, Journal, Options, PERCENT_MAX, ReadError, Size, Summary,
    WriteError,
};
use coop_image::tree::Tree;
use fs_err as fs;
use rustix::fs::{FlockOperation, flock};

use crate::staged_file::StagedFile;

/// The smallest journal in blocks.
const JOURNAL_BLOCKS_MIN: u32 = 1024;
/// The fewest bytes for an inode that the writer takes.
const BYTES_PER_INODE_MIN: u64 = 1024;

/// Why a file system keeps its size.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// The host's file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The image cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// Why.
        source: ReadError,
    },
    /// Somebody writes to the image.
    #[error("{} is in use", path.display())]
    InUse {
        /// The image.
        path: PathBuf,
    },
    /// The content needs more.
    #[error(
        "{} cannot have {size_bytes} bytes; what is in it needs {minimum_bytes}",
        path.display()
    )]
    BelowMinimum {
        /// The image.
        path: PathBuf,
        /// What was asked for.
        size_bytes: u64,
        /// The least that is enough.
        minimum_bytes: u64,
    },
    /// The file system has something that the writer cannot give the new one.
    #[error("{} cannot be written anew: {reason}", path.display())]
    Unsupported {
        /// The image.
        path: PathBuf,
        /// What it is.
        reason: String,
    },
    /// The new image cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The new image.
        path: PathBuf,
        /// Why.
        source: WriteError,
    },
}

/// The size that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewSize {
    /// The least that is enough.
    Fit,
    /// This, in bytes.
    Bytes(u64),
    /// So many bytes more.
    More(u64),
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct ResizeRequest<'a> {
    /// The image.
    pub image: &'a Path,
    /// The new image; may be the old one, which is then replaced whole and at the end.
    pub output: &'a Path,
    /// The new size.
    pub size: NewSize,
    /// How many threads may write.
    pub threads: NonZeroUsize,
    /// Whether the image must be on the disk before it has its name.
    pub sync: bool,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Resized {
    /// What the file system was.
    pub before: Info,
    /// Length of the old image in bytes.
    pub before_bytes: u64,
    /// What it is.
    pub after: Summary,
    /// Features that the new one has and the old one had not.
    pub features_added: Vec<String>,
    /// Features that the old one had and the new one has not.
    pub features_removed: Vec<String>,
}

/// Writes a file system in another size. UUID, label, hash seed, time, block size, the share of
/// inodes and of reserved blocks, and whether there is a journal stay what they were.
///
/// # Errors
/// The image cannot be read or is in use, the size is too small, or the new image cannot be
/// written; the output is then as it was.
pub fn resize(request: &ResizeRequest<'_>) -> Result<Resized, ResizeError> {
    let path = request.image;
    let file = Arc::new(fs::File::open(path)?.into_parts().0);
    // A running machine that keeps what it writes has the lock.
    flock(&file, FlockOperation::NonBlockingLockShared).map_err(|_| ResizeError::InUse {
        path: path.to_owned(),
    })?;
    let (info, tree) = read(path, &file)?;
    let write_failed = |source| ResizeError::Write {
        path: request.output.to_owned(),
        source,
    };
    let before_bytes = file.metadata()?.len();
    let mut options = options_like(&info, &tree).map_err(|reason| unsupported(path, reason))?;
    options.threads = request.threads;
    let least = least(&tree, &options).map_err(write_failed)?;
    options.size = match request.size {
        NewSize::Fit => least.0,
        NewSize::Bytes(bytes) => Size::Bytes(bytes),
        NewSize::More(more) => Size::Bytes(before_bytes.saturating_add(more)),
    };
    if let Size::Bytes(size_bytes) = options.size
        && size_bytes < least.1
    {
        return Err(ResizeError::BelowMinimum {
            path: path.to_owned(),
            size_bytes,
            minimum_bytes: least.1,
        });
    }
    let options = settle_journal(&tree, options);
    let staged = StagedFile::new(request.output)?;
    let after = ext4::write(&tree, &options, staged.file()).map_err(write_failed)?;
    let (new, _) = read_info(request.output, staged.file())?;
    staged.publish(request.sync)?;
    let missing = |from: &Info, of: &Info| {
        let features = of.features.iter();
        features
            .filter(|feature| !from.features.contains(feature))
            .cloned()
            .collect()
    };
    Ok(Resized {
        features_added: missing(&info, &new),
        features_removed: missing(&new, &info),
        before: info,
        before_bytes,
        after,
    })
}

/// The least size that a file system could have, in bytes, and what it says about itself now.
///
/// # Errors
/// The image cannot be read, or has what the writer cannot write.
pub fn minimum_bytes(path: &Path) -> Result<u64, ResizeError> {
    let file = Arc::new(fs::File::open(path)?.into_parts().0);
    let (info, tree) = read(path, &file)?;
    let options = options_like(&info, &tree).map_err(|reason| unsupported(path, reason))?;
    let least = least(&tree, &options).map_err(|source| ResizeError::Write {
        path: path.to_owned(),
        source,
    })?;
    Ok(least.1)
}

fn read(path: &Path, file: &Arc<File>) -> Result<(Info, Tree), ResizeError> {
    let (info, blob) = read_info(path, file)?;
    let tree = ext4::read(blob).map_err(|source| ResizeError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok((info, tree))
}

fn read_info(path: &Path, file: &Arc<File>) -> Result<(Info, Arc<File>), ResizeError> {
    let blob = Arc::clone(file);
    let info = ext4::read_info(blob.clone()).map_err(|source| ResizeError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok((info, blob))
}

fn unsupported(path: &Path, reason: String) -> ResizeError {
    ResizeError::Unsupported {
        path: path.to_owned(),
        reason,
    }
}

/// Options that make a file system like this one.
fn options_like(info: &Info, tree: &Tree) -> Result<Options, String> {
    let block_size = match info.block_size_bytes {
        1024 => BlockSize::Kib1,
        2048 => BlockSize::Kib2,
        4096 => BlockSize::Kib4,
        other => return Err(format!("it has blocks of {other} bytes")),
    };
    let label = String::from_utf8(info.label.to_vec());
    let bytes_per_inode = info.size_bytes() / u64::from(info.inodes.max(1));
    let mut options = Options {
        block_size,
        label: label.map_err(|_| "its label is not UTF-8".to_owned())?,
        inodes: Inodes::PerBytes(
            u32::try_from(bytes_per_inode.max(BYTES_PER_INODE_MIN)).unwrap_or(u32::MAX),
        ),
        reserved_percent: info.reserved_percent().min(PERCENT_MAX),
        ..Options::new(info.uuid, info.hash_seed, info.created)
    };
    let has_journal = info.features.iter().any(|feature| feature == "has_journal");
    if !has_journal {
        options.journal = Journal::None;
    }
    Ok(settle_journal(tree, options))
}

/// A small file system would get no journal by its size alone; one that had one keeps one.
fn settle_journal(tree: &Tree, mut options: Options) -> Options {
    if options.journal != Journal::None {
        options.journal = Journal::Auto;
        if ext4::measure(tree, &options).is_ok_and(|made| made.blocks_journal == 0) {
            options.journal = Journal::Blocks(JOURNAL_BLOCKS_MIN);
        }
    }
    options
}

/// The automatic size, and how many bytes that is.
fn least(tree: &Tree, options: &Options) -> Result<(Size, u64), WriteError> {
    let size = Size::with_free_percent(0);
    let options = Options {
        size,
        ..options.clone()
    };
    let summary = ext4::measure(tree, &options)?;
    Ok((size, summary.size_bytes))
}
