//! ext4: a writer that turns a tree into an image in one pass over its content, and a reader.

mod checksum;
mod encoding;
mod format;
mod jbd2;
mod structure;
