//! Suites of archives: from their names to the packages that a request needs.
//!
//! [`Suites`] answers all questions about packages. `answers` knows where from; `indices` is asked
//! only for what neither the lock nor an earlier answer says.

mod answers;
mod indices;
mod request;

use std::fmt;
use std::sync::OnceLock;

use coop_runtime::event::Observer;

use crate::debian::extra::ExtraDeb;
use crate::debian::keys::KeysError;
use crate::debian::packages::{PackageId, PackageList, PackagesError, Universe};
use crate::debian::relations::{self, InvalidRelation, Operator, Relation, parse_one};
use crate::debian::release::{ReleaseError, VerifiedRelease};
use crate::debian::resolve::{ResolveError, ResolveRequest, resolve};
use crate::debian::version::Version;
use crate::fetch::Fetcher;
use crate::lock::{LockedSuite, NotLocked, Pins};
use crate::store::StoreError;

use answers::{Found, Held};
use indices::facts_of;
pub(crate) use indices::open_suite;
pub use request::{Selected, SelectedPackage, Selection, SuiteFacts, SuiteRequest};

/// Why packages cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
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
    /// The cache.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A .deb of the recipe's own is for another system: the recipe's matter.
    #[error("{written} is for {found}, and the system is {architecture}")]
    OtherArchitecture {
        /// The file's name in the recipe.
        written: String,
        /// What its control file says.
        found: String,
        /// What the system has.
        architecture: String,
    },
    /// The recipe asks for what its lock does not answer: the recipe's matter.
    #[error(transparent)]
    NotLocked(#[from] NotLocked),
}

/// Suites that can be asked for packages: verified indices whose lists are at hand, or a lock.
pub struct Suites<'a> {
    /// In the order in which they were asked for.
    pub facts: Vec<SuiteFacts>,
    requests: Vec<SuiteRequest>,
    pins: &'a Pins,
    fetcher: &'a Fetcher,
    observer: &'a dyn Observer,
    /// Those of the archives and those of `extra`, once something is asked that no lock answers.
    lists: OnceLock<Vec<PackageList>>,
    /// The verified indices, each asked for once.
    releases: OnceLock<Vec<VerifiedRelease>>,
    extra: Vec<ExtraDeb>,
}

impl fmt::Debug for Suites<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suites")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl<'a> Suites<'a> {
    /// Verifies the indices and fetches the lists, or looks into the lock. All are for the
    /// architecture of the first.
    ///
    /// # Errors
    /// [`DebianError`].
    pub fn open(
        fetcher: &'a Fetcher,
        requests: Vec<SuiteRequest>,
        pins: &'a Pins,
        observer: &'a dyn Observer,
    ) -> Result<Self, DebianError> {
        let mut suites = Self {
            facts: Vec::new(),
            requests,
            pins,
            fetcher,
            observer,
            lists: OnceLock::new(),
            releases: OnceLock::new(),
            extra: Vec::new(),
        };
        let known = suites.requests.iter().map(|request| {
            let known = pins.known_suite(&request.key())?;
            Ok(known.map(|known| SuiteFacts {
                codename: known.codename.clone(),
                date_seconds: known.date_seconds,
                digest: known.inrelease,
            }))
        });
        let known: Option<Vec<SuiteFacts>> = known.collect::<Result<_, NotLocked>>()?;
        suites.facts = match known {
            Some(facts) => {
                suites.saw(&facts);
                facts
            }
            // The lists are for questions that nobody has asked before.
            None if suites.is_live() => {
                let facts: Vec<SuiteFacts> = suites.releases()?.iter().map(facts_of).collect();
                suites.saw(&facts);
                facts
            }
            None => suites.open_lists()?,
        };
        Ok(suites)
    }

    fn saw(&self, facts: &[SuiteFacts]) {
        for (request, facts) in self.requests.iter().zip(facts) {
            self.pins.saw_suite(LockedSuite {
                key: request.key(),
                codename: facts.codename.clone(),
                date_seconds: facts.date_seconds,
                inrelease: facts.digest,
                older: Vec::new(),
            });
        }
    }

    fn is_live(&self) -> bool {
        self.pins.used().is_none() && !self.pins.is_making()
    }

    /// Adds packages that are in no archive; every selection takes them.
    ///
    /// # Errors
    /// [`DebianError::OtherArchitecture`].
    pub fn add_debs(&mut self, debs: Vec<ExtraDeb>) -> Result<(), DebianError> {
        for deb in debs {
            let found = &deb.package.architecture;
            let is_foreign = self.foreign().contains(found);
            if found != "all" && found != self.architecture() && !is_foreign {
                return Err(DebianError::OtherArchitecture {
                    found: found.clone(),
                    architecture: self.architecture().to_owned(),
                    written: deb.written,
                });
            }
            if let Some(lists) = self.lists.get_mut() {
                lists.push(deb.list());
            }
            self.extra.push(deb);
        }
        Ok(())
    }

    /// The requests for the suites, each with its index pinned.
    #[must_use]
    pub fn pinned(&self) -> Vec<SuiteRequest> {
        let both = self.requests.iter().zip(&self.facts);
        both.map(|(request, facts)| SuiteRequest {
            pinned: Some(facts.digest),
            ..request.clone()
        })
        .collect()
    }

    fn foreign(&self) -> &[String] {
        let first = self.requests.first();
        first.map_or(&[], |request| &request.foreign)
    }

    fn architecture(&self) -> &str {
        let first = self.requests.first();
        first.map_or("", |request| &request.architecture)
    }

    /// Chooses the packages that a selection needs.
    ///
    /// # Errors
    /// [`DebianError::Request`], [`DebianError::Resolve`], [`DebianError::Packages`] or
    /// [`DebianError::NotLocked`].
    pub fn select(&self, selection: &Selection) -> Result<Selected, DebianError> {
        let live =
            |universe: &Universe<'_>, held: &Held<'_>| self.choose(universe, selection, held);
        let (packages, requested) = self.ask(&selection.question(), live)?;
        Ok(Selected {
            packages,
            requested,
        })
    }

    fn choose(
        &self,
        universe: &Universe<'_>,
        selection: &Selection,
        held: &Held<'_>,
    ) -> Result<Found, DebianError> {
        let wanted: Vec<(&str, Option<&str>)> = selection
            .packages
            .iter()
            .map(|text| match text.split_once('/') {
                Some((package, suite)) => (package, Some(suite)),
                None => (text.as_str(), None),
            })
            .collect();
        let relations = wanted.iter().map(|(text, _)| parse_one(text));
        let mut packages = relations.collect::<Result<Vec<_>, _>>()?;
        let extra = self.extra.iter().map(|deb| Relation {
            name: &deb.package.name,
            qualifier: None,
            constraint: Some((Operator::Equal, Version::new(&deb.package.version))),
        });
        packages.extend(extra);
        let foreign: Vec<&str> = self.foreign().iter().map(String::as_str).collect();
        let exclude: Vec<&str> = selection.exclude.iter().map(String::as_str).collect();
        let aims = packages.iter().zip(&wanted);
        let targets: Vec<(&str, &str)> = aims
            .filter_map(|(relation, (_, suite))| Some((relation.name, (*suite)?)))
            .collect();
        let mut held = held.clone();
        let chosen = loop {
            let ids: Vec<PackageId> = held.values().copied().collect();
            let request = ResolveRequest {
                architecture: self.architecture(),
                foreign: &foreign,
                variant: selection.variant,
                packages: &packages,
                targets: &targets,
                recommends: selection.recommends,
                exclude: &exclude,
                held: &ids,
            };
            match resolve(universe, &request) {
                // What is held is let go one by one, those first that are in the way.
                Err(ResolveError::Unsatisfiable { chain, names }) => {
                    let mut names = names.iter();
                    let is_held = |name: &&String| held.keys().any(|(held, _)| held == *name);
                    let Some(name) = names.find(is_held) else {
                        let names = Vec::new();
                        return Err(ResolveError::Unsatisfiable { chain, names }.into());
                    };
                    held.retain(|(held, _), _| held != name);
                }
                result => break result?,
            }
        };
        let requested = chosen.requested.into_iter();
        let mut requested: Vec<String> = requested
            .map(|id| universe.package(id))
            .map(|package| match foreign.contains(&package.architecture) {
                true => format!("{}:{}", package.name, package.architecture),
                false => package.name.to_owned(),
            })
            .collect();
        requested.sort();
        let selected = chosen.packages.into_iter().map(|id| selected(universe, id));
        Ok((selected.collect::<Result<_, _>>()?, requested))
    }

    /// Finds one package by its name, without what it depends on.
    ///
    /// # Errors
    /// [`DebianError::Resolve`] where there is none; [`DebianError::NotLocked`].
    pub fn find(&self, name: &str) -> Result<SelectedPackage, DebianError> {
        let question = format!("{name} alone");
        let live = |universe: &Universe<'_>, held: &Held<'_>| {
            let package = selected(universe, newest(universe, name, held)?)?;
            Ok((vec![package], Vec::new()))
        };
        let (mut packages, _) = self.ask(&question, live)?;
        packages.pop().ok_or_else(|| NotLocked(question).into())
    }

    /// The names that a package depends on; of alternatives, the first.
    ///
    /// # Errors
    /// [`DebianError::Resolve`] where there is no such package, [`DebianError::Request`] where its
    /// field cannot be read; [`DebianError::NotLocked`].
    pub fn dependencies(&self, name: &str) -> Result<Vec<String>, DebianError> {
        let live = |universe: &Universe<'_>, held: &Held<'_>| {
            let package = universe.package(newest(universe, name, held)?);
            let clauses = relations::parse(package.field("Depends").unwrap_or_default())?;
            let first = clauses.iter().filter_map(|clause| clause.first());
            let names = first.map(|relation| relation.name.to_owned()).collect();
            Ok((Vec::new(), names))
        };
        Ok(self.ask(&format!("what {name} depends on"), live)?.1)
    }

    /// The names of all packages that begin like this, sorted; a lock knows of none.
    ///
    /// # Errors
    /// [`DebianError::Packages`].
    pub fn names_beginning(&self, prefix: &str) -> Result<Vec<String>, DebianError> {
        if self.pins.used().is_some() {
            return Ok(Vec::new());
        }
        let universe = Universe::new(self.lists()?)?;
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

/// The package of this name that is held, or else the newest.
fn newest(universe: &Universe<'_>, name: &str, held: &Held<'_>) -> Result<PackageId, ResolveError> {
    if let Some((_, id)) = held.iter().find(|((held, _), _)| *held == name) {
        return Ok(*id);
    }
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
    if let Some(only) = &universe.list(id).only {
        return Ok(only.clone());
    }
    Ok(SelectedPackage {
        name: package.name.to_owned(),
        version: package.version.as_str().to_owned(),
        architecture: package.architecture.to_owned(),
        suite: universe.list(id).key.clone(),
        path: package.field("Filename").unwrap_or_default().to_owned(),
        download: universe.download(id)?,
    })
}
