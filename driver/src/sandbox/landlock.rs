//! Files, TCP and signals: Landlock rules for a guest's process.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};

use super::SandboxError;

/// The newest Landlock that this program knows.
const ABI_WANTED: ABI = ABI::V9;

/// The Landlock that has walls for files, TCP, device ioctls, signals and abstract sockets.
const ABI_FULL: ABI = ABI::V6;

/// What is allowed beneath a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading files and folders.
    Read,
    /// Reading and executing.
    Execute,
    /// Everything but executing.
    Write,
    /// Everything but making devices.
    Work,
}

/// A path and what is allowed beneath it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// A folder or file that exists.
    pub path: PathBuf,
    /// What is allowed there.
    pub access: Access,
}

/// Whether the host's kernel confines a guest with Landlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LandlockState {
    /// Files, TCP, device ioctls, signals and abstract sockets (Linux 6.12). Sockets with a path
    /// are walled off from Landlock's ninth version on.
    Full,
    /// Files at least; the host's kernel is too old for some of the others.
    Partial,
    /// The host's kernel has no Landlock, or it is switched off.
    Absent,
}

impl std::fmt::Display for LandlockState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "landlock confines the guest's process",
            Self::Partial => {
                "the host's kernel is older than 6.12: landlock confines the guest's process to its \
                 files, but not all of its TCP connections, signals and abstract sockets"
            }
            Self::Absent => {
                "the host's kernel has no landlock: the guest's process can reach every file that \
                 this user can"
            }
        })
    }
}

fn rights(access: Access, is_file: bool) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let all = match access {
        Access::Read => read,
        Access::Execute => read | AccessFs::Execute,
        Access::Write => AccessFs::from_all(ABI_WANTED) & !AccessFs::Execute,
        Access::Work => {
            AccessFs::from_all(ABI_WANTED) & !(AccessFs::MakeChar | AccessFs::MakeBlock)
        }
    };
    if is_file {
        all & AccessFs::from_file(ABI_WANTED)
    } else {
        all
    }
}

/// The rules as a descriptor for the child to be put under; none where the host has no Landlock.
pub(crate) fn ruleset(
    rules: &[PathRule],
) -> Result<(Option<OwnedFd>, LandlockState), SandboxError> {
    let failed = |error: landlock::RulesetError| SandboxError::Landlock(error.to_string());
    let state = landlock_state();
    if state == LandlockState::Absent {
        return Ok((None, state));
    }
    let mut created = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI_WANTED))
        .and_then(|set| set.handle_access(AccessNet::from_all(ABI_WANTED)))
        .and_then(|set| set.scope(Scope::from_all(ABI_WANTED)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    for rule in rules {
        let path = rule.path.clone();
        let unreachable = |reason: String| SandboxError::Path {
            path: path.clone(),
            reason,
        };
        let metadata = fs_err::metadata(&path).map_err(|error| unreachable(error.to_string()))?;
        let opened = PathFd::new(&path).map_err(|error| unreachable(error.to_string()))?;
        let rights = rights(rule.access, !metadata.is_dir());
        created = created
            .add_rule(PathBeneath::new(opened, rights))
            .map_err(failed)?;
    }
    Ok((created.into(), state))
}

/// What the running kernel offers, found by asking for it.
#[must_use]
pub fn landlock_state() -> LandlockState {
    let all = |level| {
        Ruleset::default()
            .set_compatibility(level)
            .handle_access(AccessFs::from_all(ABI_FULL))
            .and_then(|set| set.handle_access(AccessNet::from_all(ABI_FULL)))
            .and_then(|set| set.scope(Scope::from_all(ABI_FULL)))
            .and_then(Ruleset::create)
    };
    if all(CompatLevel::HardRequirement).is_ok() {
        return LandlockState::Full;
    }
    let best: Option<OwnedFd> = all(CompatLevel::BestEffort).ok().and_then(Into::into);
    if best.is_some() {
        LandlockState::Partial
    } else {
        LandlockState::Absent
    }
}
