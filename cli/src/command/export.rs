//! `coop export`: appliances for those who do not have coop.

use std::path::Path;

use coop_appliance::Appliance;
use coop_builder::export::{ContainerOptions, ExportError, container};
use serde_json::json;

use super::Ended;
use super::subject::{self, Kind};
use super::watched::Watched;
use crate::arguments::{ExportFormat, ExportOptions};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::host;
use crate::render::{Output, bytes, data, json as render_json, line};

/// The program that runs.
const PROGRAM: &str = "/proc/self/exe";

/// Writes the image.
pub(crate) fn run(options: &ExportOptions, environment: &Environment, output: &Output) -> Ended {
    let ExportFormat::Container = options.format;
    subject::expect(&options.appliance, &[Kind::Appliance])?;
    let appliance = Appliance::open(&options.appliance).map_err(|error| Failure::work(&error))?;
    let watched = Watched::start(options.progress, output)?;
    let scratch = host::host(environment).scratch;
    let wanted = ContainerOptions {
        appliance: &appliance,
        program: Path::new(PROGRAM),
        scratch: &scratch,
        output: &options.output,
        archive: options.output.extension().is_some_and(|end| end == "tar"),
    };
    let exported = container(&wanted, &*watched.observer).map_err(|error| {
        let stopped = watched.stopped("the export was stopped by a signal; nothing was written");
        stopped.unwrap_or_else(|| explain(&error))
    })?;
    let shown = options.output.display();
    if options.json {
        render_json::value(&json!({
            "output": render_json::path(&options.output),
            "name": exported.name,
            "digest": exported.digest.to_string(),
            "layer_bytes": exported.layer_bytes,
        }));
        return Ok(0);
    }
    let sizes: Vec<String> = exported
        .layer_bytes
        .iter()
        .map(|size| bytes(*size))
        .collect();
    line(&format!(
        "image {}: layers of {}",
        exported.name,
        sizes.join(" and ")
    ));
    data(&format!("{shown}\n"));
    Ok(0)
}

fn explain(error: &ExportError) -> Failure {
    let failure = Failure::work(error);
    match error {
        ExportError::Program { .. } => {
            failure.with_hint("a coop that is linked statically needs no libraries")
        }
        _ => failure,
    }
}
