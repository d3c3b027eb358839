//! What host and guest agree on: the agent's protocol and its boot configuration.
//!
//! Every guest starts with our own static program, `coop-agent`, as the initramfs's `/init`. It
//! reads [`boot::BootConfig`] from `/coop.json`, prepares the root file system, and then talks to
//! the host over a virtio-console port of its own: the host sends [`message::Request`]s, the agent
//! sends [`message::Reply`]s, each in one length-prefixed [`frame`].
//!
//! Either side checks everything that the other sends. The host must, since the guest is hostile;
//! the decoders here never panic, never loop without end and never allocate more than a frame's
//! limit, whatever they are given. Flow control is by credit: nobody sends more than
//! [`message::WINDOW`] bytes of a stream before the receiver has said that it used some, so a
//! command that does not read its input, or a reader that does not read a command's output, never
//! holds up a signal.

pub mod boot;
pub mod frame;
pub mod message;
mod wire;

pub use wire::WireError;
