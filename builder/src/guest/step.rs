//! One thing to do in a guest, and everything about it that can change its result.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fs_err as fs;

use super::mounts::MountError;
use crate::digest::Digest;
use crate::inputs::FileDigests;
use crate::recipe::{RunAction, RunStep, StepNetwork};

/// The user of a step that names none.
pub const ROOT_USER: &str = "root";
/// The folder that a step starts in if it names none.
pub const ROOT_FOLDER: &str = "/";

/// Something to do in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is, for messages: `run: apt-get install nginx`.
    pub name: String,
    /// A program with its interpreter line.
    pub script: Vec<u8>,
    /// Variables on top of the guest's own.
    pub environment: BTreeMap<String, String>,
    /// Who runs it, and behind a colon with which group: names as the guest's tables know them, or
    /// numbers.
    pub user: String,
    /// The folder that it starts in; it must be there.
    pub workdir: String,
    /// What it reaches.
    pub network: Network,
    /// What it sees of the host.
    pub mounts: Vec<Mount>,
    /// Names of the secrets that it gets; their values are in [`super::GuestContext`].
    pub secrets: Vec<String>,
}

/// What a step reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Nothing but the guest's own loopback.
    #[default]
    Off,
    /// Packages of the recipe's suites, as the build knows these suites.
    Packages,
    /// What the host's user reaches, but not the host itself.
    World,
}

impl Network {
    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Packages => "packages",
            Self::World => "world",
        }
    }
}

/// A file or folder of the host that a step sees, read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where the step sees it: an absolute path.
    pub target: String,
    /// Its content with names and kinds, as [`super::digest_of_source`] says.
    pub digest: Digest,
}

impl Step {
    /// A step of the build itself: as root, in the root folder, with no network.
    #[must_use]
    pub fn new(name: &str, script: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            script,
            environment: BTreeMap::new(),
            user: ROOT_USER.to_owned(),
            workdir: ROOT_FOLDER.to_owned(),
            network: Network::Off,
            mounts: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// A step of a recipe. `locked` says whether the build has a lock.
    ///
    /// # Errors
    /// A file of the host that the step needs cannot be read.
    pub fn of_recipe(
        step: &RunStep,
        locked: bool,
        files: &FileDigests,
    ) -> Result<Self, MountError> {
        let (name, script) = match &step.action {
            RunAction::Command(line) => (
                format!("run: {line}"),
                format!("#!/bin/sh\nexport DEBIAN_FRONTEND=noninteractive\n{line}\n").into_bytes(),
            ),
            RunAction::Script(file) => (format!("run: {}", file.written), fs::read(&file.path)?),
        };
        let mount = |mount: &crate::recipe::RunMount| {
            Ok(Mount {
                source: mount.source.path.clone(),
                target: mount.target.clone(),
                digest: files.mount(&mount.source.path)?,
            })
        };
        let network = match step.network {
            StepNetwork::Default if locked => Network::Packages,
            StepNetwork::Default | StepNetwork::World => Network::World,
            StepNetwork::Packages => Network::Packages,
            StepNetwork::Off => Network::Off,
        };
        Ok(Self {
            environment: step.environment.clone(),
            user: step.user.clone(),
            workdir: step.workdir.clone(),
            network,
            mounts: step
                .mounts
                .iter()
                .map(mount)
                .collect::<Result<_, MountError>>()?,
            secrets: step.secrets.clone(),
            ..Self::new(&name, script)
        })
    }

    /// Name and value of everything of the step that can change what it leaves, in a fixed order,
    /// but for the archives that a network reaches. Of a secret that is its name: another value is
    /// the same step.
    #[must_use]
    pub fn fields(&self) -> Vec<(String, String)> {
        let mut fields = vec![
            ("script".to_owned(), Digest::of(&self.script).to_string()),
            ("user".to_owned(), self.user.clone()),
            ("workdir".to_owned(), self.workdir.clone()),
            ("network".to_owned(), self.network.name().to_owned()),
        ];
        for (name, value) in &self.environment {
            fields.push((format!("environment {name}"), value.clone()));
        }
        for mount in &self.mounts {
            fields.push((format!("mount {}", mount.target), mount.digest.to_string()));
        }
        for name in &self.secrets {
            fields.push(("secret".to_owned(), name.clone()));
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_that_matters_is_a_field() {
        let plain = Step::new("a", b"#!/bin/sh\n".to_vec());
        let mut named = plain.clone();
        named.name = "b".to_owned();
        assert_eq!(plain.fields(), named.fields());
        let changes: [fn(&mut Step); 7] = [
            |step| step.script.push(b' '),
            |step| step.user = "www-data".to_owned(),
            |step| step.workdir = "/srv".to_owned(),
            |step| step.network = Network::World,
            |step| drop(step.environment.insert("A".to_owned(), "b".to_owned())),
            |step| {
                step.mounts.push(Mount {
                    source: PathBuf::from("x"),
                    target: "/mnt".to_owned(),
                    digest: Digest::of(b""),
                });
            },
            |step| step.secrets.push("token".to_owned()),
        ];
        for change in changes {
            let mut other = plain.clone();
            change(&mut other);
            assert_ne!(other.fields(), plain.fields());
        }
    }
}
