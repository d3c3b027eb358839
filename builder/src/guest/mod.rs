//! Runs what a root file system needs done from inside: in a guest booted by the same runtime that
//! runs appliances, so that a build needs no more rights than a run.
//!
//! A tree becomes a scratch image, the guest works on it, and the image is read back into a tree
//! whose content stays in the image. The scratch image lies in the store's temporary space and is
//! gone with the last tree that refers to it.

mod boot;
mod lines;
mod log;
mod mounts;
mod places;
mod proxy;
mod secrets;
mod step;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coop_image::ext4::{self, Journal, ReadError, Size, WriteError};
use coop_image::tree::{InodeId, Metadata, Timestamp, Tree, TreeError};
use coop_runtime::event::Observer;
use coop_runtime::{CheckError, ExecError, ExecRequest, Host, KernelSpec, Running, StartError};
use tempfile::NamedTempFile;

use crate::rootfs::{RootfsError, login, put_file};
use crate::store::{Store, StoreError};

use self::boot::Guest;
use self::places::Places;

pub use log::StepLog;
pub use mounts::{MountError, digest_of_source};
pub(crate) use mounts::{Shown, show};
pub use proxy::{Packages, ParsedRequest, ProxyRequest, parse_request};
pub use secrets::{SECRET_BYTES_MAX, SecretError, Secrets};
pub use step::{Mount, Network, ROOT_FOLDER, ROOT_USER, Step};

/// Free space for what the guest installs, in bytes. It costs nothing until it is used.
const SCRATCH_BYTES: u64 = 8 << 30;
/// Where the script lies while the guest runs; removed again.
const FOLDER: &str = "coop-build";
/// The script itself.
const SCRIPT: &str = "/coop-build/step";

/// Why a guest did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The scratch image cannot be made.
    #[error("scratch image {}: {source}", path.display())]
    Write {
        /// The image, in the cache.
        path: PathBuf,
        /// Why.
        source: WriteError,
    },
    /// The scratch image cannot be read back.
    #[error("the file system that the guest left cannot be read: {0}")]
    Read(#[from] ReadError),
    /// The cache has no place for it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The script cannot be put into the tree.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The tree's structure is in the way.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// What a step is to see of the host cannot be read.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Something else stands where a step is to see the host.
    #[error("{path} in the root file system is no {}, and the step's mount there is one", kind(*.is_folder))]
    Place {
        /// The mount's target.
        path: String,
        /// Whether a folder is mounted there, or a file.
        is_folder: bool,
    },
    /// What a step is to see was changed since the build began.
    #[error("{} changed while the build ran", path.display())]
    Changed {
        /// The file or folder of the host.
        path: PathBuf,
    },
    /// A step cannot start where it should.
    #[error("{step}: there is no folder {folder} in the root file system")]
    NoFolder {
        /// The step.
        step: String,
        /// Its working directory.
        folder: String,
    },
    /// The secrets at hand are not those that steps ask for.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The host cannot run a guest.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The guest did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The guest did not come up.
    #[error("the guest that builds did not come up: {0}")]
    Boot(String),
    /// A command could not be run.
    #[error("{step}: {source}")]
    Exec {
        /// What ran.
        step: String,
        /// Why not.
        source: ExecError,
    },
    /// A script failed.
    #[error("{step} {how} in the guest{}", tail_text(.tail, .log.as_deref()))]
    Failed {
        /// What ran.
        step: String,
        /// `exited with 1`.
        how: String,
        /// The last lines that it wrote.
        tail: Vec<String>,
        /// Where all of them are.
        log: Option<PathBuf>,
    },
    /// Whoever watches called the work off.
    #[error("the build was called off")]
    Cancelled,
    /// The guest did not stop as it should, so its file system may not be whole.
    #[error("the guest that builds did not stop cleanly: {0}")]
    Unclean(String),
}

fn kind(is_folder: bool) -> &'static str {
    if is_folder { "folder" } else { "file" }
}

fn tail_text(tail: &[String], log: Option<&Path>) -> String {
    if tail.is_empty() {
        return String::new();
    }
    let lines = tail.iter().map(|line| format!("\n  {line}"));
    let whole = log.map_or_else(String::new, |path| {
        format!("\nall that the steps wrote is in {}", path.display())
    });
    format!("; its last lines:{}{whole}", lines.collect::<String>())
}

/// Whoever looks at the guest of a step that failed, before it is killed.
pub trait Debugger: Send + Sync + fmt::Debug {
    /// Called with the guest as the step left it, and with a shell for it that has what the step
    /// had, but as root. Returns when nobody wants the guest any more.
    fn attend(&self, running: &Running, shell: ExecRequest, failure: &GuestError);
}

/// What steps have beside their guest.
#[derive(Clone, Debug, Default)]
pub struct StepMeans {
    /// The values of secrets.
    pub secrets: Arc<Secrets>,
    /// Where what they write is kept.
    pub log: Option<Arc<StepLog>>,
    /// Who looks at a failure.
    pub debugger: Option<Arc<dyn Debugger>>,
}

/// What guests that build are made of.
#[derive(Clone)]
pub struct GuestContext<'a> {
    /// The appliance's own kernel.
    pub kernel: KernelSpec,
    /// What the host offers.
    pub host: Host,
    /// Where the scratch image lies.
    pub store: &'a Store,
    /// Who watches.
    pub observer: Arc<dyn Observer>,
    /// Identity of the scratch image; it shows in nothing that the guest leaves.
    pub seed: [u8; 16],
    /// The time in the scratch image's superblock.
    pub epoch: Timestamp,
    /// What steps have beside the guest.
    pub means: StepMeans,
    /// The archives that steps may have packages from; there may be none.
    pub packages: Option<Packages<'a>>,
}

/// Runs steps in order, each in a guest of its own, and gives the tree that they leave.
///
/// # Errors
/// The first step that fails stops the rest; the host's and the guest's failures each have their
/// own sentence.
pub fn run(mut tree: Tree, steps: &[Step], context: &GuestContext<'_>) -> Result<Tree, GuestError> {
    for step in steps {
        tree = run_one(tree, step, context)?;
    }
    Ok(tree)
}

fn run_one(mut tree: Tree, step: &Step, context: &GuestContext<'_>) -> Result<Tree, GuestError> {
    let login = login(&tree, &step.user)?;
    let packages = context
        .packages
        .filter(|packages| step.network != Network::Off && !packages.suites.is_empty());
    let mut files = context.means.secrets.files(step)?;
    if let Some(packages) = &packages {
        files.extend(proxy::files(packages, step.network));
    }
    let content = tree.add_bytes(step.script.clone())?;
    let metadata = Metadata {
        // Whoever the step's user is.
        mode: 0o755,
        ..Metadata::default()
    };
    put_file(&mut tree, SCRIPT.as_bytes(), content, metadata)?;
    let mut places = Places::default();
    let mut disks = Vec::new();
    for mount in &step.mounts {
        let shown = mounts::show(&mount.source)?;
        places.make(&mut tree, &mount.target, shown.is_folder)?;
        if shown.digest().map_err(MountError::from)? != mount.digest {
            // What the step leaves would be kept as the result of something else.
            return Err(GuestError::Changed {
                path: mount.source.clone(),
            });
        }
        let image = scratch_image(&shown.tree, Size::with_free_percent(0), context)?;
        disks.push((image, mount.target.clone(), shown.is_folder));
    }
    check_workdir(&tree, step)?;
    let size = Size::Bytes(scratch_size(&tree));
    let image = scratch_image(&tree, size, context)?;
    drop(tree);
    let guest = Guest {
        step,
        login: &login,
        root: image.path(),
        mounts: &disks,
        files: &files,
        packages,
    };
    guest.boot_and_run(context)?;
    let mut tree = ext4::read(Arc::new(image.into_file()))?;
    remove_script(&mut tree)?;
    places.clear(&mut tree)?;
    Ok(tree)
}

fn check_workdir(tree: &Tree, step: &Step) -> Result<(), GuestError> {
    let found = tree.resolve(step.workdir.as_bytes());
    let is_folder = found.is_ok_and(|id| tree.entries(id).is_some());
    let is_mounted = |mount: &Mount| Path::new(&step.workdir).starts_with(&mount.target);
    if is_folder || in_memory(&step.workdir) || step.mounts.iter().any(is_mounted) {
        return Ok(());
    }
    Err(GuestError::NoFolder {
        step: step.name.clone(),
        folder: step.workdir.clone(),
    })
}

/// Whether a path lies in what only a running guest has.
fn in_memory(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    matches!(parts.next(), Some("dev" | "proc" | "run" | "sys" | "tmp"))
}

fn scratch_image(
    tree: &Tree,
    size: Size,
    context: &GuestContext<'_>,
) -> Result<NamedTempFile, GuestError> {
    let image = context.store.temp_file()?;
    let options = ext4::Options {
        size,
        // Nobody reads the image if the guest does not stop cleanly.
        journal: Journal::None,
        ..ext4::Options::new(context.seed, context.seed, context.epoch)
    };
    ext4::write(tree, &options, image.as_file()).map_err(|source| GuestError::Write {
        path: image.path().to_owned(),
        source,
    })?;
    Ok(image)
}

fn scratch_size(tree: &Tree) -> u64 {
    let content: u64 = tree
        .inodes()
        .iter()
        .map(|inode| match &inode.kind {
            coop_image::tree::Kind::File(content) => content.size,
            _ => 0,
        })
        .fold(0, u64::saturating_add);
    content.saturating_mul(2).saturating_add(SCRATCH_BYTES) & !4095
}

fn remove_script(tree: &mut Tree) -> Result<(), TreeError> {
    match tree.child(InodeId::ROOT, FOLDER.as_bytes()) {
        Some(_) => tree.unlink(InodeId::ROOT, FOLDER.as_bytes()).map(|_| ()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
