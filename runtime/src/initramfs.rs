//! The guest's first file system: the agent, its configuration, and the kernel's modules.

use std::net::Ipv4Addr;
use std::path::Path;

use coop_appliance::Filesystem;
use coop_driver::device::cobd;
use coop_driver::device::conet::{GATEWAY, GUEST, NAME_SERVER, PREFIX_BITS};
use coop_guest::boot::{self, BootConfig, CONFIG_PATH, Channel, MODULES_FOLDER, Purpose};
use coop_guest::message::PORT_NAME;
use coop_image::cpio::{self, CpioError, Entry};
use fs_err as fs;

use crate::agent_program::AGENT;
use crate::nfs::PORT;
use crate::spec::{DiskWrites, MachineSpec, RootSpec, Workload};

/// The largest archive of modules, in bytes: the guest's memory holds it at boot.
pub(crate) const MODULES_BYTES_MAX: u64 = 64 << 20;

/// The name under which a disk is found in the guest.
pub(crate) fn serial(index: usize) -> String {
    let serial = format!("cobd{index}");
    debug_assert!(serial.len() <= cobd::SERIAL_BYTES);
    serial
}

/// Why there is no initramfs.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// The host's file system says no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A module's name cannot stand in the archive.
    #[error(transparent)]
    Cpio(#[from] CpioError),
    /// Never in practice: every field has a JSON form.
    #[error("cannot write the agent's configuration: {0}")]
    Config(serde_json::Error),
}

/// Writes the archive that the kernel unpacks at boot.
pub(crate) fn write(spec: &MachineSpec, target: &Path) -> Result<(), InitramfsError> {
    let mut archive = fs::File::create(target)?;
    let start = start(&boot_config(spec))?;
    std::io::Write::write_all(&mut archive, &start)?;
    if let Some(modules) = &spec.kernel.modules {
        let (mut modules, _) = fs::File::open(modules)?.into_parts();
        // Between plain files the kernel does it.
        std::io::copy(&mut modules, archive.file_mut())?;
    }
    Ok(())
}

/// The archive's first part: the agent and its configuration.
fn start(config: &BootConfig) -> Result<Vec<u8>, InitramfsError> {
    let config = config.to_json().map_err(InitramfsError::Config)?;
    let name = CONFIG_PATH.trim_start_matches('/');
    let entries = [
        Entry::directory("dev", 0o755),
        // The kernel opens it for the first process before anything is mounted.
        Entry::char_device("dev/console", 0o600, 5, 1),
        Entry::file(name, 0o600, config),
        Entry::file("init", 0o755, AGENT.to_vec()),
    ];
    let mut archive = Vec::new();
    cpio::write(&entries, &mut archive)?;
    Ok(archive)
}

/// A machine that boots an appliance without coop on its host: under QEMU by hand, or on hardware.
#[derive(Clone, Copy, Debug)]
pub struct LoneMachine<'a> {
    /// The appliance's block devices, the root first.
    pub cobd: &'a [coop_appliance::Cobd],
    /// What of a read-only root lies in memory.
    pub readonly: Option<&'a coop_appliance::Readonly>,
    /// Whether it has a network, with the addresses that QEMU's user network has too.
    pub network: bool,
    /// The kernel modules that boot needs, in the order of loading: file name and content.
    pub modules: &'a [(String, Vec<u8>)],
}

/// The initramfs of an appliance that boots by itself.
///
/// Its agent says its first line on the kernel's console, loads the modules, finds the disks by
/// the serials `cobd0`, `cobd1` and so on or else by their order, enters the root and starts the
/// root's own init there. The same arguments give the same bytes.
///
/// # Errors
/// A module's name cannot stand in the archive.
pub fn lone_initramfs(machine: &LoneMachine<'_>) -> Result<Vec<u8>, InitramfsError> {
    let mut archive = start(&lone_config(machine))?;
    let folder = MODULES_FOLDER.trim_start_matches('/');
    let mut entries = vec![Entry::directory(folder, 0o755)];
    for (index, (name, content)) in machine.modules.iter().enumerate() {
        // The agent loads them in the order of their names.
        let path = format!("{folder}/{index:04}-{name}");
        entries.push(Entry::file(&path, 0o644, content.clone()));
    }
    cpio::write(&entries, &mut archive)?;
    Ok(archive)
}

fn lone_config(machine: &LoneMachine<'_>) -> BootConfig {
    let cobd = machine.cobd.iter().enumerate();
    let cobd = cobd.map(|(index, cobd)| boot::Cobd {
        serial: serial(index),
        purpose: purpose(
            index,
            cobd.filesystem,
            cobd.mount.as_ref(),
            None,
            cobd.readonly,
        ),
    });
    BootConfig {
        channel: Channel::Nobody,
        hostname: None,
        root: machine.cobd.first().map(|cobd| root(cobd.readonly)),
        readonly: machine.readonly.map(readonly),
        identity: Vec::new(),
        cobd: cobd.collect(),
        network: machine.network.then(|| network(GUEST)),
        environment: Vec::new(),
        workload: boot::Workload::Init {
            console: "/dev/console".to_owned(),
        },
    }
}

/// What the agent does at boot.
fn boot_config(spec: &MachineSpec) -> BootConfig {
    let cobd = (spec.root.first_disk()..).zip(&spec.disks);
    let cobd = cobd.map(|(index, disk)| boot::Cobd {
        serial: serial(index),
        purpose: purpose(
            index,
            disk.filesystem,
            disk.mount.as_ref(),
            disk.file.as_ref(),
            disk.writes == DiskWrites::Refused,
        ),
    });
    BootConfig {
        channel: Channel::Port(PORT_NAME.to_owned()),
        hostname: spec.hostname.clone(),
        root: match &spec.root {
            RootSpec::Disk => spec
                .disks
                .first()
                .map(|disk| root(disk.writes == DiskWrites::Refused)),
            RootSpec::Served { options, .. } => Some(served_root(options)),
            RootSpec::Nfs {
                server,
                path,
                options,
            } => Some(nfs_root(server, path, &[], options)),
        },
        readonly: spec.readonly.as_ref().map(readonly),
        identity: spec.identity.clone(),
        cobd: cobd.collect(),
        network: spec.network.as_ref().map(|spec| network(spec.address())),
        environment: spec.environment.clone(),
        workload: match spec.workload {
            Workload::Commands => boot::Workload::Commands,
            Workload::Init => boot::Workload::Init {
                console: "/dev/hvc0".to_owned(),
            },
        },
    }
}

fn root(readonly: bool) -> boot::Root {
    boot::Root {
        device: "/dev/cobd0".to_owned(),
        filesystem: "ext4".to_owned(),
        readonly,
        options: String::new(),
    }
}

fn readonly(readonly: &coop_appliance::Readonly) -> boot::Readonly {
    let writable = readonly.writable.iter().map(|(path, start)| {
        let start = match start {
            coop_appliance::Writable::Empty => boot::Writable::Empty,
            coop_appliance::Writable::Copy => boot::Writable::Copy,
        };
        (path.clone(), start)
    });
    boot::Readonly {
        writable: writable.collect(),
        etc: readonly.etc.clone(),
    }
}

/// The root that coop itself serves. Its image does not change, so the guest need not ask twice.
fn served_root(options: &[String]) -> boot::Root {
    let port = format!("port={PORT}");
    let mount_port = format!("mountport={PORT}");
    let own = [&port, &mount_port, "nocto", "actimeo=86400", "noacl"];
    nfs_root(&GATEWAY.to_string(), "/", &own, options)
}

/// A root on an NFS server, in the words of the kernel's client (nfs(5)).
fn nfs_root(server: &str, path: &str, own: &[&str], options: &[String]) -> boot::Root {
    let address = format!("addr={server}");
    let always = [&address, "vers=3", "proto=tcp", "mountproto=tcp", "nolock"];
    let words = always.iter().chain(own).copied();
    let words: Vec<&str> = words.chain(options.iter().map(String::as_str)).collect();
    boot::Root {
        device: format!("{server}:{path}"),
        filesystem: "nfs".to_owned(),
        readonly: true,
        options: words.join(","),
    }
}

fn network(address: Ipv4Addr) -> boot::Network {
    boot::Network {
        interface: "eth0".to_owned(),
        address,
        prefix: PREFIX_BITS,
        gateway: Some(GATEWAY),
        dns: vec![NAME_SERVER],
    }
}

fn purpose(
    index: usize,
    filesystem: Filesystem,
    mount: Option<&String>,
    file: Option<&String>,
    readonly: bool,
) -> Purpose {
    match (filesystem, mount) {
        (Filesystem::Swap, _) => Purpose::Swap,
        (Filesystem::Ext4, Some(path)) if index > 0 => Purpose::Mount {
            path: path.clone(),
            filesystem: "ext4".to_owned(),
            readonly,
            file: file.cloned(),
        },
        (Filesystem::Ext4 | Filesystem::Unknown, _) => Purpose::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_machines_archive_has_the_agent_and_the_modules_in_order() {
        let modules = [
            ("b.ko".to_owned(), b"first".to_vec()),
            ("a.ko".to_owned(), b"second".to_vec()),
        ];
        let machine = LoneMachine {
            cobd: &[],
            readonly: None,
            network: true,
            modules: &modules,
        };
        let archive = lone_initramfs(&machine).unwrap();
        assert_eq!(archive, lone_initramfs(&machine).unwrap());
        assert!(archive.starts_with(b"070701"));
        let find = |text: &str| {
            archive
                .windows(text.len())
                .position(|window| window == text.as_bytes())
        };
        assert!(find("modules/0000-b.ko").unwrap() < find("modules/0001-a.ko").unwrap());
        assert!(find("first").unwrap() < find("second").unwrap());
        let config = lone_config(&machine);
        assert_eq!(config.channel, Channel::Nobody);
        assert!(config.root.is_none() && config.network.is_some());
    }
}
