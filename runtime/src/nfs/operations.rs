//! The procedures of NFS version 3, RFC 1813 section 3.3, but for those that list folders.

use coop_image::tree::{Inode, Kind, NAME_LENGTH_MAX};

use super::access::{Caller, EXECUTE, READ, WRITE};
use super::export::{Export, number_of};
use super::listing::LIST_BYTES_PREFERRED;
use super::protocol::{
    MOUNT_PROGRAM, NAME_BYTES_MAX, NFS_PROGRAM, Status, VERSION, access_bit, procedure,
};
use super::rpc::{self, Accepted, Call};
use super::xdr::{Garbage, Reader, Writer};

/// The most that one call reads, in bytes.
pub(super) const READ_BYTES_MAX: u32 = 1 << 20;
/// What is said of writing: a client may still try.
const WRITE_BYTES_MAX: u32 = 32 << 10;
/// The largest number of links that is told, ext4's.
const LINKS_MAX: u32 = 65_000;
/// The largest file that is told, in bytes: as large as a file offset can be.
const FILE_BYTES_MAX: u64 = u64::MAX >> 1;
/// There are hard links and symbolic links, and all files have the same limits.
const PROPERTIES: u32 = 0x01 | 0x02 | 0x08;

impl Export {
    /// Answers one call, given without the heads of its fragments; the reply has room for its own
    /// head, which [`super::record::write`] fills in. Nothing where the bytes are no call.
    pub(super) fn reply(&self, record: &[u8]) -> Option<Vec<u8>> {
        let mut call = match rpc::head(record).ok()? {
            Ok(call) => call,
            Err(refusal) => return Some(refusal),
        };
        let xid = call.xid;
        let mut reply = rpc::accepted(xid, Accepted::Success);
        let how = self.dispatch(&mut call, &mut reply);
        Some(match how.unwrap_or(Accepted::GarbageArguments) {
            Accepted::Success => reply.into_bytes(),
            other => rpc::accepted(xid, other).into_bytes(),
        })
    }

    fn dispatch(&self, call: &mut Call<'_>, reply: &mut Writer) -> Result<Accepted, Garbage> {
        let caller = self.taken_for(call.caller.take());
        let arguments = &mut call.arguments;
        match call.program {
            NFS_PROGRAM | MOUNT_PROGRAM if call.version != VERSION => {
                Ok(Accepted::ProgramMismatch(VERSION))
            }
            NFS_PROGRAM => self.nfs(call.procedure, arguments, &caller, reply),
            MOUNT_PROGRAM => self.mount(call.procedure, arguments, &caller, reply),
            _ => Ok(Accepted::ProgramUnavailable),
        }
    }

    fn nfs(
        &self,
        number: u32,
        arguments: &mut Reader<'_>,
        caller: &Caller,
        reply: &mut Writer,
    ) -> Result<Accepted, Garbage> {
        match number {
            procedure::NULL => {}
            procedure::GETATTR => self.getattr(arguments, reply)?,
            procedure::LOOKUP => self.lookup(arguments, caller, reply)?,
            procedure::ACCESS => self.access(arguments, caller, reply)?,
            procedure::READLINK => self.readlink(arguments, reply)?,
            procedure::READ => self.read_file(arguments, caller, reply)?,
            procedure::READDIR => self.readdir(arguments, caller, reply)?,
            procedure::READDIRPLUS => self.readdirplus(arguments, caller, reply)?,
            procedure::FSSTAT => self.fsstat(arguments, reply)?,
            procedure::FSINFO => self.fsinfo(arguments, reply)?,
            procedure::PATHCONF => self.pathconf(arguments, reply)?,
            procedure::RENAME => self.refuse_write(arguments, 4, reply)?,
            procedure::LINK => self.refuse_write(arguments, 3, reply)?,
            procedure::SETATTR..=procedure::COMMIT => self.refuse_write(arguments, 2, reply)?,
            _ => return Ok(Accepted::ProcedureUnavailable),
        }
        Ok(Accepted::Success)
    }

    /// A failure, with the attributes of what was asked about, where that is known.
    pub(super) fn fail(&self, status: Status, object: Result<u32, Status>, reply: &mut Writer) {
        reply.u32(status.number());
        self.maybe_attributes(object.ok(), reply);
    }

    /// Every call that writes. Their failures have this many words of what is optional.
    fn refuse_write(
        &self,
        arguments: &mut Reader<'_>,
        words: usize,
        reply: &mut Writer,
    ) -> Result<(), Garbage> {
        let status = self.handle(arguments)?.err().unwrap_or(Status::ReadOnly);
        reply.u32(status.number());
        reply.zeroes(words);
        Ok(())
    }

    fn getattr(&self, arguments: &mut Reader<'_>, reply: &mut Writer) -> Result<(), Garbage> {
        match self.handle(arguments)? {
            Ok(object) => {
                reply.u32(0);
                self.attributes(object, reply);
            }
            Err(status) => reply.u32(status.number()),
        }
        Ok(())
    }

    fn lookup(
        &self,
        arguments: &mut Reader<'_>,
        caller: &Caller,
        reply: &mut Writer,
    ) -> Result<(), Garbage> {
        let folder = self.handle(arguments)?;
        let name = arguments.opaque(NAME_BYTES_MAX)?;
        match folder.and_then(|folder| self.find(folder, name, caller)) {
            Ok(object) => {
                reply.u32(0);
                reply.opaque(&self.handle_of(object));
                self.maybe_attributes(Some(object), reply);
                self.maybe_attributes(folder.ok(), reply);
            }
            Err(status) => self.fail(status, folder, reply),
        }
        Ok(())
    }

    /// What a name in a folder stands for, if the caller may know.
    pub(super) fn find(&self, folder: u32, name: &[u8], caller: &Caller) -> Result<u32, Status> {
        let entries = self.entries(folder)?;
        if !caller.may(EXECUTE, self.inode(folder)) {
            return Err(Status::Access);
        }
        match name {
            b"." => Ok(folder),
            b".." => Ok(self.parent(folder)),
            name if name.len() > NAME_LENGTH_MAX => Err(Status::NameTooLong),
            name => match entries.get(name) {
                Some(id) => Ok(number_of(*id)),
                None => Err(Status::NoEntry),
            },
        }
    }

    fn access(
        &self,
        arguments: &mut Reader<'_>,
        caller: &Caller,
        reply: &mut Writer,
    ) -> Result<(), Garbage> {
        let object = self.handle(arguments)?;
        let asked = arguments.u32()?;
        match object {
            Ok(number) => {
                let granted = granted(caller, self.inode(number));
                reply.u32(0);
                self.maybe_attributes(Some(number), reply);
                reply.u32(asked & granted);
            }
            Err(status) => self.fail(status, object, reply),
        }
        Ok(())
    }

    fn readlink(&self, arguments: &mut Reader<'_>, reply: &mut Writer) -> Result<(), Garbage> {
        let object = self.handle(arguments)?;
        let target = object.and_then(|number| match &self.inode(number).kind {
            Kind::Symlink(target) => Ok(target),
            _ => Err(Status::Invalid),
        });
        match target {
            Ok(target) => {
                reply.u32(0);
                self.maybe_attributes(object.ok(), reply);
                reply.opaque(target);
            }
            Err(status) => self.fail(status, object, reply),
        }
        Ok(())
    }

    fn read_file(
        &self,
        arguments: &mut Reader<'_>,
        caller: &Caller,
        reply: &mut Writer,
    ) -> Result<(), Garbage> {
        let object = self.handle(arguments)?;
        let offset = arguments.u64()?;
        let count = arguments.u32()?.min(READ_BYTES_MAX);
        let begin = reply.len();
        let done = object.and_then(|number| self.read_into(number, offset, count, caller, reply));
        if let Err(status) = done {
            reply.truncate(begin);
            self.fail(status, object, reply);
        }
        Ok(())
    }

    fn read_into(
        &self,
        number: u32,
        offset: u64,
        count: u32,
        caller: &Caller,
        reply: &mut Writer,
    ) -> Result<(), Status> {
        let inode = self.inode(number);
        let content = match &inode.kind {
            Kind::File(content) => content,
            Kind::Directory(_) => return Err(Status::IsDirectory),
            _ => return Err(Status::Invalid),
        };
        // Who executes a program reads it by way of the server.
        if !caller.may(READ, inode) && !caller.may(EXECUTE, inode) {
            return Err(Status::Access);
        }
        let left = content.size.saturating_sub(offset);
        let length = left.min(u64::from(count));
        reply.u32(0);
        self.maybe_attributes(Some(number), reply);
        // Both fit, for neither is more than `count`.
        reply.u32(u32::try_from(length).unwrap_or(0));
        reply.bool(length == left);
        let buffer = reply.opaque_zeroed(usize::try_from(length).unwrap_or(0));
        self.read(content, offset, buffer)
    }

    fn fsstat(&self, arguments: &mut Reader<'_>, reply: &mut Writer) -> Result<(), Garbage> {
        self.about(arguments, reply, |reply| {
            let files = self.inode_count();
            for value in [self.used_bytes(), 0, 0, files, 0, 0] {
                reply.u64(value);
            }
            // It never changes by itself.
            reply.u32(u32::MAX);
        })
    }

    fn fsinfo(&self, arguments: &mut Reader<'_>, reply: &mut Writer) -> Result<(), Garbage> {
        self.about(arguments, reply, |reply| {
            for value in [
                READ_BYTES_MAX,
                READ_BYTES_MAX,
                4096,
                WRITE_BYTES_MAX,
                WRITE_BYTES_MAX,
                4096,
                LIST_BYTES_PREFERRED,
            ] {
                reply.u32(value);
            }
            reply.u64(FILE_BYTES_MAX);
            // Times have nanoseconds.
            reply.u32(0);
            reply.u32(1);
            reply.u32(PROPERTIES);
        })
    }

    fn pathconf(&self, arguments: &mut Reader<'_>, reply: &mut Writer) -> Result<(), Garbage> {
        self.about(arguments, reply, |reply| {
            reply.u32(LINKS_MAX);
            reply.u32(u32::try_from(NAME_LENGTH_MAX).unwrap_or(u32::MAX));
            let (refuses_long_names, chown_is_roots) = (true, true);
            let (ignores_case, keeps_case) = (false, true);
            for flag in [refuses_long_names, chown_is_roots, ignores_case, keeps_case] {
                reply.bool(flag);
            }
        })
    }

    /// What is said about a whole file system, whichever of its objects is named.
    fn about(
        &self,
        arguments: &mut Reader<'_>,
        reply: &mut Writer,
        say: impl FnOnce(&mut Writer),
    ) -> Result<(), Garbage> {
        let object = self.handle(arguments)?;
        match object {
            Ok(number) => {
                reply.u32(0);
                self.maybe_attributes(Some(number), reply);
                say(reply);
            }
            Err(status) => self.fail(status, object, reply),
        }
        Ok(())
    }
}

/// The bits of ACCESS that a caller has.
fn granted(caller: &Caller, inode: &Inode) -> u32 {
    let execute = match inode.kind {
        Kind::Directory(_) => access_bit::LOOKUP,
        _ => access_bit::EXECUTE,
    };
    // What is behind these lies with the client, and a read-only file system is no hindrance.
    let write = match inode.kind {
        Kind::Directory(_) | Kind::File(_) | Kind::Symlink(_) => 0,
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo | Kind::Socket => {
            access_bit::MODIFY | access_bit::EXTEND
        }
    };
    let bits = [(READ, access_bit::READ), (WRITE, write), (EXECUTE, execute)];
    let held = bits
        .into_iter()
        .filter(|(right, _)| caller.may(*right, inode));
    held.fold(0, |all, (_, bit)| all | bit)
}
