//! What a root needs that is mounted read-only: places to mount on, and links into memory.
//!
//! The guest's agent cannot make anything there, so every folder that it mounts something on must
//! be in the image, and every file of `/etc` that is made at boot must be a link. What such a file
//! says in the image is kept at [`ETC_KEPT_FOLDER`], where the agent copies it from. Services that do
//! not see where the links lead are shown it, see [`super::private_tmp`].

use coop_appliance::Readonly;
use coop_image::tree::{
    Inode, InodeId, Kind, Metadata, Times, Timestamp, Tree, TreeError, display,
};

use coop_runtime::{ETC_FOLDER, ETC_KEPT_FOLDER};

use super::files::put;
use super::{RootfsError, private_tmp};
use crate::recipe::{CobdContent, Devices};

/// Folders that something is mounted on in every guest.
const MOUNT_POINTS: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];
/// Files that something is mounted over.
const COVERED_FILES: [&str; 2] = ["/etc/machine-id", "/etc/resolv.conf"];

/// Makes a finished root one that can be mounted read-only.
///
/// # Errors
/// A folder stands where a file of `/etc` should be, or something else where a folder should be.
pub fn make_readonly(
    tree: &mut Tree,
    readonly: &Readonly,
    devices: &Devices,
    epoch: Timestamp,
) -> Result<(), RootfsError> {
    let metadata = |mode| Metadata {
        mode,
        times: Times::all(epoch),
        ..Metadata::default()
    };
    let mounts = devices.cobd.iter().filter_map(|cobd| match &cobd.content {
        CobdContent::Ext4 { mount, .. } => mount.as_deref(),
        _ => None,
    });
    let writable = readonly.writable.keys().map(String::as_str);
    for folder in MOUNT_POINTS.into_iter().chain(writable).chain(mounts) {
        let mode = if folder == "/tmp" { 0o1777 } else { 0o755 };
        tree.make_directories(folder.as_bytes(), &metadata(mode))?;
    }
    for name in &readonly.etc {
        link_into_memory(tree, name, &metadata(0o777))?;
    }
    for path in COVERED_FILES {
        if tree.lookup(path.as_bytes()).is_err() {
            let content = tree.add_bytes(Vec::new())?;
            put(tree, path.as_bytes(), content, metadata(0o644))?;
        }
    }
    if !readonly.etc.is_empty() {
        private_tmp::show_etc(tree, &metadata(0o644))?;
    }
    Ok(())
}

/// Makes a file of `/etc` a link, and keeps what was there.
fn link_into_memory(tree: &mut Tree, name: &str, metadata: &Metadata) -> Result<(), RootfsError> {
    let path = format!("/etc/{name}");
    let target = format!("{ETC_FOLDER}/{name}").into_bytes();
    let (parent, file) = parent(tree, &path, metadata)?;
    if let Some(id) = tree.child(parent, file) {
        match &tree.inode(id).kind {
            Kind::Directory(_) => return Err(TreeError::Exists(display(path.as_bytes())).into()),
            Kind::Symlink(there) if **there == *target => return Ok(()),
            _ => keep(tree, name, id, metadata)?,
        }
    }
    let link = tree.add_inode(Inode {
        metadata: metadata.clone(),
        kind: Kind::Symlink(target.into()),
    })?;
    tree.replace(parent, file, link)?;
    Ok(())
}

/// Gives what was in `/etc` its name among what is kept. A relative link would lead elsewhere from
/// there, so it becomes an absolute one.
fn keep(tree: &mut Tree, name: &str, id: InodeId, metadata: &Metadata) -> Result<(), RootfsError> {
    if let Kind::Symlink(target) = &tree.inode(id).kind {
        let folder = format!("/etc/{name}");
        let folder = folder.rsplit_once('/').map_or("", |(folder, _)| folder);
        let absolute = absolute(folder.as_bytes(), target);
        tree.inode_mut(id).kind = Kind::Symlink(absolute.into());
    }
    let path = format!("{ETC_KEPT_FOLDER}/{name}");
    let (parent, file) = parent(tree, &path, metadata)?;
    tree.replace(parent, file, id)?;
    Ok(())
}

/// The folder of a path, made where it is missing, and the name in it.
fn parent<'p>(
    tree: &mut Tree,
    path: &'p str,
    metadata: &Metadata,
) -> Result<(InodeId, &'p [u8]), TreeError> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let metadata = Metadata {
        mode: 0o755,
        ..metadata.clone()
    };
    let parent = tree.make_directories(folder.as_bytes(), &metadata)?;
    Ok((parent, file.as_bytes()))
}

/// Where a link in a folder leads, by its words alone.
fn absolute(folder: &[u8], target: &[u8]) -> Vec<u8> {
    if target.starts_with(b"/") {
        return target.to_vec();
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    let words = folder.split(|byte| *byte == b'/');
    for part in words.chain(target.split(|byte| *byte == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut path = Vec::new();
    for part in parts {
        path.push(b'/');
        path.extend_from_slice(part);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::ByteCount;
    use crate::recipe::{Cobd, Cocon};
    use coop_appliance::Writable;

    fn devices() -> Devices {
        Devices {
            memory: ByteCount(0),
            cpus: 1,
            root: coop_appliance::Root::Cobd,
            cobd: vec![Cobd {
                name: "data".to_owned(),
                content: CobdContent::Ext4 {
                    size: ByteCount(0),
                    mount: Some("/srv/data".to_owned()),
                },
            }],
            conet: Vec::new(),
            cocon: Cocon {
                columns: 80,
                rows: 25,
            },
        }
    }

    fn readonly(etc: &[&str]) -> Readonly {
        Readonly {
            writable: [
                ("/tmp".to_owned(), Writable::Empty),
                ("/var/lib/x".to_owned(), Writable::Copy),
            ]
            .into(),
            etc: etc.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn link(tree: &Tree, path: &str) -> String {
        let id = tree.lookup(path.as_bytes()).unwrap();
        match &tree.inode(id).kind {
            Kind::Symlink(target) => String::from_utf8(target.to_vec()).unwrap(),
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn files_of_etc_become_links_and_are_kept() {
        let mut tree = Tree::new(Metadata::default());
        let content = tree.add_bytes(b"hello\n".to_vec()).unwrap();
        let metadata = Metadata {
            mode: 0o640,
            gid: 7,
            ..Metadata::default()
        };
        put(&mut tree, b"/etc/motd", content, metadata.clone()).unwrap();
        let folder = tree.lookup(b"/etc").unwrap();
        let relative = tree
            .add_inode(Inode {
                metadata: Metadata::default(),
                kind: Kind::Symlink(b"../run/systemd/resolv.conf".as_slice().into()),
            })
            .unwrap();
        tree.link(folder, b"resolv.conf", relative).unwrap();
        let etc = readonly(&["motd", "resolv.conf", "network/ifstate"]);
        let epoch = Timestamp::from_seconds(9);
        for _ in 0..2 {
            // A root that is there already stays as it is.
            make_readonly(&mut tree, &etc, &devices(), epoch).unwrap();
        }
        assert_eq!(link(&tree, "/etc/motd"), "/tmp/coop/etc/motd");
        assert_eq!(
            link(&tree, "/etc/network/ifstate"),
            "/tmp/coop/etc/network/ifstate"
        );
        let kept = tree.lookup(b"/usr/share/coop/etc/motd").unwrap();
        assert_eq!(tree.read_file(kept, 100).unwrap(), b"hello\n");
        assert_eq!(tree.inode(kept).metadata, metadata);
        assert_eq!(
            link(&tree, "/usr/share/coop/etc/resolv.conf"),
            "/run/systemd/resolv.conf"
        );
        assert!(tree.lookup(b"/usr/share/coop/etc/network").is_err());
        for (folder, mode) in [
            ("/tmp", 0o1777),
            ("/var/lib/x", 0o755),
            ("/srv/data", 0o755),
        ] {
            let id = tree.lookup(folder.as_bytes()).unwrap();
            assert_eq!(tree.inode(id).metadata.mode, mode, "{folder}");
            assert!(tree.entries(id).is_some());
        }
        assert!(tree.lookup(b"/etc/machine-id").is_ok());
    }

    #[test]
    fn a_folder_of_etc_is_no_file() {
        let mut tree = Tree::new(Metadata::default());
        tree.make_directories(b"/etc/ssh", &Metadata::default())
            .unwrap();
        let error = make_readonly(
            &mut tree,
            &readonly(&["ssh"]),
            &devices(),
            Timestamp::default(),
        );
        assert!(error.unwrap_err().to_string().contains("/etc/ssh"));
    }

    #[test]
    fn relative_links_become_absolute() {
        assert_eq!(absolute(b"/etc", b"../run/x"), b"/run/x");
        assert_eq!(absolute(b"/etc/network", b"./y"), b"/etc/network/y");
        assert_eq!(absolute(b"/etc", b"../../../z"), b"/z");
        assert_eq!(absolute(b"/etc", b"/a/../b"), b"/a/../b");
    }
}
