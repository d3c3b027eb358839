//! The text that says what a VMDK is made of.

use super::format::{DESCRIPTOR_MAGIC, SECTOR_BYTES};
use super::{corrupt, limit, unsupported};
use crate::disk::open::FILES_MAX;
use crate::disk::{DiskError, as_u64};

/// What a descriptor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) kind: Kind,
    pub(super) extents: Vec<Extent>,
    /// The name of what is behind the disk.
    pub(super) parent: Option<String>,
}

/// How the disk is divided into files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One sparse extent that has the descriptor.
    Embedded,
    /// A descriptor with extents in other files.
    Separate,
}

/// A part of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) size_bytes: u64,
    pub(super) content: Content,
}

/// What a part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Zero,
    /// A file's bytes from an offset on.
    Flat {
        name: String,
        offset: u64,
    },
    /// A file with a header of its own.
    Sparse {
        name: String,
    },
}

/// What a disk without parent has for one.
const NO_PARENT: &str = "ffffffff";

impl Descriptor {
    /// Reads a descriptor; what is behind the first zero byte does not count.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DiskError> {
        let place = "its descriptor";
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let first = text.trim_ascii_start();
        if !first.starts_with(DESCRIPTOR_MAGIC) {
            return Err(corrupt(place, "it does not begin as one"));
        }
        let Ok(text) = std::str::from_utf8(text) else {
            return Err(unsupported("a descriptor that is not in UTF-8"));
        };
        let mut extents = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(extent) = extent(line)? {
                extents.push(extent);
            }
            if extents.len() >= FILES_MAX {
                return Err(limit("a disk of so many extents", as_u64(FILES_MAX) - 1));
            }
        }
        let value = |key: &str| text.lines().find_map(|line| value(line, key));
        if text
            .lines()
            .any(|line| line.trim().starts_with("encryption."))
        {
            return Err(unsupported("encryption"));
        }
        let kind = match value("createType") {
            Some("monolithicSparse" | "streamOptimized") => Kind::Embedded,
            Some("monolithicFlat" | "twoGbMaxExtentSparse" | "twoGbMaxExtentFlat" | "vmfs") => {
                Kind::Separate
            }
            Some(other) => return Err(unsupported(format!("'{}'", other.escape_debug()))),
            None => return Err(corrupt(place, "it has no createType")),
        };
        if extents.is_empty() {
            return Err(corrupt(place, "it names no extents"));
        }
        let parent = match value("parentCID") {
            None => None,
            Some(id) if id.eq_ignore_ascii_case(NO_PARENT) => None,
            Some(_) => match value("parentFileNameHint") {
                Some(name) => Some(name.to_owned()),
                None => return Err(corrupt(place, "it has a parent without a name")),
            },
        };
        Ok(Self {
            kind,
            extents,
            parent,
        })
    }
}

/// The value of a line with this key.
fn value<'t>(line: &'t str, key: &str) -> Option<&'t str> {
    let (found, value) = line.split_once('=')?;
    if !found.trim().eq_ignore_ascii_case(key) {
        return None;
    }
    let value = value.trim();
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    Some(inner.unwrap_or(value))
}

/// `ACCESS SECTORS TYPE "NAME" SECTOR`.
fn extent(line: &str) -> Result<Option<Extent>, DiskError> {
    let mut words = line.splitn(4, ' ');
    let access = words.next().unwrap_or_default();
    if !matches!(access, "RW" | "RDONLY" | "NOACCESS") {
        return Ok(None);
    }
    let damaged = || {
        corrupt(
            "its descriptor",
            format!("extent '{}'", line.escape_debug()),
        )
    };
    let sectors = words.next().and_then(|word| word.parse::<u64>().ok());
    let size_bytes = sectors.and_then(|sectors| sectors.checked_mul(SECTOR_BYTES));
    let size_bytes = size_bytes.ok_or_else(damaged)?;
    let kind = words.next().ok_or_else(damaged)?.trim();
    let rest = words.next().unwrap_or_default().trim();
    if access == "NOACCESS" {
        return Err(unsupported("an extent without access"));
    }
    let content = match kind {
        "ZERO" => Content::Zero,
        "FLAT" | "VMFS" | "SPARSE" => {
            let name = rest
                .strip_prefix('"')
                .and_then(|rest| rest.rsplit_once('"'));
            let (name, offset) = name.ok_or_else(damaged)?;
            let name = name.to_owned();
            let offset = match offset.trim() {
                "" => Some(0),
                number => number.parse::<u64>().ok(),
            };
            let offset = offset.and_then(|sector| sector.checked_mul(SECTOR_BYTES));
            let offset = offset.ok_or_else(damaged)?;
            match kind {
                "SPARSE" => Content::Sparse { name },
                _ => Content::Flat { name, offset },
            }
        }
        other => {
            let what = format!("an extent of type '{}'", other.escape_debug());
            return Err(unsupported(what));
        }
    };
    Ok(Some(Extent {
        size_bytes,
        content,
    }))
}
