//! Against bsdtar, GNU cpio and the bytes themselves.

use std::fs;

use super::*;
use crate::testing::{have, is_root, sh};

fn sample() -> Vec<Entry> {
    let mut entries = vec![
        Entry::directory("dev", 0o755),
        Entry::char_device("dev/console", 0o600, 5, 1),
        Entry::file("init", 0o755, b"#!/bin/sh\n".to_vec()),
        Entry::file("empty", 0o644, Vec::new()),
        Entry::symlink("lib", "usr/lib"),
        Entry::file("odd", 0o4755, vec![7; 1021]),
        Entry {
            path: b"latin-\xe9".to_vec(),
            mode: 0o1777,
            uid: 70_000,
            gid: 3,
            kind: EntryKind::Directory,
        },
        Entry::of_root("dev/log", 0o600, EntryKind::Socket),
        Entry::of_root("dev/pipe", 0o600, EntryKind::Fifo),
    ];
    for link in ["dev/odd-too", "odd-three"] {
        entries.push(Entry::link(link, &entries[5]));
    }
    entries.push(Entry::link("empty-too", &entries[3]));
    entries.push(Entry::link("dev/pipe-too", &entries[8]));
    if !is_root() {
        entries.remove(1);
        entries[5].uid = 0;
        entries[5].gid = 0;
    }
    entries
}

fn bytes_of(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(entries, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_written_reads_back_even_concatenated() {
    let mut bytes = bytes_of(&sample());
    assert_eq!(bytes.len() % ARCHIVE_ALIGNMENT, 0);
    assert_eq!(read(&bytes[..], 1 << 20).unwrap(), sample());
    bytes.extend(bytes_of(&[Entry::file("second", 0o644, vec![1])]));
    let both = read(&bytes[..], 1 << 20).unwrap();
    assert_eq!(both.len(), sample().len() + 1);
    assert!(matches!(
        read(&bytes[..], 100),
        Err(CpioError::TooLarge(100))
    ));
    assert_eq!(read(&[][..], 0).unwrap(), []);
}

#[test]
fn the_bytes_are_these() {
    let bytes = bytes_of(&[Entry::file("a", 0o644, b"hi".to_vec())]);
    let header = |numbers: &str| format!("070701{}", numbers.replace(' ', ""));
    let zeroes = "00000000 00000000 00000000 00000000";
    let expected = [
        header("00000001 000081A4 00000000 00000000 00000001 00000000 00000002"),
        format!("{zeroes} 00000002 00000000").replace(' ', ""),
        "a\0hi\0\0".into(),
        header("00000000 00000000 00000000 00000000 00000001 00000000 00000000"),
        format!("{zeroes} 0000000B 00000000").replace(' ', ""),
        "TRAILER!!!\0\0\0\0".into(),
    ]
    .concat();
    assert_eq!(bytes[..expected.len()], *expected.as_bytes());
    assert!(bytes[expected.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn bsdtar_lists_the_same() {
    if !have("bsdtar") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a.cpio"), bytes_of(&sample())).unwrap();
    let listing = sh(temp.path(), "bsdtar --numeric-owner -tvf a.cpio");
    let listing = String::from_utf8_lossy(&listing);
    assert_eq!(listing.lines().count(), sample().len());
    let owner = if is_root() { " 70000  3 " } else { " 0  0 " };
    for part in ["-rwsr-xr-x", "1021", "lib -> usr/lib", "drwxrwxrwt", owner] {
        assert!(listing.contains(part), "{part}: {listing}");
    }
}

#[test]
fn what_the_kernel_would_not_unpack_is_refused() {
    let file = |path: &str| Entry::file(path, 0o644, Vec::new());
    for (entries, expected) in [
        (vec![file("/init")], "plain and relative"),
        (vec![file("a/../b")], "plain and relative"),
        (vec![file("")], "plain and relative"),
        (vec![file("modules/a.ko")], "not before it"),
        (vec![file("a"), file("a")], "already"),
        (vec![file("TRAILER!!!")], "name"),
        (vec![Entry::file("a", 0o100_644, vec![])], "7777"),
        (vec![Entry::symlink("a", "")], "link target"),
        (vec![Entry::link("b", &file("a"))], "not before it"),
        (vec![file("a"), Entry::link("a", &file("a"))], "already"),
        (
            vec![
                file("a"),
                Entry::link("b", &Entry::file("a", 0o600, vec![])),
            ],
            "owner or mode",
        ),
        (
            vec![
                Entry::directory("a", 0o755),
                Entry::link("b", &Entry::directory("a", 0o755)),
            ],
            "links no directories",
        ),
    ] {
        let error = write(&entries, Vec::new()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn one_byte_mutations_and_cuts_never_panic() {
    let bytes = bytes_of(&sample());
    for index in 0..bytes.len() {
        let _ = read(&bytes[..index], 1 << 20);
        for value in [0, b'0', b'F', b'g', 0xff] {
            let mut mutated = bytes.clone();
            mutated[index] = value;
            let _ = read(&mutated[..], 1 << 20);
        }
    }
    assert!(read(&bytes[..300], 1 << 20).is_err());
    let end = bytes.len() - ARCHIVE_ALIGNMENT;
    for cut in (0..end).filter(|cut| *cut > 0) {
        assert!(read(&bytes[..cut], 1 << 20).is_err(), "{cut}");
    }
}

/// A folder with everything that cpio keeps.
const SCRIPT: &str = r#"
    mkdir -p src/usr/bin; cd src
    echo hello > usr/bin/hello; ln usr/bin/hello usr/bin/hallo; ln usr/bin/hello zz
    : > nothing; ln nothing nothing-too
    ln -s usr/bin bin; mkfifo pipe; head -c 5001 /dev/urandom > random
    chmod 4755 usr/bin/hello; chmod 640 random
    if [ "$(id -u)" = 0 ]; then mknod null c 1 3; mknod loop7 b 7 300; chown 70000:5 random; fi
    find . | sort > ../list
"#;

const COMPARE: &str = r"
    look() {
        (cd $1; find . ! -name . -printf '%p %y %m %n %U %G %l\n'; find . -type f -exec sha256sum {} +) | sort
    }
    diff <(look src) <(look out)
";

#[test]
fn archives_of_gnu_cpio_read_and_ours_unpack_the_same() {
    if !have("cpio") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    sh(temp.path(), SCRIPT);
    let from = |format: &str| {
        let script = format!("cd src; cpio --quiet -o -H {format} < ../list > ../a.cpio");
        sh(temp.path(), &script);
        read(&fs::read(temp.path().join("a.cpio")).unwrap()[..], 1 << 20).unwrap()
    };
    let mut entries = from("newc");
    assert_eq!(from("crc"), entries);
    let links = entries
        .iter()
        .filter(|entry| matches!(entry.kind, EntryKind::Link(_)));
    assert_eq!(links.count(), 3);
    // cpio has the folder itself.
    assert_eq!(entries.remove(0).path, b".");
    let owned = entries
        .iter()
        .find(|entry| entry.path == b"random")
        .unwrap();
    assert_eq!(owned.uid == 70_000 && owned.gid == 5, is_root());
    fs::write(temp.path().join("ours.cpio"), bytes_of(&entries)).unwrap();
    for tool in ["cpio --quiet -id --no-absolute-filenames", "bsdtar -xpf -"] {
        let unpack = format!("rm -rf out; mkdir out; cd out; {tool} < ../ours.cpio");
        sh(temp.path(), &unpack);
        sh(temp.path(), COMPARE);
    }
    let listing = sh(
        temp.path(),
        "cpio --quiet -t < ours.cpio; cpio --quiet -t < a.cpio",
    );
    let listing = String::from_utf8_lossy(&listing);
    let names = entries.len();
    assert_eq!(listing.lines().count(), names * 2 + 1, "{listing}");
}

#[test]
fn checksums_are_checked() {
    let mut bytes = b"070702".to_vec();
    let numbers = [1, 0o100_644, 0, 0, 1, 0, 2, 0, 0, 0, 0, 2, 0x61 + 0x62];
    for number in numbers {
        bytes.extend(format!("{number:08x}").bytes());
    }
    bytes.extend(b"f\0ab\0\0");
    bytes.extend(bytes_of(&[]));
    let read_it = |bytes: &[u8]| read(bytes, 1 << 20);
    assert_eq!(
        read_it(&bytes).unwrap(),
        [Entry::file("f", 0o644, b"ab".to_vec())]
    );
    bytes[112] = b'c';
    let error = read_it(&bytes).unwrap_err().to_string();
    assert_eq!(
        error,
        "damaged cpio archive, entry 'f' at byte 0: the checksum of its content is wrong"
    );
}

#[test]
fn what_is_no_newc_is_named() {
    let good = bytes_of(&[Entry::file("f", 0o644, b"ab".to_vec())]);
    let with = |at: usize, text: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + text.len()].copy_from_slice(text);
        read(&bytes[..], 1 << 20).unwrap_err().to_string()
    };
    // The offsets of the fields: 6 for the magic, then 8 for each.
    for (at, text, expected) in [
        (0, &b"070707"[..], "odc"),
        (0, b"\x1f\x8b", "no newc header"),
        (14, b"000041ED", "has content but is no file"),
        (14, b"00000000", "file type"),
        (14, b"000181A4", "mode"),
        (94, b"00000000", "length of the name"),
        (94, b"00001001", "length of the name"),
        (54, b"FFFFFFFF", "ends within"),
        (54, b"xFFFFFFF", "malformed"),
        (110, b"\0", "NUL"),
        (111, b"x", "NUL"),
        (116 + 110, b"X", "file type"),
    ] {
        let error = with(at, text);
        assert!(error.contains(expected), "{error}");
    }
}

/// As `init/initramfs.c` has it: links end with their archive, the last content and owner win.
#[test]
fn links_are_as_the_kernel_makes_them() {
    let header = |name: &str, mode: u32, size: u32| {
        let mut bytes = b"070701".to_vec();
        for number in [9, mode, 0, 0, 2, 0, size, 0, 0, 0, 0, 2, 0] {
            bytes.extend(format!("{number:08x}").bytes());
        }
        bytes.extend(format!("{name}\0").bytes());
        bytes
    };
    let mut bytes = header("a", 0o100_600, 3);
    bytes.extend(b"old\0");
    bytes.extend(header("b", 0o100_644, 3));
    bytes.extend(b"new\0");
    bytes.extend(header("c", 0o100_640, 0));
    bytes.extend(bytes_of(&[]));
    bytes.extend(header("d", 0o100_640, 0));
    bytes.extend(bytes_of(&[]));
    let entries = read(&bytes[..], 1 << 20).unwrap();
    assert_eq!(entries[0].kind, EntryKind::File(b"new".to_vec()));
    assert_eq!(entries[1].kind, EntryKind::Link(b"a".to_vec()));
    assert_eq!(entries[2].kind, EntryKind::Link(b"a".to_vec()));
    assert_eq!(entries[3].kind, EntryKind::File(Vec::new()));
    assert!(entries.iter().all(|entry| entry.mode == 0o640));
    let mut other = header("a", 0o100_600, 0);
    other.extend(header("b", 0o010_600, 0));
    let error = read(&other[..], 1 << 20).unwrap_err().to_string();
    assert!(
        error.contains("'b' at byte 112: it is a hard link to something"),
        "{error}"
    );
}
