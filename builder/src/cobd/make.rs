//! An image from an archive or a folder.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use coop_image::compress;
use coop_image::ext4::{self, WriteError};
use coop_image::tar::{self, Spool, TarError};
use coop_image::tree::{Kind, Metadata, Timestamp, Tree, TreeError};
use coop_runtime::event::{Event, Observer};

use super::identity;
use super::input::{self, Archive, Watched};
use crate::inputs::seed;
use crate::staged_file::StagedFile;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The output cannot be made, or cannot take its place.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The archive cannot be opened or unpacked.
    #[error("cannot read {name}: {source}")]
    Read {
        /// The archive.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// It is no archive that can be read.
    #[error("{name}: {source}")]
    Archive {
        /// The archive.
        name: String,
        /// What is wrong, with entry and offset.
        source: TarError,
    },
    /// The tree does not take what it was to have.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The image cannot be made.
    #[error("{}: {source}", path.display())]
    Ext4 {
        /// The output.
        path: PathBuf,
        /// Why.
        source: WriteError,
    },
}

/// What an image is made from.
#[derive(Debug)]
pub enum Source {
    /// A tar archive, compressed or not.
    Archive {
        /// The archive.
        archive: Archive,
        /// Leading components that are dropped from its names.
        strip_components: usize,
    },
}

/// Who owns every inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// What to make.
#[derive(Debug)]
pub struct MakeRequest<'a> {
    /// What it is made from.
    pub source: Source,
    /// The image. It appears, or is replaced, whole and at the end.
    pub output: &'a Path,
    /// Size and shape. UUID, hash seed and time in it do not matter.
    pub options: ext4::Options,
    /// The UUID; without one it derives from what the tree says about its inodes.
    pub uuid: Option<[u8; 16]>,
    /// The time of the file system, and the latest that an inode may have; without one it is that
    /// of the youngest inode.
    pub time: Option<Timestamp>,
    /// Takes the place of the source's owners.
    pub owner: Option<Owner>,
    /// Whether the image must be on the disk before it has its name.
    pub sync: bool,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Sizes and counts.
    pub image: ext4::Summary,
    /// The UUID.
    pub uuid: [u8; 16],
    /// Names of everything: a file with two hard links counts twice.
    pub names: u64,
    /// Bytes of files, holes not counted, each file once.
    pub content_bytes: u64,
    /// Keywords of the archive that images cannot hold, with the number of entries that have them.
    pub ignored: BTreeMap<String, u64>,
}

/// Makes an image.
///
/// # Errors
/// The source is damaged or holds what an image cannot, or something cannot be read or written;
/// the output is then as it was.
pub fn make(request: MakeRequest<'_>, observer: &Arc<dyn Observer>) -> Result<Made, MakeError> {
    let staged = StagedFile::new(request.output)?;
    let mut tree = Tree::new(Metadata {
        mode: 0o755,
        ..Metadata::default()
    });
    let ignored = match request.source {
        Source::Archive {
            archive,
            strip_components,
        } => {
            let options = tar::Options {
                strip_components,
                ..tar::Options::default()
            };
            let name = archive.name.clone();
            let summary = read_archive(&mut tree, archive, &options, request.output, observer)?;
            for (keyword, count) in &summary.ignored {
                observer.event(&Event::Warning {
                    message: &format!(
                        "{name}: {count} entries have '{keyword}', which images cannot hold"
                    ),
                });
            }
            summary.ignored
        }
    };
    if let Some(owner) = request.owner {
        set_owner(&mut tree, owner);
    }
    let mut options = request.options;
    options.time = request.time.unwrap_or_else(|| youngest(&tree));
    if let Some(latest) = request.time {
        clamp_times(&mut tree, latest);
    }
    let digest = identity::digest(&tree, &options);
    options.uuid = request.uuid.unwrap_or_else(|| seed(&digest, "uuid"));
    options.hash_seed = seed(&digest, "hash seed");
    let image = ext4::write(&tree, &options, staged.file());
    let image = image.map_err(|source| MakeError::Ext4 {
        path: request.output.to_owned(),
        source,
    })?;
    staged.publish(request.sync)?;
    let names = tree.name_counts().into_iter().map(u64::from).sum();
    Ok(Made {
        image,
        uuid: options.uuid,
        names,
        content_bytes: content_bytes(&tree),
        ignored,
    })
}

fn read_archive(
    tree: &mut Tree,
    archive: Archive,
    options: &tar::Options,
    output: &Path,
    observer: &Arc<dyn Observer>,
) -> Result<tar::Summary, MakeError> {
    let Archive { name, file } = archive;
    let started = Instant::now();
    let opened = Watched::new(file, Arc::clone(observer))
        .and_then(|watched| compress::decompress(watched, compress::Limits::default()))
        .and_then(|(_, plain)| compress::pipelined(plain));
    let input = opened.map_err(|source| MakeError::Read {
        name: name.clone(),
        source,
    })?;
    let spool = tempfile::tempfile_in(output.parent().unwrap_or(Path::new(".")))?;
    let spool = Arc::new(spool);
    let blob = tree.add_blob(Arc::clone(&spool) as Arc<_>)?;
    let spool = Spool::new(spool)?;
    let summary = tar::read_stream(tree, input, &spool, blob, options)
        .map_err(|source| MakeError::Archive { name, source })?;
    observer.event(&Event::TaskFinished {
        task: input::TASK,
        elapsed: started.elapsed(),
    });
    Ok(summary)
}

fn set_owner(tree: &mut Tree, owner: Owner) {
    for id in tree.ids() {
        let metadata = &mut tree.inode_mut(id).metadata;
        (metadata.uid, metadata.gid) = (owner.uid, owner.gid);
    }
}

/// The time of the youngest inode, which an image is not older than; 1970 where all are older.
fn youngest(tree: &Tree) -> Timestamp {
    let times = tree.inodes().iter().map(|i| i.metadata.times.modified);
    times.max().unwrap_or_default().max(Timestamp::default())
}

/// As the specification of SOURCE_DATE_EPOCH has it: later times become the latest.
fn clamp_times(tree: &mut Tree, latest: Timestamp) {
    for id in tree.ids() {
        let times = &mut tree.inode_mut(id).metadata.times;
        for time in [
            &mut times.modified,
            &mut times.accessed,
            &mut times.changed,
            &mut times.created,
        ] {
            *time = (*time).min(latest);
        }
    }
}

fn content_bytes(tree: &Tree) -> u64 {
    let files = tree.inodes().iter().filter_map(|inode| match &inode.kind {
        Kind::File(content) => Some(content),
        _ => None,
    });
    let segments = files.flat_map(|content| content.segments.iter());
    segments.map(|segment| segment.length).sum()
}
