//! Files that a disk names: backing files, data files, extents.
//!
//! A disk from elsewhere may name any file of the host, and what is read from it ends in the copy.
//! So nothing is opened but through a [`Chain`], and the ordinary one, [`NoChain`], opens nothing.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::tree::display;

/// How many files one behind the other may take part in a disk.
pub const CHAIN_MAX: usize = 8;

/// What a named file is for the disk that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// What a qcow2 does not have itself.
    Backing,
    /// The data of a qcow2 that has none itself.
    Data,
    /// A part of a VMDK.
    Extent,
    /// What a VMDK does not have itself.
    Parent,
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Backing => "the backing file",
            Self::Data => "the data file",
            Self::Extent => "the extent",
            Self::Parent => "the parent",
        })
    }
}

/// A file that a disk names.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// What it is for the disk.
    pub role: Role,
    /// Its name as the disk has it: any bytes, but no NUL; relative to the file that names it.
    pub name: &'a str,
    /// The names that led to the file that names it, the first one's first; empty where that is the
    /// disk itself.
    pub through: &'a [String],
}

/// Opens the files that disks name.
pub trait Chain {
    /// Opens a file for reading; it has to be a regular one.
    ///
    /// # Errors
    /// It is not allowed, not there, or nothing that can be read.
    fn open(&mut self, reference: &Reference<'_>) -> Result<File, ChainError>;
}

/// Why a file that a disk names was not opened; the end of a sentence.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// Nobody allowed it.
    #[error("which is not read unless a folder is named that may have it")]
    Refused,
    /// Its name, or a link on the way to it, leads out of the folder that was allowed.
    #[error("which lies outside of the folder '{}'", .0.display())]
    Outside(PathBuf),
    /// Not a regular file.
    #[error("which is not a regular file")]
    NotRegular,
    /// What the operating system says.
    #[error("which cannot be opened: {0}")]
    Io(#[from] io::Error),
}

/// Opens nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoChain;

impl Chain for NoChain {
    fn open(&mut self, _: &Reference<'_>) -> Result<File, ChainError> {
        Err(ChainError::Refused)
    }
}

/// Opens regular files in one folder and below it; no name and no link leads out of it.
#[derive(Debug)]
pub struct Folder {
    handle: File,
    /// Without links, absolute.
    path: PathBuf,
    /// The disk's own folder, absolute.
    base: PathBuf,
    opened: Vec<PathBuf>,
}

impl Folder {
    /// Allows the files of `folder` to the disk at `disk`. Relative names start at the disk's own
    /// folder, or at `folder` where the disk's first step from its own would lead out of it.
    ///
    /// # Errors
    /// The folder or the disk is not there.
    pub fn new(folder: &Path, disk: &Path) -> io::Result<Self> {
        let path = folder
            .canonicalize()
            .map_err(|error| named(folder, error))?;
        let disk = disk.canonicalize().map_err(|error| named(disk, error))?;
        let base = disk.parent().unwrap_or(&path).to_path_buf();
        let handle = File::open(&path).map_err(|error| named(&path, error))?;
        Ok(Self {
            handle,
            path,
            base,
            opened: Vec::new(),
        })
    }

    /// The files that were opened, in that order, absolute.
    #[must_use]
    pub fn opened(&self) -> &[PathBuf] {
        &self.opened
    }

    /// The path from the folder on; `None` where it leads out of it.
    fn resolve(&self, reference: &Reference<'_>) -> Option<PathBuf> {
        let names = reference.through.iter().map(String::as_str);
        let mut names = names.chain([reference.name]);
        let first = names.next()?;
        let beside = self.inside(&self.base, first);
        let mut path = beside.or_else(|| self.inside(&self.path, first))?;
        for name in names {
            path = self.inside(path.parent()?, name)?;
        }
        path.strip_prefix(&self.path).ok().map(Path::to_path_buf)
    }

    /// Where a name leads from a folder, without looking at links, if that is in the one that was
    /// allowed.
    fn inside(&self, folder: &Path, name: &str) -> Option<PathBuf> {
        let mut path = folder.to_path_buf();
        for component in Path::new(name).components() {
            match component {
                Component::Normal(part) => path.push(part),
                Component::CurDir => {}
                Component::ParentDir => {
                    path.pop();
                }
                Component::RootDir | Component::Prefix(_) => path = component.as_os_str().into(),
            }
        }
        path.starts_with(&self.path).then_some(path)
    }
}

impl Chain for Folder {
    fn open(&mut self, reference: &Reference<'_>) -> Result<File, ChainError> {
        let outside = || ChainError::Outside(self.path.clone());
        let path = self.resolve(reference).ok_or_else(outside)?;
        // Opening must not wait for a pipe's other end.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = openat2(&self.handle, &path, flags, Mode::empty(), inside);
        let file = match opened {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::XDEV) => return Err(outside()),
            Err(error) => return Err(named(&self.path.join(path), error.into()).into()),
        };
        if !file.metadata()?.is_file() {
            return Err(ChainError::NotRegular);
        }
        self.opened.push(self.path.join(path));
        Ok(file)
    }
}

/// Which file it was, as the operating system does not say; its name may be the disk's.
fn named(path: &Path, error: io::Error) -> io::Error {
    let path = display(path.as_os_str().as_encoded_bytes());
    io::Error::new(error.kind(), format!("'{path}': {error}"))
}
