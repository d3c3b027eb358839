//! gzip (RFC 1952), member by member.
//!
//! Where a member ends is known only when it is unpacked, so one thread reads them all. Zeroes
//! after the last member are padding, as `gzip` has it; anything else there, which `gzip` warns of
//! (status 2) and drops, is refused.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

use super::Compression::Gzip;
use super::error::{corrupt, trailing, truncated};
use super::input::Input;
use super::members::{Member, Members};

const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The only method there is.
const METHOD_DEFLATE: u8 = 8;
/// Bits of the flags that RFC 1952 keeps for later: "must be zero".
const FLAGS_RESERVED: u8 = 0xe0;

/// Reads all members.
pub(super) type MembersReader<R> = Members<R, GzDecoder<Input<R>>>;

impl<R: Read> Member<R> for GzDecoder<Input<R>> {
    fn begin(mut input: Input<R>) -> io::Result<Option<Self>> {
        Ok(next_member(&mut input)?.then(|| Self::new(input)))
    }

    fn into_input(self) -> Input<R> {
        self.into_inner()
    }

    fn explain(&self, error: io::Error) -> io::Error {
        let input = self.get_ref();
        match error.kind() {
            _ if input.failed() => error,
            io::ErrorKind::UnexpectedEof => truncated(Gzip, input.offset()),
            _ => corrupt(Gzip, input.offset(), error),
        }
    }
}

/// Skips padding and looks at the next member's header; false is the end of the input.
fn next_member(input: &mut Input<impl Read>) -> io::Result<bool> {
    let padding_start = input.offset();
    loop {
        let available = input.fill_buf()?;
        let zeroes = available.iter().take_while(|byte| **byte == 0).count();
        if zeroes == 0 {
            break;
        }
        input.consume(zeroes);
    }
    let offset = input.offset();
    let padded = offset > padding_start;
    let start = input.peek(4)?;
    if start.is_empty() {
        return Ok(false);
    }
    let known = start.len().min(MAGIC.len());
    if start[..known] != MAGIC[..known] || padded {
        return Err(trailing(Gzip, padding_start));
    }
    let [_, _, method, flags] = *start else {
        return Err(truncated(
            Gzip,
            offset.saturating_add(super::as_u64(start.len())),
        ));
    };
    if method != METHOD_DEFLATE {
        return Err(corrupt(Gzip, offset, format!("unknown method {method}")));
    }
    if flags & FLAGS_RESERVED != 0 {
        return Err(corrupt(Gzip, offset, "its header has reserved flags"));
    }
    Ok(true)
}
