//! The kernel's modules: which of them boot needs, in which order, and where they lie in a root.

mod builtin;
mod depmod;
mod graph;
mod index;
mod listing;
mod name;
mod object;
mod table_order;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use coop_image::tree::{Metadata, Tree};
pub use depmod::{DepmodError, MODULES_MAX, depmod, depmod_files};
pub use object::{ModuleObject, read_module};

use super::KernelError;
use super::files::{KernelFiles, graft};

/// The largest module or list that is read, in bytes.
const FILE_SIZE_MAX: u64 = 256 << 20;

/// The modules that boot needs, in the order of loading: a name that sorts so, and the content.
/// `modules` is what becomes `/lib/modules/RELEASE`.
///
/// # Errors
/// A module is missing or compressed.
pub fn boot(modules: &Tree) -> Result<Vec<(String, Vec<u8>)>, KernelError> {
    let read = |path: &str| -> Result<Vec<u8>, KernelError> {
        let id = modules.resolve(path.as_bytes())?;
        Ok(modules.read_file(id, FILE_SIZE_MAX)?)
    };
    let listing = read("modules.dep")?;
    let listing = String::from_utf8_lossy(&listing);
    let mut needed = Vec::new();
    for path in Dependencies::parse(&listing).load_order(BOOT) {
        if !path.ends_with(".ko") {
            return Err(KernelError::Invalid {
                path: path.to_owned(),
                problem: "is compressed, which the agent cannot load".to_owned(),
            });
        }
        let file = path.rsplit('/').next().unwrap_or(path);
        needed.push((format!("{:02}-{file}", needed.len()), read(path)?));
    }
    Ok(needed)
}

/// Puts a kernel's modules into a root file system, at `/usr/lib/modules/RELEASE`, or below
/// `/lib` where that is a folder of its own.
///
/// # Errors
/// The root has another kernel's modules of that release, or no room for folders.
pub fn install(root: &mut Tree, kernel: &KernelFiles) -> Result<(), KernelError> {
    let Some(modules) = &kernel.modules else {
        return Ok(());
    };
    let metadata = Metadata {
        mode: 0o755,
        times: root.inode(coop_image::tree::InodeId::ROOT).metadata.times,
        ..Metadata::default()
    };
    let path = format!("/lib/modules/{}", kernel.release);
    let folder = root.make_directories(path.as_bytes(), &metadata)?;
    graft(modules, coop_image::tree::InodeId::ROOT, root, folder)?;
    Ok(())
}

/// Drivers without which the guest has no disk, network or console, and what the agent mounts with.
pub(super) const BOOT: &[&str] = &[
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "virtio_rng",
    "overlay",
];

/// `modules.dep`: each module's path with the paths that it depends on.
pub(super) struct Dependencies<'a> {
    by_name: BTreeMap<String, (&'a str, Vec<&'a str>)>,
}

/// The module's name as the kernel says it: no folder, no ending, `_` for `-`.
pub(super) fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

impl<'a> Dependencies<'a> {
    /// Reads `modules.dep`: lines of `path: dependency dependency…`.
    pub(super) fn parse(text: &'a str) -> Self {
        let lines = text.lines().filter_map(|line| {
            let (path, dependencies) = line.split_once(':')?;
            let dependencies = dependencies.split_whitespace().collect();
            Some((name_of(path), (path, dependencies)))
        });
        Self {
            by_name: lines.collect(),
        }
    }

    /// The paths to load for `wanted`, each after what it depends on. What is no module (built in,
    /// or not made at all) is left out.
    pub(super) fn load_order(&self, wanted: &[&str]) -> Vec<&'a str> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            if let Some((path, dependencies)) = self.by_name.get(*name) {
                // modules.dep lists the whole closure, the most basic last.
                for path in dependencies.iter().rev().chain([path]) {
                    if seen.insert(*path) {
                        order.push(*path);
                    }
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod order_tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_once() {
        let text = "kernel/a/virtio_net.ko: kernel/b/net_failover.ko kernel/c/failover.ko\n\
                    kernel/b/net_failover.ko: kernel/c/failover.ko\n\
                    kernel/c/failover.ko:\nkernel/d/virtio-rng.ko.xz:\n";
        let dependencies = Dependencies::parse(text);
        assert_eq!(
            dependencies.load_order(&["virtio_net", "missing", "net_failover", "virtio_rng"]),
            [
                "kernel/c/failover.ko",
                "kernel/b/net_failover.ko",
                "kernel/a/virtio_net.ko",
                "kernel/d/virtio-rng.ko.xz"
            ]
        );
    }
}
