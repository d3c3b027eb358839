//! Which processor a guest runs on.
//!
//! A guest's system call is two futex sleeps between the kernel's thread and its stub, which cost
//! four times as much across processors as on one; so a guest is pinned to one.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{CpuSet, sched_getaffinity};

/// How a guest is bound to processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pin {
    /// To one of the processors that this process may use: neighbours take turns.
    #[default]
    Automatic,
    /// To this one.
    Processor(usize),
    /// To none.
    Free,
}

/// The processor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// This process may not use it.
    #[error("processor {0} is not one that this process may use")]
    NotAllowed(usize),
    /// The host does not tell which processors there are.
    #[error("cannot ask which processors may be used: {0}")]
    Unknown(std::io::Error),
}

/// Guests started by this process.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// The processor for the next guest; none for [`Pin::Free`].
pub(super) fn choose(pin: Pin) -> Result<Option<usize>, ProcessorError> {
    let set = sched_getaffinity(None).map_err(|error| ProcessorError::Unknown(error.into()))?;
    match pin {
        Pin::Free => Ok(None),
        Pin::Processor(number) if number < CpuSet::MAX_CPU && set.is_set(number) => {
            Ok(Some(number))
        }
        Pin::Processor(number) => Err(ProcessorError::NotAllowed(number)),
        Pin::Automatic => {
            let turn = std::process::id().wrapping_add(STARTED.fetch_add(1, Ordering::Relaxed));
            Ok(nth(&set, turn))
        }
    }
}

fn nth(set: &CpuSet, turn: u32) -> Option<usize> {
    let count = set.count();
    if count == 0 {
        return None;
    }
    let skip = usize::try_from(turn % count).ok()?;
    (0..CpuSet::MAX_CPU)
        .filter(|&number| set.is_set(number))
        .nth(skip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_take_turns() {
        let mut set = CpuSet::new();
        assert_eq!(nth(&set, 7), None);
        for number in [1, 4, 900] {
            set.set(number);
        }
        let chosen: Vec<_> = (0..4).filter_map(|turn| nth(&set, turn)).collect();
        assert_eq!(chosen, [1, 4, 900, 1]);
    }

    #[test]
    fn a_processor_must_be_allowed() {
        let number = choose(Pin::Automatic).unwrap().unwrap();
        assert_eq!(choose(Pin::Processor(number)).unwrap(), Some(number));
        assert_eq!(choose(Pin::Free).unwrap(), None);
        assert!(choose(Pin::Processor(usize::MAX)).is_err());
    }
}
