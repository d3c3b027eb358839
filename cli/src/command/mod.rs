//! One file for each verb.

pub(crate) mod about;
mod attend;
pub(crate) mod build;
mod bundle;
pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod convert;
mod debug_shell;
pub(crate) mod detached;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod image;
pub(crate) mod import;
mod imported;
pub(crate) mod inspect;
pub(crate) mod kernel;
pub(crate) mod lock;
mod means;
mod nodes;
pub(crate) mod pack;
pub(crate) mod pull;
pub(crate) mod push;
mod qemu;
mod registry;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod sign;
mod steps;
mod subject;
pub(crate) mod test;
mod trust;
pub(crate) mod verify;
mod watched;

/// How a verb ends: an exit code, or what went wrong.
pub(crate) type Ended = Result<u8, crate::failure::Failure>;
