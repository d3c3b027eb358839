//! The cooperative driver: what a guest kernel runs in, and the hardware that it is given.
//!
//! - [`transport`] carries virtio queues between a guest and a [`transport::Device`].
//! - [`device`] has the devices.
//! - [`engine`] runs the guest's kernel.
//! - [`sandbox`] confines it.
//! - [`tool`] runs a tool of the host's, such as a compiler, behind walls of its own.
//!
//! A machine's life:
//!
//! 1. [`engine::choose_memory_folder`] finds a place for the guest's memory, and
//!    [`device::cobd::open`] opens and locks the images: what can go wrong goes wrong here.
//! 2. A [`transport::DeviceServer`] for each device binds its socket in the instance's private
//!    folder; all share one [`transport::GuestProcess`].
//! 3. [`engine::user::start`] starts the kernel, confined, with those sockets and the same
//!    `GuestProcess`. The guest dies with this program, however it ends.
//! 4. [`engine::user::Guest::wait`] names the end ([`engine::GuestEnd`]); timeouts are the caller's,
//!    with [`engine::user::Guest::wait_timeout`] and [`engine::user::Guest::kill`].
//! 5. [`transport::DeviceServer::stop`] ends each device's threads and tells what it counted.

pub mod device;
pub mod engine;
pub mod sandbox;
pub mod tool;
pub mod transport;
