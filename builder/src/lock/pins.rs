//! What names are taken from: the archives as they are now, or a lock; and what they were taken for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Answer, Lock, LockedSuite};

/// The lock that a build uses, if any, and the one that it would write.
#[derive(Debug, Default)]
pub struct Pins {
    used: Option<Lock>,
    seen: Mutex<Lock>,
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
            used: Some(lock),
            seen: Mutex::default(),
        }
    }

    /// The lock that is used.
    #[must_use]
    pub fn used(&self) -> Option<&Lock> {
        self.used.as_ref()
    }

    /// All that was asked so far, in the lock's order.
    #[must_use]
    pub fn seen(&self) -> Lock {
        let mut lock = self.lock().clone();
        lock.suites.sort_by(|left, right| left.key.cmp(&right.key));
        lock.answers
            .sort_by(|left, right| left.question.cmp(&right.question));
        lock
    }

    /// Remembers a suite; the same one is asked several questions.
    pub(crate) fn saw_suite(&self, suite: LockedSuite) {
        let mut seen = self.lock();
        if seen.suites.iter().all(|known| known.key != suite.key) {
            seen.suites.push(suite);
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
