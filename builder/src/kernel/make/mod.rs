//! A kernel from its source.
//!
//! ```text
//! source, wanted ─key→ store ─hit→ KernelFiles
//!                        └miss→ unpack ─configure→ .config ─prove→ compile ─gather→ store
//! ```
//!
//! | module | what |
//! |---|---|
//! | `tools`, `programs` | what the host must have, and running it behind walls |
//! | `compiler`, `key` | what a kernel is found by in the store |
//! | `runner`, `log` | make, its environment, and what it says |
//! | `configure` | from what is wanted to a .config, and the proof that it is that |
//! | `compile`, `inside` | from a .config to files, of which nothing is trusted |
//! | `guest` | the same in a guest that has the compiler |
//! | `stored` | kernels in the store |
//!
//! # What the walls hold, and what not
//! A kernel tree's makefiles are programs of whoever wrote the tree. On the host they run without
//! a network or any socket, without new privileges, in a process group that is killed whole, read
//! the host's programs and the source and nothing of the user's, and write in the build's own
//! folder. What they leave behind is read without following a link.
//!
//! They can still use processor, memory and that folder's disk until somebody stops them, see
//! which files and processes the host has, and change modes and times (not content, owners or
//! attributes) of files of the user who builds, for which Landlock has no rule. Where the host's
//! kernel has no Landlock, the walls for files are missing: then Debian's own sources, which are
//! signed, are built with a warning, and others are refused. `in: guest` has none of these limits.

mod compile;
mod compiler;
mod configure;
mod error;
mod guest;
mod inside;
mod key;
mod log;
mod menu;
mod programs;
mod runner;
mod stored;
#[cfg(test)]
mod tests;
mod tools;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coop_image::tree::Timestamp;
use coop_runtime::event::{Event, Observer, task};
use coop_runtime::{Host, LandlockState, landlock_state};
use serde::{Deserialize, Serialize};

pub use error::MakeError;
pub use menu::{MenuChanges, menu};
pub use programs::Programs;
pub use stored::{StoredKernel, is_stored, stored};
pub use tools::{MissingTool, missing};

use super::FetchedKernel;
use super::config::{Conflict, DotConfig, Merged, Version, Wanted, merge};
use super::source::{self, Extent, ResolvedSource};
use crate::digest::Digest;
use crate::fetch::Fetcher;
use crate::kernel;
use crate::recipe::{BuildPlace, KernelLocation, KernelPackage, KernelSource};
use crate::source::Archive;
use crate::store::{Store, TempFolder};
use compiler::Compiler;
use guest::{GuestBuild, Toolchain};
use key::BaseKey;
use log::Log;
use runner::{Folders, Runner, WAIT_INTERVAL};
use stored::{About, AboutDropped};

/// What must be free where the store is, in bytes: source and build of a small kernel.
const FREE_BYTES_MIN: u64 = 3 << 30;
/// The store's kind of notes with the key of the latest kernel from a source and configuration.
const LATEST_NOTE: &str = "kernel-latest-1";
/// The store's kind of notes with configurations.
const CONFIG_NOTE: &str = "kernel-config-1";
/// The store's kind of notes with the number of objects of a configuration.
const OBJECTS_NOTE: &str = "kernel-objects-1";

/// What to make, and with what means.
pub struct MakeRequest<'a> {
    /// Source, patches, target and place.
    pub source: &'a KernelSource,
    /// What its configuration is to be, conditions and all, in the order of the recipe.
    pub wanted: &'a [Wanted],
    /// Whether it starts from the architecture's defconfig instead of from nothing.
    pub defconfig: bool,
    /// Whether a wanted symbol that does not hold is a warning instead of an error.
    pub allow_dropped: bool,
    /// Whether a kernel that is not in the store is an error instead of being made.
    pub only_stored: bool,
    /// Downloads and the store.
    pub fetcher: &'a Fetcher,
    /// Where Debian packages come from.
    pub archive: &'a Archive<'a>,
    /// Where the host's programs are looked for, first folder first. Folders that do not belong
    /// to the host's system are passed over.
    pub programs: &'a [PathBuf],
    /// What the host offers to the guests that build.
    pub host: &'a Host,
    /// Who watches.
    pub observer: &'a Arc<dyn Observer>,
}

/// A wanted symbol that the kernel's configuration did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// What was wanted, and where.
    pub wanted: Wanted,
    /// What it is instead; `n` where the configuration does not name it.
    pub found: String,
    /// Why, as the tree's Kconfig has it.
    pub reason: String,
}

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            wanted,
            found,
            reason,
        } = self;
        write!(
            f,
            "{} is {found}, not {} ({}): {reason}",
            wanted.symbol, wanted.value, wanted.place
        )
    }
}

/// A configuration, and how it differs from what was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Which kernel it is for: `7.2.13`.
    pub version: String,
    /// The whole .config.
    pub config: String,
    /// What of it does not follow from the rest (`savedefconfig`).
    pub minimal: String,
    /// What was wanted and does not hold.
    pub dropped: Vec<Dropped>,
    /// What overruled what.
    pub conflicts: Vec<Conflict>,
}

impl Configured {
    fn is_set(&self, symbol: &str) -> bool {
        DotConfig::parse(&self.config).get(symbol) == "y"
    }

    /// Whether what is wanted of a symbol holds.
    fn holds(&self, symbol: &str) -> bool {
        self.dropped.iter().all(|one| one.wanted.symbol != symbol)
    }
}

/// Gives the kernel from the store, or makes it.
///
/// # Errors
/// See [`MakeError`].
pub fn build(request: &MakeRequest<'_>) -> Result<FetchedKernel, MakeError> {
    let job = match Job::find(request)? {
        Found::Job(job) => job,
        Found::Kernel(kernel) => return Ok(*kernel),
    };
    if let Some(kernel) = job.kept()? {
        return Ok(kernel);
    }
    if request.only_stored {
        return Err(MakeError::NotStored);
    }
    let log = job.lock()?;
    // Whoever had the lock may have made it.
    if let Some(kernel) = job.kept()? {
        return Ok(kernel);
    }
    job.make(log)?;
    let gone = || MakeError::Result {
        problem: "it is gone from the cache again".to_owned(),
    };
    job.kept()?.ok_or_else(gone)
}

/// Asks for the source and for what compiles it: the host's compiler, or the packages of a guest
/// and of its kernel.
///
/// # Errors
/// Those of [`MakeError`] that are about names, and [`MakeError::Missing`] where the host has no
/// compiler that could be pinned.
pub fn pin(request: &MakeRequest<'_>) -> Result<(), MakeError> {
    let MakeRequest {
        fetcher, archive, ..
    } = *request;
    let observer = &**request.observer;
    let source = source::resolve(request.source, fetcher, archive, observer)?;
    match request.source.place {
        BuildPlace::Guest => {
            Toolchain::resolve(request)?;
            let kernel = KernelPackage::user_mode_linux();
            kernel::fetch::pin(&kernel, fetcher, archive, observer)?;
        }
        // With a lock, the compiler is for who makes the kernel.
        BuildPlace::Host if archive.pins.used().is_some() => {}
        BuildPlace::Host => {
            let question = compiler::question(request.source.target);
            archive.pins.names(&question, || {
                let base = BaseKey::new(
                    &source.identity(),
                    request.wanted,
                    request.source.target,
                    request.defconfig,
                );
                match HostCompiler::find(request, base)? {
                    HostCompiler::There { compiler, .. } => Ok::<_, MakeError>(compiler.lines),
                    HostCompiler::Gone(kernel) => Ok(compiler_of(&source, &kernel).lines),
                }
            })?;
        }
    }
    Ok(())
}

/// Whether the store has what [`build`] would make.
///
/// # Errors
/// As [`build`], but for what happens while it makes the kernel.
pub fn is_made(request: &MakeRequest<'_>) -> Result<bool, MakeError> {
    match Job::find(request)? {
        Found::Job(job) => Ok(job.kept()?.is_some()),
        Found::Kernel(_) => Ok(true),
    }
}

/// Configures the kernel without compiling it: what [`build`] would use, from the store where the
/// store has it.
///
/// # Errors
/// As [`build`], but for what is dropped: that is in the result.
pub fn configure(request: &MakeRequest<'_>) -> Result<Configured, MakeError> {
    match Job::find(request)? {
        Found::Job(job) => job.configured(),
        Found::Kernel(kernel) => Ok(configured_as(*kernel, request)),
    }
}

/// As [`configure`], but only where it was done before: nothing is unpacked.
///
/// # Errors
/// As [`configure`].
pub fn configured_before(request: &MakeRequest<'_>) -> Result<Option<Configured>, MakeError> {
    match Job::find(request)? {
        Found::Job(job) => job.known_configured(),
        Found::Kernel(kernel) => Ok(Some(configured_as(*kernel, request))),
    }
}

/// Without a compiler, what the latest kernel has.
fn configured_as(kernel: FetchedKernel, request: &MakeRequest<'_>) -> Configured {
    let files = kernel.files;
    let merged = merged(request, &files.release);
    Configured {
        version: files.release,
        config: files.config,
        minimal: files.minimal_config.unwrap_or_default(),
        dropped: Vec::new(),
        conflicts: merged.conflicts,
    }
}

/// What a request leads to before anything is made.
enum Found<'a> {
    Job(Box<Job<'a>>),
    /// The host cannot make one, and the store has one.
    Kernel(Box<FetchedKernel>),
}

/// Where the work is done, with what.
enum Place {
    Host {
        programs: Programs,
        compiler: Compiler,
    },
    Guest(Box<Toolchain>),
}

impl Place {
    fn compiler(&self) -> &Compiler {
        match self {
            Self::Host { compiler, .. } => compiler,
            Self::Guest(toolchain) => &toolchain.compiler,
        }
    }
}

/// What a host can make kernels with.
enum HostCompiler {
    There {
        programs: Programs,
        compiler: Compiler,
    },
    /// Nothing; but the store has a kernel.
    Gone(Box<FetchedKernel>),
}

impl HostCompiler {
    fn find(request: &MakeRequest<'_>, base: BaseKey) -> Result<Self, MakeError> {
        let target = request.source.target;
        let programs = Programs::of_system(request.programs);
        let missing = tools::missing(target, &programs)?;
        if missing.is_empty() {
            let compiler = Compiler::of_host(target, &programs)?;
            return Ok(Self::There { programs, compiler });
        }
        match latest(request, base)? {
            Some(kernel) => Ok(Self::Gone(Box::new(kernel))),
            None => Err(MakeError::Missing(missing)),
        }
    }
}

/// The host's compiler; with a lock, only the one that the lock names, or a kernel of the store
/// that it has made.
fn host_place(
    request: &MakeRequest<'_>,
    base: BaseKey,
    source: &ResolvedSource,
) -> Result<HostCompiler, MakeError> {
    let pins = request.archive.pins;
    let question = compiler::question(request.source.target);
    if pins.used().is_none() {
        let found = HostCompiler::find(request, base)?;
        let lines = match &found {
            HostCompiler::There { compiler, .. } => compiler.lines.clone(),
            HostCompiler::Gone(kernel) => compiler_of(source, kernel).lines,
        };
        pins.saw_names(&question, &lines);
        return Ok(found);
    }
    let lines = pins.names(&question, || Ok::<_, MakeError>(Vec::new()))?;
    let pinned = Compiler { lines };
    let found = HostCompiler::find(request, base);
    if let Ok(HostCompiler::There { compiler, .. }) = &found
        && *compiler == pinned
    {
        return found;
    }
    if let Some(kernel) = from_store(request, base.with(&pinned))? {
        return Ok(HostCompiler::Gone(Box::new(kernel)));
    }
    match found? {
        HostCompiler::There { compiler, .. } => Err(MakeError::OtherCompiler {
            pinned: pinned.name(),
            found: compiler.name(),
            parts: pinned.differing(&compiler),
        }),
        HostCompiler::Gone(_) => Err(MakeError::NoCompiler(pinned.name())),
    }
}

/// The compiler that made a kernel of the store: its lines follow the source's.
fn compiler_of(source: &ResolvedSource, kernel: &FetchedKernel) -> Compiler {
    let lines = kernel.resolved.iter().skip(source.pins().len());
    Compiler {
        lines: lines.cloned().collect(),
    }
}

/// A request with everything that its key is made of.
struct Job<'a> {
    request: &'a MakeRequest<'a>,
    source: ResolvedSource,
    place: Place,
    base: BaseKey,
    key: Digest,
}

impl<'a> Job<'a> {
    fn find(request: &'a MakeRequest<'a>) -> Result<Found<'a>, MakeError> {
        let MakeRequest {
            source: wanted_source,
            fetcher,
            archive,
            observer,
            ..
        } = *request;
        let target = wanted_source.target;
        let source = source::resolve(wanted_source, fetcher, archive, &**observer)?;
        let base = BaseKey::new(
            &source.identity(),
            request.wanted,
            target,
            request.defconfig,
        );
        let place = match wanted_source.place {
            BuildPlace::Guest => Place::Guest(Box::new(Toolchain::resolve(request)?)),
            BuildPlace::Host => match host_place(request, base, &source)? {
                HostCompiler::There { programs, compiler } => Place::Host { programs, compiler },
                HostCompiler::Gone(kernel) => return Ok(Found::Kernel(kernel)),
            },
        };
        Ok(Found::Job(Box::new(Self {
            key: base.with(place.compiler()),
            request,
            source,
            place,
            base,
        })))
    }

    fn store(&self) -> &Store {
        self.request.fetcher.store()
    }

    fn kept(&self) -> Result<Option<FetchedKernel>, MakeError> {
        from_store(self.request, self.key)
    }

    /// Waits until nobody else makes this kernel.
    fn lock(&self) -> Result<Log, MakeError> {
        let observer = self.request.observer;
        let mut told = false;
        Log::open(&Log::path_of(self.store(), &self.key), || {
            if !told {
                told = true;
                observer.event(&Event::Note {
                    message: "another coop makes the same kernel; waiting for it",
                });
            }
            if observer.is_cancelled() {
                return Err(MakeError::Cancelled);
            }
            std::thread::sleep(WAIT_INTERVAL);
            Ok(())
        })
    }

    /// The configuration as the store has it.
    fn known_configured(&self) -> Result<Option<Configured>, MakeError> {
        let name = self.key.to_string();
        let note = self.store().note(CONFIG_NOTE, &name)?;
        let known = note.and_then(|bytes| serde_json::from_slice::<ConfigNote>(&bytes).ok());
        Ok(known.map(|known| known.configured(self.request)))
    }

    /// The configuration alone.
    fn configured(&self) -> Result<Configured, MakeError> {
        if let Some(known) = self.known_configured()? {
            return Ok(known);
        }
        let log = self.lock()?;
        let temporary = self.room()?;
        let (configured, _) = self.prepared(temporary.path(), log, Extent::Configuration)?;
        Ok(configured)
    }

    /// Makes the kernel and puts it into the store.
    fn make(&self, log: Log) -> Result<(), MakeError> {
        let temporary = self.room()?;
        let (configured, prepared) = self.prepared(temporary.path(), log, Extent::Build)?;
        if let Place::Host { programs, .. } = &self.place {
            let config = DotConfig::parse(&configured.config);
            let missing = tools::missing_for(&config, programs)?;
            if !missing.is_empty() {
                return Err(MakeError::Missing(missing));
            }
        }
        judge(self.request, &configured.version, &configured.dropped)?;
        configure::check_target(self.request.source.target, &configured.config)?;
        let store = self.store();
        let objects_key = Digest::of(configured.config.as_bytes()).to_string();
        let known = store.note(OBJECTS_NOTE, &objects_key)?;
        let objects = known.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
        let compiled = match prepared.work {
            Work::Host(mut runner) => {
                compile::compile(&mut runner, &configured, processors(), objects)?
            }
            Work::Guest(build) => build.compile(&configured, objects)?,
        };
        let mut resolved = self.source.pins();
        resolved.extend(self.place.compiler().lines.iter().cloned());
        let about = About {
            target: self.request.source.target.name().to_owned(),
            release: compiled.files.release.clone(),
            resolved,
            dropped: configured.dropped.iter().map(about).collect(),
        };
        let time = Timestamp::from_seconds(prepared.epoch_seconds);
        stored::publish(store, self.key, &compiled.files, &about, time)?;
        let key = self.key.to_string();
        store.put_note(LATEST_NOTE, &self.base.to_string(), key.as_bytes())?;
        let objects = compiled.objects.to_string();
        store.put_note(OBJECTS_NOTE, &objects_key, objects.as_bytes())?;
        Ok(())
    }

    /// A temporary folder, where there is room for a build.
    fn room(&self) -> Result<TempFolder, MakeError> {
        let path = self.store().root();
        let space = rustix::fs::statvfs(path).map_err(io::Error::from)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < FREE_BYTES_MIN {
            return Err(MakeError::Space {
                path: path.to_owned(),
                free,
                needed: FREE_BYTES_MIN,
            });
        }
        let folder = self.store().temp_folder()?;
        // Makefiles cannot name such files.
        let text = folder.path().to_str();
        match text.filter(|text| !text.contains([' ', '\t', '\n', ':', '$', '#', '%'])) {
            Some(_) => Ok(folder),
            None => Err(MakeError::Path(path.to_owned())),
        }
    }

    /// Unpacks as much as is needed, and configures.
    fn prepared<'j>(
        &'j self,
        temporary: &Path,
        mut log: Log,
        extent: Extent,
    ) -> Result<(Configured, Prepared<'j>), MakeError> {
        log.start()?;
        let request = self.request;
        let observer = &**request.observer;
        if matches!(self.place, Place::Host { .. }) {
            self.check_walls()?;
        }
        let into = temporary.join("source");
        fs_err::create_dir(&into)?;
        let tree = self
            .source
            .prepare(request.fetcher, observer, &into, extent)?;
        let version = Version {
            major: tree.version.major,
            minor: tree.version.minor,
        };
        let target = request.source.target;
        let merged = merge(request.wanted, target, version);
        let (version, epoch_seconds) = (tree.version.to_string(), tree.epoch_seconds);
        let mut work = match &self.place {
            Place::Host { programs, .. } => Work::Host(Box::new(Runner {
                programs,
                folders: Folders::new(&tree.root, temporary)?,
                target,
                epoch_seconds,
                observer,
                log,
            })),
            Place::Guest(toolchain) => {
                let build = || GuestBuild::new(request, toolchain, self.key, tree, temporary, log);
                Work::Guest(Box::new(task(
                    observer,
                    "prepare the compiler's guest",
                    build,
                )?))
            }
        };
        let mut configured = task(observer, "configure the kernel", || match &mut work {
            Work::Host(runner) => configure::configure(runner, &merged, request.defconfig),
            Work::Guest(build) => build.configure(&merged),
        })?;
        configured.version = version;
        let note = ConfigNote::new(&configured);
        let text = serde_json::to_vec(&note).map_err(io::Error::from)?;
        let name = self.key.to_string();
        self.store().put_note(CONFIG_NOTE, &name, &text)?;
        let prepared = Prepared {
            work,
            epoch_seconds,
        };
        Ok((configured, prepared))
    }

    fn check_walls(&self) -> Result<(), MakeError> {
        if landlock_state() != LandlockState::Absent {
            return Ok(());
        }
        let source = self.request.source;
        let is_debian = matches!(source.location, KernelLocation::Debian { .. });
        if !is_debian || !source.patches.is_empty() {
            return Err(MakeError::Unconfined(self.source.name().to_owned()));
        }
        self.request.observer.event(&Event::Warning {
            message: "the host's kernel has no landlock: the kernel's makefiles, which Debian has \
                      signed, could read and change every file of this user",
        });
        Ok(())
    }
}

/// A configured source, ready to be compiled.
struct Prepared<'j> {
    work: Work<'j>,
    epoch_seconds: i64,
}

enum Work<'j> {
    Host(Box<Runner<'j>>),
    Guest(Box<GuestBuild<'j>>),
}

/// What is dropped is an error, unless it is allowed: then it is a warning.
fn judge(request: &MakeRequest<'_>, version: &str, dropped: &[Dropped]) -> Result<(), MakeError> {
    if !dropped.is_empty() && !request.allow_dropped {
        return Err(MakeError::Dropped {
            version: version.to_owned(),
            dropped: dropped.to_vec(),
        });
    }
    for one in dropped {
        let message = one.to_string();
        request
            .observer
            .event(&Event::Warning { message: &message });
    }
    Ok(())
}

fn merged(request: &MakeRequest<'_>, release: &str) -> Merged {
    // A release that says no version holds what is for all versions.
    let version = Version::of_release(release).unwrap_or(Version { major: 0, minor: 0 });
    merge(request.wanted, request.source.target, version)
}

/// A kernel of the store, judged as if it had just been made.
fn from_store(request: &MakeRequest<'_>, key: Digest) -> Result<Option<FetchedKernel>, MakeError> {
    let Some((files, about)) = stored::open(request.fetcher.store(), key)? else {
        return Ok(None);
    };
    let merged = merged(request, &files.release);
    for conflict in &merged.conflicts {
        let message = conflict.to_string();
        request
            .observer
            .event(&Event::Warning { message: &message });
    }
    judge(
        request,
        &files.release,
        &placed(&about.dropped, &merged.wanted),
    )?;
    Ok(Some(FetchedKernel {
        files,
        resolved: about.resolved,
    }))
}

/// The latest kernel of a source and configuration, whatever compiler made it.
fn latest(request: &MakeRequest<'_>, base: BaseKey) -> Result<Option<FetchedKernel>, MakeError> {
    let note = request
        .fetcher
        .store()
        .note(LATEST_NOTE, &base.to_string())?;
    let key = note.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    match key {
        Some(key) => from_store(request, key),
        None => Ok(None),
    }
}

/// What is dropped, with the places of this recipe: another one may have had it made.
fn placed(dropped: &[AboutDropped], wanted: &[Wanted]) -> Vec<Dropped> {
    let find = |one: &AboutDropped| {
        let wanted = wanted.iter().find(|wanted| wanted.symbol == one.symbol)?;
        Some(Dropped {
            wanted: wanted.clone(),
            found: one.found.clone(),
            reason: one.reason.clone(),
        })
    };
    dropped.iter().filter_map(find).collect()
}

fn about(dropped: &Dropped) -> AboutDropped {
    AboutDropped {
        symbol: dropped.wanted.symbol.clone(),
        found: dropped.found.clone(),
        reason: dropped.reason.clone(),
    }
}

/// A configuration in the store.
#[derive(Serialize, Deserialize)]
struct ConfigNote {
    version: String,
    config: String,
    minimal: String,
    dropped: Vec<AboutDropped>,
}

impl ConfigNote {
    fn new(configured: &Configured) -> Self {
        Self {
            version: configured.version.clone(),
            config: configured.config.clone(),
            minimal: configured.minimal.clone(),
            dropped: configured.dropped.iter().map(about).collect(),
        }
    }

    fn configured(self, request: &MakeRequest<'_>) -> Configured {
        let merged = merged(request, &self.version);
        Configured {
            version: self.version,
            dropped: placed(&self.dropped, &merged.wanted),
            config: self.config,
            minimal: self.minimal,
            conflicts: merged.conflicts,
        }
    }
}

/// Processors that this program may use.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
