//! Where an appliance comes from: a Statement of in-toto's attestation framework, version 1, with
//! the predicate of SLSA's provenance, version 1. No clock is in it: what it says is equal for
//! everybody who builds the same.

use std::collections::BTreeSet;

use coop_appliance::Member;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Evidence;
use super::components::pinned;
use super::purl;
use crate::digest::Digest;
use crate::kernel::KernelChoice;
use crate::lock::Lock;
use crate::recipe::{Mirror, RepositoryMirror, Source};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// How external parameters and dependencies are to be read.
const BUILD_TYPE: &str = "urn:x-coop:build:1";
/// Nobody in particular: whoever runs coop.
const BUILDER: &str = "urn:x-coop:builder";

/// What beside recipe and lock decides what is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The version of coop.
    pub coop: String,
    /// Which kernel a recipe without one was to get, if somebody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Whether what the kernel's configuration does not hold was a warning only.
    pub allow_dropped: bool,
    /// The Debian archive that stands in the root file system, where the recipe names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// The security archive that belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<String>,
    /// The snapshot archive, where the recipe names an instant and no archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<String>,
    /// The files that the recipe names.
    pub files: Vec<InputFile>,
}

/// A file that the recipe names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// Its name in `recipe.json`.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its digest.
    pub sha256: Digest,
    /// Whether it is in `inputs.tar`.
    pub kept: bool,
    /// Whether it is a file or folder as a step sees it, and the digest is of that.
    pub mounted: bool,
}

impl Parameters {
    fn of(evidence: &Evidence<'_>, files: &[InputFile]) -> Self {
        let (mirror, security) = mirrors(evidence);
        Self {
            coop: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: evidence.kernel.name().map(str::to_owned),
            allow_dropped: evidence.allow_dropped,
            mirror,
            security,
            snapshots: snapshots(evidence),
            files: files.to_vec(),
        }
    }

    /// The choice of a kernel; nothing for a word that is none.
    #[must_use]
    pub fn choice(&self) -> Option<KernelChoice> {
        let all = [
            KernelChoice::Auto,
            KernelChoice::Prebuilt,
            KernelChoice::Trimmed,
        ];
        let mut all = all.into_iter();
        all.find(|choice| choice.name() == self.kernel.as_deref())
    }
}

/// The archives that the guest's apt is told of, where they are the host's and not the recipe's.
fn mirrors(evidence: &Evidence<'_>) -> (Option<String>, Option<String>) {
    let Source::Debian(debian) = &evidence.recipe.rootfs.source else {
        return (None, None);
    };
    let Ok(main) = evidence.archive.mirror(None) else {
        return (None, None);
    };
    let is_hosts = debian.mirror == Mirror::Host;
    let security = RepositoryMirror::Security;
    let has_security = debian.repositories.iter().any(|one| one.mirror == security);
    let beside = match is_hosts && has_security {
        true => evidence.archive.repository_mirror(&security, &main).ok(),
        false => None,
    };
    (
        Some(main.url).filter(|url| is_hosts && is_public(url)),
        beside.map(|mirror| mirror.url).filter(|url| is_public(url)),
    )
}

fn snapshots(evidence: &Evidence<'_>) -> Option<String> {
    let Source::Debian(debian) = &evidence.recipe.rootfs.source else {
        return None;
    };
    let is_open = matches!(&debian.mirror, Mirror::Snapshot { url: None, .. });
    let url = evidence.archive.snapshots.map(str::to_owned);
    url.filter(|url| is_open && is_public(url))
}

/// Whether others may know of an address and use it: the guest is not told of other ones, and nobody
/// is told of a password.
pub(super) fn is_public(url: &str) -> bool {
    let is_web = url.starts_with("http://") || url.starts_with("https://");
    is_web && !url.contains('@') && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The statement about an appliance.
pub(super) fn statement(
    evidence: &Evidence<'_>,
    recipe: &str,
    lock: &Lock,
    files: &[InputFile],
) -> Value {
    let subject: Vec<Value> = evidence.manifest.members().map(subject).collect();
    let recipe: Value = serde_json::from_str(recipe).unwrap_or_default();
    json!({
        "_type": STATEMENT,
        "subject": subject,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "recipe": recipe },
                "internalParameters": Parameters::of(evidence, files),
                "resolvedDependencies": dependencies(evidence, lock, files),
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": { "coop": env!("CARGO_PKG_VERSION") },
                },
            },
        },
    })
}

fn subject(member: &Member) -> Value {
    json!({ "name": member.path, "digest": { "sha256": member.sha256 } })
}

/// Every input with its digest, each once.
fn dependencies(evidence: &Evidence<'_>, lock: &Lock, files: &[InputFile]) -> Vec<Value> {
    let mut all = Vec::new();
    for suite in &lock.suites {
        all.push(json!({
            "name": format!("InRelease of {}", suite.key),
            "digest": { "sha256": suite.inrelease },
            "annotations": { "codename": suite.codename, "date": suite.date_seconds },
        }));
    }
    let mut seen = BTreeSet::new();
    for package in lock.answers.iter().flat_map(|answer| &answer.packages) {
        if seen.insert(package.sha256) {
            let purl = purl::debian(&package.name, &package.version, &package.architecture, None);
            all.push(json!({
                "name": package.name,
                "uri": purl,
                "digest": { "sha256": package.sha256 },
                "annotations": { "suite": package.suite, "path": package.path },
            }));
        }
    }
    for file in &lock.files {
        if seen.insert(file.sha256) {
            all.push(json!({ "name": file.name, "digest": { "sha256": file.sha256 } }));
        }
    }
    for file in files {
        if seen.insert(file.sha256) {
            all.push(json!({ "name": file.name, "digest": { "sha256": file.sha256 } }));
        }
    }
    // Compilers, and what else made the kernel.
    for line in &evidence.manifest.kernel.sources {
        if let Some((name, digest)) = pinned(line)
            && seen.insert(digest)
        {
            all.push(json!({ "name": name, "digest": { "sha256": digest } }));
        }
    }
    all
}
