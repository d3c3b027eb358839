//! Images that the host's kernel works on: only as root.

use super::*;

/// A mounted image; unmounted at the end.
pub(super) struct Mounted {
    pub(super) folder: PathBuf,
}

impl Mounted {
    pub(super) fn new(temp: &Path, options: &str) -> Option<Self> {
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
    printf '\xc0\x3b\x39\x98 like a journal block' > magic; head -c 3000 /dev/urandom >> magic
    mv usr/lib/blob moved; chmod 600 moved; ln moved usr/lib/again
    sync -f .
";

/// An image that the kernel has worked on, and what it says is in it. `dirty.img` is a copy from
/// while it was mounted, when a deleted file was still open.
fn dirty_image(temp: &Path, format: &str, mount: &str) -> Option<Description> {
    fs::write(temp.join("a.img"), b"").unwrap();
    sh(temp, &format!("mke2fs -q -F {format} a.img 64M"));
    let mounted = Mounted::new(temp, mount)?;
    sh(&mounted.folder, WORK);
    let moved = mounted.folder.join("moved");
    set_xattr(&moved, "user.block", &[9; 900]);
    set_xattr(&moved, "user.empty", &[]);
    if set_xattr(&moved, "user.inode", &[8; 60_000]) {
        set_xattr(&mounted.folder.join("prealloc"), "user.same", &[8; 60_000]);
    }
    set_xattr(&moved, "system.posix_acl_access", &ACL);
    set_xattr(&mounted.folder.join("usr"), "trusted.x", b"");
    sh(
        &mounted.folder,
        "exec 9> held; head -c 100000 /dev/zero >&9; rm held; sync -f .
         cp --sparse=always ../a.img ../dirty.img",
    );
    let mut expected = describe_folder(&mounted.folder, look());
    expected.remove("/lost+found");
    Some(expected)
}

/// Options of mke2fs and mount.
const FORMATS: [(&str, &str); 14] = [
    ("-t ext4 -b 4096 -O orphan_file,ea_inode", "data=ordered"),
    ("-t ext4 -b 1024 -O inline_data", "data=journal"),
    ("-t ext4 -b 4096 -O ^metadata_csum,^64bit", "data=ordered"),
    ("-t ext3 -b 1024 -I 256", "data=journal"),
    (
        "-t ext4 -b 4096 -O ^metadata_csum -O bigalloc -C 16384 -N 4000",
        "journal_checksum",
    ),
    // From here on only where the whole matrix is wanted.
    (
        "-t ext4 -b 1024 -O ea_inode,large_dir,metadata_csum_seed",
        "data=journal",
    ),
    (
        "-t ext4 -b 2048 -O inline_data,ea_inode,orphan_file -I 1024",
        "data=writeback",
    ),
    (
        "-t ext4 -b 4096 -O inline_data,^metadata_csum,uninit_bg -I 512",
        "nodelalloc",
    ),
    (
        "-t ext4 -b 1024 -O meta_bg,^resize_inode -g 2048",
        "data=ordered",
    ),
    (
        "-t ext4 -b 1024 -O sparse_super2,^resize_inode,^flex_bg -E num_backup_sb=1",
        "data=journal",
    ),
    (
        "-t ext4 -b 4096 -O ^extent,^64bit,^flex_bg,uninit_bg,^metadata_csum",
        "journal_checksum",
    ),
    (
        "-t ext4 -b 2048 -O bigalloc,inline_data,ea_inode -C 32768 -N 4000",
        "data=journal",
    ),
    ("-t ext3 -b 4096 -I 128 -O ^dir_index", "data=journal"),
    (
        "-t ext4 -b 1024 -O ^huge_file,^dir_nlink,^extra_isize,^large_file",
        "data=journal",
    ),
];

#[test]
fn images_copied_while_mounted_read_as_the_kernel_has_them() {
    if !have("mke2fs") || !have("e2fsck") || !is_root() {
        skip("this needs root, mke2fs and e2fsck");
        return;
    }
    let all = whole_matrix();
    let mut escaped = false;
    for (format, mount) in FORMATS
        .into_iter()
        .take(if all { FORMATS.len() } else { 5 })
    {
        let temp = tempfile::tempdir().unwrap();
        make_source(temp.path());
        let Some(expected) = dirty_image(temp.path(), format, mount) else {
            return;
        };
        let what = format!("{format} {mount}");
        let dirty = temp.path().join("dirty.img");
        let open = |path: &Path| volume::Volume::open(Arc::new(File::open(path).unwrap())).unwrap();
        let volume = open(&dirty);
        assert!(!volume.replaced.is_empty(), "{what}: nothing was replayed");
        escaped |= volume.replaced.values().any(|replaced| replaced.escaped);
        let orphans = volume.superblock.s_last_orphan != 0
            || volume.has_ro_compat(crate::ext4::format::ro_compat::ORPHAN_PRESENT);
        assert!(orphans, "{what}: no orphan");
        drop(volume);
        let replayed = describe_tree(&read_path(&dirty).unwrap(), look());
        assert_same(&replayed, &expected, &what);
        let info = |path: &Path| read_info(Arc::new(File::open(path).unwrap())).unwrap();
        assert!(info(&dirty).needs_recovery);
        sh(
            temp.path(),
            "e2fsck -fy dirty.img >/dev/null || test $? = 1",
        );
        let recovered = describe_tree(&read_path(&dirty).unwrap(), look());
        assert_same(&recovered, &expected, &format!("{what}, recovered"));
        let recovered = info(&dirty);
        assert!(!recovered.needs_recovery);
        let text = sh(temp.path(), "dumpe2fs -h dirty.img 2>/dev/null");
        let text = String::from_utf8(text).unwrap();
        let free = recovered.blocks_free * u64::from(recovered.block_size_bytes);
        let free = free
            / recovered
                .cluster_size_bytes
                .min(u64::from(recovered.block_size_bytes));
        for line in [
            format!("Free blocks:              {free}\n"),
            format!("Free inodes:              {}\n", recovered.inodes_free),
        ] {
            assert!(text.contains(&line), "{what}: {line}{text}");
        }
    }
    assert!(escaped, "no block of the journal was escaped");
}

#[test]
fn fast_commits_are_refused_and_only_they() {
    if !have("mke2fs") || !is_root() {
        skip("this needs root and mke2fs");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    sh(
        temp.path(),
        "truncate -s 64M a.img; mke2fs -q -F -t ext4 -O fast_commit a.img 64M",
    );
    let Some(mounted) = Mounted::new(temp.path(), "data=ordered") else {
        return;
    };
    sh(
        &mounted.folder,
        "echo a > a; mkdir d; sync -f .; cp --sparse=always ../a.img ../full.img
         echo b > d/b; sync d/b; echo c > d/c; sync d/c
         cp --sparse=always ../a.img ../fast.img",
    );
    drop(mounted);
    let tree = read_path(&temp.path().join("full.img")).unwrap();
    assert!(tree.lookup(b"/a").is_ok());
    let error = read_path(&temp.path().join("fast.img")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ext4 image, journal: recovery of fast commits is not supported"
    );
    let tree = read_path(&temp.path().join("a.img")).unwrap();
    assert!(tree.lookup(b"/d/c").is_ok());
}

/// An index of three levels needs about a hundred thousand names.
#[test]
fn large_folders_read_as_the_kernel_has_them() {
    let all = whole_matrix();
    if !all || !have("mke2fs") || !is_root() {
        skip("this needs COOP_TEST_EXT4_MATRIX=1, root and mke2fs");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    sh(
        temp.path(),
        "truncate -s 200M a.img; mke2fs -q -F -t ext4 -b 1024 -N 200 -O large_dir,^has_journal a.img",
    );
    let Some(mounted) = Mounted::new(temp.path(), "nobarrier") else {
        return;
    };
    let folder = mounted.folder.join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("0"), b"").unwrap();
    for at in 1..60_000 {
        let file = at / 60_000;
        let name = format!("{at:0240}");
        fs::hard_link(folder.join(format!("{file}")), folder.join(name)).unwrap();
    }
    sh(
        &folder,
        "for i in $(seq 2 3 59999); do printf '%0240d\\0' $i; done | xargs -0 rm",
    );
    drop(mounted);
    let tree = read_path(&temp.path().join("a.img")).unwrap();
    let entries = tree.entries(tree.lookup(b"/folder").unwrap()).unwrap();
    let expected: std::collections::BTreeSet<Vec<u8>> = (1..60_000)
        .filter(|at| at % 3 != 2)
        .map(|at| format!("{at:0240}").into_bytes())
        .chain([b"0".to_vec()])
        .collect();
    assert!(entries.keys().map(|name| name.to_vec()).eq(expected));
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
