//! READDIR and READDIRPLUS, RFC 1813 sections 3.3.16 and 3.3.17.
//!
//! A cookie is a place: 1 is behind `.`, 2 behind `..`, and the names follow in the order of their
//! bytes. The tree does not change, so places stay what they are, and a listing in any number of
//! calls has every name once.

use super::access::{Caller, EXECUTE, READ};
use super::export::{Export, file_number};
use super::protocol::Status;
use super::xdr::{Garbage, Reader, Writer};

/// The longest list of one reply, in bytes.
const LIST_BYTES_MAX: u32 = 256 << 10;
/// How long a list clients are asked to want, in bytes.
pub(super) const LIST_BYTES_PREFERRED: u32 = 64 << 10;
/// What says that cookies are still good: they always are.
const VERIFIER: [u8; 8] = [0; 8];
/// The entries before a folder's names.
const DOTS: u64 = 2;
/// What ends a list: no further entry, and whether that was all.
const END_BYTES: usize = 8;
/// What a reply has around its results, in bytes: the head of the RPC reply.
const REPLY_HEAD_BYTES: usize = 28;

/// What a client asks for.
struct Listing {
    folder: u32,
    cookie: u64,
    /// How long the reply may be, in bytes.
    limit: usize,
    /// How long names, numbers and cookies may be together, in bytes.
    names_limit: usize,
    /// Whether attributes and handles are told.
    plus: bool,
}

/// One entry.
struct Entry<'a> {
    name: &'a [u8],
    number: u32,
    cookie: u64,
    /// `.` and `..` are known to the client already.
    is_dots: bool,
}

impl Entry<'_> {
    /// Its bytes without attributes and handle.
    fn bytes(&self) -> usize {
        4 + 8 + 4 + self.name.len().next_multiple_of(4) + 8
    }
}

fn size(value: u32) -> usize {
    usize::try_from(value.min(LIST_BYTES_MAX)).unwrap_or(0)
}

impl Export {
    pub(super) fn readdir(
        &self,
        arguments: &mut Reader<'_>,
        caller: &Caller,
        reply: &mut Writer,
    ) -> Result<(), Garbage> {
        let folder = self.handle(arguments)?;
        let cookie = arguments.u64()?;
        let verifier = arguments.fixed()?;
        let limit = size(arguments.u32()?);
        let listing = |folder| Listing {
            folder,
            cookie,
            limit,
            names_limit: limit,
            plus: false,
        };
        self.list(folder, verifier, listing, caller, reply);
        Ok(())
    }

    pub(super) fn readdirplus(
        &self,
        arguments: &mut Reader<'_>,
        caller: &Caller,
        reply: &mut Writer,
    ) -> Result<(), Garbage> {
        let folder = self.handle(arguments)?;
        let cookie = arguments.u64()?;
        let verifier = arguments.fixed()?;
        let names_limit = size(arguments.u32()?);
        let limit = size(arguments.u32()?);
        let listing = |folder| Listing {
            folder,
            cookie,
            limit,
            names_limit,
            plus: true,
        };
        self.list(folder, verifier, listing, caller, reply);
        Ok(())
    }

    fn list(
        &self,
        folder: Result<u32, Status>,
        verifier: [u8; 8],
        listing: impl FnOnce(u32) -> Listing,
        caller: &Caller,
        reply: &mut Writer,
    ) {
        let begin = reply.len();
        let listed = folder.map(listing).and_then(|listing| {
            if listing.cookie != 0 && verifier != VERIFIER {
                return Err(Status::BadCookie);
            }
            self.write_list(&listing, caller, reply)
        });
        if let Err(status) = listed {
            reply.truncate(begin);
            self.fail(status, folder, reply);
        }
    }

    fn write_list(
        &self,
        listing: &Listing,
        caller: &Caller,
        reply: &mut Writer,
    ) -> Result<(), Status> {
        let folder = self.inode(listing.folder);
        let count = self.entries(listing.folder)?.len();
        let count = u64::try_from(count).map_err(|_| Status::Io)? + DOTS;
        if !caller.may(READ, folder) {
            return Err(Status::Access);
        }
        if listing.cookie > count {
            return Err(Status::BadCookie);
        }
        // Who may not look names up learns nothing about what they stand for.
        let tells = listing.plus && caller.may(EXECUTE, folder);
        reply.u32(0);
        self.maybe_attributes(Some(listing.folder), reply);
        reply.fixed(&VERIFIER);
        let first = reply.len();
        let limit = listing.limit.saturating_add(REPLY_HEAD_BYTES);
        let mut names_bytes: usize = 0;
        let mut is_whole = true;
        for entry in self.entries_after(listing)? {
            let begin = reply.len();
            names_bytes = names_bytes.saturating_add(entry.bytes());
            self.write_entry(&entry, listing.plus, tells, reply);
            if names_bytes > listing.names_limit && begin > first
                || reply.len().saturating_add(END_BYTES) > limit
            {
                reply.truncate(begin);
                is_whole = false;
                break;
            }
        }
        if !is_whole && reply.len() == first {
            return Err(Status::TooSmall);
        }
        reply.bool(false);
        reply.bool(is_whole);
        Ok(())
    }

    fn entries_after(&self, listing: &Listing) -> Result<impl Iterator<Item = Entry<'_>>, Status> {
        let folder = listing.folder;
        let dots = [(&b"."[..], folder, 1), (b"..", self.parent(folder), DOTS)];
        let dots = dots.into_iter().map(|(name, number, cookie)| Entry {
            name,
            number,
            cookie,
            is_dots: true,
        });
        let cookie = listing.cookie;
        let dots = dots.filter(move |entry| entry.cookie > cookie);
        let place = cookie.saturating_sub(DOTS);
        let entries = self.entries_from(folder, usize::try_from(place).unwrap_or(usize::MAX))?;
        let entries = (place + DOTS + 1..).zip(entries);
        let names = entries.map(|(cookie, (name, number))| Entry {
            name,
            number,
            cookie,
            is_dots: false,
        });
        Ok(dots.chain(names))
    }

    fn write_entry(&self, entry: &Entry<'_>, plus: bool, tells: bool, reply: &mut Writer) {
        reply.bool(true);
        reply.u64(file_number(entry.number));
        reply.opaque(entry.name);
        reply.u64(entry.cookie);
        if !plus {
            return;
        }
        let told = (tells && !entry.is_dots).then_some(entry.number);
        self.maybe_attributes(told, reply);
        reply.bool(told.is_some());
        if let Some(number) = told {
            reply.opaque(&self.handle_of(number));
        }
    }
}
