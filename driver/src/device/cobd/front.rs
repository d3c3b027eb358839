//! The virtio block device (virtio 1.3, section 5.2).

use std::io;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_S_IOERR,
    VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::{Disk, SECTOR_BYTES};
use crate::transport::{AccessError, Chain, Device, Queues, Readable, Writable};

/// Virtio's number of a block device.
const DEVICE_ID: u32 = 2;
/// Bytes of a request's header: type, reserved, first sector.
const HEADER_BYTES: usize = 16;
/// Bytes of one range of a discard or write-zeroes request.
const RANGE_BYTES: usize = 16;
/// Ranges of such a request at most.
const RANGES_MAX: u32 = 64;
/// Sectors of one such range at most: 1 GiB.
const RANGE_SECTORS_MAX: u32 = 1 << 21;
/// Flag of a write-zeroes range: the space may be given up.
const UNMAP: u32 = 1;
/// Data descriptors of a request at most, beside header and status.
const SEGMENTS: u32 = 254;
/// What the guest's file systems should take as the block size, in bytes.
const BLOCK_BYTES: u32 = 512;
/// Physical block size, as a power of two of [`BLOCK_BYTES`].
const PHYSICAL_BLOCK_EXPONENT: u8 = 3;
/// Bytes of the identification that a guest can ask for.
pub const SERIAL_BYTES: usize = 20;

/// A block device over a [`Disk`].
pub struct Cobd {
    disk: Box<dyn Disk>,
    serial: [u8; SERIAL_BYTES],
}

/// How a request ended, in virtio's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    Failed,
    Unsupported,
}

impl Status {
    fn byte(self) -> u8 {
        let number = match self {
            Self::Ok => VIRTIO_BLK_S_OK,
            Self::Failed => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        };
        u8::try_from(number).unwrap_or(u8::MAX)
    }
}

impl From<Result<(), AccessError>> for Status {
    fn from(result: Result<(), AccessError>) -> Self {
        if result.is_ok() {
            Self::Ok
        } else {
            Self::Failed
        }
    }
}

impl From<io::Result<()>> for Status {
    fn from(result: io::Result<()>) -> Self {
        if result.is_ok() {
            Self::Ok
        } else {
            Self::Failed
        }
    }
}

/// A request's parts: kind, first sector, data to read or to fill, and the place of its status.
struct Request<'c> {
    kind: u32,
    sector: u64,
    source: Readable<'c>,
    target: Writable<'c>,
    status: Writable<'c>,
}

impl<'c> Request<'c> {
    /// Nothing where the chain has no header, or no room for a status.
    fn parse(chain: &'c Chain) -> Option<Self> {
        let (header, source) = chain.readable().split_at(HEADER_BYTES).ok()?;
        let room = chain.writable();
        let (target, status) = room.split_at(room.len().checked_sub(1)?).ok()?;
        let mut bytes = [0; HEADER_BYTES];
        header.copy_to(&mut bytes).ok()?;
        let [kind, _, low, high] = words(bytes);
        let sector = u64::from(high) << 32 | u64::from(low);
        Some(Self {
            kind,
            sector,
            source,
            target,
            status,
        })
    }
}

/// Four little-endian numbers.
fn words(bytes: [u8; 16]) -> [u32; 4] {
    let (words, _) = bytes.as_chunks::<4>();
    [0, 1, 2, 3].map(|index| u32::from_le_bytes(words[index]))
}

impl Cobd {
    /// Makes a block device. The guest can ask for `name` as its serial number; what is longer
    /// than [`SERIAL_BYTES`] is cut off.
    #[must_use]
    pub fn new(disk: Box<dyn Disk>, name: &str) -> Self {
        let mut serial = [0; SERIAL_BYTES];
        for (place, byte) in serial.iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        Self { disk, serial }
    }

    /// The byte range of `length` bytes from a sector, if it is a range of whole sectors inside
    /// the disk.
    fn range(&self, sector: u64, length: u64) -> Option<u64> {
        let at = sector.checked_mul(SECTOR_BYTES)?;
        let end = at.checked_add(length)?;
        (length.is_multiple_of(SECTOR_BYTES) && end <= self.disk.size_bytes()).then_some(at)
    }

    fn data_range(&self, sector: u64, length: usize) -> Option<u64> {
        self.range(sector, u64::try_from(length).ok()?)
    }

    fn execute(&mut self, request: &Request<'_>) -> Status {
        let (reads, writes) = (!request.target.is_empty(), !request.source.is_empty());
        match request.kind {
            VIRTIO_BLK_T_IN if !writes => self.read(request),
            VIRTIO_BLK_T_OUT if !reads => self.write(request),
            VIRTIO_BLK_T_FLUSH if !reads && !writes => self.disk.flush().into(),
            VIRTIO_BLK_T_GET_ID if !writes => self.identify(request),
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if !reads => self.ranges(request),
            VIRTIO_BLK_T_IN
            | VIRTIO_BLK_T_OUT
            | VIRTIO_BLK_T_FLUSH
            | VIRTIO_BLK_T_GET_ID
            | VIRTIO_BLK_T_DISCARD
            | VIRTIO_BLK_T_WRITE_ZEROES => Status::Failed,
            _ => Status::Unsupported,
        }
    }

    fn read(&mut self, request: &Request<'_>) -> Status {
        match self.data_range(request.sector, request.target.len()) {
            Some(at) => self.disk.read(at, request.target).into(),
            None => Status::Failed,
        }
    }

    fn write(&mut self, request: &Request<'_>) -> Status {
        match self.data_range(request.sector, request.source.len()) {
            Some(at) if !self.disk.is_read_only() => self.disk.write(at, request.source).into(),
            _ => Status::Failed,
        }
    }

    fn identify(&self, request: &Request<'_>) -> Status {
        let length = request.target.len().min(SERIAL_BYTES);
        request.target.copy_from(&self.serial[..length]).into()
    }

    /// Discard and write-zeroes: all ranges are checked before the first is touched.
    fn ranges(&mut self, request: &Request<'_>) -> Status {
        let count = request.source.len() / RANGE_BYTES;
        let whole = request.source.len().is_multiple_of(RANGE_BYTES);
        if self.disk.is_read_only()
            || !whole
            || count == 0
            || u32::try_from(count).is_ok_and(|count| count > RANGES_MAX)
        {
            return Status::Failed;
        }
        let Ok(bytes) = request.source.to_vec() else {
            return Status::Failed;
        };
        let mut ranges = Vec::with_capacity(count);
        for entry in bytes.as_chunks::<RANGE_BYTES>().0 {
            let [low, high, sectors, flags] = words(*entry);
            let allowed = if request.kind == VIRTIO_BLK_T_WRITE_ZEROES {
                UNMAP
            } else {
                0
            };
            if flags & !allowed != 0 {
                return Status::Unsupported;
            }
            let length = u64::from(sectors) * SECTOR_BYTES;
            let range = self.range(u64::from(high) << 32 | u64::from(low), length);
            match range {
                Some(at) if sectors <= RANGE_SECTORS_MAX => ranges.push((at, length, flags)),
                _ => return Status::Failed,
            }
        }
        for (at, length, flags) in ranges {
            let result = match request.kind {
                _ if length == 0 => Ok(()),
                VIRTIO_BLK_T_DISCARD => self.disk.discard(at, length),
                _ => self.disk.write_zeroes(at, length, flags & UNMAP != 0),
            };
            if result.is_err() {
                return Status::Failed;
            }
        }
        Status::Ok
    }

    /// Carries one chain out, and says how many bytes were filled in; nothing where the chain is
    /// no request.
    fn serve(&mut self, chain: &Chain, queues: &Queues) -> Option<usize> {
        let request = Request::parse(chain)?;
        let status = self.execute(&request);
        if status == Status::Failed {
            queues.count_failure();
        }
        request.status.copy_from(&[status.byte()]).ok()?;
        let filled = if status == Status::Ok {
            request.target.len()
        } else {
            0
        };
        Some(filled + 1)
    }
}

impl Device for Cobd {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_count(&self) -> usize {
        1
    }

    fn features(&self) -> u64 {
        let always = 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_TOPOLOGY
            | 1 << VIRTIO_BLK_F_FLUSH;
        if self.disk.is_read_only() {
            return always | 1 << VIRTIO_BLK_F_RO;
        }
        always | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
    }

    fn config(&self) -> Vec<u8> {
        let mut config = Vec::with_capacity(60);
        config.extend((self.disk.size_bytes() / SECTOR_BYTES).to_le_bytes());
        config.extend(0u32.to_le_bytes()); // size_max: not offered
        config.extend(SEGMENTS.to_le_bytes());
        config.extend([0; 4]); // geometry: not offered
        config.extend(BLOCK_BYTES.to_le_bytes());
        config.extend([PHYSICAL_BLOCK_EXPONENT, 0]); // physical block, alignment
        config.extend(8u16.to_le_bytes()); // smallest good transfer, in blocks
        config.extend(0u32.to_le_bytes()); // best transfer: unknown
        config.extend([0; 2]); // writeback: not offered; unused
        config.extend(1u16.to_le_bytes()); // queues
        config.extend(RANGE_SECTORS_MAX.to_le_bytes());
        config.extend(RANGES_MAX.to_le_bytes());
        config.extend(8u32.to_le_bytes()); // discard alignment, in sectors
        config.extend(RANGE_SECTORS_MAX.to_le_bytes());
        config.extend(RANGES_MAX.to_le_bytes());
        config.extend([1, 0, 0, 0]); // write-zeroes may unmap; unused
        config
    }

    fn process(&mut self, queue: usize, queues: &mut Queues) {
        while let Some(chain) = queues.pop(queue) {
            match self.serve(&chain, queues) {
                Some(filled) => queues.complete(chain, filled),
                None => queues.refuse(chain),
            }
        }
    }
}
