//! One difference, and the names of what may differ.

use std::fmt;

use crate::tree::display;

/// A property that two inodes may differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The name is in one tree only.
    Presence,
    /// Folder, file, link, ….
    Kind,
    /// Permission bits.
    Mode,
    /// Owner.
    Uid,
    /// Group.
    Gid,
    /// Seconds of the modification time.
    Mtime,
    /// Its nanoseconds.
    MtimeNs,
    /// Access time.
    Atime,
    /// Time of the inode's change.
    Ctime,
    /// Time of birth.
    Crtime,
    /// Size of a file.
    Size,
    /// Bytes of a file.
    Content,
    /// Where a symbolic link leads.
    Target,
    /// Numbers of a device.
    Device,
    /// Which names are one inode.
    Hardlink,
    /// Extended attributes, access control lists among them.
    Xattr,
    /// A key of an appliance's manifest; trees have none.
    Manifest,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Presence,
        Self::Kind,
        Self::Mode,
        Self::Uid,
        Self::Gid,
        Self::Mtime,
        Self::MtimeNs,
        Self::Atime,
        Self::Ctime,
        Self::Crtime,
        Self::Size,
        Self::Content,
        Self::Target,
        Self::Device,
        Self::Hardlink,
        Self::Xattr,
        Self::Manifest,
    ];

    /// The name that people write.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Kind => "kind",
            Self::Mode => "mode",
            Self::Uid => "uid",
            Self::Gid => "gid",
            Self::Mtime => "mtime",
            Self::MtimeNs => "mtime-ns",
            Self::Atime => "atime",
            Self::Ctime => "ctime",
            Self::Crtime => "crtime",
            Self::Size => "size",
            Self::Content => "content",
            Self::Target => "target",
            Self::Device => "device",
            Self::Hardlink => "hardlink",
            Self::Xattr => "xattr",
            Self::Manifest => "manifest",
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path from the root, which is `/`.
    pub path: Vec<u8>,
    /// The field.
    pub field: Field,
    /// What in the field: the name of an attribute, the offset of the first byte.
    pub detail: Option<String>,
    /// What the first tree has; `None` for nothing.
    pub first: Option<String>,
    /// What the second tree has; `None` for nothing.
    pub second: Option<String>,
}

impl fmt::Display for Difference {
    /// `/etc/motd: mode 0644, 0600`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", display(&self.path), self.field.name())?;
        if let Some(detail) = &self.detail {
            write!(f, " {detail}")?;
        }
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        write!(f, ": {}, {}", shown(&self.first), shown(&self.second))
    }
}
