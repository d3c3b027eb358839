//! Whether a kernel can boot an appliance at all: what the driver and the agent need of it.

use coop_appliance::{Root, processors_of_config};

use super::config::{DotConfig, Version};
use super::{KernelError, KernelFiles, OLDEST_VERSION, Target};
use crate::recipe::{KernelLocation, KernelSource};

/// What has to be built in: the initramfs with the agent, and what the agent mounts first.
const BUILT_IN: &[&str] = &[
    "CONFIG_BINFMT_ELF",
    "CONFIG_BLK_DEV_INITRD",
    "CONFIG_DEVTMPFS",
    "CONFIG_PROC_FS",
    "CONFIG_SYSFS",
    "CONFIG_TMPFS",
    "CONFIG_UNIX98_PTYS",
];
/// What may be a module too: the initramfs has it then.
const ANYHOW: &[&str] = &["CONFIG_EXT4_FS"];
/// The same for the devices of the cooperative driver.
const UM_BUILT_IN: &[&str] = &["CONFIG_VIRTIO_UML"];
const UM_ANYHOW: &[&str] = &["CONFIG_VIRTIO_BLK", "CONFIG_VIRTIO_CONSOLE"];

/// What mounts a root on an NFS server.
const NFS_ROOT: &[&str] = &["CONFIG_NFS_FS", "CONFIG_NFS_V3"];

/// Looks at a finished kernel.
///
/// # Errors
/// It is too old for the driver, or lacks what boot needs.
pub fn check(kernel: &KernelFiles) -> Result<(), KernelError> {
    let version = Version::of_release(&kernel.release);
    if kernel.target == Target::Um && version.is_none_or(|version| version < OLDEST_VERSION) {
        let release = kernel.release.clone();
        return Err(KernelError::TooOld { release });
    }
    let config = DotConfig::parse(&kernel.config);
    let (built_in, anyhow) = match kernel.target {
        Target::Um => (UM_BUILT_IN, UM_ANYHOW),
        Target::X86_64 => (&[][..], &[][..]),
    };
    let needed = BUILT_IN.iter().chain(built_in).map(|symbol| (symbol, "y"));
    let needed = needed.chain(ANYHOW.iter().chain(anyhow).map(|symbol| (symbol, "ym")));
    let missing: Vec<&str> = needed
        .filter(|(symbol, values)| !values.contains(config.get(symbol)))
        .map(|(symbol, _)| *symbol)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(KernelError::Unbootable {
        release: kernel.release.clone(),
        missing: missing.join(", "),
    })
}

/// Whether a kernel can have as many processors as the recipe's devices.
///
/// # Errors
/// It can have fewer.
pub fn check_cpus(kernel: &KernelFiles, cpus: u32) -> Result<(), KernelError> {
    let most = processors_of_config(&kernel.config);
    if cpus <= most {
        return Ok(());
    }
    Err(KernelError::Processors {
        release: kernel.release.clone(),
        most,
        wanted: cpus,
    })
}

/// Whether a kernel can mount the recipe's root.
///
/// # Errors
/// The root is on an NFS server, and the kernel has no client.
pub fn check_root(kernel: &KernelFiles, root: &Root) -> Result<(), KernelError> {
    if root.is_cobd() {
        return Ok(());
    }
    let config = DotConfig::parse(&kernel.config);
    let is_there = |symbol: &&&str| "ym".contains(config.get(symbol));
    let missing: Vec<&str> = NFS_ROOT
        .iter()
        .filter(|symbol| !is_there(symbol))
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(KernelError::NoNfs {
        release: kernel.release.clone(),
        missing: missing.join(" and "),
    })
}

/// Looks at a source whose package says its version, before minutes go into it.
///
/// # Errors
/// The kernel would be too old for the driver.
pub fn check_source(source: &KernelSource) -> Result<(), KernelError> {
    let KernelLocation::Debian { package, .. } = &source.location else {
        return Ok(());
    };
    let version = package
        .strip_prefix("linux-source-")
        .and_then(Version::parse);
    match version {
        Some(version) if source.target == Target::Um && version < OLDEST_VERSION => {
            let release = version.to_string();
            Err(KernelError::TooOld { release })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{config, default};

    fn kernel(target: Target, release: &str, config: &str) -> KernelFiles {
        KernelFiles {
            target,
            release: release.to_owned(),
            vmlinux: Vec::new(),
            boot_image: None,
            config: config.to_owned(),
            minimal_config: None,
            modules: None,
            libraries: Vec::new(),
        }
    }

    #[test]
    fn our_own_fragments_ask_for_all_that_boot_needs() {
        let version = Version { major: 7, minor: 2 };
        let wanted = default::wanted(&[]).unwrap();
        for target in Target::ALL {
            let config = config::merge(&wanted, target, version).text();
            check(&kernel(target, "7.2.1", &config)).unwrap();
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = check(&kernel(Target::Um, "7.2.1", "CONFIG_EXT4_FS=m\n")).unwrap_err();
        let text = error.to_string();
        for part in [
            "CONFIG_VIRTIO_UML",
            "CONFIG_DEVTMPFS",
            "VIRTIO_BLK",
            "base, engine",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("EXT4"), "{text}");
        let old = check(&kernel(Target::Um, "6.12.1", "")).unwrap_err();
        assert!(old.to_string().contains("too old"), "{old}");
    }

    #[test]
    fn processors_need_a_kernel_that_can_have_them() {
        let smp = kernel(Target::Um, "7.2.1", "CONFIG_SMP=y\nCONFIG_NR_CPUS=4\n");
        check_cpus(&smp, 4).unwrap();
        assert!(check_cpus(&smp, 5).is_err());
        let single = kernel(Target::Um, "7.2.1", "");
        check_cpus(&single, 1).unwrap();
        let error = check_cpus(&single, 2).unwrap_err().to_string();
        assert!(error.contains("smp"), "{error}");
    }

    #[test]
    fn a_root_on_nfs_needs_a_client() {
        let root = Root::Nfs(coop_appliance::NfsRoot::default());
        let with = kernel(Target::Um, "7.2.1", "CONFIG_NFS_FS=m\nCONFIG_NFS_V3=y\n");
        check_root(&with, &root).unwrap();
        let without = kernel(Target::Um, "7.2.1", "CONFIG_NFS_FS=m\n");
        check_root(&without, &Root::Cobd).unwrap();
        let error = check_root(&without, &root).unwrap_err().to_string();
        assert!(error.contains("no CONFIG_NFS_V3;"), "{error}");
    }

    #[test]
    fn a_source_that_is_too_old_is_known_by_its_name() {
        let mut source = default::source();
        assert!(check_source(&source).is_ok());
        source.location = KernelLocation::Debian {
            package: "linux-source-6.12".to_owned(),
            suite: "trixie".to_owned(),
        };
        assert!(check_source(&source).is_err());
        source.target = Target::X86_64;
        assert!(check_source(&source).is_ok());
    }
}
