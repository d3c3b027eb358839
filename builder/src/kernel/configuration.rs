//! The configuration of a recipe's kernel, without building it.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use coop_runtime::event::Event;

use super::config::{self, DotConfig, Merged, Version, Wanted};
use super::default;
use super::make::{self, Configured, Dropped, MakeError, MenuChanges, Programs};
use super::{KernelRequest, ObtainError, Target, fetch};
use crate::recipe::{KernelOrigin, KernelPackage, KernelSource};

/// How a kernel is configured, and what was wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// What the kernel is for.
    pub target: Target,
    /// Which kernel it is: `7.2.13`, or a package's release.
    pub version: String,
    /// Its whole .config.
    pub config: String,
    /// What of it is not the default (`savedefconfig`); a package does not say.
    pub minimal: Option<String>,
    /// What was wanted, with places and conflicts.
    pub wanted: Merged,
    /// Why something that was wanted does not hold: a sentence for each symbol.
    pub unheld: Vec<String>,
}

/// Where a request leads to.
enum Way {
    Package(KernelPackage),
    Source(Box<KernelSource>, Vec<Wanted>),
}

/// Configures the kernel as [`obtain`](super::obtain()) would build it, or reads a package's
/// configuration; from the store where the store has it. Conflicts are warnings, and so is what
/// does not hold where that is allowed.
///
/// # Errors
/// See [`ObtainError`].
pub fn configuration(request: &KernelRequest<'_>) -> Result<Configuration, ObtainError> {
    let configuration = match way(request)? {
        Way::Package(package) => of_package(request, &package)?,
        Way::Source(source, wanted) => {
            let make = request.making(&source, &wanted);
            let configured = make::configure(&make)?;
            if !request.allow_dropped && !configured.dropped.is_empty() {
                return Err(MakeError::Dropped {
                    version: configured.version,
                    dropped: configured.dropped,
                }
                .into());
            }
            of_source(&source, &wanted, configured)
        }
    };
    let conflicts = configuration.wanted.conflicts.iter();
    let conflicts = conflicts.map(ToString::to_string);
    for message in conflicts.chain(configuration.unheld.iter().cloned()) {
        let message = &message;
        request.observer.event(&Event::Warning { message });
    }
    Ok(configuration)
}

/// The configuration as far as it is known without running anything of the kernel's: from a
/// package, or from a build or configuration before. Nothing is fetched where the request's
/// fetcher is offline.
///
/// # Errors
/// See [`ObtainError`].
pub fn known(request: &KernelRequest<'_>) -> Result<Option<Configuration>, ObtainError> {
    match way(request)? {
        Way::Package(package) => of_package(request, &package).map(Some),
        Way::Source(source, wanted) => {
            let before = make::configured_before(&request.making(&source, &wanted))?;
            Ok(before.map(|configured| of_source(&source, &wanted, configured)))
        }
    }
}

/// Opens the kernel's own menu on a terminal; see [`make::menu`].
///
/// # Errors
/// See [`ObtainError`]; a package's kernel has no menu.
pub fn menu(
    request: &KernelRequest<'_>,
    terminal: &impl AsFd,
    term: &OsStr,
) -> Result<MenuChanges, ObtainError> {
    match way(request)? {
        Way::Package(package) => Err(ObtainError::NoMenu(package.name)),
        Way::Source(source, wanted) => {
            let make = request.making(&source, &wanted);
            Ok(make::menu(&make, terminal, term)?)
        }
    }
}

fn way(request: &KernelRequest<'_>) -> Result<Way, ObtainError> {
    match &request.kernel.origin {
        KernelOrigin::Package(package) => Ok(Way::Package(package.clone())),
        KernelOrigin::Source(source) => Ok(Way::Source(
            Box::new(source.clone()),
            request.kernel.wanted.clone(),
        )),
        KernelOrigin::Default => {
            let (source, wanted) = (default::source(), default::wanted(&request.kernel.wanted)?);
            if is_trimmed(request, &source, &wanted)? {
                Ok(Way::Source(Box::new(source), wanted))
            } else {
                Ok(Way::Package(KernelPackage::user_mode_linux()))
            }
        }
    }
}

/// Whether a recipe without a kernel gets the trimmed one, as [`obtain`](super::obtain()) chooses.
fn is_trimmed(
    request: &KernelRequest<'_>,
    source: &KernelSource,
    wanted: &[Wanted],
) -> Result<bool, ObtainError> {
    match request.known_default()? {
        Some(is_trimmed) => Ok(is_trimmed),
        None => {
            let programs = Programs::of_system(request.programs);
            if make::missing(source.target, &programs)?.is_empty() {
                return Ok(true);
            }
            let before = make::configured_before(&request.making(source, wanted));
            Ok(matches!(before, Ok(Some(_))))
        }
    }
}

fn of_package(
    request: &KernelRequest<'_>,
    package: &KernelPackage,
) -> Result<Configuration, ObtainError> {
    let files = fetch::fetch(
        package,
        request.fetcher,
        request.archive,
        &**request.observer,
    )?
    .files;
    let version = Version::of_release(&files.release)
        .ok_or_else(|| ObtainError::Release(files.release.clone()))?;
    let wanted = config::merge(&request.kernel.wanted, files.target, version);
    let config = DotConfig::parse(&files.config);
    let unmet = config::unmet(&wanted.wanted, &config, request.kernel.modules);
    Ok(Configuration {
        target: files.target,
        version: files.release,
        config: files.config,
        minimal: None,
        wanted,
        unheld: unmet.iter().map(ToString::to_string).collect(),
    })
}

fn of_source(source: &KernelSource, wanted: &[Wanted], configured: Configured) -> Configuration {
    // A version that cannot be read holds what is for all versions.
    let version = Version::of_release(&configured.version);
    let version = version.unwrap_or(Version { major: 0, minor: 0 });
    Configuration {
        target: source.target,
        wanted: config::merge(wanted, source.target, version),
        version: configured.version,
        config: configured.config,
        minimal: Some(configured.minimal),
        unheld: configured.dropped.iter().map(Dropped::to_string).collect(),
    }
}
