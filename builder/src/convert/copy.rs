//! Copies the bytes that are meant into a file that appears whole.

use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use coop_image::disk::{self, DiskError, Extent, Qcow2Options, Source, Written};
use coop_image::tree::Blob;
use coop_runtime::event::{Event, Observer, Unit};
use serde::Serialize;

use super::left::{self, Left};
use super::{ConvertError, Input, Part, Which};
use crate::staged_file::StagedFile;

/// What progress calls the copying.
const TASK: &str = "copy the disk";
/// Progress is told each time so many bytes more were read.
const PROGRESS_BYTES: u64 = 8 << 20;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// One file system, without a partition table.
    Cobd,
    /// A whole disk, as it is.
    Raw,
    /// A whole disk in QEMU's format.
    Qcow2,
}

impl OutputFormat {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cobd => "cobd",
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// The format that a file's name says.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "cobd" => Some(Self::Cobd),
            "raw" | "img" => Some(Self::Raw),
            "qcow2" => Some(Self::Qcow2),
            _ => None,
        }
    }
}

/// What to convert.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What is read.
    pub input: &'a Input,
    /// Where that lies, so that it is not taken for the output.
    pub source: &'a Path,
    /// Which part is meant. Without one a cobd is the root, and a disk all of the disk.
    pub which: Option<&'a Which>,
    /// The file that appears, or is replaced, whole.
    pub output: &'a Path,
    /// What it becomes.
    pub format: OutputFormat,
    /// How many threads may work; changes nothing in the output.
    pub threads: NonZeroUsize,
    /// Whether the output must be on the disk before it has its name.
    pub sync: bool,
}

/// What was converted.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The part that was taken; nothing where it was the whole disk with its table.
    pub part: Option<Part>,
    /// Whether a partition table was made around it.
    pub is_wrapped: bool,
    /// The size of the output as a guest sees it, in bytes.
    pub size_bytes: u64,
    /// How many bytes of these are not in holes.
    pub data_bytes: u64,
    /// What was left behind.
    pub left: Vec<Left>,
}

/// Converts.
///
/// # Errors
/// What is meant is not there, the input is damaged, or the output cannot be written; it is then as
/// it was.
pub fn convert(
    request: &Request<'_>,
    observer: &Arc<dyn Observer>,
) -> Result<Converted, ConvertError> {
    let Request { input, output, .. } = *request;
    input.refuse_replacing(request.source, output)?;
    input.check_unused()?;
    let is_whole =
        request.format != OutputFormat::Cobd && request.which.is_none() && !input.is_bare();
    let (part, left) = if is_whole {
        (None, left::of_format(input))
    } else {
        let part = input.choose(request.which.unwrap_or(&Which::Root))?;
        input.check_whole(part)?;
        (Some(part), left::beside(input, part)?)
    };
    let source: Arc<dyn Source> = match part {
        None => Arc::clone(&input.disk) as Arc<dyn Source>,
        Some(part) => Arc::new(input.view(part)?),
    };
    let (source, is_wrapped) = match (request.format, part) {
        (OutputFormat::Cobd, _) | (_, None) => (source, false),
        (_, Some(part)) => (super::wrap::wrap(input, part, source)?, true),
    };
    let staged = StagedFile::new(output)?;
    let watched = Watched::new(source, Arc::clone(observer));
    let written = watched
        .copy(request, staged.file())
        .map_err(|source| ConvertError::Output {
            path: output.to_owned(),
            source,
        })?;
    staged.publish(request.sync)?;
    Ok(Converted {
        part: part.cloned(),
        is_wrapped,
        size_bytes: written.size_bytes,
        data_bytes: written.data_bytes,
        left,
    })
}

/// A source that tells how far its reading came, and stops when the work is called off.
struct Watched {
    source: Arc<dyn Source>,
    observer: Arc<dyn Observer>,
    done: AtomicU64,
}

impl Watched {
    fn new(source: Arc<dyn Source>, observer: Arc<dyn Observer>) -> Self {
        let done = AtomicU64::new(0);
        Self {
            source,
            observer,
            done,
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.observer.is_cancelled() {
            true => Err(io::Error::other("the work was called off")),
            false => Ok(()),
        }
    }

    fn copy(&self, request: &Request<'_>, output: &File) -> Result<Written, DiskError> {
        let started = Instant::now();
        self.observer.event(&Event::TaskStarted {
            task: TASK,
            // How much of it is a hole shows only on the way.
            total: None,
            unit: Unit::Bytes,
        });
        let written = match request.format {
            OutputFormat::Cobd | OutputFormat::Raw => {
                disk::write_raw(self, output, request.threads)
            }
            OutputFormat::Qcow2 => disk::write_qcow2(self, output, &Qcow2Options::default()),
        }?;
        self.observer.event(&Event::TaskFinished {
            task: TASK,
            elapsed: started.elapsed(),
        });
        Ok(written)
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Blob for Watched {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check()?;
        let count = self.source.read_at(buffer, offset)?;
        let more = u64::try_from(count).unwrap_or(0);
        let before = self.done.fetch_add(more, Ordering::Relaxed);
        let done = before.saturating_add(more);
        if before / PROGRESS_BYTES != done / PROGRESS_BYTES {
            self.observer
                .event(&Event::TaskProgress { task: TASK, done });
        }
        Ok(count)
    }
}

impl Source for Watched {
    fn size_bytes(&self) -> u64 {
        self.source.size_bytes()
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        // Of a disk that is all holes nothing is read.
        self.check()
            .map_err(|source| DiskError::Read { offset, source })?;
        self.source.extent_at(offset)
    }
}
