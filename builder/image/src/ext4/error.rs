//! Why an image could not be written.

use std::io;

/// Why an image could not be written. Paths are inside the image.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// An option is out of its range.
    #[error("invalid ext4 option: {0}")]
    InvalidOption(String),
    /// The tree does not fit the size that was asked for.
    #[error("an ext4 image of {size_bytes} bytes is too small: {needed}")]
    TooSmall {
        /// The size that was asked for.
        size_bytes: u64,
        /// What does not fit.
        needed: String,
    },
    /// The file system would have more blocks, groups or inodes than ext4 can count here.
    #[error("the file system is too large for ext4 with blocks of {block_size_bytes} bytes")]
    TooLarge {
        /// The block size.
        block_size_bytes: u32,
    },
    /// A folder has more than one name, or lies in itself.
    #[error("'{path}': a directory cannot have more than one name")]
    DirectoryLinked {
        /// One of its names.
        path: String,
    },
    /// `/lost+found` is no folder.
    #[error("'/lost+found' is not a directory, but ext4 needs it to be one")]
    LostFound,
    /// More names than an inode can count.
    #[error("'{path}' has {links} hard links, ext4 allows 65000")]
    TooManyLinks {
        /// One of its names.
        path: String,
        /// How many there are.
        links: u32,
    },
    /// More names than a two-level index can hold.
    #[error(
        "directory '{path}' has too many names ({names}) for blocks of {block_size_bytes} bytes"
    )]
    DirectoryTooLarge {
        /// The folder.
        path: String,
        /// How many names it has.
        names: usize,
        /// The block size.
        block_size_bytes: u32,
    },
    /// Permission bits beyond `0o7777`.
    #[error("'{path}': invalid mode {mode:#o}")]
    InvalidMode {
        /// The inode.
        path: String,
        /// Its mode.
        mode: u16,
    },
    /// The number that means "nobody" to the kernel, which lets no file have it.
    #[error("'{path}': 4294967295 is no user or group, but the number for none")]
    NoOwner {
        /// The inode.
        path: String,
    },
    /// A time that an inode cannot hold.
    #[error(
        "'{path}': {which} time {seconds}.{nanoseconds:09} is outside what ext4 can hold \
         (1901-12-13 to 2446-05-10)"
    )]
    TimeRange {
        /// The inode.
        path: String,
        /// Which of its times.
        which: &'static str,
        /// Seconds since 1970.
        seconds: i64,
        /// And nanoseconds.
        nanoseconds: u32,
    },
    /// A device number that Linux does not have.
    #[error("'{path}': device number {major}:{minor} is too large (limits: 4095:1048575)")]
    DeviceRange {
        /// The inode.
        path: String,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A link target that is empty, too long for a block, or has a NUL in it.
    #[error("'{path}': invalid symbolic link target of {length} bytes (limit: {limit}, no NUL)")]
    SymlinkTarget {
        /// The inode.
        path: String,
        /// Length in bytes.
        length: usize,
        /// The most that fit.
        limit: usize,
    },
    /// A file larger than ext4 can address.
    #[error("'{path}': {size_bytes} bytes are more than ext4 can address")]
    FileTooLarge {
        /// The inode.
        path: String,
        /// Its size.
        size_bytes: u64,
    },
    /// Content whose segments overlap, are out of order, empty, or past the end.
    #[error("'{path}': the segments of its content are not in order")]
    InvalidContent {
        /// The inode.
        path: String,
    },
    /// An attribute of a kind that ext4 does not know.
    #[error("'{path}': ext4 cannot hold the extended attribute '{name}'")]
    XattrName {
        /// The inode.
        path: String,
        /// Full name of the attribute.
        name: String,
    },
    /// Attributes that do not fit inode and one block.
    #[error(
        "'{path}': extended attribute '{name}' of {size} bytes leaves no room for the others, or is larger than 65536 bytes"
    )]
    XattrTooLarge {
        /// The inode.
        path: String,
        /// Full name of the attribute that did not fit.
        name: String,
        /// Size of its value in bytes.
        size: usize,
    },
    /// An access control list that is none.
    #[error("'{path}': the value of '{name}' is not an access control list")]
    InvalidAcl {
        /// The inode.
        path: String,
        /// Full name of the attribute.
        name: String,
    },
    /// Content could not be read.
    #[error("cannot read the content of '{path}' at byte {offset}")]
    Read {
        /// The inode.
        path: String,
        /// Offset in the file.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// The image could not be written.
    #[error("cannot write the ext4 image at byte {offset}")]
    Write {
        /// Offset in the image.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// The output could not be prepared: emptied, cut or measured.
    #[error("cannot prepare the ext4 image's file")]
    Output(#[source] io::Error),
    /// The tree has no room for one more blob.
    #[error("cannot add a blob to the tree")]
    Tree(#[source] crate::tree::TreeError),
    /// A thread could not be started.
    #[error("cannot start a thread to write the ext4 image")]
    Thread(#[source] io::Error),
    /// Something failed before, so nothing more can be added.
    #[error("the ext4 image is incomplete after an earlier error")]
    Incomplete,
    /// More content than an image whose size is not known in advance can take.
    #[error(
        "more than {limit_bytes} bytes: state the size of the ext4 image, or use larger blocks \
         than {block_size_bytes} bytes"
    )]
    StreamTooLarge {
        /// How large such an image can become.
        limit_bytes: u64,
        /// The block size.
        block_size_bytes: u32,
    },
    /// The layout and what was written disagree: a fault of coop.
    #[error("fault in coop: the ext4 layout does not hold: {0}")]
    Layout(&'static str),
}
