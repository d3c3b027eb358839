//! `modules.dep` and its siblings, as kmod's depmod writes them.
//!
//! Two things differ from depmod. What depmod only complains about and leaves out is an error here:
//! a damaged module, modules that need each other. And where two files are the same module and
//! neither lies in `updates/`, depmod takes the one that the file system lists first; here it is
//! the first by path.

use std::collections::BTreeMap;

use coop_image::tree::{Inode, InodeId, Kind, Metadata, Tree, TreeError, display};
use rayon::prelude::*;

use super::graph::{Graph, Module};
use super::module_file::{MODULE_BYTES_MAX, read_module};
use super::name::{is_module, module_name};
use super::{builtin, listing};

/// More modules than this are refused; kmod has the same limit.
pub const MODULES_MAX: usize = 65_534;
/// The largest `modules.order`, `modules.builtin` or `modules.builtin.modinfo`, in bytes.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// The folder whose modules take the place of others with the same name.
const UPDATES: &str = "updates/";

/// Why no dependencies can be written.
#[derive(Debug, thiserror::Error)]
pub enum DepmodError {
    /// A module is damaged or none.
    #[error("kernel module {path} {problem}")]
    Module {
        /// Path below the modules' folder.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Modules need each other.
    #[error("kernel modules need each other: {0}")]
    Cycle(String),
    /// More than [`MODULES_MAX`].
    #[error("there are {0} kernel modules, more than {MODULES_MAX}")]
    TooMany(usize),
    /// A file cannot be written in kmod's format, or not be read.
    #[error("{file} of the kernel modules: {problem}")]
    File {
        /// The file.
        file: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The tree refuses.
    #[error("kernel modules: {0}")]
    Tree(#[from] TreeError),
}

/// Writes depmod's eleven files into the root of `modules`, which is what becomes
/// `/lib/modules/RELEASE`: `kernel/…/*.ko` (`.gz`, `.xz` or `.zst` too), and `modules.order`,
/// `modules.builtin` and `modules.builtin.modinfo` where the kernel has them.
///
/// # Errors
/// See [`DepmodError`].
pub fn depmod(modules: &mut Tree) -> Result<(), DepmodError> {
    for (name, bytes) in depmod_files(modules)? {
        let content = modules.add_bytes(bytes)?;
        let id = modules.add_inode(Inode {
            metadata: Metadata {
                mode: 0o644,
                ..Metadata::default()
            },
            kind: Kind::File(content),
        })?;
        modules.replace(InodeId::ROOT, name.as_bytes(), id)?;
    }
    Ok(())
}

/// The files that [`depmod`] writes, by name.
///
/// # Errors
/// See [`DepmodError`].
pub fn depmod_files(modules: &Tree) -> Result<Vec<(&'static str, Vec<u8>)>, DepmodError> {
    let order = list(modules, "modules.order")?.unwrap_or_default();
    let graph = Graph::new(read_all(modules)?, &order).map_err(DepmodError::Cycle)?;
    let lines = graph.dependency_lines();
    let builtin = list(modules, "modules.builtin")?;
    let builtin_info = list(modules, "modules.builtin.modinfo")?;
    let files: [(&'static str, Result<Vec<u8>, String>); 11] = [
        ("modules.dep", Ok(listing::dependencies(&lines))),
        ("modules.dep.bin", listing::dependency_index(&graph, lines)),
        ("modules.alias", Ok(listing::aliases(&graph))),
        ("modules.alias.bin", listing::alias_index(&graph)),
        ("modules.softdep", Ok(listing::soft_dependencies(&graph))),
        ("modules.weakdep", Ok(listing::weak_dependencies(&graph))),
        ("modules.symbols", Ok(listing::symbols(&graph))),
        ("modules.symbols.bin", listing::symbol_index(&graph)),
        ("modules.builtin.bin", builtin::names(builtin.as_deref())),
        (
            "modules.builtin.alias.bin",
            builtin::aliases(builtin_info.as_deref()),
        ),
        ("modules.devname", Ok(listing::device_names(&graph))),
    ];
    let named = files.into_iter().map(|(file, bytes)| match bytes {
        Ok(bytes) => Ok((file, bytes)),
        Err(problem) => Err(DepmodError::File { file, problem }),
    });
    named.collect()
}

/// A text file of the kernel's, `None` where it made none.
fn list(modules: &Tree, file: &'static str) -> Result<Option<String>, DepmodError> {
    let Some(id) = modules.child(InodeId::ROOT, file.as_bytes()) else {
        return Ok(None);
    };
    let bytes = modules.read_file(id, LIST_BYTES_MAX);
    let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    text.map(Some).map_err(|error| DepmodError::File {
        file,
        problem: error.to_string(),
    })
}

/// Finds every module and reads them on all threads.
fn read_all(modules: &Tree) -> Result<Vec<Module>, DepmodError> {
    let found = find(modules)?;
    if found.len() > MODULES_MAX {
        return Err(DepmodError::TooMany(found.len()));
    }
    let read = |(name, (path, id)): (String, (String, InodeId))| {
        let bytes = modules.read_file(id, MODULE_BYTES_MAX);
        let object = bytes.map_err(|error| format!("cannot be read: {error}"));
        match object.and_then(read_module) {
            Ok(object) => Ok(Module { path, name, object }),
            Err(problem) => Err(DepmodError::Module { path, problem }),
        }
    };
    // Results are gathered before the first error is taken, so that it is always the same one.
    let results: Vec<_> = found.into_par_iter().map(read).collect();
    results.into_iter().collect()
}

/// Modules by name: path and inode.
fn find(modules: &Tree) -> Result<BTreeMap<String, (String, InodeId)>, DepmodError> {
    let mut found: BTreeMap<String, (String, InodeId)> = BTreeMap::new();
    for (path, id) in modules.paths() {
        if !matches!(modules.inode(id).kind, Kind::File(_)) || is_excluded(&path) {
            continue;
        }
        let shown = || display(&path);
        let Some(text) = str::from_utf8(&path).ok().and_then(|p| p.strip_prefix('/')) else {
            continue;
        };
        if !is_module(text.rsplit('/').next().unwrap_or(text)) {
            continue;
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(DepmodError::Module {
                path: shown(),
                problem: "has a name that modules.dep cannot hold".into(),
            });
        }
        let is_newer =
            |(old, _): &(String, InodeId)| text.starts_with(UPDATES) && !old.starts_with(UPDATES);
        let name = module_name(text);
        if found.get(&name).is_none_or(is_newer) {
            found.insert(name, (text.to_owned(), id));
        }
    }
    Ok(found)
}

/// `build` and `source` lead to the kernel's sources, not to modules.
fn is_excluded(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        .any(|part| part == b"build" || part == b"source")
}
