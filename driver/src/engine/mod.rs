//! What a guest kernel runs in.
//!
//! [`user`] runs it as an ordinary, confined process: the kernel's own User-Mode-Linux port.

mod console;
mod executable;
mod memory_folder;
mod processor;
#[cfg(test)]
mod tests;
pub mod user;

pub use console::{CONSOLE_TAIL_BYTES_MAX, ConsoleSink};
pub use memory_folder::{MemoryFolderError, RefusedFolder, choose_memory_folder};
pub use processor::{Pin, ProcessorError};

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestEnd {
    /// The kernel powered off; the code is what the guest wrote to `/proc/exitcode`, else 0.
    PoweredOff {
        /// The process's exit code.
        code: u8,
    },
    /// The kernel panicked.
    Panicked {
        /// What it said: the line with the cause, without time stamps.
        message: String,
    },
    /// The host took it down with [`user::Guest::kill`].
    Killed,
    /// A signal ended it that [`user::Guest::kill`] did not send.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
}

impl std::fmt::Display for GuestEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PoweredOff { code: 0 } => write!(f, "the guest powered off"),
            Self::PoweredOff { code } => write!(f, "the guest powered off with code {code}"),
            Self::Panicked { message } => write!(f, "the guest's kernel panicked: {message}"),
            Self::Killed => write!(f, "the guest was killed"),
            Self::Signalled { signal } => write!(f, "signal {signal} ended the guest"),
        }
    }
}
