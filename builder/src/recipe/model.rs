//! What a recipe means: every default filled in, every unit resolved, every reference checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use coop_appliance::{Forward, Readonly, Root};
use serde::Serialize;

use super::units::{ByteCount, Percent};
use crate::kernel::Target;
use crate::kernel::config::Wanted;

/// A resolved recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recipe {
    /// The appliance's name: lowercase letters, digits and hyphens; fit for a file name.
    pub name: String,
    /// One sentence for people, may be empty.
    pub description: String,
    /// The guest's architecture.
    pub architecture: Architecture,
    /// The root file system.
    pub rootfs: Rootfs,
    /// The guest's kernel.
    pub kernel: Kernel,
    /// The machine.
    pub devices: Devices,
    /// What `coop test` runs in the guest, in order.
    pub test: Vec<TestStep>,
}

/// An architecture that coop can boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// 64-bit x86.
    Amd64,
}

impl Architecture {
    /// Debian's name for it.
    #[must_use]
    pub fn debian_name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
        }
    }
}

/// A file of the host that the recipe names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostFile {
    /// The name in the recipe. What is called otherwise and has the same content is the same
    /// input: no name is part of the canonical form, and none of the places where files lie.
    #[serde(skip)]
    pub written: String,
    /// Where it is: `written`, from the recipe's folder.
    #[serde(skip)]
    pub path: PathBuf,
}

/// The root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rootfs {
    /// Where it comes from.
    pub source: Source,
    /// The guest's host name; default: the recipe's name.
    pub hostname: String,
    /// Files to put in, in order.
    pub files: Vec<FileEntry>,
    /// Users to make or change, in order, each name once.
    pub users: Vec<User>,
    /// systemd units to switch on and off.
    pub services: Services,
    /// What to run in the guest while it is built, in order.
    pub run: Vec<RunStep>,
    /// What lies in memory, where the root is mounted read-only; default: it is writable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly: Option<Readonly>,
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Debian packages.
    Debian(Box<Debian>),
    /// An archive of a whole file system.
    Tarball(Tarball),
    /// A file system on another machine's disk.
    Disk(Disk),
}

impl Source {
    /// Where the one file is that it is made from; nothing where it is made from packages.
    #[must_use]
    pub fn location(&self) -> Option<&TarballLocation> {
        match self {
            Self::Debian(_) => None,
            Self::Tarball(Tarball { location, .. }) | Self::Disk(Disk { location, .. }) => {
                Some(location)
            }
        }
    }

    /// Whether logs, caches, keys and identity are the source's own and stay.
    #[must_use]
    pub fn keeps_state(&self) -> bool {
        matches!(self, Self::Disk(disk) if disk.keep_state)
    }
}

/// A file system made from Debian packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Debian {
    /// The suite or code name, as `trixie`.
    pub suite: String,
    /// Packages beyond the variant's, as written: `name` or `name:architecture`, and `/suite` behind
    /// it where it is to come from one.
    pub packages: Vec<String>,
    /// The archive's components; default: `main`.
    pub components: Vec<String>,
    /// Which packages are there without being named.
    pub variant: Variant,
    /// Where packages come from.
    pub mirror: Mirror,
    /// What vouches for the suite.
    pub keyring: Keyring,
    /// Whether recommended packages are installed too; default: no.
    pub recommends: bool,
    /// Further suites, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Repository>,
    /// Packages by their files, each of which is installed: in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub debs: Vec<TarballLocation>,
    /// What is left out.
    #[serde(skip_serializing_if = "Exclude::is_empty")]
    pub exclude: Exclude,
    /// Answers for debconf, one a line: `package question type value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub debconf: Vec<String>,
    /// Whether a guest configures the packages; default: yes.
    #[serde(skip_serializing_if = "Installation::is_configured")]
    pub installation: Installation,
}

/// What is done with packages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Installation {
    /// They are unpacked and configured.
    #[default]
    Configured,
    /// They are unpacked: a machine of their architecture has to configure them.
    Unpacked {
        /// Debian's name of the architecture, which need not be the guest's.
        architecture: String,
    },
}

impl Installation {
    /// Whether nothing is left to be done.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        *self == Self::Configured
    }
}

/// What is left out of a Debian.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exclude {
    /// Packages that are never chosen.
    pub packages: Vec<String>,
    /// Paths that are not unpacked; of the rules that match a path, the last counts.
    pub paths: Vec<PathRule>,
}

impl Exclude {
    /// Whether nothing is left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.paths.is_empty()
    }
}

/// dpkg's `path-exclude` or `path-include`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathRule {
    /// Whether it brings back what a rule before it leaves out.
    pub include: bool,
    /// A shell pattern over the whole path, whose `*` matches slashes too.
    pub pattern: String,
}

/// A suite beside the one that the system is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repository {
    /// The suite or code name, as `trixie-security`.
    pub suite: String,
    /// Default: those of the main suite.
    pub components: Vec<String>,
    /// Default: the main suite's, and for `…-security` the security archive beside it.
    pub mirror: RepositoryMirror,
    /// What vouches for it; default: what vouches for the main suite.
    pub keyring: Keyring,
    /// What its packages are preferred with, as in apt_preferences(5); default: 500, or what the
    /// suite itself asks for, as backports do.
    pub priority: Option<u16>,
}

/// Where the packages of a further suite come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RepositoryMirror {
    /// Where the main suite is.
    Main,
    /// The security archive that belongs to where the main suite is.
    Security,
    /// This address, without a final slash.
    Url(String),
}

/// Which packages a Debian has without naming them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The essential ones and what they depend on.
    Essential,
    /// The essential ones, those of priority `required`, and apt: the default, and what other
    /// tools call `minbase`.
    Minimal,
}

/// Where packages come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mirror {
    /// What the caller offers: the environment's mirror or the host's own apt sources.
    Host,
    /// This address, `http://…` or `https://…`, without a final slash.
    Url(String),
    /// Debian's archive as it was at an instant, from a snapshot archive.
    Snapshot {
        /// The instant as the archive writes it: `20260801T000000Z`.
        instant: String,
        /// The snapshot archive's address; where there is none, the environment's.
        url: Option<String>,
    },
}

/// What vouches for a suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keyring {
    /// Debian's keys, which coop carries.
    Debian,
    /// Keys in a file, armoured or not.
    File(HostFile),
}

/// A file system from an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tarball {
    /// Where the archive is.
    pub location: TarballLocation,
    /// How many leading components to take off each name.
    pub strip_components: u32,
}

/// A file system on a disk, in any format that `coop convert` reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Where the disk is.
    pub location: TarballLocation,
    /// Which of its partitions: a number, a label, or `root`, the one that looks like a root;
    /// default: `root`.
    pub partition: String,
    /// Whether logs, caches, keys and the identity of the machine that the disk is from stay; they
    /// do not by default, as with every other source.
    pub keep_state: bool,
    /// The files that the disk names as parts of itself (backing files, data files, extents), in
    /// the order in which they are opened; it gets these and no others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<HostFile>,
    /// Whether its name says that it is a cobd, which is read as it is, whatever it looks like.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_cobd: bool,
}

/// Where an archive or a disk is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TarballLocation {
    /// A file of the host.
    Path {
        /// The archive.
        file: HostFile,
        /// Its digest in hexadecimal, where the recipe pins one.
        sha256: Option<String>,
    },
    /// An address.
    Url {
        /// `http://…` or `https://…`.
        url: String,
        /// Its digest, 64 lowercase hexadecimal digits, where the recipe pins one; else a lock has
        /// to.
        sha256: Option<String>,
    },
}

impl TarballLocation {
    /// The file, where it is one of the host's.
    #[must_use]
    pub fn file(&self) -> Option<&HostFile> {
        match self {
            Self::Path { file, .. } => Some(file),
            Self::Url { .. } => None,
        }
    }
}

/// A file to put into the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileEntry {
    /// Absolute path in the guest, without `.` and `..`.
    pub path: String,
    /// What is in it.
    pub content: FileContent,
    /// Permission bits, at most 0o7777; default: 0o644.
    pub mode: u16,
    /// Default: root.
    pub owner: Owner,
    /// Default: root.
    pub group: Owner,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileContent {
    /// This text.
    Text(String),
    /// A regular file of the host.
    File(HostFile),
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// By number.
    Id(u32),
    /// By the guest's own tables.
    Name(String),
}

/// A user to make, or to change where the name is there already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// The login name.
    pub name: String,
    /// How the user logs in.
    pub password: Password,
    /// Lines for `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// The number of the user and of the group of the same name.
    pub uid: UserId,
    /// The login shell.
    pub shell: String,
    /// The home folder.
    pub home: String,
    /// Groups beyond the user's own.
    pub groups: Vec<String>,
}

/// A new user's number; a user that is there already keeps its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UserId {
    /// The first free one from 1000.
    Free,
    /// This one.
    Given(u32),
}

/// How a user logs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Password {
    /// Not by a password.
    Locked,
    /// By the password behind this hash, in crypt(5)'s form: what a recipe says in plain text is
    /// hashed as it is read, so that nothing further on can tell it.
    Hash(String),
}

/// Which systemd units to switch on and off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Services {
    /// Units to enable; a name without a suffix means `.service`.
    pub enable: Vec<String>,
    /// Units to disable.
    pub disable: Vec<String>,
}

/// A step that runs in the guest while it is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunStep {
    /// What runs.
    pub action: RunAction,
    /// Variables on top of the guest's own.
    pub environment: BTreeMap<String, String>,
    /// Who runs it: `name`, `name:group`, or numbers; default: root.
    pub user: String,
    /// The folder that it starts in; default: the root.
    pub workdir: String,
    /// What it reaches meanwhile.
    pub network: StepNetwork,
    /// What it sees of the recipe's folder.
    pub mounts: Vec<RunMount>,
    /// Names of the secrets that it gets; their values are no part of a recipe.
    pub secrets: Vec<String>,
}

/// What a step reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepNetwork {
    /// The world, and with a lock packages only: what nobody decides.
    Default,
    /// The world.
    World,
    /// Packages of the recipe's suites.
    Packages,
    /// Nothing.
    Off,
}

/// A file or folder of the host that a step sees, read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunMount {
    /// The file or folder.
    pub source: HostFile,
    /// Where the step sees it.
    pub target: String,
}

/// What a step runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunAction {
    /// A line for `/bin/sh -c`.
    Command(String),
    /// A program of the host that is copied into the guest for the step.
    Script(HostFile),
}

/// The guest's kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Where it comes from.
    pub origin: KernelOrigin,
    /// What its configuration is to be, in the order of the recipe. Which of it holds, and what
    /// contradicts what, depends on target and version: see `kernel::config::merge`.
    pub wanted: Vec<Wanted>,
    /// Whether it starts from the architecture's defconfig; default: from nothing.
    pub defconfig: bool,
    /// Whether it may have modules; default: yes.
    pub modules: bool,
    /// Words for its command line.
    pub cmdline: Vec<String>,
}

impl Default for Kernel {
    /// The kernel of a recipe that says nothing of it.
    fn default() -> Self {
        Self {
            origin: KernelOrigin::Default,
            wanted: Vec::new(),
            defconfig: false,
            modules: true,
            cmdline: Vec::new(),
        }
    }
}

impl Kernel {
    /// What it is for.
    #[must_use]
    pub fn target(&self) -> Target {
        match &self.origin {
            KernelOrigin::Default => Target::Um,
            KernelOrigin::Package(package) => package.target(),
            KernelOrigin::Source(source) => source.target,
        }
    }
}

/// Where a kernel comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelOrigin {
    /// The trimmed kernel that coop composes where that can be had, else a prebuilt one.
    Default,
    /// A Debian package.
    Package(KernelPackage),
    /// Its source.
    Source(KernelSource),
}

/// A Debian package with a prebuilt kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelPackage {
    /// `user-mode-linux` (the default) or `linux-image-…`.
    pub name: String,
    /// The suite that it is taken from; default: `sid`.
    pub suite: String,
}

impl KernelPackage {
    /// Debian's User-Mode Linux.
    #[must_use]
    pub fn user_mode_linux() -> Self {
        Self {
            name: "user-mode-linux".to_owned(),
            suite: "sid".to_owned(),
        }
    }

    /// What its kernel is for.
    #[must_use]
    pub fn target(&self) -> Target {
        if self.name.starts_with("linux-image-") {
            Target::X86_64
        } else {
            Target::Um
        }
    }
}

/// A kernel's source, and what is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelSource {
    /// Where the source is.
    pub location: KernelLocation,
    /// Patches in the order of application, those of a series one by one.
    pub patches: Vec<HostFile>,
    /// What the kernel is for; default: User-Mode Linux.
    pub target: Target,
    /// Where it is compiled; default: on the host.
    pub place: BuildPlace,
}

/// Where a kernel's source is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelLocation {
    /// A Debian package.
    Debian {
        /// `linux-source-…`.
        package: String,
        /// The suite that it is taken from; default: `sid`.
        suite: String,
    },
    /// An archive.
    Tarball(TarballLocation),
}

/// Where a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildPlace {
    /// On the host, with its compiler.
    Host,
    /// In a guest.
    Guest,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Devices {
    /// Guest memory, a multiple of 4 KiB; default: 256 MiB.
    pub memory: ByteCount,
    /// Processors: 1.
    pub cpus: u32,
    /// Where the guest's root file system comes from; default: the first block device.
    #[serde(skip_serializing_if = "Root::is_cobd")]
    pub root: Root,
    /// Block devices; the first holds the root file system.
    pub cobd: Vec<Cobd>,
    /// Network devices; default: one of [`Conet::User`] without forwards.
    pub conet: Vec<Conet>,
    /// The console.
    pub cocon: Cocon,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cobd {
    /// The recipe's name for it, each once; the root's is `root`.
    pub name: String,
    /// What it holds.
    pub content: CobdContent,
}

/// What a block device holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CobdContent {
    /// The root file system, ext4.
    Root {
        /// How large.
        size: RootSize,
    },
    /// An empty ext4.
    Ext4 {
        /// How large.
        size: ByteCount,
        /// Where the guest mounts it; nowhere if absent.
        mount: Option<String>,
    },
    /// A swap area that the guest uses.
    Swap {
        /// How large.
        size: ByteCount,
    },
    /// A file of the host, byte for byte.
    File {
        /// The file.
        file: HostFile,
        /// Whether the guest may not write; default: no.
        readonly: bool,
    },
}

/// How large the root file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RootSize {
    /// As large as its content needs, with the larger of the two free: the default, with 20 % and
    /// at least 256 MiB, so that a package index and a few packages fit.
    Auto {
        /// The free share.
        free: Percent,
        /// The least that is free; nothing where the recipe states a share.
        free_min: ByteCount,
    },
    /// This large.
    Given(ByteCount),
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Conet {
    /// Address translation in coop itself.
    User {
        /// Ports of the host's loopback that lead into the guest.
        forward: Vec<Forward>,
        /// Whether the guest reaches the host's own addresses; default: no.
        allow_host: bool,
    },
}

/// The console's size when nobody's terminal says another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cocon {
    /// Characters in a line; default: 80.
    pub columns: u16,
    /// Lines; default: 25.
    pub rows: u16,
}

/// One step of `test:`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestStep {
    /// A line for the guest's shell; it must exit 0.
    pub run: String,
    /// Text that its output must contain.
    pub expect: Option<String>,
    /// How long it may take; default: 60 s.
    #[serde(serialize_with = "milliseconds")]
    pub timeout: Duration,
}

fn milliseconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// The recipe's canonical form: JSON without spaces, keys in the order of declaration. Equal
/// recipes give equal text wherever their files lie; the content of the files that they name is
/// not in it.
///
/// # Panics
/// Never: every field has a JSON form.
#[must_use]
pub fn canonical(recipe: &Recipe) -> String {
    #[expect(
        clippy::expect_used,
        reason = "no map with non-string keys, no failing impl"
    )]
    serde_json::to_string(recipe).expect("a recipe has a JSON form")
}
