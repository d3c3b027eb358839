//! `coop build`: from a recipe to an appliance's folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use coop_builder::build::{self, BuildError, BuildRequest, Built};
use coop_builder::debian::mirror::AptSources;
use coop_builder::fetch::{Fetcher, Options};
use coop_builder::recipe::{self, Recipe};
use coop_builder::source::Archive;
use coop_builder::store::Store;
use serde_json::json;

use super::Ended;
use crate::arguments::{BuildOptions, RecipeOptions};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::host;
use crate::render::progress::{self, Interruptible};
use crate::render::{Output, data, error, json as render_json, line};
use crate::signals::Interruption;

/// The host's apt configuration.
const APT_FOLDER: &str = "/etc/apt";
/// What a shell adds to a signal's number for an exit code.
const SIGNAL_BASE: u8 = 128;
/// Where appliances go if nobody says otherwise.
const OUTPUT_FOLDER: &str = "out";

/// Builds, and prints the appliance's folder.
pub(crate) fn run(options: &BuildOptions, environment: &Environment, output: &Output) -> Ended {
    let recipe = read(&options.recipe, &options.recipe_options, output)?;
    let folder = options
        .output
        .clone()
        .unwrap_or_else(|| Path::new(OUTPUT_FOLDER).join(&recipe.name));
    let store = open_store(environment)?;
    let built = build(
        &recipe,
        &folder,
        store,
        &options.recipe_options,
        environment,
        output,
    )?;
    let shown = folder.display();
    if options.json {
        render_json::value(&json!({
            "appliance": folder,
            "fresh": built.fresh,
            "manifest": built.appliance.manifest,
        }));
    } else {
        if !built.fresh {
            line(&format!("{shown} is up to date"));
        }
        data(&format!("{shown}\n"));
    }
    Ok(0)
}

/// Builds what `coop run RECIPE` needs, unless `out/NAME` or the cache has it.
pub(super) fn for_run(
    file: &Path,
    options: &RecipeOptions,
    environment: &Environment,
    output: &Output,
) -> Result<PathBuf, Failure> {
    let recipe = read(file, options, output)?;
    let inputs = coop_builder::inputs::digest(&recipe).map_err(|error| Failure::work(&error))?;
    let folder = Path::new(OUTPUT_FOLDER).join(&recipe.name);
    if build::up_to_date(&folder, &inputs).is_some() {
        return Ok(folder);
    }
    let store = open_store(environment)?;
    let folder = store.root().join("appliance").join(inputs.to_string());
    build(&recipe, &folder, store, options, environment, output)?;
    Ok(folder)
}

fn read(file: &Path, options: &RecipeOptions, output: &Output) -> Result<Recipe, Failure> {
    let (recipe, warnings) = recipe::read(file, &options.sets()).map_err(Failure::recipe)?;
    error::warnings(output, &warnings);
    Ok(recipe)
}

fn open_store(environment: &Environment) -> Result<Store, Failure> {
    let Some(cache) = &environment.cache else {
        let failure = Failure::usage("there is no folder for the cache");
        return Err(failure.with_hint("set COOP_CACHE or HOME"));
    };
    let absolute = std::path::absolute(cache).map_err(|error| Failure::work(&error))?;
    Store::open(&absolute).map_err(|error| {
        let failure = Failure::work(&error);
        failure.with_hint("COOP_CACHE names another folder for the cache")
    })
}

fn build(
    recipe: &Recipe,
    folder: &Path,
    store: Store,
    options: &RecipeOptions,
    environment: &Environment,
    output: &Output,
) -> Result<Built, Failure> {
    let fetcher = Fetcher::new(
        store,
        Options {
            offline: options.offline,
            ..Options::default()
        },
    );
    let apt = AptSources::read(Path::new(APT_FOLDER)).map_err(|error| Failure::work(&error))?;
    let folder = std::path::absolute(folder).map_err(|error| Failure::work(&error))?;
    let interruption = Interruption::start(|| line("stopping; a second signal ends at once"))
        .map_err(|error| Failure::work(&error))?;
    let request = BuildRequest {
        recipe,
        output: &folder,
        fetcher: &fetcher,
        archive: Archive {
            environment: environment.debian_mirror.as_deref(),
            apt: &apt,
            architecture: recipe.architecture.debian_name(),
            now_seconds: now_seconds(),
        },
        host: host::host(environment),
        observer: Arc::new(Interruptible {
            inner: progress::observer(options.progress, output),
            heard: interruption.flag(),
        }),
    };
    build::build(&request).map_err(|error| match interruption.signal() {
        // What failed then failed because of the signal.
        Some(signal) => Failure::sentence(
            SIGNAL_BASE.saturating_add(signal.number()),
            "the build was stopped by a signal; the output folder is as it was",
        ),
        None => explain(&error),
    })
}

/// A clock before 1970 counts as 1970: signatures are then not valid yet, which says enough.
fn now_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

fn explain(error: &BuildError) -> Failure {
    let failure = Failure::work(error);
    match error {
        BuildError::Guest(_) => failure.with_hint(
            "the guest's output above may tell more; nothing was written to the output folder",
        ),
        _ => failure,
    }
}
