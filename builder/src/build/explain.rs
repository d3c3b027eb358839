//! What a build would do, without doing it.

use std::sync::Arc;

use coop_runtime::event::{Observer, Silent};

use super::kernel::{identity, installs_modules, kernel_request};
use super::root::needs_guest;
use super::{BuildError, BuildRequest, Source, plan, up_to_date};
use crate::fetch::{Fetcher, Options};
use crate::inputs;
use crate::kernel::{self, KernelRequest, Obtained, Target};
use crate::lock::Pins;
use crate::plan::{self as plans, Explanation, Trees};
use crate::recipe;
use crate::source::Archive;

/// What stands for a kernel that nobody has yet: no step was ever done with it.
const NO_KERNEL: &str = "none in the cache";

/// Tells what [`super::build`] would do and why. The archives are asked as for a lock; no guest
/// runs, no kernel is made, and nothing large is fetched.
///
/// # Errors
/// Those of [`BuildError`] that are about names, and about files of the host.
pub fn explain(request: &BuildRequest<'_>) -> Result<Explanation, BuildError> {
    let recipe = request.recipe;
    let store = request.fetcher.store();
    let inputs = inputs::digest(recipe, request.kernel, request.archive.pins.files())?;
    let current = up_to_date(request.output, &inputs, request.archive.pins.used()).is_some();
    let source = Source::resolve(request)?;
    let own = at_hand(request, &recipe.kernel)?;
    let is_foreign = recipe.kernel.target() != Target::Um;
    let guest = match is_foreign && needs_guest(recipe, &source) {
        true => at_hand(request, &recipe::Kernel::default())?,
        false => None,
    };
    let name = |kernel: &Option<Obtained>| match kernel {
        Some(kernel) => identity(&kernel.kernel),
        None => NO_KERNEL.to_owned(),
    };
    let with_modules = match &own {
        Some(own) => installs_modules(recipe, own),
        None => recipe.kernel.modules,
    };
    let (own, guest) = (name(&own), name(&guest));
    let guest = if is_foreign { &guest } else { &own };
    let (plan, _) = plan(request, &source, &own, guest, with_modules)?;
    let last = plans::remembered(store, &request.origin.to_string_lossy())?;
    let trees = Trees::new(store);
    Ok(Explanation::new(&plan, last.as_ref(), current, |key| {
        trees.has(key)
    }))
}

/// The kernel, if nothing has to be fetched or made for it.
fn at_hand(
    request: &BuildRequest<'_>,
    wanted: &recipe::Kernel,
) -> Result<Option<Obtained>, BuildError> {
    let asked = kernel_request(request, wanted);
    let pins;
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    let (archive, observer) = match request.archive.pins.used() {
        Some(_) => (request.archive, asked.observer),
        None => {
            kernel::pin(&asked)?;
            pins = Pins::locked(request.archive.pins.seen()).with_files_of(request.archive.pins);
            let archive = Archive {
                pins: &pins,
                ..request.archive
            };
            // This lock is nobody's, and need not be told of.
            (archive, &silent)
        }
    };
    let options = Options {
        offline: true,
        ..Options::default()
    };
    let fetcher = Fetcher::new(request.fetcher.store().clone(), options);
    let obtained = kernel::obtain(&KernelRequest {
        fetcher: &fetcher,
        archive: &archive,
        only_stored: true,
        observer,
        ..asked
    });
    // Whatever is wrong with it, a build will tell.
    Ok(obtained.ok())
}
