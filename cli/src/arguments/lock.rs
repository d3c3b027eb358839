//! The grammar of `coop lock` and `coop fetch`.

use std::path::PathBuf;

use clap::Args;

use super::RecipeOptions;

pub(super) const EXAMPLES: &str = "\
Examples:
  coop lock web.yaml                    pins what it names, in web.yaml.lock
  coop lock web.yaml --update           moves all pins to what there is now
  coop lock web.yaml --update openssl   moves one, and what must move with it
  coop lock web.yaml --check            fails where archives have moved on
  coop build web.yaml --locked          what the lock says, whenever, wherever

What is pinned stays without --update.";

/// `coop lock`.
#[derive(Args, Debug)]
#[command(mut_arg("locked", |locked| locked.hide(true)))]
pub(crate) struct LockOptions {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// Packages to move, and archives by their addresses [default: all]
    #[arg(requires = "update", value_name = "PACKAGE")]
    pub(crate) moves: Vec<String>,
    /// Move what is pinned to what the archives have now
    #[arg(long)]
    pub(crate) update: bool,
    /// Write nothing: tell how the lock differs from what the archives have, and exit with 1
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) recipe_options: RecipeOptions,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `coop fetch`.
#[derive(Args, Debug)]
pub(crate) struct FetchOptions {
    /// The recipe
    pub(crate) recipe: PathBuf,
    #[command(flatten)]
    pub(crate) recipe_options: RecipeOptions,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}
