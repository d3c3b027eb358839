//! The grammar of `coop test`.

use std::path::PathBuf;

use clap::Args;

use super::{RecipeOptions, SecretOptions};

/// `coop test`.
#[derive(Args, Debug)]
pub(crate) struct TestOptions {
    /// A recipe, or an appliance's folder
    pub(crate) target: PathBuf,
    #[command(flatten)]
    pub(crate) recipe_options: RecipeOptions,
    #[command(flatten)]
    pub(crate) secrets: SecretOptions,
    /// Print one JSON value on stdout: each step with its outcome and output
    #[arg(long)]
    pub(crate) json: bool,
}
