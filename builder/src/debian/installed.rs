//! Which packages a root file system has, by dpkg's own account.

use std::collections::BTreeSet;

use coop_image::tree::Tree;

use super::deb822::Stanzas;

/// dpkg's database.
const STATUS: &[u8] = b"/var/lib/dpkg/status";
/// The largest database that is read, in bytes; ten thousand packages have 15 MiB.
const STATUS_BYTES_MAX: u64 = 64 << 20;

/// The names of the packages that are installed, or unpacked to be configured later. A tree without
/// dpkg's database, or with a damaged one, has none: this is for advice, not for proof.
#[must_use]
pub fn installed(tree: &Tree) -> BTreeSet<String> {
    let bytes = tree
        .resolve(STATUS)
        .ok()
        .and_then(|id| tree.read_file(id, STATUS_BYTES_MAX).ok());
    let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
    let stanzas = Stanzas::new(&text).filter_map(Result::ok);
    let names = stanzas.filter_map(|stanza| {
        let status = stanza.get("Status")?;
        let is_there = !status.ends_with(" not-installed") && !status.ends_with(" config-files");
        is_there.then(|| stanza.get("Package")).flatten()
    });
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use coop_image::tree::{Inode, InodeId, Kind, Metadata};

    use super::*;

    fn tree(status: &str) -> Tree {
        let mut tree = Tree::new(Metadata::default());
        let folder = tree
            .make_directories(b"/var/lib/dpkg", &Metadata::default())
            .unwrap();
        let content = tree.add_bytes(status.as_bytes().to_vec()).unwrap();
        let id = tree
            .add_inode(Inode {
                metadata: Metadata::default(),
                kind: Kind::File(content),
            })
            .unwrap();
        tree.link(folder, b"status", id).unwrap();
        tree
    }

    #[test]
    fn what_is_removed_is_not_there() {
        let status = "Package: systemd\nStatus: install ok unpacked\nVersion: 1\n\n\
                      Package: gone\nStatus: deinstall ok config-files\n\n\
                      Package: never\nStatus: unknown ok not-installed\n\n\
                      Package: base\nStatus: install ok installed\nDescription: x\n y\n";
        let names: Vec<String> = installed(&tree(status)).into_iter().collect();
        assert_eq!(names, ["base", "systemd"]);
        assert!(installed(&tree("nonsense")).is_empty());
        let empty = Tree::new(Metadata::default());
        assert_eq!(empty.entries(InodeId::ROOT).map(|e| e.len()), Some(0));
        assert!(installed(&empty).is_empty());
    }
}
