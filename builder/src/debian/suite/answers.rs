//! Where an answer comes from: the lock, an earlier time with the same indices, or the lists.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};

use super::{DebianError, SelectedPackage, SuiteRequest, Suites};
use crate::debian::extra;
use crate::debian::mirror::join_url;
use crate::debian::packages::{PackageId, Universe};
use crate::fetch::Download;
use crate::inputs::Record;
use crate::lock::{Answer, LockedPackage, NotLocked};
use crate::store::{DerivedKey, StoreError};

/// What the store calls answers to questions.
const ANSWER_KIND: &str = "answer-1";

/// Candidates that a lock keeps, by name and architecture.
pub(super) type Held<'a> = BTreeMap<(&'a str, &'a str), PackageId>;

/// What a question came to: packages or names.
pub(super) type Found = (Vec<SelectedPackage>, Vec<String>);

impl Suites<'_> {
    /// Has a question answered by the lock, or by the lists, and remembers the answer.
    pub(super) fn ask(
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
        let found = match self.pins.known_answer(&question)? {
            Some(known) => self.found(known)?,
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
        let downloads = found.0.iter().map(|package| package.download.clone());
        self.pins.wants(downloads);
        self.pins.saw(answer(&question, &found));
        Ok(found)
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
        Ok(self.found(&answer).ok())
    }

    fn keep_answer(&self, question: &str, found: &Found) -> Result<(), DebianError> {
        let Some(key) = self.answer_key(question) else {
            return Ok(());
        };
        let bytes = serde_json::to_vec(&answer(question, found))
            .map_err(|error| StoreError::Io(error.into()))?;
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

    fn found(&self, answer: &Answer) -> Result<Found, DebianError> {
        let packages = answer.packages.iter();
        let packages = packages.map(|package| self.unlocked(package));
        Ok((packages.collect::<Result<_, _>>()?, answer.names.clone()))
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
}

fn answer(question: &str, (packages, names): &Found) -> Answer {
    Answer {
        question: question.to_owned(),
        packages: packages.iter().map(SelectedPackage::locked).collect(),
        names: names.clone(),
    }
}
