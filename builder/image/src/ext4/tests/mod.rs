//! Images against independent tools: e2fsck, debugfs, resize2fs and the kernel.

mod features;
mod kernel;
mod refusals;
mod shapes;
mod sizes;
mod stream;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::{BlockSize, Inodes, Journal, Options, Size, Summary, write};
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
