//! A resolved recipe, said again as a recipe: nothing is left to defaults, variables or the host.

use coop_appliance::{NfsRoot, Protocol, Readonly, Root, Writable};
use serde_json::{Map, Value, json};

use super::debian::PRESETS;
use super::defaults::Defaults;
use super::model::{
    BuildPlace, Cobd, CobdContent, Conet, Debian, Devices, Disk, Exclude, FileContent, FileEntry,
    HostFile, Installation, Kernel, KernelLocation, KernelOrigin, Keyring, Mirror, Owner, Password,
    Recipe, Repository, RepositoryMirror, RootSize, Rootfs, RunAction, RunMount, RunStep, Source,
    StepNetwork, Tarball, TarballLocation, TestStep, User, UserId, Variant,
};
use crate::kernel::config::{Condition, Wanted};

/// What a recipe says that means what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restated {
    /// The recipe: JSON, which is YAML.
    pub recipe: String,
    /// The content of the fragment of kernel configuration that it names.
    pub fragment: Option<String>,
}

/// How a recipe that is said again calls the files that it names.
pub struct Names<'a> {
    /// The name of each file that the recipe names.
    pub file: &'a dyn Fn(&HostFile) -> String,
    /// The name of each file or folder that a step sees.
    pub mount: &'a dyn Fn(&HostFile) -> String,
    /// The name of [`Restated::fragment`]; it has a slash in it.
    pub fragment: &'a str,
}

/// Says a recipe again. What is read back from it is equal in its canonical form.
#[must_use]
pub fn restate(recipe: &Recipe, names: &Names<'_>) -> Restated {
    let Recipe {
        name,
        description,
        architecture,
        rootfs: root,
        kernel: of_kernel,
        devices: of_devices,
        test,
    } = recipe;
    let (kernel, fragment) = kernel(of_kernel, names);
    let value = json!({
        "name": name,
        "description": text(description),
        "architecture": architecture.debian_name(),
        "rootfs": rootfs(root, names),
        "kernel": kernel,
        "devices": devices(of_devices, names),
        "test": list(test, test_step),
    });
    Restated {
        recipe: format!("{value:#}\n"),
        fragment,
    }
}

/// A text that is nobody's variable.
fn text(text: &str) -> Value {
    Value::String(text.replace("${", "$${"))
}

fn texts(of: &[String]) -> Value {
    list(of, |one| text(one))
}

fn list<T>(of: &[T], one: impl Fn(&T) -> Value) -> Value {
    of.iter().map(one).collect()
}

/// Leaves out what is not there.
fn map<const N: usize>(entries: [(&str, Option<Value>); N]) -> Value {
    let entries = entries.into_iter();
    let there = entries.filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(there.collect::<Map<_, _>>())
}

fn rootfs(rootfs: &Rootfs, names: &Names<'_>) -> Value {
    let Rootfs {
        source,
        hostname,
        files,
        users,
        services,
        run,
        readonly,
    } = rootfs;
    let source = match source {
        Source::Debian(of_debian) => json!({ "debian": debian(of_debian, names) }),
        Source::Tarball(Tarball {
            location,
            strip_components,
        }) => {
            let mut place = tarball(location, names);
            place["strip_components"] = (*strip_components).into();
            json!({ "tarball": place })
        }
        Source::Disk(Disk {
            location,
            partition,
            keep_state,
            chain,
            // Its name says it.
            is_cobd: _,
        }) => {
            let mut place = tarball(location, names);
            place["partition"] = text(partition);
            place["keep_state"] = (*keep_state).into();
            if !chain.is_empty() {
                place["chain"] = list(chain, |file| text(&(names.file)(file)));
            }
            json!({ "disk": place })
        }
    };
    let mut restated = json!({
        "source": source,
        "hostname": hostname,
        "files": list(files, |one| file(one, names)),
        "users": list(users, user),
        "services": {
            "enable": texts(&services.enable),
            "disable": texts(&services.disable),
        },
        "run": list(run, |step| run_step(step, names)),
    });
    if let Some(Readonly { writable, etc }) = readonly {
        let writable = writable.iter().map(|(path, start)| {
            let start = match start {
                Writable::Empty => "empty",
                Writable::Copy => "copy",
            };
            (path.clone(), start.into())
        });
        let writable = Value::Object(writable.collect());
        restated["readonly"] = json!({ "writable": writable, "etc": texts(etc) });
    }
    restated
}

fn debian(debian: &Debian, names: &Names<'_>) -> Value {
    let Debian {
        suite,
        packages,
        components,
        variant,
        mirror,
        keyring: keys,
        recommends,
        repositories,
        debs,
        exclude: left_out,
        debconf,
        installation,
    } = debian;
    map([
        ("suite", Some(text(suite))),
        ("packages", Some(texts(packages))),
        ("components", Some(texts(components))),
        (
            "variant",
            Some(match variant {
                Variant::Essential => "essential".into(),
                Variant::Minimal => "minimal".into(),
            }),
        ),
        (
            "mirror",
            match mirror {
                Mirror::Host | Mirror::Snapshot { .. } => None,
                Mirror::Url(url) => Some(text(url)),
            },
        ),
        (
            "snapshot",
            match mirror {
                Mirror::Snapshot { instant, url } => {
                    Some(json!({ "at": text(instant), "url": url.as_deref().map(text) }))
                }
                Mirror::Host | Mirror::Url(_) => None,
            },
        ),
        ("keyring", keyring(keys, names)),
        ("recommends", Some((*recommends).into())),
        (
            "repositories",
            Some(list(repositories, |one| repository(one, names))),
        ),
        ("debs", Some(list(debs, |one| tarball(one, names)))),
        ("exclude", Some(exclude(left_out))),
        ("debconf", Some(texts(debconf))),
        (
            "unpack_only",
            match installation {
                Installation::Configured => None,
                Installation::Unpacked { architecture } => Some(text(architecture)),
            },
        ),
    ])
}

/// Rules of one name are said by it: among them are some that nothing else can say.
fn exclude(exclude: &Exclude) -> Value {
    let Exclude { packages, paths } = exclude;
    let (mut left_out, mut kept) = (Vec::new(), Vec::new());
    let mut rest = paths.as_slice();
    while let Some((rule, others)) = rest.split_first() {
        let begins = |patterns: &[(bool, &str)]| {
            let pairs = patterns.iter().zip(rest);
            patterns.len() <= rest.len()
                && pairs.into_iter().all(|((include, pattern), rule)| {
                    *include == rule.include && *pattern == rule.pattern
                })
        };
        match PRESETS.iter().find(|(_, patterns)| begins(patterns)) {
            Some((name, patterns)) => {
                left_out.push((*name).to_owned());
                rest = rest.get(patterns.len()..).unwrap_or_default();
            }
            None => {
                let list = if rule.include {
                    &mut kept
                } else {
                    &mut left_out
                };
                list.push(rule.pattern.clone());
                rest = others;
            }
        }
    }
    json!({ "packages": texts(packages), "paths": texts(&left_out), "keep": texts(&kept) })
}

fn repository(repository: &Repository, names: &Names<'_>) -> Value {
    let Repository {
        suite,
        components,
        mirror,
        keyring: keys,
        priority,
    } = repository;
    map([
        ("suite", Some(text(suite))),
        ("components", Some(texts(components))),
        (
            "mirror",
            match mirror {
                // Which of them is said by the suite's name.
                RepositoryMirror::Main | RepositoryMirror::Security => None,
                RepositoryMirror::Url(url) => Some(text(url)),
            },
        ),
        ("keyring", keyring(keys, names)),
        ("priority", priority.map(Value::from)),
    ])
}

fn keyring(keyring: &Keyring, names: &Names<'_>) -> Option<Value> {
    match keyring {
        Keyring::Debian => None,
        Keyring::File(file) => Some(text(&(names.file)(file))),
    }
}

fn tarball(location: &TarballLocation, names: &Names<'_>) -> Value {
    let (key, place, sha256) = match location {
        TarballLocation::Path { file, sha256 } => ("path", text(&(names.file)(file)), sha256),
        TarballLocation::Url { url, sha256 } => ("url", text(url), sha256),
    };
    map([
        (key, Some(place)),
        ("sha256", sha256.as_deref().map(Value::from)),
    ])
}

fn file(entry: &FileEntry, names: &Names<'_>) -> Value {
    let FileEntry {
        path,
        content,
        mode,
        owner: of_user,
        group,
    } = entry;
    let (key, content) = match content {
        FileContent::Text(content) => ("content", text(content)),
        FileContent::File(file) => ("source", text(&(names.file)(file))),
    };
    json!({
        "path": text(path),
        key: content,
        "mode": format!("0o{mode:o}"),
        "owner": owner(of_user),
        "group": owner(group),
    })
}

fn owner(owner: &Owner) -> Value {
    match owner {
        Owner::Id(id) => (*id).into(),
        Owner::Name(name) => text(name),
    }
}

fn user(user: &User) -> Value {
    let User {
        name,
        password,
        ssh_keys,
        uid,
        shell,
        home,
        groups,
    } = user;
    map([
        ("name", Some(text(name))),
        (
            "password",
            Some(match password {
                Password::Locked => "locked".into(),
                Password::Hash(hash) => json!({ "hash": text(hash) }),
            }),
        ),
        ("ssh_keys", Some(texts(ssh_keys))),
        (
            "uid",
            match uid {
                UserId::Free => None,
                UserId::Given(id) => Some((*id).into()),
            },
        ),
        ("shell", Some(text(shell))),
        ("home", Some(text(home))),
        ("groups", Some(texts(groups))),
    ])
}

fn run_step(step: &RunStep, names: &Names<'_>) -> Value {
    let RunStep {
        action,
        environment,
        user,
        workdir,
        network,
        mounts,
        secrets,
    } = step;
    let (key, action) = match action {
        RunAction::Command(line) => ("run", text(line)),
        RunAction::Script(file) => ("script", text(&(names.file)(file))),
    };
    let environment = environment.iter();
    let environment = environment.map(|(name, value)| (name.clone(), text(value)));
    map([
        (key, Some(action)),
        (
            "environment",
            Some(Value::Object(environment.collect::<Map<_, _>>())),
        ),
        ("user", Some(text(user))),
        ("workdir", Some(text(workdir))),
        (
            "network",
            match network {
                StepNetwork::Default => None,
                StepNetwork::World => Some(true.into()),
                StepNetwork::Packages => Some("packages".into()),
                StepNetwork::Off => Some(false.into()),
            },
        ),
        ("mounts", Some(list(mounts, |one| mount(one, names)))),
        ("secrets", Some(texts(secrets))),
    ])
}

fn mount(mount: &RunMount, names: &Names<'_>) -> Value {
    let RunMount { source, target } = mount;
    json!({ "source": text(&(names.mount)(source)), "target": text(target) })
}

fn kernel(kernel: &Kernel, names: &Names<'_>) -> (Value, Option<String>) {
    let Kernel {
        origin,
        wanted,
        defconfig,
        modules,
        cmdline,
    } = kernel;
    let mut wanted = wanted.as_slice();
    if !modules {
        // This says so itself.
        wanted = wanted.split_last().map_or(wanted, |(_, rest)| rest);
    }
    let fragment = (!wanted.is_empty()).then(|| fragment(wanted));
    let mut config = Vec::new();
    if *defconfig {
        config.push("defconfig");
    }
    if fragment.is_some() {
        config.push(names.fragment);
    }
    let mut value = json!({
        "config": config,
        "modules": modules,
        "cmdline": texts(cmdline),
    });
    match origin {
        KernelOrigin::Default => {}
        KernelOrigin::Package(package) => {
            value["package"] = json!({ "name": package.name, "suite": package.suite });
        }
        KernelOrigin::Source(source) => {
            let (key, place) = match &source.location {
                KernelLocation::Debian { package, suite } => {
                    ("debian", json!({ "package": package, "suite": suite }))
                }
                KernelLocation::Tarball(location) => ("tarball", tarball(location, names)),
            };
            value["source"] = json!({
                key: place,
                "patches": list(&source.patches, |file| text(&(names.file)(file))),
                "target": source.target.name(),
                "in": match source.place {
                    BuildPlace::Host => "host",
                    BuildPlace::Guest => "guest",
                },
            });
        }
    }
    (value, fragment)
}

/// A fragment with a paragraph for each run of symbols under one condition.
fn fragment(wanted: &[Wanted]) -> String {
    let mut text = String::new();
    for paragraph in wanted.chunk_by(|one, next| one.condition == next.condition) {
        if !text.is_empty() {
            text.push('\n');
        }
        let Condition { only, from, until } = paragraph
            .first()
            .map(|one| one.condition)
            .unwrap_or_default();
        let lines = [
            only.map(|target| format!("#: only {target}\n")),
            from.map(|version| format!("#: from {version}\n")),
            until.map(|version| format!("#: until {version}\n")),
        ];
        text.extend(lines.into_iter().flatten());
        for one in paragraph {
            text.push_str(&one.line());
            text.push('\n');
        }
    }
    text
}

fn devices(devices: &Devices, names: &Names<'_>) -> Value {
    let Devices {
        memory,
        cpus,
        root: of_root,
        cobd: of_cobd,
        conet: of_conet,
        cocon,
    } = devices;
    map([
        ("memory", Some(memory.to_string().into())),
        ("cpus", Some((*cpus).into())),
        ("root", root(of_root)),
        ("cobd", Some(list(of_cobd, |one| cobd(one, names)))),
        ("conet", Some(list(of_conet, conet))),
        (
            "cocon",
            Some(json!({ "columns": cocon.columns, "rows": cocon.rows })),
        ),
    ])
}

fn root(root: &Root) -> Option<Value> {
    match root {
        Root::Cobd => None,
        Root::Nfs(NfsRoot {
            server,
            path,
            options,
        }) => Some(json!({ "nfs": map([
            ("server", server.as_deref().map(text)),
            // Without a server there is but one.
            ("path", server.as_ref().map(|_| text(path))),
            ("options", Some(list(options, |option| text(option)))),
        ]) })),
    }
}

fn cobd(cobd: &Cobd, names: &Names<'_>) -> Value {
    let content = match &cobd.content {
        CobdContent::Root { size } => match size {
            // Without a share of its own it is the default that has a least amount.
            RootSize::Auto { free_min, .. } if *free_min == Defaults::FREE_MIN => {
                json!({ "size": "auto" })
            }
            RootSize::Auto { free, .. } => {
                json!({ "size": "auto", "free": format!("{}%", free.0) })
            }
            RootSize::Given(size) => json!({ "size": size.to_string() }),
        },
        CobdContent::Ext4 { size, mount } => map([
            ("filesystem", Some("ext4".into())),
            ("size", Some(size.to_string().into())),
            ("mount", mount.as_deref().map(text)),
        ]),
        CobdContent::Swap { size } => json!({ "filesystem": "swap", "size": size.to_string() }),
        CobdContent::File { file, readonly } => json!({
            "file": text(&(names.file)(file)),
            "readonly": readonly,
        }),
    };
    json!({ &*cobd.name: content })
}

fn conet(conet: &Conet) -> Value {
    let Conet::User {
        forward,
        allow_host,
    } = conet;
    let forward: Vec<String> = forward
        .iter()
        .map(|one| {
            let protocol = match one.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            let (host, guest, count) = (one.host_port, one.guest_port, one.count);
            format!("{protocol}:{host}:{guest}:{count}")
        })
        .collect();
    json!({ "user": { "forward": forward, "allow_host": allow_host } })
}

fn test_step(step: &TestStep) -> Value {
    let TestStep {
        run,
        expect,
        timeout,
    } = step;
    map([
        ("run", Some(text(run))),
        ("expect", expect.as_deref().map(text)),
        ("timeout", Some(format!("{}ms", timeout.as_millis()).into())),
    ])
}
