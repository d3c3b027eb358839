//! Which packages a request needs, as apt would choose them.
//!
//! Of each package, the newest version in the lists of the highest priority is the only candidate,
//! or, where a package is to come from a suite, the newest there. What follows by force is taken at
//! once; an open choice waits until nothing is forced any more, is satisfied by what has been
//! selected if that is possible, and else takes its first alternative. When a choice leads into a
//! conflict, the next alternative is tried (depth first, a bounded number of times). The outcome
//! depends on the lists and the request only.

mod candidates;
mod explain;

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::debian::packages::{MultiArch, PackageId, Universe};
use crate::debian::relations::{self, Alternatives, InvalidRelation, Relation};

use candidates::{matches_version, place_of, preference};

/// How many alternatives are tried before a request counts as too hard.
const ATTEMPTS_MAX: usize = 20_000;
/// How many links of a chain of dependencies a message shows.
const CHAIN_MAX: usize = 32;

/// What is there before anything is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// Essential packages, those of priority `required`, and apt: mmdebstrap's and debootstrap's
    /// `minbase`.
    #[default]
    Minimal,
    /// Essential packages alone.
    Essential,
    /// Nothing: for packages that are taken apart, not run.
    Nothing,
}

/// What to install.
#[derive(Clone, Debug)]
pub struct ResolveRequest<'a> {
    /// Debian's name of the architecture, as `amd64`.
    pub architecture: &'a str,
    /// Further architectures that packages may have (`dpkg --add-architecture`).
    pub foreign: &'a [&'a str],
    /// What is there anyway.
    pub variant: Variant,
    /// Packages by name, each with a version constraint if wanted.
    pub packages: &'a [Relation<'a>],
    /// Packages that are to come from a suite, each by name and the suite's name.
    pub targets: &'a [(&'a str, &'a str)],
    /// Whether recommended packages are taken too, where that is possible.
    pub recommends: bool,
    /// Packages that are not taken, whatever others say.
    pub exclude: &'a [&'a str],
    /// The only candidates of their names: what a lock keeps.
    pub held: &'a [PackageId],
}

/// Why a request cannot be met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Nothing has that name: the recipe's matter.
    #[error("there is no package '{name}'{}", similar.as_ref().map(|s| format!("; did you mean '{s}'?")).unwrap_or_default())]
    Unknown {
        /// What was asked for.
        name: String,
        /// The most similar name that there is.
        similar: Option<String>,
    },
    /// An essential package is to be left out: the recipe's matter.
    #[error(
        "package '{0}' cannot be left out: it is essential, and others use it without saying so"
    )]
    Essential(String),
    /// A suite lacks a package that is to come from it: the recipe's matter.
    #[error("no suite '{suite}' has a package '{name}' (it is in {available})")]
    NotInSuite {
        /// The package.
        name: String,
        /// Where it is to come from.
        suite: String,
        /// Where it is, or `none`.
        available: String,
    },
    /// The dependencies contradict each other or the archive.
    #[error("the packages cannot be installed together: {}", chain.join(", "))]
    Unsatisfiable {
        /// The steps from the request to the contradiction.
        chain: Vec<String>,
        /// The packages in it, those nearest to the contradiction first.
        names: Vec<String>,
    },
    /// Too many alternatives were tried.
    #[error("the dependencies are too hard to resolve: {}", chain.join(", "))]
    TooHard {
        /// The first contradiction.
        chain: Vec<String>,
    },
    /// A relationship field is malformed: the archive's fault.
    #[error("package '{package}': {source}")]
    Field {
        /// The package.
        package: String,
        /// What is wrong.
        source: InvalidRelation,
    },
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The packages, dependencies before those who need them, as far as there are no circles.
    pub packages: Vec<PackageId>,
    /// Those of them that were asked for, or are there anyway, sorted; the others are there for them.
    pub requested: Vec<PackageId>,
}

/// Chooses the packages.
///
/// # Errors
/// [`ResolveError`].
pub fn resolve(
    universe: &Universe<'_>,
    request: &ResolveRequest<'_>,
) -> Result<Resolution, ResolveError> {
    let mut solver = Solver::new(universe, request.architecture, request.foreign);
    for (name, suite) in request.targets {
        solver.aim(name, suite)?;
    }
    for id in request.held {
        solver.hold(*id, request.targets);
    }
    for name in request.exclude {
        solver.leave_out(name, request.variant)?;
    }
    let is_wanted = |name: &&str| !request.exclude.contains(name);
    for name in base_names(universe, request).into_iter().filter(is_wanted) {
        solver.require(Relation {
            name,
            qualifier: None,
            constraint: None,
        })?;
    }
    for relation in request.packages {
        solver.require(*relation)?;
    }
    solver.solve()?;
    if request.recommends {
        solver.add_recommended()?;
    }
    let requested = solver.states.iter().filter_map(|(id, state)| {
        matches!(state, State::Selected(Reason::Requested)).then_some(*id)
    });
    let requested: BTreeSet<PackageId> = requested.collect();
    Ok(Resolution {
        packages: solver.in_order()?,
        requested: requested.into_iter().collect(),
    })
}

fn base_names<'a>(universe: &Universe<'a>, request: &ResolveRequest<'_>) -> BTreeSet<&'a str> {
    let is_native = |architecture| architecture == request.architecture || architecture == "all";
    let natives = universe.packages().map(|(_, package)| package);
    let natives = natives.filter(|package| is_native(package.architecture));
    let in_base = natives.filter(|package| match request.variant {
        Variant::Nothing => false,
        Variant::Essential => package.essential,
        Variant::Minimal => {
            package.essential || package.priority == "required" || package.name == "apt"
        }
    });
    in_base.map(|package| package.name).collect()
}

/// Why a package was selected.
#[derive(Clone, Debug)]
enum Reason<'a> {
    Requested,
    NeededBy(PackageId, Alternatives<'a>),
}

#[derive(Clone, Debug)]
enum State<'a> {
    Selected(Reason<'a>),
    ExcludedBy(PackageId),
}

/// An open choice.
#[derive(Clone, Debug)]
struct Clause<'a> {
    owner: PackageId,
    alternatives: Alternatives<'a>,
    candidates: Vec<PackageId>,
}

/// A choice that was made, and how to take it back.
struct Decision {
    trail: usize,
    clauses: usize,
    clause: usize,
    next_candidate: usize,
}

struct Contradiction {
    chain: Vec<String>,
    names: Vec<String>,
}

impl From<Contradiction> for ResolveError {
    fn from(Contradiction { chain, names }: Contradiction) -> Self {
        Self::Unsatisfiable { chain, names }
    }
}

/// Ends the search for good, or lets it go on elsewhere.
enum Failure {
    Contradiction(Contradiction),
    Error(ResolveError),
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        Self::Error(error)
    }
}

struct Solver<'u, 'a> {
    universe: &'u Universe<'a>,
    /// The system's own, and then the foreign ones.
    architectures: Vec<&'u str>,
    /// By name and architecture; packages for all are the system's own.
    candidates: HashMap<(&'a str, &'u str), PackageId>,
    left_out: HashSet<&'a str>,
    states: HashMap<PackageId, State<'a>>,
    /// States in the order of their making.
    trail: Vec<PackageId>,
    /// How much of the trail has had its dependencies looked at.
    expanded: usize,
    clauses: Vec<Clause<'a>>,
    /// The first clause that may still be open.
    cursor: usize,
    decisions: Vec<Decision>,
    attempts: usize,
}

impl<'u, 'a> Solver<'u, 'a> {
    fn new(universe: &'u Universe<'a>, architecture: &'u str, foreign: &[&'u str]) -> Self {
        let mut architectures = vec![architecture];
        architectures.extend(foreign);
        let mut candidates: HashMap<(&'a str, &'u str), PackageId> = HashMap::new();
        for (id, package) in universe.packages() {
            let Some(place) = place_of(package.architecture, &architectures) else {
                continue;
            };
            let key = (package.name, architectures[place]);
            let best = candidates.entry(key).or_insert(id);
            if preference(universe, *best) < preference(universe, id) {
                *best = id;
            }
        }
        Self {
            universe,
            architectures,
            candidates,
            left_out: HashSet::new(),
            states: HashMap::new(),
            trail: Vec::new(),
            expanded: 0,
            clauses: Vec::new(),
            cursor: 0,
            decisions: Vec::new(),
            attempts: 0,
        }
    }

    /// Selects what a person asked for.
    fn require(&mut self, relation: Relation<'_>) -> Result<(), ResolveError> {
        let found = self.satisfying(&relation, self.architectures[0]);
        let Some(&id) = found.first() else {
            return Err(self.nothing_for(&relation));
        };
        match self.select(id, Reason::Requested) {
            Ok(()) => Ok(()),
            Err(Failure::Error(error)) => Err(error),
            Err(Failure::Contradiction(contradiction)) => Err(contradiction.into()),
        }
    }

    fn nothing_for(&self, relation: &Relation<'_>) -> ResolveError {
        let name = relation.name;
        let is_known = self.named(name).next().is_some() || self.left_out.contains(name);
        if is_known || !self.universe.providing(name).is_empty() {
            let chain = vec![format!(
                "{relation} is asked for, but {}",
                self.why_none(relation, self.architectures[0])
            )];
            let names = vec![name.to_owned()];
            return ResolveError::Unsatisfiable { chain, names };
        }
        self.unknown(name)
    }

    fn unknown(&self, name: &str) -> ResolveError {
        let distance = |other: &&str| {
            (
                strsim::damerau_levenshtein(name, other),
                (*other).to_owned(),
            )
        };
        let near = self
            .candidates
            .keys()
            .map(|(name, _)| name)
            .filter(|other| other.len().abs_diff(name.len()) <= 2);
        let best = near.map(distance).filter(|(far, _)| *far <= 2).min();
        ResolveError::Unknown {
            name: name.to_owned(),
            similar: best.map(|(_, name)| name),
        }
    }

    /// Selects a package and excludes what it conflicts with.
    fn select(&mut self, id: PackageId, reason: Reason<'a>) -> Result<(), Failure> {
        match self.states.get(&id) {
            Some(State::Selected(_)) => return Ok(()),
            Some(State::ExcludedBy(other)) => {
                let mut chain = self.chain_of_reason(id, &reason);
                let conflict =
                    format!("but {} conflicts with {}", self.show(*other), self.name(id));
                chain.push(conflict);
                chain.extend(self.why(*other));
                let mut names = vec![self.name(id).to_owned()];
                names.extend(self.owners(*other));
                if let Reason::NeededBy(owner, _) = &reason {
                    names.extend(self.owners(*owner));
                }
                return Err(Failure::Contradiction(Contradiction { chain, names }));
            }
            None => {}
        }
        self.states.insert(id, State::Selected(reason));
        self.trail.push(id);
        let others: Vec<PackageId> = self.named(self.name(id)).collect();
        for other in others {
            if other != id && !self.go_together(id, other) {
                let what = self.show(other);
                self.exclude_one(id, other, &what)?;
            }
        }
        for field in ["Conflicts", "Breaks"] {
            for relation in self.relations(id, field)?.iter().flatten() {
                self.exclude(id, relation)?;
            }
        }
        Ok(())
    }

    /// Whether two packages of one name and different architectures can both be there.
    fn go_together(&self, left: PackageId, right: PackageId) -> bool {
        let packages = [left, right].map(|id| self.universe.package(id));
        let [left, right] = packages;
        packages
            .iter()
            .all(|package| package.multi_arch() == MultiArch::Same)
            && left.version == right.version
    }

    fn exclude(&mut self, by: PackageId, relation: &Relation<'_>) -> Result<(), Failure> {
        let universe = self.universe;
        let real: Vec<PackageId> = self.named(relation.name).collect();
        let real = real
            .into_iter()
            .map(|id| (id, Some(universe.package(id).version)));
        let provided = universe.providing(relation.name).iter().copied();
        let what = relation.to_string();
        for (id, version) in real.chain(provided) {
            let is_meant = match relation.qualifier {
                None | Some("any") => true,
                Some(architecture) => architecture == self.architecture(id),
            };
            let is_itself = self.name(id) == self.name(by);
            if is_meant && !is_itself && matches_version(relation, version) {
                self.exclude_one(by, id, &what)?;
            }
        }
        Ok(())
    }

    fn exclude_one(&mut self, by: PackageId, id: PackageId, what: &str) -> Result<(), Failure> {
        match self.states.get(&id) {
            Some(State::ExcludedBy(_)) => Ok(()),
            Some(State::Selected(_)) => {
                let mut chain = self.why(by);
                chain.push(format!("but {} conflicts with {what}", self.show(by)));
                chain.extend(self.why(id));
                let mut names = self.owners(id);
                names.extend(self.owners(by));
                Err(Failure::Contradiction(Contradiction { chain, names }))
            }
            None => {
                self.states.insert(id, State::ExcludedBy(by));
                self.trail.push(id);
                Ok(())
            }
        }
    }

    /// Selects everything that is needed, going back where choices turn out wrong.
    fn solve(&mut self) -> Result<(), ResolveError> {
        let mut first: Option<Contradiction> = None;
        let floor = self.decisions.len();
        loop {
            let contradiction = match self.step() {
                Ok(true) => return Ok(()),
                Ok(false) => continue,
                Err(Failure::Error(error)) => return Err(error),
                Err(Failure::Contradiction(contradiction)) => contradiction,
            };
            let contradiction = first.take().unwrap_or(contradiction);
            if self.attempts >= ATTEMPTS_MAX {
                let chain = contradiction.chain;
                return Err(ResolveError::TooHard { chain });
            }
            if !self.step_back(floor) {
                return Err(contradiction.into());
            }
            first = Some(contradiction);
        }
    }

    /// Follows what is forced, then makes one choice; true when nothing is left to choose.
    fn step(&mut self) -> Result<bool, Failure> {
        while let Some(&id) = self.trail.get(self.expanded) {
            self.expanded += 1;
            if matches!(self.states.get(&id), Some(State::Selected(_))) {
                self.expand(id)?;
            }
        }
        while let Some(clause) = self.clauses.get(self.cursor) {
            if !clause.candidates.iter().any(|id| self.is_selected(*id)) {
                let decision = Decision {
                    trail: self.trail.len(),
                    clauses: self.clauses.len(),
                    clause: self.cursor,
                    next_candidate: 0,
                };
                self.decisions.push(decision);
                self.choose()?;
                return Ok(false);
            }
            self.cursor += 1;
        }
        Ok(true)
    }

    /// Looks at what a selected package needs.
    fn expand(&mut self, id: PackageId) -> Result<(), Failure> {
        for field in ["Pre-Depends", "Depends"] {
            for alternatives in self.relations(id, field)? {
                let candidates = self.candidates_for(&alternatives, self.architecture(id));
                if candidates.iter().any(|id| self.is_selected(*id)) {
                    continue;
                }
                match candidates.as_slice() {
                    [] => return Err(Failure::Contradiction(self.no_candidate(id, &alternatives))),
                    [only] => self.select(*only, Reason::NeededBy(id, alternatives))?,
                    _ => self.clauses.push(Clause {
                        owner: id,
                        alternatives,
                        candidates,
                    }),
                }
            }
        }
        Ok(())
    }

    /// Takes the next possible alternative of the newest decision.
    fn choose(&mut self) -> Result<(), Failure> {
        self.attempts += 1;
        let Some(decision) = self.decisions.last_mut() else {
            return Ok(());
        };
        let clause = &self.clauses[decision.clause];
        let rest = &clause.candidates[decision.next_candidate..];
        let is_free = |id: &PackageId| !self.states.contains_key(id);
        let Some(skipped) = rest.iter().position(is_free) else {
            let contradiction = self.no_candidate(clause.owner, &clause.alternatives);
            return Err(Failure::Contradiction(contradiction));
        };
        let id = rest[skipped];
        decision.next_candidate += skipped + 1;
        let reason = Reason::NeededBy(clause.owner, clause.alternatives.clone());
        self.select(id, reason)
    }

    /// Takes back the newest decision that has an alternative left, and takes that; false when
    /// there is none above `floor`.
    fn step_back(&mut self, floor: usize) -> bool {
        while self.decisions.len() > floor {
            self.undo_to_last_decision();
            if self.choose().is_ok() {
                return true;
            }
            self.undo_to_last_decision();
            let exhausted = self.decisions.last().is_none_or(|decision| {
                let candidates = &self.clauses[decision.clause].candidates;
                let rest = candidates
                    .get(decision.next_candidate..)
                    .unwrap_or_default();
                rest.iter().all(|id| self.states.contains_key(id))
            });
            if exhausted {
                self.decisions.pop();
            }
            if self.attempts >= ATTEMPTS_MAX {
                return false;
            }
        }
        false
    }

    fn undo_to_last_decision(&mut self) {
        if let Some(decision) = self.decisions.last() {
            let (trail, clauses, clause) = (decision.trail, decision.clauses, decision.clause);
            self.undo(trail, clauses, clause);
        }
    }

    fn undo(&mut self, trail: usize, clauses: usize, cursor: usize) {
        for id in self.trail.drain(trail..) {
            self.states.remove(&id);
        }
        self.clauses.truncate(clauses);
        self.cursor = cursor;
        self.expanded = self.expanded.min(trail);
    }

    /// Adds recommended packages one clause after another, leaving out what does not fit.
    fn add_recommended(&mut self) -> Result<(), ResolveError> {
        let mut index = 0;
        while let Some(&id) = self.trail.get(index) {
            index += 1;
            if !self.is_selected(id) {
                continue;
            }
            for alternatives in self.relations(id, "Recommends")? {
                let candidates = self.candidates_for(&alternatives, self.architecture(id));
                if candidates.iter().any(|id| self.is_selected(*id)) {
                    continue;
                }
                for candidate in candidates {
                    if self.try_optional(candidate, id, &alternatives)? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn try_optional(
        &mut self,
        candidate: PackageId,
        owner: PackageId,
        alternatives: &Alternatives<'a>,
    ) -> Result<bool, ResolveError> {
        let (trail, clauses, cursor) = (self.trail.len(), self.clauses.len(), self.cursor);
        let decisions = self.decisions.len();
        let reason = Reason::NeededBy(owner, alternatives.clone());
        let result = match self.select(candidate, reason) {
            Ok(()) => self.solve(),
            Err(Failure::Error(error)) => Err(error),
            Err(Failure::Contradiction(contradiction)) => Err(contradiction.into()),
        };
        // Choices that were made for it are final: going back behind it would undo it.
        self.decisions.truncate(decisions);
        match result {
            Ok(()) => Ok(true),
            Err(ResolveError::Unsatisfiable { .. }) => {
                self.undo(trail, clauses, cursor);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Dependencies first, as far as that goes; where there is a circle, the package with the
    /// smaller name is begun with.
    fn in_order(&self) -> Result<Vec<PackageId>, ResolveError> {
        let selected = self
            .trail
            .iter()
            .copied()
            .filter(|id| self.is_selected(*id));
        let mut by_name: Vec<PackageId> = selected.collect();
        by_name.sort_by_key(|id| (self.name(*id), self.architecture(*id)));
        let mut needs: HashMap<PackageId, Vec<PackageId>> = HashMap::new();
        for &id in &by_name {
            needs.insert(id, self.needed_by(id)?);
        }
        let mut order = Vec::with_capacity(by_name.len());
        let mut seen = BTreeSet::new();
        for &start in &by_name {
            // Depth first with a stack of our own: chains can be long.
            let mut stack = vec![(start, 0)];
            if !seen.insert(start) {
                continue;
            }
            while let Some((id, next)) = stack.pop() {
                match needs.get(&id).and_then(|needs| needs.get(next)) {
                    Some(&needed) => {
                        stack.push((id, next + 1));
                        if seen.insert(needed) {
                            stack.push((needed, 0));
                        }
                    }
                    None => order.push(id),
                }
            }
        }
        Ok(order)
    }

    /// The selected packages that a package needs, Pre-Depends first.
    fn needed_by(&self, id: PackageId) -> Result<Vec<PackageId>, ResolveError> {
        let mut needed = Vec::new();
        for field in ["Pre-Depends", "Depends"] {
            for alternatives in self.relations(id, field)? {
                let candidates = self.candidates_for(&alternatives, self.architecture(id));
                needed.extend(candidates.into_iter().find(|id| self.is_selected(*id)));
            }
        }
        Ok(needed)
    }

    fn relations(&self, id: PackageId, field: &str) -> Result<Vec<Alternatives<'a>>, ResolveError> {
        let package = self.universe.package(id);
        let text = package.field(field).unwrap_or_default();
        relations::parse(text).map_err(|source| ResolveError::Field {
            package: package.name.to_owned(),
            source,
        })
    }

    fn is_selected(&self, id: PackageId) -> bool {
        matches!(self.states.get(&id), Some(State::Selected(_)))
    }

    fn name(&self, id: PackageId) -> &'a str {
        self.universe.package(id).name
    }
}

/// How important a priority is: 0 is the most.
pub(super) fn priority_rank(priority: &str) -> usize {
    let ranks = ["required", "important", "standard", "optional"];
    ranks
        .iter()
        .position(|rank| *rank == priority)
        .unwrap_or(ranks.len())
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
