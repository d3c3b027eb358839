//! The cooperative driver: what a guest kernel runs in, and the hardware that it is given.
//!
//! - [`transport`] carries virtio queues between a guest and a [`transport::Device`].
//! - [`device`] has the devices.
//! - [`engine`] runs the guest's kernel.
//! - [`sandbox`] confines it.
//!
//! A machine's life: make the devices, start a [`transport::DeviceServer`] for each, start the
//! engine with their sockets, tell the [`transport::GuestProcess`], wait for the guest, stop the
//! servers.

pub mod device;
pub mod engine;
pub mod sandbox;
pub mod transport;
