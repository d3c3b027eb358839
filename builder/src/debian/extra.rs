//! Packages that are in no archive: .deb files by path or address, known by their digests.
//!
//! What their control files say goes to the resolver as a list of its own, which it prefers to all
//! others, so that their dependencies come from the suites and what they provide counts.

use std::fmt::Write as _;

use coop_runtime::event::Observer;

use crate::debian::deb::{self, DebError};
use crate::debian::packages::{PackageList, RESOLVED_FIELDS};
use crate::debian::suite::SelectedPackage;
use crate::fetch::{Download, FetchError, Fetcher};

/// What a lock calls the place where these packages are.
pub(super) const KEY: &str = "deb";
/// Above all that suites may have: apt takes what it is given by a file's name.
const PRIORITY: u16 = 1001;

/// A .deb, in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraDeb {
    /// What it is called in the recipe, for messages.
    pub written: String,
    /// Which package it is.
    pub package: SelectedPackage,
    /// What the resolver needs to know of it, as a stanza.
    stanza: String,
}

impl ExtraDeb {
    /// Brings a .deb into the store and reads what it is.
    ///
    /// # Errors
    /// It cannot be had, has another digest, or is no .deb that coop reads.
    pub fn open(
        fetcher: &Fetcher,
        written: &str,
        download: &Download,
        observer: &dyn Observer,
    ) -> Result<Self, DebError> {
        let wanted = std::slice::from_ref(download);
        let file = fetcher.fetch(wanted, "download packages", observer)?.pop();
        let file = file.ok_or_else(|| FetchError::Offline(download.url.clone()))?;
        let size = file.metadata().map_err(FetchError::File)?.len();
        let fields = deb::control_fields(written, &file.into_file())?;
        let field = |name: &str| {
            let mut fields = fields.iter();
            let found = fields.find(|(other, _)| other.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.as_str())
        };
        let [name, version, architecture] = ["Package", "Version", "Architecture"].map(field);
        let mut stanza = String::new();
        for name in RESOLVED_FIELDS {
            let value = field(name);
            if !value.is_empty() {
                // Writing to a String does not fail.
                let _ = writeln!(stanza, "{name}: {value}");
            }
        }
        Ok(Self {
            written: written.to_owned(),
            package: SelectedPackage {
                name: name.to_owned(),
                version: version.to_owned(),
                architecture: architecture.to_owned(),
                suite: KEY.to_owned(),
                path: format!("{name}_{version}_{architecture}.deb"),
                download: Download {
                    size_bytes: Some(size),
                    ..download.clone()
                },
            },
            stanza,
        })
    }

    /// It as a list of packages with nothing else in it.
    pub(super) fn list(&self) -> PackageList {
        PackageList {
            mirror: String::new(),
            url: self.written.clone(),
            text: self.stanza.clone(),
            priority: PRIORITY,
            suites: Vec::new(),
            key: KEY.to_owned(),
            only: Some(self.package.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use coop_runtime::event::Silent;
    use fs_err as fs;
    use tempfile::TempDir;

    use super::*;
    use crate::debian::testing::Recipe;
    use crate::digest::Digest;
    use crate::fetch::Options;
    use crate::store::Store;

    fn open(bytes: &[u8], digest: Digest) -> Result<ExtraDeb, String> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.deb");
        fs::write(&path, bytes).unwrap();
        let store = Store::open(&folder.path().join("cache")).unwrap();
        let options = Options {
            offline: true,
            ..Options::default()
        };
        let fetcher = Fetcher::new(store, options);
        let download = Download {
            url: format!("file://{}", path.display()),
            digest,
            size_bytes: None,
        };
        ExtraDeb::open(&fetcher, "./x.deb", &download, &Silent).map_err(|error| error.to_string())
    }

    const TOOL: Recipe<'_> = Recipe {
        name: "tool",
        version: "1:2-3",
        fields: "Provides: hammer (= 4)\nDepends: libx1,\n libc6 (>= 2)\nFilename: ../../x\n",
        control: &[],
        files: &[("usr/bin/tool", "x")],
    };

    #[test]
    fn a_file_is_known_by_its_control_data() {
        let bytes = TOOL.bytes();
        let deb = open(&bytes, Digest::of(&bytes)).unwrap();
        let list = deb.list();
        assert_eq!(
            list.text,
            "Package: tool\nVersion: 1:2-3\nArchitecture: amd64\nDepends: libx1,\n libc6 (>= 2)\n\
             Provides: hammer (= 4)\n"
        );
        let lists = [list];
        let universe = crate::debian::packages::Universe::new(&lists).unwrap();
        assert_eq!(universe.providing("hammer").len(), 1);
        let id = universe.named("tool")[0];
        let download = universe.download(id).unwrap();
        assert_eq!(download, deb.package.download);
        assert_eq!(download.size_bytes, Some(bytes.len() as u64));
        assert_eq!(deb.package.path, "tool_1:2-3_amd64.deb");
    }

    #[test]
    fn other_bytes_are_refused() {
        let bytes = TOOL.bytes();
        let error = open(&bytes, Digest::of(b"other")).unwrap_err();
        assert!(error.contains("has the SHA-256"), "{error}");
        let error = open(b"no package", Digest::of(b"no package")).unwrap_err();
        assert!(error.contains("'./x.deb' is not a .deb file"), "{error}");
        for index in (0..bytes.len().min(2000)).step_by(23) {
            let mut bad = bytes.clone();
            bad[index] ^= 0x15;
            let _ = open(&bad, Digest::of(&bad));
        }
    }
}
