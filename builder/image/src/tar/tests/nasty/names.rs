//! Paths: long, odd, absolute, and leading out.

use super::super::raw::Raw;
use super::Verdict::{BothRefuse, Same, Stricter};
use super::{Case, case, file};

pub(super) fn paths() -> Vec<Case> {
    let hundred = "n".repeat(100);
    let long = format!("{}/{}", "d".repeat(150), "n".repeat(255));
    vec![
        case("name of 100 bytes", Same, &[file(&hundred)]),
        case("target of 100 bytes", Same, &[Raw::symlink("l", &hundred)]),
        case(
            "prefix and name",
            Same,
            &[Raw::posix(b'0', "name").at(345, b"a/prefix")],
        ),
        case(
            "prefix of 155 bytes",
            Same,
            &[Raw::posix(b'0', &hundred).at(345, "p".repeat(155).as_bytes())],
        ),
        case(
            "no prefix in GNU's dialect",
            Same,
            &[Raw::gnu(b'0', "name").at(345, b"00000001750")],
        ),
        case(
            "no prefix in the oldest dialect",
            Same,
            &[Raw::v7(b'0', "name").at(345, b"prefix")],
        ),
        case(
            "the oldest dialect",
            Same,
            &[
                Raw::v7(0, "d/"),
                Raw::v7(0, "d/f").content(b"x"),
                Raw::v7(b'1', "d/h").target("d/f"),
                Raw::v7(b'2', "d/s").target("f"),
            ],
        ),
        case(
            "magic without a version",
            Same,
            &[Raw::posix(b'0', "f").at(263, b"  ")],
        ),
        case(
            "long name",
            Same,
            &[Raw::long(b'L', long.as_bytes()), file("cut")],
        ),
        case(
            "long name twice",
            Same,
            &[
                Raw::long(b'L', b"first"),
                Raw::long(b'L', b"second"),
                file("cut"),
            ],
        ),
        case(
            "long name and target in either order",
            Same,
            &[
                Raw::long(b'K', b"some/target"),
                Raw::long(b'L', b"link"),
                Raw::symlink("cut", "cut"),
                Raw::long(b'L', b"link2"),
                Raw::long(b'K', b"other/target"),
                Raw::symlink("cut", "cut"),
            ],
        ),
        case(
            "long name without a NUL",
            Same,
            &[
                Raw::gnu(b'L', "././@LongLink").content(b"name"),
                file("cut"),
            ],
        ),
        case(
            "long name and an extended header",
            Same,
            &[
                Raw::long(b'L', b"of-gnu"),
                Raw::pax(&[("path", b"of-posix")]),
                file("cut"),
            ],
        ),
        case(
            "long name with nothing behind it",
            Stricter("no entry behind it"),
            &[Raw::long(b'L', b"name")],
        ),
        case(
            "empty long name",
            BothRefuse("no name"),
            &[Raw::long(b'L', b""), file("cut")],
        ),
        case("no name", BothRefuse("no name"), &[file("")]),
        case(
            "name of 256 bytes",
            BothRefuse("more than 255 bytes"),
            &[Raw::long(b'L', "n".repeat(256).as_bytes()), file("cut")],
        ),
        case(
            "absolute",
            Same,
            &[file("/a/b"), file("//c"), Raw::hard("/d", "/a/b")],
        ),
        case(
            "dots and slashes",
            Same,
            &[file("./a//b/./c"), Raw::folder("././e//")],
        ),
        case("the root alone", Same, &[Raw::folder("./")]),
        case("the root as '/'", Same, &[Raw::folder("/")]),
        case("'..' in front", BothRefuse("'..'"), &[file("../a")]),
        case(
            "'..' in between",
            BothRefuse("'..'"),
            &[Raw::folder("a/"), file("a/../b")],
        ),
        case(
            "'..' at the end",
            BothRefuse("'..'"),
            &[Raw::folder("a/..")],
        ),
        case(
            "'..' behind '/'",
            BothRefuse("'..'"),
            &[file("/../../etc/passwd")],
        ),
        case(
            "dots that are names",
            Same,
            &[file("..."), file("..a"), file("a../b")],
        ),
        case("not UTF-8", Same, &[file("x").at(0, b"\xff\xfe\x80")]),
        case("control characters", Same, &[file("a\nb\x1b[31m\x7f")]),
        case(
            "extended header with bytes that are not UTF-8",
            Same,
            &[
                Raw::pax(&[
                    ("hdrcharset", b"BINARY"),
                    ("path", b"\xff\xfe"),
                    ("uname", b"\xff"),
                ]),
                file("cut"),
            ],
        ),
        case(
            "another character set",
            Stricter("character set 'KOI8-R'"),
            &[Raw::pax(&[("hdrcharset", b"KOI8-R")]), file("f")],
        ),
        case(
            "NUL in an extended path",
            Stricter("NUL byte"),
            &[Raw::pax(&[("path", b"a\0b")]), file("f")],
        ),
        case(
            "trailing slash on a file",
            Same,
            &[Raw::gnu(b'0', "d/"), file("d/f")],
        ),
        case(
            "trailing slash on a contiguous file",
            Same,
            &[Raw::gnu(b'7', "d/"), file("d/f")],
        ),
        case(
            "trailing slash by an extended header",
            Same,
            &[
                Raw::pax(&[("path", b"d/")]),
                Raw::gnu(b'0', "d").at(100, b"0000755"),
                file("d/f"),
            ],
        ),
        case(
            "trailing slash on a link",
            Same,
            &[file("f"), Raw::symlink("l/", "f")],
        ),
        case("trailing slash on a fifo", Same, &[Raw::gnu(b'6', "p/")]),
    ]
}
