//! Images as the mkext4 crate reads them. It knows blocks of 4096 bytes only; of those it reads
//! every field, and checks checksums (but of descriptors) and the order of every index.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use coop_image::ext4::{BlockSize, Options, Summary};
use coop_image::tree::{Times, Timestamp};
use mkext4::Error;
use mkext4::reader::Fs;
use mkext4::spec::inode::FileType;
use mkext4::spec::{Inode, Superblock, XattrEntry};

use super::facts::{Bytes, Facts, Snapshot, Type, compare, escape, join};

const ROOT: u32 = 2;
const SUPERBLOCK_AT: u64 = 1024;
const HAS_JOURNAL: u32 = 0x4;
const ORPHAN_FILE: u32 = 0x1000;
const EA_INODE: u32 = 0x400;

/// Reads an image and compares everything; `false` where the size of blocks forbids it, which the
/// reader then has to say.
pub fn check(image: File, options: &Options, expected: &Snapshot) -> Result<bool, String> {
    let fs = match Fs::open(image) {
        Err(Error::Unsupported(what)) if options.block_size != BlockSize::Kib4 => {
            let bytes = options.block_size.bytes();
            return match what == format!("block size {bytes}") {
                true => Ok(false),
                false => Err(format!("mkext4 does not support {what}")),
            };
        }
        fs => fs.map_err(|error| format!("mkext4: {error}"))?,
    };
    let issues = fs.verify().map_err(|error| format!("mkext4: {error}"))?;
    let unknown: Vec<&str> = issues
        .iter()
        .map(|issue| issue.what.as_str())
        .filter(|issue| !is_known(issue))
        .collect();
    if !unknown.is_empty() {
        return Err(format!("mkext4: {unknown:#?}"));
    }
    let mut walk = Walk {
        fs,
        found: Snapshot::new(),
        paths: BTreeMap::new(),
        contents: BTreeMap::new(),
    };
    walk.run().map_err(|error| format!("mkext4: {error}"))?;
    for paths in walk.paths.values() {
        let first = paths.iter().min().unwrap();
        for path in paths {
            walk.found.get_mut(path).unwrap().first = Some(first.clone());
        }
    }
    compare("mkext4", expected, &walk.found)?;
    Ok(true)
}

/// Whether a complaint is the reader's own mistake: it sums up 32 of the 64 bytes of a descriptor,
/// and wants sums of reserved inodes that were never written, which kernel and e2fsck do not.
fn is_known(issue: &str) -> bool {
    let is_descriptor = issue.starts_with("group ") && issue.contains(": desc checksum ");
    let number = issue
        .strip_prefix("inode ")
        .and_then(|rest| rest.split(':').next())
        .and_then(|number| number.parse().ok());
    let is_unwritten = issue.ends_with(" != stored 0x0");
    is_descriptor || is_unwritten && matches!(number, Some(1 | 3..=10))
}

/// It has to refuse an image with `ea_inode`.
pub fn refuses_values(image: File) -> Result<(), String> {
    match Fs::open(image) {
        Err(Error::Unsupported(what)) if what == format!("incompat features {EA_INODE:#x}") => {
            Ok(())
        }
        Err(error) => Err(format!("mkext4: {error}")),
        Ok(_) => Err("mkext4: reads ea_inode, which it should not".into()),
    }
}

struct Walk {
    fs: Fs<File>,
    found: Snapshot,
    paths: BTreeMap<u32, Vec<Vec<u8>>>,
    contents: BTreeMap<u32, [u8; 32]>,
}

impl Walk {
    fn run(&mut self) -> mkext4::Result<()> {
        let mut pending = vec![(ROOT, b"/".to_vec())];
        self.take(ROOT, b"/")?;
        while let Some((number, path)) = pending.pop() {
            for entry in self.fs.read_dir(number)? {
                if matches!(&*entry.name, b"." | b"..") {
                    continue;
                }
                let child = join(&path, &entry.name);
                if self.take(entry.inode, &child)? == Type::Directory {
                    pending.push((entry.inode, child));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, number: u32, path: &[u8]) -> mkext4::Result<Type> {
        let inode = self.fs.inode(number)?;
        let kind = match inode.file_type() {
            FileType::Dir => Type::Directory,
            FileType::Regular => Type::File,
            FileType::Symlink => Type::Symlink,
            FileType::CharDev => Type::CharDevice,
            FileType::BlockDev => Type::BlockDevice,
            FileType::Fifo => Type::Fifo,
            FileType::Socket => Type::Socket,
            FileType::Unknown => return Err(Error::Unsupported(escape(path))),
        };
        let mut facts = Facts::new(kind);
        facts.mode = Some(u32::from(inode.mode) & 0o7777);
        facts.owner = Some((inode.uid, inode.gid));
        facts.set_times(Times {
            modified: stamp(inode.mtime, inode.mtime_extra),
            accessed: stamp(inode.atime, inode.atime_extra),
            changed: stamp(inode.ctime, inode.ctime_extra),
            created: stamp(inode.crtime, inode.crtime_extra),
        });
        facts.links = Some(u64::from(inode.links_count));
        facts.device = inode.dev_numbers();
        if kind == Type::Symlink {
            facts.size = Some(inode.size);
            facts.target = Some(self.fs.symlink_target(number)?);
        }
        if kind == Type::File {
            facts.size = Some(inode.size);
            if !self.contents.contains_key(&number) {
                let sum = self.content(number, &inode)?;
                self.contents.insert(number, sum);
            }
            facts.content = self.contents.get(&number).copied();
        }
        let xattrs = self.fs.xattrs(number)?.into_iter().map(value_of);
        facts.xattrs = Some(xattrs.collect());
        self.found.insert(path.to_vec(), facts);
        self.paths.entry(number).or_default().push(path.to_vec());
        Ok(kind)
    }

    fn content(&self, number: u32, inode: &Inode) -> mkext4::Result<[u8; 32]> {
        let block_size = self.fs.superblock().block_size();
        let mut bytes = Bytes::default();
        for extent in self.fs.extents(number, inode)? {
            for at in 0..u64::from(extent.len) {
                let offset = (u64::from(extent.logical) + at) * block_size;
                let length = inode.size.saturating_sub(offset).min(block_size);
                let block = self.fs.read_block(extent.physical + at)?;
                bytes.add(offset, &block[..usize::try_from(length).unwrap()]);
            }
        }
        Ok(bytes.finish())
    }
}

fn stamp(low: u32, extra: u32) -> Timestamp {
    let (seconds, nanoseconds) = Inode::timestamp(low, extra);
    Timestamp {
        seconds,
        nanoseconds,
    }
}

/// Full name and value; access control lists as the kernel gives them, of which mkext4 gives what
/// is on disk.
fn value_of(entry: XattrEntry) -> (Vec<u8>, Vec<u8>) {
    let name = entry.full_name().unwrap_or_default();
    if !name.starts_with(b"system.posix_acl_") {
        return (name, entry.value);
    }
    let mut value = vec![2, 0, 0, 0];
    let mut disk = entry.value.get(4..).unwrap_or_default();
    while disk.len() >= 4 {
        let named = matches!(disk[0], 0x02 | 0x08);
        value.extend_from_slice(&disk[..4]);
        let length = if named { 8.min(disk.len()) } else { 4 };
        match named {
            true => value.extend_from_slice(&disk[4..length]),
            false => value.extend_from_slice(&[0xFF; 4]),
        }
        disk = &disk[length..];
    }
    value.extend_from_slice(disk);
    (name, value)
}

/// Compares the superblock, which mkext4 decodes whatever the size of blocks, with options and
/// counts. Whether there are attributes with inodes of their own.
pub fn check_superblock(
    image: &File,
    options: &Options,
    summary: &Summary,
) -> Result<bool, String> {
    let mut bytes = [0; Superblock::LEN];
    let read = image.read_exact_at(&mut bytes, SUPERBLOCK_AT);
    read.map_err(|error| format!("superblock: {error}"))?;
    let found = Superblock::decode(&bytes).map_err(|error| format!("mkext4: {error}"))?;
    let mut label = [0; 16];
    label[..options.label.len()].copy_from_slice(options.label.as_bytes());
    let seed: Vec<u8> = found
        .hash_seed
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .collect();
    let reserved = summary.blocks * u64::from(options.reserved_percent) / 100;
    let reserved = reserved.min(summary.blocks_free);
    let has_orphan_file = found.feature_compat & ORPHAN_FILE != 0;
    let has_journal = found.feature_compat & HAS_JOURNAL != 0;
    for (field, holds) in [
        ("uuid", found.uuid == options.uuid),
        ("hash seed", seed == options.hash_seed),
        ("label", found.volume_name == label),
        (
            "block size",
            found.block_size() == u64::from(options.block_size.bytes()),
        ),
        ("blocks", found.blocks_count == summary.blocks),
        (
            "free blocks",
            found.free_blocks_count == summary.blocks_free,
        ),
        ("inodes", found.inodes_count == summary.inodes),
        (
            "free inodes",
            found.free_inodes_count == summary.inodes_free,
        ),
        ("reserved blocks", found.r_blocks_count == reserved),
        ("journal", has_journal == (summary.blocks_journal > 0)),
        (
            "orphan file",
            has_orphan_file == (has_journal && options.orphan_file),
        ),
        ("state", found.state == 1),
        (
            "checksum",
            found.checksum == mkext4::csum::superblock(&bytes),
        ),
    ] {
        if !holds {
            return Err(format!(
                "superblock: {field} is not as it should be: {found:?}"
            ));
        }
    }
    Ok(found.feature_incompat & EA_INODE != 0)
}
