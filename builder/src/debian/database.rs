//! dpkg's database in a tree: `/var/lib/dpkg` as it is after `dpkg --unpack`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use coop_image::tree::{Inode, InodeId, Kind, Metadata, Times, Timestamp, Tree, TreeError};

use crate::debian::deb::{ControlFile, Deb};

/// Where the database is.
const FOLDER: &str = "/var/lib/dpkg";
/// Version of the layout of `info/`.
const INFO_FORMAT: &str = "1\n";
/// The order in which dpkg writes the fields that it knows; all others follow as they come.
const FIELD_ORDER: &[&str] = &[
    "Package",
    "Essential",
    "Protected",
    "Status",
    "Priority",
    "Section",
    "Installed-Size",
    "Origin",
    "Maintainer",
    "Bugs",
    "Architecture",
    "Multi-Arch",
    "Source",
    "Version",
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
    "Conffiles",
    "Description",
];

/// Files that are made here: all root's, all with one time.
pub(super) struct Maker<'t> {
    pub(super) tree: &'t mut Tree,
    pub(super) time: Timestamp,
}

impl Maker<'_> {
    fn metadata(&self, mode: u16) -> Metadata {
        Metadata {
            mode,
            times: Times::all(self.time),
            ..Metadata::default()
        }
    }

    /// Finds or makes a folder.
    pub(super) fn folder(&mut self, path: &str) -> Result<InodeId, TreeError> {
        let metadata = self.metadata(0o755);
        self.tree.make_directories(path.as_bytes(), &metadata)
    }

    /// Makes a file in a folder, in place of one that is there.
    pub(super) fn file(
        &mut self,
        folder: InodeId,
        name: &str,
        mode: u16,
        bytes: Vec<u8>,
    ) -> Result<(), TreeError> {
        let metadata = self.metadata(mode);
        let kind = Kind::File(self.tree.add_bytes(bytes)?);
        let id = self.tree.add_inode(Inode { metadata, kind })?;
        self.tree.replace(folder, name.as_bytes(), id)?;
        Ok(())
    }
}

/// Writes the database for packages that were unpacked; `lists` has the paths of each, and the first
/// of `architectures` is the system's own.
pub(super) fn write(
    maker: &mut Maker<'_>,
    architectures: &[&str],
    debs: &[Deb],
    lists: &[Vec<Vec<u8>>],
) -> Result<(), TreeError> {
    let root = maker.folder(FOLDER)?;
    for name in ["alternatives", "parts", "updates"] {
        maker.folder(&format!("{FOLDER}/{name}"))?;
    }
    let info = maker.folder(&format!("{FOLDER}/info"))?;
    maker.file(info, "format", 0o644, INFO_FORMAT.into())?;
    for (deb, list) in debs.iter().zip(lists) {
        let name = deb.database_name();
        let mut text = Vec::new();
        for path in list {
            text.extend_from_slice(path);
            text.push(b'\n');
        }
        maker.file(info, &format!("{name}.list"), 0o644, text)?;
        for (kind, file) in deb.control.iter().filter(|(kind, _)| *kind != "control") {
            write_control_file(maker, info, &format!("{name}.{kind}"), file)?;
        }
    }
    maker.file(root, "status", 0o644, status(debs).into_bytes())?;
    maker.file(root, "diversions", 0o644, Vec::new())?;
    let arch = architectures.join("\n") + "\n";
    maker.file(root, "arch", 0o644, arch.into_bytes())?;
    let triggers = maker.folder(&format!("{FOLDER}/triggers"))?;
    for (name, text) in trigger_files(debs) {
        maker.file(triggers, &name, 0o644, text.into_bytes())?;
    }
    Ok(())
}

fn write_control_file(
    maker: &mut Maker<'_>,
    info: InodeId,
    name: &str,
    file: &ControlFile,
) -> Result<(), TreeError> {
    let time = std::mem::replace(&mut maker.time, file.modified);
    let made = maker.file(info, name, file.mode & 0o755, file.bytes.clone());
    maker.time = time;
    made
}

/// The status file, packages by name.
fn status(debs: &[Deb]) -> String {
    let mut sorted: Vec<&Deb> = debs.iter().collect();
    sorted.sort_by_key(|deb| (&deb.package.name, &deb.package.architecture));
    let mut text = String::new();
    for deb in sorted {
        stanza(&mut text, deb);
        text.push('\n');
    }
    text
}

fn stanza(text: &mut String, deb: &Deb) {
    let mut field = |name: &str, value: &str| {
        let space = if value.is_empty() || value.starts_with('\n') {
            ""
        } else {
            " "
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name}:{space}{value}");
    };
    for name in FIELD_ORDER {
        match *name {
            "Status" => field(name, "install ok unpacked"),
            "Conffiles" => {
                let value = conffiles(deb);
                if !value.is_empty() {
                    field(name, &value);
                }
            }
            _ => {
                if let Some(value) = deb.field(name) {
                    field(name, value);
                }
            }
        }
    }
    let is_known = |name: &str| {
        FIELD_ORDER
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
    };
    for (name, value) in deb.fields.iter().filter(|(name, _)| !is_known(name)) {
        field(name, value);
    }
}

/// The value of `Conffiles` for a package whose configuration files have not been installed yet.
fn conffiles(deb: &Deb) -> String {
    let mut value = String::new();
    let listed = deb.control_text("conffiles").unwrap_or_default();
    for line in listed
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (path, flag) = match line.strip_prefix("remove-on-upgrade ") {
            Some(path) => (path.trim(), " remove-on-upgrade"),
            None => (line, ""),
        };
        let _ = write!(value, "\n {path} newconffile{flag}");
    }
    value
}

/// `triggers/File` for the interest in paths, and one file for each named trigger.
fn trigger_files(debs: &[Deb]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::from([("Unincorp".to_owned(), String::new())]);
    for deb in debs {
        let text = deb.control_text("triggers").unwrap_or_default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let suffix = match words.next() {
                Some("interest" | "interest-await") => "",
                Some("interest-noawait") => "/noawait",
                _ => continue,
            };
            let Some(trigger) = words.next() else {
                continue;
            };
            let who = format!("{}{suffix}", deb.database_name());
            if trigger.starts_with('/') {
                let file = files.entry("File".to_owned()).or_default();
                let _ = writeln!(file, "{trigger} {who}");
            } else if is_trigger_name(trigger) {
                let file = files.entry(trigger.to_owned()).or_default();
                let _ = writeln!(file, "{who}");
            }
        }
    }
    files
}

/// A trigger's name becomes a file's name; dpkg's own files begin with a capital letter.
fn is_trigger_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte);
    let reserved = ["File", "Lock", "Unincorp"].contains(&name);
    !name.starts_with('.') && !reserved && name.len() <= 200 && name.bytes().all(allowed)
}
