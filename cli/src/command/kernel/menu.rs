//! `coop kernel config --menuconfig`: the kernel's own menu, and a fragment of what was changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use coop_builder::kernel::make::MenuChanges;
use coop_builder::kernel::{self, config};
use coop_builder::recipe::Recipe;
use coop_builder::staged_file::StagedFile;
use fs_err as fs;

use super::super::lock;
use super::super::means::{self, Means};
use super::{Asked, Ended};
use crate::arguments::KernelConfigOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{Output, data, line, plain};
use crate::terminal::{self, Kept};

/// The terminal of whoever started this.
const TERMINAL: &str = "/dev/tty";

/// Opens the menu, and writes what was changed.
pub(super) fn run(
    options: &KernelConfigOptions,
    environment: &Environment,
    output: &Output,
) -> Ended {
    let recipe = means::read(&options.recipe, &options.recipe_options, output)?;
    if !terminal::is_interactive() {
        return Err(Failure::usage(
            "--menuconfig needs a terminal on stdin and stdout",
        ));
    }
    let folder = options.recipe.parent().unwrap_or(Path::new(""));
    let fragment = options
        .output
        .clone()
        .unwrap_or_else(|| folder.join(format!("{}.config", recipe.name)));
    // Before a person's work, not after it.
    let old = read(&fragment)?;
    let pins = lock::pins(&options.recipe, &options.recipe_options)?;
    let means = Means::prepare(&options.recipe_options, pins, environment, output)?;
    let asked = Asked::new(&recipe, &means);
    let changes = {
        let device = File::options().read(true).write(true).open(TERMINAL);
        let device = device.map_err(|error| Failure::work(&error).about(Path::new(TERMINAL)))?;
        let _kept = Kept::new().map_err(|error| Failure::work(&error))?;
        let term = environment.terminal.clone().unwrap_or_default();
        kernel::menu(&asked.request(), &device, &term).map_err(|error| asked.failed(&error))?
    };
    if changes.settings.is_empty() {
        line("nothing was changed; no fragment is written");
        return Ok(0);
    }
    write(&fragment, &merged(&recipe, &old, &changes))?;
    for difference in &changes.remaining {
        let difference = plain(&difference.to_string());
        line(&format!(
            "warning: no setting brings this about: {difference}"
        ));
    }
    let count = changes.settings.len();
    let noun = if count == 1 { "setting" } else { "settings" };
    line(&format!("{count} {noun} changed"));
    if !names(&recipe, folder, &fragment) {
        let name = spelled(folder, &fragment);
        line(&format!(
            "the recipe does not name the fragment yet: add {name} to kernel.config, as its last entry"
        ));
    }
    data(&format!("{}\n", fragment.display()));
    Ok(0)
}

/// The fragment as it is: nothing where there is none.
fn read(path: &Path) -> Result<String, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(Failure::work(&error)),
    };
    match config::parse(&text, &path.display().to_string()) {
        Ok(_) => Ok(text),
        Err(error) => {
            let failure = Failure::work(&error).about(path);
            Err(failure.with_hint("it is no fragment, so it is not written; name another with -o"))
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::work(&error).about(path);
    let staged = StagedFile::new(path).map_err(failed)?;
    (&**staged.file())
        .write_all(text.as_bytes())
        .map_err(failed)?;
    staged.publish(true).map_err(failed)
}

/// The old fragment without the lines about what was changed, and then the changes.
fn merged(recipe: &Recipe, old: &str, changes: &MenuChanges) -> String {
    let mut text = if old.is_empty() {
        let (name, version) = (&recipe.name, &changes.version);
        format!(
            "# What the kernel of {name} has beside what its recipe asks for, as it was set in the\n\
             # menu of kernel {version}.\n"
        )
    } else {
        without(old, &changes.settings)
    };
    // A blank line ends what a condition holds for.
    while !text.ends_with("\n\n") {
        text.push('\n');
    }
    for (symbol, value) in &changes.settings {
        match value.as_str() {
            "n" => text.push_str(&format!("# {symbol} is not set\n")),
            value => text.push_str(&format!("{symbol}={value}\n")),
        }
    }
    text
}

fn without(old: &str, settings: &BTreeMap<String, String>) -> String {
    let is_about = |line: &str| {
        let line = line.trim();
        let unset = line
            .strip_prefix("# ")
            .and_then(|rest| rest.strip_suffix(" is not set"));
        let symbol = unset.or(line.split_once('=').map(|(symbol, _)| symbol));
        symbol.is_some_and(|symbol| settings.contains_key(symbol))
    };
    let kept = old.lines().filter(|line| !is_about(line));
    kept.map(|line| format!("{line}\n")).collect()
}

/// Whether a line of the recipe's wishes comes from the fragment.
fn names(recipe: &Recipe, folder: &Path, fragment: &Path) -> bool {
    let Ok(goal) = fs::canonicalize(fragment) else {
        return false;
    };
    let origins: BTreeSet<&str> = recipe
        .kernel
        .wanted
        .iter()
        .map(|wanted| wanted.place.origin.as_str())
        .collect();
    origins
        .into_iter()
        .any(|origin| fs::canonicalize(folder.join(origin)).is_ok_and(|path| path == goal))
}

/// The fragment's path as the recipe would write it.
fn spelled(folder: &Path, fragment: &Path) -> String {
    let relative = fragment.strip_prefix(folder).map(Path::to_owned);
    let path = relative.unwrap_or_else(|_| {
        std::path::absolute(fragment).unwrap_or_else(|_| PathBuf::from(fragment))
    });
    if path.is_absolute() {
        path.display().to_string()
    } else {
        format!("./{}", path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        owned.collect()
    }

    #[test]
    fn what_is_there_is_kept_but_for_what_was_changed() {
        let old = "# Why.\nCONFIG_A=y\n# CONFIG_B is not set\n\n#: only um\nCONFIG_C=m\n";
        let changed = settings(&[("CONFIG_B", "y"), ("CONFIG_C", "n")]);
        assert_eq!(without(old, &changed), "# Why.\nCONFIG_A=y\n\n#: only um\n");
    }

    #[test]
    fn paths_are_spelled_as_in_a_recipe() {
        let spelled = |folder: &str, path: &str| spelled(Path::new(folder), Path::new(path));
        assert_eq!(spelled("recipes", "recipes/a.config"), "./a.config");
        assert_eq!(spelled("", "a.config"), "./a.config");
        assert_eq!(spelled("/r", "/x/a.config"), "/x/a.config");
    }
}
