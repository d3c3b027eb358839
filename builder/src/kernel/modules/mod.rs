//! The kernel's modules: depmod's lists of them, where they lie in a root file system, and which
//! of them boot needs.

mod boot_set;
mod builtin;
mod depmod;
mod graph;
mod index;
mod install;
mod listing;
mod module_file;
mod name;
mod strip;
mod table_order;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

pub use boot_set::boot;
pub use depmod::{DepmodError, MODULES_MAX, depmod, depmod_files};
pub use install::{Installed, install};
pub use module_file::{ModuleObject, read_module};
pub use strip::strip;
