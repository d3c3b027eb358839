//! Every way of unpacking against every other, and against the formats' own tools.

mod bzip2_blocks;
mod tools;

use std::io::Write;

use super::*;

fn sample() -> Vec<u8> {
    (0..200_000_u32)
        .flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 20).to_le_bytes())
        .collect()
}

fn pack(format: Compression, data: &[u8]) -> Vec<u8> {
    match format {
        Compression::None => data.to_vec(),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Bzip2 => {
            let mut encoder =
                ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => ::zstd::stream::encode_all(data, 1).unwrap(),
    }
}

fn read_all(mut reader: impl Read) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.read_to_end(&mut out)?;
    Ok(out)
}

fn unpack_threaded(bytes: &[u8], limits: Limits, threads: usize) -> io::Result<Vec<u8>> {
    let options = Options {
        limits,
        threads: NonZeroUsize::new(threads).unwrap(),
    };
    read_all(decompress_threaded(Cursor::new(bytes.to_vec()), options)?.1)
}

/// Unpacks in every way, which must agree.
fn unpack(bytes: Vec<u8>, limits: Limits) -> io::Result<(Compression, Vec<u8>)> {
    let alone =
        decompress(&bytes[..], limits).and_then(|(format, reader)| Ok((format, read_all(reader)?)));
    for threads in [1, 4] {
        match (&alone, unpack_threaded(&bytes, limits, threads)) {
            (Ok((_, alone)), Ok(found)) => assert!(alone == &found, "{threads} threads"),
            (Err(_), Err(_)) => {}
            (alone, found) => panic!(
                "{threads} threads: {:?}, alone: {:?}",
                found.map(|bytes| bytes.len()),
                alone.as_ref().map(|(_, bytes)| bytes.len())
            ),
        }
    }
    alone
}

const FORMATS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Bzip2,
    Compression::Xz,
    Compression::Zstd,
];

#[test]
fn every_format_is_recognised_and_unpacked_with_all_its_members() {
    let data = sample();
    for format in FORMATS {
        let mut bytes = pack(format, &data);
        assert_eq!(
            unpack(bytes.clone(), Limits::default()).unwrap(),
            (format, data.clone())
        );
        if format == Compression::Xz {
            bytes.extend([0; 8]);
        }
        bytes.extend(pack(format, b"the second member"));
        let (_, out) = unpack(bytes, Limits::default()).unwrap();
        assert_eq!(out.len(), data.len() + 17, "{format:?}");
        assert!(out.ends_with(b"the second member"));
    }
}

#[test]
fn empty_input_is_plain() {
    assert_eq!(
        unpack(Vec::new(), Limits::default()).unwrap(),
        (Compression::None, Vec::new())
    );
    for format in FORMATS {
        assert_eq!(
            unpack(pack(format, b""), Limits::default()).unwrap(),
            (format, Vec::new())
        );
    }
}

#[test]
fn damage_and_truncation_are_errors() {
    let data = sample();
    for format in &FORMATS[1..] {
        let bytes = pack(*format, &data);
        for cut in [bytes.len() / 2, bytes.len() - 1, 7] {
            let error = unpack(bytes[..cut].to_vec(), Limits::default()).unwrap_err();
            assert!(
                error.to_string().contains(format.name()),
                "{format:?}: {error}"
            );
        }
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 2] ^= 0x55;
        // zstd's checksum is optional and off here.
        if *format != Compression::Zstd {
            assert!(unpack(damaged, Limits::default()).is_err(), "{format:?}");
        }
        let mut trailing = bytes.clone();
        trailing.extend(b"trailing garbage");
        if *format != Compression::Gzip {
            assert!(unpack(trailing, Limits::default()).is_err(), "{format:?}");
        }
    }
}

#[test]
fn limits_stop_bombs() {
    let limits = Limits {
        output_bytes: 1000,
        ratio: 10,
    };
    for format in FORMATS {
        let error = unpack(pack(format, &[0; 5000]), limits).unwrap_err();
        assert!(
            error.to_string().contains("more than 1000 bytes"),
            "{error}"
        );
    }
    let limits = Limits {
        output_bytes: u64::MAX,
        ratio: 10,
    };
    let zeroes = vec![0; 66 << 20];
    let error = unpack(pack(Compression::Zstd, &zeroes), limits).unwrap_err();
    assert!(error.to_string().contains("10 times"), "{error}");
}

#[test]
fn known_but_unsupported_formats_are_named() {
    for (start, name) in [
        (&b"\x1f\x9d\x90"[..], ".Z"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"PK\x03\x04", "zip"),
        (b"LZIP\x01", "lzip"),
    ] {
        let error = Compression::detect(start).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn an_error_of_the_input_comes_unchanged() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let data = sample();
    for format in FORMATS {
        let bytes = pack(format, &data);
        let cut = bytes[..bytes.len() / 2].to_vec();
        let options = Options {
            limits: Limits::default(),
            threads: NonZeroUsize::MIN,
        };
        let input = Cursor::new(cut.clone()).chain(Failing);
        let alone = decompress(input, options.limits).and_then(|(_, reader)| read_all(reader));
        let input = Cursor::new(cut).chain(Failing);
        let threaded = decompress_threaded(input, options).and_then(|(_, reader)| read_all(reader));
        for result in [alone, threaded] {
            assert_eq!(result.unwrap_err().to_string(), "the disk is gone");
        }
    }
}

#[test]
fn a_window_above_the_limit_is_refused_by_name() {
    let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&sample()).unwrap();
    let error = unpack(encoder.finish().unwrap(), Limits::default()).unwrap_err();
    assert!(
        error.to_string().contains("134217728 bytes of memory"),
        "{error}"
    );
}

#[test]
fn threads_end_when_the_reader_goes() {
    /// Endless, and says when it is dropped.
    struct Endless(Vec<u8>, usize, std::sync::mpsc::Sender<()>);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.1 == self.0.len() {
                self.1 = 0;
            }
            let count = buffer.len().min(self.0.len() - self.1);
            buffer[..count].copy_from_slice(&self.0[self.1..][..count]);
            self.1 += count;
            Ok(count)
        }
    }
    impl Drop for Endless {
        fn drop(&mut self) {
            let _ = self.2.send(());
        }
    }
    let data = sample();
    for format in &FORMATS[1..] {
        let (sender, dropped) = std::sync::mpsc::channel();
        let input = Endless(pack(*format, &data), 0, sender);
        let options = Options {
            limits: Limits::default(),
            threads: NonZeroUsize::new(3).unwrap(),
        };
        let (_, mut reader) = decompress_threaded(input, options).unwrap();
        let mut start = vec![0; 3 * data.len()];
        reader.read_exact(&mut start).unwrap();
        assert!(start == data.repeat(3), "{format:?}");
        drop(reader);
        dropped
            .recv_timeout(std::time::Duration::from_secs(20))
            .unwrap_or_else(|_| panic!("{format:?} reads on"));
    }
}
