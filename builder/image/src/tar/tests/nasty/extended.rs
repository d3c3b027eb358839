//! Extended headers.

use super::super::raw::Raw;
use super::Verdict::{Better, BothRefuse, Same, Stricter};
use super::{Case, case, file};

pub(super) fn extended() -> Vec<Case> {
    let with = |records: &[(&str, &[u8])]| vec![Raw::pax(records), file("f"), file("next")];
    let broken = |text: &[u8]| vec![Raw::posix(b'x', "h").content(text), file("f")];
    vec![
        case(
            "owner by number",
            Same,
            &with(&[("uid", b"4294967290"), ("gid", b"7")]),
        ),
        case(
            "owner below zero",
            BothRefuse("uid cannot be '-1'"),
            &with(&[("uid", b"-1")]),
        ),
        case(
            "owner of 33 bits",
            BothRefuse("uid cannot be"),
            &with(&[("uid", b"4294967296")]),
        ),
        case(
            "time with a fraction",
            Same,
            &with(&[("mtime", b"5.000000001999")]),
        ),
        case("time before 1970", Same, &with(&[("mtime", b"-1.25")])),
        case("time with a point only", Same, &with(&[("mtime", b"7.")])),
        case(
            "time that is none",
            BothRefuse("mtime cannot be 'yesterday'"),
            &with(&[("mtime", b"yesterday")]),
        ),
        case(
            "size wins",
            Same,
            &[
                Raw::pax(&[("size", b"4")]),
                file("f").size(b"00000000000"),
                file("next"),
            ],
        ),
        case(
            "size with a sign",
            BothRefuse("size cannot be '-4'"),
            &with(&[("size", b"-4")]),
        ),
        case(
            "the later record wins",
            Same,
            &with(&[("uid", b"1"), ("uid", b"2")]),
        ),
        case(
            "two extended headers",
            Same,
            &[
                Raw::pax(&[("uid", b"5"), ("gid", b"5")]),
                Raw::pax(&[("uid", b"6")]),
                file("f"),
            ],
        ),
        case(
            "link target",
            Same,
            &[
                Raw::pax(&[("linkpath", "t".repeat(300).as_bytes())]),
                Raw::symlink("s", "short"),
            ],
        ),
        case(
            "empty values take back",
            Better(&["/f: owner 0:0"]),
            &[
                Raw::pax(&[("uid", b"5"), ("uid", b""), ("mtime", b"")]),
                file("f"),
            ],
        ),
        case(
            "remarks",
            Same,
            &with(&[("comment", b"hello"), ("SCHILY.ino", b"77")]),
        ),
        case(
            "attributes",
            Same,
            &with(&[
                ("SCHILY.xattr.user.a", b"line\nline\0"),
                ("SCHILY.xattr.user.empty", b""),
                ("SCHILY.xattr.user.a%3Db", b"1=2"),
            ]),
        ),
        case(
            "capability",
            Same,
            &with(&[("SCHILY.xattr.security.capability", super::super::CAPABILITY)]),
        ),
        case(
            "libarchive's attributes",
            Better(&["/f: user.a b=value", "/next: "]),
            &with(&[("LIBARCHIVE.xattr.user.a%20b", b"dmFsdWU")]),
        ),
        case(
            "attribute without a name",
            Stricter("named ''"),
            &with(&[("SCHILY.xattr.", b"x")]),
        ),
        case(
            "attribute that is too long",
            Stricter("more than 65536 bytes"),
            &with(&[("SCHILY.xattr.user.a", &[b'x'; 65537])]),
        ),
        case(
            "access control lists",
            Same,
            &[
                Raw::pax(&[
                    (
                        "SCHILY.acl.access",
                        b"user::rwx,user:1000:r-x,group::r-x,mask::r-x,other::---",
                    ),
                    ("SCHILY.acl.default", b"user::rwx,group::r-x,other::r--"),
                ]),
                Raw::folder("d").at(100, b"0000750"),
            ],
        ),
        case(
            "access control list by name",
            Stricter("numeric ids"),
            &with(&[(
                "SCHILY.acl.access",
                b"user::rwx,user:no-such-user:r-x,group::r-x,mask::r-x,other::---",
            )]),
        ),
        case(
            "access control list without a mask",
            Stricter("or mask"),
            &with(&[(
                "SCHILY.acl.access",
                b"user::rwx,user:1000:r-x,group::r-x,other::---",
            )]),
        ),
        case(
            "record without a length",
            BothRefuse("no length"),
            &broken(b"path=x\n"),
        ),
        case(
            "record longer than the header",
            BothRefuse("impossible length"),
            &broken(b"99 path=x\n"),
        ),
        case(
            "record without a newline",
            BothRefuse("newline"),
            &broken(b"9 path=xy"),
        ),
        case(
            "record without '='",
            BothRefuse("no '='"),
            &broken(b"8 pathx\n"),
        ),
        case(
            "record without a keyword",
            Stricter("no keyword"),
            &broken(b"7 =xyz\n"),
        ),
        case(
            "record of length zero",
            BothRefuse("impossible length"),
            &broken(b"0 \n"),
        ),
        case(
            "record of a length beyond 64 bits",
            BothRefuse("no length"),
            &broken(b"99999999999999999999999 path=x\n"),
        ),
        case(
            "blanks in front of the length",
            BothRefuse("impossible length"),
            &broken(b"   8 uid=7\n"),
        ),
        case("empty extended header", Same, &broken(b"")),
        case(
            "extended header with nothing behind it",
            Stricter("no entry behind it"),
            &[Raw::pax(&[("uid", b"5")])],
        ),
        case(
            "global header",
            Same,
            &[
                Raw::global(&[("uid", b"70"), ("comment", b"of git")]),
                file("a"),
                Raw::pax(&[("uid", b"71")]),
                file("b"),
                file("c"),
            ],
        ),
        // GNU tar forgets the first; POSIX has them add up.
        case(
            "two global headers",
            Better(&["/a: owner 70:71"]),
            &[
                Raw::global(&[("uid", b"70")]),
                Raw::global(&[("gid", b"71")]),
                file("a"),
            ],
        ),
        case(
            "global header taken back",
            Better(&[
                "/a: time 5.000000000 owner 70:0",
                "/b: time 5.000000000 owner 0:0",
                "/c: time 1000.000000000 owner 0:0",
            ]),
            &[
                Raw::global(&[("uid", b"70"), ("mtime", b"5")]),
                file("a"),
                Raw::pax(&[("uid", b"")]),
                file("b"),
                Raw::global(&[("uid", b""), ("mtime", b"")]),
                file("c"),
            ],
        ),
        case(
            "global header at the end",
            Same,
            &[file("a"), Raw::global(&[("uid", b"70")])],
        ),
        case(
            "attributes in a global header",
            Stricter("in a global header"),
            &[Raw::global(&[("SCHILY.xattr.user.a", b"x")]), file("a")],
        ),
    ]
}
