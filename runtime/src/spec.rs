//! What a machine is made of, as it was asked for: plain data, nothing opened.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use coop_appliance::{
    Appliance, ApplianceError, Cobd, Conet, Filesystem, Forward, Member, NfsRoot, Readonly, Root,
    Target,
};
use coop_driver::device::conet::{GUEST, Seat, Service};
use coop_driver::engine::Pin;
use coop_guest::boot::IdentityFile;

/// How long a guest may take until commands can be run, unless told otherwise.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// The kernel and what it starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSpec {
    /// The executable.
    pub vmlinux: PathBuf,
    /// Its .config; what it can do is read there.
    pub config: PathBuf,
    /// The folder with `ld.so` and the C library of a dynamic kernel.
    pub libraries: Option<PathBuf>,
    /// A cpio archive with the modules that boot needs.
    pub modules: Option<PathBuf>,
    /// Words for the kernel's command line.
    pub cmdline: Vec<String>,
}

/// What becomes of what the guest writes to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskWrites {
    /// Nothing can be written.
    Refused,
    /// It stays in the image, which is locked meanwhile.
    Kept {
        /// Does not wait for the host's disk when the guest flushes: for images that are thrown
        /// away when the host crashes.
        ignore_flush: bool,
    },
    /// It is gone when the machine ends; the image stays as it is.
    Dropped,
}

/// Where the guest's root file system comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RootSpec {
    /// The first disk.
    #[default]
    Disk,
    /// An ext4 image that coop serves to the guest by NFS, read-only.
    Served {
        /// The image.
        image: PathBuf,
        /// Words for the guest's NFS client.
        options: Vec<String>,
    },
    /// An NFS server that the guest reaches through its network.
    Nfs {
        /// Its address, or a name that the host can resolve.
        server: String,
        /// What it exports.
        path: String,
        /// Words for the guest's NFS client.
        options: Vec<String>,
    },
}

impl RootSpec {
    /// The number of the first disk: a root that is no disk keeps the number 0.
    #[must_use]
    pub(crate) fn first_disk(&self) -> usize {
        match self {
            Self::Disk => 0,
            Self::Served { .. } | Self::Nfs { .. } => 1,
        }
    }
}

/// A block device; its number is its place in the list, from 1 where the root is no disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// The recipe's name for it, for messages.
    pub name: String,
    /// The image.
    pub path: PathBuf,
    /// What becomes of what the guest writes.
    pub writes: DiskWrites,
    /// What it holds.
    pub filesystem: Filesystem,
    /// Where it is mounted; for the root this means nothing.
    pub mount: Option<String>,
    /// Only this file of its top folder is shown, at the place where it is mounted.
    pub file: Option<String>,
}

/// The network: address translation in coop itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Ports of the host's loopback that lead into the guest.
    pub forwards: Vec<Forward>,
    /// Whether the guest reaches the host's loopback and own addresses.
    pub allow_host: bool,
    /// The host's name servers, best first; they may lie on its loopback.
    pub resolvers: Vec<SocketAddr>,
    /// Ports of the gateway ([`crate::GATEWAY`]) that whoever starts the machine serves.
    pub services: Vec<Service>,
    /// Whether the guest reaches nothing but the services.
    pub restricted: bool,
    /// The guest's place among nodes that reach each other; alone if there is none.
    pub seat: Option<Seat>,
}

impl NetworkSpec {
    /// The guest's address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.seat.as_ref().map_or(GUEST, |seat| seat.node().address)
    }
}

/// A console that somebody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleSpec {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What the machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Commands of the host.
    Commands,
    /// The root's own init, or, where it has none, a root shell on the console.
    Init,
}

/// A machine as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// The kernel.
    pub kernel: KernelSpec,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Processors; more than one need a kernel with `CONFIG_SMP`.
    pub cpus: u32,
    /// Where the root comes from.
    pub root: RootSpec,
    /// Block devices; the first may be the root.
    pub disks: Vec<DiskSpec>,
    /// What of a read-only root lies in memory; the root's disk is then read-only too.
    pub readonly: Option<Readonly>,
    /// Files that make the guest the one that it is; they are only ever in its memory.
    pub identity: Vec<IdentityFile>,
    /// The network; without one the guest has only its loopback.
    pub network: Option<NetworkSpec>,
    /// The console, if somebody uses it; otherwise its output is thrown away.
    pub console: Option<ConsoleSpec>,
    /// What the machine is for.
    pub workload: Workload,
    /// The guest's name; the root's own if not given.
    pub hostname: Option<String>,
    /// Variables of every command.
    pub environment: Vec<(String, String)>,
    /// Which processor the guest runs on.
    pub pin: Pin,
    /// Folders where the guest's memory may lie, best first.
    pub memory_folders: Vec<PathBuf>,
    /// Where what the guest writes to [`DiskWrites::Dropped`] disks lies while it runs.
    pub scratch_folder: PathBuf,
    /// Where each running machine has a private folder of its own; it is made if it is missing.
    /// Its path must be short: sockets lie in there.
    pub instances_folder: PathBuf,
    /// How long the machine may run; then it is killed.
    pub timeout: Option<Duration>,
    /// How long it may take until commands can be run.
    pub boot_timeout: Duration,
}

/// What a machine takes from its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// See [`MachineSpec::memory_folders`].
    pub memory: Vec<PathBuf>,
    /// See [`MachineSpec::scratch_folder`].
    pub scratch: PathBuf,
    /// See [`MachineSpec::instances_folder`].
    pub instances: PathBuf,
    /// See [`NetworkSpec::resolvers`].
    pub resolvers: Vec<SocketAddr>,
}

impl MachineSpec {
    /// The plainest machine: one processor, no disk, no network, no console, for commands. Callers
    /// say what theirs has besides.
    #[must_use]
    pub fn new(kernel: KernelSpec, memory_bytes: u64, host: Host) -> Self {
        Self {
            kernel,
            memory_bytes,
            cpus: 1,
            root: RootSpec::Disk,
            disks: Vec::new(),
            readonly: None,
            identity: Vec::new(),
            network: None,
            console: None,
            workload: Workload::Commands,
            hostname: None,
            environment: Vec::new(),
            pin: Pin::Automatic,
            memory_folders: host.memory,
            scratch_folder: host.scratch,
            instances_folder: host.instances,
            timeout: None,
            boot_timeout: BOOT_TIMEOUT,
        }
    }

    /// The machine that an appliance describes: for commands, without a console, every disk that
    /// can be written thrown away afterwards. Callers change what they want otherwise.
    ///
    /// # Errors
    /// A path in the manifest is not plain, or the kernel is for another target than
    /// [`Target::Um`].
    pub fn of_appliance(appliance: &Appliance, host: Host) -> Result<Self, ApplianceError> {
        let manifest = &appliance.manifest;
        if manifest.kernel.target != Target::Um {
            return Err(ApplianceError::Target(manifest.kernel.target));
        }
        let member = |member: &Member| appliance.path(member);
        let libraries = manifest.kernel.libraries.first().map(member).transpose()?;
        let disk = |cobd: &Cobd| {
            let writes = match cobd.readonly {
                true => DiskWrites::Refused,
                false => DiskWrites::Dropped,
            };
            Ok(DiskSpec {
                name: cobd.name.clone(),
                path: member(&cobd.image)?,
                writes,
                filesystem: cobd.filesystem,
                mount: cobd.mount.clone(),
                file: None,
            })
        };
        let network = manifest.conet.first().map(|conet| match conet {
            Conet::User {
                forward,
                allow_host,
            } => NetworkSpec {
                forwards: forward.clone(),
                allow_host: *allow_host,
                resolvers: host.resolvers.clone(),
                ..NetworkSpec::default()
            },
        });
        let mut disks: Vec<DiskSpec> = manifest
            .cobd
            .iter()
            .map(disk)
            .collect::<Result<_, ApplianceError>>()?;
        let root = match &manifest.root {
            Root::Cobd => RootSpec::Disk,
            Root::Nfs(nfs) => nfs_root(nfs, &mut disks),
        };
        let kernel = KernelSpec {
            vmlinux: member(&manifest.kernel.vmlinux)?,
            config: member(&manifest.kernel.config)?,
            libraries: libraries.and_then(|file| file.parent().map(PathBuf::from)),
            modules: manifest.kernel.modules.as_ref().map(member).transpose()?,
            cmdline: manifest.kernel.cmdline.clone(),
        };
        Ok(Self {
            cpus: manifest.machine.cpus,
            root,
            disks,
            readonly: manifest.readonly.clone(),
            network,
            ..Self::new(kernel, manifest.machine.memory_bytes, host)
        })
    }
}

/// The root on a server; its image is no disk then.
fn nfs_root(nfs: &NfsRoot, disks: &mut Vec<DiskSpec>) -> RootSpec {
    let image = (!disks.is_empty()).then(|| disks.remove(0).path);
    let options = nfs.options.clone();
    match (&nfs.server, image) {
        (Some(server), _) => RootSpec::Nfs {
            server: server.clone(),
            path: nfs.path.clone(),
            options,
        },
        // A manifest without a single image is found out when the image is opened.
        (None, image) => RootSpec::Served {
            image: image.unwrap_or_default(),
            options,
        },
    }
}
