//! `appliance.json`: what the machine is made of, with a digest for every file.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::digest::sha256_of_file;
use crate::root::Root;

/// The manifest's file name.
pub const MANIFEST_NAME: &str = "appliance.json";
/// The folder of what an appliance tells about itself.
pub const EVIDENCE_FOLDER: &str = "evidence";
/// The only format version that this program reads and writes.
pub const FORMAT: u32 = 1;
/// The largest manifest that is read, in bytes.
pub(crate) const MANIFEST_SIZE_MAX: u64 = 4 << 20;

/// The whole of `appliance.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file's grammar: [`FORMAT`].
    pub format: u32,
    /// The recipe's name.
    pub name: String,
    /// The recipe's description, may be empty.
    pub description: String,
    /// Debian's name of the architecture, as `amd64`.
    pub architecture: String,
    /// SHA-256 over the recipe and the files that it names, in hexadecimal; what its names came to
    /// stand for is in the evidence.
    pub inputs: String,
    /// The guest's kernel.
    pub kernel: Kernel,
    /// Memory and processors.
    pub machine: Machine,
    /// Where the root file system comes from.
    #[serde(default, skip_serializing_if = "Root::is_cobd")]
    pub root: Root,
    /// Block devices: the first is `/dev/cobd0`.
    pub cobd: Vec<Cobd>,
    /// What of a read-only root the guest may write to, in its memory; without it the root is
    /// writable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readonly: Option<Readonly>,
    /// Network devices.
    pub conet: Vec<Conet>,
    /// The console.
    pub cocon: Cocon,
    /// What `coop test` runs in the guest.
    pub test: Vec<TestStep>,
    /// Where the appliance comes from and what is in it: files of [`EVIDENCE_FOLDER`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Member>,
}

/// A file of the appliance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Path relative to the appliance's folder, `/` between components.
    pub path: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// What a kernel is built for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// User-Mode Linux, a process of the host: what coop itself runs.
    #[default]
    Um,
    /// A 64-bit x86 machine, as QEMU or Firecracker make one.
    #[serde(rename = "x86_64")]
    X86_64,
}

impl Target {
    /// Every target.
    pub const ALL: [Self; 2] = [Self::Um, Self::X86_64];

    /// Its name here and as the kernel's `ARCH`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Um => "um",
            Self::X86_64 => "x86_64",
        }
    }

    /// The target of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kernel and what it needs to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// `uname -r` of the guest.
    pub release: String,
    /// What it is built for; a manifest that does not say means [`Target::Um`].
    #[serde(default)]
    pub target: Target,
    /// What it was made from: one line for each package, archive, patch and compiler, with its
    /// digest.
    #[serde(default)]
    pub sources: Vec<String>,
    /// The executable.
    pub vmlinux: Member,
    /// The image that a boot loader or QEMU starts (`bzImage`); only [`Target::X86_64`] has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_image: Option<Member>,
    /// What such an image is started with: a cpio of the agent and the modules that boot needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<Member>,
    /// Its .config.
    pub config: Member,
    /// A cpio of the modules that boot needs, each named by a digit-ordered file name, in the
    /// order of loading; absent where the kernel has its drivers built in.
    pub modules: Option<Member>,
    /// The dynamic loader and C library that a dynamic kernel is started with; empty for a static
    /// one. The loader's file name is `ld.so`.
    pub libraries: Vec<Member>,
    /// Words for the kernel's command line.
    pub cmdline: Vec<String>,
}

/// Memory and processors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Processors.
    pub cpus: u32,
}

/// What a cobd holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// ext4 without a partition table.
    Ext4,
    /// A swap area.
    Swap,
    /// Bytes that coop did not make.
    Unknown,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cobd {
    /// The recipe's name for it: `root`, `data`.
    pub name: String,
    /// The image.
    pub image: Member,
    /// What it holds.
    pub filesystem: Filesystem,
    /// Where the guest mounts it, if it does.
    pub mount: Option<String>,
    /// Whether the guest may not write.
    pub readonly: bool,
}

/// A root that is mounted read-only, and the parts of it that lie in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Readonly {
    /// Folders that are writable, by absolute path, and what each starts with.
    pub writable: BTreeMap<String, Writable>,
    /// Files below `/etc`, as `resolv.conf`, that are links into memory and made at boot.
    pub etc: Vec<String>,
}

/// What a folder in memory starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Writable {
    /// Nothing.
    Empty,
    /// What the image has there.
    Copy,
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Ports of the host's loopback that lead into the guest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// First port on the host.
    pub host_port: u16,
    /// First port in the guest.
    pub guest_port: u16,
    /// How many ports in a row, at least 1.
    pub count: u16,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Conet {
    /// Address translation in coop itself.
    User {
        /// Ports that lead into the guest.
        forward: Vec<Forward>,
        /// Whether the guest reaches the host's own addresses.
        allow_host: bool,
    },
}

/// The console's size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cocon {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// One step of the recipe's `test:`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestStep {
    /// A line for the guest's shell.
    pub run: String,
    /// Text that its output must contain.
    pub expect: Option<String>,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
}

/// Why an appliance could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ApplianceError {
    /// The file system says no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The manifest is not what the grammar says.
    #[error("invalid manifest {path}: {source}")]
    Syntax {
        /// The manifest.
        path: PathBuf,
        /// What serde says, with line and column.
        source: serde_json::Error,
    },
    /// The manifest was written by another version.
    #[error("{path} has format {found}; this program reads format {FORMAT}")]
    Format {
        /// The manifest.
        path: PathBuf,
        /// The version in it.
        found: u64,
    },
    /// A member's path leaves the folder or is not plain.
    #[error("manifest names '{0}', which is not a plain path inside the appliance")]
    MemberPath(String),
    /// The kernel is not one that coop runs.
    #[error("the appliance's kernel is for {0} machines, but coop itself runs um kernels only")]
    Target(Target),
    /// A member is not what the manifest says.
    #[error("{path} has {found}, but the manifest says {expected}")]
    Member {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
}

/// An opened appliance: its folder and its manifest.
#[derive(Clone, Debug)]
pub struct Appliance {
    /// The folder.
    pub folder: PathBuf,
    /// The manifest, checked.
    pub manifest: Manifest,
}

impl Appliance {
    /// Opens a folder: reads the manifest, and checks that every file it names is a regular file
    /// of the stated size. Digests are left to [`Appliance::verify`]: a run must not read a whole
    /// image first.
    ///
    /// # Errors
    /// The manifest is missing, foreign or inconsistent with the folder.
    pub fn open(folder: &Path) -> Result<Self, ApplianceError> {
        let path = folder.join(MANIFEST_NAME);
        let mut text = Vec::new();
        fs::File::open(&path)?
            .take(MANIFEST_SIZE_MAX)
            .read_to_end(&mut text)?;
        let manifest = Manifest::parse(&text, &path)?;
        let appliance = Self {
            folder: folder.to_owned(),
            manifest,
        };
        for member in appliance.manifest.members() {
            appliance.check_size(member)?;
        }
        Ok(appliance)
    }

    /// Where a member lies.
    ///
    /// # Errors
    /// The path is not a plain path inside the folder.
    pub fn path(&self, member: &Member) -> Result<PathBuf, ApplianceError> {
        Ok(self.folder.join(member.plain_path()?))
    }

    fn check_size(&self, member: &Member) -> Result<(), ApplianceError> {
        let path = self.path(member)?;
        let metadata = fs::metadata(&path)?;
        let (found, expected) = (metadata.len(), member.size_bytes);
        if metadata.is_file() && found == expected {
            return Ok(());
        }
        Err(ApplianceError::Member {
            path,
            found: format!("{found} bytes"),
            expected: format!("a file of {expected} bytes"),
        })
    }

    /// Compares every member with its digest.
    ///
    /// # Errors
    /// A file cannot be read or differs.
    pub fn verify(&self) -> Result<(), ApplianceError> {
        for member in self.manifest.members() {
            let path = self.path(member)?;
            let found = sha256_of(&path)?;
            if found != member.sha256 {
                return Err(ApplianceError::Member {
                    path,
                    found: format!("sha256 {found}"),
                    expected: format!("sha256 {}", member.sha256),
                });
            }
        }
        Ok(())
    }
}

impl Manifest {
    /// Reads the text of an `appliance.json`; `path` is what errors call it.
    ///
    /// # Errors
    /// It was written by another version, or is not what the grammar says.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, ApplianceError> {
        let syntax = |source| ApplianceError::Syntax {
            path: path.to_owned(),
            source,
        };
        let value: serde_json::Value = serde_json::from_slice(text).map_err(syntax)?;
        let found = value.get("format").and_then(serde_json::Value::as_u64);
        if found != Some(u64::from(FORMAT)) {
            let (path, found) = (path.to_owned(), found.unwrap_or_default());
            return Err(ApplianceError::Format { path, found });
        }
        serde_json::from_slice(text).map_err(syntax)
    }

    /// Every file that the manifest names.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        let kernel = [&self.kernel.vmlinux, &self.kernel.config];
        kernel
            .into_iter()
            .chain(&self.kernel.boot_image)
            .chain(&self.kernel.initramfs)
            .chain(&self.kernel.modules)
            .chain(&self.kernel.libraries)
            .chain(self.cobd.iter().map(|cobd| &cobd.image))
            .chain(&self.evidence)
    }

    /// The text of `appliance.json`: indented, keys in the order of declaration, a final newline.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    #[must_use]
    pub fn to_json(&self) -> String {
        #[expect(
            clippy::expect_used,
            reason = "no map with non-string keys, no failing impl"
        )]
        let mut text = serde_json::to_string_pretty(self).expect("the manifest has a JSON form");
        text.push('\n');
        text
    }
}

impl Member {
    /// The path, relative to the appliance's folder.
    ///
    /// # Errors
    /// It would leave the folder, or has other odd parts.
    pub fn plain_path(&self) -> Result<&Path, ApplianceError> {
        let relative = Path::new(&self.path);
        let is_plain = |part| matches!(part, Component::Normal(_));
        if self.path.is_empty() || !relative.components().all(is_plain) {
            return Err(ApplianceError::MemberPath(self.path.clone()));
        }
        Ok(relative)
    }

    /// Describes the file at `folder/path`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(folder: &Path, path: &str) -> Result<Self, ApplianceError> {
        let full = folder.join(path);
        Ok(Self {
            path: path.to_owned(),
            sha256: sha256_of(&full)?,
            size_bytes: fs::metadata(&full)?.len(),
        })
    }
}

fn sha256_of(path: &Path) -> Result<String, ApplianceError> {
    let digest = sha256_of_file(path)?;
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(more: &str) -> Result<Kernel, serde_json::Error> {
        let member = r#"{"path": "x", "sha256": "", "size_bytes": 0}"#;
        serde_json::from_str(&format!(
            r#"{{"release": "7.2", "vmlinux": {member}, "config": {member}, "modules": null,
                "libraries": [], "cmdline": []{more}}}"#
        ))
    }

    /// Appliances from before there were targets stay what they were.
    #[test]
    fn a_kernel_that_names_no_target_is_coops_own() {
        let old = kernel("").unwrap();
        assert_eq!(old.target, Target::Um);
        assert_eq!((&old.boot_image, &old.initramfs), (&None, &None));
        assert!(old.sources.is_empty());
        let text = serde_json::to_string(&old).unwrap();
        assert!(!text.contains("boot_image") && !text.contains("initramfs"));
        assert_eq!(serde_json::from_str::<Kernel>(&text).unwrap(), old);
    }

    #[test]
    fn targets_go_by_their_kernel_names() {
        for target in Target::ALL {
            let more = format!(r#", "target": "{target}""#);
            assert_eq!(kernel(&more).unwrap().target, target);
            assert_eq!(Target::parse(target.name()), Some(target));
        }
        assert!(kernel(r#", "target": "arm64""#).is_err());
        assert_eq!(Target::parse("UM"), None);
    }

    #[test]
    fn every_file_of_a_kernel_is_a_member() {
        let folder = tempfile::tempdir().unwrap();
        let mut kernel = kernel(r#", "target": "x86_64""#).unwrap();
        let member = |path: &str| {
            fs::write(folder.path().join(path), path).unwrap();
            Member::of(folder.path(), path).unwrap()
        };
        kernel.vmlinux = member("vmlinux");
        kernel.config = member("config");
        kernel.boot_image = Some(member("bzImage"));
        kernel.initramfs = Some(member("initramfs.cpio"));
        let manifest = Manifest {
            format: FORMAT,
            name: "a".to_owned(),
            description: String::new(),
            architecture: "amd64".to_owned(),
            inputs: String::new(),
            kernel,
            machine: Machine {
                memory_bytes: 0,
                cpus: 1,
            },
            root: Root::Cobd,
            cobd: Vec::new(),
            readonly: None,
            conet: Vec::new(),
            cocon: Cocon {
                columns: 80,
                rows: 25,
            },
            test: Vec::new(),
            evidence: vec![member("notes")],
        };
        fs::write(folder.path().join(MANIFEST_NAME), manifest.to_json()).unwrap();
        let appliance = Appliance::open(folder.path()).unwrap();
        assert_eq!(appliance.manifest, manifest);
        appliance.verify().unwrap();
        fs::write(folder.path().join("bzImage"), "BzImage").unwrap();
        assert!(
            appliance
                .verify()
                .unwrap_err()
                .to_string()
                .contains("bzImage")
        );
        fs::remove_file(folder.path().join("initramfs.cpio")).unwrap();
        assert!(Appliance::open(folder.path()).is_err());
    }
}
