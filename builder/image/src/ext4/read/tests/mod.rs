//! Images made by mke2fs, by the host's kernel (as root) and by our own writer; and damaged ones.
//!
//! The tests here take less than a minute. With `COOP_TEST_EXT4_MATRIX=1` in the environment
//! `matrix` goes through every combination of its options, `kernel` through all of its formats and
//! `hostile` through every byte, instead of a choice of them: about four minutes. The variable `COOP_TEST_E2FSPROGS` names the folder of other e2fsprogs than the
//! installed ones, whose mke2fs then makes images too.

mod hostile;
mod journals;
mod kernel;
mod matrix;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::testing::{
    Description, Look, assert_same, describe_folder, describe_tree, have, is_root, make_source,
    set_xattr, sh, skip,
};
use crate::tree::Kind;

fn look() -> Look {
    Look {
        owners: is_root(),
        xattrs: true,
        root: false,
    }
}

/// Whether the tests shall take their time.
fn whole_matrix() -> bool {
    std::env::var_os("COOP_TEST_EXT4_MATRIX").is_some_and(|value| value == "1")
}

fn read_path(path: &Path) -> Result<Tree, ReadError> {
    read(Arc::new(File::open(path).unwrap()))
}

/// Cuts the fraction of a second: old mke2fs has none.
fn whole_seconds(lines: Description) -> Description {
    lines
        .into_iter()
        .map(|(path, text)| {
            let words: Vec<&str> = text
                .split(' ')
                .map(|word| match word.split_once('.') {
                    Some((seconds, fraction)) if fraction.len() == 9 => seconds,
                    _ => word,
                })
                .collect();
            (path, words.join(" "))
        })
        .collect()
}

/// `security.capability` of revision 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// rwx for the owner, rw for user 1000, r for the rest.
const ACL: [u8; 44] = [
    2, 0, 0, 0, //
    1, 0, 7, 0, 255, 255, 255, 255, //
    2, 0, 6, 0, 0xe8, 3, 0, 0, //
    4, 0, 4, 0, 255, 255, 255, 255, //
    16, 0, 6, 0, 255, 255, 255, 255, //
    32, 0, 4, 0, 255, 255, 255, 255,
];

#[test]
fn what_is_no_ext4_is_told_apart() {
    for bytes in [vec![], vec![0; 1000], vec![0; 1 << 20]] {
        assert!(matches!(read(Arc::new(bytes)), Err(ReadError::NotExt4)));
    }
    if !have("mke2fs") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    for (options, expected) in [
        ("-O journal_dev", "the feature journal_dev"),
        ("-o hurd", "another system"),
    ] {
        sh(
            temp.path(),
            &format!("rm -f r.img; mke2fs -q -F {options} r.img 32M"),
        );
        let error = read_path(&temp.path().join("r.img")).unwrap_err();
        assert!(error.to_string().contains(expected), "{options}: {error}");
    }
    sh(
        temp.path(),
        "rm -f r.img; mke2fs -q -t ext4 r.img 16M; truncate -s 15M r.img",
    );
    let error = read_path(&temp.path().join("r.img")).unwrap_err();
    assert!(error.to_string().contains("shorter"), "{error}");
}

#[test]
fn a_file_system_says_what_it_is() {
    if !have("mke2fs") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    sh(
        temp.path(),
        "mkdir src; echo x > src/f; mke2fs -q -t ext4 -b 2048 -I 512 -N 4096 -m 5 -L 'a label' \
         -U 01020304-0506-0708-090a-0b0c0d0e0f10 -J size=4 \
         -E hash_seed=11121314-1516-1718-191a-1b1c1d1e1f20 -d src a.img 32M",
    );
    let image = File::open(temp.path().join("a.img")).unwrap();
    let info = read_info(Arc::new(image)).unwrap();
    assert_eq!(&*info.label, b"a label");
    assert_eq!(info.uuid, std::array::from_fn(|at| at as u8 + 1));
    assert_eq!(info.hash_seed, std::array::from_fn(|at| at as u8 + 0x11));
    assert!(info.created.seconds > 1_700_000_000);
    assert_eq!(
        (info.block_size_bytes, info.cluster_size_bytes),
        (2048, 2048)
    );
    assert_eq!((info.blocks, info.size_bytes()), (16384, 32 << 20));
    assert_eq!(info.reserved_percent(), 5);
    assert_eq!(info.blocks_journal, 2048);
    assert_eq!((info.inode_size_bytes, info.inodes), (512, 4096));
    assert!(info.features.iter().any(|name| name == "flex_bg"));
    assert!(!info.needs_recovery && !info.has_errors);
    if have("dumpe2fs") {
        let text = sh(temp.path(), "dumpe2fs -h a.img 2>/dev/null");
        let text = String::from_utf8(text).unwrap();
        for line in [
            format!("Free blocks:              {}\n", info.blocks_free),
            format!("Free inodes:              {}\n", info.inodes_free),
            format!("Reserved block count:     {}\n", info.blocks_reserved),
            format!("Blocks per group:         {}\n", info.blocks_per_group),
        ] {
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}

#[test]
fn what_a_tree_cannot_hold_is_refused_by_name() {
    if !have("mke2fs") || !have("debugfs") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    sh(
        temp.path(),
        "mkdir -p src/etc; echo x > src/etc/f; mke2fs -q -t ext4 -d src a.img 16M",
    );
    for (flags, expected) in [
        ("0x80010", "in '/etc', 'f', inode"),
        ("0x80010", "immutable"),
        ("0x80800", "encryption"),
        ("0x180000", "verity"),
        ("0x40080000", "casefold"),
        ("0x80080000", "flag 0x80000000"),
    ] {
        sh(
            temp.path(),
            &format!("cp a.img b.img; debugfs -w -R 'sif /etc/f flags {flags}' b.img 2>/dev/null"),
        );
        let error = read_path(&temp.path().join("b.img")).unwrap_err();
        assert!(matches!(error, ReadError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    sh(
        temp.path(),
        "cp a.img b.img; debugfs -w -R 'sif /etc/f projid 7' b.img 2>/dev/null",
    );
    let error = read_path(&temp.path().join("b.img")).unwrap_err();
    assert!(error.to_string().contains("a project id"), "{error}");
    // Flags without an effect: s, u, c, t, T.
    sh(
        temp.path(),
        "cp a.img b.img; debugfs -w -R 'sif /etc/f flags 0xA8007' b.img 2>/dev/null",
    );
    read_path(&temp.path().join("b.img")).unwrap();
}

#[test]
fn what_our_writer_wrote_reads_back() {
    let temp = tempfile::tempdir().unwrap();
    make_source(temp.path());
    if !have("tar") {
        return;
    }
    sh(
        temp.path(),
        "mkdir src/many; for i in $(seq 2000); do echo $i > src/many/file-number-$i; done; \
         tar -C src --format=pax --xattrs -S -cf a.tar .",
    );
    let mut tree = Tree::new(crate::tree::Metadata::default());
    let archive = File::open(temp.path().join("a.tar")).unwrap();
    let blob = tree.add_blob(Arc::new(archive)).unwrap();
    crate::tar::read_blob(&mut tree, blob, &crate::tar::Options::default()).unwrap();
    let options = crate::ext4::Options::new(
        [1; 16],
        [2; 16],
        crate::tree::Timestamp::from_seconds(1_700_000_000),
    );
    let path = temp.path().join("a.img");
    let image = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    crate::ext4::write(&tree, &options, &image).unwrap();
    let look = Look {
        root: true,
        owners: true,
        xattrs: true,
    };
    let again = read_path(&path).unwrap();
    assert_same(
        &describe_tree(&again, look),
        &describe_tree(&tree, look),
        "written and read",
    );
    for (path, id) in tree.paths() {
        let found = again.inode(again.lookup(&path).unwrap());
        assert_eq!(found.metadata, tree.inode(id).metadata);
    }
}
