//! Identifiers and types of partitions.

use std::fmt;
use std::str::FromStr;

/// A GUID as it lies on the disk: its first three fields are little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

/// Where each byte of the text is on the disk.
const TEXT_ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

impl Guid {
    /// Linux data.
    pub const LINUX: Self = Self::of(0x0FC6_3DAF, 0x8483, 0x4772, 0x8E79_3D69_D847_7DE4);
    /// Linux root file system, x86-64.
    pub const LINUX_ROOT_AMD64: Self = Self::of(0x4F68_BCE3, 0xE8CD, 0x4DB1, 0x96E7_FBCA_F984_B709);
    /// Linux root file system, 64-bit ARM.
    pub const LINUX_ROOT_ARM64: Self = Self::of(0xB921_B045, 0x1DF0, 0x41C3, 0xAF44_4C6F_280D_3FAE);
    /// EFI system partition.
    pub const EFI_SYSTEM: Self = Self::of(0xC12A_7328, 0xF81F, 0x11D2, 0xBA4B_00A0_C93E_C93B);
    /// Room for GRUB's second stage.
    pub const BIOS_BOOT: Self = Self::of(0x2168_6148, 0x6449, 0x6E6F, 0x744E_6565_6445_4649);
    /// Linux swap.
    pub const LINUX_SWAP: Self = Self::of(0x0657_FD6D, 0xA4AB, 0x43C4, 0x84E5_0933_C84B_4F4F);
    /// Windows data; also used for FAT by others.
    pub const BASIC_DATA: Self = Self::of(0xEBD0_A0A2, 0xB9E5, 0x4433, 0x87C0_68B6_B726_99C7);

    const fn of(first: u32, second: u16, third: u16, rest: u64) -> Self {
        let [a, b, c, d] = first.to_le_bytes();
        let [e, f] = second.to_le_bytes();
        let [g, h] = third.to_le_bytes();
        let [i, j, k, l, m, n, o, p] = rest.to_be_bytes();
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// Whether it stands for nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Guid {
    /// In small letters, as Linux shows it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in TEXT_ORDER.into_iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                formatter.write_str("-")?;
            }
            write!(formatter, "{:02x}", self.0[place])?;
        }
        Ok(())
    }
}

impl FromStr for Guid {
    type Err = String;

    /// Takes the 36 letters of the usual form.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{}' is not a GUID", text.escape_debug());
        let letters = text.as_bytes();
        let dashes = [8, 13, 18, 23];
        if letters.len() != 36 || dashes.iter().any(|at| letters[*at] != b'-') {
            return Err(bad());
        }
        let mut digits = letters
            .iter()
            .enumerate()
            .filter(|(at, _)| !dashes.contains(at))
            .map(|(_, letter)| char::from(*letter).to_digit(16));
        let mut guid = Self::default();
        for place in TEXT_ORDER {
            let mut digit = || digits.next().flatten().ok_or_else(bad);
            let byte = digit()? * 16 + digit()?;
            guid.0[place] = u8::try_from(byte).map_err(|_| bad())?;
        }
        Ok(guid)
    }
}

/// What a partition says that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartitionType {
    /// GPT's type.
    Gpt(Guid),
    /// MBR's type.
    Mbr(u8),
}

impl PartitionType {
    /// What it is called; "unknown" where coop has no name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt(guid) => gpt_name(guid),
            Self::Mbr(byte) => mbr_name(byte),
        }
    }
}

impl fmt::Display for PartitionType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(guid) => guid.fmt(formatter),
            Self::Mbr(byte) => write!(formatter, "{byte:#04x}"),
        }
    }
}

/// The Discoverable Partitions Specification's and the firmware's; all others are unknown.
fn gpt_name(guid: Guid) -> &'static str {
    const OTHERS: [(Guid, &str); 7] = [
        (
            Guid::of(0xBC13_C2FF, 0x59E6, 0x4262, 0xA352_B275_FD6F_7172),
            "Linux extended boot",
        ),
        (
            Guid::of(0x933A_C7E1, 0x2EB4, 0x4F13, 0xB844_0E14_E2AE_F915),
            "Linux home",
        ),
        (
            Guid::of(0x3B8F_8425, 0x20E0, 0x4F3B, 0x907F_1A25_A76F_98E8),
            "Linux server data",
        ),
        (
            Guid::of(0x4D21_B016, 0xB534, 0x45C2, 0xA9FB_5C16_E091_FD2D),
            "Linux variable data",
        ),
        (
            Guid::of(0xE6D6_D379, 0xF507, 0x44C2, 0xA23C_238F_2A3D_F928),
            "Linux LVM",
        ),
        (
            Guid::of(0xA19D_880F, 0x05FC, 0x4D3B, 0xA006_743F_0F84_911E),
            "Linux RAID",
        ),
        (
            Guid::of(0xE3C9_E316, 0x0B5C, 0x4DB8, 0x817D_F92D_F002_15AE),
            "Microsoft reserved",
        ),
    ];
    match guid {
        Guid::LINUX => "Linux filesystem",
        Guid::LINUX_ROOT_AMD64 => "Linux root (x86-64)",
        Guid::LINUX_ROOT_ARM64 => "Linux root (ARM-64)",
        Guid::EFI_SYSTEM => "EFI System",
        Guid::BIOS_BOOT => "BIOS boot",
        Guid::LINUX_SWAP => "Linux swap",
        Guid::BASIC_DATA => "Microsoft basic data",
        _ => OTHERS
            .iter()
            .find(|(other, _)| *other == guid)
            .map_or("unknown", |(_, name)| name),
    }
}

fn mbr_name(byte: u8) -> &'static str {
    match byte {
        0x01 => "FAT12",
        0x04 | 0x06 | 0x0E => "FAT16",
        0x05 | 0x0F => "extended",
        0x07 => "NTFS or exFAT",
        0x0B | 0x0C => "FAT32",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x85 => "Linux extended",
        0x8E => "Linux LVM",
        0xA5 => "FreeBSD",
        0xEA => "Linux extended boot",
        0xEE => "GPT protective",
        0xEF => "EFI System",
        0xFD => "Linux RAID",
        _ => "unknown",
    }
}
