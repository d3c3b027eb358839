//! A machine that was checked: every file is open, nothing runs yet.

use std::io::Read;
use std::path::{Path, PathBuf};

use coop_appliance::{Protocol, processors_of_config};
use coop_driver::device::cobd::{self, Disk, DiskMode};
use coop_driver::device::conet::{
    self, BoundPort, NetBackend, Seat, Transport, UserNetwork, UserOptions, stable_mac,
};
use coop_driver::engine;
use coop_driver::engine::user::{COMMAND_LINE_BYTES_MAX, MEMORY_BYTES_MIN};
use fs_err as fs;

use crate::initramfs::MODULES_BYTES_MAX;
use crate::root::{self, Exports};
use crate::spec::{DiskSpec, DiskWrites, MachineSpec, RootSpec};

/// Disks that a machine has at most.
pub const DISKS_MAX: usize = 16;
/// The longest .config that is read, in bytes.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// Everything that keeps a machine from starting: one sentence each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct CheckError(pub Vec<String>);

/// A machine that can be started.
pub struct Machine {
    pub(crate) spec: MachineSpec,
    pub(crate) disks: Vec<Box<dyn Disk>>,
    pub(crate) network: Option<Box<dyn NetBackend>>,
    pub(crate) ports: Vec<BoundPort>,
    pub(crate) memory_folder: PathBuf,
    /// What the machine's user should know before it starts.
    pub(crate) warning: Option<String>,
}

impl Machine {
    /// Opens and checks everything that the machine needs. Images that are written to are locked
    /// from here on, and ports of the host that lead into the guest are taken.
    ///
    /// # Errors
    /// All problems that were found, not only the first.
    pub fn check(spec: MachineSpec) -> Result<Self, CheckError> {
        Self::check_among(spec, &mut Exports::default())
    }

    /// The same for one of several machines, which share what is served to them.
    ///
    /// # Errors
    /// All problems that were found, not only the first.
    pub fn check_among(mut spec: MachineSpec, exports: &mut Exports) -> Result<Self, CheckError> {
        let mut problems = Vec::new();
        let root = root::prepare(&mut spec, exports);
        let warning = root.unwrap_or_else(|problem| {
            problems.push(format!("root: {problem}"));
            None
        });
        check_numbers(&spec, &mut problems);
        check_kernel(&spec, &mut problems);
        let disks = open_disks(&spec, &mut problems);
        let (network, ports) = bind_network(&spec, &mut problems);
        let memory = engine::choose_memory_folder(&spec.memory_folders, spec.memory_bytes);
        match memory {
            Ok(memory_folder) if problems.is_empty() => Ok(Self {
                spec,
                disks,
                network,
                ports,
                memory_folder,
                warning,
            }),
            Ok(_) => Err(CheckError(problems)),
            Err(error) => {
                problems.push(error.to_string());
                Err(CheckError(problems))
            }
        }
    }
}

fn check_numbers(spec: &MachineSpec, problems: &mut Vec<String>) {
    if spec.memory_bytes < MEMORY_BYTES_MIN {
        problems.push(format!(
            "the guest would have {} bytes of memory, and a kernel needs {MEMORY_BYTES_MIN}",
            spec.memory_bytes
        ));
    }
    if spec.root == RootSpec::Disk && spec.disks.is_empty() {
        problems.push("the machine has no root disk".to_owned());
    }
    if spec.disks.len() > DISKS_MAX {
        problems.push(format!(
            "the machine has {} disks, more than {DISKS_MAX}",
            spec.disks.len()
        ));
    }
    let words: usize = spec.kernel.cmdline.iter().map(|word| word.len() + 1).sum();
    if words > COMMAND_LINE_BYTES_MAX {
        problems.push(format!(
            "the kernel's command line has {words} bytes, and takes {COMMAND_LINE_BYTES_MAX}"
        ));
    }
}

/// Whether the kernel can do what its .config decides, which is read only where that matters.
fn check_config(spec: &MachineSpec) -> Result<(), String> {
    if spec.cpus == 1 && spec.root == RootSpec::Disk {
        return Ok(());
    }
    let path = &spec.kernel.config;
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut config = String::new();
    file.take(CONFIG_BYTES_MAX)
        .read_to_string(&mut config)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    if spec.root != RootSpec::Disk {
        root::check_kernel(&config)?;
    }
    check_cpus(spec, &config)
}

/// Whether the kernel can have as many processors.
fn check_cpus(spec: &MachineSpec, config: &str) -> Result<(), String> {
    if spec.cpus == 1 {
        return Ok(());
    }
    let most = processors_of_config(config);
    if (1..=most).contains(&spec.cpus) {
        return Ok(());
    }
    let wanted = spec.cpus;
    Err(match most {
        1 => format!(
            "the guest would have {wanted} processors, and its kernel can have one; kernel.config: \
             [smp] makes one that can have more"
        ),
        _ => format!("the guest would have {wanted} processors, and its kernel can have {most}"),
    })
}

fn check_kernel(spec: &MachineSpec, problems: &mut Vec<String>) {
    let vmlinux = &spec.kernel.vmlinux;
    match starts_with(vmlinux, b"\x7fELF") {
        Ok(true) => {}
        Ok(false) => problems.push(format!(
            "kernel {} is not an ELF executable",
            vmlinux.display()
        )),
        Err(error) => problems.push(error.to_string()),
    }
    if let Some(libraries) = &spec.kernel.libraries
        && let Err(error) = fs::File::open(libraries.join("ld.so"))
    {
        problems.push(error.to_string());
    }
    if let Err(problem) = check_config(spec) {
        problems.push(problem);
    }
    let Some(modules) = &spec.kernel.modules else {
        return;
    };
    match starts_with(modules, b"0707") {
        Ok(true) => {}
        Ok(false) => problems.push(format!("{} is not a cpio archive", modules.display())),
        Err(error) => problems.push(error.to_string()),
    }
    let size = fs::metadata(modules).map_or(0, |metadata| metadata.len());
    if size > MODULES_BYTES_MAX {
        problems.push(format!(
            "the kernel's modules in {} have {size} bytes, more than {MODULES_BYTES_MAX}",
            modules.display()
        ));
    }
}

fn starts_with(path: &Path, magic: &[u8]) -> std::io::Result<bool> {
    let mut start = Vec::new();
    let length = u64::try_from(magic.len()).unwrap_or(u64::MAX);
    fs::File::open(path)?.take(length).read_to_end(&mut start)?;
    Ok(start == magic)
}

fn open_disks(spec: &MachineSpec, problems: &mut Vec<String>) -> Vec<Box<dyn Disk>> {
    let mut disks = Vec::new();
    for disk in &spec.disks {
        match cobd::open(&disk.path, &mode(disk, &spec.scratch_folder)) {
            Ok(open) => disks.push(open),
            Err(error) => problems.push(format!("disk {}: {error}", disk.name)),
        }
    }
    disks
}

fn bind_network(
    spec: &MachineSpec,
    problems: &mut Vec<String>,
) -> (Option<Box<dyn NetBackend>>, Vec<BoundPort>) {
    let Some(network) = &spec.network else {
        return (None, Vec::new());
    };
    let seat = network.seat.as_ref();
    // The address must stay the same from boot to boot; guests that share a link have seats.
    let mac = match seat {
        Some(seat) => seat.node().mac,
        None => stable_mac(spec.hostname.as_deref().unwrap_or("coop"), 0),
    };
    let nodes = seat.map(Seat::nodes).unwrap_or_default();
    let hosts = nodes.iter().map(|node| (node.name.clone(), node.address));
    let options = UserOptions {
        forwards: network.forwards.iter().map(forward).collect(),
        allow_host: network.allow_host,
        resolvers: network.resolvers.clone(),
        services: network.services.clone(),
        restricted: network.restricted,
        address: network.address(),
        hosts: hosts.collect(),
        ..UserOptions::new(mac)
    };
    let bound = UserNetwork::bind(options).and_then(|(own, ports)| {
        let network: Box<dyn NetBackend> = match seat {
            Some(seat) => Box::new(seat.join(own)?),
            None => Box::new(own),
        };
        Ok((network, ports))
    });
    match bound {
        Ok((network, ports)) => (Some(network), ports),
        Err(error) => {
            problems.push(error.to_string());
            (None, Vec::new())
        }
    }
}

fn forward(forward: &coop_appliance::Forward) -> conet::Forward {
    conet::Forward {
        transport: match forward.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
        },
        host_port: forward.host_port,
        guest_port: forward.guest_port,
        count: forward.count,
    }
}

fn mode(disk: &DiskSpec, scratch: &Path) -> DiskMode {
    match disk.writes {
        DiskWrites::Refused => DiskMode::ReadOnly,
        DiskWrites::Kept { ignore_flush } => DiskMode::ReadWrite { ignore_flush },
        DiskWrites::Dropped => DiskMode::Overlay {
            folder: scratch.to_owned(),
        },
    }
}
