//! Suites of archives: from their names to the packages that a request needs.

use coop_runtime::event::{Event, Observer};

use crate::debian::keys::{Keyring, KeysError};
use crate::debian::mirror::{Mirror, MirrorError};
use crate::debian::packages::{
    ListRequest, PackageId, PackageList, PackagesError, Universe, fetch_list,
};
use crate::debian::relations::{self, InvalidRelation, parse_one};
use crate::debian::release::{ReleaseError, ReleaseRequest, VerifiedRelease, open_release};
use crate::debian::resolve::{ResolveError, ResolveRequest, Variant, resolve};
use crate::digest::Digest;
use crate::fetch::{Download, FetchError, Fetcher};

/// The component that a request without components means.
const DEFAULT_COMPONENT: &str = "main";
/// What Debian's own archives call themselves.
const DEBIAN_ORIGINS: &[&str] = &["Debian", "Debian Backports"];

/// Why packages cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// No mirror.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// No usable keyring.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The suite's index.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The lists of packages.
    #[error(transparent)]
    Packages(#[from] PackagesError),
    /// What was asked for is no package.
    #[error("in the list of packages to install: {0}")]
    Request(#[from] InvalidRelation),
    /// The dependencies.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The downloads.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// Which suite of which archive.
#[derive(Clone, Debug)]
pub struct SuiteRequest {
    /// The archive.
    pub mirror: Mirror,
    /// Suite or codename.
    pub suite: String,
    /// `main` where there are none.
    pub components: Vec<String>,
    /// Debian's name of the architecture.
    pub architecture: String,
    /// Who may sign; Debian's own keys where there is none. With those, the archive must also call
    /// itself Debian's.
    pub keyring: Option<Keyring>,
    /// What its packages are preferred with, as apt has it (apt_preferences(5)); where nobody says,
    /// what the suite itself asks for.
    pub priority: Option<u16>,
    /// The present, in seconds since 1970.
    pub now_seconds: i64,
    /// The InRelease file that a lock names.
    pub pinned: Option<Digest>,
}

/// What to install from a suite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// What is there anyway.
    pub variant: Variant,
    /// Names, each with a constraint or a suite if wanted: `nginx-light`, `libc6 (>= 2.41)`,
    /// `linux-source/trixie-backports`.
    pub packages: Vec<String>,
    /// Whether recommended packages are taken too.
    pub recommends: bool,
}

/// A package that was chosen: what a lock has to name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `all` or the architecture.
    pub architecture: String,
    /// Where the .deb is and how it is known.
    pub download: Download,
}

impl SelectedPackage {
    /// The package as one line that pins it: `libc6 2.41-12 amd64 sha256:…`.
    #[must_use]
    pub fn pin(&self) -> String {
        format!(
            "{} {} {} sha256:{}",
            self.name, self.version, self.architecture, self.download.digest
        )
    }
}

/// Suites whose indices were verified and whose lists are at hand.
#[derive(Debug)]
pub struct Suites {
    /// The verified indices, in the order in which they were asked for.
    pub releases: Vec<VerifiedRelease>,
    architecture: String,
    lists: Vec<PackageList>,
}

impl Suites {
    /// Verifies the indices and fetches the lists. All are for the architecture of the first.
    ///
    /// # Errors
    /// [`DebianError`].
    pub fn open(
        fetcher: &Fetcher,
        requests: &[SuiteRequest],
        observer: &dyn Observer,
    ) -> Result<Self, DebianError> {
        let first = requests.first();
        let mut suites = Self {
            releases: Vec::with_capacity(requests.len()),
            architecture: first
                .map(|one| one.architecture.clone())
                .unwrap_or_default(),
            lists: Vec::new(),
        };
        for request in requests {
            suites.add(fetcher, request, observer)?;
        }
        Ok(suites)
    }

    fn add(
        &mut self,
        fetcher: &Fetcher,
        request: &SuiteRequest,
        observer: &dyn Observer,
    ) -> Result<(), DebianError> {
        let own;
        let (keyring, origins) = match &request.keyring {
            Some(keyring) => (keyring, &[][..]),
            None => {
                own = Keyring::debian()?;
                (&own, DEBIAN_ORIGINS)
            }
        };
        let release = open_release(
            fetcher,
            &ReleaseRequest {
                mirror: &request.mirror.url,
                suite: &request.suite,
                keyring,
                origins,
                now_seconds: request.now_seconds,
                check_valid_until: request.mirror.check_valid_until,
                pinned: request.pinned,
            },
        )?;
        if release.expired {
            let message = format!(
                "the index of suite '{}' has expired; the host's apt configuration allows that",
                request.suite
            );
            observer.event(&Event::Warning { message: &message });
        }
        let default = [DEFAULT_COMPONENT.to_owned()];
        let components = match request.components.as_slice() {
            [] => &default,
            some => some,
        };
        let from = ListRequest {
            release: &release,
            mirror: &request.mirror.url,
            suite: &request.suite,
            architecture: &self.architecture,
            priority: request
                .priority
                .unwrap_or_else(|| release.release.default_priority()),
        };
        for component in components {
            let list = fetch_list(fetcher, &from, component, observer)?;
            self.lists.push(list);
        }
        self.releases.push(release);
        Ok(())
    }

    /// Chooses the packages that a selection needs, those that others depend on first.
    ///
    /// # Errors
    /// [`DebianError::Request`], [`DebianError::Resolve`] or [`DebianError::Packages`].
    pub fn select<'s>(
        &self,
        selection: &'s Selection,
    ) -> Result<Vec<SelectedPackage>, DebianError> {
        let universe = Universe::new(&self.lists)?;
        let split = |text: &'s str| {
            text.split_once('/')
                .map_or((text, None), |(a, b)| (a, Some(b)))
        };
        let wanted = selection.packages.iter().map(|text| split(text));
        let relations = wanted.clone().map(|(text, _)| parse_one(text));
        let packages = relations.collect::<Result<Vec<_>, _>>()?;
        let aims = packages.iter().zip(wanted);
        let targets: Vec<(&str, &str)> = aims
            .filter_map(|(relation, (_, suite))| Some((relation.name, suite?)))
            .collect();
        let chosen = resolve(
            &universe,
            &ResolveRequest {
                architecture: &self.architecture,
                variant: selection.variant,
                packages: &packages,
                targets: &targets,
                recommends: selection.recommends,
            },
        )?;
        let selected = chosen.into_iter().map(|id| selected(&universe, id));
        Ok(selected.collect::<Result<_, _>>()?)
    }

    /// Finds one package by its name, without what it depends on.
    ///
    /// # Errors
    /// [`DebianError::Resolve`] where there is none.
    pub fn find(&self, name: &str) -> Result<SelectedPackage, DebianError> {
        let universe = Universe::new(&self.lists)?;
        Ok(selected(&universe, newest(&universe, name)?)?)
    }

    /// The names that a package depends on; of alternatives, the first.
    ///
    /// # Errors
    /// [`DebianError::Resolve`] where there is no such package, [`DebianError::Request`] where its
    /// field cannot be read.
    pub fn dependencies(&self, name: &str) -> Result<Vec<String>, DebianError> {
        let universe = Universe::new(&self.lists)?;
        let package = universe.package(newest(&universe, name)?);
        let clauses = relations::parse(package.field("Depends").unwrap_or_default())?;
        let first = clauses.iter().filter_map(|clause| clause.first());
        Ok(first.map(|relation| relation.name.to_owned()).collect())
    }

    /// The names of all packages that begin like this, sorted.
    ///
    /// # Errors
    /// [`DebianError::Packages`].
    pub fn names_beginning(&self, prefix: &str) -> Result<Vec<String>, DebianError> {
        let universe = Universe::new(&self.lists)?;
        let names = universe.packages().map(|(_, package)| package.name);
        let mut names: Vec<String> = names
            .filter(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }
}

/// The newest package of this name.
fn newest(universe: &Universe<'_>, name: &str) -> Result<PackageId, ResolveError> {
    let newest = universe.named(name).iter().copied().max_by(|left, right| {
        let versions = [left, right].map(|id| universe.package(*id).version);
        versions[0].cmp(&versions[1])
    });
    newest.ok_or_else(|| ResolveError::Unknown {
        name: name.to_owned(),
        similar: None,
    })
}

fn selected(universe: &Universe<'_>, id: PackageId) -> Result<SelectedPackage, PackagesError> {
    let package = universe.package(id);
    Ok(SelectedPackage {
        name: package.name.to_owned(),
        version: package.version.as_str().to_owned(),
        architecture: package.architecture.to_owned(),
        download: universe.download(id)?,
    })
}
