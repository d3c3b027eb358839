//! `coop schema` and `coop completions`: coop's own grammars, for other programs.

use clap::{Arg, Command, CommandFactory};

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
    let mut command = Arguments::command().mut_subcommands(visible);
    clap_complete::generate(options.shell, &mut command, "coop", &mut script);
    let script = String::from_utf8(script).map_err(|error| Failure::work(&error))?;
    data(&script);
    Ok(0)
}

/// A verb without the options that nobody is to type, which the generator does not leave out.
fn visible(verb: Command) -> Command {
    if !verb.get_arguments().any(Arg::is_hide_set) {
        return verb;
    }
    let options = verb.get_arguments().filter(|option| !option.is_hide_set());
    let about = verb.get_about().cloned().unwrap_or_default();
    Command::new(verb.get_name().to_owned())
        .about(about)
        .args(options.cloned())
}
