//! Trees and sizes of many shapes against e2fsck.

use super::*;

#[test]
fn an_empty_tree() {
    let tree = Tree::new(metadata(0o755));
    for block_size in [BlockSize::Kib1, BlockSize::Kib2, BlockSize::Kib4] {
        for free_percent in [0, 20, 90] {
            let options = Options {
                block_size,
                size: Size::with_free_percent(free_percent),
                ..options()
            };
            let image = image(&tree, &options);
            fsck(&image);
            let free = image.summary.blocks_free * 100;
            assert!(free >= image.summary.blocks * u64::from(free_percent));
        }
    }
}

#[test]
fn files_of_many_sizes() {
    let mut random = Random(1);
    for block_size in [BlockSize::Kib1, BlockSize::Kib2, BlockSize::Kib4] {
        let mut tree = Tree::new(metadata(0o755));
        let block = u64::from(block_size.bytes());
        for size in [
            0,
            1,
            511,
            block - 1,
            block,
            block + 1,
            12 * block,
            12 * block + 1,
            300 * block,
        ] {
            let bytes = random.bytes(size);
            add_file(
                &mut tree,
                InodeId::ROOT,
                format!("f{size}").as_bytes(),
                bytes,
            );
        }
        let options = Options {
            block_size,
            ..options()
        };
        let image = image(&tree, &options);
        fsck(&image);
        if let Some(text) = debugfs(&image, "stat f511") {
            assert!(text.contains("Size: 511"), "{text}");
        }
    }
}

#[test]
fn extent_trees_of_every_depth() {
    for (block_size, counts) in [
        (
            BlockSize::Kib1,
            &[1, 4, 5, 84, 85, 336, 337, 7056, 30_000][..],
        ),
        (BlockSize::Kib4, &[4, 5, 340, 341, 1361]),
    ] {
        let mut tree = Tree::new(metadata(0o755));
        for count in counts {
            let name = format!("sparse{count}");
            sparse_file(&mut tree, name.as_bytes(), *count, 8192);
        }
        let options = Options {
            block_size,
            ..options()
        };
        fsck(&image(&tree, &options));
    }
}
