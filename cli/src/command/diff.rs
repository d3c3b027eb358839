//! `coop diff`: what do two things differ in?

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use coop_builder::cobd::{self, Found, Operand};
use coop_image::compare::Field;
use coop_image::folder::Check;
use coop_image::tree::display;
use serde_json::{Value, json};

use super::Ended;
use super::image::processors;
use super::subject::{self, Kind};
use crate::arguments::DiffOptions;
use crate::environment::Environment;
use crate::failure::{FAILED, Failure, USAGE};
use crate::host;
use crate::render::{data, json as render_json, plain};

/// So many differences are kept for one JSON value.
const JSON_MAX: usize = 100_000;

/// Compares, and exits with 1 where there is a difference.
pub(crate) fn run(options: &DiffOptions, environment: &Environment) -> Ended {
    let mut ignore: BTreeSet<Field> = options.ignore.iter().copied().collect();
    if !options.times {
        ignore.extend([Field::Atime, Field::Ctime, Field::Crtime]);
    }
    let first = open(&options.first, environment)?;
    let second = open(&options.second, environment)?;
    let mut found: Vec<Value> = Vec::new();
    let mut count = 0_u64;
    let mut visit = |difference: Found| {
        count = count.saturating_add(1);
        if !options.json {
            data(&format!("{}\n", plain(&sentence(&difference))));
        } else if found.len() < JSON_MAX {
            found.push(describe(&difference));
        }
        if options.all {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    cobd::diff(first, second, &ignore, &mut visit).map_err(|error| trouble(&error))?;
    if options.json {
        render_json::value(&json!({
            "equal": count == 0,
            "count": count,
            "differences": found,
        }));
    }
    Ok(if count == 0 { 0 } else { FAILED })
}

/// Opens what a command line names.
pub(super) fn open(path: &Path, environment: &Environment) -> Result<Operand, Failure> {
    let takes = [
        Kind::Appliance,
        Kind::Image,
        Kind::File,
        Kind::Bundle,
        Kind::Folder,
    ];
    subject::expect(path, &takes)?;
    let scratch = host::host(environment).scratch;
    let spool = || tempfile::tempfile_in(scratch);
    let go_on: Check = Arc::new(|| Ok(()));
    cobd::open(path, spool, processors(), &go_on).map_err(|error| trouble(&error))
}

/// As with diff(1), 1 says that there is a difference, and 2 that nobody knows.
fn trouble(error: &dyn std::error::Error) -> Failure {
    Failure {
        code: USAGE,
        ..Failure::work(error)
    }
}

fn sentence(found: &Found) -> String {
    match &found.cobd {
        Some(name) => format!("{name}: {}", found.difference),
        None => found.difference.to_string(),
    }
}

fn describe(found: &Found) -> Value {
    let difference = &found.difference;
    json!({
        "cobd": found.cobd,
        "path": display(&difference.path),
        "field": difference.field.name(),
        "detail": difference.detail,
        "first": difference.first,
        "second": difference.second,
    })
}
