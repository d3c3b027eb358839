//! The grammar of `coop explain`.

use std::path::PathBuf;

use clap::Args;

use super::RecipeOptions;

pub(super) const EXAMPLES: &str = "\
Examples:
  coop explain recipes/web.yaml           what a build would do now, and why
  coop explain recipes/web.yaml --json    the same for programs

Nothing is built. A step is cached (its result is taken from the cache), covered (a later result that
is taken has it in it) or run; below it stands what is not as in the recipe's last build.";

/// `coop explain`.
#[derive(Args, Debug)]
pub(crate) struct ExplainOptions {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// The appliance's folder [default: out/NAME]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) recipe_options: RecipeOptions,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}
