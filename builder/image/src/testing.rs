//! Helpers of this crate's tests: oracles, and descriptions of trees and folders to compare.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::tree::{Kind, Name, Tree};

/// Whether this test runs as root, which it needs to make devices and foreign owners.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a program is there; a missing one is a failure where `COOP_REQUIRE_ORACLES=1`.
pub(crate) fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        let required = std::env::var_os("COOP_REQUIRE_ORACLES").is_some_and(|value| value == "1");
        assert!(!required, "{program} is required and missing");
        skip(&format!("{program} is missing"));
    }
    found
}

/// Says on the test's standard error that something was left out.
pub(crate) fn skip(reason: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// Runs a shell script in a folder; it must succeed. Gives its standard output.
pub(crate) fn sh(folder: &Path, script: &str) -> Vec<u8> {
    let output = Command::new("bash")
        .args(["-euc", script])
        .current_dir(folder)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// What a comparison looks at beside kind, mode, modification time and content.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    pub(crate) owners: bool,
    pub(crate) xattrs: bool,
    pub(crate) root: bool,
}

/// One line for each path.
pub(crate) type Description = BTreeMap<String, String>;

pub(crate) fn describe_tree(tree: &Tree, look: Look) -> Description {
    let counts = tree.name_counts();
    let mut lines = Description::new();
    for (path, id) in tree.paths() {
        let inode = tree.inode(id);
        let what = match &inode.kind {
            Kind::Directory(_) => "directory".to_string(),
            Kind::File(content) => {
                let bytes = tree.read_file(id, 1 << 30).unwrap();
                assert_eq!(bytes.len() as u64, content.size);
                format!("file {} links {}", digest(&bytes), counts[id.index()])
            }
            Kind::Symlink(target) => format!("symlink {}", escape(target)),
            Kind::CharDevice { major, minor } => format!("char {major}:{minor}"),
            Kind::BlockDevice { major, minor } => format!("block {major}:{minor}"),
            Kind::Fifo => "fifo".into(),
            Kind::Socket => "socket".into(),
        };
        let metadata = &inode.metadata;
        let modified = metadata.times.modified;
        let xattrs = metadata.xattrs.clone();
        let is_symlink = matches!(inode.kind, Kind::Symlink(_));
        line(
            &mut lines,
            &path,
            look,
            what,
            // Linux has no modes for symbolic links.
            (!is_symlink).then_some(u32::from(metadata.mode)),
            (metadata.uid, metadata.gid),
            (modified.seconds, modified.nanoseconds),
            xattrs,
        );
    }
    lines
}

pub(crate) fn describe_folder(root: &Path, look: Look) -> Description {
    let mut lines = Description::new();
    let mut pending = vec![(Vec::new(), root.to_path_buf())];
    while let Some((path, host)) = pending.pop() {
        let metadata = fs::symlink_metadata(&host).unwrap();
        let kind = metadata.file_type();
        let (major, minor) = (
            rustix::fs::major(metadata.rdev()),
            rustix::fs::minor(metadata.rdev()),
        );
        let what = if kind.is_dir() {
            for entry in fs::read_dir(&host).unwrap() {
                let entry = entry.unwrap();
                let mut child: Vec<u8> = path.clone();
                child.push(b'/');
                child.extend(entry.file_name().as_bytes());
                pending.push((child, entry.path()));
            }
            "directory".to_string()
        } else if kind.is_file() {
            let bytes = fs::read(&host).unwrap();
            format!("file {} links {}", digest(&bytes), metadata.nlink())
        } else if kind.is_symlink() {
            let target = fs::read_link(&host).unwrap();
            format!("symlink {}", escape(target.as_os_str().as_bytes()))
        } else if kind.is_char_device() {
            format!("char {major}:{minor}")
        } else if kind.is_block_device() {
            format!("block {major}:{minor}")
        } else if kind.is_fifo() {
            "fifo".into()
        } else {
            "socket".into()
        };
        let nanoseconds = u32::try_from(metadata.mtime_nsec()).unwrap();
        line(
            &mut lines,
            if path.is_empty() { b"/" } else { &path },
            look,
            what,
            (!kind.is_symlink()).then_some(metadata.mode() & 0o7777),
            (metadata.uid(), metadata.gid()),
            (metadata.mtime(), nanoseconds),
            xattrs_of(&host),
        );
    }
    lines
}

/// Compares, and shows only what differs.
pub(crate) fn assert_same(found: &Description, expected: &Description, what: &str) {
    let paths: std::collections::BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let differences: Vec<String> = paths
        .into_iter()
        .filter(|path| found.get(*path) != expected.get(*path))
        .map(|path| {
            let show = |line: Option<&String>| line.cloned().unwrap_or_else(|| "nothing".into());
            let (found, expected) = (show(found.get(path)), show(expected.get(path)));
            format!("{path}\n  found    {found}\n  expected {expected}")
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{what}:\n{}",
        differences.join("\n")
    );
}

#[allow(clippy::too_many_arguments)]
fn line(
    lines: &mut Description,
    path: &[u8],
    look: Look,
    what: String,
    mode: Option<u32>,
    owner: (u32, u32),
    modified: (i64, u32),
    xattrs: BTreeMap<Name, Box<[u8]>>,
) {
    if path == b"/" && !look.root {
        return;
    }
    let mut text = what;
    if let Some(mode) = mode {
        text.push_str(&format!(" mode {mode:o}"));
    }
    text.push_str(&format!(" time {}.{:09}", modified.0, modified.1));
    if look.owners {
        text.push_str(&format!(" owner {}:{}", owner.0, owner.1));
    }
    if look.xattrs {
        for (name, value) in xattrs {
            text.push_str(&format!(" {}={}", escape(&name), escape(&value)));
        }
    }
    lines.insert(escape(path), text);
}

fn xattrs_of(path: &Path) -> BTreeMap<Name, Box<[u8]>> {
    let mut names = vec![0; 64 << 10];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names) else {
        return BTreeMap::new();
    };
    let names = names[..length].split(|byte| *byte == 0);
    names
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
            value.truncate(length);
            (name.into(), value.into())
        })
        .collect()
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(bytes);
    let short: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{} {short}", bytes.len())
}

/// Bytes as readable text, without loss.
pub(crate) fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A name that is not UTF-8.
fn odd_name(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// A folder with everything that an unprivileged, or a privileged, user can make.
pub(crate) fn make_source(folder: &Path) {
    fs::create_dir(folder.join("src")).unwrap();
    let src = folder.join("src");
    sh(
        &src,
        r#"
        umask 022
        mkdir -p usr/bin usr/lib empty deep/$(printf 'long-directory-name-%03d/' $(seq 1 12))
        echo hello > usr/bin/hello; chmod 4755 usr/bin/hello
        ln usr/bin/hello usr/bin/hallo
        ln -s usr/bin bin; ln -s /absolute/target abs; ln -s "$(printf 'x%.0s' $(seq 1 300))" long-link
        : > nothing; chmod 400 nothing
        head -c 100000 /dev/urandom > usr/lib/blob
        head -c 512 /dev/zero > usr/lib/one-block
        printf 'deep' > deep/$(printf 'long-directory-name-%03d/' $(seq 1 12))file
        printf n > "$(printf 'n%.0s' $(seq 1 255))"
        mkfifo pipe
        truncate -s 1M holes; printf data | dd of=holes bs=1 seek=300000 conv=notrunc status=none
        printf tail | dd of=holes bs=1 seek=1048572 conv=notrunc status=none
        truncate -s 300K hole-only
        touch -d '1969-12-31 23:59:58.25 UTC' before-epoch
        touch -d '2100-01-01 00:00:00.123456789 UTC' after-2038
        chmod 1777 empty
        "#,
    );
    fs::write(src.join(odd_name(b"latin-\xe9\xff")), "x").unwrap();
    if is_root() {
        sh(
            &src,
            r"
            chmod 0 nothing
            mknod null c 1 3; mknod loop7 b 7 300
            echo a > owned; chown 1234:5678 owned
            echo b > big-owner; chown 3000000:4000000000 big-owner
            chown -h 7:8 abs
            ",
        );
    }
}

/// Sets an attribute where the file system of the tests can hold it.
pub(crate) fn set_xattr(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).is_ok()
}
