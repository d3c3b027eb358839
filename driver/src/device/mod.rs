//! The devices of the cooperative driver: a front for each kind of virtio device, and its backends.

pub mod cobd;
pub mod cocon;
pub mod conet;
pub mod rng;
