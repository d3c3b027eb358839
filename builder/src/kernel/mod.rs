//! The guest's kernel: where it comes from and what of it an appliance carries.

pub mod advice;
mod boot_image;
pub mod bootable;
pub mod config;
mod configuration;
pub mod default;
mod elf;
pub mod export;
mod fetch;
mod files;
pub mod kconfig;
mod linux_image;
pub mod make;
pub mod modules;
pub mod needs;
mod obtain;
mod prebuilt;
pub mod settings;
pub mod source;

pub use configuration::{Configuration, configuration, known, menu};
pub use coop_appliance::Target;
pub use default::KernelChoice;
pub use fetch::{FetchedKernel, KernelSourceError};
pub use files::{KernelFiles, Library};
pub use obtain::{KernelRequest, ObtainError, Obtained, obtain, pin, pin_missing};
pub use prebuilt::prebuilt;

use config::Version;

/// Why a kernel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The package lacks a file.
    #[error("kernel package has no {0}")]
    Missing(&'static str),
    /// A file of the package is not what it should be.
    #[error("{path} of the kernel package {problem}")]
    Invalid {
        /// Path in the package.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The kernel's vhost-user front end is too old for the driver.
    #[error(
        "kernel {release} is too old: its vhost-user messages are not those of {OLDEST_VERSION} or later"
    )]
    TooOld {
        /// The kernel's release.
        release: String,
    },
    /// depmod's files cannot be made of its modules.
    #[error(transparent)]
    Depmod(#[from] modules::DepmodError),
    /// The kernel would not come to the root.
    #[error(
        "kernel {release} cannot boot an appliance: it lacks {missing}; the fragments base, engine \
         and virtio of kernel.config have what boot needs"
    )]
    Unbootable {
        /// The kernel's release.
        release: String,
        /// The symbols, separated by commas.
        missing: String,
    },
    /// The recipe's devices have more processors than the kernel.
    #[error(
        "kernel {release} can have {most} processors, not the {wanted} of devices.cpus; the fragment \
         smp of kernel.config is for up to 16"
    )]
    Processors {
        /// The kernel's release.
        release: String,
        /// What it can have.
        most: u32,
        /// What the recipe asks for.
        wanted: u32,
    },
    /// The recipe's root is on an NFS server.
    #[error(
        "the root is on NFS, and kernel {release} has no {missing}; the fragment nfs-root of \
         kernel.config is for that"
    )]
    NoNfs {
        /// The kernel's release.
        release: String,
        /// What it lacks.
        missing: String,
    },
    /// Reading from the package failed.
    #[error("cannot read the kernel package: {0}")]
    Io(#[from] std::io::Error),
    /// A path of the package cannot be followed.
    #[error("kernel package: {0}")]
    Tree(#[from] coop_image::tree::TreeError),
}

/// The oldest version whose `virtio_uml` the driver understands.
pub const OLDEST_VERSION: Version = Version {
    major: 6,
    minor: 16,
};
