//! A file system in memory: inodes, names, metadata and references to content.
//!
//! The tree is an index table: inodes live in one vector and folders map names to
//! [`InodeId`]s, so hard links are two names with one id, and nothing needs reference counting.
//! Content never enters the tree; a [`Content`] points into a *blob* (an open file, a spool, a few
//! bytes in memory) that the tree holds in a table of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The longest file name, in bytes (`NAME_MAX`).
pub const NAME_LENGTH_MAX: usize = 255;
/// The longest symbolic link target, in bytes (`PATH_MAX` less the terminating NUL).
pub const SYMLINK_LENGTH_MAX: usize = 4095;
/// How many symbolic links one lookup follows before it gives up (the kernel's `MAXSYMLINKS`).
pub const SYMLINKS_FOLLOWED_MAX: usize = 40;

/// A name in a folder, a path, or a link target: bytes, not text.
pub type Name = Box<[u8]>;

/// Index of an inode in its [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(u32);

impl InodeId {
    /// The root folder of every tree.
    pub const ROOT: Self = Self(0);

    /// Position in [`Tree::inodes`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Index of a blob in its [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(u32);

impl BlobId {
    /// Position in the tree's blob table.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Seconds and nanoseconds since 1970-01-01 00:00 UTC; negative seconds are earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds.
    pub seconds: i64,
    /// 0 to 999,999,999, counted forwards from `seconds`.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// A whole second.
    #[must_use]
    pub fn from_seconds(seconds: i64) -> Self {
        Self {
            seconds,
            nanoseconds: 0,
        }
    }
}

/// The four times of an inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Last change of content (`mtime`).
    pub modified: Timestamp,
    /// Last access (`atime`).
    pub accessed: Timestamp,
    /// Last change of the inode (`ctime`).
    pub changed: Timestamp,
    /// Birth (`crtime`).
    pub created: Timestamp,
}

impl Times {
    /// All four at one instant.
    #[must_use]
    pub fn all(at: Timestamp) -> Self {
        Self {
            modified: at,
            accessed: at,
            changed: at,
            created: at,
        }
    }
}

/// What every inode has, whatever its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with set-uid, set-gid and sticky: at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The four times.
    pub times: Times,
    /// Extended attributes by full name (`security.capability`, `user.x`), values as the kernel's
    /// `getxattr` would return them.
    pub xattrs: BTreeMap<Name, Box<[u8]>>,
}

/// One run of content; what lies between runs is a hole and reads as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in bytes, never zero.
    pub length: u64,
    /// Where the bytes are.
    pub blob: BlobId,
    /// Offset in the blob, in bytes.
    pub blob_offset: u64,
}

/// The content of a regular file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// File size in bytes; may reach past the last segment.
    pub size: u64,
    /// Runs by rising offset, not overlapping, none past `size`.
    pub segments: Box<[Segment]>,
}

impl Content {
    /// A file without a single hole, `size` bytes at `blob_offset` of `blob`.
    #[must_use]
    pub fn contiguous(blob: BlobId, blob_offset: u64, size: u64) -> Self {
        let segment = Segment {
            offset: 0,
            length: size,
            blob,
            blob_offset,
        };
        Self {
            size,
            segments: if size == 0 {
                Box::default()
            } else {
                Box::new([segment])
            },
        }
    }
}

/// Names of a folder, in byte order.
pub type Entries = BTreeMap<Name, InodeId>;

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder; `.` and `..` are implied.
    Directory(Entries),
    /// A regular file.
    File(Content),
    /// A symbolic link and its target.
    Symlink(Name),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// An inode: metadata and kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Owner, mode, times, attributes.
    pub metadata: Metadata,
    /// What it is.
    pub kind: Kind,
}

/// Bytes that content points into, readable at any offset from any thread.
pub trait Blob: Send + Sync + fmt::Debug {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 means the end.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The file behind the blob with the blob's offset in it, where there is one, so that a writer
    /// may copy inside the kernel.
    fn as_file(&self) -> Option<(&File, u64)> {
        None
    }
}

impl Blob for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn as_file(&self) -> Option<(&File, u64)> {
        Some((self, 0))
    }
}

impl Blob for Vec<u8> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).map_or(self.len(), |o| o.min(self.len()));
        let length = buffer.len().min(self.len() - start);
        buffer[..length].copy_from_slice(&self[start..start + length]);
        Ok(length)
    }
}

/// Why a tree could not be changed or a path not be found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// A name is empty, too long, `.` or `..`, or has a slash or NUL in it.
    #[error("invalid file name '{0}'")]
    InvalidName(String),
    /// A path component does not exist.
    #[error("'{0}' does not exist")]
    NotFound(String),
    /// A path component is not a folder.
    #[error("'{0}' is not a directory")]
    NotADirectory(String),
    /// Something else has that name already.
    #[error("'{0}' exists already")]
    Exists(String),
    /// More symbolic links than [`SYMLINKS_FOLLOWED_MAX`].
    #[error("too many symbolic links in '{0}'")]
    SymlinkLoop(String),
    /// The table is full.
    #[error("the tree has too many inodes or blobs")]
    Full,
}

/// Whether a character has an effect beside its own place on a terminal: control characters, the
/// ends of lines and paragraphs, and marks that turn the direction of what stands around them
/// (Unicode's Bidi_Control).
#[must_use]
pub fn is_unruly(character: char) -> bool {
    let turns = matches!(character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

/// Shows bytes as text for a message, on one line and harmless to a terminal: unruly characters,
/// backslashes and what is not UTF-8 are escaped (`\n`, `\\`, `\xff`).
#[must_use]
pub fn display(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_unruly(character) || character == '\\' {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A file system in memory.
#[derive(Clone, Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
    blobs: Vec<Arc<dyn Blob>>,
}

impl Tree {
    /// A tree with an empty root folder.
    #[must_use]
    pub fn new(root: Metadata) -> Self {
        Self {
            inodes: vec![Inode {
                metadata: root,
                kind: Kind::Directory(Entries::new()),
            }],
            blobs: Vec::new(),
        }
    }

    /// Every inode by [`InodeId::index`]; some may have no name any more.
    #[must_use]
    pub fn inodes(&self) -> &[Inode] {
        &self.inodes
    }

    /// Every [`InodeId`], by rising index.
    pub fn ids(&self) -> impl Iterator<Item = InodeId> + use<> {
        // `add_inode` refuses more than `u32::MAX` inodes.
        let count = u32::try_from(self.inodes.len()).unwrap_or(u32::MAX);
        (0..count).map(InodeId)
    }

    /// The inode with this id.
    #[must_use]
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.index()]
    }

    /// The inode with this id, to change.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.index()]
    }

    /// The blob with this id.
    #[must_use]
    pub fn blob(&self, id: BlobId) -> &Arc<dyn Blob> {
        &self.blobs[id.index()]
    }

    /// Adds a blob that content may point into.
    ///
    /// # Errors
    /// [`TreeError::Full`].
    pub fn add_blob(&mut self, blob: Arc<dyn Blob>) -> Result<BlobId, TreeError> {
        let id = u32::try_from(self.blobs.len()).map_err(|_| TreeError::Full)?;
        self.blobs.push(blob);
        Ok(BlobId(id))
    }

    /// Content that lives in memory: for the small files that a build makes itself.
    ///
    /// # Errors
    /// [`TreeError::Full`].
    pub fn add_bytes(&mut self, bytes: Vec<u8>) -> Result<Content, TreeError> {
        let size = bytes.len() as u64;
        let blob = self.add_blob(Arc::new(bytes))?;
        Ok(Content::contiguous(blob, 0, size))
    }

    /// Adds an inode without a name; [`Tree::link`] names it.
    ///
    /// # Errors
    /// [`TreeError::Full`].
    pub fn add_inode(&mut self, inode: Inode) -> Result<InodeId, TreeError> {
        let id = u32::try_from(self.inodes.len()).map_err(|_| TreeError::Full)?;
        self.inodes.push(inode);
        Ok(InodeId(id))
    }

    /// The names in a folder; `None` where `id` is something else.
    #[must_use]
    pub fn entries(&self, id: InodeId) -> Option<&Entries> {
        match &self.inode(id).kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    fn entries_mut(&mut self, id: InodeId, name: &[u8]) -> Result<&mut Entries, TreeError> {
        match &mut self.inode_mut(id).kind {
            Kind::Directory(entries) => Ok(entries),
            _ => Err(TreeError::NotADirectory(display(name))),
        }
    }

    /// Gives an inode a name in a folder.
    ///
    /// # Errors
    /// An invalid or taken name, or `parent` is no folder.
    pub fn link(&mut self, parent: InodeId, name: &[u8], id: InodeId) -> Result<(), TreeError> {
        check_name(name)?;
        let entries = self.entries_mut(parent, name)?;
        if entries.contains_key(name) {
            return Err(TreeError::Exists(display(name)));
        }
        entries.insert(name.into(), id);
        Ok(())
    }

    /// Gives an inode a name in a folder, taking the name from whatever had it.
    ///
    /// # Errors
    /// An invalid name, or `parent` is no folder.
    pub fn replace(
        &mut self,
        parent: InodeId,
        name: &[u8],
        id: InodeId,
    ) -> Result<Option<InodeId>, TreeError> {
        check_name(name)?;
        Ok(self.entries_mut(parent, name)?.insert(name.into(), id))
    }

    /// Removes a name, and with it everything that is only reachable through it.
    ///
    /// # Errors
    /// The name does not exist, or `parent` is no folder.
    pub fn unlink(&mut self, parent: InodeId, name: &[u8]) -> Result<InodeId, TreeError> {
        self.entries_mut(parent, name)?
            .remove(name)
            .ok_or_else(|| TreeError::NotFound(display(name)))
    }

    /// The inode that `name` stands for in a folder, links not followed.
    #[must_use]
    pub fn child(&self, parent: InodeId, name: &[u8]) -> Option<InodeId> {
        self.entries(parent)?.get(name).copied()
    }

    /// Finds a path from the root, following every symbolic link but a last one.
    ///
    /// # Errors
    /// A component is missing, no folder, or there is a loop of links.
    pub fn lookup(&self, path: &[u8]) -> Result<InodeId, TreeError> {
        self.walk(path, false)
    }

    /// Finds a path from the root, following every symbolic link.
    ///
    /// # Errors
    /// As [`Tree::lookup`].
    pub fn resolve(&self, path: &[u8]) -> Result<InodeId, TreeError> {
        self.walk(path, true)
    }

    fn walk(&self, path: &[u8], follow_last: bool) -> Result<InodeId, TreeError> {
        let mut walk = Walk::new(path, follow_last);
        match walk.run(self, path)? {
            Some(_) => Err(TreeError::NotFound(display(path))),
            None => Ok(walk.here()),
        }
    }

    /// Finds a folder, making it and its parents where they are missing.
    ///
    /// # Errors
    /// A component exists and is no folder.
    pub fn make_directories(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
    ) -> Result<InodeId, TreeError> {
        let mut walk = Walk::new(path, true);
        while let Some(missing) = walk.run(self, path)? {
            if missing.is_of_a_link {
                return Err(TreeError::NotFound(display(path)));
            }
            let id = self.add_inode(Inode {
                metadata: metadata.clone(),
                kind: Kind::Directory(Entries::new()),
            })?;
            self.link(walk.here(), &missing.name, id)?;
            walk.trail.push(id);
        }
        if self.entries(walk.here()).is_none() {
            return Err(TreeError::NotADirectory(display(path)));
        }
        Ok(walk.here())
    }

    /// Every named inode with one path to it, parents before children, names in byte order.
    /// A hard link appears once for each of its names.
    #[must_use]
    pub fn paths(&self) -> Vec<(Vec<u8>, InodeId)> {
        self.paths_below(InodeId::ROOT)
    }

    /// As [`Tree::paths`], of `top` and what is in it, which is `/` then.
    #[must_use]
    pub fn paths_below(&self, top: InodeId) -> Vec<(Vec<u8>, InodeId)> {
        let mut found = Vec::new();
        let mut pending = vec![(Vec::new(), top)];
        while let Some((path, id)) = pending.pop() {
            if let Some(entries) = self.entries(id) {
                for (name, child) in entries.iter().rev() {
                    let mut child_path = path.clone();
                    child_path.push(b'/');
                    child_path.extend_from_slice(name);
                    pending.push((child_path, *child));
                }
            }
            found.push((if path.is_empty() { b"/".to_vec() } else { path }, id));
        }
        found
    }

    /// How many names each inode has, by [`InodeId::index`]; 0 for what is unreachable. Folders
    /// count one for each name (the root: one), not the `.` and `..` of a file system.
    #[must_use]
    pub fn name_counts(&self) -> Vec<u32> {
        let mut counts = vec![0_u32; self.inodes.len()];
        counts[0] = 1;
        let mut pending = vec![InodeId::ROOT];
        while let Some(id) = pending.pop() {
            let Some(entries) = self.entries(id) else {
                continue;
            };
            for child in entries.values() {
                counts[child.index()] += 1;
                if counts[child.index()] == 1 {
                    pending.push(*child);
                }
            }
        }
        counts
    }

    /// Reads a whole small file.
    ///
    /// # Errors
    /// `id` is no regular file, is larger than `limit_bytes`, or its blob cannot be read.
    pub fn read_file(&self, id: InodeId, limit_bytes: u64) -> io::Result<Vec<u8>> {
        let Kind::File(content) = &self.inode(id).kind else {
            return Err(io::Error::other("not a regular file"));
        };
        if content.size > limit_bytes {
            return Err(io::Error::other(format!(
                "the file has {} bytes, more than {limit_bytes}",
                content.size
            )));
        }
        let too_large = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let mut bytes = vec![0; usize::try_from(content.size).map_err(too_large)?];
        for segment in &content.segments {
            let start = usize::try_from(segment.offset).map_err(too_large)?;
            let length = usize::try_from(segment.length).map_err(too_large)?;
            let target = bytes
                .get_mut(start..start.saturating_add(length))
                .ok_or(io::ErrorKind::InvalidData)?;
            read_exact_at(&**self.blob(segment.blob), target, segment.blob_offset)?;
        }
        Ok(bytes)
    }
}

/// Fills `buffer` from a blob.
///
/// # Errors
/// The blob ends early, or what the operating system says.
pub fn read_exact_at(blob: &dyn Blob, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match blob.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A walk along a path. Links are resolved inside the tree: `..` at the root stays at the root,
/// absolute targets start again at the tree's root.
struct Walk {
    /// What is still to go, the next component last.
    pending: Vec<Component>,
    /// The way so far, from the root.
    trail: Vec<InodeId>,
    links_followed: usize,
    follow_last: bool,
}

/// One component of a path, or of a link's target on the way.
struct Component {
    name: Name,
    is_of_a_link: bool,
}

impl Walk {
    fn new(path: &[u8], follow_last: bool) -> Self {
        Self {
            pending: components_reversed(path, false).collect(),
            trail: vec![InodeId::ROOT],
            links_followed: 0,
            follow_last,
        }
    }

    fn here(&self) -> InodeId {
        self.trail.last().copied().unwrap_or(InodeId::ROOT)
    }

    /// Goes on until the end, or to a component that is missing, which the caller may add to the
    /// trail.
    fn run(&mut self, tree: &Tree, path: &[u8]) -> Result<Option<Component>, TreeError> {
        while let Some(component) = self.pending.pop() {
            if &*component.name == b".." {
                if self.trail.len() > 1 {
                    self.trail.pop();
                }
                continue;
            }
            let entries = tree
                .entries(self.here())
                .ok_or_else(|| TreeError::NotADirectory(display(path)))?;
            let Some(id) = entries.get(&component.name).copied() else {
                return Ok(Some(component));
            };
            match &tree.inode(id).kind {
                Kind::Symlink(target) if self.follow_last || !self.pending.is_empty() => {
                    self.links_followed += 1;
                    if self.links_followed > SYMLINKS_FOLLOWED_MAX {
                        return Err(TreeError::SymlinkLoop(display(path)));
                    }
                    if target.first() == Some(&b'/') {
                        self.trail.truncate(1);
                    }
                    self.pending.extend(components_reversed(target, true));
                }
                _ => self.trail.push(id),
            }
        }
        Ok(None)
    }
}

fn check_name(name: &[u8]) -> Result<(), TreeError> {
    let bad = name.is_empty()
        || name.len() > NAME_LENGTH_MAX
        || name == b"."
        || name == b".."
        || name.iter().any(|byte| matches!(byte, b'/' | 0));
    if bad {
        return Err(TreeError::InvalidName(display(name)));
    }
    Ok(())
}

fn components_reversed(path: &[u8], is_of_a_link: bool) -> impl Iterator<Item = Component> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .rev()
        .map(move |part| Component {
            name: part.into(),
            is_of_a_link,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tree: &mut Tree, parent: InodeId, name: &[u8], text: &str) -> InodeId {
        let content = tree.add_bytes(text.into()).unwrap();
        let id = tree
            .add_inode(Inode {
                metadata: Metadata::default(),
                kind: Kind::File(content),
            })
            .unwrap();
        tree.link(parent, name, id).unwrap();
        id
    }

    fn symlink(tree: &mut Tree, parent: InodeId, name: &[u8], target: &[u8]) {
        let id = tree
            .add_inode(Inode {
                metadata: Metadata::default(),
                kind: Kind::Symlink(target.into()),
            })
            .unwrap();
        tree.link(parent, name, id).unwrap();
    }

    #[test]
    fn links_are_followed_inside_the_tree() {
        let mut tree = Tree::new(Metadata::default());
        let usr = tree
            .make_directories(b"/usr/bin", &Metadata::default())
            .unwrap();
        let sh = file(&mut tree, usr, b"sh", "#!");
        symlink(&mut tree, InodeId::ROOT, b"bin", b"usr/bin");
        symlink(&mut tree, InodeId::ROOT, b"up", b"../../usr");
        symlink(&mut tree, InodeId::ROOT, b"loop", b"/loop");
        symlink(&mut tree, InodeId::ROOT, b"nowhere", b"not/there");
        assert_eq!(tree.resolve(b"/bin/sh"), Ok(sh));
        assert_eq!(tree.resolve(b"up/bin/./sh"), Ok(sh));
        assert_eq!(tree.make_directories(b"bin", &Metadata::default()), Ok(usr));
        assert_eq!(
            tree.resolve(b"/loop"),
            Err(TreeError::SymlinkLoop("/loop".into()))
        );
        assert!(matches!(
            tree.inode(tree.lookup(b"/bin").unwrap()).kind,
            Kind::Symlink(_)
        ));
        let made = tree
            .make_directories(b"up/bin/a/../b", &Metadata::default())
            .unwrap();
        assert_eq!(tree.lookup(b"usr/bin/b"), Ok(made));
        for (path, error) in [
            (&b"nowhere/x"[..], TreeError::NotFound("nowhere/x".into())),
            (b"bin/sh/x", TreeError::NotADirectory("bin/sh/x".into())),
            (b"bin/sh", TreeError::NotADirectory("bin/sh".into())),
        ] {
            let made = tree.make_directories(path, &Metadata::default());
            assert_eq!(made, Err(error));
        }
    }

    #[test]
    fn names_are_shown_on_one_line_without_control_characters() {
        assert_eq!(
            display("a\n\u{1b}[31m\\é".as_bytes()),
            "a\\n\\u{1b}[31m\\\\é"
        );
        assert_eq!(display(b"latin-\xe9\xff"), "latin-\\xe9\\xff");
        assert_eq!(display("gnp.\u{202e}exe".as_bytes()), "gnp.\\u{202e}exe");
    }

    #[test]
    fn names_are_checked_and_counted() {
        let mut tree = Tree::new(Metadata::default());
        let id = file(&mut tree, InodeId::ROOT, b"a", "text");
        tree.link(InodeId::ROOT, b"b\xff", id).unwrap();
        assert_eq!(tree.name_counts()[id.index()], 2);
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            assert!(tree.link(InodeId::ROOT, bad, id).is_err());
        }
        assert_eq!(tree.read_file(id, 10).unwrap(), b"text");
        assert!(tree.read_file(id, 3).is_err());
    }
}
