//! The result is Debian: its tree beside the one that mmdebstrap makes of the same packages, and
//! what dpkg and apt make of it in the guest.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use coop_image::compare::{Difference, Field, compare};
use coop_image::tree::{Kind, Timestamp, Tree, display};
use coop_image::{compress, ext4, tar};
use fs_err as fs;

use crate::failures::archive::Archive;
use crate::support::{self, BUILD_DEADLINE, Done, RUN_DEADLINE};

/// A server's packages, among them several that divert files of others, and many with alternatives,
/// triggers, users and generated files: 170 packages with what they depend on.
const SERVER: &[&str] = &[
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "openssh-server",
    "iproute2",
    "netbase",
    "nginx-light",
    "python3",
    "vim",
    "gawk",
    "ca-certificates",
    "cron",
    "sudo",
    "man-db",
    "logrotate",
    "rsyslog",
    "locales",
    "console-setup",
    "tzdata",
    // These move others' files away.
    "molly-guard",
    "zutils",
    "moreutils",
    "parallel",
    "isc-dhcp-client-ddns",
];

/// What the two trees may differ in at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    /// In everything: one has it and the other has not, or both have their own.
    Differ,
    /// In the permission bits alone.
    Mode,
    /// In the order of the lines.
    Order,
    /// In the order of the stanzas.
    StanzaOrder,
    /// In the order of the rows, and in their third field.
    AccountOrder,
}

/// Every path at which coop's tree may differ from mmdebstrap's, with the reason. Patterns end with
/// `*`. What is not here is equal in type, mode, owner, content, extended attributes, target and hard
/// links. Times of modification are equal too, but for those of folders, which say in which order
/// packages came, and of what was made while mmdebstrap ran, where coop's is that of the archive.
const NAMED: &[(&str, May, &str)] = &[
    (
        "/dev/*",
        May::Differ,
        "mmdebstrap puts device nodes into its tree; the guest's kernel makes them at boot",
    ),
    (
        "/run/lock",
        May::Differ,
        "mmdebstrap makes it; /run is in memory, and made at boot",
    ),
    (
        "/etc/apt/sources.list",
        May::Differ,
        "mmdebstrap writes the old form of apt's sources",
    ),
    (
        "/etc/apt/sources.list.d/debian.sources",
        May::Differ,
        "coop writes the new form of apt's sources",
    ),
    (
        "/etc/hostname",
        May::Differ,
        "the recipe's name, where mmdebstrap copies the host's",
    ),
    (
        "/etc/hosts",
        May::Differ,
        "belongs to the recipe's host name; mmdebstrap has none",
    ),
    (
        "/etc/resolv.conf",
        May::Differ,
        "mmdebstrap copies the host's; the machine's own comes at boot",
    ),
    ("/etc/fstab", May::Differ, "mmdebstrap writes an empty one"),
    (
        "/etc/machine-id",
        May::Mode,
        "empty in both; systemd made coop's, and mmdebstrap its own anew",
    ),
    (
        "/etc/ssh/ssh_host_*",
        May::Differ,
        "keys that every machine must have of its own",
    ),
    (
        "/etc/systemd/system/ssh.service.d*",
        May::Differ,
        "has the keys made at boot, as the image has none",
    ),
    ("/etc/.pwd.lock", May::Differ, "a lock without content"),
    (
        "/etc/group-",
        May::Differ,
        "a copy of the state before the last change",
    ),
    (
        "/etc/gshadow-",
        May::Differ,
        "a copy of the state before the last change",
    ),
    (
        "/etc/passwd-",
        May::Differ,
        "a copy of the state before the last change",
    ),
    (
        "/etc/shadow-",
        May::Differ,
        "a copy of the state before the last change",
    ),
    (
        "/etc/shadow",
        May::AccountOrder,
        "the day of the build is in each row, and rows come in the order of configuration",
    ),
    (
        "/etc/gshadow",
        May::Order,
        "rows come in the order of configuration",
    ),
    (
        "/etc/console-setup/cached_setup_keyboard.sh",
        May::Differ,
        "names the terminals of the machine that configured the package",
    ),
    (
        "/var/cache/apt/archives/lock",
        May::Differ,
        "a lock without content",
    ),
    (
        "/var/lib/apt/lists/lock",
        May::Differ,
        "a lock without content",
    ),
    (
        "/var/lib/apt/extended_states",
        May::StanzaOrder,
        "apt writes it in the order of its hash table",
    ),
    (
        "/var/cache/debconf/*.dat-old",
        May::Differ,
        "a copy of the state before the last change",
    ),
    (
        "/var/cache/man/*",
        May::Differ,
        "indices with times in them, which man-db makes again",
    ),
    (
        "/var/lib/dpkg/diversions-old",
        May::Differ,
        "a copy of the state before the last change",
    ),
    (
        "/var/lib/dpkg/statoverride-old",
        May::Differ,
        "a copy of the state before the last change",
    ),
    (
        "/var/lib/dpkg/status-old",
        May::Differ,
        "a copy of the state before the last change",
    ),
    ("/var/lib/dpkg/lock", May::Differ, "a lock without content"),
    (
        "/var/lib/dpkg/lock-frontend",
        May::Differ,
        "a lock without content",
    ),
    (
        "/var/lib/dpkg/triggers/Lock",
        May::Differ,
        "a lock without content",
    ),
    (
        "/var/lib/dpkg/triggers/File",
        May::Order,
        "rows come in the order of unpacking",
    ),
];

#[test]
fn the_tree_is_the_one_that_mmdebstrap_makes() {
    if !support::root_oracle() || !support::oracle("mmdebstrap") {
        return;
    }
    let mut used = BTreeSet::new();
    used.extend(differences(support::debian(), &[]));
    used.extend(differences(server(), SERVER));
    let unused = NAMED.iter().filter(|(path, _, _)| !used.contains(path));
    let unused: Vec<&str> = unused.map(|(path, _, _)| *path).collect();
    assert!(unused.is_empty(), "named, but equal: {unused:?}");
}

/// Fails where there is a difference that has no name; gives the names of the others.
fn differences(appliance: &Path, packages: &[&str]) -> BTreeSet<&'static str> {
    let ours = ext4::read(Arc::new(open(&appliance.join("root.cobd")))).unwrap();
    let folder = support::temp_folder();
    let (peers, started) = peers_tree(folder.path(), &mirror_of(&ours), packages);
    assert_eq!(packages_of(&ours), packages_of(&peers));
    let ignore = BTreeSet::from([Field::Atime, Field::Ctime, Field::Crtime]);
    let (mut used, mut unnamed) = (BTreeSet::new(), Vec::new());
    compare(&ours, &peers, &ignore, &mut |difference| {
        if !is_expected_time(&peers, &difference, started) {
            let found = NAMED.iter().find(|(path, may, _)| {
                matches(path, &difference.path) && may.allow(&ours, &peers, &difference)
            });
            match found {
                Some((path, _, _)) => drop(used.insert(*path)),
                None => unnamed.push(difference.to_string()),
            }
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(
        unnamed.is_empty(),
        "coop, mmdebstrap:\n{}",
        unnamed.join("\n")
    );
    used
}

fn matches(pattern: &str, path: &[u8]) -> bool {
    let path = display(path);
    match pattern.split_once('*') {
        Some((start, end)) => path.starts_with(start) && path.ends_with(end),
        None => path == pattern,
    }
}

impl May {
    fn allow(self, ours: &Tree, peers: &Tree, difference: &Difference) -> bool {
        let path = &difference.path;
        let is_content = matches!(difference.field, Field::Size | Field::Content);
        let sorted = |tree: &Tree, split: &str| {
            let text = text(tree, path);
            let mut parts: Vec<String> = text.trim().split(split).map(str::to_owned).collect();
            parts.sort();
            parts
        };
        match self {
            Self::Differ => true,
            Self::Mode => difference.field == Field::Mode,
            Self::Order => is_content && sorted(ours, "\n") == sorted(peers, "\n"),
            Self::StanzaOrder => is_content && sorted(ours, "\n\n") == sorted(peers, "\n\n"),
            Self::AccountOrder => is_content && accounts(ours, path) == accounts(peers, path),
        }
    }
}

/// The rows of a file of accounts by name, without the third field.
fn accounts(tree: &Tree, path: &[u8]) -> BTreeMap<String, Vec<String>> {
    let text = text(tree, path);
    let row = |row: &str| {
        let mut fields: Vec<String> = row.split(':').map(str::to_owned).collect();
        fields.remove(2);
        (fields.remove(0), fields)
    };
    text.lines().map(row).collect()
}

/// Whether it is a time that follows from the order of work, or from the time of day.
fn is_expected_time(peers: &Tree, difference: &Difference, started: i64) -> bool {
    if !matches!(difference.field, Field::Mtime | Field::MtimeNs) {
        return false;
    }
    let inode = peers.inode(peers.lookup(&difference.path).unwrap());
    let is_folder = matches!(inode.kind, Kind::Directory(_));
    is_folder || inode.metadata.times.modified >= Timestamp::from_seconds(started)
}

fn text(tree: &Tree, path: &[u8]) -> String {
    let id = tree.lookup(path).unwrap();
    String::from_utf8(tree.read_file(id, 64 << 20).unwrap()).unwrap()
}

/// Names and versions: if they are not the same, the mirror has moved meanwhile.
fn packages_of(tree: &Tree) -> Vec<String> {
    let status = text(tree, b"/var/lib/dpkg/status");
    let lines = status.lines();
    lines
        .filter(|line| line.starts_with("Package: ") || line.starts_with("Version: "))
        .map(str::to_owned)
        .collect()
}

/// Where the guest's apt looks.
fn mirror_of(tree: &Tree) -> String {
    let sources = text(tree, b"/etc/apt/sources.list.d/debian.sources");
    let mut lines = sources.lines();
    let line = lines.find_map(|line| line.strip_prefix("URIs: "));
    line.unwrap().to_owned()
}

fn open(path: &Path) -> std::fs::File {
    fs::File::open(path).unwrap().into_parts().0
}

/// What mmdebstrap makes of the packages, as root, and when it was started, in seconds.
fn peers_tree(folder: &Path, mirror: &str, packages: &[&str]) -> (Tree, i64) {
    let archive = folder.join("peer.tar");
    let keyring = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../builder/src/debian/archive-keys.asc"
    );
    // mmdebstrap's own user for downloads has to read it.
    let keys = folder.join("keys.asc");
    fs::copy(keyring, &keys).unwrap();
    let mut command = Command::new("mmdebstrap");
    support::plain_environment(&mut command);
    command
        .args(["--mode=root", "--variant=minbase", "--format=tar"])
        .arg(format!("--keyring={}", keys.display()));
    if !packages.is_empty() {
        command.arg(format!("--include={}", packages.join(",")));
    }
    command.arg("trixie").arg(&archive).arg(mirror);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    support::run(&mut command, BUILD_DEADLINE).expect(0);
    let mut tree = Tree::new(coop_image::tree::Metadata::default());
    let options = compress::Options {
        limits: compress::Limits::default(),
        threads: std::num::NonZeroUsize::MIN,
    };
    let spool = || Err(std::io::Error::other("the archive is not packed"));
    let archive = open(&archive);
    tar::read_file(&mut tree, archive, spool, &tar::Options::default(), options).unwrap();
    (tree, i64::try_from(now.as_secs()).unwrap())
}

/// The appliance of [`SERVER`], built once.
fn server() -> &'static Path {
    static SERVER_FOLDER: OnceLock<PathBuf> = OnceLock::new();
    SERVER_FOLDER.get_or_init(|| {
        let text = format!(
            "name: server\n\
             rootfs:\n  source:\n    debian: {{suite: trixie, packages: [{}]}}\n\
             devices: {{memory: 512MiB}}\n",
            SERVER.join(", ")
        );
        build("debian-server", &text)
    })
}

/// Builds a recipe into a folder of this name, anew.
fn build(name: &str, recipe: &str) -> PathBuf {
    let folder = support::home().join("work").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    support::give(&folder);
    fs::write(folder.join("recipe.yaml"), recipe).unwrap();
    let mut command = support::coop();
    command
        .args(["build", "--progress", "none", "recipe.yaml", "-o", "out"])
        .current_dir(&folder);
    support::run(&mut command, BUILD_DEADLINE).expect(0);
    folder.join("out")
}

fn in_guest(appliance: &Path, script: &str) -> Done {
    let mut command = support::coop();
    command.arg("run").arg(appliance);
    command.args(["--", "sh", "-ec", script]);
    support::run(&mut command, BUILD_DEADLINE)
}

#[test]
fn dpkg_and_apt_go_on_from_there() {
    let script = "
        dpkg --audit; dpkg --verify; dpkg -S \"$(readlink -f /bin/ls)\"
        export DEBIAN_FRONTEND=noninteractive
        exec 3>&1 >&2
        apt-get update
        apt-get install -y hello; hello -t >&3
        apt-get -y upgrade
        apt-get remove -y hello
        apt-get autoremove --dry-run >&3
        apt-get check; dpkg --audit >&3; dpkg --verify >&3
        apt-mark showmanual | grep -x molly-guard >&3
        ! apt-mark showmanual | grep -x libsystemd-shared";
    let done = in_guest(server(), script).expect(0);
    let text = done.text();
    let lines: Vec<&str> = text.lines().filter(|line| !line.ends_with("...")).collect();
    let expected = [
        "coreutils: /usr/bin/ls",
        "hello, world",
        "0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.",
        "molly-guard",
    ];
    assert_eq!(lines, expected, "{}", done.stderr);
}

/// Packages by their files, another architecture, and what is left out and answered.
#[test]
fn a_recipe_adds_and_leaves_out() {
    if !support::oracle("dpkg-deb") {
        return;
    }
    let work = support::home().join("work/debian-extras");
    let _ = fs::remove_dir_all(&work);
    let package = work.join("package");
    fs::create_dir_all(package.join("DEBIAN")).unwrap();
    fs::create_dir_all(package.join("usr/bin")).unwrap();
    let control = "Package: greeter\nVersion: 1:2\nArchitecture: all\nDepends: hello\n\
                   Maintainer: T <t@example.invalid>\nDescription: test\n";
    fs::write(package.join("DEBIAN/control"), control).unwrap();
    fs::write(package.join("usr/bin/greet"), "#!/bin/sh\nexec hello -t\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(package.join("usr/bin/greet"), mode).unwrap();
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--build", "--root-owner-group"]);
    pack.arg(&package)
        .arg(support::home().join("work/greeter.deb"));
    support::run(&mut pack, RUN_DEADLINE).expect(0);
    let recipe = "name: extras\n\
                  rootfs:\n  source:\n    debian:\n      suite: trixie\n      \
                  packages: [\"zlib1g:i386\"]\n      \
                  debs: [{path: ../greeter.deb}]\n      \
                  exclude:\n        packages: [e2fsprogs]\n        \
                  paths: [documentation, locales, \"/usr/share/bug/*\"]\n        \
                  keep: [\"/usr/share/locale/de/*\"]\n      \
                  debconf:\n        \
                  - {package: tzdata, question: tzdata/Areas, type: select, value: Europe}\n        \
                  - tzdata tzdata/Zones/Europe select Berlin\n";
    let appliance = build("debian-extras", recipe);
    let script = "
        greet; dpkg-query -W -f '${Status} ${Version}\\n' greeter
        readlink /etc/localtime; ! dpkg-query -W e2fsprogs 2>/dev/null
        dpkg --print-foreign-architectures
        dpkg-query -W -f '${binary:Package} ${Status}\\n' 'libc6:*' 'zlib1g:*'
        test -e /usr/lib/i386-linux-gnu/libz.so.1
        ls /usr/share/doc/hello; find /usr/share/locale -type f | grep -v '^/usr/share/locale/de/' || true; find /usr/share/man/man1 | wc -l
        dpkg --audit; dpkg --verify | grep -vE '/usr/share/(doc|man|info|locale|bug|lintian)/' || true
        apt-mark showauto | grep -x hello; apt-mark showmanual | grep -x greeter
        apt-get autoremove --dry-run | grep 'to remove'";
    let done = in_guest(&appliance, script).expect(0);
    let expected = "hello, world\ninstall ok installed 1:2\n\
                    /usr/share/zoneinfo/Europe/Berlin\ni386\n\
                    libc6:amd64 install ok installed\nlibc6:i386 install ok installed\n\
                    zlib1g:amd64 install ok installed\nzlib1g:i386 install ok installed\n\
                    copyright\n1\n\
                    hello\ngreeter\n\
                    0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n";
    assert_eq!(done.text(), expected, "{}", done.stderr);
}

#[test]
fn another_architecture_is_unpacked_and_not_configured() {
    if !support::oracle("dpkg-deb") {
        return;
    }
    let mut archive = Archive::of("arm64");
    archive.add("base", "Essential: yes\nPriority: required\n", |folder| {
        let script = folder.join("DEBIAN/postinst");
        fs::write(&script, "#!/bin/sh\nexit 1\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(script, mode).unwrap();
        fs::create_dir_all(folder.join("usr/bin")).unwrap();
        fs::write(folder.join("usr/bin/program"), "for arm64").unwrap();
    });
    let recipe = archive.publish("") + "      unpack_only: arm64\n";
    let appliance = build("debian-unpacked", &recipe);
    let tree = ext4::read(Arc::new(open(&appliance.join("root.cobd")))).unwrap();
    assert_eq!(text(&tree, b"/usr/bin/program"), "for arm64");
    assert_eq!(text(&tree, b"/var/lib/dpkg/arch"), "arm64\n");
    let status = text(&tree, b"/var/lib/dpkg/status");
    assert!(
        status.contains("\nStatus: install ok unpacked\n"),
        "{status}"
    );
    let script = text(&tree, b"/var/lib/coop/configure");
    assert!(script.contains("\ndpkg --configure -a\n"), "{script}");
}
