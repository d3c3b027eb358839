//! `coop kernel`: the kernel of a recipe alone.

mod build;
mod config;
mod list;
mod other;

use std::path::Path;
use std::sync::Arc;

use coop_builder::build::{self as whole, BuildRequest};
use coop_builder::kernel::FetchedKernel;
use coop_builder::recipe::Recipe;

use super::Ended;
use super::means::Means;
use crate::arguments::{KernelCommand, RecipeOptions};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::host;
use crate::render::Output;

/// Runs one of the verbs below `kernel`.
pub(crate) fn run(command: &KernelCommand, environment: &Environment, output: &Output) -> Ended {
    match command {
        KernelCommand::Config(options) => config::run(options, environment, output),
        KernelCommand::Build(options) => build::run(options, environment, output),
        KernelCommand::List(options) => list::run(options, environment),
    }
}

/// Whether failures are to be one JSON value.
pub(crate) fn is_json(command: &KernelCommand) -> bool {
    match command {
        KernelCommand::Config(options) => options.json,
        KernelCommand::Build(options) => options.json,
        KernelCommand::List(options) => options.json,
    }
}

/// Has a recipe's kernel fetched or made.
fn obtain(
    recipe: &Recipe,
    means: &Means,
    options: &RecipeOptions,
    environment: &Environment,
) -> Result<FetchedKernel, Failure> {
    let request = BuildRequest {
        recipe,
        output: Path::new(""),
        fetcher: &means.fetcher,
        archive: means.archive(recipe),
        kernel: means.kernel,
        host: host::host(environment),
        programs: &environment.programs,
        allow_dropped: options.allow_dropped,
        observer: Arc::clone(&means.observer),
    };
    whole::kernel(&request).map_err(|error| {
        means
            .stopped("the kernel's build was stopped by a signal")
            .unwrap_or_else(|| super::build::explain(&error))
    })
}
