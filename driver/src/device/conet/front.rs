//! The virtio-net device (virtio 1.3, section 5.1), without a control queue.
//!
//! Receive buffers are merged, so that the guest need not set aside 64 KiB for each; checksums and
//! the cutting of TCP streams into packets are left out in both directions where the guest agrees.

use std::os::fd::BorrowedFd;

use super::checksum::{TCP_AT, TCP_CHECKSUM_AT};
use super::{NetBackend, Offloads, Outgoing};
use crate::transport::{Chain, Device, Queues, Waker};

/// Virtio's number of a network device.
const DEVICE_ID: u32 = 1;
/// The queues, 5.1.2.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const QUEUES: usize = 2;

/// Feature bits, 5.1.3.
const F_CSUM: u64 = 1 << 0;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_GUEST_TSO4: u64 = 1 << 7;
const F_HOST_TSO4: u64 = 1 << 11;
const F_MRG_RXBUF: u64 = 1 << 15;
const F_STATUS: u64 = 1 << 16;
/// The status in the configuration space: the link is up, 5.1.4.
const S_LINK_UP: u16 = 1;

/// `struct virtio_net_hdr` with `num_buffers`, as a modern driver has it, 5.1.6.
const HEADER_BYTES: usize = 12;
const HDR_F_NEEDS_CSUM: u8 = 1;
const HDR_GSO_TCPV4: u8 = 1;
/// Ethernet, IPv4 and TCP headers without options, a hint for the driver.
const HEADERS_BYTES: u16 = 54;

/// Longest frame of a guest, in bytes: the longest IP packet behind an Ethernet header.
const FRAME_BYTES_MAX: usize = 65_535 + 14;
/// How many receive buffers one frame may fill. A guest whose buffers are smaller loses frames.
const BUFFERS_PER_FRAME_MAX: usize = 64;
/// How many frames of the guest are taken before the backend works on them.
const FRAMES_PER_BATCH: usize = 64;
/// How many batches pass before the device's thread looks at its other events.
const BATCHES_PER_TURN: usize = 16;

/// A network device with a backend behind it.
#[derive(Debug)]
pub struct Conet<B> {
    backend: B,
    waker: Option<Waker>,
    /// Frames of the guest may be left from the last turn.
    unfinished: bool,
    features: u64,
    /// The guest's frame that is being taken.
    frame: Vec<u8>,
    /// Receive buffers that the next frame will fill, and how many bytes they hold.
    held: Vec<Chain>,
    held_bytes: usize,
    /// Those of the frame that is being given.
    filled: Vec<(Chain, usize)>,
}

impl<B: NetBackend> Conet<B> {
    /// A device in front of `backend`.
    #[must_use]
    pub fn new(backend: B) -> Self {
        Self {
            backend,
            waker: None,
            unfinished: false,
            features: 0,
            frame: vec![0; FRAME_BYTES_MAX],
            held: Vec::new(),
            held_bytes: 0,
            filled: Vec::new(),
        }
    }

    /// Takes frames of the guest until there are no more, or others must have their turn.
    fn take(&mut self, queues: &mut Queues) {
        for _ in 0..BATCHES_PER_TURN {
            let mut taken = 0;
            while taken < FRAMES_PER_BATCH
                && let Some(chain) = queues.pop(TRANSMIT)
            {
                match frame_length(&chain) {
                    Some(length) if self.read(&chain, length) => {
                        self.backend
                            .transmit(self.frame.get(..length).unwrap_or_default());
                        queues.complete(chain, 0);
                    }
                    Some(_) => {
                        queues.count_failure();
                        queues.complete(chain, 0);
                    }
                    None => queues.refuse(chain),
                }
                taken += 1;
            }
            if taken == 0 {
                return;
            }
            self.give(queues);
        }
        self.unfinished = true;
        self.wake_again();
    }

    /// Copies a frame out of the guest's memory.
    fn read(&mut self, chain: &Chain, length: usize) -> bool {
        let Some(target) = self.frame.get_mut(..length) else {
            return false;
        };
        let frame = chain.readable().split_at(HEADER_BYTES);
        frame.is_ok_and(|(_, frame)| frame.copy_to(target).is_ok())
    }

    /// Lets the backend work, and gives the guest what it has, as long as there are buffers.
    fn give(&mut self, queues: &mut Queues) {
        for _ in 0..BATCHES_PER_TURN {
            self.backend.service();
            let mut given = 0;
            while given < FRAMES_PER_BATCH && self.give_one(queues) {
                given += 1;
            }
            if given == FRAMES_PER_BATCH {
                queues.flush(RECEIVE);
            } else if !self.backend.has_work() {
                return;
            }
        }
        self.wake_again();
    }

    /// Gives the guest one frame. False: there is none, or no buffer for it.
    fn give_one(&mut self, queues: &mut Queues) -> bool {
        let merges = self.features & F_MRG_RXBUF != 0;
        let Some(frame) = self.backend.frame() else {
            return false;
        };
        let needed = HEADER_BYTES + frame.bytes.len();
        while self.held_bytes < needed {
            let full = self.held.len() >= if merges { BUFFERS_PER_FRAME_MAX } else { 1 };
            if full {
                // Too small for this frame; the buffers may do for the next.
                queues.count_failure();
                self.backend.pop_frame();
                return true;
            }
            let Some(chain) = queues.pop(RECEIVE) else {
                return false;
            };
            let bytes = chain.writable().len();
            if bytes < HEADER_BYTES || !chain.readable().is_empty() {
                queues.refuse(chain);
                continue;
            }
            self.held_bytes += bytes;
            self.held.push(chain);
        }
        let count = buffers_for(&self.held, needed);
        let header = header(&frame, count);
        let chains = self.held.drain(..count);
        let mut rest = needed;
        let lengths = chains.map(|chain| {
            let bytes = chain.writable().len();
            let written = bytes.min(rest);
            rest -= written;
            self.held_bytes -= bytes;
            (chain, written)
        });
        self.filled.extend(lengths);
        if !fill(&self.filled, &header, frame.bytes) {
            queues.count_failure();
        }
        queues.complete_together(&mut self.filled);
        self.backend.pop_frame();
        true
    }

    fn wake_again(&self) {
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

impl<B: NetBackend> Device for Conet<B> {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_count(&self) -> usize {
        QUEUES
    }

    fn features(&self) -> u64 {
        F_CSUM | F_GUEST_CSUM | F_MTU | F_MAC | F_GUEST_TSO4 | F_HOST_TSO4 | F_MRG_RXBUF | F_STATUS
    }

    fn config(&self) -> Vec<u8> {
        let mut config = Vec::from(self.backend.mac());
        config.extend(S_LINK_UP.to_le_bytes());
        config.extend(1_u16.to_le_bytes()); // pairs of queues
        config.extend(self.backend.mtu().to_le_bytes());
        config
    }

    fn attach(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.backend.readiness())
    }

    fn negotiate(&mut self, features: u64) {
        self.features = features;
        let has = |bit: u64| features & bit != 0;
        self.backend.reset(Offloads {
            guest_omits_checksums: has(F_CSUM),
            guest_completes_checksums: has(F_GUEST_CSUM),
            guest_sends_large_segments: has(F_HOST_TSO4) && has(F_CSUM),
            // Without merging, the driver promises large buffers when it agrees to this.
            guest_takes_large_segments: has(F_GUEST_TSO4) && has(F_GUEST_CSUM),
        });
    }

    fn process(&mut self, queue: usize, queues: &mut Queues) {
        match queue {
            TRANSMIT => self.take(queues),
            _ => self.give(queues),
        }
    }

    fn wake(&mut self, queues: &mut Queues) {
        self.give(queues);
        if std::mem::take(&mut self.unfinished) {
            self.take(queues);
        }
    }

    fn stopped(&mut self, queue: usize) {
        if queue == RECEIVE {
            self.held.clear();
            self.held_bytes = 0;
        }
    }
}

/// How long the frame in a chain of the guest is. `None`: it is none.
fn frame_length(chain: &Chain) -> Option<usize> {
    let length = chain.readable().len().checked_sub(HEADER_BYTES)?;
    let valid = (1..=FRAME_BYTES_MAX).contains(&length) && chain.writable().is_empty();
    valid.then_some(length)
}

/// How many of the buffers in front hold `needed` bytes.
fn buffers_for(held: &[Chain], needed: usize) -> usize {
    let mut bytes = 0;
    let enough = held.iter().position(|chain| {
        bytes += chain.writable().len();
        bytes >= needed
    });
    enough.map_or(held.len(), |last| last + 1)
}

/// The header in front of a frame that fills `buffers` buffers.
fn header(frame: &Outgoing<'_>, buffers: usize) -> [u8; HEADER_BYTES] {
    let mut flags = 0;
    let (mut gso_type, mut hdr_len, mut gso_size) = (0, 0_u16, 0_u16);
    let (mut csum_start, mut csum_offset) = (0, 0);
    if frame.partial_checksum {
        flags = HDR_F_NEEDS_CSUM;
        (csum_start, csum_offset) = (TCP_AT, TCP_CHECKSUM_AT);
        if let Some(bytes) = frame.segment_bytes {
            (gso_type, hdr_len, gso_size) = (HDR_GSO_TCPV4, HEADERS_BYTES, bytes.get());
        }
    }
    // At most a frame's buffers, which fit.
    let buffers = u16::try_from(buffers).unwrap_or(u16::MAX);
    let mut header = [0; HEADER_BYTES];
    let fields = [hdr_len, gso_size, csum_start, csum_offset, buffers];
    let bytes = [flags, gso_type]
        .into_iter()
        .chain(fields.into_iter().flat_map(u16::to_le_bytes));
    for (place, byte) in header.iter_mut().zip(bytes) {
        *place = byte;
    }
    header
}

/// Writes header and frame over the buffers. False: a buffer cannot be reached.
fn fill(buffers: &[(Chain, usize)], header: &[u8], frame: &[u8]) -> bool {
    let mut rest = frame;
    let mut good = true;
    for (index, (chain, written)) in buffers.iter().enumerate() {
        let mut target = chain.writable();
        let mut room = *written;
        if index == 0 {
            // Every buffer has room for a header.
            good &= target.copy_from(header).is_ok();
            let Ok((_, after)) = target.split_at(header.len()) else {
                return false;
            };
            target = after;
            room = room.saturating_sub(header.len());
        }
        let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
        good &= target.copy_from(now).is_ok();
        rest = later;
    }
    good && rest.is_empty()
}
