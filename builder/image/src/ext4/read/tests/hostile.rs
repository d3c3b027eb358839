//! Damaged images, by chance and by design.

use super::kernel::Mounted;
use super::*;

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

/// The fuzzer's seeds: small images, one for each feature.
fn seeds() -> Vec<(String, Arc<Vec<u8>>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/ext4_reader");
    let mut seeds: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            // Their zeroes at the end are cut off.
            bytes.resize(bytes.len().max(140 << 10), 0);
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            (name, Arc::new(bytes))
        })
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn each_feature_has_a_seed_that_reads() {
    let seeds = seeds();
    for feature in [
        "bigalloc",
        "checksums",
        "ea_inode",
        "htree",
        "inline",
        "journal",
        "map",
        "meta_bg",
    ] {
        let (_, bytes) = seeds.iter().find(|(name, _)| name == feature).unwrap();
        let tree = read(Arc::clone(bytes) as Arc<dyn Blob>).unwrap();
        let file = tree.lookup(b"/d/hard").unwrap();
        assert_eq!(tree.read_file(file, 100).unwrap(), b"hello\n", "{feature}");
        let middle = tree.lookup(b"/middle").unwrap();
        let middle = tree.read_file(middle, 200).unwrap();
        let expected = if feature == "journal" {
            [&b"\xc0\x3b\x39\x98escaped"[..], &[0; 139]].concat()
        } else {
            vec![b'm'; 150]
        };
        assert_eq!(middle, expected, "{feature}");
        let sparse = tree.lookup(b"/sparse").unwrap();
        let sparse = tree.read_file(sparse, 1 << 20).unwrap();
        let digits: Vec<u8> = sparse.iter().copied().filter(|byte| *byte != 0).collect();
        assert_eq!(digits, b"123456", "{feature}");
        let xattrs = &tree.inode(file).metadata.xattrs;
        assert_eq!(
            xattrs.get(&b"user.inode"[..]).is_some(),
            feature == "ea_inode"
        );
        assert!(xattrs.contains_key(&b"system.posix_acl_access"[..]));
        assert_eq!(
            tree.entries(tree.lookup(b"/many").unwrap()).unwrap().len(),
            40
        );
        let device = tree.lookup(b"/dev").unwrap();
        let expected = Kind::CharDevice {
            major: 300,
            minor: 70_000,
        };
        assert_eq!(tree.inode(device).kind, expected);
    }
}

#[test]
fn one_byte_mutations_never_panic_or_hang() {
    let all = whole_matrix();
    let mut refused = 0;
    for (index, (name, bytes)) in seeds().into_iter().enumerate() {
        // A checksum refuses nearly all of them: there is a test for those.
        if name == "checksums" {
            continue;
        }
        for at in (1024..bytes.len()).filter(|at| *at < 1500 || bytes[*at] != 0) {
            if !all && at % 7 != index % 7 {
                continue;
            }
            let values = [0, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(1)];
            // Everything in the superblock, one value elsewhere.
            let values = if at < 2048 {
                &values[..]
            } else {
                &values[at % 4..][..1]
            };
            for value in values {
                let read = read_mutated(&bytes, at, *value);
                refused += u32::from(read.is_err());
                if let Ok(tree) = read {
                    touch(&tree);
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

/// Content must be where the tree says that it is.
fn touch(tree: &Tree) {
    for inode in tree.inodes() {
        if let Kind::File(content) = &inode.kind {
            for segment in &content.segments {
                let last = segment.blob_offset + segment.length - 1;
                let blob = tree.blob(segment.blob);
                assert_eq!(blob.read_at(&mut [0], last).unwrap(), 1);
                assert!(segment.offset + segment.length <= content.size);
            }
        }
    }
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
        for at in journal.step_by(11) {
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

/// An image of a few files with a block map or with extents, no checksum in it, and the place of
/// the inodes that a test damages.
struct Victim {
    bytes: Vec<u8>,
    extents: bool,
}

impl Victim {
    fn new(features: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        sh(
            temp.path(),
            &format!(
                "mkdir -p src/d/e src/other; head -c 5000 /dev/zero | tr '\\0' x > src/a
                 head -c 50000 /dev/zero | tr '\\0' y > src/b; echo z > src/d/e/z; mkfifo src/p
                 : > a.img
                 mke2fs -q -F -t ext4 -b 1024 -N 64 -O ^has_journal,^metadata_csum,{features} \\
                 -d src a.img 400k"
            ),
        );
        Self {
            bytes: fs::read(temp.path().join("a.img")).unwrap(),
            extents: !features.contains("^extent"),
        }
    }

    fn volume(&self) -> volume::Volume {
        volume::Volume::open(Arc::new(self.bytes.clone())).unwrap()
    }

    fn inode(&self, path: &str) -> inode::Inode {
        let volume = self.volume();
        let mut inode = inode::Inode::read(&volume, 2).unwrap();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let mapping = mapping::read(&volume, &inode).unwrap();
            let listing = directory::read(&volume, &inode, &mapping).unwrap();
            let mut names = listing.names.iter();
            let found = names.find(|found| &*found.name == name.as_bytes()).unwrap();
            inode = inode::Inode::read(&volume, found.inode).unwrap();
        }
        inode
    }

    /// Where byte `field` of an inode is.
    fn at(&self, path: &str, field: usize) -> usize {
        usize::try_from(self.inode(path).image_offset.unwrap()).unwrap() + field
    }

    fn first_block(&self, path: &str) -> usize {
        let mapping = mapping::read(&self.volume(), &self.inode(path)).unwrap();
        usize::try_from(mapping.runs[0].physical).unwrap()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_u32(&mut self, at: usize, value: usize) {
        self.put(at, &u32::try_from(value).unwrap().to_le_bytes());
    }

    /// Points a file at other blocks.
    fn put_first_block(&mut self, path: &str, block: usize) {
        let field = if self.extents { 0x28 + 12 + 8 } else { 0x28 };
        self.put_u32(self.at(path, field), block);
    }

    fn refused(&self, expected: &[&str]) {
        let error = read(Arc::new(self.bytes.clone())).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{error}\nexpected: {part}");
        }
    }
}

#[test]
fn blocks_with_two_owners_are_refused() {
    if !have("mke2fs") {
        return;
    }
    for features in ["extent", "^extent,^64bit"] {
        let mut victim = Victim::new(features);
        read(Arc::new(victim.bytes.clone())).unwrap();
        let (a, b) = (victim.inode("a").number, victim.inode("b").number);
        let block = victim.first_block("b");
        victim.put_first_block("a", block + 1);
        let (later, earlier) = (a.max(b), a.min(b));
        victim.refused(&[
            "damaged ext4 image, '/",
            &format!(
                "inode {later}: block {} belongs to inode {earlier} too",
                block + 1
            ),
        ]);
        let table = victim.volume().groups.tables[0];
        victim.put_first_block("a", usize::try_from(table).unwrap());
        victim.refused(&["'/a', inode", "one of the file system's own structures"]);
        victim.put_first_block("a", 1);
        victim.refused(&["'a', inode", "outside the image"]);
        victim.put_first_block("a", 0x7fff_0000);
        victim.refused(&["'a', inode", "blocks at 2147418112, outside the image"]);
    }
}

#[test]
fn extents_that_break_the_order_are_refused() {
    if !have("mke2fs") {
        return;
    }
    let mut victim = Victim::new("extent");
    let header = victim.at("b", 0x28);
    let block = victim.first_block("b");
    let extent = |logical: u32, length: u16, start: usize| {
        let start = u32::try_from(start).unwrap().to_le_bytes();
        [
            &logical.to_le_bytes()[..],
            &length.to_le_bytes(),
            &[0, 0],
            &start,
        ]
        .concat()
    };
    let good = victim.bytes.clone();
    for (second, expected) in [
        (extent(1, 2, block + 10), "out of order at 1"),
        (extent(0, 2, block + 10), "out of order at 0"),
        (extent(9, 0, block + 10), "an extent of no length"),
        (extent(9, 1, block + 1), "twice"),
        (extent(9, 32768 + 2, 399), "outside the image"),
    ] {
        victim.bytes.clone_from(&good);
        victim.put(header + 2, &[2, 0]);
        victim.put(header + 12, &extent(0, 3, block));
        victim.put(header + 24, &second);
        victim.refused(&["b', inode", expected]);
    }
    for (at, value, expected) in [
        (2, 5, "malformed"),
        (4, 200, "malformed"),
        (6, 6, "malformed"),
        (6, 1, "its extent tree leads to block"),
        (0, 0, "malformed"),
    ] {
        victim.bytes.clone_from(&good);
        victim.put(header + at, &[value, 0]);
        victim.refused(&["in '/', 'b', inode", expected]);
    }
}

#[test]
fn folders_that_lead_astray_are_refused() {
    if !have("mke2fs") {
        return;
    }
    let victim = Victim::new("extent");
    let (d, e, other) = (
        victim.inode("d"),
        victim.inode("d/e"),
        victim.inode("other"),
    );
    let block = |path: &str| victim.first_block(path) * 1024;
    let (root, in_d, in_e) = (block("/"), block("d"), block("d/e"));
    let find = |start: usize, name: &str| {
        let area = &victim.bytes[start..start + 1024];
        let at = area
            .windows(name.len())
            .position(|bytes| bytes == name.as_bytes());
        start + at.unwrap()
    };
    let number = |inode: &inode::Inode| inode.number.to_le_bytes();
    let place = format!("directory block {}", in_d / 1024);
    let loop_of = format!("inode {}: the directory has two names", d.number);
    let cases: [(usize, Vec<u8>, &[&str]); 12] = [
        // 'e' is 'd' itself, or a folder that has a name elsewhere.
        (
            find(in_d, "e") - 8,
            number(&d).into(),
            &["in '/d', 'e'", &loop_of],
        ),
        (
            find(in_d, "e") - 8,
            number(&other).into(),
            &["the directory has two names"],
        ),
        (
            find(in_d, "e") - 8,
            2_u32.to_le_bytes().into(),
            &["inode 2: the directory has two names"],
        ),
        (
            find(in_d, "e") - 8,
            5_u32.to_le_bytes().into(),
            &["a reserved inode"],
        ),
        (
            find(in_d, "e") - 8,
            60_u32.to_le_bytes().into(),
            &["'e', inode 60", "deleted inode"],
        ),
        (
            find(in_d, "e") - 8,
            600_u32.to_le_bytes().into(),
            &["no such inode"],
        ),
        (
            find(in_d, "e"),
            b"/".into(),
            &[&place, "a name is impossible"],
        ),
        (
            find(in_d, "e"),
            b"\0".into(),
            &[&place, "a name is impossible"],
        ),
        (
            find(in_d, "e") - 1,
            [1].into(),
            &["'e', inode", "another file type"],
        ),
        (
            in_e + 12,
            2_u32.to_le_bytes().into(),
            &["in '/d/e'", "'..' is not the directory above"],
        ),
        (
            in_e,
            2_u32.to_le_bytes().into(),
            &["'.' is not the directory itself"],
        ),
        (
            find(root, "other") - 4,
            8_u16.to_le_bytes().into(),
            &["a record has 8 bytes"],
        ),
    ];
    for (at, bytes, expected) in cases {
        let mut victim = Victim {
            bytes: victim.bytes.clone(),
            extents: true,
        };
        victim.put(at, &bytes);
        victim.refused(expected);
    }
    assert!(e.is_directory());
}

#[test]
fn the_top_reads_where_what_lies_below_is_damaged() {
    if !have("mke2fs") {
        return;
    }
    let mut victim = Victim::new("extent");
    let whole = read(Arc::new(victim.bytes.clone())).unwrap();
    let in_d = victim.first_block("d") * 1024;
    victim.bytes[in_d..in_d + 1024].fill(0xff);
    assert!(read(Arc::new(victim.bytes.clone())).is_err());
    let top = read_top(Arc::new(victim.bytes)).unwrap();
    let names = |tree: &Tree| -> Vec<_> {
        let entries = tree.entries(crate::tree::InodeId::ROOT).unwrap();
        let names = entries.keys().cloned();
        names.filter(|name| &**name != b"lost+found").collect()
    };
    assert_eq!(names(&top), names(&whole));
    let d = top.resolve(b"/d").unwrap();
    assert_eq!(top.entries(d).unwrap().len(), 0);
}
