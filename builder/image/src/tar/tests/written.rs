//! What is written: it reads back, and others extract it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{ACL, CAPABILITY, look, read, without_holes_lost};
use crate::tar::{write, write_subtree};
use crate::testing::{
    Description, Look, assert_same, describe_folder, describe_tree, have, is_root, make_source,
    set_xattr, sh, skip,
};
use crate::tree::{
    Content, Entries, Inode, InodeId, Kind, Metadata, Name, Segment, Times, Timestamp, Tree,
};

#[test]
fn what_is_written_reads_back_and_gnu_tar_extracts_it() {
    if !have("tar") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    make_source(temp.path());
    let src = temp.path().join("src");
    let mut xattrs = set_xattr(&src.join("usr/bin/hello"), "user.a=b%", b"\0value\n");
    if is_root() {
        xattrs &= set_xattr(&src.join("owned"), "security.capability", CAPABILITY);
        sh(&src, "chmod 764 owned");
        xattrs &= set_xattr(&src.join("owned"), "system.posix_acl_access", ACL);
    }
    sh(
        temp.path(),
        "tar -C src --format=pax --xattrs --xattrs-include=* --acls --numeric-owner -S -cf a.tar .",
    );
    let bytes = fs::read(temp.path().join("a.tar")).unwrap();
    let (mut tree, _) = read(&bytes).unwrap();
    let root = &mut tree.inode_mut(InodeId::ROOT).metadata.times;
    root.created = Timestamp {
        seconds: -7,
        nanoseconds: 5,
    };
    let mut written = Vec::new();
    write(&tree, &mut written).unwrap();
    let (again, _) = read(&written).unwrap();
    for (path, id) in tree.paths() {
        let (a, b) = (tree.inode(id), again.inode(again.lookup(&path).unwrap()));
        assert_eq!(a.metadata, b.metadata, "{}", crate::tree::display(&path));
    }
    let everything = Look {
        root: true,
        owners: true,
        xattrs: true,
    };
    let expected = describe_tree(&tree, everything);
    assert_same(&describe_tree(&again, everything), &expected, "read back");
    without_holes_lost(&again, b"/holes");
    let mut rewritten = Vec::new();
    write(&again, &mut rewritten).unwrap();
    assert_eq!(written, rewritten);

    fs::write(temp.path().join("b.tar"), &written).unwrap();
    sh(
        temp.path(),
        "mkdir out; tar -C out --xattrs --xattrs-include=* --acls --numeric-owner -xpf b.tar",
    );
    if xattrs {
        let extracted = describe_folder(&temp.path().join("out"), look());
        assert_same(&extracted, &describe_tree(&tree, look()), "extracted");
    }
    if have("bsdtar") {
        let listed = sh(temp.path(), "bsdtar -tf b.tar");
        let lines = listed.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines, expected.len());
    }
}

#[test]
fn sockets_are_refused_by_name() {
    let mut tree = Tree::new(Metadata::default());
    let socket = tree
        .add_inode(crate::tree::Inode {
            metadata: Metadata::default(),
            kind: Kind::Socket,
        })
        .unwrap();
    tree.link(InodeId::ROOT, b"s", socket).unwrap();
    let error = write(&tree, Vec::new()).unwrap_err().to_string();
    assert_eq!(
        error,
        "'/s' cannot be written to a tar archive: tar has no sockets"
    );
}

/// Numbers that are the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % sides
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.roll(one_in) == 0
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.roll(256) as u8).collect()
    }

    fn name(&mut self) -> Vec<u8> {
        let lengths = [3, 8, 20, 99, 100, 101, 254, 255];
        let length = lengths[self.roll(lengths.len() as u64) as usize];
        let is_text = !self.chance(4);
        let letter = |dice: &mut Self| loop {
            let byte = if is_text {
                b'a' + dice.roll(26) as u8
            } else {
                dice.roll(256) as u8
            };
            if !matches!(byte, 0 | b'/') {
                return byte;
            }
        };
        (0..length).map(|_| letter(self)).collect()
    }
}

/// A tree of everything, with what this machine's kernel can hold where it is to be extracted.
struct Forest {
    dice: Dice,
    tree: Tree,
    is_for_kernel: bool,
    files: Vec<InodeId>,
}

impl Forest {
    fn grow(seed: u64, is_for_kernel: bool) -> Tree {
        let mut forest = Self {
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            tree: Tree::new(Metadata::default()),
            is_for_kernel,
            files: Vec::new(),
        };
        let root = forest.metadata(true, true);
        forest.tree.inode_mut(InodeId::ROOT).metadata = root;
        forest.folder(InodeId::ROOT, 0);
        forest.tree
    }

    fn folder(&mut self, parent: InodeId, depth: u64) {
        for _ in 0..self.dice.roll(7) {
            let name = self.dice.name();
            if self.tree.child(parent, &name).is_some() || matches!(&name[..], b"." | b"..") {
                continue;
            }
            if !self.files.is_empty() && self.dice.chance(6) {
                let index = self.dice.roll(self.files.len() as u64) as usize;
                self.tree.link(parent, &name, self.files[index]).unwrap();
                continue;
            }
            let kind = self.kind();
            let is_folder = matches!(kind, Kind::Directory(_));
            let takes_attributes = is_folder || matches!(kind, Kind::File(_));
            let mut metadata = self.metadata(is_folder, takes_attributes);
            if matches!(kind, Kind::Symlink(_)) {
                metadata.mode = 0o777;
            }
            let id = self.tree.add_inode(Inode { metadata, kind }).unwrap();
            self.tree.link(parent, &name, id).unwrap();
            if !is_folder {
                self.files.push(id);
            } else if depth < 5 {
                self.folder(id, depth + 1);
            }
        }
    }

    fn kind(&mut self) -> Kind {
        let number = |dice: &mut Dice| dice.roll(4096) as u32;
        match self.dice.roll(10) {
            0..=2 => Kind::Directory(Entries::new()),
            3..=6 => Kind::File(self.content()),
            7 => {
                let length = [1, 50, 100, 101, 300, 4095][self.dice.roll(6) as usize];
                Kind::Symlink(vec![b't'; length].into())
            }
            8 => Kind::CharDevice {
                major: number(&mut self.dice),
                minor: number(&mut self.dice),
            },
            _ if self.dice.chance(2) => Kind::Fifo,
            _ => Kind::BlockDevice {
                major: number(&mut self.dice),
                minor: number(&mut self.dice),
            },
        }
    }

    /// Runs that begin and end anywhere, some touching.
    fn content(&mut self) -> Content {
        let mut segments = Vec::new();
        let mut offset = 0;
        for _ in 0..self.dice.roll(6) {
            let gaps = [0, 0, 1, 511, 600, 5000, 100_000];
            offset += gaps[self.dice.roll(gaps.len() as u64) as usize];
            let lengths = [1, 511, 512, 513, 4096, 5000];
            let length = lengths[self.dice.roll(lengths.len() as u64) as usize];
            let bytes = self.dice.bytes(length + 10);
            let blob = self.tree.add_blob(std::sync::Arc::new(bytes)).unwrap();
            segments.push(Segment {
                offset,
                length,
                blob,
                blob_offset: 10,
            });
            offset += length;
        }
        let tails = [0, 0, 1, 512, 70_000];
        Content {
            size: offset + tails[self.dice.roll(tails.len() as u64) as usize],
            segments: segments.into(),
        }
    }

    fn time(&mut self) -> Timestamp {
        let nanoseconds = if self.dice.chance(2) {
            0
        } else {
            self.dice.roll(1_000_000_000) as u32
        };
        let seconds = if self.is_for_kernel {
            self.dice.roll(4_000_000_000) as i64
        } else {
            let bits = self.dice.roll(64);
            (self.dice.roll(u64::MAX) as i64) >> bits
        };
        Timestamp {
            seconds,
            nanoseconds,
        }
    }

    fn metadata(&mut self, is_folder: bool, takes_attributes: bool) -> Metadata {
        let mut metadata = Metadata {
            mode: self.dice.roll(0o10000) as u16,
            uid: self.dice.roll(1 << 32) as u32,
            gid: self.dice.roll(70_000) as u32,
            times: Times {
                modified: self.time(),
                accessed: self.time(),
                changed: self.time(),
                created: self.time(),
            },
            xattrs: BTreeMap::new(),
        };
        if takes_attributes && self.dice.chance(3) {
            self.xattrs(&mut metadata, is_folder);
        }
        metadata
    }

    fn xattrs(&mut self, metadata: &mut Metadata, is_folder: bool) {
        for _ in 0..self.dice.roll(4) {
            let mut name = b"user.".to_vec();
            let length = 1 + self.dice.roll(40);
            let bytes = self.dice.bytes(length).into_iter();
            // libarchive knows no escape for this sign, GNU tar no form without one.
            let avoided = if self.is_for_kernel { b'=' } else { 0 };
            name.extend(bytes.map(|byte| if byte == avoided { b'%' } else { byte.max(1) }));
            let length = self.dice.roll(300);
            metadata
                .xattrs
                .insert(name.into(), self.dice.bytes(length).into());
        }
        let mut set = |name: &[u8], value: &[u8]| {
            metadata.xattrs.insert(Name::from(name), value.into());
        };
        if !is_folder && self.dice.chance(3) {
            set(b"security.capability", CAPABILITY);
        }
        if is_folder && self.dice.chance(2) {
            set(b"system.posix_acl_default", ACL);
        }
        if self.dice.chance(3) {
            set(b"system.posix_acl_access", ACL);
            metadata.mode = metadata.mode & 0o7000 | 0o764;
        }
    }
}

const EVERYTHING: Look = Look {
    owners: true,
    xattrs: true,
    root: true,
};

/// For each path, the first path of the same inode.
fn first_names(tree: &Tree) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut first = BTreeMap::new();
    let paths = tree.paths().into_iter();
    paths
        .map(|(path, id)| (path.clone(), first.entry(id).or_insert(path).clone()))
        .collect()
}

fn bytes_of(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(tree, &mut bytes).unwrap();
    bytes
}

#[test]
fn any_tree_reads_back_as_it_was() {
    for seed in 0..150 {
        let tree = Forest::grow(seed, false);
        let bytes = bytes_of(&tree);
        let (again, summary) = read(&bytes).unwrap_or_else(|error| panic!("{seed}: {error}"));
        assert!(summary.ignored.is_empty());
        assert_same(
            &describe_tree(&again, EVERYTHING),
            &describe_tree(&tree, EVERYTHING),
            &seed.to_string(),
        );
        assert_eq!(first_names(&again), first_names(&tree), "{seed}");
        for (path, id) in tree.paths() {
            let found = again.inode(again.lookup(&path).unwrap());
            assert_eq!(found.metadata, tree.inode(id).metadata, "{seed}");
        }
        assert_eq!(bytes_of(&again), bytes, "{seed}");
    }
}

/// Extracts with a program's command line.
fn extract(folder: &Path, bytes: &[u8], command: &str) -> Description {
    fs::write(folder.join("a.tar"), bytes).unwrap();
    sh(
        folder,
        &format!("rm -rf out; mkdir out; cd out; umask 022; {command} ../a.tar 2>../err"),
    );
    describe_folder(&folder.join("out"), EVERYTHING)
}

#[test]
fn any_tree_is_extracted_by_others_as_it_was() {
    if !is_root() {
        skip("devices, owners and attributes need root");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    if !set_xattr(temp.path(), "user.probe", b"") {
        skip("the file system of the tests has no user attributes");
        return;
    }
    let gnu = "tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf";
    let bsd = "bsdtar --xattrs --acls --numeric-owner -xpf";
    for (program, command) in [("tar", gnu), ("bsdtar", bsd)] {
        if !have(program) {
            continue;
        }
        for seed in 1000..1020 {
            let tree = Forest::grow(seed, true);
            let found = extract(temp.path(), &bytes_of(&tree), command);
            let mut expected = describe_tree(&tree, EVERYTHING);
            if program == "bsdtar" {
                // It leaves the time of the folder that it extracts into.
                expected.insert("/".into(), found["/"].clone());
            }
            assert_same(&found, &expected, &format!("{program} {seed}"));
        }
    }
}

#[test]
fn a_part_of_a_tree_is_an_archive_of_its_own() {
    let mut tree = Tree::new(Metadata::default());
    let folder = tree
        .make_directories(b"/usr/lib", &Metadata::default())
        .unwrap();
    let kind = Kind::File(tree.add_bytes(b"text".to_vec()).unwrap());
    let file = tree
        .add_inode(Inode {
            metadata: Metadata::default(),
            kind,
        })
        .unwrap();
    tree.link(folder, b"f", file).unwrap();
    for (top, name, expected) in [
        (folder, &b"lib"[..], &["/", "/f"]),
        (file, b"g", &["/", "/g"]),
    ] {
        let mut bytes = Vec::new();
        write_subtree(&tree, top, name, &mut bytes).unwrap();
        assert_eq!(super::names(&read(&bytes).unwrap().0), expected);
    }
}

#[test]
fn odd_access_control_lists_are_kept_as_they_are() {
    let mut tree = Tree::new(Metadata::default());
    let lists: [&[u8]; 3] = [
        b"",
        b"\x02\0\0\0",
        b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff",
    ];
    for (index, list) in lists.into_iter().enumerate() {
        let mut metadata = Metadata::default();
        metadata
            .xattrs
            .insert(b"system.posix_acl_access"[..].into(), list.into());
        let id = tree
            .add_inode(Inode {
                metadata,
                kind: Kind::Fifo,
            })
            .unwrap();
        tree.link(InodeId::ROOT, index.to_string().as_bytes(), id)
            .unwrap();
    }
    let (again, _) = read(&bytes_of(&tree)).unwrap();
    assert_eq!(
        describe_tree(&again, EVERYTHING),
        describe_tree(&tree, EVERYTHING)
    );
}
