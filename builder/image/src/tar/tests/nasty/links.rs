//! Links, and entries that get in each other's way.

use super::super::raw::Raw;
use super::Verdict::{Better, BothRefuse, Same, Stricter};
use super::{Case, case, file};

pub(super) fn links() -> Vec<Case> {
    vec![
        case(
            "hard link to a later file",
            BothRefuse("entry 'h' at byte 0: hard link to 'f'"),
            &[Raw::hard("h", "f"), file("f")],
        ),
        case(
            "hard link to nothing",
            BothRefuse("entry 'h' at byte 0: hard link to 'f'"),
            &[Raw::hard("h", "f")],
        ),
        case(
            "hard link to a folder",
            BothRefuse("is a directory"),
            &[Raw::folder("d"), Raw::hard("h", "d")],
        ),
        case(
            "hard link to a symlink",
            Same,
            &[Raw::symlink("s", "nowhere"), Raw::hard("h", "s")],
        ),
        case(
            "hard link to a device",
            Same,
            &[Raw::gnu(b'3', "c"), Raw::hard("h", "c")],
        ),
        case(
            "hard link to itself",
            Same,
            &[file("f"), Raw::hard("f", "f")],
        ),
        case(
            "hard link to a hard link",
            Same,
            &[file("f"), Raw::hard("g", "f"), Raw::hard("h", "g")],
        ),
        case(
            "hard link below a file",
            BothRefuse("not a directory"),
            &[file("f"), Raw::hard("h", "f/x")],
        ),
        case(
            "hard link below a symlink",
            Same,
            &[
                Raw::folder("d"),
                file("d/f"),
                Raw::symlink("s", "d"),
                Raw::hard("h", "s/f"),
            ],
        ),
        // GNU tar cuts the target off up to its last '..', whatever that then is.
        case(
            "hard link out and in again",
            Stricter("'..'"),
            &[file("f"), Raw::hard("h", "../f")],
        ),
        case(
            "hard link without a target",
            BothRefuse("no target"),
            &[Raw::hard("h", "")],
        ),
        case(
            "symlink without a target",
            BothRefuse("no target"),
            &[Raw::symlink("s", "")],
        ),
        case(
            "symlink of 4095 bytes",
            Same,
            &[
                Raw::long(b'K', "t".repeat(4095).as_bytes()),
                Raw::symlink("s", "cut"),
            ],
        ),
        case(
            "symlink of 4096 bytes",
            BothRefuse("more than 4095 bytes"),
            &[
                Raw::long(b'K', "t".repeat(4096).as_bytes()),
                Raw::symlink("s", "cut"),
            ],
        ),
        case("symlink to itself", Same, &[Raw::symlink("s", "s")]),
        case(
            "symlinks in a ring",
            BothRefuse("too many symbolic links"),
            &[Raw::symlink("a", "b"), Raw::symlink("b", "a"), file("a/f")],
        ),
        case(
            "a file below a dangling symlink",
            BothRefuse("does not exist"),
            &[Raw::symlink("s", "nowhere"), file("s/f")],
        ),
        // GNU tar makes such a link at the very end only.
        case(
            "below an absolute symlink",
            Better(&["/d: ", "/d/f: ", "/s: symlink /d"]),
            &[Raw::folder("d"), Raw::symlink("s", "/d"), file("s/f")],
        ),
        case(
            "below a symlink out of the tree",
            Better(&["/d: ", "/d/f: ", "/s: symlink ../../d"]),
            &[Raw::folder("d"), Raw::symlink("s", "../../d"), file("s/f")],
        ),
        case(
            "hard link with a size in GNU's dialect",
            Same,
            &[
                file("f"),
                Raw::hard("h", "f").size(b"00000000004"),
                file("next"),
            ],
        ),
        case(
            "hard link with a size in POSIX's dialect",
            Same,
            &[
                file("f"),
                Raw::posix(b'1', "h").target("f").size(b"00000000004"),
                file("next"),
            ],
        ),
        case(
            "hard link with a size at the end",
            Same,
            &[
                file("f"),
                Raw::posix(b'1', "h").target("f").size(b"00000000004"),
            ],
        ),
        // bsdtar reads these as we do; GNU tar looks for a header in the content.
        case(
            "hard link with content",
            Better(&[
                "/f: file 4 187897ce0afcf20b links 2",
                "/h: links 2",
                "/next: ",
            ]),
            &[
                file("f"),
                Raw::posix(b'1', "h").target("f").content(b"more"),
                file("next"),
            ],
        ),
        case(
            "hard link with content by an extended header",
            Better(&[
                "/f: file 4 187897ce0afcf20b links 2",
                "/h: links 2",
                "/next: ",
            ]),
            &[
                file("f"),
                Raw::pax(&[("size", b"4")]),
                Raw::posix(b'1', "h").target("f").content(b"more"),
                file("next"),
            ],
        ),
    ]
}

pub(super) fn contests() -> Vec<Case> {
    let device = |path| Raw::gnu(b'3', path);
    let fifo = |path| Raw::gnu(b'6', path);
    let full = |over: Raw| vec![Raw::folder("a"), file("a/b"), over];
    let empty = |over: Raw| vec![Raw::folder("a"), file("t"), over];
    let on_file = |over: Raw| vec![file("t"), file("a"), over];
    let refused = "a directory that is not empty has this name";
    vec![
        case(
            "file over a full folder",
            BothRefuse(refused),
            &full(file("a")),
        ),
        case(
            "symlink over a full folder",
            BothRefuse(refused),
            &full(Raw::symlink("a", "t")),
        ),
        case(
            "hard link over a full folder",
            BothRefuse(refused),
            &full(Raw::hard("a", "a/b")),
        ),
        case(
            "device over a full folder",
            BothRefuse(refused),
            &full(device("a")),
        ),
        case(
            "fifo over a full folder",
            BothRefuse(refused),
            &full(fifo("a")),
        ),
        case("file over an empty folder", Same, &empty(file("a"))),
        case(
            "symlink over an empty folder",
            Same,
            &empty(Raw::symlink("a", "t")),
        ),
        case(
            "hard link over an empty folder",
            Same,
            &empty(Raw::hard("a", "t")),
        ),
        case("device over an empty folder", Same, &empty(device("a"))),
        case("fifo over an empty folder", Same, &empty(fifo("a"))),
        case("folder over a file", Same, &on_file(Raw::folder("a"))),
        case(
            "symlink over a file",
            Same,
            &on_file(Raw::symlink("a", "t")),
        ),
        case("hard link over a file", Same, &on_file(Raw::hard("a", "t"))),
        case("device over a file", Same, &on_file(device("a"))),
        case("file over a device", Same, &[device("a"), file("a")]),
        case("file over a fifo", Same, &[fifo("a"), file("a")]),
        case(
            "folder over a fifo",
            Same,
            &[fifo("a"), Raw::folder("a"), file("a/b")],
        ),
        case(
            "file over a symlink",
            Same,
            &[file("t"), Raw::symlink("a", "t"), Raw::file("a", "new")],
        ),
        case(
            "file over a dangling symlink",
            Same,
            &[Raw::symlink("a", "t"), file("a")],
        ),
        case(
            "folder over a symlink to a folder",
            Same,
            &[
                Raw::folder("d"),
                file("d/f"),
                Raw::symlink("a", "d"),
                Raw::folder("a"),
                file("a/g"),
            ],
        ),
        case(
            "folder over a dangling symlink",
            Same,
            &[Raw::symlink("a", "t"), Raw::folder("a")],
        ),
        case(
            "folder twice",
            Same,
            &[
                Raw::folder("a"),
                file("a/b"),
                Raw::folder("a").at(100, b"0000700"),
            ],
        ),
        case(
            "folder after its children",
            Same,
            &[file("a/b"), Raw::folder("a").at(100, b"0000700")],
        ),
        case(
            "a file below a file",
            BothRefuse("not a directory"),
            &[file("a"), file("a/b")],
        ),
        case(
            "a file that replaces one of two names",
            Same,
            &[file("f"), Raw::hard("h", "f"), Raw::file("f", "new")],
        ),
    ]
}
