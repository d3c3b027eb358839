//! Bounds on what comes out of a decompressor.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::CompressError;
use super::{Compression, as_u64};

/// Bounds on what comes out of a decompressor.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Total bytes of output.
    pub output_bytes: u64,
    /// Output bytes for each input byte read, once [`Limits::RATIO_FREE_BYTES`] have come out.
    pub ratio: u64,
}

impl Limits {
    /// The ratio is looked at only beyond this much output (64 MiB): long runs of zeroes in a
    /// small archive are ordinary.
    pub const RATIO_FREE_BYTES: u64 = 64 << 20;
}

impl Default for Limits {
    /// 1 TiB of output and a ratio of 10,000. Real file systems stay below 100, gzip cannot exceed
    /// 1032; only long runs of one byte in the other formats come near.
    fn default() -> Self {
        Self {
            output_bytes: 1 << 40,
            ratio: 10_000,
        }
    }
}

/// Holds a reader to its limits.
pub(super) struct Limited<R> {
    pub(super) reader: R,
    pub(super) format: Compression,
    pub(super) limits: Limits,
    /// Bytes read from the compressed input.
    pub(super) input_bytes: Arc<AtomicU64>,
    pub(super) output_bytes: u64,
}

impl<R> Limited<R> {
    fn check(&self) -> Result<(), CompressError> {
        if self.output_bytes > self.limits.output_bytes {
            return Err(CompressError::TooLarge(self.limits.output_bytes));
        }
        let allowed = self
            .input_bytes
            .load(Ordering::Relaxed)
            .saturating_mul(self.limits.ratio)
            .max(Limits::RATIO_FREE_BYTES);
        if self.format != Compression::None && self.output_bytes > allowed {
            return Err(CompressError::Ratio(self.limits.ratio));
        }
        Ok(())
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.output_bytes = self.output_bytes.saturating_add(as_u64(count));
        self.check()?;
        Ok(count)
    }
}
