//! Suites of archives: from their names to the packages that a request needs.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufReader, Write};
use std::sync::OnceLock;

use coop_runtime::event::{Event, Observer};

use crate::debian::extra::{self, ExtraDeb};
use crate::debian::keys::{Keyring, KeysError};
use crate::debian::mirror::{Mirror, MirrorError, join_url};
use crate::debian::packages::{
    ListRequest, PackageId, PackageList, PackagesError, Universe, fetch_list,
};
use crate::debian::relations::{self, InvalidRelation, Operator, Relation, parse_one};
use crate::debian::release::{ReleaseError, ReleaseRequest, VerifiedRelease, open_release};
use crate::debian::resolve::{ResolveError, ResolveRequest, Variant, resolve};
use crate::debian::version::Version;
use crate::digest::Digest;
use crate::fetch::{Download, FetchError, Fetcher};
use crate::inputs::Record;
use crate::lock::{Answer, LockedPackage, LockedSuite, NotLocked, Pins};
use crate::store::{DerivedKey, StoreError};

/// The component that a request without components means.
const DEFAULT_COMPONENT: &str = "main";
/// What the store calls answers to questions.
const ANSWER_KIND: &str = "answer-1";
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

/// Which suite of which archive.
#[derive(Clone, Debug)]
pub struct SuiteRequest {
    /// The archive.
    pub mirror: Mirror,
    /// What a lock calls it; nothing for the Debian archive at hand.
    pub archive: String,
    /// Suite or codename.
    pub suite: String,
    /// `main` where there are none.
    pub components: Vec<String>,
    /// Debian's name of the architecture.
    pub architecture: String,
    /// Whether the architecture is not the one that recipes mean without naming it.
    pub named_architecture: bool,
    /// Further architectures that packages may have, for suites that have them.
    pub foreign: Vec<String>,
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

impl SuiteRequest {
    /// What a lock calls the suite's index.
    pub(crate) fn key(&self) -> String {
        format!("{} {}", self.suite, self.archive)
            .trim_end()
            .to_owned()
    }

    /// The suite in a question: with what its answer depends on besides.
    fn in_question(&self) -> String {
        let mut text = self.key();
        if self.components.iter().any(|name| name != DEFAULT_COMPONENT) {
            text.push_str(&format!(" ({})", self.components.join(" ")));
        }
        if let Some(priority) = self.priority {
            text.push_str(&format!(" at {priority}"));
        }
        if self.named_architecture {
            text.push_str(&format!(" for {}", self.architecture));
        }
        if !self.foreign.is_empty() {
            text.push_str(&format!(" with {}", self.foreign.join(" ")));
        }
        text
    }
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
    /// Packages that are not taken, whatever others say.
    pub exclude: Vec<String>,
}

impl Selection {
    fn question(&self) -> String {
        let mut parts = vec![match self.variant {
            Variant::Minimal => "minimal",
            Variant::Essential => "essential",
            Variant::Nothing => "nothing",
        }];
        parts.extend(self.packages.iter().map(String::as_str));
        if self.recommends {
            parts.push("what is recommended");
        }
        let without = self.exclude.iter().map(|name| format!("without {name}"));
        let without: Vec<String> = without.collect();
        parts.extend(without.iter().map(String::as_str));
        parts.join(", ")
    }
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
    /// What a lock calls its suite.
    pub suite: String,
    /// Where it is in its archive.
    pub path: String,
    /// Where the .deb is and how it is known.
    pub download: Download,
}

impl SelectedPackage {
    fn locked(&self) -> LockedPackage {
        LockedPackage {
            name: self.name.clone(),
            version: self.version.clone(),
            architecture: self.architecture.clone(),
            suite: self.suite.clone(),
            path: self.path.clone(),
            size: self.download.size_bytes.unwrap_or_default(),
            sha256: self.download.digest,
        }
    }

    /// The package as one line that pins it: `libc6 2.41-12 amd64 sha256:…`.
    #[must_use]
    pub fn pin(&self) -> String {
        format!(
            "{} {} {} sha256:{}",
            self.name, self.version, self.architecture, self.download.digest
        )
    }
}

/// What a selection came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The packages, those that others depend on first.
    pub packages: Vec<SelectedPackage>,
    /// The names of those that were asked for, or are there anyway; the others are there for them.
    pub requested: Vec<String>,
}

/// What is known of a suite that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuiteFacts {
    /// The code name that its index says.
    pub codename: String,
    /// When the index was made, in seconds since 1970.
    pub date_seconds: i64,
    /// SHA-256 of the InRelease file.
    pub digest: Digest,
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

/// Candidates that a lock keeps, by name and architecture.
type Held<'a> = BTreeMap<(&'a str, &'a str), PackageId>;

/// What a question came to: packages or names.
type Found = (Vec<SelectedPackage>, Vec<String>);

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

    /// Goes to the archives.
    fn open_lists(&self) -> Result<Vec<SuiteFacts>, DebianError> {
        let (mut lists, mut facts) = (Vec::new(), Vec::new());
        for (request, release) in self.requests.iter().zip(self.releases()?) {
            let (of_suite, added) = self.add(request, release)?;
            if let Some(old) = self.pins.known_suite(&request.key())? {
                let digests = [old.inrelease].into_iter().chain(old.older.iter().copied());
                for digest in digests.filter(|digest| *digest != of_suite.digest) {
                    lists.extend(self.old_lists(request, digest));
                }
            }
            lists.extend(added);
            facts.push(of_suite);
        }
        self.saw(&facts);
        lists.extend(self.extra.iter().map(ExtraDeb::list));
        // Whoever was first has the same.
        self.lists.get_or_init(|| lists);
        Ok(facts)
    }

    fn lists(&self) -> Result<&[PackageList], DebianError> {
        if self.lists.get().is_none() {
            self.open_lists()?;
        }
        Ok(self.lists.get().map_or(&[], Vec::as_slice))
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

    /// What an old lock holds of the lists of one of its indices, as far as these can still be had:
    /// an archive forgets its old versions.
    fn old_lists(&self, request: &SuiteRequest, index: Digest) -> Vec<PackageList> {
        let is_there = matches!(self.fetcher.store().blob(&index), Ok(Some(_)));
        if !is_there {
            return Vec::new();
        }
        let request = SuiteRequest {
            pinned: Some(index),
            ..request.clone()
        };
        let release = self.open_release(&request);
        let added = release.and_then(|release| self.add(&request, &release));
        let Ok((_, mut lists)) = added else {
            return Vec::new();
        };
        for list in &mut lists {
            let held = self.pins.held(&list.key);
            list.keep(|package| held.iter().any(|held| package.is(held)));
        }
        lists
    }

    fn is_live(&self) -> bool {
        self.pins.used().is_none() && !self.pins.is_making()
    }

    fn open_release(&self, request: &SuiteRequest) -> Result<VerifiedRelease, DebianError> {
        let release = open_suite(self.fetcher, request)?;
        if release.expired {
            let message = format!(
                "the index of suite '{}' has expired; the host's apt configuration allows that",
                request.suite
            );
            let message = &message;
            self.observer.event(&Event::Warning { message });
        }
        Ok(release)
    }

    fn releases(&self) -> Result<&[VerifiedRelease], DebianError> {
        if self.releases.get().is_none() {
            let requests = self.requests.iter();
            let opened = requests.map(|request| self.open_release(request));
            let opened = opened.collect::<Result<_, _>>()?;
            // Whoever was first has the same.
            self.releases.get_or_init(|| opened);
        }
        Ok(self.releases.get().map_or(&[], Vec::as_slice))
    }

    fn add(
        &self,
        request: &SuiteRequest,
        release: &VerifiedRelease,
    ) -> Result<(SuiteFacts, Vec<PackageList>), DebianError> {
        let (fetcher, observer) = (self.fetcher, self.observer);
        let default = [DEFAULT_COMPONENT.to_owned()];
        let components = match request.components.as_slice() {
            [] => &default,
            some => some,
        };
        let from = ListRequest {
            release,
            mirror: &request.mirror.url,
            suite: &request.suite,
            key: &request.key(),
            architecture: self.architecture(),
            priority: request
                .priority
                .unwrap_or_else(|| release.release.default_priority()),
        };
        let mut lists = Vec::new();
        for component in components {
            lists.push(fetch_list(fetcher, &from, component, observer)?);
            for architecture in &request.foreign {
                let from = ListRequest {
                    architecture,
                    ..from
                };
                match fetch_list(fetcher, &from, component, observer) {
                    // Not every archive has what Debian has.
                    Err(PackagesError::NoComponent { .. }) => {}
                    list => lists.push(list?),
                }
            }
        }
        Ok((facts_of(release), lists))
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

    /// Has a question answered by the lock, or by the lists, and remembers the answer.
    fn ask(
        &self,
        question: &str,
        live: impl FnOnce(&Universe<'_>, &Held<'_>) -> Result<Found, DebianError>,
    ) -> Result<Found, DebianError> {
        let suites = self.requests.iter().map(SuiteRequest::in_question);
        let extra = self.extra.iter().map(|deb| {
            let digest = deb.package.download.digest;
            format!("{} sha256:{digest}", extra::KEY)
        });
        let suites: Vec<String> = suites.chain(extra).collect();
        let question = format!("{}: {question}", suites.join(" + "));
        let (packages, names) = match self.pins.known_answer(&question)? {
            Some(known) => {
                let packages = known.packages.iter().map(|package| self.unlocked(package));
                (packages.collect::<Result<_, _>>()?, known.names.clone())
            }
            None => match self.answered_before(&question)? {
                Some(found) => found,
                None => {
                    let universe = Universe::new(self.lists()?)?;
                    let found = live(&universe, &self.held(&universe))?;
                    self.keep_answer(&question, &found)?;
                    found
                }
            },
        };
        let downloads = packages.iter().map(|package| package.download.clone());
        self.pins.wants(downloads);
        self.pins.saw(Answer {
            question,
            packages: packages.iter().map(SelectedPackage::locked).collect(),
            names: names.clone(),
        });
        Ok((packages, names))
    }

    /// What an answer is found by: the question with the indices that it was asked. Where a lock is
    /// made, an old one counts too, and nothing is kept.
    fn answer_key(&self, question: &str) -> Option<DerivedKey<'static>> {
        if !self.is_live() {
            return None;
        }
        let mut record = Record::new("coop answer");
        record.put("coop", env!("COOP_CODE").as_bytes());
        record.put("architecture", self.architecture().as_bytes());
        record.put("question", question.as_bytes());
        for facts in &self.facts {
            record.put("index", facts.digest.as_bytes());
        }
        for architecture in self.requests.iter().flat_map(|one| &one.foreign) {
            record.put("foreign", architecture.as_bytes());
        }
        Some(DerivedKey {
            kind: ANSWER_KIND,
            input: record.finish(),
        })
    }

    /// The answer of an earlier time, when the archives had the same indices.
    fn answered_before(&self, question: &str) -> Result<Option<Found>, DebianError> {
        let Some(key) = self.answer_key(question) else {
            return Ok(None);
        };
        let store = self.fetcher.store();
        if !store.is_derived_whole(key)? {
            return Ok(None);
        }
        let Some(file) = store.derived(key)? else {
            return Ok(None);
        };
        let Ok(answer) = serde_json::from_reader::<_, Answer>(BufReader::new(file)) else {
            return Ok(None);
        };
        let packages = answer.packages.iter();
        let packages = packages.map(|package| self.unlocked(package));
        let packages = packages.collect::<Result<_, _>>();
        Ok(packages.ok().map(|packages| (packages, answer.names)))
    }

    fn keep_answer(&self, question: &str, found: &Found) -> Result<(), DebianError> {
        let Some(key) = self.answer_key(question) else {
            return Ok(());
        };
        let (packages, names) = found;
        let answer = Answer {
            question: question.to_owned(),
            packages: packages.iter().map(SelectedPackage::locked).collect(),
            names: names.clone(),
        };
        let bytes = serde_json::to_vec(&answer).map_err(|error| StoreError::Io(error.into()))?;
        let store = self.fetcher.store();
        let mut file = store.temp_file()?;
        file.write_all(&bytes)
            .map_err(|error| store.explain(error))?;
        store.publish_derived(file, key)?;
        Ok(())
    }

    /// Where the packages are that the old lock holds, as far as they still are.
    fn held<'u>(&self, universe: &Universe<'u>) -> Held<'u> {
        let mut held = Held::new();
        for request in &self.requests {
            let key = request.key();
            for wanted in self.pins.held(&key) {
                let mut named = universe.named(&wanted.name).iter().copied();
                let found = named
                    .find(|id| universe.list(*id).key == key && universe.package(*id).is(wanted));
                if let Some(id) = found {
                    let package = universe.package(id);
                    held.entry((package.name, package.architecture))
                        .or_insert(id);
                }
            }
        }
        held
    }

    /// A package of the lock, to be fetched from where its suite is.
    fn unlocked(&self, package: &LockedPackage) -> Result<SelectedPackage, DebianError> {
        if package.suite == extra::KEY {
            let mut known = self.extra.iter().map(|deb| &deb.package);
            let known = known.find(|known| known.locked() == *package);
            return known
                .cloned()
                .ok_or_else(|| NotLocked(format!("the file {}", package.path)).into());
        }
        let mut requests = self.requests.iter();
        let request = requests.find(|request| request.key() == package.suite);
        let request = request.ok_or_else(|| NotLocked(format!("suite {}", package.suite)))?;
        Ok(SelectedPackage {
            name: package.name.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
            suite: package.suite.clone(),
            path: package.path.clone(),
            download: Download {
                url: join_url(&request.mirror.url, &package.path),
                digest: package.sha256,
                size_bytes: Some(package.size),
            },
        })
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

fn facts_of(release: &VerifiedRelease) -> SuiteFacts {
    SuiteFacts {
        codename: release.release.codename.clone(),
        date_seconds: release.release.date_seconds,
        digest: release.digest,
    }
}

/// Fetches or finds the index of a suite, and verifies it.
///
/// # Errors
/// [`DebianError::Keys`] or [`DebianError::Release`].
pub(crate) fn open_suite(
    fetcher: &Fetcher,
    request: &SuiteRequest,
) -> Result<VerifiedRelease, DebianError> {
    let own;
    let (keyring, origins) = match &request.keyring {
        Some(keyring) => (keyring, &[][..]),
        None => {
            own = Keyring::debian()?;
            (&own, DEBIAN_ORIGINS)
        }
    };
    let request = ReleaseRequest {
        mirror: &request.mirror.url,
        suite: &request.suite,
        keyring,
        origins,
        now_seconds: request.now_seconds,
        check_valid_until: request.mirror.check_valid_until,
        pinned: request.pinned,
        snapshot_seconds: request.mirror.snapshot.as_ref().map(|one| one.seconds),
    };
    Ok(open_release(fetcher, &request)?)
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
