//! What names are taken from: the archives as they are now, or a lock; and what they were taken for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Answer, Lock, LockedFile, LockedPackage, LockedSuite};
use crate::digest::Digest;
use crate::fetch::Download;
use crate::inputs::FileDigests;

/// A recipe asks for what its lock does not answer: the recipe's matter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lock does not have {0}; coop lock asks the archives anew")]
pub struct NotLocked(pub String);

/// Where answers come from.
#[derive(Debug, Default)]
enum Mode {
    /// From the archives.
    #[default]
    Live,
    /// From the lock.
    Locked(Lock),
    /// From the old lock where the question is an old one, from the archives where it is new, or
    /// where something is to move: this makes a lock.
    Making { old: Lock, moves: BTreeSet<String> },
}

/// The lock that a build uses, if any, and the one that it would write.
#[derive(Debug, Default)]
pub struct Pins {
    mode: Mode,
    seen: Mutex<Lock>,
    /// What is behind the answers so far.
    downloads: Mutex<Vec<Download>>,
    files: Arc<FileDigests>,
}

impl Pins {
    /// Archives as they are now.
    #[must_use]
    pub fn live() -> Self {
        Self::default()
    }

    /// A lock, and nothing but it.
    #[must_use]
    pub fn locked(lock: Lock) -> Self {
        Self {
            mode: Mode::Locked(lock),
            ..Self::default()
        }
    }

    /// For making a lock: what `old` has stays as it is there, but for what `moves` names.
    #[must_use]
    pub fn making(old: Lock, moves: BTreeSet<String>) -> Self {
        Self {
            mode: Mode::Making { old, moves },
            ..Self::default()
        }
    }

    /// These, with what others know of the host's files.
    #[must_use]
    pub(crate) fn with_files_of(self, others: &Self) -> Self {
        Self {
            files: Arc::clone(&others.files),
            ..self
        }
    }

    /// What the host's files are.
    #[must_use]
    pub fn files(&self) -> &FileDigests {
        &self.files
    }

    /// The lock that is used.
    #[must_use]
    pub fn used(&self) -> Option<&Lock> {
        match &self.mode {
            Mode::Locked(lock) => Some(lock),
            Mode::Live | Mode::Making { .. } => None,
        }
    }

    /// Whether this makes a lock: then what nobody has named by a digest may be looked at.
    #[must_use]
    pub fn is_making(&self) -> bool {
        matches!(self.mode, Mode::Making { .. })
    }

    /// What has to be fetched for the answers so far, each once, in the order of the questions.
    #[must_use]
    pub fn downloads(&self) -> Vec<Download> {
        let mut known = BTreeSet::new();
        let mut downloads = self.wanted().clone();
        downloads.retain(|download| known.insert(download.digest));
        downloads
    }

    /// Remembers what is behind an answer.
    pub(crate) fn wants(&self, downloads: impl IntoIterator<Item = Download>) {
        self.wanted().extend(downloads);
    }

    /// Forgets what is behind the answers since [`Pins::downloads`] gave these.
    pub(crate) fn wants_only(&self, downloads: Vec<Download>) {
        *self.wanted() = downloads;
    }

    fn wanted(&self) -> MutexGuard<'_, Vec<Download>> {
        let wanted = self.downloads.lock();
        wanted.unwrap_or_else(PoisonError::into_inner)
    }

    /// All that was asked so far, in the lock's order.
    #[must_use]
    pub fn seen(&self) -> Lock {
        let mut lock = self.lock().clone();
        lock.suites.sort_by(|left, right| left.key.cmp(&right.key));
        lock.answers
            .sort_by(|left, right| left.question.cmp(&right.question));
        lock.files.sort_by(|left, right| left.name.cmp(&right.name));
        lock
    }

    /// Says what a file is known by that the recipe names, with a digest (`expected`) or without:
    /// what the lock has, or what `live` says.
    ///
    /// # Errors
    /// [`NotLocked`] where the lock does not have it, or another than is expected; those of `live`.
    pub fn file<E: From<NotLocked>>(
        &self,
        name: &str,
        expected: Option<Digest>,
        live: impl FnOnce() -> Result<(Option<u64>, Digest), E>,
    ) -> Result<LockedFile, E> {
        let fits = |file: &&LockedFile| {
            file.name == name && expected.is_none_or(|expected| file.sha256 == expected)
        };
        let what = || match expected {
            Some(digest) => format!("{name} with sha256 {digest}"),
            None => name.to_owned(),
        };
        let known = self
            .known(what, |lock| lock.files.iter().find(fits))?
            .filter(|_| !self.moves(|moving| moving == name));
        let file = match known {
            Some(file) => file.clone(),
            None => {
                let (size, sha256) = live()?;
                LockedFile {
                    name: name.to_owned(),
                    size,
                    sha256,
                }
            }
        };
        let mut seen = self.lock();
        if seen.files.iter().all(|known| known.name != name) {
            seen.files.push(file.clone());
        }
        drop(seen);
        Ok(file)
    }

    /// Has a question answered that is not about packages: by the lock, or by `live`.
    ///
    /// # Errors
    /// [`NotLocked`] where the lock does not answer it; those of `live`.
    pub fn names<E: From<NotLocked>>(
        &self,
        question: &str,
        live: impl FnOnce() -> Result<Vec<String>, E>,
    ) -> Result<Vec<String>, E> {
        let names = match self.known_names(question)? {
            Some(names) => names,
            None => live()?,
        };
        self.saw_names(question, &names);
        Ok(names)
    }

    /// What a lock answers to a question that is not about packages; nothing where it is not to be
    /// answered by one.
    ///
    /// # Errors
    /// [`NotLocked`].
    pub(crate) fn known_names(&self, question: &str) -> Result<Option<Vec<String>>, NotLocked> {
        let known = self.known(|| question.to_owned(), |lock| lock.answer(question))?;
        Ok(known.map(|answer| answer.names.clone()))
    }

    /// Remembers an answer that is not about packages.
    pub(crate) fn saw_names(&self, question: &str, names: &[String]) {
        self.saw(Answer {
            question: question.to_owned(),
            packages: Vec::new(),
            names: names.to_vec(),
        });
    }

    /// Forgets what was asked since [`Pins::seen`] gave this: a way that led nowhere.
    pub(crate) fn restore(&self, seen: Lock) {
        *self.lock() = seen;
    }

    /// What a lock has of a suite; nothing where it is not to be looked up in one.
    pub(crate) fn known_suite(&self, key: &str) -> Result<Option<&LockedSuite>, NotLocked> {
        self.known(
            || format!("suite {key}"),
            |lock| lock.suites.iter().find(|suite| suite.key == key),
        )
    }

    /// What a lock answers to a question about packages; nothing where the archives are to.
    pub(crate) fn known_answer(&self, question: &str) -> Result<Option<&Answer>, NotLocked> {
        let known = self.known(|| question.to_owned(), |lock| lock.answer(question))?;
        Ok(known.filter(|answer| !self.moves(|name| answer.is_about(name))))
    }

    /// What the lock that is used has, or the old one; nothing where the archives are to say it.
    fn known<'a, T>(
        &'a self,
        what: impl FnOnce() -> String,
        find: impl FnOnce(&'a Lock) -> Option<T>,
    ) -> Result<Option<T>, NotLocked> {
        match &self.mode {
            Mode::Live => Ok(None),
            Mode::Making { old, .. } => Ok(find(old)),
            Mode::Locked(lock) => match find(lock) {
                None => Err(NotLocked(what())),
                known => Ok(known),
            },
        }
    }

    /// Whether something like this is to move.
    fn moves(&self, is_about: impl Fn(&str) -> bool) -> bool {
        matches!(&self.mode, Mode::Making { moves, .. } if moves.iter().any(|name| is_about(name)))
    }

    /// The packages of a suite that the old lock has and that are not to move.
    pub(crate) fn held(&self, suite: &str) -> Vec<&LockedPackage> {
        let Mode::Making { old, moves } = &self.mode else {
            return Vec::new();
        };
        let packages = old.answers.iter().flat_map(|answer| &answer.packages);
        packages
            .filter(|package| package.suite == suite && !moves.contains(&package.name))
            .collect()
    }

    /// Remembers a suite; the same one is asked several questions. Where some of a lock stays and
    /// some moves, the newer index counts, and the older ones are remembered behind it.
    pub(crate) fn saw_suite(&self, suite: LockedSuite) {
        let known = match &self.mode {
            Mode::Live => None,
            Mode::Locked(old) | Mode::Making { old, .. } => {
                old.suites.iter().find(|known| known.key == suite.key)
            }
        };
        let suite = match known {
            Some(known) => suite.after(known),
            None => suite,
        };
        let mut seen = self.lock();
        match seen.suites.iter_mut().find(|seen| seen.key == suite.key) {
            None => seen.suites.push(suite),
            Some(seen) if known == Some(&*seen) => *seen = suite,
            Some(_) => {}
        }
    }

    /// Remembers an answer.
    pub(crate) fn saw(&self, answer: Answer) {
        let mut seen = self.lock();
        let known = |known: &Answer| known.question != answer.question;
        if seen.answers.iter().all(known) {
            seen.answers.push(answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lock> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Facts = Result<(Option<u64>, Digest), NotLocked>;

    fn live(text: &str) -> impl FnOnce() -> Facts {
        let digest = Digest::of(text.as_bytes());
        move || Ok((Some(1), digest))
    }

    fn refused() -> Facts {
        Err(NotLocked("nothing is to be asked".to_owned()))
    }

    #[test]
    fn files_are_those_of_the_lock() {
        let pins = Pins::live();
        let file = pins.file("b.tar", None, live("b")).unwrap();
        pins.file("a.tar", None, live("a")).unwrap();
        let lock = pins.seen();
        let names: Vec<&str> = lock.files.iter().map(|file| &*file.name).collect();
        assert_eq!(names, ["a.tar", "b.tar"]);
        let locked = Pins::locked(lock.clone());
        assert_eq!(locked.file("b.tar", None, refused), Ok(file.clone()));
        let known = Some(file.sha256);
        assert_eq!(locked.file("b.tar", known, refused), Ok(file.clone()));
        for (name, expected, part) in [
            ("c.tar", None, "c.tar;"),
            ("b.tar", Some(Digest::of(b"")), "b.tar with sha256 e3b0"),
        ] {
            let error = locked.file(name, expected, refused).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let making = |moves: &[&str]| {
            let moves = moves.iter().map(|name| (*name).to_owned()).collect();
            let pins = Pins::making(lock.clone(), moves);
            pins.file("b.tar", None, live("new")).unwrap().sha256
        };
        assert_eq!(making(&[]), file.sha256);
        assert_eq!(making(&["a.tar"]), file.sha256);
        assert_eq!(making(&["b.tar"]), Digest::of(b"new"));
    }

    #[test]
    fn names_are_those_of_the_lock() {
        let ask = |pins: &Pins, name: &str| {
            pins.names("which", || Ok::<_, NotLocked>(vec![name.to_owned()]))
        };
        let pins = Pins::live();
        assert_eq!(ask(&pins, "one").unwrap(), ["one"]);
        let lock = pins.seen();
        assert_eq!(ask(&Pins::locked(lock.clone()), "two").unwrap(), ["one"]);
        let making = Pins::making(lock, BTreeSet::new());
        assert_eq!(ask(&making, "two").unwrap(), ["one"]);
        assert!(ask(&Pins::locked(Lock::default()), "two").is_err());
    }
}
