//! What an appliance tells about itself, in its folder `evidence/`:
//!
//! | file | what |
//! |---|---|
//! | `recipe.json` | the recipe with nothing left open: `coop build` takes it |
//! | `lock.json` | every input that the recipe's names came to stand for |
//! | `inputs.tar` | the small files of the host that the recipe names |
//! | `provenance.json` | in-toto's Statement with SLSA's provenance of all that |
//! | `spdx.json`, `cyclonedx.json` | the software in the root file system, and the kernel |
//!
//! All of it follows from the recipe, the lock and the root file system: whoever builds the
//! appliance, from the archives or from the lock, wherever and whenever, gets the same bytes. There
//! is no clock in it but the source's own, no name of the building host, none of its folders, and
//! no password but as the hash that the image has too.

mod compare;
mod components;
mod copyright;
mod cyclonedx;
mod inputs;
mod licence;
mod provenance;
mod purl;
mod rebuild;
mod software;
mod spdx;

use std::io::{self, Write};
use std::path::Path;

use coop_appliance::{Appliance, ApplianceError, EVIDENCE_FOLDER, Manifest, Member};
use coop_image::tar;
use coop_image::tree::Timestamp;
use fs_err as fs;
use serde::Serialize;

use crate::digest::Digest;
use crate::kernel::KernelChoice;
use crate::lock::{self, Lock, LockError};
use crate::recipe::{Names, Recipe, restate};
use crate::source::Archive;
pub(crate) use software::{Software, survey};

pub use compare::{Difference, first_difference};
use components::Bill;
use inputs::{Inputs, Use};
pub use provenance::{InputFile, Parameters};
pub use rebuild::{Rebuild, RebuildError, prepare, unlisted};

const RECIPE: &str = "recipe.json";
const LOCK: &str = "lock.json";
const INPUTS: &str = "inputs.tar";
const PROVENANCE: &str = "provenance.json";
const SPDX: &str = "spdx.json";
const CYCLONEDX: &str = "cyclonedx.json";
/// The recipe's kernel configuration, among its inputs.
const FRAGMENT: &str = "inputs/kernel.config";

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What was written cannot be described.
    #[error(transparent)]
    Appliance(#[from] ApplianceError),
    /// The archive of inputs.
    #[error("the archive of the recipe's files: {0}")]
    Tar(#[from] tar::WriteError),
}

/// What an appliance was made of.
pub(crate) struct Evidence<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Which kernel it gets where it names none.
    pub kernel: KernelChoice,
    /// Where packages came from, and what was asked.
    pub archive: &'a Archive<'a>,
    /// Whether what the kernel's configuration does not hold was a warning only.
    pub allow_dropped: bool,
    /// The manifest, as far as it is without evidence.
    pub manifest: &'a Manifest,
    /// What is in the finished root file system.
    pub software: &'a Software,
    /// The digest of everything that the recipe resolved to; identifiers come from it.
    pub resolved: Digest,
    /// The time that is said to be the present.
    pub epoch: Timestamp,
}

/// Writes the evidence into an appliance's folder, and says which files it is.
///
/// # Errors
/// See [`EvidenceError`].
pub(crate) fn write(evidence: &Evidence<'_>, folder: &Path) -> Result<Vec<Member>, EvidenceError> {
    fs::create_dir(folder.join(EVIDENCE_FOLDER))?;
    let mut writer = Writer {
        folder,
        members: Vec::new(),
    };
    let mut inputs = Inputs::gather(evidence.recipe, evidence.archive.pins.files())?;
    let names = Names {
        file: &|file| inputs.name(Use::Content, file),
        mount: &|file| inputs.name(Use::Mount, file),
        fragment: FRAGMENT,
    };
    let said = restate(evidence.recipe, &names);
    if let Some(fragment) = said.fragment {
        inputs.add(FRAGMENT, fragment.into_bytes());
    }
    writer.file(RECIPE, said.recipe.as_bytes())?;
    let mut lock = evidence.archive.pins.seen();
    for suite in &mut lock.suites {
        // How the lock came to its pins is nothing to the appliance, and live there is no such thing.
        suite.older.clear();
    }
    inputs.rename(evidence.recipe, &mut lock);
    writer.json(LOCK, &lock)?;
    if let Some(tree) = inputs.tree()? {
        let mut output = io::BufWriter::new(fs::File::create(writer.path(INPUTS))?);
        tar::write(&tree, &mut output)?;
        output.flush()?;
        writer.wrote(INPUTS)?;
    }
    let statement = provenance::statement(evidence, &said.recipe, &lock, &inputs.files());
    writer.json(PROVENANCE, &statement)?;
    let bill = Bill::new(evidence, evidence.software, &lock, &inputs);
    // With every file it is large: no indentation.
    let mut spdx = serde_json::to_vec(&spdx::document(&bill)).map_err(io::Error::from)?;
    spdx.push(b'\n');
    writer.file(SPDX, &spdx)?;
    writer.json(CYCLONEDX, &cyclonedx::document(&bill))?;
    Ok(writer.members)
}

/// Writes files and remembers them.
struct Writer<'a> {
    folder: &'a Path,
    members: Vec<Member>,
}

impl Writer<'_> {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.join(EVIDENCE_FOLDER).join(name)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), EvidenceError> {
        fs::write(self.path(name), bytes)?;
        self.members.push(Member {
            path: format!("{EVIDENCE_FOLDER}/{name}"),
            sha256: Digest::of(bytes).to_string(),
            size_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        });
        Ok(())
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<(), EvidenceError> {
        let mut text = serde_json::to_vec_pretty(value).map_err(io::Error::from)?;
        text.push(b'\n');
        self.file(name, &text)
    }

    /// Remembers a file that is there already.
    fn wrote(&mut self, name: &str) -> Result<(), EvidenceError> {
        let path = format!("{EVIDENCE_FOLDER}/{name}");
        self.members.push(Member::of(self.folder, &path)?);
        Ok(())
    }
}

/// The licences that a package's copyright file tells of, as an expression of SPDX; nothing where it
/// is not machine-readable.
#[must_use]
pub fn licence_expression(copyright: &str) -> Option<String> {
    licence::expression(&copyright::parse(copyright)?, &mut licence::Owns::new())
}

/// The lock of what an appliance was made of; nothing where the appliance has no evidence.
///
/// # Errors
/// It is no lock.
pub fn lock_of(appliance: &Appliance) -> Result<Option<Lock>, LockError> {
    lock::read(&appliance.folder.join(EVIDENCE_FOLDER).join(LOCK))
}
