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

const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The only method there is.
const METHOD_DEFLATE: u8 = 8;
/// Bits of the flags that RFC 1952 keeps for later: "must be zero".
const FLAGS_RESERVED: u8 = 0xe0;

/// The plain bytes of all members.
pub(super) struct GzipReader<R: Read> {
    state: State<R>,
}

enum State<R: Read> {
    Between(Input<R>),
    Member(Box<GzDecoder<Input<R>>>),
    Finished,
}

impl<R: Read> GzipReader<R> {
    pub(super) fn new(input: Input<R>) -> Self {
        Self {
            state: State::Between(input),
        }
    }

    fn explain(decoder: &GzDecoder<Input<R>>, error: io::Error) -> io::Error {
        let input = decoder.get_ref();
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

impl<R: Read> Read for GzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::Finished) {
                State::Finished => return Ok(0),
                State::Between(mut input) => {
                    if next_member(&mut input)? {
                        self.state = State::Member(Box::new(GzDecoder::new(input)));
                    }
                }
                State::Member(mut decoder) => match decoder.read(buffer) {
                    Ok(0) => self.state = State::Between(decoder.into_inner()),
                    Ok(count) => {
                        self.state = State::Member(decoder);
                        return Ok(count);
                    }
                    Err(error) => return Err(Self::explain(&decoder, error)),
                },
            }
        }
    }
}
