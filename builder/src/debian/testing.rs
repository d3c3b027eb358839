//! An archive that the tests make themselves: a key, a Release file, and packages.

mod signing;

use std::io::Write;
use std::path::PathBuf;

use fs_err as fs;
use sequoia_openpgp as openpgp;

use openpgp::cert::prelude::*;
use openpgp::serialize::SerializeInto;
use tempfile::TempDir;

use coop_image::tree::{Inode, Kind, Metadata, Times, Timestamp, Tree};

use crate::debian::deb::{Deb, DebError, open_deb};
use crate::debian::keys::Keyring;
use crate::debian::suite::SelectedPackage;
use crate::digest::Digest;
use crate::fetch::Download;
use crate::store::Store;

pub(crate) use signing::{HOUR, NOW, NOW_TEXT, clear_sign, new_key};

pub(crate) fn keyring(cert: &Cert) -> Keyring {
    Keyring::parse(&cert.armored().to_vec().unwrap()).unwrap()
}

/// A folder that is an archive with the suite `trixie`.
pub(crate) struct Archive {
    pub(crate) folder: TempDir,
    pub(crate) key: Cert,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            key: new_key(None),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.folder.path().display())
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Publishes the stanzas of a Packages file; `date` and `more` go into the Release file.
    pub(crate) fn publish(&self, packages: &str, date: &str, more: &str) {
        let path = "main/binary-amd64/Packages";
        self.write(&format!("dists/trixie/{path}"), packages.as_bytes());
        let digest = Digest::of(packages.as_bytes());
        let size = packages.len();
        self.write_release(&format!(
            "Origin: Debian\nSuite: stable\nCodename: trixie\nDate: {date}\n{more}\
             Architectures: all amd64\nComponents: main\nSHA256:\n {digest} {size} {path}\n"
        ));
    }

    pub(crate) fn write_release(&self, text: &str) {
        self.write("dists/trixie/InRelease", &clear_sign(&self.key, text));
    }
}

/// A package to be made: its control file's fields, control files, and files.
pub(crate) struct Recipe<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    /// Lines of the control file beyond the usual ones.
    pub(crate) fields: &'a str,
    /// Name and text of further control files.
    pub(crate) control: &'a [(&'a str, &'a str)],
    /// Path and text; a path that ends with a slash is a folder, a text that begins with `->` the
    /// target of a symbolic link.
    pub(crate) files: &'a [(&'a str, &'a str)],
}

impl Recipe<'_> {
    fn control_text(&self) -> String {
        let architecture = match self.fields.contains("Architecture:") {
            true => "",
            false => "Architecture: amd64\n",
        };
        format!(
            "Package: {}\nVersion: {}\n{architecture}Maintainer: T <t@example.invalid>\n{}\
             Description: test\n more\n",
            self.name, self.version, self.fields
        )
    }

    /// The bytes of a .deb with plain members.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let control_text = self.control_text();
        let mut control = vec![("control", control_text.as_str())];
        control.extend_from_slice(self.control);
        let (control, data) = (tar_of(&control), tar_of(self.files));
        let mut deb = b"!<arch>\n".to_vec();
        let members = [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", control),
            ("data.tar", data),
        ];
        for (name, bytes) in members {
            let size = bytes.len();
            let head = format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n",
                0, 0, 0, "100644"
            );
            deb.extend_from_slice(head.as_bytes());
            deb.extend_from_slice(&bytes);
            deb.resize(deb.len().next_multiple_of(2), b'\n');
        }
        deb
    }

    pub(crate) fn selected(&self, bytes: &[u8]) -> SelectedPackage {
        let all = self.fields.contains("Architecture: all");
        SelectedPackage {
            name: self.name.to_owned(),
            version: self.version.to_owned(),
            architecture: if all { "all" } else { "amd64" }.to_owned(),
            suite: "trixie".to_owned(),
            path: format!("{}.deb", self.name),
            download: Download {
                url: format!("http://nowhere.invalid/{}.deb", self.name),
                digest: Digest::of(bytes),
                size_bytes: Some(bytes.len() as u64),
            },
        }
    }

    /// The package as it is after download and opening.
    pub(crate) fn deb(&self, store: &Store) -> Deb {
        let bytes = self.bytes();
        open(store, &self.selected(&bytes), &bytes).unwrap()
    }
}

/// Opens bytes as a package.
pub(crate) fn open(
    store: &Store,
    package: &SelectedPackage,
    bytes: &[u8],
) -> Result<Deb, DebError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    open_deb(store, package, file)
}

fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tree = Tree::new(folder());
    for (path, text) in files {
        if path.ends_with('/') {
            tree.make_directories(path.as_bytes(), &folder()).unwrap();
            continue;
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = tree.make_directories(parent.as_bytes(), &folder()).unwrap();
        let kind = match text.strip_prefix("->") {
            Some(target) => Kind::Symlink(target.as_bytes().into()),
            None => Kind::File(tree.add_bytes(text.as_bytes().to_vec()).unwrap()),
        };
        let metadata = Metadata {
            mode: if text.starts_with("#!") { 0o755 } else { 0o644 },
            times: Times::all(Timestamp::from_seconds(NOW - HOUR)),
            ..Metadata::default()
        };
        let id = tree.add_inode(Inode { metadata, kind }).unwrap();
        tree.link(parent, name.as_bytes(), id).unwrap();
    }
    let mut bytes = Vec::new();
    coop_image::tar::write(&tree, &mut bytes).unwrap();
    bytes
}

fn folder() -> Metadata {
    Metadata {
        mode: 0o755,
        times: Times::all(Timestamp::from_seconds(NOW - HOUR)),
        ..Metadata::default()
    }
}
