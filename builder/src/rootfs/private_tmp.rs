//! Services with a `/tmp` of their own, where the root is read-only.
//!
//! Files of `/etc` are links into a folder of `/tmp` then, which systemd's `PrivateTmp=` and
//! `DynamicUser=` hide: such a service would have no `resolv.conf`. Each gets a drop-in that shows
//! it the folder. Only they: a service with a view of its own mounts nothing for others, so that the
//! same for all would break those that do.

use std::collections::{BTreeMap, BTreeSet};

use coop_image::tree::{Metadata, Tree};

use super::RootfsError;
use super::files::put;

/// Where units lie, systemd.unit(5): what comes first wins.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Where ours go, so that everybody's win over them.
const FOLDER: &str = "/usr/lib/systemd/system";
const SUFFIX: &[u8] = b".service";
/// The largest unit that is read, in bytes: the longest line that systemd reads.
const UNIT_BYTES_MAX: u64 = 1 << 20;

/// The source may be missing, where the root is mounted by somebody else.
const TEXT: &str = "\
# Written by coop: files of /etc are links into this folder, which the service's own /tmp hides.
[Service]
BindReadOnlyPaths=-/tmp/coop
";

/// Shows services with a `/tmp` of their own what the links of `/etc` lead to.
///
/// # Errors
/// Something else than a folder stands where a unit's drop-ins go.
pub(super) fn show_etc(tree: &mut Tree, metadata: &Metadata) -> Result<(), RootfsError> {
    for name in services(tree) {
        if has_own_tmp(tree, &name) {
            let content = tree.add_bytes(TEXT.into())?;
            let path = [FOLDER.as_bytes(), b"/", &name, b".d/50-coop-etc.conf"].concat();
            put(tree, &path, content, metadata.clone())?;
        }
    }
    Ok(())
}

/// The names of all services.
fn services(tree: &Tree) -> BTreeSet<Vec<u8>> {
    let folders = FOLDERS.into_iter().filter_map(|folder| {
        let folder = tree.resolve(folder.as_bytes()).ok()?;
        tree.entries(folder)
    });
    let names = folders.flat_map(|entries| entries.keys());
    let services = names.filter(|name| name.ends_with(SUFFIX));
    services.map(|name| name.to_vec()).collect()
}

/// Whether a service is told to have a `/tmp` of its own, by its unit or by a drop-in.
fn has_own_tmp(tree: &Tree, name: &[u8]) -> bool {
    let path = |folder: &str| [folder.as_bytes(), b"/", name].concat();
    let mut units = FOLDERS.into_iter().map(path);
    let Some(unit) = units.find(|unit| tree.lookup(unit).is_ok()) else {
        return false;
    };
    let mut drop_ins: BTreeMap<&[u8], Vec<u8>> = BTreeMap::new();
    for folder in FOLDERS.into_iter().rev() {
        let folder = [&*path(folder), b".d"].concat();
        let id = tree.resolve(&folder).ok();
        let entries = id.and_then(|id| tree.entries(id));
        let names = entries.into_iter().flat_map(|entries| entries.keys());
        drop_ins.extend(names.map(|name| (&**name, [&*folder, b"/", &**name].concat())));
    }
    let (mut private, mut dynamic) = (false, false);
    for path in std::iter::once(unit).chain(drop_ins.into_values()) {
        // A link to nothing, or to no file, masks what it stands for.
        let id = tree.resolve(&path).ok();
        let text = id.and_then(|id| tree.read_file(id, UNIT_BYTES_MAX).ok());
        let text = text.unwrap_or_default();
        for (key, value) in service_settings(&String::from_utf8_lossy(&text)) {
            match key {
                "PrivateTmp" => private = is_yes(value) || value == "disconnected",
                "DynamicUser" => dynamic = is_yes(value),
                _ => {}
            }
        }
    }
    private || dynamic
}

/// What a unit says about its service, in order.
fn service_settings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut is_service = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if line.starts_with('[') {
            is_service = line == "[Service]";
        }
        let (key, value) = line.split_once('=').filter(|_| is_service)?;
        Some((key.trim(), value.trim()))
    })
}

/// What systemd takes for a yes.
fn is_yes(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["1", "yes", "y", "true", "t", "on"].contains(&&*value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coop_image::tree::{Inode, Kind};

    fn write(tree: &mut Tree, path: &str, text: &str) {
        let content = tree.add_bytes(text.into()).unwrap();
        put(tree, path.as_bytes(), content, Metadata::default()).unwrap();
    }

    #[test]
    fn only_services_with_a_tmp_of_their_own_are_shown_it() {
        let mut tree = Tree::new(Metadata::default());
        for (path, text) in [
            ("lib/systemd/system/plain.service", "[Service]\nUser=a\n"),
            (
                "lib/systemd/system/own.service",
                "[Service]\nPrivateTmp = True\n",
            ),
            (
                "lib/systemd/system/apart@.service",
                "[Service]\nPrivateTmp=disconnected",
            ),
            (
                "lib/systemd/system/dynamic.service",
                "[Unit]\n[Service]\nDynamicUser=yes\n",
            ),
            (
                "lib/systemd/system/other.service",
                "#PrivateTmp=yes\n[X-Own]\nPrivateTmp=yes\n",
            ),
            (
                "lib/systemd/system/undone.service",
                "[Service]\nPrivateTmp=yes\n",
            ),
            (
                "lib/systemd/system/undone.service.d/20.conf",
                "[Service]\nPrivateTmp=yes\n",
            ),
            (
                "local/lib/systemd/system/undone.service.d/30.conf",
                "[Service]\nPrivateTmp=no\n",
            ),
            (
                "lib/systemd/system/done.service",
                "[Service]\nPrivateTmp=no\n",
            ),
            (
                "local/lib/systemd/system/done.service.d/a.conf",
                "[Service]\nPrivateTmp=1\n",
            ),
            (
                "lib/systemd/system/masked.service",
                "[Service]\nPrivateTmp=yes\n",
            ),
            (
                "lib/systemd/system/own.socket",
                "[Socket]\nPrivateTmp=yes\n",
            ),
        ] {
            write(&mut tree, &format!("/usr/{path}"), text);
        }
        let folder = Metadata::default();
        let folder = tree.make_directories(b"/etc/systemd/system", &folder);
        let mask = tree.add_inode(Inode {
            metadata: Metadata::default(),
            kind: Kind::Symlink(b"/dev/null"[..].into()),
        });
        let mask = mask.unwrap();
        tree.link(folder.unwrap(), b"masked.service", mask).unwrap();
        for _ in 0..2 {
            show_etc(&mut tree, &Metadata::default()).unwrap();
        }
        let shown: Vec<String> = tree
            .paths()
            .into_iter()
            .filter_map(|(path, _)| {
                let path = String::from_utf8(path).unwrap();
                let service = path.strip_suffix(".service.d/50-coop-etc.conf")?;
                Some(service.rsplit('/').next().unwrap().to_owned())
            })
            .collect();
        assert_eq!(shown, ["apart@", "done", "dynamic", "own"]);
        let path = b"/usr/lib/systemd/system/own.service.d/50-coop-etc.conf";
        let id = tree.resolve(path).unwrap();
        assert_eq!(tree.read_file(id, 1000).unwrap(), TEXT.as_bytes());
    }
}
