//! What a guest's process may do: as little as it needs; and, in [`tool`](super::tool), what the
//! host's own tools may do with files that a stranger wrote.
//!
//! A User-Mode-Linux kernel does not protect itself from the guest's programs, so whatever its
//! process may do, a guest may do. The walls are Landlock (files, TCP, signals), a seccomp filter
//! that refuses with an error and never kills (the kernel's own traps must win), no new
//! privileges, limits, and death with its parent.

mod landlock;
mod seccomp;
#[cfg(test)]
mod tests;
mod tool_filter;

pub(crate) use landlock::ruleset;
pub use landlock::{Access, LandlockState, PathRule, landlock_state};
pub(crate) use seccomp::filter;
pub(crate) use tool_filter::tool_filter;

/// Why a guest cannot be confined.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A path that the guest needs cannot be opened.
    #[error("cannot allow {path}: {reason}")]
    Path {
        /// The path.
        path: std::path::PathBuf,
        /// What the host says.
        reason: String,
    },
    /// The host's Landlock refuses the rules.
    #[error("landlock refuses the rules: {0}")]
    Landlock(String),
    /// The filter cannot be made.
    #[error("cannot make the system call filter: {0}")]
    Filter(String),
}
