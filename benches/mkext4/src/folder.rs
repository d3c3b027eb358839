//! Declares what a folder holds.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use mkext4::{FsBuilder, InodeHandle, Meta, ROOT, SpecialKind};

use crate::{Fill, Result, Run, segments};

/// Declares everything below `root`; gives the files whose content is to be written.
pub(crate) fn declare(builder: &mut FsBuilder, root: &Path) -> Result<Vec<Fill>> {
    let mut walk = Walk {
        builder,
        links: HashMap::new(),
        fills: Vec::new(),
    };
    walk.builder.set_meta(ROOT, meta(&fs::metadata(root)?)?)?;
    walk.folder(ROOT, root)?;
    Ok(walk.fills)
}

struct Walk<'a> {
    builder: &'a mut FsBuilder,
    links: HashMap<(u64, u64), InodeHandle>,
    fills: Vec<Fill>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: InodeHandle, path: &Path) -> Result<()> {
        let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_str().ok_or("a name that is not UTF-8")?;
            let details = entry.metadata()?;
            let kind = details.file_type();
            if kind.is_dir() {
                let child = self.builder.mkdir(folder, name, meta(&details)?)?;
                self.folder(child, &entry.path())?;
            } else if kind.is_file() {
                self.file(folder, name, &entry.path(), &details)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path())?;
                let target = target.to_str().ok_or("a target that is not UTF-8")?;
                self.builder
                    .symlink(folder, name, target, meta(&details)?)?;
            } else {
                let (major, minor) = device(details.rdev())?;
                let special = if kind.is_char_device() {
                    SpecialKind::Char { major, minor }
                } else if kind.is_block_device() {
                    SpecialKind::Block { major, minor }
                } else if kind.is_fifo() {
                    SpecialKind::Fifo
                } else {
                    SpecialKind::Socket
                };
                self.builder.mknod(folder, name, meta(&details)?, special)?;
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        folder: InodeHandle,
        name: &str,
        path: &Path,
        details: &Metadata,
    ) -> Result<()> {
        let key = (details.dev(), details.ino());
        if details.nlink() > 1
            && let Some(&handle) = self.links.get(&key)
        {
            self.builder.hardlink(folder, name, handle)?;
            return Ok(());
        }
        let size = details.len();
        // The crate does not look for holes; a careful user skips them where there are some.
        let sparse = details.blocks() * 512 < size;
        let (handle, runs) = if sparse {
            let data = data_runs(path, size)?;
            let parts = segments(&data, size).ok_or("holes that are no whole blocks")?;
            let handle = self
                .builder
                .file_sparse(folder, name, meta(details)?, &parts)?;
            (handle, data)
        } else {
            let handle = self.builder.file(folder, name, meta(details)?, size)?;
            (handle, vec![(0, size)])
        };
        if details.nlink() > 1 {
            self.links.insert(key, handle);
        }
        if size > 0 {
            self.fills.push(Fill {
                handle,
                path: Some(path.to_path_buf()),
                runs,
            });
        }
        Ok(())
    }
}

fn data_runs(path: &Path, size: u64) -> Result<Vec<Run>> {
    use rustix::fs::{SeekFrom, seek};
    let file = File::open(path)?;
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(&file, SeekFrom::Hole(start))?;
        runs.push((start, end - start));
        at = end;
    }
    Ok(runs)
}

fn meta(details: &Metadata) -> Result<Meta> {
    let nanoseconds = |value: i64| u32::try_from(value);
    let modified = (details.mtime(), nanoseconds(details.mtime_nsec())?);
    let mode = u16::try_from(details.mode() & 0o7777)?;
    let mut meta = Meta::new(mode, details.uid(), details.gid(), modified);
    meta.atime = Some((details.atime(), nanoseconds(details.atime_nsec())?));
    meta.ctime = Some((details.ctime(), nanoseconds(details.ctime_nsec())?));
    Ok(meta)
}

/// Major and minor number as Linux packs them.
fn device(number: u64) -> Result<(u32, u32)> {
    let major = (number >> 8) & 0xfff;
    let minor = (number & 0xff) | ((number >> 12) & 0xfff00);
    Ok((u32::try_from(major)?, u32::try_from(minor)?))
}
