//! What an appliance's evidence is good for: to build the appliance again, wherever it was copied.
//!
//! The appliance may be a stranger's, and so may its recipe. Everything that the recipe names is
//! put into a folder of its own, each file checked by its digest, and the recipe may name nothing
//! else of the host. What it runs, it runs in guests.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use coop_appliance::{Appliance, ApplianceError, EVIDENCE_FOLDER};
use coop_image::tar::{self, TarError};
use coop_image::tree::{InodeId, Kind, Metadata, Tree, display};
use fs_err as fs;
use tempfile::TempDir;

use super::provenance::is_public;
use super::{INPUTS, InputFile, LOCK, PROVENANCE, Parameters, RECIPE};
use crate::digest::Digest;
use crate::guest::digest_of_source;
use crate::inputs::{self, FileDigests};
use crate::kernel::KernelChoice;
use crate::lock::{self, Lock, LockError};
use crate::recipe::{self, Diagnostic, Recipe};

/// The largest recipe or provenance that is read, in bytes.
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// The largest archive of inputs, in bytes.
const INPUTS_BYTES_MAX: u64 = 64 << 20;
/// The most files that a recipe may name.
const FILES_MAX: usize = 10_000;
/// How many names are looked at where files are searched for.
const SEARCHED_MAX: usize = 200_000;
/// So many missing files are named.
const SHOWN_MAX: usize = 20;

/// Why an appliance cannot be built again.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The appliance.
    #[error(transparent)]
    Appliance(#[from] ApplianceError),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is no such evidence: it was made by an older coop, or somebody took it away.
    #[error("the appliance has no {EVIDENCE_FOLDER}/{0}")]
    Missing(&'static str),
    /// The evidence is not what coop writes.
    #[error("{EVIDENCE_FOLDER}/{file}: {problem}")]
    Evidence {
        /// The file.
        file: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Another coop gives other bytes.
    #[error(
        "the appliance was built by coop {0}, and this is coop {this}; only the same one gives the same \
         bytes",
        this = env!("CARGO_PKG_VERSION")
    )]
    Version(String),
    /// The archive of inputs.
    #[error("{EVIDENCE_FOLDER}/{INPUTS}: {0}")]
    Archive(#[from] TarError),
    /// Files that are too large for the evidence, and are not where they were searched for.
    #[error("{count} of the recipe's files are not in {}: {list}", folder.display())]
    Files {
        /// How many.
        count: usize,
        /// Where they were searched for.
        folder: PathBuf,
        /// The names and digests of the first.
        list: String,
    },
    /// The recipe is none.
    #[error("{EVIDENCE_FOLDER}/{RECIPE} is not valid: {0}")]
    Recipe(String),
    /// The recipe is not what the appliance was built from.
    #[error("{EVIDENCE_FOLDER}/{RECIPE} is not the recipe that the manifest tells of")]
    OtherRecipe,
}

/// What an appliance was built from.
#[derive(Debug)]
pub struct Rebuild {
    /// The recipe, its files where they were found.
    pub recipe: Recipe,
    /// What its names came to stand for.
    pub lock: Lock,
    /// What else counts.
    pub parameters: Parameters,
    /// Which kernel it gets where it names none.
    pub kernel: KernelChoice,
    /// Where the files are; they vanish with it.
    folder: TempDir,
}

impl Rebuild {
    /// A folder for the new appliance, which vanishes with this.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.folder.path().join("appliance")
    }
}

/// Reads the evidence of an appliance that was verified. Files that are not kept with it are
/// searched for in `context` and below, by their digests; `scratch` is for temporary files.
///
/// # Errors
/// See [`RebuildError`].
pub fn prepare(
    appliance: &Appliance,
    context: &Path,
    scratch: &Path,
) -> Result<Rebuild, RebuildError> {
    let parameters = parameters(appliance)?;
    if parameters.coop != env!("CARGO_PKG_VERSION") {
        return Err(RebuildError::Version(display(parameters.coop.as_bytes())));
    }
    let bad = |problem: &str| RebuildError::Evidence {
        file: PROVENANCE,
        problem: problem.to_owned(),
    };
    let kernel = parameters
        .choice()
        .ok_or_else(|| bad("it names no kernel that coop has"))?;
    if parameters.files.len() > FILES_MAX || !parameters.files.iter().all(|one| is_input(&one.name))
    {
        return Err(bad("it names files as coop does not"));
    }
    let addresses = [
        &parameters.mirror,
        &parameters.security,
        &parameters.snapshots,
    ];
    if !addresses.into_iter().flatten().all(|url| is_public(url)) {
        return Err(bad("it names archives that are not on the web"));
    }
    let lock = lock::read(&path(appliance, LOCK)?)?.ok_or(RebuildError::Missing(LOCK))?;
    let folder = tempfile::Builder::new()
        .prefix("coop-verify-")
        .tempdir_in(scratch)?;
    place(appliance, &parameters.files, context, folder.path())?;
    let text = String::from_utf8(read(appliance, RECIPE)?)
        .map_err(|_| RebuildError::Recipe("it is not UTF-8".to_owned()))?;
    let file = folder.path().join(RECIPE);
    let names = parameters
        .files
        .iter()
        .map(|one| one.name.clone())
        .collect();
    let recipe = recipe::parse_within(&text, &file, &names).map_err(|errors| said(&errors))?;
    let inputs = inputs::digest(&recipe, kernel, &FileDigests::default())?;
    if inputs.to_string() != appliance.manifest.inputs {
        return Err(RebuildError::OtherRecipe);
    }
    Ok(Rebuild {
        recipe,
        lock,
        parameters,
        kernel,
        folder,
    })
}

fn said(errors: &[Diagnostic]) -> RebuildError {
    let first = errors.first().map(|error| error.problem.to_string());
    RebuildError::Recipe(display(first.unwrap_or_default().as_bytes()))
}

/// A file of the evidence that the manifest tells of, so that its digest was compared.
fn path(appliance: &Appliance, name: &'static str) -> Result<PathBuf, RebuildError> {
    let wanted = format!("{EVIDENCE_FOLDER}/{name}");
    let mut members = appliance.manifest.evidence.iter();
    let member = members.find(|member| member.path == wanted);
    Ok(appliance.path(member.ok_or(RebuildError::Missing(name))?)?)
}

fn read(appliance: &Appliance, name: &'static str) -> Result<Vec<u8>, RebuildError> {
    let path = path(appliance, name)?;
    if fs::metadata(&path)?.len() > TEXT_BYTES_MAX {
        let problem = format!("it has more than {TEXT_BYTES_MAX} bytes");
        return Err(RebuildError::Evidence {
            file: name,
            problem,
        });
    }
    Ok(fs::read(path)?)
}

fn parameters(appliance: &Appliance) -> Result<Parameters, RebuildError> {
    let failed = |error: serde_json::Error| RebuildError::Evidence {
        file: PROVENANCE,
        problem: error.to_string(),
    };
    let bytes = read(appliance, PROVENANCE)?;
    let mut statement: serde_json::Value = serde_json::from_slice(&bytes).map_err(failed)?;
    let pointer = "/predicate/buildDefinition/internalParameters";
    let parameters = statement.pointer_mut(pointer).map(serde_json::Value::take);
    serde_json::from_value(parameters.unwrap_or_default()).map_err(failed)
}

/// Below the folder of inputs, and plain.
fn is_input(name: &str) -> bool {
    let path = Path::new(name);
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    is_plain && name.starts_with("inputs/") && !name.ends_with('/') && !name.contains("//")
}

/// Puts every file where the recipe names it.
fn place(
    appliance: &Appliance,
    files: &[InputFile],
    context: &Path,
    folder: &Path,
) -> Result<(), RebuildError> {
    let bad = |problem: String| RebuildError::Evidence {
        file: INPUTS,
        problem,
    };
    let kept = match files.iter().any(|file| file.kept) {
        true => archive(appliance)?,
        false => Tree::new(Metadata::default()),
    };
    let inside: BTreeMap<Vec<u8>, InodeId> = kept.paths().into_iter().collect();
    let (mut missing, mut searched) = (Vec::new(), None);
    for file in files {
        let target = folder.join(&file.name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if file.kept {
            let id = inside.get(format!("/{}", file.name).as_bytes());
            let id = *id.ok_or_else(|| bad(format!("it has no {}", file.name)))?;
            write_out(&kept, id, &target, file.mounted)?;
            if digest(&target, file.mounted)? != file.sha256 {
                return Err(bad(format!("{} is another file than it says", file.name)));
            }
            continue;
        }
        let searched = searched.get_or_insert_with(|| search(context));
        match find(searched, file) {
            Some(found) => symlink(fs::canonicalize(found)?, &target)?,
            None => missing.push(file),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let shown = missing.iter().take(SHOWN_MAX);
    let shown = shown.map(|file| {
        let last = file.name.rsplit('/').next().unwrap_or_default();
        format!(
            "{} ({} bytes, sha256 {})",
            display(last.as_bytes()),
            file.size_bytes,
            file.sha256
        )
    });
    Err(RebuildError::Files {
        count: missing.len(),
        folder: context.to_owned(),
        list: shown.collect::<Vec<_>>().join("; "),
    })
}

fn archive(appliance: &Appliance) -> Result<Tree, RebuildError> {
    let (file, path) = fs::File::open(path(appliance, INPUTS)?)?.into_parts();
    if file.metadata()?.len() > INPUTS_BYTES_MAX {
        let problem = format!("{} has more than {INPUTS_BYTES_MAX} bytes", path.display());
        return Err(RebuildError::Evidence {
            file: INPUTS,
            problem,
        });
    }
    let mut tree = Tree::new(Metadata::default());
    let blob = tree
        .add_blob(std::sync::Arc::new(file))
        .map_err(io::Error::other)?;
    tar::read_blob(&mut tree, blob, &tar::Options::default())?;
    Ok(tree)
}

/// Writes a file, or for a mount a folder, to a new name. Nothing that is written goes through a
/// link: the names above were made here.
fn write_out(tree: &Tree, id: InodeId, target: &Path, mounted: bool) -> Result<(), RebuildError> {
    let mut pending = vec![(id, target.to_owned())];
    let mut inner = false;
    while let Some((id, target)) = pending.pop() {
        let inode = tree.inode(id);
        let is_program = inode.metadata.mode & 0o111 != 0;
        match &inode.kind {
            Kind::File(_) => {
                let bytes = tree.read_file(id, INPUTS_BYTES_MAX)?;
                let mode = if is_program { 0o755 } else { 0o644 };
                let mut options = fs::OpenOptions::new();
                let mut file = options.write(true).create_new(true).open(&target)?;
                file.write_all(&bytes)?;
                // Whatever the umask is.
                fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
            }
            Kind::Directory(entries) if mounted => {
                fs::create_dir(&target)?;
                for (name, child) in entries {
                    use std::os::unix::ffi::OsStrExt;
                    pending.push((*child, target.join(std::ffi::OsStr::from_bytes(name))));
                }
            }
            Kind::Symlink(to) if mounted && inner => {
                use std::os::unix::ffi::OsStrExt;
                symlink(std::ffi::OsStr::from_bytes(to), &target)?;
            }
            _ => {
                return Err(RebuildError::Evidence {
                    file: INPUTS,
                    problem: "it has what is no file".to_owned(),
                });
            }
        }
        inner = true;
    }
    Ok(())
}

fn digest(path: &Path, mounted: bool) -> io::Result<Digest> {
    match mounted {
        true => digest_of_source(path).map_err(io::Error::other),
        false => coop_appliance::sha256_of_file(path).map(Digest::from),
    }
}

/// What is in a folder and below: names, sizes of files, and whether it is a folder. Links are not
/// followed; what cannot be read is passed over.
fn search(context: &Path) -> Vec<(PathBuf, u64, bool)> {
    let mut found = Vec::new();
    let mut pending = vec![context.to_owned()];
    while let Some(folder) = pending.pop() {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        for entry in entries {
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else {
                continue;
            };
            if found.len() >= SEARCHED_MAX {
                return found;
            }
            let is_folder = metadata.is_dir();
            if is_folder {
                pending.push(entry.path());
            }
            if is_folder || metadata.is_file() {
                found.push((entry.path(), metadata.len(), is_folder));
            }
        }
    }
    // Whichever of several equal ones it is, it is the same one each time.
    found.sort();
    found
}

/// Sizes tell files apart before their digests do; of mounts, names.
fn find<'a>(searched: &'a [(PathBuf, u64, bool)], file: &InputFile) -> Option<&'a Path> {
    let last = file.name.rsplit('/').next().unwrap_or_default();
    let fits = |(path, size, is_folder): &&(PathBuf, u64, bool)| {
        let by_look = match file.mounted {
            true => path.file_name().is_some_and(|name| name == last),
            false => !is_folder && *size == file.size_bytes,
        };
        by_look && digest(path, file.mounted).is_ok_and(|found| found == file.sha256)
    };
    searched
        .iter()
        .find(fits)
        .map(|(path, _, _)| path.as_path())
}

/// Whether an appliance's folder holds what its manifest names and nothing else; says what else.
///
/// # Errors
/// A folder cannot be read.
pub fn unlisted(appliance: &Appliance) -> io::Result<Vec<String>> {
    let manifest = coop_appliance::MANIFEST_NAME;
    let members = appliance
        .manifest
        .members()
        .map(|member| member.path.as_str());
    let listed: BTreeSet<&str> = members.chain([manifest]).collect();
    let mut others = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(appliance.folder.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                pending.push(path);
            } else if !path.to_str().is_some_and(|path| listed.contains(path)) {
                use std::os::unix::ffi::OsStrExt;
                others.push(display(path.as_os_str().as_bytes()));
            }
        }
    }
    others.sort();
    Ok(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_inputs_are_plain() {
        for good in ["inputs/0123/a", "inputs/kernel.config"] {
            assert!(is_input(good), "{good}");
        }
        for bad in [
            "",
            "inputs",
            "inputs/",
            "a",
            "/inputs/a",
            "inputs/../a",
            "inputs//a",
            "inputs/./a/",
        ] {
            assert!(!is_input(bad), "{bad}");
        }
    }
}
