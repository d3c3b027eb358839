//! From what was written to what it means: defaults, and the checks that need more than one key
//! or the file system.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use coop_appliance::Target;
use fs_err as fs;

use super::decode::{At, Decoder};
use super::diagnostic::{Position, Problem, Warning};
use super::model::{
    Architecture, Cobd, CobdContent, Cocon, Conet, Devices, Disk, FileContent, FileEntry, HostFile,
    Owner, Password, Recipe, RootSize, Rootfs, Services, Source, Tarball, TarballLocation,
    TestStep, User, UserId,
};
use super::names;
use super::password;
use super::units::{ByteCount, Percent, forwards_overlap, shorten};
use super::written::{self, Size, Written};

/// The smallest guest memory: less does not unpack the kernel's modules.
const MEMORY_MIN: ByteCount = ByteCount(64 << 20);
/// The largest guest memory: 1 TiB.
const MEMORY_MAX: ByteCount = ByteCount(1 << 40);
/// Guest memory is a whole number of pages.
const PAGE: u64 = 4096;
/// The smallest ext4 that is worth making.
const EXT4_MIN: ByteCount = ByteCount(4 << 20);
/// The smallest swap area.
const SWAP_MIN: ByteCount = ByteCount(1 << 20);
/// The most block devices: the kernel's command line names each.
const COBD_MAX: usize = 16;
/// The most network devices.
const CONET_MAX: usize = 8;
/// The most forwarded ports of one device.
const PORTS_MAX: u32 = 4096;

/// Fills in what is absent: the one place that knows the defaults. What the recipe's writer gave
/// stays.
pub(super) struct Defaults;

impl Defaults {
    const MEMORY: ByteCount = ByteCount(256 << 20);
    const CPUS: u32 = 1;
    const FILE_MODE: u16 = 0o644;
    const FREE: Percent = Percent(20);
    pub(super) const FREE_MIN: ByteCount = ByteCount(256 << 20);
    const COLUMNS: u16 = 80;
    const ROWS: u16 = 25;
    const TEST_TIMEOUT: Duration = Duration::from_secs(60);
    const SHELL: &'static str = "/bin/bash";
    const PARTITION: &'static str = "root";

    fn owner() -> Owner {
        Owner::Id(0)
    }

    fn home(user: &str) -> String {
        match user {
            "root" => "/root".to_owned(),
            other => format!("/home/{other}"),
        }
    }

    /// Nobody can use what is free in a root that is read-only.
    fn root_size(is_readonly: bool) -> RootSize {
        match is_readonly {
            true => RootSize::Auto {
                free: Percent(0),
                free_min: ByteCount(0),
            },
            false => RootSize::Auto {
                free: Self::FREE,
                free_min: Self::FREE_MIN,
            },
        }
    }

    fn root_cobd(is_readonly: bool) -> Cobd {
        Cobd {
            name: ROOT_NAME.to_owned(),
            content: CobdContent::Root {
                size: Self::root_size(is_readonly),
            },
        }
    }

    fn conet() -> Conet {
        Conet::User {
            forward: Vec::new(),
            allow_host: false,
        }
    }
}

const ROOT_NAME: &str = "root";

/// Turns what was written into its meaning. Errors are in the decoder afterwards; the value is
/// good only if there are none.
pub(super) fn resolve(
    d: &mut Decoder<'_>,
    written: Written,
    warnings: &mut Vec<Warning>,
) -> Option<Recipe> {
    let folder = d.source.file.parent().unwrap_or(Path::new("")).to_owned();
    let mut resolver = Resolver {
        d,
        folder: &folder,
        warnings,
    };
    resolver.recipe(written)
}

pub(super) struct Resolver<'r, 's> {
    pub(super) d: &'r mut Decoder<'s>,
    folder: &'r Path,
    warnings: &'r mut Vec<Warning>,
}

fn at_of_step(step: &written::RunStep) -> Position {
    match &step.action {
        written::RunAction::Command(text) | written::RunAction::Script(text) => text.at,
    }
}

impl Resolver<'_, '_> {
    fn recipe(&mut self, written: Written) -> Option<Recipe> {
        let architecture = self.architecture(written.architecture);
        let name = self.checked(written.name, "name", names::label);
        let rootfs = self.rootfs(written.rootfs, &name);
        let kernel = self.kernel(written.kernel);
        let is_readonly = rootfs.as_ref().is_some_and(|root| root.readonly.is_some());
        let devices = self.devices(written.devices, kernel.target(), is_readonly);
        let test = written.test.into_iter().map(test_step).collect();
        Some(Recipe {
            name,
            description: written.description.map(|at| at.value).unwrap_or_default(),
            architecture: architecture?,
            rootfs: rootfs?,
            kernel,
            devices,
            test,
        })
    }

    /// Reports the text if it does not follow the grammar, and gives it back.
    pub(super) fn checked(
        &mut self,
        text: At<String>,
        path: &str,
        grammar: fn(&str) -> Result<(), String>,
    ) -> String {
        if let Err(reason) = grammar(&text.value) {
            self.d.reject(text.at, path, reason);
        }
        text.value
    }

    pub(super) fn all_checked(
        &mut self,
        texts: Vec<At<String>>,
        path: &str,
        grammar: fn(&str) -> Result<(), String>,
    ) -> Vec<String> {
        let checked = texts.into_iter().enumerate();
        checked
            .map(|(index, text)| self.checked(text, &format!("{path}[{index}]"), grammar))
            .collect()
    }

    /// Reports a value that is there already.
    pub(super) fn once<T: Ord>(
        &mut self,
        seen: &mut BTreeSet<T>,
        value: T,
        at: Position,
        what: &str,
    ) {
        if !seen.insert(value) {
            self.d.reject(at, what, "the same one is there twice");
        }
    }

    fn not_supported(&mut self, at: Position, what: impl Into<String>) {
        self.d.report(at, Problem::NotSupported(what.into()), None);
    }

    fn architecture(&mut self, written: Option<At<String>>) -> Option<Architecture> {
        let (text, at) = match &written {
            Some(text) => (text.value.as_str(), text.at),
            None => (host_architecture(), Position::default()),
        };
        match text {
            "amd64" => Some(Architecture::Amd64),
            other => {
                let other = shorten(other);
                self.not_supported(at, format!("architecture '{other}'"));
                None
            }
        }
    }

    /// A file that the recipe names: it must be a regular file.
    pub(super) fn host_file(&mut self, written: At<String>, path: &str) -> HostFile {
        self.host_path(written, path, false)
    }

    /// A file or, where those are welcome, a folder that the recipe names.
    pub(super) fn host_path(
        &mut self,
        written: At<String>,
        path: &str,
        folders_too: bool,
    ) -> HostFile {
        let full = self.folder.join(&written.value);
        let shown = shorten(&full.display().to_string());
        let names = self.d.source.names;
        let is_foreign = names.is_some_and(|names| !names.contains(&written.value));
        if is_foreign {
            let reason = format!("{shown} is none of the files that belong to the recipe");
            self.d.reject(written.at, path, reason);
            return HostFile {
                written: written.value,
                path: full,
            };
        }
        let reason = match fs::metadata(&full) {
            Ok(metadata) if metadata.is_file() => None,
            Ok(metadata) if metadata.is_dir() && folders_too => None,
            Ok(metadata) if metadata.is_dir() => {
                Some(format!("{shown} is a folder, but a file is needed"))
            }
            Ok(_) => Some(format!("{shown} is not a regular file")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => match folders_too {
                true => Some(format!("there is no file or folder {shown}")),
                false => Some(format!("there is no file {shown}")),
            },
            Err(_) => Some(format!("cannot look at {shown}")),
        };
        if let Some(reason) = reason {
            let problem = Problem::File {
                path: path.to_owned(),
                reason,
            };
            let hint = Path::new(&written.value)
                .is_relative()
                .then(|| "names are relative to the recipe's folder".to_owned());
            self.d.report(written.at, problem, hint);
        }
        HostFile {
            written: written.value,
            path: full,
        }
    }

    fn rootfs(&mut self, written: written::Rootfs, name: &str) -> Option<Rootfs> {
        if matches!(&written.source, written::Source::Debian(debian) if debian.unpack_only.is_some())
        {
            self.refuse_what_needs_configured(&written);
        }
        let source = match written.source {
            written::Source::Debian(debian) => Some(Source::Debian(Box::new(self.debian(*debian)))),
            written::Source::Tarball(tarball) => self.tarball(tarball).map(Source::Tarball),
            written::Source::Disk(disk) => self.disk(disk).map(Source::Disk),
        };
        let hostname = match written.hostname {
            Some(hostname) => self.checked(hostname, "rootfs.hostname", names::hostname),
            None => name.to_owned(),
        };
        let files = self.files(written.files);
        let users = self.users(written.users);
        let services = Services {
            enable: self.all_checked(written.enable, "rootfs.services.enable", names::unit),
            disable: self.all_checked(written.disable, "rootfs.services.disable", names::unit),
        };
        let run = written.run.into_iter().enumerate();
        let run = run
            .map(|(index, step)| self.run_step(index, step))
            .collect();
        let readonly = written.readonly.map(|written| self.readonly(written));
        Some(Rootfs {
            source: source?,
            hostname,
            files,
            users,
            services,
            run,
            readonly,
        })
    }

    /// Packages that are only unpacked have no accounts yet, and nothing that could run.
    fn refuse_what_needs_configured(&mut self, written: &written::Rootfs) {
        let mut units = written.enable.iter().chain(&written.disable);
        let firsts = [
            (
                written.users.first().map(|user| user.name.at),
                "rootfs.users",
            ),
            (units.next().map(|unit| unit.at), "rootfs.services"),
            (written.run.first().map(at_of_step), "rootfs.run"),
        ];
        for (at, path) in firsts {
            if let Some(at) = at {
                let reason = "needs packages that are configured, and unpack_only leaves that to another machine";
                self.d.reject(at, path, reason);
            }
        }
    }

    fn tarball(&mut self, written: written::Tarball) -> Option<Tarball> {
        let strip_components = written.strip_components.as_ref().map_or(0, |at| at.value);
        Some(Tarball {
            location: self.tarball_location(written, "rootfs.source.tarball")?,
            strip_components,
        })
    }

    fn disk(&mut self, written: written::Disk) -> Option<Disk> {
        Some(Disk {
            location: self.tarball_location(written.place, "rootfs.source.disk")?,
            partition: match written.partition {
                Some(partition) => partition.value,
                None => Defaults::PARTITION.to_owned(),
            },
            keep_state: written.keep_state.unwrap_or(false),
        })
    }

    /// Where an archive is; without a digest here, what is fetched has its digest in the lock.
    pub(super) fn tarball_location(
        &mut self,
        written: written::Tarball,
        within: &str,
    ) -> Option<TarballLocation> {
        let sha256 = written
            .sha256
            .map(|text| self.checked(text, &format!("{within}.sha256"), names::sha256));
        match (written.path, written.url, sha256) {
            (Some(path), None, sha256) => {
                let file = self.host_file(path, &format!("{within}.path"));
                Some(TarballLocation::Path { file, sha256 })
            }
            (None, Some(url), sha256) => Some(TarballLocation::Url {
                url: self.checked(url, &format!("{within}.url"), names::url),
                sha256,
            }),
            (Some(_), Some(url), _) => {
                self.d.reject(url.at, within, "has both a path and a url");
                None
            }
            (None, None, _) => {
                self.d.reject(written.at, within, "needs a path or a url");
                None
            }
        }
    }

    fn files(&mut self, written: Vec<written::FileEntry>) -> Vec<FileEntry> {
        let mut seen = BTreeSet::new();
        let mut files = Vec::new();
        for (index, entry) in written.into_iter().enumerate() {
            let path = format!("rootfs.files[{index}]");
            let at = entry.path.at;
            let guest_path = self.checked(entry.path, &format!("{path}.path"), names::guest_path);
            self.once(&mut seen, guest_path.clone(), at, &path);
            let content = match (entry.content, entry.source) {
                (Some(text), None) => FileContent::Text(text.value),
                (None, Some(source)) => {
                    FileContent::File(self.host_file(source, &format!("{path}.source")))
                }
                (Some(_), Some(source)) => {
                    self.d
                        .reject(source.at, &path, "has both a content and a source");
                    continue;
                }
                (None, None) => {
                    self.d.reject(at, &path, "needs a content or a source");
                    continue;
                }
            };
            files.push(FileEntry {
                path: guest_path,
                content,
                mode: entry.mode.map_or(Defaults::FILE_MODE, |at| at.value),
                owner: self.owner(entry.owner, &format!("{path}.owner")),
                group: self.owner(entry.group, &format!("{path}.group")),
            });
        }
        files
    }

    fn owner(&mut self, written: Option<At<Owner>>, path: &str) -> Owner {
        let Some(owner) = written else {
            return Defaults::owner();
        };
        match owner.value {
            Owner::Name(name) if name == "root" => Owner::Id(0),
            Owner::Name(value) => {
                let at = owner.at;
                Owner::Name(self.checked(At { value, at }, path, names::user))
            }
            id @ Owner::Id(_) => id,
        }
    }

    fn users(&mut self, written: Vec<written::User>) -> Vec<User> {
        let mut seen = BTreeSet::new();
        let mut users = Vec::new();
        for (index, user) in written.into_iter().enumerate() {
            let path = format!("rootfs.users[{index}]");
            let key = |key: &str| format!("{path}.{key}");
            let at = user.name.at;
            let name = self.checked(user.name, &key("name"), names::user);
            self.once(&mut seen, name.clone(), at, &path);
            users.push(User {
                password: self.password(user.password, &name, &key("password")),
                ssh_keys: self
                    .all_checked(user.ssh_keys, &key("ssh_keys"), names::ssh_key)
                    .iter()
                    .map(|line| line.trim_end().to_owned())
                    .collect(),
                uid: user
                    .uid
                    .map_or(UserId::Free, |uid| UserId::Given(uid.value)),
                shell: match user.shell {
                    Some(shell) => self.passwd_path(shell, &key("shell")),
                    None => Defaults::SHELL.to_owned(),
                },
                home: match user.home {
                    Some(home) => self.passwd_path(home, &key("home")),
                    None => Defaults::home(&name),
                },
                groups: self.all_checked(user.groups, &key("groups"), names::user),
                name,
            });
        }
        users
    }

    fn passwd_path(&mut self, text: At<String>, path: &str) -> String {
        let at = text.at;
        let value = self.checked(text, path, names::passwd_field);
        self.checked(At { value, at }, path, names::guest_path)
    }

    fn password(
        &mut self,
        written: Option<At<written::Password>>,
        user: &str,
        path: &str,
    ) -> Password {
        let Some(password) = written else {
            return Password::Locked;
        };
        let checked = match password.value {
            written::Password::Locked => Ok(Password::Locked),
            written::Password::Hash(hash) => {
                names::password_hash(&hash).map(|()| Password::Hash(hash))
            }
            written::Password::Plain(plain) => {
                let message = format!(
                    "{path}: a plain password can be read by everyone who has the recipe; a hash made by 'openssl passwd -6' cannot"
                );
                self.warnings.push(Warning {
                    file: self.d.source.file.to_owned(),
                    place: self.d.source.place(password.at),
                    message,
                });
                let good = !plain.is_empty() && !plain.contains(char::is_control);
                match good {
                    true => password::hash(user, &plain).map(Password::Hash),
                    false => Err("empty, or with control characters".to_owned()),
                }
            }
        };
        checked.unwrap_or_else(|reason| {
            self.d.reject(password.at, path, reason);
            Password::Locked
        })
    }

    fn devices(&mut self, written: written::Devices, target: Target, is_readonly: bool) -> Devices {
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
                    file: self.host_file(file, &format!("{path}.file")),
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
                if ports > PORTS_MAX || index >= CONET_MAX {
                    let reason =
                        format!("more than {PORTS_MAX} ports or {CONET_MAX} network devices");
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

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn test_step(written: written::TestStep) -> TestStep {
    TestStep {
        run: written.run.value,
        expect: written.expect.map(|at| at.value),
        timeout: written
            .timeout
            .map_or(Defaults::TEST_TIMEOUT, |at| at.value),
    }
}
