//! File handles: an inode's number and a keyed digest of it, so that nobody makes one but the
//! server, and no other server's handle is taken for one of ours.

use sha2::{Digest, Sha256};

use super::protocol::{HANDLE_BYTES_MAX, Status};
use super::xdr::{Garbage, Reader};

/// What our handles begin with: name and version of their form.
const MAGIC: [u8; 4] = *b"cnf1";
const DIGEST_BYTES: usize = 16;
/// A handle's length in bytes.
pub(super) const HANDLE_BYTES: usize = MAGIC.len() + 4 + DIGEST_BYTES;

/// A server's secret.
pub(super) type Key = [u8; 32];

/// The handle of an inode.
pub(super) fn make(key: &Key, inode: u32) -> [u8; HANDLE_BYTES] {
    let mut handle = [0; HANDLE_BYTES];
    let fields = MAGIC.into_iter().chain(inode.to_be_bytes());
    for (place, byte) in handle.iter_mut().zip(fields.chain(digest(key, inode))) {
        *place = byte;
    }
    handle
}

/// A digest that cannot be had without the key: what is hashed has one length, and half of the
/// digest stays inside.
fn digest(key: &Key, inode: u32) -> [u8; DIGEST_BYTES] {
    let whole = Sha256::new()
        .chain_update(b"coop nfs handle\0")
        .chain_update(key)
        .chain_update(inode.to_be_bytes())
        .finalize();
    let mut half = [0; DIGEST_BYTES];
    for (place, byte) in half.iter_mut().zip(whole) {
        *place = byte;
    }
    half
}

/// Reads a handle from a call: the number in it, if this server made it.
///
/// A handle of our form with another digest is one of a server before this one; any other form is
/// nobody's.
pub(super) fn read(key: &Key, call: &mut Reader<'_>) -> Result<Result<u32, Status>, Garbage> {
    let handle = call.opaque(HANDLE_BYTES_MAX)?;
    let Some((number, digest_found)) = split(handle) else {
        return Ok(Err(Status::BadHandle));
    };
    let expected = digest(key, number);
    // The time that this takes tells nothing of where they differ.
    let difference = expected.iter().zip(digest_found);
    let difference = difference.fold(0, |all, (one, other)| all | (one ^ other));
    Ok(match difference {
        0 => Ok(number),
        _ => Err(Status::Stale),
    })
}

fn split(handle: &[u8]) -> Option<(u32, &[u8; DIGEST_BYTES])> {
    let (magic, rest) = handle.split_first_chunk::<4>()?;
    let (number, digest) = rest.split_first_chunk::<4>()?;
    let digest = digest.try_into().ok()?;
    (*magic == MAGIC).then_some((u32::from_be_bytes(*number), digest))
}
