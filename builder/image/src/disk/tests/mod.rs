//! Plain disks, copies, and helpers for the formats.

mod qcow2;
mod vmdk;

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::sync::Arc;

use super::*;
use crate::partition::{self, Guid, SectorSize};
use crate::testing::{have, sh};
use crate::tree::read_exact_at;

/// Gives the same bytes whatever is asked for.
struct Again(Vec<u8>);

impl Chain for Again {
    fn open(&mut self, _: &Reference<'_>) -> Result<File, ChainError> {
        Ok(file_of(&self.0))
    }
}

fn file_of(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn open(bytes: &[u8], chain: &mut dyn Chain) -> Result<Disk, DiskError> {
    Disk::open(file_of(bytes), chain)
}

/// All bytes of a small disk, or what is said of it.
fn read_all(bytes: &[u8], chain: &mut dyn Chain) -> Result<Vec<u8>, String> {
    let mut read = || {
        let disk = open(bytes, chain)?;
        let mut found = vec![0; usize::try_from(disk.size_bytes().min(1 << 20)).unwrap()];
        let _ = disk.read_at(&mut found, 0)?;
        // In odd pieces it is the same.
        let mut piece = vec![0; 700];
        for at in (0..found.len()).step_by(piece.len()) {
            let count = disk.read_at(&mut piece, at as u64)?;
            let end = found.len().min(at + count);
            assert!(piece[..end - at] == found[at..end]);
        }
        Ok(found)
    };
    read().map_err(|error: DiskError| error.to_string())
}

/// What is said of a disk that is refused.
#[track_caller]
fn refusal(bytes: &[u8], chain: &mut dyn Chain) -> String {
    match read_all(bytes, chain) {
        Ok(_) => panic!("it was read"),
        Err(error) => error,
    }
}

/// Cuts a disk at every length and changes each of its bytes in several ways; what then is read does
/// not matter.
fn survive(bytes: &[u8]) {
    for length in 0..bytes.len() {
        let _ = read_all(&bytes[..length], &mut NoChain);
    }
    let mut changed = bytes.to_vec();
    for at in 0..bytes.len() {
        for mask in [0x81, 0xff] {
            changed[at] ^= mask;
            let _ = read_all(&changed, &mut Again(bytes.to_vec()));
            changed[at] ^= mask;
        }
    }
}

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// A sparse file of 3 MiB and 100 bytes with two lines in it.
fn sparse() -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len((3 << 20) + 100).unwrap();
    file.write_all_at(b"early", 8192).unwrap();
    file.write_all_at(b"late", (3 << 20) + 90).unwrap();
    file
}

#[test]
fn a_plain_disk_reads_with_its_holes() {
    let disk = Disk::open(sparse(), &mut NoChain).unwrap();
    assert_eq!(disk.format(), Format::Raw);
    assert_eq!(disk.size_bytes(), (3 << 20) + 100);
    let extents: Vec<_> = disk.extents().collect::<Result<_, _>>().unwrap();
    assert_eq!(extents.last().unwrap().end(), disk.size_bytes());
    assert!(
        extents
            .windows(2)
            .all(|pair| pair[0].end() == pair[1].offset)
    );
    let mut bytes = [0; 200];
    assert_eq!(disk.read_at(&mut bytes, (3 << 20) + 90).unwrap(), 10);
    assert_eq!(&bytes[..4], b"late");
    assert_eq!(disk.read_at(&mut bytes, 1 << 40).unwrap(), 0);
}

#[test]
fn a_copy_has_the_same_bytes_and_no_blocks_of_zeroes() {
    let file = sparse();
    file.write_all_at(&vec![0; 1 << 20], 1 << 20).unwrap();
    let disk = Disk::open_raw(file).unwrap();
    let output = tempfile::tempfile().unwrap();
    let written = write_raw(&disk, &output, TWO).unwrap();
    assert_eq!(written.size_bytes, disk.size_bytes());
    assert_eq!(written.data_bytes, 4096 + 100);
    assert!(output.metadata().unwrap().blocks() * 512 < 64 << 10);
    let copy = Disk::open_raw(output).unwrap();
    let read = |disk: Disk| {
        let length = disk.size_bytes();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        read_exact_at(&disk, &mut bytes, 0).unwrap();
        bytes
    };
    assert!(read(disk) == read(copy));
}

#[test]
fn a_view_ends_with_its_part() {
    let disk = Arc::new(Disk::open_raw(sparse()).unwrap());
    let view = View::new(disk.clone(), 8190, 5).unwrap();
    let mut text = [0; 9];
    assert_eq!(view.read_at(&mut text, 2).unwrap(), 3);
    assert_eq!(&text, b"ear\0\0\0\0\0\0");
    assert_eq!(view.read_at(&mut text, 5).unwrap(), 0);
    let ends: Vec<_> = view.extents().map(|extent| extent.unwrap().end()).collect();
    assert_eq!(ends.last(), Some(&5));
    assert!(matches!(
        View::new(disk, 3 << 20, 101),
        Err(DiskError::Outside { .. })
    ));
}

#[test]
fn only_disks_are_opened() {
    for open in [Disk::open_raw, |file| Disk::open(file, &mut NoChain)] {
        for path in ["/dev/null", "/"] {
            let opened = open(File::open(path).unwrap());
            assert!(matches!(opened, Err(DiskError::NotAFile)), "{path}");
        }
    }
}

#[test]
fn a_folder_opens_its_own_regular_files_only() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir_all(at("allowed/deep")).unwrap();
    fs::write(at("secret"), "secret").unwrap();
    fs::write(at("allowed/base"), "base").unwrap();
    fs::write(at("allowed/deep/disk"), "disk").unwrap();
    symlink("../../secret", at("allowed/deep/out")).unwrap();
    symlink("../base", at("allowed/deep/in")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("allowed/pipe"), 0o600.into()).unwrap();
    let mut folder = Folder::new(&at("allowed"), &at("allowed/deep/disk")).unwrap();
    let mut open = |name: &str, through: &[&str]| {
        let through: Vec<String> = through.iter().map(ToString::to_string).collect();
        let opened = folder.open(&Reference {
            role: Role::Backing,
            name,
            through: &through,
        });
        opened
            .map(|file| io::read_to_string(file).unwrap())
            .map_err(|error| error.to_string())
    };
    let inside = at("allowed").canonicalize().unwrap().join("base");
    for name in [
        "../base",
        "in",
        "./../deep/../base",
        inside.to_str().unwrap(),
    ] {
        assert_eq!(open(name, &[]).unwrap(), "base", "{name}");
    }
    assert_eq!(open("base", &["../base"]).unwrap(), "base");
    assert_eq!(open("disk", &["../base", "deep/disk"]).unwrap(), "disk");
    let secret = at("secret");
    for name in [
        "../../secret",
        "out",
        "/etc/passwd",
        secret.to_str().unwrap(),
    ] {
        let error = open(name, &[]).unwrap_err();
        assert!(error.contains("outside of the folder"), "{name}: {error}");
    }
    for name in ["../pipe", "..", ".", ""] {
        let error = open(name, &[]).unwrap_err();
        assert!(!error.contains("outside"), "{name}: {error}");
    }
    // A disk beside the folder names what is in it from where it is itself.
    for name in ["allowed/base", "base"] {
        let mut folder = Folder::new(&at("allowed"), &secret).unwrap();
        let through = &[];
        let role = Role::Backing;
        let opened = folder
            .open(&Reference {
                role,
                name,
                through,
            })
            .unwrap();
        assert_eq!(io::read_to_string(opened).unwrap(), "base");
        assert_eq!(folder.opened(), std::slice::from_ref(&inside));
    }
    let refused = NoChain.open(&Reference {
        role: Role::Backing,
        name: "../base",
        through: &[],
    });
    assert!(matches!(refused, Err(ChainError::Refused)));
}

#[test]
fn formats_that_are_not_read_are_refused_by_name() {
    let vdi = [&[b'<'; 0x40][..], b"\x7f\x10\xda\xbe"].concat();
    let fixed = [&[7; 1024][..], b"conectix", &[0; 504]].concat();
    for (bytes, name) in [
        (b"COWD".to_vec(), "COWD"),
        (b"vhdxfile".to_vec(), "VHDX"),
        (b"\x1f\x8b\x08".to_vec(), "gzip"),
        (b"PK\x03\x04".to_vec(), "zip"),
        ([&[b'a'; 257][..], b"ustar"].concat(), "OVA"),
        (vdi, "VDI"),
        (fixed, "VHD"),
    ] {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let error = Disk::open(file.try_clone().unwrap(), &mut NoChain).unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
        assert!(Disk::open_raw(file).is_ok());
    }
}

fn guid(byte: u8) -> Guid {
    Guid([byte; 16])
}

/// A file system's bytes (they look like none) in a GPT.
fn wrapped(sector_size: SectorSize) -> gpt::Wrapped {
    let contents = [("root", sparse()), ("data", sparse())];
    let contents = contents.into_iter().zip(1..).map(|((name, file), id)| {
        let source: Arc<dyn Source> = Arc::new(Disk::open_raw(file).unwrap());
        gpt::Content {
            source,
            kind: Guid::LINUX,
            uuid: guid(id),
            name: name.to_owned(),
        }
    });
    let options = gpt::Options {
        disk: guid(9),
        sector_size,
    };
    gpt::wrap(contents.collect(), &options).unwrap()
}

#[test]
fn a_wrapped_disk_has_its_partitions() {
    for sector_size in [SectorSize::B512, SectorSize::B4096] {
        let wrapped = wrapped(sector_size);
        let size_bytes = wrapped.size_bytes();
        let options = partition::ReadOptions::default();
        let table = partition::read(&wrapped, size_bytes, &options).unwrap();
        let names: Vec<_> = table.partitions.iter().map(|part| &*part.name).collect();
        assert_eq!(names, ["root", "data"]);
        let output = tempfile::tempfile().unwrap();
        write_raw(&wrapped, &output, TWO).unwrap();
        assert_eq!(
            partition::read(&output, size_bytes, &options).unwrap(),
            table
        );
        for part in &table.partitions {
            let mut bytes = [0; 12];
            output
                .read_exact_at(&mut bytes, part.first_byte + (3 << 20) + 90)
                .unwrap();
            assert_eq!(&bytes, b"late\0\0\0\0\0\0\0\0");
        }
        assert!(output.metadata().unwrap().blocks() * 512 < 128 << 10);
    }
}

#[test]
fn what_is_written_as_qcow2_depends_on_the_bytes_only() {
    let digest = |source: &dyn Source| {
        let output = tempfile::tempfile().unwrap();
        write_qcow2(source, &output, &Qcow2Options::default()).unwrap();
        let mut bytes = vec![0; output.metadata().unwrap().size().try_into().unwrap()];
        output.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let file = sparse();
    let with_zeroes = sparse();
    with_zeroes
        .write_all_at(&vec![0; 1 << 20], 1 << 20)
        .unwrap();
    let first = digest(&Disk::open_raw(file).unwrap());
    assert!(first == digest(&Disk::open_raw(with_zeroes).unwrap()));
    assert!(first.len() <= 8 << 16);
    let source = Disk::open_raw(sparse()).unwrap();
    for cluster_bytes in [0, 256, 1000, 4 << 20] {
        let output = tempfile::tempfile().unwrap();
        let error = write_qcow2(&source, &output, &Qcow2Options { cluster_bytes }).unwrap_err();
        assert!(error.to_string().contains("power of two"), "{error}");
    }
    let huge = tempfile::tempfile().unwrap();
    huge.set_len(1 << 40).unwrap();
    let output = tempfile::tempfile().unwrap();
    let options = Qcow2Options { cluster_bytes: 512 };
    let error = write_qcow2(&Disk::open_raw(huge).unwrap(), &output, &options).unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}

#[test]
fn qemu_accepts_what_is_written_as_qcow2() {
    if !have("qemu-img") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let wrapped = wrapped(SectorSize::B512);
    let raw = File::create_new(place.path().join("raw")).unwrap();
    write_raw(&wrapped, &raw, TWO).unwrap();
    for bits in 9..=21 {
        let path = place.path().join(format!("{bits}.qcow2"));
        let output = File::create_new(path).unwrap();
        let cluster_bytes = 1 << bits;
        write_qcow2(&wrapped, &output, &Qcow2Options { cluster_bytes }).unwrap();
    }
    sh(
        place.path(),
        "for disk in *.qcow2; do
            qemu-img check -q \"$disk\" && qemu-img compare -q -f qcow2 -F raw \"$disk\" raw
        done",
    );
}
