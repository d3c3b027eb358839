//! The whole way from a recipe to a published appliance.

mod explain;
mod kernel;
mod lock;
mod root;
mod source;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coop_appliance::{Appliance, MANIFEST_NAME, Manifest};
use coop_image::tree::{Timestamp, TreeError};
use coop_runtime::Host;
use coop_runtime::event::{self, Event, Observer};

use crate::assemble::{self, AssembleError, Parts};
use crate::digest::Digest;
use crate::evidence::{self, Evidence, EvidenceError};
use crate::fetch::{FetchError, Fetcher};
use crate::guest::{GuestContext, GuestError, MountError, Packages, Step, StepMeans};
use crate::inputs::{self, Record, seed};
use crate::kernel::{KernelChoice, KernelError, ObtainError, bootable};
use crate::lock::Lock;
use crate::plan::{self, Given, Plan, PlanError, Trees};
use crate::publish::Staging;
use crate::recipe::{KernelOrigin, Recipe};
use crate::rootfs::RootfsError;
use crate::source::{Archive, DebianSourceError, DiskSourceError, TarballError};
use crate::store::StoreError;

pub use self::explain::explain;
pub(crate) use self::kernel::kernel_spec;
pub use self::kernel::{LoneKernel, kernel, lone_kernel};
use self::kernel::{advise, boot_modules, guest_kernel, identity, installs_modules, obtain};
pub use self::lock::{Missing, fetch, lock};
use self::root::{Workshop, needs_guest, programs};
use self::source::Source;

/// What to build, and with what means.
pub struct BuildRequest<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// What tells the recipe from others, as its file: its last build is what [`explain`] compares
    /// with.
    pub origin: &'a Path,
    /// Whether every step is done again, whatever the store has of it.
    pub anew: bool,
    /// The folder to make or to replace.
    pub output: &'a Path,
    /// Downloads and the cache.
    pub fetcher: &'a Fetcher,
    /// Where Debian packages come from when the recipe does not say.
    pub archive: Archive<'a>,
    /// Which kernel the recipe gets where it names none.
    pub kernel: KernelChoice,
    /// What the host offers to the guests that build.
    pub host: Host,
    /// Where the host's programs are looked for, first folder first.
    pub programs: &'a [PathBuf],
    /// Whether what the kernel's configuration does not hold is a warning instead of an error.
    pub allow_dropped: bool,
    /// What the recipe's steps have beside their guests.
    pub means: StepMeans,
    /// Who watches.
    pub observer: Arc<dyn Observer>,
}

/// What a build gave.
#[derive(Clone, Debug)]
pub struct Built {
    /// The appliance.
    pub appliance: Appliance,
    /// False where the output was up to date already.
    pub fresh: bool,
}

/// Why a build failed. The output folder is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The host's file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The packages.
    #[error(transparent)]
    Debian(#[from] DebianSourceError),
    /// The archive.
    #[error(transparent)]
    Tarball(#[from] TarballError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskSourceError),
    /// The kernel cannot be had.
    #[error(transparent)]
    Obtain(#[from] ObtainError),
    /// The kernel cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The cache has no place.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The recipe's changes to the root file system.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The steps' results.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What runs in a guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// What a step is to see of the host cannot be read.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Images and manifest.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// What the appliance tells about itself.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// A download.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The network must not be used, and the cache lacks something.
    #[error("{}", lock::sentence(.0))]
    Offline(Vec<Missing>),
    /// Services are asked for, but nothing manages them.
    #[error("rootfs.services needs systemd, which is not in the root file system")]
    NoSystemd,
}

/// Builds a recipe, unless the output is up to date.
///
/// # Errors
/// See [`BuildError`]; the output folder is then as it was before.
pub fn build(request: &BuildRequest<'_>) -> Result<Built, BuildError> {
    let lock = request.archive.pins.used();
    let files = request.archive.pins.files();
    let inputs = inputs::digest(request.recipe, request.kernel, files)?;
    if let Some(appliance) = up_to_date(request.output, &inputs, lock) {
        return Ok(Built {
            appliance,
            fresh: false,
        });
    }
    let secrets = request.means.secrets.check(request.recipe);
    secrets.map_err(GuestError::from)?;
    let staging = Staging::new(request.output, MANIFEST_NAME)?;
    let made = make(request, inputs, staging.path());
    let manifest = lock::or_missing(request, made)?;
    files.check()?;
    staging.publish()?;
    Ok(Built {
        appliance: Appliance {
            folder: request.output.to_owned(),
            manifest,
        },
        fresh: true,
    })
}

/// The appliance at a path, if it was made from these inputs and from what the lock pins, where
/// there is one.
#[must_use]
pub fn up_to_date(output: &Path, inputs: &Digest, lock: Option<&Lock>) -> Option<Appliance> {
    let appliance = Appliance::open(output).ok()?;
    if appliance.manifest.inputs != inputs.to_string() {
        return None;
    }
    if let Some(lock) = lock {
        let made_of = evidence::lock_of(&appliance).ok()??;
        return lock.holds(&made_of).then_some(appliance);
    }
    Some(appliance)
}

fn make(request: &BuildRequest<'_>, inputs: Digest, folder: &Path) -> Result<Manifest, BuildError> {
    let recipe = request.recipe;
    let files = request.archive.pins.files();
    let observer = &*request.observer;
    if let KernelOrigin::Source(source) = &recipe.kernel.origin {
        bootable::check_source(source)?;
    }
    let obtained = obtain(request, &recipe.kernel)?;
    let with_modules = installs_modules(recipe, &obtained);
    let kernel = obtained.kernel;
    bootable::check(&kernel.files)?;
    bootable::check_cpus(&kernel.files, recipe.devices.cpus)?;
    bootable::check_root(&kernel.files, &recipe.devices.root)?;
    let source = Source::resolve(request)?;
    let boot_modules = boot_modules(&kernel.files, &recipe.devices.root)?;
    let member = assemble::write_kernel(
        &kernel.files,
        &boot_modules,
        &kernel.resolved,
        &recipe.kernel.cmdline,
        folder,
    )?;
    let mut pins = kernel.resolved.clone();
    let guest = guest_kernel(request, kernel.files.target, needs_guest(recipe, &source))?;
    let own = identity(&kernel);
    let (spec, guest_identity) = match &guest {
        Some(guest) => {
            pins.extend_from_slice(&guest.member.sources);
            let spec = kernel_spec(&guest.member, guest.folder.path());
            (spec, &guest.identity)
        }
        None => (kernel_spec(&member, folder), &own),
    };
    let (plan, programs) = plan(request, &source, &own, guest_identity, with_modules)?;
    // Which kernel it came to is among the pins, whoever chose it.
    let recipe_digest = match request.kernel {
        KernelChoice::Auto => inputs,
        _ => inputs::digest(recipe, KernelChoice::Auto, files)?,
    };
    let resolved = resolved_digest(&recipe_digest, &pins, &source.resolved());
    let store = request.fetcher.store();
    let archives = source.archives().to_vec();
    let trees = match request.anew {
        true => Trees::anew(store),
        false => Trees::new(store),
    };
    let workshop = Workshop {
        request,
        plan: &plan,
        programs: &programs,
        trees: &trees,
        modules_of: with_modules.then_some(&kernel.files),
        context: GuestContext {
            kernel: spec,
            host: request.host.clone(),
            store,
            observer: Arc::clone(&request.observer),
            seed: seed(&resolved, "scratch"),
            epoch: Timestamp::default(),
            means: request.means.clone(),
            packages: Some(Packages {
                fetcher: request.fetcher,
                suites: &archives,
                is_locked: request.archive.pins.used().is_some(),
            }),
        },
    };
    let (root, epoch) = workshop.root(source)?;
    advise(&root, &kernel.files, observer);
    let seen = request.archive.pins.seen();
    let parts = Parts {
        recipe,
        files,
        root: &root,
        kernel: member,
        boot_modules: &boot_modules,
        inputs,
        resolved,
        epoch,
    };
    let assemble = || Ok(assemble::assemble(&parts, folder)?);
    // Both read every byte.
    let (manifest, software) = rayon::join(
        || task(observer, "write images", assemble),
        || evidence::survey(&root, &seen),
    );
    let (mut manifest, software) = (manifest?, software?);
    manifest.evidence = evidence::write(
        &Evidence {
            recipe,
            kernel: request.kernel,
            archive: &request.archive,
            allow_dropped: request.allow_dropped,
            manifest: &manifest,
            software: &software,
            resolved,
            epoch,
        },
        folder,
    )?;
    assemble::write_manifest(&manifest, folder)?;
    keep_for_later(request, &plan, trees);
    Ok(manifest)
}

/// What later builds and `coop explain` want to know. Without it they do more and say less.
fn keep_for_later(request: &BuildRequest<'_>, plan: &Plan, trees: Trees<'_>) {
    if request.anew {
        return;
    }
    let store = request.fetcher.store();
    let remembered = plan::remember(store, &request.origin.to_string_lossy(), plan);
    if let Err(error) = trees.settle().and(remembered) {
        let message = format!("the next build will do all of this again: {error}");
        let message = &message;
        request.observer.event(&Event::Warning { message });
    }
}

/// The plan, and the programs that its steps run.
fn plan(
    request: &BuildRequest<'_>,
    source: &Source<'_>,
    kernel: &str,
    guest_kernel: &str,
    with_modules: bool,
) -> Result<(Plan, Vec<Step>), BuildError> {
    let recipe = request.recipe;
    let pins = request.archive.pins;
    let programs = programs(recipe, pins.used().is_some(), pins.files())?;
    let plan = plan::make(&Given {
        recipe,
        files: pins.files(),
        source: &source.fields(),
        configures: source.configures(),
        suites: source.suites(),
        kernel,
        guest_kernel,
        modules: with_modules.then_some(kernel),
        programs: &programs,
    })?;
    Ok((plan, programs))
}

fn resolved_digest(inputs: &Digest, kernel: &[String], source: &[String]) -> Digest {
    let mut record = Record::new("coop resolved");
    record.put("inputs", inputs.as_bytes());
    for line in kernel {
        record.put("kernel", line.as_bytes());
    }
    for line in source {
        record.put("source", line.as_bytes());
    }
    record.finish()
}

/// A piece of work, unless all of it was called off.
fn task<T>(
    observer: &dyn Observer,
    name: &str,
    work: impl FnOnce() -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    if observer.is_cancelled() {
        return Err(GuestError::Cancelled.into());
    }
    event::task(observer, name, work)
}
