//! Remote procedure calls, RFC 5531: the head of a call, who calls, and the head of a reply.

use super::access::Caller;
use super::record::HEAD_BYTES;
use super::xdr::{Garbage, Reader, Writer};

const CALL: u32 = 0;
const REPLY: u32 = 1;
const RPC_VERSION: u32 = 2;

const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;
const RPC_MISMATCH: u32 = 0;
const AUTH_ERROR: u32 = 1;
const AUTH_BADCRED: u32 = 1;
const AUTH_REJECTEDCRED: u32 = 2;

const AUTH_NONE: u32 = 0;
/// The flavour of credentials that names numbers of a user and of groups.
pub(super) const AUTH_SYS: u32 = 1;
/// The longest credential and verifier, in bytes.
const AUTH_BYTES_MAX: usize = 400;
/// The longest name of a client's machine, in bytes.
const MACHINE_NAME_MAX: usize = 255;
/// The most groups beside the first.
const GROUPS_MAX: u32 = 16;

/// How a call that can be dispatched ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Success,
    ProgramUnavailable,
    /// Only this version is there.
    ProgramMismatch(u32),
    ProcedureUnavailable,
    GarbageArguments,
}

/// A call whose head was understood.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) xid: u32,
    pub(super) program: u32,
    pub(super) version: u32,
    pub(super) procedure: u32,
    /// Nobody in particular, where the client does not say.
    pub(super) caller: Option<Caller>,
    pub(super) arguments: Reader<'a>,
}

/// A call, or the reply that refuses it.
pub(super) type Head<'a> = Result<Call<'a>, Vec<u8>>;

/// Reads a call's head. What is no call at all cannot be answered.
pub(super) fn head(record: &[u8]) -> Result<Head<'_>, Garbage> {
    let mut reader = Reader::new(record);
    let xid = reader.u32()?;
    if reader.u32()? != CALL {
        return Err(Garbage);
    }
    if reader.u32()? != RPC_VERSION {
        return Ok(Err(denied(xid, &[RPC_MISMATCH, RPC_VERSION, RPC_VERSION])));
    }
    let program = reader.u32()?;
    let version = reader.u32()?;
    let procedure = reader.u32()?;
    let flavour = reader.u32()?;
    let credential = reader.opaque(AUTH_BYTES_MAX)?;
    // A verifier proves nothing with these flavours.
    reader.u32()?;
    reader.opaque(AUTH_BYTES_MAX)?;
    let caller = match flavour {
        AUTH_NONE => None,
        AUTH_SYS => match caller(credential) {
            Ok(caller) => Some(caller),
            Err(Garbage) => return Ok(Err(denied(xid, &[AUTH_ERROR, AUTH_BADCRED]))),
        },
        _ => return Ok(Err(denied(xid, &[AUTH_ERROR, AUTH_REJECTEDCRED]))),
    };
    Ok(Ok(Call {
        xid,
        program,
        version,
        procedure,
        caller,
        arguments: reader,
    }))
}

/// `authsys_parms`, RFC 5531 appendix A.
fn caller(credential: &[u8]) -> Result<Caller, Garbage> {
    let mut reader = Reader::new(credential);
    reader.u32()?;
    reader.opaque(MACHINE_NAME_MAX)?;
    let uid = reader.u32()?;
    let gid = reader.u32()?;
    let count = reader.u32()?;
    if count > GROUPS_MAX {
        return Err(Garbage);
    }
    let mut gids = vec![gid];
    for _ in 0..count {
        gids.push(reader.u32()?);
    }
    Ok(Caller { uid, gids })
}

fn begin(xid: u32) -> Writer {
    let mut writer = Writer::default();
    writer.zeroes(HEAD_BYTES / 4);
    writer.u32(xid);
    writer.u32(REPLY);
    writer
}

fn denied(xid: u32, why: &[u32]) -> Vec<u8> {
    let mut writer = begin(xid);
    writer.u32(MSG_DENIED);
    why.iter().for_each(|word| writer.u32(*word));
    writer.into_bytes()
}

/// A reply up to where a procedure's results begin.
pub(super) fn accepted(xid: u32, how: Accepted) -> Writer {
    let mut writer = begin(xid);
    writer.u32(MSG_ACCEPTED);
    writer.u32(AUTH_NONE);
    writer.u32(0);
    match how {
        Accepted::Success => writer.u32(0),
        Accepted::ProgramUnavailable => writer.u32(1),
        Accepted::ProgramMismatch(version) => {
            writer.u32(2);
            writer.u32(version);
            writer.u32(version);
        }
        Accepted::ProcedureUnavailable => writer.u32(3),
        Accepted::GarbageArguments => writer.u32(4),
    }
    writer
}
