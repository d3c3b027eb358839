//! The machine that a configuration describes, in coop's terms.

use std::path::Path;

use coop_appliance::Forward;

use super::settings::{COBD_MAX, NfsSetting, Placed, Settings, shorten};
use super::words::{self, RootWords};
use super::{At, Outcome};
use crate::recipe::{NFS_OPTIONS_MAX, guest_folder, nfs_option, server_name};

/// Block devices that a machine of coop's has at most.
const DISKS_MAX: usize = 16;
/// The least memory of a guest, in MiB.
const MEMORY_MIN_MIB: u64 = 64;

/// A machine as a configuration describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// A name fit for a recipe, made from the file's.
    pub name: String,
    /// Guest memory in bytes, where the configuration says.
    pub memory_bytes: Option<u64>,
    /// Words for the kernel's command line.
    pub cmdline: Vec<String>,
    /// Where the root is.
    pub root: Root,
    /// Block devices in coop's order: the root first, where it is on one.
    pub disks: Vec<Disk>,
    /// Whether there is a network.
    pub network: bool,
    /// Ports of the host's loopback that lead into the guest.
    pub forwards: Vec<Forward>,
    /// The console's columns and rows.
    pub console: Option<(u16, u16)>,
}

/// Where the root file system is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// On the first block device.
    Cobd,
    /// On a server.
    Nfs(NfsRoot),
}

/// A root on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NfsRoot {
    /// Its address or name.
    pub server: String,
    /// What it exports.
    pub path: String,
    /// Options of the mount that are left to say.
    pub options: Vec<String>,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The number that it had: `/dev/cobdN`.
    pub number: u32,
    /// The image: absolute, or relative to the configuration's folder.
    pub path: String,
    /// Where it stands.
    pub at: At,
}

/// Makes a machine of what was read.
pub(super) fn of(settings: &mut Settings, file: &Path) -> Machine {
    let (cmdline, words) = words::sort(settings);
    let root = root(settings, words, file);
    let disks = disks(settings, root.1);
    if let (Root::Cobd, Some(disk)) = (&root.0, disks.first()) {
        let why = "coLinux ran programs of 32 bits, and coop's kernel runs those of 64 bits only: \
                   the root must be one for amd64";
        settings.note(&disk.at.clone(), Outcome::Adapt, "the root", why);
    }
    let memory_bytes = settings.memory.clone().map(|memory| {
        if memory.value < MEMORY_MIN_MIB {
            let why = format!("a guest of coop's has at least {MEMORY_MIN_MIB} MiB");
            settings.changed(&memory.at, format!("{} MB of memory", memory.value), why);
        }
        memory.value.max(MEMORY_MIN_MIB) << 20
    });
    let mut forwards: Vec<Forward> = settings
        .forwards
        .iter()
        .map(|forward| forward.value.clone())
        .collect();
    forwards.sort();
    Machine {
        name: name(file),
        memory_bytes,
        cmdline,
        network: !settings.networks.is_empty() || matches!(root.0, Root::Nfs(_)),
        root: root.0,
        disks,
        forwards,
        console: settings.console,
    }
}

/// Where the root is, and on which block device.
fn root(settings: &mut Settings, words: RootWords, file: &Path) -> (Root, Option<u32>) {
    let nfs = words.nfs.or_else(|| settings.nfs.take());
    let device = words.device;
    let wants_nfs = match &device {
        Some(device) => device.value == "/dev/nfs",
        None => nfs.is_some(),
    };
    if wants_nfs {
        return match nfs {
            Some(nfs) => (Root::Nfs(nfs_root(settings, nfs)), None),
            None => {
                let at = device.map_or_else(|| start(file), |device| device.at);
                let reason = "root=/dev/nfs needs nfsroot=SERVER:/PATH to say where it is";
                settings.wrong(&at, reason);
                (Root::Cobd, None)
            }
        };
    }
    if let Some(nfs) = nfs {
        let what = shorten(&format!("{}:{}", nfs.value.server, nfs.value.path));
        settings.left_out(&nfs.at, what, "the root is on a block device");
    }
    let first = settings.disks.keys().next().copied();
    let Some(first) = first else {
        settings.wrong(
            &start(file),
            "there is no block device and no NFS server to take the root from",
        );
        return (Root::Cobd, None);
    };
    let Some(device) = device else {
        return (Root::Cobd, Some(first));
    };
    let short = device.value.strip_prefix("/dev/").unwrap_or(&device.value);
    let number = short
        .strip_prefix("cobd")
        .map(|digits| digits.trim_start_matches('/'))
        .and_then(|digits| digits.parse::<u32>().ok())
        .or_else(|| settings.aliases.get(short).map(|alias| alias.value));
    match number {
        Some(number) if settings.disks.contains_key(&number) => (Root::Cobd, Some(number)),
        Some(number) if number < COBD_MAX => {
            let what = shorten(&device.value);
            settings.wrong(&device.at, format!("root={what}: there is no cobd{number}"));
            (Root::Cobd, None)
        }
        _ => {
            let what = format!("root={}", shorten(&device.value));
            let why =
                format!("is no block device of this file; the root is taken from cobd{first}");
            settings.note(&device.at, Outcome::Adapt, what, why);
            (Root::Cobd, Some(first))
        }
    }
}

/// A root as a recipe takes it.
fn nfs_root(settings: &mut Settings, nfs: Placed<NfsSetting>) -> NfsRoot {
    let NfsSetting {
        server,
        path,
        options,
    } = nfs.value;
    if let Err(reason) = server_name(&server).and_then(|()| guest_folder(&path)) {
        settings.wrong(&nfs.at, format!("the root's server: {reason}"));
    }
    let mut kept = Vec::new();
    for option in options
        .split(',')
        .map(str::trim)
        .filter(|option| !option.is_empty())
    {
        let checked = match kept.len() {
            NFS_OPTIONS_MAX => Err(format!("a recipe has {NFS_OPTIONS_MAX} options at most")),
            _ => nfs_option(option),
        };
        match checked {
            Ok(()) => kept.push(option.to_owned()),
            Err(why) => settings.left_out(&nfs.at, shorten(option), why),
        }
    }
    NfsRoot {
        server,
        path,
        options: kept,
    }
}

/// Puts the devices into coop's order, and says where a number became another.
fn disks(settings: &mut Settings, root: Option<u32>) -> Vec<Disk> {
    let mut disks: Vec<Disk> = settings
        .disks
        .iter()
        .map(|(number, disk)| Disk {
            number: *number,
            path: disk.path.clone(),
            at: disk.at.clone(),
        })
        .collect();
    disks.sort_by_key(|disk| (Some(disk.number) != root, disk.number));
    // A root that is no block device keeps the number 0.
    let first = usize::from(root.is_none());
    for (place, disk) in (first..).zip(&disks) {
        let what = format!("cobd{}", disk.number);
        if place >= DISKS_MAX {
            let why = format!("a machine of coop's has at most {DISKS_MAX} block devices");
            settings.left_out(&disk.at, what, why);
        } else if u32::try_from(place) != Ok(disk.number) {
            let why = format!(
                "is /dev/cobd{place} in the guest: the root has the number 0 and no number is left \
                 out; the guest's /etc/fstab must say so"
            );
            settings.note(&disk.at, Outcome::Adapt, what, why);
        }
    }
    disks.truncate(DISKS_MAX - first);
    let aliases: Vec<_> = settings.aliases.clone().into_iter().collect();
    for (name, number) in aliases {
        let Some(place) = disks.iter().position(|disk| disk.number == number.value) else {
            let reason = format!("{name}: there is no cobd{}", number.value);
            settings.wrong(&number.at, reason);
            continue;
        };
        let why = format!(
            "coop's guests know block devices by one name; where /etc/fstab says /dev/{name} it \
             must say /dev/cobd{place}"
        );
        settings.note(&number.at, Outcome::Adapt, name, why);
    }
    disks
}

fn start(file: &Path) -> At {
    At {
        file: file.to_owned(),
        line: 1,
    }
}

/// A name for the recipe: what letters and digits the file's name has.
fn name(file: &Path) -> String {
    /// The longest name that a recipe can have.
    const NAME_MAX: usize = 63;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut name = String::new();
    for character in stem.chars().take(NAME_MAX) {
        let character = character.to_ascii_lowercase();
        if character.is_ascii_alphanumeric() {
            name.push(character);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_end_matches('-');
    match name.is_empty() {
        true => "imported".to_owned(),
        false => name.to_owned(),
    }
}
