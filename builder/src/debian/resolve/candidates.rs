//! Which package a name stands for, and which packages satisfy a relation.

use std::collections::{BTreeSet, HashMap};

use crate::debian::packages::{MultiArch, PackageId, Universe};
use crate::debian::relations::Relation;
use crate::debian::resolve::{ResolveError, Solver, Variant, priority_rank};
use crate::debian::version::Version;

impl<'u, 'a> Solver<'u, 'a> {
    /// Takes a package from a suite, whatever priorities say.
    pub(super) fn aim(&mut self, name: &str, suite: &str) -> Result<(), ResolveError> {
        let universe = self.universe;
        let named = universe.named(name).iter().copied();
        let is_there = |id: &PackageId| universe.list(*id).suites.iter().any(|name| name == suite);
        let mut is_found = false;
        for place in 0..self.architectures.len() {
            let fits = named.clone().filter(is_there).filter(|id| {
                let architecture = universe.package(*id).architecture;
                place_of(architecture, &self.architectures) == Some(place)
            });
            if let Some(id) = fits.max_by_key(|id| universe.package(*id).version) {
                let key = (self.name(id), self.architectures[place]);
                self.candidates.insert(key, id);
                is_found = true;
            }
        }
        if is_found {
            return Ok(());
        }
        let lists = named.filter_map(|id| universe.list(id).suites.first().cloned());
        let suites: BTreeSet<String> = lists.collect();
        let available: Vec<String> = suites.into_iter().collect();
        Err(ResolveError::NotInSuite {
            name: name.to_owned(),
            suite: suite.to_owned(),
            available: match available.is_empty() {
                true => "none".to_owned(),
                false => available.join(", "),
            },
        })
    }

    /// Takes this version, unless it is to come from another suite.
    pub(super) fn hold(&mut self, id: PackageId, targets: &[(&str, &str)]) {
        let (name, list) = (self.name(id), self.universe.list(id));
        let mut aims = targets.iter().filter(|(aimed, _)| *aimed == name);
        if aims.all(|(_, suite)| list.suites.iter().any(|name| name == suite)) {
            let architecture = self.architecture(id);
            self.candidates.insert((name, architecture), id);
        }
    }

    /// Never takes a package.
    pub(super) fn leave_out(&mut self, name: &str, variant: Variant) -> Result<(), ResolveError> {
        let ids: Vec<PackageId> = self.named(name).collect();
        let Some(&first) = ids.first() else {
            return Err(self.unknown(name));
        };
        let package = self.universe.package(first);
        if package.essential && variant != Variant::Nothing {
            return Err(ResolveError::Essential(name.to_owned()));
        }
        self.left_out.insert(package.name);
        for id in ids {
            let key = (package.name, self.architecture(id));
            self.candidates.remove(&key);
        }
        Ok(())
    }

    /// The architecture whose dependencies a package has: its own, or the system's.
    pub(super) fn architecture(&self, id: PackageId) -> &'u str {
        let architecture = self.universe.package(id).architecture;
        let place = place_of(architecture, &self.architectures);
        self.architectures[place.unwrap_or(0)]
    }

    /// The candidates of a name, the system's own first.
    pub(super) fn named<'s>(&'s self, name: &'s str) -> impl Iterator<Item = PackageId> + 's {
        let candidates: &'s HashMap<(&'s str, &'s str), PackageId> = &self.candidates;
        let architectures = self.architectures.iter();
        architectures
            .filter_map(move |architecture| candidates.get(&(name, *architecture)).copied())
    }

    /// Candidates that satisfy a relation of a package of an architecture: those of that name, then
    /// those that provide it, the more important ones first.
    pub(super) fn satisfying(&self, relation: &Relation<'_>, of: &str) -> Vec<PackageId> {
        let mut found = Vec::new();
        for id in self.named(relation.name) {
            let version = self.universe.package(id).version;
            if self.fits(relation, id, Some(version), of) {
                found.push(id);
            }
        }
        let mut providers: Vec<PackageId> = Vec::new();
        for &(id, version) in self.universe.providing(relation.name) {
            let is_candidate = self.named(self.name(id)).any(|candidate| candidate == id);
            if is_candidate && self.fits(relation, id, version, of) {
                providers.push(id);
            }
        }
        providers.sort_by_key(|id| {
            let package = self.universe.package(*id);
            (
                !package.essential,
                priority_rank(package.priority),
                package.name,
                place_of(package.architecture, &self.architectures),
            )
        });
        for id in providers {
            if !found.contains(&id) {
                found.push(id);
            }
        }
        found
    }

    /// Whether the architecture and the version are right.
    pub(super) fn fits(
        &self,
        relation: &Relation<'_>,
        id: PackageId,
        version: Option<Version<'_>>,
        of: &str,
    ) -> bool {
        let package = self.universe.package(id);
        let own = self.architecture(id);
        let qualifier = match relation.qualifier {
            None => own == of || package.multi_arch() == MultiArch::Foreign,
            Some("native") => own == self.architectures[0],
            Some("any") => package.multi_arch() == MultiArch::Allowed,
            Some(architecture) => own == architecture,
        };
        qualifier && matches_version(relation, version)
    }

    pub(super) fn candidates_for(&self, alternatives: &[Relation<'_>], of: &str) -> Vec<PackageId> {
        let mut found: Vec<PackageId> = Vec::new();
        for id in alternatives
            .iter()
            .flat_map(|relation| self.satisfying(relation, of))
        {
            if !found.contains(&id) {
                found.push(id);
            }
        }
        found
    }
}

/// Where an architecture is in a list of them; `all` is the first.
pub(super) fn place_of(architecture: &str, architectures: &[&str]) -> Option<usize> {
    match architecture {
        "all" => Some(0),
        _ => architectures.iter().position(|one| *one == architecture),
    }
}

/// What the candidate of a name has most of.
pub(super) fn preference<'a>(universe: &Universe<'a>, id: PackageId) -> (u16, Version<'a>) {
    (universe.list(id).priority, universe.package(id).version)
}

pub(super) fn matches_version(relation: &Relation<'_>, version: Option<Version<'_>>) -> bool {
    match (relation.constraint, version) {
        (None, _) => true,
        (Some((operator, wanted)), Some(version)) => operator.holds(version, wanted),
        (Some(_), None) => false,
    }
}
