//! A partition table around file systems.

use std::io;
use std::sync::Arc;

use super::write::read_piece;
use super::{DiskError, Extent, ExtentKind, Source, as_u64};
use crate::partition::{self, Guid, NewPartition, NewTable, PartitionType, SectorSize, TableKind};
use crate::tree::Blob;

/// What becomes a partition.
#[derive(Clone, Debug)]
pub struct Content {
    /// Its bytes; zeroes make them whole sectors.
    pub source: Arc<dyn Source>,
    /// What it is for: [`Guid::LINUX`], say.
    pub kind: Guid,
    /// Its identity.
    pub uuid: Guid,
    /// Its name, at most 36 UTF-16 units.
    pub name: String,
}

/// How the table shall be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Identity of the disk.
    pub disk: Guid,
    /// Unit of the table's addresses.
    pub sector_size: SectorSize,
}

/// File systems with a GPT around them; a [`Source`], to be written in any format.
#[derive(Debug)]
pub struct Wrapped {
    size_bytes: u64,
    /// By offset, apart from each other.
    parts: Vec<(u64, Part)>,
}

#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    Source(Arc<dyn Source>),
}

impl Part {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => as_u64(bytes.len()),
            Self::Source(source) => source.size_bytes(),
        }
    }
}

/// Puts file systems into a GPT, each at a multiple of 1 MiB, the first at 1 MiB.
///
/// # Errors
/// [`DiskError::Table`] where the table cannot have what is asked for.
pub fn wrap(contents: Vec<Content>, options: &Options) -> Result<Wrapped, DiskError> {
    let sector = options.sector_size.bytes();
    let too_large = || DiskError::Invalid("a partition is too large".into());
    let mut partitions = Vec::new();
    for content in &contents {
        let length = content.source.size_bytes();
        let length_bytes = length.checked_next_multiple_of(sector);
        partitions.push(NewPartition {
            kind: PartitionType::Gpt(content.kind),
            name: content.name.clone(),
            uuid: content.uuid,
            first_byte: None,
            length_bytes: length_bytes.ok_or_else(too_large)?,
            attributes: 0,
            is_bootable: false,
            is_logical: false,
        });
    }
    let plan = partition::plan(&NewTable {
        kind: TableKind::Gpt {
            disk: options.disk,
            from_backup: false,
            damage: None,
            is_hybrid: false,
        },
        sector_size: options.sector_size,
        size_bytes: None,
        partitions,
    })?;
    let pieces = plan.pieces.into_iter();
    let mut parts: Vec<_> = pieces
        .map(|(offset, bytes)| (offset, Part::Bytes(bytes)))
        .collect();
    for (content, partition) in contents.into_iter().zip(&plan.table.partitions) {
        parts.push((partition.first_byte, Part::Source(content.source)));
    }
    parts.sort_by_key(|(offset, _)| *offset);
    Ok(Wrapped {
        size_bytes: plan.size_bytes,
        parts,
    })
}

impl Wrapped {
    /// The part that has the byte at `offset` with its own offset there, and where the next border
    /// between a part and nothing is.
    fn part_at(&self, offset: u64) -> (Option<(&Part, u64)>, u64) {
        let next = self.parts.partition_point(|(start, _)| *start <= offset);
        let before = next.checked_sub(1).and_then(|index| self.parts.get(index));
        if let Some((start, part)) = before
            && offset - start < part.length()
        {
            return (Some((part, offset - start)), start + part.length());
        }
        let next = self.parts.get(next);
        (None, next.map_or(self.size_bytes, |(start, _)| *start))
    }
}

impl Source for Wrapped {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        let (part, end) = self.part_at(offset);
        let mut extent = Extent {
            offset,
            length: end.saturating_sub(offset).max(1),
            kind: ExtentKind::Hole,
        };
        match part {
            None => {}
            Some((Part::Bytes(_), _)) => extent.kind = ExtentKind::Data,
            Some((Part::Source(source), at)) => {
                let inner = source.extent_at(at)?;
                extent.length = extent.length.min(inner.length);
                extent.kind = inner.kind;
            }
        }
        Ok(extent)
    }
}

impl Blob for Wrapped {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.size_bytes {
            return Ok(0);
        }
        let (part, end) = self.part_at(offset);
        let length = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let length = length.min(buffer.len());
        let buffer = &mut buffer[..length];
        match part {
            None => buffer.fill(0),
            Some((Part::Bytes(bytes), at)) => return bytes.read_at(buffer, at),
            Some((Part::Source(source), at)) => {
                read_piece(&**source, buffer, at).map_err(DiskError::into_io)?;
            }
        }
        Ok(length)
    }
}
