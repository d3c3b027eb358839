//! What a device counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one device since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceReport {
    /// Requests that the guest made, malformed ones included.
    pub requests: u64,
    /// Requests whose descriptors or layout no driver should produce; completed with length 0.
    pub malformed: u64,
    /// Requests that were understood and could not be carried out.
    pub failed: u64,
    /// Pieces of requests that lay in the guest kernel's image and were copied through its process.
    pub image: u64,
    /// Pieces that lay there and could not be reached.
    pub unreachable: u64,
    /// Interrupts sent to the guest.
    pub interrupts: u64,
    /// Rings that were stopped because their own structure was broken.
    pub broken_rings: u64,
    /// Control messages that were refused.
    pub refused_messages: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) image: AtomicU64,
    pub(crate) unreachable: AtomicU64,
    pub(crate) interrupts: AtomicU64,
    pub(crate) broken_rings: AtomicU64,
    pub(crate) refused_messages: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn report(&self) -> DeviceReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DeviceReport {
            requests: read(&self.requests),
            malformed: read(&self.malformed),
            failed: read(&self.failed),
            image: read(&self.image),
            unreachable: read(&self.unreachable),
            interrupts: read(&self.interrupts),
            broken_rings: read(&self.broken_rings),
            refused_messages: read(&self.refused_messages),
        }
    }
}
