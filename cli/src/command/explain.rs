//! `coop explain`: what a build would do, and why.

use coop_builder::build;
use coop_builder::plan::{Explanation, Status};
use serde_json::json;

use super::Ended;
use super::build::{origin, output_of};
use super::means;
use crate::arguments::ExplainOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{Output, data, json as render_json, plain};

/// Explains.
pub(crate) fn run(options: &ExplainOptions, environment: &Environment, output: &Output) -> Ended {
    let (recipe, means) = means::of_recipe(
        &options.recipe,
        &options.recipe_options,
        environment,
        output,
    )?;
    let folder = output_of(options.output.as_deref(), &recipe);
    let absolute = std::path::absolute(&folder).map_err(|error| Failure::work(&error))?;
    let origin = origin(&options.recipe);
    let request = means.request(&recipe, &origin, &absolute);
    let explanation = build::explain(&request);
    let explanation = explanation.map_err(|error| means.failed(&error, "stopped by a signal"))?;
    if options.json {
        render_json::value(&json!({
            "name": recipe.name,
            "appliance": render_json::path(&folder),
            "locked": means.pins.used().is_some(),
            "steps": explanation.steps,
        }));
    } else {
        data(&text(&explanation));
    }
    Ok(0)
}

/// A line for each step, and below it what changed.
fn text(explanation: &Explanation) -> String {
    let mut text = String::new();
    for step in &explanation.steps {
        let word = step.status.word();
        let name = plain(&step.name);
        // Several lines of a script are one step.
        let name = name.replace("\\n", " ");
        text.push_str(&format!("{word:8} {}\n", name.trim_end()));
        for change in &step.changes {
            text.push_str(&format!("         - {}\n", plain(change)));
        }
    }
    let runs = explanation
        .steps
        .iter()
        .any(|step| step.status == Status::Run && step.kept);
    if runs {
        text.push_str("a guest would run\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use coop_builder::digest::Digest;
    use coop_builder::plan::StepReport;

    #[test]
    fn steps_are_lines_and_changes_stand_below() {
        let step = |name: &str, status, kept, changes: &[&str]| StepReport {
            name: name.to_owned(),
            status,
            kept,
            key: Digest::of(b""),
            changes: changes.iter().map(|one| (*one).to_owned()).collect(),
        };
        let mut explanation = Explanation {
            steps: vec![
                step("configure", Status::Cached, true, &[]),
                step("files", Status::Run, false, &["file /etc/motd changed"]),
            ],
        };
        let shown = "cached   configure\nrun      files\n         - file /etc/motd changed\n";
        assert_eq!(text(&explanation), shown);
        let run = step("run: a\nb", Status::Run, true, &[]);
        explanation.steps.push(run);
        assert_eq!(
            text(&explanation),
            format!("{shown}run      run: a b\na guest would run\n")
        );
    }
}
