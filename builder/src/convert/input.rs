//! A disk or a cobd that is opened.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coop_image::disk::{Chain, Disk, Folder, NoChain, Source, View};
use coop_image::ext4::{self, ReadError};
use coop_image::partition::{
    self, FileSystem, Partition, PartitionError, PartitionType, ReadOptions, Table, TableKind,
    Volume,
};
use coop_image::tree::{Blob, Tree, display};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::OFlags;

use super::ConvertError;
use super::in_use::{self, Watching};
use crate::recipe::{self, ByteCount};

/// How a disk is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions<'a> {
    /// The folder whose files the disk may name as parts of itself; without one it may name none.
    pub chain: Option<&'a Path>,
    /// Whether a GPT with a damaged first copy is read from its second one.
    pub use_backup: bool,
}

/// A disk, and what is on it.
#[derive(Debug)]
pub struct Input {
    /// What messages call it.
    pub name: String,
    /// Its bytes.
    pub disk: Arc<Disk>,
    /// Its table, or that it has none.
    pub table: Table,
    /// Its partitions by number, but for those that only contain others; or all of it.
    pub parts: Vec<Part>,
    /// The files that the disk names as parts of itself, absolute, in the order in which they were
    /// opened.
    pub chain: Vec<PathBuf>,
    /// Whether a machine that runs may write to it: then it can be looked at, and not be copied.
    pub is_in_use: bool,
}

/// A part of a disk that can be asked for.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its partition; nothing where the disk has no table.
    pub partition: Option<Partition>,
    /// What is in it, where that is known.
    pub volume: Option<Volume>,
    /// Where it begins, in bytes.
    pub first_byte: u64,
    /// Its length in bytes.
    pub length_bytes: u64,
}

impl Input {
    /// Opens a file of the host.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or has no partition table and no file system that is known.
    pub fn open(path: &Path, options: &OpenOptions<'_>) -> Result<Self, ConvertError> {
        let name = display(path.as_os_str().as_encoded_bytes());
        // Opening must not wait for a pipe's other end.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let mut opening = fs::OpenOptions::new();
        let file = opening.read(true).custom_flags(flags).open(path)?;
        let file = file.into_parts().0;
        let is_cobd = recipe::is_cobd(path);
        let Some(folder) = options.chain else {
            return Self::of_file(name, file, is_cobd, &mut NoChain, options.use_backup);
        };
        let mut folder = Folder::new(folder, path)?;
        let input = Self::of_file(name, file, is_cobd, &mut folder, options.use_backup)?;
        Ok(Self {
            chain: folder.opened().to_vec(),
            ..input
        })
    }

    /// Reads an opened file as a disk of any format, or as it is where it `is_cobd`.
    pub(crate) fn of_file(
        name: String,
        file: File,
        is_cobd: bool,
        chain: &mut dyn Chain,
        use_backup: bool,
    ) -> Result<Self, ConvertError> {
        let mut chain = Watching {
            is_written: in_use::is_written(&file),
            chain,
        };
        let disk = match is_cobd {
            true => Disk::open_raw(file),
            false => Disk::open(file, &mut chain),
        };
        let disk = disk.map_err(|source| ConvertError::Disk {
            name: name.clone(),
            source,
        })?;
        let failed = |source| ConvertError::Table {
            name: name.clone(),
            source,
        };
        let options = ReadOptions {
            sector_size: None,
            use_backup,
        };
        let size = disk.size_bytes();
        let table = partition::read(&disk, size, &options).map_err(failed)?;
        let parts = parts(&disk, size, &table).map_err(failed)?;
        Ok(Self {
            name,
            disk: Arc::new(disk),
            table,
            parts,
            chain: Vec::new(),
            is_in_use: chain.is_written,
        })
    }

    /// Refuses a disk that somebody writes to.
    pub(crate) fn check_unused(&self) -> Result<(), ConvertError> {
        match self.is_in_use {
            true => Err(ConvertError::InUse(self.name.clone())),
            false => Ok(()),
        }
    }

    /// Refuses an output that is one of the files that are read, by whatever name, or a folder that
    /// has one of them.
    pub(super) fn refuse_replacing(
        &self,
        source: &Path,
        output: &Path,
    ) -> Result<(), ConvertError> {
        let Ok(found) = fs::canonicalize(output) else {
            return Ok(());
        };
        let identity = |path: &Path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        let own = identity(&found);
        let mut files = self.chain.iter().map(PathBuf::as_path).chain([source]);
        let is_same = |file: &Path| {
            let path = fs::canonicalize(file);
            path.is_ok_and(|path| path.starts_with(&found)) || identity(file) == own
        };
        match files.any(is_same) {
            true => Err(ConvertError::Same(output.to_owned())),
            false => Ok(()),
        }
    }

    /// Whether it is one file system and nothing else.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        matches!(self.table.kind, TableKind::Bare(_))
    }

    /// What its table is called.
    #[must_use]
    pub fn table_name(&self) -> &'static str {
        match self.table.kind {
            TableKind::Gpt { .. } => "gpt",
            TableKind::Mbr { .. } => "mbr",
            TableKind::Bare(_) => "none",
        }
    }

    /// The bytes of a part.
    ///
    /// # Errors
    /// It is not within the disk.
    pub fn view(&self, part: &Part) -> Result<View, ConvertError> {
        let disk: Arc<dyn Source> = Arc::clone(&self.disk) as Arc<dyn Source>;
        View::new(disk, part.first_byte, part.length_bytes).map_err(|source| ConvertError::Disk {
            name: self.name.clone(),
            source,
        })
    }

    /// The files of a part, whose content points into the disk.
    ///
    /// # Errors
    /// It is none of ext2, ext3 and ext4, or damaged.
    pub fn tree(&self, part: &Part) -> Result<Tree, ConvertError> {
        self.read(part, ext4::read)
    }

    /// What the root folder of a part names, as [`Input::tree`] but for little memory.
    pub(super) fn top(&self, part: &Part) -> Result<Tree, ConvertError> {
        self.read(part, ext4::read_top)
    }

    /// Refuses a part that ends within its file system, which no kernel would mount either.
    pub(super) fn check_whole(&self, part: &Part) -> Result<(), ConvertError> {
        match part.shortage() {
            None => Ok(()),
            Some(what) => Err(ConvertError::CutOff {
                name: self.name.clone(),
                what,
            }),
        }
    }

    fn read(
        &self,
        part: &Part,
        read: fn(Arc<dyn Blob>) -> Result<Tree, ReadError>,
    ) -> Result<Tree, ConvertError> {
        if part.file_system() != Some(FileSystem::Ext) {
            return Err(ConvertError::NotExt4 {
                name: self.name.clone(),
                part: part.to_string(),
                kind: part.nature(),
                found: part.file_system(),
            });
        }
        self.check_whole(part)?;
        let view = Arc::new(self.view(part)?);
        read(view).map_err(|source| ConvertError::FileSystem {
            name: self.name.clone(),
            part: part.to_string(),
            source,
        })
    }
}

fn parts(disk: &Disk, size_bytes: u64, table: &Table) -> Result<Vec<Part>, PartitionError> {
    if let TableKind::Bare(_) = table.kind {
        return Ok(vec![Part {
            partition: None,
            volume: partition::volume(disk, 0, size_bytes)?,
            first_byte: 0,
            length_bytes: size_bytes,
        }]);
    }
    let partitions = table.partitions.iter().filter(|one| !one.is_extended);
    partitions
        .map(|one| {
            Ok(Part {
                partition: Some(one.clone()),
                volume: partition::volume(disk, one.first_byte, one.length_bytes)?,
                first_byte: one.first_byte,
                length_bytes: one.length_bytes,
            })
        })
        .collect()
}

impl Part {
    /// Says where its file system is larger than the part, without the disk's name: the disk was cut
    /// off, or the partition made smaller.
    #[must_use]
    pub fn shortage(&self) -> Option<String> {
        let volume = self.volume.as_ref()?;
        let size_bytes = volume.size_bytes.filter(|size| *size > self.length_bytes)?;
        Some(format!(
            "{self} ends within its file system: this {} has {}, and there are {}",
            volume.name,
            ByteCount(size_bytes),
            ByteCount(self.length_bytes)
        ))
    }

    /// What is in it, where that is known.
    #[must_use]
    pub fn file_system(&self) -> Option<FileSystem> {
        self.volume.as_ref().map(|volume| volume.file_system)
    }

    /// Its file system's name, or that it is not known.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        self.volume.as_ref().map_or("unknown", |volume| volume.name)
    }

    /// What is in it: a phrase for sentences.
    pub(super) fn nature(&self) -> &'static str {
        match self.file_system() {
            Some(FileSystem::Lvm) => "a physical volume of LVM",
            Some(FileSystem::Luks) => "encrypted (LUKS)",
            Some(FileSystem::Swap) => "a swap area",
            Some(_) => self.kind_name(),
            None => "nothing that is known",
        }
    }

    /// Its file system's label; empty where it has none.
    #[must_use]
    pub fn label(&self) -> &str {
        self.volume.as_ref().map_or("", |volume| &volume.label)
    }

    /// Its number, where the disk has a table.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.partition.as_ref().map(|partition| partition.number)
    }

    /// What it says that it is for, where the disk has a table.
    #[must_use]
    pub fn kind(&self) -> Option<PartitionType> {
        self.partition.as_ref().map(|partition| partition.kind)
    }
}

impl fmt::Display for Part {
    /// `partition 2`, or `the whole disk`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            Some(number) => write!(f, "partition {number}"),
            None => f.write_str("the whole disk"),
        }
    }
}
