//! `/etc/fstab` and `/etc/crypttab`: of what they name, only the root is here.

use coop_image::tree::display;

use super::{Bench, lines, push_comment, push_line, words};
use crate::rootfs::RootfsError;

const FSTAB: &str = "/etc/fstab";
const CRYPTTAB: &str = "/etc/crypttab";
/// The root's device.
const ROOT: &str = "/dev/cobd0";
/// Kinds that need no device.
const OF_THE_KERNEL: &[&str] = &[
    "proc",
    "sysfs",
    "tmpfs",
    "ramfs",
    "devpts",
    "devtmpfs",
    "mqueue",
    "hugetlbfs",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "cgroup",
    "cgroup2",
    "binfmt_misc",
    "efivarfs",
    "pstore",
    "bpf",
    "overlay",
    "fuse.mergerfs",
];
/// Kinds whose other end is elsewhere and may still be reached.
const OF_THE_NETWORK: &[&str] = &[
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "glusterfs",
    "fuse.sshfs",
];

pub(super) fn fix(bench: &mut Bench<'_>) -> Result<(), RootfsError> {
    fstab(bench)?;
    crypttab(bench)
}

fn fstab(bench: &mut Bench<'_>) -> Result<(), RootfsError> {
    let Some(before) = bench.read(FSTAB)? else {
        return Ok(());
    };
    let mut after = Vec::with_capacity(before.len());
    let mut told = Vec::new();
    for line in lines(&before) {
        let fields = words(line);
        let [device, place, kind, ..] = &fields[..] else {
            push_line(&mut after, line);
            continue;
        };
        let options = fields.get(3).map_or("defaults", String::as_str);
        if place == "/" {
            let new = format!("{ROOT} / ext4 {options} 0 0");
            if fields.join(" ") != new {
                push_comment(&mut after, line);
                told.push(format!(
                    "the root is {ROOT} now, and was {}",
                    display(device.as_bytes())
                ));
            }
            push_line(&mut after, new.as_bytes());
        } else if let Some(why) = why_not(bench, device, place, kind, options) {
            push_comment(&mut after, line);
            told.push(format!("{why}; its line is a comment now"));
        } else {
            push_line(&mut after, line);
        }
    }
    if after != before && !told.is_empty() {
        bench.rewrite(FSTAB, after)?;
    }
    for what in told {
        bench.tell(FSTAB, what);
    }
    Ok(())
}

/// Why a line cannot be followed; nothing where what it mounts is in the appliance, or was never on
/// the disk.
fn why_not(
    bench: &Bench<'_>,
    device: &str,
    place: &str,
    kind: &str,
    options: &str,
) -> Option<String> {
    let shown = display(device.as_bytes());
    let is_bound = options
        .split(',')
        .any(|option| matches!(option, "bind" | "rbind" | "loop"));
    if OF_THE_KERNEL.contains(&kind) || OF_THE_NETWORK.contains(&kind) || is_bound {
        return None;
    }
    let is_file = device.starts_with('/') && !device.starts_with("/dev/") && bench.has(device);
    match (kind, is_file) {
        // What was reserved and never written is a hole here, and a kernel swaps to none.
        ("swap", true) if bench.has_holes(device) => Some(format!(
            "the swap file {shown} was never filled, and cannot be used as it is"
        )),
        (_, true) => None,
        ("swap", _) => Some(format!("the swap area on {shown} is not in this appliance")),
        _ => {
            let place = display(place.as_bytes());
            Some(format!("'{place}' on {shown} is not in this appliance"))
        }
    }
}

fn crypttab(bench: &mut Bench<'_>) -> Result<(), RootfsError> {
    let Some(before) = bench.read(CRYPTTAB)? else {
        return Ok(());
    };
    let mut after = Vec::with_capacity(before.len());
    let mut told = Vec::new();
    for line in lines(&before) {
        match words(line).first() {
            Some(name) => {
                push_comment(&mut after, line);
                told.push(format!(
                    "the encrypted volume '{}' is not in this appliance; its line is a comment now",
                    display(name.as_bytes())
                ));
            }
            None => push_line(&mut after, line),
        }
    }
    if !told.is_empty() {
        bench.rewrite(CRYPTTAB, after)?;
    }
    for what in told {
        bench.tell(CRYPTTAB, what);
    }
    Ok(())
}
