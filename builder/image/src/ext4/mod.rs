//! ext4: a writer that turns a tree into an image in one pass over its content, and a reader.
//!
//! [`Stream`] takes content in the order in which it arrives and puts it where it stays before it
//! knows the rest. [`write()`] first looks at the whole tree and refuses what ext4 cannot hold,
//! then decides where every block goes, and only then writes: content is copied once, straight from
//! its blob to its place. What holds nothing, or zeroes, stays a hole in the image file.
//!
//! | module | what |
//! |---|---|
//! | `scan` | the tree as ext4 sees it: numbers, links, blocks; every refusal |
//! | `kept` | what of a stream's content stays where it is |
//! | `geometry`, `layout` | block groups; where every block goes |
//! | `content`, `sink` | copies content, with several threads; few large writes |
//! | `write`, `inode`, `directory`, `extent`, `xattr`, `superblock` | everything else, encoded |
//! | `format`, `jbd2`, `structure`, `encoding`, `checksum`, `hash` | the format, for both directions |
//! | `read` | the reader |
//!
//! # What the writer makes
//! Features as mke2fs sets them for ext4: `has_journal ext_attr resize_inode dir_index filetype
//! extent 64bit flex_bg sparse_super large_file huge_file dir_nlink extra_isize metadata_csum`;
//! `ea_inode` where a value needs it, `orphan_file` on request; beyond 2^32 blocks no
//! `resize_inode`. A [`crate::tree::Tree`] has no place for project quotas and encryption, so there
//! is nothing of these to refuse. Folders beyond an index of two levels (millions of names) are
//! refused, not made `large_dir`.

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
pub use read::{Info, ReadError, read, read_info, read_top};
pub use stream::Stream;
pub use write::{measure, write};
