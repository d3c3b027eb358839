//! What the store holds, and how it is made smaller.
//!
//! What was used longest ago goes first. A use is the time of modification of a file that never
//! changes: it is set each time the file is opened, for times of access are not kept everywhere, and
//! are by whoever looks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coop_appliance::MANIFEST_NAME;
use fs_err as fs;
use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, flock, futimens};
use serde::Serialize;

use super::derived::{Reference, remove_if_there};
use super::life::{LOCK_NAME, is_abandoned};
use super::{Store, StoreError, removal};
use crate::digest::Digest;
use crate::publish;

/// The kinds of derived objects that are results of steps, in any version.
const STEP_KINDS: &[&str] = &["tree", "answer"];
/// An object that nothing refers to may be about to get its reference, for so long, in seconds.
const UNREFERENCED_SECONDS: i64 = 60 * 60;
/// The kind of what a program writes that has ended or goes on.
const UNFINISHED: &str = "unfinished";
/// A disk block of stat(2), in bytes.
const BLOCK_BYTES: u64 = 512;

/// What a file of the store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Came from an archive or a server.
    Download,
    /// The result of a recipe's step.
    Step,
    /// Computed from something else: unpacked packages, kernels.
    Derived,
    /// What `coop run RECIPE` boots.
    Appliance,
    /// Small values; they are never removed, as some of them guard against old indices.
    Note,
    /// What compilers said.
    Log,
    /// Of programs that run, or that ended suddenly.
    Temporary,
    /// Set aside because it was not what it should be.
    Bad,
}

/// A file of the store, or a folder that counts as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What it is for.
    pub part: Part,
    /// More precisely: `deb-data-1`, `tree-1`.
    pub kind: String,
    /// Its place, from the store's root.
    pub path: PathBuf,
    /// The room that it takes on the disk, in bytes.
    pub size_bytes: u64,
    /// When it was last used, in seconds since 1970.
    pub used_seconds: i64,
    /// Further names of the same file.
    #[serde(skip)]
    names: Vec<PathBuf>,
}

/// What to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcOptions {
    /// How much may stay, in bytes; what was used longest ago goes.
    pub size_bytes_max: Option<u64>,
    /// All results of steps.
    pub steps: bool,
    /// What was set aside as damaged.
    pub bad: bool,
    /// Nothing; only say what would go.
    pub dry_run: bool,
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// What was removed, or would be.
    pub removed: Vec<Entry>,
    /// The room that it took on the disk, in bytes.
    pub removed_bytes: u64,
    /// The room that the rest takes, in bytes.
    pub left_bytes: u64,
    /// Appliances that stay because they run.
    pub in_use: Vec<PathBuf>,
}

/// Notes that a file was used. Where that is not allowed, it looks older than it is.
pub(super) fn touch(file: &fs::File) {
    let time = |nanoseconds| Timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds,
    };
    let _ = futimens(
        file,
        &Timestamps {
            last_access: time(UTIME_OMIT),
            last_modification: time(UTIME_NOW),
        },
    );
}

/// The files of a folder that is divided by the first digits of their names.
pub(super) fn sharded_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for shard in entries(folder)? {
        if shard.is_dir() {
            files.extend(entries(&shard)?);
        }
    }
    Ok(files)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = match fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()?,
        // Others may remove what they have used up.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.sort_unstable();
    Ok(paths)
}

/// An object that lost its reference long ago.
fn is_forgotten(entry: &Entry, now_seconds: i64) -> bool {
    entry.kind == "unreferenced"
        && now_seconds.saturating_sub(entry.used_seconds) > UNREFERENCED_SECONDS
}

/// Whether a name is that of an appliance that is being written, or was when its program was killed.
fn is_staging(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().contains(publish::MARK)
}

/// Device and inode: two names with the same are one file.
type Identity = (u64, u64);

/// Gathers entries; names of one file become one entry.
struct Listing<'s> {
    root: &'s Path,
    entries: Vec<Entry>,
    known: BTreeMap<Identity, usize>,
}

impl Listing<'_> {
    fn add(&mut self, part: Part, kind: &str, path: &Path) -> io::Result<()> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let relative = path.strip_prefix(self.root).unwrap_or(path).to_owned();
        if let Some(index) = self.known.get(&(metadata.dev(), metadata.ino())) {
            self.entries[*index].names.push(relative);
            return Ok(());
        }
        let size_bytes = match metadata.is_dir() {
            true => size_below(path)?,
            false => metadata.blocks().saturating_mul(BLOCK_BYTES),
        };
        let used = match metadata.is_dir() {
            true => fs::metadata(path.join(MANIFEST_NAME)).map_or(metadata.mtime(), |m| m.mtime()),
            false => metadata.mtime(),
        };
        self.known
            .insert((metadata.dev(), metadata.ino()), self.entries.len());
        self.entries.push(Entry {
            part,
            kind: kind.to_owned(),
            path: relative,
            size_bytes,
            used_seconds: used,
            names: Vec::new(),
        });
        Ok(())
    }
}

fn size_below(folder: &Path) -> io::Result<u64> {
    let (mut sum, mut pending) = (0_u64, vec![folder.to_owned()]);
    while let Some(folder) = pending.pop() {
        for path in entries(&folder)? {
            // What a running program has just removed counts nothing.
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            sum = sum.saturating_add(metadata.blocks().saturating_mul(BLOCK_BYTES));
            if metadata.is_dir() {
                pending.push(path);
            }
        }
    }
    Ok(sum)
}

/// The kind below `result` or `derived` that a path lies in.
fn kind_of(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn part_of(kind: &str) -> Part {
    let name = kind.rsplit_once('-').map_or(kind, |(name, _version)| name);
    match STEP_KINDS.contains(&name) {
        true => Part::Step,
        false => Part::Derived,
    }
}

/// What the results say about objects.
#[derive(Default)]
pub(super) struct References {
    /// The kinds of each object.
    kinds: BTreeMap<Digest, BTreeSet<String>>,
    /// References without an object.
    pub(super) dangling: Vec<PathBuf>,
}

impl Store {
    pub(super) fn references(&self) -> Result<References, StoreError> {
        let mut references = References::default();
        for folder in entries(&self.root.join("result"))? {
            let kind = kind_of(&folder);
            for path in sharded_files(&folder)? {
                match Reference::read(&path)? {
                    Some(found) if self.object_path(&found.digest).exists() => {
                        let kinds = references.kinds.entry(found.digest).or_default();
                        kinds.insert(kind.clone());
                    }
                    _ => references.dangling.push(path),
                }
            }
        }
        Ok(references)
    }

    /// Everything in the store, by part, kind and path.
    ///
    /// # Errors
    /// The store's folders cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let references = self.references()?;
        let root = &self.root;
        let mut listing = Listing {
            root,
            entries: Vec::new(),
            known: BTreeMap::new(),
        };
        for path in sharded_files(&root.join("blob"))? {
            listing.add(Part::Download, "download", &path)?;
        }
        for path in sharded_files(&root.join("partial"))? {
            listing.add(Part::Download, "partial", &path)?;
        }
        for path in sharded_files(&root.join("object"))? {
            let name = path.file_name().and_then(std::ffi::OsStr::to_str);
            let digest = name.and_then(|name| name.parse::<Digest>().ok());
            let kinds = digest.and_then(|digest| references.kinds.get(&digest));
            let mut kinds = kinds.into_iter().flatten();
            // What something else was made for too is kept longer.
            let first = kinds.clone().find(|kind| part_of(kind) == Part::Derived);
            match first.or_else(|| kinds.next()) {
                Some(kind) => listing.add(part_of(kind), kind, &path)?,
                None => listing.add(Part::Derived, "unreferenced", &path)?,
            }
        }
        for folder in entries(&root.join("derived"))? {
            let kind = kind_of(&folder);
            for path in sharded_files(&folder)? {
                listing.add(part_of(&kind), &kind, &path)?;
            }
        }
        for folder in entries(&root.join("note"))? {
            for path in sharded_files(&folder)? {
                listing.add(Part::Note, &kind_of(&folder), &path)?;
            }
        }
        for (part, name) in [
            (Part::Appliance, "appliance"),
            (Part::Log, "log"),
            (Part::Temporary, "temp"),
            (Part::Bad, "bad"),
        ] {
            for path in entries(&root.join(name))? {
                match part {
                    Part::Appliance if is_staging(&path) => {
                        listing.add(Part::Temporary, UNFINISHED, &path)?;
                    }
                    _ => listing.add(part, name, &path)?,
                }
            }
        }
        let mut entries = listing.entries;
        entries.sort_by(|left, right| {
            let key = |entry: &Entry| (entry.part, entry.kind.clone());
            key(left)
                .cmp(&key(right))
                .then_with(|| left.path.cmp(&right.path))
        });
        Ok(entries)
    }

    /// Makes the store smaller. What programs have open stays theirs; an appliance that runs stays.
    ///
    /// # Errors
    /// The store's folders cannot be read, or a file cannot be removed.
    pub fn collect_garbage(&self, options: GcOptions) -> Result<GcReport, StoreError> {
        let now_seconds = self.now_seconds()?;
        let own_lock = self.session()?.join(LOCK_NAME);
        let mut entries = self.entries()?;
        // The longest unused first.
        entries.sort_by(|left, right| {
            let by_use = left.used_seconds.cmp(&right.used_seconds);
            by_use.then_with(|| left.path.cmp(&right.path))
        });
        let mut left: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
        let mut report = GcReport::default();
        for entry in entries {
            let is_step = matches!(entry.part, Part::Step | Part::Appliance);
            let is_evictable =
                is_step || matches!(entry.part, Part::Download | Part::Derived | Part::Log);
            let is_too_much = options.size_bytes_max.is_some_and(|most| left > most);
            let goes = (options.steps && is_step)
                || (options.bad && entry.part == Part::Bad)
                || (is_too_much && is_evictable)
                || is_forgotten(&entry, now_seconds)
                || (entry.kind == UNFINISHED
                    && is_abandoned(&self.root.join(&entry.path), &own_lock));
            if !goes {
                continue;
            }
            if entry.part == Part::Appliance && self.is_running(&entry.path) {
                report.in_use.push(entry.path);
                continue;
            }
            if !options.dry_run {
                self.remove(&entry)?;
            }
            left = left.saturating_sub(entry.size_bytes);
            report.removed_bytes = report.removed_bytes.saturating_add(entry.size_bytes);
            report.removed.push(entry);
        }
        report.left_bytes = left;
        if !options.dry_run {
            for path in self.references()?.dangling {
                remove_if_there(&path)?;
            }
        }
        Ok(report)
    }

    /// The present, by the clock of the store's file system.
    fn now_seconds(&self) -> Result<i64, StoreError> {
        Ok(self.temp_file()?.as_file().metadata()?.mtime())
    }

    fn is_running(&self, appliance: &Path) -> bool {
        let manifest = fs::File::open(self.root.join(appliance).join(MANIFEST_NAME));
        manifest.is_ok_and(|file| {
            flock(&file, FlockOperation::NonBlockingLockExclusive)
                == Err(rustix::io::Errno::WOULDBLOCK)
        })
    }

    fn remove(&self, entry: &Entry) -> Result<(), StoreError> {
        for path in std::iter::once(&entry.path).chain(&entry.names) {
            let path = self.root.join(path);
            if !path.is_dir() {
                remove_if_there(&path)?;
                continue;
            }
            // Nobody finds half a folder: it loses its name first.
            let aside = self.temp_folder()?;
            let target = aside.path().join("removed");
            match fs::rename(&path, &target) {
                Ok(()) => removal::remove(&target)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.explain(error)),
            }
        }
        Ok(())
    }

    /// Where `coop run RECIPE` has the appliance of these inputs.
    #[must_use]
    pub fn appliance_path(&self, inputs: &Digest) -> PathBuf {
        self.root.join("appliance").join(inputs.to_string())
    }

    /// Keeps an appliance of the store from being removed while the file is open.
    ///
    /// # Errors
    /// It is not there (any more).
    pub fn hold_appliance(&self, inputs: &Digest) -> io::Result<std::fs::File> {
        let path = self.appliance_path(inputs).join(MANIFEST_NAME);
        let file = fs::File::open(&path)?;
        // Where there are no locks, what is open stays readable all the same.
        let _ = flock(&file, FlockOperation::NonBlockingLockShared);
        touch(&file);
        // It may have lost its name before it was locked.
        fs::metadata(&path)?;
        Ok(file.into_parts().0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::{Duration, SystemTime};

    use super::super::tests::opened;
    use super::*;
    use crate::store::DerivedKey;

    fn key(kind: &'static str, input: &str) -> DerivedKey<'static> {
        DerivedKey {
            kind,
            input: Digest::of(input.as_bytes()),
        }
    }

    fn publish(store: &Store, key: DerivedKey<'_>, content: &[u8]) {
        let mut file = store.temp_file().unwrap();
        file.write_all(content).unwrap();
        store.publish_derived(file, key).unwrap();
    }

    fn set_used(store: &Store, path: &Path, seconds: u64) {
        let file = fs::File::open(store.root().join(path)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        file.into_parts().0.set_modified(time).unwrap();
    }

    fn kinds(entries: &[Entry]) -> Vec<(Part, &str)> {
        let shown = entries
            .iter()
            .filter(|entry| entry.part != Part::Temporary)
            .map(|entry| (entry.part, entry.kind.as_str()));
        shown.collect()
    }

    fn filled() -> (tempfile::TempDir, Store) {
        let (folder, store) = opened();
        store.put(b"download").unwrap();
        store.put_note("date", "a", b"1").unwrap();
        publish(&store, key("tree-1", "a"), b"tree");
        publish(&store, key("deb-data-1", "a"), b"data");
        // The same bytes for a step and for something else.
        publish(&store, key("tree-1", "b"), b"data");
        let appliance = store.appliance_path(&Digest::of(b"i"));
        fs::create_dir_all(&appliance).unwrap();
        fs::write(appliance.join(MANIFEST_NAME), "{}").unwrap();
        (folder, store)
    }

    #[test]
    fn each_file_is_listed_once() {
        let (_folder, store) = filled();
        let entries = store.entries().unwrap();
        assert_eq!(
            kinds(&entries),
            [
                (Part::Download, "download"),
                (Part::Step, "tree-1"),
                (Part::Derived, "deb-data-1"),
                (Part::Appliance, "appliance"),
                (Part::Note, "date"),
            ]
        );
        assert!(entries.iter().all(|entry| entry.size_bytes > 0));
    }

    #[test]
    fn steps_go_and_downloads_stay() {
        let (_folder, store) = filled();
        let options = GcOptions {
            steps: true,
            dry_run: true,
            ..GcOptions::default()
        };
        let would = store.collect_garbage(options).unwrap();
        assert!(store.derived(key("tree-1", "a")).unwrap().is_some());
        let held = store.hold_appliance(&Digest::of(b"i")).unwrap();
        let options = GcOptions {
            dry_run: false,
            ..options
        };
        let report = store.collect_garbage(options).unwrap();
        assert_eq!(kinds(&report.removed), [(Part::Step, "tree-1")]);
        assert_eq!(report.in_use.len(), 1);
        drop(held);
        assert_eq!(would.removed.len(), 2);
        let report = store.collect_garbage(options).unwrap();
        assert_eq!(kinds(&report.removed), [(Part::Appliance, "appliance")]);
        assert!(store.hold_appliance(&Digest::of(b"i")).is_err());
        assert!(store.derived(key("tree-1", "a")).unwrap().is_none());
        assert!(store.derived(key("deb-data-1", "a")).unwrap().is_some());
        assert!(store.blob(&Digest::of(b"download")).unwrap().is_some());
        let again = store.collect_garbage(options).unwrap();
        assert_eq!(again.removed, []);
    }

    #[test]
    fn an_appliance_that_is_being_written_is_left_alone() {
        let (_folder, store) = filled();
        let place = store.appliance_path(&Digest::of(b"new"));
        let staging = publish::Staging::new(&place, MANIFEST_NAME).unwrap();
        fs::write(staging.path().join("vmlinux"), "half").unwrap();
        let name = format!(".{}{}killed", Digest::of(b"k"), publish::MARK);
        let killed = place.with_file_name(name);
        fs::create_dir_all(&killed).unwrap();
        fs::remove_dir_all(store.appliance_path(&Digest::of(b"i"))).unwrap();
        assert_eq!(store.verify(&|_| {}).unwrap().bad, []);
        let options = GcOptions {
            steps: true,
            ..GcOptions::default()
        };
        store.collect_garbage(options).unwrap();
        assert!(staging.path().join("vmlinux").exists());
        assert!(!killed.exists());
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let (_folder, store) = opened();
        let large = |byte| vec![byte; 100_000];
        for (byte, input) in [(1, "a"), (2, "b"), (3, "c")] {
            publish(&store, key("deb-data-1", input), &large(byte));
        }
        let entries = store.entries().unwrap();
        let objects: Vec<&Entry> = entries
            .iter()
            .filter(|entry| entry.part == Part::Derived)
            .collect();
        for (seconds, entry) in (1000..).zip(&objects) {
            set_used(&store, &entry.path, seconds);
        }
        let total: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
        let report = store
            .collect_garbage(GcOptions {
                size_bytes_max: Some(total - 1),
                ..GcOptions::default()
            })
            .unwrap();
        assert_eq!(report.removed.len(), 1);
        assert_eq!(report.removed[0].path, objects[0].path);
        let left = ["a", "b", "c"].map(|input| store.has_derived(key("deb-data-1", input)));
        assert_eq!(left.iter().filter(|there| **there).count(), 2);
        // A use makes it young.
        set_used(&store, &objects[2].path, 1);
        for input in ["a", "b", "c"] {
            store.derived(key("deb-data-1", input)).unwrap();
        }
        let used = fs::metadata(store.root().join(&objects[2].path)).unwrap();
        assert!(used.mtime() > 1_000_000_000);
        let all = GcOptions {
            size_bytes_max: Some(0),
            ..GcOptions::default()
        };
        store.collect_garbage(all).unwrap();
        assert!(!store.has_derived(key("deb-data-1", "c")));
    }
}
