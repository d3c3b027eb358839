//! `coop lock`: what a recipe's names stand for, into a file beside it. `coop fetch`: the same into the
//! cache.

use std::collections::BTreeSet;
use std::path::Path;

use coop_builder::build;
use coop_builder::lock::{self, Change, Lock, Pins};
use serde_json::json;

use super::Ended;
use super::means::{self, Means};
use crate::arguments::{FetchOptions, LockOptions, RecipeOptions};
use crate::environment::Environment;
use crate::failure::{FAILED, Failure};
use crate::render::{Output, data, json as render_json, line, plain};

/// Asks the archives, and writes the lock or compares it.
pub(crate) fn run(options: &LockOptions, environment: &Environment, output: &Output) -> Ended {
    if options.recipe_options.locked {
        let failure = Failure::usage("--locked uses a lock, and coop lock makes one");
        return Err(failure.with_hint("coop lock --check tells how it would differ"));
    }
    let recipe = means::read(&options.recipe, &options.recipe_options, output)?;
    let path = lock::path_of(&options.recipe);
    let old = read(&path)?;
    if options.check && old.is_none() {
        let failure = Failure::usage(format!("there is no {}", path.display()));
        return Err(failure.with_hint("coop lock without --check writes it"));
    }
    let pins = Pins::making(kept(options, old.as_ref())?, moves(options));
    let means = Means::prepare(&options.recipe_options, pins, environment, output)?;
    let request = means.request(&recipe, &options.recipe, Path::new(""));
    let new = build::lock(&request);
    let new = new.map_err(|error| means.failed(&error, "the lock is as it was"))?;
    let changes = match &old {
        Some(old) => lock::differences(old, &new),
        None => Vec::new(),
    };
    let differs = old.as_ref() != Some(&new);
    if differs && !options.check {
        lock::write(&path, &new).map_err(|error| Failure::work(&error))?;
    }
    if options.json {
        render_json::value(&json!({
            "lock": render_json::path(&path),
            "changed": differs,
            "changes": changes.iter().map(Change::to_string).collect::<Vec<_>>(),
        }));
    } else {
        for change in &changes {
            data(&format!("{}\n", plain(&change.to_string())));
        }
        data(&format!("{}\n", path.display()));
    }
    Ok(match options.check && !changes.is_empty() {
        true => FAILED,
        false => 0,
    })
}

/// Brings what a recipe's lock names, or without one what its names stand for, into the cache.
pub(crate) fn fetch(options: &FetchOptions, environment: &Environment, output: &Output) -> Ended {
    let (recipe, means) = means::of_recipe(
        &options.recipe,
        &options.recipe_options,
        environment,
        output,
    )?;
    let request = means.request(&recipe, &options.recipe, Path::new(""));
    let stopped = "what was fetched whole is in the cache";
    let fetched = build::fetch(&request);
    let (files, bytes) = fetched.map_err(|error| means.failed(&error, stopped))?;
    if options.json {
        render_json::value(&json!({ "files": files, "bytes": bytes }));
    } else {
        line(&format!("{files} files are in the cache"));
    }
    Ok(0)
}

/// What of the old lock may stay. Without names, an update and a check keep nothing.
fn kept(options: &LockOptions, old: Option<&Lock>) -> Result<Lock, Failure> {
    let lock = old.cloned().unwrap_or_default();
    if options.moves.is_empty() {
        let is_fresh = options.update || options.check;
        return Ok(if is_fresh { Lock::default() } else { lock });
    }
    lock.check_names(&options.moves)
        .map_err(|error| Failure::usage(error.to_string()))?;
    Ok(lock)
}

fn moves(options: &LockOptions) -> BTreeSet<String> {
    options.moves.iter().cloned().collect()
}

/// The lock beside a recipe, for work that uses it.
pub(super) fn pins(recipe: &Path, options: &RecipeOptions) -> Result<Pins, Failure> {
    let path = lock::path_of(recipe);
    match read(&path)? {
        Some(lock) => Ok(Pins::locked(lock)),
        None if options.locked => {
            let failure = Failure::usage(format!("there is no {}", path.display()));
            Err(failure.with_hint(format!("coop lock {} writes it", recipe.display())))
        }
        None => Ok(Pins::live()),
    }
}

fn read(path: &Path) -> Result<Option<Lock>, Failure> {
    lock::read(path).map_err(|error| Failure::work(&error))
}
