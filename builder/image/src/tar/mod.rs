//! tar archives: reading into a [`Tree`] or entry by entry, and writing.
//!
//! | module | what |
//! |---|---|
//! | `format` | the 512-byte header: fields, numbers, checksum |
//! | `pax` | extended headers: records and what they set |
//! | `acl` | `SCHILY.acl.*` text and the kernel's xattr form |
//! | `sparse` | the four ways in which GNU tar writes files with holes |
//! | `entry` | [`Entry`]: what an archive says about one file |
//! | `entries` | [`Entries`]: one archive, entry by entry |
//! | `decode` | from headers to an entry |
//! | `content` | where the bytes of files stay: in the archive, or in a [`Spool`] |
//! | `place` | [`Placer`]: GNU tar's rules for putting an entry into a tree |
//! | `write` | [`write()`]: a tree as a tar stream |
//!
//! The header and the extended headers are read here and not by the `tar` crate: that crate gives
//! holes as zeroes without saying where they are, reads no PAX sparse map, ignores global headers,
//! and cannot give negative times. Its header type serves the writer.
//!
//! # What follows GNU tar
//! The last entry of a name wins. A directory over a directory keeps the children and takes the
//! new metadata; over a symbolic link it takes its place. Anything else over a directory takes
//! its place only where that is empty. Leading slashes are dropped. Links and devices have no
//! content whatever their size field says, but hard links may in POSIX's pax form, as libarchive
//! reads it. Two blocks of zeroes end the archive, and so does one with no entry behind it, or the
//! end of the input; what comes behind the end is not looked at.
//!
//! # What is more
//! Entries below a symbolic link to a directory follow it, inside the tree and nowhere else: an
//! absolute target begins at the tree's root, and `..` ends there. (GNU tar puts a file in the
//! place of such links until it is done, and fails.) Global headers add up, as POSIX says. Owners
//! may be as high as the kernel has them, whatever the machine.
//!
//! # What is stricter
//! `..` in the path of an entry or in a hard link's target is refused, where GNU tar leaves the
//! entry out and goes on: whoever packed `a/../b` meant a folder `a` that the archive need not
//! have, or a symbolic link of that name, so there is no reading that is surely meant. Unknown
//! types, multi-volume parts, unknown ACL forms, headers that end the archive without an entry,
//! sparse maps that are out of order, and a lone block of zeroes with an entry behind it are
//! refused too. `tests/nasty` has the whole table. Extended header keywords that coop does not know are counted in
//! [`Summary::ignored`].

mod acl;
mod content;
mod decode;
mod entries;
mod entry;
mod format;
mod input;
mod pax;
mod place;
mod sparse;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

pub use content::{ContentSink, InPlace, Spool, SpoolSink};
pub use entries::Entries;
pub use entry::{Entry, EntryKind, Layout, SparseRun};
pub use place::Placer;
pub use write::{WriteError, write, write_subtree};

use crate::compress;
use crate::tree::{BlobId, Metadata, Tree, TreeError, display};

/// Bounds on an archive. Names have the kernel's: [`crate::tree::NAME_LENGTH_MAX`] and
/// [`crate::tree::SYMLINK_LENGTH_MAX`]; the whole of a compressed one is in
/// [`compress::Limits`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Headers of any kind; also what the tree may hold with the folders that paths imply.
    pub entries: u64,
    /// Components of a path.
    pub depth: usize,
    /// Bytes of a path, of a hard link's target too.
    pub path_bytes: usize,
    /// Bytes of one extended header.
    pub extended_header_bytes: u64,
    /// Bytes of one global extended header, which each entry behind it takes over.
    pub global_header_bytes: u64,
    /// Bytes of one inode's extended attributes, names and values.
    pub xattr_bytes: usize,
    /// Runs of one file with holes.
    pub sparse_runs: usize,
    /// What may follow the end of the archive in a stream.
    pub trailing_bytes: u64,
}

impl Default for Limits {
    /// 16 Mi entries, 1024 deep, 64 KiB paths, 8 MiB extended headers, 64 KiB global ones, 1 MiB
    /// extended attributes, 1 Mi runs, 1 GiB trailing.
    fn default() -> Self {
        Self {
            entries: 16 << 20,
            depth: 1024,
            path_bytes: 64 << 10,
            extended_header_bytes: 8 << 20,
            global_header_bytes: 64 << 10,
            xattr_bytes: 1 << 20,
            sparse_runs: 1 << 20,
            trailing_bytes: 1 << 30,
        }
    }
}

/// How an archive is put into a tree.
#[derive(Clone, Debug)]
pub struct Options {
    /// Leading path components that are dropped from names and hard link targets, counted as GNU
    /// tar counts (`.` is one); entries with nothing left are skipped.
    pub strip_components: usize,
    /// Whether a directory entry leaves a symbolic link to a directory in its place.
    pub keep_directory_symlinks: bool,
    /// Whether blocks of zeroes are passed over instead of ending the archive: for archives that
    /// were written one behind the other.
    pub ignore_zeros: bool,
    /// Metadata of folders that an entry needs and the archive has not named.
    pub implied_directory: Metadata,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Options {
    /// Nothing stripped; implied folders are root's, mode 0755, from 1970.
    fn default() -> Self {
        Self {
            strip_components: 0,
            keep_directory_symlinks: false,
            ignore_zeros: false,
            implied_directory: Metadata {
                mode: 0o755,
                ..Metadata::default()
            },
            limits: Limits::default(),
        }
    }
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries put into the tree.
    pub entries: u64,
    /// Entries that [`Options::strip_components`] left without a name.
    pub skipped: u64,
    /// Bytes of content, holes not counted.
    pub content_bytes: u64,
    /// Extended header keywords that were not used, and how often each appeared; those beyond
    /// [`IGNORED_KEYWORDS_MAX`] are together under `other keywords`.
    pub ignored: BTreeMap<String, u64>,
}

/// How many keywords a [`Summary`] counts one by one.
pub const IGNORED_KEYWORDS_MAX: usize = 100;

impl Summary {
    fn count_ignored(&mut self, keyword: &[u8]) {
        let mut keyword = display(keyword);
        if self.ignored.len() >= IGNORED_KEYWORDS_MAX && !self.ignored.contains_key(&keyword) {
            keyword = "other keywords".into();
        }
        let count = self.ignored.entry(keyword).or_default();
        *count = count.saturating_add(1);
    }
}

/// Where in an archive an error is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// Path of the entry, empty where none is known.
    pub entry: Vec<u8>,
    /// Offset of the entry's header in the uncompressed archive, in bytes.
    pub offset: u64,
}

impl At {
    fn start() -> Self {
        Self {
            entry: Vec::new(),
            offset: 0,
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.entry.is_empty() {
            write!(f, "entry '{}' ", display(&self.entry))?;
        }
        write!(f, "at byte {}", self.offset)
    }
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The archive breaks its own format.
    #[error("damaged tar archive, {at}: {reason}")]
    Corrupt {
        /// Where.
        at: At,
        /// What is wrong.
        reason: String,
    },
    /// Something that tar has and coop does not read.
    #[error("unsupported tar archive, {at}: {reason}")]
    Unsupported {
        /// Where.
        at: At,
        /// What it is.
        reason: String,
    },
    /// One of [`Limits`].
    #[error("the tar archive exceeds coop's limit, {at}: {reason}")]
    Limit {
        /// Where.
        at: At,
        /// Which limit.
        reason: String,
    },
    /// The entry contradicts what is in the tree.
    #[error("the tar archive cannot be unpacked, {at}: {reason}")]
    Conflict {
        /// Where.
        at: At,
        /// What contradicts.
        reason: String,
    },
    /// The archive cannot be read; decompression errors come here.
    #[error("cannot read the tar archive, {at}: {source}")]
    Read {
        /// Where.
        at: At,
        /// The reader's error.
        source: io::Error,
    },
    /// The content cannot be kept.
    #[error("cannot store content from the tar archive, {at}: {source}")]
    Store {
        /// Where.
        at: At,
        /// The sink's error.
        source: io::Error,
    },
    /// The tree refuses the entry.
    #[error("the tar archive cannot be unpacked, {at}: {source}")]
    Tree {
        /// Where.
        at: At,
        /// The tree's error.
        source: TreeError,
    },
}

/// Reads every entry into a tree; content goes to the sink.
///
/// # Errors
/// The first problem stops the reading; the tree then holds a part of the archive.
pub fn read_into(
    tree: &mut Tree,
    entries: &mut Entries<'_>,
    sink: &mut dyn ContentSink,
    options: &Options,
) -> Result<Summary, TarError> {
    let mut placer = Placer::new(options);
    entries.ignore_zeros = options.ignore_zeros;
    let mut summary = Summary::default();
    while let Some(entry) = entries.next_entry()? {
        for keyword in &entry.ignored {
            summary.count_ignored(keyword);
        }
        let content = match entry.layout() {
            Some(layout) if placer.wants(&entry) => {
                summary.content_bytes = summary.content_bytes.saturating_add(layout.stored);
                Some(entries.store(&entry, sink)?)
            }
            _ => None,
        };
        match placer.put(tree, &entry, content)? {
            Some(_) => summary.entries = summary.entries.saturating_add(1),
            None => summary.skipped = summary.skipped.saturating_add(1),
        }
    }
    Ok(summary)
}

/// Reads an uncompressed archive that is a blob of the tree; its content stays where it is.
///
/// # Errors
/// As [`read_into`].
pub fn read_blob(tree: &mut Tree, blob: BlobId, options: &Options) -> Result<Summary, TarError> {
    let archive = Arc::clone(tree.blob(blob));
    let mut entries = Entries::in_place(archive, options.limits);
    read_into(tree, &mut entries, &mut InPlace { blob }, options)
}

/// Reads an archive as it comes; content goes to the end of `spool`, which is `blob` of the tree.
///
/// # Errors
/// As [`read_into`].
pub fn read_stream(
    tree: &mut Tree,
    input: impl Read,
    spool: &Spool,
    blob: BlobId,
    options: &Options,
) -> Result<Summary, TarError> {
    let mut entries = Entries::stream(input, options.limits);
    read_into(tree, &mut entries, &mut SpoolSink { spool, blob }, options)
}

/// Reads an archive file, compressed or not (decided by content): a plain one stays in place, a
/// compressed one is unpacked on other threads into the file that `make_spool` gives.
///
/// # Errors
/// As [`read_into`]; [`TarError::Store`] where the spool cannot be made.
pub fn read_file(
    tree: &mut Tree,
    archive: File,
    make_spool: impl FnOnce() -> io::Result<File>,
    options: &Options,
    unpacking: compress::Options,
) -> Result<Summary, TarError> {
    let read_error = |source| TarError::Read {
        at: At::start(),
        source,
    };
    let store_error = |source| TarError::Store {
        at: At::start(),
        source,
    };
    let tree_error = |source| TarError::Tree {
        at: At::start(),
        source,
    };
    let archive = Arc::new(archive);
    let reader = content::FileReader::new(Arc::clone(&archive));
    let (format, plain) = compress::decompress_threaded(reader, unpacking).map_err(read_error)?;
    if format == compress::Compression::None {
        let blob = tree.add_blob(archive).map_err(tree_error)?;
        return read_blob(tree, blob, options);
    }
    let file = Arc::new(make_spool().map_err(store_error)?);
    let spool = Spool::new(Arc::clone(&file)).map_err(store_error)?;
    let blob = tree.add_blob(file).map_err(tree_error)?;
    read_stream(tree, plain, &spool, blob, options)
}
