//! Packages into a tree, as dpkg leaves them after `--unpack`.
//!
//! What is there stays where dpkg would leave it: a directory keeps the metadata that it was first
//! unpacked with; a symbolic link to a directory stands for that directory; configuration files
//! wait as `NAME.dpkg-new` for `dpkg --configure`. A file that two packages have goes to the one
//! that Replaces the other; without that the second one is refused.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use coop_image::tar::{self, Entries, Entry, EntryKind, InPlace, TarError};
use coop_image::tree::{
    Blob, Content, Entries as Names, Inode, InodeId, Kind, Metadata, Tree, TreeError, display,
    read_exact_at,
};

use crate::debian::deb::Deb;
use crate::debian::paths::PathFilter;
use crate::debian::relations;
use crate::debian::version::Version;

/// Why packages cannot be put into one tree.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A package's files cannot be read: the archive's fault.
    #[error("package '{package}': {source}")]
    Tar {
        /// The package.
        package: String,
        /// What is wrong.
        source: TarError,
    },
    /// A package's files cannot be compared with another's.
    #[error("package '{package}': {source}")]
    Read {
        /// The package.
        package: String,
        /// Why not.
        source: io::Error,
    },
    /// A path that no package may have.
    #[error("package '{package}' has the path '{path}', which {problem}")]
    Path {
        /// The package.
        package: String,
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two packages have the same file.
    #[error("package '{package}' has the file '{path}', which is also in package '{other}'")]
    Conflict {
        /// The package that came later.
        package: String,
        /// The path.
        path: String,
        /// The package that has it already.
        other: String,
    },
    /// There are answers for debconf and nothing that takes them: the recipe's matter.
    #[error("there are answers for debconf, but the packages have no debconf-set-selections")]
    NoDebconf,
    /// The tree refuses.
    #[error("the packages do not fit into a tree: {0}")]
    Tree(#[from] TreeError),
}

/// What became of the packages' files.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) tree: Tree,
    /// For each package the paths that dpkg lists, in their order, starting with `/.`.
    pub(super) lists: Vec<Vec<Vec<u8>>>,
}

/// Puts one package's files into a tree of its own, without a package database: for packages that
/// are taken apart. Configuration files have their own names.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack_files(deb: &Deb) -> Result<Tree, UnpackError> {
    let everything = PathFilter::default();
    let mut merger = Merger::new(std::slice::from_ref(deb), &everything);
    merger.add(0, &HashSet::new())?;
    Ok(merger.tree)
}

/// Puts packages into one tree in their order, but for what is left out. That stays in dpkg's lists.
pub(super) fn unpack_all(debs: &[Deb], paths: &PathFilter) -> Result<Unpacked, UnpackError> {
    let mut merger = Merger::new(debs, paths);
    for (index, deb) in debs.iter().enumerate() {
        merger.add(index, &conffile_paths(deb))?;
        if deb.package.name == "base-files" {
            merger.merge_usr()?;
        }
    }
    let lists = merger.lists.into_iter();
    Ok(Unpacked {
        tree: merger.tree,
        lists: lists
            .map(|list| list.into_iter().flatten().collect())
            .collect(),
    })
}

/// The paths of a package's configuration files, `/etc/x`, but for those that are to be removed.
pub(super) fn conffile_paths(deb: &Deb) -> HashSet<Vec<u8>> {
    let text = deb.control_text("conffiles").unwrap_or_default();
    let paths = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('/'));
    paths.map(|path| path.as_bytes().to_vec()).collect()
}

/// Who has a file, and where it is in that package's list.
#[derive(Clone, Copy)]
struct Owner {
    deb: usize,
    position: usize,
}

struct Merger<'d> {
    debs: &'d [Deb],
    paths: &'d PathFilter,
    tree: Tree,
    owners: HashMap<(InodeId, Box<[u8]>), Owner>,
    /// Folders by their path as packages write it; no folder ever goes away.
    folders: HashMap<Vec<u8>, InodeId>,
    /// Folders that a file needed and no package has named yet.
    implied: HashSet<InodeId>,
    lists: Vec<Vec<Option<Vec<u8>>>>,
}

/// What one package needs while it is unpacked.
struct Current<'c> {
    deb: usize,
    conffiles: &'c HashSet<Vec<u8>>,
    /// Its files by path, for hard links.
    files: HashMap<Vec<u8>, InodeId>,
}

impl<'d> Merger<'d> {
    fn new(debs: &'d [Deb], paths: &'d PathFilter) -> Self {
        let folder = Metadata {
            mode: 0o755,
            ..Metadata::default()
        };
        Self {
            debs,
            paths,
            tree: Tree::new(folder),
            owners: HashMap::new(),
            folders: HashMap::from([(Vec::new(), InodeId::ROOT)]),
            implied: HashSet::from([InodeId::ROOT]),
            lists: Vec::new(),
        }
    }

    fn add(&mut self, index: usize, conffiles: &HashSet<Vec<u8>>) -> Result<(), UnpackError> {
        let deb = &self.debs[index];
        let archive: Arc<dyn Blob> = deb.data.clone();
        let blob = self.tree.add_blob(archive.clone())?;
        let mut entries = Entries::in_place(archive, tar::Limits::default());
        let mut current = Current {
            deb: index,
            conffiles,
            files: HashMap::new(),
        };
        self.lists.push(Vec::new());
        let tar_error = |source| UnpackError::Tar {
            package: deb.package.name.clone(),
            source,
        };
        while let Some(entry) = entries.next_entry().map_err(tar_error)? {
            let content = entries
                .store(&entry, &mut InPlace { blob })
                .map_err(tar_error)?;
            self.entry(&mut current, entry, content)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        current: &mut Current<'_>,
        entry: Entry,
        content: Content,
    ) -> Result<(), UnpackError> {
        let path = self.plain_path(current, &entry.path)?;
        let listed = if path.is_empty() {
            b"/.".to_vec()
        } else {
            path.clone()
        };
        let position = self.lists[current.deb].len();
        self.lists[current.deb].push(Some(listed));
        let may_hold_others = matches!(entry.kind, EntryKind::Directory | EntryKind::Symlink(_));
        if self.paths.leaves_out(&path, may_hold_others) {
            return Ok(());
        }
        if entry.kind == EntryKind::Directory {
            return self.directory(current, &path, entry.metadata);
        }
        let (parent_path, name) = split(&path);
        let parent = self.folder(current, parent_path)?;
        let mut name = name.to_vec();
        if current.conffiles.contains(&path) && matches!(entry.kind, EntryKind::File(_)) {
            name.extend_from_slice(b".dpkg-new");
        }
        let owner = Owner {
            deb: current.deb,
            position,
        };
        if let Some(shared) = self.shared(current, parent, &name, &entry, &content)? {
            current.files.insert(path, shared);
            return Ok(());
        }
        if !self.may_place(current, owner, parent, &name, &path, &entry.kind)? {
            return Ok(());
        }
        let id = self.inode(current, &path, entry, content)?;
        self.tree.replace(parent, &name, id)?;
        self.owners.insert((parent, name.into_boxed_slice()), owner);
        current.files.insert(path, id);
        Ok(())
    }

    /// The inode of an entry that is no directory.
    fn inode(
        &mut self,
        current: &Current<'_>,
        path: &[u8],
        entry: Entry,
        content: Content,
    ) -> Result<InodeId, UnpackError> {
        let kind = match entry.kind {
            EntryKind::HardLink(target) => {
                let target = self.plain_path(current, &target)?;
                let known = current.files.get(&target).copied();
                return known.ok_or_else(|| {
                    self.bad_path(current, path, "is a hard link to a file that is not there")
                });
            }
            EntryKind::File(_) => Kind::File(content),
            EntryKind::Symlink(target) => Kind::Symlink(target),
            EntryKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            EntryKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::Directory => Kind::Directory(Names::new()),
        };
        let metadata = entry.metadata;
        Ok(self.tree.add_inode(Inode { metadata, kind })?)
    }

    fn directory(
        &mut self,
        current: &Current<'_>,
        path: &[u8],
        metadata: Metadata,
    ) -> Result<(), UnpackError> {
        let known = match self.folders.get(path) {
            Some(id) => Some(*id),
            None => self.existing_folder(current, path)?,
        };
        if let Some(id) = known {
            self.folders.insert(path.to_vec(), id);
            if self.implied.remove(&id) {
                self.tree.inode_mut(id).metadata = metadata;
            }
            return Ok(());
        }
        let (parent_path, name) = split(path);
        let parent = self.folder(current, parent_path)?;
        let id = self.tree.add_inode(Inode {
            metadata,
            kind: Kind::Directory(Names::new()),
        })?;
        self.tree.link(parent, name, id)?;
        self.folders.insert(path.to_vec(), id);
        Ok(())
    }

    /// The folder that a path stands for, through symbolic links; `None` where nothing is there.
    fn existing_folder(
        &self,
        current: &Current<'_>,
        path: &[u8],
    ) -> Result<Option<InodeId>, UnpackError> {
        match self.tree.resolve(path) {
            Ok(id) if self.tree.entries(id).is_some() => Ok(Some(id)),
            Err(TreeError::NotFound(_)) if self.tree.lookup(path).is_err() => Ok(None),
            _ => Err(self.bad_path(current, path, "is a folder there and not elsewhere")),
        }
    }

    /// The folder that a file lies in, made where no entry has named it.
    fn folder(&mut self, current: &Current<'_>, path: &[u8]) -> Result<InodeId, UnpackError> {
        if let Some(id) = self.folders.get(path) {
            return Ok(*id);
        }
        let id = match self.existing_folder(current, path)? {
            Some(id) => id,
            None => {
                let metadata = Metadata {
                    mode: 0o755,
                    ..Metadata::default()
                };
                let id = self.tree.make_directories(path, &metadata)?;
                self.implied.insert(id);
                id
            }
        };
        self.folders.insert(path.to_vec(), id);
        Ok(id)
    }

    /// The file that a package of another architecture has put there already, where both may be
    /// installed together and it is the very same.
    fn shared(
        &self,
        current: &Current<'_>,
        parent: InodeId,
        name: &[u8],
        entry: &Entry,
        content: &Content,
    ) -> Result<Option<InodeId>, UnpackError> {
        let Some(existing) = self.tree.child(parent, name) else {
            return Ok(None);
        };
        let Some(other) = self.owners.get(&(parent, Box::from(name))) else {
            return Ok(None);
        };
        let (new, old) = (&self.debs[current.deb], &self.debs[other.deb]);
        let is_pair = new.package.name == old.package.name
            && new.package.architecture != old.package.architecture
            && new.is_multi_arch_same()
            && old.is_multi_arch_same();
        if !is_pair {
            return Ok(None);
        }
        let is_same = match (&self.tree.inode(existing).kind, &entry.kind) {
            (Kind::File(there), EntryKind::File(_)) => self
                .is_same_content(there, content)
                .map_err(|source| UnpackError::Read {
                    package: new.package.name.clone(),
                    source,
                })?,
            (Kind::Symlink(there), EntryKind::Symlink(target)) => there == target,
            // Which file a hard link leads to is settled when that one comes.
            (Kind::File(_), EntryKind::HardLink(_)) => true,
            _ => false,
        };
        Ok(is_same.then_some(existing))
    }

    fn is_same_content(&self, left: &Content, right: &Content) -> io::Result<bool> {
        const PIECE_BYTES: usize = 64 << 10;
        let plain = |content: &Content| match &*content.segments {
            [one] if one.length == content.size => Some((one.blob, one.blob_offset)),
            _ => None,
        };
        if left.size != right.size {
            return Ok(false);
        }
        if left.size == 0 {
            return Ok(true);
        }
        // A package's file is one piece of its archive.
        let (Some(one), Some(two)) = (plain(left), plain(right)) else {
            return Ok(false);
        };
        let mut buffers = [vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]];
        let mut done = 0;
        while done < left.size {
            let rest = usize::try_from(left.size - done).unwrap_or(PIECE_BYTES);
            let count = rest.min(PIECE_BYTES);
            for ((blob, offset), buffer) in [one, two].into_iter().zip(&mut buffers) {
                read_exact_at(&**self.tree.blob(blob), &mut buffer[..count], offset + done)?;
            }
            if buffers[0][..count] != buffers[1][..count] {
                return Ok(false);
            }
            done += count as u64;
        }
        Ok(true)
    }

    /// Decides whether an entry may take its name, and takes it off the list of whoever loses it.
    fn may_place(
        &mut self,
        current: &Current<'_>,
        owner: Owner,
        parent: InodeId,
        name: &[u8],
        path: &[u8],
        kind: &EntryKind,
    ) -> Result<bool, UnpackError> {
        let Some(existing) = self.tree.child(parent, name) else {
            return Ok(true);
        };
        if self.tree.entries(existing).is_some() {
            // dpkg leaves a directory where a package has a symbolic link instead.
            return match kind {
                EntryKind::Symlink(_) => Ok(false),
                _ => Err(self.bad_path(current, path, "is a folder elsewhere")),
            };
        }
        let key = (parent, Box::from(name));
        let Some(other) = self.owners.get(&key).copied() else {
            return Ok(true);
        };
        let (new, old) = (&self.debs[current.deb], &self.debs[other.deb]);
        if other.deb == current.deb || replaces(new, old) {
            self.lists[other.deb][other.position] = None;
            return Ok(true);
        }
        if replaces(old, new) {
            self.lists[owner.deb][owner.position] = None;
            return Ok(false);
        }
        Err(UnpackError::Conflict {
            package: new.package.name.clone(),
            path: display(path),
            other: old.package.name.clone(),
        })
    }

    /// Suites before trixie have the links of the merged /usr made by whoever installs the system.
    fn merge_usr(&mut self) -> Result<(), UnpackError> {
        if self.tree.child(InodeId::ROOT, b"bin").is_some() {
            return Ok(());
        }
        for name in [&b"bin"[..], b"sbin", b"lib", b"lib64"] {
            if self.tree.child(InodeId::ROOT, name).is_some() {
                continue;
            }
            let target = [b"usr/", name].concat();
            let folder = Metadata {
                mode: 0o755,
                ..Metadata::default()
            };
            let made = self.tree.make_directories(&target, &folder)?;
            self.implied.insert(made);
            let link = self.tree.add_inode(Inode {
                metadata: Metadata {
                    mode: 0o777,
                    ..Metadata::default()
                },
                kind: Kind::Symlink(target.into()),
            })?;
            self.tree.link(InodeId::ROOT, name, link)?;
        }
        Ok(())
    }

    /// `./usr/bin/x` as `/usr/bin/x`, the root as nothing.
    fn plain_path(&self, current: &Current<'_>, path: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let mut plain = Vec::with_capacity(path.len());
        for part in path.split(|byte| *byte == b'/') {
            if part.is_empty() || part == b"." {
                continue;
            }
            if part == b".." {
                return Err(self.bad_path(current, path, "leads out of the package"));
            }
            plain.push(b'/');
            plain.extend_from_slice(part);
        }
        Ok(plain)
    }

    fn bad_path(&self, current: &Current<'_>, path: &[u8], problem: &str) -> UnpackError {
        UnpackError::Path {
            package: self.debs[current.deb].package.name.clone(),
            path: display(path),
            problem: problem.to_owned(),
        }
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    (&path[..slash], path.get(slash + 1..).unwrap_or_default())
}

/// Whether one package's files may take the place of another's.
fn replaces(new: &Deb, old: &Deb) -> bool {
    let field = new.field("Replaces").unwrap_or_default();
    let relations = relations::parse(field).unwrap_or_default();
    let version = Version::new(&old.package.version);
    relations.iter().flatten().any(|relation| {
        let versions_fit = relation
            .constraint
            .is_none_or(|(operator, wanted)| operator.holds(version, wanted));
        relation.name == old.package.name && versions_fit
    })
}
