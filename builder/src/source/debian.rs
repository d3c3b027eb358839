//! A root file system from Debian packages.

use coop_image::tree::Timestamp;
use coop_runtime::event::Observer;
use fs_err as fs;

use super::{Archive, SourceTree};
use crate::debian::deb::{DebError, fetch_debs};
use crate::debian::keys::{Keyring as Keys, KeysError};
use crate::debian::mirror::{Mirror as ChosenMirror, MirrorError};
use crate::debian::resolve;
use crate::debian::suite::{DebianError, SelectedPackage, Selection, Suite, SuiteRequest};
use crate::debian::system::{AptSource, SystemOptions, build_system};
use crate::debian::unpack::UnpackError;
use crate::fetch::Fetcher;
use crate::recipe::{Debian, Keyring, Mirror, Variant};

/// Why packages did not become a tree.
#[derive(Debug, thiserror::Error)]
pub enum DebianSourceError {
    /// The keyring cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// No mirror.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The keyring holds no keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Suite, lists or dependencies.
    #[error(transparent)]
    Suite(#[from] DebianError),
    /// Download or a damaged package.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// Packages that do not go together.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

/// The suite that a recipe names, and what of it the recipe needs.
struct Opened {
    mirror: ChosenMirror,
    keyring: Option<Vec<u8>>,
    suite: Suite,
    packages: Vec<SelectedPackage>,
}

fn open(
    recipe: &Debian,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<Opened, DebianSourceError> {
    let mirror = archive.mirror(match &recipe.mirror {
        Mirror::Host => None,
        Mirror::Url(url) => Some(url),
    })?;
    let keyring = match &recipe.keyring {
        Keyring::Debian => None,
        Keyring::File(file) => Some(fs::read(&file.path)?),
    };
    let request = SuiteRequest {
        suite: recipe.suite.clone(),
        components: recipe.components.clone(),
        keyring: keyring.as_deref().map(Keys::parse).transpose()?,
        ..archive.request(mirror.clone())
    };
    let suite = Suite::open(fetcher, &request, observer)?;
    let packages = suite.select(&Selection {
        variant: match recipe.variant {
            Variant::Essential => resolve::Variant::Essential,
            Variant::Minimal => resolve::Variant::Minimal,
        },
        packages: recipe.packages.clone(),
        recommends: recipe.recommends,
    })?;
    Ok(Opened {
        mirror,
        keyring,
        suite,
        packages,
    })
}

/// The names of all packages that the recipe's root file system has, without fetching them.
///
/// # Errors
/// See [`DebianSourceError`].
pub fn closure(
    recipe: &Debian,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<Vec<String>, DebianSourceError> {
    let packages = open(recipe, fetcher, archive, observer)?.packages;
    Ok(packages.into_iter().map(|package| package.name).collect())
}

/// One line for each package that the recipe's root file system has, with its digest, without
/// fetching them.
///
/// # Errors
/// See [`DebianSourceError`].
pub fn pins(
    recipe: &Debian,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<Vec<String>, DebianSourceError> {
    let packages = open(recipe, fetcher, archive, observer)?.packages;
    Ok(packages.iter().map(SelectedPackage::pin).collect())
}

/// Resolves, fetches and unpacks the recipe's packages as dpkg would leave them unpacked.
///
/// # Errors
/// See [`DebianSourceError`].
pub fn debian(
    recipe: &Debian,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<SourceTree, DebianSourceError> {
    let Opened {
        mirror,
        keyring,
        suite,
        packages,
    } = open(recipe, fetcher, archive, observer)?;
    let debs = fetch_debs(fetcher, &packages, observer)?;
    let epoch = Timestamp::from_seconds(suite.release.release.date_seconds);
    let system = build_system(
        debs,
        &SystemOptions {
            architecture: archive.architecture.to_owned(),
            time: epoch,
            apt: Some(AptSource {
                url: mirror.url,
                suites: vec![recipe.suite.clone()],
                components: recipe.components.clone(),
                keyring,
                // What the building host's apt allows says nothing about the guest's.
                check_valid_until: true,
            }),
        },
    )?;
    let mut resolved = vec![format!(
        "debian {} InRelease sha256:{}",
        recipe.suite, suite.release.digest
    )];
    resolved.extend(packages.iter().map(SelectedPackage::pin));
    Ok(SourceTree {
        tree: system.tree,
        epoch,
        configure: Some(system.script),
        resolved,
    })
}
