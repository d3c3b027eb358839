//! One request: a chain of descriptors, seen as bytes to read and bytes to fill.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use coop_driver_sys::memory::{SLICES_MAX, read_file_at, write_file_at};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, VolatileSlice};

use super::memory::{Memory, Place};
use super::report::Counters;

/// Descriptors of one chain at most, whether in the ring or in an indirect table.
pub const SEGMENTS_MAX: usize = 1024;
/// Bytes of one chain at most: readable and writable together.
pub const CHAIN_BYTES_MAX: usize = 256 << 20;
/// Size of a descriptor in bytes (virtio 1.3, 2.7.5).
const DESCRIPTOR_BYTES: u32 = 16;

/// Why bytes of a chain could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The device asked for bytes that the chain does not have.
    #[error("{length} bytes at {offset} are outside the request's {available}")]
    Range {
        /// First byte asked for.
        offset: usize,
        /// Bytes asked for.
        length: usize,
        /// Bytes there are.
        available: usize,
    },
    /// The request points into the guest kernel's image, and that cannot be reached.
    #[error("guest address {address:#x} in the kernel's image cannot be reached: {source}")]
    Image {
        /// The guest address.
        address: u64,
        /// What the host says.
        source: io::Error,
    },
    /// The file says no.
    #[error(transparent)]
    File(#[from] io::Error),
}

/// Why a chain is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Unreadable,
    Endless,
    Indirect,
    Order,
    Outside,
    Huge,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    length: usize,
    place: Place,
}

/// A request of the guest, owned until [`super::Queues::complete`] takes it.
///
/// It may be kept for as long as the device likes, and completed in any order. Bytes that the
/// guest offers for reading and bytes that it wants filled are two spans; neither shows how they
/// are scattered over guest memory.
#[derive(Debug)]
#[must_use = "a chain that is not completed never returns to the guest"]
pub struct Chain {
    memory: Arc<Memory>,
    counters: Arc<Counters>,
    pub(crate) queue: usize,
    pub(crate) generation: u64,
    pub(crate) head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
    readable_bytes: usize,
    writable_bytes: usize,
}

/// A table of descriptors: the ring's, or an indirect one.
struct Table {
    address: u64,
    size: u32,
}

impl Table {
    fn get(&self, memory: &Memory, index: u32) -> Result<Descriptor, Malformed> {
        if index >= self.size {
            return Err(Malformed::Unreadable);
        }
        let offset = u64::from(index) * u64::from(DESCRIPTOR_BYTES);
        let address = self
            .address
            .checked_add(offset)
            .ok_or(Malformed::Unreadable)?;
        let length = usize::try_from(DESCRIPTOR_BYTES).map_err(|_| Malformed::Unreadable)?;
        let slice = memory.slice(address, length).ok_or(Malformed::Unreadable)?;
        slice.read_obj(0).map_err(|_| Malformed::Unreadable)
    }

    fn indirect(memory: &Memory, descriptor: &Descriptor) -> Result<Self, Malformed> {
        let length = descriptor.len();
        let aligned = length != 0 && length.is_multiple_of(DESCRIPTOR_BYTES);
        if !aligned || descriptor.has_next() || descriptor.is_write_only() {
            return Err(Malformed::Indirect);
        }
        let address = descriptor.addr().raw_value();
        let whole = usize::try_from(length).map_err(|_| Malformed::Indirect)?;
        memory.slice(address, whole).ok_or(Malformed::Indirect)?;
        Ok(Self {
            address,
            size: length / DESCRIPTOR_BYTES,
        })
    }
}

impl Chain {
    /// Walks the chain that starts at descriptor `head` of the table at `table_address`.
    pub(crate) fn parse(
        memory: &Arc<Memory>,
        counters: &Arc<Counters>,
        table: (u64, u16),
        origin: (usize, u64),
        head: u16,
    ) -> Result<Self, Malformed> {
        let mut chain = Self {
            memory: Arc::clone(memory),
            counters: Arc::clone(counters),
            queue: origin.0,
            generation: origin.1,
            head,
            readable: Vec::new(),
            writable: Vec::new(),
            readable_bytes: 0,
            writable_bytes: 0,
        };
        let mut table = Table {
            address: table.0,
            size: u32::from(table.1),
        };
        let mut descriptor = table.get(memory, u32::from(head))?;
        if descriptor.refers_to_indirect_table() {
            table = Table::indirect(memory, &descriptor)?;
            descriptor = table.get(memory, 0)?;
        }
        for _ in 0..SEGMENTS_MAX {
            chain.push(&descriptor)?;
            if !descriptor.has_next() {
                return Ok(chain);
            }
            descriptor = table.get(memory, u32::from(descriptor.next()))?;
        }
        Err(Malformed::Endless)
    }

    fn push(&mut self, descriptor: &Descriptor) -> Result<(), Malformed> {
        if descriptor.refers_to_indirect_table() {
            return Err(Malformed::Indirect);
        }
        let address = descriptor.addr().raw_value();
        let length = usize::try_from(descriptor.len()).map_err(|_| Malformed::Huge)?;
        let writable = descriptor.is_write_only();
        if !writable && !self.writable.is_empty() {
            return Err(Malformed::Order);
        }
        if length == 0 {
            return Ok(());
        }
        let total = self.readable_bytes.checked_add(self.writable_bytes);
        if total
            .and_then(|sum| sum.checked_add(length))
            .is_none_or(|sum| sum > CHAIN_BYTES_MAX)
        {
            return Err(Malformed::Huge);
        }
        let place = self
            .memory
            .place(address, length)
            .ok_or(Malformed::Outside)?;
        let segment = Segment {
            address,
            length,
            place,
        };
        if writable {
            self.writable_bytes += length;
            self.writable.push(segment);
        } else {
            self.readable_bytes += length;
            self.readable.push(segment);
        }
        Ok(())
    }

    /// The queue that the chain came from.
    #[must_use]
    pub fn queue(&self) -> usize {
        self.queue
    }

    /// The bytes that the guest offers for reading.
    #[must_use]
    pub fn readable(&self) -> Readable<'_> {
        Readable(Span {
            chain: self,
            segments: &self.readable,
            offset: 0,
            length: self.readable_bytes,
        })
    }

    /// The bytes that the guest wants filled.
    #[must_use]
    pub fn writable(&self) -> Writable<'_> {
        Writable(Span {
            chain: self,
            segments: &self.writable,
            offset: 0,
            length: self.writable_bytes,
        })
    }
}

/// A run of bytes of one direction of a chain.
#[derive(Clone, Copy, Debug)]
struct Span<'c> {
    chain: &'c Chain,
    segments: &'c [Segment],
    offset: usize,
    length: usize,
}

impl<'c> Span<'c> {
    fn split_at(self, middle: usize) -> Result<(Self, Self), AccessError> {
        if middle > self.length {
            let (offset, length) = (self.offset, middle);
            return Err(AccessError::Range {
                offset,
                length,
                available: self.length,
            });
        }
        let first = Self {
            length: middle,
            ..self
        };
        let rest = Self {
            offset: self.offset + middle,
            length: self.length - middle,
            ..self
        };
        Ok((first, rest))
    }

    /// The parts of segments that make up the span.
    fn parts(self) -> impl Iterator<Item = Segment> + 'c {
        let mut skip = self.offset;
        let mut left = self.length;
        self.segments.iter().filter_map(move |segment| {
            let from = skip.min(segment.length);
            skip -= from;
            let length = (segment.length - from).min(left);
            left -= length;
            if length == 0 {
                return None;
            }
            let from = u64::try_from(from).ok()?;
            let place = segment.place;
            Some(Segment {
                address: segment.address.checked_add(from)?,
                length,
                place,
            })
        })
    }

    fn slice(self, part: Segment) -> Result<VolatileSlice<'c, ()>, AccessError> {
        self.chain
            .memory
            .slice(part.address, part.length)
            .ok_or(AccessError::Range {
                offset: self.offset,
                length: self.length,
                available: 0,
            })
    }

    fn image_error(self, part: Segment, source: io::Error) -> AccessError {
        self.chain
            .counters
            .unreachable
            .fetch_add(1, Ordering::Relaxed);
        AccessError::Image {
            address: part.address,
            source,
        }
    }

    fn image_bytes(self, part: Segment) -> Result<Vec<u8>, AccessError> {
        let mut bytes = vec![0; part.length];
        self.chain.counters.image.fetch_add(1, Ordering::Relaxed);
        self.chain
            .memory
            .read_image(part.address, &mut bytes)
            .map_err(|source| self.image_error(part, source))?;
        Ok(bytes)
    }

    fn write_image(self, part: Segment, bytes: &[u8]) -> Result<(), AccessError> {
        self.chain.counters.image.fetch_add(1, Ordering::Relaxed);
        self.chain
            .memory
            .write_image(part.address, bytes)
            .map_err(|source| self.image_error(part, source))
    }

    /// Hands runs of shared slices to `shared`, and each part in the kernel's image to `image`,
    /// in order, with the offset of each in the span.
    fn in_runs(
        self,
        mut shared: impl FnMut(u64, &mut Vec<VolatileSlice<'c, ()>>) -> Result<(), AccessError>,
        mut image: impl FnMut(u64, Segment) -> Result<(), AccessError>,
    ) -> Result<(), AccessError> {
        let mut run: Vec<VolatileSlice<'c, ()>> = Vec::new();
        let (mut start, mut at) = (0u64, 0u64);
        for part in self.parts() {
            if part.place == Place::Image {
                if !run.is_empty() {
                    shared(start, &mut run)?;
                    run.clear();
                }
                image(at, part)?;
            } else {
                if run.is_empty() {
                    start = at;
                }
                run.push(self.slice(part)?);
            }
            at += u64::try_from(part.length).unwrap_or(u64::MAX - at);
        }
        if run.is_empty() {
            Ok(())
        } else {
            shared(start, &mut run)
        }
    }
}

/// Calls `step` with a file position and slices until it has dealt with all of `run`; where it
/// does nothing, the error is `stuck`.
fn transfer<'c>(
    run: &mut Vec<VolatileSlice<'c, ()>>,
    mut at: u64,
    stuck: io::ErrorKind,
    step: impl Fn(u64, &[VolatileSlice<'c, ()>]) -> io::Result<usize>,
) -> Result<(), AccessError> {
    while !run.is_empty() {
        let batch = run.len().min(SLICES_MAX);
        match step(at, &run[..batch]) {
            Ok(0) => return Err(io::Error::from(stuck).into()),
            Ok(count) => {
                at = add(at, u64::try_from(count).unwrap_or(u64::MAX))?;
                advance(run, count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Drops the first `count` bytes of a list of slices.
fn advance(slices: &mut Vec<VolatileSlice<'_, ()>>, mut count: usize) {
    let mut whole = 0;
    for slice in slices.iter_mut() {
        if count < slice.len() {
            if let Ok(rest) = slice.offset(count) {
                *slice = rest;
            }
            break;
        }
        count -= slice.len();
        whole += 1;
    }
    slices.drain(..whole);
}

/// Bytes that the guest offers for reading.
#[derive(Clone, Copy, Debug)]
pub struct Readable<'c>(Span<'c>);

impl<'c> Readable<'c> {
    /// Bytes in the span.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.length
    }

    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.length == 0
    }

    /// The first `middle` bytes, and the rest.
    ///
    /// # Errors
    /// The span is shorter.
    pub fn split_at(self, middle: usize) -> Result<(Self, Self), AccessError> {
        self.0
            .split_at(middle)
            .map(|(first, rest)| (Self(first), Self(rest)))
    }

    /// Copies the span's first bytes until `target` is full.
    ///
    /// # Errors
    /// The span is shorter than `target`, or lies where it cannot be reached.
    pub fn copy_to(self, target: &mut [u8]) -> Result<(), AccessError> {
        let (span, _) = self.0.split_at(target.len())?;
        let mut rest = target;
        for part in span.parts() {
            let (now, later) = rest.split_at_mut(part.length);
            match part.place {
                Place::Shared => {
                    span.slice(part)?.copy_to(now);
                }
                Place::Image => now.copy_from_slice(&span.image_bytes(part)?),
            }
            rest = later;
        }
        Ok(())
    }

    /// Copies the whole span.
    ///
    /// # Errors
    /// It lies where it cannot be reached.
    pub fn to_vec(self) -> Result<Vec<u8>, AccessError> {
        let mut bytes = vec![0; self.len()];
        self.copy_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the whole span to byte `at` of a file, without a copy in between.
    ///
    /// # Errors
    /// The file refuses (`WriteZero` where it takes no more), or the span cannot be reached.
    pub fn write_to_file(self, file: &File, at: u64) -> Result<(), AccessError> {
        let span = self.0;
        span.in_runs(
            |offset, run| {
                transfer(
                    run,
                    add(at, offset)?,
                    io::ErrorKind::WriteZero,
                    |at, slices| write_file_at(file.as_fd(), at, slices),
                )
            },
            |offset, part| {
                let bytes = span.image_bytes(part)?;
                let position = add(at, offset)?;
                Ok(std::os::unix::fs::FileExt::write_all_at(
                    file, &bytes, position,
                )?)
            },
        )
    }
}

/// Bytes that the guest wants filled.
#[derive(Clone, Copy, Debug)]
pub struct Writable<'c>(Span<'c>);

impl<'c> Writable<'c> {
    /// Bytes in the span.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.length
    }

    /// Whether there is nothing to fill.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.length == 0
    }

    /// The first `middle` bytes, and the rest.
    ///
    /// # Errors
    /// The span is shorter.
    pub fn split_at(self, middle: usize) -> Result<(Self, Self), AccessError> {
        self.0
            .split_at(middle)
            .map(|(first, rest)| (Self(first), Self(rest)))
    }

    /// Copies all of `source` to the span's beginning.
    ///
    /// # Errors
    /// The span is shorter than `source`, or lies where it cannot be reached.
    pub fn copy_from(self, source: &[u8]) -> Result<(), AccessError> {
        let (span, _) = self.0.split_at(source.len())?;
        let mut rest = source;
        for part in span.parts() {
            let (now, later) = rest.split_at(part.length);
            match part.place {
                Place::Shared => span.slice(part)?.copy_from(now),
                Place::Image => span.write_image(part, now)?,
            }
            rest = later;
        }
        Ok(())
    }

    /// Fills the whole span with zeroes.
    ///
    /// # Errors
    /// It lies where it cannot be reached.
    pub fn fill_zero(self) -> Result<(), AccessError> {
        const ZEROES: [u8; 4096] = [0; 4096];
        let mut rest = self;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(ZEROES.len()))?;
            now.copy_from(&ZEROES[..now.len()])?;
            rest = later;
        }
        Ok(())
    }

    /// Fills the whole span from byte `at` of a file, without a copy in between.
    ///
    /// # Errors
    /// The file refuses or ends too early (`UnexpectedEof`), or the span cannot be reached.
    pub fn read_from_file(self, file: &File, at: u64) -> Result<(), AccessError> {
        let span = self.0;
        span.in_runs(
            |offset, run| {
                transfer(
                    run,
                    add(at, offset)?,
                    io::ErrorKind::UnexpectedEof,
                    |at, slices| read_file_at(file.as_fd(), at, slices),
                )
            },
            |offset, part| {
                let mut bytes = vec![0; part.length];
                let position = add(at, offset)?;
                std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, position)?;
                span.write_image(part, &bytes)
            },
        )
    }
}

fn add(at: u64, count: u64) -> Result<u64, AccessError> {
    at.checked_add(count)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput).into())
}
