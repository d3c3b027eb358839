//! Content that is written before the tree is known.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::*;
use crate::ext4::{Stream, WriteError, read};
use crate::tar::ContentSink;
use crate::testing::{Look, assert_same, describe_tree};

/// An image that is being streamed to.
struct Streaming {
    folder: TempDir,
    stream: Stream,
}

fn begin(tree: &mut Tree, options: &Options) -> Streaming {
    let folder = tempfile::tempdir().unwrap();
    let output = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(folder.path().join("image"))
        .unwrap();
    let stream = Stream::new(options, Arc::new(output), tree).unwrap();
    Streaming { folder, stream }
}

impl Streaming {
    fn finish(self, tree: &Tree) -> Image {
        let summary = self.stream.finish(tree).unwrap();
        let folder = self.folder;
        Image { folder, summary }
    }

    fn keep(&mut self, bytes: &[u8]) -> (crate::tree::BlobId, u64) {
        let length = u64::try_from(bytes.len()).unwrap();
        self.stream.keep(&mut &*bytes, 0, length).unwrap()
    }

    fn keep_file(&mut self, tree: &mut Tree, name: &[u8], bytes: &[u8]) -> InodeId {
        let (blob, offset) = self.keep(bytes);
        let content = Content::contiguous(blob, offset, u64::try_from(bytes.len()).unwrap());
        add(tree, InodeId::ROOT, name, 0o644, Kind::File(content))
    }
}

const LOOK: Look = Look {
    owners: true,
    xattrs: true,
    root: true,
};

fn read_back(image: &Image) -> Tree {
    let file = File::open(image.path()).unwrap();
    let mut tree = read(Arc::new(file)).unwrap();
    let _ = tree.unlink(InodeId::ROOT, b"lost+found");
    tree
}

fn all_options() -> impl Iterator<Item = Options> {
    [BlockSize::Kib1, BlockSize::Kib2, BlockSize::Kib4]
        .into_iter()
        .flat_map(|block_size| {
            let sizes = [
                Size::with_free_percent(0),
                Size::with_free_percent(30),
                Size::Bytes(64 << 20),
            ];
            sizes.map(|size| Options {
                block_size,
                size,
                ..options()
            })
        })
}

/// A tree as an archive gives it: files of many sizes, some larger than a group of small blocks,
/// some replaced, one with unaligned runs.
fn fill(tree: &mut Tree, streaming: &mut Streaming) {
    let mut random = Random(11);
    for at in 0..300 {
        let limit = 2 << random.below(16);
        let size = random.below(limit);
        let bytes = random.bytes(size);
        streaming.keep_file(tree, format!("file {at}").as_bytes(), &bytes);
    }
    let large: Vec<u8> = (0..9_u32 << 20)
        .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    streaming.keep_file(tree, b"large", &large);
    let mut zeroes = vec![0; 300_000];
    zeroes[100_000] = 1;
    streaming.keep_file(tree, b"zeroes", &zeroes);
    for _ in 0..3 {
        let _ = tree.unlink(InodeId::ROOT, b"replaced");
        let bytes = random.bytes(30_000);
        streaming.keep_file(tree, b"replaced", &bytes);
    }
    let (blob, start) = streaming.keep(&random.bytes(20_000));
    let mut at = start;
    let segments =
        [(512, 700), (1212, 5), (8192, 4096), (40_000, 15_199)].map(|(offset, length)| {
            let segment = Segment {
                offset,
                length,
                blob,
                blob_offset: at,
            };
            at += length;
            segment
        });
    let content = Content {
        size: 60_000,
        segments: Box::new(segments),
    };
    add(tree, InodeId::ROOT, b"patches", 0o600, Kind::File(content));
}

/// Changes as a build makes them between reading and writing.
fn edit(tree: &mut Tree) {
    let added = tree.add_bytes(vec![b'a'; 70_000]).unwrap();
    let folder = add_directory(tree, InodeId::ROOT, b"added");
    add(tree, folder, b"file", 0o640, Kind::File(added));
    for at in 0..100 {
        tree.unlink(InodeId::ROOT, format!("file {}", at * 3).as_bytes())
            .unwrap();
    }
    for id in tree.ids() {
        tree.inode_mut(id).metadata.uid = 70_000;
    }
    // The same content twice, a part of it, and two files in one.
    let large = tree.lookup(b"/large").unwrap();
    let Kind::File(content) = tree.inode(large).kind.clone() else {
        unreachable!()
    };
    let first = content.segments[0];
    add(tree, folder, b"twice", 0o600, Kind::File(content));
    let part = |blob_offset, size| Content::contiguous(first.blob, blob_offset, size);
    let odd = part(first.blob_offset + 5000, 70_001);
    add(tree, folder, b"part", 0o600, Kind::File(odd));
    let cut = part(first.blob_offset, 33_333);
    let cut = add(tree, folder, b"cut", 0o600, Kind::File(cut));
    tree.link(folder, b"cut too", cut).unwrap();
}

#[test]
fn a_streamed_image_is_what_the_tree_says() {
    for options in all_options() {
        for edited in [false, true] {
            let mut tree = Tree::new(metadata(0o755));
            let mut streaming = begin(&mut tree, &options);
            fill(&mut tree, &mut streaming);
            if edited {
                edit(&mut tree);
            }
            let expected = describe_tree(&tree, LOOK);
            let image = streaming.finish(&tree);
            fsck(&image);
            let found = describe_tree(&read_back(&image), LOOK);
            assert_same(&found, &expected, "what was streamed");
            let large = tree.lookup(b"/large").unwrap();
            let error = tree.read_file(large, 1 << 30).unwrap_err();
            assert!(error.to_string().contains("finished"), "{error}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let bytes = |threads: usize, streamed: bool| {
        let options = Options {
            threads: NonZeroUsize::new(threads).unwrap(),
            size: Size::with_free_percent(5),
            ..options()
        };
        let mut tree = Tree::new(metadata(0o755));
        let mut streaming = begin(&mut tree, &options);
        fill(&mut tree, &mut streaming);
        edit(&mut tree);
        if streamed {
            return std::fs::read(streaming.finish(&tree).path()).unwrap();
        }
        std::fs::read(image(&tree, &options).path()).unwrap()
    };
    assert!(bytes(1, true) == bytes(8, true));
    assert!(bytes(1, false) == bytes(8, false));
}

#[test]
fn free_blocks_are_holes() {
    let options = Options {
        size: Size::with_free_percent(0),
        ..options()
    };
    let mut tree = Tree::new(metadata(0o755));
    let mut streaming = begin(&mut tree, &options);
    streaming.keep_file(&mut tree, b"gone", &vec![7; 30 << 20]);
    streaming.keep_file(&mut tree, b"zeroes", &vec![0; 30 << 20]);
    streaming.keep_file(&mut tree, b"stays", &vec![8; 1 << 20]);
    tree.unlink(InodeId::ROOT, b"gone").unwrap();
    let image = streaming.finish(&tree);
    fsck(&image);
    let metadata = std::fs::metadata(image.path()).unwrap();
    assert!(metadata.blocks() * 512 < 3 << 20, "{}", metadata.blocks());
    let bytes = std::fs::read(image.path()).unwrap();
    assert!(!bytes.windows(100).any(|bytes| bytes == [7; 100]));
    let stays = read_back(&image);
    let stays = stays
        .read_file(stays.lookup(b"/stays").unwrap(), 1 << 30)
        .unwrap();
    assert_eq!(stays, vec![8; 1 << 20]);
}

#[test]
fn what_is_left_for_descriptors_is_used() {
    for block_size in [BlockSize::Kib1, BlockSize::Kib4] {
        let options = Options {
            block_size,
            ..options()
        };
        let mut tree = Tree::new(metadata(0o755));
        let mut streaming = begin(&mut tree, &options);
        let mut content = std::io::repeat(9);
        let length = 140 << 20;
        let (blob, offset) = streaming.stream.keep(&mut content, 0, length).unwrap();
        let content = Content::contiguous(blob, offset, length);
        add(&mut tree, InodeId::ROOT, b"f", 0o644, Kind::File(content));
        let image = streaming.finish(&tree);
        fsck(&image);
        assert!(image.summary.blocks_free < 70, "{:?}", image.summary);
    }
}

#[test]
fn content_is_readable_before_the_end() {
    let mut tree = Tree::new(metadata(0o755));
    let mut streaming = begin(&mut tree, &options());
    let id = streaming.keep_file(&mut tree, b"f", b"text");
    assert_eq!(tree.read_file(id, 10).unwrap(), b"text");
    let zeroes = streaming.keep_file(&mut tree, b"zeroes", &[0; 9000]);
    assert_eq!(tree.read_file(zeroes, 9000).unwrap(), [0; 9000]);
    let more = streaming.keep_file(&mut tree, b"more", &[3; 9000]);
    assert_eq!(tree.read_file(more, 9000).unwrap(), [3; 9000]);
    fsck(&streaming.finish(&tree));
}

#[test]
fn an_empty_stream_is_like_no_stream() {
    for options in all_options() {
        let mut tree = Tree::new(metadata(0o755));
        let streaming = begin(&mut tree, &options);
        add_file(&mut tree, InodeId::ROOT, b"f", vec![1; 9000]);
        let streamed = streaming.finish(&tree);
        fsck(&streamed);
        let written = image(&tree, &options);
        let bytes = |image: &Image| std::fs::read(image.path()).unwrap();
        assert!(bytes(&streamed) == bytes(&written));
    }
}

#[test]
fn more_content_than_the_size_is_refused() {
    let mut tree = Tree::new(metadata(0o755));
    let size = Size::Bytes(4 << 20);
    let mut streaming = begin(&mut tree, &Options { size, ..options() });
    let mut content = std::io::repeat(1);
    streaming.stream.keep(&mut content, 0, 1 << 20).unwrap();
    let error = streaming.stream.keep(&mut content, 0, 4 << 20).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(
        error.to_string(),
        "an ext4 image of 4194304 bytes is too small: the content alone is larger"
    );
    let error = streaming.stream.finish(&tree).unwrap_err();
    assert!(matches!(error, WriteError::Incomplete));
    let mut streaming = begin(&mut tree, &options());
    let error = streaming.stream.keep(&mut content, 0, 1 << 43).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("more than 4398046511104 bytes")
    );
    let mut streaming = begin(&mut tree, &options());
    let mut short = &b"short"[..];
    let error = streaming.stream.keep(&mut short, 0, 6).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(streaming.stream.keep(&mut content, 0, 6).is_err());
}

#[test]
fn a_tar_streams() {
    let folder = tempfile::tempdir().unwrap();
    crate::testing::make_source(folder.path());
    crate::testing::sh(
        folder.path(),
        "tar --sparse --format=posix --xattrs -C src -cf a.tar . && \
         tar --format=gnu --sparse -C src -rf a.tar usr holes",
    );
    let archive = std::fs::read(folder.path().join("a.tar")).unwrap();
    let stream = |piped: bool| {
        let mut tree = Tree::new(metadata(0o755));
        let mut streaming = begin(&mut tree, &options());
        let limits = crate::tar::Limits::default();
        let mut entries = if piped {
            crate::tar::Entries::stream(&*archive, limits)
        } else {
            crate::tar::Entries::in_place(Arc::new(archive.clone()), limits)
        };
        let read = crate::tar::Options::default();
        crate::tar::read_into(&mut tree, &mut entries, &mut streaming.stream, &read).unwrap();
        let expected = describe_tree(&tree, LOOK);
        let image = streaming.finish(&tree);
        fsck(&image);
        assert_same(&describe_tree(&read_back(&image), LOOK), &expected, "tar");
        std::fs::read(image.path()).unwrap()
    };
    assert!(stream(true) == stream(false));
}

/// Replacing many files leaves gaps of every size for folders and tables.
#[test]
fn gaps_of_every_size() {
    for seed in 1..6 {
        let mut random = Random(seed);
        let mut tree = Tree::new(metadata(0o755));
        let block_size = [BlockSize::Kib1, BlockSize::Kib4][usize::try_from(seed % 2).unwrap()];
        let options = Options {
            block_size,
            size: Size::with_free_percent(u8::try_from(random.below(40)).unwrap()),
            ..options()
        };
        let mut streaming = begin(&mut tree, &options);
        let mut expected = BTreeMap::new();
        for _ in 0..2000 {
            let name = format!("a name of some length {}", random.below(700)).into_bytes();
            let limit = 2 << random.below(15);
            let size = random.below(limit);
            let bytes =
                vec![u8::try_from(random.below(256)).unwrap(); usize::try_from(size).unwrap()];
            let _ = tree.unlink(InodeId::ROOT, &name);
            streaming.keep_file(&mut tree, &name, &bytes);
            expected.insert(name, bytes);
        }
        let image = streaming.finish(&tree);
        fsck(&image);
        let found = read_back(&image);
        for (name, bytes) in expected {
            let id = found.child(InodeId::ROOT, &name).unwrap();
            assert!(found.read_file(id, 1 << 30).unwrap() == bytes);
        }
    }
}

#[test]
fn a_streamed_image_can_grow_and_shrink() {
    for block_size in [BlockSize::Kib1, BlockSize::Kib4] {
        let options = Options {
            block_size,
            size: Size::with_free_percent(10),
            ..options()
        };
        let mut tree = Tree::new(metadata(0o755));
        let mut streaming = begin(&mut tree, &options);
        fill(&mut tree, &mut streaming);
        edit(&mut tree);
        let expected = describe_tree(&tree, LOOK);
        let image = streaming.finish(&tree);
        let path = image.path();
        for arguments in [&["-f"][..], &["-f", "-M"]] {
            let size = ["1500M"].into_iter().filter(|_| arguments.len() == 1);
            let arguments = arguments.iter().copied();
            let path = [path.to_str().unwrap()];
            let arguments: Vec<&str> = arguments.chain(path).chain(size).collect();
            let Some(output) = oracle("resize2fs", &arguments) else {
                return;
            };
            assert!(output.status.success(), "{output:?}");
            fsck(&image);
            assert_same(
                &describe_tree(&read_back(&image), LOOK),
                &expected,
                "resized",
            );
        }
    }
}

#[test]
fn a_streamed_image_mounts() {
    for options in all_options().filter(|options| options.size != Size::with_free_percent(0)) {
        let mut tree = Tree::new(metadata(0o755));
        let mut streaming = begin(&mut tree, &options);
        fill(&mut tree, &mut streaming);
        edit(&mut tree);
        let expected = describe_tree(&tree, LOOK);
        let image = streaming.finish(&tree);
        super::kernel::check_with(&tree, &image, |mounted| {
            let mut found = crate::testing::describe_folder(mounted, LOOK);
            found.remove("/lost+found");
            assert_same(&found, &expected, "mounted");
        });
    }
}
