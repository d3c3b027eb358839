//! The kernels of a build: the appliance's own, and the one of the guests that build.

use std::path::Path;

use coop_appliance::{Kernel, Member, Root};
use coop_image::tree::Tree;

use coop_runtime::KernelSpec;
use coop_runtime::event::{Event, Observer};

use super::{BuildError, BuildRequest};
use crate::assemble;
use crate::debian::installed::installed;
use crate::inputs::Record;
use crate::kernel::advice::advice;
use crate::kernel::needs::Level;
use crate::kernel::{
    self, FetchedKernel, KernelError, KernelFiles, KernelRequest, ObtainError, Obtained, Target,
    modules,
};
use crate::recipe::{self, Recipe};
use crate::store::{Store, TempFolder};

/// Has the recipe's kernel fetched or made, checked against what the recipe asks for. The request's
/// output folder is not looked at.
///
/// # Errors
/// Those of [`BuildError`] that are about the kernel.
pub fn kernel(request: &BuildRequest<'_>) -> Result<FetchedKernel, BuildError> {
    Ok(obtain(request, &request.recipe.kernel)?.kernel)
}

pub(super) fn obtain(
    request: &BuildRequest<'_>,
    kernel: &recipe::Kernel,
) -> Result<Obtained, ObtainError> {
    kernel::obtain(&kernel_request(request, kernel))
}

pub(super) fn kernel_request<'a>(
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
        only_stored: false,
        host: &request.host,
        observer: &request.observer,
    }
}

/// Whether the kernel's modules come into the root file system.
pub(super) fn installs_modules(recipe: &Recipe, obtained: &Obtained) -> bool {
    let has_modules = obtained.kernel.files.modules.is_some();
    recipe.kernel.modules && !obtained.stands_in && has_modules
}

pub(super) fn boot_modules(
    kernel: &KernelFiles,
    root: &Root,
) -> Result<Vec<(String, Vec<u8>)>, KernelError> {
    match &kernel.modules {
        Some(tree) => modules::boot(tree, kernel.target, root),
        None => Ok(Vec::new()),
    }
}

/// A kernel for the guests that build, where that is not the appliance's own.
pub(super) struct GuestKernel {
    pub(super) member: Kernel,
    pub(super) folder: TempFolder,
    pub(super) identity: String,
}

/// What tells a kernel from every other: release, target, and a digest of what it came from and of
/// what of it a guest starts from.
pub(super) fn identity(kernel: &FetchedKernel) -> String {
    let FetchedKernel { files, resolved } = kernel;
    let mut record = Record::new("coop kernel");
    for line in resolved {
        record.put("from", line.as_bytes());
    }
    record.put("vmlinux", &files.vmlinux);
    record.put("config", files.config.as_bytes());
    for library in &files.libraries {
        record.put(&library.name, &library.bytes);
    }
    let digest = record.finish();
    format!("{} {} {digest}", files.release, files.target.name())
}

/// The kernel of a machine that is no appliance, in a folder of the cache that goes with it.
pub struct LoneKernel {
    member: Kernel,
    folder: TempFolder,
    /// Its folder for temporary files goes with the last store.
    _store: Store,
}

impl LoneKernel {
    /// As a guest is started with it; `cmdline` are words for its command line.
    #[must_use]
    pub fn spec(&self, cmdline: &[String]) -> KernelSpec {
        KernelSpec {
            cmdline: cmdline.to_owned(),
            ..kernel_spec(&self.member, self.folder.path())
        }
    }
}

/// Has a kernel fetched or made for a machine that is no appliance, with the modules that mount its
/// root.
///
/// # Errors
/// Those of [`BuildError`] that are about the kernel and the cache.
pub fn lone_kernel(request: &KernelRequest<'_>, root: &Root) -> Result<LoneKernel, BuildError> {
    let kernel = kernel::obtain(request)?.kernel;
    let store = request.fetcher.store().clone();
    let folder = store.temp_folder()?;
    let boot_modules = boot_modules(&kernel.files, root)?;
    let (files, resolved) = (&kernel.files, &kernel.resolved);
    let member = assemble::write_kernel(files, &boot_modules, resolved, &[], folder.path())?;
    Ok(LoneKernel {
        member,
        folder,
        _store: store,
    })
}

/// Guests that build are processes of the host, whatever the appliance is for.
pub(super) fn guest_kernel(
    request: &BuildRequest<'_>,
    target: Target,
    is_needed: bool,
) -> Result<Option<GuestKernel>, BuildError> {
    if target == Target::Um || !is_needed {
        return Ok(None);
    }
    let kernel = obtain(request, &recipe::Kernel::default())?.kernel;
    let folder = request.fetcher.store().temp_folder()?;
    let boot_modules = boot_modules(&kernel.files, &Root::Cobd)?;
    let member = assemble::write_kernel(
        &kernel.files,
        &boot_modules,
        &kernel.resolved,
        &[],
        folder.path(),
    )?;
    Ok(Some(GuestKernel {
        member,
        folder,
        identity: identity(&kernel),
    }))
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

/// Warns of packages that do not find in the kernel what they cannot do without.
pub(super) fn advise(root: &Tree, kernel: &KernelFiles, observer: &dyn Observer) {
    let packages = installed(root);
    let names = packages.iter().map(String::as_str).collect();
    for advice in advice(&names, &kernel.config, kernel.target, &kernel.release) {
        if advice.unmet.level == Level::Required {
            let message = advice.to_string();
            observer.event(&Event::Warning { message: &message });
        }
    }
}
