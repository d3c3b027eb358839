//! `mkext4-peer SRC OUT SIZE_BYTES INODES`: an ext4 image from a tar archive or a folder, by the
//! `mkext4` crate. A program to measure against, so it does what a careful user of that crate
//! would do: one pass over the headers with contents skipped, holes declared as holes, one `pread`
//! for each file, the output through the crate's own file sink.

mod archive;
mod folder;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mkext4::sink::FileSink;
use mkext4::{FsBuilder, InodeCount, InodeHandle, Options, SparseSeg};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Bytes of a file, where they come from: offset and length.
type Run = (u64, u64);

/// A declared file whose content is still to be written.
struct Fill {
    handle: InodeHandle,
    /// `None`: the archive itself.
    path: Option<PathBuf>,
    runs: Vec<Run>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, output, size, inodes] = &arguments[..] else {
        return Err("usage: mkext4-peer SRC OUT SIZE_BYTES INODES".into());
    };
    let source = Path::new(source);
    let mut options = Options::new(size.parse()?, *b"mkext4-benchmark", 1_704_067_200);
    options.inodes = InodeCount::Exact(inodes.parse()?);
    options.reserved_percent = 0;
    let mut builder = FsBuilder::new(options)?;
    let input = File::open(source)?;
    let fills = if source.is_dir() {
        folder::declare(&mut builder, source)?
    } else {
        archive::declare(&mut builder, &input)?
    };
    let layout = builder.seal()?;
    let mut sink = FileSink::create(Path::new(output), layout.image_len())?;
    let mut writer = layout.writer(&mut sink)?;
    for fill in &fills {
        let opened = fill.path.as_ref().map(File::open).transpose()?;
        let file = opened.as_ref().unwrap_or(&input);
        writer.fill(fill.handle, &mut Runs::new(file, &fill.runs))?;
    }
    writer.finish()?;
    Ok(())
}

/// Reads runs of a file, one after the other.
struct Runs<'a> {
    file: &'a File,
    runs: &'a [Run],
    done: u64,
}

impl<'a> Runs<'a> {
    fn new(file: &'a File, runs: &'a [Run]) -> Self {
        Self {
            file,
            runs,
            done: 0,
        }
    }
}

impl Read for Runs<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(&(offset, length)) = self.runs.first() {
            let left = length - self.done;
            if left > 0 {
                let wanted = usize::try_from(left).map_or(buffer.len(), |l| l.min(buffer.len()));
                let count = self
                    .file
                    .read_at(&mut buffer[..wanted], offset + self.done)?;
                self.done += u64::try_from(count).unwrap_or(u64::MAX);
                return Ok(count);
            }
            self.runs = &self.runs[1..];
            self.done = 0;
        }
        Ok(0)
    }
}

/// Turns runs of content at (offset in the file, length) into the crate's segments. Its segments
/// are whole blocks, so data is widened to blocks; gives `None` where that would overlap.
fn segments(data: &[Run], size: u64) -> Option<Vec<SparseSeg>> {
    const BLOCK: u64 = 4096;
    let mut segments = Vec::new();
    let mut at = 0;
    for &(offset, length) in data {
        let end = offset + length;
        if offset % BLOCK != 0 || offset < at || (end % BLOCK != 0 && end != size) {
            return None;
        }
        if offset > at {
            segments.push(SparseSeg::Hole(offset - at));
        }
        segments.push(SparseSeg::Data(length));
        at = end;
    }
    if size > at {
        segments.push(SparseSeg::Hole(size - at));
    }
    Some(segments)
}
