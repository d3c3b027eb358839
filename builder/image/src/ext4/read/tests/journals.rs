//! Journals that debugfs writes, in every version of their checksums; e2fsck says what they mean.

use super::*;

/// Writes a journal of four transactions into an image and gives its path.
fn journalled(temp: &Path, features: &str, open: &str) -> PathBuf {
    sh(
        temp,
        &format!(
            "mkdir -p src; for f in a b c d; do head -c 3000 /dev/zero | tr '\\0' $f > src/$f; done
             : > a.img; mke2fs -q -F -t ext4 -b 1024 -J size=1 -O {features} -d src a.img 4M
             head -c 1024 /dev/zero | tr '\\0' 1 > one; head -c 2048 /dev/zero | tr '\\0' 2 > two
             printf '\\xc0\\x3b\\x39\\x98escaped' > magic; truncate -s 1024 magic
             block() {{ debugfs -R \"blocks $1\" a.img 2>/dev/null | cut -d ' ' -f $2; }}
             a1=$(block a 1); a2=$(block a 2); b1=$(block b 1); c1=$(block c 1); d1=$(block d 1)
             cat > commands <<END
             jo {open}
             jw -b $a1,$a2 two
             jw -b $b1,$d1 two
             jw -r $b1
             jw -b $c1 magic
             jc
END
             debugfs -w -f commands a.img > log 2>&1; cat log"
        ),
    );
    temp.join("a.img")
}

#[test]
fn journals_are_replayed_as_e2fsck_does() {
    if !have("mke2fs") || !have("debugfs") || !have("e2fsck") {
        return;
    }
    for (features, open) in [
        ("^metadata_csum,^64bit", ""),
        ("^metadata_csum,64bit", ""),
        ("metadata_csum,64bit", "-c -v 2"),
        ("metadata_csum,^64bit", "-c -v 2"),
        ("metadata_csum,64bit", "-c -v 3"),
        ("metadata_csum,^64bit", "-c -v 3"),
    ] {
        let what = format!("{features} {open}");
        let temp = tempfile::tempdir().unwrap();
        let path = journalled(temp.path(), features, open);
        let volume = volume::Volume::open(Arc::new(File::open(&path).unwrap()));
        let volume = volume.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(volume.replaced.len(), 4, "{what}");
        let escaped = volume.replaced.values().filter(|replaced| replaced.escaped);
        assert_eq!(escaped.count(), 1, "{what}");
        let bytes = fs::read(&path).unwrap();
        let tree = read(Arc::new(bytes)).unwrap();
        let found = describe_tree(&tree, look());
        let starts: Vec<u8> = ["a", "b", "c", "d"]
            .map(|name| {
                let id = tree.lookup(name.as_bytes()).unwrap();
                tree.read_file(id, 4000).unwrap()[0]
            })
            .into();
        assert_eq!(starts, b"2b\xc02", "{what}");
        sh(temp.path(), "e2fsck -fy a.img >log || test $? = 1");
        let recovered = describe_tree(&read_path(&path).unwrap(), look());
        assert_same(&found, &recovered, &what);
    }
}

#[test]
fn journals_that_are_not_replayed_are_refused_by_name() {
    if !have("mke2fs") || !have("debugfs") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = journalled(temp.path(), "^metadata_csum,^64bit", "");
    let good = fs::read(&path).unwrap();
    let volume = volume::Volume::open(Arc::new(good.clone())).unwrap();
    let inode = inode::Inode::read(&volume, 8).unwrap();
    let runs = mapping::read(&volume, &inode).unwrap().runs;
    let start = usize::try_from(runs[0].physical).unwrap() * 1024;
    for (at, value, expected) in [
        (
            0x2B,
            5,
            "ext4 image, journal: recovery of asynchronous commits is not supported",
        ),
        (0x28, 0x40, "the features 0x40000000 and, read-only, 0x0"),
        (0x2F, 1, "the features 0x0 and, read-only, 0x1"),
        (
            0x23,
            5,
            "journal: the file system's kernel has recorded an error in it",
        ),
        (0x0F, 1, "journal: its block size is not the file system's"),
    ] {
        let mut bytes = good.clone();
        bytes[start + at] = value;
        let error = read(Arc::new(bytes)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    sh(
        temp.path(),
        "printf 'ssv journal_inum 0\nssv journal_dev 0x801\n' > commands
         debugfs -w -f commands a.img > log 2>&1",
    );
    let error = read_path(&path).unwrap_err().to_string();
    assert_eq!(
        error,
        "ext4 image, journal: an external journal is not supported"
    );
}
