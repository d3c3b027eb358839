//! One archive, entry by entry.

use std::io::{self, Read};
use std::sync::Arc;

use crate::tree::{Blob, Content, Segment};

use super::content::ContentSink;
use super::entry::Entry;
use super::format::{BLOCK_BYTES, Header, padded, text};
use super::input::{self, Input};
use super::pax::{Attributes, PaxError};
use super::{At, Limits, TarError};

/// Reads an archive entry by entry.
pub struct Entries<'a> {
    pub(super) input: Input<'a>,
    pub(super) limits: Limits,
    /// See [`super::Options::ignore_zeros`].
    pub(super) ignore_zeros: bool,
    global: Attributes,
    headers: u64,
    /// Whose content comes.
    current: At,
    /// Stored bytes of the current entry that have not been read, and the padding behind them.
    pub(super) content_left: u64,
    padding: u64,
    /// Where these bytes end.
    content_end: u64,
    finished: bool,
}

/// What precedes an entry and belongs to it.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) extended: Option<Attributes>,
    pub(super) long_path: Option<Vec<u8>>,
    pub(super) long_target: Option<Vec<u8>>,
    /// Keywords of global headers without use here, which are told of once.
    pub(super) ignored: Vec<crate::tree::Name>,
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
            ignore_zeros: false,
            global: Attributes::default(),
            headers: 0,
            current: At::start(),
            content_left: 0,
            padding: 0,
            content_end: 0,
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

    /// Reads the stored bytes of the current entry ([`Entry::layout`]); for a file with holes
    /// these are its runs, one after the other.
    pub fn content(&mut self) -> impl Read {
        EntryContent::new(self)
    }

    /// Gives the current entry's stored bytes to a sink and says what the file's content then is.
    ///
    /// # Errors
    /// [`TarError::Store`], or the archive ends early or cannot be read.
    pub fn store(
        &mut self,
        entry: &Entry,
        sink: &mut dyn ContentSink,
    ) -> Result<Content, TarError> {
        let Some(layout) = entry.layout() else {
            return Ok(Content::default());
        };
        if layout.stored == 0 {
            return Ok(Content {
                size: layout.size,
                segments: Box::default(),
            });
        }
        let mut content = EntryContent::new(self);
        let kept = sink.keep(&mut content, layout.offset, layout.stored);
        let is_unread = content.failed;
        let (blob, start) = kept.map_err(|source| {
            if is_unread {
                return self.content_error(source);
            }
            let at = entry.at();
            TarError::Store { at, source }
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
                    let limit = self.limits.extended_header_bytes;
                    let bytes = self.read_special(&header, offset, limit)?;
                    let mut attributes = self.global.clone();
                    apply(&mut attributes, &bytes, at())?;
                    pending.extended = Some(attributes);
                }
                b'g' => {
                    let limit = self.limits.global_header_bytes;
                    let bytes = self.read_special(&header, offset, limit)?;
                    apply(&mut self.global, &bytes, at())?;
                    if let Some(what) = self.global.what_no_two_files_share() {
                        return Err(unsupported(&at(), &format!("{what} in a global header")));
                    }
                    pending.ignored.append(&mut self.global.ignored);
                }
                b'L' => pending.long_path = Some(self.read_long_name(&header, offset)?),
                b'K' => pending.long_target = Some(self.read_long_name(&header, offset)?),
                // A volume's label says nothing about the file system.
                b'V' => {
                    let size = super::decode::size_of(&header, &at())?;
                    self.begin_content(size, &at())?;
                }
                _ => {
                    let attributes = pending.extended.take();
                    let attributes = attributes.unwrap_or_else(|| self.global.clone());
                    let entry = self.entry(&header, offset, attributes, pending);
                    return entry.map(Some);
                }
            }
        }
    }

    fn skip_content(&mut self) -> Result<(), TarError> {
        let length = self.content_left.saturating_add(self.padding);
        self.content_left = 0;
        self.padding = 0;
        let skipped = self.input.skip(length);
        skipped.map_err(|source| self.content_error(source))
    }

    /// What a failed reading of the current entry's content means.
    fn content_error(&self, source: io::Error) -> TarError {
        let at = self.current.clone();
        if !input::is_end(&source) {
            return TarError::Read { at, source };
        }
        let what = if at.entry.is_empty() {
            "an extended header"
        } else {
            "this entry's content"
        };
        let reason = format!(
            "the archive is cut off: it ends within {what}, which reaches to byte {}; get it again",
            self.content_end
        );
        TarError::Corrupt { at, reason }
    }

    fn here(&self) -> At {
        At {
            entry: Vec::new(),
            offset: self.input.offset(),
        }
    }

    /// `None` at the end: a block of zeroes, or the end of the input between entries.
    fn read_header(&mut self) -> Result<Option<Header>, TarError> {
        loop {
            let at = self.here();
            let Some(header) = self.read_block()? else {
                if at.offset == 0 {
                    return Err(corrupt(at, "it is empty; this is no tar archive"));
                }
                return Ok(None);
            };
            if header.is_zero() {
                if self.ignore_zeros {
                    continue;
                }
                self.end(at)?;
                return Ok(None);
            }
            if header.checksum_matches() {
                return Ok(Some(header));
            }
            let reason = if at.offset == 0 {
                "the first header's checksum is wrong; this is no tar archive"
            } else {
                "a header's checksum is wrong: the archive is damaged here or before; get it again"
            };
            return Err(corrupt(at, reason));
        }
    }

    /// Behind the first block of zeroes. Another should follow; one is enough where no entry
    /// comes behind it.
    fn end(&mut self, at: At) -> Result<(), TarError> {
        let read_error = |source| TarError::Read {
            at: at.clone(),
            source,
        };
        let mut block = [0; BLOCK_BYTES];
        let count = self.input.fill(&mut block).map_err(read_error)?;
        let second = Header(block);
        if count == BLOCK_BYTES && !second.is_zero() && second.checksum_matches() {
            return Err(corrupt(
                at,
                "a lone block of zeroes with an entry behind it; ignore zeros to read on",
            ));
        }
        let limit = self.limits.trailing_bytes;
        if self.input.drain(limit).map_err(read_error)? {
            return Ok(());
        }
        let reason = format!("more than {limit} bytes behind the end of the archive");
        Err(TarError::Limit { at, reason })
    }

    fn read_block(&mut self) -> Result<Option<Header>, TarError> {
        let at = self.here();
        let mut block = [0; BLOCK_BYTES];
        match self.input.fill(&mut block) {
            Ok(0) => Ok(None),
            Ok(BLOCK_BYTES) => Ok(Some(Header(block))),
            Ok(_) => Err(corrupt(
                at,
                "the archive is cut off: it ends within a header; get it again",
            )),
            Err(source) if input::is_end(&source) => Err(self.content_error(source)),
            Err(source) => Err(TarError::Read { at, source }),
        }
    }

    /// A block that must be there.
    pub(super) fn need_block(&mut self, at: &At) -> Result<Header, TarError> {
        let reason = "the archive is cut off: it ends within this entry's headers; get it again";
        self.read_block()?
            .ok_or_else(|| corrupt(at.clone(), reason))
    }

    pub(super) fn begin_content(&mut self, stored: u64, at: &At) -> Result<(), TarError> {
        let whole = padded(stored).zip(self.input.offset().checked_add(stored));
        let (whole, end) = whole
            .filter(|(whole, _)| self.input.offset().checked_add(*whole).is_some())
            .ok_or_else(|| corrupt(at.clone(), "the size is impossible"))?;
        self.current.entry.clone_from(&at.entry);
        self.current.offset = at.offset;
        self.content_left = stored;
        self.content_end = end;
        self.padding = whole.saturating_sub(stored);
        Ok(())
    }

    /// A block of content that must be there.
    pub(super) fn content_block(&mut self) -> Result<[u8; BLOCK_BYTES], TarError> {
        let mut block = [0; BLOCK_BYTES];
        let read = self.content().read_exact(&mut block);
        read.map_err(|source| self.content_error(source))?;
        Ok(block)
    }

    /// Content of a header that describes the next entry.
    fn read_special(
        &mut self,
        header: &Header,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<u8>, TarError> {
        let at = At {
            entry: Vec::new(),
            offset,
        };
        let size = super::decode::size_of(header, &at)?;
        if size > limit {
            let reason = format!("an extended header has {size} bytes, more than {limit}");
            return Err(TarError::Limit { at, reason });
        }
        self.begin_content(size, &at)?;
        let mut bytes = Vec::new();
        let read = self.content().read_to_end(&mut bytes);
        read.map_err(|source| self.content_error(source))?;
        Ok(bytes)
    }

    fn read_long_name(&mut self, header: &Header, offset: u64) -> Result<Vec<u8>, TarError> {
        let limit = u64::try_from(self.limits.path_bytes).unwrap_or(u64::MAX);
        let bytes = self.read_special(header, offset, limit.saturating_add(1))?;
        Ok(text(&bytes).to_vec())
    }
}

struct EntryContent<'e, 'a> {
    entries: &'e mut Entries<'a>,
    /// Whether it was the archive that could not be read, and not the sink that could not keep.
    failed: bool,
}

impl<'e, 'a> EntryContent<'e, 'a> {
    fn new(entries: &'e mut Entries<'a>) -> Self {
        let failed = false;
        Self { entries, failed }
    }
}

impl Read for EntryContent<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.entries.content_left).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = match self.entries.input.read(&mut buffer[..most]) {
            Ok(0) => Err(input::end()),
            other => other,
        };
        self.failed = count.is_err();
        let count = count?;
        let read = u64::try_from(count).unwrap_or(u64::MAX);
        self.entries.content_left = self.entries.content_left.saturating_sub(read);
        Ok(count)
    }
}

fn apply(attributes: &mut Attributes, bytes: &[u8], at: At) -> Result<(), TarError> {
    attributes.apply(bytes).map_err(|error| match error {
        PaxError::Corrupt(reason) => TarError::Corrupt { at, reason },
        PaxError::Unsupported(reason) => TarError::Unsupported { at, reason },
        PaxError::Limit(reason) => TarError::Limit { at, reason },
    })
}

pub(super) fn corrupt(at: At, reason: &str) -> TarError {
    TarError::Corrupt {
        at,
        reason: reason.into(),
    }
}

pub(super) fn unsupported(at: &At, reason: &str) -> TarError {
    TarError::Unsupported {
        at: at.clone(),
        reason: reason.into(),
    }
}
