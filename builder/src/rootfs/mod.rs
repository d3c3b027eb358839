//! What a recipe's `rootfs:` does to a tree once its source is there.

mod database;
mod files;
mod identity;
mod login;
mod normalise;
mod private_tmp;
mod readonly;
mod users;

use coop_image::tree::{Timestamp, Tree, TreeError};

use crate::recipe::Rootfs;

pub use files::put as put_file;
pub use login::{Login, login};
pub use normalise::normalise;
pub use readonly::make_readonly;

/// Why a root file system cannot be what the recipe says.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The tree's structure is in the way.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A file of the host cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file's owner is unknown to the guest.
    #[error("{what} '{name}' does not exist in the root file system")]
    NoOwner {
        /// `user` or `group`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A user should join a group that is not there.
    #[error("group '{0}' does not exist in the root file system")]
    NoGroup(String),
    /// A number without a row, and without a group.
    #[error("user {0} is not in the guest's /etc/passwd, so its group must be named: {0}:{0}")]
    NoGroupOfNumber(u32),
    /// Another user has the number.
    #[error("user '{user}' cannot have number {id}, which is taken")]
    IdTaken {
        /// The user's name.
        user: String,
        /// The number.
        id: u32,
    },
    /// A row of `/etc/passwd` is damaged.
    #[error("the row of user '{0}' in /etc/passwd is not valid")]
    InvalidRow(String),
}

/// Applies host name, users and files, in this order; they need no guest.
///
/// # Errors
/// See [`RootfsError`].
pub fn customise(tree: &mut Tree, rootfs: &Rootfs, epoch: Timestamp) -> Result<(), RootfsError> {
    files::set_hostname(tree, &rootfs.hostname, epoch)?;
    users::apply(tree, &rootfs.users, epoch)?;
    // A machine's own keys stay with its state.
    if !rootfs.source.keeps_state() {
        identity::make_host_keys_at_boot(tree, epoch)?;
    }
    // After the users, so that a file may belong to one of them, and last, so that the recipe wins.
    files::apply(tree, &rootfs.files, epoch)
}
