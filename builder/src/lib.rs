//! From a recipe to an appliance.
//!
//! Paths, environment values, the clock and the observer are arguments: nothing here prints, reads
//! the environment or exits.

pub mod assemble;
pub mod build;
pub mod calendar;
pub mod cobd;
pub mod convert;
pub mod debian;
pub mod digest;
pub mod evidence;
pub mod export;
pub mod fetch;
pub mod guest;
pub mod import;
pub mod inputs;
pub mod kernel;
pub mod lock;
mod percent;
pub mod plan;
pub mod publish;
pub mod recipe;
pub mod registry;
pub mod rootfs;
pub mod source;
pub mod staged_file;
pub mod store;

#[cfg(test)]
mod testing;
