//! Damaged and hostile qcow2.

use super::*;

const CLUSTER: usize = 512;
const COPIED: u64 = 1 << 63;
const L1: usize = CLUSTER;
const L2: usize = 2 * CLUSTER;
const DATA: u64 = 3 * 512;
const OTHER: u64 = 4 * 512;
const PACKED: usize = 5 * CLUSTER;

/// A disk of 32 KiB in clusters of 512 bytes: data in the first and third cluster, zeroes in the
/// fourth, a compressed one in the fifth.
pub(super) struct Small(pub(super) Vec<u8>);

impl Small {
    pub(super) fn new() -> Self {
        let mut small = Self(vec![0; 5 * CLUSTER]);
        small.put(0, b"QFI\xfb\0\0\0\x03");
        small.four(20, 9);
        small.eight(24, 32 << 10);
        small.four(36, 1);
        small.eight(40, 512);
        small.four(96, 4);
        small.four(100, 104);
        small.eight(L1, COPIED | 1024);
        small.eight(L2, COPIED | DATA);
        small.eight(L2 + 16, COPIED | OTHER);
        small.eight(L2 + 24, 1);
        small.put(3 * CLUSTER, &[b'a'; CLUSTER]);
        small.put(4 * CLUSTER, &[b'b'; CLUSTER]);
        let mut packed = Vec::new();
        let mut packer = flate2::write::DeflateEncoder::new(&mut packed, Default::default());
        io::Write::write_all(&mut packer, &[b'c'; CLUSTER]).unwrap();
        packer.finish().unwrap();
        small.0.extend(packed);
        small.eight(L2 + 32, (1 << 62) | (5 * 512));
        small
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = self.0.len().max(at + bytes.len());
        self.0.resize(end, 0);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn four(&mut self, at: usize, number: u32) {
        self.put(at, &number.to_be_bytes());
    }

    fn eight(&mut self, at: usize, number: u64) {
        self.put(at, &number.to_be_bytes());
    }
}

/// A change of a disk, and a part of what is then said.
type Case = (fn(&mut Small), &'static str);

#[test]
fn a_small_disk_reads() {
    let bytes = read_all(&Small::new().0, &mut NoChain).unwrap();
    let mut expected = vec![0; 32 << 10];
    expected[..512].fill(b'a');
    expected[1024..1536].fill(b'b');
    expected[2048..2560].fill(b'c');
    assert!(bytes == expected);
}

#[test]
fn what_is_impossible_is_refused() {
    const CASES: &[Case] = &[
        (|d| d.put(7, b"\x01"), "version 1 is not supported"),
        (|d| d.put(7, b"\x04"), "version 4 is not supported"),
        (|d| d.four(20, 8), "clusters of 2^8 bytes"),
        (|d| d.four(20, 22), "clusters of 2^22 bytes"),
        (|d| d.four(20, u32::MAX), "clusters of 2^4294967295 bytes"),
        (|d| d.eight(24, 1000), "a size of 1000 bytes is impossible"),
        (|d| d.eight(24, 1 << 63), "is impossible"),
        (|d| d.eight(24, 1 << 50), "more than coop takes (4194304)"),
        (|d| d.eight(24, 33 << 10), "1 entries are too few"),
        (|d| d.four(32, 1), "encryption (AES) is not supported"),
        (|d| d.four(32, 2), "encryption (LUKS) is not supported"),
        (|d| d.four(32, 7), "method 7 is not supported"),
        (
            |d| d.eight(40, 1 << 40),
            "first-level table: it cannot be at byte",
        ),
        (
            |d| d.eight(40, u64::MAX),
            "first-level table: it cannot be at byte",
        ),
        (|d| d.eight(40, 0), "lies on the header"),
        (|d| d.eight(72, 2), "marked as damaged"),
        (|d| d.eight(72, 4), "its data file has no name"),
        (|d| d.eight(72, 8), "two words on compression differ"),
        (|d| d.eight(72, 16), "clusters of 2^9 bytes have no parts"),
        (|d| d.eight(72, 1 << 60), "feature 60 is not supported"),
        (|d| d.four(100, 96), "a length of 96 bytes is impossible"),
        (|d| d.four(100, 1 << 20), "a length of 1048576 bytes"),
        (
            |d| d.put(104, &[1, 2, 3, 4, 255, 255, 255, 255]),
            "an extension does not fit",
        ),
    ];
    check_cases(CASES);
}

#[test]
fn tables_that_lie_are_refused() {
    const CASES: &[Case] = &[
        (
            |d| d.eight(L1, COPIED | 512),
            "table at byte 512 lies on something else",
        ),
        (
            |d| d.eight(L1, COPIED | 1 << 40),
            "lies behind the file's end",
        ),
        (|d| d.eight(L1, 1024 | 1), "is impossible"),
        (|d| d.eight(L1, 1 << 62 | 1024), "is impossible"),
        (
            |d| d.eight(L2, COPIED | 512),
            "cluster at byte 512 lies on something else",
        ),
        (
            |d| d.eight(L2, COPIED | 1024),
            "cluster at byte 1024 lies on something else",
        ),
        (
            |d| d.eight(L2, COPIED | OTHER),
            "cluster at byte 2048 lies on something else",
        ),
        (
            |d| d.eight(L2 + 8, 1 << 62 | DATA),
            "lies on something else",
        ),
        (|d| d.eight(L2, COPIED | 1 << 50), "ends behind the file"),
        (|d| d.eight(L2, COPIED | DATA | 2), "is impossible"),
        (
            |d| d.eight(L2 + 8, 1 << 62 | 1 << 50),
            "behind the file's end",
        ),
        (
            |d| d.eight(L2 + 8, 1 << 62 | 1 << 20),
            "behind the file's end",
        ),
        (
            |d| d.put(PACKED, &[0xff; 8]),
            "its compressed cluster at byte 2560",
        ),
        (
            |d| d.put(PACKED, &[1, 0, 0, 255, 255]),
            "it unpacks to 0 bytes instead of 512",
        ),
        (
            |d| {
                d.put(7, b"\x02");
                d.eight(L2, COPIED | DATA);
            },
            "is impossible",
        ),
    ];
    check_cases(CASES);
    // Two tables on one place.
    let mut small = Small::new();
    small.four(36, 2);
    small.eight(24, 64 << 10);
    small.eight(L1 + 8, COPIED | 1024);
    let error = refusal(&small.0, &mut NoChain);
    assert!(
        error.contains("entry 1 of its first-level table"),
        "{error}"
    );
}

fn check_cases(cases: &[Case]) {
    for (number, (change, text)) in cases.iter().enumerate() {
        let mut small = Small::new();
        change(&mut small);
        let error = refusal(&small.0, &mut NoChain);
        assert!(error.contains(text), "{number}: {error}, not {text}");
    }
}

#[test]
fn parts_of_clusters_are_read_or_refused() {
    let cluster = 16 << 10;
    let mut small = Small::new();
    small.four(20, 14);
    small.eight(24, 64 << 10);
    small.eight(72, 16);
    small.eight(40, cluster);
    small.put(3 << 14, &[b'p'; 16 << 10]);
    small.eight(1 << 14, COPIED | 2 << 14);
    let with_parts = |small: &mut Small, bitmap: u64| {
        small.eight(2 << 14, COPIED | 3 << 14);
        small.eight((2 << 14) + 8, bitmap);
    };
    with_parts(&mut small, 1 << 32 | 0b1010);
    let bytes = read_all(&small.0, &mut NoChain).unwrap();
    for (index, part) in bytes.chunks(512).enumerate() {
        let expected = if matches!(index, 1 | 3) { b'p' } else { 0 };
        assert!(part.iter().all(|byte| *byte == expected), "{index}");
    }
    with_parts(&mut small, 1 << 32 | 1);
    let error = refusal(&small.0, &mut NoChain);
    assert!(
        error.contains("parts 0x0000000100000001 are impossible"),
        "{error}"
    );
}

#[test]
fn clusters_that_share_their_bytes_are_no_more_than_these_can_be() {
    let mut small = Small::new();
    small.four(20, 16);
    small.eight(40, 64 << 10);
    small.eight(64 << 10, COPIED | 128 << 10);
    small.eight(24, 512 << 20);
    small.put((192 << 10) - 8, &[0; 8]);
    let packed = |index: usize| ((128 << 10) + 8 * index, (1 << 62) | (192 << 10));
    let mut stream = flate2::write::DeflateEncoder::new(Vec::new(), Default::default());
    io::Write::write_all(&mut stream, &[b'c'; 64 << 10]).unwrap();
    small.put(192 << 10, &stream.finish().unwrap());
    for (at, entry) in (0..3000).map(packed) {
        small.eight(at, entry);
    }
    open(&small.0, &mut NoChain).unwrap();
    for (at, entry) in (0..8192).map(packed) {
        small.eight(at, entry);
    }
    let error = refusal(&small.0, &mut NoChain);
    assert!(error.contains("8192 of them cannot be in"), "{error}");
}

#[test]
fn zstd_has_a_bound_on_memory() {
    let mut small = Small::new();
    small.eight(72, 8);
    small.four(100, 112);
    small.put(104, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let packed = zstd::bulk::compress(&[b'z'; CLUSTER], 3).unwrap();
    small.put(PACKED, &packed);
    let bytes = read_all(&small.0, &mut NoChain).unwrap();
    assert!(bytes[2048..2560].iter().all(|byte| *byte == b'z'));
    // A frame with a window of 2 GiB, and a raw block of no bytes.
    small.put(PACKED, &[0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0]);
    let error = refusal(&small.0, &mut NoChain);
    assert!(error.contains("too much memory"), "{error}");
}

#[test]
fn files_that_a_disk_names_stay_closed() {
    let mut small = Small::new();
    small.put(200, b"/etc/passwd");
    small.eight(8, 200);
    small.four(16, 11);
    let error = refusal(&small.0, &mut NoChain);
    assert!(
        error.contains("backing file '/etc/passwd', which is not read"),
        "{error}"
    );
    small.four(16, 1024);
    let error = refusal(&small.0, &mut NoChain);
    assert!(error.contains("backing file's name: 1024 bytes"), "{error}");
    small.four(16, 11);
    small.eight(8, 510);
    let error = refusal(&small.0, &mut NoChain);
    assert!(
        error.contains("11 bytes at byte 510 are impossible"),
        "{error}"
    );
    small.eight(8, 200);
    small.put(205, b"\xff");
    let error = refusal(&small.0, &mut NoChain);
    assert!(error.contains("it is no text"), "{error}");
    let mut data = Small::new();
    data.eight(72, 4);
    data.eight(L2 + 32, 0);
    data.put(104, &[b"DATA\0\0\0\x08" as &[u8], b"/etc/foo"].concat());
    let error = refusal(&data.0, &mut NoChain);
    assert!(
        error.contains("data file '/etc/foo', which is not read"),
        "{error}"
    );
    let error = refusal(&data.0, &mut Again(vec![7; 1000]));
    assert!(error.contains("ends behind the file"), "{error}");
}

#[test]
fn a_chain_that_never_ends_is_refused() {
    let mut small = Small::new();
    small.put(200, b"again");
    small.eight(8, 200);
    small.four(16, 5);
    let again = small.0.clone();
    let error = refusal(&small.0, &mut Again(again));
    assert!(
        error.contains("goes on with 'again' is more than"),
        "{error}"
    );
    let base = vec![b'x'; 20_000];
    let bytes = read_all(&small.0, &mut Again(base)).unwrap();
    assert!(bytes[512..1024].iter().all(|byte| *byte == b'x'));
    assert!(bytes[1536..2048].iter().all(|byte| *byte == 0));
    assert!(bytes[19_999] == b'x' && bytes[20_000..].iter().all(|byte| *byte == 0));
}

#[test]
fn snapshots_are_named_within_bounds() {
    let at = PACKED + CLUSTER;
    let mut small = Small::new();
    small.four(60, 1);
    small.eight(64, at as u64);
    let mut entry = vec![0; 40];
    entry[13] = 1;
    entry[15] = 4;
    entry[35] = 1;
    entry.extend(b"1done");
    small.put(at, &entry);
    let disk = open(&small.0, &mut NoChain).unwrap();
    let expected = LeftBehind::Snapshot {
        name: "done".into(),
        has_machine_state: true,
    };
    assert_eq!(disk.left_behind(), [expected]);
    type Change = fn(&mut Small);
    let cases: [(Change, &str); 5] = [
        (
            |d| {
                d.four(60, 65_536);
                d.put(PACKED + CLUSTER, &[0; (1 << 20) + 100]);
            },
            "65536 snapshots in so many bytes is more than coop takes (1048576)",
        ),
        (|d| d.four(60, 2), "its snapshot 2: it is cut short"),
        (|d| d.four(60, 1 << 20), "1048576 snapshots is more than"),
        (
            |d| d.eight(64, u64::MAX - 10),
            "its snapshot 1: it is cut short",
        ),
        (
            |d| d.four(PACKED + CLUSTER + 36, 1 << 20),
            "too much unknown data",
        ),
    ];
    for (change, text) in cases {
        let mut changed = Small(small.0.clone());
        change(&mut changed);
        let error = refusal(&changed.0, &mut NoChain);
        assert!(error.contains(text), "{error}, not {text}");
    }
}

#[test]
fn what_is_cut_short_or_changed_by_a_byte_is_survived() {
    survive(&Small::new().0);
}
