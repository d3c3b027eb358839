//! Disks of other machines, and the tables on them.

use std::fs::File;

use coop_image::disk::{
    Chain, ChainError, Disk, ExtentKind, NoChain, Qcow2Options, Reference, write_qcow2,
};
use coop_image::partition::{self, SectorSize};

use super::{BYTES_MAX, file_of};

/// Disks have at least so many bytes.
const DISK_BYTES: usize = 256 << 10;

/// Reads a partition table; its partitions lie on the disk and apart from each other, and what is in
/// them has a description or none. The input is the disk's first sectors and, behind the byte that says
/// how it is read, its last ones.
pub fn partition(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let size = if choice & 1 == 0 {
        SectorSize::B512
    } else {
        SectorSize::B4096
    };
    let options = partition::ReadOptions {
        sector_size: (choice & 2 == 0).then_some(size),
        use_backup: choice & 4 != 0,
    };
    let mut disk = data.to_vec();
    if choice & 8 != 0 {
        let (head, tail) = data.split_at(data.len() / 2);
        disk = head.to_vec();
        disk.resize(DISK_BYTES.saturating_sub(tail.len()).max(head.len()), 0);
        disk.extend_from_slice(tail);
    } else {
        disk.resize(disk.len().max(DISK_BYTES), 0);
    }
    if choice & 16 != 0 {
        reseal(&mut disk, size);
    }
    let bytes = disk.len() as u64;
    let Ok(table) = partition::read(&disk, bytes, &options) else {
        return;
    };
    let mut ends: Vec<(u64, u64)> = table
        .partitions
        .iter()
        .filter(|part| !part.is_extended)
        .map(|part| (part.first_byte, part.first_byte + part.length_bytes))
        .collect();
    for (first, end) in &ends {
        let volume = partition::volume(&disk, *first, end - first);
        let volume = volume.expect("what lies on the disk can be read");
        assert!(volume.is_none_or(|one| !one.label.contains(char::is_control)));
    }
    ends.sort_unstable();
    assert!(ends.iter().all(|(first, end)| first < end && *end <= bytes));
    assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0));
}

/// Gives headers of a GPT the checksums that they would need.
fn reseal(disk: &mut [u8], size: SectorSize) {
    let sector = usize::try_from(size.bytes()).expect("small");
    let word = |disk: &[u8], at: usize| {
        let field = disk.get(at..).and_then(|rest| rest.first_chunk());
        field.map_or(0, |field| u32::from_le_bytes(*field) as usize)
    };
    for header in [sector, disk.len() - sector] {
        let entries = word(disk, header + 72).saturating_mul(sector);
        let length = word(disk, header + 80).saturating_mul(word(disk, header + 84));
        if let Some(entries) = disk.get(entries..entries.saturating_add(length)) {
            let crc = crc32(entries);
            disk[header + 88..header + 92].copy_from_slice(&crc.to_le_bytes());
        }
        let length = word(disk, header + 12);
        disk[header + 16..header + 20].fill(0);
        if let Some(bytes) = disk.get(header..header.saturating_add(length)) {
            let crc = crc32(bytes);
            disk[header + 16..header + 20].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 }
        })
    })
}

/// Clusters with parts have 16 KiB at least: a disk that ends before so many bytes has zeroes there.
const CLUSTERS_BYTES: usize = 96 << 10;

/// Reads a qcow2; what it says in place of other files is the input again.
pub fn qcow2(data: &[u8]) {
    let mut bytes = data.to_vec();
    bytes.resize(bytes.len().max(CLUSTERS_BYTES), 0);
    disk(data);
    disk(&bytes);
}

/// Reads a VMDK; what it says in place of other files is the input again.
pub fn vmdk(data: &[u8]) {
    disk(data);
}

/// Every name is the same file's.
struct Again<'d>(&'d [u8]);

impl Chain for Again<'_> {
    fn open(&mut self, _: &Reference<'_>) -> Result<File, ChainError> {
        Ok(file_of(self.0))
    }
}

/// Extents lie one behind the other, holes are zeroes, and a copy is the same.
fn disk(data: &[u8]) {
    let Ok(disk) = Disk::open(file_of(data), &mut Again(data)) else {
        return;
    };
    let size = disk.size_bytes();
    let mut end = 0;
    let mut bytes = vec![0; 5000];
    for extent in disk.extents().take(1000) {
        let Ok(extent) = extent else {
            return;
        };
        assert!(extent.offset == end && extent.length > 0 && extent.end() <= size);
        end = extent.end();
        let length = usize::try_from(extent.length).map_or(bytes.len(), |n| n.min(bytes.len()));
        let Ok(count) = disk.read_at(&mut bytes[..length], extent.offset) else {
            continue;
        };
        assert_eq!(count, length);
        let is_zero = bytes[..length].iter().all(|byte| *byte == 0);
        assert!(is_zero || extent.kind == ExtentKind::Data);
    }
    if size > BYTES_MAX {
        return;
    }
    let mut whole = vec![0; usize::try_from(size).expect("small")];
    let Ok(count) = disk.read_at(&mut whole, 0) else {
        return;
    };
    assert_eq!(count, whole.len());
    let copy = file_of(&[]);
    let options = Qcow2Options { cluster_bytes: 512 };
    write_qcow2(&disk, &copy, &options).expect("what reads can be written");
    let copy = Disk::open(copy, &mut NoChain).expect("what was written reads");
    let mut again = vec![1; whole.len()];
    copy.read_at(&mut again, 0).expect("what was written reads");
    assert!(whole == again);
}
