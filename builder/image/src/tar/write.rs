//! A tree as a tar stream.
//!
//! The form is POSIX's pax: a `ustar` header for everything, with an extended header in front of it
//! where that has no room (long or odd values, fractions of a second, attributes, holes). Paths
//! begin with `./`, folders come before what is in them, names in byte order. The same tree gives
//! the same bytes.
//!
//! Of a file with holes the archive has whole blocks of 512 bytes: GNU tar begins each run with a
//! block, libarchive and Python do not, and so all agree.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;

use crate::tree::{
    Content, Inode, InodeId, Kind, Metadata, Segment, Timestamp, Tree, display, read_exact_at,
};

use super::acl;
use super::format::{BLOCK, BLOCK_BYTES};

/// Content is copied in pieces of this size.
const COPY_BYTES: usize = 256 << 10;
/// The highest value of a field of 7 octal digits: owners and devices.
const OCTAL_7_MAX: u64 = 0o777_7777;
/// The highest value of a field of 11 octal digits: sizes and times.
const OCTAL_11_MAX: u64 = 0o777_7777_7777;
/// Room for a name or link target.
const NAME_BYTES: usize = 100;
/// Where the name is.
const NAME_OFFSET: usize = 0;
/// Where the link target is.
const TARGET_OFFSET: usize = 157;

/// Why a tree could not be written as a tar archive.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Something that tar has no form for.
    #[error("'{path}' cannot be written to a tar archive: {reason}")]
    Unsupported {
        /// The path.
        path: String,
        /// What tar lacks.
        reason: &'static str,
    },
    /// Content could not be read from its blob.
    #[error("cannot read the content of '{path}': {source}")]
    Content {
        /// The path.
        path: String,
        /// What the blob says.
        source: io::Error,
    },
    /// The archive could not be written.
    #[error("cannot write the tar archive: {0}")]
    Output(#[from] io::Error),
}

/// Writes every named inode of a tree, and the end of the archive.
///
/// # Errors
/// A socket, content that cannot be read, or the output cannot be written.
pub fn write(tree: &Tree, output: impl Write) -> Result<(), WriteError> {
    write_subtree(tree, InodeId::ROOT, b"", output)
}

/// Writes a folder and what is in it, as [`write()`] a whole tree; or one inode that is no folder,
/// under this name.
///
/// # Errors
/// As [`write()`].
pub fn write_subtree(
    tree: &Tree,
    top: InodeId,
    name: &[u8],
    output: impl Write,
) -> Result<(), WriteError> {
    let mut writer = Writer {
        tree,
        output,
        first_paths: BTreeMap::new(),
        buffer: vec![0; COPY_BYTES],
    };
    if tree.entries(top).is_some() {
        for (path, id) in tree.paths_below(top) {
            writer.entry(&path, id)?;
        }
    } else {
        writer.entry(&[b"/", name].concat(), top)?;
    }
    writer.output.write_all(&[0; 2 * BLOCK_BYTES])?;
    Ok(())
}

struct Writer<'t, W> {
    tree: &'t Tree,
    output: W,
    /// The first path of each inode that is no folder.
    first_paths: BTreeMap<InodeId, Vec<u8>>,
    buffer: Vec<u8>,
}

/// What a header says beside the metadata.
struct Head<'a> {
    kind: ::tar::EntryType,
    path: &'a [u8],
    target: &'a [u8],
    size: u64,
    device: Option<(u32, u32)>,
}

impl<'a> Head<'a> {
    fn new(kind: ::tar::EntryType, path: &'a [u8]) -> Self {
        Self {
            kind,
            path,
            target: b"",
            size: 0,
            device: None,
        }
    }
}

impl<W: Write> Writer<'_, W> {
    fn entry(&mut self, path: &[u8], id: InodeId) -> Result<(), WriteError> {
        use ::tar::EntryType;
        let inode = self.tree.inode(id);
        let mut name = b".".to_vec();
        name.extend_from_slice(path);
        if let Some(first) = self.first_paths.get(&id) {
            let first = first.clone();
            let head = Head {
                target: &first,
                ..Head::new(EntryType::Link, &name)
            };
            return self.head(&head, inode, BTreeMap::new());
        }
        let device = |kind, major, minor| Head {
            device: Some((major, minor)),
            ..Head::new(kind, &name)
        };
        let head = match &inode.kind {
            Kind::Directory(_) => {
                if !name.ends_with(b"/") {
                    name.push(b'/');
                }
                return self.head(
                    &Head::new(EntryType::Directory, &name),
                    inode,
                    BTreeMap::new(),
                );
            }
            Kind::File(content) => self.file(&name, inode, content),
            Kind::Symlink(target) => {
                let head = Head {
                    target,
                    ..Head::new(EntryType::Symlink, &name)
                };
                self.head(&head, inode, BTreeMap::new())
            }
            Kind::CharDevice { major, minor } => self.head(
                &device(EntryType::Char, *major, *minor),
                inode,
                BTreeMap::new(),
            ),
            Kind::BlockDevice { major, minor } => self.head(
                &device(EntryType::Block, *major, *minor),
                inode,
                BTreeMap::new(),
            ),
            Kind::Fifo => self.head(&Head::new(EntryType::Fifo, &name), inode, BTreeMap::new()),
            Kind::Socket => Err(WriteError::Unsupported {
                path: display(path),
                reason: "tar has no sockets",
            }),
        };
        self.first_paths.insert(id, name);
        head
    }

    fn file(&mut self, name: &[u8], inode: &Inode, content: &Content) -> Result<(), WriteError> {
        let runs = runs(content);
        let stored: u64 = runs
            .iter()
            .map(|run| run.end.saturating_sub(run.start))
            .sum();
        let mut head = Head::new(::tar::EntryType::Regular, name);
        head.size = content.size;
        let mut records = Records::new();
        let mut map = Vec::new();
        let sparse_name;
        if stored < content.size {
            map = sparse_map(&runs, content.size);
            // GNU tar puts this component before the name, so that readers which do not know the
            // form do not take the map for the file.
            let (folder, base) = name.split_at(name.iter().rposition(|b| *b == b'/').unwrap_or(0));
            sparse_name = [folder, b"/GNUSparseFile.0", base].concat();
            head.path = &sparse_name;
            head.size = stored.saturating_add(u64::try_from(map.len()).unwrap_or(u64::MAX));
            records.insert(b"GNU.sparse.major".to_vec(), b"1".to_vec());
            records.insert(b"GNU.sparse.minor".to_vec(), b"0".to_vec());
            records.insert(b"GNU.sparse.name".to_vec(), name.to_vec());
            records.insert(
                b"GNU.sparse.realsize".to_vec(),
                content.size.to_string().into(),
            );
        }
        self.head(&head, inode, records)?;
        self.output.write_all(&map)?;
        let mut segments = content.segments.iter().peekable();
        for run in runs {
            let mut position = run.start;
            while let Some(segment) = segments.next_if(|segment| segment.offset < run.end) {
                self.zeroes(segment.offset.saturating_sub(position))?;
                self.segment(name, segment)?;
                position = segment.offset.saturating_add(segment.length);
            }
            self.zeroes(run.end.saturating_sub(position))?;
        }
        self.pad(head.size)?;
        Ok(())
    }

    fn segment(&mut self, name: &[u8], segment: &Segment) -> Result<(), WriteError> {
        let blob = self.tree.blob(segment.blob);
        let mut done = 0_u64;
        while done < segment.length {
            let left = segment.length.saturating_sub(done);
            let most = usize::try_from(left).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
            let piece = &mut self.buffer[..most];
            let offset = segment.blob_offset.saturating_add(done);
            read_exact_at(&**blob, piece, offset).map_err(|source| WriteError::Content {
                path: display(name),
                source,
            })?;
            self.output.write_all(piece)?;
            done = done.saturating_add(u64::try_from(most).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// A few zeroes, where a run begins or ends within a block.
    fn zeroes(&mut self, count: u64) -> io::Result<()> {
        let zeroes = [0; BLOCK_BYTES];
        let mut left = count;
        while left > 0 {
            let piece = usize::try_from(left.min(BLOCK)).unwrap_or(BLOCK_BYTES);
            self.output.write_all(&zeroes[..piece])?;
            left = left.saturating_sub(BLOCK);
        }
        Ok(())
    }

    /// Fills the last block of what had `size` bytes.
    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.zeroes(size.next_multiple_of(BLOCK).saturating_sub(size))
    }

    fn head(
        &mut self,
        head: &Head<'_>,
        inode: &Inode,
        mut records: Records,
    ) -> Result<(), WriteError> {
        let metadata = &inode.metadata;
        let mut header = ::tar::Header::new_ustar();
        header.set_entry_type(head.kind);
        put_text(&mut header, NAME_OFFSET, head.path, b"path", &mut records);
        put_text(
            &mut header,
            TARGET_OFFSET,
            head.target,
            b"linkpath",
            &mut records,
        );
        header.set_mode(u32::from(metadata.mode));
        let mut number = |key: &[u8], value: u64, most: u64| {
            if value <= most {
                return value;
            }
            records.insert(key.to_vec(), value.to_string().into());
            0
        };
        header.set_uid(number(b"uid", u64::from(metadata.uid), OCTAL_7_MAX));
        header.set_gid(number(b"gid", u64::from(metadata.gid), OCTAL_7_MAX));
        header.set_size(number(b"size", head.size, OCTAL_11_MAX));
        if let Some((major, minor)) = head.device {
            let mut put = |key: &[u8], value: u32| {
                let value = number(key, u64::from(value), OCTAL_7_MAX);
                u32::try_from(value).unwrap_or(0)
            };
            let major = put(b"SCHILY.devmajor", major);
            let minor = put(b"SCHILY.devminor", minor);
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        header.set_mtime(put_times(metadata, &mut records));
        // Attributes belong to the inode, which the first of its names has given already.
        if head.kind != ::tar::EntryType::Link {
            put_xattrs(metadata, &mut records);
        }
        header.set_cksum();
        // Readers that want text are told where there is none.
        let names = [&b"path"[..], b"linkpath", b"GNU.sparse.name"];
        let mut names = names.iter().filter_map(|key| records.get(*key));
        if names.any(|name| std::str::from_utf8(name).is_err()) {
            records.insert(b"hdrcharset".to_vec(), b"BINARY".to_vec());
        }
        if !records.is_empty() {
            self.extended_header(&records)?;
        }
        self.output.write_all(header.as_bytes())?;
        Ok(())
    }

    fn extended_header(&mut self, records: &Records) -> io::Result<()> {
        let body: Vec<u8> = records
            .iter()
            .flat_map(|(key, value)| record(key, value))
            .collect();
        let size = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let mut header = ::tar::Header::new_ustar();
        header.set_entry_type(::tar::EntryType::XHeader);
        header.as_mut_bytes()[..10].copy_from_slice(b"PaxHeaders");
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.output.write_all(header.as_bytes())?;
        self.output.write_all(&body)?;
        self.pad(size)
    }
}

/// Keywords and values of an extended header.
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A record counts its own length.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    // Space, equals sign, newline.
    let rest = key.len().saturating_add(value.len()).saturating_add(3);
    let mut length = rest;
    loop {
        let total = rest.saturating_add(length.to_string().len());
        if total == length {
            break;
        }
        length = total;
    }
    let mut bytes = length.to_string().into_bytes();
    bytes.push(b' ');
    bytes.extend_from_slice(key);
    bytes.push(b'=');
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
    bytes
}

/// Puts a name into the header, and whole into a record where it has no room.
fn put_text(
    header: &mut ::tar::Header,
    offset: usize,
    text: &[u8],
    key: &[u8],
    records: &mut Records,
) {
    let length = text.len().min(NAME_BYTES);
    header.as_mut_bytes()[offset..offset + length].copy_from_slice(&text[..length]);
    if text.len() > NAME_BYTES {
        records.insert(key.to_vec(), text.to_vec());
    }
}

/// Gives the header's modification time; a record has what that cannot hold, and each other time
/// that differs from it.
fn put_times(metadata: &Metadata, records: &mut Records) -> u64 {
    let times = &metadata.times;
    let whole = u64::try_from(times.modified.seconds)
        .ok()
        .filter(|seconds| *seconds <= OCTAL_11_MAX);
    if whole.is_none() || times.modified.nanoseconds != 0 {
        records.insert(b"mtime".to_vec(), decimal(times.modified));
    }
    for (key, time) in [
        (&b"atime"[..], times.accessed),
        (b"ctime", times.changed),
        (b"LIBARCHIVE.creationtime", times.created),
    ] {
        if time != times.modified {
            records.insert(key.to_vec(), decimal(time));
        }
    }
    whole.unwrap_or(0)
}

/// Seconds as a decimal fraction.
fn decimal(time: Timestamp) -> Vec<u8> {
    const NANOSECONDS: u32 = 1_000_000_000;
    let nanoseconds = time.nanoseconds.min(NANOSECONDS - 1);
    if nanoseconds == 0 {
        return time.seconds.to_string().into();
    }
    let (sign, seconds, fraction) = match time.seconds.checked_add(1) {
        Some(above) if time.seconds < 0 => ("-", above.unsigned_abs(), NANOSECONDS - nanoseconds),
        _ => ("", time.seconds.unsigned_abs(), nanoseconds),
    };
    let text = format!("{sign}{seconds}.{fraction:09}");
    text.trim_end_matches('0').into()
}

fn put_xattrs(metadata: &Metadata, records: &mut Records) {
    for (name, value) in &metadata.xattrs {
        if let Some((key, text)) = acl_text(name, value) {
            records.insert(key.to_vec(), text);
            continue;
        }
        let mut key = b"SCHILY.xattr.".to_vec();
        key.extend_from_slice(&escape_gnu(name));
        records.insert(key, value.to_vec());
    }
}

/// As GNU tar escapes attribute names, but for `%` only where it would be read as an escape:
/// libarchive reads none.
fn escape_gnu(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for (index, byte) in name.iter().enumerate() {
        let rest = &name[index..];
        match byte {
            b'=' => out.extend_from_slice(b"%3D"),
            b'%' if rest.starts_with(b"%3D") || rest.starts_with(b"%25") => {
                out.extend_from_slice(b"%25");
            }
            other => out.push(*other),
        }
    }
    out
}

/// Keyword and text of an access control list; `None` for what is none or does not come back from
/// its text as it was.
fn acl_text(name: &[u8], value: &[u8]) -> Option<(&'static [u8], Vec<u8>)> {
    let (key, is_default): (&[u8], _) = match name {
        b"system.posix_acl_access" => (b"SCHILY.acl.access", false),
        b"system.posix_acl_default" => (b"SCHILY.acl.default", true),
        _ => return None,
    };
    let text = acl::to_text(value)?;
    let again = acl::from_text(&text, is_default).ok()??;
    (*again == *value).then_some((key, text))
}

/// What is stored, in whole blocks but for the end of the file, neighbours joined.
fn runs(content: &Content) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for segment in &content.segments {
        let start = segment.offset / BLOCK * BLOCK;
        let end = segment.offset.saturating_add(segment.length);
        let end = end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
        let end = end.min(content.size);
        match runs.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

/// The map of form 1.0, padded; an empty run at the end says where a last hole ends.
fn sparse_map(runs: &[Range<u64>], size: u64) -> Vec<u8> {
    let end = runs.last().map_or(0, |run| run.end);
    let last = (end < size).then_some(size..size);
    let count = runs.len().saturating_add(usize::from(last.is_some()));
    let mut map = format!("{count}\n").into_bytes();
    for run in runs.iter().chain(&last) {
        let length = run.end.saturating_sub(run.start);
        map.extend_from_slice(format!("{}\n{length}\n", run.start).as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK_BYTES), 0);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        assert_eq!(record(b"uid", b"70"), b"9 uid=70\n");
        assert_eq!(record(b"path", &[b'x'; 91]).len(), 101);
        assert!(record(b"path", &[b'x'; 91]).starts_with(b"101 path="));
        assert!(record(b"path", &[b'x'; 90]).starts_with(b"99 path="));
    }

    #[test]
    fn attribute_names_are_escaped_where_they_must_be() {
        for (name, expected) in [
            (&b"user.a=b"[..], &b"user.a%3Db"[..]),
            (b"user.100%", b"user.100%"),
            (b"user.%3D%25%3d%", b"user.%253D%2525%3d%"),
        ] {
            assert_eq!(escape_gnu(name), expected);
        }
    }

    #[test]
    fn times_are_decimal_fractions() {
        let text = |seconds, nanoseconds| {
            display(&decimal(Timestamp {
                seconds,
                nanoseconds,
            }))
        };
        assert_eq!(text(5, 0), "5");
        assert_eq!(text(5, 250_000_000), "5.25");
        assert_eq!(text(-2, 250_000_000), "-1.75");
        assert_eq!(text(-1, 999_999_999), "-0.000000001");
        assert_eq!(text(-3, 0), "-3");
    }
}
