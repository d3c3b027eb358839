//! Images as the host's kernel reads them: only as root.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::UNIX_EPOCH;

use super::*;
use crate::testing::{escape, is_root, skip};
use crate::tree::{Name, display};

/// A mounted image; unmounted when dropped.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        // Busy for a moment where another test starts a program, which inherits open files until
        // it runs.
        let unmounted = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let output = Command::new("umount").arg(&self.0).output();
            output.is_ok_and(|output| output.status.success())
        });
        assert!(unmounted || std::thread::panicking());
    }
}

/// Mounts an image; `None`, with a message, where this machine cannot.
fn mount(image: &Image, options: &str) -> Option<Mount> {
    if !is_root() {
        skip("mounting needs root");
        return None;
    }
    let point = image.folder.path().join("mount");
    if !point.exists() {
        fs::create_dir(&point).unwrap();
    }
    let output = Command::new("mount")
        .args(["-t", "ext4", "-o", options])
        .arg(image.path())
        .arg(&point)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("loop device") || errors.contains("permission denied") {
        let required = std::env::var_os("COOP_REQUIRE_ORACLES").is_some_and(|value| value == "1");
        assert!(!required, "{errors}");
        skip(&format!("no loop mounts here: {errors}"));
        return None;
    }
    assert!(output.status.success(), "{errors}");
    Some(Mount(point))
}

fn stamp(seconds: i64, nanoseconds: i64) -> Timestamp {
    Timestamp {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap(),
    }
}

fn xattrs(path: &Path) -> std::collections::BTreeMap<Name, Box<[u8]>> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
            (name.into(), value[..length].into())
        })
        .collect()
}

/// Compares everything that the tree says with what the kernel says.
pub(super) fn compare(tree: &Tree, mount: &Path) {
    let counts = tree.name_counts();
    let mut subfolders = std::collections::BTreeMap::new();
    for (path, id) in tree.paths() {
        if tree.entries(id).is_some() {
            let parent = Path::new(OsStr::from_bytes(&path)).parent();
            let parent = parent.map(|parent| parent.as_os_str().as_bytes().to_vec());
            *subfolders
                .entry(parent.unwrap_or_default())
                .or_insert(0_u64) += 1;
        }
    }
    for (path, id) in tree.paths() {
        let name = escape(&path);
        let host = mount.join(OsStr::from_bytes(&path[1..]));
        let inode = tree.inode(id);
        let found = fs::symlink_metadata(&host).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = &inode.metadata;
        let times = expected.times;
        assert_eq!(
            stamp(found.mtime(), found.mtime_nsec()),
            times.modified,
            "{name}: mtime"
        );
        assert_eq!(
            stamp(found.atime(), found.atime_nsec()),
            times.accessed,
            "{name}: atime"
        );
        assert_eq!(
            stamp(found.ctime(), found.ctime_nsec()),
            times.changed,
            "{name}: ctime"
        );
        if times.created.seconds >= 0 {
            let created = found.created().unwrap().duration_since(UNIX_EPOCH).unwrap();
            let created = stamp(
                created.as_secs().try_into().unwrap(),
                created.subsec_nanos().into(),
            );
            assert_eq!(created, times.created, "{name}: crtime");
        }
        assert_eq!(
            (found.uid(), found.gid()),
            (expected.uid, expected.gid),
            "{name}: owner"
        );
        assert_eq!(
            found.mode() & 0o7777,
            u32::from(expected.mode),
            "{name}: mode"
        );
        assert_eq!(xattrs(&host), expected.xattrs, "{name}: attributes");
        let links = match &inode.kind {
            Kind::Directory(_) => 2 + subfolders.get(&path).copied().unwrap_or(0),
            _ => u64::from(counts[id.index()]),
        };
        let made = u64::from(path == b"/" && tree.child(id, b"lost+found").is_none());
        assert_eq!(found.nlink(), links + made, "{name}: links");
        compare_kind(tree, id, &host, &found, &name);
    }
}

fn compare_kind(tree: &Tree, id: InodeId, host: &Path, found: &fs::Metadata, name: &str) {
    let kind = found.file_type();
    let device = (
        rustix::fs::major(found.rdev()),
        rustix::fs::minor(found.rdev()),
    );
    match &tree.inode(id).kind {
        Kind::Directory(entries) => {
            let names: std::collections::BTreeSet<Vec<u8>> = fs::read_dir(host)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
                .filter(|entry| id != InodeId::ROOT || entry != b"lost+found")
                .collect();
            let expected = entries.keys().map(|entry| entry.to_vec());
            let expected = expected.filter(|entry| id != InodeId::ROOT || entry != b"lost+found");
            assert!(expected.eq(names), "{name}: names");
        }
        Kind::File(content) => {
            assert!(kind.is_file(), "{name}");
            assert_eq!(found.size(), content.size, "{name}: size");
            if content.size < 1 << 28 {
                let bytes = fs::read(host).unwrap();
                assert!(
                    bytes == tree.read_file(id, 1 << 28).unwrap(),
                    "{name}: content"
                );
            }
        }
        Kind::Symlink(target) => {
            let link = fs::read_link(host).unwrap();
            assert_eq!(link.as_os_str().as_bytes(), &**target, "{name}");
        }
        Kind::CharDevice { major, minor } => {
            assert!(
                kind.is_char_device() && device == (*major, *minor),
                "{name}"
            );
        }
        Kind::BlockDevice { major, minor } => {
            assert!(
                kind.is_block_device() && device == (*major, *minor),
                "{name}"
            );
        }
        Kind::Fifo => assert!(kind.is_fifo(), "{name}"),
        Kind::Socket => assert!(kind.is_socket(), "{name}"),
    }
}

/// Mounts read-only and compares; then mounts for writing, writes into every folder that is not
/// too deep, removes again, and lets e2fsck look at the result.
pub(super) fn check(tree: &Tree, image: &Image) {
    check_with(tree, image, |mounted| compare(tree, mounted));
}

/// Like [`check`], for a tree whose content cannot be read any more: `look` compares.
pub(super) fn check_with(tree: &Tree, image: &Image, look: impl FnOnce(&Path)) {
    fsck(image);
    let Some(mounted) = mount(image, "ro,noload,noatime") else {
        return;
    };
    look(&mounted.0);
    drop(mounted);
    let Some(mounted) = mount(image, "rw,noatime") else {
        return;
    };
    for (path, id) in tree.paths().into_iter().take(300) {
        if tree.entries(id).is_some() && image.summary.blocks_free > 2000 {
            let folder = mounted.0.join(OsStr::from_bytes(&path[1..]));
            let file = folder.join("written by the kernel");
            fs::write(&file, b"text").unwrap_or_else(|error| panic!("{}: {error}", display(&path)));
            fs::create_dir(folder.join("folder of the kernel")).unwrap();
        }
    }
    fs::remove_file(mounted.0.join("written by the kernel")).ok();
    drop(mounted);
    fsck(image);
}

fn acl() -> Box<[u8]> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (0x01_u16, 6_u16, u32::MAX),
        (0x02, 6, 1000),
        (0x04, 4, u32::MAX),
        (0x10, 6, u32::MAX),
        (0x20, 4, u32::MAX),
    ] {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value.into()
}

/// A file capability: CAP_NET_RAW, permitted and effective.
const CAPABILITY: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Attributes with their values.
type Set<'s> = &'s [(&'s [u8], Box<[u8]>)];

/// One of everything.
fn everything(long_link: usize) -> Tree {
    let mut random = Random(7);
    let mut root = metadata(0o755);
    root.times.modified = Timestamp::from_seconds(1);
    let mut tree = Tree::new(root);
    let folder = add_directory(&mut tree, InodeId::ROOT, b"folder");
    let deep = add_directory(&mut tree, folder, &[b'x'; 255]);
    let file = add_file(&mut tree, deep, b"not \xff UTF-8 \n", random.bytes(70_000));
    tree.link(InodeId::ROOT, b"hard link", file).unwrap();
    tree.link(folder, b"another", file).unwrap();
    add_file(&mut tree, folder, b"empty", Vec::new());
    for (name, length) in [(&b"short"[..], 59), (b"long", 60), (b"longer", long_link)] {
        let target = vec![b't'; length].into();
        add(&mut tree, folder, name, 0o777, Kind::Symlink(target));
    }
    for (at, (major, minor)) in [
        (0, 0),
        (1, 3),
        (255, 255),
        (259, 7),
        (8, 70_000),
        (4095, 1_048_575),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("char{at}");
        add(
            &mut tree,
            folder,
            name.as_bytes(),
            0o600,
            Kind::CharDevice { major, minor },
        );
        let name = format!("block{at}");
        add(
            &mut tree,
            folder,
            name.as_bytes(),
            0o660,
            Kind::BlockDevice { major, minor },
        );
    }
    add(&mut tree, folder, b"pipe", 0o644, Kind::Fifo);
    add(&mut tree, folder, b"socket", 0o755, Kind::Socket);
    let odd = add(&mut tree, folder, b"odd", 0o7777, Kind::Fifo);
    tree.inode_mut(odd).metadata.uid = 4_000_000_000;
    tree.inode_mut(odd).metadata.gid = 65_536;
    for (at, seconds) in [
        -2_147_483_648,
        -1,
        0,
        2_147_483_648,
        4_294_967_296,
        15_032_385_535,
    ]
    .into_iter()
    .enumerate()
    {
        let id = add_file(&mut tree, folder, format!("time{at}").as_bytes(), vec![1]);
        let time = |nanoseconds| Timestamp {
            seconds,
            nanoseconds,
        };
        tree.inode_mut(id).metadata.times = Times {
            modified: time(1),
            accessed: time(999_999_999),
            changed: time(500),
            created: time(77),
        };
    }
    let sets: [Set<'_>; 6] = [
        &[(b"user.small", vec![1, 2, 3].into())],
        &[(b"user.empty", Box::default())],
        &[
            (b"security.capability", CAPABILITY.into()),
            (b"trusted.overlay.opaque", (*b"y").into()),
        ],
        &[
            (b"user.large", vec![9; 700].into()),
            (b"user.b", vec![8; 50].into()),
            (b"user.a", vec![7; 50].into()),
        ],
        &[
            (b"user.large", vec![9; 700].into()),
            (b"user.b", vec![8; 50].into()),
            (b"user.a", vec![7; 50].into()),
        ],
        &[
            (b"user.name\xc3\xbc", vec![5; 90].into()),
            (b"security.ima", vec![4; 33].into()),
        ],
    ];
    for (at, set) in sets.into_iter().enumerate() {
        let id = add_file(
            &mut tree,
            folder,
            format!("attributes{at}").as_bytes(),
            vec![1],
        );
        let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
        xattrs.extend(
            set.iter()
                .map(|(name, value)| ((*name).into(), value.clone())),
        );
    }
    let id = add(
        &mut tree,
        folder,
        b"acl",
        0o664,
        Kind::Directory(Default::default()),
    );
    let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
    xattrs.insert((*b"system.posix_acl_access").into(), acl());
    xattrs.insert((*b"system.posix_acl_default").into(), acl());
    sparse_file(&mut tree, b"sparse", 40, 10_000);
    let blob = tree
        .add_blob(std::sync::Arc::new(random.bytes(9000)))
        .unwrap();
    let segment = |offset, length, blob_offset| Segment {
        offset,
        length,
        blob,
        blob_offset,
    };
    let content = Content {
        size: 1 << 40,
        segments: Box::new([
            segment(1 << 39, 3000, 10),
            segment((1 << 39) + 3000, 5000, 1),
        ]),
    };
    add(&mut tree, folder, b"huge hole", 0o644, Kind::File(content));
    let content = Content {
        size: 40_000,
        segments: Box::new([
            segment(5, 1, 0),
            segment(4095, 3, 7),
            segment(20_000, 9000, 0),
        ]),
    };
    add(&mut tree, folder, b"patches", 0o644, Kind::File(content));
    tree
}

#[test]
fn one_of_everything() {
    for (block_size, long_link) in [
        (BlockSize::Kib1, 1023),
        (BlockSize::Kib2, 2047),
        (BlockSize::Kib4, 4095),
    ] {
        let tree = everything(long_link);
        let options = Options {
            block_size,
            size: Size::Bytes(64 << 20),
            ..options()
        };
        let image = image(&tree, &options);
        check(&tree, &image);
    }
}

#[test]
fn large_folders_are_found_by_name() {
    for (block_size, count) in [(BlockSize::Kib1, 9000), (BlockSize::Kib4, 3000)] {
        let mut tree = Tree::new(metadata(0o755));
        let folder = add_directory(&mut tree, InodeId::ROOT, b"large");
        let mut random = Random(3);
        for at in 0..count {
            let mut name = format!("{at:x}-").into_bytes();
            let length = random.below(80);
            let letters = random.bytes(length).into_iter();
            name.extend(letters.map(|byte| if matches!(byte, 0 | b'/') { b'_' } else { byte }));
            add(&mut tree, folder, &name, 0o644, Kind::Fifo);
        }
        let options = Options {
            block_size,
            size: Size::with_free_percent(60),
            ..options()
        };
        let image = image(&tree, &options);
        check(&tree, &image);
    }
}

#[test]
fn random_trees() {
    for seed in 1..13 {
        let mut random = Random(seed);
        let tree = random_tree(&mut random);
        let options = random_options(&mut random);
        check(&tree, &image(&tree, &options));
    }
}

fn random_options(random: &mut Random) -> Options {
    let block_sizes = [BlockSize::Kib1, BlockSize::Kib2, BlockSize::Kib4];
    let journals = [Journal::Auto, Journal::None, Journal::Blocks(1500)];
    let inodes = [Inodes::Auto, Inodes::PerBytes(20_000), Inodes::Count(5000)];
    let free_percent = u8::try_from(random.below(70)).unwrap();
    let pick = |random: &mut Random| usize::try_from(random.below(3)).unwrap();
    Options {
        block_size: block_sizes[pick(random)],
        journal: journals[pick(random)],
        inodes: inodes[pick(random)],
        size: match random.below(3) {
            0 => Size::Bytes((60 << 20) + random.below(40 << 20)),
            _ => Size::with_free_percent(free_percent),
        },
        reserved_percent: u8::try_from(random.below(10)).unwrap(),
        ..options()
    }
}

fn random_tree(random: &mut Random) -> Tree {
    let mut tree = Tree::new(metadata(0o755));
    let mut folders = vec![InodeId::ROOT];
    let mut files = Vec::new();
    for at in 0..random.below(400) {
        let parent = folders[usize::try_from(random.below(folders.len() as u64)).unwrap()];
        let length = usize::try_from(random.below(200)).unwrap();
        let name = format!("{at}{}", "n".repeat(length));
        let name = name.as_bytes();
        let id = match random.below(10) {
            0..3 => {
                let id = add_directory(&mut tree, parent, name);
                folders.push(id);
                id
            }
            3 => {
                let target = vec![b'l'; 1 + usize::try_from(random.below(900)).unwrap()];
                add(&mut tree, parent, name, 0o777, Kind::Symlink(target.into()))
            }
            4 if !files.is_empty() => {
                let at = usize::try_from(random.below(files.len() as u64)).unwrap();
                tree.link(parent, name, files[at]).unwrap();
                files[at]
            }
            5 => {
                let content = random_content(&mut tree, random);
                add(&mut tree, parent, name, 0o600, Kind::File(content))
            }
            _ => {
                let limit = 2 << random.below(17);
                let size = random.below(limit);
                let bytes = random.bytes(size);
                let id = add_file(&mut tree, parent, name, bytes);
                files.push(id);
                id
            }
        };
        if random.below(6) == 0 && !matches!(tree.inode(id).kind, Kind::Symlink(_)) {
            for _ in 0..random.below(4) {
                let name = format!("user.{}", random.below(20)).into_bytes();
                let length = random.below(200);
                let value = random.bytes(length).into();
                tree.inode_mut(id)
                    .metadata
                    .xattrs
                    .insert(name.into(), value);
            }
        }
    }
    tree
}

fn random_content(tree: &mut Tree, random: &mut Random) -> Content {
    let bytes = random.bytes(50_000);
    let blob = tree.add_blob(std::sync::Arc::new(bytes)).unwrap();
    let mut segments = Vec::new();
    let mut offset = 0;
    for _ in 0..random.below(30) {
        let hole = 1 << random.below(16);
        offset += random.below(hole);
        let length = 1 + random.below(20_000);
        let blob_offset = random.below(50_000 - length);
        segments.push(Segment {
            offset,
            length,
            blob,
            blob_offset,
        });
        offset += length;
    }
    Content {
        size: offset + random.below(10_000),
        segments: segments.into(),
    }
}
