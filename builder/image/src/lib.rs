//! Trees and on-disk formats.
//!
//! A [`tree::Tree`] is a file system in memory: inodes, names, metadata, and *references* to
//! content. Formats turn bytes into trees and trees into bytes. Nothing here touches the network,
//! the clock, the environment or a source of randomness: UUIDs, times and seeds are inputs, so the
//! same input gives the same bytes anywhere.

pub mod compare;
pub mod compress;
pub mod cpio;
pub mod disk;
pub mod ext4;
pub mod fat;
pub mod folder;
mod numbers;
pub mod partition;
pub mod swap;
pub mod tar;
#[cfg(test)]
mod testing;
pub mod tree;
