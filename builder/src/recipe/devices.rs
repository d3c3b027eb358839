//! `devices`: from what was written to what it means.

use std::collections::BTreeSet;
use std::fs::Metadata;

use coop_appliance::Target;
use fs_err as fs;

use super::decode::At;
use super::defaults::{Defaults, ROOT_NAME};
use super::diagnostic::{Position, Problem};
use super::model::{Cobd, CobdContent, Cocon, Conet, Devices, HostFile, RootSize};
use super::names;
use super::resolve::Resolver;
use super::units::{ByteCount, forwards_overlap, shorten};
use super::written::{self, Size};

/// The smallest guest memory: less does not unpack the kernel's modules.
const MEMORY_MIN: ByteCount = ByteCount(64 << 20);
/// The largest guest memory: 1 TiB.
const MEMORY_MAX: ByteCount = ByteCount(1 << 40);
/// Guest memory is a whole number of pages.
const PAGE: u64 = 4096;
/// A guest counts a device in sectors.
const SECTOR_BYTES: u64 = 512;
/// The smallest ext4 that is worth making.
const EXT4_MIN: ByteCount = ByteCount(4 << 20);
/// The smallest swap area.
const SWAP_MIN: ByteCount = ByteCount(1 << 20);
/// The most block devices: the kernel's command line names each.
const COBD_MAX: usize = 16;
/// The most network devices.
const CONET_MAX: usize = 8;
/// The most forwarded ports of one network device.
pub const FORWARDED_PORTS_MAX: u32 = 4096;

impl Resolver<'_, '_> {
    pub(super) fn devices(
        &mut self,
        written: written::Devices,
        target: Target,
        is_readonly: bool,
    ) -> Devices {
        let cells = |written: Option<At<u32>>, default| {
            written
                .and_then(|at| u16::try_from(at.value).ok())
                .unwrap_or(default)
        };
        let conet = self.conets(written.conet);
        let root = self.device_root(written.root, !conet.is_empty(), target);
        Devices {
            memory: self.memory(written.memory),
            cpus: written.cpus.map_or(Defaults::CPUS, |at| at.value),
            root,
            cobd: self.cobds(written.cobd, is_readonly),
            conet,
            cocon: Cocon {
                columns: cells(written.columns, Defaults::COLUMNS),
                rows: cells(written.rows, Defaults::ROWS),
            },
        }
    }

    fn memory(&mut self, written: Option<At<ByteCount>>) -> ByteCount {
        let Some(At { value, at }) = written else {
            return Defaults::MEMORY;
        };
        if let Err(reason) = check_memory(value) {
            self.d.reject(at, "devices.memory", reason);
        }
        value
    }

    fn cobds(&mut self, written: Option<At<Vec<written::Cobd>>>, is_readonly: bool) -> Vec<Cobd> {
        let Some(At { value: list, at }) = written else {
            return vec![Defaults::root_cobd(is_readonly)];
        };
        if list.is_empty() || list.len() > COBD_MAX {
            let reason = format!("needs from 1 to {COBD_MAX} entries, the first named root");
            self.d.reject(at, "devices.cobd", reason);
        }
        let (mut seen, mut mounts) = (BTreeSet::new(), BTreeSet::new());
        let mut cobds = Vec::new();
        for (index, cobd) in list.into_iter().enumerate() {
            let path = format!("devices.cobd[{index}].{}", shorten(&cobd.name.value));
            let name = cobd.name.clone();
            if let Err(reason) = names::label(&name.value) {
                self.d.reject(name.at, &path, reason);
            }
            self.once(&mut seen, name.value.clone(), name.at, &path);
            if let Some(mount) = &cobd.mount {
                self.once(&mut mounts, mount.value.clone(), mount.at, &path);
            }
            let content = if index == 0 {
                self.root_content(cobd, &path, is_readonly)
            } else {
                self.other_content(cobd, &path)
            };
            cobds.extend(content.map(|content| Cobd {
                name: name.value,
                content,
            }));
        }
        cobds
    }

    fn root_content(
        &mut self,
        cobd: written::Cobd,
        path: &str,
        is_readonly: bool,
    ) -> Option<CobdContent> {
        let name = &cobd.name;
        if name.value != ROOT_NAME {
            let reason = "the first cobd holds the root and must be named root";
            self.d.reject(name.at, path, reason);
            return None;
        }
        if let Some(file) = &cobd.file {
            self.not_supported(file.at, format!("{path}.file"));
        }
        if let Some(filesystem) = cobd.filesystem.as_ref().filter(|fs| fs.value != "ext4") {
            let reason = "the root's file system is ext4";
            self.d.reject(filesystem.at, path, reason);
        }
        if let Some(mount) = cobd.mount.as_ref().filter(|mount| mount.value != "/") {
            self.d.reject(mount.at, path, "the root is mounted at /");
        }
        if cobd.readonly == Some(true) {
            self.not_supported(name.at, format!("{path}.readonly"));
        }
        let size = match (cobd.size, cobd.free) {
            (
                None
                | Some(At {
                    value: Size::Auto, ..
                }),
                free,
            ) => match free {
                Some(free) => RootSize::Auto {
                    free: free.value,
                    free_min: ByteCount(0),
                },
                None => Defaults::root_size(is_readonly),
            },
            (
                Some(At {
                    value: Size::Given(size),
                    at,
                }),
                free,
            ) => {
                self.at_least(size, EXT4_MIN, at, path);
                if let Some(free) = free {
                    let reason = "a free share goes with size auto only";
                    self.d.reject(free.at, path, reason);
                }
                RootSize::Given(size)
            }
        };
        Some(CobdContent::Root { size })
    }

    fn other_content(&mut self, cobd: written::Cobd, path: &str) -> Option<CobdContent> {
        if let Some(free) = &cobd.free {
            self.d
                .reject(free.at, path, "a free share goes with the root only");
        }
        match (cobd.file, cobd.filesystem) {
            (Some(file), None) => {
                let extra = [cobd.size.map(|at| at.at), cobd.mount.map(|at| at.at)];
                for at in extra.into_iter().flatten() {
                    let reason = "a file has neither size nor mount here";
                    self.d.reject(at, path, reason);
                }
                Some(CobdContent::File {
                    file: self.image_file(file, &format!("{path}.file")),
                    readonly: cobd.readonly.unwrap_or(false),
                })
            }
            (None, Some(filesystem)) => {
                if cobd.readonly == Some(true) {
                    self.not_supported(cobd.name.at, format!("{path}.readonly"));
                }
                let size = match cobd.size {
                    Some(At {
                        value: Size::Given(size),
                        at,
                    }) => At { value: size, at },
                    Some(At { at, .. }) => {
                        self.d.reject(at, path, "size auto goes with the root only");
                        return None;
                    }
                    None => {
                        self.d.reject(cobd.name.at, path, "needs a size");
                        return None;
                    }
                };
                self.made_content(&filesystem, size, cobd.mount, path)
            }
            _ => {
                let reason = "needs a filesystem or a file, not both";
                self.d.reject(cobd.name.at, path, reason);
                None
            }
        }
    }

    /// An image that a guest is to get as it is.
    fn image_file(&mut self, written: At<String>, path: &str) -> HostFile {
        let at = written.at;
        let file = self.host_file(written, path);
        let metadata = fs::metadata(&file.path).ok();
        let size_bytes = metadata.filter(Metadata::is_file).map(|data| data.len());
        if let Some(size) = size_bytes.filter(|size| *size == 0 || size % SECTOR_BYTES != 0) {
            let shown = shorten(&file.path.display().to_string());
            let problem = Problem::File {
                path: path.to_owned(),
                reason: format!("{shown} has {size} bytes, which is no multiple of {SECTOR_BYTES}"),
            };
            let name = shorten(&file.written);
            let hint = format!("truncate -s %{SECTOR_BYTES} {name} fills it up with zeroes");
            self.d.report(at, problem, (size > 0).then_some(hint));
        }
        file
    }

    fn made_content(
        &mut self,
        filesystem: &At<String>,
        size: At<ByteCount>,
        mount: Option<At<String>>,
        path: &str,
    ) -> Option<CobdContent> {
        match &*filesystem.value {
            "ext4" => {
                self.at_least(size.value, EXT4_MIN, size.at, path);
                let mount = mount
                    .map(|mount| self.checked(mount, &format!("{path}.mount"), names::guest_path));
                Some(CobdContent::Ext4 {
                    size: size.value,
                    mount,
                })
            }
            "swap" => {
                self.at_least(size.value, SWAP_MIN, size.at, path);
                if let Some(mount) = mount {
                    self.d.reject(mount.at, path, "swap is not mounted");
                }
                Some(CobdContent::Swap { size: size.value })
            }
            other => {
                let reason = format!("unknown filesystem '{}'", shorten(other));
                let problem = Problem::Value {
                    path: path.to_owned(),
                    reason,
                };
                let hint = "known are ext4 and swap".to_owned();
                self.d.report(filesystem.at, problem, Some(hint));
                None
            }
        }
    }

    fn at_least(&mut self, size: ByteCount, least: ByteCount, at: Position, path: &str) {
        if size < least || !size.0.is_multiple_of(PAGE) {
            let reason = format!("size {size} is not a multiple of 4KiB from {least}");
            self.d.reject(at, path, reason);
        }
    }

    fn conets(&mut self, written: Option<Vec<written::Conet>>) -> Vec<Conet> {
        let Some(list) = written else {
            return vec![Defaults::conet()];
        };
        let mut taken: Vec<At<coop_appliance::Forward>> = Vec::new();
        let mut conets = Vec::new();
        for (index, conet) in list.into_iter().enumerate() {
            let written::Conet::User {
                forward,
                allow_host,
            } = conet;
            let path = format!("devices.conet[{index}].user.forward");
            let mut ports = 0;
            for forward in &forward {
                ports += u32::from(forward.value.count);
                if taken
                    .iter()
                    .any(|other| forwards_overlap(&other.value, &forward.value))
                {
                    let reason = "a port of the host is forwarded twice";
                    self.d.reject(forward.at, &path, reason);
                }
                if ports > FORWARDED_PORTS_MAX || index >= CONET_MAX {
                    let reason = format!(
                        "more than {FORWARDED_PORTS_MAX} ports or {CONET_MAX} network devices"
                    );
                    self.d.reject(forward.at, &path, reason);
                    return conets;
                }
                taken.push(forward.clone());
            }
            conets.push(Conet::User {
                forward: forward.into_iter().map(|at| at.value).collect(),
                allow_host: allow_host.unwrap_or(false),
            });
        }
        conets
    }
}

/// Checks an amount of guest memory.
///
/// # Errors
/// A lowercase sentence: too little, too much, or not whole pages.
pub fn check_memory(memory: ByteCount) -> Result<(), String> {
    if memory < MEMORY_MIN || memory > MEMORY_MAX {
        return Err(format!(
            "{memory} is not between {MEMORY_MIN} and {MEMORY_MAX}"
        ));
    }
    if !memory.0.is_multiple_of(PAGE) {
        return Err(format!("{memory} is not a multiple of 4KiB"));
    }
    Ok(())
}
