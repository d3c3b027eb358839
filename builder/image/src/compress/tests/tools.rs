//! What gzip, bzip2, xz, zstd and their parallel relatives write and refuse.

use std::path::Path;

use super::*;
use crate::testing::{have, sh};

/// Text, noise and zeroes: 3 MB, several blocks of every block size used here.
fn mixed() -> Vec<u8> {
    let mut state = 1_u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u8::try_from(state >> 24).unwrap()
    };
    let mut data = Vec::new();
    for line in 0..60_000_u32 {
        data.extend(format!("line {line} of {}\n", line.wrapping_mul(7919) % 1000).bytes());
    }
    data.extend((0..500_000).map(|_| noise()));
    data.extend(vec![0; 700_000]);
    data.extend((0..400_000).map(|_| noise() & 3));
    data
}

/// Shell commands that pack `in` to standard output, with the program that each needs.
const PACKERS: [(&str, &str); 26] = [
    ("gzip", "gzip -c in"),
    (
        "gzip",
        "gzip -1 -c in; gzip -9 -c empty; gzip -c small; gzip -c in",
    ),
    ("gzip", "gzip -c in; head -c 100000 zeroes"),
    ("pigz", "pigz -p2 -b128 -c in"),
    ("pigz", "pigz -p2 -i -c in"),
    ("bzip2", "bzip2 -c in"),
    ("bzip2", "bzip2 -1 -c in"),
    (
        "bzip2",
        "bzip2 -1 -c in; bzip2 -c empty; bzip2 -9 -c small; bzip2 -5 -c in",
    ),
    ("bzip2", "bzip2 -c zeroes; bzip2 -1 -c zeroes"),
    ("pbzip2", "pbzip2 -p2 -b1 -c in"),
    ("lbzip2", "lbzip2 -n2 -c in"),
    ("lbzip2", "lbzip2 -n2 -1 -c in; lbzip2 -c small"),
    ("xz", "xz -0 -c in"),
    ("xz", "xz -T2 -0 --block-size=300KiB -c in"),
    ("xz", "xz -0 --block-size=300KiB -c in"),
    (
        "xz",
        "xz -0 -c in; xz -c empty; head -c 12 zeroes; xz -0 -T2 -c small; head -c 4 zeroes",
    ),
    (
        "xz",
        "xz -0 --check=none -c in; xz -0 --check=sha256 -c in; xz -0 --check=crc32 -c in",
    ),
    (
        "xz",
        "xz --x86 --lzma2=preset=0 -c in; xz --delta=dist=4 --lzma2=preset=0 -c in",
    ),
    ("pixz", "pixz -0 -t -p2 < in"),
    ("zstd", "zstd -c in"),
    ("zstd", "zstd -T2 -c in"),
    (
        "zstd",
        "zstd -c in; zstd -c empty; zstd --no-check -c small; zstd -19 -c small; zstd -c in",
    ),
    ("zstd", "zstd --long=27 -c in; zstd -c in"),
    ("zstd", "zstd -c < in; cat small | zstd -c"),
    (
        "zstd",
        "printf 'P*M\\030\\005\\0\\0\\0hello'; zstd -c small; printf '_*M\\030\\0\\0\\0\\0'; zstd -c in",
    ),
    (
        "zstd",
        "for i in $(seq 40); do zstd -1 -c small; done; zstd -c in; zstd -c small",
    ),
];

#[test]
fn what_tools_write_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let file = |name: &str| temp.path().join(name);
    std::fs::write(file("in"), mixed()).unwrap();
    std::fs::write(file("empty"), b"").unwrap();
    std::fs::write(file("small"), b"a few bytes\n".repeat(9)).unwrap();
    std::fs::write(file("zeroes"), vec![0; 5 << 20]).unwrap();
    for (program, packer) in PACKERS {
        if !have(program) {
            continue;
        }
        let packed = sh(temp.path(), packer);
        let tool = match program {
            "pigz" => "gzip",
            "pbzip2" | "lbzip2" => "bzip2",
            "pixz" => "xz",
            other => other,
        };
        std::fs::write(file("packed"), &packed).unwrap();
        let expected = sh(temp.path(), &format!("{tool} -dc < packed"));
        let (format, found) =
            unpack(packed, Limits::default()).unwrap_or_else(|error| panic!("{packer}: {error}"));
        assert_eq!(format.name(), tool);
        assert!(found == expected, "{packer}");
    }
}

const ZSTD_CORRUPT: &str = "Data corruption detected";

/// Writes each input as a file, lets the tool unpack all, and compares its verdicts and output.
fn compare_verdicts(tool: &str, inputs: &[Vec<u8>], differs: impl Fn(&[u8], &str) -> bool) {
    let temp = tempfile::tempdir().unwrap();
    for (index, input) in inputs.iter().enumerate() {
        std::fs::write(temp.path().join(format!("{index}")), input).unwrap();
    }
    let script = format!(
        "for ((i = 0; i < {}; i++)); do s=0; {tool} -dc < $i > $i.out 2> $i.err || s=$?; echo $s; done",
        inputs.len()
    );
    let statuses = String::from_utf8(sh(temp.path(), &script)).unwrap();
    let read = |name: String| std::fs::read(Path::join(temp.path(), name)).unwrap();
    let (mut accepted, mut stricter) = (0, 0);
    for ((index, input), status) in inputs.iter().enumerate().zip(statuses.lines()) {
        let said = String::from_utf8(read(format!("{index}.err"))).unwrap();
        if differs(input, &said) {
            continue;
        }
        match unpack(input.clone(), Limits::default()) {
            Ok((Compression::None, _)) => {}
            Ok((_, found)) => {
                assert_eq!(
                    status, "0",
                    "{tool} refuses input {index} {input:02x?}: {said}"
                );
                assert!(found == read(format!("{index}.out")), "{tool} {index}");
                accepted += 1;
            }
            // A library that is newer than the tool looks closer.
            Err(error) if tool == "zstd" && error.to_string().ends_with(ZSTD_CORRUPT) => {
                stricter += usize::from(status == "0");
            }
            Err(error) => assert_ne!(status, "0", "{tool} takes {index} {input:02x?}: {error}"),
        }
    }
    assert!(accepted > 0 && stricter < 3, "{tool}");
}

/// Every prefix, and every byte changed.
fn damaged(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut inputs = vec![bytes.to_vec()];
    for index in 0..bytes.len() {
        inputs.push(bytes[..index].to_vec());
        let mut changed = bytes.to_vec();
        changed[index] ^= 1 << (index % 8);
        inputs.push(changed);
    }
    inputs
}

const SMALL: &[u8] = b"some text, some more text, and some text again: 0123456789";

#[test]
fn gzip_has_the_verdict_of_its_tool() {
    if !have("gzip") {
        return;
    }
    let mut bytes = pack(Compression::Gzip, SMALL);
    bytes.extend(pack(Compression::Gzip, b"second"));
    // An empty file is no gzip file, and no error here.
    let mut inputs = damaged(&bytes);
    for tail in [&b"\0"[..], &[0; 1000], b"\0x", b"x", b"\x1f", b"\x1f\x8b"] {
        inputs.push([&bytes, tail].concat());
    }
    compare_verdicts("gzip", &inputs, |_, _| false);
}

#[test]
fn bzip2_has_the_verdict_of_its_tool() {
    if !have("bzip2") {
        return;
    }
    let mut bytes = pack(Compression::Bzip2, SMALL);
    bytes.extend(pack(Compression::Bzip2, b"second"));
    let mut inputs = damaged(&bytes);
    for tail in [&b"x"[..], b"B", b"BZ", b"BZh", b"BZh9", b"BZh9x", b"BZh0"] {
        inputs.push([&bytes, tail].concat());
    }
    // What bzip2 drops with a warning is refused here.
    compare_verdicts("bzip2", &inputs, |_, said| {
        said.contains("trailing garbage")
    });
}

#[test]
fn xz_has_the_verdict_of_its_tool() {
    if !have("xz") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("in"), SMALL).unwrap();
    let bytes = sh(temp.path(), "xz -c --block-size=40 -T2 in; xz -c in");
    let mut inputs = damaged(&bytes);
    for tail in [
        &b"\0\0\0\0"[..],
        b"\0\0\0",
        b"x",
        b"\0\0\0\0x",
        b"\xfd7zXZ\0",
    ] {
        inputs.push([&bytes, tail].concat());
    }
    compare_verdicts("xz", &inputs, |_, _| false);
}

#[test]
fn zstd_has_the_verdict_of_its_tool() {
    if !have("zstd") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("in"), SMALL).unwrap();
    let bytes = sh(
        temp.path(),
        "zstd -c in; printf 'P*M\\030\\003\\0\\0\\0abc'; zstd -c < in",
    );
    let mut inputs = damaged(&bytes);
    for tail in [
        &b"x"[..],
        b"\x28\xb5\x2f",
        b"P*M\x18",
        b"P*M\x18\0\0\0",
        b"P*M\x18\0\0\0\0",
    ] {
        inputs.push([&bytes, tail].concat());
    }
    compare_verdicts("zstd", &inputs, |_, _| false);
}
