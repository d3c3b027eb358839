//! What the driver asks of the host kernel and the language cannot check.
//!
//! Every other crate of the workspace forbids `unsafe`; what needs it is here, behind functions
//! that are safe to call with any argument. There are three rooms: [`memory`] moves bytes between
//! files, guest memory and the guest's process; [`spawn`] starts a confined child; [`map`] asks
//! whether a folder's files may be mapped executable.

pub mod map;
pub mod memory;
pub mod spawn;
