//! What registries say, read apart from any connection: the part of the work that a test can make up
//! byte by byte.

pub use super::challenge::{Challenge, parse as challenges};
pub use super::download::range_start;
pub use super::referrers::next_page;
pub use super::token::token_of;
pub use super::transport::problem;
pub use super::upload::received_by;
