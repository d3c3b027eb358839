//! Against mkfs.fat, fsck.fat, mtools, the `fatfs` crate and the kernel; and damaged images.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::testing::{have, is_root, sh, skip};
use crate::tree::{Blob, Content, Entries, Inode, InodeId, Kind, Metadata, Times, Tree};

/// 2024-02-29 12:34:56, in seconds.
const TIME: i64 = 1_709_210_096;

fn metadata(mode: u16) -> Metadata {
    Metadata {
        mode,
        times: Times::all(Timestamp::from_seconds(TIME)),
        ..Metadata::default()
    }
}

fn add(tree: &mut Tree, parent: InodeId, name: &str, kind: Kind) -> InodeId {
    let mode = if matches!(kind, Kind::Directory(_)) {
        0o755
    } else {
        0o644
    };
    let metadata = metadata(mode);
    let id = tree.add_inode(Inode { metadata, kind }).unwrap();
    tree.link(parent, name.as_bytes(), id).unwrap();
    id
}

fn folder(tree: &mut Tree, parent: InodeId, name: &str) -> InodeId {
    add(tree, parent, name, Kind::Directory(Entries::new()))
}

fn file(tree: &mut Tree, parent: InodeId, name: &str, bytes: Vec<u8>) -> InodeId {
    let content = tree.add_bytes(bytes).unwrap();
    add(tree, parent, name, Kind::File(content))
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

const NAMES: [&str; 22] = [
    "README.TXT",
    "readme.md",
    "a file with a long name.txt",
    "a file with a long name.text",
    "a file with a long nase.txt",
    "ÄÖÜ-äöü.TXT",
    "日本語のとても長い名前.txt",
    "𝄞.mid",
    ".hidden",
    "..two",
    "two..dots",
    "archive.tar.gz",
    "no extension",
    "NOEXT",
    "12345678.123",
    "123456789.123",
    "x~1",
    "X+Y=Z",
    "ÀFILEW~1.TXT",
    "AFILEW~1.TXT",
    "empty",
    " leading",
];

fn sample() -> Tree {
    let mut tree = Tree::new(metadata(0o755));
    for (index, name) in NAMES.iter().enumerate() {
        let length = if *name == "empty" { 0 } else { index * 700 + 1 };
        file(&mut tree, InodeId::ROOT, name, noise(length));
    }
    let long = "n".repeat(255);
    file(&mut tree, InodeId::ROOT, &long, b"long".to_vec());
    let efi = folder(&mut tree, InodeId::ROOT, "EFI");
    let boot = folder(&mut tree, efi, "boot");
    let id = file(&mut tree, boot, "BOOTX64.EFI", noise(100_000));
    tree.inode_mut(id).metadata.mode = 0o444;
    let id = file(&mut tree, boot, "holes", Vec::new());
    let bytes = tree.add_bytes(b"data".to_vec()).unwrap();
    let mut segment = bytes.segments[0];
    segment.offset = 50_000;
    tree.inode_mut(id).kind = Kind::File(Content {
        size: 90_001,
        segments: Box::new([segment]),
    });
    folder(&mut tree, efi, "nothing");
    let many = folder(&mut tree, efi, "many");
    for number in 0..300 {
        let name = format!("some longer name {number}");
        file(&mut tree, many, &name, name.clone().into_bytes());
    }
    tree
}

fn options(fat_type: FatType) -> Options {
    Options {
        fat_type: Some(fat_type),
        volume_id: 0x1234_ABCD,
        label: "COOP DISK".into(),
        ..Options::default()
    }
}

/// Path to mode, time and content of everything but the root.
fn described(tree: &Tree) -> BTreeMap<String, (u16, i64, Option<Vec<u8>>)> {
    tree.paths()
        .into_iter()
        .skip(1)
        .map(|(path, id)| {
            let metadata = &tree.inode(id).metadata;
            let content = tree.read_file(id, 1 << 30).ok();
            let line = (metadata.mode, metadata.times.modified.seconds, content);
            (String::from_utf8(path).unwrap(), line)
        })
        .collect()
}

fn create(path: &Path) -> File {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap()
}

fn read_path(path: &Path) -> Result<Volume, FatError> {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    read(Arc::new(file), size, &ReadOptions::default())
}

/// What fsck.fat and mtools say of an image, whose files must be the tree's.
fn tools_agree(folder: &Path, tree: &Tree) {
    if have("fsck.fat") {
        let said = sh(folder, "fsck.fat -n -v a.img 2>&1");
        let said = String::from_utf8_lossy(&said);
        assert!(
            !said.contains("differ") && !said.contains("Dirty"),
            "{said}"
        );
    }
    if !have("mcopy") {
        return;
    }
    let script = "export MTOOLS_SKIP_CHECK=1; rm -rf out; mkdir out
        mcopy -s -n -m -i a.img ::/* out/ && mdir -i a.img :: >/dev/null";
    sh(folder, script);
    for (path, id) in tree.paths() {
        let path = String::from_utf8(path).unwrap();
        let host = folder.join("out").join(&path[1..]);
        // mtools knows nothing beyond the basic plane.
        if path.contains('𝄞') || path == "/" {
            continue;
        }
        match tree.read_file(id, 1 << 30) {
            Ok(bytes) => assert!(fs::read(&host).unwrap() == bytes, "{path}"),
            Err(_) => assert!(host.is_dir(), "{path}"),
        }
    }
}

/// The `fatfs` crate finds every file.
fn fatfs_agrees(path: &Path, tree: &Tree) {
    use std::io::Read;
    let file = File::options().read(true).write(true).open(path).unwrap();
    let volume = fatfs::FileSystem::new(file, fatfs::FsOptions::new()).unwrap();
    assert_eq!(volume.volume_label(), "COOP DISK");
    assert_eq!(volume.volume_id(), 0x1234_ABCD);
    for (path, id) in tree.paths() {
        let path = String::from_utf8(path).unwrap();
        if let Ok(bytes) = tree.read_file(id, 1 << 30) {
            let mut found = Vec::new();
            let mut file = volume.root_dir().open_file(&path[1..]).unwrap();
            file.read_to_end(&mut found).unwrap();
            assert!(found == bytes, "{path}");
        }
    }
}

#[test]
fn what_is_written_reads_back_and_pleases_other_tools() {
    let temp = tempfile::tempdir().unwrap();
    let tree = sample();
    let path = temp.path().join("a.img");
    for fat_type in [FatType::Fat12, FatType::Fat16, FatType::Fat32] {
        for sector_bytes in [512, 4096] {
            let options = Options {
                sector_bytes,
                ..options(fat_type)
            };
            let size = write(&tree, &options, &create(&path)).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), size);
            if size < 64 << 20 {
                let first = fs::read(&path).unwrap();
                write(&tree, &options, &create(&path)).unwrap();
                assert!(fs::read(&path).unwrap() == first);
            }
            let volume = read_path(&path).unwrap();
            assert_eq!(volume.fat_type, fat_type);
            assert_eq!(volume.label, "COOP DISK");
            assert_eq!(volume.volume_id, 0x1234_ABCD);
            assert!(!volume.is_dirty);
            assert_eq!(described(&volume.tree), described(&tree));
            tools_agree(temp.path(), &tree);
            fatfs_agrees(&path, &tree);
            kernel_agrees(temp.path(), &tree);
        }
    }
}

/// Where the kernel has vfat and loop devices.
fn kernel_agrees(folder: &Path, tree: &Tree) {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !is_root() || !known.contains("vfat") {
        skip("the kernel has no vfat");
        return;
    }
    sh(
        folder,
        "rm -rf m out; mkdir m out; mount -o loop,ro,utf8,tz=UTC a.img m
         cp -r m/. out/; umount m",
    );
    for (path, id) in tree.paths() {
        let path = String::from_utf8(path).unwrap();
        if let Ok(bytes) = tree.read_file(id, 1 << 30) {
            let host = folder.join("out").join(&path[1..]);
            assert!(fs::read(&host).unwrap() == bytes, "{path}");
        }
    }
}

#[test]
fn type_and_clusters_are_as_mkfs_has_them() {
    if !have("mkfs.fat") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let tree = Tree::new(metadata(0o755));
    for mib in [
        1, 4, 8, 16, 17, 32, 100, 255, 257, 511, 512, 600, 9000, 20_000,
    ] {
        sh(
            temp.path(),
            &format!("rm -f b.img; truncate -s {mib}M b.img; mkfs.fat -g 255/63 b.img"),
        );
        let theirs = read_path(&temp.path().join("b.img")).unwrap();
        let options = Options {
            size_bytes: Some(mib << 20),
            ..Options::default()
        };
        let path = temp.path().join("a.img");
        write(&tree, &options, &create(&path)).unwrap();
        let ours = read_path(&path).unwrap();
        assert_eq!(
            (ours.fat_type, ours.cluster_bytes),
            (theirs.fat_type, theirs.cluster_bytes),
            "{mib} MiB"
        );
    }
}

#[test]
fn images_of_mkfs_and_mtools_read_as_their_files() {
    if !have("mkfs.fat") || !have("mcopy") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    for (size, options) in [
        ("1440K", ""),
        ("4M", "-F 12 -s 4"),
        ("20M", "-F 16"),
        ("20M", "-F 16 -S 1024 -s 1 -f 1 -r 64"),
        ("40M", "-F 32 -s 1"),
        ("300M", "-F 32 -S 4096 -s 1"),
        ("300M", "-S 2048"),
    ] {
        let script = format!(
            "rm -rf a.img src out; truncate -s {size} a.img; mkfs.fat {options} -n LABEL a.img
             mkdir -p src/'a folder'/deep src/EMPTY
             for i in $(seq 40); do echo $i > src/'a folder'/\"file number $i\"; done
             seq 30000 > src/UPPER.TXT; seq 9000 > src/'a folder'/deep/lower.txt; : > src/none
             touch -d '2020-05-06 07:08:10 UTC' src/UPPER.TXT
             export MTOOLS_SKIP_CHECK=1
             mcopy -s -m -i a.img src/* ::/
             mdel -i a.img '::/a folder/file number 7'; rm src/'a folder'/'file number 7'
             seq 5000 > src/last; mcopy -i a.img src/last ::/"
        );
        sh(temp.path(), &script);
        let volume = read_path(&temp.path().join("a.img")).unwrap();
        assert_eq!(volume.label, "LABEL");
        let mut files = 0;
        for (path, (_, time, content)) in described(&volume.tree) {
            let host = temp.path().join("src").join(&path[1..]);
            if path == "/UPPER.TXT" {
                assert_eq!(time, 1_588_748_890);
            }
            match content {
                Some(bytes) => assert!(fs::read(&host).unwrap() == bytes, "{path}"),
                None => assert!(host.is_dir(), "{path}"),
            }
            files += 1;
        }
        assert_eq!(files, 39 + 7, "{options}");
    }
}

fn refused(tree: &Tree, options: &Options) -> String {
    let file = tempfile::tempfile().unwrap();
    write(tree, options, &file).unwrap_err().to_string()
}

#[test]
fn what_fat_cannot_hold_is_refused_by_path() {
    let with = |name: &str, kind: Kind| {
        let mut tree = Tree::new(metadata(0o755));
        let folder = folder(&mut tree, InodeId::ROOT, "dir");
        add(&mut tree, folder, name, kind);
        tree
    };
    let empty = || Kind::File(Content::default());
    let large = Kind::File(Content {
        size: 1 << 32,
        segments: Box::default(),
    });
    for (tree, expected) in [
        (with("a", Kind::Symlink(b"x"[..].into())), "a symbolic link"),
        (with("a", Kind::Fifo), "a pipe"),
        (
            with("a", Kind::CharDevice { major: 1, minor: 3 }),
            "a device",
        ),
        (with("a", large), "more than 4294967295"),
        (with("what?", empty()), "a name with"),
        (with("back\\slash", empty()), "a name with"),
        (with("line\nbreak", empty()), "a name with"),
        (with("stop.", empty()), "ends with"),
        (with("space ", empty()), "ends with"),
    ] {
        let error = refused(&tree, &Options::default());
        assert!(error.starts_with("'/dir/"), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    let mut tree = with("Straße", empty());
    let folder = tree.lookup(b"/dir").unwrap();
    file(&mut tree, folder, "STRAßE", vec![]);
    let error = refused(&tree, &Options::default());
    assert!(error.contains("are one name to FAT"), "{error}");
    let mut tree = with("a", empty());
    tree.link(
        InodeId::ROOT,
        b"latin-\xe9",
        tree.lookup(b"/dir/a").unwrap(),
    )
    .unwrap();
    assert!(refused(&tree, &Options::default()).contains("not UTF-8"));
}

#[test]
fn owners_modes_and_links_are_refused_or_dropped() {
    type Change = fn(&mut Tree, InodeId);
    let changes: [(Change, &str); 5] = [
        (|tree, id| tree.inode_mut(id).metadata.uid = 5, "owner 5:0"),
        (
            |tree, id| tree.inode_mut(id).metadata.mode = 0o755,
            "mode 755",
        ),
        (
            |tree, id| {
                let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
                xattrs.insert(b"user.a"[..].into(), Box::default());
            },
            "user.a",
        ),
        (
            |tree, id| tree.link(InodeId::ROOT, b"again", id).unwrap(),
            "hard link",
        ),
        (
            |tree, id| tree.inode_mut(id).metadata.times.modified = Timestamp::from_seconds(0),
            "1980",
        ),
    ];
    for (change, expected) in changes {
        let mut tree = Tree::new(metadata(0o755));
        let id = file(&mut tree, InodeId::ROOT, "a", b"text".to_vec());
        change(&mut tree, id);
        let error = refused(&tree, &Options::default());
        assert!(error.contains(expected), "{error}");
        let options = Options {
            permissions: Permissions::Dropped,
            time: Some(Timestamp::from_seconds(TIME)),
            ..Options::default()
        };
        let output = tempfile::tempfile().unwrap();
        let size = write(&tree, &options, &output).unwrap();
        let volume = read(Arc::new(output), size, &ReadOptions::default()).unwrap();
        assert_eq!(volume.tree.paths().len(), tree.paths().len());
    }
}

#[test]
fn impossible_options_are_refused() {
    let tree = sample();
    let with = |change: fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        refused(&tree, &options)
    };
    for (error, expected) in [
        (with(|options| options.sector_bytes = 513), "sectors have"),
        (
            with(|options| options.size_bytes = Some(1000)),
            "whole sectors",
        ),
        (
            with(|options| options.size_bytes = Some(1 << 50)),
            "4294967295 sectors",
        ),
        (with(|options| options.size_bytes = Some(512)), "too few"),
        (
            with(|options| options.cluster_bytes = Some(768)),
            "power of two",
        ),
        (
            with(|options| options.cluster_bytes = Some(256)),
            "1 to 128",
        ),
        (with(|options| options.label = "lower".into()), "label"),
        (
            with(|options| options.label = "TWELVE BYTES".into()),
            "label",
        ),
        (
            with(|options| options.size_bytes = Some(200 << 10)),
            "too small",
        ),
        (
            with(|options| {
                options.fat_type = Some(FatType::Fat32);
                options.size_bytes = Some(20 << 20);
            }),
            "too few",
        ),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn folders_have_a_limit() {
    let mut tree = Tree::new(metadata(0o755));
    let many = folder(&mut tree, InodeId::ROOT, "many");
    for number in 0..20_000 {
        file(
            &mut tree,
            many,
            &format!("equal beginning {number}"),
            Vec::new(),
        );
    }
    let output = tempfile::tempfile().unwrap();
    let size = write(&tree, &Options::default(), &output).unwrap();
    let volume = read(Arc::new(output), size, &ReadOptions::default()).unwrap();
    assert_eq!(volume.tree.paths().len(), 20_002);
    for number in 20_000..30_000 {
        file(
            &mut tree,
            many,
            &format!("equal beginning {number}"),
            Vec::new(),
        );
    }
    let error = refused(&tree, &Options::default());
    assert!(
        error.contains("'/many/': FAT cannot hold a folder of more"),
        "{error}"
    );
}

/// A small volume with a chain of several pieces, and where its table, root and data are.
fn small() -> (Vec<u8>, usize, usize, usize) {
    use std::io::{Read, Seek};
    let mut tree = Tree::new(metadata(0o755));
    let dir = folder(&mut tree, InodeId::ROOT, "DIR");
    file(&mut tree, dir, "a long name", noise(1500));
    file(&mut tree, InodeId::ROOT, "FILE", noise(2000));
    let options = Options {
        size_bytes: Some(100 << 10),
        cluster_bytes: Some(512),
        label: "X".into(),
        ..Options::default()
    };
    let mut file = tempfile::tempfile().unwrap();
    write(&tree, &options, &file).unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let field = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let (fat, root) = (512, 512 + 2 * field(22) * 512);
    (bytes.clone(), fat, root, root + field(17) * 32)
}

fn read_bytes(bytes: &[u8]) -> Result<Volume, FatError> {
    let size = u64::try_from(bytes.len()).unwrap();
    read(Arc::new(bytes.to_vec()), size, &ReadOptions::default())
}

#[test]
fn hostile_images_are_refused_by_name() {
    let (good, fat, root, _) = small();
    // In the root: the label, the folder (cluster 2), the file (clusters 3 to 6).
    let (entry, long) = (root + 2 * 32, 7);
    assert!(read_bytes(&good).is_ok());
    let set12 = |bytes: &mut [u8], cluster: usize, number: u16| {
        let at = fat + cluster * 3 / 2;
        let both = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let new = if cluster % 2 == 1 {
            both & 0x000F | number << 4
        } else {
            both & 0xF000 | number
        };
        bytes[at..at + 2].copy_from_slice(&new.to_le_bytes());
    };
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        read_bytes(&bytes).map_or_else(|error| error.to_string(), |_| "fine".into())
    };
    for (said, expected) in [
        (with(&|bytes| set12(bytes, 3, 3)), "used twice"),
        (with(&|bytes| set12(bytes, 5, 3)), "too long"),
        (with(&|bytes| set12(bytes, 2, 2)), "used twice"),
        (with(&|bytes| set12(bytes, 3, long)), "used twice"),
        (with(&|bytes| set12(bytes, 3, 0)), "free or bad"),
        (with(&|bytes| set12(bytes, 3, 0xFF7)), "free or bad"),
        (with(&|bytes| set12(bytes, 3, 0xFF0)), "does not exist"),
        (with(&|bytes| set12(bytes, 4, 0xFFF)), "too short"),
        (with(&|bytes| set12(bytes, 6, 100)), "too long"),
        (with(&|bytes| bytes[entry + 26] = 0), "does not exist"),
        (
            with(&|bytes| bytes[entry + 28..entry + 32].fill(0)),
            "too long",
        ),
        (with(&|bytes| bytes[entry] = b'/'), "invalid file name"),
        (
            with(&|bytes| bytes.truncate(50 << 10)),
            "shorter than the volume",
        ),
        (with(&|bytes| bytes[13] = 3), "clusters is impossible"),
        (with(&|bytes| bytes[11] = 1), "sectors is impossible"),
        (with(&|bytes| bytes[16] = 0), "no tables"),
        (with(&|bytes| bytes[14..16].fill(0xFF)), "no clusters"),
        (with(&|bytes| bytes[17..19].fill(0)), "root folder"),
        (with(&|bytes| bytes[510] = 0), "no boot sector"),
    ] {
        assert!(said.contains(expected), "expected {expected}: {said}");
    }
}

#[test]
fn one_byte_mutations_never_panic() {
    let (good, _, _, data) = small();
    let mut bytes = good.clone();
    for at in (0..data + 1024).filter(|at| good[at / 64 * 64..][..64] != [0; 64]) {
        for value in [0, 1, 2, 0x0F, 0x7F, 0xE5, 0xFF] {
            let former = std::mem::replace(&mut bytes[at], value);
            if let Ok(volume) = read_bytes(&bytes) {
                let _ = described(&volume.tree);
            }
            bytes[at] = former;
        }
    }
}

#[test]
fn content_refers_to_the_image() {
    let (bytes, ..) = small();
    let image: Arc<dyn Blob> = Arc::new(bytes);
    let volume = read(Arc::clone(&image), 100 << 10, &ReadOptions::default()).unwrap();
    let id = volume.tree.lookup(b"/FILE").unwrap();
    let Kind::File(content) = &volume.tree.inode(id).kind else {
        panic!("no file");
    };
    assert_eq!(content.segments.len(), 1);
    assert!(Arc::ptr_eq(
        volume.tree.blob(content.segments[0].blob),
        &image
    ));
}
