//! Files with holes.

use super::super::raw::Raw;
use super::Verdict::{Better, BothRefuse, Same, Stricter};
use super::{Case, case, file};

pub(super) fn sparse() -> Vec<Case> {
    let map10 = |map: &str, data: &str, size: &[u8]| {
        let mut content = map.as_bytes().to_vec();
        content.resize(content.len().next_multiple_of(512), 0);
        content.extend(data.as_bytes());
        vec![
            Raw::pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"holes"),
                ("GNU.sparse.realsize", size),
            ]),
            Raw::posix(b'0', "GNUSparseFile.0/holes").content(&content),
            file("next"),
        ]
    };
    let map01 = |map: &[u8], data: &str, size: &[u8]| {
        vec![
            Raw::pax(&[
                ("GNU.sparse.size", size),
                ("GNU.sparse.numblocks", b"3"),
                ("GNU.sparse.name", b"holes"),
                ("GNU.sparse.map", map),
            ]),
            Raw::posix(b'0', "x").content(data.as_bytes()),
        ]
    };
    let old = |map: &[u8], data: &str, size: &[u8]| {
        Raw::gnu(b'S', "holes")
            .content(data.as_bytes())
            .at(386, map)
            .at(483, size)
    };
    let slot = |offset: u64, length: u64| format!("{offset:011o}\0{length:011o}\0").into_bytes();
    let mut extension = vec![0; 512];
    extension[..24].copy_from_slice(&slot(4096, 2));
    extension[24..48].copy_from_slice(&slot(8192, 0));
    let four = [
        slot(0, 512),
        slot(1024, 512),
        slot(2048, 512),
        slot(3072, 512),
    ]
    .concat();
    let aligned = format!("{}abc", "x".repeat(512));
    let five = format!("{}ab", "y".repeat(2048));
    vec![
        case(
            "form 1.0",
            Same,
            &map10("3\n0\n512\n4096\n3\n8192\n0\n", &aligned, b"8192"),
        ),
        // GNU tar begins each run with a block; libarchive and Python do not, and nobody writes such.
        case(
            "form 1.0, runs within a block",
            Better(&["/holes: file 8192 ddf7a8ad1dc1eab4", "/next: "]),
            &map10("2\n0\n4\n4096\n3\n", "abcdefg", b"8192"),
        ),
        case(
            "form 1.0, all hole",
            Same,
            &map10("1\n8192\n0\n", "", b"8192"),
        ),
        // GNU tar writes an empty run at the end, and without it forgets the size.
        case(
            "form 1.0, runs that end before the file",
            Better(&["/holes: file 8192 ", "/next: "]),
            &map10("1\n0\n4\n", "abcd", b"8192"),
        ),
        case(
            "form 1.0, no runs",
            Better(&["/holes: file 8192 ", "/next: "]),
            &map10("0\n", "", b"8192"),
        ),
        case(
            "form 1.0, map cut off",
            BothRefuse("too long"),
            &map10("2\n0\n", "", b"8192"),
        ),
        case(
            "form 1.0, letters",
            BothRefuse("malformed"),
            &map10("x\n", "", b"8192"),
        ),
        case(
            "form 1.0, out of order",
            Stricter("out of order"),
            &map10("2\n4096\n512\n0\n3\n", &aligned, b"8192"),
        ),
        case(
            "form 1.0, overlapping",
            Stricter("out of order"),
            &map10("2\n0\n512\n511\n3\n", &aligned, b"8192"),
        ),
        case(
            "form 1.0, beyond the size",
            Stricter("leaves the file"),
            &map10("1\n8190\n7\n", "abcdefg", b"8192"),
        ),
        case(
            "form 1.0, less data than runs",
            Stricter("the entry 3"),
            &map10("1\n0\n7\n", "abc", b"8192"),
        ),
        case(
            "form 1.0, a million million runs",
            BothRefuse("more than 1048576 runs"),
            &map10("1000000000000\n", "", b"8192"),
        ),
        case(
            "form 2.0",
            Stricter("sparse format 2.0"),
            &[
                Raw::pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")]),
                file("f"),
            ],
        ),
        case(
            "form 0.1",
            Same,
            &map01(b"0,512,4096,3,8192,0", &aligned, b"8192"),
        ),
        case(
            "form 0.1, odd numbers",
            BothRefuse("incomplete"),
            &map01(b"0,4,4096", "abcd", b"8192"),
        ),
        case(
            "form 0.0",
            Same,
            &[
                Raw::pax(&[
                    ("GNU.sparse.size", b"8192"),
                    ("GNU.sparse.numblocks", b"3"),
                    ("GNU.sparse.offset", b"0"),
                    ("GNU.sparse.numbytes", b"512"),
                    ("GNU.sparse.offset", b"4096"),
                    ("GNU.sparse.numbytes", b"3"),
                    ("GNU.sparse.offset", b"8192"),
                    ("GNU.sparse.numbytes", b"0"),
                ]),
                Raw::posix(b'0', "holes").content(aligned.as_bytes()),
            ],
        ),
        case(
            "form 0.0, lengths only",
            BothRefuse("numbytes"),
            &[
                Raw::pax(&[("GNU.sparse.size", b"8192"), ("GNU.sparse.numbytes", b"4")]),
                Raw::posix(b'0', "holes").content(b"abcd"),
            ],
        ),
        case(
            "old form",
            Same,
            &[old(
                &[slot(0, 512), slot(4096, 3), slot(8192, 0)].concat(),
                &aligned,
                b"00000020000",
            )],
        ),
        case(
            "old form, hole at the end",
            Same,
            &[old(
                &[slot(0, 4), slot(8192, 0)].concat(),
                "abcd",
                b"00000020000",
            )],
        ),
        case(
            "old form, extended",
            Same,
            &[
                old(&four, &five, b"00000020000")
                    .at(482, b"\x01")
                    .extension(&extension),
                file("next"),
            ],
        ),
        case(
            "old form, extension missing",
            BothRefuse("the entry 0"),
            &[old(&four, "", b"00000020000").at(482, b"\x01")],
        ),
        case(
            "old form in POSIX's dialect",
            Stricter("star's form"),
            &[Raw::posix(b'S', "holes").content(b"abcd")],
        ),
        case(
            "star's real size",
            Stricter("star's form"),
            &[Raw::pax(&[("SCHILY.realsize", b"8192")]), file("f")],
        ),
        case(
            "a map for a folder",
            BothRefuse("what is no file"),
            &[
                Raw::pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"1")]),
                Raw::folder("d"),
            ],
        ),
    ]
}
