//! ext4: a writer that turns a tree into an image in one pass over its content, and a reader.
//!
//! [`Stream`] takes content in the order in which it arrives and puts it where it stays before it
//! knows the rest. [`write()`] first looks at the whole tree and refuses what ext4 cannot hold, then decides where
//! every block goes, and only then writes: content is copied once, straight from its blob to its
//! place, and what holds nothing stays a hole in the image file.

mod checksum;
mod content;
mod directory;
mod encoding;
mod error;
mod extent;
mod format;
mod geometry;
mod hash;
mod inode;
mod jbd2;
mod kept;
mod layout;
mod options;
mod read;
mod scan;
mod sink;
mod stream;
mod structure;
mod superblock;
#[cfg(test)]
mod tests;
mod write;
mod xattr;

pub use error::WriteError;
pub use options::{
    BlockSize, Inodes, Journal, LABEL_LENGTH_MAX, Options, PERCENT_MAX, Size, Summary,
};
pub use read::{Info, ReadError, read, read_info};
pub use stream::Stream;
pub use write::{measure, write};
