//! Work that is watched, and that the first signal calls off.

use std::sync::Arc;

use coop_runtime::event::Observer;

use crate::arguments::Progress;
use crate::failure::Failure;
use crate::render::progress::{self, Interruptible};
use crate::render::{Output, line};
use crate::signals::Interruption;

/// Begins to hear signals, for work that looks whether it was called off.
pub(super) fn interruption() -> Result<Interruption, Failure> {
    Interruption::start(|| line("stopping; a second signal ends at once"))
        .map_err(|error| Failure::work(&error))
}

/// Who watches, and whether a signal was heard. While it lives, signals end nothing by themselves.
pub(super) struct Watched {
    /// Who watches.
    pub(super) observer: Arc<dyn Observer>,
    interruption: Interruption,
}

impl Watched {
    /// Begins to hear signals.
    pub(super) fn start(how: Progress, output: &Output) -> Result<Self, Failure> {
        Self::with(progress::observer(how, output))
    }

    /// As [`Watched::start`], for work before a guest whose streams are its own.
    pub(super) fn start_quietly(how: Progress) -> Result<Self, Failure> {
        Self::with(progress::quiet_observer(how))
    }

    fn with(inner: Box<dyn Observer>) -> Result<Self, Failure> {
        let interruption = interruption()?;
        let heard = interruption.flag();
        Ok(Self {
            observer: Arc::new(Interruptible { inner, heard }),
            interruption,
        })
    }

    /// The failure of work that a signal has called off: whatever failed then failed because of it.
    pub(super) fn stopped(&self, message: &str) -> Option<Failure> {
        let signal = self.interruption.signal()?;
        Some(Failure::sentence(signal.shell_code(), message))
    }
}
