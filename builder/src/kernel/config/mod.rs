//! What a kernel's configuration is asked to be: fragments, their conditions, and their merge.
//!
//! A fragment is text in Kconfig's own form. A comment line that begins with `#:` is a condition
//! for the paragraph that it heads, so that one fragment serves every target and version:
//!
//! ```text
//! # seccomp mode of the guest's kernel.
//! #: only um
//! #: from 6.16
//! CONFIG_UML_SECCOMP=y
//! ```
//!
//! Every line becomes a [`Wanted`] that knows its [`Place`]. [`merge`] picks the lines that hold
//! for a target and a version; the later of two wins, and two different values are a [`Conflict`].

mod condition;
mod dot_config;
mod fragment;
mod fragments;
mod merge;
#[cfg(test)]
mod tree_tests;
mod unmet;
mod wanted;

pub use condition::{Condition, Version};
pub use dot_config::DotConfig;
pub use fragment::{FRAGMENT_BYTES_MAX, FragmentError, parse};
pub use fragments::{DEFAULT_FRAGMENTS, default_wanted, fragment, fragment_names};
pub use merge::{Conflict, Merged, merge};
pub use unmet::{Unmet, unmet};
pub use wanted::{Place, Wanted, check_symbol, check_value, quote};
