//! What a file system is called and how it is identified, as far as its first blocks say so.
//!
//! Sources: the kernel's `fs/*/` structures, and util-linux's blkid, which tests compare with. What
//! has no label in a fixed place (NTFS, exFAT) has none here.

use super::{Disk, FileSystem, PartitionError, field, u16_at, u32_at};
use crate::tree::{Blob, display};

/// How much of a volume is looked at for everything but btrfs and ISO 9660.
const HEAD_BYTES: u64 = 8192;
/// Where btrfs has its first superblock.
const BTRFS_AT: u64 = 65_536;
/// Where ISO 9660 has its volume descriptor.
const ISO_AT: u64 = 32_768;
/// Where ext, swap and EROFS have their headers.
const KIB: usize = 1024;

/// What fills a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Which kind.
    pub file_system: FileSystem,
    /// Its name as Linux has it: `ext4`, `xfs`, `vfat`, `LVM2_member`.
    pub name: &'static str,
    /// Its label, fit for a message; empty where it has none.
    pub label: String,
    /// Its identifier as blkid writes it; empty where it has none.
    pub uuid: String,
    /// How many bytes it says that it has, where that is looked at: ext2, ext3 and ext4. More than
    /// the partition has are damage.
    pub size_bytes: Option<u64>,
}

/// Describes what is in `length_bytes` from `first_byte` of a disk on.
///
/// # Errors
/// The disk cannot be read.
pub fn volume(
    disk: &dyn Blob,
    first_byte: u64,
    length_bytes: u64,
) -> Result<Option<Volume>, PartitionError> {
    let disk = Disk {
        disk,
        size_bytes: first_byte.saturating_add(length_bytes),
    };
    let Some(found) = super::probe::file_system_of(disk, first_byte, length_bytes)? else {
        return Ok(None);
    };
    let part = |at: u64, most: u64| {
        let length = most.min(length_bytes.saturating_sub(at));
        disk.bytes(first_byte.saturating_add(at), length)
    };
    let bytes = match found {
        FileSystem::Btrfs => part(BTRFS_AT, KIB_U64)?,
        FileSystem::Iso9660 => part(ISO_AT, KIB_U64)?,
        _ => part(0, HEAD_BYTES)?,
    };
    let (name, label, uuid) = describe(found, &bytes);
    Ok(Some(Volume {
        file_system: found,
        name,
        label,
        uuid,
        size_bytes: (found == FileSystem::Ext).then(|| ext_bytes(&bytes)),
    }))
}

const KIB_U64: u64 = 1024;

fn describe(found: FileSystem, head: &[u8]) -> (&'static str, String, String) {
    let none = String::new;
    match found {
        FileSystem::Ext => (
            ext_name(head),
            text::<16>(head, KIB + 120),
            uuid(field(head, KIB + 104)),
        ),
        FileSystem::Xfs => ("xfs", text::<12>(head, 108), uuid(field(head, 32))),
        FileSystem::Btrfs => ("btrfs", text::<256>(head, 299), uuid(field(head, 32))),
        FileSystem::Fat => fat(head),
        FileSystem::ExFat => ("exfat", none(), serial(u32_at(head, 100))),
        FileSystem::Ntfs => ("ntfs", none(), ntfs_serial(field(head, 72))),
        FileSystem::Swap => (
            "swap",
            text::<16>(head, KIB + 28),
            uuid(field(head, KIB + 12)),
        ),
        FileSystem::Luks => luks(head),
        FileSystem::Lvm => ("LVM2_member", none(), lvm_uuid(head)),
        FileSystem::SquashFs => ("squashfs", none(), none()),
        FileSystem::Erofs => (
            "erofs",
            text::<16>(head, KIB + 64),
            uuid(field(head, KIB + 48)),
        ),
        FileSystem::Iso9660 => ("iso9660", text::<32>(head, 40), none()),
    }
}

/// What is there up to the first NUL, without spaces at the end.
fn text<const LENGTH: usize>(bytes: &[u8], at: usize) -> String {
    let bytes: [u8; LENGTH] = field(bytes, at);
    let end = bytes.iter().position(|byte| *byte == 0);
    let bytes = bytes.get(..end.unwrap_or(LENGTH)).unwrap_or_default();
    display(bytes.trim_ascii_end())
}

/// Sixteen bytes in their order; nothing where all are zero.
fn uuid(bytes: [u8; 16]) -> String {
    if bytes == [0; 16] {
        return String::new();
    }
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn serial(number: u32) -> String {
    if number == 0 {
        return String::new();
    }
    format!("{:04X}-{:04X}", number >> 16, number & 0xffff)
}

fn ntfs_serial(bytes: [u8; 8]) -> String {
    format!("{:016X}", u64::from_le_bytes(bytes))
}

/// The number of blocks, whose upper half counts with the feature `64bit` only, by their size.
fn ext_bytes(head: &[u8]) -> u64 {
    const INCOMPAT_64BIT: u32 = 0x80;
    let has_upper = u32_at(head, KIB + 96) & INCOMPAT_64BIT != 0;
    let upper = if has_upper {
        u32_at(head, KIB + 336)
    } else {
        0
    };
    let blocks = u64::from(upper) << 32 | u64::from(u32_at(head, KIB + 4));
    // Of a size that is impossible nothing was found.
    let block_bytes = 1024_u64.checked_shl(u32_at(head, KIB + 24)).unwrap_or(0);
    blocks.saturating_mul(block_bytes)
}

/// ext4 has features that ext3 has not, and ext3 is ext2 with a journal.
fn ext_name(head: &[u8]) -> &'static str {
    /// `extents`, `64bit`, `mmp`, `flex_bg`, `ea_inode`, `csum_seed`, `largedir`, `inline_data`,
    /// `encrypt`, `casefold`.
    const EXT4_INCOMPAT: u32 = 0x0003_E7C0;
    /// `huge_file` and all behind it.
    const EXT4_RO_COMPAT: u32 = 0xFFFF_FFF8;
    const HAS_JOURNAL: u32 = 4;
    let [compat, incompat, ro_compat] = [92, 96, 100].map(|at| u32_at(head, KIB + at));
    if incompat & EXT4_INCOMPAT != 0 || ro_compat & EXT4_RO_COMPAT != 0 {
        "ext4"
    } else if compat & HAS_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    }
}

fn fat(head: &[u8]) -> (&'static str, String, String) {
    // FAT32 has no old count of sectors of a table.
    let at = if u16_at(head, 22) == 0 { 67 } else { 39 };
    let is_extended = matches!(head.get(at - 1), Some(0x28 | 0x29));
    if !is_extended {
        return ("vfat", String::new(), String::new());
    }
    let label = text::<11>(head, at + 4);
    let label = if label == "NO NAME" {
        String::new()
    } else {
        label
    };
    ("vfat", label, serial(u32_at(head, at)))
}

fn luks(head: &[u8]) -> (&'static str, String, String) {
    let version: [u8; 2] = field(head, 6);
    let label = match u16::from_be_bytes(version) {
        2 => text::<48>(head, 24),
        _ => String::new(),
    };
    ("crypto_LUKS", label, text::<40>(head, 168))
}

/// The label of LVM says where the header is, which begins with 32 letters.
fn lvm_uuid(head: &[u8]) -> String {
    const LABEL_AT: usize = 512;
    let offset = usize::try_from(u32_at(head, LABEL_AT + 20)).unwrap_or(usize::MAX);
    let letters: [u8; 32] = field(head, LABEL_AT.saturating_add(offset));
    if !letters.iter().all(u8::is_ascii_alphanumeric) {
        return String::new();
    }
    let mut text = String::new();
    for (index, letter) in letters.iter().enumerate() {
        if matches!(index, 6 | 10 | 14 | 18 | 22 | 26) {
            text.push('-');
        }
        text.push(char::from(*letter));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: Vec<u8>) -> Option<Volume> {
        let length = u64::try_from(bytes.len()).unwrap();
        volume(&bytes, 0, length).unwrap()
    }

    fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
        bytes[at..at + what.len()].copy_from_slice(what);
    }

    #[test]
    fn volumes_say_who_they_are() {
        let number: Vec<u8> = (1..17).collect();
        let uuid = "01020304-0506-0708-090a-0b0c0d0e0f10";
        let mut ext = vec![0; 8192];
        put(&mut ext, 1024, &[8, 0, 0, 0, 8, 0, 0, 0]);
        put(&mut ext, 1080, b"\x53\xef");
        put(&mut ext, 1024 + 104, &number);
        put(&mut ext, 1024 + 120, b"root\0");
        assert_eq!(of(ext.clone()).unwrap().size_bytes, Some(8 * 1024));
        // The upper half counts with a feature only.
        put(&mut ext, 1024 + 336, &[1, 0]);
        assert_eq!(of(ext.clone()).unwrap().size_bytes, Some(8 * 1024));
        let mut large = ext.clone();
        put(&mut large, 1024 + 24, &[2]);
        put(&mut large, 1024 + 96, &[0x80]);
        assert_eq!(of(large).unwrap().size_bytes, Some((1 << 44) + 8 * 4096));
        for (features, name) in [
            ([0, 0, 0], "ext2"),
            ([4, 0, 0], "ext3"),
            ([4, 0x40, 0], "ext4"),
            ([0, 0, 8], "ext4"),
        ] {
            for (place, value) in [92, 96, 100].into_iter().zip(features) {
                ext[1024 + place] = value;
            }
            let found = of(ext.clone()).unwrap();
            assert_eq!(
                (found.name, &*found.label, &*found.uuid),
                (name, "root", uuid)
            );
        }
        let mut xfs = vec![0; 4096];
        put(&mut xfs, 0, b"XFSB");
        put(&mut xfs, 32, &number);
        put(&mut xfs, 108, b"twelveletter");
        let found = of(xfs).unwrap();
        assert_eq!(
            (found.name, &*found.label, &*found.uuid),
            ("xfs", "twelveletter", uuid)
        );
        let mut btrfs = vec![0; 70_000];
        put(&mut btrfs, 65_536 + 64, b"_BHRfS_M");
        put(&mut btrfs, 65_536 + 32, &number);
        put(&mut btrfs, 65_536 + 299, b"pool\x1b\0");
        let found = of(btrfs).unwrap();
        assert_eq!(
            (found.name, &*found.label, &*found.uuid),
            ("btrfs", "pool\\u{1b}", uuid)
        );
        let mut luks = vec![0; 4096];
        put(&mut luks, 0, b"LUKS\xba\xbe\0\x02");
        put(&mut luks, 24, b"secret\0");
        put(&mut luks, 168, uuid.as_bytes());
        let found = of(luks).unwrap();
        assert_eq!(
            (found.name, &*found.label, &*found.uuid),
            ("crypto_LUKS", "secret", uuid)
        );
        let mut lvm = vec![0; 4096];
        put(&mut lvm, 512, b"LABELONE");
        put(&mut lvm, 532, &[32]);
        put(&mut lvm, 544, b"abcdefghijklmnopqrstuvwxyz012345");
        let found = of(lvm).unwrap();
        let uuid = "abcdef-ghij-klmn-opqr-stuv-wxyz-012345";
        assert_eq!((found.name, &*found.uuid), ("LVM2_member", uuid));
    }

    #[test]
    fn truncated_ones_and_wild_places_are_harmless() {
        let mut lvm = vec![0; 600];
        put(&mut lvm, 512, b"LABELONE");
        put(&mut lvm, 532, &[0xff; 4]);
        assert_eq!(of(lvm).unwrap().uuid, "");
        let mut btrfs = vec![0; 65_608];
        put(&mut btrfs, 65_600, b"_BHRfS_M");
        assert_eq!(of(btrfs).unwrap().label, "");
        assert_eq!(of(vec![0; 100]), None);
        assert_eq!(of(Vec::new()), None);
    }
}
