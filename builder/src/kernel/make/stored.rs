//! Kernels in the store: each one plain tar.
//!
//! ```text
//! about.json       what it is, first, so that a list reads no more than this
//! bzImage          of x86_64 alone
//! config
//! config-minimal
//! modules/…        what becomes /lib/modules/RELEASE
//! vmlinux
//! ```

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use coop_image::tar::{self, Entries, EntryKind, Limits};
use coop_image::tree::{Inode, InodeId, Kind, Metadata, Times, Timestamp, Tree};
use serde::{Deserialize, Serialize};

use super::MakeError;
use crate::digest::Digest;
use crate::kernel::files::graft;
use crate::kernel::{KernelFiles, Target};
use crate::store::{DerivedKey, Store, StoreError};

/// The store's kind of these objects; its number changes with their form.
const KIND: &str = "kernel-1";
const ABOUT: &str = "about.json";
const BOOT_IMAGE: &str = "bzImage";
const CONFIG: &str = "config";
const MINIMAL: &str = "config-minimal";
const MODULES: &str = "modules";
const VMLINUX: &str = "vmlinux";
/// The largest description that is read, in bytes.
const ABOUT_BYTES_MAX: u64 = 8 << 20;
/// The largest single file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// The most kernels that are listed.
const LISTED_MAX: usize = 100_000;

/// What is known of a kernel beside its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// The target's name.
    pub(super) target: String,
    pub(super) release: String,
    /// What it was made from: one line for each source, patch and tool.
    pub(super) resolved: Vec<String>,
    /// Wanted symbols that do not hold.
    pub(super) dropped: Vec<AboutDropped>,
}

/// A wanted symbol that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AboutDropped {
    pub(super) symbol: String,
    pub(super) found: String,
    pub(super) reason: String,
}

/// A kernel of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKernel {
    /// What it is found by.
    pub key: Digest,
    /// What it is for.
    pub target: Target,
    /// `uname -r`.
    pub release: String,
    /// What it takes up, in bytes.
    pub size_bytes: u64,
    /// When it was made, in seconds since 1970.
    pub modified_seconds: i64,
    /// What it was made from: one line for each source, patch and tool.
    pub resolved: Vec<String>,
    /// How many wanted symbols do not hold in it.
    pub dropped: usize,
}

fn derived(key: Digest) -> DerivedKey<'static> {
    DerivedKey {
        kind: KIND,
        input: key,
    }
}

/// Puts a kernel into the store.
pub(super) fn publish(
    store: &Store,
    key: Digest,
    kernel: &KernelFiles,
    about: &About,
    time: Timestamp,
) -> Result<(), MakeError> {
    let tree = tree_of(kernel, about, time)?;
    let file = store.temp_file()?;
    let mut writer = BufWriter::with_capacity(1 << 20, file.as_file());
    let written = tar::write(&tree, &mut writer);
    let flushed = writer.flush();
    drop(writer);
    match written {
        Ok(()) => {}
        Err(tar::WriteError::Output(error)) => return Err(store.explain(error).into()),
        Err(error) => {
            return Err(MakeError::Result {
                problem: format!("the kernel's files: {error}"),
            });
        }
    }
    flushed.map_err(|error| store.explain(error))?;
    store.publish_derived(file, derived(key))?;
    Ok(())
}

fn tree_of(kernel: &KernelFiles, about: &About, time: Timestamp) -> Result<Tree, MakeError> {
    let metadata = |mode| Metadata {
        mode,
        times: Times::all(time),
        ..Metadata::default()
    };
    let mut tree = Tree::new(metadata(0o755));
    let text = serde_json::to_vec_pretty(about).map_err(std::io::Error::from)?;
    let mut put = |name: &str, bytes: Vec<u8>| -> Result<(), MakeError> {
        let content = tree.add_bytes(bytes)?;
        let id = tree.add_inode(Inode {
            metadata: metadata(0o644),
            kind: Kind::File(content),
        })?;
        Ok(tree.link(InodeId::ROOT, name.as_bytes(), id)?)
    };
    put(ABOUT, text)?;
    put(VMLINUX, kernel.vmlinux.clone())?;
    put(CONFIG, kernel.config.clone().into_bytes())?;
    if let Some(image) = &kernel.boot_image {
        put(BOOT_IMAGE, image.clone())?;
    }
    if let Some(minimal) = &kernel.minimal_config {
        put(MINIMAL, minimal.clone().into_bytes())?;
    }
    if let Some(modules) = &kernel.modules {
        let path = format!("/{MODULES}");
        let folder = tree.make_directories(path.as_bytes(), &metadata(0o755))?;
        graft(modules, InodeId::ROOT, &mut tree, folder)?;
    }
    Ok(tree)
}

/// Takes a kernel out of the store, if it is there.
pub(super) fn open(store: &Store, key: Digest) -> Result<Option<(KernelFiles, About)>, MakeError> {
    let Some(file) = store.derived(derived(key))? else {
        return Ok(None);
    };
    let path = store.derived_path(derived(key))?;
    let damaged = |problem: String| MakeError::Stored {
        path: path.clone(),
        problem,
    };
    let mut tree = Tree::new(Metadata::default());
    let blob = tree.add_blob(Arc::new(file.into_parts().0))?;
    tar::read_blob(&mut tree, blob, &tar::Options::default())
        .map_err(|error| damaged(error.to_string()))?;
    let read = |name: &str| -> Result<Option<Vec<u8>>, MakeError> {
        let Some(id) = tree.child(InodeId::ROOT, name.as_bytes()) else {
            return Ok(None);
        };
        Ok(Some(tree.read_file(id, FILE_BYTES_MAX)?))
    };
    let required = |name: &str| read(name)?.ok_or_else(|| damaged(format!("it has no {name}")));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let about: About = serde_json::from_slice(&required(ABOUT)?)
        .map_err(|error| damaged(format!("{ABOUT}: {error}")))?;
    let target = Target::parse(&about.target)
        .ok_or_else(|| damaged(format!("'{}' is no target", about.target)))?;
    let modules = match tree.child(InodeId::ROOT, MODULES.as_bytes()) {
        Some(top) => {
            let mut modules = Tree::new(tree.inode(top).metadata.clone());
            graft(&tree, top, &mut modules, InodeId::ROOT)?;
            Some(modules)
        }
        None => None,
    };
    let files = KernelFiles {
        target,
        release: about.release.clone(),
        vmlinux: required(VMLINUX)?,
        boot_image: read(BOOT_IMAGE)?,
        config: text(required(CONFIG)?),
        minimal_config: read(MINIMAL)?.map(text),
        modules,
        libraries: Vec::new(),
    };
    Ok(Some((files, about)))
}

/// Where a kernel is or would be.
#[cfg(test)]
pub(super) fn path(store: &Store, key: Digest) -> std::path::PathBuf {
    store.derived_path(derived(key)).unwrap()
}

/// Whether the store has a kernel; nothing of it is read.
#[must_use]
pub fn is_stored(store: &Store, key: &Digest) -> bool {
    store.has_derived(derived(*key))
}

/// Every kernel of the store, the newest first. What cannot be read is left out.
///
/// # Errors
/// The store's folder cannot be read.
pub fn stored(store: &Store) -> Result<Vec<StoredKernel>, StoreError> {
    let keys = store.derived_inputs(KIND, LISTED_MAX)?;
    let kernels = keys.into_iter().filter_map(|key| describe(store, key));
    let mut kernels: Vec<StoredKernel> = kernels.collect();
    kernels.sort_by(|left, right| {
        let newest = right.modified_seconds.cmp(&left.modified_seconds);
        newest.then(left.key.cmp(&right.key))
    });
    Ok(kernels)
}

fn describe(store: &Store, key: Digest) -> Option<StoredKernel> {
    let modified_seconds = store.derived_since(derived(key)).ok()?;
    // Looking is no use of it.
    let path = store.derived_path(derived(key)).ok()?;
    let file: File = fs_err::File::open(path).ok()?.into_parts().0;
    let metadata = file.metadata().ok()?;
    let mut archive = Entries::in_place(Arc::new(file), Limits::default());
    // The folder itself comes first.
    let mut first = archive.next_entry().ok()??;
    if first.kind == EntryKind::Directory {
        first = archive.next_entry().ok()??;
    }
    let is_about = *first.path == *format!("./{ABOUT}").as_bytes();
    if !is_about || !matches!(first.kind, EntryKind::File(_)) {
        return None;
    }
    let content = std::io::Read::take(archive.content(), ABOUT_BYTES_MAX);
    let about: About = serde_json::from_reader(content).ok()?;
    Some(StoredKernel {
        key,
        target: Target::parse(&about.target)?,
        release: about.release,
        size_bytes: metadata.len(),
        modified_seconds,
        resolved: about.resolved,
        dropped: about.dropped.len(),
    })
}
