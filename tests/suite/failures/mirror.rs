//! Archives that lie, are damaged, or hold what cannot be installed.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;

use super::archive::Archive;
use super::{Place, refused, tiny};
use crate::support;

/// Builds from an archive. The kernel may come from elsewhere: what the cache has of it is not what is
/// tested here.
#[track_caller]
fn refuse(recipe: &str, words: &[&str]) {
    tiny::appliance();
    let place = Place::new();
    refused(&mut place.build(recipe, &[]), 1, words);
    place.expect_nothing_left();
}

fn base(archive: &mut Archive) {
    archive.add("base", "Essential: yes\nPriority: required\n", |_| {});
}

#[test]
fn an_index_with_one_byte_changed_is_not_trusted() {
    if !support::oracle("dpkg-deb") {
        return;
    }
    let mut archive = Archive::new();
    base(&mut archive);
    let recipe = archive.publish("");
    let path = archive.path("dists/trixie/InRelease");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("Suite: stable", "Suite: stablf")).unwrap();
    refuse(&recipe, &["dists/trixie/InRelease", "cannot be trusted"]);
}

#[test]
fn a_package_of_another_size_or_content_is_not_used() {
    if !support::oracle("dpkg-deb") {
        return;
    }
    let mut archive = Archive::new();
    base(&mut archive);
    let recipe = archive.publish("");
    let good = fs::read(archive.deb("base")).unwrap();
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(archive.deb("base"))
        .unwrap();
    file.write_all(b"x").unwrap();
    let size = format!("is longer than {} bytes", good.len());
    refuse(&recipe, &["pool/base.deb", &size]);
    fs::write(archive.deb("base"), &good[..good.len() - 1]).unwrap();
    let size = format!("ended after {} of {} bytes", good.len() - 1, good.len());
    refuse(&recipe, &["pool/base.deb", &size]);
    let mut bad = good;
    bad[200] ^= 1;
    fs::write(archive.deb("base"), bad).unwrap();
    refuse(&recipe, &["pool/base.deb", "has the SHA-256", ", not "]);
}

#[test]
fn what_cannot_be_installed_names_the_chain() {
    if !support::oracle("dpkg-deb") {
        return;
    }
    let mut archive = Archive::new();
    base(&mut archive);
    archive.add("app", "Depends: middle\n", |_| {});
    archive.add("middle", "Depends: lib (>= 2)\n", |_| {});
    archive.add("lib", "", |_| {});
    let recipe = archive.publish("app");
    refuse(&recipe, &["app", "middle", "lib (>= 2)"]);
    refuse(&archive.publish("ap"), &["'ap'", "app"]);
}

#[test]
fn a_package_that_fails_in_the_guest_shows_its_last_words() {
    if !support::oracle("dpkg-deb") || !support::oracle("ldd") {
        return;
    }
    let mut archive = Archive::new();
    let fields = "Essential: yes\nPriority: required\n";
    archive.add("tiny", fields, |folder| {
        tiny::fill(folder);
        let script = "#!/bin/sh\necho before\necho 'no frobnicator here' >&2\nexit 3\n";
        write_script(&folder.join("DEBIAN/postinst"), script);
    });
    let recipe = archive.publish("");
    let words = [
        "configuring the packages exited with 1",
        "last lines",
        "no frobnicator here",
        "tiny",
    ];
    refuse(&recipe, &words);
}

fn write_script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
