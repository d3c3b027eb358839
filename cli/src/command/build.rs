//! `coop build`: from a recipe to an appliance's folder.

use std::path::{Path, PathBuf};

use coop_builder::recipe;

use super::Ended;
use crate::arguments::{BuildOptions, RecipeOptions};
use crate::environment::Environment;
use crate::failure::{FAILED, Failure};
use crate::render::{Output, error};

/// Builds, and prints the appliance's folder.
pub(crate) fn run(options: &BuildOptions, environment: &Environment, output: &Output) -> Ended {
    let made = for_run(
        &options.recipe,
        &options.recipe_options,
        environment,
        output,
    );
    made.map(|_| 0)
}

/// Builds what `coop run RECIPE` needs.
pub(super) fn for_run(
    file: &Path,
    options: &RecipeOptions,
    _environment: &Environment,
    output: &Output,
) -> Result<PathBuf, Failure> {
    let (_, warnings) = recipe::read(file, &options.sets()).map_err(Failure::recipe)?;
    error::warnings(output, &warnings);
    Err(Failure::sentence(FAILED, "building is not supported yet"))
}
