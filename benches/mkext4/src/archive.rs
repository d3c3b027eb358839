//! Declares what a tar archive holds, headers by the `tar` crate.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use mkext4::{FsBuilder, InodeHandle, Meta, ROOT, SpecialKind};
use tar::{Archive, EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::{Fill, Result, Run, segments};

/// Declares every entry; gives the files whose content is to be written, in the archive's order.
pub(crate) fn declare(builder: &mut FsBuilder, file: &File) -> Result<Vec<Fill>> {
    let mut archive = Archive::new(Window {
        inner: BufReader::with_capacity(64 << 10, file),
        position: 0,
    });
    let mut names: HashMap<Vec<u8>, InodeHandle> = HashMap::from([(Vec::new(), ROOT)]);
    let mut fills = Vec::new();
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        let path = clean(&entry.path_bytes());
        let header = entry.header().clone();
        let modified = i64::try_from(header.mtime()?)?;
        let meta = Meta::new(
            u16::try_from(header.mode()? & 0o7777)?,
            u32::try_from(header.uid()?)?,
            u32::try_from(header.gid()?)?,
            (modified, 0),
        );
        if path.is_empty() {
            builder.set_meta(ROOT, meta)?;
            continue;
        }
        let cut = path.iter().rposition(|byte| *byte == b'/');
        let (folder, name) = match cut {
            Some(cut) => (&path[..cut], &path[cut + 1..]),
            None => (&path[..0], &path[..]),
        };
        let name = std::str::from_utf8(name)?;
        let parent = *names.get(folder).ok_or("an entry before its folder")?;
        let mut special = |kind| builder.mknod(parent, name, meta, kind);
        let (major, minor) = (header.device_major(), header.device_minor());
        let handle = match header.entry_type() {
            EntryType::Directory => builder.mkdir(parent, name, meta)?,
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or("a link without target")?;
                builder.symlink(parent, name, std::str::from_utf8(&target)?, meta)?
            }
            EntryType::Link => {
                let target = clean(&entry.link_name_bytes().ok_or("a link without target")?);
                let target = *names.get(&target).ok_or("a link before its target")?;
                builder.hardlink(parent, name, target)?;
                target
            }
            EntryType::Char => special(SpecialKind::Char {
                major: major?.unwrap_or(0),
                minor: minor?.unwrap_or(0),
            })?,
            EntryType::Block => special(SpecialKind::Block {
                major: major?.unwrap_or(0),
                minor: minor?.unwrap_or(0),
            })?,
            EntryType::Fifo => special(SpecialKind::Fifo)?,
            EntryType::GNUSparse => {
                let (stored, data) = sparse_map(file, &header, entry.raw_header_position())?;
                let size = header.as_gnu().ok_or("no GNU header")?.real_size()?;
                let parts = segments(&data, size).ok_or("holes that are no whole blocks")?;
                let handle = builder.file_sparse(parent, name, meta, &parts)?;
                let length = data.iter().map(|run| run.1).sum();
                fills.push(Fill {
                    handle,
                    path: None,
                    runs: vec![(stored, length)],
                });
                handle
            }
            _ => {
                let handle = builder.file(parent, name, meta, entry.size())?;
                if entry.size() > 0 {
                    fills.push(Fill {
                        handle,
                        path: None,
                        runs: vec![(entry.raw_file_position(), entry.size())],
                    });
                }
                handle
            }
        };
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                if let Some(attribute) = extension.key()?.strip_prefix("SCHILY.xattr.") {
                    builder.set_xattr(handle, attribute, extension.value_bytes())?;
                }
            }
        }
        names.insert(path, handle);
    }
    Ok(fills)
}

/// `./usr/bin/` is `usr/bin`.
fn clean(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/');
    let parts: Vec<&[u8]> = parts
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    parts.join(&b'/')
}

/// Where an old GNU sparse file's stored bytes begin, and where they belong in the file. The `tar`
/// crate gives holes as zeroes only, so the map is read again from the archive.
fn sparse_map(file: &File, header: &Header, position: u64) -> Result<(u64, Vec<Run>)> {
    let gnu = header.as_gnu().ok_or("no GNU header")?;
    let mut data = Vec::new();
    let mut add = |headers: &[GnuSparseHeader]| -> io::Result<()> {
        for part in headers.iter().filter(|part| !part.is_empty()) {
            let (offset, length) = (part.offset()?, part.length()?);
            if length > 0 {
                data.push((offset, length));
            }
        }
        Ok(())
    };
    add(&gnu.sparse)?;
    let mut extended = gnu.is_extended();
    let mut position = position + 512;
    while extended {
        let mut extension = GnuExtSparseHeader::new();
        file.read_exact_at(extension.as_mut_bytes(), position)?;
        add(extension.sparse())?;
        extended = extension.is_extended();
        position += 512;
    }
    Ok((position, data))
}

/// A buffered reader that keeps its buffer when it seeks a little ahead, and knows where it is.
struct Window<R> {
    inner: BufReader<R>,
    position: u64,
}

impl<R: Read> Read for Window<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.position += u64::try_from(count).unwrap_or(u64::MAX);
        Ok(count)
    }
}

impl<R: Read + Seek> Seek for Window<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        match position {
            SeekFrom::Current(distance) => {
                self.inner.seek_relative(distance)?;
                self.position = self.position.wrapping_add_signed(distance);
            }
            other => self.position = self.inner.seek(other)?,
        }
        Ok(self.position)
    }
}
