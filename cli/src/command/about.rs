//! `coop schema` and `coop completions`: coop's own grammars, for other programs.

use clap::{Command, CommandFactory};

use super::Ended;
use crate::arguments::{Arguments, CompletionsOptions};
use crate::failure::Failure;
use crate::render::{data, json};

/// The one verb that has hidden options.
const RUN: &str = "run";

/// Prints the JSON schema of recipes.
pub(crate) fn schema() -> Ended {
    json::value(&coop_builder::recipe::schema());
    Ok(0)
}

/// Prints what a shell reads to complete coop's words.
pub(crate) fn completions(options: &CompletionsOptions) -> Ended {
    let mut script = Vec::new();
    let mut command = Arguments::command().mut_subcommand(RUN, visible);
    clap_complete::generate(options.shell, &mut command, "coop", &mut script);
    let script = String::from_utf8(script).map_err(|error| Failure::work(&error))?;
    data(&script);
    Ok(0)
}

/// The verb without the options that nobody is to type, which the generator does not leave out.
fn visible(run: Command) -> Command {
    let options = run.get_arguments().filter(|option| !option.is_hide_set());
    let about = run.get_about().cloned().unwrap_or_default();
    Command::new(RUN).about(about).args(options.cloned())
}
