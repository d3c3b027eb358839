//! What is left as it is, and told.

use coop_image::tree::{Kind, Tree};

use super::{Bench, lines};

const SHADOW: &str = "/etc/shadow";
const SELINUX: &str = "/etc/selinux/config";
/// Of the names in `/boot`, those of boot loaders and of what they start.
const OF_BOOTING: &[&str] = &[
    "grub",
    "grub2",
    "efi",
    "extlinux",
    "syslinux",
    "loader",
    "lilo.b",
    "initrd",
    "initramfs",
    "vmlinuz",
    "System.map",
    "config-",
];

pub(super) fn look(bench: &mut Bench<'_>) {
    boot(bench);
    modules(bench);
    passwords(bench);
    selinux(bench);
}

fn boot(bench: &mut Bench<'_>) {
    let names = bench.names("/boot");
    let found: Vec<&String> = names
        .iter()
        .filter(|name| OF_BOOTING.iter().any(|start| name.starts_with(start)))
        .collect();
    if !found.is_empty() {
        let bytes = size_of(bench.tree, "/boot") >> 20;
        bench.stays(format!(
            "/boot has kernels or a boot loader ({bytes} MiB) that nothing here starts; they stay, as \
             packages own them"
        ));
    }
}

fn modules(bench: &mut Bench<'_>) {
    let releases = bench.names("/lib/modules");
    if !releases.is_empty() {
        let bytes = size_of(bench.tree, "/lib/modules") >> 20;
        bench.stays(format!(
            "/lib/modules has modules ({bytes} MiB) of {}, which this appliance does not boot; they \
             stay, as packages own them",
            releases.join(", ")
        ));
    }
}

fn passwords(bench: &mut Bench<'_>) {
    let Ok(Some(text)) = bench.read(SHADOW) else {
        return;
    };
    let text = String::from_utf8_lossy(&text);
    let can_log_in = text.lines().any(|row| {
        let hash = row.split(':').nth(1);
        hash.is_some_and(|hash| hash.is_empty() || hash.starts_with('$') || hash.len() == 13)
    });
    if !can_log_in {
        bench.stays(
            "no account has a password, so a login on the console lets nobody in; coop run \
             --persist -t DIR -- passwd sets root's",
        );
    }
}

/// Labels are attributes, and stay; what a fix-up makes new has none.
fn selinux(bench: &mut Bench<'_>) {
    let Ok(Some(text)) = bench.read(SELINUX) else {
        return;
    };
    let is_on = lines(&text).any(|line| {
        let line = line.trim_ascii();
        line == b"SELINUX=enforcing" || line == b"SELINUX=permissive"
    });
    if is_on {
        bench.stays(
            "SELinux is switched on, and the kernel here has none: its labels stay, and are not \
             enforced",
        );
    }
}

/// Bytes of the files below a folder, holes not counted.
fn size_of(tree: &Tree, folder: &str) -> u64 {
    let Ok(top) = tree.resolve(folder.as_bytes()) else {
        return 0;
    };
    let files = tree.paths_below(top).into_iter();
    let sizes = files.filter_map(|(_, id)| match &tree.inode(id).kind {
        Kind::File(content) => Some(content.segments.iter().map(|one| one.length).sum::<u64>()),
        _ => None,
    });
    sizes.sum()
}
