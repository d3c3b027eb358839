//! Why a stream was refused.

use std::io;

use super::Compression;

/// Why a stream was refused; found inside the [`io::Error`]s of this module.
///
/// Offsets are bytes of the compressed input; they say how far a decoder had read when it gave up,
/// for bzip2 blocks where the block starts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressError {
    /// A compression format that coop does not read.
    #[error("the input is {0}, which is not supported; gzip, bzip2, xz and zstd are")]
    Unsupported(&'static str),
    /// The input breaks its format, or a checksum differs.
    #[error("the {format} data is damaged at byte {offset}: {reason}")]
    Corrupt {
        /// Name of the format.
        format: &'static str,
        /// Where.
        offset: u64,
        /// What the decoder says.
        reason: String,
    },
    /// The input ends within a member, stream or frame.
    #[error("the {format} data is cut short: it ends after {offset} bytes")]
    Truncated {
        /// Name of the format.
        format: &'static str,
        /// Length of the input.
        offset: u64,
    },
    /// Something else follows the last member, stream or frame.
    #[error("the {format} data ends at byte {offset}, and something that is not {format} follows")]
    Trailing {
        /// Name of the format.
        format: &'static str,
        /// Where the foreign bytes start.
        offset: u64,
    },
    /// More output than [`Limits::output_bytes`](super::Limits::output_bytes).
    #[error("the input unpacks to more than {0} bytes, coop's limit")]
    TooLarge(u64),
    /// More output for each byte of input than [`Limits::ratio`](super::Limits::ratio).
    #[error("the input unpacks to more than {0} times its size, coop's limit")]
    Ratio(u64),
    /// [`XZ_MEMORY_MAX_BYTES`](super::XZ_MEMORY_MAX_BYTES) or
    /// [`ZSTD_WINDOW_LOG_MAX`](super::ZSTD_WINDOW_LOG_MAX).
    #[error(
        "unpacking the {format} data from byte {offset} on needs more than {limit} bytes of \
         memory, coop's limit"
    )]
    Memory {
        /// Name of the format.
        format: &'static str,
        /// Where.
        offset: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// [`BZIP2_BLOCK_BYTES_MAX`](super::BZIP2_BLOCK_BYTES_MAX).
    #[error(
        "the bzip2 block at byte {offset} has more than {limit} bytes, coop's limit; \
         no compressor writes such blocks"
    )]
    BlockTooLong {
        /// Where the block starts.
        offset: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A thread ended without a result.
    #[error("the decompressing thread ended early; this is a defect of coop")]
    ThreadLost,
}

impl From<CompressError> for io::Error {
    fn from(error: CompressError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Damage at `offset`.
pub(super) fn corrupt(format: Compression, offset: u64, reason: impl ToString) -> io::Error {
    CompressError::Corrupt {
        format: format.name(),
        offset,
        reason: reason.to_string(),
    }
    .into()
}

/// The end of the input, too early.
pub(super) fn truncated(format: Compression, offset: u64) -> io::Error {
    let format = format.name();
    CompressError::Truncated { format, offset }.into()
}

/// Foreign bytes at `offset`.
pub(super) fn trailing(format: Compression, offset: u64) -> io::Error {
    let format = format.name();
    CompressError::Trailing { format, offset }.into()
}
