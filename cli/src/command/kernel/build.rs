//! `coop kernel build`: a recipe's kernel as files.

use std::path::Path;

use coop_builder::kernel;
use coop_builder::kernel::export::export;
use serde_json::json;

use super::super::build::OUTPUT_FOLDER;
use super::super::means;
use super::{Asked, Ended};
use crate::arguments::KernelBuildOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{Output, data, json as render_json, line, plain};

/// Builds, and prints the folder.
pub(super) fn run(
    options: &KernelBuildOptions,
    environment: &Environment,
    output: &Output,
) -> Ended {
    let (recipe, means) = means::of_recipe(
        &options.recipe,
        &options.recipe_options,
        environment,
        output,
    )?;
    let folder = options.output.clone().unwrap_or_else(|| {
        let name = format!("{}-kernel", recipe.name);
        Path::new(OUTPUT_FOLDER).join(name)
    });
    let asked = Asked::new(&recipe, &means);
    let obtained = kernel::obtain(&asked.request()).map_err(|error| asked.failed(&error))?;
    let exported = export(&obtained.kernel, &folder).map_err(|error| Failure::work(&error))?;
    if options.json {
        render_json::value(&json!({ "folder": render_json::path(&folder), "kernel": exported }));
        return Ok(0);
    }
    let release = plain(&exported.release);
    line(&format!("kernel {release} for {}", exported.target));
    data(&format!("{}\n", folder.display()));
    Ok(0)
}
