//! What the libraries tell whoever watches: one enum, one trait, no printing.

use std::time::{Duration, Instant};

/// What a count of progress counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: packages, files.
    Items,
}

/// Something worth telling a person or a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A piece of work has begun. Tasks with the same name do not overlap.
    TaskStarted {
        /// A short noun phrase, unique while the task runs: `download packages`.
        task: &'a str,
        /// How much there is to do, where it is known.
        total: Option<u64>,
        /// What `total` counts.
        unit: Unit,
    },
    /// The task has come this far, counted from its start.
    TaskProgress {
        /// The task's name.
        task: &'a str,
        /// Done so far.
        done: u64,
    },
    /// The task is over; whether it went well shows in what its caller returns.
    TaskFinished {
        /// The task's name.
        task: &'a str,
        /// How long it took.
        elapsed: Duration,
    },
    /// A line of a guest's output during a build.
    GuestLine {
        /// The line without its end.
        line: &'a str,
    },
    /// Something that a person should know though the work goes on.
    Warning {
        /// A lowercase sentence.
        message: &'a str,
    },
    /// Something that a person may like to know.
    Note {
        /// A lowercase sentence.
        message: &'a str,
    },
}

/// Receives [`Event`]s, from any thread. It must not block for long.
pub trait Observer: Send + Sync {
    /// Takes one event.
    fn event(&self, event: &Event<'_>);

    /// Whether whoever watches has called the work off. Long work looks now and then, and then
    /// ends with an error, cleaned up as after any other. Once true it stays true.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Does a piece of work that has no count, and tells the observer when it begins and ends.
pub fn task<T>(observer: &dyn Observer, name: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    observer.event(&Event::TaskStarted {
        task: name,
        total: None,
        unit: Unit::Items,
    });
    let result = work();
    observer.event(&Event::TaskFinished {
        task: name,
        elapsed: started.elapsed(),
    });
    result
}

/// An observer that watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: &Event<'_>) {}
}
