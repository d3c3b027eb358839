//! The grammar of `coop lock`.

use std::path::PathBuf;

use clap::Args;

use super::RecipeOptions;

pub(super) const EXAMPLES: &str = "\
Examples:
  coop lock recipes/web.yaml              what the archives have now, into recipes/web.yaml.lock
  coop lock recipes/web.yaml --check      fails where the archives have something else by now
  coop build recipes/web.yaml --locked    what the lock says, whenever and wherever";

/// `coop lock`.
#[derive(Args, Debug)]
pub(crate) struct LockOptions {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// Write nothing: tell how the lock differs from what the archives have, and exit with 1
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) recipe_options: RecipeOptions,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}
