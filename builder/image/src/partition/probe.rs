//! File systems by their magic.

use super::{Disk, PartitionError, u16_at, u32_at};

/// Something that fills a partition or a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileSystem {
    /// ext2, ext3 or ext4.
    Ext,
    /// FAT12, FAT16 or FAT32.
    Fat,
    /// exFAT.
    ExFat,
    /// NTFS.
    Ntfs,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// SquashFS.
    SquashFs,
    /// EROFS.
    Erofs,
    /// ISO 9660.
    Iso9660,
    /// A Linux swap area.
    Swap,
    /// A LUKS container.
    Luks,
    /// A physical volume of LVM.
    Lvm,
}

impl FileSystem {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext => "ext2/3/4",
            Self::Fat => "FAT",
            Self::ExFat => "exFAT",
            Self::Ntfs => "NTFS",
            Self::Xfs => "XFS",
            Self::Btrfs => "btrfs",
            Self::SquashFs => "SquashFS",
            Self::Erofs => "EROFS",
            Self::Iso9660 => "ISO 9660",
            Self::Swap => "swap",
            Self::Luks => "LUKS",
            Self::Lvm => "LVM",
        }
    }
}

/// Every magic but FAT's: where it is, and its bytes.
const MAGICS: [(FileSystem, u64, &[u8]); 12] = [
    (FileSystem::Luks, 0, b"LUKS\xba\xbe"),
    (FileSystem::ExFat, 3, b"EXFAT   "),
    (FileSystem::Ntfs, 3, b"NTFS    "),
    (FileSystem::Xfs, 0, b"XFSB"),
    (FileSystem::SquashFs, 0, b"hsqs"),
    (FileSystem::Lvm, 512, b"LABELONE"),
    (FileSystem::Ext, 1080, b"\x53\xef"),
    (FileSystem::Erofs, 1024, b"\xe2\xe1\xf5\xe0"),
    (FileSystem::Swap, 4086, b"SWAPSPACE2"),
    (FileSystem::Swap, 4086, b"SWAP-SPACE"),
    (FileSystem::Iso9660, 32_769, b"CD001"),
    (FileSystem::Btrfs, 65_600, b"_BHRfS_M"),
];

/// What is in `length_bytes` from `first_byte` of a disk on, by its magic: enough to choose among
/// partitions, no proof that it is whole.
///
/// # Errors
/// The disk cannot be read.
pub(super) fn file_system_of(
    disk: Disk<'_>,
    first_byte: u64,
    length_bytes: u64,
) -> Result<Option<FileSystem>, PartitionError> {
    let head = disk.bytes(first_byte, length_bytes.min(8192))?;
    for (found, at, magic) in MAGICS {
        let length = u64::try_from(magic.len()).unwrap_or(u64::MAX);
        if at.saturating_add(length) > length_bytes {
            continue;
        }
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let is_there = if let Some(rest) = head.get(start..) {
            rest.starts_with(magic)
        } else {
            disk.bytes(first_byte.saturating_add(at), length)? == magic
        };
        if is_there && (found != FileSystem::Ext || is_ext(&head)) {
            return Ok(Some(found));
        }
    }
    Ok(is_fat(&head, length_bytes).then_some(FileSystem::Fat))
}

/// Two bytes are a weak magic: number and size of the blocks must be possible, too.
fn is_ext(head: &[u8]) -> bool {
    u32_at(head, 1024) != 0 && u32_at(head, 1028) != 0 && u32_at(head, 1048) <= 6
}

/// FAT has no magic, so its boot sector is judged by all that must hold.
fn is_fat(head: &[u8], length_bytes: u64) -> bool {
    let byte = |at: usize| head.get(at).copied().unwrap_or(0);
    let sector = u64::from(u16_at(head, 11));
    let sectors = match u16_at(head, 19) {
        0 => u64::from(u32_at(head, 32)),
        small => u64::from(small),
    };
    u16_at(head, 510) == 0xAA55
        && matches!(byte(0), 0xEB | 0xE9)
        && matches!(sector, 512 | 1024 | 2048 | 4096)
        && byte(13).is_power_of_two()
        && u16_at(head, 14) != 0
        && matches!(byte(16), 1 | 2)
        && byte(21) >= 0xF0
        && sectors != 0
        && sectors
            .checked_mul(sector)
            .is_some_and(|bytes| bytes <= length_bytes)
}
