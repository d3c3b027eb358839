//! `coop import`: a recipe from a configuration of coLinux or coMosix.

use std::path::{Path, PathBuf};

use coop_builder::import::{self, ImportError, Imported, Note, Outcome};
use coop_builder::staged_file::StagedFile;
use serde_json::{Value, json};

use super::Ended;
use super::subject::{self, Kind};
use crate::arguments::ImportOptions;
use crate::failure::{Failure, USAGE};
use crate::render::{data, json as render_json, line, plain};

/// Writes the recipe, and tells what is not in it.
pub(crate) fn run(options: &ImportOptions) -> Ended {
    let word = &options.configuration;
    subject::expect(word, &[Kind::Configuration])?;
    // As coop run calls it, too.
    let marked = subject::configuration(word).filter(|_| !word.exists());
    let file = marked.as_ref().unwrap_or(word);
    let folder = match &options.output {
        Some(output) => other_folder(file, output)?,
        None => None,
    };
    let imported = read(file, folder.as_deref())?;
    if let Some(output) = &options.output {
        write(output, &imported.recipe)?;
    }
    if options.json {
        render_json::value(&describe(&imported, options.output.as_deref()));
        return Ok(0);
    }
    tell(&imported.notes);
    match &options.output {
        Some(output) => data(&format!("{}\n", output.display())),
        None => data(&imported.recipe),
    }
    Ok(0)
}

/// Reads a configuration; what is wrong with it is wrong usage.
pub(super) fn read(file: &Path, folder: Option<&Path>) -> Result<Imported, Failure> {
    subject::refuse_missing(file)?;
    import::import(file, folder).map_err(|error| match error {
        ImportError::Io(_) => Failure::work(&error),
        ImportError::File { .. } | ImportError::Wrong(_) => {
            Failure::sentence(USAGE, error.to_string())
        }
    })
}

/// What was not carried over, a line each.
pub(super) fn tell(notes: &[Note]) {
    for note in notes {
        let word = match note.outcome {
            Outcome::LeftOut => "left out",
            Outcome::Changed => "changed",
            Outcome::Adapt => "to adapt",
        };
        line(&plain(&format!("{word}: {note}")));
    }
}

/// The configuration's folder, where the recipe will lie in another one.
fn other_folder(file: &Path, output: &Path) -> Result<Option<PathBuf>, Failure> {
    let folder = |path: &Path| -> std::io::Result<PathBuf> {
        let absolute = std::path::absolute(path)?;
        fs_err::canonicalize(absolute.parent().unwrap_or(Path::new("/")))
    };
    let of_file = folder(file).map_err(|error| Failure::work(&error))?;
    let of_output = folder(output).map_err(|error| Failure::work(&error))?;
    Ok((of_file != of_output).then_some(of_file))
}

/// A recipe that is there may have been changed by hand since.
fn write(output: &Path, recipe: &str) -> Result<(), Failure> {
    if output.symlink_metadata().is_ok() {
        let message = format!("{} exists, and is not overwritten", output.display());
        return Err(Failure::usage(message).with_hint("remove it, or name another file"));
    }
    let written = || -> std::io::Result<()> {
        let file = StagedFile::new(output)?;
        std::io::Write::write_all(&mut &**file.file(), recipe.as_bytes())?;
        file.publish(false)
    };
    written().map_err(|error| Failure::work(&error))
}

fn describe(imported: &Imported, output: Option<&Path>) -> Value {
    let notes: Vec<Value> = imported.notes.iter().map(describe_note).collect();
    json!({
        "dialect": imported.dialect.to_string(),
        "recipe": imported.recipe,
        "output": output.map(render_json::path),
        "notes": notes,
    })
}

fn describe_note(note: &Note) -> Value {
    json!({
        "file": note.at.file,
        "line": note.at.line,
        "outcome": note.outcome.name(),
        "what": note.what,
        "why": note.why,
    })
}
