//! Sizes at every boundary, one before and one after: of images, files, extent trees, folders,
//! attributes, links.
//!
//! Where `COOP_TEST_SIZES=all` is set, more of each, and those that take long or much memory: up to
//! 2 GB of it. What the host cannot hold itself (files and images of 16 TiB) lies in memory, as
//! sparse as it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use coop_image::ext4::{self, BlockSize, Inodes, Journal, Options, Size};
use coop_image::tree::{
    Blob, Content, Inode, InodeId, Kind, Metadata, Segment, Times, Timestamp, Tree,
};

use super::generate::{FUTURE, SECONDS};
use super::{Examiner, More, run};

const BLOCK_SIZES: [BlockSize; 3] = [BlockSize::Kib1, BlockSize::Kib2, BlockSize::Kib4];

/// Zeroes with a mark at every so many bytes, without memory.
#[derive(Debug)]
struct Marks;

const MARK_STEP: u64 = 1 << 24;

impl Blob for Marks {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        let mut at = offset.next_multiple_of(MARK_STEP);
        while at < end {
            buffer[usize::try_from(at - offset).unwrap()] =
                1 + u8::try_from(at / MARK_STEP % 251).unwrap();
            at += MARK_STEP;
        }
        Ok(buffer.len())
    }
}

/// One tree and what to make of it.
struct Case {
    name: String,
    make: Box<dyn Fn() -> Made + Send + Sync>,
}

enum Made {
    /// An image that everybody has to agree on.
    Image(Tree, Options),
    /// The writer has to refuse it, with these words.
    Refused(Tree, Options, &'static str),
}

impl Case {
    fn new(name: String, make: impl Fn() -> Made + Send + Sync + 'static) -> Self {
        let make = Box::new(make);
        Self { name, make }
    }
}

fn all() -> bool {
    std::env::var_os("COOP_TEST_SIZES").is_some_and(|value| value == "all")
}

fn check(cases: &[Case]) {
    run(cases.len() as u64, 0, |at, examiner: &mut Examiner| {
        let case = &cases[usize::try_from(at).unwrap()];
        let result = match (case.make)() {
            Made::Image(tree, options) => examiner.examine(
                &tree,
                &options,
                More {
                    write: true,
                    ..More::default()
                },
            ),
            Made::Refused(tree, options, words) => {
                let output = examiner.place.emptied();
                match ext4::write(&tree, &options, &output) {
                    Err(error) if error.to_string().contains(words) => Ok(()),
                    Err(error) => Err(format!("refused with other words: {error}")),
                    Ok(_) => Err("not refused".into()),
                }
            }
        };
        result.map_err(|error| format!("{}: {error}", case.name))
    });
}

fn metadata(mode: u16) -> Metadata {
    Metadata {
        mode,
        uid: 70_000,
        gid: 4_000_000_000,
        times: Times::all(Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 123_456_789,
        }),
        ..Metadata::default()
    }
}

fn options(block_size: BlockSize) -> Options {
    Options {
        block_size,
        journal: Journal::None,
        size: Size::with_free_percent(0),
        ..Options::new(
            [0x42; 16],
            [0x17; 16],
            Timestamp::from_seconds(1_700_000_000),
        )
    }
}

fn add(tree: &mut Tree, parent: InodeId, name: &str, kind: Kind) -> InodeId {
    let metadata = metadata(0o755);
    let id = tree.add_inode(Inode { metadata, kind }).unwrap();
    tree.link(parent, name.as_bytes(), id).unwrap();
    id
}

fn add_folder(tree: &mut Tree, parent: InodeId, name: &str) -> InodeId {
    add(tree, parent, name, Kind::Directory(Default::default()))
}

fn add_text(tree: &mut Tree, name: &str, length: u64) -> InodeId {
    let bytes = (0..length).map(|at| u8::try_from(at % 251).unwrap());
    let content = tree.add_bytes(bytes.collect()).unwrap();
    add(tree, InodeId::ROOT, name, Kind::File(content))
}

/// A file without holes, of zeroes with marks.
fn add_marked(tree: &mut Tree, name: &str, size: u64) {
    let blob = tree.add_blob(Arc::new(Marks)).unwrap();
    let content = Content::contiguous(blob, 0, size);
    add(tree, InodeId::ROOT, name, Kind::File(content));
}

fn small_tree() -> Tree {
    let mut tree = Tree::new(metadata(0o755));
    let folder = add_folder(&mut tree, InodeId::ROOT, "folder");
    let id = add_text(&mut tree, "text", 5000);
    tree.link(folder, b"hard link", id).unwrap();
    tree
}

/// -1, 0 and 1.
const AROUND: [i64; 3] = [-1, 0, 1];

fn shifted(value: u64, by: i64) -> u64 {
    value.checked_add_signed(by).unwrap()
}

#[test]
fn images_around_groups() {
    let mut cases = Vec::new();
    for block_size in BLOCK_SIZES {
        let block = u64::from(block_size.bytes());
        let first = u64::from(block_size == BlockSize::Kib1);
        // Ends of groups; of sixteen, which lie together; of a block of descriptors; next to copies
        // of the superblock.
        let groups: &[u64] = match all() {
            false => &[1, 2, 3, 16, 17, 64],
            true => &[
                1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 25, 26, 27, 28, 31, 32, 33, 48, 49, 50,
                63, 64, 65, 81, 82, 125, 126, 127, 128, 129,
            ],
        };
        let mut sizes: Vec<u64> = groups
            .iter()
            .flat_map(|groups| AROUND.map(|by| shifted(first + groups * block * 8, by)))
            .collect();
        // From no last group over one that is too small to one that is large enough.
        let step = if all() { 3 } else { 60 };
        sizes.extend((0..700).step_by(step).map(|more| first + block * 8 + more));
        for blocks in sizes {
            for journal in [Journal::None, Journal::Auto] {
                // An odd end, too.
                let size = Size::Bytes(blocks * block + blocks % 3);
                let name = format!("{blocks} blocks of {block}, {journal:?}");
                cases.push(Case::new(name, move || {
                    let options = Options {
                        size,
                        journal,
                        ..options(block_size)
                    };
                    Made::Image(small_tree(), options)
                }));
            }
        }
    }
    check(&cases);
}

#[test]
fn content_around_groups() {
    let mut cases = Vec::new();
    for block_size in BLOCK_SIZES {
        let block = u64::from(block_size.bytes());
        let per_group = block * 8;
        let groups: &[u64] = if all() {
            &[1, 2, 3, 4, 16, 17]
        } else {
            &[1, 2]
        };
        for groups in groups.iter().copied() {
            // What is large takes long to read.
            let is_large = groups * per_group * block > 1 << 29;
            let shifts = if all() && !is_large { -4..=60 } else { -1..=2 };
            for by in shifts {
                let name = format!("content up to {groups} groups {by:+}, blocks of {block}");
                cases.push(Case::new(name, move || {
                    let tree_of = |blocks| {
                        let mut tree = small_tree();
                        add_marked(&mut tree, "content", blocks * block);
                        tree
                    };
                    let options = options(block_size);
                    let guess = groups * per_group / 2;
                    let output = tempfile::tempfile_in(super::image::folder()).unwrap();
                    let summary = ext4::write(&tree_of(guess), &options, &output).unwrap();
                    let more = groups * per_group - (summary.blocks - summary.blocks_free);
                    Made::Image(tree_of(shifted(guess + more, by)), options)
                }));
            }
        }
    }
    check(&cases);
}

/// A file of so many runs of one byte, each in a block of its own.
fn fragmented(count: u64, block: u64) -> Tree {
    let mut tree = small_tree();
    let blob = tree.add_blob(Arc::new(vec![b'x'; 256])).unwrap();
    let segments = (0..count).map(|at| Segment {
        offset: at * 2 * block + at % block,
        length: 1,
        blob,
        blob_offset: at % 256,
    });
    let content = Content {
        size: count * 2 * block,
        segments: segments.collect(),
    };
    add(&mut tree, InodeId::ROOT, "fragments", Kind::File(content));
    tree
}

#[test]
fn extent_trees_around_their_levels() {
    let mut cases = Vec::new();
    for block_size in BLOCK_SIZES {
        let block = u64::from(block_size.bytes());
        // Entries of a node: 84, 169, 340.
        let node = (block - 12) / 12;
        let mut counts = vec![4, node, 4 * node];
        if block_size == BlockSize::Kib1 {
            counts.extend([node * node, 4 * node * node]);
        }
        if all() {
            counts.extend([node * node, 4 * node * node]);
        }
        for count in counts
            .into_iter()
            .flat_map(|count| AROUND.map(|by| shifted(count, by)))
        {
            let name = format!("{count} extents, blocks of {block}");
            cases.push(Case::new(name, move || {
                Made::Image(fragmented(count, block), options(block_size))
            }));
        }
    }
    check(&cases);
}

#[test]
fn files_of_sizes_at_boundaries() {
    let mut cases = Vec::new();
    for block_size in BLOCK_SIZES {
        let block = u64::from(block_size.bytes());
        // Direct blocks; the longest extent.
        for blocks in [1, 12, 32_768, 65_536] {
            for by in AROUND {
                let name = format!("{blocks} {by:+} blocks of {block}");
                cases.push(Case::new(name, move || {
                    let mut tree = small_tree();
                    add_marked(&mut tree, "blocks", shifted(blocks, by) * block);
                    let odd = shifted(blocks * block, by);
                    if blocks < 100 {
                        add_text(&mut tree, "bytes", odd);
                    }
                    Made::Image(tree, options(block_size))
                }));
            }
        }
        let mut sizes = vec![128 << 20];
        if all() {
            sizes.extend([2 << 30, 4 << 30]);
        }
        for size in sizes {
            for by in AROUND {
                let name = format!("{size} bytes {by:+} blocks of {block}");
                cases.push(Case::new(name, move || {
                    let mut tree = Tree::new(metadata(0o755));
                    let by = by * i64::try_from(block).unwrap();
                    add_marked(&mut tree, "large", shifted(size, by));
                    Made::Image(tree, options(block_size))
                }));
            }
        }
    }
    check(&cases);
}

#[test]
fn sparse_files_up_to_the_largest() {
    let mut cases = Vec::new();
    for block_size in BLOCK_SIZES {
        let block = u64::from(block_size.bytes());
        // 4, 8 and 16 TiB less a block.
        let largest = ((1 << 32) - 1) * block;
        for size in [
            128 << 20,
            2 << 30,
            4 << 30,
            1 << 40,
            largest - block,
            largest,
        ] {
            let name = format!("sparse file of {size} bytes, blocks of {block}");
            cases.push(Case::new(name, move || {
                let mut tree = small_tree();
                let blob = tree.add_blob(Arc::new(vec![7; 3 * 4096])).unwrap();
                // Over each boundary, and up to the end.
                let mut segments: Vec<Segment> = [128_u64 << 20, 2 << 30, 4 << 30, 1 << 40]
                    .into_iter()
                    .filter(|at| at + 2 * block < size)
                    .map(|at| Segment {
                        offset: at - block,
                        length: 2 * block + 1,
                        blob,
                        blob_offset: 5,
                    })
                    .collect();
                segments.push(Segment {
                    offset: size - block - 1,
                    length: block + 1,
                    blob,
                    blob_offset: 0,
                });
                let segments = segments.into();
                let content = Content { size, segments };
                add(&mut tree, InodeId::ROOT, "sparse", Kind::File(content));
                let segments = Box::default();
                let content = Content { size, segments };
                add(&mut tree, InodeId::ROOT, "hole", Kind::File(content));
                Made::Image(tree, options(block_size))
            }));
        }
        let name = format!("a file that is too large for blocks of {block}");
        cases.push(Case::new(name, move || {
            let mut tree = small_tree();
            let content = Content {
                size: largest + 1,
                segments: Box::default(),
            };
            add(&mut tree, InodeId::ROOT, "hole", Kind::File(content));
            Made::Refused(tree, options(block_size), "more than ext4 can address")
        }));
    }
    check(&cases);
}

#[test]
fn images_up_to_the_largest() {
    let mut cases = Vec::new();
    for block_size in BLOCK_SIZES {
        let block = u64::from(block_size.bytes());
        let mut sizes = vec![2 << 30, 4 << 30, 16 << 30];
        if block_size == BlockSize::Kib4 {
            sizes.push(1 << 40);
        }
        if all() && block_size == BlockSize::Kib4 {
            // As many blocks as 32 bits count; more than that.
            sizes.extend([((1 << 32) - 1) * block, 1 << 44, 17 << 40]);
        }
        for size in sizes {
            for by in AROUND {
                let name = format!("image of {size} bytes {by:+} blocks of {block}");
                cases.push(Case::new(name, move || {
                    let by = by * i64::try_from(block).unwrap();
                    let options = Options {
                        size: Size::Bytes(shifted(size, by)),
                        inodes: Inodes::PerBytes(1 << 22),
                        ..options(block_size)
                    };
                    Made::Image(small_tree(), options)
                }));
            }
        }
    }
    check(&cases);
}

#[test]
fn folders_around_blocks_and_levels() {
    let mut cases = Vec::new();
    for (block_size, counts, many) in [
        // Names of 248 bytes: 3 fill a block of 1 KiB, 15 one of 4 KiB.
        (
            BlockSize::Kib1,
            &[1, 2, 3, 4, 5, 6, 360, 365, 370, 375, 380][..],
            &[40_000][..],
        ),
        (BlockSize::Kib2, &[5, 6, 7, 8, 14], &[1730, 1760]),
        (
            BlockSize::Kib4,
            &[13, 14, 15, 16, 17, 30, 31],
            &[7600, 7606, 7620],
        ),
    ] {
        let many = if all() { many } else { &[] };
        for (count, length) in counts
            .iter()
            .chain(many)
            .flat_map(|count| [(*count, 248), (*count, 255)])
        {
            let block = block_size.bytes();
            let name = format!("{count} names of {length} bytes, blocks of {block}");
            cases.push(Case::new(name, move || {
                let mut tree = small_tree();
                let folder = add_folder(&mut tree, InodeId::ROOT, "names");
                let id = add_text(&mut tree, "file", 100);
                for at in 0..count {
                    let name = format!("{at:0length$}");
                    tree.link(folder, name.as_bytes(), id).unwrap();
                }
                Made::Image(tree, options(block_size))
            }));
        }
    }
    check(&cases);
}

#[test]
fn folders_with_very_many_names() {
    if !all() {
        return;
    }
    let mut cases = Vec::new();
    for count in [64_997, 64_998, 64_999, 65_001] {
        let name = format!("{count} subfolders");
        cases.push(Case::new(name, move || {
            let mut tree = Tree::new(metadata(0o755));
            let folder = add_folder(&mut tree, InodeId::ROOT, "folder");
            for at in 0..count {
                add_folder(&mut tree, folder, &format!("{at}"));
            }
            Made::Image(tree, options(BlockSize::Kib1))
        }));
    }
    for block_size in BLOCK_SIZES {
        let name = format!("120 k names, {block_size:?}");
        cases.push(Case::new(name, move || {
            let mut tree = small_tree();
            let folder = add_folder(&mut tree, InodeId::ROOT, "names");
            for at in 0..120_000 {
                add(&mut tree, folder, &format!("name {at}"), Kind::Fifo);
            }
            Made::Image(tree, options(block_size))
        }));
    }
    check(&cases);
}

/// Attributes whose values have these lengths.
fn with_attributes(lengths: &[usize]) -> Tree {
    let mut tree = small_tree();
    let id = add_text(&mut tree, "attributes", 10);
    for (at, length) in lengths.iter().enumerate() {
        let name = format!("user.{at:03}").into_bytes();
        let value = vec![u8::try_from(at % 250).unwrap(); *length];
        let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
        xattrs.insert(name.into(), value.into());
    }
    tree
}

#[test]
fn attributes_up_to_a_full_block() {
    let mut cases = Vec::new();
    for block_size in BLOCK_SIZES {
        let block = usize::try_from(block_size.bytes()).unwrap();
        // An entry of 16 bytes and a name of three; a head and an end. The inode has 96 bytes.
        let inode = 96 - 4 - 4 - 20;
        let full = block - 32 - 4 - 20;
        for length in [
            inode - 4,
            inode - 1,
            inode,
            inode + 1,
            full - 4,
            full - 1,
            full,
        ] {
            let name = format!("an attribute of {length} bytes, blocks of {block}");
            cases.push(Case::new(name, move || {
                Made::Image(with_attributes(&[length]), options(block_size))
            }));
        }
        // A small one in the inode, a large one in the block.
        let name = format!("both places full, blocks of {block}");
        cases.push(Case::new(name, move || {
            Made::Image(with_attributes(&[inode, full]), options(block_size))
        }));
        // Values in inodes of their own.
        for length in [full + 1, block, block + 1, 3 * block, 65_535, 65_536] {
            let name = format!("an attribute of {length} bytes, blocks of {block}");
            cases.push(Case::new(name, move || {
                Made::Image(with_attributes(&[inode, full, length]), options(block_size))
            }));
        }
        // As many entries as fit, and one more.
        let entries = (block - 36) / 20 + (96 - 8) / 20;
        for count in [entries - 1, entries, entries + 1] {
            let name = format!("{count} empty attributes, blocks of {block}");
            cases.push(Case::new(name, move || {
                let tree = with_attributes(&vec![0; count]);
                match count > entries {
                    true => Made::Refused(tree, options(block_size), "leaves no room"),
                    false => Made::Image(tree, options(block_size)),
                }
            }));
        }
        let name = format!("a value of more than 64 KiB, blocks of {block}");
        cases.push(Case::new(name, move || {
            let tree = with_attributes(&[65_537]);
            Made::Refused(tree, options(block_size), "larger than 65536 bytes")
        }));
    }
    let name = "100 attributes".to_string();
    cases.push(Case::new(name, || {
        let lengths: Vec<usize> = (0..100).map(|at| at % 18).collect();
        Made::Image(with_attributes(&lengths), options(BlockSize::Kib4))
    }));
    check(&cases);
}

#[test]
fn links_of_every_length_and_times_at_their_ends() {
    let mut cases = Vec::new();
    for block_size in BLOCK_SIZES {
        let block = usize::try_from(block_size.bytes()).unwrap();
        let name = format!("links, blocks of {block}");
        cases.push(Case::new(name, move || {
            let mut tree = small_tree();
            let lengths = (1..70).chain(250..260).chain(block - 3..block);
            for length in lengths {
                let target = "t".repeat(length).into_bytes().into();
                add(
                    &mut tree,
                    InodeId::ROOT,
                    &format!("{length}"),
                    Kind::Symlink(target),
                );
            }
            Made::Image(tree, options(block_size))
        }));
        let name = format!("a link that is too long for blocks of {block}");
        cases.push(Case::new(name, move || {
            let mut tree = small_tree();
            let target = "t".repeat(block).into_bytes().into();
            add(&mut tree, InodeId::ROOT, "link", Kind::Symlink(target));
            Made::Refused(tree, options(block_size), "invalid symbolic link target")
        }));
    }
    let [first, last] = SECONDS;
    let ends = [
        first,
        -1,
        0,
        1 << 31,
        1 << 32,
        1 << 33,
        FUTURE.start,
        FUTURE.end,
    ];
    let name = "times".to_string();
    cases.push(Case::new(name, move || {
        let mut tree = small_tree();
        let seconds: BTreeSet<i64> = ends
            .into_iter()
            .flat_map(|at| AROUND.map(|by| at + by))
            .chain([last - 1, last])
            .filter(|seconds| (first..=last).contains(seconds))
            .collect();
        for seconds in seconds {
            for nanoseconds in [0, 1, 999_999_999] {
                let name = format!("{seconds} {nanoseconds}");
                let id = add(&mut tree, InodeId::ROOT, &name, Kind::Fifo);
                tree.inode_mut(id).metadata.times = Times::all(Timestamp {
                    seconds,
                    nanoseconds,
                });
            }
        }
        Made::Image(tree, options(BlockSize::Kib4))
    }));
    for seconds in [first - 1, last + 1] {
        cases.push(Case::new(format!("second {seconds}"), move || {
            let mut tree = small_tree();
            let id = add(&mut tree, InodeId::ROOT, "late", Kind::Fifo);
            tree.inode_mut(id).metadata.times = Times::all(Timestamp::from_seconds(seconds));
            Made::Refused(tree, options(BlockSize::Kib4), "outside what ext4 can hold")
        }));
    }
    check(&cases);
}

#[test]
fn numbers_of_inodes_around_blocks_of_the_table() {
    let mut cases = Vec::new();
    for block_size in BLOCK_SIZES {
        let step = if all() { 1 } else { 5 };
        // Around the end of a bitmap of inodes, too.
        let many = u64::from(block_size.bytes()) * 8 - 16;
        let many = if block_size == BlockSize::Kib1 {
            Some(many)
        } else {
            None
        };
        let counts = (0_u64..40).step_by(step);
        for count in counts.chain(
            many.into_iter()
                .flat_map(|many| (many..many + 12).step_by(step)),
        ) {
            let name = format!("{count} files, {block_size:?}");
            cases.push(Case::new(name, move || {
                let mut tree = Tree::new(metadata(0o755));
                for at in 0..count {
                    add(&mut tree, InodeId::ROOT, &format!("{at}"), Kind::Socket);
                }
                Made::Image(tree, options(block_size))
            }));
        }
    }
    check(&cases);
}
