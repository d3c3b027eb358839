//! How a machine ended, and what it took.

use std::collections::BTreeMap;
use std::time::Duration;

use coop_driver::transport::DeviceReport;
use coop_guest::message::Exit;

/// Why a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was shut down after a command, whose end this is.
    Exited(Exit),
    /// It powered off.
    PoweredOff,
    /// Its kernel panicked.
    Panic(String),
    /// The host killed it, as it was told.
    Stopped,
    /// A signal ended it that coop did not send.
    Killed(i32),
    /// It ran for longer than it may.
    TimedOut,
    /// A device failed.
    DeviceFailed {
        /// The device.
        device: String,
        /// Why.
        why: String,
    },
    /// Its agent broke the protocol.
    AgentFailed(String),
    /// It did not come up.
    BootFailed(String),
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(Exit::Code(code)) => write!(f, "the command exited with code {code}"),
            Self::Exited(Exit::Signal(signal)) => write!(f, "signal {signal} ended the command"),
            Self::PoweredOff => write!(f, "the guest powered off"),
            Self::Panic(text) => write!(f, "the guest's kernel panicked: {text}"),
            Self::Stopped => write!(f, "the guest was stopped"),
            Self::Killed(signal) => write!(f, "signal {signal} ended the guest's process"),
            Self::TimedOut => write!(f, "the guest ran for longer than it may"),
            Self::DeviceFailed { device, why } => write!(f, "device {device} failed: {why}"),
            Self::AgentFailed(why) => write!(f, "the guest's agent failed: {why}"),
            Self::BootFailed(why) => write!(f, "the guest did not boot: {why}"),
        }
    }
}

/// A point in a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The guest's process runs.
    Process,
    /// Its kernel has said something.
    Kernel,
    /// The agent runs.
    Agent,
    /// The kernel's modules are loaded.
    Modules,
    /// The root file system is mounted.
    Root,
    /// Commands can be run; in init mode the real init starts.
    Ready,
    /// The first command was asked for.
    Command,
    /// The last command so far has ended.
    Exited,
    /// The guest was asked to power off.
    ShutDown,
    /// Its file systems are unmounted.
    Unmounted,
    /// Its process has ended.
    Ended,
}

impl Phase {
    /// A word for it, as the report in JSON has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Kernel => "kernel",
            Self::Agent => "agent",
            Self::Modules => "modules",
            Self::Root => "root",
            Self::Ready => "ready",
            Self::Command => "command",
            Self::Exited => "exited",
            Self::ShutDown => "shut_down",
            Self::Unmounted => "unmounted",
            Self::Ended => "ended",
        }
    }
}

/// Brings phases into the order of a machine's life, each once, with its last time.
///
/// Several threads note them, each a little after the fact, so a time may lie behind that of a
/// phase that came after it; such a phase was reached no later than that one.
pub(crate) fn in_order(noted: Vec<(Phase, Duration)>) -> Vec<(Phase, Duration)> {
    let last: BTreeMap<Phase, Duration> = noted.into_iter().collect();
    let mut phases: Vec<_> = last.into_iter().collect();
    let mut bound = Duration::MAX;
    for (_, time) in phases.iter_mut().rev() {
        *time = bound.min(*time);
        bound = *time;
    }
    phases
}

/// What is known after a machine's end.
#[derive(Clone, Debug)]
pub struct Report {
    /// Why it ended.
    pub cause: Cause,
    /// Whether every file system was left clean; nothing where the agent did not say.
    pub clean: Option<bool>,
    /// When it came so far, counted from the start, in order.
    pub phases: Vec<(Phase, Duration)>,
    /// What each device counted.
    pub devices: Vec<(String, DeviceReport)>,
    /// The end of what the kernel said.
    pub kernel_log: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_in_the_order_of_life() {
        let at = Duration::from_millis;
        let noted = vec![
            (Phase::Kernel, at(2)),
            (Phase::Process, at(3)),
            (Phase::Exited, at(10)),
            (Phase::Exited, at(12)),
            (Phase::Ended, at(20)),
            (Phase::Unmounted, at(21)),
        ];
        let expected = [
            (Phase::Process, at(2)),
            (Phase::Kernel, at(2)),
            (Phase::Exited, at(12)),
            (Phase::Unmounted, at(20)),
            (Phase::Ended, at(20)),
        ];
        assert_eq!(in_order(noted), expected);
    }
}
