//! `coop kernel config`: how is a recipe's kernel configured?

use std::path::Path;

use coop_builder::kernel::config::{self, Conflict, DotConfig, Merged, Version, Wanted};
use coop_builder::kernel::{self, Configuration, Target, settings};
use coop_builder::recipe::{KernelOrigin, Recipe};
use serde_json::{Map, Value, json};

use super::super::lock;
use super::super::means::{self, Means};
use super::menu;
use super::other::{self, Other};
use super::{Asked, Ended};
use crate::arguments::KernelConfigOptions;
use crate::environment::Environment;
use crate::failure::{FAILED, Failure, USAGE};
use crate::render::{Output, data, json as render_json, line, plain};

/// Shows one view of the configuration.
pub(super) fn run(
    options: &KernelConfigOptions,
    environment: &Environment,
    output: &Output,
) -> Ended {
    let context = Context {
        options,
        environment,
        output,
    };
    match &options.diff {
        // As with diff(1), 1 says that there is a difference, and 2 that nobody knows.
        Some(other) => context.diff(other).map_err(|failure| Failure {
            code: USAGE,
            ..failure
        }),
        None if options.wanted => context.wanted(),
        None if options.menuconfig => menu::run(options, environment, output),
        None => context.show(),
    }
}

struct Context<'a> {
    options: &'a KernelConfigOptions,
    environment: &'a Environment,
    output: &'a Output,
}

impl Context<'_> {
    fn recipe(&self) -> Result<Recipe, Failure> {
        let options = self.options;
        means::read(&options.recipe, &options.recipe_options, self.output)
    }

    fn means(&self) -> Result<Means, Failure> {
        let options = &self.options.recipe_options;
        let pins = lock::pins(&self.options.recipe, options)?;
        Means::prepare(options, pins, self.environment, self.output)
    }

    fn effective(&self, recipe: &Recipe, means: &Means) -> Result<Configuration, Failure> {
        let asked = Asked::new(recipe, means);
        kernel::configuration(&asked.request()).map_err(|error| asked.failed(&error))
    }

    fn show(&self) -> Ended {
        let recipe = self.recipe()?;
        let effective = self.effective(&recipe, &self.means()?)?;
        let text = match (self.options.minimal, &effective.minimal) {
            (false, _) => &effective.config,
            (true, Some(minimal)) => minimal,
            (true, None) => {
                let message = "a prebuilt kernel's package does not say what of its configuration \
                               is the default";
                return Err(Failure::usage(message).with_hint("leave --minimal out"));
            }
        };
        if self.options.json {
            render_json::value(&json!({
                "target": effective.target,
                "version": effective.version,
                "symbols": symbols(text),
            }));
        } else {
            data(text);
        }
        Ok(0)
    }

    fn diff(&self, other: &Path) -> Ended {
        let recipe = self.recipe()?;
        let other = other::open(other, self.output)?;
        let means = self.means()?;
        let first = self.effective(&recipe, &means)?.config;
        let second = match other {
            Other::Config(text) => text,
            Other::Recipe(recipe) => self.effective(&recipe, &means)?.config,
        };
        let (first, second) = (DotConfig::parse(&first), DotConfig::parse(&second));
        let differences = settings::differences(&first, &second);
        if self.options.json {
            let describe = |one: &settings::Difference| json!({ "symbol": one.symbol, "first": one.first, "second": one.second });
            render_json::value(&json!({
                "equal": differences.is_empty(),
                "count": differences.len(),
                "differences": differences.iter().map(describe).collect::<Vec<_>>(),
            }));
        } else {
            let mut text = String::new();
            for difference in &differences {
                text.push_str(&plain(&difference.to_string()));
                text.push('\n');
            }
            data(&text);
        }
        Ok(if differences.is_empty() { 0 } else { FAILED })
    }

    fn wanted(&self) -> Ended {
        let recipe = self.recipe()?;
        let (target, version, merged) = match known(&recipe) {
            Some((target, version)) => {
                let merged = config::merge(&recipe.kernel.wanted, target, version);
                (target, version.to_string(), merged)
            }
            // The observer has told of conflicts.
            None => {
                let Configuration {
                    target,
                    version,
                    wanted,
                    ..
                } = self.effective(&recipe, &self.means()?)?;
                let conflicts = Vec::new();
                (
                    target,
                    version,
                    Merged {
                        conflicts,
                        ..wanted
                    },
                )
            }
        };
        if self.options.json {
            let conflict = |one: &Conflict| json!({ "symbol": one.symbol, "earlier": describe(&one.earlier), "later": describe(&one.later) });
            render_json::value(&json!({
                "target": target,
                "version": version,
                "defconfig": recipe.kernel.defconfig,
                "wanted": merged.wanted.iter().map(describe).collect::<Vec<_>>(),
                "conflicts": merged.conflicts.iter().map(conflict).collect::<Vec<_>>(),
            }));
            return Ok(0);
        }
        for conflict in &merged.conflicts {
            line(&format!("warning: {}", plain(&conflict.to_string())));
        }
        data(&table(&merged.wanted));
        Ok(0)
    }
}

/// What a recipe says of its kernel by itself: the target, and the version if a package's name has
/// it.
fn known(recipe: &Recipe) -> Option<(Target, Version)> {
    let KernelOrigin::Source(source) = &recipe.kernel.origin else {
        return None;
    };
    let version = kernel::default::version_of(source)?;
    Some((source.target, version))
}

fn describe(wanted: &Wanted) -> Value {
    json!({
        "symbol": wanted.symbol,
        "value": wanted.value,
        "origin": wanted.place.origin,
        "line": wanted.place.line,
    })
}

/// One line for each symbol, the places below one another.
fn table(wanted: &[Wanted]) -> String {
    /// Longer settings do not move the places of all others.
    const WIDTH_MAX: usize = 48;
    let lines = || wanted.iter().map(|one| (plain(&one.line()), &one.place));
    let widths = lines().map(|(line, _)| line.chars().count());
    let width = widths.filter(|width| *width <= WIDTH_MAX).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    for (line, place) in lines() {
        let place = plain(&place.to_string());
        text.push_str(&format!("{line:width$}  {place}\n"));
    }
    text
}

/// The settings of a text, with those that it says are not set.
fn symbols(text: &str) -> Map<String, Value> {
    let mut symbols = Map::new();
    for line in text.lines() {
        let unset = line
            .strip_prefix("# ")
            .and_then(|rest| rest.strip_suffix(" is not set"));
        let setting = unset.map(|symbol| (symbol, "n"));
        if let Some((symbol, value)) = setting.or(line.split_once('='))
            && symbol.starts_with("CONFIG_")
        {
            symbols.insert(symbol.to_owned(), Value::from(value));
        }
    }
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stand_below_one_another() {
        let text = "CONFIG_A=y\n# CONFIG_LONGER is not set\n";
        assert_eq!(
            table(&config::parse(text, "fragment x").unwrap()),
            "CONFIG_A=y                  fragment x, line 1\n\
             # CONFIG_LONGER is not set  fragment x, line 2\n"
        );
    }

    #[test]
    fn what_is_not_set_is_data_too() {
        let symbols = symbols("# x\nCONFIG_A=\"a=b\"\n# CONFIG_B is not set\nB=y\n");
        assert_eq!(
            Value::from(symbols),
            json!({"CONFIG_A": "\"a=b\"", "CONFIG_B": "n"})
        );
    }
}
