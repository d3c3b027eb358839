//! Compressed units of a disk: clusters of qcow2, grains of VMDK.

use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Decompress, FlushDecompress};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::DiskError;

/// The largest unit, in bytes: qcow2's limit, which others keep too.
pub(super) const UNIT_BYTES_MAX: u64 = 2 << 20;
/// The largest window of zstd as a power of two: more than any unit needs.
const ZSTD_WINDOW_LOG_MAX: u32 = 22;
/// Units that stay unpacked have so many bytes together, or are one.
const KEPT_BYTES: usize = 1 << 20;

/// How units are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// RFC 1951.
    Deflate,
    /// RFC 1950.
    Zlib,
    /// RFC 8878.
    Zstd,
}

impl Codec {
    /// What a byte unpacks to at most, in bytes.
    pub(super) fn ratio_max(self) -> u64 {
        match self {
            // Two bits for 258 bytes.
            Self::Deflate | Self::Zlib => 1032,
            // A block of four bytes for 128 KiB.
            Self::Zstd => 32 << 10,
        }
    }
}

/// What unpacks a unit after the other.
enum State {
    Flate(Decompress),
    Zstd(Decoder<'static>),
}

/// Unpacks units for any number of threads.
pub(super) struct Unpacker {
    codec: Codec,
    /// Not in use at the moment.
    idle: Mutex<Vec<State>>,
    /// By where they are in the file, the one that was used last at the end.
    kept: Mutex<Vec<(u64, Arc<[u8]>)>>,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.codec.fmt(formatter)
    }
}

impl Unpacker {
    pub(super) fn new(codec: Codec) -> Self {
        Self {
            codec,
            idle: Mutex::new(Vec::new()),
            kept: Mutex::new(Vec::new()),
        }
    }

    /// Unpacks to exactly the bytes that `output` has room for; what more there is does not matter.
    /// The error says what is wrong.
    pub(super) fn unpack(&self, input: &[u8], output: &mut [u8]) -> Result<(), String> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle_state = idle().pop();
        let mut state = match idle_state {
            Some(state) => state,
            None => State::new(self.codec)?,
        };
        let length = state.unpack(self.codec, input, output)?;
        idle().push(state);
        if length < output.len() {
            let wanted = output.len();
            return Err(format!("it unpacks to {length} bytes instead of {wanted}"));
        }
        Ok(())
    }

    /// A unit at `key`, which `read` unpacks where it is not kept.
    pub(super) fn kept(
        &self,
        key: u64,
        read: impl FnOnce() -> Result<Vec<u8>, DiskError>,
    ) -> Result<Arc<[u8]>, DiskError> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut kept = kept();
            if let Some(position) = kept.iter().position(|unit| unit.0 == key) {
                kept[position..].rotate_left(1);
                return Ok(kept.last().map(|unit| unit.1.clone()).unwrap_or_default());
            }
        }
        let unit: Arc<[u8]> = read()?.into();
        let mut kept = kept();
        let count_max = (KEPT_BYTES / unit.len().max(1)).clamp(1, 16);
        while kept.len() >= count_max {
            kept.remove(0);
        }
        kept.push((key, unit.clone()));
        Ok(unit)
    }
}

impl State {
    fn new(codec: Codec) -> Result<Self, String> {
        Ok(match codec {
            Codec::Deflate => Self::Flate(Decompress::new(false)),
            Codec::Zlib => Self::Flate(Decompress::new(true)),
            Codec::Zstd => {
                let mut decoder = Decoder::new().map_err(|error| error.to_string())?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))
                    .map_err(|error| error.to_string())?;
                Self::Zstd(decoder)
            }
        })
    }

    /// Gives how many bytes there were, at most those of `output`.
    fn unpack(&mut self, codec: Codec, input: &[u8], output: &mut [u8]) -> Result<usize, String> {
        match self {
            Self::Flate(inflate) => {
                inflate.reset(codec == Codec::Zlib);
                inflate
                    .decompress(input, output, FlushDecompress::Finish)
                    .map_err(|error| error.to_string())?;
                Ok(usize::try_from(inflate.total_out()).unwrap_or(usize::MAX))
            }
            Self::Zstd(decoder) => unpack_zstd(decoder, input, output),
        }
    }
}

fn unpack_zstd(
    decoder: &mut Decoder<'static>,
    input: &[u8],
    output: &mut [u8],
) -> Result<usize, String> {
    decoder.reinit().map_err(|error| error.to_string())?;
    let mut input = InBuffer::around(input);
    let length = output.len();
    let mut output = OutBuffer::around(output);
    while output.pos() < length {
        let before = (input.pos(), output.pos());
        let rest = decoder
            .run(&mut input, &mut output)
            .map_err(|error| error.to_string())?;
        // The frame's end, or the input's.
        if rest == 0 || before == (input.pos(), output.pos()) {
            break;
        }
    }
    Ok(output.pos())
}
