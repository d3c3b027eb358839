//! Archives that want more than they should have: limits, mutations, and what costs too much.

use std::io::{self, Read};
use std::sync::Arc;

use super::raw::{Raw, archive, join, seal};
use super::{CAPABILITY, names, read_with};
use crate::tar::{ContentSink, Entries, Limits, Options, Summary, TarError, read_blob, read_into};
use crate::tree::{BlobId, Metadata, Tree};

#[test]
fn limits_are_named() {
    let small = |change: fn(&mut Limits)| {
        let mut options = Options::default();
        change(&mut options.limits);
        options
    };
    let xattr: &[(&str, &[u8])] = &[("SCHILY.xattr.user.a", b"0123456789")];
    let runs: &[(&str, &[u8])] = &[
        ("GNU.sparse.map", b"0,1,2,1,4,1"),
        ("GNU.sparse.size", b"9"),
    ];
    for (options, entries, expected) in [
        (
            small(|limits| limits.entries = 1),
            vec![Raw::pax(&[]), Raw::folder("d")],
            "more than 1 entries",
        ),
        (
            small(|limits| limits.entries = 3),
            vec![Raw::file("a/b/c/d", "")],
            "more than 3 files and folders",
        ),
        (
            small(|limits| limits.depth = 3),
            vec![Raw::file("a/b/c/d", "")],
            "more than 3 deep",
        ),
        (
            small(|limits| limits.path_bytes = 6),
            vec![Raw::file("a/b/c/d", "")],
            "more than 6 bytes",
        ),
        (
            small(|limits| limits.path_bytes = 6),
            vec![Raw::hard("a", "a/b/c/d")],
            "more than 6 bytes",
        ),
        (
            small(|limits| limits.path_bytes = 6),
            vec![Raw::long(b'L', b"12345678")],
            "more than 7",
        ),
        (
            small(|limits| limits.extended_header_bytes = 5),
            vec![Raw::pax(xattr)],
            "more than 5",
        ),
        (
            small(|limits| limits.global_header_bytes = 5),
            vec![Raw::global(xattr)],
            "more than 5",
        ),
        (
            small(|limits| limits.xattr_bytes = 15),
            vec![Raw::pax(xattr), Raw::folder("d")],
            "more than 15 bytes",
        ),
        (
            small(|limits| limits.sparse_runs = 2),
            vec![Raw::pax(runs), Raw::file("f", "abc")],
            "more than 2 runs",
        ),
    ] {
        let error = read_with(&archive(&entries), &options).unwrap_err();
        assert!(matches!(error, TarError::Limit { .. }));
        assert!(error.to_string().contains(expected), "{error}");
    }
    let mut bytes = archive(&[]);
    bytes.extend([b'x'; 100]);
    let mut entries = Entries::stream(
        &bytes[..],
        Limits {
            trailing_bytes: 99,
            ..Limits::default()
        },
    );
    let error = entries.next_entry().unwrap_err().to_string();
    assert!(
        error.contains("more than 99 bytes behind the end"),
        "{error}"
    );
}

#[test]
fn archives_behind_one_another_are_read_on_request() {
    let bytes = [
        archive(&[Raw::file("a", "1")]),
        vec![0; 512],
        archive(&[Raw::file("b", "2")]),
    ];
    let read = |ignore_zeros| {
        let options = Options {
            ignore_zeros,
            ..Options::default()
        };
        read_with(&bytes.concat(), &options).unwrap().0
    };
    assert_eq!(names(&read(false)), ["/", "/a"]);
    assert_eq!(names(&read(true)), ["/", "/a", "/b"]);
}

/// Looks at the bytes of a stream, which are where the archive has them.
struct Looking<'a> {
    archive: &'a [u8],
    blob: BlobId,
}

impl ContentSink for Looking<'_> {
    fn keep(
        &mut self,
        bytes: &mut dyn Read,
        offset: u64,
        length: u64,
    ) -> io::Result<(BlobId, u64)> {
        let mut seen = Vec::new();
        bytes.read_to_end(&mut seen)?;
        assert_eq!(seen.len() as u64, length);
        assert!(self.archive[offset as usize..].starts_with(&seen));
        Ok((self.blob, offset))
    }
}

type Outcome = Result<(Tree, Summary), TarError>;

/// Reads an archive in place and as a stream; gives both.
fn both(bytes: &[u8]) -> [Outcome; 2] {
    let start = || {
        let mut tree = Tree::new(Metadata::default());
        let blob = tree.add_blob(Arc::new(bytes.to_vec())).unwrap();
        (tree, blob)
    };
    let options = Options::default();
    let (mut tree, blob) = start();
    let in_place = read_blob(&mut tree, blob, &options).map(|summary| (tree, summary));
    let (mut tree, blob) = start();
    let mut entries = Entries::stream(bytes, options.limits);
    let mut sink = Looking {
        archive: bytes,
        blob,
    };
    let streamed = read_into(&mut tree, &mut entries, &mut sink, &options);
    [in_place, streamed.map(|summary| (tree, summary))]
}

/// A small archive of everything that has an own way through the reader.
fn specimens() -> Vec<Vec<u8>> {
    let sparse_map = "2\n0\n3\n1024\n2\n";
    let mut stored = sparse_map.as_bytes().to_vec();
    stored.resize(512, 0);
    stored.extend(b"abcde");
    let slots = [0, 3, 1024, 2].map(|number| format!("{number:011o}\0"));
    vec![
        join(&[Raw::v7(0, "d/"), Raw::v7(0, "d/f").content(b"12345")]),
        join(&[
            Raw::long(b'L', b"long/name"),
            Raw::file("cut", "12345"),
            Raw::long(b'K', b"long/name"),
            Raw::hard("h", "cut"),
        ]),
        join(&[
            Raw::global(&[("uid", b"70"), ("gname", b"x")]),
            Raw::pax(&[
                ("path", b"some/file"),
                ("mtime", b"-1.5"),
                ("size", b"5"),
                ("SCHILY.xattr.security.capability", CAPABILITY),
                ("LIBARCHIVE.xattr.user.a%20b", b"dmFsdWU"),
                ("SCHILY.acl.access", b"u::rwx,u:5:r,g::r,m::r,o::-"),
            ]),
            Raw::posix(b'0', "f").content(b"12345"),
        ]),
        join(&[
            Raw::pax(&[("GNU.sparse.size", b"600"), ("GNU.sparse.map", b"0,5")]),
            Raw::posix(b'0', "holes").content(b"12345"),
        ]),
        join(&[
            Raw::pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", b"2000"),
            ]),
            Raw::posix(b'0', "holes").content(&stored),
        ]),
        join(&[Raw::gnu(b'S', "holes")
            .content(b"abcde")
            .at(386, slots.concat().as_bytes())
            .at(482, b"\x01")
            .at(483, b"00000003720")
            .extension(&[0; 512])]),
        join(&[
            Raw::posix(b'0', "f").content(b"12345"),
            Raw::posix(b'1', "h").target("f").content(b"54321"),
            Raw::symlink("s", "f"),
            Raw::posix(b'3', "c"),
        ]),
    ]
}

fn assert_survives(bytes: &[u8], what: &str) {
    match both(bytes) {
        [Ok((a, sa)), Ok((b, sb))] => {
            assert_eq!(a.inodes(), b.inodes(), "{what}");
            assert_eq!(sa, sb, "{what}");
        }
        [Err(a), Err(b)] => assert_eq!(a.to_string(), b.to_string(), "{what}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn one_byte_mutations_are_survived_alike_by_both_ways_of_reading() {
    for (number, bytes) in specimens().into_iter().enumerate() {
        assert!(
            both(&bytes).iter().all(Result::is_ok),
            "{number}: {:?}",
            both(&bytes)[0]
        );
        for index in 0..bytes.len() {
            // Padding says nothing, nor do the unused ends of fields.
            let is_header = bytes[index / 512 * 512..][257..262] == *b"ustar" || number == 0;
            let is_quiet = bytes[index] == 0 && index > 0 && bytes[index - 1] == 0;
            if is_quiet && (!is_header || index % 3 > 0) {
                continue;
            }
            let values: &[u8] = if is_quiet { &[0xff] } else { &[0, b'9', 0xff] };
            for value in values.iter().copied() {
                let mut mutated = bytes.clone();
                mutated[index] = value;
                if is_header {
                    seal(&mut mutated[index / 512 * 512..][..512]);
                }
                assert_survives(&mutated, &format!("{number}: byte {index} is {value}"));
            }
        }
    }
}

#[test]
fn archives_cut_anywhere_are_survived_alike_by_both_ways_of_reading() {
    for (number, bytes) in specimens().into_iter().enumerate() {
        for length in (0..bytes.len()).step_by(7) {
            assert_survives(&bytes[..length], &format!("{number}: {length} bytes"));
        }
    }
}

/// Each of these would take minutes with a reader that does the obvious.
#[test]
fn what_could_take_long_does_not() {
    // Folders below folders, each path told whole.
    let deep = |n: usize| Raw::pax(&[("path", format!("{}{n}", "d/".repeat(1000)).as_bytes())]);
    let entries: Vec<Raw> = (0..300).flat_map(|n| [deep(n), Raw::folder("x")]).collect();
    let (tree, _) = both(&archive(&entries))
        .into_iter()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(tree.inodes().len(), 1301);
    // Links to links, each of many steps.
    let mut entries = vec![Raw::folder("d")];
    for n in 0..40 {
        let target = format!("{}l{}", "d/../".repeat(800), n + 1);
        entries.extend([
            Raw::long(b'K', target.as_bytes()),
            Raw::symlink(&format!("l{n}"), "x"),
        ]);
    }
    entries.push(Raw::folder("l40"));
    for n in 0..50 {
        entries.push(Raw::file(&format!("l1/{n}"), ""));
    }
    let (tree, _) = both(&archive(&entries))
        .into_iter()
        .next()
        .unwrap()
        .unwrap();
    assert!(tree.resolve(b"l40/49").is_ok());
    // A map of a million runs, and a header of eight megabytes.
    let map: String = (0..500_000).map(|n| format!("{}\n1\n", n * 2)).collect();
    let mut content = format!("500000\n{map}").into_bytes();
    content.resize(content.len().next_multiple_of(512) + 500_000, 0);
    let head = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"1000000"),
    ];
    let long = vec![b'x'; 8_000_000];
    let entries = [
        Raw::pax(&head),
        Raw::posix(b'0', "f").content(&content),
        Raw::pax(&[("comment", &long)]),
        Raw::folder("d"),
    ];
    assert!(both(&archive(&entries)).iter().all(Result::is_ok));
}
