//! Images as the host's kernel reads them, and what it makes of them when it writes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use coop_image::ext4::Summary;
use coop_image::tree::Timestamp;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Statx, StatxFlags, StatxTimestamp,
};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::facts::{Bytes, Facts, Snapshot, Type, escape, join};
use super::image::Place;

/// Longest list of attribute names, and longest value, that the kernel gives.
const XATTR_BYTES: usize = 64 << 10;
/// Content is read in pieces of this size.
const READ_BYTES: usize = 256 << 10;

/// A mounted image without a place in the tree of files: it goes when its descriptor is closed.
pub struct Mount {
    root: OwnedFd,
    device: String,
}

impl Mount {
    pub fn new(device: &Path, writable: bool) -> Result<Self, String> {
        let failed = |what: &str, error: Errno, context: &OwnedFd| {
            let mut log = [0; 4096];
            let length = rustix::io::read(context, &mut log).unwrap_or(0);
            let log = String::from_utf8_lossy(&log[..length]).into_owned();
            format!("the kernel does not mount it: {what}: {error} {log}")
        };
        let context = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        let set = |key: &str, value: &Path| {
            rustix::mount::fsconfig_set_string(&context, key, value)
                .map_err(|error| failed(key, error, &context))
        };
        set("source", device)?;
        set("errors", Path::new("continue"))?;
        if !writable {
            rustix::mount::fsconfig_set_flag(&context, "ro").unwrap();
        }
        rustix::mount::fsconfig_create(&context)
            .map_err(|error| failed("mount", error, &context))?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NOATIME;
        if !writable {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        let root = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|error| failed("mount", error, &context))?;
        let device = device.file_name().unwrap().to_string_lossy().into_owned();
        Ok(Self { root, device })
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.root.as_fd()
    }

    /// Whether the kernel has met errors in the file system.
    pub fn complaints(&self) -> Result<(), String> {
        for counter in ["errors_count", "warning_count"] {
            let path = format!("/sys/fs/ext4/{}/{counter}", self.device);
            let count = fs_err::read_to_string(path).unwrap_or_default();
            if !matches!(count.trim(), "" | "0") {
                return Err(format!("the kernel's {counter} is {}", count.trim()));
            }
        }
        Ok(())
    }

    /// Compares the counts of `statfs` with what the writer says.
    pub fn check_counts(&self, summary: &Summary) -> Result<(), String> {
        let found = rustix::fs::fstatfs(&self.root).map_err(|error| error.to_string())?;
        let expected = (
            u64::from(summary.block_size_bytes),
            summary.blocks_free,
            u64::from(summary.inodes),
            u64::from(summary.inodes_free),
        );
        let found = (
            u64::try_from(found.f_bsize).unwrap(),
            found.f_bfree,
            found.f_files,
            found.f_ffree,
        );
        if found == expected {
            return Ok(());
        }
        Err(format!(
            "block size, free blocks, inodes, free inodes: kernel {found:?}, writer {expected:?}"
        ))
    }
}

/// A folder that is still to be read.
struct Pending {
    parent: Option<Rc<OwnedFd>>,
    name: Vec<u8>,
    path: Vec<u8>,
}

/// Reads everything below a folder.
pub fn read(root: BorrowedFd<'_>) -> Result<Snapshot, String> {
    let mut walk = Walk {
        root,
        snapshot: Snapshot::new(),
        inodes: BTreeMap::new(),
        contents: BTreeMap::new(),
        buffer: vec![0; READ_BYTES],
    };
    let mut pending = vec![Pending {
        parent: None,
        name: b".".to_vec(),
        path: b"/".to_vec(),
    }];
    walk.inode(root, b".", b"/")?;
    while let Some(folder) = pending.pop() {
        walk.folder(folder, &mut pending)?;
    }
    walk.set_first_paths();
    Ok(walk.snapshot)
}

struct Walk<'f> {
    root: BorrowedFd<'f>,
    snapshot: Snapshot,
    /// Paths by number of inode.
    inodes: BTreeMap<u64, Vec<Vec<u8>>>,
    contents: BTreeMap<u64, [u8; 32]>,
    buffer: Vec<u8>,
}

fn wrong(path: &[u8], what: &str, error: Errno) -> String {
    format!("kernel: {}: {what}: {error}", escape(path))
}

impl Walk<'_> {
    fn folder(&mut self, folder: Pending, pending: &mut Vec<Pending>) -> Result<(), String> {
        let path = &folder.path;
        let name = OsStr::from_bytes(&folder.name);
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match &folder.parent {
            Some(parent) => rustix::fs::openat(parent, name, flags, Mode::empty()),
            None => rustix::fs::openat(self.root, name, flags, Mode::empty()),
        };
        let opened = Rc::new(opened.map_err(|error| wrong(path, "open", error))?);
        let names = Dir::read_from(&*opened).map_err(|error| wrong(path, "list", error))?;
        for entry in names {
            let entry = entry.map_err(|error| wrong(path, "list", error))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let child = join(path, name);
            let kind = self.inode_in(&opened, name, &child)?;
            if kind == Type::Directory {
                pending.push(Pending {
                    parent: Some(Rc::clone(&opened)),
                    name: name.to_vec(),
                    path: child,
                });
            }
            check_listed_type(entry.file_type(), kind, path)?;
        }
        Ok(())
    }

    fn inode_in(&mut self, folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Type, String> {
        use std::os::fd::AsFd;
        self.inode(folder.as_fd(), name, path)
    }

    fn inode(&mut self, folder: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Type, String> {
        let os_name = OsStr::from_bytes(name);
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let found = rustix::fs::statx(folder, os_name, AtFlags::SYMLINK_NOFOLLOW, wanted)
            .map_err(|error| wrong(path, "statx", error))?;
        let kind = type_of(FileType::from_raw_mode(u32::from(found.stx_mode)))
            .ok_or_else(|| wrong(path, "type", Errno::INVAL))?;
        let mut facts = Facts::new(kind);
        facts.mode = Some(u32::from(found.stx_mode) & 0o7777);
        facts.owner = Some((found.stx_uid, found.stx_gid));
        facts.modified = Some(stamp(&found.stx_mtime));
        facts.accessed = Some(stamp(&found.stx_atime));
        facts.changed = Some(stamp(&found.stx_ctime));
        facts.created = Some(stamp(&found.stx_btime));
        facts.links = Some(u64::from(found.stx_nlink));
        match kind {
            Type::CharDevice | Type::BlockDevice => {
                facts.device = Some((found.stx_rdev_major, found.stx_rdev_minor));
            }
            Type::File => {
                facts.size = Some(found.stx_size);
                let known = self.contents.get(&found.stx_ino).copied();
                let sum = match known {
                    Some(sum) => sum,
                    None => self.content(folder, os_name, path, &found)?,
                };
                self.contents.insert(found.stx_ino, sum);
                facts.content = Some(sum);
            }
            Type::Symlink => {
                facts.size = Some(found.stx_size);
                let target = rustix::fs::readlinkat(folder, os_name, Vec::with_capacity(4096))
                    .map_err(|error| wrong(path, "readlink", error))?;
                facts.target = Some(target.into_bytes());
            }
            Type::Directory | Type::Fifo | Type::Socket => {}
        }
        facts.xattrs = Some(self.xattrs(folder, name, path)?);
        self.snapshot.insert(path.to_vec(), facts);
        let paths = self.inodes.entry(found.stx_ino).or_default();
        paths.push(path.to_vec());
        Ok(kind)
    }

    fn content(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        found: &Statx,
    ) -> Result<[u8; 32], String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name, flags, Mode::empty())
            .map_err(|error| wrong(path, "open", error))?;
        let mut bytes = Bytes::default();
        let mut at = 0;
        while at < found.stx_size {
            match rustix::fs::seek(&file, SeekFrom::Data(at)) {
                Ok(data) => at = data,
                Err(Errno::NXIO) => break,
                Err(error) => return Err(wrong(path, "seek to data", error)),
            }
            let hole = rustix::fs::seek(&file, SeekFrom::Hole(at))
                .map_err(|error| wrong(path, "seek to hole", error))?;
            while at < hole {
                let most = usize::try_from(hole - at).map_or(READ_BYTES, |l| l.min(READ_BYTES));
                let count = rustix::io::pread(&file, &mut self.buffer[..most], at)
                    .map_err(|error| wrong(path, "read", error))?;
                if count == 0 {
                    return Err(wrong(path, "read: early end", Errno::NODATA));
                }
                bytes.add(at, &self.buffer[..count]);
                at += count as u64;
            }
        }
        Ok(bytes.finish())
    }

    fn xattrs(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
        let mut place = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
        place.extend_from_slice(name);
        let place = OsStr::from_bytes(&place);
        let names = &mut self.buffer[..XATTR_BYTES];
        let length = match rustix::fs::llistxattr(place, &mut *names) {
            Ok(length) => length,
            // A file system that has none; a link in one that has.
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(wrong(path, "list attributes", error)),
        };
        let names = names[..length].to_vec();
        let mut xattrs = BTreeMap::new();
        for name in names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            let value = &mut self.buffer[..XATTR_BYTES];
            let length = rustix::fs::lgetxattr(place, OsStr::from_bytes(name), &mut *value)
                .map_err(|error| wrong(path, &format!("attribute {}", escape(name)), error))?;
            xattrs.insert(name.to_vec(), value[..length].to_vec());
        }
        Ok(xattrs)
    }

    fn set_first_paths(&mut self) {
        for paths in self.inodes.values() {
            let first = paths.iter().min().unwrap();
            for path in paths {
                self.snapshot.get_mut(path).unwrap().first = Some(first.clone());
            }
        }
    }
}

fn stamp(time: &StatxTimestamp) -> Timestamp {
    Timestamp {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec,
    }
}

fn type_of(kind: FileType) -> Option<Type> {
    Some(match kind {
        FileType::Directory => Type::Directory,
        FileType::RegularFile => Type::File,
        FileType::Symlink => Type::Symlink,
        FileType::CharacterDevice => Type::CharDevice,
        FileType::BlockDevice => Type::BlockDevice,
        FileType::Fifo => Type::Fifo,
        FileType::Socket => Type::Socket,
        FileType::Unknown => return None,
    })
}

/// The folder has a copy of the type.
fn check_listed_type(listed: FileType, kind: Type, path: &[u8]) -> Result<(), String> {
    if type_of(listed) == Some(kind) {
        return Ok(());
    }
    Err(format!(
        "kernel: {}: a name says {listed:?}, its inode {kind:?}",
        escape(path)
    ))
}

/// What was written into an image by the kernel.
pub const WRITTEN: &[u8] = b"/written by the kernel";
/// Its bytes.
pub fn written() -> Vec<u8> {
    (0_u32..9000).flat_map(u32::to_le_bytes).collect()
}

/// Mounts for writing and uses the file system: makes, changes, renames and removes.
pub fn write(place: &Place) -> Result<(), String> {
    let Some(device) = place.device() else {
        return Ok(());
    };
    place.forget();
    let mount = Mount::new(device, true)?;
    use_it(mount.root()).map_err(|(what, error)| format!("kernel, {what}: {error}"))?;
    mount.complaints()?;
    drop(mount);
    place.await_release()
}

fn use_it(root: BorrowedFd<'_>) -> Result<(), (&'static str, Errno)> {
    let at = |what| move |error| (what, error);
    let mode = Mode::from_raw_mode(0o644);
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let name = OsStr::from_bytes(&WRITTEN[1..]);
    let file = rustix::fs::openat(root, name, create, mode).map_err(at("create"))?;
    let mut text = &*written();
    while !text.is_empty() {
        let count = rustix::io::write(&file, text).map_err(at("write"))?;
        text = &text[count..];
    }
    rustix::fs::fsetxattr(&file, "user.by", b"kernel", rustix::fs::XattrFlags::empty())
        .map_err(at("set an attribute"))?;
    drop(file);
    let folder = "folder of the kernel";
    rustix::fs::mkdirat(root, folder, Mode::from_raw_mode(0o755)).map_err(at("mkdir"))?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(root, folder, flags, Mode::empty()).map_err(at("open"))?;
    for number in 0..8 {
        let name = format!("file {number}");
        rustix::fs::openat(&opened, &*name, create, mode).map_err(at("create"))?;
    }
    rustix::fs::renameat(&opened, "file 1", root, "moved by the kernel").map_err(at("rename"))?;
    rustix::fs::unlinkat(root, "moved by the kernel", AtFlags::empty()).map_err(at("unlink"))?;
    rustix::fs::syncfs(&opened).map_err(at("sync"))
}
