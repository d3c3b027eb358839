//! `rootfs.readonly`: what of a read-only root lies in memory.

use std::collections::BTreeMap;

use coop_appliance::{Readonly, Writable};

use super::decode::{At, Decoder};
use super::names;
use super::node::Node;
use super::resolve::Resolver;
use super::units::shorten;
use super::written::{keys, texts};

/// The place of every program's own files, which a read-only root always has in memory.
const TMP: &str = "/tmp";
/// Where the kernel and the agent mount what they have; nothing else can be there.
const MOUNTED: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];
/// The most folders and the most files.
const NAMES_MAX: usize = 256;
/// What is writable where the recipe does not say.
const WRITABLE: [(&str, Writable); 4] = [
    ("/home", Writable::Copy),
    ("/root", Writable::Copy),
    (TMP, Writable::Empty),
    ("/var", Writable::Copy),
];
/// What of `/etc` is made at boot where the recipe does not say.
const ETC: [&str; 3] = ["resolv.conf", "fstab", "motd"];

/// What was written.
pub(super) struct WrittenReadonly {
    writable: Option<Vec<(At<String>, At<String>)>>,
    etc: Option<Vec<At<String>>>,
}

const KEYS: super::decode::Keys = keys(&["writable", "etc"], &[]);

/// Reads the map.
pub(super) fn read(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<WrittenReadonly> {
    let fields = d.map(node, path, &KEYS)?;
    let has_etc = fields.get("etc").is_some();
    Some(WrittenReadonly {
        writable: d.field(&fields, "writable", Decoder::texts_by_name),
        etc: has_etc.then(|| texts(d, &fields, "etc")),
    })
}

impl Resolver<'_, '_> {
    /// Fills in what is absent, and checks the rest.
    pub(super) fn readonly(&mut self, written: WrittenReadonly) -> Readonly {
        let writable = match written.writable {
            Some(list) => self.writable(list),
            None => WRITABLE
                .map(|(path, start)| (path.to_owned(), start))
                .into(),
        };
        let etc = match written.etc {
            Some(list) => self.etc(list),
            None => ETC.map(str::to_owned).into(),
        };
        Readonly { writable, etc }
    }

    fn writable(&mut self, list: Vec<(At<String>, At<String>)>) -> BTreeMap<String, Writable> {
        let mut writable = BTreeMap::from([(TMP.to_owned(), Writable::Empty)]);
        for (index, (folder, start)) in list.into_iter().enumerate() {
            let path = format!("rootfs.readonly.writable.{}", shorten(&folder.value));
            let verdict = folder_verdict(&folder.value).and_then(|()| match index < NAMES_MAX {
                true => Ok(()),
                false => Err(format!("more than {NAMES_MAX} folders")),
            });
            if let Err(reason) = verdict {
                self.d.reject(folder.at, &path, reason);
            }
            let start = match &*start.value {
                "empty" => Writable::Empty,
                "copy" => Writable::Copy,
                _ => {
                    self.d.reject(start.at, &path, "write empty or copy");
                    continue;
                }
            };
            writable.insert(folder.value, start);
        }
        writable
    }

    fn etc(&mut self, list: Vec<At<String>>) -> Vec<String> {
        let mut seen = std::collections::BTreeSet::new();
        let mut names = Vec::new();
        for (index, name) in list.into_iter().enumerate() {
            let path = format!("rootfs.readonly.etc[{index}]");
            let verdict = etc_verdict(&name.value).and_then(|()| match index < NAMES_MAX {
                true => Ok(()),
                false => Err(format!("more than {NAMES_MAX} files")),
            });
            if let Err(reason) = verdict {
                self.d.reject(name.at, &path, reason);
            }
            self.once(&mut seen, name.value.clone(), name.at, &path);
            names.push(name.value);
        }
        names
    }
}

fn folder_verdict(folder: &str) -> Result<(), String> {
    names::guest_path(folder)?;
    let below = |top: &str| {
        folder
            .strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if MOUNTED.into_iter().any(below) {
        return Err("lies in the kernel's memory anyway".to_owned());
    }
    if folder == "/etc" {
        return Err("names of files in /etc go to rootfs.readonly.etc".to_owned());
    }
    Ok(())
}

/// A file below `/etc`: what each machine has of its own is not one of them.
fn etc_verdict(name: &str) -> Result<(), String> {
    if names::guest_path(&format!("/{name}")).is_err() || name.contains(char::is_whitespace) {
        let name = shorten(name);
        return Err(format!(
            "'{name}' is not a plain path below /etc, as network/ifstate"
        ));
    }
    if ["machine-id", "hostname"].contains(&name) || name.starts_with("ssh/ssh_host_") {
        return Err("belongs to the machine, and lies in memory without being named".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_files_are_plain_and_nobody_elses() {
        for good in ["/var", "/etc/network", "/srv/a b", "/running"] {
            assert_eq!(folder_verdict(good), Ok(()), "{good}");
        }
        for bad in [
            "/", "var", "/var/", "/run", "/run/x", "/dev/shm", "/a/../b", "/etc",
        ] {
            assert!(folder_verdict(bad).is_err(), "{bad}");
        }
        for good in ["motd", "network/ifstate", "ssh/sshd_config"] {
            assert_eq!(etc_verdict(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/etc/motd",
            "../passwd",
            "a/../b",
            "a b",
            "machine-id",
            "ssh/ssh_host_x",
        ] {
            assert!(etc_verdict(bad).is_err(), "{bad}");
        }
    }
}
