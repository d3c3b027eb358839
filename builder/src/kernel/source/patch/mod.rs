//! Patches of the recipe: read, checked, and applied to a tree.
//!
//! | module | what |
//! |---|---|
//! | `parse` | unified diffs of diff(1) and git, with every path checked |
//! | `hunk` | hunks into lines, as GNU patch with no fuzz |
//! | `apply` | a series of patches over a folder, in memory until all of it fits |
//!
//! They are applied here and not by patch(1): nothing of a stranger's recipe gets to run, nothing is
//! written before the whole series fits, no link is followed, and what fails is named by patch,
//! file, hunk and line.

mod apply;
mod hunk;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::{self, Read};

use coop_image::compress;

use crate::digest::Digest;
use crate::recipe::HostFile;

pub(super) use apply::apply;

/// The most bytes of one patch, decompressed (256 MiB).
const PATCH_BYTES_MAX: u64 = 256 << 20;

/// Why patches cannot be read or applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// A patch or series file cannot be read.
    #[error("patch '{patch}' cannot be read: {source}")]
    Unreadable {
        /// The file's name in the recipe.
        patch: String,
        /// What the operating system or the decompressor says.
        source: io::Error,
    },
    /// It is no patch, or one that coop does not apply.
    #[error("{patch}:{line}: {problem}")]
    Syntax {
        /// The patch.
        patch: String,
        /// The line, from 1.
        line: usize,
        /// What stands there.
        problem: String,
    },
    /// It changes nothing: it is no unified diff.
    #[error("{0} has no change in it; coop reads unified diffs, as 'diff -u' and git make them")]
    Empty(String),
    /// A path that a patch must not have.
    #[error("{patch}:{line}: the path '{path}' {problem}")]
    Path {
        /// The patch.
        patch: String,
        /// The line, from 1.
        line: usize,
        /// As it is written.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that it changes is not there.
    #[error("{patch} does not apply: there is no {target}{hint}")]
    Missing {
        /// The patch.
        patch: String,
        /// The file.
        target: String,
        /// Names like it, as part of the sentence.
        hint: String,
    },
    /// A file that it makes is there already.
    #[error("{patch} does not apply: it makes {target}, which is there already")]
    Exists {
        /// The patch.
        patch: String,
        /// The file.
        target: String,
    },
    /// A hunk has no place.
    #[error("{patch} does not apply: {target}, hunk {hunk} at line {line}{detail}")]
    Hunk {
        /// The patch.
        patch: String,
        /// The file.
        target: String,
        /// Which hunk of the file's, from 1.
        hunk: usize,
        /// Where in the file it should be.
        line: usize,
        /// What differs, as part of the sentence.
        detail: String,
    },
    /// The whole file's changes are in it.
    #[error("{patch} is in the source already: {target} has its changes; leave the patch out")]
    Applied {
        /// The patch.
        patch: String,
        /// The first file that has them.
        target: String,
    },
    /// A file that it removes would not be empty.
    #[error("{patch} does not apply: it removes {target}, but the file has more than it removes")]
    NotEmpty {
        /// The patch.
        patch: String,
        /// The file.
        target: String,
    },
    /// What it changes is no regular file.
    #[error("{patch} does not apply: {target} is no regular file")]
    NotAFile {
        /// The patch.
        patch: String,
        /// The path.
        target: String,
    },
    /// The tree cannot be read or written.
    #[error("{target} cannot be patched: {source}")]
    Tree {
        /// The file.
        target: String,
        /// What the operating system says.
        source: io::Error,
    },
}

/// What a line of a hunk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Keep,
    Remove,
    Add,
}

/// Lines to replace by others.
#[derive(Debug)]
struct Hunk<'a> {
    /// First line in the old file, from 1; without lines there, the line before.
    old_start: usize,
    /// The same in the new file.
    new_start: usize,
    /// Each line with its end, which a file's last may lack.
    changes: Vec<(Change, &'a [u8])>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Modify,
    Create,
    Delete,
    Rename,
    Copy,
}

/// What a patch does to one file.
#[derive(Debug)]
struct FilePatch<'a> {
    /// The file before; the new one's name where there is none.
    old: Vec<u8>,
    /// The file after; the old one's name where there is none.
    new: Vec<u8>,
    operation: Operation,
    /// Whether the file is executable afterwards, where the patch says so.
    executable: Option<bool>,
    hunks: Vec<Hunk<'a>>,
}

/// A patch that was read and understood.
#[derive(Debug)]
pub(super) struct Patch {
    /// Its name in the recipe.
    pub(super) name: String,
    /// Digest of the file as it is.
    pub(super) digest: Digest,
    text: Vec<u8>,
}

impl Patch {
    /// Reads a patch, compressed or not.
    fn read(file: &HostFile) -> Result<Self, PatchError> {
        let unreadable = |source| PatchError::Unreadable {
            patch: file.written.clone(),
            source,
        };
        let bytes = read_limited(&file.path).map_err(unreadable)?;
        let limits = compress::Limits {
            output_bytes: PATCH_BYTES_MAX,
            ..compress::Limits::default()
        };
        let (_, mut plain) = compress::decompress(&*bytes, limits).map_err(unreadable)?;
        let mut text = Vec::new();
        plain.read_to_end(&mut text).map_err(unreadable)?;
        drop(plain);
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        let patch = Self {
            name: file.written.clone(),
            digest: Digest::of(&bytes),
            text,
        };
        if patch.files()?.is_empty() {
            return Err(PatchError::Empty(patch.name));
        }
        Ok(patch)
    }

    fn files(&self) -> Result<Vec<FilePatch<'_>>, PatchError> {
        parse::parse(&self.name, &self.text)
    }
}

/// What each part of a patch makes of one content, whatever file it names; `None` where a hunk has
/// no place in it. No folder is involved.
///
/// # Errors
/// The text is not a patch that coop reads.
pub fn patched(text: &[u8], content: &[u8]) -> Result<Vec<Option<Vec<u8>>>, PatchError> {
    let text = [text, b"\n"].concat();
    let files = parse::parse("patch", &text)?;
    let place = |file: &FilePatch<'_>| {
        let placed = hunk::place(content, &file.hunks, hunk::Direction::Forward);
        placed.ok().map(|placed| placed.content)
    };
    Ok(files.iter().map(place).collect())
}

/// Reads all patches in the order in which they are applied.
pub(super) fn read_all(files: &[HostFile]) -> Result<Vec<Patch>, PatchError> {
    files.iter().map(Patch::read).collect()
}

/// Every path that the patches read or write.
pub(super) fn paths(patches: &[Patch]) -> Result<BTreeSet<Vec<u8>>, PatchError> {
    let mut paths = BTreeSet::new();
    for patch in patches {
        for file in patch.files()? {
            paths.insert(file.old);
            paths.insert(file.new);
        }
    }
    Ok(paths)
}

fn read_limited(path: &std::path::Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs_err::File::open(path)?;
    file.take(PATCH_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= PATCH_BYTES_MAX) {
        return Ok(bytes);
    }
    Err(io::Error::other(format!(
        "it has more than {PATCH_BYTES_MAX} bytes, coop's limit"
    )))
}
