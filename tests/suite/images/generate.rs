//! Trees and options by chance: every kind of inode, every field at its edges.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use coop_image::ext4::{BlockSize, Inodes, Journal, Options, Size};
use coop_image::tree::{
    BlobId, Content, Inode, InodeId, Kind, Metadata, Name, Segment, Times, Timestamp, Tree,
};

use super::random::Random;

/// Attributes by full name.
type Xattrs = BTreeMap<Name, Box<[u8]>>;

/// The first and the last second that an inode can hold.
pub const SECONDS: [i64; 2] = [-(1 << 31), (1 << 34) - (1 << 31) - 1];
/// Seconds that old kernels wrote for those before 1970, which e2fsck offers to correct.
pub const FUTURE: std::ops::Range<i64> = (3 << 32) - (1 << 31)..3 << 32;
/// Bytes of a block of attributes, or of an inode's, that are not for attributes.
const XATTR_BLOCK_HEAD: usize = 32 + 4;
/// The longest full name of an attribute (`XATTR_NAME_MAX`).
const XATTR_NAME_MAX: usize = 255;
/// The longest value of an attribute (`XATTR_SIZE_MAX`).
const VALUE_MAX: usize = 64 << 10;
/// Bytes of the random blob that many files share.
const SHARED_BYTES: u64 = 1 << 20;

/// What a tree has much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    Mixed,
    Empty,
    LargeFolder,
    Deep,
    Fragments,
    Attributes,
    HardLinks,
    Devices,
    Large,
}

const THEMES: [Theme; 14] = [
    Theme::Mixed,
    Theme::Mixed,
    Theme::Mixed,
    Theme::Mixed,
    Theme::Mixed,
    Theme::Mixed,
    Theme::LargeFolder,
    Theme::Deep,
    Theme::Fragments,
    Theme::Attributes,
    Theme::HardLinks,
    Theme::Devices,
    Theme::Large,
    Theme::Empty,
];

/// Options without a size: that is found when it is known what the tree needs.
pub fn options(random: &mut Random) -> Options {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&random.bytes(16));
    let mut hash_seed = [0; 16];
    hash_seed.copy_from_slice(&random.bytes(16));
    let seconds = random.between(1, 1_700_000_000);
    let time = Timestamp {
        seconds: i64::try_from(seconds).unwrap(),
        nanoseconds: nanoseconds(random),
    };
    let labels = ["", "root", "a label of 16 by", "Größe", "\u{1F40E}", "x y"];
    let journal = match random.below(4) {
        0 => Journal::None,
        1 => Journal::Blocks(u32::try_from(random.between(1024, 3000)).unwrap()),
        _ => Journal::Auto,
    };
    Options {
        block_size: random.pick(&[BlockSize::Kib1, BlockSize::Kib2, BlockSize::Kib4]),
        label: random.pick(&labels).into(),
        journal,
        inodes: match random.below(4) {
            0 => Inodes::PerBytes(u32::try_from(random.between(1024, 70_000)).unwrap()),
            1 => Inodes::Count(u32::try_from(random.between(1, 6000)).unwrap()),
            _ => Inodes::Auto,
        },
        orphan_file: random.chance(25) && journal != Journal::None,
        reserved_percent: random.pick(&[0, 0, 1, 5, 10, 50]),
        ..Options::new(uuid, hash_seed, time)
    }
}

/// Either as small as can be with a free share, or a given size around `smallest` bytes.
pub fn size(random: &mut Random, smallest: u64) -> Size {
    match random.below(6) {
        0 => Size::Auto {
            free_percent: random.pick(&[0, 0, 1, 5, 20]),
            free_bytes_min: random.pick(&[0, 1, 4096, 10 << 20]),
        },
        1 => Size::with_free_percent(random.pick(&[0, 0, 1, 5, 20])),
        2 => Size::with_free_percent(u8::try_from(random.below(91)).unwrap()),
        3 => Size::Bytes(smallest + random.below(100_000)),
        4 => Size::Bytes(smallest + random.below(200 << 20)),
        _ => Size::Bytes(smallest * 2 + random.below(8 << 30)),
    }
}

/// What a tree may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub block_bytes: u64,
    /// Whether an archive has to say all: tar has no sockets, and no access lists that say only
    /// what the mode says.
    pub archivable: bool,
    /// Times whose low 32 bits have the sign bit set: before 1970, and every other 68 years.
    pub odd_times: bool,
    /// Attributes whose values need inodes of their own.
    pub large_values: bool,
    /// Times that e2fsck complains of: see [`FUTURE`].
    pub future_times: bool,
}

/// A tree by chance, and what it has much of.
pub fn tree(random: &mut Random, limits: Limits) -> (Tree, Theme) {
    let theme = random.pick(&THEMES);
    let mut maker = Maker::new(random, limits);
    match theme {
        Theme::Empty => {}
        Theme::Mixed => maker.mixed(120),
        Theme::LargeFolder => maker.large_folder(),
        Theme::Deep => maker.deep(),
        Theme::Fragments => maker.fragments(),
        Theme::Attributes => maker.attributes(),
        Theme::HardLinks => maker.hard_links(),
        Theme::Devices => maker.devices(),
        Theme::Large => maker.large(),
    }
    if maker.random.chance(50) && theme != Theme::Empty {
        maker.mixed(20);
    }
    (maker.tree, theme)
}

struct Maker<'r> {
    random: &'r mut Random,
    limits: Limits,
    tree: Tree,
    folders: Vec<InodeId>,
    files: Vec<InodeId>,
    shared: BlobId,
    file_blob: BlobId,
    /// Sets of attributes that several inodes have.
    sets: Vec<Xattrs>,
}

impl<'r> Maker<'r> {
    fn new(random: &'r mut Random, limits: Limits) -> Self {
        let root = metadata(random, limits);
        let mut tree = Tree::new(root);
        let bytes = random.bytes(usize::try_from(SHARED_BYTES).unwrap());
        let file = file_with_holes(&bytes[..64 << 10]);
        let shared = tree.add_blob(Arc::new(bytes)).unwrap();
        let file_blob = tree.add_blob(Arc::new(file)).unwrap();
        let mut maker = Self {
            random,
            limits,
            tree,
            folders: vec![InodeId::ROOT],
            files: Vec::new(),
            shared,
            file_blob,
            sets: Vec::new(),
        };
        for _ in 0..3 {
            let set = maker.xattrs(true);
            maker.sets.push(set);
        }
        if maker.random.chance(15) {
            maker.lost_found();
        }
        maker
    }

    fn lost_found(&mut self) {
        let id = self.add(Kind::Directory(BTreeMap::new()));
        self.tree.link(InodeId::ROOT, b"lost+found", id).unwrap();
        self.folders.push(id);
    }

    fn add(&mut self, kind: Kind) -> InodeId {
        let mut metadata = metadata(self.random, self.limits);
        if self.random.chance(12) {
            metadata.xattrs = if self.random.chance(50) {
                self.random.pick(&self.sets)
            } else {
                self.xattrs(true)
            };
        }
        let (is_directory, is_file, is_link) = (
            matches!(kind, Kind::Directory(_)),
            matches!(kind, Kind::File(_)),
            matches!(kind, Kind::Symlink(_)),
        );
        // What the kernel does not hand out: user attributes of anything but files and folders,
        // lists of links, default lists of what is no folder.
        metadata.xattrs.retain(|name, _| match &**name {
            b"system.posix_acl_access" => !is_link,
            b"system.posix_acl_default" => is_directory,
            name => !name.starts_with(b"user.") || is_directory || is_file,
        });
        self.tree.add_inode(Inode { metadata, kind }).unwrap()
    }

    /// Names an inode in a folder.
    fn name(&mut self, parent: InodeId, id: InodeId) {
        for _ in 0..1000 {
            let name = name(self.random);
            if parent == InodeId::ROOT && &*name == b"lost+found" {
                continue;
            }
            if self.tree.link(parent, &name, id).is_ok() {
                return;
            }
        }
        panic!("no name is left");
    }

    fn put(&mut self, parent: InodeId, kind: Kind) -> InodeId {
        let id = self.add(kind);
        self.name(parent, id);
        id
    }

    fn folder(&mut self, parent: InodeId) -> InodeId {
        let id = self.put(parent, Kind::Directory(BTreeMap::new()));
        self.folders.push(id);
        id
    }

    fn file(&mut self, parent: InodeId, content: Content) -> InodeId {
        let id = self.put(parent, Kind::File(content));
        self.files.push(id);
        id
    }

    fn mixed(&mut self, most: u64) {
        for _ in 0..self.random.below(most) {
            let parent = self.random.pick(&self.folders);
            match self.random.below(16) {
                0..3 => drop(self.folder(parent)),
                3..5 => {
                    let target = self.target();
                    self.put(parent, Kind::Symlink(target));
                }
                5 if !self.files.is_empty() => {
                    let id = self.random.pick(&self.files);
                    self.name(parent, id);
                }
                6..8 => {
                    let content = self.sparse(12);
                    self.file(parent, content);
                }
                8 => {
                    let kind = self.special();
                    let id = self.put(parent, kind);
                    self.files.push(id);
                }
                _ => {
                    let content = self.small();
                    self.file(parent, content);
                }
            }
        }
    }

    fn large_folder(&mut self) {
        let folder = self.folder(InodeId::ROOT);
        let count = self.random.pick(&[20, 100, 300, 300, 1200, 4000]);
        let content = self.small();
        let file = self.file(folder, content);
        for _ in 0..count {
            match self.random.below(12) {
                0 => drop(self.folder(folder)),
                1 => drop(self.put(folder, Kind::Fifo)),
                2 => {
                    let content = self.small();
                    self.put(folder, Kind::File(content));
                }
                _ => self.name(folder, file),
            }
        }
    }

    fn deep(&mut self) {
        let mut folder = InodeId::ROOT;
        for _ in 0..self.random.between(5, 60) {
            folder = self.folder(folder);
            if self.random.chance(30) {
                let content = self.small();
                self.file(folder, content);
            }
        }
        let content = self.small();
        self.file(folder, content);
    }

    fn fragments(&mut self) {
        let block = self.limits.block_bytes;
        let per_leaf = (block - 12) / 12;
        for _ in 0..self.random.between(1, 4) {
            let count = match self.random.below(5) {
                0 => self.random.between(1, 8),
                1 => self.random.between(per_leaf - 1, per_leaf + 1),
                2 => self.random.between(4 * per_leaf - 1, 4 * per_leaf + 1),
                _ => self.random.between(5, 3000),
            };
            let step = block * self.random.between(2, 5);
            let start = self.random.pick(&[0, 1, block, 1 << 30]);
            let blob = self.shared;
            let segments = (0..count).map(|at| Segment {
                offset: start + at * step,
                length: 1 + at % (block + 1).min(2000),
                blob,
                blob_offset: at,
            });
            let segments: Box<[Segment]> = segments.collect();
            let last = segments.last().unwrap();
            let size = last.offset + last.length + self.random.below(3 * block);
            self.file(InodeId::ROOT, Content { size, segments });
        }
    }

    fn attributes(&mut self) {
        for at in 0..self.random.between(10, 60) {
            let content = Content::default();
            let id = match self.random.below(4) {
                0 => self.folder(InodeId::ROOT),
                1 => self.put(InodeId::ROOT, Kind::Fifo),
                _ => self.put(InodeId::ROOT, Kind::File(content)),
            };
            let full = at % 2 == 0;
            let is_fifo = matches!(self.tree.inode(id).kind, Kind::Fifo);
            let mut xattrs = if self.random.chance(40) {
                self.random.pick(&self.sets)
            } else {
                self.xattrs(full)
            };
            let is_directory = self.tree.entries(id).is_some();
            xattrs.retain(|name, _| {
                (is_directory || &**name != b"system.posix_acl_default")
                    && !(is_fifo && name.starts_with(b"user."))
            });
            self.tree.inode_mut(id).metadata.xattrs = xattrs;
        }
    }

    fn hard_links(&mut self) {
        for _ in 0..5 {
            self.folder(InodeId::ROOT);
        }
        for _ in 0..self.random.between(1, 6) {
            let kind = match self.random.below(4) {
                0 => self.special(),
                1 => Kind::Symlink(self.target()),
                _ => Kind::File(self.small()),
            };
            let id = self.put(InodeId::ROOT, kind);
            for _ in 0..self.random.between(1, 150) {
                let parent = self.random.pick(&self.folders);
                self.name(parent, id);
            }
        }
    }

    fn devices(&mut self) {
        for _ in 0..self.random.between(5, 80) {
            let parent = self.random.pick(&self.folders);
            let kind = self.special();
            self.put(parent, kind);
        }
    }

    fn large(&mut self) {
        for _ in 0..self.random.between(1, 2) {
            let size = self.random.between(1 << 20, 12 << 20);
            let mut segments = Vec::new();
            let mut at = 0;
            while at < size {
                let length = (size - at).min(SHARED_BYTES - 1);
                segments.push(Segment {
                    offset: at,
                    length,
                    blob: self.shared,
                    blob_offset: at % 2,
                });
                at += length;
            }
            let segments = segments.into();
            self.file(InodeId::ROOT, Content { size, segments });
        }
        // Addresses at the far end of what a file can have.
        let block = self.limits.block_bytes;
        let most = ((1 << 32) - 1) * block;
        let end = self
            .random
            .pick(&[most, 1 << 31, 1 << 32, 1 << 40, (1 << 42) - block]);
        let length = self.random.between(1, 3 * block);
        let segment = Segment {
            offset: end - length,
            length,
            blob: self.shared,
            blob_offset: 9,
        };
        let segments = Box::new([segment]);
        self.file(
            InodeId::ROOT,
            Content {
                size: end,
                segments,
            },
        );
    }

    /// A file of up to some hundred kilobytes without holes, mostly much less.
    fn small(&mut self) -> Content {
        let block = self.limits.block_bytes;
        let limit = 2 << self.random.below(19);
        let size = match self.random.below(8) {
            0 => 0,
            1 => block - 1 + self.random.below(3),
            2 => 12 * block - 1 + self.random.below(3),
            _ => self.random.below(limit),
        };
        if self.random.chance(20) {
            let size = size.min(60 << 10);
            return Content::contiguous(self.file_blob, self.random.below(4 << 10), size);
        }
        if self.random.chance(10) {
            return self
                .tree
                .add_bytes(vec![0; usize::try_from(size).unwrap()])
                .unwrap();
        }
        let offset = self.random.below(SHARED_BYTES - size + 1);
        Content::contiguous(self.shared, offset, size)
    }

    /// A file with up to `most` runs: holes at the start, between and at the end.
    fn sparse(&mut self, most: u64) -> Content {
        let mut segments = Vec::new();
        let mut offset = self.random.pick(&[0, 0, 1, 4096, 70_000]);
        for _ in 0..self.random.below(most + 1) {
            let length = match self.random.below(3) {
                0 => self.random.between(1, 10),
                1 => self.limits.block_bytes,
                _ => self.random.between(1, 30_000),
            };
            let from_file = self.random.chance(30);
            let (blob, end) = if from_file {
                (self.file_blob, 64 << 10)
            } else {
                (self.shared, SHARED_BYTES)
            };
            segments.push(Segment {
                offset,
                length,
                blob,
                blob_offset: self.random.below(end - length + 1),
            });
            let hole = 1 << self.random.below(17);
            offset += length + self.random.pick(&[0, 1, hole, self.limits.block_bytes]);
        }
        let size = offset + self.random.pick(&[0, 1, 5000, 1 << 20]);
        let segments: Box<[Segment]> = segments.into();
        let end = segments.last().map_or(0, |last| last.offset + last.length);
        let size = if self.random.chance(40) { end } else { size };
        Content { size, segments }
    }

    fn target(&mut self) -> Name {
        let longest = usize::try_from(self.limits.block_bytes).unwrap() - 1;
        let length = match self.random.below(6) {
            0 => self.random.index(3) + 58,
            1 => longest - self.random.index(3),
            2 => self.random.index(longest) + 1,
            _ => self.random.index(100) + 1,
        };
        let mut target = self.random.bytes(length);
        if self.random.chance(70) {
            target = target.iter().map(|byte| b'a' + byte % 26).collect();
        }
        for byte in &mut target {
            *byte = (*byte).max(1);
        }
        target.into()
    }

    fn special(&mut self) -> Kind {
        let majors = [0, 1, 7, 8, 255, 256, 259, 511, 4095];
        let minors = [0, 1, 3, 255, 256, 65_535, 65_536, 1_048_575];
        let (major, minor) = if self.random.chance(50) {
            (self.random.pick(&majors), self.random.pick(&minors))
        } else {
            let (major, minor) = (self.random.below(4096), self.random.below(1 << 20));
            (u32::try_from(major).unwrap(), u32::try_from(minor).unwrap())
        };
        match self.random.below(4) {
            0 => Kind::CharDevice { major, minor },
            1 => Kind::BlockDevice { major, minor },
            2 if !self.limits.archivable => Kind::Socket,
            _ => Kind::Fifo,
        }
    }

    /// Attributes that fit one block; `full` ones come near to filling it.
    fn xattrs(&mut self, full: bool) -> Xattrs {
        let room = usize::try_from(self.limits.block_bytes).unwrap() - XATTR_BLOCK_HEAD;
        let room = if full { room } else { 90 };
        let mut used = 0;
        let mut xattrs = Xattrs::new();
        let most = self.random.pick(&[1, 2, 4, 10, 120]);
        for _ in 0..most {
            let (name, mut value) = self.xattr(room);
            let prefix = name.iter().position(|byte| *byte == b'.').unwrap() + 1;
            let mut size = 16 + (name.len() - prefix).next_multiple_of(4);
            let is_free = name.starts_with(b"user.") || name.starts_with(b"trusted.");
            if self.limits.large_values && is_free && self.random.chance(25) {
                let length = self.random.pick(&[room, 5000, VALUE_MAX - 1, VALUE_MAX]);
                value = self.random.bytes(length).into();
            } else {
                // A list on disk is never longer than the attribute's value.
                size += value.len().next_multiple_of(4);
            }
            if used + size <= room && !xattrs.contains_key(&name) {
                used += size;
                xattrs.insert(name, value);
            }
        }
        xattrs
    }

    fn xattr(&mut self, room: usize) -> (Name, Box<[u8]>) {
        let special: [&[u8]; 4] = [
            b"security.capability",
            b"system.posix_acl_access",
            b"system.posix_acl_default",
            b"trusted.overlay.opaque",
        ];
        if self.random.chance(25) {
            let name = self.random.pick(&special);
            let value = match name {
                b"security.capability" => capability(self.random),
                b"trusted.overlay.opaque" => b"y".to_vec(),
                _ => access_list(self.random, self.limits.archivable),
            };
            return (name.into(), value.into());
        }
        let prefix: &[u8] = self
            .random
            .pick(&[&b"user."[..], b"user.", b"trusted.", b"security."]);
        let most = XATTR_NAME_MAX - prefix.len();
        let length = match self.random.below(8) {
            0 => most,
            1 => 1 + self.random.index(most),
            _ => 1 + self.random.index(12),
        };
        let letters = self.random.bytes(length);
        let odd = self.random.chance(20);
        let rest = letters.into_iter().map(|byte| match odd {
            true => byte.max(1),
            false => b'a' + byte % 26,
        });
        let mut name = prefix.to_vec();
        name.extend(rest);
        let length = match self.random.below(8) {
            0 => 0,
            1 => self.random.index(room.max(1)),
            _ => self.random.index(64),
        };
        (name.into(), self.random.bytes(length).into())
    }
}

/// A name of 1 to 255 bytes, often with bytes that are no text.
fn name(random: &mut Random) -> Name {
    let length = match random.below(10) {
        0 => 255,
        1..3 => 1 + random.index(255),
        3 => 1 + random.index(2),
        _ => 1 + random.index(24),
    };
    let odd = random.chance(20);
    let mut name = random.bytes(length);
    for byte in &mut name {
        *byte = match (*byte, odd) {
            (0 | b'/', true) => b'\n',
            (byte, true) => byte,
            (byte, false) => b"abcdefghijklmnopqrstuvwxyz0123456789 .-_~+"[usize::from(byte) % 42],
        };
    }
    if name == b"." || name == b".." {
        name.push(b'.');
    }
    name.into()
}

fn nanoseconds(random: &mut Random) -> u32 {
    let any = u32::try_from(random.below(1_000_000_000)).unwrap();
    random.pick(&[0, 1, 999_999_999, 123_456_789, any, any])
}

fn time(random: &mut Random, odd: bool) -> Timestamp {
    let [first, last] = SECONDS;
    let seconds = match random.below(4) {
        0 if odd => random.pick(&[
            first,
            -1,
            (1 << 31) - 1,
            1 << 31,
            (1 << 32) - 1,
            1 << 32,
            (1 << 33) - 1,
            1 << 33,
            last,
        ]),
        1 if odd => {
            let span = u64::try_from(last - first).unwrap();
            first + i64::try_from(random.below(span + 1)).unwrap()
        }
        // Bit 31 is clear, whatever the two bits above.
        0 => {
            let epoch = i64::try_from(random.below(4)).unwrap();
            let rest = i64::try_from(random.below(1 << 31)).unwrap();
            (epoch << 32) + rest
        }
        1 => random.pick(&[0, 1, (1 << 31) - 1, 1 << 32]),
        _ => i64::try_from(random.below(1 << 31)).unwrap(),
    };
    Timestamp {
        seconds,
        nanoseconds: nanoseconds(random),
    }
}

fn metadata(random: &mut Random, limits: Limits) -> Metadata {
    let odd = limits.odd_times && random.chance(10);
    let mut time = |odd| {
        let mut time = time(random, odd);
        if FUTURE.contains(&time.seconds) && !limits.future_times {
            time.seconds -= 1 << 32;
        }
        time
    };
    let times = Times {
        modified: time(odd),
        accessed: time(odd),
        changed: time(odd),
        created: time(odd),
    };
    let ids = [
        0,
        0,
        0,
        1,
        1000,
        65_534,
        65_535,
        65_536,
        1 << 31,
        u32::MAX - 1,
    ];
    let mode = random.pick(&[0, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o1777, 0o7777]);
    let any = u16::try_from(random.below(0o10000)).unwrap();
    Metadata {
        mode: if random.chance(40) { any } else { mode },
        uid: random.pick(&ids),
        gid: random.pick(&ids),
        times,
        xattrs: Xattrs::new(),
    }
}

/// `security.capability` of version 2, or of version 3 with a root user of its own.
fn capability(random: &mut Random) -> Vec<u8> {
    let version = 2 + u32::try_from(random.below(2)).unwrap();
    let effective = u32::try_from(random.below(2)).unwrap();
    let mut value = ((version << 24) | effective).to_le_bytes().to_vec();
    for word in 0..4 {
        let bits = u32::try_from(random.below(1 << 32)).unwrap();
        // There are 41 capabilities.
        let bits = if word < 2 { bits } else { bits & 0x1FF };
        value.extend_from_slice(&bits.to_le_bytes());
    }
    if version == 3 {
        value.extend_from_slice(&100_000_u32.to_le_bytes());
    }
    value
}

/// An access control list as `getxattr` gives it, of three to many entries.
fn access_list(random: &mut Random, named: bool) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    let mut entry = |tag: u16, permissions: u64, id: u32| {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&u16::try_from(permissions).unwrap().to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    };
    let users = random.pick(&[0, 0, 1, 2, 20]).max(u32::from(named));
    let groups = random.pick(&[0, 0, 1, 5]);
    entry(0x01, random.below(8), u32::MAX);
    for at in 0..users {
        entry(0x02, random.below(8), 1000 + at * 70_000);
    }
    entry(0x04, random.below(8), u32::MAX);
    for at in 0..groups {
        entry(0x08, random.below(8), 100 + at * 70_000);
    }
    if users + groups > 0 {
        entry(0x10, random.below(8), u32::MAX);
    }
    entry(0x20, random.below(8), u32::MAX);
    value
}

/// A file whose middle is a hole.
fn file_with_holes(bytes: &[u8]) -> File {
    let file = tempfile::tempfile_in(super::image::folder()).unwrap();
    let third = bytes.len() / 3;
    file.write_all_at(&bytes[..third], 0).unwrap();
    file.write_all_at(&bytes[2 * third..], 2 * third as u64)
        .unwrap();
    file
}
