//! What is refused, and how.

use super::*;

#[test]
fn what_ext4_cannot_hold_is_refused() {
    type Change = fn(&mut Tree, InodeId);
    let cases: [(&str, Change); 16] = [
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
        ("'/d/f': 4294967295 is no user or group", |tree, id| {
            tree.inode_mut(id).metadata.gid = u32::MAX;
        }),
        (
            "'/d/f': ext4 cannot hold the extended attribute 'user.nnn",
            |tree, id| {
                let name = [&b"user."[..], &[b'n'; 251]].concat();
                let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
                xattrs.insert(name.into(), Box::default());
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
            "'/d/f': extended attribute 'user.x' of 65537 bytes leaves no room",
            |tree, id| {
                let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
                xattrs.insert((*b"user.x").into(), vec![1; 65_537].into());
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
    assert_eq!(
        error.to_string(),
        "cannot read the content of '/f' at byte 0"
    );
}
