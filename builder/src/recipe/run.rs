//! `rootfs.run`: from what was written to what it means.

use std::collections::{BTreeMap, BTreeSet};

use coop_runtime::DISKS_MAX;

use super::model::{RunAction, RunMount, RunStep, StepNetwork};
use super::names;
use super::resolve::Resolver;
use super::written;
use crate::guest::{ROOT_FOLDER, ROOT_USER};

/// The most mounts of one step: each is a disk of its guest, beside the root.
const MOUNTS_MAX: usize = DISKS_MAX - 1;
/// The most secrets of one step.
const SECRETS_MAX: usize = 16;

impl Resolver<'_, '_> {
    pub(super) fn run_step(&mut self, index: usize, written: written::RunStep) -> RunStep {
        let path = format!("rootfs.run[{index}]");
        let key = |key: &str| format!("{path}.{key}");
        let action = match written.action {
            written::RunAction::Command(line) => {
                if line.value.trim().is_empty() {
                    self.d.reject(line.at, &path, "nothing to run");
                }
                RunAction::Command(line.value)
            }
            written::RunAction::Script(script) => {
                RunAction::Script(self.host_file(script, &key("script")))
            }
        };
        let mut environment = BTreeMap::new();
        for (name, value) in written.environment {
            let name = self.checked(name, &key("environment"), names::variable);
            environment.insert(name, value.value);
        }
        let workdir = written.workdir.map_or(ROOT_FOLDER.to_owned(), |text| {
            self.checked(text, &key("workdir"), names::guest_folder)
        });
        RunStep {
            action,
            environment,
            user: written.user.map_or(ROOT_USER.to_owned(), |at| at.value),
            workdir,
            network: written.network.unwrap_or(StepNetwork::Default),
            mounts: self.mounts(written.mounts, &key("mounts")),
            secrets: self.secrets(written.secrets, &key("secrets")),
        }
    }

    fn mounts(&mut self, written: Vec<written::RunMount>, path: &str) -> Vec<RunMount> {
        let mut mounts: Vec<RunMount> = Vec::new();
        for (index, mount) in written.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            let at = mount.target.at;
            let target = self.checked(mount.target, &format!("{path}.target"), names::guest_path);
            if index == MOUNTS_MAX {
                let reason = format!("is more than {MOUNTS_MAX} mounts, coop's limit");
                self.d.reject(at, &path, reason);
            }
            let other = mounts.iter().find(|other| overlap(&other.target, &target));
            if let Some(other) = other {
                let reason = format!("lies within or around the mount at {}", other.target);
                self.d.reject(at, &format!("{path}.target"), reason);
            }
            mounts.push(RunMount {
                source: self.host_path(mount.source, &format!("{path}.source"), true),
                target,
            });
        }
        mounts
    }

    fn secrets(&mut self, written: Vec<super::decode::At<String>>, path: &str) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let mut secrets = Vec::new();
        for (index, name) in written.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            let at = name.at;
            if index == SECRETS_MAX {
                let reason = format!("is more than {SECRETS_MAX} secrets, coop's limit");
                self.d.reject(at, &path, reason);
            }
            let name = self.checked(name, &path, names::secret);
            self.once(&mut seen, name.clone(), at, &path);
            secrets.push(name);
        }
        secrets
    }
}

/// Whether one path is the other or lies below it.
fn overlap(left: &str, right: &str) -> bool {
    let below = |path: &str, top: &str| {
        path.strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below(left, right) || below(right, left)
}
