//! Sizes around the boundaries of groups, and large numbers of things.

use super::kernel::check;
use super::*;
use crate::tree::Blob;

/// Endless bytes without memory.
#[derive(Debug)]
struct Endless;

impl Blob for Endless {
    fn read_at(&self, buffer: &mut [u8], _: u64) -> std::io::Result<usize> {
        buffer.fill(b'e');
        Ok(buffer.len())
    }
}

fn add_endless(tree: &mut Tree, name: &[u8], size: u64) {
    let blob = tree.add_blob(std::sync::Arc::new(Endless)).unwrap();
    let content = Content::contiguous(blob, 0, size);
    add(tree, InodeId::ROOT, name, 0o644, Kind::File(content));
}

#[test]
fn given_sizes_around_group_boundaries() {
    let mut tree = Tree::new(metadata(0o755));
    add_file(&mut tree, InodeId::ROOT, b"f", vec![1; 5000]);
    let group = 8 << 20;
    for groups in [1, 2, 3, 16, 17, 33] {
        for more in [-(8 << 10), -1, 0, 1, 1 << 10, 60 << 10, 400 << 10, 2 << 20] {
            let bytes = u64::try_from(groups * group + more).unwrap();
            let options = Options {
                block_size: BlockSize::Kib1,
                size: Size::Bytes(bytes),
                ..options()
            };
            let image = image(&tree, &options);
            assert_eq!(std::fs::metadata(image.path()).unwrap().len(), bytes);
            fsck(&image);
        }
    }
}

#[test]
fn content_around_group_boundaries() {
    for mebibytes in [7, 8, 24, 127] {
        for free_percent in [0, 25] {
            let mut tree = Tree::new(metadata(0o755));
            add_endless(&mut tree, b"endless", mebibytes << 20);
            add_file(&mut tree, InodeId::ROOT, b"last", vec![1; 5000]);
            let options = Options {
                block_size: BlockSize::Kib1,
                size: Size::with_free_percent(free_percent),
                journal: Journal::Blocks(1024),
                ..options()
            };
            fsck(&image(&tree, &options));
        }
    }
}

#[test]
fn automatic_size_is_exact() {
    for free_percent in [0, 1, 10, 20, 50, 75] {
        let mut tree = Tree::new(metadata(0o755));
        add_endless(&mut tree, b"endless", 30 << 20);
        let size = Size::with_free_percent(free_percent);
        let summary = image(&tree, &Options { size, ..options() }).summary;
        let wanted = summary.blocks * u64::from(free_percent) / 100;
        assert!(summary.blocks_free >= wanted);
        assert!(summary.blocks_free <= wanted + 2, "{summary:?}");
    }
}

#[test]
fn large_images_stay_sparse() {
    let mut tree = Tree::new(metadata(0o755));
    add_file(&mut tree, InodeId::ROOT, b"f", vec![1; 5000]);
    let options = Options {
        size: Size::Bytes(200 << 30),
        ..options()
    };
    let image = image(&tree, &options);
    let metadata = std::fs::metadata(image.path()).unwrap();
    let on_disk = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
    assert!(on_disk < 8 << 20, "{on_disk} bytes");
    fsck(&image);
}

#[test]
fn the_journal_is_as_large_as_mke2fs_makes_it() {
    let tree = Tree::new(metadata(0o755));
    for mebibytes in [
        7, 9, 127, 129, 1023, 1025, 2049, 17_000, 33_000, 66_000, 133_000,
    ] {
        let options = Options {
            size: Size::Bytes(mebibytes << 20),
            inodes: Inodes::PerBytes(1 << 20),
            ..options()
        };
        let summary = image(&tree, &options).summary;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        File::create(&path)
            .unwrap()
            .set_len(mebibytes << 20)
            .unwrap();
        let arguments = "-q -F -t ext4 -b 4096 -i 1048576 -E nodiscard,lazy_journal_init=1";
        let path = path.to_str().unwrap();
        let arguments: Vec<&str> = arguments.split(' ').chain([path]).collect();
        let Some(output) = oracle("mke2fs", &arguments) else {
            return;
        };
        assert!(output.status.success(), "{output:?}");
        let Some(output) = oracle("dumpe2fs", &["-h", path]) else {
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Total journal blocks:"));
        let expected = line.map_or(0, |count| count.trim().parse().unwrap());
        assert_eq!(summary.blocks_journal, expected, "{mebibytes} MiB");
    }
}

/// Block numbers of more than 32 bits; only a file system in memory has files of that size.
#[test]
fn more_than_sixteen_tebibytes() {
    let shared_memory = Path::new("/dev/shm");
    let Ok(folder) = tempfile::tempdir_in(shared_memory) else {
        crate::testing::skip("/dev/shm cannot be written");
        return;
    };
    let path = folder.path().join("image");
    let output = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    if output.set_len((16 << 40) + (1 << 30)).is_err() {
        crate::testing::skip("no file of 16 TiB in /dev/shm");
        return;
    }
    let mut tree = Tree::new(metadata(0o755));
    add_file(&mut tree, InodeId::ROOT, b"f", vec![1; 5000]);
    let options = Options {
        size: Size::Bytes((16 << 40) + (1 << 30)),
        inodes: Inodes::PerBytes(64 << 20),
        ..options()
    };
    let summary = write(&tree, &options, &output).unwrap();
    assert_eq!(summary.blocks, (1 << 32) + (1 << 18));
    fsck_path(&path);
}

#[test]
fn an_image_can_grow() {
    let mut tree = Tree::new(metadata(0o755));
    add_file(&mut tree, InodeId::ROOT, b"f", vec![1; 5000]);
    for (block_size, before, after) in [(BlockSize::Kib1, 40, 300), (BlockSize::Kib4, 300, 2000)] {
        let options = Options {
            block_size,
            size: Size::Bytes(before << 20),
            ..options()
        };
        let image = image(&tree, &options);
        let path = image.path();
        let size = format!("{after}M");
        let Some(output) = oracle("resize2fs", &["-f", path.to_str().unwrap(), &size]) else {
            return;
        };
        assert!(output.status.success(), "{output:?}");
        fsck(&image);
    }
}

/// A folder with so many names of `length` bytes.
fn folder_of(count: u32, length: usize) -> Tree {
    let mut tree = Tree::new(metadata(0o755));
    let folder = add_directory(&mut tree, InodeId::ROOT, b"folder");
    let id = add_file(&mut tree, folder, b"first", vec![1; 100]);
    for at in 0..count {
        tree.link(folder, format!("{at:0length$}").as_bytes(), id)
            .unwrap();
    }
    tree
}

#[test]
fn folders_around_one_block_and_one_level() {
    // With names of 248 bytes 15 fill a block of 4 KiB, 3 one of 1 KiB.
    for (block_size, counts) in [
        (
            BlockSize::Kib4,
            &[13, 14, 15, 16, 17, 30, 31, 7600, 7606, 7620][..],
        ),
        (BlockSize::Kib1, &[1, 2, 3, 4, 5, 360, 365, 370, 380]),
    ] {
        for count in counts {
            let tree = folder_of(*count, 248);
            let options = Options {
                block_size,
                ..options()
            };
            fsck(&image(&tree, &options));
        }
    }
}

#[test]
fn a_hundred_and_twenty_thousand_names() {
    let mut tree = Tree::new(metadata(0o755));
    let folder = add_directory(&mut tree, InodeId::ROOT, b"folder");
    for at in 0..120_000 {
        let name = format!("name {at}");
        add(&mut tree, folder, name.as_bytes(), 0o600, Kind::Fifo);
    }
    let block_size = BlockSize::Kib1;
    fsck(&image(
        &tree,
        &Options {
            block_size,
            ..options()
        },
    ));
}

#[test]
fn more_names_than_an_index_holds() {
    // 3 names to a leaf of 1 KiB; 123 × 126 leaves at most.
    let tree = folder_of(3 * 123 * 126 + 10, 248);
    let block_size = BlockSize::Kib1;
    let error = refused(
        &tree,
        &Options {
            block_size,
            ..options()
        },
    );
    assert!(
        error.starts_with("directory '/folder' has too many names (46"),
        "{error}"
    );
}

#[test]
fn more_subfolders_than_links() {
    for (count, links) in [(64_998, "65000"), (64_999, "1")] {
        let mut tree = Tree::new(metadata(0o755));
        let folder = add_directory(&mut tree, InodeId::ROOT, b"folder");
        for at in 0..count {
            add_directory(&mut tree, folder, format!("{at}").as_bytes());
        }
        let block_size = BlockSize::Kib1;
        let image = image(
            &tree,
            &Options {
                block_size,
                ..options()
            },
        );
        fsck(&image);
        if let Some(text) = debugfs(&image, "stat folder") {
            assert!(text.contains(&format!("Links: {links} ")), "{text}");
        }
    }
}

#[test]
fn more_hard_links_than_links() {
    let mut tree = Tree::new(metadata(0o755));
    let id = add_file(&mut tree, InodeId::ROOT, b"f", vec![1]);
    for at in 1..65_000 {
        tree.link(InodeId::ROOT, format!("{at}").as_bytes(), id)
            .unwrap();
    }
    fsck(&image(&tree, &options()));
    tree.link(InodeId::ROOT, b"one more", id).unwrap();
    let error = refused(&tree, &options());
    assert_eq!(error, "'/1' has 65001 hard links, ext4 allows 65000");
}

#[test]
fn attribute_blocks_are_shared() {
    let mut tree = Tree::new(metadata(0o755));
    for at in 0..2500 {
        let name = format!("{at}");
        let id = add(&mut tree, InodeId::ROOT, name.as_bytes(), 0o600, Kind::Fifo);
        let value = vec![u8::try_from(at % 2).unwrap(); 300];
        let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
        xattrs.insert((*b"trusted.large").into(), value.into());
    }
    let journal = Journal::None;
    let image = image(
        &tree,
        &Options {
            journal,
            ..options()
        },
    );
    // 1250 inodes with each value, at most 1024 to a block; about 160 blocks of inodes, 20 of names.
    assert!(image.summary.blocks < 300, "{:?}", image.summary);
    check(&tree, &image);
}

#[test]
fn lost_found_is_kept() {
    let mut tree = Tree::new(metadata(0o755));
    let folder = add_directory(&mut tree, InodeId::ROOT, b"lost+found");
    tree.inode_mut(folder).metadata.uid = 77;
    for at in 0..500 {
        add_file(&mut tree, folder, format!("#{at}").as_bytes(), vec![1; 10]);
    }
    let size = Size::with_free_percent(50);
    let image = image(&tree, &Options { size, ..options() });
    check(&tree, &image);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let tree = folder_of(5000, 30);
    let size = Size::with_free_percent(20);
    let options = Options { size, ..options() };
    let (first, second) = (image(&tree, &options), image(&tree, &options));
    let bytes = std::fs::read(first.path()).unwrap();
    assert!(bytes == std::fs::read(second.path()).unwrap());
    let other = Options {
        uuid: [1; 16],
        ..options
    };
    assert!(bytes != std::fs::read(image(&tree, &other).path()).unwrap());
}
