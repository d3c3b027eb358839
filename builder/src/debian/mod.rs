//! Debian archives: choosing a mirror, verifying its index, resolving and unpacking packages.

pub mod apt;
mod configure;
mod database;
pub mod date;
pub mod deb;
pub mod deb822;
pub mod extra;
pub mod installed;
pub mod keys;
pub mod mirror;
pub mod packages;
pub mod paths;
pub mod relations;
pub mod release;
pub mod resolve;
pub mod suite;
pub mod system;
pub mod unpack;
pub mod version;

pub(crate) use release::is_plain_path;

#[cfg(test)]
mod system_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
