//! From a header and what precedes it to an [`Entry`].

use crate::tree::{Metadata, Name, SYMLINK_LENGTH_MAX, Times, Timestamp, display};

use super::entries::{Entries, Pending, corrupt, unsupported};
use super::entry::{Entry, EntryKind, Layout, SparseRun};
use super::format::{BLOCK_BYTES, Dialect, Header};
use super::pax::Attributes;
use super::sparse::{self, MapParser, MapPlace};
use super::{At, TarError};

impl Entries<'_> {
    pub(super) fn entry(
        &mut self,
        header: &Header,
        header_offset: u64,
        mut attributes: Attributes,
        pending: Pending,
    ) -> Result<Entry, TarError> {
        let sparse_name = attributes.sparse.name.take();
        let mut path = sparse_name
            .or_else(|| attributes.path.take())
            .or(pending.long_path)
            .unwrap_or_else(|| header.path());
        let target = attributes
            .link_target
            .take()
            .or(pending.long_target)
            .unwrap_or_else(|| header.link_target().to_vec());
        let is_folder_name = path.ends_with(b"/");
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        let at = At {
            entry: path,
            offset: header_offset,
        };
        self.check_names(&at, &target)?;
        let kind = self.kind(header, &attributes, target, is_folder_name, &at)?;
        if attributes.sparse.is_set() && !matches!(kind, EntryKind::File(_)) {
            return Err(corrupt(at, "a map of holes for what is no file"));
        }
        let link_content = match kind {
            EntryKind::HardLink(_) => self.link_content(header, &attributes, &at)?,
            _ => None,
        };
        let metadata = self.metadata(header, &mut attributes, &at)?;
        let name = |given: Option<Vec<u8>>, field: &[u8]| match given {
            Some(name) => name.into(),
            None => field.into(),
        };
        let mut ignored = pending.ignored;
        ignored.append(&mut attributes.ignored);
        Ok(Entry {
            path: at.entry.into(),
            kind,
            metadata,
            user_name: name(attributes.user_name, header.user_name()),
            group_name: name(attributes.group_name, header.group_name()),
            link_content,
            header_offset,
            ignored,
        })
    }

    fn check_names(&self, at: &At, target: &[u8]) -> Result<(), TarError> {
        let limit = self.limits.path_bytes;
        if at.entry.len() > limit || target.len() > limit {
            return Err(TarError::Limit {
                at: At {
                    entry: Vec::new(),
                    offset: at.offset,
                },
                reason: format!("a path has more than {limit} bytes"),
            });
        }
        if at.entry.is_empty() {
            return Err(corrupt(at.clone(), "the entry has no name"));
        }
        if at.entry.contains(&0) || target.contains(&0) {
            return Err(corrupt(at.clone(), "the name has a NUL byte in it"));
        }
        Ok(())
    }

    fn kind(
        &mut self,
        header: &Header,
        attributes: &Attributes,
        target: Vec<u8>,
        is_folder_name: bool,
        at: &At,
    ) -> Result<EntryKind, TarError> {
        let flag = header.typeflag();
        match flag {
            // Before POSIX, folders were files whose names end with a slash.
            b'0' | 0 | b'7' if is_folder_name => Ok(EntryKind::Directory),
            b'0' | 0 | b'7' => self.file(header, attributes, at),
            b'S' => self.old_sparse_file(header, attributes, at),
            b'1' => Ok(EntryKind::HardLink(link(target, at)?)),
            b'2' if target.len() > SYMLINK_LENGTH_MAX => Err(TarError::Limit {
                at: at.clone(),
                reason: format!("the link target has more than {SYMLINK_LENGTH_MAX} bytes"),
            }),
            b'2' => Ok(EntryKind::Symlink(link(target, at)?)),
            b'3' | b'4' => {
                let number = |given: Option<u32>, field: Option<i64>| {
                    given
                        .or_else(|| u32::try_from(field?).ok())
                        .ok_or_else(|| corrupt(at.clone(), "the device number is impossible"))
                };
                let major = number(attributes.device_major, header.device_major())?;
                let minor = number(attributes.device_minor, header.device_minor())?;
                Ok(if flag == b'3' {
                    EntryKind::CharDevice { major, minor }
                } else {
                    EntryKind::BlockDevice { major, minor }
                })
            }
            b'5' => Ok(EntryKind::Directory),
            b'6' => Ok(EntryKind::Fifo),
            b'D' => {
                // GNU tar's incremental archives list the folder's names as its content.
                self.begin_content(stored_size(header, attributes, at)?, at)?;
                Ok(EntryKind::Directory)
            }
            other => Err(unsupported(at, &unread_type(other))),
        }
    }

    fn file(
        &mut self,
        header: &Header,
        attributes: &Attributes,
        at: &At,
    ) -> Result<EntryKind, TarError> {
        if attributes.star_real_size {
            return Err(unsupported(at, "star's form of a sparse file"));
        }
        let stored = stored_size(header, attributes, at)?;
        self.begin_content(stored, at)?;
        let place = attributes.sparse.map();
        let Some(place) = place.map_err(|reason| unsupported(at, &reason))? else {
            return Ok(EntryKind::File(self.plain_layout(stored)));
        };
        let missing = || corrupt(at.clone(), "the sparse map is incomplete");
        let runs = match place {
            MapPlace::Records(numbers) => sparse::runs_from_numbers(numbers).ok_or_else(missing)?,
            MapPlace::Content => self.read_map(at)?,
        };
        let size = attributes.sparse.real_size.ok_or_else(missing)?;
        self.sparse_layout(runs, size, at)
    }

    fn plain_layout(&self, stored: u64) -> Layout {
        Layout {
            size: stored,
            stored,
            offset: self.input.offset(),
            runs: None,
        }
    }

    /// POSIX lets a hard link carry its file's content in pax archives, while archives of before
    /// have sizes there with no content behind them. As libarchive decides: a size in an extended
    /// header counts, one in GNU's or the oldest dialect does not, and else the next block tells.
    fn link_content(
        &mut self,
        header: &Header,
        attributes: &Attributes,
        at: &At,
    ) -> Result<Option<Layout>, TarError> {
        let stored = stored_size(header, attributes, at)?;
        let is_old = matches!(header.dialect(), Dialect::Gnu | Dialect::V7);
        if stored == 0 || (is_old && attributes.size.is_none()) {
            return Ok(None);
        }
        if attributes.size.is_none() {
            let mut block = [0; BLOCK_BYTES];
            let peeked = self.input.peek(&mut block);
            let count = peeked.map_err(|source| TarError::Read {
                at: at.clone(),
                source,
            })?;
            let next = Header(block);
            if count < BLOCK_BYTES || next.is_zero() || next.checksum_matches() {
                return Ok(None);
            }
        }
        self.begin_content(stored, at)?;
        Ok(Some(self.plain_layout(stored)))
    }

    /// A map in front of the content, padded to whole blocks.
    fn read_map(&mut self, at: &At) -> Result<Vec<SparseRun>, TarError> {
        let mut parser = MapParser::default();
        loop {
            let block = self.content_block()?;
            let complete = parser.push(&block, self.limits.sparse_runs);
            if complete.map_err(|reason| corrupt(at.clone(), &reason))? {
                let runs = parser.runs();
                return runs.ok_or_else(|| corrupt(at.clone(), "the sparse map is incomplete"));
            }
        }
    }

    fn old_sparse_file(
        &mut self,
        header: &Header,
        attributes: &Attributes,
        at: &At,
    ) -> Result<EntryKind, TarError> {
        if attributes.star_real_size || header.dialect() != Dialect::Gnu {
            return Err(unsupported(at, "star's form of a sparse file"));
        }
        let malformed = || corrupt(at.clone(), "the sparse map is malformed");
        let stored = stored_size(header, attributes, at)?;
        let size = header
            .sparse_real_size()
            .and_then(|size| u64::try_from(size).ok())
            .ok_or_else(malformed)?;
        let (slots, mut more) = header.sparse_runs();
        let mut runs = sparse::runs_from_slots(slots).ok_or_else(malformed)?;
        while more {
            let block = self.need_block(at)?;
            let (slots, extended) = block.sparse_extension();
            let added = sparse::runs_from_slots(slots).ok_or_else(malformed)?;
            // An empty extension that announces another could go on for ever.
            if added.is_empty() && extended {
                return Err(malformed());
            }
            runs.extend(added);
            more = extended && runs.len() <= self.limits.sparse_runs;
        }
        self.begin_content(stored, at)?;
        self.sparse_layout(runs, size, at)
    }

    fn sparse_layout(
        &self,
        runs: Vec<SparseRun>,
        size: u64,
        at: &At,
    ) -> Result<EntryKind, TarError> {
        let limit = self.limits.sparse_runs;
        if runs.len() > limit {
            return Err(TarError::Limit {
                at: at.clone(),
                reason: format!("the sparse map has more than {limit} runs"),
            });
        }
        let stored = self.content_left;
        let runs = sparse::check_runs(runs, size, stored);
        Ok(EntryKind::File(Layout {
            size,
            stored,
            offset: self.input.offset(),
            runs: Some(runs.map_err(|reason| corrupt(at.clone(), &reason))?),
        }))
    }

    fn metadata(
        &self,
        header: &Header,
        attributes: &mut Attributes,
        at: &At,
    ) -> Result<Metadata, TarError> {
        let impossible = |what: &str| corrupt(at.clone(), &format!("the {what} is impossible"));
        let owner = |given: Option<u32>, field: Option<i64>, what: &str| {
            given
                .or_else(|| u32::try_from(field?).ok())
                .ok_or_else(|| impossible(what))
        };
        let mode = header.mode().ok_or_else(|| impossible("mode"))? & 0o7777;
        let modified = match attributes.modified {
            Some(time) => time,
            None => {
                let seconds = header.modified().ok_or_else(|| impossible("time"))?;
                Timestamp::from_seconds(seconds)
            }
        };
        let (accessed, changed) = header.accessed_and_changed();
        let time = |given: Option<Timestamp>, field: Option<i64>| {
            given
                .or_else(|| field.map(Timestamp::from_seconds))
                .unwrap_or(modified)
        };
        let sizes = attributes.xattrs.iter();
        let sizes = sizes.map(|(name, value)| name.len().saturating_add(value.len()));
        let limit = self.limits.xattr_bytes;
        if sizes.fold(0_usize, usize::saturating_add) > limit {
            return Err(TarError::Limit {
                at: at.clone(),
                reason: format!("the extended attributes have more than {limit} bytes"),
            });
        }
        Ok(Metadata {
            mode: u16::try_from(mode).map_err(|_| impossible("mode"))?,
            uid: owner(attributes.uid, header.uid(), "owner")?,
            gid: owner(attributes.gid, header.gid(), "group")?,
            times: Times {
                modified,
                accessed: time(attributes.accessed, accessed),
                changed: time(attributes.changed, changed),
                created: time(attributes.created, None),
            },
            xattrs: std::mem::take(&mut attributes.xattrs),
        })
    }
}

/// What a type is that has a meaning somewhere, but none here.
fn unread_type(flag: u8) -> String {
    let known = match flag {
        b'M' => "a continued part of a multi-volume archive; join the volumes",
        b'N' => "GNU tar's long names of before 1.13",
        b'A' => "a Solaris access control list",
        b'E' => "a Solaris file with extended attributes",
        b'I' => "an inode's metadata without the file",
        other => return format!("entry type '{}' ({other})", display(&[other])),
    };
    format!("{known} (entry type '{}')", char::from(flag))
}

fn link(target: Vec<u8>, at: &At) -> Result<Name, TarError> {
    if target.is_empty() {
        return Err(corrupt(at.clone(), "the link has no target"));
    }
    Ok(target.into())
}

fn stored_size(header: &Header, attributes: &Attributes, at: &At) -> Result<u64, TarError> {
    match attributes.size {
        Some(size) => Ok(size),
        None => size_of(header, at),
    }
}

pub(super) fn size_of(header: &Header, at: &At) -> Result<u64, TarError> {
    header
        .size()
        .and_then(|size| u64::try_from(size).ok())
        .ok_or_else(|| corrupt(at.clone(), "the size is impossible"))
}
