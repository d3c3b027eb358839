//! Frames: a 32-bit little-endian length, then so many bytes, of which the first is the kind.

use std::fmt;

/// Bytes of a frame before its body.
pub const HEADER_SIZE: usize = 4;
/// The most data that one frame carries, in bytes.
pub const DATA_MAX: usize = 64 << 10;
/// The largest body that the guest may send: data and its few fields.
pub const REPLY_MAX: usize = DATA_MAX + 64;
/// The largest body that the host may send: a command with its arguments and environment.
pub const REQUEST_MAX: usize = 1 << 20;

/// A frame that breaks the rules. Nothing can follow it: the frames' borders are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A body longer than the limit was announced.
    TooLong {
        /// The announced length in bytes.
        length: u32,
        /// The limit in bytes.
        limit: usize,
    },
    /// A body without a kind.
    Empty,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length, limit } => {
                write!(f, "frame of {length} bytes is over the limit of {limit}")
            }
            Self::Empty => write!(f, "frame of 0 bytes has no kind"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Cuts a byte stream into frame bodies.
///
/// It holds one body and what was pushed behind it, so a caller that takes every whole frame after
/// each push bounds the memory by the limit and the size of a push.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    limit: usize,
}

impl Decoder {
    /// A decoder for bodies of up to `limit` bytes: [`REPLY_MAX`] or [`REQUEST_MAX`].
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            limit,
        }
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole body, if it has arrived.
    ///
    /// # Errors
    /// The stream is not made of frames; the caller must give it up.
    pub fn take(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let unread = self.buffer.get(self.start..).unwrap_or_default();
        let Some((header, rest)) = unread.split_first_chunk::<HEADER_SIZE>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header);
        let limit = self.limit;
        let too_long = FrameError::TooLong { length, limit };
        let count = usize::try_from(length).map_err(|_| too_long)?;
        if count > limit {
            return Err(too_long);
        }
        if count == 0 {
            return Err(FrameError::Empty);
        }
        let Some(body) = rest.get(..count) else {
            return Ok(None);
        };
        self.start += HEADER_SIZE + count;
        Ok(Some(body))
    }
}

/// Appends a frame whose body `fill` writes.
pub(crate) fn append(buffer: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_SIZE]);
    fill(buffer);
    let length = u32::try_from(buffer.len() - start - HEADER_SIZE).unwrap_or(u32::MAX);
    if let Some(header) = buffer.get_mut(start..start + HEADER_SIZE) {
        header.copy_from_slice(&length.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut stream = Vec::new();
        append(&mut stream, |body| body.extend_from_slice(b"one"));
        append(&mut stream, |body| body.extend_from_slice(&[7; 300]));
        append(&mut stream, |body| body.push(9));
        for size in 1..stream.len() {
            let mut decoder = Decoder::new(300);
            let mut bodies = Vec::new();
            for piece in stream.chunks(size) {
                decoder.push(piece);
                while let Some(body) = decoder.take().unwrap() {
                    bodies.push(body.to_vec());
                }
            }
            assert_eq!(bodies, [b"one".to_vec(), vec![7; 300], vec![9]]);
        }
    }

    #[test]
    fn bad_lengths_are_refused_before_anything_is_stored() {
        let mut decoder = Decoder::new(10);
        decoder.push(&11_u32.to_le_bytes());
        let (length, limit) = (11, 10);
        assert_eq!(decoder.take(), Err(FrameError::TooLong { length, limit }));
        let mut decoder = Decoder::new(10);
        decoder.push(&[0; 4]);
        assert_eq!(decoder.take(), Err(FrameError::Empty));
    }
}
