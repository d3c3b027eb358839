//! The whole way from a recipe to a published appliance.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coop_appliance::{Appliance, Kernel, MANIFEST_NAME, Manifest, Member};
use coop_image::tree::{Tree, TreeError};
use coop_runtime::event::{self, Event, Observer};
use coop_runtime::{Host, KernelSpec};
use fs_err as fs;

use crate::assemble::{self, AssembleError, Parts};
use crate::debian::installed::installed;
use crate::digest::Digest;
use crate::fetch::Fetcher;
use crate::guest::{self, GuestContext, GuestError, Step};
use crate::inputs::{self, Record, seed};
use crate::kernel::advice::advice;
use crate::kernel::needs::Level;
use crate::kernel::{
    self, FetchedKernel, KernelChoice, KernelError, KernelFiles, KernelRequest, ObtainError,
    Obtained, Target, bootable, modules,
};
use crate::lock::Lock;
use crate::publish::Staging;
use crate::recipe::{self, BuildPlace, KernelOrigin, Recipe, RunAction, RunStep, Services, Source};
use crate::rootfs::{self, RootfsError};
use crate::source::{self, Archive, DebianSourceError, SourceTree, TarballError};
use crate::store::{StoreError, TempFolder};

/// What to build, and with what means.
pub struct BuildRequest<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
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
    /// What runs in a guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// Images and manifest.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
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
    let inputs = inputs::with_lock(request.recipe, request.kernel, lock)?;
    if let Some(appliance) = up_to_date(request.output, &inputs) {
        return Ok(Built {
            appliance,
            fresh: false,
        });
    }
    let staging = Staging::new(request.output, MANIFEST_NAME)?;
    let manifest = make(request, inputs, staging.path())?;
    staging.publish()?;
    Ok(Built {
        appliance: Appliance {
            folder: request.output.to_owned(),
            manifest,
        },
        fresh: true,
    })
}

/// The appliance at a path, if it was made from these inputs.
#[must_use]
pub fn up_to_date(output: &Path, inputs: &Digest) -> Option<Appliance> {
    let appliance = Appliance::open(output).ok()?;
    (appliance.manifest.inputs == inputs.to_string()).then_some(appliance)
}

fn make(request: &BuildRequest<'_>, inputs: Digest, folder: &Path) -> Result<Manifest, BuildError> {
    let recipe = request.recipe;
    let observer = &*request.observer;
    if let KernelOrigin::Source(source) = &recipe.kernel.origin {
        bootable::check_source(source)?;
    }
    let Obtained { kernel, stands_in } = obtain(request, &recipe.kernel)?;
    bootable::check(&kernel.files)?;
    bootable::check_cpus(&kernel.files, recipe.devices.cpus)?;
    let source = match &recipe.rootfs.source {
        Source::Debian(debian) => {
            source::debian(debian, request.fetcher, &request.archive, observer)?
        }
        Source::Tarball(tarball) => source::tarball(tarball, request.fetcher, observer)?,
    };
    let boot_modules = boot_modules(&kernel.files)?;
    let member = assemble::write_kernel(
        &kernel.files,
        &boot_modules,
        &kernel.resolved,
        &recipe.kernel.cmdline,
        folder,
    )?;
    let mut pins = kernel.resolved.clone();
    let guest = guest_kernel(request, kernel.files.target, needs_guest(recipe, &source))?;
    let spec = match &guest {
        Some(guest) => {
            pins.extend_from_slice(&guest.member.sources);
            kernel_spec(&guest.member, guest.folder.path())
        }
        None => kernel_spec(&member, folder),
    };
    let recipe_digest = inputs::digest(recipe, request.kernel)?;
    let resolved = resolved_digest(&recipe_digest, &pins, &source.resolved);
    let context = GuestContext {
        kernel: spec,
        host: request.host.clone(),
        store: request.fetcher.store(),
        observer: Arc::clone(&request.observer),
        seed: seed(&resolved, "scratch"),
        epoch: source.epoch,
    };
    let epoch = source.epoch;
    let with_modules = recipe.kernel.modules && !stands_in;
    let modules_of = with_modules.then_some(&kernel.files);
    let root = finish_root(recipe, source, modules_of, &context)?;
    advise(&root, &kernel.files, observer);
    task(observer, "write images", || {
        Ok(assemble::assemble(
            &Parts {
                recipe,
                root: &root,
                kernel: member,
                boot_modules: &boot_modules,
                inputs,
                resolved,
                epoch,
            },
            folder,
        )?)
    })
}

/// Warns of packages that do not find in the kernel what they cannot do without.
fn advise(root: &coop_image::tree::Tree, kernel: &KernelFiles, observer: &dyn Observer) {
    let packages = installed(root);
    let names = packages.iter().map(String::as_str).collect();
    for advice in advice(&names, &kernel.config, kernel.target, &kernel.release) {
        if advice.unmet.level == Level::Required {
            let message = advice.to_string();
            observer.event(&Event::Warning { message: &message });
        }
    }
}

/// Has the recipe's kernel fetched or made, checked against what the recipe asks for. The request's
/// output folder is not looked at.
///
/// # Errors
/// Those of [`BuildError`] that are about the kernel.
pub fn kernel(request: &BuildRequest<'_>) -> Result<FetchedKernel, BuildError> {
    Ok(obtain(request, &request.recipe.kernel)?.kernel)
}

/// Asks the archives all that a build would ask them, or, where the request has a lock, the lock.
/// Little is fetched: indices, and what stands between a metapackage and its kernel.
///
/// # Errors
/// Those of [`BuildError`] that are about names.
pub fn lock(request: &BuildRequest<'_>) -> Result<Lock, BuildError> {
    let BuildRequest {
        recipe,
        fetcher,
        archive,
        observer,
        ..
    } = request;
    if let Source::Debian(debian) = &recipe.rootfs.source {
        source::pins(debian, fetcher, archive, &**observer)?;
    }
    kernel::pin(&kernel_request(request, &recipe.kernel))?;
    let in_guest = match &recipe.kernel.origin {
        KernelOrigin::Source(source) => source.place == BuildPlace::Guest,
        KernelOrigin::Package(_) | KernelOrigin::Default => false,
    };
    if recipe.kernel.target() != Target::Um || in_guest {
        // The guests that build have one of their own.
        kernel::pin(&kernel_request(request, &recipe::Kernel::default()))?;
    }
    Ok(archive.pins.seen())
}

fn obtain(request: &BuildRequest<'_>, kernel: &recipe::Kernel) -> Result<Obtained, ObtainError> {
    kernel::obtain(&kernel_request(request, kernel))
}

fn kernel_request<'a>(
    request: &'a BuildRequest<'_>,
    kernel: &'a recipe::Kernel,
) -> KernelRequest<'a> {
    KernelRequest {
        kernel,
        choice: request.kernel,
        fetcher: request.fetcher,
        archive: &request.archive,
        programs: request.programs,
        allow_dropped: request.allow_dropped,
        host: &request.host,
        observer: &request.observer,
    }
}

fn boot_modules(kernel: &KernelFiles) -> Result<Vec<(String, Vec<u8>)>, KernelError> {
    match &kernel.modules {
        Some(tree) => modules::boot(tree, kernel.target),
        None => Ok(Vec::new()),
    }
}

/// A kernel for the guests that build, where that is not the appliance's own.
struct GuestKernel {
    member: Kernel,
    folder: TempFolder,
}

/// Guests that build are processes of the host, whatever the appliance is for.
fn guest_kernel(
    request: &BuildRequest<'_>,
    target: Target,
    is_needed: bool,
) -> Result<Option<GuestKernel>, BuildError> {
    if target == Target::Um || !is_needed {
        return Ok(None);
    }
    let kernel = obtain(request, &recipe::Kernel::default())?.kernel;
    let folder = request.fetcher.store().temp_folder()?;
    let boot_modules = boot_modules(&kernel.files)?;
    let member = assemble::write_kernel(
        &kernel.files,
        &boot_modules,
        &kernel.resolved,
        &[],
        folder.path(),
    )?;
    Ok(Some(GuestKernel { member, folder }))
}

fn needs_guest(recipe: &Recipe, source: &SourceTree) -> bool {
    let Services { enable, disable } = &recipe.rootfs.services;
    let has_services = !enable.is_empty() || !disable.is_empty();
    source.configure.is_some() || has_services || !recipe.rootfs.run.is_empty()
}

/// A kernel in a folder as a guest is started with it.
pub(crate) fn kernel_spec(kernel: &Kernel, folder: &Path) -> KernelSpec {
    let path = |member: &Member| folder.join(&member.path);
    KernelSpec {
        vmlinux: path(&kernel.vmlinux),
        config: path(&kernel.config),
        libraries: kernel
            .libraries
            .first()
            .and_then(|library| path(library).parent().map(Into::into)),
        modules: kernel.modules.as_ref().map(path),
        cmdline: Vec::new(),
    }
}

/// Takes the source's tree through the guest and the recipe's changes to what the image holds.
fn finish_root(
    recipe: &Recipe,
    source: SourceTree,
    modules_of: Option<&KernelFiles>,
    context: &GuestContext<'_>,
) -> Result<Tree, BuildError> {
    let epoch = source.epoch;
    let observer = &*context.observer;
    let mut tree = source.tree;
    if let Some(script) = source.configure {
        let step = Step {
            name: "configuring the packages".to_owned(),
            script: script.into_bytes(),
            network: false,
        };
        tree = task(observer, "configure packages", || {
            Ok(guest::run(tree, &[step], context)?)
        })?;
    }
    rootfs::customise(&mut tree, &recipe.rootfs, epoch)?;
    if let Some(kernel) = modules_of {
        // Before the steps, so that these may load modules, and take away what they do not want.
        install_modules(&mut tree, kernel, context)?;
    }
    let steps = steps(&tree, recipe)?;
    if !steps.is_empty() {
        tree = task(observer, "run steps", || {
            Ok(guest::run(tree, &steps, context)?)
        })?;
    }
    rootfs::normalise(&mut tree, epoch)?;
    Ok(tree)
}

fn install_modules(
    tree: &mut Tree,
    kernel: &KernelFiles,
    context: &GuestContext<'_>,
) -> Result<(), TreeError> {
    let installed = modules::install(tree, kernel, context.epoch)?;
    if !installed.others.is_empty() {
        let message = format!(
            "the root file system also has modules of kernels that this appliance does not boot: {}",
            installed.others.join(", ")
        );
        context
            .observer
            .event(&Event::Warning { message: &message });
    }
    Ok(())
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

/// The recipe's services and `run:` steps as programs for the guest.
fn steps(tree: &Tree, recipe: &Recipe) -> Result<Vec<Step>, BuildError> {
    let mut steps = Vec::new();
    let Services { enable, disable } = &recipe.rootfs.services;
    if !enable.is_empty() || !disable.is_empty() {
        if tree.resolve(b"/usr/bin/systemctl").is_err() {
            return Err(BuildError::NoSystemd);
        }
        steps.push(Step {
            name: "services".to_owned(),
            script: services_script(enable, disable).into_bytes(),
            network: false,
        });
    }
    for step in &recipe.rootfs.run {
        steps.push(run_step(step)?);
    }
    Ok(steps)
}

/// systemctl works on unit files alone where SYSTEMD_OFFLINE says that no systemd runs.
fn services_script(enable: &[String], disable: &[String]) -> String {
    let mut script = "#!/bin/sh\nset -e\nexport SYSTEMD_OFFLINE=1\n".to_owned();
    for (verb, units) in [("enable", enable), ("disable", disable)] {
        for unit in units {
            script.push_str(&format!("systemctl {verb} -- {}\n", quote(unit)));
        }
    }
    script
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn run_step(step: &RunStep) -> io::Result<Step> {
    let (name, script) = match &step.action {
        RunAction::Command(line) => (
            format!("run: {line}"),
            format!("#!/bin/sh\nexport DEBIAN_FRONTEND=noninteractive\n{line}\n").into_bytes(),
        ),
        RunAction::Script(file) => (format!("run: {}", file.written), fs::read(&file.path)?),
    };
    Ok(Step {
        name,
        script,
        network: step.network,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_no_shell() {
        let script = services_script(&["a b".to_owned()], &["x'; rm -rf /".to_owned()]);
        assert_eq!(
            script,
            "#!/bin/sh\nset -e\nexport SYSTEMD_OFFLINE=1\n\
             systemctl enable -- 'a b'\nsystemctl disable -- 'x'\\''; rm -rf /'\n"
        );
    }
}
