//! Images whose content arrives before their tree, as an archive from a pipe: with the tree that
//! the archive says, and with one that was changed before the end.

use std::sync::Arc;

use coop_image::ext4::{Options, Size, Stream, Summary, WriteError};
use coop_image::tar::{self, Entries};
use coop_image::tree::{Content, Inode, InodeId, Kind, Metadata, Segment, Tree};

use super::facts::{compare, of_tree};
use super::random::Random;
use super::{Examiner, archive_of, image, with_threads};

/// How often a given size is made larger: the stream leaves other gaps than the writer.
const ROUNDS_MAX: usize = 40;

/// Streams the archive of a tree into an image and has everybody read it; again by eight threads,
/// with the same bytes. By chance the tree is changed between the archive's end and the image's.
pub fn check(
    examiner: &mut Examiner,
    tree: &Tree,
    options: &Options,
    random: &mut Random,
) -> Result<(), String> {
    let archive = archive_of(tree)?;
    let changes = random.chance(50).then(|| random.clone());
    let mut options = options.clone();
    for _ in 0..ROUNDS_MAX {
        let streamed = stream(examiner, &archive, &options, changes.clone())?;
        let Some((expected, summary)) = streamed else {
            // Too small: what was given suffices for the writer.
            let Size::Bytes(bytes) = options.size else {
                return Err("stream: an automatic size is too small".into());
            };
            options.size = Size::Bytes(bytes + bytes / 4 + (1 << 20));
            continue;
        };
        if changes.is_none() {
            compare("stream", &of_tree(tree), &of_tree(&expected))?;
        }
        let in_context = |error| {
            format!(
                "stream, {:?}, changed {}: {error}",
                options.size,
                changes.is_some()
            )
        };
        examiner
            .look(&expected, &options, &summary, false)
            .map_err(in_context)?;
        examiner.counts.streamed += 1;
        if random.chance(25) {
            let first = image::sum(&examiner.place.opened());
            let again = stream(examiner, &archive, &with_threads(&options), changes.clone())?;
            let same = again.is_some_and(|(_, again)| again == summary);
            if !same || image::sum(&examiner.place.opened()) != first {
                return Err("streamed by eight threads it has other bytes".into());
            }
        }
        return Ok(());
    }
    Err("stream: no size is large enough".into())
}

/// The tree as it was meant, with its content in memory, and the summary; `None` where the size
/// is too small.
fn stream(
    examiner: &Examiner,
    archive: &[u8],
    options: &Options,
    changes: Option<Random>,
) -> Result<Option<(Tree, Summary)>, String> {
    let failed = |error: &dyn std::fmt::Display| Err(format!("stream: {error}"));
    let output = Arc::new(examiner.place.emptied());
    let mut tree = Tree::new(Metadata::default());
    let mut sink = match Stream::new(options, output, &mut tree) {
        Ok(sink) => sink,
        Err(WriteError::TooSmall { .. }) => return Ok(None),
        Err(error) => return failed(&error),
    };
    let tar_options = tar::Options::default();
    let mut entries = Entries::stream(archive, tar_options.limits);
    if let Err(error) = tar::read_into(&mut tree, &mut entries, &mut sink, &tar_options) {
        let is_full = matches!(&error, tar::TarError::Store { source, .. }
            if source.kind() == std::io::ErrorKind::StorageFull);
        return if is_full { Ok(None) } else { failed(&error) };
    }
    if let Some(mut random) = changes {
        change(&mut tree, &mut random);
    }
    let expected = in_memory(&tree);
    match sink.finish(&tree) {
        Ok(summary) => Ok(Some((expected, summary))),
        Err(WriteError::TooSmall { .. }) => Ok(None),
        Err(error) => failed(&error),
    }
}

/// Removes names, repeats and moves content, and adds some from elsewhere.
fn change(tree: &mut Tree, random: &mut Random) {
    let blob = tree.add_blob(Arc::new(random.bytes(100_000))).unwrap();
    let files: Vec<(Vec<u8>, InodeId)> = tree
        .paths()
        .into_iter()
        .filter(|(_, id)| matches!(tree.inode(*id).kind, Kind::File(_)))
        .collect();
    for (at, (path, id)) in files.iter().enumerate() {
        let Kind::File(content) = tree.inode(*id).kind.clone() else {
            continue;
        };
        let new = match random.below(12) {
            0 => {
                let end = path.iter().rposition(|byte| *byte == b'/').unwrap();
                let parent = tree.lookup(&path[..end]).unwrap();
                tree.unlink(parent, &path[end + 1..]).unwrap();
                continue;
            }
            // The same content twice, at offsets that do or do not fit blocks, or in part.
            1 => content,
            2 => moved(&content, random.pick(&[1, 511, 1024, 4096, 70_001])),
            3 => cut(&content, random),
            4 => Content::contiguous(blob, random.below(1000), random.below(90_000)),
            _ => continue,
        };
        let inode = Inode {
            metadata: tree.inode(*id).metadata.clone(),
            kind: Kind::File(new),
        };
        let new = tree.add_inode(inode).unwrap();
        let name = format!("changed {at}");
        tree.link(InodeId::ROOT, name.as_bytes(), new).unwrap();
        if random.chance(30) {
            tree.inode_mut(*id).kind = Kind::File(Content::default());
        }
    }
}

fn moved(content: &Content, by: u64) -> Content {
    let segments = content.segments.iter().map(|segment| Segment {
        offset: segment.offset + by,
        ..*segment
    });
    // The largest files have no room.
    if content.size > 1 << 40 {
        return content.clone();
    }
    Content {
        size: content.size + by,
        segments: segments.collect(),
    }
}

/// Every run without its first byte, and the last one without its last.
fn cut(content: &Content, random: &mut Random) -> Content {
    let mut segments: Vec<Segment> = content
        .segments
        .iter()
        .filter(|segment| segment.length > 1)
        .map(|segment| Segment {
            offset: segment.offset + 1,
            length: segment.length - 1,
            blob: segment.blob,
            blob_offset: segment.blob_offset + 1,
        })
        .collect();
    let mut size = content.size;
    if let Some(last) = segments.last_mut() {
        last.length = 1 + random.below(last.length);
        size = last.offset + last.length;
    }
    let segments = segments.into();
    Content { size, segments }
}

/// The same tree, with all content in memory: that in an image moves until it is finished.
fn in_memory(tree: &Tree) -> Tree {
    let mut copy = tree.clone();
    let mut bytes = Vec::new();
    let mut contents = Vec::new();
    for id in tree.ids() {
        let Kind::File(content) = &tree.inode(id).kind else {
            continue;
        };
        let mut content = content.clone();
        for segment in &mut content.segments {
            let start = bytes.len();
            let length = usize::try_from(segment.length).unwrap();
            bytes.resize(start + length, 0);
            let blob = &**tree.blob(segment.blob);
            let piece = &mut bytes[start..];
            coop_image::tree::read_exact_at(blob, piece, segment.blob_offset).unwrap();
            segment.blob_offset = start as u64;
        }
        contents.push((id, content));
    }
    let blob = copy.add_blob(Arc::new(bytes)).unwrap();
    for (id, mut content) in contents {
        for segment in &mut content.segments {
            segment.blob = blob;
        }
        copy.inode_mut(id).kind = Kind::File(content);
    }
    copy
}
