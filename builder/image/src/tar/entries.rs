//! One archive, entry by entry.

use std::io::{self, Read};
use std::sync::Arc;

use crate::tree::{
    Blob, Content, Metadata, Name, SYMLINK_LENGTH_MAX, Segment, Times, Timestamp, display,
};

use super::content::ContentSink;
use super::format::{BLOCK_BYTES, Header, padded, text};
use super::input::Input;
use super::pax::{Attributes, PaxError};
use super::sparse::{self, MapParser, MapPlace};
use super::{At, Limits, TarError};

/// An entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path as the archive has it (`./usr/bin/sh`), without trailing slashes. Nothing about it
    /// has been checked but its length.
    pub path: Name,
    /// What it is.
    pub kind: EntryKind,
    /// Mode, owner by number, times, attributes. Where the archive gives no access or change
    /// time, the modification time stands in.
    pub metadata: Metadata,
    /// The owner's name, empty where the archive has none; coop goes by the numbers.
    pub user_name: Name,
    /// The group's name, likewise.
    pub group_name: Name,
    /// Offset of the entry's (last) header in the uncompressed archive, in bytes.
    pub header_offset: u64,
    /// Extended header keywords that were not used.
    pub ignored: Vec<Name>,
}

impl Entry {
    /// Where the entry is, for messages.
    #[must_use]
    pub fn at(&self) -> At {
        At {
            entry: self.path.to_vec(),
            offset: self.header_offset,
        }
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Directory,
    /// A regular file.
    File(Layout),
    /// Another name of an earlier entry, given as a path in the archive.
    HardLink(Name),
    /// A symbolic link and its target.
    Symlink(Name),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// How a file's content lies in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Size of the file in bytes.
    pub size: u64,
    /// Bytes of it that the archive has.
    pub stored: u64,
    /// Offset of these bytes in the uncompressed archive.
    pub offset: u64,
    /// Where they belong in the file; `None` for a file without holes.
    pub runs: Option<Box<[SparseRun]>>,
}

/// A run of stored bytes in a file with holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparseRun {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Reads an archive entry by entry.
pub struct Entries<'a> {
    input: Input<'a>,
    limits: Limits,
    global: Attributes,
    headers: u64,
    /// Stored bytes of the current entry that have not been read, and the padding behind them.
    content_left: u64,
    padding: u64,
    finished: bool,
}

/// What precedes an entry and belongs to it.
#[derive(Default)]
struct Pending {
    extended: Option<Attributes>,
    long_path: Option<Vec<u8>>,
    long_target: Option<Vec<u8>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.extended.is_none() && self.long_path.is_none() && self.long_target.is_none()
    }
}

impl<'a> Entries<'a> {
    /// An archive that comes as a stream of uncompressed bytes. It is read to its end, so that a
    /// decompressor gets to check its trailer.
    pub fn stream(reader: impl Read + 'a, limits: Limits) -> Self {
        Self::new(Input::stream(reader), limits)
    }

    /// An uncompressed archive that can be read anywhere; content is skipped unless asked for.
    #[must_use]
    pub fn in_place(archive: Arc<dyn Blob>, limits: Limits) -> Self {
        Self::new(Input::blob(archive), limits)
    }

    fn new(input: Input<'a>, limits: Limits) -> Self {
        Self {
            input,
            limits,
            global: Attributes::default(),
            headers: 0,
            content_left: 0,
            padding: 0,
            finished: false,
        }
    }

    /// The next entry; what is left of the current one's content is skipped. `None` is the end.
    ///
    /// # Errors
    /// The archive is damaged, has what coop does not read, exceeds a limit or cannot be read;
    /// after an error, nothing more comes.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.finished {
            return Ok(None);
        }
        let result = self.advance();
        if !matches!(result, Ok(Some(_))) {
            self.finished = true;
        }
        result
    }

    /// Reads the stored bytes of the current entry, which must be a file; for a file with holes
    /// these are its runs, one after the other.
    pub fn content(&mut self) -> impl Read {
        EntryContent { entries: self }
    }

    /// Gives the current entry's stored bytes to a sink and says what the file's content then is.
    ///
    /// # Errors
    /// [`TarError::Store`] and [`TarError::Read`]; a sink's reading error counts as the archive's
    /// where the archive ends early.
    pub fn store(
        &mut self,
        entry: &Entry,
        sink: &mut dyn ContentSink,
    ) -> Result<Content, TarError> {
        let EntryKind::File(layout) = &entry.kind else {
            return Ok(Content::default());
        };
        if layout.stored == 0 {
            return Ok(Content {
                size: layout.size,
                segments: Box::default(),
            });
        }
        let mut content = EntryContent { entries: self };
        let kept = sink.keep(&mut content, layout.offset, layout.stored);
        let (blob, start) = kept.map_err(|source| {
            let at = entry.at();
            if source.kind() == io::ErrorKind::UnexpectedEof {
                TarError::Read { at, source }
            } else {
                TarError::Store { at, source }
            }
        })?;
        let Some(runs) = &layout.runs else {
            return Ok(Content::contiguous(blob, start, layout.size));
        };
        let mut blob_offset = start;
        let segments = runs.iter().map(|run| {
            let segment = Segment {
                offset: run.offset,
                length: run.length,
                blob,
                blob_offset,
            };
            blob_offset = blob_offset.saturating_add(run.length);
            segment
        });
        Ok(Content {
            size: layout.size,
            segments: segments.collect(),
        })
    }

    fn advance(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pending = Pending::default();
        loop {
            self.skip_content()?;
            let offset = self.input.offset();
            let at = || At {
                entry: Vec::new(),
                offset,
            };
            let Some(header) = self.read_header()? else {
                if !pending.is_empty() {
                    return Err(corrupt(at(), "an extended header has no entry behind it"));
                }
                return Ok(None);
            };
            self.headers = self.headers.saturating_add(1);
            if self.headers > self.limits.entries {
                let reason = format!("more than {} entries", self.limits.entries);
                return Err(TarError::Limit { at: at(), reason });
            }
            match header.typeflag() {
                b'x' | b'X' => {
                    let bytes = self.read_special(&header, offset)?;
                    let mut attributes = self.global.clone();
                    attributes.ignored.clear();
                    apply(&mut attributes, &bytes, at())?;
                    pending.extended = Some(attributes);
                }
                b'g' => {
                    let bytes = self.read_special(&header, offset)?;
                    apply(&mut self.global, &bytes, at())?;
                }
                b'L' => {
                    let bytes = self.read_special(&header, offset)?;
                    pending.long_path = Some(text(&bytes).to_vec());
                }
                b'K' => {
                    let bytes = self.read_special(&header, offset)?;
                    pending.long_target = Some(text(&bytes).to_vec());
                }
                // A volume's label says nothing about the file system.
                b'V' => self.begin_content(size_of(&header, &at())?, &at())?,
                _ => return self.entry(&header, offset, pending).map(Some),
            }
        }
    }

    fn skip_content(&mut self) -> Result<(), TarError> {
        let length = self.content_left.saturating_add(self.padding);
        let at = self.here();
        self.content_left = 0;
        self.padding = 0;
        self.input
            .skip(length)
            .map_err(|source| TarError::Read { at, source })
    }

    fn here(&self) -> At {
        At {
            entry: Vec::new(),
            offset: self.input.offset(),
        }
    }

    /// `None` at the end: two zero blocks, or the end of the input between entries.
    fn read_header(&mut self) -> Result<Option<Header>, TarError> {
        let at = self.here();
        let Some(header) = self.read_block()? else {
            return Ok(None);
        };
        if header.is_zero() {
            if self.read_block()?.is_some_and(|second| !second.is_zero()) {
                return Err(corrupt(at, "a lone block of zeroes"));
            }
            let limit = self.limits.trailing_bytes;
            let drained = self.input.drain(limit).map_err(|source| TarError::Read {
                at: At::clone(&at),
                source,
            })?;
            if !drained {
                let reason = format!("more than {limit} bytes behind the end of the archive");
                return Err(TarError::Limit { at, reason });
            }
            return Ok(None);
        }
        if !header.checksum_matches() {
            let reason = if at.offset == 0 {
                "the first header's checksum is wrong; this is no tar archive"
            } else {
                "a header's checksum is wrong"
            };
            return Err(corrupt(at, reason));
        }
        Ok(Some(header))
    }

    fn read_block(&mut self) -> Result<Option<Header>, TarError> {
        let at = self.here();
        let mut block = [0; BLOCK_BYTES];
        match self.input.fill(&mut block) {
            Ok(0) => Ok(None),
            Ok(BLOCK_BYTES) => Ok(Some(Header(block))),
            Ok(_) => Err(corrupt(at, "the archive ends within a block")),
            Err(source) => Err(TarError::Read { at, source }),
        }
    }

    /// A block that must be there.
    fn need_block(&mut self) -> Result<Header, TarError> {
        let at = self.here();
        self.read_block()?
            .ok_or_else(|| corrupt(at, "the archive ends within an entry"))
    }

    fn begin_content(&mut self, stored: u64, at: &At) -> Result<(), TarError> {
        let whole = padded(stored)
            .filter(|whole| self.input.offset().checked_add(*whole).is_some())
            .ok_or_else(|| corrupt(at.clone(), "the size is impossible"))?;
        self.content_left = stored;
        self.padding = whole.saturating_sub(stored);
        Ok(())
    }

    /// Content of a header that describes the next entry.
    fn read_special(&mut self, header: &Header, offset: u64) -> Result<Vec<u8>, TarError> {
        let at = At {
            entry: Vec::new(),
            offset,
        };
        let size = size_of(header, &at)?;
        let limit = self.limits.extended_header_bytes;
        if size > limit {
            let reason = format!("an extended header has {size} bytes, more than {limit}");
            return Err(TarError::Limit { at, reason });
        }
        self.begin_content(size, &at)?;
        let mut bytes = Vec::new();
        let read = self.content().read_to_end(&mut bytes);
        read.map_err(|source| TarError::Read { at, source })?;
        Ok(bytes)
    }

    fn entry(
        &mut self,
        header: &Header,
        header_offset: u64,
        pending: Pending,
    ) -> Result<Entry, TarError> {
        let mut attributes = pending.extended.unwrap_or_else(|| {
            let mut global = self.global.clone();
            global.ignored.clear();
            global
        });
        let mut path = attributes
            .sparse
            .name
            .take()
            .or_else(|| attributes.path.take())
            .or(pending.long_path)
            .unwrap_or_else(|| header.path());
        let link_target = attributes
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
        self.check_names(&at, &link_target)?;
        let kind = self.kind(header, &attributes, link_target, is_folder_name, &at)?;
        let metadata = metadata(header, &mut attributes, &at)?;
        let name = |given: Option<Vec<u8>>, field: &[u8]| match given {
            Some(name) => name.into(),
            None => field.into(),
        };
        Ok(Entry {
            path: at.entry.into(),
            kind,
            metadata,
            user_name: name(attributes.user_name, header.user_name()),
            group_name: name(attributes.group_name, header.group_name()),
            header_offset,
            ignored: attributes.ignored,
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
            b'0' | 0 if is_folder_name => Ok(EntryKind::Directory),
            b'0' | 0 | b'7' => self.file(header, attributes, at),
            b'S' => self.old_sparse_file(header, attributes, at),
            b'1' => Ok(EntryKind::HardLink(link(target, at)?)),
            b'2' if target.len() > SYMLINK_LENGTH_MAX => Err(corrupt(
                at.clone(),
                &format!("the link target has more than {SYMLINK_LENGTH_MAX} bytes"),
            )),
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
            b'M' => Err(unsupported(
                at,
                "a continued part of a multi-volume archive",
            )),
            other => Err(unsupported(
                at,
                &format!("entry type '{}' ({other})", display(&[other])),
            )),
        }
    }

    fn file(
        &mut self,
        header: &Header,
        attributes: &Attributes,
        at: &At,
    ) -> Result<EntryKind, TarError> {
        let stored = stored_size(header, attributes, at)?;
        self.begin_content(stored, at)?;
        let place = attributes.sparse.map();
        let Some(place) = place.map_err(|reason| unsupported(at, &reason))? else {
            return Ok(EntryKind::File(Layout {
                size: stored,
                stored,
                offset: self.input.offset(),
                runs: None,
            }));
        };
        let missing = || corrupt(at.clone(), "the sparse map is incomplete");
        let runs = match place {
            MapPlace::Records(numbers) => sparse::runs_from_numbers(numbers).ok_or_else(missing)?,
            MapPlace::Content => self.read_map(at)?,
        };
        let size = attributes.sparse.real_size.ok_or_else(missing)?;
        self.sparse_layout(runs, size, at)
    }

    /// A map in front of the content, padded to whole blocks.
    fn read_map(&mut self, at: &At) -> Result<Vec<SparseRun>, TarError> {
        let mut parser = MapParser::default();
        loop {
            let mut block = [0; BLOCK_BYTES];
            let mut content = EntryContent { entries: self };
            let read = content.read_exact(&mut block);
            read.map_err(|source| TarError::Read {
                at: at.clone(),
                source,
            })?;
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
        if attributes.star_real_size {
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
            let block = self.need_block()?;
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
}

struct EntryContent<'e, 'a> {
    entries: &'e mut Entries<'a>,
}

impl Read for EntryContent<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.entries.content_left).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.entries.input.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive ends within an entry",
            ));
        }
        let read = u64::try_from(count).unwrap_or(u64::MAX);
        self.entries.content_left = self.entries.content_left.saturating_sub(read);
        Ok(count)
    }
}

fn metadata(header: &Header, attributes: &mut Attributes, at: &At) -> Result<Metadata, TarError> {
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

fn size_of(header: &Header, at: &At) -> Result<u64, TarError> {
    header
        .size()
        .and_then(|size| u64::try_from(size).ok())
        .ok_or_else(|| corrupt(at.clone(), "the size is impossible"))
}

fn apply(attributes: &mut Attributes, bytes: &[u8], at: At) -> Result<(), TarError> {
    attributes.apply(bytes).map_err(|error| match error {
        PaxError::Corrupt(reason) => TarError::Corrupt { at, reason },
        PaxError::Unsupported(reason) => TarError::Unsupported { at, reason },
    })
}

fn corrupt(at: At, reason: &str) -> TarError {
    TarError::Corrupt {
        at,
        reason: reason.into(),
    }
}

fn unsupported(at: &At, reason: &str) -> TarError {
    TarError::Unsupported {
        at: at.clone(),
        reason: reason.into(),
    }
}
