//! The MOUNT protocol, RFC 1813 appendix I: from a path to the first handle.

use super::export::Export;
use super::protocol::{MOUNT_PATH_MAX, Status, mount_procedure as procedure};
use super::rpc::{AUTH_SYS, Accepted};
use super::xdr::{Garbage, Reader, Writer};

/// The root's place in every tree.
const ROOT: u32 = 0;

impl Export {
    /// Answers a procedure of MOUNT.
    pub(super) fn mount(
        &self,
        number: u32,
        arguments: &mut Reader<'_>,
        reply: &mut Writer,
    ) -> Result<Accepted, Garbage> {
        match number {
            procedure::NULL | procedure::UMNTALL => {}
            procedure::MNT => {
                let path = arguments.opaque(MOUNT_PATH_MAX)?;
                // The one thing that is exported is the root, however it is written.
                if path.iter().any(|byte| *byte != b'/') {
                    reply.u32(Status::NoEntry.number());
                } else {
                    reply.u32(0);
                    reply.opaque(&self.handle_of(ROOT));
                    reply.u32(1);
                    reply.u32(AUTH_SYS);
                }
            }
            // Who has mounted it is not kept.
            procedure::DUMP => reply.u32(0),
            procedure::UMNT => drop(arguments.opaque(MOUNT_PATH_MAX)?),
            procedure::EXPORT => {
                reply.bool(true);
                reply.opaque(b"/");
                // For everybody; and there is no other.
                reply.zeroes(2);
            }
            _ => return Ok(Accepted::ProcedureUnavailable),
        }
        Ok(Accepted::Success)
    }
}
