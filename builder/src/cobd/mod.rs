//! Work on single images, for people who have no recipe.
//!
//! | module | what |
//! |---|---|
//! | `make` | an image from an archive or a folder |
//! | `open` | whatever has a file system in it: image, appliance, archive, folder |
//! | `diff` | what two of them differ in |
//! | `resize` | the same file system in another size |
//! | `input` | an archive that is read as it comes |
//! | `identity` | the UUID of an image that was given none |

mod diff;
mod identity;
mod input;
mod make;
mod open;
mod resize;

pub use diff::{DiffError, Found, diff};
pub use input::Archive;
pub use make::{Made, MakeError, MakeRequest, Owner, Source, make};
pub use open::{OpenError, Operand, open, read_image};
pub use resize::{NewSize, ResizeError, ResizeRequest, Resized, minimum_bytes, resize};
