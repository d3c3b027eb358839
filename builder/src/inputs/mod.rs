//! What a build depends on, as one digest, and what is derived from digests.
//!
//! The encoding that is hashed is a list of records, each a tag and a value with their lengths in
//! front (64-bit little-endian), so that no two lists have the same bytes.

mod files;

use std::io;

use crate::digest::{Digest, Hasher};
use crate::kernel::KernelChoice;
use crate::kernel::config::{self, DEFAULT_FRAGMENTS};
use crate::lock::Lock;
use crate::recipe::{
    CobdContent, FileContent, HostFile, KernelLocation, KernelOrigin, Keyring, Recipe, RunAction,
    Source, TarballLocation, canonical,
};

pub use files::FileDigests;
pub(crate) use files::changed;

/// Changes whenever the same recipe gives other bytes than the coop before made of it.
const BUILD_FORMAT: &str = "2";

/// Hashes tagged values one after the other.
#[derive(Clone, Debug, Default)]
pub struct Record(Hasher);

impl Record {
    /// A record of one kind of thing; records of different kinds never have equal digests.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        let mut record = Self::default();
        record.put("kind", kind.as_bytes());
        record
    }

    /// Adds a value.
    pub fn put(&mut self, tag: &str, value: &[u8]) {
        for part in [tag.as_bytes(), value] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    /// The digest of all of it.
    #[must_use]
    pub fn finish(self) -> Digest {
        self.0.finish()
    }
}

/// Sixteen bytes for a UUID or a hash seed: the same for the same digest and purpose, and unlike
/// for others. As a UUID it is of version 8 (RFC 9562: bits of the maker's own choice).
#[must_use]
pub fn seed(digest: &Digest, purpose: &str) -> [u8; 16] {
    let mut record = Record::new("coop seed");
    record.put("digest", digest.as_bytes());
    record.put("purpose", purpose.as_bytes());
    let mut seed = [0; 16];
    seed.copy_from_slice(&record.finish().as_bytes()[..16]);
    seed[6] = 0x80 | (seed[6] & 0x0f);
    seed[8] = 0x80 | (seed[8] & 0x3f);
    seed
}

/// The digest of a recipe and of every file of the host that it names. Archives and packages are
/// not in it: the first are pinned by the recipe's own digests, the second by their suite.
/// `choice` counts where the recipe names no kernel, and there only where somebody chose: which
/// kernel a host could give is not asked again while the appliance is up to date. `files` remembers
/// what was read for the build that follows.
///
/// # Errors
/// A file cannot be read, or changed since it was first looked at.
pub fn digest(recipe: &Recipe, choice: KernelChoice, files: &FileDigests) -> io::Result<Digest> {
    let mut record = Record::new("coop build");
    record.put("format", BUILD_FORMAT.as_bytes());
    record.put("coop", env!("CARGO_PKG_VERSION").as_bytes());
    record.put("recipe", canonical(recipe).as_bytes());
    if recipe.kernel.origin == KernelOrigin::Default {
        for name in DEFAULT_FRAGMENTS {
            let text = config::fragment(name).unwrap_or_default();
            record.put("fragment", text.as_bytes());
        }
        if let Some(name) = choice.name() {
            record.put("kernel", name.as_bytes());
        }
    }
    for file in host_files(recipe) {
        record.put("file", files.digest(&file.path)?.as_bytes());
    }
    for mount in recipe.rootfs.run.iter().flat_map(|step| &step.mounts) {
        let digest = files.mount(&mount.source.path);
        let digest = digest.map_err(io::Error::other)?;
        record.put("mount", digest.as_bytes());
    }
    Ok(record.finish())
}

/// Such a digest and the lock that a build uses, to name the place where an output is kept. No byte
/// of an appliance follows from it, so that a lock gives what the archives gave when it was written.
///
/// # Errors
/// Never: a lock has a JSON form.
pub fn with_lock(inputs: &Digest, lock: Option<&Lock>) -> io::Result<Digest> {
    let Some(lock) = lock else {
        return Ok(*inputs);
    };
    let mut record = Record::new("coop locked build");
    record.put("inputs", inputs.as_bytes());
    record.put("lock", &serde_json::to_vec(lock)?);
    Ok(record.finish())
}

/// Every file of the host that a recipe names, in the recipe's order, but for what steps see of it.
#[must_use]
pub fn host_files(recipe: &Recipe) -> Vec<&HostFile> {
    let mut files = Vec::new();
    match &recipe.rootfs.source {
        Source::Debian(debian) => {
            files.extend(debian.debs.iter().filter_map(TarballLocation::file));
            if let Keyring::File(file) = &debian.keyring {
                files.push(file);
            }
            for repository in &debian.repositories {
                if let Keyring::File(file) = &repository.keyring {
                    files.push(file);
                }
            }
        }
        one => {
            files.extend(one.location().and_then(TarballLocation::file));
            if let Source::Disk(disk) = one {
                files.extend(&disk.chain);
            }
        }
    }
    for entry in &recipe.rootfs.files {
        if let FileContent::File(file) = &entry.content {
            files.push(file);
        }
    }
    for step in &recipe.rootfs.run {
        if let RunAction::Script(file) = &step.action {
            files.push(file);
        }
    }
    if let KernelOrigin::Source(source) = &recipe.kernel.origin {
        if let KernelLocation::Tarball(location) = &source.location {
            files.extend(location.file());
        }
        files.extend(&source.patches);
    }
    for cobd in &recipe.devices.cobd {
        if let CobdContent::File { file, .. } = &cobd.content {
            files.push(file);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_cannot_be_confused() {
        let digest = |pairs: &[(&str, &str)]| {
            let mut record = Record::new("test");
            for (tag, value) in pairs {
                record.put(tag, value.as_bytes());
            }
            record.finish()
        };
        assert_ne!(digest(&[("a", "bc")]), digest(&[("ab", "c")]));
        assert_ne!(digest(&[("a", "b"), ("c", "d")]), digest(&[("a", "bcd")]));
        assert_ne!(digest(&[]), Record::new("other").finish());
    }

    fn recipe(folder: &std::path::Path, kernel: &str) -> Recipe {
        let text = format!("name: a\nrootfs: {{source: {{debian: {{suite: sid}}}}}}\n{kernel}");
        let file = folder.join("r.yaml");
        crate::recipe::parse(&text, &file, &std::collections::BTreeMap::new())
            .unwrap()
            .0
    }

    #[test]
    fn a_choice_counts_where_the_recipe_leaves_one() {
        let folder = tempfile::tempdir().unwrap();
        let digests = |kernel: &str| {
            let recipe = recipe(folder.path(), kernel);
            let choices = [
                KernelChoice::Auto,
                KernelChoice::Prebuilt,
                KernelChoice::Trimmed,
            ];
            choices.map(|choice| digest(&recipe, choice, &FileDigests::default()).unwrap())
        };
        let [auto, prebuilt, trimmed] = digests("");
        assert!(auto != prebuilt && prebuilt != trimmed && trimmed != auto);
        let [auto, prebuilt, trimmed] = digests("kernel: {package: {}}\n");
        assert!(auto == prebuilt && prebuilt == trimmed);
    }

    #[test]
    fn the_content_of_patches_and_archives_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs_err::write(folder.path().join(name), text).unwrap();
        for (name, text) in [
            ("linux.tar", "1"),
            ("a.patch", "1"),
            ("series", "a.patch\n"),
        ] {
            write(name, text);
        }
        let now = || {
            let kernel = "kernel: {source: {tarball: {path: linux.tar}, patches: [series]}}\n";
            let recipe = recipe(folder.path(), kernel);
            digest(&recipe, KernelChoice::Auto, &FileDigests::default()).unwrap()
        };
        let before = now();
        assert_eq!(now(), before);
        for name in ["linux.tar", "a.patch"] {
            write(name, "2");
            assert_ne!(now(), before, "{name}");
            write(name, "1");
            assert_eq!(now(), before);
        }
        // What a series says beside its patches is nothing to a kernel.
        write("series", "# all\na.patch -p1\n");
        assert_eq!(now(), before);
    }

    /// What is derived from a digest must never change: images would.
    #[test]
    fn seeds_are_stable() {
        let digest = Digest::of(b"");
        let uuid = seed(&digest, "root uuid");
        assert_ne!(uuid, seed(&digest, "root hash seed"));
        assert_eq!(uuid[6] >> 4, 8);
        assert_eq!(uuid[8] >> 6, 2);
        assert_eq!(uuid, seed(&digest, "root uuid"));
    }
}
