//! Hosts that have no room, no place for memory, or no mirror: made by root in a mount namespace.

use std::path::Path;

use fs_err as fs;

use super::{Place, refused, tiny};
use crate::support::{self, in_namespace};

#[test]
fn without_a_mirror_it_says_where_to_name_one() {
    if !support::root_oracle() {
        return;
    }
    let place = Place::new();
    let recipe = "name: a\nrootfs:\n  source:\n    debian: {suite: trixie}\n";
    let coop = place.build(recipe, &[]);
    let mut command = in_namespace("mount -t tmpfs none /etc/apt", &coop, "");
    command.env_remove("COOP_DEBIAN_MIRROR");
    let words = [
        "no Debian mirror is known",
        "rootfs.source.debian.mirror",
        "COOP_DEBIAN_MIRROR",
    ];
    refused(&mut command, 1, &words);
    place.expect_nothing_left();
}

#[test]
fn a_full_cache_is_named() {
    if !support::root_oracle() {
        return;
    }
    let place = Place::new();
    let cache = place.make("cache");
    let shown = cache.display();
    let mut coop = place.build(&tiny::recipe(""), &[]);
    coop.env("COOP_CACHE", &cache);
    let mount = format!("mount -t tmpfs -o size=2m,mode=777 none {shown}");
    let after = format!("echo temp: $(ls -A {shown}/v1/temp)");
    let mut command = in_namespace(&mount, &coop, &after);
    let sentence = format!("no space left in the cache folder '{shown}");
    let done = refused(&mut command, 1, &[&sentence]);
    assert_eq!(done.text(), "temp:\n");
    place.expect_nothing_left();
}

/// What the files of a folder, and of those in it, take on the disk.
fn bytes_of(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => bytes_of(&entry.path()),
            false => entry.metadata().unwrap().blocks() * 512,
        })
        .sum()
}

#[test]
fn a_full_output_folder_is_named_and_left_empty() {
    if !support::root_oracle() {
        return;
    }
    let kept = bytes_of(tiny::appliance());
    let kernel = fs::metadata(tiny::appliance().join("vmlinux"))
        .unwrap()
        .len();
    let place = Place::new();
    let shown = place.make("out").display().to_string();
    let coop = place.build(&tiny::recipe(""), &[]);
    // Full in the midst of the kernel, and near the end.
    for size in [kernel / 2, kept - (1 << 20)] {
        let mount = format!("mount -t tmpfs -o size={size},mode=777 none {shown}");
        let mut command = in_namespace(&mount, &coop, &format!("echo left: $(ls -A {shown})"));
        let done = refused(&mut command, 1, &["No space left", &shown]);
        assert_eq!(done.text(), "left:\n");
        place.expect_no_residue();
    }
}

#[test]
fn without_a_place_for_memory_it_says_what_was_tried() {
    if !support::root_oracle() {
        return;
    }
    let appliance = tiny::appliance().file_name().unwrap().to_str().unwrap();
    // The program and the appliance may lie below /tmp, which is covered.
    let mount = format!(
        "mount --bind {} /mnt\nfor at in /dev/shm /tmp /var/tmp; do\n\
         mount -t tmpfs -o noexec,mode=1777 none $at\ndone",
        support::home().display()
    );
    let mut coop = support::unprivileged("/mnt/coop");
    coop.args(["run", &format!("/mnt/work/{appliance}"), "--", "true"]);
    let after = "echo left: $(find /dev/shm /var/tmp /tmp -mindepth 1)";
    let mut command = in_namespace(&mount, &coop, after);
    command.current_dir("/");
    let words = [
        "no place for",
        "/dev/shm is mounted noexec",
        "/tmp is mounted noexec",
        "/var/tmp is mounted noexec",
    ];
    let done = refused(&mut command, 125, &words);
    assert_eq!(done.text(), "left:\n");
}
