//! The integration suite: one binary, one module for each room or promise.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod cli;
mod corpus;
mod machines;
#[allow(dead_code, clippy::print_stderr)]
mod support;
mod terminal;
mod tidy;
