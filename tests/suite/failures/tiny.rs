//! A root file system of the host's own programs: built and booted in seconds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fs_err as fs;

use super::DEADLINE;
use crate::support;

const PROGRAMS: &[&str] = &[
    "cat", "chmod", "dpkg", "head", "ln", "md5sum", "mkdir", "mv", "rm", "sh", "sleep", "tail",
    "yes",
];
/// dpkg wants to see them but does not need them here.
const SEEN_ONLY: &[&str] = &[
    "diff",
    "dpkg-deb",
    "dpkg-split",
    "ldconfig",
    "start-stop-daemon",
    "tar",
];

/// Fills a folder.
pub(crate) fn fill(root: &Path) {
    for folder in [
        "dev",
        "etc",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/bin",
        "usr/lib",
        "usr/lib64",
        "usr/sbin",
        "var/lib",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for link in ["bin", "lib", "lib64", "sbin"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).unwrap();
    }
    let accounts = "root:x:0:0:root:/root:/bin/sh\n";
    fs::write(root.join("etc/passwd"), accounts).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
    for program in PROGRAMS {
        let path = Path::new("/usr/bin").join(program);
        copy(&path, &root.join("usr/bin").join(program));
        for library in libraries(&path) {
            let inside = library.strip_prefix("/").unwrap();
            let inside = inside.strip_prefix("usr").unwrap_or(inside);
            copy(&library, &root.join("usr").join(inside));
        }
    }
    for program in SEEN_ONLY {
        let path = root.join("usr/bin").join(program);
        fs::copy(root.join("usr/bin/sh"), &path).unwrap();
        fs::write(path, "#!/bin/sh\nexit 0\n").unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(fs::canonicalize(from).unwrap(), to).unwrap();
}

fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_ascii_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect()
}

/// A recipe over an archive of it; `more` are lines below `rootfs`.
pub(super) fn recipe(more: &str) -> String {
    let path = archive().display();
    format!("name: tiny\nrootfs:\n  source:\n    tarball: {{path: {path}}}\n{more}")
}

fn archive() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        let path = support::home().join("tiny.tar");
        let made = Command::new("tar")
            .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-C"])
            .arg(folder.path())
            .arg("-cf")
            .arg(&path)
            .arg(".")
            .status();
        assert!(made.unwrap().success());
        path
    })
}

/// An appliance of it, built once by the program as it is now; from then on the cache has the kernel.
pub(crate) fn appliance() -> &'static Path {
    static APPLIANCE: OnceLock<PathBuf> = OnceLock::new();
    APPLIANCE.get_or_init(|| {
        let file = support::home().join("tiny.yaml");
        fs::write(&file, recipe("")).unwrap();
        let folder = support::home().join("work/tiny");
        let _ = fs::remove_dir_all(&folder);
        let mut command = support::coop();
        command.arg("build").arg(file).arg("-o").arg(&folder);
        support::run(&mut command, DEADLINE).expect(0);
        folder
    })
}
