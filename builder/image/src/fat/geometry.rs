//! Where the parts of a volume are.

use super::{ENTRY_BYTES, FatError, FatType, Options};

/// Clusters are numbered from this.
pub(super) const FIRST_CLUSTER: u32 = 2;
/// Entries of the root of FAT12 and FAT16, where more are not needed.
const ROOT_ENTRIES: u64 = 512;
const FATS: u64 = 2;
/// Sectors before the tables of FAT32; the boot sector and its copy are among them.
const RESERVED_FAT32: u64 = 32;
/// The most sectors of a cluster.
const CLUSTER_SECTORS_MAX: u64 = 128;

impl FatType {
    /// The most clusters.
    pub(super) fn clusters_max(self) -> u64 {
        match self {
            Self::Fat12 => 4084,
            Self::Fat16 => 65_524,
            Self::Fat32 => 0x0FFF_FFF4,
        }
    }

    /// The fewest clusters: other readers take a smaller volume for the next smaller type.
    fn clusters_min(self) -> u64 {
        match self {
            Self::Fat12 => 1,
            Self::Fat16 => 4085,
            Self::Fat32 => 65_525,
        }
    }

    /// Width of a number in the table.
    pub(super) fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }
}

/// A volume's parts, in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) fat_type: FatType,
    pub(super) sector_bytes: u64,
    pub(super) cluster_sectors: u64,
    pub(super) total_sectors: u64,
    pub(super) reserved_sectors: u64,
    pub(super) fats: u64,
    pub(super) fat_sectors: u64,
    /// Entries of the root's own part; 0 for FAT32.
    pub(super) root_entries: u64,
    pub(super) clusters: u64,
}

impl Geometry {
    pub(super) fn cluster_bytes(&self) -> u64 {
        self.cluster_sectors.saturating_mul(self.sector_bytes)
    }

    /// Where a table begins, in bytes.
    pub(super) fn fat_byte(&self, index: u64) -> u64 {
        let sector = self.reserved_sectors + index * self.fat_sectors;
        sector * self.sector_bytes
    }

    /// Where the root's own part begins, in bytes.
    pub(super) fn root_byte(&self) -> u64 {
        self.fat_byte(self.fats)
    }

    /// Where a cluster begins, in bytes; it must be one of the volume's.
    pub(super) fn cluster_byte(&self, cluster: u32) -> u64 {
        let index = u64::from(cluster.saturating_sub(FIRST_CLUSTER));
        self.data_byte() + index * self.cluster_bytes()
    }

    pub(super) fn data_byte(&self) -> u64 {
        let root = self.root_entries * ENTRY_BYTES as u64;
        self.root_byte() + root.next_multiple_of(self.sector_bytes)
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.total_sectors * self.sector_bytes
    }

    /// Refuses sectors and clusters that cannot be.
    pub(super) fn check(options: &Options) -> Result<(), FatError> {
        let sector = options.sector_bytes;
        if !matches!(sector, 512 | 1024 | 2048 | 4096) {
            let what = "sectors have 512, 1024, 2048 or 4096 bytes";
            return Err(FatError::InvalidOption(what.into()));
        }
        let is_wrong = |bytes: u32| {
            let sectors = u64::from(bytes / sector);
            !bytes.is_power_of_two() || !(1..=CLUSTER_SECTORS_MAX).contains(&sectors)
        };
        if options.cluster_bytes.is_some_and(is_wrong) {
            let what = "a cluster has 1 to 128 sectors, a power of two";
            return Err(FatError::InvalidOption(what.into()));
        }
        Ok(())
    }

    /// The geometry of a new volume whose root needs so many entries; the options are checked.
    pub(super) fn choose(
        options: &Options,
        size_bytes: u64,
        root_entries: u64,
    ) -> Result<Self, FatError> {
        let sector_bytes = u64::from(options.sector_bytes);
        let invalid = |what: &str| Err(FatError::InvalidOption(what.into()));
        if !size_bytes.is_multiple_of(sector_bytes) {
            return invalid("the size is not made of whole sectors");
        }
        let total_sectors = size_bytes / sector_bytes;
        if u32::try_from(total_sectors).is_err() {
            return invalid("a FAT volume has at most 4294967295 sectors");
        }
        let given = options.cluster_bytes.map(u64::from);
        let is_large = size_bytes >= 512 << 20;
        let types = match options.fat_type {
            Some(fat_type) => vec![fat_type],
            None if is_large => vec![FatType::Fat32],
            None => vec![FatType::Fat16, FatType::Fat12],
        };
        let mut cluster_sectors = match given {
            Some(bytes) => bytes / sector_bytes,
            None => usual_cluster(types[0], size_bytes, sector_bytes),
        };
        while cluster_sectors <= CLUSTER_SECTORS_MAX {
            for fat_type in &types {
                let new = Self {
                    fat_type: *fat_type,
                    sector_bytes,
                    cluster_sectors,
                    total_sectors,
                    reserved_sectors: 1,
                    fats: FATS,
                    fat_sectors: 1,
                    root_entries,
                    clusters: 0,
                };
                if let Some(geometry) = new.fitted() {
                    return Ok(geometry);
                }
            }
            if given.is_some() {
                break;
            }
            cluster_sectors *= 2;
        }
        Err(FatError::InvalidOption(format!(
            "{size_bytes} bytes are too few or too many for this type of FAT and its clusters"
        )))
    }

    /// Finds the size of the tables; `None` where the type does not have so many or few clusters.
    fn fitted(mut self) -> Option<Self> {
        if self.fat_type == FatType::Fat32 {
            self.reserved_sectors = RESERVED_FAT32;
            self.root_entries = 0;
        } else {
            let in_sector = self.sector_bytes / ENTRY_BYTES as u64;
            let entries = self.root_entries.max(ROOT_ENTRIES);
            self.root_entries = entries.next_multiple_of(in_sector);
            u16::try_from(self.root_entries).ok()?;
        }
        loop {
            let data = self.data_byte() / self.sector_bytes;
            let sectors = self.total_sectors.checked_sub(data)?;
            self.clusters = sectors / self.cluster_sectors;
            let bytes = ((self.clusters + 2) * self.fat_type.bits()).div_ceil(8);
            let needed = bytes.div_ceil(self.sector_bytes);
            if needed <= self.fat_sectors {
                break;
            }
            self.fat_sectors = needed;
        }
        let range = self.fat_type.clusters_min()..=self.fat_type.clusters_max();
        range.contains(&self.clusters).then_some(self)
    }
}

/// mkfs.fat's first choice, in sectors; it goes up from there.
fn usual_cluster(fat_type: FatType, size_bytes: u64, sector_bytes: u64) -> u64 {
    let bytes = if fat_type == FatType::Fat32 {
        match size_bytes >> 20 {
            0..=260 => 512,
            261..=8192 => 4096,
            8193..=16_384 => 8192,
            16_385..=32_768 => 16_384,
            _ => 32_768,
        }
    } else {
        4 * sector_bytes
    };
    (bytes / sector_bytes).max(1)
}
