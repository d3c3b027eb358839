//! A kernel's modules in a root file system.

use coop_image::tree::{InodeId, Kind, Metadata, Times, Timestamp, Tree, TreeError, display};

use super::super::files::{KernelFiles, graft};

/// Links to the kernel's sources on the machine that built it.
const SOURCE_LINKS: [&[u8]; 2] = [b"build", b"source"];

/// What else is where modules lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Other kernels' releases whose modules the root has and keeps: packages or the archive
    /// brought them, and it is theirs to remove them. This appliance's kernel cannot load them.
    pub others: Vec<String>,
}

/// Puts a kernel's modules into a root file system, at `/usr/lib/modules/RELEASE`, or below `/lib`
/// where that is a folder of its own. Owner, modes and times are set; the modules of a kernel
/// with this release that are there already give way. Nothing changes where the kernel has none.
///
/// # Errors
/// The release is no file name, or something that is no folder is in the way.
pub fn install(
    root: &mut Tree,
    kernel: &KernelFiles,
    epoch: Timestamp,
) -> Result<Installed, TreeError> {
    let Some(modules) = &kernel.modules else {
        return Ok(Installed::default());
    };
    let metadata = |mode| Metadata {
        mode,
        times: Times::all(epoch),
        ..Metadata::default()
    };
    let folder = root.make_directories(b"/lib/modules", &metadata(0o755))?;
    let release = kernel.release.as_bytes();
    if root.child(folder, release).is_some() {
        root.unlink(folder, release)?;
    }
    let top = root.add_inode(coop_image::tree::Inode {
        metadata: metadata(0o755),
        kind: Kind::Directory(coop_image::tree::Entries::new()),
    })?;
    root.link(folder, release, top)?;
    graft(modules, InodeId::ROOT, root, top)?;
    for link in SOURCE_LINKS {
        let is_link = |id| matches!(root.inode(id).kind, Kind::Symlink(_));
        if root.child(top, link).is_some_and(is_link) {
            root.unlink(top, link)?;
        }
    }
    for (_, id) in root.paths_below(top) {
        let inode = root.inode_mut(id);
        inode.metadata = metadata(match inode.kind {
            Kind::Directory(_) => 0o755,
            Kind::Symlink(_) => 0o777,
            _ => 0o644,
        });
    }
    let names = root
        .entries(folder)
        .into_iter()
        .flat_map(|names| names.keys());
    let others = names.filter(|name| ***name != *release);
    Ok(Installed {
        others: others.map(|name| display(name)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Ko, tree_of};
    use super::*;
    use crate::kernel::Target;

    fn kernel(release: &str, modules: Option<Tree>) -> KernelFiles {
        KernelFiles {
            target: Target::Um,
            release: release.into(),
            vmlinux: Vec::new(),
            boot_image: None,
            config: String::new(),
            minimal_config: None,
            modules,
            libraries: Vec::new(),
        }
    }

    fn modules() -> Tree {
        let mut tree = tree_of(&[
            ("kernel/fs/a.ko", Ko::default().bytes()),
            ("modules.order", b"kernel/fs/a.ko\n".to_vec()),
        ]);
        let link = coop_image::tree::Inode {
            metadata: Metadata::default(),
            kind: Kind::Symlink((*b"/somebody/linux").into()),
        };
        let id = tree.add_inode(link).unwrap();
        tree.link(InodeId::ROOT, b"build", id).unwrap();
        let file = tree.lookup(b"kernel/fs/a.ko").unwrap();
        tree.inode_mut(file).metadata.uid = 1000;
        tree
    }

    #[test]
    fn modules_lie_where_the_root_has_its_libraries() {
        let epoch = Timestamp::from_seconds(7);
        for (libraries, place) in [("usr/lib/x", "/usr/lib"), ("lib/x", "/lib")] {
            let mut root = tree_of(&[(libraries, Vec::new())]);
            if place == "/usr/lib" {
                let link = coop_image::tree::Inode {
                    metadata: Metadata::default(),
                    kind: Kind::Symlink((*b"usr/lib").into()),
                };
                let id = root.add_inode(link).unwrap();
                root.link(InodeId::ROOT, b"lib", id).unwrap();
            }
            let kernel = kernel("7.2.0", Some(modules()));
            assert_eq!(install(&mut root, &kernel, epoch).unwrap().others.len(), 0);
            let path = format!("{place}/modules/7.2.0/kernel/fs/a.ko");
            let id = root.lookup(path.as_bytes()).unwrap();
            let metadata = &root.inode(id).metadata;
            assert_eq!((metadata.uid, metadata.mode), (0, 0o644));
            assert_eq!(metadata.times, Times::all(epoch));
            assert!(
                root.lookup(format!("{place}/modules/7.2.0/build").as_bytes())
                    .is_err()
            );
        }
    }

    #[test]
    fn the_same_release_gives_way_and_others_are_named() {
        let mut root = tree_of(&[
            ("lib/modules/7.2.0/kernel/old.ko", Vec::new()),
            ("lib/modules/6.1.0-9-amd64/kernel/b.ko", Vec::new()),
        ]);
        let kernel = kernel("7.2.0", Some(modules()));
        let installed = install(&mut root, &kernel, Timestamp::default()).unwrap();
        assert_eq!(installed.others, ["6.1.0-9-amd64"]);
        assert!(root.lookup(b"/lib/modules/7.2.0/kernel/old.ko").is_err());
        assert!(root.lookup(b"/lib/modules/7.2.0/kernel/fs/a.ko").is_ok());
    }

    #[test]
    fn a_kernel_without_modules_changes_nothing() {
        let mut root = tree_of(&[]);
        let installed = install(&mut root, &kernel("7.2.0", None), Timestamp::default());
        assert_eq!(installed, Ok(Installed::default()));
        assert_eq!(root.entries(InodeId::ROOT).unwrap().len(), 0);
    }

    #[test]
    fn a_release_is_a_name() {
        for release in ["..", "a/b", ""] {
            let kernel = kernel(release, Some(modules()));
            assert!(install(&mut tree_of(&[]), &kernel, Timestamp::default()).is_err());
        }
    }
}
