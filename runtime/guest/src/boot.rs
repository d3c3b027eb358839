//! The agent's boot configuration: `/coop.json` in the initramfs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Where the configuration lies in the initramfs.
pub const CONFIG_PATH: &str = "/coop.json";
/// The folder of the initramfs whose `*.ko` files are loaded in the order of their names.
pub const MODULES_FOLDER: &str = "/modules";
/// Where a read-only root's links lead: the files of [`Readonly::etc`] are made there at boot.
pub const ETC_FOLDER: &str = "/tmp/coop/etc";
/// Where a read-only root keeps what such files say.
pub const ETC_KEPT_FOLDER: &str = "/usr/share/coop/etc";
/// The largest configuration, in bytes.
pub const CONFIG_SIZE_MAX: u64 = 1 << 20;

/// What the agent does at boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootConfig {
    /// Where the host listens.
    pub channel: Channel,
    /// The guest's name.
    pub hostname: Option<String>,
    /// The root file system; without one the initramfs is all there is.
    pub root: Option<Root>,
    /// What of the root lies in memory, where it is read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readonly: Option<Readonly>,
    /// Files that make this machine the one that it is: they lie in memory, over the root's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identity: Vec<IdentityFile>,
    /// Every block device; its serial is its name in `/dev` too, as `/dev/cobd0`.
    pub cobd: Vec<Cobd>,
    /// The network, if there is one.
    pub network: Option<Network>,
    /// Variables of every command, on top of PATH, HOME and TERM.
    pub environment: Vec<(String, String)>,
    /// What the guest is for.
    pub workload: Workload,
}

/// How the agent reaches the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Channel {
    /// The virtio-console port of this name.
    Port(String),
    /// A character device, put into raw mode.
    Device(String),
    /// Nobody listens: the guest boots on its own, and what it has to say goes to its console.
    /// Disks may be found by their order where they have no serials.
    Nobody,
}

/// The root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// The device, as `/dev/cobd0`, or what an NFS server exports, as `10.0.2.2:/`.
    pub device: String,
    /// The kernel's name for the file system.
    pub filesystem: String,
    /// Mounted read-only.
    pub readonly: bool,
    /// Options for the file system, separated by commas; may be empty.
    pub options: String,
}

/// The parts of a read-only root that lie in memory. They are made once the root is mounted,
/// whatever it is mounted from, and before anything else runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Readonly {
    /// Folders that are writable, by absolute path, and what each starts with.
    pub writable: BTreeMap<String, Writable>,
    /// Files below `/etc` that the root has as links into [`ETC_FOLDER`].
    pub etc: Vec<String>,
}

/// What a folder in memory starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Writable {
    /// Nothing.
    Empty,
    /// What the root has there.
    Copy,
}

/// A file of root's that lies in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFile {
    /// Where: an absolute path whose folder the root has; where it has not, there is no such file.
    pub path: String,
    /// Its mode.
    pub mode: u16,
    /// What it says.
    pub content: String,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cobd {
    /// The device's virtio-blk serial, by which it is found: `cobdN`.
    pub serial: String,
    /// What is done with it.
    pub purpose: Purpose,
}

/// What is done with a block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Purpose {
    /// It is there as `/dev/cobdN`, no more.
    Plain,
    /// Mounted in the root file system.
    Mount {
        /// Where: an absolute path.
        path: String,
        /// The kernel's name for the file system.
        filesystem: String,
        /// Mounted read-only.
        readonly: bool,
        /// Only this file of its top folder is shown, at `path`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
    },
    /// A swap area.
    Swap,
}

/// The network: one interface with a fixed address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The interface, as `eth0`.
    pub interface: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The number of leading bits of the network's addresses.
    pub prefix: u8,
    /// The way out.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
}

/// What the guest is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Workload {
    /// The host's commands; the agent stays process 1.
    Commands,
    /// The root's own init, or, where there is none, a root shell on the console.
    Init {
        /// The console's device, as `/dev/hvc0`.
        console: String,
    },
}

impl BootConfig {
    /// The configuration's text.
    ///
    /// # Errors
    /// Never in practice: every field has a JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads the configuration's text.
    ///
    /// # Errors
    /// The text is not a configuration.
    pub fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_reads_back() {
        let config = BootConfig {
            channel: Channel::Port("coop.agent".into()),
            hostname: Some("web".into()),
            root: Some(Root {
                device: "/dev/cobd0".into(),
                filesystem: "ext4".into(),
                readonly: false,
                options: String::new(),
            }),
            readonly: Some(Readonly {
                writable: [("/var".into(), Writable::Copy)].into(),
                etc: vec!["fstab".into()],
            }),
            identity: vec![IdentityFile {
                path: "/etc/machine-id".into(),
                mode: 0o444,
                content: "0\n".into(),
            }],
            cobd: vec![
                Cobd {
                    serial: "cobd0".into(),
                    purpose: Purpose::Plain,
                },
                Cobd {
                    serial: "cobd1".into(),
                    purpose: Purpose::Mount {
                        path: "/srv".into(),
                        filesystem: "ext4".into(),
                        readonly: true,
                        file: Some("a".into()),
                    },
                },
                Cobd {
                    serial: "cobd2".into(),
                    purpose: Purpose::Swap,
                },
            ],
            network: Some(Network {
                interface: "eth0".into(),
                address: Ipv4Addr::new(10, 0, 2, 15),
                prefix: 24,
                gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
                dns: vec![Ipv4Addr::new(10, 0, 2, 3)],
            }),
            environment: vec![("A".into(), "b".into())],
            workload: Workload::Init {
                console: "/dev/hvc0".into(),
            },
        };
        let text = config.to_json().unwrap();
        assert_eq!(BootConfig::from_json(&text).unwrap(), config);
        assert!(BootConfig::from_json(b"{}").is_err());
    }
}
