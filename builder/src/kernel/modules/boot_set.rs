//! The modules that boot needs, for the initramfs.

use std::collections::{BTreeMap, BTreeSet};

use coop_appliance::Root;
use coop_image::tree::Tree;

use super::module_file::{MODULE_BYTES_MAX, unpacked};
use super::name::{module_name, normalised_alias, plain_path};
use crate::kernel::{KernelError, Target};

/// What the agent needs before it has a root: its disk, network, console and randomness, and what
/// it mounts with. Names that a kernel does not have as modules are left out: they are built in,
/// or it was made without them.
const EVERYWHERE: &[&str] = &[
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "virtio_rng",
    "ext4",
    "overlay",
];
/// How virtio devices are found, and the disks of machines that have none: QEMU without
/// `if=virtio`, and other hypervisors.
const X86_64: &[&str] = &[
    "virtio_pci",
    "virtio_mmio",
    "virtio_scsi",
    "ata_piix",
    "ahci",
    "nvme",
    "sd_mod",
];
/// What mounts a root on an NFS server.
const NFS_ROOT: &[&str] = &["nfsv3"];
/// Soft dependencies of soft dependencies are followed so many times.
const SOFT_DEPTH_MAX: usize = 16;

/// The modules that boot needs, uncompressed, in the order of loading: a name that sorts so, and
/// the content. `modules` is what becomes `/lib/modules/RELEASE`, with depmod's files.
///
/// # Errors
/// A list or a module is missing or cannot be read or unpacked.
pub fn boot(
    modules: &Tree,
    target: Target,
    root: &Root,
) -> Result<Vec<(String, Vec<u8>)>, KernelError> {
    let read = |path: &str| -> Result<Vec<u8>, KernelError> {
        let invalid = |problem| KernelError::Invalid {
            path: path.to_owned(),
            problem,
        };
        let id = modules
            .resolve(path.as_bytes())
            .map_err(|error| invalid(format!("cannot be found: {error}")))?;
        modules
            .read_file(id, MODULE_BYTES_MAX)
            .map_err(|error| invalid(format!("cannot be read: {error}")))
    };
    let text = |path| Ok::<_, KernelError>(String::from_utf8_lossy(&read(path)?).into_owned());
    let (dep, soft, alias) = (
        text("modules.dep")?,
        text("modules.softdep")?,
        text("modules.alias")?,
    );
    let lists = Lists::parse(&dep, &soft, &alias);
    let devices = match target {
        Target::Um => &[],
        Target::X86_64 => X86_64,
    };
    let mounts = match root {
        Root::Cobd => &[],
        Root::Nfs(_) => NFS_ROOT,
    };
    let wanted = [devices, EVERYWHERE, mounts].concat();
    let mut loaded = Vec::new();
    for path in lists.load_order(&wanted) {
        let bytes = unpacked(read(path)?).map_err(|problem| KernelError::Invalid {
            path: path.to_owned(),
            problem,
        })?;
        let plain = plain_path(path);
        let file = plain.rsplit('/').next().unwrap_or(plain);
        loaded.push((format!("{:03}-{file}", loaded.len()), bytes));
    }
    Ok(loaded)
}

/// depmod's lists, as far as loading needs them.
struct Lists<'a> {
    /// For each module its path and the paths that it depends on, the most basic last.
    modules: BTreeMap<String, (&'a str, Vec<&'a str>)>,
    /// For each module what it wants to have been loaded before.
    soft: BTreeMap<&'a str, Vec<&'a str>>,
    aliases: &'a str,
}

impl<'a> Lists<'a> {
    fn parse(dep: &'a str, softdep: &'a str, aliases: &'a str) -> Self {
        let modules = dep.lines().filter_map(|line| {
            let (path, needs) = line.split_once(':')?;
            Some((
                module_name(path),
                (path, needs.split_whitespace().collect()),
            ))
        });
        let mut soft: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if let (Some("softdep"), Some(module)) = (words.next(), words.next()) {
                soft.entry(module).or_default().extend(loaded_before(words));
            }
        }
        Self {
            modules: modules.collect(),
            soft,
            aliases,
        }
    }

    /// The paths to load for `wanted`, each once, after what it needs and what it wants before it.
    fn load_order(&self, wanted: &[&str]) -> Vec<&'a str> {
        let mut order = Order::default();
        for name in wanted {
            self.load(name, 0, &mut order);
        }
        order.paths
    }

    /// A module that waits for one that is being loaded right now is passed over: modules may
    /// want each other in a circle, but what one needs is always there.
    fn load(&self, name: &str, depth: usize, order: &mut Order<'a>) {
        for (path, needs) in self.find(name) {
            let all = needs.iter().rev().chain([path]);
            if all.clone().any(|path| order.loading.contains(path)) {
                continue;
            }
            for path in all {
                if !order.seen.insert(path) {
                    continue;
                }
                order.loading.insert(path);
                let soft = self.soft.get(module_name(path).as_str());
                for before in soft.into_iter().flatten() {
                    if depth < SOFT_DEPTH_MAX {
                        self.load(before, depth + 1, order);
                    }
                }
                order.loading.remove(path);
                order.paths.push(path);
            }
        }
    }

    /// The module with this name, else those that have it as an alias.
    fn find(&self, name: &str) -> Vec<&(&'a str, Vec<&'a str>)> {
        let name = name.replace('-', "_");
        if let Some(module) = self.modules.get(&name) {
            return vec![module];
        }
        let names = self.aliases.lines().filter_map(|line| {
            let (alias, module) = line.strip_prefix("alias ")?.rsplit_once(' ')?;
            let is_it = normalised_alias(alias).is_some_and(|alias| alias == name);
            is_it.then_some(module)
        });
        names.filter_map(|name| self.modules.get(name)).collect()
    }
}

#[derive(Default)]
struct Order<'a> {
    paths: Vec<&'a str>,
    seen: BTreeSet<&'a str>,
    /// Seen, but what they want before them is not there yet.
    loading: BTreeSet<&'a str>,
}

/// The names behind `pre:`.
fn loaded_before<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut is_before = false;
    let mut names = Vec::new();
    for word in words {
        match word {
            "pre:" => is_before = true,
            "post:" => is_before = false,
            name if is_before => names.push(name),
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use coop_appliance::NfsRoot;

    use super::super::depmod;
    use super::super::testing::{Ko, tree_of};
    use super::*;

    fn order<'a>(dep: &'a str, soft: &'a str, alias: &'a str, wanted: &[&str]) -> Vec<&'a str> {
        Lists::parse(dep, soft, alias).load_order(wanted)
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let dep = "kernel/a/virtio_net.ko: kernel/b/net_failover.ko kernel/c/failover.ko\n\
                   kernel/b/net_failover.ko: kernel/c/failover.ko\n\
                   kernel/c/failover.ko:\nkernel/d/virtio-rng.ko.xz:\n";
        assert_eq!(
            order(
                dep,
                "",
                "",
                &["virtio_net", "missing", "net_failover", "virtio_rng"]
            ),
            [
                "kernel/c/failover.ko",
                "kernel/b/net_failover.ko",
                "kernel/a/virtio_net.ko",
                "kernel/d/virtio-rng.ko.xz"
            ]
        );
    }

    #[test]
    fn soft_dependencies_come_before_what_wants_them() {
        let dep = "ext4.ko: jbd2.ko mbcache.ko\njbd2.ko:\nmbcache.ko:\n\
                   crc32c_generic.ko:\ncrc32c-intel.ko: lib.ko\nlib.ko:\nlate.ko:\n";
        let soft = "# Soft\nsoftdep ext4 none pre: crc32c built-in post: late\n\
                    softdep jbd2 pre: crc32c\nsoftdep lib pre: ext4\n";
        let alias = "# Aliases\nalias crypto-crc32c crc32c_generic\n\
                     alias crc32c crc32c_generic\nalias crc32c crc32c_intel\n";
        assert_eq!(
            order(dep, soft, alias, &["ext4"]),
            [
                "mbcache.ko",
                "crc32c_generic.ko",
                "lib.ko",
                "crc32c-intel.ko",
                "jbd2.ko",
                "ext4.ko"
            ]
        );
    }

    #[test]
    fn the_set_of_a_tree_is_numbered_and_plain() {
        let blk = Ko {
            exports: vec!["blk".into()],
            ..Ko::default()
        };
        let mut net = Ko::with_info(&["softdep=pre: virtio-blk"]);
        net.undefined = vec!["blk".into()];
        let mut tree = tree_of(&[
            ("kernel/virtio_net.ko", net.bytes()),
            ("kernel/virtio-blk.ko", blk.bytes()),
            ("kernel/virtio_pci.ko", Ko::default().bytes()),
            ("kernel/nfsv3.ko", Ko::default().bytes()),
        ]);
        assert!(matches!(
            boot(&tree, Target::Um, &Root::Cobd),
            Err(KernelError::Invalid { path, .. }) if path == "modules.dep"
        ));
        depmod(&mut tree).unwrap();
        let names = |target| {
            let set = boot(&tree, target, &Root::Cobd).unwrap();
            set.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(Target::Um),
            ["000-virtio-blk.ko", "001-virtio_net.ko"]
        );
        assert_eq!(names(Target::X86_64)[0], "000-virtio_pci.ko");
        let served = boot(&tree, Target::Um, &Root::Nfs(NfsRoot::default())).unwrap();
        assert_eq!(served.last().unwrap().0, "002-nfsv3.ko");
        assert_eq!(
            boot(&tree, Target::Um, &Root::Cobd).unwrap()[0].1,
            blk.bytes()
        );
    }
}
