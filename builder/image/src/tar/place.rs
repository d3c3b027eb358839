//! Puts entries into a tree by GNU tar's rules.

use crate::tree::{
    Content, Entries, Inode, InodeId, Kind, Metadata, NAME_LENGTH_MAX, Name, Tree, TreeError,
    display,
};

use super::entry::{Entry, EntryKind};
use super::{Limits, Options, TarError};

/// Puts the entries of one archive into a tree, one after another.
///
/// It remembers the folders of the last entry, so nobody else may change the tree's folders and
/// links between two calls; make a new one after that.
#[derive(Debug)]
pub struct Placer {
    strip_components: usize,
    keep_directory_symlinks: bool,
    implied_directory: Metadata,
    limits: Limits,
    /// The folders of the last entry from the root, none of them a link.
    trail: Vec<(Name, InodeId)>,
}

impl Placer {
    /// A placer with these options.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self {
            strip_components: options.strip_components,
            keep_directory_symlinks: options.keep_directory_symlinks,
            implied_directory: options.implied_directory.clone(),
            limits: options.limits,
            trail: Vec::new(),
        }
    }

    /// Whether [`Placer::put`] would put the entry anywhere: false where nothing of its path is
    /// left after stripping.
    #[must_use]
    pub fn wants(&self, entry: &Entry) -> bool {
        strip(&entry.path, self.strip_components).is_some()
    }

    /// Puts an entry into the tree and gives its inode; `content` is that of [`Entry::layout`].
    /// `None` where nothing of its path is left after stripping.
    ///
    /// # Errors
    /// The path leads out of the tree or through what is no folder, a folder with children is in
    /// the way of something else, or a hard link's target does not exist.
    pub fn put(
        &mut self,
        tree: &mut Tree,
        entry: &Entry,
        content: Option<Content>,
    ) -> Result<Option<InodeId>, TarError> {
        let Some(stripped) = strip(&entry.path, self.strip_components) else {
            return Ok(None);
        };
        let (parent, name) = self.split(entry, stripped)?;
        let Some(name) = name else {
            return self.put_root(tree, entry).map(Some);
        };
        let parent = self.parent(tree, entry, parent)?;
        self.check_count(tree, entry)?;
        let inode = |kind| Inode {
            metadata: entry.metadata.clone(),
            kind,
        };
        let kind = match &entry.kind {
            EntryKind::Directory => {
                return self.put_directory(tree, entry, parent, name).map(Some);
            }
            EntryKind::HardLink(target) => {
                let id = self.link_target(tree, entry, target)?;
                if let Some(content) = content {
                    give_content(tree, entry, id, content)?;
                }
                if tree.child(parent, name) != Some(id) {
                    self.replace(tree, entry, parent, name, id)?;
                }
                return Ok(Some(id));
            }
            EntryKind::File(_) => Kind::File(content.unwrap_or_default()),
            EntryKind::Symlink(target) => Kind::Symlink(target.clone()),
            EntryKind::CharDevice { major, minor } => Kind::CharDevice {
                major: *major,
                minor: *minor,
            },
            EntryKind::BlockDevice { major, minor } => Kind::BlockDevice {
                major: *major,
                minor: *minor,
            },
            EntryKind::Fifo => Kind::Fifo,
        };
        let id = tree.add_inode(inode(kind)).map_err(in_tree(entry))?;
        self.replace(tree, entry, parent, name, id)?;
        Ok(Some(id))
    }

    /// One path can imply many folders.
    fn check_count(&self, tree: &Tree, entry: &Entry) -> Result<(), TarError> {
        let limit = self.limits.entries;
        if u64::try_from(tree.inodes().len()).is_ok_and(|count| count <= limit) {
            return Ok(());
        }
        Err(TarError::Limit {
            at: entry.at(),
            reason: format!("more than {limit} files and folders"),
        })
    }

    /// The path before its last component, and that; no component at all is the root.
    fn split<'p>(
        &self,
        entry: &Entry,
        path: &'p [u8],
    ) -> Result<(&'p [u8], Option<&'p [u8]>), TarError> {
        let limit = |reason| TarError::Limit {
            at: entry.at(),
            reason,
        };
        let mut depth = 0_usize;
        for part in components(path) {
            if part == b".." {
                let reason = "the path has '..' in it; pack it again with plain paths";
                return Err(conflict(entry, reason));
            }
            if part.len() > NAME_LENGTH_MAX {
                return Err(limit(format!(
                    "a name has more than {NAME_LENGTH_MAX} bytes"
                )));
            }
            depth = depth.saturating_add(1);
        }
        if depth > self.limits.depth {
            return Err(limit(format!(
                "the path is more than {} deep",
                self.limits.depth
            )));
        }
        let mut rest = path;
        loop {
            let slash = rest.iter().rposition(|byte| *byte == b'/');
            let start = slash.map_or(0, |slash| slash.saturating_add(1));
            let part = &rest[start..];
            rest = &rest[..slash.unwrap_or(0)];
            if !part.is_empty() && part != b"." {
                return Ok((rest, Some(part)));
            }
            if slash.is_none() {
                return Ok((rest, None));
            }
        }
    }

    /// The folder at this path, made where it is missing. What it shares with the path before
    /// is not looked up again.
    fn parent(&mut self, tree: &mut Tree, entry: &Entry, path: &[u8]) -> Result<InodeId, TarError> {
        let mut known = 0_usize;
        for part in components(path) {
            if self
                .trail
                .get(known)
                .is_some_and(|(name, _)| **name == *part)
            {
                known = known.saturating_add(1);
                continue;
            }
            self.trail.truncate(known);
            let here = last_of(&self.trail);
            let id = match tree.child(here, part) {
                Some(id) if tree.entries(id).is_some() => id,
                Some(_) => {
                    // A link, or nothing to go on from.
                    let made = tree.make_directories(path, &self.implied_directory);
                    return made.map_err(in_tree(entry));
                }
                None => self.imply(tree, here, part).map_err(in_tree(entry))?,
            };
            self.trail.push((part.into(), id));
            known = known.saturating_add(1);
        }
        self.trail.truncate(known);
        Ok(last_of(&self.trail))
    }

    fn imply(&self, tree: &mut Tree, parent: InodeId, name: &[u8]) -> Result<InodeId, TreeError> {
        let id = tree.add_inode(Inode {
            metadata: self.implied_directory.clone(),
            kind: Kind::Directory(Entries::new()),
        })?;
        tree.link(parent, name, id)?;
        Ok(id)
    }

    fn put_root(&self, tree: &mut Tree, entry: &Entry) -> Result<InodeId, TarError> {
        if entry.kind != EntryKind::Directory {
            return Err(conflict(entry, "the root is a directory, the entry is not"));
        }
        tree.inode_mut(InodeId::ROOT).metadata = entry.metadata.clone();
        Ok(InodeId::ROOT)
    }

    fn put_directory(
        &mut self,
        tree: &mut Tree,
        entry: &Entry,
        parent: InodeId,
        name: &[u8],
    ) -> Result<InodeId, TarError> {
        if let Some(existing) = tree.child(parent, name) {
            if tree.entries(existing).is_some() {
                tree.inode_mut(existing).metadata = entry.metadata.clone();
                return Ok(existing);
            }
            let is_link = matches!(tree.inode(existing).kind, Kind::Symlink(_));
            if self.keep_directory_symlinks
                && is_link
                && let Some(stripped) = strip(&entry.path, self.strip_components)
                && let Ok(target) = tree.resolve(stripped)
                && tree.entries(target).is_some()
            {
                return Ok(target);
            }
        }
        let inode = Inode {
            metadata: entry.metadata.clone(),
            kind: Kind::Directory(Entries::new()),
        };
        let id = tree.add_inode(inode).map_err(in_tree(entry))?;
        self.replace(tree, entry, parent, name, id)?;
        Ok(id)
    }

    /// Gives `name` to `id`; a folder that has it already must be empty.
    fn replace(
        &mut self,
        tree: &mut Tree,
        entry: &Entry,
        parent: InodeId,
        name: &[u8],
        id: InodeId,
    ) -> Result<(), TarError> {
        let existing = tree.child(parent, name);
        if let Some(children) = existing.and_then(|existing| tree.entries(existing)) {
            if !children.is_empty() {
                let reason = "a directory that is not empty has this name";
                return Err(conflict(entry, reason));
            }
            // It may be one of those remembered.
            self.trail.clear();
        }
        tree.replace(parent, name, id).map_err(in_tree(entry))?;
        Ok(())
    }

    fn link_target(&self, tree: &Tree, entry: &Entry, target: &[u8]) -> Result<InodeId, TarError> {
        let refuse = |reason: &str| {
            let reason = format!("hard link to '{}': {reason}", display(target));
            conflict(entry, &reason)
        };
        let stripped = strip(target, self.strip_components)
            .ok_or_else(|| refuse("nothing of the target is left after stripping"))?;
        if components(stripped).any(|part| part == b"..") {
            return Err(refuse(
                "the target has '..' in it; pack it again with plain paths",
            ));
        }
        let id = tree.lookup(stripped).map_err(|error| match error {
            TreeError::NotFound(_) => refuse("no entry before has that path; it must come first"),
            other => refuse(&other.to_string()),
        })?;
        if tree.entries(id).is_some() {
            return Err(refuse("the target is a directory"));
        }
        Ok(id)
    }
}

/// A hard link that comes with content gives it to all names of its file.
fn give_content(
    tree: &mut Tree,
    entry: &Entry,
    id: InodeId,
    content: Content,
) -> Result<(), TarError> {
    let Kind::File(file) = &mut tree.inode_mut(id).kind else {
        let reason = "a hard link with content, to what is no file";
        return Err(conflict(entry, reason));
    };
    *file = content;
    Ok(())
}

fn last_of(trail: &[(Name, InodeId)]) -> InodeId {
    trail.last().map_or(InodeId::ROOT, |(_, id)| *id)
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

/// Drops leading slashes and `count` components, `.` counting as one, as GNU tar does; `None`
/// where nothing is left.
fn strip(path: &[u8], count: usize) -> Option<&[u8]> {
    let mut rest = path;
    for _ in 0..count {
        rest = trim_slashes(rest);
        let slash = rest.iter().position(|byte| *byte == b'/')?;
        rest = &rest[slash..];
    }
    let stripped = trim_slashes(rest);
    (count == 0 || !stripped.is_empty()).then_some(stripped)
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|byte| *byte != b'/');
    &path[start.unwrap_or(path.len())..]
}

fn conflict(entry: &Entry, reason: &str) -> TarError {
    TarError::Conflict {
        at: entry.at(),
        reason: reason.into(),
    }
}

fn in_tree(entry: &Entry) -> impl Fn(TreeError) -> TarError {
    let at = entry.at();
    move |source| TarError::Tree {
        at: at.clone(),
        source,
    }
}
