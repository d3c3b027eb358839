//! Images against independent tools: e2fsck, debugfs, dumpe2fs and the kernel.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::*;
use crate::tree::{Content, Inode, InodeId, Kind, Metadata, Segment, Times, Timestamp, Tree};

/// Small, fast, and the same everywhere (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length)
            .map(|_| u8::try_from(self.below(256)).unwrap())
            .collect()
    }
}

fn metadata(mode: u16) -> Metadata {
    Metadata {
        mode,
        times: Times::all(Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 123_456_789,
        }),
        ..Metadata::default()
    }
}

fn options() -> Options {
    Options::new(
        [0x42; 16],
        [0x17; 16],
        Timestamp::from_seconds(1_700_000_000),
    )
}

fn add(tree: &mut Tree, parent: InodeId, name: &[u8], mode: u16, kind: Kind) -> InodeId {
    let metadata = metadata(mode);
    let id = tree.add_inode(Inode { metadata, kind }).unwrap();
    tree.link(parent, name, id).unwrap();
    id
}

fn add_file(tree: &mut Tree, parent: InodeId, name: &[u8], bytes: Vec<u8>) -> InodeId {
    let content = tree.add_bytes(bytes).unwrap();
    add(tree, parent, name, 0o644, Kind::File(content))
}

fn add_directory(tree: &mut Tree, parent: InodeId, name: &[u8]) -> InodeId {
    add(
        tree,
        parent,
        name,
        0o755,
        Kind::Directory(Default::default()),
    )
}

/// An image in a folder of its own.
struct Image {
    folder: TempDir,
    summary: Summary,
}

impl Image {
    fn path(&self) -> PathBuf {
        self.folder.path().join("image")
    }
}

fn image(tree: &Tree, options: &Options) -> Image {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let output = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let summary = write(tree, options, &output).unwrap();
    Image { folder, summary }
}

fn refused(tree: &Tree, options: &Options) -> String {
    let output = tempfile::tempfile().unwrap();
    let error = write(tree, options, &output).unwrap_err();
    assert_eq!(
        output.metadata().unwrap().len(),
        0,
        "written before refused"
    );
    error.to_string()
}

/// Runs an oracle; `None`, with a message, where it is not installed.
fn oracle(program: &str, arguments: &[&str]) -> Option<Output> {
    let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .map(|folder| Path::new(folder).join(program))
        .into_iter()
        .find(|path| path.exists());
    let Some(path) = found else {
        let required = std::env::var_os("COOP_REQUIRE_ORACLES").is_some_and(|value| value == "1");
        assert!(!required, "{program} is not installed");
        eprintln!("skipped: {program} is not installed");
        return None;
    };
    Some(Command::new(path).args(arguments).output().unwrap())
}

fn fsck(image: &Image) {
    fsck_path(&image.path());
}

fn fsck_path(path: &Path) {
    let Some(output) = oracle("e2fsck", &["-fn", path.to_str().unwrap()]) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let odd: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("Pass ") && !line.contains(" files ("))
        .collect();
    assert!(odd.is_empty(), "{text}");
}

fn debugfs(image: &Image, request: &str) -> Option<String> {
    let path = image.path();
    let output = oracle("debugfs", &["-R", request, path.to_str().unwrap()])?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn an_empty_tree() {
    let tree = Tree::new(metadata(0o755));
    for block_size in [BlockSize::Kib1, BlockSize::Kib2, BlockSize::Kib4] {
        for free_percent in [0, 20, 90] {
            let options = Options {
                block_size,
                size: Size::Auto { free_percent },
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
fn what_ext4_cannot_hold_is_refused() {
    type Change = fn(&mut Tree, InodeId);
    let cases: [(&str, Change); 14] = [
        (
            "'/d/f': the segments of its content are not in order",
            |tree, id| {
                let mut content = tree.add_bytes(vec![1; 10]).unwrap();
                content.size = 9;
                tree.inode_mut(id).kind = Kind::File(content);
            },
        ),
        (
            "'/d/f': 18014398509481984 bytes are more than ext4 can address",
            |tree, id| {
                let segments = Box::default();
                let size = 1 << 54;
                tree.inode_mut(id).kind = Kind::File(Content { size, segments });
            },
        ),
        ("'/d/f': invalid mode 0o10000", |tree, id| {
            tree.inode_mut(id).metadata.mode = 0o10000;
        }),
        (
            "'/d/f': access time 15032385536.000000000 is outside",
            |tree, id| {
                tree.inode_mut(id).metadata.times.accessed =
                    Timestamp::from_seconds(15_032_385_536);
            },
        ),
        (
            "'/d/f': modification time -2147483649.000000000 is outside",
            |tree, id| {
                tree.inode_mut(id).metadata.times.modified =
                    Timestamp::from_seconds(-2_147_483_649);
            },
        ),
        ("'/d/f': device number 4096:0 is too large", |tree, id| {
            let (major, minor) = (4096, 0);
            tree.inode_mut(id).kind = Kind::CharDevice { major, minor };
        }),
        (
            "'/d/f': invalid symbolic link target of 4096 bytes (limit: 4095",
            |tree, id| {
                tree.inode_mut(id).kind = Kind::Symlink(vec![b'x'; 4096].into());
            },
        ),
        (
            "'/d/f': invalid symbolic link target of 0 bytes",
            |tree, id| {
                tree.inode_mut(id).kind = Kind::Symlink(Box::default());
            },
        ),
        (
            "'/d/f': ext4 cannot hold the extended attribute 'btrfs.x'",
            |tree, id| {
                let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
                xattrs.insert((*b"btrfs.x").into(), Box::default());
            },
        ),
        (
            "'/d/f': extended attribute 'user.x' of 4061 bytes leaves no room",
            |tree, id| {
                let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
                xattrs.insert((*b"user.x").into(), vec![1; 4061].into());
            },
        ),
        (
            "'/d/f': the value of 'system.posix_acl_access' is not an access",
            |tree, id| {
                let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
                xattrs.insert((*b"system.posix_acl_access").into(), vec![1; 4].into());
            },
        ),
        ("'/lost+found' is not a directory", |tree, id| {
            tree.link(InodeId::ROOT, b"lost+found", id).unwrap();
        }),
        (
            "'/': a directory cannot have more than one name",
            |tree, _| {
                tree.link(InodeId::ROOT, b"loop", InodeId::ROOT).unwrap();
            },
        ),
        (
            "'/d': a directory cannot have more than one name",
            |tree, _| {
                let folder = tree.lookup(b"/d").unwrap();
                tree.link(folder, b"loop", folder).unwrap();
            },
        ),
    ];
    for (expected, change) in cases {
        let mut tree = Tree::new(metadata(0o755));
        let folder = add_directory(&mut tree, InodeId::ROOT, b"d");
        let id = add_file(&mut tree, folder, b"f", vec![1; 10]);
        change(&mut tree, id);
        let error = refused(&tree, &options());
        assert!(error.starts_with(expected), "{error}\nnot\n{expected}");
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let mut tree = Tree::new(metadata(0o755));
    add_file(&mut tree, InodeId::ROOT, b"f", vec![1; 3 << 20]);
    for (bytes, expected) in [
        (0, "is too small"),
        (100_000, "is too small"),
        (3 << 20, "is too small"),
        (1 << 60, "is too large for ext4"),
    ] {
        let size = Size::Bytes(bytes);
        let error = refused(&tree, &Options { size, ..options() });
        assert!(error.contains(expected), "{bytes}: {error}");
    }
    let label = "a label that is too long".into();
    assert!(refused(&tree, &Options { label, ..options() }).contains("label"));
    let time = Timestamp::from_seconds(-1);
    assert!(refused(&tree, &Options { time, ..options() }).contains("before 1970"));
    let journal = Journal::Blocks(1023);
    assert!(
        refused(
            &tree,
            &Options {
                journal,
                ..options()
            }
        )
        .contains("journal")
    );
}

#[test]
fn content_that_ends_early_is_named() {
    let mut tree = Tree::new(metadata(0o755));
    let mut content = tree.add_bytes(vec![1; 10]).unwrap();
    content.size = 11;
    content.segments[0].length = 11;
    add(&mut tree, InodeId::ROOT, b"f", 0o644, Kind::File(content));
    let output = tempfile::tempfile().unwrap();
    let error = write(&tree, &options(), &output).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the content of '/f'");
}

/// A file of `segments` runs of one byte, each in a block of its own with a hole behind it.
fn sparse_file(tree: &mut Tree, name: &[u8], segments: u64, step: u64) {
    let blob = tree.add_blob(std::sync::Arc::new(vec![b'x'; 1])).unwrap();
    let content = Content {
        size: segments * step,
        segments: (0..segments)
            .map(|at| Segment {
                offset: at * step + 100,
                length: 1,
                blob,
                blob_offset: 0,
            })
            .collect(),
    };
    add(tree, InodeId::ROOT, name, 0o644, Kind::File(content));
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
