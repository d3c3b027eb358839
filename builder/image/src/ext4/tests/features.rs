//! Features that an image has only where it needs them or where they are asked for.

use super::kernel::check;
use super::*;
use crate::ext4::read;

fn give(tree: &mut Tree, id: InodeId, name: &str, value: Vec<u8>) {
    let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
    xattrs.insert(name.as_bytes().into(), value.into());
}

fn file(tree: &mut Tree, name: &str) -> InodeId {
    add_file(tree, InodeId::ROOT, name.as_bytes(), vec![1; 10])
}

/// Everything that the tree says of attributes comes back.
fn read_attributes(tree: &Tree, image: &Image) {
    let found = read(std::sync::Arc::new(File::open(image.path()).unwrap())).unwrap();
    for (path, id) in tree.paths() {
        let other = found.lookup(&path).unwrap();
        let (expected, found) = (tree.inode(id), found.inode(other));
        assert_eq!(found.metadata.xattrs, expected.metadata.xattrs);
    }
}

#[test]
fn values_larger_than_a_block_are_inodes() {
    for block_size in [BlockSize::Kib1, BlockSize::Kib4] {
        let mut tree = Tree::new(metadata(0o755));
        let mut random = Random(5);
        for (at, size) in [900, 3900, 4060, 4061, 5000, 30_000, 65_535, 65_536]
            .into_iter()
            .enumerate()
        {
            let id = file(&mut tree, &format!("one {at}"));
            give(&mut tree, id, "user.large", random.bytes(size));
        }
        // One value of several inodes, and several large ones of one inode.
        let shared = random.bytes(20_000);
        for at in 0..1100 {
            let id = file(&mut tree, &format!("shared {at}"));
            give(&mut tree, id, "user.small", random.bytes(at % 3 * 10));
            give(&mut tree, id, "user.shared", shared.clone());
        }
        let id = file(&mut tree, "many");
        for at in 0..20 {
            let size = 500 * (at + 1);
            give(&mut tree, id, &format!("user.{at}"), random.bytes(size));
            give(&mut tree, id, &format!("trusted.{at}"), shared.clone());
        }
        let options = Options {
            block_size,
            size: Size::with_free_percent(40),
            ..options()
        };
        let image = image(&tree, &options);
        if let Some(text) = debugfs(&image, "stats") {
            assert!(text.contains(" ea_inode"), "{text}");
        }
        read_attributes(&tree, &image);
        check(&tree, &image);
    }
}

#[test]
fn a_hundred_attributes() {
    let mut tree = Tree::new(metadata(0o755));
    let mut random = Random(6);
    let id = file(&mut tree, "small");
    for at in 0..100 {
        give(&mut tree, id, &format!("user.{at}"), random.bytes(10));
    }
    let without = image(&tree, &options());
    if let Some(text) = debugfs(&without, "stats") {
        assert!(!text.contains("ea_inode"), "{text}");
    }
    check(&tree, &without);
    let id = file(&mut tree, "large");
    for at in 0..100 {
        give(&mut tree, id, &format!("user.{at}"), random.bytes(at * 7));
    }
    let image = image(&tree, &options());
    read_attributes(&tree, &image);
    check(&tree, &image);
    for at in 0..200 {
        give(&mut tree, id, &format!("user.more{at}"), Vec::new());
    }
    let error = refused(&tree, &options());
    assert!(error.starts_with("'/large': extended attribute"), "{error}");
}

#[test]
fn an_orphan_file() {
    for (block_size, size) in [
        (BlockSize::Kib1, Size::with_free_percent(60)),
        (BlockSize::Kib4, Size::with_free_percent(20)),
        (BlockSize::Kib4, Size::Bytes(300 << 20)),
    ] {
        let mut tree = Tree::new(metadata(0o755));
        let id = file(&mut tree, "f");
        give(&mut tree, id, "user.large", vec![3; 9000]);
        let options = Options {
            block_size,
            size,
            orphan_file: true,
            ..options()
        };
        let image = image(&tree, &options);
        assert!(image.summary.blocks_journal >= 1024);
        if let Some(text) = debugfs(&image, "stats") {
            assert!(text.contains("orphan_file"), "{text}");
        }
        check(&tree, &image);
    }
    let tree = Tree::new(metadata(0o755));
    let options = Options {
        journal: Journal::None,
        orphan_file: true,
        ..options()
    };
    assert!(refused(&tree, &options).contains("orphan file without a journal"));
}

#[test]
fn a_least_amount_of_free_space() {
    for (mebibytes, percent, expected) in [(0, 10, 0), (40, 0, 40), (40, 20, 40), (40, 75, 0)] {
        let mut tree = Tree::new(metadata(0o755));
        add_file(&mut tree, InodeId::ROOT, b"f", vec![1; 20 << 20]);
        let size = Size::Auto {
            free_percent: percent,
            free_bytes_min: mebibytes << 20,
        };
        let image = image(&tree, &Options { size, ..options() });
        fsck(&image);
        let free = image.summary.blocks_free * 4096;
        let share = image.summary.size_bytes * u64::from(percent) / 100;
        let wanted = share.max(mebibytes << 20);
        assert!(
            free >= wanted && free <= wanted + (16 << 10),
            "{free} {wanted}"
        );
        if expected > 0 {
            assert_eq!(free >> 20, expected);
            assert!(u64::from(image.summary.inodes_free) >= free / 4096);
        }
    }
}

#[test]
fn label_and_reserved_blocks() {
    let mut tree = Tree::new(metadata(0o755));
    file(&mut tree, "f");
    let options = Options {
        size: Size::Bytes(64 << 20),
        label: "sixteen bytes ok".into(),
        reserved_percent: 7,
        ..options()
    };
    let image = image(&tree, &options);
    fsck(&image);
    if let Some(text) = debugfs(&image, "stats") {
        assert!(text.contains("sixteen bytes ok\n"), "{text}");
        assert!(text.contains(&format!("{}\n", 16_384 * 7 / 100)), "{text}");
    }
}
