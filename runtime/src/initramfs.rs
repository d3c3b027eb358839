//! The guest's first file system: the agent, its configuration, and the kernel's modules.

use std::net::Ipv4Addr;
use std::path::Path;

use coop_appliance::Filesystem;
use coop_driver::device::cobd;
use coop_guest::boot::{self, BootConfig, CONFIG_PATH, Channel, Purpose};
use coop_guest::message::PORT_NAME;
use coop_image::cpio::{self, CpioError, Entry};
use fs_err as fs;

use crate::agent_program::AGENT;
use crate::spec::{DiskSpec, DiskWrites, MachineSpec, Workload};

/// The largest archive of modules, in bytes: the guest's memory holds it at boot.
pub(crate) const MODULES_BYTES_MAX: u64 = 64 << 20;
/// The guest's side of the user network.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const PREFIX: u8 = 24;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// The name under which a disk is found in the guest.
pub(crate) fn serial(index: usize) -> String {
    let serial = format!("cobd{index}");
    debug_assert!(serial.len() <= cobd::SERIAL_BYTES);
    serial
}

/// Why there is no initramfs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitramfsError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Cpio(#[from] CpioError),
    #[error("cannot write the agent's configuration: {0}")]
    Config(serde_json::Error),
}

/// Writes the archive that the kernel unpacks at boot.
pub(crate) fn write(spec: &MachineSpec, target: &Path) -> Result<(), InitramfsError> {
    let config = boot_config(spec)
        .to_json()
        .map_err(InitramfsError::Config)?;
    let name = CONFIG_PATH.trim_start_matches('/');
    let entries = [
        Entry::directory("dev", 0o755),
        // The kernel opens it for the first process before anything is mounted.
        Entry::char_device("dev/console", 0o600, 5, 1),
        Entry::file(name, 0o600, config),
        Entry::file("init", 0o755, AGENT.to_vec()),
    ];
    let mut archive = fs::File::create(target)?;
    let mut buffer = Vec::new();
    cpio::write(&entries, &mut buffer)?;
    std::io::Write::write_all(&mut archive, &buffer)?;
    if let Some(modules) = &spec.kernel.modules {
        let mut modules = fs::File::open(modules)?;
        std::io::copy(&mut modules, &mut archive)?;
    }
    Ok(())
}

/// What the agent does at boot.
fn boot_config(spec: &MachineSpec) -> BootConfig {
    let cobd = spec.disks.iter().enumerate();
    let cobd = cobd.map(|(index, disk)| boot::Cobd {
        serial: serial(index),
        purpose: purpose(index, disk),
    });
    let network = spec.network.as_ref().map(|_| boot::Network {
        interface: "eth0".to_owned(),
        address: ADDRESS,
        prefix: PREFIX,
        gateway: Some(GATEWAY),
        dns: vec![NAME_SERVER],
    });
    let root = spec.disks.first().map(|disk| boot::Root {
        device: "/dev/cobd0".to_owned(),
        filesystem: "ext4".to_owned(),
        readonly: disk.writes == DiskWrites::Refused,
        options: String::new(),
    });
    BootConfig {
        channel: Channel::Port(PORT_NAME.to_owned()),
        hostname: spec.hostname.clone(),
        root,
        cobd: cobd.collect(),
        network,
        environment: spec.environment.clone(),
        workload: match spec.workload {
            Workload::Commands => boot::Workload::Commands,
            Workload::Init => boot::Workload::Init {
                console: "/dev/hvc0".to_owned(),
            },
        },
    }
}

fn purpose(index: usize, disk: &DiskSpec) -> Purpose {
    match (disk.filesystem, &disk.mount) {
        (Filesystem::Swap, _) => Purpose::Swap,
        (Filesystem::Ext4, Some(path)) if index > 0 => Purpose::Mount {
            path: path.clone(),
            filesystem: "ext4".to_owned(),
            readonly: disk.writes == DiskWrites::Refused,
        },
        (Filesystem::Ext4 | Filesystem::Unknown, _) => Purpose::Plain,
    }
}
