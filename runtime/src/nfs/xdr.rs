//! External data representation, RFC 4506: big-endian words, byte strings padded to four bytes.

/// What was read is not what the grammar says, or longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbage;

/// Reads values from the front of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbage> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Garbage)?;
        self.rest = rest;
        Ok(*array)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Garbage> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Garbage> {
        self.array().map(u64::from_be_bytes)
    }

    /// Bytes of a length that the grammar fixes, a multiple of four.
    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Garbage> {
        self.array()
    }

    /// A byte string of at most `limit` bytes.
    pub(super) fn opaque(&mut self, limit: usize) -> Result<&'a [u8], Garbage> {
        let length = usize::try_from(self.u32()?).map_err(|_| Garbage)?;
        if length > limit {
            return Err(Garbage);
        }
        let (padded, rest) = self
            .rest
            .split_at_checked(length.next_multiple_of(4))
            .ok_or(Garbage)?;
        self.rest = rest;
        padded.get(..length).ok_or(Garbage)
    }
}

/// Builds a message.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    /// Words that are zero: `false`, an empty list, "nothing".
    pub(super) fn zeroes(&mut self, words: usize) {
        (0..words).for_each(|_| self.u32(0));
    }

    /// Bytes of a length that the grammar fixes, a multiple of four.
    pub(super) fn fixed(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len().is_multiple_of(4));
        self.bytes.extend_from_slice(bytes);
    }

    /// A byte string. None of ours reaches 4 GiB.
    pub(super) fn opaque(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// A byte string of `length` zeroes, for the caller to fill.
    pub(super) fn opaque_zeroed(&mut self, length: usize) -> &mut [u8] {
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
        let start = self.bytes.len();
        self.bytes.resize(start + length.next_multiple_of(4), 0);
        self.bytes
            .get_mut(start..start + length)
            .unwrap_or_default()
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    /// How many bytes there are so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets what comes after the first `length` bytes.
    pub(super) fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut writer = Writer::default();
        writer.u32(7);
        writer.u64(u64::MAX);
        writer.bool(true);
        writer.opaque(b"hello");
        writer.opaque_zeroed(2).copy_from_slice(b"ab");
        writer.fixed(&[1; 8]);
        let bytes = writer.into_bytes();
        assert!(bytes.len().is_multiple_of(4));
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u32(), Ok(7));
        assert_eq!(reader.u64(), Ok(u64::MAX));
        assert_eq!(reader.u32(), Ok(1));
        assert_eq!(reader.opaque(5), Ok(&b"hello"[..]));
        assert_eq!(reader.opaque(2), Ok(&b"ab"[..]));
        assert_eq!(reader.fixed(), Ok([1; 8]));
        assert_eq!(reader.u32(), Err(Garbage));
    }

    #[test]
    fn lengths_are_checked() {
        let text = |length: u32, rest: &[u8]| [&length.to_be_bytes(), rest].concat();
        for (bytes, limit) in [
            (text(5, b"hello\0\0\0"), 4),
            (text(5, b"hello\0\0"), 8),
            (text(u32::MAX, b"hello"), usize::MAX),
            (vec![0, 0], 8),
        ] {
            assert_eq!(Reader::new(&bytes).opaque(limit), Err(Garbage));
        }
    }
}
