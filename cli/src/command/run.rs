//! `coop run`: boots an appliance.

use super::Ended;
use crate::arguments::RunOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::Output;

/// Boots.
pub(crate) fn run(_options: &RunOptions, _environment: &Environment, _output: &Output) -> Ended {
    Err(Failure::usage("running is not supported yet"))
}
