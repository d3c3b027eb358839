//! A buffer in front of the image that turns neighbouring pieces into few large writes and leaves
//! zeroes out.

use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use super::error::WriteError;

/// Size of the buffer in bytes: large enough to make system calls rare, small enough to stay in
/// the processor's cache.
const BUFFER_SIZE: usize = 1 << 20;
/// Buffers that may wait for the writing thread.
const BUFFERS_WAITING: usize = 2;
/// Zeroes are left out in units of this many bytes, and only where they fill one.
const ZERO_UNIT: usize = 4096;
/// What a unit of zeroes looks like.
static ZEROES: [u8; ZERO_UNIT] = [0; ZERO_UNIT];

/// Collects pieces that lie one after the other in the image. Gaps between pieces are not written,
/// unless they are short; nor is any aligned unit of [`ZERO_UNIT`] zeroes, so what a sink writes
/// to must read as zeroes before.
pub(crate) struct Sink {
    file: Arc<File>,
    writer: Option<Writer>,
    buffer: Vec<u8>,
    start: u64,
    used: usize,
    /// Gaps up to this are filled with zeroes.
    gap_max: u64,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("file", &self.file)
            .field("start", &self.start)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

impl Sink {
    /// A sink that fills gaps of up to `gap_max` bytes: for content less than a block, as the gap
    /// then belongs to blocks of the same files; for everything else 0.
    pub(crate) fn new(file: Arc<File>, gap_max: u64) -> Self {
        Self {
            file,
            writer: None,
            buffer: vec![0; BUFFER_SIZE],
            start: 0,
            used: 0,
            gap_max,
        }
    }

    /// Like [`Sink::new`]; with more than one thread another one writes while this one fills the
    /// next buffer. Writers of one file wait for each other in the kernel, so a third would not
    /// help.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn threaded(
        file: Arc<File>,
        gap_max: u64,
        threads: NonZeroUsize,
    ) -> Result<Self, WriteError> {
        let writer = (threads.get() > 1)
            .then(|| Writer::start(Arc::clone(&file)))
            .transpose()?;
        Ok(Self {
            writer,
            ..Self::new(file, gap_max)
        })
    }

    /// The most that one piece can have.
    pub(crate) const PIECE_MAX: usize = BUFFER_SIZE;

    /// Room for a piece at `offset` of the image; holds arbitrary bytes, so fill it whole.
    ///
    /// # Errors
    /// What was collected before could not be written.
    pub(crate) fn piece(&mut self, offset: u64, length: usize) -> Result<&mut [u8], WriteError> {
        let end = self.start + u64::try_from(self.used).unwrap_or(u64::MAX);
        let gap = offset
            .checked_sub(end)
            .filter(|gap| self.used > 0 && *gap <= self.gap_max)
            .and_then(|gap| usize::try_from(gap).ok())
            .filter(|gap| self.used + gap + length <= BUFFER_SIZE);
        match gap {
            Some(gap) => {
                self.buffer[self.used..self.used + gap].fill(0);
                self.used += gap;
            }
            None => {
                self.flush()?;
                self.start = offset;
            }
        }
        let at = self.used;
        self.used += length;
        self.buffer
            .get_mut(at..at + length)
            .ok_or(WriteError::Layout("a piece is larger than the buffer"))
    }

    /// Like [`Sink::piece`], filled with zeroes.
    ///
    /// # Errors
    /// As [`Sink::piece`].
    pub(crate) fn zeroed(&mut self, offset: u64, length: usize) -> Result<&mut [u8], WriteError> {
        let piece = self.piece(offset, length)?;
        piece.fill(0);
        Ok(piece)
    }

    /// Writes what was collected, or hands it to the thread that does.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn flush(&mut self) -> Result<(), WriteError> {
        let used = std::mem::take(&mut self.used);
        if used == 0 {
            return Ok(());
        }
        match &mut self.writer {
            None => write_spans(&self.file, &self.buffer[..used], self.start),
            Some(writer) => {
                let empty = writer.empty_buffer()?;
                let bytes = std::mem::replace(&mut self.buffer, empty);
                writer.write(Job {
                    bytes,
                    used,
                    start: self.start,
                })
            }
        }
    }

    /// Like [`Sink::flush`], and waits until all is written.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn settle(&mut self) -> Result<(), WriteError> {
        self.flush()?;
        self.writer.as_mut().map_or(Ok(()), Writer::settle)
    }
}

/// A buffer on its way to the image.
struct Job {
    bytes: Vec<u8>,
    used: usize,
    start: u64,
}

/// The thread that writes.
struct Writer {
    /// `None` once the thread shall end.
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Result<Vec<u8>, WriteError>>,
    /// Jobs that are not done.
    waiting: usize,
    empty: Vec<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(file: Arc<File>) -> Result<Self, WriteError> {
        let (jobs, inbox) = mpsc::sync_channel::<Job>(BUFFERS_WAITING);
        let (outbox, done) = mpsc::channel();
        let work = move || {
            for job in inbox {
                let written = write_spans(&file, &job.bytes[..job.used], job.start);
                if outbox.send(written.map(|()| job.bytes)).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("ext4 write".into())
            .spawn(work)
            .map_err(WriteError::Thread)?;
        Ok(Self {
            jobs: Some(jobs),
            done,
            waiting: 0,
            empty: vec![vec![0; BUFFER_SIZE]; BUFFERS_WAITING],
            thread: Some(thread),
        })
    }

    fn empty_buffer(&mut self) -> Result<Vec<u8>, WriteError> {
        if self.empty.is_empty() {
            self.wait()?;
        }
        Ok(self.empty.pop().unwrap_or_else(|| vec![0; BUFFER_SIZE]))
    }

    fn write(&mut self, job: Job) -> Result<(), WriteError> {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        match sent {
            Some(Ok(())) => {
                self.waiting += 1;
                Ok(())
            }
            _ => Err(WriteError::Layout("the writing thread ended")),
        }
    }

    /// Takes one buffer back.
    fn wait(&mut self) -> Result<(), WriteError> {
        let written = self
            .done
            .recv()
            .map_err(|_| WriteError::Layout("the writing thread ended"))?;
        self.waiting -= 1;
        self.empty.push(written?);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), WriteError> {
        while self.waiting > 0 {
            self.wait()?;
        }
        Ok(())
    }
}

impl Drop for Writer {
    /// Nothing is written any more once the writer is gone.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported as a closed channel.
            let _ = thread.join();
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0) && bytes == &ZEROES[..bytes.len()]
}

/// Writes what is not zero.
fn write_spans(file: &File, bytes: &[u8], start: u64) -> Result<(), WriteError> {
    let unit = u64::try_from(ZERO_UNIT).unwrap_or(u64::MAX);
    let misaligned = usize::try_from(start % unit).unwrap_or(0);
    let mut end = ZERO_UNIT - misaligned;
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        end = end.min(bytes.len());
        if is_zero(&bytes[at..end]) {
            write_span(file, &bytes[from..at], start, from)?;
            from = end;
        }
        at = end;
        end += ZERO_UNIT;
    }
    write_span(file, &bytes[from..], start, from)
}

fn write_span(file: &File, bytes: &[u8], start: u64, from: usize) -> Result<(), WriteError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let offset = start + u64::try_from(from).unwrap_or(u64::MAX);
    file.write_all_at(bytes, offset)
        .map_err(|source| WriteError::Write { offset, source })
}

/// Makes a range of a file that will be written to again read as zeroes.
///
/// # Errors
/// What the operating system says.
pub(crate) fn clear(file: &File, offset: u64, length: u64) -> Result<(), WriteError> {
    use rustix::fs::FallocateFlags;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, offset, length) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            write_zeroes(file, offset, length)
        }
        Err(error) => Err(WriteError::Write {
            offset,
            source: io::Error::from(error),
        }),
    }
}

/// For file systems that cannot make holes.
fn write_zeroes(file: &File, mut offset: u64, mut length: u64) -> Result<(), WriteError> {
    while length > 0 {
        let piece = usize::try_from(length).map_or(ZERO_UNIT, |length| length.min(ZERO_UNIT));
        file.write_all_at(&ZEROES[..piece], offset)
            .map_err(|source| WriteError::Write { offset, source })?;
        let piece = u64::try_from(piece).unwrap_or(u64::MAX);
        offset += piece;
        length -= piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_left_out_and_the_rest_is_there() {
        for threads in [1, 3] {
            let file = Arc::new(tempfile::tempfile().unwrap());
            let threads = NonZeroUsize::new(threads).unwrap();
            let mut sink = Sink::threaded(Arc::clone(&file), 100, threads).unwrap();
            let mut expected = vec![0_u8; 9 << 20];
            for (offset, length, byte) in [
                (100, 5000, 1),
                (5150, 10_000, 0),
                (20_000, 100_000, 2),
                (1 << 20, 1 << 20, 3),
                (2 << 20, 1 << 20, 0),
                (3 << 20, 10, 4),
                (8 << 20, 1 << 20, 5),
            ] {
                sink.piece(u64::try_from(offset).unwrap(), length)
                    .unwrap()
                    .fill(byte);
                expected[offset..offset + length].fill(byte);
            }
            sink.settle().unwrap();
            let mut found = vec![0; expected.len()];
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(found == expected);
            clear(&file, 8 << 20, 1 << 19).unwrap();
            file.read_exact_at(&mut found, 0).unwrap();
            expected[8 << 20..][..1 << 19].fill(0);
            assert!(found == expected);
        }
    }

    #[test]
    fn a_failure_to_write_names_its_place() {
        let file = Arc::new(File::open("/dev/null").unwrap());
        let threads = NonZeroUsize::new(2).unwrap();
        let mut sink = Sink::threaded(file, 0, threads).unwrap();
        sink.piece(8192, 10).unwrap().fill(1);
        let error = sink.settle().unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot write the ext4 image at byte 8192"
        );
    }
}
