//! What a reader says of an image, in a form in which readers can be compared.

use std::collections::{BTreeMap, BTreeSet};

use coop_image::ext4::Options;
use coop_image::tree::{Content, InodeId, Kind, Times, Timestamp, Tree};
use sha2::{Digest, Sha256};

/// A folder has more subfolders than a link count can say from here on (`dir_nlink`).
const LINKS_MAX: u64 = 65_000;
/// How many differences a message shows.
const SHOWN_MAX: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Directory,
    File,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

/// What one reader says of one path; `None` where it cannot say.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub kind: Type,
    pub mode: Option<u32>,
    pub owner: Option<(u32, u32)>,
    pub modified: Option<Timestamp>,
    pub accessed: Option<Timestamp>,
    pub changed: Option<Timestamp>,
    pub created: Option<Timestamp>,
    /// Of files and links.
    pub size: Option<u64>,
    /// Of files: see [`Bytes`].
    pub content: Option<[u8; 32]>,
    pub target: Option<Vec<u8>>,
    pub device: Option<(u32, u32)>,
    pub links: Option<u64>,
    /// The first path of the same inode.
    pub first: Option<Vec<u8>>,
    pub xattrs: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Facts {
    pub fn new(kind: Type) -> Self {
        Self {
            kind,
            mode: None,
            owner: None,
            modified: None,
            accessed: None,
            changed: None,
            created: None,
            size: None,
            content: None,
            target: None,
            device: None,
            links: None,
            first: None,
            xattrs: None,
        }
    }

    pub fn set_times(&mut self, times: Times) {
        self.modified = Some(times.modified);
        self.accessed = Some(times.accessed);
        self.changed = Some(times.changed);
        self.created = Some(times.created);
    }

    pub fn times(&self) -> impl Iterator<Item = Timestamp> {
        [self.modified, self.accessed, self.changed, self.created]
            .into_iter()
            .flatten()
    }

    /// Name, and both values, of every field that differs.
    fn differences(&self, other: &Self) -> Vec<(String, String, String)> {
        let text = |bytes: &Option<Vec<u8>>| escape(bytes.as_deref().unwrap_or_default());
        let fields = |facts: &Self| {
            [
                ("kind", format!("{:?}", facts.kind)),
                ("mode", format!("{:#06o}", facts.mode.unwrap_or_default())),
                ("owner", format!("{:?}", facts.owner)),
                ("modified", format!("{:?}", facts.modified)),
                ("accessed", format!("{:?}", facts.accessed)),
                ("changed", format!("{:?}", facts.changed)),
                ("created", format!("{:?}", facts.created)),
                ("size", format!("{:?}", facts.size)),
                ("content", format!("{:?}", facts.content)),
                ("target", text(&facts.target)),
                ("device", format!("{:?}", facts.device)),
                ("links", format!("{:?}", facts.links)),
                ("first path", text(&facts.first)),
            ]
        };
        let pairs = fields(self).into_iter().zip(fields(other));
        let mut differences: Vec<(String, String, String)> = pairs
            .filter(|((_, mine), (_, its))| mine != its)
            .map(|((name, mine), (_, its))| (name.into(), mine, its))
            .collect();
        let empty = BTreeMap::new();
        let mine = self.xattrs.as_ref().unwrap_or(&empty);
        let its = other.xattrs.as_ref().unwrap_or(&empty);
        let names: BTreeSet<&Vec<u8>> = mine.keys().chain(its.keys()).collect();
        let show = |value: Option<&Vec<u8>>| value.map_or("nothing".into(), |v| escape(v));
        differences.extend(
            names
                .into_iter()
                .filter(|name| mine.get(*name) != its.get(*name))
                .map(|name| (escape(name), show(mine.get(name)), show(its.get(name)))),
        );
        differences
    }
}

/// Bytes as readable text, without loss.
pub fn escape(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    match text.len() {
        0..=300 => text,
        length => format!("{}... ({length})", &text[..200]),
    }
}

/// By path, which begins with a slash; the root is a slash alone.
pub type Snapshot = BTreeMap<Vec<u8>, Facts>;

/// The path of a name in a folder.
pub fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let folder = if folder == b"/" { b"" } else { folder };
    [folder, b"/", name].concat()
}

pub const LOST_FOUND: &[u8] = b"/lost+found";

/// What an image of `tree` has to say, with the folder that every image gets.
pub fn expected(tree: &Tree, options: &Options) -> Snapshot {
    let mut snapshot = of_tree(tree);
    if !snapshot.contains_key(LOST_FOUND) {
        let mut facts = Facts::new(Type::Directory);
        facts.mode = Some(0o700);
        facts.owner = Some((0, 0));
        facts.set_times(Times::all(options.time));
        facts.links = Some(2);
        facts.first = Some(LOST_FOUND.to_vec());
        facts.xattrs = Some(BTreeMap::new());
        snapshot.insert(LOST_FOUND.to_vec(), facts);
        let root = snapshot.get_mut(&b"/"[..]).unwrap();
        root.links = root.links.map(|links| match links {
            1 | LINKS_MAX.. => 1,
            links => links + 1,
        });
    }
    snapshot
}

/// Everything that a tree says.
pub fn of_tree(tree: &Tree) -> Snapshot {
    let counts = tree.name_counts();
    let mut paths: Vec<(Vec<u8>, InodeId)> = tree.paths();
    paths.sort();
    let mut first_paths: BTreeMap<InodeId, Vec<u8>> = BTreeMap::new();
    let mut contents: BTreeMap<InodeId, [u8; 32]> = BTreeMap::new();
    let mut snapshot = Snapshot::new();
    for (path, id) in paths {
        let inode = tree.inode(id);
        let mut links = u64::from(counts[id.index()]);
        let mut facts = match &inode.kind {
            Kind::Directory(entries) => {
                let folders = entries.values().filter(|id| tree.entries(**id).is_some());
                links = 2 + folders.count() as u64;
                if links > LINKS_MAX {
                    links = 1;
                }
                Facts::new(Type::Directory)
            }
            Kind::File(content) => {
                let mut facts = Facts::new(Type::File);
                facts.size = Some(content.size);
                let sum = contents.entry(id).or_insert_with(|| sum(tree, content));
                facts.content = Some(*sum);
                facts
            }
            Kind::Symlink(target) => {
                let mut facts = Facts::new(Type::Symlink);
                facts.size = Some(target.len() as u64);
                facts.target = Some(target.to_vec());
                facts
            }
            Kind::CharDevice { major, minor } => {
                let mut facts = Facts::new(Type::CharDevice);
                facts.device = Some((*major, *minor));
                facts
            }
            Kind::BlockDevice { major, minor } => {
                let mut facts = Facts::new(Type::BlockDevice);
                facts.device = Some((*major, *minor));
                facts
            }
            Kind::Fifo => Facts::new(Type::Fifo),
            Kind::Socket => Facts::new(Type::Socket),
        };
        let metadata = &inode.metadata;
        facts.mode = Some(u32::from(metadata.mode));
        facts.owner = Some((metadata.uid, metadata.gid));
        facts.set_times(metadata.times);
        facts.links = Some(links);
        let first = first_paths.entry(id).or_insert_with(|| path.clone());
        facts.first = Some(first.clone());
        let xattrs = metadata.xattrs.iter();
        let xattrs = xattrs.map(|(name, value)| (name.to_vec(), value.to_vec()));
        facts.xattrs = Some(xattrs.collect());
        snapshot.insert(path, facts);
    }
    snapshot
}

fn sum(tree: &Tree, content: &Content) -> [u8; 32] {
    let mut bytes = Bytes::default();
    let mut buffer = vec![0; 256 << 10];
    for segment in &content.segments {
        let mut done = 0;
        while done < segment.length {
            let count = (segment.length - done).min(buffer.len() as u64);
            let piece = &mut buffer[..usize::try_from(count).unwrap()];
            let blob = &**tree.blob(segment.blob);
            coop_image::tree::read_exact_at(blob, piece, segment.blob_offset + done).unwrap();
            bytes.add(segment.offset + done, piece);
            done += count;
        }
    }
    bytes.finish()
}

const PIECE: usize = 1024;

/// The sum of a file's bytes that is the same however its reader tells holes from zeroes: only
/// pieces that are not all zeroes count, each with its offset.
pub struct Bytes {
    sum: Sha256,
    at: u64,
    piece: Box<[u8; PIECE]>,
}

impl Default for Bytes {
    fn default() -> Self {
        Self {
            sum: Sha256::new(),
            at: 0,
            piece: Box::new([0; PIECE]),
        }
    }
}

impl Bytes {
    /// Adds bytes at an offset that is not before the end of the bytes added before.
    pub fn add(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let piece = offset / PIECE as u64;
            let within = usize::try_from(offset % PIECE as u64).unwrap();
            let count = bytes.len().min(PIECE - within);
            if piece != self.at {
                self.flush();
                self.at = piece;
            }
            if count < PIECE || bytes[..count] != ZEROES[..count] {
                self.piece[within..within + count].copy_from_slice(&bytes[..count]);
            }
            bytes = &bytes[count..];
            offset += count as u64;
        }
    }

    fn flush(&mut self) {
        if *self.piece != ZEROES {
            self.sum.update(self.at.to_le_bytes());
            self.sum.update(*self.piece);
            *self.piece = ZEROES;
        }
    }

    pub fn finish(mut self) -> [u8; 32] {
        self.flush();
        self.sum.finalize().into()
    }
}

const ZEROES: [u8; PIECE] = [0; PIECE];

/// Compares path by path and field by field; the message names what differs.
pub fn compare(reader: &str, expected: &Snapshot, found: &Snapshot) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    let mut lines = Vec::new();
    for (path, facts) in expected {
        match found.get(path) {
            None => lines.push(format!("{}: missing", escape(path))),
            Some(other) => lines.extend(facts.differences(other).into_iter().map(
                |(field, expected, found)| {
                    format!(
                        "{}: {field}\n    expected {expected}\n    found    {found}",
                        escape(path)
                    )
                },
            )),
        }
    }
    let more = found.keys().filter(|path| !expected.contains_key(*path));
    lines.extend(more.map(|path| format!("{}: not expected", escape(path))));
    let count = lines.len();
    lines.truncate(SHOWN_MAX);
    Err(format!(
        "{reader}: {count} differences\n  {}",
        lines.join("\n  ")
    ))
}

#[test]
fn holes_and_zeroes_have_one_sum() {
    let mut text = vec![0; 10_000];
    text[5000..5100].fill(7);
    text[9999] = 1;
    let mut whole = Bytes::default();
    whole.add(0, &text);
    let mut parts = Bytes::default();
    parts.add(4999, &text[4999..5050]);
    parts.add(5050, &text[5050..5090]);
    parts.add(5090, &text[5090..6000]);
    parts.add(9999, &[1]);
    assert_eq!(whole.finish(), parts.finish());
    let mut other = Bytes::default();
    other.add(4998, &text[4999..5050]);
    assert_ne!(other.finish(), Bytes::default().finish());
}
