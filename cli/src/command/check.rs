//! `coop check`: is the recipe right?

use coop_builder::recipe;
use serde_json::json;

use super::Ended;
use crate::arguments::CheckOptions;
use crate::failure::Failure;
use crate::render::{Output, data, error, json};

/// Reads the recipe and says so if it is right.
pub(crate) fn run(options: &CheckOptions, output: &Output) -> Ended {
    let read = recipe::read(&options.recipe, &options.sets());
    let (recipe, warnings) = read.map_err(Failure::recipe)?;
    if options.json {
        let warnings: Vec<_> = warnings.iter().map(json::warning).collect();
        let resolved = serde_json::to_value(&recipe).map_err(|error| Failure::work(&error))?;
        json::value(&json!({ "recipe": resolved, "warnings": warnings }));
    } else {
        error::warnings(output, &warnings);
        data(&format!(
            "{}: the recipe is right\n",
            options.recipe.display()
        ));
    }
    Ok(0)
}
