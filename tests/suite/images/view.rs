//! Images as the ext4-view crate reads them, and exactly what it cannot read.

use std::collections::BTreeSet;
use std::fs::File;

use coop_image::ext4::Options;
use coop_image::tree::Timestamp;
use ext4_view::{Ext4, Ext4Error, FileType, Metadata, Path, PathBuf};
use mkext4::dirhash::{Signedness, half_md4};

use super::facts::{Bytes, Facts, Snapshot, Type, compare, escape, join};

/// It walks holes block by block: larger files are not read.
const CONTENT_MAX: u64 = 24 << 20;
/// It finds files by path only, and no longer ones than these.
const PATH_MAX: usize = 4096;

/// It takes the targets of links for paths, whose components have no more than these.
const NAME_MAX: usize = 255;

/// How often the reader met its limits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Inodes with a time whose low 32 bits have the sign bit set; and what is below them.
    pub times: u64,
    /// Files, links and folders with too long paths: no content, no target, no names.
    pub paths: u64,
    /// Files beyond [`CONTENT_MAX`].
    pub contents: u64,
    /// Names that it does not find by path: another one of the folder has the same hash.
    pub twins: u64,
    /// Links whose target has a component that is longer than a name.
    pub targets: u64,
}

impl Limits {
    pub fn add(&mut self, other: &Self) {
        self.times += other.times;
        self.paths += other.paths;
        self.contents += other.contents;
        self.targets += other.targets;
        self.twins += other.twins;
    }
}

/// It has to refuse an image with `ea_inode`.
pub fn refuses_values(image: File) -> Result<(), String> {
    match Ext4::load(Box::new(image)) {
        Err(Ext4Error::Incompatible(_)) => Ok(()),
        Err(error) => Err(format!("ext4-view: {error}")),
        Ok(_) => Err("ext4-view: reads ea_inode, which it should not".into()),
    }
}

/// Reads an image and compares: kind, mode, owner, the four times, size, content, target, names.
/// It gives no device numbers, attributes, link counts or inode numbers.
pub fn check(image: File, options: &Options, expected: &Snapshot) -> Result<Limits, String> {
    let mut limits = Limits::default();
    if is_odd(&expected[&b"/"[..]]) {
        // The root cannot be read, so nothing can.
        limits.times = expected.len() as u64;
        let fs = match Ext4::load(Box::new(image)) {
            Ok(fs) => fs,
            Err(error) => return refuses_time(b"/", &error).map(|()| limits),
        };
        return match fs.metadata(&b"/"[..]) {
            Ok(_) => Err("ext4-view: /: reads a time that it should not".into()),
            Err(error) => refuses_time(b"/", &error).map(|()| limits),
        };
    }
    let fs = Ext4::load(Box::new(image)).map_err(|error| format!("ext4-view: {error}"))?;
    let mut walk = Walk {
        fs,
        hash_seed: options.hash_seed,
        expected,
        unfound: BTreeSet::new(),
        wanted: Snapshot::new(),
        found: Snapshot::new(),
        limits,
    };
    walk.run()?;
    compare("ext4-view", &walk.wanted, &walk.found)?;
    Ok(walk.limits)
}

struct Walk<'e> {
    fs: Ext4,
    hash_seed: [u8; 16],
    expected: &'e Snapshot,
    /// Folders that are not found by path.
    unfound: BTreeSet<Vec<u8>>,
    /// What is expected of what can be read.
    wanted: Snapshot,
    found: Snapshot,
    limits: Limits,
}

/// Whether an inode has a time that ext4-view takes for damage.
fn is_odd(facts: &Facts) -> bool {
    facts.times().any(|time| time.seconds & (1 << 31) != 0)
}

fn refuses_time(path: &[u8], error: &Ext4Error) -> Result<(), String> {
    let text = error.to_string();
    if matches!(error, Ext4Error::Corrupt(_)) && text.contains("timestamp") {
        return Ok(());
    }
    Err(format!("ext4-view: {}: {text}", escape(path)))
}

fn has_long_component(facts: &Facts) -> bool {
    let target = facts.target.iter().flatten().copied();
    let target: Vec<u8> = target.collect();
    target
        .split(|byte| *byte == b'/')
        .any(|part| part.len() > NAME_MAX)
}

fn refuses_target(path: &[u8], link: Result<PathBuf, Ext4Error>) -> Result<(), String> {
    match link {
        Err(error) if error.to_string().contains("invalid symlink path") => Ok(()),
        Err(error) => Err(format!("ext4-view: {}: {error}", escape(path))),
        Ok(_) => Err(format!(
            "ext4-view: {}: reads a target that it should not",
            escape(path)
        )),
    }
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), String> {
        let metadata = self.fs.metadata(&b"/"[..]);
        let metadata = metadata.map_err(|error| format!("ext4-view: /: {error}"))?;
        self.take(b"/", &metadata)?;
        let mut pending = vec![b"/".to_vec()];
        while let Some(folder) = pending.pop() {
            self.folder(&folder, &mut pending)?;
        }
        // What is below an inode that cannot be read.
        for (path, facts) in self.expected {
            if !self.wanted.contains_key(path) && !self.is_hidden(path) {
                self.wanted.insert(path.clone(), masked(facts));
            }
        }
        Ok(())
    }

    /// Whether the inode, or a folder above it, has an odd time; or a folder a too long path.
    fn is_hidden(&self, path: &[u8]) -> bool {
        let ends = (1..path.len()).filter(|at| path[*at] == b'/');
        ends.chain([path.len()]).any(|end| {
            let is_parent = end < path.len();
            is_odd(&self.expected[&path[..end]])
                || is_parent && (end > PATH_MAX || self.unfound.contains(&path[..end]))
        })
    }

    /// Whether a name on a path has the hash of another one in its folder: such names can lie in
    /// the leaf after the one that the index names, where ext4-view does not look.
    fn has_twin(&self, path: &[u8]) -> bool {
        let seed = [0, 4, 8, 12].map(|at| {
            let word = self.hash_seed[at..].first_chunk();
            u32::from_le_bytes(*word.unwrap())
        });
        let ends = (1..path.len()).filter(|at| path[*at] == b'/');
        ends.chain([path.len()]).any(|end| {
            let start = path[..end].iter().rposition(|byte| *byte == b'/').unwrap() + 1;
            let (folder, name) = (&path[..start], &path[start..end]);
            let hash = |name: &[u8]| half_md4(&seed, Signedness::Signed, name).0;
            let siblings = self.expected.range(folder.to_vec()..);
            siblings
                .take_while(|(other, _)| other.starts_with(folder))
                .map(|(other, _)| &other[start..])
                .filter(|other| !other.contains(&b'/') && *other != name)
                .any(|other| hash(other) == hash(name))
        })
    }

    fn folder(&mut self, folder: &[u8], pending: &mut Vec<Vec<u8>>) -> Result<(), String> {
        let wrong = |error: Ext4Error| format!("ext4-view: {}: {error}", escape(folder));
        let entries = match self.fs.read_dir(folder) {
            Err(Ext4Error::PathTooLong) if folder.len() > PATH_MAX => {
                self.limits.paths += 1;
                return Ok(());
            }
            Err(Ext4Error::NotFound) if self.has_twin(folder) => {
                self.limits.twins += 1;
                self.unfound.insert(folder.to_vec());
                return Ok(());
            }
            entries => entries.map_err(wrong)?,
        };
        for entry in entries {
            let entry = entry.map_err(wrong)?;
            let name = entry.file_name();
            let name = name.as_ref();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let path = join(folder, name);
            let is_odd = self.expected.get(&path).is_some_and(is_odd);
            match entry.metadata() {
                Err(error) if is_odd => {
                    refuses_time(&path, &error)?;
                    self.limits.times += 1;
                }
                Err(error) => return Err(format!("ext4-view: {}: {error}", escape(&path))),
                Ok(_) if is_odd => {
                    return Err(format!(
                        "ext4-view: {}: reads a time that it should not",
                        escape(&path)
                    ));
                }
                Ok(metadata) => {
                    if metadata.is_dir() {
                        pending.push(path.clone());
                    }
                    self.take(&path, &metadata)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &[u8], metadata: &Metadata) -> Result<(), String> {
        let wrong = |error: Ext4Error| format!("ext4-view: {}: {error}", escape(path));
        let mut facts = Facts::new(type_of(metadata.file_type()));
        let mut wanted = self.expected.get(path).map(masked);
        facts.mode = Some(u32::from(metadata.mode()));
        facts.owner = Some((metadata.uid(), metadata.gid()));
        facts.modified = Some(stamp(metadata.modified()));
        facts.accessed = Some(stamp(metadata.accessed()));
        facts.created = metadata.created().map(stamp);
        facts.changed = changed(metadata);
        let too_long = path.len() > PATH_MAX;
        match facts.kind {
            Type::File => {
                facts.size = Some(metadata.len());
                if too_long || metadata.len() > CONTENT_MAX {
                    self.limits.paths += u64::from(too_long);
                    self.limits.contents += u64::from(!too_long);
                    wanted = wanted.map(|facts| Facts {
                        content: None,
                        ..facts
                    });
                } else {
                    match self.content(path) {
                        Err(Ext4Error::NotFound) if self.has_twin(path) => {
                            self.limits.twins += 1;
                            wanted = wanted.map(|facts| Facts {
                                content: None,
                                ..facts
                            });
                        }
                        content => facts.content = Some(content.map_err(wrong)?),
                    }
                }
            }
            Type::Symlink => {
                facts.size = Some(metadata.len());
                if too_long {
                    self.limits.paths += 1;
                    wanted = wanted.map(|facts| Facts {
                        target: None,
                        ..facts
                    });
                } else if wanted.as_ref().is_some_and(has_long_component) {
                    refuses_target(path, self.fs.read_link(path))?;
                    self.limits.targets += 1;
                    wanted = wanted.map(|facts| Facts {
                        target: None,
                        ..facts
                    });
                } else {
                    match self.fs.read_link(path) {
                        Err(Ext4Error::NotFound) if self.has_twin(path) => {
                            self.limits.twins += 1;
                            wanted = wanted.map(|facts| Facts {
                                target: None,
                                ..facts
                            });
                        }
                        target => {
                            let target = target.map_err(wrong)?;
                            facts.target = Some(target.as_ref().to_vec());
                        }
                    }
                }
            }
            _ => {}
        }
        if let Some(wanted) = wanted {
            self.wanted.insert(path.to_vec(), wanted);
        }
        self.found.insert(path.to_vec(), facts);
        Ok(())
    }

    fn content(&self, path: &[u8]) -> Result<[u8; 32], Ext4Error> {
        let path = Path::try_from(path).map_err(|_| Ext4Error::MalformedPath)?;
        let mut file = self.fs.open(path)?;
        let mut bytes = Bytes::default();
        let mut buffer = vec![0; 4096];
        loop {
            let at = file.position();
            match file.read_bytes(&mut buffer)? {
                0 => return Ok(bytes.finish()),
                count => bytes.add(at, &buffer[..count]),
            }
        }
    }
}

/// Without what ext4-view does not say.
fn masked(facts: &Facts) -> Facts {
    Facts {
        device: None,
        links: None,
        first: None,
        xattrs: None,
        ..facts.clone()
    }
}

/// The time of change, which has no accessor: only the debug form shows it.
fn changed(metadata: &Metadata) -> Option<Timestamp> {
    let text = format!("{metadata:?}");
    let rest = text.split("ctime: Timestamp { seconds: ").nth(1)?;
    let (seconds, rest) = rest.split_once(", nanoseconds: ")?;
    let (nanoseconds, _) = rest.split_once(' ')?;
    Some(Timestamp {
        seconds: seconds.parse().ok()?,
        nanoseconds: nanoseconds.parse().ok()?,
    })
}

fn stamp(time: ext4_view::Timestamp) -> Timestamp {
    Timestamp {
        seconds: time.seconds(),
        nanoseconds: time.nanoseconds(),
    }
}

fn type_of(kind: FileType) -> Type {
    match kind {
        kind if kind.is_dir() => Type::Directory,
        kind if kind.is_symlink() => Type::Symlink,
        kind if kind.is_char_dev() => Type::CharDevice,
        kind if kind.is_block_dev() => Type::BlockDevice,
        kind if kind.is_fifo() => Type::Fifo,
        kind if kind.is_socket() => Type::Socket,
        _ => Type::File,
    }
}
