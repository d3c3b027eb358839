//! What the observer sees of downloads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use coop_runtime::event::{Event, Observer, Unit};

use super::Download;

/// Adds up what the threads have received.
pub(super) struct Progress<'a> {
    task: &'a str,
    pub(super) observer: &'a dyn Observer,
    done: AtomicU64,
    started: Instant,
}

impl<'a> Progress<'a> {
    pub(super) fn start(
        downloads: &[Download],
        missing: &[usize],
        task: &'a str,
        observer: &'a dyn Observer,
    ) -> Self {
        let sizes = missing.iter().map(|index| downloads[*index].size_bytes);
        observer.event(&Event::TaskStarted {
            task,
            total: sizes.sum(),
            unit: Unit::Bytes,
        });
        Self {
            task,
            observer,
            done: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    pub(super) fn add(&self, count: i64) {
        let before = self
            .done
            .fetch_add(count.cast_unsigned(), Ordering::Relaxed);
        self.observer.event(&Event::TaskProgress {
            task: self.task,
            done: before.wrapping_add(count.cast_unsigned()),
        });
    }

    pub(super) fn finish(&self) {
        self.observer.event(&Event::TaskFinished {
            task: self.task,
            elapsed: self.started.elapsed(),
        });
    }
}
