//! `coop kernel`: the kernel of a recipe alone.

mod build;
mod config;
pub(super) mod list;
mod menu;
mod other;

use coop_builder::kernel::make::MakeError;
use coop_builder::kernel::{KernelRequest, ObtainError};
use coop_builder::recipe::Recipe;
use coop_builder::source::Archive;

use super::Ended;
use super::means::Means;
use crate::arguments::KernelCommand;
use crate::environment::Environment;
use crate::failure::Failure;
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

/// What is asked of a recipe's kernel.
struct Asked<'a> {
    recipe: &'a Recipe,
    means: &'a Means,
    archive: Archive<'a>,
}

impl<'a> Asked<'a> {
    fn new(recipe: &'a Recipe, means: &'a Means) -> Self {
        Self {
            recipe,
            means,
            archive: means.archive(recipe),
        }
    }

    fn request(&self) -> KernelRequest<'_> {
        self.means
            .kernel_request(&self.recipe.kernel, &self.archive)
    }

    fn failed(&self, error: &ObtainError) -> Failure {
        let stopped = self.means.stopped("the work was stopped by a signal");
        stopped.unwrap_or_else(|| explain(error))
    }
}

/// A failure with how to go on.
pub(super) fn explain(error: &ObtainError) -> Failure {
    let failure = Failure::work(error);
    match error {
        ObtainError::Make(MakeError::Dropped { .. }) | ObtainError::Config { .. } => {
            failure.with_hint("change kernel.config, or go on without these with --allow-dropped")
        }
        ObtainError::Make(MakeError::OtherCompiler { .. } | MakeError::NoCompiler(_)) => failure
            .with_hint(
                "with kernel.source and in: guest the compiler is pinned too; coop lock --kernel \
                 prebuilt takes a kernel without one, coop lock --update takes this host's compiler",
            ),
        _ => failure,
    }
}
