//! Brings the recipe's kernel package, and what belongs to it: the C library that a UML kernel was
//! built against, or the package that a metapackage stands for.

use coop_image::tree::Tree;
use coop_runtime::event::Observer;

use super::{KernelError, KernelFiles, linux_image, prebuilt};
use crate::debian::deb::{Deb, DebError, fetch_debs};
use crate::debian::mirror::MirrorError;
use crate::debian::relations;
use crate::debian::suite::{DebianError, SelectedPackage, SuiteRequest, Suites};
use crate::debian::unpack::{UnpackError, unpack_files};
use crate::fetch::Fetcher;
use crate::recipe;
use crate::source::Archive;

/// The packages with the dynamic loader, the C library, and what its threads need at their end.
const LIBRARIES: [&str; 2] = ["libc6", "libgcc-s1"];
/// The packages whose layout is known: one, and those whose name starts so.
const USER_MODE_LINUX: &str = "user-mode-linux";
const LINUX_IMAGE: &str = "linux-image-";
/// Metapackages stand for each other so many times at most.
const METAPACKAGES_MAX: usize = 3;

/// Why the kernel's package cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KernelSourceError {
    /// The package is one whose files coop does not know.
    #[error(
        "kernel.package '{0}' is not supported; '{USER_MODE_LINUX}', whose kernel coop can start, \
         and '{LINUX_IMAGE}…' for x86-64 are"
    )]
    Unsupported(String),
    /// No kernel in it, and none in what it depends on.
    #[error(
        "kernel.package '{0}' has no kernel in /boot, and depends on no '{LINUX_IMAGE}…' that has one"
    )]
    NoKernel(String),
    /// No mirror.
    #[error("kernel: {0}")]
    Mirror(#[from] MirrorError),
    /// The suite.
    #[error("kernel: {0}")]
    Debian(#[from] DebianError),
    /// The download, or a damaged package.
    #[error("kernel: {0}")]
    Deb(#[from] DebError),
    /// The package's files.
    #[error("kernel: {0}")]
    Unpack(#[from] UnpackError),
    /// The package's kernel cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// A kernel and what it came from.
#[derive(Debug)]
pub struct FetchedKernel {
    /// What goes into the appliance.
    pub files: KernelFiles,
    /// One line for each package, archive, patch and compiler, with its digest.
    pub resolved: Vec<String>,
}

/// Fetches the package with what belongs to it, and takes the kernel out.
///
/// # Errors
/// See [`KernelSourceError`].
pub(super) fn fetch(
    package: &recipe::KernelPackage,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<FetchedKernel, KernelSourceError> {
    let suite = open(package, fetcher, archive, observer)?;
    let fetch = |packages: &[SelectedPackage]| fetch_debs(fetcher, packages, observer);
    if package.name == USER_MODE_LINUX {
        fetch_user_mode_linux(&suite, fetch)
    } else {
        fetch_linux_image(&package.name, &suite, fetch)
    }
}

/// Asks for the package and what belongs to it. Of `linux-image-…` packages it fetches what only
/// they themselves say: what they stand for.
///
/// # Errors
/// See [`KernelSourceError`].
pub(super) fn pin(
    package: &recipe::KernelPackage,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<(), KernelSourceError> {
    if package.name == USER_MODE_LINUX {
        user_mode_linux(&open(package, fetcher, archive, observer)?)?;
    } else {
        fetch(package, fetcher, archive, observer)?;
    }
    Ok(())
}

fn open<'a>(
    package: &recipe::KernelPackage,
    fetcher: &'a Fetcher,
    archive: &Archive<'a>,
    observer: &'a dyn Observer,
) -> Result<Suites<'a>, KernelSourceError> {
    let recipe::KernelPackage { name, suite } = package;
    if name != USER_MODE_LINUX && !name.starts_with(LINUX_IMAGE) {
        return Err(KernelSourceError::Unsupported(name.clone()));
    }
    let request = SuiteRequest {
        suite: suite.clone(),
        ..archive.request(archive.mirror(None)?)
    };
    Ok(archive.open(fetcher, vec![request], observer)?)
}

/// The package and those that its kernel is started with.
fn user_mode_linux(suite: &Suites<'_>) -> Result<Vec<SelectedPackage>, DebianError> {
    let names = [USER_MODE_LINUX].into_iter().chain(LIBRARIES);
    names.map(|name| suite.find(name)).collect()
}

fn fetch_user_mode_linux(
    suite: &Suites<'_>,
    fetch: impl Fn(&[SelectedPackage]) -> Result<Vec<Deb>, DebError>,
) -> Result<FetchedKernel, KernelSourceError> {
    let packages = user_mode_linux(suite)?;
    let trees = fetch(&packages)?
        .iter()
        .map(unpack_files)
        .collect::<Result<Vec<Tree>, _>>()?;
    Ok(FetchedKernel {
        files: prebuilt(&trees[0], &trees[1..])?,
        resolved: packages.iter().map(SelectedPackage::pin).collect(),
    })
}

fn fetch_linux_image(
    name: &str,
    suite: &Suites<'_>,
    fetch: impl Fn(&[SelectedPackage]) -> Result<Vec<Deb>, DebError>,
) -> Result<FetchedKernel, KernelSourceError> {
    let mut resolved = Vec::new();
    let mut next = Some(name.to_owned());
    for _ in 0..=METAPACKAGES_MAX {
        let Some(name) = next else { break };
        let package = suite.find(&name)?;
        resolved.push(package.pin());
        let debs = fetch(&[package])?;
        for deb in &debs {
            let tree = unpack_files(deb)?;
            if let Some(release) = linux_image::release(&tree)? {
                let files = linux_image::linux_image(&tree, &release)?;
                return Ok(FetchedKernel { files, resolved });
            }
        }
        next = debs.first().and_then(stands_for);
    }
    Err(KernelSourceError::NoKernel(name.to_owned()))
}

/// The first kernel package that a package depends on.
fn stands_for(deb: &Deb) -> Option<String> {
    let depends = relations::parse(deb.field("Depends")?).ok()?;
    let mut names = depends.iter().flatten().map(|relation| relation.name);
    let name = names.find(|name| name.starts_with(LINUX_IMAGE))?;
    Some(name.to_owned())
}
