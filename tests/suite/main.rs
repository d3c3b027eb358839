//! The integration suite: one binary, one module for each room or promise.
#![allow(missing_docs, clippy::unwrap_used)]

mod cli;
mod corpus;
mod tidy;
