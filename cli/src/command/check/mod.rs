//! `coop check`: is the recipe right?

mod needs;

use coop_builder::kernel::advice::Advice;
use coop_builder::kernel::needs::Level;
use coop_builder::recipe;
use serde_json::{Value, json};

use super::Ended;
use super::subject::{self, Kind};
use crate::arguments::CheckOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{Output, data, error, json, line, plain};

/// Reads the recipe and says so if it is right.
pub(crate) fn run(options: &CheckOptions, environment: &Environment, output: &Output) -> Ended {
    subject::expect(&options.recipe, &[Kind::Recipe])?;
    let read = recipe::read(&options.recipe, &options.sets());
    let (recipe, warnings) = read.map_err(Failure::recipe)?;
    let looked = needs::look(
        &options.recipe,
        &recipe,
        options.kernel,
        environment,
        output,
    )?;
    if options.json {
        let warnings: Vec<_> = warnings.iter().map(json::warning).collect();
        let resolved = serde_json::to_value(&recipe).map_err(|error| Failure::work(&error))?;
        json::value(&json!({
            "recipe": resolved,
            "warnings": warnings,
            "needs": looked.advice.iter().map(describe).collect::<Vec<_>>(),
            "not_looked_at": looked.unknown,
        }));
    } else {
        error::warnings(output, &warnings);
        for advice in &looked.advice {
            let word = match advice.unmet.level {
                Level::Required => "warning",
                Level::Recommended => "note",
            };
            line(&format!("{word}: {}", plain(&advice.to_string())));
        }
        for unknown in &looked.unknown {
            line(&format!("note: {}", plain(unknown)));
        }
        data(&format!(
            "{}: the recipe is right\n",
            options.recipe.display()
        ));
    }
    Ok(0)
}

fn describe(advice: &Advice) -> Value {
    json!({
        "package": advice.unmet.package,
        "level": advice.unmet.level.to_string(),
        "symbol": advice.unmet.symbol,
        "why": advice.unmet.why,
        "source": advice.unmet.source,
        "kernel": advice.kernel,
        "fragments": advice.fragments,
    })
}
