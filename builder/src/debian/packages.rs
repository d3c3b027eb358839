//! A suite's packages: the `Packages` files that its Release file names.
//!
//! A file is fetched by its digest, decompressed within limits, and cut down to the fields that
//! resolution and download need; the result is kept in the store. Records point into that text.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};

use coop_image::compress;
use coop_runtime::event::Observer;

use crate::debian::deb822::{Deb822Error, Stanza, Stanzas};
use crate::debian::mirror::join_url;
use crate::debian::relations::{self, is_package_name, is_version};
use crate::debian::release::{IndexFile, Release, VerifiedRelease, is_plain_path};
use crate::debian::suite::SelectedPackage;
use crate::debian::version::Version;
use crate::digest::Digest;
use crate::fetch::{Download, FetchError, Fetcher};
use crate::lock::LockedPackage;
use crate::store::{DerivedKey, Store, StoreError};

/// The largest Packages file, decompressed, in bytes (Debian's main has 60 MB).
const INDEX_BYTES_MAX: u64 = 1 << 30;
/// The longest line in one.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// The most packages in one.
const PACKAGES_MAX: usize = 1_000_000;
/// What the store calls a cut down file; the number changes with the fields.
const DERIVED_KIND: &str = "packages-1";
/// The fields that dependencies are resolved by.
pub(super) const RESOLVED_FIELDS: &[&str] = &[
    "Package",
    "Version",
    "Architecture",
    "Essential",
    "Priority",
    "Multi-Arch",
    "Pre-Depends",
    "Depends",
    "Recommends",
    "Conflicts",
    "Breaks",
    "Provides",
];
/// The fields that say where a package is.
const PLACE_FIELDS: &[&str] = &["Filename", "Size", "SHA256"];

/// Why a suite's packages cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// The suite has no such component or architecture: the recipe's matter.
    #[error(
        "suite '{suite}' has no component '{component}' for {architecture} (it has {available})"
    )]
    NoComponent {
        /// The suite.
        suite: String,
        /// The component that was asked for.
        component: String,
        /// The architecture.
        architecture: String,
        /// Components that there are.
        available: String,
    },
    /// It could not be downloaded.
    #[error("cannot get the list of packages: {0}")]
    Fetch(#[from] FetchError),
    /// It cannot be decompressed.
    #[error("cannot read '{url}': {source}")]
    Unreadable {
        /// The file.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// A stanza is not what it should be: the archive's fault.
    #[error("'{url}' is not a list of packages: {source}")]
    Stanza {
        /// The file.
        url: String,
        /// Where.
        source: Deb822Error,
    },
    /// A package's fields do not make sense: the archive's fault.
    #[error("'{url}' has a package '{package}' with an invalid or missing {field}")]
    Field {
        /// The file.
        url: String,
        /// The package.
        package: String,
        /// The field.
        field: &'static str,
    },
    /// More packages than coop takes.
    #[error("'{0}' lists more than {PACKAGES_MAX} packages")]
    TooMany(String),
    /// The cache folder fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The text of one Packages file, cut down.
#[derive(Clone, Debug)]
pub struct PackageList {
    /// The archive's base URL, which file names are relative to.
    pub mirror: String,
    /// Where the file came from.
    pub url: String,
    /// Its stanzas.
    pub text: String,
    /// What apt would prefer it with: of two lists that have a package, the one with the higher
    /// number counts.
    pub priority: u16,
    /// The names that its suite goes by.
    pub suites: Vec<String>,
    /// What a lock calls its suite.
    pub key: String,
    /// The package that is all of the list, where it is in no archive.
    pub only: Option<SelectedPackage>,
}

impl PackageList {
    /// Leaves out what is not wanted, and what cannot be read.
    pub(super) fn keep(&mut self, mut is_wanted: impl FnMut(&Package<'_>) -> bool) {
        let mut kept = String::new();
        for stanza in Stanzas::new(&self.text).map_while(Result::ok) {
            if read_package(&stanza, 0).is_ok_and(|package| is_wanted(&package)) {
                kept.push_str(stanza.text.trim_end_matches('\n'));
                kept.push_str("\n\n");
            }
        }
        self.text = kept;
    }
}

/// Where the lists of a suite come from.
#[derive(Clone, Copy, Debug)]
pub struct ListRequest<'a> {
    /// The suite's verified index.
    pub release: &'a VerifiedRelease,
    /// The archive's base URL.
    pub mirror: &'a str,
    /// The name by which the suite was asked for.
    pub suite: &'a str,
    /// What a lock calls it.
    pub key: &'a str,
    /// Debian's name of the architecture.
    pub architecture: &'a str,
    /// See [`PackageList::priority`].
    pub priority: u16,
}

/// Fetches the list of one component.
///
/// # Errors
/// [`PackagesError`].
pub fn fetch_list(
    fetcher: &Fetcher,
    request: &ListRequest<'_>,
    component: &str,
    observer: &dyn Observer,
) -> Result<PackageList, PackagesError> {
    let ListRequest {
        release,
        mirror,
        suite,
        key: name,
        architecture,
        priority,
    } = *request;
    let folder = format!("{component}/binary-{architecture}");
    let candidates =
        ["Packages.xz", "Packages.gz", "Packages"].map(|name| format!("{folder}/{name}"));
    let found = candidates
        .iter()
        .find_map(|path| Some((path, *release.release.files.get(path)?)));
    let Some((path, file)) = found else {
        return Err(PackagesError::NoComponent {
            suite: release.release.codename.clone(),
            component: component.to_owned(),
            architecture: architecture.to_owned(),
            available: release.release.components.join(", "),
        });
    };
    let url = join_url(&release.folder_url, path);
    let key = DerivedKey {
        kind: DERIVED_KIND,
        input: file.digest,
    };
    let mut derived = match fetcher.store().derived(key)? {
        Some(derived) => derived,
        None => {
            let packed = fetch_index(fetcher, release, path, file, observer)?;
            cut_down(fetcher.store(), packed, key, &url)?
        }
    };
    let mut text = String::new();
    let source = |source| PackagesError::Unreadable {
        url: url.clone(),
        source,
    };
    derived.read_to_string(&mut text).map_err(source)?;
    let Release {
        suite: own,
        codename,
        ..
    } = &release.release;
    Ok(PackageList {
        mirror: mirror.to_owned(),
        url,
        text,
        priority,
        key: name.to_owned(),
        only: None,
        suites: vec![suite.to_owned(), own.clone(), codename.clone()],
    })
}

/// By digest where the archive offers that: a mirror that is being updated still has the old file
/// under that name.
pub(crate) fn fetch_index(
    fetcher: &Fetcher,
    release: &VerifiedRelease,
    path: &str,
    file: IndexFile,
    observer: &dyn Observer,
) -> Result<fs_err::File, FetchError> {
    let fetch = |path: &str| {
        let download = Download {
            url: join_url(&release.folder_url, path),
            digest: file.digest,
            size_bytes: Some(file.size_bytes),
        };
        let mut files = fetcher.fetch(&[download], "download package list", observer)?;
        files
            .pop()
            .ok_or_else(|| FetchError::Offline(path.to_owned()))
    };
    if release.release.acquire_by_hash {
        let (folder, _) = path.rsplit_once('/').unwrap_or(("", path));
        match fetch(&format!("{folder}/by-hash/SHA256/{}", file.digest)) {
            Err(error) if error.is_missing() => {}
            result => return result,
        }
    }
    fetch(path)
}

/// Decompresses an index and keeps [`KEPT_FIELDS`].
fn cut_down(
    store: &Store,
    packed: fs_err::File,
    key: DerivedKey<'_>,
    url: &str,
) -> Result<fs_err::File, PackagesError> {
    let unreadable = |source| PackagesError::Unreadable {
        url: url.to_owned(),
        source,
    };
    let limits = compress::Limits {
        output_bytes: INDEX_BYTES_MAX,
        ..compress::Limits::default()
    };
    let (_, plain) = compress::decompress(packed, limits).map_err(unreadable)?;
    let mut temp = store.temp_file()?;
    let mut writer = io::BufWriter::with_capacity(1 << 18, &mut temp);
    copy_fields(BufReader::with_capacity(1 << 18, plain), &mut writer).map_err(unreadable)?;
    writer.flush().map_err(|error| store.explain(error))?;
    drop(writer);
    Ok(store.publish_derived(temp, key)?)
}

fn copy_fields(mut input: impl BufRead, output: &mut impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    let mut keep = false;
    loop {
        line.clear();
        let count = input
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX {
            return Err(io::Error::other("a line is too long"));
        }
        match line.first() {
            Some(b' ' | b'\t') => {}
            Some(b'\n') => keep = true,
            _ => keep = is_kept(&line),
        }
        if keep {
            output.write_all(&line)?;
        }
    }
}

fn is_kept(line: &[u8]) -> bool {
    let length = line
        .iter()
        .position(|byte| *byte == b':')
        .unwrap_or(line.len());
    RESOLVED_FIELDS
        .iter()
        .chain(PLACE_FIELDS)
        .any(|field| field.as_bytes().eq_ignore_ascii_case(&line[..length]))
}

/// What `Multi-Arch` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MultiArch {
    /// Absent or `no`.
    #[default]
    No,
    /// `same`: may be installed for several architectures at once.
    Same,
    /// `foreign`: satisfies dependencies of other architectures.
    Foreign,
    /// `allowed`: the one who depends decides, with `:any`.
    Allowed,
}

/// Index of a package in its [`Universe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId(u32);

impl PackageId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// One package of a list. Only what every package is asked for has been read; the rest waits until
/// the package is chosen, as few are.
#[derive(Clone, Debug)]
pub struct Package<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: Version<'a>,
    /// `all` or the architecture.
    pub architecture: &'a str,
    /// Whether the system does not work without it.
    pub essential: bool,
    /// `required`, `important`, `standard`, `optional`, `extra`.
    pub priority: &'a str,
    /// Position of the list it is from.
    pub list: usize,
    stanza: &'a str,
}

impl<'a> Package<'a> {
    /// A field of the stanza, if it is one of those that are kept.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a str> {
        // It was read once without an error; keeping the fields of all would need more memory than
        // the text itself.
        Stanzas::new(self.stanza).next()?.ok()?.get(name)
    }

    /// What `Multi-Arch` says.
    #[must_use]
    pub fn multi_arch(&self) -> MultiArch {
        match self.field("Multi-Arch") {
            Some("same") => MultiArch::Same,
            Some("foreign") => MultiArch::Foreign,
            Some("allowed") => MultiArch::Allowed,
            _ => MultiArch::No,
        }
    }

    /// Whether it is the one that a lock names.
    #[must_use]
    pub fn is(&self, locked: &LockedPackage) -> bool {
        self.name == locked.name
            && self.version.as_str() == locked.version
            && self.architecture == locked.architecture
            && self
                .file()
                .is_ok_and(|(_, _, digest)| digest == locked.sha256)
    }

    /// The .deb: its path relative to the mirror, its size and its digest; or the field that is
    /// wrong.
    fn file(&self) -> Result<(&'a str, u64, Digest), &'static str> {
        let filename = self.field("Filename").unwrap_or_default();
        let size = self.field("Size").and_then(|text| text.parse().ok());
        let digest = self.field("SHA256").and_then(|text| text.parse().ok());
        match (size, digest) {
            _ if !is_plain_path(filename.trim_start_matches("./")) => Err("Filename"),
            (Some(size), Some(digest)) if size > 0 => Ok((filename, size, digest)),
            (Some(size), None) if size > 0 => Err("SHA256"),
            _ => Err("Size"),
        }
    }
}

/// All packages that there are to choose from.
#[derive(Debug)]
pub struct Universe<'a> {
    lists: &'a [PackageList],
    packages: Vec<Package<'a>>,
    by_name: HashMap<&'a str, Vec<PackageId>>,
    providers: HashMap<&'a str, Vec<(PackageId, Option<Version<'a>>)>>,
}

impl<'a> Universe<'a> {
    /// Reads the lists. Packages are numbered in the order of the lists and their stanzas.
    ///
    /// # Errors
    /// [`PackagesError::Stanza`], [`PackagesError::Field`] or [`PackagesError::TooMany`].
    pub fn new(lists: &'a [PackageList]) -> Result<Self, PackagesError> {
        let mut universe = Self {
            lists,
            packages: Vec::new(),
            by_name: HashMap::new(),
            providers: HashMap::new(),
        };
        for (index, list) in lists.iter().enumerate() {
            for stanza in Stanzas::new(&list.text) {
                let stanza = stanza.map_err(|source| PackagesError::Stanza {
                    url: list.url.clone(),
                    source,
                })?;
                universe.add(index, list, stanza)?;
            }
        }
        Ok(universe)
    }

    fn add(
        &mut self,
        index: usize,
        list: &'a PackageList,
        stanza: Stanza<'a>,
    ) -> Result<(), PackagesError> {
        let name = stanza.get("Package").unwrap_or_default();
        let bad = |field| PackagesError::Field {
            url: list.url.clone(),
            package: name.chars().take(100).collect(),
            field,
        };
        let package = read_package(&stanza, index).map_err(bad)?;
        let id = match u32::try_from(self.packages.len()) {
            Ok(id) if self.packages.len() < PACKAGES_MAX => PackageId(id),
            _ => return Err(PackagesError::TooMany(list.url.clone())),
        };
        if let Some(field) = stanza.get("Provides") {
            for relation in relations::parse(field)
                .map_err(|_| bad("Provides"))?
                .iter()
                .flatten()
            {
                let version = relation.constraint.map(|(_, version)| version);
                self.providers
                    .entry(relation.name)
                    .or_default()
                    .push((id, version));
            }
        }
        self.by_name.entry(package.name).or_default().push(id);
        self.packages.push(package);
        Ok(())
    }

    /// The package with this id.
    #[must_use]
    pub fn package(&self, id: PackageId) -> &Package<'a> {
        &self.packages[id.index()]
    }

    /// Every package, by rising id.
    pub fn packages(&self) -> impl Iterator<Item = (PackageId, &Package<'a>)> {
        (0..).map(PackageId).zip(&self.packages)
    }

    /// The list that a package is from.
    #[must_use]
    pub fn list(&self, id: PackageId) -> &'a PackageList {
        &self.lists[self.package(id).list]
    }

    /// The packages of this very name, by rising id.
    #[must_use]
    pub fn named(&self, name: &str) -> &[PackageId] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The packages that provide this name, each with the version that it provides, by rising id.
    #[must_use]
    pub fn providing(&self, name: &str) -> &[(PackageId, Option<Version<'a>>)] {
        self.providers.get(name).map_or(&[], Vec::as_slice)
    }

    /// Where to get the .deb of a package, and how to know it.
    ///
    /// # Errors
    /// [`PackagesError::Field`] where the stanza does not say.
    pub fn download(&self, id: PackageId) -> Result<Download, PackagesError> {
        let package = self.package(id);
        let list = &self.lists[package.list];
        if let Some(only) = &list.only {
            return Ok(only.download.clone());
        }
        let (filename, size, digest) = package.file().map_err(|field| PackagesError::Field {
            url: list.url.clone(),
            package: package.name.to_owned(),
            field,
        })?;
        Ok(Download {
            url: join_url(&list.mirror, filename),
            digest,
            size_bytes: Some(size),
        })
    }
}

/// Names the field that is wrong.
fn read_package<'a>(stanza: &Stanza<'a>, list: usize) -> Result<Package<'a>, &'static str> {
    let text_of = |name| stanza.get(name).unwrap_or_default();
    let package = Package {
        name: text_of("Package"),
        version: Version::new(text_of("Version")),
        architecture: text_of("Architecture"),
        essential: text_of("Essential") == "yes",
        priority: text_of("Priority"),
        list,
        stanza: stanza.text,
    };
    let checks = [
        (is_package_name(package.name), "Package"),
        (is_version(package.version.as_str()), "Version"),
        (is_package_name(package.architecture), "Architecture"),
    ];
    match checks.iter().find(|(good, _)| !good) {
        Some((_, field)) => Err(field),
        None => Ok(package),
    }
}
