//! The frames that wait for the guest, and the device that `smoltcp` sees.

use std::collections::VecDeque;
use std::num::{NonZeroU16, NonZeroUsize};

use smoltcp::phy::{
    ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken,
};
use smoltcp::time::Instant;

use super::frame::ETHERNET_HEADER_BYTES;
use super::{Outgoing, checksum};

/// From this many waiting bytes on, connections stop filling the queue.
pub(super) const OUT_BYTES_SOFT_MAX: usize = 1 << 20;
/// From this many waiting frames on, connections stop filling the queue.
pub(super) const OUT_FRAMES_SOFT_MAX: usize = 1024;
/// Answers (ARP, ICMP, resets, acknowledgements) are dropped beyond this many times the soft
/// limits: a guest that asks without reading must not make us grow.
const HARD_FACTOR: usize = 2;
/// Longest frame with a TCP segment that the guest is to cut up, in bytes.
const LARGE_FRAME_BYTES: usize = 65_535;
/// How many used buffers are kept for the next frames.
const SPARE_BUFFERS_MAX: usize = 64;

/// A frame in a buffer that may be longer than it.
#[derive(Debug)]
struct Frame {
    buffer: Vec<u8>,
    len: usize,
    partial: bool,
    segment_bytes: Option<NonZeroU16>,
}

/// The frames that wait for the guest, oldest first.
#[derive(Debug, Default)]
pub(super) struct OutQueue {
    frames: VecDeque<Frame>,
    spare: Vec<Vec<u8>>,
    bytes: usize,
    /// TCP checksums are left to the guest.
    pub(super) partial: bool,
    /// Frames dropped because the guest does not take them.
    pub(super) dropped: u64,
}

impl OutQueue {
    /// Whether connections may add to it.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < OUT_BYTES_SOFT_MAX && self.frames.len() < OUT_FRAMES_SOFT_MAX
    }

    /// Adds a frame of `len` bytes that `fill` writes; every byte of it must be written.
    pub(super) fn push_with<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.push_segments(len, None, fill)
    }

    /// Adds a frame that the guest may have to cut into segments of `segment_bytes`.
    fn push_segments<R>(
        &mut self,
        len: usize,
        segment_bytes: Option<NonZeroU16>,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let mut buffer = self.spare.pop().unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        // Cannot fail: the buffer was just made long enough.
        let bytes = buffer.get_mut(..len).unwrap_or_default();
        let result = fill(bytes);
        let partial = self.partial && checksum::begin(bytes);
        let full = self.bytes >= OUT_BYTES_SOFT_MAX * HARD_FACTOR
            || self.frames.len() >= OUT_FRAMES_SOFT_MAX * HARD_FACTOR;
        if full {
            self.dropped += 1;
            self.recycle(buffer);
        } else {
            self.bytes += len;
            self.frames.push_back(Frame {
                buffer,
                len,
                partial,
                segment_bytes,
            });
        }
        result
    }

    /// The oldest frame.
    pub(super) fn front(&self) -> Option<Outgoing<'_>> {
        let frame = self.frames.front()?;
        Some(Outgoing {
            bytes: frame.buffer.get(..frame.len)?,
            partial_checksum: frame.partial,
            segment_bytes: frame.segment_bytes,
        })
    }

    /// Lets the oldest frame go.
    pub(super) fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.len;
            self.recycle(frame.buffer);
        }
    }

    /// Lets all frames go.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX {
            self.spare.push(buffer);
        }
    }
}

/// The link as `smoltcp` sees it during one call: at most one frame comes in, any number goes out.
#[derive(Debug)]
pub(super) struct Link<'a> {
    /// The frame that comes in.
    pub(super) frame: Option<&'a [u8]>,
    /// Where frames go out.
    pub(super) out: &'a mut OutQueue,
    /// Largest IP packet, in bytes.
    pub(super) mtu: usize,
    /// Who computes and checks checksums.
    pub(super) checksums: &'a ChecksumCapabilities,
    /// The guest takes segments as long as a packet can be.
    pub(super) large_segments: bool,
}

impl Device for Link<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Transmit<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Transmit<'_>)> {
        let frame = self.frame.take()?;
        Some((Received(frame), Transmit::new(self.out)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Transmit<'_>> {
        self.out.has_room().then_some(Transmit::new(self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER_BYTES;
        capabilities.checksum = self.checksums.clone();
        if self.large_segments {
            capabilities.segmentation.tcpv4 = NonZeroUsize::new(LARGE_FRAME_BYTES);
        }
        capabilities
    }
}

/// A frame that came in.
#[derive(Debug)]
pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

/// Leave to send one frame.
#[derive(Debug)]
pub(super) struct Transmit<'a> {
    out: &'a mut OutQueue,
    segment_bytes: Option<NonZeroU16>,
}

impl<'a> Transmit<'a> {
    fn new(out: &'a mut OutQueue) -> Self {
        Self {
            out,
            segment_bytes: None,
        }
    }
}

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        self.out.push_segments(len, self.segment_bytes, fill)
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment_bytes = meta.segmentation_offload_size;
    }
}
