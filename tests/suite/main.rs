//! The integration suite: one binary, one module for each room or promise.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod build;
mod cache;
mod cli;
mod confinement;
mod corpus;
mod debian;
mod disks;
mod evidence;
mod export;
mod failures;
mod images;
mod import;
mod kernel;
mod kernel_guests;
mod lock;
mod machines;
mod mirror;
mod run;
mod ship;
mod steps;
mod support;
mod terminal;
mod tidy;
mod verbs;
