use super::*;
use crate::compare::compare;
use crate::tree::{Kind, Timestamp};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

fn options() -> Options {
    Options {
        cross_mounts: false,
        xattrs: true,
        check: Arc::new(|| Ok(())),
    }
}

fn read_path(path: &Path) -> Result<Found, FolderError> {
    read(File::open(path).unwrap().into(), &options())
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    fs::create_dir_all(at("sub/inner")).unwrap();
    fs::write(at("sub/file"), "hello").unwrap();
    fs::hard_link(at("sub/file"), at("hard")).unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    symlink("/etc", at("linked-folder")).unwrap();
    fs::write(at("sub/empty"), "").unwrap();
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"odd\xff\n");
    fs::write(home.path().join(name), "odd").unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.write_all_at(b"data", 8 << 20).unwrap();
    sparse.set_len(64 << 20).unwrap();
    fs::set_permissions(at("sub"), fs::Permissions::from_mode(0o2750)).unwrap();
    let user = rustix::fs::XattrFlags::empty();
    // Not every file system of a test machine has attributes.
    let _ = rustix::fs::setxattr(at("sub/file"), "user.a", b"value", user);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    home
}

#[test]
fn a_tree_has_what_the_folder_has() {
    let home = home();
    let found = read_path(home.path()).unwrap();
    let tree = &found.tree;
    let at = |path: &str| tree.lookup(path.as_bytes()).unwrap();
    assert_eq!(at("/hard"), at("/sub/file"));
    let file = tree.inode(at("/hard"));
    let stat = fs::metadata(home.path().join("hard")).unwrap();
    assert_eq!(
        file.metadata.times.modified.seconds,
        std::os::unix::fs::MetadataExt::mtime(&stat)
    );
    assert_eq!(file.metadata.times.modified, file.metadata.times.created);
    assert_eq!(tree.read_file(at("/hard"), 10).unwrap(), b"hello");
    assert_eq!(tree.inode(at("/sub")).metadata.mode, 0o2750);
    assert!(
        matches!(&tree.inode(at("/link")).kind, Kind::Symlink(target) if &**target == b"/etc/passwd")
    );
    assert!(matches!(
        tree.inode(at("/linked-folder")).kind,
        Kind::Symlink(_)
    ));
    assert!(matches!(tree.inode(at("/fifo")).kind, Kind::Fifo));
    assert!(tree.lookup(b"/odd\xff\n").is_ok());
    let Kind::File(sparse) = &tree.inode(at("/sparse")).kind else {
        panic!("no file")
    };
    let stored: u64 = sparse.segments.iter().map(|segment| segment.length).sum();
    assert_eq!(sparse.size, 64 << 20);
    assert!(stored <= 1 << 20, "{stored}");
    if rustix::fs::lgetxattr(home.path().join("hard"), "user.a", &mut [0_u8; 9][..]).is_ok() {
        assert_eq!(&*file.metadata.xattrs[&b"user.a"[..]], b"value");
    }
}

#[test]
fn an_archive_of_the_folder_is_the_same_tree() {
    if !crate::testing::have("tar") {
        return;
    }
    let home = home();
    let archive = tempfile::tempdir().unwrap();
    let archive = archive.path().join("a.tar");
    let done = std::process::Command::new("tar")
        .args(["--format=pax", "--sparse", "--xattrs", "-cf"])
        .args([&archive, Path::new("-C"), home.path(), Path::new(".")])
        .status();
    assert!(done.unwrap().success());
    let mut tree = Tree::new(crate::tree::Metadata::default());
    let blob = tree
        .add_blob(Arc::new(File::open(&archive).unwrap()))
        .unwrap();
    crate::tar::read_blob(&mut tree, blob, &crate::tar::Options::default()).unwrap();
    let found = read_path(home.path()).unwrap();
    let ignore = BTreeSet::from([
        crate::compare::Field::Atime,
        crate::compare::Field::Ctime,
        crate::compare::Field::Crtime,
    ]);
    compare(&found.tree, &tree, &ignore, &mut |difference| {
        assert_eq!(difference.to_string(), "");
        ControlFlow::Continue(())
    })
    .unwrap();
}

#[test]
fn what_changes_meanwhile_is_an_error() {
    let home = home();
    let found = read_path(home.path()).unwrap();
    let id = found.tree.lookup(b"/hard").unwrap();
    let path = home.path().join("hard");
    fs::write(&path, "HELLO").unwrap();
    let later = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(5);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(later)
        .unwrap();
    let error = found.tree.read_file(id, 10).unwrap_err();
    assert!(error.to_string().contains("changed"), "{error}");
    let found = read_path(home.path()).unwrap();
    assert_eq!(
        found.tree.inode(id).metadata.times.modified,
        Timestamp::from_seconds(5)
    );
    fs::remove_dir_all(home.path().join("sub")).unwrap();
    symlink("/etc", home.path().join("sub")).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(found.tree.read_file(id, 10).is_err());
}

#[test]
fn a_folder_that_becomes_a_link_leads_nowhere() {
    let home = home();
    fs::create_dir(home.path().join("d")).unwrap();
    fs::write(home.path().join("d/passwd"), "x").unwrap();
    let found = read_path(home.path()).unwrap();
    let id = found.tree.lookup(b"/d/passwd").unwrap();
    fs::remove_dir_all(home.path().join("d")).unwrap();
    symlink("/etc", home.path().join("d")).unwrap();
    assert!(found.tree.read_file(id, 1 << 20).is_err());
}

#[test]
fn the_caller_can_stop_it() {
    let home = home();
    for index in 0..600 {
        fs::write(home.path().join(format!("n{index}")), "x").unwrap();
    }
    let stopped = Options {
        check: Arc::new(|| Err(io::Error::other("enough"))),
        ..options()
    };
    let error = read(File::open(home.path()).unwrap().into(), &stopped).unwrap_err();
    assert!(matches!(error, FolderError::Stopped(_)));
}

#[test]
fn depth_has_a_limit() {
    let home = tempfile::tempdir().unwrap();
    let mut folder: std::os::fd::OwnedFd = File::open(home.path()).unwrap().into();
    let flags = rustix::fs::OFlags::DIRECTORY;
    for _ in 0..=DEPTH_MAX {
        rustix::fs::mkdirat(&folder, "d", rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
        folder = rustix::fs::openat(&folder, "d", flags, rustix::fs::Mode::empty()).unwrap();
    }
    match read_path(home.path()).unwrap_err() {
        FolderError::Depth { .. } => {}
        // A host that gives fewer descriptors.
        FolderError::Io { source, .. } => assert_eq!(source.raw_os_error(), Some(24)),
        other => panic!("{other}"),
    }
}
