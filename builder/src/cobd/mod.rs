//! Work on single images, for people who have no recipe.
//!
//! | module | what |
//! |---|---|
//! | `make` | an image from an archive or a folder |
//! | `input` | an archive that is read as it comes |
//! | `identity` | the UUID of an image that was given none |

mod identity;
mod input;
mod make;

pub use input::Archive;
pub use make::{Made, MakeError, MakeRequest, Owner, Source, make};
