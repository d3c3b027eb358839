//! Damaged and hostile VMDK.

use super::*;

const SECTOR: usize = 512;
const DIRECTORY: usize = 3 * SECTOR;
const TABLE: usize = 4 * SECTOR;

const TEXT: &str = "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\n\
    createType=\"monolithicSparse\"\n# Extent description\nRW 64 SPARSE \"disk.vmdk\"\n";

/// A disk of 32 KiB in grains of a sector: data in the first and third grain, zeroes in the fourth.
struct Small(Vec<u8>);

impl Small {
    fn new() -> Self {
        let mut small = Self(vec![0; 8 * SECTOR]);
        small.put(0, b"KDMV");
        small.four(4, 1);
        small.four(8, 1 | 4);
        small.eight(12, 64);
        small.eight(20, 1);
        small.eight(28, 1);
        small.eight(36, 2);
        small.four(44, 64);
        small.eight(56, 3);
        small.eight(64, 5);
        small.put(73, b"\n \r\n");
        small.put(SECTOR, TEXT.as_bytes());
        small.four(DIRECTORY, 4);
        small.four(TABLE, 5);
        small.four(TABLE + 8, 6);
        small.four(TABLE + 12, 1);
        small.put(5 * SECTOR, &[b'a'; SECTOR]);
        small.put(6 * SECTOR, &[b'b'; SECTOR]);
        small
    }

    /// The same as a stream: the directory is named at the end, and a grain is compressed.
    fn stream() -> Self {
        let mut small = Self::new();
        small.four(4, 3);
        small.four(8, 1 | 4 | 1 << 16 | 1 << 17);
        small.put(77, &[1]);
        small.text(&TEXT.replace("monolithicSparse", "streamOptimized"));
        small.four(TABLE, 0);
        let mut packed = Vec::new();
        let mut packer = flate2::write::ZlibEncoder::new(&mut packed, Default::default());
        io::Write::write_all(&mut packer, &[b'b'; SECTOR]).unwrap();
        packer.finish().unwrap();
        small.put(6 * SECTOR, &[0; SECTOR]);
        small.eight(6 * SECTOR, 2);
        small.four(6 * SECTOR + 8, u32::try_from(packed.len()).unwrap());
        small.put(6 * SECTOR + 12, &packed);
        let header = small.0[..SECTOR].to_vec();
        small.put(8 * SECTOR, &header);
        small.put(9 * SECTOR, &[0; SECTOR]);
        small.eight(56, u64::MAX);
        small
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = self.0.len().max(at + bytes.len());
        self.0.resize(end, 0);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn four(&mut self, at: usize, number: u32) {
        self.put(at, &number.to_le_bytes());
    }

    fn eight(&mut self, at: usize, number: u64) {
        self.put(at, &number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.put(SECTOR, &[0; 2 * SECTOR]);
        self.put(SECTOR, text.as_bytes());
    }
}

/// A change of a disk, and a part of what is then said.
type Case = (fn(&mut Small), &'static str);

#[test]
fn small_disks_read() {
    let mut expected = vec![0; 32 << 10];
    expected[1024..1536].fill(b'b');
    assert!(read_all(&Small::stream().0, &mut NoChain).unwrap() == expected);
    expected[..512].fill(b'a');
    assert!(read_all(&Small::new().0, &mut NoChain).unwrap() == expected);
}

#[test]
fn what_is_impossible_is_refused() {
    const CASES: &[Case] = &[
        (|d| d.four(4, 4), "version 4 is not supported"),
        (|d| d.four(8, 1 << 9), "flag 0x200 is not supported"),
        (
            |d| d.four(8, 1 << 16),
            "compression of type 0 is not supported",
        ),
        (|d| d.put(75, b"\n\n"), "line ends were changed"),
        (
            |d| d.eight(12, 1 << 60),
            "a size of 1152921504606846976 sectors",
        ),
        (
            |d| d.eight(12, 1 << 40),
            "is more than coop takes (8388608)",
        ),
        (
            |d| {
                d.eight(12, 128);
                d.four(DIRECTORY + 4, 4);
            },
            "entry 1 of its directory",
        ),
        (|d| d.eight(20, 0), "a grain of 0 sectors"),
        (|d| d.eight(20, 3), "a grain of 3 sectors"),
        (|d| d.eight(20, 1 << 60), "a grain of"),
        (|d| d.eight(20, 1 << 13), "more than coop takes (2097152)"),
        (|d| d.eight(28, 0), "without the descriptor"),
        (|d| d.eight(28, 1 << 60), "its descriptor"),
        (|d| d.eight(36, 100), "end behind the file"),
        (|d| d.four(44, 0), "a table of 0 entries"),
        (|d| d.four(44, 513), "a table of 513 entries"),
        (|d| d.eight(56, 0), "entry 0 of its directory"),
        (|d| d.eight(56, 1 << 40), "its directory"),
        (|d| d.eight(56, u64::MAX - 1), "its directory"),
        (
            |d| d.eight(56, u64::MAX),
            "its footer: it does not begin as one",
        ),
        (|d| d.four(DIRECTORY, 3), "lies on something else"),
        (|d| d.four(DIRECTORY, 8), "ends behind the file"),
        (|d| d.four(DIRECTORY, u32::MAX), "ends behind the file"),
        (
            |d| d.four(TABLE, 3),
            "grain at byte 1536 lies on something else",
        ),
        (
            |d| d.four(TABLE, 4),
            "grain at byte 2048 lies on something else",
        ),
        (|d| d.four(TABLE, 6), "lies on something else"),
        (|d| d.four(TABLE, 8), "ends behind the file"),
        (|d| d.four(TABLE, u32::MAX), "ends behind the file"),
    ];
    check_cases(CASES, Small::new);
}

#[test]
fn streams_that_lie_are_refused() {
    const CASES: &[Case] = &[
        (|d| d.put(8 * SECTOR, b"x"), "its footer"),
        (|d| d.eight(8 * SECTOR + 56, u64::MAX), "its directory"),
        (
            |d| d.four(8 * SECTOR + 8, 1 | 1 << 16),
            "compression without markers",
        ),
        (|d| d.put(8 * SECTOR + 77, &[2]), "compression of type 2"),
        (|d| d.eight(6 * SECTOR, 3), "says that it is sector 3's"),
        (
            |d| d.four(6 * SECTOR + 8, u32::MAX),
            "4294967295 compressed bytes are too many",
        ),
        (|d| d.four(6 * SECTOR + 8, 4), "instead of 512"),
        (
            |d| d.put(6 * SECTOR + 12, &[0; 9]),
            "its compressed grain at byte 3072",
        ),
        (|d| d.four(TABLE, 6), "lies on something else"),
        (|d| d.four(TABLE, 10), "ends behind the file"),
    ];
    check_cases(CASES, Small::stream);
}

#[test]
fn descriptors_that_lie_are_refused() {
    const CASES: &[Case] = &[
        (|d| d.text("something else"), "does not begin as one"),
        (
            |d| d.text("# Disk DescriptorFile\n"),
            "it has no createType",
        ),
        (
            |d| d.text(&TEXT.replace("ffffffff", "abcd")),
            "a parent without a name",
        ),
        (
            |d| {
                let parent = "parentCID=1\nparentFileNameHint=\"/etc/passwd\"\nx=";
                d.text(&TEXT.replace("parentCID=", parent));
            },
            "the parent '/etc/passwd', which is not read",
        ),
        (
            |d| d.text(&TEXT.replace("monolithicSparse", "vmfsSparse")),
            "'vmfsSparse' is not",
        ),
        (
            |d| d.text(&TEXT.replace("monolithicSparse", "vmfs")),
            "names other extents",
        ),
        (|d| d.text(&TEXT.replace("RW 64", "RW -1")), "extent 'RW -1"),
        (
            |d| d.text(&TEXT.replace("RW 64", "RW 99999999999999999999")),
            "extent 'RW 999",
        ),
        (
            |d| d.text(&TEXT.replace("RW 64", "NOACCESS 64")),
            "an extent without access",
        ),
        (
            |d| d.text(&TEXT.replace("SPARSE", "VMFSRDM")),
            "an extent of type 'VMFSRDM'",
        ),
        (
            |d| d.text(&TEXT.replace("SPARSE", "FLAT")),
            "names other extents",
        ),
        (
            |d| d.text(&TEXT.replace("RW 64", "# ")),
            "it names no extents",
        ),
        (
            |d| d.text(&TEXT.replace("CID=1", "encryption.data=\"x\"\nCID=1")),
            "encryption is not",
        ),
    ];
    check_cases(CASES, Small::new);
}

fn check_cases(cases: &[Case], make: fn() -> Small) {
    for (number, (change, text)) in cases.iter().enumerate() {
        let mut small = make();
        change(&mut small);
        let error = refusal(&small.0, &mut NoChain);
        assert!(error.contains(text), "{number}: {error}, not {text}");
    }
}

#[test]
fn extents_in_other_files_are_read_as_the_chain_allows() {
    let head = "# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n";
    let text = format!("{head}RW 2 FLAT \"/etc/passwd\" 1\nRW 2 ZERO\nRW 1 FLAT \"x\"\n");
    let error = refusal(text.as_bytes(), &mut NoChain);
    assert!(
        error.contains("extent '/etc/passwd', which is not read"),
        "{error}"
    );
    let again = [vec![1; 512], vec![2; 512], vec![3; 512]].concat();
    let bytes = read_all(text.as_bytes(), &mut Again(again)).unwrap();
    let expected = [2, 3, 0, 0, 1].map(|byte| vec![byte; 512]).concat();
    assert!(bytes == expected);
    let error = refusal(text.as_bytes(), &mut Again(vec![0; 1024]));
    assert!(
        error.contains("1024 bytes at byte 512 end behind the file"),
        "{error}"
    );
    let sparse = text.replace("FLAT", "SPARSE");
    let error = refusal(sparse.as_bytes(), &mut Again(Small::new().0));
    assert!(error.contains("32768 bytes instead of 1024"), "{error}");
    let many = format!("{head}{}", "RW 1 ZERO\n".repeat(300));
    let error = refusal(many.as_bytes(), &mut NoChain);
    assert!(error.contains("so many extents"), "{error}");
    let large = format!("{head}{}", format!("RW {} ZERO\n", 1_u64 << 53).repeat(3));
    let error = refusal(large.as_bytes(), &mut NoChain);
    assert!(error.contains("too large"), "{error}");
}

#[test]
fn what_is_cut_short_or_changed_by_a_byte_is_survived() {
    survive(&Small::new().0);
    survive(&Small::stream().0);
}
