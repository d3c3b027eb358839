//! Appliances for those who do not have coop.
//!
//! A container image ([`container`]) holds the running program, what it needs of the host's C
//! library, and the appliance. Its entry point boots the appliance as `coop run` does, with no more
//! rights than the container has: an ordinary user's are enough.

mod container;
mod image;
mod program;

pub use container::{ContainerOptions, Exported, container};

use std::io;
use std::path::PathBuf;

use coop_appliance::ApplianceError;
use coop_image::tar::WriteError;
use coop_image::tree::TreeError;

/// Why an appliance could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The appliance is not sound.
    #[error(transparent)]
    Appliance(#[from] ApplianceError),
    /// The program that is to go with it cannot be carried.
    #[error("the program '{}' cannot go into an image: {problem}", path.display())]
    Program {
        /// The program or a library of it.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A layer could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The layer's names do not fit together: coop's own fault.
    #[error("the image cannot be laid out: {0}")]
    Tree(#[from] TreeError),
    /// The output cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Whoever watches called it off.
    #[error("the export was called off")]
    Cancelled,
}
