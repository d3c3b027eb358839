//! Takes out of a root file system what differs from build to build and belongs to no build.
//!
//! A guest that configures packages leaves logs, caches, seeds, keys and the time of day behind.
//! Each rule below names one such place and why it may go; everything else stays as the guest
//! left it, so what still differs between two builds shows as a difference and is not hidden.

use coop_image::tree::{Content, InodeId, Kind, Name, Times, Timestamp, Tree, TreeError};

use super::database;

/// Files that hold nothing but a record of the build, or that are made again when needed.
const REMOVED_FILES: &[&str] = &[
    // Locks, and the copies that dpkg, shadow and debconf keep of the state before.
    "/etc/.pwd.lock",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/passwd-",
    "/etc/shadow-",
    "/etc/subgid-",
    "/etc/subuid-",
    "/var/cache/debconf/config.dat-old",
    "/var/cache/debconf/passwords.dat-old",
    "/var/cache/debconf/templates.dat-old",
    "/var/lib/dpkg/diversions-old",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/statoverride-old",
    "/var/lib/dpkg/status-old",
    "/var/lib/dpkg/triggers/Lock",
    // Caches with times of day in them.
    "/var/cache/apt/pkgcache.bin",
    "/var/cache/apt/srcpkgcache.bin",
    "/var/cache/ldconfig/aux-cache",
    // Identity and entropy, which each machine must have of its own.
    "/var/lib/dbus/machine-id",
    "/var/lib/systemd/credential.secret",
    "/var/lib/systemd/random-seed",
];

/// Folders whose files are records or caches; the folders themselves stay.
const EMPTIED_FOLDERS: &[&str] = &[
    "/tmp",
    "/var/cache/apt/archives",
    "/var/cache/man",
    "/var/lib/apt/lists",
    "/var/log/apt",
    "/var/log/journal",
    "/var/tmp",
];

/// Logs that their programs make again; other files in `/var/log` are emptied but stay, because
/// their owner and mode matter (`btmp`, `wtmp`, `lastlog`).
const REMOVED_LOGS: &[&str] = &[
    "/var/log/alternatives.log",
    "/var/log/bootstrap.log",
    "/var/log/dpkg.log",
    "/var/log/fontconfig.log",
];

/// Makes two builds of one recipe the same: removes what is volatile, and lets no time be later
/// than `epoch`, which is a property of the inputs.
///
/// # Errors
/// The tree cannot take another blob.
pub fn normalise(tree: &mut Tree, epoch: Timestamp) -> Result<(), TreeError> {
    for path in REMOVED_FILES.iter().chain(REMOVED_LOGS) {
        remove(tree, path)?;
    }
    for path in EMPTIED_FOLDERS {
        if let Ok(folder) = tree.lookup(path.as_bytes()) {
            remove_files(tree, folder, |_| true)?;
        }
    }
    if let Ok(folder) = tree.lookup(b"/etc/ssh") {
        let is_host_key = |name: &[u8]| name.starts_with(b"ssh_host_");
        remove_files(tree, folder, is_host_key)?;
    }
    if let Ok(folder) = tree.lookup(b"/var/log") {
        empty_files(tree, folder);
    }
    // An empty file tells systemd to make an identity at boot without taking it for a first boot.
    empty_file(tree, b"/etc/machine-id");
    remove_empty_lost_and_found(tree)?;
    database::fix_password_ages(tree, epoch)?;
    clamp_times(tree, epoch);
    Ok(())
}

fn split(path: &str) -> (&[u8], &[u8]) {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    (folder.as_bytes(), name.as_bytes())
}

fn remove(tree: &mut Tree, path: &str) -> Result<(), TreeError> {
    let (folder, name) = split(path);
    let Ok(folder) = tree.resolve(folder) else {
        return Ok(());
    };
    match tree.child(folder, name) {
        Some(id) if tree.entries(id).is_none() => tree.unlink(folder, name).map(|_| ()),
        _ => Ok(()),
    }
}

/// Removes files below a folder, at any depth; folders stay.
fn remove_files(
    tree: &mut Tree,
    folder: InodeId,
    matches: impl Fn(&[u8]) -> bool,
) -> Result<(), TreeError> {
    for (parent, name, _) in files_below(tree, folder) {
        if matches(&name) {
            tree.unlink(parent, &name)?;
        }
    }
    Ok(())
}

fn empty_files(tree: &mut Tree, folder: InodeId) {
    for (_, _, id) in files_below(tree, folder) {
        if let Kind::File(content) = &mut tree.inode_mut(id).kind {
            *content = Content::default();
        }
    }
}

/// Everything below a folder that is no folder itself.
fn files_below(tree: &Tree, folder: InodeId) -> Vec<(InodeId, Name, InodeId)> {
    let mut found = Vec::new();
    let mut pending = vec![folder];
    while let Some(parent) = pending.pop() {
        for (name, id) in tree.entries(parent).into_iter().flatten() {
            if tree.entries(*id).is_some() {
                pending.push(*id);
            } else {
                found.push((parent, name.clone(), *id));
            }
        }
    }
    found
}

fn empty_file(tree: &mut Tree, path: &[u8]) {
    if let Ok(id) = tree.lookup(path)
        && let Kind::File(content) = &mut tree.inode_mut(id).kind
    {
        *content = Content::default();
    }
}

/// `lost+found` belongs to the file system, whose writer makes it again.
fn remove_empty_lost_and_found(tree: &mut Tree) -> Result<(), TreeError> {
    let name = b"lost+found";
    let empty = tree
        .child(InodeId::ROOT, name)
        .and_then(|id| tree.entries(id))
        .is_some_and(|entries| entries.is_empty());
    if empty {
        tree.unlink(InodeId::ROOT, name)?;
    }
    Ok(())
}

/// Only the time of modification says something about an inode that was copied; the others would
/// tell when the guest ran.
fn clamp_times(tree: &mut Tree, epoch: Timestamp) {
    for index in tree.ids() {
        let times = &mut tree.inode_mut(index).metadata.times;
        *times = Times::all(times.modified.min(epoch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::files::put;
    use coop_image::tree::Metadata;

    #[test]
    fn volatile_files_go_and_others_stay_with_their_time() {
        let mut tree = Tree::new(Metadata::default());
        let late = Timestamp::from_seconds(2_000);
        let paths: [&[u8]; 9] = [
            b"/etc/machine-id",
            b"/etc/ssh/ssh_host_rsa_key",
            b"/etc/ssh/sshd_config",
            b"/var/log/btmp",
            b"/var/log/dpkg.log",
            b"/var/log/apt/term.log",
            b"/var/lib/apt/lists/partial/x",
            b"/var/lib/dpkg/status-old",
            b"/var/lib/dpkg/status",
        ];
        for path in paths {
            let content = tree.add_bytes(b"text".to_vec()).unwrap();
            let metadata = Metadata {
                times: Times::all(late),
                ..Metadata::default()
            };
            put(&mut tree, path, content, metadata).unwrap();
        }
        tree.make_directories(b"/lost+found", &Metadata::default())
            .unwrap();
        let epoch = Timestamp::from_seconds(1_000);
        normalise(&mut tree, epoch).unwrap();
        let files: Vec<(String, u64)> = tree
            .paths()
            .into_iter()
            .filter_map(|(path, id)| match &tree.inode(id).kind {
                Kind::File(content) => Some((String::from_utf8(path).unwrap(), content.size)),
                _ => None,
            })
            .collect();
        let expected = [
            ("/etc/machine-id", 0),
            ("/etc/ssh/sshd_config", 4),
            ("/var/lib/dpkg/status", 4),
            ("/var/log/btmp", 0),
        ];
        assert_eq!(files, expected.map(|(path, size)| (path.to_owned(), size)));
        assert!(tree.resolve(b"/var/lib/apt/lists/partial").is_ok());
        assert!(tree.resolve(b"/lost+found").is_err());
        let named = tree.resolve(b"/var/lib/dpkg/status").unwrap();
        assert_eq!(tree.inode(named).metadata.times, Times::all(epoch));
    }
}
