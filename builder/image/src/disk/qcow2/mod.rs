//! QEMU's qcow2.

mod format;
mod write;

pub use write::{Qcow2Options, write_qcow2};
