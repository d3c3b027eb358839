//! Images as debugfs copies them out.

use std::os::fd::AsFd;
use std::path::Path;

use coop_image::tree::Timestamp;

use super::facts::{Facts, Snapshot, Type, compare};
use super::programs::Programs;
use super::{image, kernel};

/// debugfs writes holes out as zeroes.
const SIZES_MAX: u64 = 64 << 20;
/// It makes paths in the folder that it is given.
const PATH_MAX: usize = 3800;
/// It reads the target of a link into a buffer of one block, without room for more.
const TARGET_MAX: u64 = 1000;

/// Whether debugfs can copy everything that it copies at all; owners need root.
pub fn is_possible(expected: &Snapshot) -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let sizes: u64 = expected.values().map(|facts| facts.size.unwrap_or(0)).sum();
    let fits = |(path, facts): (&Vec<u8>, &Facts)| {
        path.len() < PATH_MAX
            && (facts.kind != Type::Symlink || facts.size.unwrap_or(0) < TARGET_MAX)
    };
    sizes < SIZES_MAX && expected.iter().all(fits)
}

/// Dumps and compares files, folders and links: permissions without set-user and sticky bits,
/// owner, 32 bits of the modification time, size, content, target.
pub fn check(programs: &Programs, path: &Path, expected: &Snapshot) -> Result<(), String> {
    let folder = tempfile::tempdir_in(image::folder()).unwrap();
    programs.dump(path, folder.path())?;
    let opened = std::fs::File::open(folder.path()).unwrap();
    let mut found = kernel::read(opened.as_fd())?;
    let reader = format!("debugfs {}", programs.version);
    // The folder is ours.
    found.remove(&b"/"[..]);
    let found: Snapshot = found
        .into_iter()
        .map(|(path, facts)| (path, masked(facts)))
        .collect();
    let copied = |facts: &Facts| matches!(facts.kind, Type::Directory | Type::File | Type::Symlink);
    let expected = expected
        .iter()
        .filter(|(path, facts)| copied(facts) && **path != b"/")
        .map(|(path, facts)| (path.clone(), masked(facts.clone())))
        .collect();
    compare(&reader, &expected, &found)
}

/// Only what debugfs copies.
fn masked(facts: Facts) -> Facts {
    let is_link = facts.kind == Type::Symlink;
    let second = facts.modified.map(|time| Timestamp {
        seconds: time.seconds & 0xFFFF_FFFF,
        nanoseconds: 0,
    });
    let permissions = facts.mode.map(|mode| mode & 0o777);
    Facts {
        mode: permissions.filter(|_| !is_link),
        owner: facts.owner.filter(|_| !is_link),
        modified: second.filter(|_| !is_link),
        size: facts.size,
        content: facts.content,
        target: facts.target.clone(),
        ..Facts::new(facts.kind)
    }
}
