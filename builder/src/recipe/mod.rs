//! The recipe: the YAML that a person writes, read strictly.
//!
//! `node` makes a tree with positions of the text, `variables` fills `${name}` in, `written` reads
//! the tree key by key, `resolve` fills in the defaults and checks what needs more than one key.
//! Each stage reports every error that it sees; the next one runs only if there was none, so that
//! no error is a mere consequence of another. A recipe may come from anyone: its size, depth,
//! aliases and numbers have limits.

mod debian;
mod decode;
mod defaults;
mod device_root;
mod devices;
mod diagnostic;
mod kernel;
mod model;
mod names;
mod node;
mod overrides;
mod password;
mod readonly;
mod resolve;
mod restate;
mod rootfs;
mod run;
mod schema;
mod units;
mod users;
mod variables;
mod written;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use fs_err as fs;

pub(crate) use device_root::{NFS_OPTIONS_MAX, nfs_option, server_name};
pub use devices::{FORWARDED_PORTS_MAX, check_memory};
pub use diagnostic::{Diagnostic, Place, Problem, Warning};
pub use model::{
    Architecture, BuildPlace, Cobd, CobdContent, Cocon, Conet, Debian, Devices, Disk, Exclude,
    FileContent, FileEntry, HostFile, Installation, Kernel, KernelLocation, KernelOrigin,
    KernelPackage, KernelSource, Keyring, Mirror, Owner, Password, PathRule, Recipe, Repository,
    RepositoryMirror, RootSize, Rootfs, RunAction, RunMount, RunStep, Services, Source,
    StepNetwork, Tarball, TarballLocation, TestStep, User, UserId, Variant, canonical,
};
pub(crate) use names::{guest_folder, is_cobd};
pub use overrides::Overrides;
pub use restate::{Names, Restated, restate};
pub use schema::schema;
pub use units::{ByteCount, Percent, forwards_overlap, parse_duration, parse_forward};

use decode::Decoder;

/// Reads a recipe. `file` is its path, for messages and as the place that relative names start
/// from; `sets` are values for its variables.
///
/// Files that the recipe names are looked at, kernel fragments are read, nothing else is touched.
///
/// # Errors
/// Every error of the first stage that has one, in the order of the text.
pub fn parse(
    text: &str,
    file: &Path,
    sets: &BTreeMap<String, String>,
) -> Result<(Recipe, Vec<Warning>), Vec<Diagnostic>> {
    let names = None;
    parse_source(&diagnostic::Source { file, text, names }, sets)
}

/// Reads a recipe of a stranger's: it has no variables to set, and may name no other files than
/// those of `names`, which are looked for in the folder of `file`.
///
/// # Errors
/// As [`parse`].
pub fn parse_within(
    text: &str,
    file: &Path,
    names: &BTreeSet<String>,
) -> Result<Recipe, Vec<Diagnostic>> {
    let names = Some(names);
    let source = diagnostic::Source { file, text, names };
    Ok(parse_source(&source, &BTreeMap::new())?.0)
}

fn parse_source(
    source: &diagnostic::Source<'_>,
    sets: &BTreeMap<String, String>,
) -> Result<(Recipe, Vec<Warning>), Vec<Diagnostic>> {
    let mut decoder = Decoder::new(source);
    let mut warnings = Vec::new();
    match stages(&mut decoder, sets, &mut warnings) {
        Some(recipe) if decoder.diagnostics.is_empty() => Ok((recipe, warnings)),
        _ => {
            let mut diagnostics = decoder.diagnostics;
            diagnostics.sort_by_key(|diagnostic| {
                let place = diagnostic.place.as_ref();
                place.map(|place| (place.line, place.column))
            });
            Err(diagnostics)
        }
    }
}

fn stages(
    decoder: &mut Decoder<'_>,
    sets: &BTreeMap<String, String>,
    warnings: &mut Vec<Warning>,
) -> Option<Recipe> {
    let text = decoder.source.text;
    let mut root = match node::parse(text) {
        Ok(root) => root,
        Err(rejected) => {
            decoder.report(rejected.at, rejected.problem, None);
            return None;
        }
    };
    let variables = variables::collect(decoder, &root, sets);
    if !variables::fill(decoder, &mut root, &variables) {
        return None;
    }
    let written = written::recipe(decoder, &root)?;
    if !decoder.diagnostics.is_empty() {
        return None;
    }
    resolve::resolve(decoder, written, warnings)
}

/// Reads a recipe from its file; see [`parse`].
///
/// # Errors
/// As [`parse`]; also if the file cannot be read, is not UTF-8 or is too large.
pub fn read(
    file: &Path,
    sets: &BTreeMap<String, String>,
) -> Result<(Recipe, Vec<Warning>), Vec<Diagnostic>> {
    let text = read_text(file).map_err(|reason| {
        vec![Diagnostic {
            file: file.to_owned(),
            place: None,
            problem: Problem::Limit(reason),
            hint: None,
        }]
    })?;
    parse(&text, file, sets)
}

/// Reads a file of overrides; see [`Overrides`].
///
/// # Errors
/// As [`Overrides::parse`]; also if the file cannot be read, is not UTF-8 or is too large.
pub fn read_overrides(file: &Path) -> Result<Overrides, Vec<Diagnostic>> {
    let text = read_text(file).map_err(|reason| {
        vec![Diagnostic {
            file: file.to_owned(),
            place: None,
            problem: Problem::Limit(reason.replace("recipe", "file of overrides")),
            hint: None,
        }]
    })?;
    Overrides::parse(&text, file)
}

fn read_text(file: &Path) -> Result<String, String> {
    let too_large = || {
        format!(
            "the recipe has more than {} bytes, the limit",
            node::TEXT_SIZE_MAX
        )
    };
    let reason = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::IsADirectory => "this is a folder, but a recipe is a file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "the recipe may not be read".to_owned(),
        _ => error.to_string(),
    };
    let limit = u64::try_from(node::TEXT_SIZE_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).map_err(|error| reason(&error))?;
    opened
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| reason(&error))?;
    if bytes.len() > node::TEXT_SIZE_MAX {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("the recipe is not UTF-8 at byte {at}")
    })
}
