//! `coop schema` and `coop completions`: coop's own grammars, for other programs.

use clap::CommandFactory;

use super::Ended;
use crate::arguments::{Arguments, CompletionsOptions};
use crate::failure::Failure;
use crate::render::{data, json};

/// Prints the JSON schema of recipes.
pub(crate) fn schema() -> Ended {
    json::value(&coop_builder::recipe::schema());
    Ok(0)
}

/// Prints what a shell reads to complete coop's words.
pub(crate) fn completions(options: &CompletionsOptions) -> Ended {
    let mut script = Vec::new();
    let mut command = Arguments::command();
    clap_complete::generate(options.shell, &mut command, "coop", &mut script);
    let script = String::from_utf8(script).map_err(|error| Failure::work(&error))?;
    data(&script);
    Ok(0)
}
