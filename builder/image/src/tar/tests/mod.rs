//! Archives made by GNU tar, bsdtar and Python, and by hand where no tool makes them.

use std::fs::{self, File};
use std::io::Cursor;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::*;
use crate::testing::{
    Description, Look, assert_same, describe_folder, describe_tree, have, is_root, make_source,
    set_xattr, sh,
};
use crate::tree::{InodeId, Kind, Timestamp};

mod hostile;
mod listing;
mod nasty;
mod raw;
mod written;

fn look() -> Look {
    Look {
        owners: is_root(),
        xattrs: true,
        root: false,
    }
}

/// Reads as a stream into a spool.
fn read_as_stream(bytes: &[u8], options: &Options) -> Result<(Tree, Summary), TarError> {
    let mut tree = Tree::new(Metadata::default());
    let file = Arc::new(tempfile::tempfile().unwrap());
    let spool = Spool::new(Arc::clone(&file)).unwrap();
    let blob = tree.add_blob(file).unwrap();
    let summary = read_stream(&mut tree, Cursor::new(bytes), &spool, blob, options)?;
    Ok((tree, summary))
}

fn read_in_place(bytes: &[u8], options: &Options) -> Result<(Tree, Summary), TarError> {
    let mut tree = Tree::new(Metadata::default());
    let blob = tree.add_blob(Arc::new(bytes.to_vec())).unwrap();
    let summary = read_blob(&mut tree, blob, options)?;
    Ok((tree, summary))
}

/// Reads both ways, which must agree.
fn read_with(bytes: &[u8], options: &Options) -> Result<(Tree, Summary), TarError> {
    let streamed = read_as_stream(bytes, options);
    let in_place = read_in_place(bytes, options);
    match (&streamed, &in_place) {
        (Ok((streamed, a)), Ok((in_place, b))) => {
            assert_eq!(
                describe_tree(streamed, look()),
                describe_tree(in_place, look())
            );
            assert_eq!(a, b);
        }
        (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string()),
        other => panic!("the two ways differ: {other:?}"),
    }
    in_place
}

fn read(bytes: &[u8]) -> Result<(Tree, Summary), TarError> {
    read_with(bytes, &Options::default())
}

fn without_holes_lost(tree: &Tree, path: &[u8]) {
    let id = tree.lookup(path).unwrap();
    let Kind::File(content) = &tree.inode(id).kind else {
        panic!("not a file")
    };
    let stored: u64 = content.segments.iter().map(|segment| segment.length).sum();
    assert!(stored < content.size / 2, "{content:?}");
}

#[test]
fn archives_of_gnu_tar_read_as_gnu_tar_extracts_them() {
    if !have("tar") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    make_source(temp.path());
    let src = temp.path().join("src");
    let mut xattrs = set_xattr(&src.join("usr/bin/hello"), "user.a=b%", b"\0value\n");
    xattrs &= set_xattr(&src.join("usr/lib"), "user.folder", b"");
    if is_root() {
        let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        xattrs &= set_xattr(&src.join("owned"), "security.capability", capability);
    }
    let expected = describe_folder(&src, look());
    for (name, flags) in [
        ("gnu", "--format=gnu"),
        ("gnu-sparse", "--format=gnu -S"),
        ("pax", "--format=pax --xattrs --xattrs-include=* --acls"),
        (
            "pax-s00",
            "--format=pax --xattrs --xattrs-include=* -S --sparse-version=0.0",
        ),
        (
            "pax-s01",
            "--format=pax --xattrs --xattrs-include=* -S --sparse-version=0.1",
        ),
        (
            "pax-s10",
            "--format=pax --xattrs --xattrs-include=* -S --sparse-version=1.0",
        ),
    ] {
        sh(temp.path(), &format!("tar -C src {flags} -cf {name}.tar ."));
        let bytes = fs::read(temp.path().join(format!("{name}.tar"))).unwrap();
        let (tree, summary) = read(&bytes).unwrap();
        assert_eq!(summary.entries, 1 + expected.len() as u64);
        let mut expected = expected.clone();
        let mut found = describe_tree(&tree, look());
        if name.starts_with("gnu") {
            // That format has neither nanoseconds nor attributes.
            expected = coarse(expected);
            found = coarse(found);
        } else if !xattrs {
            crate::testing::skip("the file system of the tests has no user attributes");
        }
        assert_same(&found, &expected, name);
        if name.contains("-s") {
            without_holes_lost(&tree, b"/holes");
            without_holes_lost(&tree, b"/hole-only");
        }
    }
}

fn without(mut lines: Description, path: &str) -> Description {
    lines.remove(path);
    coarse(lines)
}

/// Cuts the fraction of a second and what follows the owner.
fn coarse(lines: Description) -> Description {
    lines
        .into_iter()
        .map(|(path, text)| {
            let words = text.split(' ').filter(|word| !word.contains('='));
            let words: Vec<&str> = words
                .map(|word| match word.split_once('.') {
                    Some((seconds, fraction)) if fraction.len() == 9 => seconds,
                    _ => word,
                })
                .collect();
            (path, words.join(" "))
        })
        .collect()
}

#[test]
fn archives_of_bsdtar_and_python_read_alike() {
    if !have("tar") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    make_source(temp.path());
    let src = temp.path().join("src");
    set_xattr(&src.join("usr/bin/hello"), "user.a=b%", b"\0value\n");
    let expected = describe_folder(&src, look());
    if have("bsdtar") {
        for format in ["pax", "gnutar"] {
            sh(
                temp.path(),
                &format!("bsdtar -C src --format={format} -cf bsd.tar ."),
            );
            let (tree, _) = read(&fs::read(temp.path().join("bsd.tar")).unwrap()).unwrap();
            let mut found = describe_tree(&tree, look());
            // libarchive writes negative times wrongly or as zero.
            found.remove("/before-epoch");
            let mut expected = expected.clone();
            expected.remove("/before-epoch");
            if format == "pax" {
                assert_same(&found, &expected, &format!("bsdtar {format}"));
            } else {
                assert_same(
                    &coarse(found),
                    &coarse(expected),
                    &format!("bsdtar {format}"),
                );
            }
        }
    }
    if have("python3") {
        for format in ["PAX", "GNU"] {
            sh(
                temp.path(),
                &format!(
                    "python3 -c \"import tarfile; t = tarfile.open('py.tar', 'w', \
                     format=tarfile.{format}_FORMAT); t.add('src', '.'); t.close()\""
                ),
            );
            let (tree, _) = read(&fs::read(temp.path().join("py.tar")).unwrap()).unwrap();
            // Python's times are floats, cut towards zero, and it has no attributes.
            assert_same(
                &without(describe_tree(&tree, look()), "/before-epoch"),
                &without(expected.clone(), "/before-epoch"),
                &format!("Python {format}"),
            );
        }
    }
}

/// One header and its content, in GNU's dialect.
fn entry(flag: u8, path: &str, target: &str, content: &[u8]) -> Vec<u8> {
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::new(flag));
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header.set_size(content.len() as u64);
    // Folders, also those by their old names, are entered by tar.
    let is_folder = flag == b'5' || path.ends_with('/');
    header.set_mode(if is_folder { 0o755 } else { 0o644 });
    header.set_mtime(1000);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.extend([0; 1024]);
    bytes
}

fn names(tree: &Tree) -> Vec<String> {
    let paths = tree.paths().into_iter();
    paths.map(|(path, _)| crate::tree::display(&path)).collect()
}

/// Archives whose entries get in each other's way.
fn contests() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let file = |path| entry(b'0', path, "", b"file");
    let folder = |path| entry(b'5', path, "", b"");
    let symlink = |path, target| entry(b'2', path, target, b"");
    let hard = |path, target| entry(b'1', path, target, b"");
    vec![
        (
            "the last file wins",
            vec![file("a"), entry(b'0', "a", "", b"second")],
        ),
        (
            "file over symlink",
            vec![file("t"), symlink("a", "t"), entry(b'0', "a", "", b"new")],
        ),
        ("symlink over file", vec![file("a"), symlink("a", "t")]),
        (
            "folder over file",
            vec![file("a"), folder("a/"), file("a/b")],
        ),
        ("file over empty folder", vec![folder("a/"), file("a")]),
        (
            "folder twice",
            vec![folder("a/"), file("a/b"), folder("a/")],
        ),
        (
            "folder over symlink",
            vec![folder("d/"), symlink("a", "d"), folder("a/"), file("a/x")],
        ),
        (
            "below symlink",
            vec![
                folder("usr/"),
                folder("usr/bin/"),
                symlink("bin", "usr/bin"),
                file("bin/sh"),
            ],
        ),
        ("implied folders", vec![file("p/q/r")]),
        ("dots and slashes", vec![file("./a//./b"), file("/c/d")]),
        (
            "hard link",
            vec![file("a"), hard("b", "a"), hard("c", "./b")],
        ),
        (
            "hard link over file",
            vec![file("a"), file("b"), hard("b", "a")],
        ),
        ("hard link to itself", vec![file("a"), hard("a", "a")]),
        (
            "hard link to symlink",
            vec![symlink("l", "nowhere"), hard("m", "l")],
        ),
        (
            "file breaks hard link",
            vec![file("a"), hard("b", "a"), entry(b'0', "a", "", b"x")],
        ),
        (
            "size of a link",
            vec![
                file("a"),
                {
                    let mut bytes = hard("b", "a");
                    bytes[124..136].copy_from_slice(b"00000000004\0");
                    reseal(&mut bytes);
                    bytes
                },
                file("c"),
            ],
        ),
        (
            "old folder name",
            vec![entry(0, "d/", "", b""), file("d/f")],
        ),
        ("contiguous file", vec![entry(b'7', "f", "", b"xyz")]),
        (
            "volume label",
            vec![entry(b'V', "label", "", b""), file("f")],
        ),
    ]
}

fn reseal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn contests_end_as_with_gnu_tar() {
    if !have("tar") {
        return;
    }
    for strip in [0, 1] {
        for (what, entries) in contests() {
            let bytes = archive(&entries);
            let temp = tempfile::tempdir().unwrap();
            fs::write(temp.path().join("a.tar"), &bytes).unwrap();
            // With names stripped, some links lose their targets: GNU tar reports and goes on.
            let status = sh(
                temp.path(),
                &format!(
                    "mkdir out; umask 022; s=0; tar -xpf a.tar -C out --strip-components={strip} \
                     2>err || s=$?; echo $s"
                ),
            );
            let options = Options {
                strip_components: strip,
                ..Options::default()
            };
            let read = read_with(&bytes, &options);
            if status != b"0\n" {
                assert!(read.is_err(), "{what}: {read:?}");
                continue;
            }
            let (tree, _) = read.unwrap_or_else(|error| panic!("{what} {strip}: {error}"));
            let mut found = describe_tree(&tree, look());
            let mut expected = describe_folder(&temp.path().join("out"), look());
            // Folders that tar had to make itself, or changed through a link, are of now.
            for (path, line) in &mut expected {
                if line.starts_with("directory") && !line.contains("time 1000.") {
                    *line = found.get(path).cloned().unwrap_or_default();
                }
            }
            found.remove("/");
            assert_same(&found, &expected, &format!("{what}, stripping {strip}"));
        }
    }
}

#[test]
fn what_leads_out_or_contradicts_is_refused_with_name_and_offset() {
    let file = |path| entry(b'0', path, "", b"file");
    for (entries, expected) in [
        (vec![file("a/../../b")], "'..'"),
        (
            vec![file("d/f"), file("d")],
            "entry 'd' at byte 1024: a directory that is not empty",
        ),
        (vec![file("f"), file("f/x")], "not a directory"),
        (vec![entry(b'1', "b", "a", b"")], "hard link to 'a'"),
        (
            vec![entry(b'5', "d/", "", b""), entry(b'1', "b", "d", b"")],
            "is a directory",
        ),
        (vec![file("a"), entry(b'1', "b", "../a", b"")], "'..'"),
        (vec![entry(b'2', "b", "", b"")], "no target"),
        (
            vec![entry(b'2', "x", "/x", b""), file("x/y")],
            "too many symbolic links",
        ),
        (vec![entry(b'Q', "b", "", b"")], "entry type 'Q'"),
        (vec![entry(b'M', "b", "", b"")], "multi-volume"),
        (vec![file("")], "no name"),
        (vec![entry(b'0', ".", "", b"")], "the root is a directory"),
        (
            vec![entry(b'x', "h", "", b"9 uid=70\n")],
            "no entry behind it",
        ),
        (
            vec![
                entry(b'x', "h", "", b"29 SCHILY.acl.access=u:joe:r\n"),
                file("a"),
            ],
            "numeric ids",
        ),
        (
            vec![entry(b'x', "h", "", b"22 GNU.sparse.major=2\n"), file("a")],
            "sparse format 2.0",
        ),
    ] {
        let error = read(&archive(&entries)).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let mut sum = archive(&[file("a")]);
    sum[0] = b'b';
    assert!(
        read(&sum)
            .unwrap_err()
            .to_string()
            .contains("no tar archive")
    );
    let mut lone = file("a");
    lone.extend([0; 512]);
    lone.extend(file("b"));
    assert!(read(&lone).unwrap_err().to_string().contains("lone block"));
    let cut = archive(&[entry(b'0', "a", "", &[1; 3000])]);
    for length in [100, 600, 2048, 3500, 3583] {
        read(&cut[..length]).unwrap_err();
    }
    assert_eq!(names(&read(&cut[..3584]).unwrap().0), ["/", "/a"]);
    assert_eq!(names(&read(&[0; 1024]).unwrap().0), ["/"]);
}

#[test]
fn links_never_lead_out_of_the_tree() {
    let (tree, _) = read(&archive(&[
        entry(b'5', "etc/", "", b""),
        entry(b'2', "up", "../../../etc", b""),
        entry(b'2', "abs", "/etc", b""),
        entry(b'0', "up/one", "", b"1"),
        entry(b'0', "abs/two", "", b"2"),
    ]))
    .unwrap();
    assert_eq!(
        names(&tree),
        ["/", "/abs", "/etc", "/etc/one", "/etc/two", "/up"]
    );
}

#[test]
fn symlinks_to_directories_are_kept_on_request() {
    let bytes = archive(&[
        entry(b'5', "usr/", "", b""),
        entry(b'5', "usr/lib/", "", b""),
        entry(b'2', "lib", "usr/lib", b""),
        entry(b'5', "lib/", "", b""),
        entry(b'0', "lib/x", "", b""),
    ]);
    let options = Options {
        keep_directory_symlinks: true,
        ..Options::default()
    };
    let (tree, _) = read_with(&bytes, &options).unwrap();
    assert_eq!(
        names(&tree),
        ["/", "/lib", "/usr", "/usr/lib", "/usr/lib/x"]
    );
    if !have("tar") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a.tar"), &bytes).unwrap();
    let extract = "mkdir out; tar -C out --keep-directory-symlink -xpf a.tar; cd out; find | sort";
    let listed = String::from_utf8(sh(temp.path(), extract)).unwrap();
    let listed: Vec<&str> = listed.lines().map(|path| &path[1..]).collect();
    assert_eq!(listed, ["", "/lib", "/usr", "/usr/lib", "/usr/lib/x"]);
}

#[test]
fn global_headers_hold_until_overridden() {
    let (tree, summary) = read(&archive(&[
        entry(b'g', "g", "", b"9 uid=70\n9 gid=71\n17 comment=hello\n"),
        entry(b'0', "a", "", b""),
        entry(b'x', "x", "", b"9 uid=72\n19 mtime=-1.250000\n11 colour=\n"),
        entry(b'0', "b", "", b""),
        entry(b'x', "x", "", b"7 uid=\n"),
        entry(b'0', "c", "", b""),
    ]))
    .unwrap();
    let metadata = |path: &[u8]| &tree.inode(tree.lookup(path).unwrap()).metadata;
    assert_eq!((metadata(b"a").uid, metadata(b"a").gid), (70, 71));
    assert_eq!((metadata(b"b").uid, metadata(b"b").gid), (72, 71));
    assert_eq!((metadata(b"c").uid, metadata(b"c").gid), (0, 71));
    let expected = Timestamp {
        seconds: -2,
        nanoseconds: 750_000_000,
    };
    assert_eq!(metadata(b"b").times.modified, expected);
    assert_eq!(summary.ignored.keys().collect::<Vec<_>>(), ["colour"]);
}

#[test]
fn implied_folders_are_root_s() {
    let (tree, _) = read(&archive(&[entry(b'0', "p/q/r", "", b"")])).unwrap();
    let implied = &tree.inode(tree.lookup(b"/p/q").unwrap()).metadata;
    assert_eq!(implied, &Options::default().implied_directory);
}

#[test]
fn root_metadata_comes_from_the_archive() {
    let (tree, _) = read(&archive(&[entry(b'5', "./", "", b"")])).unwrap();
    assert_eq!(tree.inode(InodeId::ROOT).metadata.mode, 0o755);
}

#[test]
fn compressed_and_plain_files_are_told_apart() {
    if !have("tar") || !have("xz") || !have("zstd") || !have("bzip2") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    make_source(temp.path());
    let mut first = None;
    for flag in ["", "z", "j", "J", "-zstd"] {
        sh(
            temp.path(),
            &format!(
                "tar -C src --format=pax -S -c{}f a.any . {}",
                flag.strip_prefix('-').map_or(flag, |_| ""),
                flag.strip_prefix('-')
                    .map(|name| format!("--{name}"))
                    .unwrap_or_default()
                    .replace("---", "--")
            ),
        );
        let mut tree = Tree::new(Metadata::default());
        let archive = File::open(temp.path().join("a.any")).unwrap();
        read_file(
            &mut tree,
            archive,
            tempfile::tempfile,
            &Options::default(),
            compress::Options {
                limits: compress::Limits::default(),
                threads: NonZeroUsize::MIN,
            },
        )
        .unwrap();
        let found = describe_tree(&tree, look());
        assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{flag}");
    }
}

/// `security.capability` of revision 2, and an access control list
/// for a user that has no name on any machine: GNU tar would write it.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const ACL: &[u8] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x06\0\x31\xd4\0\0\
    \x04\0\x04\0\xff\xff\xff\xff\x10\0\x06\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
