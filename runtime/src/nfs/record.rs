//! Records of a byte stream: fragments with a length and a last one, RFC 5531 section 11.

use std::io::{self, Read, Write};

/// The largest call, in bytes. The longest that a client has reason for is one that writes.
pub(super) const CALL_BYTES_MAX: usize = 72 << 10;
/// The most fragments of a call.
const FRAGMENTS_MAX: usize = 64;
/// The bit that says that a fragment is the last.
const LAST: u32 = 1 << 31;

/// Reads a call into `record`. Gives `false` where the stream ends before one.
///
/// # Errors
/// The stream breaks, ends amid a call, or the call is too long or in too many fragments.
pub(super) fn read(stream: &mut impl Read, record: &mut Vec<u8>) -> io::Result<bool> {
    record.clear();
    for fragment in 0..FRAGMENTS_MAX {
        let mut head = [0; 4];
        if fragment == 0 {
            if !begins(stream, &mut head)? {
                return Ok(false);
            }
        } else {
            stream.read_exact(&mut head)?;
        }
        let head = u32::from_be_bytes(head);
        let length = usize::try_from(head & !LAST).map_err(io::Error::other)?;
        let start = record.len();
        if length > CALL_BYTES_MAX - start {
            return Err(refused("the call is too long"));
        }
        record.resize(start + length, 0);
        stream.read_exact(record.get_mut(start..).unwrap_or_default())?;
        if head & LAST != 0 {
            return Ok(true);
        }
    }
    Err(refused("the call is in too many fragments"))
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Reads a fragment's head; no bytes at all are the stream's end.
fn begins(stream: &mut impl Read, head: &mut [u8; 4]) -> io::Result<bool> {
    let [first, rest @ ..] = head;
    loop {
        match stream.read(std::slice::from_mut(first)) {
            Ok(0) => return Ok(false),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.read_exact(rest).map(|()| true)
}

/// The bytes that a reply begins with, which [`write`] fills in.
pub(super) const HEAD_BYTES: usize = 4;

/// Writes a reply of one fragment, whose first [`HEAD_BYTES`] are its head's place.
///
/// # Errors
/// The stream breaks.
pub(super) fn write(stream: &mut impl Write, mut reply: Vec<u8>) -> io::Result<()> {
    let length = reply.len().saturating_sub(HEAD_BYTES);
    let head = u32::try_from(length).map_err(io::Error::other)? | LAST;
    if let Some(place) = reply.first_chunk_mut::<HEAD_BYTES>() {
        *place = head.to_be_bytes();
    }
    stream.write_all(&reply)?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(bytes: &[u8], last: bool) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        let head = if last { length | LAST } else { length };
        [&head.to_be_bytes(), bytes].concat()
    }

    #[test]
    fn fragments_make_a_record() {
        let stream = [
            fragment(b"ab", false),
            fragment(b"", false),
            fragment(b"cd", true),
            fragment(b"next", true),
        ];
        let mut stream = &*stream.concat();
        let mut record = Vec::new();
        assert!(read(&mut stream, &mut record).unwrap());
        assert_eq!(record, b"abcd");
        assert!(read(&mut stream, &mut record).unwrap());
        assert_eq!(record, b"next");
        assert!(!read(&mut stream, &mut record).unwrap());
    }

    #[test]
    fn what_has_no_end_is_refused() {
        let mut record = Vec::new();
        let endless = fragment(b"", false).repeat(1000);
        assert!(read(&mut &*endless, &mut record).is_err());
        let long = [0x7f, 0xff, 0xff, 0xff];
        assert!(read(&mut &long[..], &mut record).is_err());
        let half = fragment(&[0; CALL_BYTES_MAX / 2], false).repeat(3);
        assert!(read(&mut &*half, &mut record).is_err());
        assert!(read(&mut &b"\x80\0"[..], &mut record).is_err());
    }

    #[test]
    fn a_reply_is_one_fragment() {
        let mut stream = Vec::new();
        write(&mut stream, b"....reply".to_vec()).unwrap();
        assert_eq!(stream, fragment(b"reply", true));
    }
}
