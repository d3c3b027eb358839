//! Numbers of NFS version 3 and of its MOUNT protocol, RFC 1813.

/// The NFS program.
pub(super) const NFS_PROGRAM: u32 = 100_003;
/// The MOUNT program.
pub(super) const MOUNT_PROGRAM: u32 = 100_005;
/// The version of both.
pub(super) const VERSION: u32 = 3;

/// The longest handle that the protocol allows, in bytes.
pub(super) const HANDLE_BYTES_MAX: usize = 64;
/// The longest path that MOUNT takes, in bytes.
pub(super) const MOUNT_PATH_MAX: usize = 1024;
/// The longest name or path that a call can hold, in bytes: longer names than a folder can have
/// are no garbage, but answered with [`Status::NameTooLong`].
pub(super) const NAME_BYTES_MAX: usize = 4096;

/// `nfsstat3`, and `mountstat3` as far as it has the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    NoEntry = 2,
    Io = 5,
    Access = 13,
    NotDirectory = 20,
    IsDirectory = 21,
    Invalid = 22,
    ReadOnly = 30,
    NameTooLong = 63,
    Stale = 70,
    BadHandle = 10001,
    BadCookie = 10003,
    TooSmall = 10005,
}

impl Status {
    /// The number on the wire.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::NoEntry => 2,
            Self::Io => 5,
            Self::Access => 13,
            Self::NotDirectory => 20,
            Self::IsDirectory => 21,
            Self::Invalid => 22,
            Self::ReadOnly => 30,
            Self::NameTooLong => 63,
            Self::Stale => 70,
            Self::BadHandle => 10001,
            Self::BadCookie => 10003,
            Self::TooSmall => 10005,
        }
    }
}

/// Procedures of NFS version 3.
pub(super) mod procedure {
    pub(in super::super) const NULL: u32 = 0;
    pub(in super::super) const GETATTR: u32 = 1;
    pub(in super::super) const SETATTR: u32 = 2;
    pub(in super::super) const LOOKUP: u32 = 3;
    pub(in super::super) const ACCESS: u32 = 4;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const READ: u32 = 6;
    pub(in super::super) const RENAME: u32 = 14;
    pub(in super::super) const LINK: u32 = 15;
    pub(in super::super) const READDIR: u32 = 16;
    pub(in super::super) const READDIRPLUS: u32 = 17;
    pub(in super::super) const FSSTAT: u32 = 18;
    pub(in super::super) const FSINFO: u32 = 19;
    pub(in super::super) const PATHCONF: u32 = 20;
    pub(in super::super) const COMMIT: u32 = 21;
}

/// Procedures of MOUNT version 3.
pub(super) mod mount_procedure {
    pub(in super::super) const NULL: u32 = 0;
    pub(in super::super) const MNT: u32 = 1;
    pub(in super::super) const DUMP: u32 = 2;
    pub(in super::super) const UMNT: u32 = 3;
    pub(in super::super) const UMNTALL: u32 = 4;
    pub(in super::super) const EXPORT: u32 = 5;
}

/// Bits of ACCESS.
pub(super) mod access_bit {
    pub(in super::super) const READ: u32 = 0x01;
    pub(in super::super) const LOOKUP: u32 = 0x02;
    pub(in super::super) const MODIFY: u32 = 0x04;
    pub(in super::super) const EXTEND: u32 = 0x08;
    pub(in super::super) const EXECUTE: u32 = 0x20;
}
