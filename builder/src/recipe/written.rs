//! What a recipe says, key by key, with positions: nothing is filled in yet.

use std::time::Duration;

use coop_appliance::Forward;

use super::debian::{self, WrittenDebian};
use super::decode::{At, Decoder, Fields, Keys};
use super::kernel::{self, WrittenKernel};
use super::model::{Owner, StepNetwork};
use super::names;
use super::node::{Node, Value};
use super::readonly::{self, WrittenReadonly};
use super::units::{ByteCount, Percent, parse_duration, parse_forward, shorten};

/// The whole recipe.
pub(super) struct Written {
    pub(super) name: At<String>,
    pub(super) description: Option<At<String>>,
    pub(super) architecture: Option<At<String>>,
    pub(super) rootfs: Rootfs,
    pub(super) kernel: WrittenKernel,
    pub(super) devices: Devices,
    pub(super) test: Vec<TestStep>,
}

pub(super) struct Rootfs {
    pub(super) source: Source,
    pub(super) hostname: Option<At<String>>,
    pub(super) files: Vec<FileEntry>,
    pub(super) users: Vec<User>,
    pub(super) enable: Vec<At<String>>,
    pub(super) disable: Vec<At<String>>,
    pub(super) run: Vec<RunStep>,
    pub(super) readonly: Option<WrittenReadonly>,
}

pub(super) enum Source {
    Debian(Box<WrittenDebian>),
    Tarball(Tarball),
    Disk(Disk),
}

pub(super) struct Disk {
    pub(super) place: Tarball,
    pub(super) partition: Option<At<String>>,
    pub(super) keep_state: Option<bool>,
    pub(super) chain: Vec<At<String>>,
}

pub(super) struct Tarball {
    pub(super) at: super::diagnostic::Position,
    pub(super) path: Option<At<String>>,
    pub(super) url: Option<At<String>>,
    pub(super) sha256: Option<At<String>>,
    pub(super) strip_components: Option<At<u32>>,
}

pub(super) struct FileEntry {
    pub(super) path: At<String>,
    pub(super) content: Option<At<String>>,
    pub(super) source: Option<At<String>>,
    pub(super) mode: Option<At<u16>>,
    pub(super) owner: Option<At<Owner>>,
    pub(super) group: Option<At<Owner>>,
}

pub(super) struct User {
    pub(super) name: At<String>,
    pub(super) password: Option<At<Password>>,
    pub(super) ssh_keys: Vec<At<String>>,
    pub(super) uid: Option<At<u32>>,
    pub(super) shell: Option<At<String>>,
    pub(super) home: Option<At<String>>,
    pub(super) groups: Vec<At<String>>,
}

pub(super) enum Password {
    Locked,
    Hash(String),
    Plain(String),
}

pub(super) struct RunStep {
    pub(super) action: RunAction,
    pub(super) environment: Vec<(At<String>, At<String>)>,
    pub(super) user: Option<At<String>>,
    pub(super) workdir: Option<At<String>>,
    pub(super) network: Option<StepNetwork>,
    pub(super) mounts: Vec<RunMount>,
    pub(super) secrets: Vec<At<String>>,
}

pub(super) enum RunAction {
    Command(At<String>),
    Script(At<String>),
}

pub(super) struct RunMount {
    pub(super) source: At<String>,
    pub(super) target: At<String>,
}

#[derive(Default)]
pub(super) struct Devices {
    pub(super) memory: Option<At<ByteCount>>,
    pub(super) cpus: Option<At<u32>>,
    pub(super) root: Option<At<Root>>,
    pub(super) cobd: Option<At<Vec<Cobd>>>,
    pub(super) conet: Option<Vec<Conet>>,
    pub(super) columns: Option<At<u32>>,
    pub(super) rows: Option<At<u32>>,
}

pub(super) enum Root {
    Name(String),
    Nfs(NfsRoot),
}

#[derive(Default)]
pub(super) struct NfsRoot {
    pub(super) server: Option<At<String>>,
    pub(super) path: Option<At<String>>,
    pub(super) options: Vec<At<String>>,
}

pub(super) struct Cobd {
    pub(super) name: At<String>,
    pub(super) filesystem: Option<At<String>>,
    pub(super) size: Option<At<Size>>,
    pub(super) free: Option<At<Percent>>,
    pub(super) mount: Option<At<String>>,
    pub(super) file: Option<At<String>>,
    pub(super) readonly: Option<bool>,
}

pub(super) enum Size {
    Auto,
    Given(ByteCount),
}

pub(super) enum Conet {
    User {
        forward: Vec<At<Forward>>,
        allow_host: Option<bool>,
    },
}

pub(super) struct TestStep {
    pub(super) run: At<String>,
    pub(super) expect: Option<At<String>>,
    pub(super) timeout: Option<At<Duration>>,
}

pub(super) const fn keys(known: &'static [&'static str], later: &'static [&'static str]) -> Keys {
    Keys { known, later }
}

pub(super) const RECIPE: Keys = keys(
    &[
        "name",
        "description",
        "architecture",
        "variables",
        "rootfs",
        "kernel",
        "devices",
        "test",
    ],
    &["extends"],
);
pub(super) const ROOTFS: Keys = keys(
    &[
        "source", "hostname", "files", "users", "services", "run", "readonly",
    ],
    &[],
);
pub(super) const SOURCE: Keys = keys(&["debian", "tarball", "disk"], &["oci", "appliance"]);
const TARBALL: Keys = keys(&["path", "url", "sha256", "strip_components"], &[]);
const DISK: Keys = keys(
    &["path", "url", "sha256", "partition", "keep_state", "chain"],
    &[],
);
const FILE: Keys = keys(
    &["path", "content", "source", "mode", "owner", "group"],
    &[],
);
const USER: Keys = keys(
    &[
        "name", "password", "ssh_keys", "uid", "shell", "home", "groups",
    ],
    &[],
);
const PASSWORD: Keys = keys(&["hash", "plain"], &[]);
const SERVICES: Keys = keys(&["enable", "disable"], &[]);
const RUN_STEP: Keys = keys(
    &[
        "run",
        "script",
        "environment",
        "user",
        "workdir",
        "network",
        "mounts",
        "secrets",
    ],
    &[],
);
const RUN_MOUNT: Keys = keys(&["source", "target"], &[]);
pub(super) const DEVICES: Keys = keys(
    &["memory", "cpus", "root", "cobd", "conet", "cocon"],
    &["cofs"],
);
const ROOT: Keys = keys(&["nfs"], &[]);
const NFS_ROOT: Keys = keys(&["server", "path", "options"], &[]);
const COBD: Keys = keys(
    &["filesystem", "size", "free", "mount", "file", "readonly"],
    &[],
);
const CONET: Keys = keys(&["user"], &["tap"]);
const CONET_USER: Keys = keys(&["forward", "allow_host"], &[]);
const COCON: Keys = keys(&["columns", "rows"], &[]);
const TEST: Keys = keys(&["run", "expect", "timeout"], &[]);

/// Reads the whole tree. `None` only after an error was reported.
pub(super) fn recipe(d: &mut Decoder<'_>, root: &Node<'_>) -> Option<Written> {
    let fields = d.map(root, "", &RECIPE)?;
    let name = d.required(&fields, "name", Decoder::text);
    let description = d.field(&fields, "description", Decoder::text);
    let architecture = d.field(&fields, "architecture", Decoder::text);
    let rootfs = d.required(&fields, "rootfs", rootfs);
    let kernel = d.field(&fields, "kernel", kernel::read).unwrap_or_default();
    let devices = d.field(&fields, "devices", devices).unwrap_or_default();
    let test = list_of(d, &fields, "test", test_step);
    Some(Written {
        name: name?,
        description,
        architecture,
        rootfs: rootfs?,
        kernel,
        devices,
        test,
    })
}

/// Reads a list that may be absent.
pub(super) fn list_of<'n, 't, T>(
    d: &mut Decoder<'_>,
    fields: &Fields<'n, 't>,
    key: &str,
    read: impl FnMut(&mut Decoder<'_>, &'n Node<'t>, &str) -> Option<T>,
) -> Vec<T> {
    d.field(fields, key, |d, node, path| {
        let mut read = read;
        d.list(node, path, |d, node, path| read(d, node, path))
    })
    .unwrap_or_default()
}

pub(super) fn texts(d: &mut Decoder<'_>, fields: &Fields<'_, '_>, key: &str) -> Vec<At<String>> {
    d.field(fields, key, Decoder::texts).unwrap_or_default()
}

fn rootfs(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Rootfs> {
    let fields = d.map(node, path, &ROOTFS)?;
    let source = d.required(&fields, "source", source);
    let hostname = d.field(&fields, "hostname", Decoder::text);
    let files = list_of(d, &fields, "files", file);
    let users = list_of(d, &fields, "users", user);
    let (enable, disable) = d.field(&fields, "services", services).unwrap_or_default();
    let run = list_of(d, &fields, "run", run_step);
    let readonly = d.field(&fields, "readonly", readonly::read);
    Some(Rootfs {
        source: source?,
        hostname,
        files,
        users,
        enable,
        disable,
        run,
        readonly,
    })
}

fn source(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Source> {
    let (kind, node) = d.variant(node, path, &SOURCE)?;
    let path = format!("{path}.{kind}");
    if kind == "debian" {
        debian::read(d, node, &path).map(|read| Source::Debian(Box::new(read)))
    } else if kind == "disk" {
        disk(d, node, &path).map(Source::Disk)
    } else {
        tarball(d, node, &path).map(Source::Tarball)
    }
}

fn disk(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Disk> {
    let fields = d.map(node, path, &DISK)?;
    Some(Disk {
        partition: d.field(&fields, "partition", partition),
        keep_state: d.field(&fields, "keep_state", Decoder::boolean),
        chain: texts(d, &fields, "chain"),
        place: archive(d, &fields),
    })
}

/// Reads a partition's number, which need not be quoted, or its label.
fn partition(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<At<String>> {
    if let Value::Number(_) = node.value {
        let number = d.integer(node, path, 1..=u32::MAX)?;
        return Some(At {
            value: number.value.to_string(),
            at: number.at,
        });
    }
    d.text(node, path)
}

fn tarball(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Tarball> {
    /// Deeper archives than this are no root file systems.
    const STRIP_MAX: u32 = 64;
    let fields = d.map(node, path, &TARBALL)?;
    Some(Tarball {
        strip_components: d.field(&fields, "strip_components", |d, node, path| {
            d.integer(node, path, 0..=STRIP_MAX)
        }),
        ..archive(d, &fields)
    })
}

/// Reads where an archive is.
pub(super) fn archive(d: &mut Decoder<'_>, fields: &Fields<'_, '_>) -> Tarball {
    Tarball {
        at: fields.at(),
        path: d.field(fields, "path", Decoder::text),
        url: d.field(fields, "url", Decoder::text),
        sha256: d.field(fields, "sha256", Decoder::text),
        strip_components: None,
    }
}

fn file(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<FileEntry> {
    let fields = d.map(node, path, &FILE)?;
    let path = d.required(&fields, "path", Decoder::text);
    Some(FileEntry {
        content: d.field(&fields, "content", Decoder::text),
        source: d.field(&fields, "source", Decoder::text),
        mode: d.field(&fields, "mode", |d, node, path| d.parsed(node, path, mode)),
        owner: d.field(&fields, "owner", owner),
        group: d.field(&fields, "group", owner),
        path: path?,
    })
}

/// Reads a mode: octal, as `0o755` or `0755`. A number without the leading zero is refused: YAML
/// would make `755` a decimal number, and nobody means that.
pub(super) fn mode(text: &str) -> Result<u16, String> {
    const MODE_MAX: u16 = 0o7777;
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'));
    let octal = |digits: &&str| {
        !digits.is_empty() && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit))
    };
    digits
        .filter(octal)
        .and_then(|digits| u16::from_str_radix(digits, 8).ok())
        .filter(|mode| *mode <= MODE_MAX)
        .ok_or_else(|| {
            let text = shorten(text);
            format!("'{text}' is not an octal mode; write it as 0o755, at most 0o7777")
        })
}

fn owner(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<At<Owner>> {
    if let Value::Number(_) = node.value {
        let id = d.integer(node, path, 0..=ID_MAX)?;
        return Some(At {
            value: Owner::Id(id.value),
            at: id.at,
        });
    }
    let name = d.text(node, path)?;
    let value = match name.value.parse::<u32>() {
        Ok(id) if id <= ID_MAX => Owner::Id(id),
        _ => Owner::Name(name.value),
    };
    Some(At { value, at: name.at })
}

/// The largest user or group number; the one above means "none" to the kernel.
const ID_MAX: u32 = u32::MAX - 1;

fn user(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<User> {
    let fields = d.map(node, path, &USER)?;
    let name = d.required(&fields, "name", Decoder::text);
    Some(User {
        password: d.field(&fields, "password", password),
        ssh_keys: texts(d, &fields, "ssh_keys"),
        uid: d.field(&fields, "uid", |d, node, path| {
            d.integer(node, path, 0..=ID_MAX)
        }),
        shell: d.field(&fields, "shell", Decoder::text),
        home: d.field(&fields, "home", Decoder::text),
        groups: texts(d, &fields, "groups"),
        name: name?,
    })
}

fn password(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<At<Password>> {
    if !matches!(node.value, Value::Map(_)) {
        return d.parsed(node, path, |text| match text {
            "locked" => Ok(Password::Locked),
            _ => Err("write locked, {hash: …} or {plain: …}".to_owned()),
        });
    }
    let (kind, value) = d.variant(node, path, &PASSWORD)?;
    let text = d.text(value, &format!("{path}.{kind}"))?;
    let make = if kind == "hash" {
        Password::Hash
    } else {
        Password::Plain
    };
    Some(At {
        value: make(text.value),
        at: text.at,
    })
}

type Units = (Vec<At<String>>, Vec<At<String>>);

fn services(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Units> {
    let fields = d.map(node, path, &SERVICES)?;
    Some((texts(d, &fields, "enable"), texts(d, &fields, "disable")))
}

fn run_step(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<RunStep> {
    if !matches!(node.value, Value::Map(_)) {
        return d.text(node, path).map(|line| RunStep {
            action: RunAction::Command(line),
            environment: Vec::new(),
            user: None,
            workdir: None,
            network: None,
            mounts: Vec::new(),
            secrets: Vec::new(),
        });
    }
    let fields = d.map(node, path, &RUN_STEP)?;
    let command = d.field(&fields, "run", Decoder::text);
    let script = d.field(&fields, "script", Decoder::text);
    let environment = d.field(&fields, "environment", Decoder::texts_by_name);
    let action = match (command, script) {
        (Some(line), None) => Some(RunAction::Command(line)),
        (None, Some(script)) => Some(RunAction::Script(script)),
        (Some(_), Some(script)) => {
            d.reject(script.at, path, "has both a line to run and a script");
            None
        }
        (None, None) => {
            let is_absent = ["run", "script"]
                .iter()
                .all(|key| fields.get(key).is_none());
            if is_absent {
                d.reject(fields.at(), path, "needs run or script");
            }
            None
        }
    };
    Some(RunStep {
        environment: environment.unwrap_or_default(),
        user: d.field(&fields, "user", |d, node, path| {
            d.parsed(node, path, |text| {
                names::login(text).map(|()| text.to_owned())
            })
        }),
        workdir: d.field(&fields, "workdir", Decoder::text),
        network: d.field(&fields, "network", step_network),
        mounts: list_of(d, &fields, "mounts", run_mount),
        secrets: texts(d, &fields, "secrets"),
        action: action?,
    })
}

fn step_network(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<StepNetwork> {
    match &node.value {
        Value::Text(text) if text == "packages" => Some(StepNetwork::Packages),
        Value::Filled(text) if text == "packages" => Some(StepNetwork::Packages),
        Value::Text(text) => {
            let reason = format!("'{}' is not true, false or packages", shorten(text));
            d.reject(node.at, path, reason);
            None
        }
        _ => d.boolean(node, path).map(|world| match world {
            true => StepNetwork::World,
            false => StepNetwork::Off,
        }),
    }
}

fn run_mount(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<RunMount> {
    let fields = d.map(node, path, &RUN_MOUNT)?;
    let source = d.required(&fields, "source", Decoder::text);
    let target = d.required(&fields, "target", Decoder::text);
    Some(RunMount {
        source: source?,
        target: target?,
    })
}

fn devices(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Devices> {
    /// Terminals of this size do not exist.
    const CELLS_MAX: u32 = 1000;
    let fields = d.map(node, path, &DEVICES)?;
    let cocon = d.field(&fields, "cocon", |d, node, path| {
        let fields = d.map(node, path, &COCON)?;
        let mut cells = |key| {
            d.field(&fields, key, |d, node, path| {
                d.integer(node, path, 1..=CELLS_MAX)
            })
        };
        Some((cells("columns"), cells("rows")))
    });
    let (columns, rows) = cocon.unwrap_or_default();
    Some(Devices {
        memory: d.field(&fields, "memory", |d, node, path| {
            d.parsed(node, path, ByteCount::parse)
        }),
        cpus: d.field(&fields, "cpus", |d, node, path| {
            d.integer(node, path, 1..=1024)
        }),
        root: d.field(&fields, "root", device_root),
        cobd: d.field(&fields, "cobd", |d, node, path| {
            let value = d.list(node, path, cobd)?;
            Some(At { value, at: node.at })
        }),
        conet: d.field(&fields, "conet", |d, node, path| d.list(node, path, conet)),
        columns,
        rows,
    })
}

fn device_root(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<At<Root>> {
    let at = node.at;
    if let Value::Text(_) | Value::Filled(_) = &node.value {
        let value = Root::Name(d.text(node, path)?.value);
        return Some(At { value, at });
    }
    let (kind, node) = d.variant(node, path, &ROOT)?;
    let fields = d.map(node, &format!("{path}.{kind}"), &NFS_ROOT)?;
    let value = Root::Nfs(NfsRoot {
        server: d.field(&fields, "server", Decoder::text),
        path: d.field(&fields, "path", Decoder::text),
        options: texts(d, &fields, "options"),
    });
    Some(At { value, at })
}

fn cobd(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Cobd> {
    let (name, node) = d.named(node, path)?;
    let fields = d.map(node, &format!("{path}.{}", shorten(&name.value)), &COBD)?;
    Some(Cobd {
        filesystem: d.field(&fields, "filesystem", Decoder::text),
        size: d.field(&fields, "size", |d, node, path| d.parsed(node, path, size)),
        free: d.field(&fields, "free", |d, node, path| {
            d.parsed(node, path, Percent::parse)
        }),
        mount: d.field(&fields, "mount", Decoder::text),
        file: d.field(&fields, "file", Decoder::text),
        readonly: d.field(&fields, "readonly", Decoder::boolean),
        name,
    })
}

fn size(text: &str) -> Result<Size, String> {
    match text {
        "auto" => Ok(Size::Auto),
        _ => ByteCount::parse(text).map(Size::Given),
    }
}

fn conet(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Conet> {
    if matches!(&node.value, Value::Text(text) if text == "user") {
        return Some(Conet::User {
            forward: Vec::new(),
            allow_host: None,
        });
    }
    let (kind, node) = d.variant(node, path, &CONET)?;
    let fields = d.map(node, &format!("{path}.{kind}"), &CONET_USER)?;
    let forward = list_of(d, &fields, "forward", |d, node, path| {
        d.parsed(node, path, parse_forward)
    });
    Some(Conet::User {
        forward,
        allow_host: d.field(&fields, "allow_host", Decoder::boolean),
    })
}

fn test_step(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<TestStep> {
    let fields = d.map(node, path, &TEST)?;
    let run = d.required(&fields, "run", Decoder::text);
    Some(TestStep {
        expect: d.field(&fields, "expect", Decoder::text),
        timeout: d.field(&fields, "timeout", |d, node, path| {
            d.parsed(node, path, parse_duration)
        }),
        run: run?,
    })
}
