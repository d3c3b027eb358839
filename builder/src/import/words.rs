//! Words of the kernel's command line: which of them mean something else under coop.

use super::settings::{NfsSetting, Placed, Settings, shorten};

/// Where the root is, as far as the command line says.
#[derive(Debug, Default)]
pub(super) struct RootWords {
    /// `root=`.
    pub(super) device: Option<Placed<String>>,
    /// `nfsroot=`.
    pub(super) nfs: Option<Placed<NfsSetting>>,
}

/// Sorts the words: gives those that are the kernel's under coop too, and what they say of the
/// root. The others become notes.
pub(super) fn sort(settings: &mut Settings) -> (Vec<String>, RootWords) {
    let mut kept = Vec::new();
    let mut root = RootWords::default();
    for word in std::mem::take(&mut settings.words) {
        let (key, value) = match word.value.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word.value.as_str(), None),
        };
        let shown = match word.value.as_str() {
            "" => "\"\"".to_owned(),
            text => shorten(text),
        };
        match (key, value) {
            ("root", Some(value)) => {
                if let Some(before) = &root.device {
                    let why = "root= stands there again, and the last one counts";
                    let what = format!("root={}", shorten(&before.value));
                    settings.changed(&before.at.clone(), what, why);
                }
                root.device = Some(Placed {
                    value: value.to_owned(),
                    at: word.at,
                });
            }
            ("nfsroot", Some(value)) => {
                let (place, options) = value.split_once(',').unwrap_or((value, ""));
                match place.split_once(':') {
                    Some((server, path)) if !server.is_empty() && path.starts_with('/') => {
                        root.nfs = Some(Placed {
                            value: NfsSetting {
                                server: server.to_owned(),
                                path: path.to_owned(),
                                options: options.to_owned(),
                            },
                            at: word.at,
                        });
                    }
                    _ => settings.wrong(
                        &word.at,
                        format!("{shown}: write nfsroot=SERVER:/PATH[,OPTIONS]"),
                    ),
                }
            }
            _ => match reason(key) {
                Some(why) => settings.left_out(&word.at, shown, why),
                None if good(&word.value) => kept.push(word.value),
                None => {
                    let why = "is not a word that a kernel's command line can have";
                    settings.left_out(&word.at, shown, why);
                }
            },
        }
    }
    (kept, root)
}

/// A word as a recipe takes it.
fn good(word: &str) -> bool {
    (1..=1024).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Why a word is not passed on.
fn reason(key: &str) -> Option<&'static str> {
    Some(match key {
        "ro" | "rw" => {
            "coop's agent mounts the root; what the guest writes is thrown away unless coop run \
             --persist keeps it"
        }
        "rootfstype" | "rootflags" | "rootwait" | "rootdelay" => {
            "coop's agent mounts the root, as ext4, which reads ext2 and ext3 too"
        }
        "init" => "coop starts the root's own init; coop run … -- PROGRAM runs another program",
        "initrd" | "noinitrd" | "load_ramdisk" | "prompt_ramdisk" | "ramdisk_start" => {
            "coop starts its kernel with an initramfs of its own"
        }
        "mem" => "the guest's memory is the machine's, not a word for the kernel",
        "ip" | "nfsaddrs" => "coop's agent sets the guest's address",
        "console" | "con" | "con0" | "con1" => "coop's console takes its place",
        "vmlinux" | "vga" | "video" => "there is no such device under coop",
        _ => return None,
    })
}
