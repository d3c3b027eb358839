//! Generated images: e2fsck of two versions, the host's kernel, our own reader and two others
//! look at each, and have to agree with the tree on every field of every path.
//!
//! `COOP_TEST_IMAGES` says how many trees are generated (60 where it is not set),
//! `COOP_TEST_IMAGES_SEED` with which seed the first one is (1), `COOP_TEST_SIZES=all` also tries
//! the sizes that take long: see `sizes`. A failing tree is made again by its seed and a number
//! of 1.
//!
//! What the readers cannot do is asserted, and counted in the line at the end:
//! - the kernel says everything. Mounting needs root and loop devices; without them it is left out,
//!   with a message, or fails where `COOP_REQUIRE_ORACLES=1` is set.
//! - mkext4 and ext4-view refuse attributes whose values have inodes of their own (`ea_inode`).
//! - mkext4 reads blocks of 4096 bytes only, of those everything.
//! - ext4-view takes times whose low 32 bits have the sign bit set (before 1970, 2038 to 2106 and so
//!   on) for damage; it finds by path, up to 4096 bytes; it gives no attributes, device numbers,
//!   link counts and inode numbers; it walks holes block by block, so files above 24 MiB are left
//!   out.
//!   Link targets with a component of more than 255 bytes are damage to it, too. Of two names with
//!   one hash it may find one only.
//! - debugfs dumps files, folders and links, with 32 bits of the modification time and nine of the
//!   mode; special files and attributes not at all.
//! - e2fsck takes times from 2310-04-04 to 2378-04-22 for times before 1970 as old kernels wrote
//!   them, and says so; it has to say so of those inodes only.

mod dump;
mod facts;
mod generate;
mod image;
mod kernel;
mod peer;
mod programs;
pub mod random;
mod sizes;
mod stream;
mod view;

use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use coop_image::ext4::{self, Options, Size, Summary};
use coop_image::tar;
use coop_image::tree::{Metadata, Tree};

use facts::{Snapshot, compare, expected, of_tree};
use image::Place;
use kernel::Mount;
use programs::Programs;
use random::Random;

/// How many images are made where nobody says.
const IMAGES: u64 = 60;
/// After so many failures a run stops.
const FAILURES_MAX: usize = 8;
/// How many threads write where it may not make a difference.
const THREADS: NonZeroUsize = NonZeroUsize::new(8).unwrap();
/// Blocks and inodes that the kernel is left to write with.
const WRITE_BLOCKS: u64 = 120;
const WRITE_INODES: u32 = 20;

/// Whether a missing oracle is a failure.
fn required() -> bool {
    std::env::var_os("COOP_REQUIRE_ORACLES").is_some_and(|value| value == "1")
}

/// Says once for each reason what is left out.
fn skip(reason: &str) {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut said = SAID.lock().unwrap();
    if !said.iter().any(|known| known == reason) {
        eprintln!("skipped: {reason}");
        said.push(reason.into());
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable}: not a number: {text}")),
        Err(_) => otherwise,
    }
}

/// What was looked at.
#[derive(Clone, Debug, Default)]
struct Counts {
    images: u64,
    mounted: u64,
    written: u64,
    dumped: u64,
    repeated: u64,
    archived: u64,
    streamed: u64,
    peer: u64,
    paths: u64,
    inodes: u64,
    xattrs: u64,
    content_bytes: u64,
    image_bytes: u64,
    /// Images with attributes in inodes of their own.
    values: u64,
    /// Images with times that e2fsck takes for old mistakes.
    future: u64,
    view: view::Limits,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        for (mine, its) in [
            (&mut self.images, other.images),
            (&mut self.mounted, other.mounted),
            (&mut self.written, other.written),
            (&mut self.dumped, other.dumped),
            (&mut self.repeated, other.repeated),
            (&mut self.archived, other.archived),
            (&mut self.streamed, other.streamed),
            (&mut self.peer, other.peer),
            (&mut self.paths, other.paths),
            (&mut self.inodes, other.inodes),
            (&mut self.xattrs, other.xattrs),
            (&mut self.content_bytes, other.content_bytes),
            (&mut self.image_bytes, other.image_bytes),
            (&mut self.values, other.values),
            (&mut self.future, other.future),
        ] {
            *mine += its;
        }
        self.view.add(&other.view);
    }
}

/// What is done with an image beyond reading it.
#[derive(Clone, Copy, Debug, Default)]
struct More {
    /// Mount it for writing at the end, where it has room, and check what comes out.
    write: bool,
    /// Dump it by debugfs.
    dump: bool,
    /// Write it again.
    repeat: bool,
    /// Write it from an archive of the tree.
    archive: bool,
}

/// Everything that looks at images, with a place for one.
struct Examiner {
    place: Place,
    programs: Vec<Programs>,
    counts: Counts,
}

impl Examiner {
    fn new(programs: &[Programs]) -> Self {
        Self {
            place: Place::new(true),
            programs: programs.to_vec(),
            counts: Counts::default(),
        }
    }

    /// Writes an image of a tree and has everybody read it.
    fn examine(&mut self, tree: &Tree, options: &Options, more: More) -> Result<(), String> {
        let output = self.place.emptied();
        let summary = ext4::write(tree, options, &output)
            .map_err(|error| format!("the writer refuses: {error}"))?;
        match ext4::measure(tree, options) {
            Ok(measured) if measured == summary => {}
            other => return Err(format!("measured as {other:?}, written as {summary:?}")),
        }
        self.look(tree, options, &summary, more.dump)?;
        if more.repeat {
            self.repeat(tree, options, &summary)?;
        }
        if more.archive {
            self.archive(tree, options, &summary)?;
        }
        if more.write {
            let future = programs::future_inodes(&expected(tree, options));
            self.write(&summary, future)?;
        }
        Ok(())
    }

    /// Has everybody read the image that is in the place.
    fn look(
        &mut self,
        tree: &Tree,
        options: &Options,
        summary: &Summary,
        dump: bool,
    ) -> Result<(), String> {
        let length = self.place.opened().metadata().unwrap().len();
        if length != summary.size_bytes {
            return Err(format!("{length} bytes long, not {}", summary.size_bytes));
        }
        let expected = expected(tree, options);
        self.count(&expected, summary);
        let future = programs::future_inodes(&expected);
        self.counts.future += u64::from(future > 0);
        for programs in &self.programs {
            programs.check(self.place.path(), Some(summary), future)?;
        }
        let has_values = peer::check_superblock(&self.place.opened(), options, summary)?;
        self.read_ourselves(&expected, tree)?;
        if has_values {
            view::refuses_values(self.place.opened())?;
            peer::refuses_values(self.place.opened())?;
            self.counts.values += 1;
        } else {
            let limits = view::check(self.place.opened(), options, &expected)?;
            self.counts.view.add(&limits);
            if peer::check(self.place.opened(), options, &expected)? {
                self.counts.peer += 1;
            }
        }
        self.mount(&expected, summary)?;
        if dump && dump::is_possible(&expected) {
            for programs in &self.programs {
                dump::check(programs, self.place.path(), &expected)?;
            }
            self.counts.dumped += 1;
        }
        Ok(())
    }

    fn count(&mut self, expected: &Snapshot, summary: &Summary) {
        let inodes = expected
            .iter()
            .filter(|(path, facts)| facts.first.as_ref() == Some(*path));
        self.counts.images += 1;
        self.counts.paths += expected.len() as u64;
        for (_, facts) in inodes {
            self.counts.inodes += 1;
            self.counts.xattrs += facts
                .xattrs
                .as_ref()
                .map_or(0, |xattrs| xattrs.len() as u64);
        }
        let used = summary.blocks - summary.blocks_free;
        self.counts.content_bytes += used * u64::from(summary.block_size_bytes);
        self.counts.image_bytes += summary.size_bytes;
    }

    fn read_ourselves(&self, expected: &Snapshot, tree: &Tree) -> Result<(), String> {
        let found = ext4::read(Arc::new(self.place.opened()))
            .map_err(|error| format!("our reader: {error}"))?;
        let mut expected = expected.clone();
        // Our reader leaves a folder out that every new image has.
        let found = of_tree(&found);
        let is_plain = !found.contains_key(facts::LOST_FOUND);
        if is_plain && tree.lookup(facts::LOST_FOUND).is_err() {
            expected.remove(facts::LOST_FOUND);
            let root = expected.get_mut(&b"/"[..]).unwrap();
            root.links = of_tree(tree)[&b"/"[..]].links;
        }
        compare("our reader", &expected, &found)
    }

    fn mount(&mut self, expected: &Snapshot, summary: &Summary) -> Result<(), String> {
        let Some(device) = self.place.device() else {
            return Ok(());
        };
        self.place.forget();
        let mount = Mount::new(device, false)?;
        let found = kernel::read(mount.root());
        let result = found.and_then(|found| {
            mount.complaints()?;
            mount.check_counts(summary)?;
            compare("kernel", expected, &found)
        });
        drop(mount);
        self.place.await_release()?;
        self.counts.mounted += 1;
        result
    }

    /// Has the kernel write, where there is room, then e2fsck and our reader look again.
    fn write(&mut self, summary: &Summary, future: usize) -> Result<(), String> {
        // The kernel sets some apart for itself: 2 percent, 4096 blocks at most.
        let apart = (summary.blocks / 50).min(4096);
        let has_room =
            summary.blocks_free > WRITE_BLOCKS + apart && summary.inodes_free > WRITE_INODES;
        if !has_room || self.place.device().is_none() {
            return Ok(());
        }
        kernel::write(&self.place)?;
        for programs in &self.programs {
            let checked = programs.check(self.place.path(), None, future);
            checked.map_err(|error| format!("after the kernel wrote: {error}"))?;
        }
        let tree = ext4::read(Arc::new(self.place.opened()))
            .map_err(|error| format!("our reader, after the kernel wrote: {error}"))?;
        let id = tree
            .lookup(kernel::WRITTEN)
            .map_err(|error| format!("our reader: {error}"))?;
        let text = tree.read_file(id, 1 << 20).unwrap();
        if text != kernel::written() {
            return Err("our reader: other bytes than the kernel wrote".into());
        }
        self.counts.written += 1;
        Ok(())
    }

    /// Writes the same tree again, by eight threads; all bytes have to be the same.
    fn repeat(&mut self, tree: &Tree, options: &Options, summary: &Summary) -> Result<(), String> {
        let first = image::sum(&self.place.opened());
        let threaded = with_threads(options);
        let again = ext4::write(tree, &threaded, &self.place.emptied());
        let again = again.map_err(|error| format!("written again: {error}"))?;
        self.counts.repeated += 1;
        match again == *summary && image::sum(&self.place.opened()) == first {
            true => Ok(()),
            false => Err("written again it has other bytes".into()),
        }
    }

    /// Writes the tree as our archive says it; all bytes have to be the same.
    fn archive(&mut self, tree: &Tree, options: &Options, summary: &Summary) -> Result<(), String> {
        let archive = archive_of(tree)?;
        let mut copy = Tree::new(Metadata::default());
        let blob = copy.add_blob(Arc::new(archive)).unwrap();
        tar::read_blob(&mut copy, blob, &tar::Options::default())
            .map_err(|error| format!("our archive: {error}"))?;
        compare("our archive", &of_tree(tree), &of_tree(&copy))?;
        let first = image::sum(&self.place.opened());
        let again = ext4::write(&copy, options, &self.place.emptied());
        let again = again.map_err(|error| format!("from our archive: {error}"))?;
        self.counts.archived += 1;
        match again == *summary && image::sum(&self.place.opened()) == first {
            true => Ok(()),
            false => Err("from our archive it has other bytes".into()),
        }
    }
}

fn with_threads(options: &Options) -> Options {
    Options {
        threads: THREADS,
        ..options.clone()
    }
}

fn archive_of(tree: &Tree) -> Result<Vec<u8>, String> {
    let mut archive = Vec::new();
    tar::write(tree, &mut archive).map_err(|error| format!("our archive: {error}"))?;
    Ok(archive)
}

/// Everything that a seed decides.
struct Generated {
    tree: Tree,
    options: Options,
    is_archivable: bool,
    what: String,
}

fn generate(seed: u64, place: &Place) -> Result<Generated, String> {
    let mut random = Random::new(seed);
    let mut options = generate::options(&mut random);
    let limits = generate::Limits {
        block_bytes: u64::from(options.block_size.bytes()),
        archivable: random.chance(60),
        odd_times: random.chance(50),
        large_values: random.chance(12),
        future_times: random.chance(6),
    };
    let (tree, theme) = generate::tree(&mut random, limits);
    options.size = Size::with_free_percent(0);
    let smallest = ext4::write(&tree, &options, &place.emptied())
        .map_err(|error| format!("{theme:?}: the writer refuses: {error}"))?;
    options.size = generate::size(&mut random, smallest.size_bytes);
    // Larger file systems have more bookkeeping, so what is a little more may be too little.
    while let Size::Bytes(bytes) = options.size {
        let output = place.emptied();
        match ext4::write(&tree, &options, &output) {
            Err(ext4::WriteError::TooSmall { .. }) => {
                if output.metadata().unwrap().len() > 0 {
                    return Err("written before it was refused".into());
                }
                options.size = Size::Bytes(bytes + bytes / 8);
            }
            Err(error) => return Err(format!("{theme:?}: the writer refuses: {error}")),
            Ok(_) => break,
        }
    }
    let what = format!("{theme:?}, {} inodes, {options:?}", tree.inodes().len());
    Ok(Generated {
        tree,
        options,
        is_archivable: limits.archivable,
        what,
    })
}

/// What was found wrong with the image of a seed.
fn check_seed(seed: u64, examiner: &mut Examiner) -> Result<(), String> {
    let generated = generate(seed, &examiner.place)?;
    let more = More {
        write: seed.is_multiple_of(2),
        dump: seed % 8 == 3,
        repeat: seed % 4 == 1,
        archive: generated.is_archivable && seed % 4 >= 2,
    };
    let in_context = |error: String| format!("{error}\n({})", generated.what);
    let mut random = Random::new(!seed);
    let Generated { tree, options, .. } = &generated;
    examiner.examine(tree, options, more).map_err(in_context)?;
    // A stream takes what an archive says.
    if generated.is_archivable {
        stream::check(examiner, tree, options, &mut random).map_err(in_context)?;
    }
    Ok(())
}

#[test]
fn readers_agree_on_generated_images() {
    let count = number("COOP_TEST_IMAGES", IMAGES);
    let first = number("COOP_TEST_IMAGES_SEED", 1);
    run(count, first, |seed, examiner| {
        check_seed(seed, examiner).map_err(|error| format!("seed {seed}: {error}"))
    });
}

/// Runs numbered checks on all processors, each with an examiner of its own, and fails with all
/// that went wrong. Nothing is kept of what failed.
fn run(count: u64, first: u64, check: impl Fn(u64, &mut Examiner) -> Result<(), String> + Sync) {
    let programs = Programs::all();
    let next = AtomicU64::new(first);
    let failures = Mutex::new(Vec::new());
    let total = Mutex::new(Counts::default());
    let start = Instant::now();
    let work = || {
        let mut examiner = Examiner::new(&programs);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= first + count || failures.lock().unwrap().len() >= FAILURES_MAX {
                break;
            }
            let checked = AssertUnwindSafe(|| check(number, &mut examiner));
            let result = std::panic::catch_unwind(checked)
                .unwrap_or_else(|_| Err(format!("number {number}: a panic, see above")));
            if let Err(error) = result {
                failures.lock().unwrap().push(error);
                // What was mounted or open goes with the place.
                let counts = std::mem::take(&mut examiner.counts);
                examiner = Examiner::new(&programs);
                examiner.counts = counts;
            }
        }
        total.lock().unwrap().add(&examiner.counts);
    };
    let workers = std::thread::available_parallelism().map_or(1, |workers| workers.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let versions: Vec<&str> = programs.iter().map(|one| one.version.as_str()).collect();
    eprintln!(
        "{count} from {first}: {:.1} s with e2fsck {}: {:?}",
        start.elapsed().as_secs_f64(),
        versions.join(" and "),
        total.into_inner().unwrap()
    );
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
