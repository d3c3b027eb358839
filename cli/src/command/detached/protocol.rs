//! What goes over a machine's control socket: frames of a kind, a length and so many bytes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// The socket's name in the machine's folder.
pub(super) const SOCKET: &str = "control";
/// The largest frame, in bytes.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// How much of a stream goes into one frame.
pub(super) const CHUNK_BYTES: usize = 32 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first one of a client's: JSON.
    Request = 1,
    /// Bytes for the command or the console.
    Input,
    /// There will be no more of them.
    InputEnd,
    /// Columns and rows, two bytes each.
    Resize,
    /// The number of a signal.
    Signal,
    /// What the command or the console says.
    Output,
    /// What the command says on stderr.
    Errors,
    /// It has ended with this code.
    Exit,
    /// It could not be done: a sentence.
    Failed,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Request,
        Self::Input,
        Self::InputEnd,
        Self::Resize,
        Self::Signal,
        Self::Output,
        Self::Errors,
        Self::Exit,
        Self::Failed,
    ];
}

/// Writes a frame.
pub(super) fn send(to: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!(
            "more than {FRAME_BYTES_MAX} bytes at once"
        )));
    }
    let mut frame = vec![kind as u8];
    frame.extend(length.to_le_bytes());
    frame.extend_from_slice(bytes);
    to.write_all(&frame)
}

/// Reads a frame; nothing where the other side has left.
pub(super) fn receive(from: &mut impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut head = [0; 5];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let [number, a, b, c, d] = head;
    let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == number);
    let length = u32::from_le_bytes([a, b, c, d]);
    let (Some(kind), 0..=FRAME_BYTES_MAX) = (kind, length) else {
        return Err(io::Error::other(
            "the control socket's other side speaks otherwise",
        ));
    };
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    from.read_exact(&mut bytes)?;
    Ok(Some((kind, bytes)))
}

/// Sends a request.
pub(super) fn request(to: &mut UnixStream, request: &Value) -> io::Result<()> {
    send(to, Kind::Request, request.to_string().as_bytes())
}

/// A stream as frames of one kind; several share a socket.
pub(super) struct Frames {
    pub(super) socket: Arc<Mutex<UnixStream>>,
    pub(super) kind: Kind,
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(CHUNK_BYTES)];
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        send(&mut *socket, self.kind, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_and_strangers_are_refused() {
        let mut bytes = Vec::new();
        for kind in Kind::ALL {
            send(&mut bytes, kind, b"abc").unwrap();
        }
        let mut from = &bytes[..];
        for kind in Kind::ALL {
            assert_eq!(receive(&mut from).unwrap(), Some((kind, b"abc".to_vec())));
        }
        assert_eq!(receive(&mut from).unwrap(), None);
        assert!(receive(&mut &[0, 0, 0, 0, 0][..]).is_err());
        assert!(receive(&mut &[1, 255, 255, 255, 255][..]).is_err());
        assert!(receive(&mut &[1, 9, 0, 0, 0, 1][..]).is_err());
        assert!(send(&mut Vec::new(), Kind::Input, &vec![0; 2 << 20]).is_err());
    }
}
