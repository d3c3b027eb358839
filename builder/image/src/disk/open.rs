//! From a file to a disk: its layers one after the other, each opened by its format.

use std::fs::File;

use super::chain::{CHAIN_MAX, Chain, Reference, Role};
use super::layer::{Layer, Raw};
use super::{Disk, DiskError, Format, LeftBehind, detect, qcow2, vmdk};

/// The most files of a disk, extents among them.
pub(super) const FILES_MAX: usize = 256;

/// Opens what a disk names.
pub(super) struct Opener<'c> {
    chain: &'c mut dyn Chain,
    /// The names that led to the layer that is being opened.
    through: Vec<String>,
    files: usize,
}

/// A layer, and what the disk needs behind it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) format: Format,
    pub(super) layer: Box<dyn Layer>,
    pub(super) left_behind: Vec<LeftBehind>,
    pub(super) behind: Option<Behind>,
}

/// The next layer, as the one before it names it.
#[derive(Debug)]
pub(super) struct Behind {
    pub(super) role: Role,
    pub(super) name: String,
    /// What its format is called; without one, content says it.
    pub(super) format: Option<String>,
}

impl Opener<'_> {
    /// Opens a file that the layer names.
    pub(super) fn open(&mut self, role: Role, name: &str) -> Result<File, DiskError> {
        let shown = || name.escape_debug().to_string();
        self.files += 1;
        if self.files > FILES_MAX {
            return Err(DiskError::Limit {
                format: "the",
                what: format!("a disk of so many files, {role} '{}' among them", shown()),
                limit: super::as_u64(FILES_MAX),
            });
        }
        let reference = Reference {
            role,
            name,
            through: &self.through,
        };
        let opened = self.chain.open(&reference);
        opened.map_err(|reason| DiskError::Reference {
            role,
            name: shown(),
            reason,
        })
    }
}

/// Opens a disk and everything behind it.
pub(super) fn open(file: File, chain: &mut dyn Chain) -> Result<Disk, DiskError> {
    let mut opener = Opener {
        chain,
        through: Vec::new(),
        files: 0,
    };
    let first = open_layer(file, None, &mut opener)?;
    let size_bytes = first.layer.size_bytes();
    let mut disk = Disk {
        format: first.format,
        size_bytes,
        left_behind: first.left_behind,
        layers: vec![first.layer],
    };
    let mut behind = first.behind;
    while let Some(next) = behind {
        let Behind { role, name, format } = next;
        if disk.layers.len() >= CHAIN_MAX {
            return Err(DiskError::Limit {
                format: disk.format.name(),
                what: format!(
                    "a chain of files that goes on with '{}'",
                    name.escape_debug()
                ),
                limit: super::as_u64(CHAIN_MAX),
            });
        }
        let file = opener.open(role, &name)?;
        opener.through.push(name.clone());
        let opened = open_layer(file, format.as_deref(), &mut opener);
        let opened = opened.map_err(|source| DiskError::Within {
            role,
            name: name.escape_debug().to_string(),
            source: Box::new(source),
        })?;
        disk.layers.push(opened.layer);
        behind = opened.behind;
    }
    Ok(disk)
}

fn open_layer(
    file: File,
    format: Option<&str>,
    opener: &mut Opener<'_>,
) -> Result<Opened, DiskError> {
    let format = match format {
        Some("raw") => Format::Raw,
        Some("qcow2") => Format::Qcow2,
        Some("vmdk") => Format::Vmdk,
        Some(other) => return Err(DiskError::Unknown(other.escape_debug().to_string())),
        None => detect::detect(&file)?,
    };
    match format {
        Format::Raw => Ok(Opened {
            format,
            layer: Box::new(Raw::new(file)?),
            left_behind: Vec::new(),
            behind: None,
        }),
        Format::Qcow2 => qcow2::open(file, opener),
        Format::Vmdk => vmdk::open(file, opener),
    }
}
