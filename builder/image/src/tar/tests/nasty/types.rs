//! Entry types.

use super::super::raw::Raw;
use super::Verdict::{BothRefuse, Same, Stricter};
use super::{Case, case, file};

pub(super) fn types() -> Vec<Case> {
    vec![
        case(
            "file, old and contiguous",
            Same,
            &[
                Raw::gnu(0, "a").content(b"1"),
                Raw::gnu(b'7', "b").content(b"2"),
            ],
        ),
        case(
            "devices and a fifo",
            Same,
            &[
                Raw::posix(b'3', "c")
                    .at(329, b"0000001\0")
                    .at(337, b"0000003\0"),
                Raw::posix(b'4', "b")
                    .at(329, b"0000007\0")
                    .at(337, b"0000454\0"),
                Raw::posix(b'6', "p"),
            ],
        ),
        case(
            "device with a size",
            Same,
            &[Raw::posix(b'3', "c").size(b"00000001000"), file("f")],
        ),
        case(
            "fifo with a size",
            Same,
            &[Raw::posix(b'6', "p").size(b"00000001000"), file("f")],
        ),
        case(
            "folder with a size",
            Same,
            &[Raw::folder("d").size(b"00000001000"), file("f")],
        ),
        case(
            "symlink with a size",
            Same,
            &[Raw::symlink("s", "f").size(b"00000001000"), file("f")],
        ),
        case(
            "folder of an incremental archive",
            Same,
            &[Raw::gnu(b'D', "d/").content(b"Yf\0Nold\0\0"), file("d/f")],
        ),
        case("volume label", Same, &[Raw::gnu(b'V', "label"), file("f")]),
        case(
            "continued file",
            BothRefuse("multi-volume"),
            &[Raw::gnu(b'M', "f").content(b"rest").at(369, b"00000001000")],
        ),
        case(
            "continued file, POSIX",
            Stricter("multi-volume"),
            &[
                Raw::global(&[("GNU.volume.filename", b"f"), ("GNU.volume.offset", b"5")]),
                file("f"),
            ],
        ),
        case(
            "old long names",
            Stricter("'N'"),
            &[Raw::gnu(b'N', "names").content(b"Rename x to y\n")],
        ),
        case(
            "Solaris' list",
            Stricter("Solaris access control list"),
            &[Raw::posix(b'A', "f").content(b"user::rwx"), file("f")],
        ),
        case(
            "Solaris' extended header",
            Same,
            &[Raw::posix(b'X', "h").content(b"9 uid=70\n"), file("f")],
        ),
        case(
            "unknown type",
            Stricter("entry type 'Q' (81)"),
            &[Raw::posix(b'Q', "f").content(b"1")],
        ),
        case(
            "unknown type, unprintable",
            Stricter("entry type '\\xff' (255)"),
            &[Raw::posix(0xff, "f")],
        ),
    ]
}
