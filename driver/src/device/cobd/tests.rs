//! Every kind of request, well-formed and not, against real files and a scripted disk.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{Cobd, Disk, DiskError, DiskMode, FileDisk, Overlay, open};
use crate::transport::mock::{Bench, bench};
use crate::transport::{AccessError, Readable, Writable};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

/// Sends one request with data to write or room to fill; returns status and what was filled.
fn request(bench: &mut Bench, kind: u32, sector: u64, data: &[u8], room: usize) -> (u8, Vec<u8>) {
    let header = header(kind, sector);
    let readable: &[&[u8]] = if data.is_empty() {
        &[&header]
    } else {
        &[&header, data]
    };
    let rooms: &[usize] = if room == 0 { &[1] } else { &[room, 1] };
    let (used, mut answers) = bench.guest.call(0, readable, rooms);
    let status = answers.pop().unwrap()[0];
    if status == OK {
        assert_eq!(usize::try_from(used).unwrap(), room + 1);
    }
    (status, answers.pop().unwrap_or_default())
}

fn read(bench: &mut Bench, sector: u64, length: usize) -> Vec<u8> {
    let (status, bytes) = request(bench, IN, sector, &[], length);
    assert_eq!(status, OK);
    bytes
}

/// An image whose every sector is filled with its own number.
fn image(folder: &Path, sectors: u8) -> std::path::PathBuf {
    let path = folder.join("image");
    let bytes: Vec<u8> = (0..sectors).flat_map(|number| [number; 512]).collect();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn check_reads_and_writes(bench: &mut Bench) {
    assert_eq!(read(bench, 3, 1024), [[3; 512], [4; 512]].concat());
    assert_eq!(request(bench, OUT, 4, &[0xaa; 1024], 0).0, OK);
    assert_eq!(
        read(bench, 3, 2048),
        [[3; 512], [0xaa; 512], [0xaa; 512], [6; 512]].concat()
    );
    assert_eq!(request(bench, FLUSH, 0, &[], 0).0, OK);
    // The last sector, and beyond it.
    assert_eq!(request(bench, OUT, 63, &[0xbb; 512], 0).0, OK);
    assert_eq!(read(bench, 63, 512), [0xbb; 512]);
    let before = bench.report().failed;
    assert_eq!(request(bench, OUT, 63, &[0; 1024], 0).0, IOERR);
    assert_eq!(request(bench, IN, 64, &[], 512).0, IOERR);
    assert_eq!(request(bench, IN, u64::MAX, &[], 512).0, IOERR);
    assert_eq!(request(bench, IN, 0, &[], 511).0, IOERR);
    assert_eq!(request(bench, OUT, 0, &[0; 100], 0).0, IOERR);
    assert_eq!(bench.report().failed, before + 5);
    // Zeroes in every way, aligned to clusters and not.
    assert_eq!(request(bench, WRITE_ZEROES, 0, &range(10, 20, 0), 0).0, OK);
    assert_eq!(
        read(bench, 9, 512 * 22),
        [vec![9; 512], vec![0; 512 * 20], vec![30; 512]].concat()
    );
    let two = [range(33, 1, 1), range(40, 8, 1)].concat();
    assert_eq!(request(bench, WRITE_ZEROES, 0, &two, 0).0, OK);
    assert_eq!(
        read(bench, 32, 1536),
        [[32; 512], [0; 512], [34; 512]].concat()
    );
    assert_eq!(
        read(bench, 39, 512 * 10),
        [vec![39; 512], vec![0; 4096], vec![48; 512]].concat()
    );
    assert_eq!(request(bench, DISCARD, 0, &range(48, 8, 0), 0).0, OK);
    assert_eq!(read(bench, 56, 512), [56; 512]);
    // Ranges that are refused.
    assert_eq!(request(bench, DISCARD, 0, &range(48, 8, 1), 0).0, UNSUPP);
    assert_eq!(
        request(bench, WRITE_ZEROES, 0, &range(0, 8, 2), 0).0,
        UNSUPP
    );
    assert_eq!(
        request(bench, WRITE_ZEROES, 0, &range(60, 5, 0), 0).0,
        IOERR
    );
    assert_eq!(
        request(bench, DISCARD, 0, &range(u64::MAX, 1, 0), 0).0,
        IOERR
    );
    assert_eq!(request(bench, DISCARD, 0, &[1; 15], 0).0, IOERR);
    assert_eq!(request(bench, DISCARD, 0, &[], 0).0, IOERR);
    assert_eq!(
        request(bench, DISCARD, 0, &range(0, 1, 0).repeat(65), 0).0,
        IOERR
    );
}

fn check_odd_requests(bench: &mut Bench) {
    let (status, serial) = request(bench, GET_ID, 0, &[], 20);
    assert_eq!(
        (status, serial.as_slice()),
        (OK, b"root\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".as_slice())
    );
    assert_eq!(request(bench, 99, 0, &[], 0).0, UNSUPP);
    assert_eq!(request(bench, u32::MAX, 0, &[1; 512], 512).0, UNSUPP);
    // Directions that do not fit the kind.
    assert_eq!(request(bench, IN, 0, &[1; 512], 512).0, IOERR);
    assert_eq!(request(bench, OUT, 0, &[1; 512], 512).0, IOERR);
    assert_eq!(request(bench, FLUSH, 0, &[1; 512], 0).0, IOERR);
    // No request at all.
    let before = bench.report().malformed;
    assert_eq!(bench.guest.call(0, &[&header(IN, 0)], &[]).0, 0);
    assert_eq!(bench.guest.call(0, &[&[0; 15]], &[1]).0, 0);
    assert_eq!(bench.guest.call(0, &[], &[512, 1]).0, 0);
    assert_eq!(bench.report().malformed, before + 3);
    // The header in pieces, and the status behind the data in one buffer.
    let bytes = header(IN, 1);
    let (used, answers) = bench
        .guest
        .call(0, &[&bytes[..5], &bytes[5..]], &[100, 413]);
    assert_eq!(used, 513);
    assert_eq!(answers.concat(), [vec![1; 512], vec![OK]].concat());
}

#[test]
fn a_file_serves_every_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), 64);
    let disk = open(
        &path,
        &DiskMode::ReadWrite {
            ignore_flush: false,
        },
    )
    .unwrap();
    let mut bench = bench(Cobd::new(disk, "root"));
    assert_eq!(&bench.guest.config(60)[..8], 64u64.to_le_bytes());
    check_odd_requests(&mut bench);
    check_reads_and_writes(&mut bench);
    bench.stop();
    assert_eq!(
        std::fs::read(&path).unwrap()[4 * 512..6 * 512],
        [0xaa; 1024]
    );
}

#[test]
fn an_overlay_serves_every_request_and_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), 64);
    let before = std::fs::read(&path).unwrap();
    let mode = DiskMode::Overlay {
        folder: folder.path().to_owned(),
    };
    let mut bench = bench(Cobd::new(open(&path, &mode).unwrap(), "root"));
    check_odd_requests(&mut bench);
    check_reads_and_writes(&mut bench);
    bench.stop();
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_overlay_copes_with_an_image_that_ends_inside_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), 13);
    let mut bench = bench(Cobd::new(
        Box::new(Overlay::open(&path, folder.path()).unwrap()),
        "x",
    ));
    assert_eq!(request(&mut bench, OUT, 12, &[7; 512], 0).0, OK);
    assert_eq!(
        read(&mut bench, 10, 1536),
        [[10; 512], [11; 512], [7; 512]].concat()
    );
    assert_eq!(
        request(&mut bench, WRITE_ZEROES, 0, &range(7, 6, 0), 0).0,
        OK
    );
    assert_eq!(
        read(&mut bench, 6, 512 * 7),
        [vec![6; 512], vec![0; 512 * 6]].concat()
    );
    bench.stop();
}

#[test]
fn a_read_only_image_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), 8);
    let mut bench = bench(Cobd::new(open(&path, &DiskMode::ReadOnly).unwrap(), "ro"));
    assert_eq!(read(&mut bench, 7, 512), [7; 512]);
    assert_eq!(request(&mut bench, OUT, 0, &[9; 512], 0).0, IOERR);
    assert_eq!(request(&mut bench, DISCARD, 0, &range(0, 8, 0), 0).0, IOERR);
    assert_eq!(
        request(&mut bench, WRITE_ZEROES, 0, &range(0, 8, 0), 0).0,
        IOERR
    );
    assert_eq!(request(&mut bench, FLUSH, 0, &[], 0).0, OK);
    assert_eq!(read(&mut bench, 0, 512), [0; 512]);
    bench.stop();
}

#[test]
fn images_are_locked_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), 8);
    let writer = FileDisk::open_read_write(&path, true).unwrap();
    let in_use =
        |result: Result<(), DiskError>| assert!(matches!(result, Err(DiskError::InUse { .. })));
    in_use(FileDisk::open_read_write(&path, true).map(drop));
    in_use(FileDisk::open_read_only(&path).map(drop));
    in_use(Overlay::open(&path, folder.path()).map(drop));
    drop(writer);
    let reader = FileDisk::open_read_only(&path).unwrap();
    let overlay = Overlay::open(&path, folder.path()).unwrap();
    in_use(FileDisk::open_read_write(&path, true).map(drop));
    drop((reader, overlay));
    FileDisk::open_read_write(&path, true).unwrap();
    std::fs::write(&path, [0; 513]).unwrap();
    assert!(matches!(
        FileDisk::open_read_only(&path),
        Err(DiskError::Size { .. })
    ));
    std::fs::write(&path, []).unwrap();
    assert!(matches!(
        FileDisk::open_read_only(&path),
        Err(DiskError::Size { .. })
    ));
    assert!(matches!(
        FileDisk::open_read_only(Path::new("/dev/null")),
        Err(DiskError::NotAFile { .. })
    ));
    assert!(matches!(
        FileDisk::open_read_only(&folder.path().join("none")),
        Err(DiskError::Io(_))
    ));
}

/// A disk that notes what it is asked and fails where it is told to.
#[derive(Clone, Default)]
struct Scripted {
    log: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn note(&self, line: String) -> io::Result<()> {
        let failing = line.contains(" 5120 ");
        self.log.lock().unwrap().push(line);
        if failing {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
}

impl Disk for Scripted {
    fn size_bytes(&self) -> u64 {
        1 << 30
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, at: u64, target: Writable<'_>) -> Result<(), AccessError> {
        self.note(format!("read {at} {}", target.len()))?;
        target.fill_zero()
    }

    fn write(&mut self, at: u64, source: Readable<'_>) -> Result<(), AccessError> {
        Ok(self.note(format!("write {at} {}", source.len()))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.note("flush".to_owned())
    }

    fn discard(&mut self, at: u64, length: u64) -> io::Result<()> {
        self.note(format!("discard {at} {length}"))
    }

    fn write_zeroes(&mut self, at: u64, length: u64, unmap: bool) -> io::Result<()> {
        self.note(format!("zero {at} {length} {unmap}"))
    }
}

#[test]
fn a_disk_is_asked_only_for_what_exists_and_its_failures_are_told() {
    let disk = Scripted::default();
    let log = Arc::clone(&disk.log);
    let mut bench = bench(Cobd::new(Box::new(disk), "scripted"));
    read(&mut bench, 2, 512);
    assert_eq!(request(&mut bench, OUT, 1, &[1; 512], 0).0, OK);
    assert_eq!(request(&mut bench, OUT, 10, &[1; 512], 0).0, IOERR);
    assert_eq!(request(&mut bench, IN, 10, &[], 512).0, IOERR);
    assert_eq!(
        request(
            &mut bench,
            DISCARD,
            0,
            &[range(0, 0, 0), range(10, 1, 0), range(20, 1, 0)].concat(),
            0
        )
        .0,
        IOERR
    );
    assert_eq!(request(&mut bench, IN, 1 << 21, &[], 512).0, IOERR);
    assert_eq!(request(&mut bench, FLUSH, 0, &[], 0).0, OK);
    let log = log.lock().unwrap().clone();
    let expected = [
        "read 1024 512",
        "write 512 512",
        "write 5120 512",
        "read 5120 512",
        "discard 5120 512",
        "flush",
    ];
    assert_eq!(log, expected);
    assert_eq!(bench.stop().failed, 4);
}
