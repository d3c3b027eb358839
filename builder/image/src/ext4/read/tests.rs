//! Images made by mke2fs, by the host's kernel (as root) and by our own writer; and damaged ones.

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

#[test]
fn images_of_mke2fs_read_as_their_source() {
    if !have("mke2fs") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    make_source(temp.path());
    let src = temp.path().join("src");
    sh(
        &src,
        "mkdir many; cd many; for i in $(seq 1500); do echo $i > name-$i; done",
    );
    set_xattr(&src.join("usr/bin/hello"), "user.a=b%", b"\0value\n");
    set_xattr(&src.join("usr/lib"), "user.long", &[7; 700]);
    if is_root() {
        set_xattr(
            &src.join("usr/lib/blob"),
            "security.capability",
            &CAPABILITY,
        );
        set_xattr(&src.join("empty"), "system.posix_acl_default", &ACL);
    }
    let expected = |look| {
        let mut expected = describe_folder(&src, look);
        // mke2fs keeps 32 bits of seconds.
        expected.remove("/before-epoch");
        expected.remove("/after-2038");
        whole_seconds(expected)
    };
    for options in [
        "-t ext4 -b 4096",
        "-t ext4 -b 1024",
        "-t ext4 -b 4096 -O ^metadata_csum",
        "-t ext4 -b 4096 -O ^64bit,^flex_bg",
        "-t ext4 -b 2048 -O ^has_journal,metadata_csum_seed",
        "-t ext4 -b 4096 -O large_dir,mmp,quota,orphan_file",
        "-t ext3 -b 1024",
        "-t ext2 -b 1024 -I 256",
        "-t ext4 -b 65536 -O ^has_journal",
        "-t ext4 -b 4096 -O meta_bg,^resize_inode",
        "-t ext4 -b 1024 -O meta_bg,^resize_inode,bigalloc -C 8192",
        "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,sparse_super2 -g 1024",
        "-t ext4 -b 4096 -O casefold -E encoding=utf8",
        "-t ext4 -b 1024 -O inline_data",
        "-t ext4 -b 4096 -I 512 -O inline_data,^metadata_csum",
        "-t ext4 -b 4096 -O ea_inode",
        "-t ext2 -r 0",
    ] {
        if options.contains("orphan_file") && !mke2fs_knows("orphan_file") {
            continue;
        }
        let size = if options.contains("65536") {
            "160M"
        } else {
            "24M"
        };
        sh(
            temp.path(),
            &format!(": > a.img; mke2fs -q -F {options} -d src a.img {size} 2>/dev/null"),
        );
        let tree = read_path(&temp.path().join("a.img")).unwrap();
        // mke2fs writes no attributes into a file system without feature bits.
        let xattrs = !options.contains("-r 0");
        let look = Look { xattrs, ..look() };
        let mut found = describe_tree(&tree, look);
        found.remove("/before-epoch");
        found.remove("/after-2038");
        assert_same(&whole_seconds(found), &expected(look), options);
    }
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

fn mke2fs_knows(feature: &str) -> bool {
    let output = Command::new("mke2fs")
        .args(["-n", "-q", "-O", feature, "/dev/null", "16M"])
        .output()
        .unwrap();
    !String::from_utf8_lossy(&output.stderr).contains("Invalid filesystem option")
}

/// A mounted image; unmounted at the end.
struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    fn new(temp: &Path, options: &str) -> Option<Self> {
        if !is_root() {
            skip("loop mounts need root");
            return None;
        }
        let folder = temp.join("mnt");
        let _ = fs::create_dir(&folder);
        let status = Command::new("mount")
            .args(["-o", &format!("loop,noatime,{options}")])
            .arg(temp.join("a.img"))
            .arg(&folder)
            .status()
            .unwrap();
        if !status.success() {
            assert!(std::env::var_os("COOP_REQUIRE_ORACLES").is_none_or(|value| value != "1"));
            skip("loop mounts do not work here");
            return None;
        }
        Some(Self { folder })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.folder).status();
    }
}

/// What a guest does to its file system, in several transactions, the last ones only in the
/// journal.
const WORK: &str = r"
    cp -a ../src/. .
    mkdir many
    for i in $(seq 1000); do echo $i > many/a-rather-long-name-for-a-file-$i; done
    sync -f .
    rm many/*7; rm -r deep; mkdir gone; for i in $(seq 300); do : > gone/$i; done
    sync -f .
    rm -r gone
    # Blocks that were a folder's become content.
    for i in $(seq 100); do head -c 9000 /dev/urandom > reused-$i; done
    fallocate -l 300K prealloc || :; echo start | dd of=prealloc conv=notrunc status=none
    fallocate -l 2M beyond || :; truncate -s 5000 beyond
    for i in $(seq 0 2 700); do echo $i | dd of=pieces bs=1k seek=$i conv=notrunc status=none; done
    printf '\xc0\x3b\x39\x98 like a journal block' > magic
    mv usr/lib/blob moved; chmod 600 moved; ln moved usr/lib/again
    sync -f .
";

fn dirty_image(temp: &Path, format: &str, mount: &str) -> Option<Description> {
    fs::write(temp.join("a.img"), b"").unwrap();
    sh(temp, &format!("mke2fs -q -F {format} a.img 64M"));
    let mounted = Mounted::new(temp, mount)?;
    sh(&mounted.folder, WORK);
    set_xattr(&mounted.folder.join("moved"), "user.block", &[9; 900]);
    set_xattr(
        &mounted.folder.join("moved"),
        "system.posix_acl_access",
        &ACL,
    );
    set_xattr(&mounted.folder.join("usr"), "trusted.x", b"");
    sh(&mounted.folder, "sync -f .");
    let mut expected = describe_folder(&mounted.folder, look());
    expected.remove("/lost+found");
    sh(temp, "cp --sparse=always a.img dirty.img");
    Some(expected)
}

#[test]
fn images_copied_while_mounted_read_as_the_kernel_has_them() {
    if !have("mke2fs") || !have("e2fsck") || !is_root() {
        skip("this needs root, mke2fs and e2fsck");
        return;
    }
    for (format, mount) in [
        ("-t ext4 -b 4096", "data=ordered"),
        ("-t ext4 -b 1024", "data=journal"),
        ("-t ext4 -b 4096 -O ^metadata_csum,^64bit", "data=ordered"),
        ("-t ext3 -b 1024 -I 256", "data=journal"),
    ] {
        let temp = tempfile::tempdir().unwrap();
        make_source(temp.path());
        let Some(expected) = dirty_image(temp.path(), format, mount) else {
            return;
        };
        let what = format!("{format} {mount}");
        let dirty = temp.path().join("dirty.img");
        let volume = volume::Volume::open(Arc::new(File::open(&dirty).unwrap())).unwrap();
        assert!(!volume.replaced.is_empty(), "{what}: nothing was replayed");
        if mount == "data=journal" {
            let escaped = volume.replaced.values().any(|replaced| replaced.escaped);
            assert!(escaped, "{what}: nothing was escaped");
        }
        drop(volume);
        let replayed = describe_tree(&read_path(&dirty).unwrap(), look());
        assert_same(&replayed, &expected, &what);
        sh(
            temp.path(),
            "e2fsck -fy dirty.img >/dev/null || test $? = 1",
        );
        let recovered = describe_tree(&read_path(&dirty).unwrap(), look());
        assert_same(&recovered, &expected, &format!("{what}, recovered"));
    }
}

#[test]
fn unmounted_images_read_as_the_kernel_had_them() {
    let temp = tempfile::tempdir().unwrap();
    if !have("mke2fs") || !is_root() {
        skip("this needs root and mke2fs");
        return;
    }
    make_source(temp.path());
    let Some(expected) = dirty_image(temp.path(), "-t ext4 -b 4096", "data=ordered") else {
        return;
    };
    let tree = read_path(&temp.path().join("a.img")).unwrap();
    assert_same(&describe_tree(&tree, look()), &expected, "unmounted");
    for (path, stored) in [
        (&b"/prealloc"[..], 4096),
        (b"/beyond", 0),
        (b"/hole-only", 0),
    ] {
        let id = tree.lookup(path).unwrap();
        let Kind::File(content) = &tree.inode(id).kind else {
            panic!("not a file")
        };
        let found: u64 = content.segments.iter().map(|segment| segment.length).sum();
        assert_eq!(found, stored, "{content:?}");
    }
}

/// A small image without a journal: nearly all of it is metadata.
fn small_image(temp: &Path, features: &str) -> Vec<u8> {
    sh(
        temp,
        "mkdir -p src/d/e; cd src; echo x > d/file; ln d/file d/hard; ln -s target d/e/link; \
         ln -s $(printf 'y%.0s' $(seq 100)) long; truncate -s 9000 hole; mkfifo pipe; mkdir many; \
         cd many; for i in $(seq 60); do : > a-name-that-takes-some-room-$i; done",
    );
    set_xattr(&temp.join("src/d/file"), "user.small", b"value");
    set_xattr(&temp.join("src/d"), "user.large", &[5; 700]);
    sh(
        temp,
        &format!("mke2fs -q -t ext4 -b 1024 -N 96 -O ^has_journal,{features} -d src s.img 300k"),
    );
    fs::read(temp.join("s.img")).unwrap()
}

/// An image with one byte that is different.
#[derive(Debug)]
struct Mutated {
    bytes: Arc<Vec<u8>>,
    at: usize,
    value: u8,
}

impl Blob for Mutated {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = self.bytes.read_at(buffer, offset)?;
        let start = usize::try_from(offset).unwrap();
        if let Some(byte) = self
            .at
            .checked_sub(start)
            .and_then(|at| buffer[..count].get_mut(at))
        {
            *byte = self.value;
        }
        Ok(count)
    }
}

fn read_mutated(bytes: &Arc<Vec<u8>>, at: usize, value: u8) -> Result<Tree, ReadError> {
    read(Arc::new(Mutated {
        bytes: Arc::clone(bytes),
        at,
        value,
    }))
}

#[test]
fn one_byte_mutations_never_panic_or_hang() {
    if !have("mke2fs") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let bytes = Arc::new(small_image(temp.path(), "^metadata_csum"));
    let mut refused = 0;
    for at in (0..bytes.len()).filter(|at| (1024..2048).contains(at) || bytes[*at] != 0) {
        let values = [0, 0xff, bytes[at] ^ 1];
        // Everything in the superblock, one value elsewhere.
        let values = if at < 2048 {
            &values[..]
        } else {
            &values[at % 3..][..1]
        };
        for value in values {
            refused += u32::from(read_mutated(&bytes, at, *value).is_err());
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn every_byte_of_metadata_is_under_a_checksum() {
    if !have("mke2fs") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let bytes = Arc::new(small_image(temp.path(), "metadata_csum"));
    let tree = read(Arc::clone(&bytes) as Arc<dyn Blob>).unwrap();
    let good = describe_tree(&tree, look());
    for at in (0..bytes.len()).filter(|at| bytes[*at] != 0) {
        match read_mutated(&bytes, at, bytes[at] ^ 0x10) {
            Err(ReadError::Tree(error)) => panic!("byte {at}: {error}"),
            Err(_) => {}
            // Bitmaps and the content of files and links are not what the reader verifies.
            Ok(tree) => {
                let found = describe_tree(&tree, look());
                let changed = found
                    .iter()
                    .filter(|(path, line)| good.get(*path) != Some(line));
                for (path, _) in changed {
                    assert!(
                        ["/d/file", "/d/hard", "/long"].contains(&&**path),
                        "{at} {path}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_damaged_journal_never_panics_or_hangs() {
    if !have("mke2fs") || !is_root() {
        skip("this needs root and mke2fs");
        return;
    }
    for features in ["metadata_csum", "^metadata_csum"] {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("a.img"), b"").unwrap();
        sh(
            temp.path(),
            &format!("mke2fs -q -F -t ext4 -b 1024 -J size=1 -O {features} a.img 4M"),
        );
        let Some(mounted) = Mounted::new(temp.path(), "data=journal") else {
            return;
        };
        sh(
            &mounted.folder,
            "mkdir a b; for i in $(seq 20); do echo $i > a/$i; done; sync -f .; rm -r a; \
             for i in $(seq 20); do echo $i > b/$i; done; sync -f .",
        );
        let bytes = Arc::new(fs::read(temp.path().join("a.img")).unwrap());
        drop(mounted);
        let image = Arc::clone(&bytes) as Arc<dyn Blob>;
        let good = describe_tree(&read(Arc::clone(&image)).unwrap(), look());
        let volume = volume::Volume::open(image).unwrap();
        assert!(!volume.replaced.is_empty());
        let inode = inode::Inode::read(&volume, 8).unwrap();
        let runs = mapping::read(&volume, &inode).unwrap().runs;
        let start = usize::try_from(runs[0].physical).unwrap() * 1024;
        let journal = (start..start + (200 << 10)).filter(|at| bytes[*at] != 0);
        for at in journal.step_by(3) {
            for value in [0xff, bytes[at] ^ 1] {
                let read = read_mutated(&bytes, at, value);
                // With checksums, nothing that was committed is lost without a word.
                if features == "metadata_csum"
                    && let Ok(tree) = &read
                {
                    let what = format!("byte {at} of {start}.. as {value}");
                    assert_same(&describe_tree(tree, look()), &good, &what);
                }
            }
        }
    }
}

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
