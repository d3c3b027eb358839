//! Where an archive ends, or should not.

use super::super::raw::{Raw, join};
use super::Verdict::{BothRefuse, Same, Stricter};
use super::{Case, file, whole};

pub(super) fn ends() -> Vec<Case> {
    let one = || join(&[file("a")]);
    let then = |more: &[u8]| [&one()[..], more].concat();
    let zeroes = |blocks: usize| vec![0; 512 * blocks];
    vec![
        whole("nothing at all", BothRefuse("empty"), Vec::new()),
        whole("zeroes only", Same, zeroes(2)),
        whole("one block of zeroes only", Same, zeroes(1)),
        whole("no end", Same, one()),
        whole("one block of zeroes at the end", Same, then(&zeroes(1))),
        whole("many blocks of zeroes", Same, then(&zeroes(40))),
        whole(
            "rubbish behind the end",
            Same,
            then(&[zeroes(2), vec![b'x'; 5000]].concat()),
        ),
        whole(
            "rubbish behind one block of zeroes",
            Same,
            then(&[zeroes(1), vec![b'x'; 5000]].concat()),
        ),
        whole(
            "rubbish instead of an end",
            BothRefuse("at byte 1024: a header's checksum"),
            then(&[b'x'; 5120]),
        ),
        whole(
            "an archive behind the end",
            Same,
            then(&[zeroes(2), join(&[file("b")])].concat()),
        ),
        // GNU tar stops here without a word.
        whole(
            "an entry behind one block of zeroes",
            Stricter("at byte 1024: a lone block of zeroes"),
            then(&[zeroes(1), join(&[file("b")]), zeroes(2)].concat()),
        ),
        whole(
            "cut within the first header",
            BothRefuse("at byte 0: the archive is cut off"),
            one()[..100].to_vec(),
        ),
        whole(
            "cut within a header",
            Stricter("at byte 1024: the archive is cut off"),
            then(&one()[..100]),
        ),
        whole(
            "cut before the content",
            BothRefuse(
                "entry 'a' at byte 0: the archive is cut off: it ends within this entry's content, which reaches to byte 516",
            ),
            one()[..512].to_vec(),
        ),
        whole(
            "cut within the content",
            BothRefuse("entry 'a' at byte 0: the archive is cut off"),
            one()[..514].to_vec(),
        ),
        whole(
            "cut behind the content",
            BothRefuse("entry 'a' at byte 0: the archive is cut off"),
            one()[..600].to_vec(),
        ),
        whole(
            "cut within an extended header",
            BothRefuse("at byte 0: the archive is cut off"),
            Raw::pax(&[("comment", &[b'x'; 600])]).bytes()[..1000].to_vec(),
        ),
        whole(
            "cut behind an extended header",
            Stricter("no entry behind it"),
            Raw::pax(&[("uid", b"5")]).bytes(),
        ),
        whole(
            "cut within a long name",
            BothRefuse("at byte 0: the archive is cut off"),
            Raw::long(b'L', &[b'n'; 600]).bytes()[..1000].to_vec(),
        ),
        whole(
            "text",
            BothRefuse("no tar archive"),
            b"just text\n".repeat(200),
        ),
    ]
}
