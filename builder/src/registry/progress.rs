//! What an observer sees of blobs that go or come.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use coop_runtime::event::{Event, Observer, Silent, Unit};

/// Adds up bytes; what was for nothing is taken off again.
pub(super) struct Progress<'a> {
    task: &'a str,
    observer: &'a dyn Observer,
    done: AtomicU64,
    called_off: AtomicBool,
    started: Instant,
}

impl<'a> Progress<'a> {
    pub(super) fn start(task: &'a str, total: u64, observer: &'a dyn Observer) -> Self {
        observer.event(&Event::TaskStarted {
            task,
            total: Some(total),
            unit: Unit::Bytes,
        });
        Self {
            task,
            observer,
            done: AtomicU64::new(0),
            called_off: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// Of what is too small to be told of.
    pub(super) fn silent() -> Progress<'static> {
        Progress::start("", 0, &Silent)
    }

    pub(super) fn add(&self, count: u64) {
        let done = self.done.fetch_add(count, Ordering::Relaxed);
        self.tell(done.wrapping_add(count));
    }

    pub(super) fn take_off(&self, count: u64) {
        let done = self.done.fetch_sub(count, Ordering::Relaxed);
        self.tell(done.wrapping_sub(count));
    }

    /// Whether nobody wants the rest any more.
    pub(super) fn is_cancelled(&self) -> bool {
        self.called_off.load(Ordering::Relaxed) || self.observer.is_cancelled()
    }

    /// What is under way ends soon, as where whoever watches has called it off.
    pub(super) fn call_off(&self) {
        self.called_off.store(true, Ordering::Relaxed);
    }

    fn tell(&self, done: u64) {
        self.observer.event(&Event::TaskProgress {
            task: self.task,
            done,
        });
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.observer.event(&Event::TaskFinished {
            task: self.task,
            elapsed: self.started.elapsed(),
        });
    }
}
