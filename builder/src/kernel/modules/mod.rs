//! Which modules boot needs, and in which order: `modules.dep` and `modules.builtin`.

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

pub use depmod::{DepmodError, MODULES_MAX, depmod, depmod_files};
pub use object::{ModuleObject, read_module};

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
