//! An image from an archive or a folder.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use coop_image::compress;
use coop_image::ext4::{self, Stream, WriteError};
use coop_image::folder::{self, FolderError};
use coop_image::tar::{self, Entries, TarError};
use coop_image::tree::{Kind, Metadata, Timestamp, Tree, display};
use coop_runtime::event::{Event, Observer, Unit};
use fs_err as fs;

use super::identity;
use super::input::{self, Archive, Watched};
use crate::inputs::seed;
use crate::recipe::{Diagnostic, Overrides};
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
    /// The folder cannot be read.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: FolderError,
    },
    /// An override does not fit the tree.
    #[error(transparent)]
    Override(Box<Diagnostic>),
    /// The image would be a part of what it is made from.
    #[error("{} is inside {}, which it is to be made from", output.display(), folder.display())]
    Inside {
        /// The output.
        output: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
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
        /// Whether archives behind its end marker are read, too.
        ignore_zeros: bool,
    },
    /// A folder of the host.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Whether file systems that are mounted below it belong to it.
        cross_mounts: bool,
        /// Whether extended attributes are taken over.
        xattrs: bool,
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
    /// Changes to the tree, made after that.
    pub overrides: Option<Overrides>,
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
    if let Source::Folder { path, .. } = &request.source {
        refuse_inside(request.output, path)?;
    }
    let staged = StagedFile::new(request.output)?;
    let ext4_error = |source| MakeError::Ext4 {
        path: request.output.to_owned(),
        source,
    };
    let mut options = request.options.clone();
    let (tree, image, ignored) = match &request.source {
        Source::Archive {
            archive,
            strip_components,
            ignore_zeros,
        } => {
            let mut tree = Tree::new(Metadata {
                mode: 0o755,
                ..Metadata::default()
            });
            let mut stream =
                Stream::new(&options, Arc::clone(staged.file()), &mut tree).map_err(ext4_error)?;
            let tar_options = tar::Options {
                strip_components: *strip_components,
                ignore_zeros: *ignore_zeros,
                ..tar::Options::default()
            };
            let threads = options.threads;
            let summary = read_archive(
                &mut tree,
                archive,
                &mut stream,
                &tar_options,
                threads,
                observer,
            )?;
            tell_ignored(&archive.name, &summary.ignored, observer);
            finish_tree(&mut tree, &request, &mut options)?;
            stream.identify(options.uuid, options.hash_seed, options.time);
            let image = write(observer, || stream.finish(&tree)).map_err(ext4_error)?;
            (tree, image, summary.ignored)
        }
        Source::Folder {
            path,
            cross_mounts,
            xattrs,
        } => {
            let mut tree = read_folder(path, *cross_mounts, *xattrs, observer)?;
            finish_tree(&mut tree, &request, &mut options)?;
            let image = write(observer, || ext4::write(&tree, &options, staged.file()));
            (tree, image.map_err(ext4_error)?, BTreeMap::new())
        }
    };
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

/// Does what the request asks for with the source's tree, and settles what derives from it.
fn finish_tree(
    tree: &mut Tree,
    request: &MakeRequest<'_>,
    options: &mut ext4::Options,
) -> Result<(), MakeError> {
    if let Some(owner) = request.owner {
        set_owner(tree, owner);
    }
    if let Some(overrides) = &request.overrides {
        let time = youngest(tree);
        overrides.apply(tree, time).map_err(MakeError::Override)?;
    }
    if let Some(latest) = request.time {
        clamp_times(tree, latest);
    }
    options.time = request.time.unwrap_or_else(|| youngest(tree));
    let digest = identity::digest(tree, options);
    options.uuid = request.uuid.unwrap_or_else(|| seed(&digest, "uuid"));
    options.hash_seed = seed(&digest, "hash seed");
    Ok(())
}

/// Refuses an output that the next run would read as a part of its source.
fn refuse_inside(output: &Path, folder: &Path) -> Result<(), MakeError> {
    let parent = output
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = fs::canonicalize(parent.unwrap_or(Path::new(".")))?;
    if parent.starts_with(fs::canonicalize(folder)?) {
        return Err(MakeError::Inside {
            output: output.to_owned(),
            folder: folder.to_owned(),
        });
    }
    Ok(())
}

fn read_archive(
    tree: &mut Tree,
    archive: &Archive,
    stream: &mut Stream,
    options: &tar::Options,
    threads: NonZeroUsize,
    observer: &Arc<dyn Observer>,
) -> Result<tar::Summary, MakeError> {
    let name = &archive.name;
    let started = Instant::now();
    let opened = archive
        .file
        .try_clone()
        .and_then(|file| Watched::new(file, Arc::clone(observer)))
        .and_then(|watched| {
            let options = compress::Options {
                limits: compress::Limits::default(),
                threads,
            };
            compress::decompress_threaded(watched, options)
        });
    let (_, input) = opened.map_err(|source| MakeError::Read {
        name: name.clone(),
        source,
    })?;
    let mut entries = Entries::stream(input, options.limits);
    let summary = tar::read_into(tree, &mut entries, stream, options).map_err(|source| {
        MakeError::Archive {
            name: name.clone(),
            source,
        }
    })?;
    observer.event(&Event::TaskFinished {
        task: input::TASK,
        elapsed: started.elapsed(),
    });
    Ok(summary)
}

fn tell_ignored(name: &str, ignored: &BTreeMap<String, u64>, observer: &Arc<dyn Observer>) {
    for (keyword, count) in ignored {
        observer.event(&Event::Warning {
            message: &format!("{name}: {count} entries have '{keyword}', which images cannot hold"),
        });
    }
}

fn read_folder(
    path: &Path,
    cross_mounts: bool,
    xattrs: bool,
    observer: &Arc<dyn Observer>,
) -> Result<Tree, MakeError> {
    let opened = fs::File::open(path)?.into_parts().0;
    let watcher = Arc::clone(observer);
    let options = folder::Options {
        cross_mounts,
        xattrs,
        check: Arc::new(move || {
            if watcher.is_cancelled() {
                return Err(io::Error::other("the work was called off"));
            }
            Ok(())
        }),
    };
    let found = task(observer, "read folder", || {
        folder::read(opened.into(), &options)
    });
    let found = found.map_err(|source| MakeError::Folder {
        path: path.to_owned(),
        source,
    })?;
    for mount in &found.mounts {
        observer.event(&Event::Warning {
            message: &format!(
                "{}: '{}' is another file system and stays empty; --cross-mounts takes it in",
                path.display(),
                display(mount)
            ),
        });
    }
    Ok(found.tree)
}

fn write(
    observer: &Arc<dyn Observer>,
    write: impl FnOnce() -> Result<ext4::Summary, WriteError>,
) -> Result<ext4::Summary, WriteError> {
    task(observer, "write image", write)
}

/// Does a piece of work under a name that the observer hears.
fn task<T, E>(
    observer: &Arc<dyn Observer>,
    task: &str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let started = Instant::now();
    observer.event(&Event::TaskStarted {
        task,
        total: None,
        unit: Unit::Items,
    });
    let done = work()?;
    observer.event(&Event::TaskFinished {
        task,
        elapsed: started.elapsed(),
    });
    Ok(done)
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
