//! From a tree to what ext4 needs to know of it: numbers, links, and how many blocks each inode
//! wants. Everything that ext4 cannot hold is refused here, before a byte is written.

use std::collections::BTreeMap;
use std::ops::Range;

use super::checksum::Checksum;
use super::directory::{self, Entry, Index, LOST_FOUND_SIZE, Target};
use super::encoding::{encode_device, encode_time};
use super::error::WriteError;
use super::format::{
    EXT4_GOOD_OLD_FIRST_INO, EXT4_LINK_MAX, EXT4_ROOT_INO, EXT4_XATTR_REFCOUNT_MAX, I_BLOCK_SIZE,
    file_type,
};
use super::hash;
use super::options::Options;
use super::xattr::{self, Attribute, ValueInode};
use crate::tree::{Blob, BlobId, Content, Inode, InodeId, Kind, Tree, display};

/// Name of the folder in the root in which a repair leaves what it finds.
const LOST_FOUND: &[u8] = b"lost+found";
/// Blocks of the orphan file: as many as mke2fs makes in all but very large file systems.
const ORPHAN_BLOCKS: u64 = 32;
/// The lowest number of a node but the root, less one: nodes follow the reserved inodes.
const RESERVED_INODES: u32 = EXT4_GOOD_OLD_FIRST_INO - 1;

/// An inode that will be written.
#[derive(Debug)]
pub(crate) struct Node<'t> {
    pub(crate) inode: &'t Inode,
    pub(crate) id: Option<InodeId>,
    /// Position of the folder that names it (first).
    pub(crate) parent: usize,
    /// What `i_links_count` shall say.
    pub(crate) links: u32,
    /// Blocks of content; without those of extent tree and attributes.
    pub(crate) blocks: u64,
    /// Index of an indexed folder.
    pub(crate) index: Option<Box<Index<'t>>>,
    /// Position in [`Scan::attribute_blocks`].
    pub(crate) attribute_block: Option<u32>,
    /// Blocks of the values that are inodes, which count for each inode that has them.
    pub(crate) value_blocks: u32,
}

/// An inode that holds the value of an attribute (`ea_inode`).
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) bytes: Vec<u8>,
    pub(crate) inode: ValueInode,
    /// Entries that refer to it; those of a shared block count once.
    pub(crate) references: u32,
}

/// A block of attributes that one or more inodes have.
#[derive(Debug)]
pub(crate) struct AttributeBlock {
    /// Encoded but for the reference count and checksum.
    pub(crate) bytes: Vec<u8>,
    pub(crate) references: u32,
}

/// All inodes that will be written.
#[derive(Debug)]
pub(crate) struct Scan<'t> {
    tree: &'t Tree,
    block_size: usize,
    /// Numbers by position in the tree; 0 for what has no name.
    numbers: Vec<u32>,
    /// Root, `lost+found`, then folder by folder.
    pub(crate) nodes: Vec<Node<'t>>,
    pub(crate) attribute_blocks: Vec<AttributeBlock>,
    /// Values of attributes that are inodes; these follow the nodes.
    pub(crate) values: Vec<Value>,
    /// Positions in [`Scan::values`].
    known_values: BTreeMap<Vec<u8>, usize>,
    /// Blocks of the orphan file, the last inode; 0 where there is none.
    pub(crate) orphan_blocks: u64,
    /// Sum of [`Node::blocks`], attribute blocks, values and orphan file.
    pub(crate) blocks: u64,
    seed: Checksum,
}

/// The number of the node at a position.
pub(crate) fn number_of(position: usize) -> u32 {
    if position == 0 {
        return EXT4_ROOT_INO;
    }
    // Positions are checked when nodes are added.
    u32::try_from(position).map_or(u32::MAX, |at| at.saturating_add(RESERVED_INODES))
}

/// Logical blocks of a file, and the segments that lie in them and in no other chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// First block in the file.
    pub(crate) logical: u64,
    /// Number of blocks.
    pub(crate) blocks: u64,
    /// Indices of the segments.
    pub(crate) segments: Range<usize>,
}

/// The blocks that content covers, rising: segments that share a block are one chunk. The content
/// is in order.
pub(crate) fn chunks(content: &Content, block_size: u64) -> impl Iterator<Item = Chunk> {
    let segments = &content.segments;
    let mut at = 0;
    std::iter::from_fn(move || {
        let first = segments.get(at)?;
        let from = at;
        let logical = first.offset / block_size;
        let mut end = (first.offset + first.length).div_ceil(block_size);
        at += 1;
        while let Some(next) = segments
            .get(at)
            .filter(|next| next.offset / block_size < end)
        {
            end = (next.offset + next.length).div_ceil(block_size);
            at += 1;
        }
        Some(Chunk {
            logical,
            blocks: end - logical,
            segments: from..at,
        })
    })
}

fn blocks_of(length: usize, block_size: usize) -> u64 {
    u64::try_from(length.div_ceil(block_size)).unwrap_or(u64::MAX)
}

fn content_in_order(content: &Content) -> bool {
    let mut at = 0;
    content.segments.iter().all(|segment| {
        let end = segment.offset.checked_add(segment.length);
        let source_end = segment.blob_offset.checked_add(segment.length);
        let fine = segment.offset >= at
            && segment.length > 0
            && source_end.is_some()
            && end.is_some_and(|end| end <= content.size);
        at = end.unwrap_or(u64::MAX);
        fine
    })
}

impl<'t> Scan<'t> {
    /// Looks at every inode that has a name. `lost_found` is taken where the tree has no such
    /// folder.
    ///
    /// # Errors
    /// Whatever ext4 cannot hold.
    pub(crate) fn new(
        tree: &'t Tree,
        lost_found: &'t Inode,
        options: &Options,
    ) -> Result<Self, WriteError> {
        let mut scan = Self {
            tree,
            block_size: usize::try_from(options.block_size.bytes()).unwrap_or(usize::MAX),
            numbers: vec![0; tree.inodes().len()],
            nodes: Vec::with_capacity(tree.inodes().len() + 1),
            attribute_blocks: Vec::new(),
            values: Vec::new(),
            known_values: BTreeMap::new(),
            orphan_blocks: 0,
            blocks: 0,
            seed: Checksum::of_uuid(&options.uuid),
        };
        scan.add_root(lost_found)?;
        scan.walk(hash::seed(&options.hash_seed))?;
        scan.check_links()?;
        scan.place_attributes()?;
        if options.orphan_file {
            scan.orphan_blocks = ORPHAN_BLOCKS;
        }
        scan.blocks += scan.nodes.iter().map(|node| node.blocks).sum::<u64>();
        scan.blocks += u64::try_from(scan.attribute_blocks.len()).unwrap_or(u64::MAX);
        scan.blocks += scan
            .values
            .iter()
            .map(|value| scan.value_blocks(value))
            .sum::<u64>();
        scan.blocks += scan.orphan_blocks;
        Ok(scan)
    }

    /// The highest inode number in use; all lower ones are too.
    pub(crate) fn inodes(&self) -> u32 {
        let orphan_file = usize::from(self.orphan_blocks > 0);
        number_of(self.nodes.len() + self.values.len() + orphan_file - 1)
    }

    /// The number of the orphan file, if there is one.
    pub(crate) fn orphan_file(&self) -> Option<u32> {
        (self.orphan_blocks > 0).then(|| self.inodes())
    }

    /// Blocks of a value.
    pub(crate) fn value_blocks(&self, value: &Value) -> u64 {
        blocks_of(value.bytes.len(), self.block_size)
    }

    /// The inode of a value that is in one.
    pub(crate) fn value_inode(&self, value: &[u8]) -> ValueInode {
        let known = self
            .known_values
            .get(value)
            .map(|at| self.values[*at].inode);
        // Every value that is in an inode was found by `place_attributes`.
        known.unwrap_or(ValueInode { number: 0, hash: 0 })
    }

    /// The names of a folder in byte order.
    pub(crate) fn listing(&self, node: &Node<'t>) -> Vec<Entry<'t>> {
        let Kind::Directory(entries) = &node.inode.kind else {
            return Vec::new();
        };
        let mut listing: Vec<Entry<'t>> = Vec::with_capacity(entries.len() + 1);
        listing.extend(entries.iter().map(|(name, id)| Entry {
            name,
            id: Some(*id),
        }));
        if node.id == Some(InodeId::ROOT) && !entries.contains_key(LOST_FOUND) {
            let at = listing.partition_point(|entry| entry.name < LOST_FOUND);
            let entry = Entry {
                name: LOST_FOUND,
                id: None,
            };
            listing.insert(at, entry);
        }
        listing
    }

    /// What a name stands for.
    pub(crate) fn target(&self, entry: &Entry<'_>) -> Target {
        match entry.id {
            Some(id) => Target {
                number: self.numbers[id.index()],
                file_type: type_of(&self.tree.inode(id).kind),
            },
            None => Target {
                number: EXT4_GOOD_OLD_FIRST_INO,
                file_type: file_type::DIR,
            },
        }
    }

    /// The blob that content points into.
    pub(crate) fn blob(&self, id: BlobId) -> &dyn Blob {
        &**self.tree.blob(id)
    }

    /// One path of a node, for messages.
    pub(crate) fn path(&self, position: usize) -> String {
        let mut names = Vec::new();
        let mut at = position;
        while at != 0 {
            let parent = self.nodes[at].parent;
            let listing = self.listing(&self.nodes[parent]);
            let id = self.nodes[at].id;
            names.push(
                listing
                    .iter()
                    .find(|entry| entry.id == id)
                    .map_or(&b"?"[..], |entry| entry.name),
            );
            at = parent;
        }
        if names.is_empty() {
            return "/".into();
        }
        names.reverse();
        names
            .iter()
            .map(|name| format!("/{}", display(name)))
            .collect()
    }

    fn add_root(&mut self, lost_found: &'t Inode) -> Result<(), WriteError> {
        self.add(self.tree.inode(InodeId::ROOT), Some(InodeId::ROOT), 0)?;
        self.nodes[0].links = 2;
        match self.tree.child(InodeId::ROOT, LOST_FOUND) {
            Some(id) => {
                let inode = self.tree.inode(id);
                if !matches!(inode.kind, Kind::Directory(_)) {
                    return Err(WriteError::LostFound);
                }
                if id == InodeId::ROOT {
                    return Err(WriteError::DirectoryLinked { path: "/".into() });
                }
                self.add(inode, Some(id), 0)?;
            }
            None => {
                self.add(lost_found, None, 0)?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        inode: &'t Inode,
        id: Option<InodeId>,
        parent: usize,
    ) -> Result<usize, WriteError> {
        let position = self.nodes.len();
        let number = number_of(position);
        if number == u32::MAX {
            return Err(WriteError::TooLarge {
                block_size_bytes: u32::try_from(self.block_size).unwrap_or(u32::MAX),
            });
        }
        if let Some(id) = id {
            self.numbers[id.index()] = number;
        }
        self.nodes.push(Node {
            inode,
            id,
            parent,
            links: 0,
            blocks: 0,
            index: None,
            attribute_block: None,
            value_blocks: 0,
        });
        Ok(position)
    }

    /// Numbers the children of one folder after the other, deepest first.
    fn walk(&mut self, seed: [u32; 4]) -> Result<(), WriteError> {
        let mut pending = vec![0];
        while let Some(position) = pending.pop() {
            let listing = self.listing(&self.nodes[position]);
            let first = pending.len();
            for entry in &listing {
                let child = self.visit(entry, position)?;
                if matches!(self.nodes[child].inode.kind, Kind::Directory(_)) {
                    pending.push(child);
                    self.nodes[position].links += 1;
                }
            }
            pending[first..].reverse();
            self.plan_directory(position, &listing, seed)?;
        }
        for position in 0..self.nodes.len() {
            self.nodes[position].blocks = self.check(position)?;
        }
        Ok(())
    }

    /// The position of the node that a name in a folder stands for, with its links counted.
    fn visit(&mut self, entry: &Entry<'t>, parent: usize) -> Result<usize, WriteError> {
        let number = self.target(entry).number;
        let child = match (number, entry.id) {
            (0, Some(id)) => self.add(self.tree.inode(id), Some(id), parent)?,
            (EXT4_ROOT_INO, _) => 0,
            _ => usize::try_from(number - RESERVED_INODES).unwrap_or(usize::MAX),
        };
        let links = if matches!(self.nodes[child].inode.kind, Kind::Directory(_)) {
            if self.nodes[child].links > 0 {
                let path = self.path(child);
                return Err(WriteError::DirectoryLinked { path });
            }
            2
        } else {
            1
        };
        self.nodes[child].links += links;
        Ok(child)
    }

    fn plan_directory(
        &mut self,
        position: usize,
        listing: &[Entry<'t>],
        seed: [u32; 4],
    ) -> Result<(), WriteError> {
        if directory::fits_one_block(listing, self.block_size) {
            return Ok(());
        }
        let Some(index) = Index::plan(listing, seed, self.block_size) else {
            return Err(WriteError::DirectoryTooLarge {
                path: self.path(position),
                names: listing.len(),
                block_size_bytes: u32::try_from(self.block_size).unwrap_or(u32::MAX),
            });
        };
        self.nodes[position].index = Some(Box::new(index));
        Ok(())
    }

    /// Checks one inode and counts its blocks.
    fn check(&self, position: usize) -> Result<u64, WriteError> {
        let node = &self.nodes[position];
        self.check_metadata(position)?;
        let block_size = u64::try_from(self.block_size).unwrap_or(u64::MAX);
        match &node.inode.kind {
            Kind::Directory(_) => Ok(match &node.index {
                Some(index) => u64::try_from(index.blocks()).unwrap_or(u64::MAX),
                None if position == 1 => u64::from(LOST_FOUND_SIZE) / block_size,
                None => 1,
            }),
            Kind::File(content) => {
                let path = || self.path(position);
                if !content_in_order(content) {
                    return Err(WriteError::InvalidContent { path: path() });
                }
                if content.size.div_ceil(block_size) > u64::from(u32::MAX) {
                    let size_bytes = content.size;
                    return Err(WriteError::FileTooLarge {
                        path: path(),
                        size_bytes,
                    });
                }
                Ok(chunks(content, block_size).map(|chunk| chunk.blocks).sum())
            }
            Kind::Symlink(target) => {
                let limit = self.block_size - 1;
                let length = target.len();
                if target.is_empty() || length > limit || target.contains(&0) {
                    let path = self.path(position);
                    return Err(WriteError::SymlinkTarget {
                        path,
                        length,
                        limit,
                    });
                }
                Ok(u64::from(length >= I_BLOCK_SIZE))
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                encode_device(*major, *minor)
                    .map(|_| 0)
                    .ok_or_else(|| WriteError::DeviceRange {
                        path: self.path(position),
                        major: *major,
                        minor: *minor,
                    })
            }
            Kind::Fifo | Kind::Socket => Ok(0),
        }
    }

    fn check_metadata(&self, position: usize) -> Result<(), WriteError> {
        let metadata = &self.nodes[position].inode.metadata;
        if metadata.mode > 0o7777 {
            return Err(WriteError::InvalidMode {
                path: self.path(position),
                mode: metadata.mode,
            });
        }
        if metadata.uid == u32::MAX || metadata.gid == u32::MAX {
            return Err(WriteError::NoOwner {
                path: self.path(position),
            });
        }
        let times = metadata.times;
        for (which, time) in [
            ("modification", times.modified),
            ("access", times.accessed),
            ("change", times.changed),
            ("creation", times.created),
        ] {
            if encode_time(time).is_none() {
                return Err(WriteError::TimeRange {
                    path: self.path(position),
                    which,
                    seconds: time.seconds,
                    nanoseconds: time.nanoseconds,
                });
            }
        }
        Ok(())
    }

    /// Caps the links of folders (`dir_nlink`) and refuses too many of others.
    fn check_links(&mut self) -> Result<(), WriteError> {
        for position in 0..self.nodes.len() {
            let node = &mut self.nodes[position];
            if node.links <= EXT4_LINK_MAX {
                continue;
            }
            if !matches!(node.inode.kind, Kind::Directory(_)) {
                let links = node.links;
                let path = self.path(position);
                return Err(WriteError::TooManyLinks { path, links });
            }
            node.links = 1;
        }
        Ok(())
    }

    /// Finds the attribute blocks and the values that are inodes; inodes with equal ones share them.
    fn place_attributes(&mut self) -> Result<(), WriteError> {
        let mut known: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for position in 0..self.nodes.len() {
            let inode = self.nodes[position].inode;
            if inode.metadata.xattrs.is_empty() {
                continue;
            }
            let split = xattr::split(&inode.metadata, self.block_size)
                .map_err(|problem| self.attribute_error(position, problem))?;
            let mut value_blocks = 0;
            for attribute in split.inline.iter().chain(&split.block) {
                if attribute.outside {
                    self.know_value(&attribute.value);
                    value_blocks += blocks_of(attribute.value.len(), self.block_size);
                }
            }
            self.nodes[position].value_blocks = u32::try_from(value_blocks).unwrap_or(u32::MAX);
            self.refer(&split.inline);
            if split.block.is_empty() {
                continue;
            }
            let find = |value: &[u8]| self.value_inode(value);
            let bytes = xattr::encode_block(&split.block, self.block_size, &find);
            let shared = known
                .get(&bytes)
                .copied()
                .filter(|at| self.attribute_blocks[*at].references < EXT4_XATTR_REFCOUNT_MAX);
            let at = match shared {
                Some(at) => {
                    self.attribute_blocks[at].references += 1;
                    at
                }
                None => {
                    let at = self.attribute_blocks.len();
                    known.insert(bytes.clone(), at);
                    self.attribute_blocks.push(AttributeBlock {
                        bytes,
                        references: 1,
                    });
                    self.refer(&split.block);
                    at
                }
            };
            self.nodes[position].attribute_block = u32::try_from(at).ok();
        }
        Ok(())
    }

    /// Gives a value an inode, unless an equal one has one.
    fn know_value(&mut self, value: &[u8]) {
        if self.known_values.contains_key(value) {
            return;
        }
        let at = self.values.len();
        self.known_values.insert(value.to_vec(), at);
        self.values.push(Value {
            bytes: value.to_vec(),
            inode: ValueInode {
                number: number_of(self.nodes.len() + at),
                hash: xattr::value_hash(self.seed, value),
            },
            references: 0,
        });
    }

    fn refer(&mut self, attributes: &[Attribute<'_>]) {
        for attribute in attributes.iter().filter(|attribute| attribute.outside) {
            if let Some(at) = self.known_values.get(&*attribute.value) {
                self.values[*at].references += 1;
            }
        }
    }

    fn attribute_error(&self, position: usize, problem: xattr::Problem) -> WriteError {
        let path = self.path(position);
        match problem {
            xattr::Problem::Name(name) => WriteError::XattrName { path, name },
            xattr::Problem::Acl(name) => WriteError::InvalidAcl { path, name },
            xattr::Problem::TooLarge { name, size } => {
                WriteError::XattrTooLarge { path, name, size }
            }
        }
    }
}

fn type_of(kind: &Kind) -> u8 {
    match kind {
        Kind::Directory(_) => file_type::DIR,
        Kind::File(_) => file_type::REG_FILE,
        Kind::Symlink(_) => file_type::SYMLINK,
        Kind::CharDevice { .. } => file_type::CHRDEV,
        Kind::BlockDevice { .. } => file_type::BLKDEV,
        Kind::Fifo => file_type::FIFO,
        Kind::Socket => file_type::SOCK,
    }
}
