//! The whole way from a recipe to a published appliance.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use coop_appliance::{Appliance, MANIFEST_NAME, Manifest};
use coop_image::tree::TreeError;
use coop_runtime::event::{Event, Observer, Unit};
use coop_runtime::{Host, KernelSpec};
use fs_err as fs;

use crate::assemble::{self, AssembleError, Parts};
use crate::digest::Digest;
use crate::fetch::Fetcher;
use crate::guest::{self, GuestContext, GuestError, Step};
use crate::inputs::{self, Record, seed};
use crate::kernel::config::{self, DotConfig, Version};
use crate::kernel::make::{self, MakeError};
use crate::kernel::{self, FetchedKernel, KernelError, KernelFiles, KernelSourceError};
use crate::publish::Staging;
use crate::recipe::{self, KernelOrigin, Recipe, RunAction, RunStep, Services, Source};
use crate::rootfs::{self, RootfsError};
use crate::source::{self, Archive, DebianSourceError, SourceTree, TarballError};

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
    KernelSource(#[from] KernelSourceError),
    /// The kernel cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel lacks what the recipe needs.
    #[error("kernel {release} does not have what kernel.config asks for: {list}")]
    KernelConfig {
        /// The kernel's release.
        release: String,
        /// Each symbol with what it is and who wants what.
        list: String,
    },
    /// The kernel has modules where the recipe wants none.
    #[error("kernel {0} needs modules to boot, but the recipe says kernel.modules: false")]
    Modules(String),
    /// The kernel's release begins with no version.
    #[error("kernel release '{0}' does not begin with a version")]
    Release(String),
    /// The kernel was not made.
    #[error(transparent)]
    Make(#[from] MakeError),
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
    let inputs = inputs::digest(request.recipe)?;
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
    let kernel = kernel(request)?;
    let source = match &recipe.rootfs.source {
        Source::Debian(debian) => {
            source::debian(debian, request.fetcher, &request.archive, observer)?
        }
        Source::Tarball(tarball) => source::tarball(tarball, request.fetcher, observer)?,
    };
    let resolved = resolved_digest(&inputs, &kernel.resolved, &source.resolved);
    let kernel_member = assemble::write_kernel(
        &kernel.files,
        &kernel.resolved,
        &recipe.kernel.cmdline,
        folder,
    )?;
    let context = GuestContext {
        kernel: KernelSpec {
            vmlinux: folder.join(&kernel_member.vmlinux.path),
            libraries: kernel_member
                .libraries
                .first()
                .and_then(|library| folder.join(&library.path).parent().map(Into::into)),
            modules: kernel_member
                .modules
                .as_ref()
                .map(|modules| folder.join(&modules.path)),
            cmdline: Vec::new(),
        },
        host: request.host.clone(),
        store: request.fetcher.store(),
        observer: Arc::clone(&request.observer),
        seed: seed(&resolved, "scratch"),
        epoch: source.epoch,
    };
    let epoch = source.epoch;
    let root = finish_root(recipe, source, &kernel.files, &context)?;
    task(observer, "write images", || {
        Ok(assemble::assemble(
            &Parts {
                recipe,
                root: &root,
                kernel: kernel_member,
                inputs,
                resolved,
                epoch,
            },
            folder,
        )?)
    })
}

/// Takes the source's tree through the guest and the recipe's changes to what the image holds.
fn finish_root(
    recipe: &Recipe,
    source: SourceTree,
    kernel: &KernelFiles,
    context: &GuestContext<'_>,
) -> Result<coop_image::tree::Tree, BuildError> {
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
    // Before the steps, so that these may load modules, and take away what they do not want.
    let installed = kernel::modules::install(&mut tree, kernel, epoch)?;
    if !installed.others.is_empty() {
        let message = format!(
            "the root file system also has modules of kernels that this appliance does not boot: {}",
            installed.others.join(", ")
        );
        observer.event(&Event::Warning { message: &message });
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

/// Has the recipe's kernel fetched or made, and checks that it is what the recipe asks for. The
/// request's output folder is not looked at.
///
/// # Errors
/// Those of [`BuildError`] that are about the kernel.
pub fn kernel(request: &BuildRequest<'_>) -> Result<FetchedKernel, BuildError> {
    let observer = &*request.observer;
    let kernel = &request.recipe.kernel;
    let fetched = match &kernel.origin {
        KernelOrigin::Package(package) => {
            kernel::fetch(package, request.fetcher, &request.archive, observer)?
        }
        KernelOrigin::Default => kernel::fetch(
            &recipe::KernelPackage::user_mode_linux(),
            request.fetcher,
            &request.archive,
            observer,
        )?,
        KernelOrigin::Source(source) => make::build(&make::MakeRequest {
            source,
            wanted: &kernel.wanted,
            defconfig: kernel.defconfig,
            allow_dropped: request.allow_dropped,
            fetcher: request.fetcher,
            archive: &request.archive,
            programs: request.programs,
            observer,
        })?,
    };
    check_kernel(request, &fetched.files)?;
    Ok(fetched)
}

fn check_kernel(request: &BuildRequest<'_>, kernel: &KernelFiles) -> Result<(), BuildError> {
    let recipe = request.recipe;
    let modules = recipe.kernel.modules;
    if !modules && kernel.modules.is_some() {
        return Err(BuildError::Modules(kernel.release.clone()));
    }
    let Some(version) = Version::of_release(&kernel.release) else {
        return Err(BuildError::Release(kernel.release.clone()));
    };
    let merged = config::merge(&recipe.kernel.wanted, kernel.target, version);
    let config = DotConfig::parse(&kernel.config);
    let unmet = config::unmet(&merged.wanted, &config, modules);
    if unmet.is_empty() {
        return Ok(());
    }
    let each: Vec<String> = unmet.iter().map(config::Unmet::to_string).collect();
    if request.allow_dropped {
        for message in &each {
            request.observer.event(&Event::Warning { message });
        }
        return Ok(());
    }
    Err(BuildError::KernelConfig {
        release: kernel.release.clone(),
        list: each.join("; "),
    })
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
fn steps(tree: &coop_image::tree::Tree, recipe: &Recipe) -> Result<Vec<Step>, BuildError> {
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

/// Tells the observer about a piece of work that has no count.
fn task<T>(
    observer: &dyn Observer,
    name: &str,
    work: impl FnOnce() -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    if observer.is_cancelled() {
        return Err(GuestError::Cancelled.into());
    }
    let started = Instant::now();
    observer.event(&Event::TaskStarted {
        task: name,
        total: None,
        unit: Unit::Items,
    });
    let result = work();
    observer.event(&Event::TaskFinished {
        task: name,
        elapsed: started.elapsed(),
    });
    result
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
