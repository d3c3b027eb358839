//! `coop build`: from a recipe to an appliance's folder.

use super::Ended;
use crate::arguments::BuildOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::Output;

/// Builds.
pub(crate) fn run(_options: &BuildOptions, _environment: &Environment, _output: &Output) -> Ended {
    Err(Failure::usage("building is not supported yet"))
}
