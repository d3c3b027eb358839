//! From names to inodes, folder by folder.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, lgetxattr, llistxattr, major, minor, openat,
    readlinkat, statat,
};
use rustix::io::Errno;

use super::content::{Files, Identity, Lazy};
use super::{DEPTH_MAX, FolderError, Found, Options};
use crate::tree::{
    Content, Entries, Inode, InodeId, Kind, Metadata, Name, Segment, Times, Timestamp, Tree,
    display,
};

/// What the kernel allows in one attribute, and in the list of their names.
const XATTR_BYTES_MAX: usize = 64 << 10;
/// Blocks in `st_blocks` have this size, whatever the file system.
const STAT_BLOCK_BYTES: u64 = 512;
/// So many names are read between two looks at [`Options::check`].
const NAMES_BETWEEN_CHECKS: usize = 256;

struct Scan<'a> {
    options: &'a Options,
    files: Arc<Files>,
    tree: Tree,
    mounts: Vec<Vec<u8>>,
    /// The root's file system.
    device: u64,
    /// Files with several names, by file system and inode.
    linked: BTreeMap<(u64, u64), InodeId>,
    /// Folders and their paths.
    folders: BTreeMap<(u64, u64), Arc<[u8]>>,
    buffer: Vec<u8>,
}

/// A folder whose names are being read.
struct Frame {
    folder: OwnedFd,
    id: InodeId,
    path: Arc<[u8]>,
    /// What is still to do, the first name last.
    names: Vec<CString>,
}

pub(super) fn scan(root: Arc<OwnedFd>, options: &Options) -> Result<Found, FolderError> {
    let failed = |action, error: Errno| io_error(b"", action, error);
    let stat = fstat(&*root).map_err(|error| failed("look at it", error))?;
    let mut scan = Scan {
        options,
        files: Arc::new(Files::new(Arc::clone(&root), Arc::clone(&options.check))),
        tree: Tree::new(metadata(&stat)),
        mounts: Vec::new(),
        device: device_of(&stat),
        linked: BTreeMap::new(),
        folders: BTreeMap::new(),
        buffer: vec![0; XATTR_BYTES_MAX],
    };
    let xattrs = scan.xattrs(root.as_fd(), c".", b"")?;
    scan.tree.inode_mut(InodeId::ROOT).metadata.xattrs = xattrs;
    let folder = open_folder(root.as_fd(), c".", b"")?;
    let mut frames = vec![scan.enter(folder, &stat, InodeId::ROOT, Arc::from(&b""[..]))?];
    let mut names = 0_usize;
    while let Some(frame) = frames.last_mut() {
        let Some(name) = frame.names.pop() else {
            frames.pop();
            continue;
        };
        names = names.wrapping_add(1);
        if names.is_multiple_of(NAMES_BETWEEN_CHECKS) {
            (options.check)().map_err(FolderError::Stopped)?;
        }
        if let Some(inner) = scan.add(frame, &name)? {
            if frames.len() >= DEPTH_MAX {
                return Err(FolderError::Depth {
                    path: shown(&inner.path),
                });
            }
            frames.push(inner);
        }
    }
    Ok(Found {
        tree: scan.tree,
        mounts: scan.mounts,
    })
}

impl Scan<'_> {
    /// Lists a folder; the order is that of the names' bytes, whatever the host gives.
    fn enter(
        &mut self,
        folder: OwnedFd,
        stat: &Stat,
        id: InodeId,
        path: Arc<[u8]>,
    ) -> Result<Frame, FolderError> {
        let key = (device_of(stat), inode_of(stat));
        if let Some(other) = self.folders.insert(key, Arc::clone(&path)) {
            return Err(FolderError::Twice {
                path: shown(&path),
                other: shown(&other),
            });
        }
        let failed = |error| io_error(&path, "list it", error);
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Frame {
            folder,
            id,
            path,
            names,
        })
    }

    /// Adds one name; gives the folder that is to be read next where it is one.
    fn add(&mut self, frame: &Frame, name: &CString) -> Result<Option<Frame>, FolderError> {
        let path = join(&frame.path, name.to_bytes());
        let folder = frame.folder.as_fd();
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| io_error(&path, "look at it", error))?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let key = (device_of(&stat), inode_of(&stat));
        let several = !file_type.is_dir() && stat.st_nlink > 1;
        if several && let Some(id) = self.linked.get(&key) {
            self.tree.link(frame.id, name.to_bytes(), *id)?;
            return Ok(None);
        }
        let inner = file_type
            .is_dir()
            .then(|| self.open_inner(folder, name, &stat, &path))
            .transpose()?;
        let kind = self.kind(frame, name, &stat, &path)?;
        let mut inode = Inode {
            metadata: metadata(&stat),
            kind,
        };
        inode.metadata.xattrs = self.xattrs(folder, name, &path)?;
        let id = self.tree.add_inode(inode)?;
        self.tree.link(frame.id, name.to_bytes(), id)?;
        if several {
            self.linked.insert(key, id);
        }
        match inner {
            Some(_) if device_of(&stat) != self.device && !self.options.cross_mounts => {
                self.mounts.push(path);
                Ok(None)
            }
            Some(inner) => self.enter(inner, &stat, id, path.into()).map(Some),
            None => Ok(None),
        }
    }

    fn open_inner(
        &self,
        folder: BorrowedFd<'_>,
        name: &CString,
        stat: &Stat,
        path: &[u8],
    ) -> Result<OwnedFd, FolderError> {
        let inner = open_folder(folder, name, path)?;
        let found = fstat(&inner).map_err(|error| io_error(path, "look at it", error))?;
        if (device_of(&found), inode_of(&found)) == (device_of(stat), inode_of(stat)) {
            return Ok(inner);
        }
        Err(FolderError::Changed { path: shown(path) })
    }

    fn kind(
        &mut self,
        frame: &Frame,
        name: &CString,
        stat: &Stat,
        path: &[u8],
    ) -> Result<Kind, FolderError> {
        let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory(Entries::new()),
            FileType::RegularFile => Kind::File(self.content(frame, name, stat, path)?),
            FileType::Symlink => {
                let target = readlinkat(&frame.folder, name, Vec::new())
                    .map_err(|error| io_error(path, "read the link", error))?;
                Kind::Symlink(target.into_bytes().into())
            }
            FileType::CharacterDevice => Kind::CharDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::Unknown => {
                let error = Errno::OPNOTSUPP;
                return Err(io_error(path, "tell what it is", error));
            }
        })
    }

    fn content(
        &mut self,
        frame: &Frame,
        name: &CString,
        stat: &Stat,
        path: &[u8],
    ) -> Result<Content, FolderError> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size == 0 {
            return Ok(Content::default());
        }
        let identity = Identity::of(stat);
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        let runs = if blocks.saturating_mul(STAT_BLOCK_BYTES) < size {
            runs(frame.folder.as_fd(), name, identity, size, path)?
        } else {
            vec![(0, size)]
        };
        let blob = self.tree.add_blob(Arc::new(Lazy {
            files: Arc::clone(&self.files),
            folder: Arc::clone(&frame.path),
            name: name.to_bytes().into(),
            identity,
        }))?;
        let segments = runs.into_iter().map(|(offset, length)| Segment {
            offset,
            length,
            blob,
            blob_offset: offset,
        });
        Ok(Content {
            size,
            segments: segments.collect(),
        })
    }

    /// The attributes of a name. There is no system call for them that starts at an open folder,
    /// but /proc shows one as a path.
    fn xattrs(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &std::ffi::CStr,
        path: &[u8],
    ) -> Result<BTreeMap<Name, Box<[u8]>>, FolderError> {
        let mut found = BTreeMap::new();
        if !self.options.xattrs {
            return Ok(found);
        }
        let mut place = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
        place.extend_from_slice(name.to_bytes());
        let length = match llistxattr(&place[..], &mut self.buffer[..]) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(io_error(path, "list its attributes", error)),
        };
        let names = self.buffer[..length].to_vec();
        for name in names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            let length = match lgetxattr(&place[..], name, &mut self.buffer[..]) {
                Ok(length) => length,
                Err(error) => return Err(io_error(path, "read its attributes", error)),
            };
            found.insert(name.into(), self.buffer[..length].into());
        }
        Ok(found)
    }
}

/// Where a file has data, by offset and length.
fn runs(
    folder: BorrowedFd<'_>,
    name: &CString,
    identity: Identity,
    size: u64,
    path: &[u8],
) -> Result<Vec<(u64, u64)>, FolderError> {
    use rustix::fs::{SeekFrom, seek};
    let failed = |error| io_error(path, "read it", error);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = openat(folder, name, flags, Mode::empty()).map_err(failed)?;
    let mut found = Vec::new();
    let mut position = 0;
    while position < size {
        let start = match seek(&file, SeekFrom::Data(position)) {
            Ok(start) => start,
            // No data from here to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(failed(error)),
        };
        let end = seek(&file, SeekFrom::Hole(start))
            .map_err(failed)?
            .min(size);
        if end <= start {
            break;
        }
        found.push((start, end - start));
        position = end;
    }
    if Identity::of(&fstat(&file).map_err(failed)?) != identity {
        return Err(FolderError::Changed { path: shown(path) });
    }
    Ok(found)
}

fn open_folder(
    folder: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    path: &[u8],
) -> Result<OwnedFd, FolderError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, name, flags, Mode::empty()).map_err(|error| io_error(path, "open it", error))
}

#[allow(
    clippy::useless_conversion,
    reason = "the types differ between architectures"
)]
fn device_of(stat: &Stat) -> u64 {
    stat.st_dev.into()
}

#[allow(
    clippy::useless_conversion,
    reason = "the types differ between architectures"
)]
fn inode_of(stat: &Stat) -> u64 {
    stat.st_ino.into()
}

#[allow(
    clippy::useless_conversion,
    reason = "the types differ between architectures"
)]
fn metadata(stat: &Stat) -> Metadata {
    let modified = Timestamp {
        seconds: stat.st_mtime.into(),
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    };
    Metadata {
        mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
        uid: stat.st_uid,
        gid: stat.st_gid,
        times: Times::all(modified),
        xattrs: BTreeMap::new(),
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() {
        return name.to_vec();
    }
    [folder, b"/", name].concat()
}

fn shown(path: &[u8]) -> String {
    if path.is_empty() {
        ".".to_owned()
    } else {
        display(path)
    }
}

fn io_error(path: &[u8], action: &'static str, error: Errno) -> FolderError {
    FolderError::Io {
        path: shown(path),
        action,
        source: io::Error::from(error),
    }
}
