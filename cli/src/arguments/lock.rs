//! The grammar of `coop lock` and `coop fetch`.

use std::path::PathBuf;

use clap::Args;

use super::RecipeOptions;

pub(super) const EXAMPLES: &str = "\
Examples:
  coop lock recipes/web.yaml                    pins what the recipe names, into recipes/web.yaml.lock;
                                                what is pinned there already, stays
  coop lock recipes/web.yaml --update           moves all pins to what the archives have now
  coop lock recipes/web.yaml --update openssl   moves one, and what then has to move with it
  coop lock recipes/web.yaml --check            fails where the archives have something else by now
  coop build recipes/web.yaml --locked          what the lock says, whenever and wherever";

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
