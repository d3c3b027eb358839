//! Random bytes of the host, for what nobody else may know.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// So many random bytes.
///
/// # Errors
/// The host has none.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        at += getrandom(rest, GetRandomFlags::empty())?;
    }
    Ok(bytes)
}
