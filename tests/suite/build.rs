//! Builds: what they leave, that others agree it is right, and that its bytes depend on nothing
//! but the recipe.

use std::path::Path;
use std::process::Command;

use fs_err as fs;

use crate::support::{self, BUILD_DEADLINE, KERNEL_DEADLINE, RUN_DEADLINE};

/// The files of an appliance that hold bytes of coop's making.
const FILES: &[&str] = &["root.cobd", "vmlinux", "config", "appliance.json"];

#[test]
fn an_appliance_is_whole() {
    let debian = support::debian();
    for file in FILES {
        assert!(debian.join(file).is_file(), "{file} is missing");
    }
    let mut inspect = support::coop();
    inspect.args(["inspect", "--verify"]).arg(debian);
    let done = support::run(&mut inspect, RUN_DEADLINE).expect(0);
    assert!(done.text().contains("every file has its digest"));
    if support::oracle("e2fsck") {
        let mut check = support::unprivileged("e2fsck");
        support::plain_environment(&mut check);
        check.arg("-fn").arg(debian.join("root.cobd"));
        support::run(&mut check, RUN_DEADLINE).expect(0);
    }
}

#[test]
fn the_hosts_kernel_mounts_the_root() {
    if !support::root_oracle() {
        return;
    }
    let folder = support::temp_folder();
    let image = support::debian().join("root.cobd");
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "ext4", "-o", "loop,ro"])
        .arg(&image)
        .arg(folder.path());
    support::run(&mut mount, RUN_DEADLINE).expect(0);
    let text = fs::read_to_string(folder.path().join("usr/lib/os-release"));
    let mut unmount = Command::new("umount");
    unmount.arg(folder.path());
    support::run(&mut unmount, RUN_DEADLINE).expect(0);
    assert!(text.unwrap().contains("VERSION_CODENAME=trixie"));
}

#[test]
fn a_build_with_nothing_to_do_says_so() {
    let manifest = support::debian().join("appliance.json");
    let before = fs::metadata(&manifest).unwrap().modified().unwrap();
    let mut command = support::coop();
    command
        .arg("build")
        .arg(support::recipe("debian.yaml"))
        .current_dir(support::debian_folder());
    let done = support::run(&mut command, RUN_DEADLINE).expect(0);
    assert_eq!(done.text(), "out/debian\n");
    assert_eq!(done.stderr, "out/debian is up to date\n");
    let after = fs::metadata(&manifest).unwrap().modified().unwrap();
    assert_eq!(before, after);
}

#[test]
fn the_same_recipe_gives_the_same_bytes_everywhere() {
    let first = digests(support::debian());
    let home = tempfile::Builder::new()
        .prefix("coop-elsewhere-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let home = home.path();
    let user = support::is_root().then_some(OTHER_USER);
    for folder in ["", "tmp", "deep", "deep/er", "deep/er/recipes"] {
        fs::create_dir_all(home.join(folder)).unwrap();
        std::os::unix::fs::chown(home.join(folder), user, user).unwrap();
    }
    let recipe = home.join("deep/er/recipes/debian.yaml");
    fs::copy(support::recipe("debian.yaml"), &recipe).unwrap();
    // An empty cache in the place that is used if nobody names one; what a run of a recipe builds
    // stays in there.
    let mut other = support::as_user(user, "sh");
    support::plain_environment(&mut other);
    other
        .args(["-c", "umask 077; exec \"$@\"", "sh"])
        .arg(support::program())
        .args(["run", "recipes/debian.yaml", "--progress", "none"])
        .args(["--", "cat", "/etc/os-release"])
        .current_dir(home.join("deep/er"))
        .env_remove("COOP_CACHE")
        .env("HOME", home)
        .env("TMPDIR", home.join("tmp"))
        .env("TZ", "Asia/Kathmandu")
        .env("LC_ALL", "de_DE.UTF-8")
        .env("LANGUAGE", "de");
    // The kernel's source is in no cache there: where it is the trimmed one, it is built again.
    let done = support::run(&mut other, KERNEL_DEADLINE).expect(0);
    assert!(done.text().contains("VERSION_CODENAME=trixie"));
    assert!(!home.join("deep/er/out").exists());
    let appliances = home.join(".cache/coop/v1/appliance");
    let appliance = fs::read_dir(appliances).unwrap().next().unwrap();
    assert_eq!(digests(&appliance.unwrap().path()), first);
    if !support::is_root() {
        return;
    }
    let mut root = Command::new("sh");
    support::plain_environment(&mut root);
    root.args(["-c", "umask 000; exec \"$@\"", "sh"])
        .arg(support::program())
        .args(["build", "--progress", "none", "--set", "release=trixie"])
        .arg(&recipe)
        .arg("-o")
        .arg(home.join("by root"))
        .current_dir("/")
        .env("COOP_CACHE", home.join(".cache/coop"))
        .env("HOME", home.join("tmp"))
        .env("TZ", "America/Caracas")
        .env("LC_ALL", "C");
    support::run(&mut root, BUILD_DEADLINE).expect(0);
    assert_eq!(digests(&home.join("by root")), first);
}

/// A user that no system knows by name.
const OTHER_USER: u32 = 12345;

fn digests(appliance: &Path) -> Vec<(&'static str, String)> {
    FILES
        .iter()
        .map(|file| (*file, support::sha256(&appliance.join(file))))
        .collect()
}

#[test]
fn the_debian_is_as_dpkg_wants_it() {
    let script = "dpkg --audit; dpkg --verify; \
                  dpkg-query -W -f '${db:Status-Abbrev}${Package}\\n' | grep -v '^ii '; \
                  dpkg-query -W -f '.' >&2";
    let done = support::in_debian(&["sh", "-c", script]).expect(0);
    assert_eq!(done.text(), "");
    assert!(
        done.stderr.len() > 50 && done.stderr.chars().all(|c| c == '.'),
        "{}",
        done.stderr
    );
}

#[test]
fn apt_reaches_the_mirror() {
    let done = support::in_debian(&["sh", "-c", "apt-get update && apt-cache policy hello"]);
    let done = done.expect(0);
    let text = done.text();
    assert!(text.contains("Candidate: 2"), "{text}");
    assert_eq!(done.stderr, "");
}

#[test]
fn archives_of_every_kind_become_systems() {
    let folder = support::temp_folder();
    let plain = support::small_archive();
    for (tool, name) in [
        (None, "tar"),
        (Some("gzip"), "gz"),
        (Some("bzip2"), "bz2"),
        (Some("xz"), "xz"),
        (Some("zstd"), "zst"),
    ] {
        // The name says nothing: what it is shows in its content.
        let archive = folder.path().join(format!("archive of {name}"));
        match tool {
            None => drop(fs::copy(plain, &archive).unwrap()),
            Some(tool) if support::oracle(tool) => {
                let mut pack = Command::new(tool);
                pack.arg("-c").arg(plain);
                let packed = support::run(&mut pack, RUN_DEADLINE).expect(0);
                fs::write(&archive, packed.stdout).unwrap();
            }
            Some(_) => continue,
        }
        let out = folder.path().join(name);
        let mut build = support::coop();
        build.args(["build", "--progress", "none", "-o"]);
        build.arg(&out).args(support::from_archive(&archive));
        support::run(&mut build, RUN_DEADLINE).expect(0);
        let mut run = support::coop();
        run.arg("run").arg(&out);
        run.args(["--", "sh", "-c", "cat /etc/os-release; exit 3"]);
        let done = support::run(&mut run, RUN_DEADLINE).expect(3);
        assert!(done.text().contains("trixie"), "{name}: {}", done.text());
    }
}

#[test]
fn an_archive_with_another_digest_is_refused() {
    let folder = support::temp_folder();
    let archive = support::small_archive();
    let right = support::sha256(archive);
    let wrong = support::sha256_of(b"something else");
    let recipe = folder.path().join("recipe.yaml");
    let out = folder.path().join("out");
    let build = |digest: &str| {
        let path = archive.display();
        let source = format!("{{tarball: {{path: '{path}', sha256: {digest}}}}}");
        let text = format!("name: pinned\nrootfs:\n  source: {source}\n");
        fs::write(&recipe, text).unwrap();
        let mut command = support::coop();
        command.args(["build", "--progress", "none", "-o"]);
        command.arg(&out).arg(&recipe);
        support::run(&mut command, RUN_DEADLINE)
    };
    let refused = build(&wrong).expect(1);
    for part in [&right, &wrong, archive.to_str().unwrap()] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["recipe.yaml"]);
    build(&right).expect(0);
}
