//! A disk around one file system, for machines that want a partition table.

use std::sync::Arc;

use coop_image::disk::{Source, gpt};
use coop_image::partition::{FileSystem, Guid, SectorSize};
use coop_image::tree::read_exact_at;

use super::{ConvertError, Input, Part};
use crate::digest::Digest;
use crate::inputs::{Record, seed};

/// So much of a file system's beginning tells it from others: its superblock is in it.
const HEAD_BYTES: u64 = 4096;

/// Puts a part into a disk with a GPT. The identifiers of both follow from the part's beginning and
/// its size, so that the same file system gives the same disk.
pub(super) fn wrap(
    input: &Input,
    part: &Part,
    source: Arc<dyn Source>,
) -> Result<Arc<dyn Source>, ConvertError> {
    let (kind, name) = purpose(input, part);
    let identity = identity(&*source)?;
    let content = gpt::Content {
        source,
        kind,
        uuid: Guid(seed(&identity, "partition")),
        name: name.to_owned(),
    };
    let options = gpt::Options {
        disk: Guid(seed(&identity, "disk")),
        sector_size: SectorSize::B512,
    };
    let wrapped = gpt::wrap(vec![content], &options);
    let wrapped = wrapped.map_err(|source| ConvertError::Disk {
        name: input.name.clone(),
        source,
    })?;
    Ok(Arc::new(wrapped))
}

fn identity(source: &dyn Source) -> Result<Digest, ConvertError> {
    let length = source.size_bytes().min(HEAD_BYTES);
    let mut head = vec![0; usize::try_from(length).unwrap_or(0)];
    read_exact_at(source, &mut head, 0)?;
    let mut record = Record::new("coop disk");
    record.put("size", &source.size_bytes().to_le_bytes());
    record.put("head", &head);
    Ok(record.finish())
}

/// The type that says what is in the partition, and its name.
fn purpose(input: &Input, part: &Part) -> (Guid, &'static str) {
    match part.file_system() {
        Some(FileSystem::Swap) => (Guid::LINUX_SWAP, "swap"),
        Some(FileSystem::Fat | FileSystem::ExFat | FileSystem::Ntfs) => (Guid::BASIC_DATA, "data"),
        Some(FileSystem::Ext) if input.looks_like_root(part) => (Guid::LINUX_ROOT_AMD64, "root"),
        _ => (Guid::LINUX, "data"),
    }
}
