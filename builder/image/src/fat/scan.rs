//! From a tree to the folders of a volume.

use std::collections::{BTreeMap, BTreeSet};

use super::name::{self, ShortName};
use super::time::Stamp;
use super::{
    FILE_BYTES_MAX, FOLDER_ENTRIES_MAX, FatError, Options, Permissions, Uniform, attribute,
};
use crate::tree::{Content, Entries, Inode, InodeId, Kind, Metadata, Tree, display};

/// A folder; the root is the first.
pub(super) struct Folder {
    pub(super) id: InodeId,
    /// Index of the folder that it is in; the root's is its own.
    pub(super) parent: usize,
    pub(super) stamp: Stamp,
    pub(super) items: Vec<Item>,
    /// With a slash at the end.
    pub(super) path: Vec<u8>,
}

/// A name in a folder.
pub(super) struct Item {
    pub(super) name: String,
    pub(super) short: ShortName,
    pub(super) has_long: bool,
    pub(super) attributes: u8,
    pub(super) stamp: Stamp,
    pub(super) target: Target,
}

/// What a name stands for.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// Index of the folder.
    Folder(usize),
    /// A file and its size.
    File(InodeId, u32),
}

impl Item {
    /// How many entries it takes.
    fn slots(&self) -> usize {
        let units = self.name.encode_utf16().count();
        1 + if self.has_long {
            units.div_ceil(name::UNITS)
        } else {
            0
        }
    }
}

impl Folder {
    /// How many entries it takes, with those for itself, its parent or the label.
    pub(super) fn slots(&self, label: &str) -> usize {
        let own = match (self.id, label) {
            (InodeId::ROOT, "") => 0,
            (InodeId::ROOT, _) => 1,
            _ => 2,
        };
        own + self.items.iter().map(Item::slots).sum::<usize>()
    }
}

/// Every folder, parents first; refuses what FAT cannot hold.
pub(super) fn scan(tree: &Tree, options: &Options) -> Result<Vec<Folder>, FatError> {
    let mut scan = Scan {
        tree,
        options,
        folders: Vec::new(),
        seen: BTreeSet::new(),
    };
    let root = tree.inode(InodeId::ROOT);
    scan.check_metadata("/", root)?;
    let stamp = scan.stamp("/", &root.metadata)?;
    scan.add(InodeId::ROOT, 0, stamp, b"/".to_vec())?;
    let mut next = 0;
    while next < scan.folders.len() {
        let items = scan.items(next)?;
        let folder = &mut scan.folders[next];
        folder.items = items;
        if folder.slots(&options.label) > FOLDER_ENTRIES_MAX {
            let what = format!("a folder of more than {FOLDER_ENTRIES_MAX} entries");
            return Err(refuse(&display(&folder.path), what));
        }
        next += 1;
    }
    Ok(scan.folders)
}

fn refuse(path: &str, what: impl ToString) -> FatError {
    FatError::Unrepresentable {
        path: path.to_string(),
        what: what.to_string(),
    }
}

struct Scan<'a> {
    tree: &'a Tree,
    options: &'a Options,
    folders: Vec<Folder>,
    /// What has a name already, where it may have only one.
    seen: BTreeSet<InodeId>,
}

impl Scan<'_> {
    fn add(
        &mut self,
        id: InodeId,
        parent: usize,
        stamp: Stamp,
        path: Vec<u8>,
    ) -> Result<usize, FatError> {
        if !self.seen.insert(id) {
            return Err(refuse(&display(&path), "a folder with several names"));
        }
        self.folders.push(Folder {
            id,
            parent,
            stamp,
            items: Vec::new(),
            path,
        });
        Ok(self.folders.len() - 1)
    }

    fn items(&mut self, index: usize) -> Result<Vec<Item>, FatError> {
        let (id, path) = (self.folders[index].id, self.folders[index].path.clone());
        let tree = self.tree;
        let Some(entries) = tree.entries(id) else {
            return Ok(Vec::new());
        };
        let names = checked_names(entries, &path)?;
        let shorts = name::short_names(&names);
        let shorts =
            shorts.ok_or_else(|| refuse(&display(&path), "so many names that are alike"))?;
        let mut items = Vec::new();
        for ((name, child), (short, has_long)) in names.iter().zip(entries.values()).zip(shorts) {
            let full = [&path, name.as_bytes()].concat();
            let shown = display(&full);
            let inode = tree.inode(*child);
            check_kind(&shown, &inode.kind)?;
            let is_read_only = self.check_metadata(&shown, inode)?;
            let stamp = self.stamp(&shown, &inode.metadata)?;
            let (target, attributes) = match &inode.kind {
                Kind::Directory(_) => {
                    let folder = self.add(*child, index, stamp, [&full, &b"/"[..]].concat())?;
                    (Target::Folder(folder), attribute::FOLDER)
                }
                Kind::File(content) => {
                    let size = self.check_file(&shown, *child, content)?;
                    (Target::File(*child, size), attribute::ARCHIVE)
                }
                // `check_kind` lets nothing else through.
                _ => continue,
            };
            let read_only = if is_read_only {
                attribute::READ_ONLY
            } else {
                0
            };
            items.push(Item {
                name: (*name).to_string(),
                short,
                has_long,
                attributes: attributes | read_only,
                stamp,
                target,
            });
        }
        Ok(items)
    }

    fn check_file(&mut self, path: &str, id: InodeId, content: &Content) -> Result<u32, FatError> {
        let size = u32::try_from(content.size).ok();
        let size = size
            .ok_or_else(|| refuse(path, format!("a file of more than {FILE_BYTES_MAX} bytes")))?;
        if self.options.permissions != Permissions::Dropped && !self.seen.insert(id) {
            return Err(refuse(path, "a hard link"));
        }
        Ok(size)
    }

    /// Whether it is read-only.
    fn check_metadata(&self, path: &str, inode: &Inode) -> Result<bool, FatError> {
        let metadata = &inode.metadata;
        let is_file = matches!(inode.kind, Kind::File(_));
        let Permissions::Uniform(uniform) = self.options.permissions else {
            return Ok(is_file && metadata.mode & 0o222 == 0);
        };
        check_owner(path, metadata, uniform)?;
        let expected = if is_file {
            uniform.file_mode
        } else {
            uniform.directory_mode
        };
        let is_read_only = is_file && metadata.mode == expected & !0o222;
        if metadata.mode != expected && !is_read_only {
            let mode = metadata.mode;
            return Err(refuse(
                path,
                format!("mode {mode:o}; here all have {expected:o}"),
            ));
        }
        Ok(is_read_only && metadata.mode != expected)
    }

    fn stamp(&self, path: &str, metadata: &Metadata) -> Result<Stamp, FatError> {
        let at = self.options.time.unwrap_or(metadata.times.modified);
        let years = "a time outside of the years 1980 to 2107; a fixed one may be given";
        Stamp::of(at).ok_or_else(|| refuse(path, years))
    }
}

fn check_kind(path: &str, kind: &Kind) -> Result<(), FatError> {
    match kind {
        Kind::Directory(_) | Kind::File(_) => Ok(()),
        Kind::Symlink(_) => Err(refuse(path, "a symbolic link")),
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } => Err(refuse(path, "a device")),
        Kind::Fifo | Kind::Socket => Err(refuse(path, "a pipe or socket")),
    }
}

fn check_owner(path: &str, metadata: &Metadata, uniform: Uniform) -> Result<(), FatError> {
    let (uid, gid) = (metadata.uid, metadata.gid);
    if (uid, gid) != (uniform.uid, uniform.gid) {
        let (all_uid, all_gid) = (uniform.uid, uniform.gid);
        let what = format!("owner {uid}:{gid}; here all have {all_uid}:{all_gid}");
        return Err(refuse(path, what));
    }
    match metadata.xattrs.keys().next() {
        Some(name) => {
            let name = display(name);
            Err(refuse(path, format!("the extended attribute '{name}'")))
        }
        None => Ok(()),
    }
}

/// The names of a folder as text, none of them alike to FAT.
fn checked_names<'a>(entries: &'a Entries, path: &[u8]) -> Result<Vec<&'a str>, FatError> {
    let mut names = Vec::new();
    let mut folded: BTreeMap<String, &str> = BTreeMap::new();
    for name in entries.keys() {
        let full = || display(&[path, name].concat());
        let text = std::str::from_utf8(name);
        let text = text.map_err(|_| refuse(&full(), "a name that is not UTF-8"))?;
        name::check(text).map_err(|what| refuse(&full(), what))?;
        if let Some(other) = folded.insert(name::folded(text), text) {
            return Err(FatError::Collision {
                path: full(),
                other: display(&[path, other.as_bytes()].concat()),
            });
        }
        names.push(text);
    }
    Ok(names)
}
