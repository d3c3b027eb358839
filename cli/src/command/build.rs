//! `coop build`: from a recipe to an appliance's folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coop_appliance::{ApplianceError, Target};
use coop_builder::build::{self, BuildError, Built};
use coop_builder::guest::{GuestError, SecretError};
use coop_builder::inputs;
use coop_builder::recipe::{KernelLocation, KernelOrigin, Recipe, Source};
use coop_builder::source::DiskSourceError;
use coop_runtime::event::Event;
use serde_json::json;

use super::Ended;
use super::convert;
use super::debug_shell::DebugShell;
use super::kernel;
use super::lock;
use super::means::{self, Means};
use crate::arguments::{BuildOptions, RecipeOptions};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{Output, data, json as render_json, line};
use crate::terminal;

/// Where appliances go if nobody says otherwise.
pub(super) const OUTPUT_FOLDER: &str = "out";

/// Builds, and prints the appliance's folder.
pub(crate) fn run(options: &BuildOptions, environment: &Environment, output: &Output) -> Ended {
    if options.debug_shell && !terminal::is_interactive() {
        let failure = Failure::usage("--debug-shell needs a terminal on stdin and stdout");
        return Err(failure);
    }
    let recipe_options = options.recipe_options.with(&options.secrets);
    let (recipe, mut means) =
        means::of_recipe(&options.recipe, &recipe_options, environment, output)?;
    let folder = output_of(options.output.as_deref(), &recipe);
    if options.debug_shell {
        let terminal = environment.terminal.clone();
        means.steps.debugger = Some(Arc::new(DebugShell { terminal }));
    }
    let (built, log) = build(&recipe, &options.recipe, &folder, &means)?;
    if built.fresh && means.pins.used().is_none() && names_something(&recipe) {
        let recipe = options.recipe.display();
        let message = format!("names stand for what archives have now; coop lock {recipe} pins it");
        means.observer.event(&Event::Note { message: &message });
    }
    let shown = folder.display();
    if options.json {
        render_json::value(&json!({
            "appliance": render_json::path(&folder),
            "fresh": built.fresh,
            "log": log,
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

/// Where a recipe's appliance goes.
pub(super) fn output_of(output: Option<&Path>, recipe: &Recipe) -> PathBuf {
    let named = || Path::new(OUTPUT_FOLDER).join(&recipe.name);
    output.map_or_else(named, Path::to_owned)
}

/// Whether a lock would have anything to pin.
fn names_something(recipe: &Recipe) -> bool {
    let kernel = match &recipe.kernel.origin {
        KernelOrigin::Source(source) => matches!(source.location, KernelLocation::Debian { .. }),
        KernelOrigin::Package(_) | KernelOrigin::Default => true,
    };
    kernel || matches!(recipe.rootfs.source, Source::Debian(_))
}

/// What `coop run RECIPE` boots.
pub(super) struct Held {
    /// The appliance.
    pub(super) folder: PathBuf,
    /// While it is there, the cache keeps the appliance.
    _manifest: Option<File>,
}

impl Held {
    /// An appliance of the cache.
    pub(super) fn new(folder: PathBuf, manifest: File) -> Self {
        Self {
            folder,
            _manifest: Some(manifest),
        }
    }
}

/// How often the cache may be emptied between a build and its use.
const ATTEMPTS_MAX: usize = 3;

/// Builds what `coop run RECIPE` needs, unless `out/NAME` or the cache has it.
pub(super) fn for_run(
    file: &Path,
    options: &RecipeOptions,
    environment: &Environment,
    output: &Output,
) -> Result<Held, Failure> {
    let recipe = means::read(file, options, output)?;
    let target = recipe.kernel.target();
    if target != Target::Um {
        let failure = Failure::work(&ApplianceError::Target(target));
        let hint = "coop build makes the appliance; coop run of its folder says how QEMU boots it";
        return Err(failure.with_hint(hint));
    }
    let pins = lock::pins(file, options)?;
    let choice = means::kernel_choice(options, environment)?;
    let inputs =
        inputs::digest(&recipe, choice, pins.files()).map_err(|error| Failure::work(&error))?;
    let folder = output_of(None, &recipe);
    if build::up_to_date(&folder, &inputs, pins.used()).is_some() {
        return Ok(Held {
            folder,
            _manifest: None,
        });
    }
    let inputs = inputs::with_lock(&inputs, pins.used());
    let inputs = inputs.map_err(|error| Failure::work(&error))?;
    let means = Means::prepare(options, pins, environment, output)?;
    let store = means.fetcher.store();
    let folder = store.appliance_path(&inputs);
    let mut held = Err(std::io::ErrorKind::NotFound.into());
    for _ in 0..ATTEMPTS_MAX {
        build(&recipe, file, &folder, &means)?;
        held = store.hold_appliance(&inputs);
        if held.is_ok() {
            break;
        }
    }
    let manifest = held.map_err(|error| Failure::work(&error))?;
    Ok(Held::new(folder, manifest))
}

/// Gives the appliance, and where the log of the recipe's steps is, if any ran.
pub(super) fn build(
    recipe: &Recipe,
    file: &Path,
    folder: &Path,
    means: &Means,
) -> Result<(Built, Option<PathBuf>), Failure> {
    let folder = std::path::absolute(folder).map_err(|error| Failure::work(&error))?;
    let origin = origin(file);
    let request = means.request(recipe, &origin, &folder);
    let stopped = "the build was stopped by a signal; the output folder is as it was";
    let built = build::build(&request).map_err(|error| means.failed(&error, stopped))?;
    let log = request.means.log.as_ref().and_then(|log| log.written());
    Ok((built, log.map(Path::to_owned)))
}

/// The recipe's file, whatever it was called by.
pub(super) fn origin(file: &Path) -> PathBuf {
    fs_err::canonicalize(file).unwrap_or_else(|_| file.to_owned())
}

/// A failure with how to go on.
pub(super) fn explain(error: &BuildError) -> Failure {
    let failure = Failure::work(error);
    match error {
        BuildError::Guest(GuestError::Secret(SecretError::Missing(name))) => failure.with_hint(
            format!("--secret {name}=FILE or --secret {name}=env:VARIABLE says it"),
        ),
        BuildError::Guest(GuestError::Secret(_)) => failure,
        BuildError::Guest(GuestError::Failed { .. }) => failure.with_hint(
            "coop build --debug-shell opens a shell in the guest there; nothing was written to the \
             output folder",
        ),
        BuildError::Guest(_) => failure.with_hint(
            "the guest's output above may tell more; nothing was written to the output folder",
        ),
        BuildError::Obtain(error) => kernel::explain(error),
        BuildError::Disk(DiskSourceError::Convert(error)) => convert::explain_in_recipe(error),
        _ => failure,
    }
}
