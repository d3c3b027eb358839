//! The MOUNT protocol, RFC 1813 appendix I: from a path to the first handle.

use super::access::Caller;
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
        caller: &Caller,
        reply: &mut Writer,
    ) -> Result<Accepted, Garbage> {
        match number {
            procedure::NULL | procedure::UMNTALL => {}
            procedure::MNT => {
                let path = arguments.opaque(MOUNT_PATH_MAX)?;
                match self.folder(path, caller) {
                    Err(status) => reply.u32(status.number()),
                    Ok(folder) => {
                        reply.u32(0);
                        reply.opaque(&self.handle_of(folder));
                        reply.u32(1);
                        reply.u32(AUTH_SYS);
                    }
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

    /// The folder at a path, where the caller can get to; links are not followed.
    fn folder(&self, path: &[u8], caller: &Caller) -> Result<u32, Status> {
        let names = path.split(|byte| *byte == b'/');
        let mut names = names.filter(|name| !name.is_empty());
        let folder = names.try_fold(ROOT, |folder, name| self.find(folder, name, caller))?;
        self.entries(folder).map(|_| folder)
    }
}
