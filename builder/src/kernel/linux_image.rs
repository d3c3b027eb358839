//! A kernel from one of Debian's `linux-image-…` packages for x86-64.

use coop_image::tree::{InodeId, Tree, display};

use super::files::{KernelFiles, graft};
use super::{KernelError, Target, boot_image, modules};

/// The largest boot image or config, in bytes.
const FILE_SIZE_MAX: u64 = 256 << 20;
const BOOT_FOLDER: &str = "/boot";
/// What a boot image's name starts with; its release follows.
const BOOT_IMAGE: &str = "vmlinuz-";
/// Where packages have modules: trixie and later, then those before.
const MODULES: [&str; 2] = ["/usr/lib/modules", "/lib/modules"];

/// The release of the kernel that a package has; `None` where it has none, as metapackages.
///
/// # Errors
/// It has several.
pub(super) fn release(package: &Tree) -> Result<Option<String>, KernelError> {
    let folder = package.resolve(BOOT_FOLDER.as_bytes()).ok();
    let names = folder.and_then(|id| package.entries(id));
    let names = names.into_iter().flat_map(|names| names.keys());
    let mut releases =
        names.filter_map(|name| display(name).strip_prefix(BOOT_IMAGE).map(Into::into));
    match (releases.next(), releases.next()) {
        (_, Some(_)) => Err(invalid(BOOT_FOLDER, "has more than one kernel")),
        (release, None) => Ok(release),
    }
}

/// Takes the kernel with this release out of its package.
///
/// # Errors
/// A file is missing or damaged, or the kernel is for another architecture.
pub(super) fn linux_image(package: &Tree, release: &str) -> Result<KernelFiles, KernelError> {
    let read = |path: &str, what| -> Result<Vec<u8>, KernelError> {
        let id = package
            .resolve(path.as_bytes())
            .map_err(|_| KernelError::Missing(what))?;
        package
            .read_file(id, FILE_SIZE_MAX)
            .map_err(|error| invalid(path, format!("cannot be read: {error}")))
    };
    let path = format!("{BOOT_FOLDER}/config-{release}");
    let config = String::from_utf8_lossy(&read(&path, "boot/config-…")?).into_owned();
    if !config.lines().any(|line| line == "CONFIG_X86_64=y") {
        return Err(invalid(
            &path,
            "is not the configuration of a kernel for x86-64",
        ));
    }
    let path = format!("{BOOT_FOLDER}/{BOOT_IMAGE}{release}");
    let image = read(&path, "boot/vmlinuz-…")?;
    let vmlinux = boot_image::vmlinux(&image).map_err(|problem| invalid(&path, problem))?;
    Ok(KernelFiles {
        target: Target::X86_64,
        release: release.to_owned(),
        vmlinux,
        boot_image: Some(image),
        config,
        minimal_config: None,
        modules: find_modules(package, release)?,
        libraries: Vec::new(),
    })
}

/// The package's modules, which have no debugging information, with depmod's files: the package
/// leaves those to depmod in the installed system.
fn find_modules(package: &Tree, release: &str) -> Result<Option<Tree>, KernelError> {
    let folders = MODULES.map(|folder| format!("{folder}/{release}"));
    let found = folders
        .iter()
        .find_map(|folder| package.resolve(folder.as_bytes()).ok());
    let Some(top) = found else {
        return Ok(None);
    };
    let mut tree = Tree::new(package.inode(top).metadata.clone());
    graft(package, top, &mut tree, InodeId::ROOT)?;
    modules::depmod(&mut tree)?;
    Ok(Some(tree))
}

fn invalid(path: &str, problem: impl Into<String>) -> KernelError {
    KernelError::Invalid {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::boot_image::tests::{gzip, image};
    use super::super::modules::testing::{Ko, tree_of};
    use super::*;

    const RELEASE: &str = "6.12.107+deb13-amd64";
    const KERNEL: &[u8] = b"\x7fELF kernel";

    fn package(config: &str) -> Vec<(String, Vec<u8>)> {
        vec![
            (format!("boot/vmlinuz-{RELEASE}"), image(&gzip(KERNEL))),
            (format!("boot/config-{RELEASE}"), config.into()),
            (format!("boot/System.map-{RELEASE}"), Vec::new()),
        ]
    }

    fn tree(files: &[(String, Vec<u8>)]) -> Tree {
        let files = files
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes.clone()));
        tree_of(&files.collect::<Vec<_>>())
    }

    #[test]
    fn a_package_gives_kernel_config_and_modules() {
        for folder in ["usr/lib/modules", "lib/modules"] {
            let mut files = package("CONFIG_X86_64=y\n");
            let module = format!("{folder}/{RELEASE}/kernel/fs/a.ko");
            files.push((module, Ko::default().bytes()));
            let package = tree(&files);
            assert_eq!(release(&package).unwrap().as_deref(), Some(RELEASE));
            let kernel = linux_image(&package, RELEASE).unwrap();
            assert_eq!((kernel.target, &*kernel.vmlinux), (Target::X86_64, KERNEL));
            assert_eq!(kernel.boot_image, Some(files[0].1.clone()));
            let modules = kernel.modules.unwrap();
            assert!(modules.lookup(b"/kernel/fs/a.ko").is_ok());
            assert!(modules.lookup(b"/modules.dep.bin").is_ok());
        }
        let kernel = linux_image(&tree(&package("CONFIG_X86_64=y\n")), RELEASE).unwrap();
        assert!(kernel.modules.is_none());
    }

    #[test]
    fn packages_without_a_kernel_and_with_a_wrong_one_are_told_apart() {
        assert_eq!(
            release(&tree_of(&[("usr/share/doc/x", Vec::new())])).unwrap(),
            None
        );
        let two = [
            ("boot/vmlinuz-1", Vec::new()),
            ("boot/vmlinuz-2", Vec::new()),
        ];
        assert!(release(&tree_of(&two)).is_err());
        let error = linux_image(&tree(&package("CONFIG_ARM64=y\n")), RELEASE).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "/boot/config-{RELEASE} of the kernel package is not the configuration of a kernel \
                 for x86-64"
            )
        );
        let mut files = package("CONFIG_X86_64=y\n");
        files[0].1.truncate(700);
        assert!(linux_image(&tree(&files), RELEASE).is_err());
        files.remove(1);
        assert!(matches!(
            linux_image(&tree(&files), RELEASE),
            Err(KernelError::Missing("boot/config-…"))
        ));
    }
}
