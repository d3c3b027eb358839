//! The integration suite: one binary, one module for each room or promise.
#![allow(missing_docs)]

mod tidy;
