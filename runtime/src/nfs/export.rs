//! A tree as NFS sees it: numbers, links, attributes, and places in folders.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound::{Included, Unbounded};

use coop_image::tree::{Content, Entries, Inode, InodeId, Kind, Name, Timestamp, Tree, display};

use super::access::{Caller, Squash};
use super::handle::{self, HANDLE_BYTES, Key};
use super::protocol::Status;
use super::xdr::{Garbage, Reader, Writer};

/// The length of an export's secret, in bytes.
pub const KEY_BYTES: usize = 32;
/// Every so many names of a folder, one is noted with its place.
const MARK_INTERVAL: usize = 256;
/// What a folder's size is said to be, in bytes.
const FOLDER_BYTES: u64 = 4096;
/// The number of the one file system.
const FILE_SYSTEM: u64 = 1;
/// Added to an inode's index to make its number, for 0 means none and 1 is said of bad blocks.
const NUMBER_FIRST: u64 = 2;

/// A tree that is served, read-only.
pub struct Export {
    tree: Tree,
    ids: Box<[InodeId]>,
    /// The folder that each folder is in; the root is in itself.
    parents: Box<[u32]>,
    links: Box<[u32]>,
    /// Names with known places in large folders, so that a listing goes on where it was.
    marks: BTreeMap<u32, Box<[Name]>>,
    used_bytes: u64,
    key: Key,
    squash: Squash,
}

impl fmt::Debug for Export {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("inodes", &self.ids.len())
            .field("squash", &self.squash)
            .finish_non_exhaustive()
    }
}

/// Files with extended attributes, which NFS clients do not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributed {
    /// How many there are.
    pub count: usize,
    /// The path of one of them.
    pub example: String,
}

impl fmt::Display for Attributed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, example } = self;
        f.write_str(
            "NFS has no extended attributes (file capabilities, access lists and others): ",
        )?;
        match count {
            1 => write!(f, "clients do not see those of {example}"),
            _ => write!(
                f,
                "clients do not see those of {count} files, as of {example}"
            ),
        }
    }
}

impl Export {
    /// Prepares a tree for being served.
    ///
    /// `key` is what handles are made with: whoever knows it can make handles to any file, and
    /// whoever serves the same image again with the same key is for its clients the same server.
    #[must_use]
    pub fn new(tree: Tree, key: [u8; KEY_BYTES], squash: Squash) -> Self {
        let ids: Box<[InodeId]> = tree.ids().collect();
        let mut links: Box<[u32]> = tree.name_counts().into();
        let mut parents: Box<[u32]> = vec![0; ids.len()].into();
        let mut marks = BTreeMap::new();
        for (number, id) in (0_u32..).zip(&ids) {
            let Some(entries) = tree.entries(*id) else {
                continue;
            };
            let mut folders: u32 = 0;
            for child in entries.values() {
                if tree.entries(*child).is_some() {
                    folders = folders.saturating_add(1);
                    if let Some(parent) = parents.get_mut(child.index()) {
                        *parent = number;
                    }
                }
            }
            if let Some(links) = links.get_mut(id.index()) {
                *links = folders.saturating_add(2);
            }
            if entries.len() > MARK_INTERVAL {
                let names = entries.keys().step_by(MARK_INTERVAL);
                marks.insert(number, names.cloned().collect());
            }
        }
        let used_bytes = tree.inodes().iter().map(used_bytes);
        Self {
            used_bytes: used_bytes.fold(0, u64::saturating_add),
            tree,
            ids,
            parents,
            links,
            marks,
            key,
            squash,
        }
    }

    /// Files with extended attributes (capabilities, access lists and others), if there are any.
    /// Access lists are heeded, but clients see none of them.
    #[must_use]
    pub fn attributed(&self) -> Option<Attributed> {
        let has = |inode: &Inode| !inode.metadata.xattrs.is_empty();
        let count = self.tree.inodes().iter().filter(|inode| has(inode)).count();
        if count == 0 {
            return None;
        }
        let paths = self.tree.paths();
        let (path, _) = paths.iter().find(|(_, id)| has(self.tree.inode(*id)))?;
        let example = display(path);
        Some(Attributed { count, example })
    }

    /// Who a caller is taken for here.
    pub(super) fn taken_for(&self, caller: Option<Caller>) -> Caller {
        Caller::squashed(caller, self.squash)
    }

    /// Reads a handle from a call.
    pub(super) fn handle(&self, call: &mut Reader<'_>) -> Result<Result<u32, Status>, Garbage> {
        let read = handle::read(&self.key, call)?;
        // Nobody else makes handles, and this server only to what is there.
        Ok(read.and_then(|number| match self.id(number) {
            Some(_) => Ok(number),
            None => Err(Status::Stale),
        }))
    }

    /// The handle of an inode.
    pub(super) fn handle_of(&self, number: u32) -> [u8; HANDLE_BYTES] {
        handle::make(&self.key, number)
    }

    fn id(&self, number: u32) -> Option<InodeId> {
        let index = usize::try_from(number).ok()?;
        self.ids.get(index).copied()
    }

    /// The inode of a number that [`Export::handle`] or a folder gave; the root for any other.
    pub(super) fn inode(&self, number: u32) -> &Inode {
        self.tree.inode(self.id(number).unwrap_or(InodeId::ROOT))
    }

    pub(super) fn entries(&self, number: u32) -> Result<&Entries, Status> {
        match &self.inode(number).kind {
            Kind::Directory(entries) => Ok(entries),
            _ => Err(Status::NotDirectory),
        }
    }

    /// The folder that a folder is in.
    pub(super) fn parent(&self, number: u32) -> u32 {
        let index = usize::try_from(number).unwrap_or(0);
        self.parents.get(index).copied().unwrap_or(0)
    }

    /// The names of a folder from this place on, in their order.
    pub(super) fn entries_from(
        &self,
        number: u32,
        place: usize,
    ) -> Result<impl Iterator<Item = (&[u8], u32)>, Status> {
        let entries = self.entries(number)?;
        let mark = self.marks.get(&number);
        let mark = mark.and_then(|marks| marks.get(place / MARK_INTERVAL));
        let (from, skipped) = match mark {
            Some(name) => (Included(&**name), place % MARK_INTERVAL),
            None => (Unbounded, place),
        };
        let rest = entries.range::<[u8], _>((from, Unbounded)).skip(skipped);
        Ok(rest.map(|(name, id)| (&**name, number_of(*id))))
    }

    /// Bytes that the tree's files have.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// How many inodes there are.
    pub(super) fn inode_count(&self) -> u64 {
        u64::try_from(self.ids.len()).unwrap_or(u64::MAX)
    }

    /// `fattr3`.
    pub(super) fn attributes(&self, number: u32, reply: &mut Writer) {
        let inode = self.inode(number);
        let metadata = &inode.metadata;
        let index = usize::try_from(number).unwrap_or(0);
        reply.u32(type_number(&inode.kind));
        reply.u32(u32::from(metadata.mode & 0o7777));
        reply.u32(self.links.get(index).copied().unwrap_or(1));
        reply.u32(metadata.uid);
        reply.u32(metadata.gid);
        reply.u64(size_bytes(inode));
        reply.u64(used_bytes(inode));
        let (major, minor) = match inode.kind {
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                (major, minor)
            }
            _ => (0, 0),
        };
        reply.u32(major);
        reply.u32(minor);
        reply.u64(FILE_SYSTEM);
        reply.u64(file_number(number));
        let times = &metadata.times;
        for time in [times.accessed, times.modified, times.changed] {
            write_time(time, reply);
        }
    }

    /// `post_op_attr`.
    pub(super) fn maybe_attributes(&self, number: Option<u32>, reply: &mut Writer) {
        reply.bool(number.is_some());
        if let Some(number) = number {
            self.attributes(number, reply);
        }
    }

    /// Fills `buffer` from a file's content at `offset`; what is beyond the last run is zeroes.
    ///
    /// # Errors
    /// The image cannot be read.
    pub(super) fn read(
        &self,
        content: &Content,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Status> {
        let wanted = u64::try_from(buffer.len()).map_err(|_| Status::Io)?;
        let end = offset.saturating_add(wanted);
        let segments = &content.segments;
        let first = segments
            .partition_point(|segment| segment.offset.saturating_add(segment.length) <= offset);
        for segment in segments.iter().skip(first) {
            if segment.offset >= end {
                break;
            }
            let from = segment.offset.max(offset);
            let until = segment.offset.saturating_add(segment.length).min(end);
            let place = |at: u64| usize::try_from(at - offset).map_err(|_| Status::Io);
            let part = buffer.get_mut(place(from)?..place(until)?);
            let at = segment.blob_offset.saturating_add(from - segment.offset);
            let blob = self.tree.blob(segment.blob);
            coop_image::tree::read_exact_at(&**blob, part.unwrap_or_default(), at)
                .map_err(|_| Status::Io)?;
        }
        Ok(())
    }
}

/// The number of an inode in its file system.
pub(super) fn file_number(number: u32) -> u64 {
    u64::from(number) + NUMBER_FIRST
}

/// An inode's place in the tree.
pub(super) fn number_of(id: InodeId) -> u32 {
    u32::try_from(id.index()).unwrap_or(u32::MAX)
}

/// `ftype3`.
fn type_number(kind: &Kind) -> u32 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory(_) => 2,
        Kind::BlockDevice { .. } => 3,
        Kind::CharDevice { .. } => 4,
        Kind::Symlink(_) => 5,
        Kind::Socket => 6,
        Kind::Fifo => 7,
    }
}

fn size_bytes(inode: &Inode) -> u64 {
    match &inode.kind {
        Kind::File(content) => content.size,
        Kind::Symlink(target) => u64::try_from(target.len()).unwrap_or(0),
        Kind::Directory(_) => FOLDER_BYTES,
        _ => 0,
    }
}

fn used_bytes(inode: &Inode) -> u64 {
    match &inode.kind {
        Kind::File(content) => {
            let runs = content.segments.iter().map(|segment| segment.length);
            runs.fold(0, u64::saturating_add)
        }
        Kind::Directory(_) => FOLDER_BYTES,
        _ => 0,
    }
}

/// `nfstime3`, which has no time before 1970.
fn write_time(time: Timestamp, reply: &mut Writer) {
    let latest = if time.seconds < 0 { 0 } else { u32::MAX };
    reply.u32(u32::try_from(time.seconds).unwrap_or(latest));
    reply.u32(time.nanoseconds);
}
