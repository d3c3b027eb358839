//! Numbers in every form, and checksums.

use super::super::raw::{Raw, signed_checksum};
use super::Verdict::{BothRefuse, Same};
use super::{Case, case, file};

pub(super) fn numbers() -> Vec<Case> {
    let mode = |field: &[u8]| file("f").at(100, field);
    let time = |field: &[u8]| file("f").at(136, field);
    let owner = |field: &[u8]| file("f").at(108, field);
    vec![
        case("mode with blanks", Same, &[mode(b"   644 \0")]),
        case("mode ends with a blank", Same, &[mode(b"0000640 ")]),
        case("mode without an end", Same, &[mode(b"00000640")]),
        case("mode with a file's type", Same, &[mode(b"0100600\0")]),
        case("mode with a NUL in front", Same, &[mode(b"\x00000640\0")]),
        case("mode in base 256", Same, &[mode(b"\x80\0\0\0\0\0\x01\x80")]),
        case("set-uid, set-gid, sticky", Same, &[mode(b"0007755\0")]),
        case(
            "mode with a letter",
            BothRefuse("mode is impossible"),
            &[mode(b"00006x4\0")],
        ),
        case(
            "mode with an eight",
            BothRefuse("mode is impossible"),
            &[mode(b"0000684\0")],
        ),
        case(
            "blank mode",
            BothRefuse("mode is impossible"),
            &[mode(b"        ")],
        ),
        case(
            "blank owner",
            BothRefuse("owner is impossible"),
            &[owner(b"        ")],
        ),
        case("owner of NULs", Same, &[owner(&[0; 8])]),
        case(
            "owner above two million",
            Same,
            &[owner(b"\x80\0\0\0\x7f\xff\xff\xfe")],
        ),
        case(
            "the highest owner",
            Same,
            &[owner(b"\x80\0\0\0\xff\xff\xff\xfd")],
        ),
        case(
            "negative owner",
            BothRefuse("owner is impossible"),
            &[owner(&[0xff; 8])],
        ),
        case("time before 1970", Same, &[time(&[0xff; 12])]),
        case("time of 12 digits", Same, &[time(b"017777777777")]),
        case("time after 2106", Same, &[time(b"100000000000")]),
        case(
            "time beyond 64 bits",
            BothRefuse("time is impossible"),
            &[time(b"\x80\0\x01\0\0\0\0\0\0\0\0\0")],
        ),
        case("size with blanks", Same, &[file("f").size(b"          4 ")]),
        case(
            "size in base 256",
            Same,
            &[file("f").size(b"\x80\0\0\0\0\0\0\0\0\0\0\x04")],
        ),
        case(
            "negative size",
            BothRefuse("size is impossible"),
            &[file("f").size(&[0xff; 12])],
        ),
        case(
            "size of letters",
            BothRefuse("size is impossible"),
            &[file("f").size(b"four       \0")],
        ),
        case(
            "size beyond 63 bits",
            BothRefuse("size is impossible"),
            &[file("f").size(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")],
        ),
        case(
            "signed checksum",
            Same,
            &[{
                let raw = Raw::file("caf\u{e9}", "text");
                let sum = signed_checksum(&raw);
                raw.checksum(&sum)
            }],
        ),
        case(
            "checksum with leading blanks",
            Same,
            &[{
                let raw = file("f");
                let sum: [u8; 8] = raw.header()[148..156].try_into().unwrap();
                let digits = std::str::from_utf8(&sum[1..6]).unwrap();
                let field: [u8; 8] = format!(" {digits} \0").into_bytes().try_into().unwrap();
                raw.checksum(&field)
            }],
        ),
        case(
            "wrong checksum",
            BothRefuse("no tar archive"),
            &[file("f").checksum(b"0000000\0")],
        ),
        case(
            "blank checksum",
            BothRefuse("no tar archive"),
            &[file("f").checksum(b"        ")],
        ),
        case(
            "wrong checksum in between",
            BothRefuse("at byte 1024: a header's checksum is wrong"),
            &[file("a"), file("b").checksum(b"0000000\0"), file("c")],
        ),
        case(
            "device numbers in base 256",
            Same,
            &[Raw::gnu(b'3', "d")
                .at(329, b"\x80\0\0\0\0\0\0\x05")
                .at(337, b"\x80\0\0\0\0\0\x01\x2c")],
        ),
    ]
}
