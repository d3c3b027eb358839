//! What a file system's UUID derives from where nobody gives one.

use std::collections::BTreeMap;

use coop_image::ext4;
use coop_image::tree::{Inode, InodeId, Kind, Tree};

use crate::digest::Digest;
use crate::inputs::Record;

/// The digest of everything that a tree says about its inodes, and of the options that shape the
/// image. Content counts with its size only: it is not read twice for a number. So two trees that
/// differ in nothing but the bytes of files of one size and time have one digest.
pub(super) fn digest(tree: &Tree, options: &ext4::Options) -> Digest {
    let mut record = Record::new("coop image");
    let shape = format!(
        "{:?} {:?} {:?} {:?} {}",
        options.block_size, options.size, options.journal, options.inodes, options.reserved_percent
    );
    record.put("shape", shape.as_bytes());
    record.put("label", options.label.as_bytes());
    let mut seen = BTreeMap::new();
    let mut pending = vec![(&b""[..], InodeId::ROOT)];
    let mut line = Vec::new();
    while let Some((name, id)) = pending.pop() {
        let inode = tree.inode(id);
        line.clear();
        let count = seen.len();
        let first = *seen.entry(id).or_insert(count);
        number(&mut line, u64::try_from(first).unwrap_or(u64::MAX));
        if first == count {
            describe(inode, &mut line);
            if let Kind::Directory(entries) = &inode.kind {
                let children = entries.iter().rev();
                pending.extend(children.map(|(name, id)| (&**name, *id)));
            }
        }
        record.put("name", name);
        record.put("inode", &line);
    }
    record.finish()
}

fn number(line: &mut Vec<u8>, value: u64) {
    line.extend_from_slice(&value.to_le_bytes());
}

/// Everything has a fixed length, or its length in front.
fn describe(inode: &Inode, line: &mut Vec<u8>) {
    let metadata = &inode.metadata;
    for value in [u32::from(metadata.mode), metadata.uid, metadata.gid] {
        line.extend_from_slice(&value.to_le_bytes());
    }
    let times = &metadata.times;
    for time in [times.modified, times.accessed, times.changed, times.created] {
        line.extend_from_slice(&time.seconds.to_le_bytes());
        line.extend_from_slice(&time.nanoseconds.to_le_bytes());
    }
    let device = |major: u32, minor: u32| u64::from(major) << 32 | u64::from(minor);
    let (tag, value) = match &inode.kind {
        Kind::Directory(entries) => (b'd', u64::try_from(entries.len()).unwrap_or(u64::MAX)),
        Kind::File(content) => (b'f', content.size),
        Kind::Symlink(target) => (b'l', u64::try_from(target.len()).unwrap_or(u64::MAX)),
        Kind::CharDevice { major, minor } => (b'c', device(*major, *minor)),
        Kind::BlockDevice { major, minor } => (b'b', device(*major, *minor)),
        Kind::Fifo => (b'p', 0),
        Kind::Socket => (b's', 0),
    };
    line.push(tag);
    number(line, value);
    if let Kind::Symlink(target) = &inode.kind {
        line.extend_from_slice(target);
    }
    for (name, value) in &metadata.xattrs {
        for part in [name, value] {
            number(line, u64::try_from(part.len()).unwrap_or(u64::MAX));
            line.extend_from_slice(part);
        }
    }
}
