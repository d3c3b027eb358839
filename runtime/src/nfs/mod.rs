//! An NFS server, version 3 over TCP, for a tree: read-only, with permission checks.
//!
//! The tree is what the reader made of an image, so that nothing is mounted or unpacked on the
//! host. What a client says is untrusted: every length has a limit, every handle is
//! authenticated, and no bytes make it panic.
//!
//! | module | what |
//! |---|---|
//! | `xdr` | numbers and byte strings, RFC 4506 |
//! | `record` | records of a stream, RFC 5531 section 11 |
//! | `rpc` | calls, credentials and replies, RFC 5531 |
//! | `protocol` | numbers of NFS and MOUNT, RFC 1813 |
//! | `handle` | file handles that only this server can make |
//! | `access` | who may do what, with POSIX access lists |
//! | `export` | the tree as NFS sees it |
//! | `image` | an ext4 image as such a tree |
//! | `mount`, `operations`, `listing` | the procedures |
//! | `server` | connections |
//!
//! # What is not there
//! Nothing can be written: such calls are answered with "read-only file system". There are no
//! locks (clients mount with `nolock`), no port mapper (clients name both ports), and no
//! authentication but `AUTH_SYS`, where the client is believed about its users. NFS has no place
//! for extended attributes: [`Export::attributed`] counts the files that have some.

mod access;
mod export;
mod handle;
mod image;
mod listing;
mod mount;
mod operations;
mod protocol;
mod record;
mod rpc;
mod server;
#[cfg(test)]
mod tests;
mod xdr;

pub use access::Squash;
pub use export::{Attributed, Export, KEY_BYTES};
pub use image::ExportError;
pub use server::{NfsServer, PORT};
