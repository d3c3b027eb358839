//! An archive of Debian packages that the tests make and sign themselves.

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use sequoia_openpgp::cert::Cert;
use sequoia_openpgp::serialize::SerializeInto;
use tempfile::TempDir;

use crate::support;

#[path = "../../../builder/src/debian/testing/signing.rs"]
#[allow(dead_code)]
pub(crate) mod signing;

/// A folder that is an archive with the suite `trixie`.
pub(crate) struct Archive {
    folder: TempDir,
    key: Cert,
    architecture: &'static str,
    stanzas: String,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::of("amd64")
    }

    pub(crate) fn of(architecture: &'static str) -> Self {
        let archive = Self {
            folder: support::temp_folder(),
            key: signing::new_key(None),
            architecture,
            stanzas: String::new(),
        };
        fs::create_dir(archive.path("pool")).unwrap();
        let key = archive.key.armored().to_vec().unwrap();
        fs::write(archive.path("key.asc"), key).unwrap();
        archive
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn deb(&self, name: &str) -> PathBuf {
        self.path(&format!("pool/{name}.deb"))
    }

    /// Adds a package with these further fields and what `fill` puts into its folder.
    pub(crate) fn add(&mut self, name: &str, fields: &str, fill: impl FnOnce(&Path)) {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("DEBIAN");
        fs::create_dir(&control).unwrap();
        fill(folder.path());
        let text = format!(
            "Package: {name}\nVersion: 1\nArchitecture: {}\n\
             Maintainer: T <t@example.invalid>\n{fields}Description: test\n",
            self.architecture
        );
        fs::write(control.join("control"), &text).unwrap();
        let deb = self.deb(name);
        let made = Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Znone", "--build"])
            .args([folder.path(), &deb])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let size = fs::metadata(&deb).unwrap().len();
        let digest = support::sha256(&deb);
        self.stanzas.push_str(&format!(
            "{text}Filename: pool/{name}.deb\nSize: {size}\nSHA256: {digest}\n\n"
        ));
    }

    /// Writes and signs the index, and gives a recipe for these packages and what is essential.
    pub(crate) fn publish(&self, packages: &str) -> String {
        let suite = self.path("dists/trixie");
        let architecture = self.architecture;
        let packages_path = format!("main/binary-{architecture}/Packages");
        let list = suite.join(&packages_path);
        fs::create_dir_all(list.parent().unwrap()).unwrap();
        fs::write(&list, &self.stanzas).unwrap();
        let (size, digest) = (self.stanzas.len(), support::sha256(&list));
        let release = format!(
            "Origin: Test\nSuite: stable\nCodename: trixie\nDate: {}\n\
             Architectures: all {architecture}\nComponents: main\nSHA256:\n {digest} {size} {packages_path}\n",
            signing::NOW_TEXT
        );
        let signed = signing::clear_sign(&self.key, &release);
        fs::write(suite.join("InRelease"), signed).unwrap();
        let folder = self.folder.path().display();
        format!(
            "name: a\nrootfs:\n  source:\n    debian:\n      suite: trixie\n      \
             variant: essential\n      mirror: \"file://{folder}\"\n      \
             keyring: {folder}/key.asc\n      packages: [{packages}]\n"
        )
    }
}
