//! The files of the host that a recipe names: what they are called in the evidence, and the small
//! ones themselves.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use coop_image::tree::{Entries, Inode, InodeId, Kind, Metadata, Tree, TreeError};

use super::provenance::InputFile;
use crate::digest::Digest;
use crate::guest::{Shown, show};
use crate::inputs::{self, FileDigests};
use crate::lock::Lock;
use crate::recipe::{HostFile, Recipe};

/// The largest file that is kept with the evidence, in bytes; of others only the digest is.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The most bytes of all files that are kept.
const BYTES_MAX: u64 = 16 << 20;
/// The most names in a folder that is kept.
const INODES_MAX: usize = 4096;
/// So many hexadecimal digits tell files of one name apart.
const DIGITS: usize = 16;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The files, by the names that they have in the evidence.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    names: BTreeMap<(Use, PathBuf), String>,
    files: BTreeMap<String, Input>,
    bytes_kept: u64,
}

/// What a recipe takes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    /// Its bytes.
    Content,
    /// The file or folder as a step sees it.
    Mount,
}

#[derive(Debug)]
struct Input {
    taken: Use,
    size_bytes: u64,
    sha256: Digest,
    kept: Option<Kept>,
}

/// What is kept of a file.
#[derive(Debug)]
enum Kept {
    Bytes(Vec<u8>),
    /// A folder, or a file that is the only one in the root.
    Shown(Shown),
}

impl Inputs {
    /// Looks at every file that a recipe names.
    ///
    /// # Errors
    /// One cannot be read, or changed since it was first looked at.
    pub(super) fn gather(recipe: &Recipe, files: &FileDigests) -> io::Result<Self> {
        let mut inputs = Self::default();
        for file in inputs::host_files(recipe) {
            inputs.take(Use::Content, &file.path, files)?;
        }
        for mount in recipe.rootfs.run.iter().flat_map(|step| &step.mounts) {
            inputs.take(Use::Mount, &mount.source.path, files)?;
        }
        Ok(inputs)
    }

    fn take(&mut self, taken: Use, path: &Path, files: &FileDigests) -> io::Result<()> {
        let key = (taken, path.to_owned());
        if self.names.contains_key(&key) {
            return Ok(());
        }
        let most = FILE_BYTES_MAX.min(BYTES_MAX.saturating_sub(self.bytes_kept));
        let input = match taken {
            Use::Content => content(path, most, files)?,
            Use::Mount => shown(path, most, files)?,
        };
        let name = name(&input.sha256, path);
        self.names.insert(key, name.clone());
        if !self.files.contains_key(&name) {
            self.put(name, input);
        }
        Ok(())
    }

    fn put(&mut self, name: String, input: Input) {
        if input.kept.is_some() {
            self.bytes_kept = self.bytes_kept.saturating_add(input.size_bytes);
        }
        self.files.insert(name, input);
    }

    /// Adds a file that is not the host's.
    pub(super) fn add(&mut self, name: &str, bytes: Vec<u8>) {
        self.put(name.to_owned(), of_bytes(bytes));
    }

    /// What the evidence calls a file.
    pub(super) fn name(&self, taken: Use, file: &HostFile) -> String {
        let name = self.names.get(&(taken, file.path.clone()));
        name.cloned().unwrap_or_default()
    }

    /// Calls the files of a lock as the evidence does.
    pub(super) fn rename(&self, recipe: &Recipe, lock: &mut Lock) {
        for file in inputs::host_files(recipe) {
            let same = lock.files.iter_mut().filter(|one| one.name == file.written);
            for one in same {
                one.name = self.name(Use::Content, file);
            }
        }
        lock.files.sort_by(|left, right| left.name.cmp(&right.name));
        lock.files.dedup();
    }

    /// Every file, by its name.
    pub(super) fn files(&self) -> Vec<InputFile> {
        let files = self.files.iter();
        files
            .map(|(name, input)| InputFile {
                name: name.clone(),
                size_bytes: input.size_bytes,
                sha256: input.sha256,
                kept: input.kept.is_some(),
                mounted: input.taken == Use::Mount,
            })
            .collect()
    }

    /// The files that are kept; nothing where there are none.
    ///
    /// # Errors
    /// A file cannot be read any more.
    pub(super) fn tree(&self) -> io::Result<Option<Tree>> {
        let mut tree = Tree::new(plain(0o755));
        let mut is_empty = true;
        for (name, input) in &self.files {
            let Some(kept) = &input.kept else {
                continue;
            };
            is_empty = false;
            match kept {
                Kept::Bytes(bytes) => file(&mut tree, name, 0o644, bytes.clone()),
                Kept::Shown(shown) => graft(&mut tree, name, shown),
            }?;
        }
        Ok((!is_empty).then_some(tree))
    }
}

fn of_bytes(bytes: Vec<u8>) -> Input {
    Input {
        taken: Use::Content,
        size_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        sha256: Digest::of(&bytes),
        kept: Some(Kept::Bytes(bytes)),
    }
}

fn content(path: &Path, most: u64, files: &FileDigests) -> io::Result<Input> {
    if let Some(bytes) = files.read(path, most)? {
        return Ok(of_bytes(bytes));
    }
    let (_, size_bytes, sha256) = files.open(path)?;
    Ok(Input {
        taken: Use::Content,
        size_bytes,
        sha256,
        kept: None,
    })
}

fn shown(path: &Path, most: u64, files: &FileDigests) -> io::Result<Input> {
    let shown = show(path).map_err(io::Error::other)?;
    let mut size_bytes = 0_u64;
    for inode in shown.tree.inodes() {
        if let Kind::File(content) = &inode.kind {
            size_bytes = size_bytes.saturating_add(content.size);
        }
    }
    let sha256 = files.mount(path).map_err(io::Error::other)?;
    let is_small = size_bytes <= most && shown.tree.inodes().len() <= INODES_MAX;
    if is_small && shown.digest()? != sha256 {
        return Err(inputs::changed(path));
    }
    Ok(Input {
        taken: Use::Mount,
        size_bytes,
        sha256,
        kept: is_small.then_some(Kept::Shown(shown)),
    })
}

fn plain(mode: u16) -> Metadata {
    Metadata {
        mode,
        ..Metadata::default()
    }
}

/// Puts a new inode under a path.
fn put(tree: &mut Tree, path: &str, mode: u16, kind: Kind) -> Result<InodeId, TreeError> {
    let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = tree.make_directories(folder.as_bytes(), &plain(0o755))?;
    let metadata = plain(mode);
    let id = tree.add_inode(Inode { metadata, kind })?;
    tree.link(folder, last.as_bytes(), id)?;
    Ok(id)
}

fn file(tree: &mut Tree, path: &str, mode: u16, bytes: Vec<u8>) -> io::Result<()> {
    let content = tree.add_bytes(bytes).map_err(io::Error::other)?;
    put(tree, path, mode, Kind::File(content)).map_err(io::Error::other)?;
    Ok(())
}

/// Puts what a step sees under a path.
fn graft(tree: &mut Tree, path: &str, shown: &Shown) -> io::Result<()> {
    let from = &shown.tree;
    if !shown.is_folder {
        let files = from.entries(InodeId::ROOT).into_iter().flatten();
        for (_, id) in files {
            let bytes = from.read_file(*id, FILE_BYTES_MAX)?;
            file(tree, path, from.inode(*id).metadata.mode, bytes)?;
        }
        return Ok(());
    }
    let top = put(tree, path, 0o755, Kind::Directory(Entries::new())).map_err(io::Error::other)?;
    let mut pending = vec![(InodeId::ROOT, top)];
    while let Some((folder, target)) = pending.pop() {
        for (name, id) in from.entries(folder).into_iter().flatten() {
            let inode = from.inode(*id);
            let kind = match &inode.kind {
                Kind::Directory(_) => Kind::Directory(Entries::new()),
                Kind::File(_) => {
                    let bytes = from.read_file(*id, FILE_BYTES_MAX)?;
                    Kind::File(tree.add_bytes(bytes).map_err(io::Error::other)?)
                }
                other => other.clone(),
            };
            let metadata = inode.metadata.clone();
            let copy = tree.add_inode(Inode { metadata, kind });
            let copy = copy.map_err(io::Error::other)?;
            tree.link(target, name, copy).map_err(io::Error::other)?;
            if from.entries(*id).is_some() {
                pending.push((*id, copy));
            }
        }
    }
    Ok(())
}

/// Says nothing of where the file lies, and keeps the last part of its name: patches and archives
/// are known by it.
fn name(sha256: &Digest, path: &Path) -> String {
    let last = path.file_name().map(|name| name.to_string_lossy());
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let mut last: String = last
        .unwrap_or_default()
        .chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .collect();
    let cut = last.len().saturating_sub(NAME_BYTES_MAX);
    last.drain(..cut);
    let digits = sha256.to_string();
    let digits = digits.get(..DIGITS).unwrap_or_default();
    format!("inputs/{digits}/{last}")
}
