//! A root file system from Debian packages.

use std::collections::BTreeSet;
use std::path::Path;

use coop_image::tree::Timestamp;
use coop_runtime::event::{Event, Observer};
use fs_err as fs;

use super::{Archive, NamedFileError, SourceTree, named};
use crate::debian::apt::{AptSource, NoPin, Preference, choose_pins};
use crate::debian::deb::{DebError, fetch_debs, is_data_whole};
use crate::debian::extra::ExtraDeb;
use crate::debian::keys::{Keyring as Keys, KeysError};
use crate::debian::mirror::{Mirror as ChosenMirror, MirrorError};
use crate::debian::paths::{PathFilter, Rule};
use crate::debian::resolve;
use crate::debian::suite::{
    DebianError, Selected, SelectedPackage, Selection, SuiteRequest, Suites,
};
use crate::debian::system::{SystemOptions, build_system};
use crate::debian::unpack::UnpackError;
use crate::digest::Digest;
use crate::fetch::{Download, Fetcher};
use crate::lock::Pins;
use crate::percent;
use crate::recipe::{
    Debian, Exclude, Installation, Keyring, Mirror, RepositoryMirror, TarballLocation, Variant,
};
use crate::store::Store;

/// Why packages did not become a tree.
#[derive(Debug, thiserror::Error)]
pub enum DebianSourceError {
    /// The keyring cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// No mirror.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The keyring holds no keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Suites, lists or dependencies.
    #[error(transparent)]
    Suite(#[from] DebianError),
    /// Suites that the guest's apt could not tell apart.
    #[error(transparent)]
    Apt(#[from] NoPin),
    /// Download or a damaged package.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// A package of the recipe's own cannot be had, or is another one.
    #[error(transparent)]
    File(#[from] NamedFileError),
    /// Packages that do not go together.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

/// The suites that a recipe names, and what of them the recipe needs.
struct Opened<'a> {
    /// What the guest's apt is told of each suite.
    apt: Vec<AptSource>,
    suites: Suites<'a>,
    packages: Vec<SelectedPackage>,
    /// The names of those that are there for their own sake.
    requested: Vec<String>,
    /// Architectures beside the system's own.
    foreign: Vec<String>,
}

/// One suite of the recipe, the main one or a further one.
struct Wanted<'a> {
    mirror: ChosenMirror,
    /// What a lock calls the archive, if that is not said by the mirror.
    archive: Option<&'static str>,
    suite: &'a str,
    components: &'a [String],
    keyring: &'a Keyring,
    priority: Option<u16>,
}

/// The main suite, and then the others.
fn wanted<'a>(recipe: &'a Debian, archive: &Archive<'_>) -> Result<Vec<Wanted<'a>>, MirrorError> {
    let main = match &recipe.mirror {
        Mirror::Host => archive.mirror(None),
        Mirror::Url(url) => archive.mirror(Some(url)),
        Mirror::Snapshot { instant, url } => archive.snapshot(instant, url.as_deref()),
    }?;
    let mut wanted = vec![Wanted {
        mirror: main.clone(),
        archive: None,
        suite: &recipe.suite,
        components: &recipe.components,
        keyring: &recipe.keyring,
        priority: None,
    }];
    for repository in &recipe.repositories {
        wanted.push(Wanted {
            mirror: archive.repository_mirror(&repository.mirror, &main)?,
            archive: (repository.mirror == RepositoryMirror::Security).then_some("security"),
            suite: &repository.suite,
            components: &repository.components,
            keyring: &repository.keyring,
            priority: repository.priority,
        });
    }
    Ok(wanted)
}

fn open<'a>(
    recipe: &Debian,
    fetcher: &'a Fetcher,
    archive: &Archive<'a>,
    observer: &'a dyn Observer,
) -> Result<Opened<'a>, DebianSourceError> {
    let (mut requests, mut apt) = (Vec::new(), Vec::new());
    let debs = extra_debs(recipe, fetcher, archive.pins, observer)?;
    let architecture = architecture(recipe, archive);
    let foreign = foreign(recipe, &debs, architecture);
    for one in wanted(recipe, archive)? {
        let keyring = match one.keyring {
            Keyring::Debian => None,
            Keyring::File(file) => Some(fs::read(&file.path)?),
        };
        let request = SuiteRequest {
            architecture: architecture.to_owned(),
            named_architecture: architecture != archive.architecture,
            ..archive.request(one.mirror.clone())
        };
        let archive = match (one.archive, &one.mirror.snapshot) {
            (Some(name), Some(_)) => format!("{name} {}", request.archive),
            (Some(name), None) => name.to_owned(),
            (None, _) => request.archive,
        };
        requests.push(SuiteRequest {
            archive,
            suite: one.suite.to_owned(),
            components: one.components.to_vec(),
            keyring: keyring.as_deref().map(Keys::parse).transpose()?,
            priority: one.priority,
            foreign: foreign.clone(),
            ..request
        });
        apt.push(AptSource {
            url: one.mirror.url,
            suites: vec![one.suite.to_owned()],
            components: one.components.to_vec(),
            keyring,
            // What the building host's apt allows says nothing about the guest's.
            check_valid_until: one.mirror.snapshot.is_none(),
            pin: None,
        });
    }
    let priorities: Vec<Option<u16>> = requests.iter().map(|one| one.priority).collect();
    let mut suites = archive.open(fetcher, requests, observer)?;
    let preferences = suites.facts.iter().zip(priorities);
    let preferences: Vec<Preference> = preferences
        .map(|(facts, priority)| Preference {
            codename: facts.codename.clone(),
            priority,
        })
        .collect();
    choose_pins(&mut apt, &preferences)?;
    suites.add_debs(debs)?;
    let Selected {
        packages,
        requested,
    } = suites.select(&Selection {
        variant: match recipe.variant {
            Variant::Essential => resolve::Variant::Essential,
            Variant::Minimal => resolve::Variant::Minimal,
        },
        packages: recipe.packages.clone(),
        recommends: recipe.recommends,
        exclude: recipe.exclude.packages.clone(),
    })?;
    Ok(Opened {
        apt,
        suites,
        packages,
        requested,
        foreign,
    })
}

/// The architecture of the packages.
fn architecture<'r>(recipe: &'r Debian, archive: &Archive<'r>) -> &'r str {
    match &recipe.installation {
        Installation::Configured => archive.architecture,
        Installation::Unpacked { architecture } => architecture,
    }
}

/// The architectures of packages that are asked for, beside the system's own: sorted.
fn foreign(recipe: &Debian, debs: &[ExtraDeb], native: &str) -> Vec<String> {
    let named = recipe.packages.iter().filter_map(|text| {
        let package = text.split('/').next().unwrap_or_default();
        Some(package.split_once(':')?.1)
    });
    let of_debs = debs.iter().map(|deb| deb.package.architecture.as_str());
    let is_foreign = |name: &&str| *name != native && !["all", "any", "native"].contains(name);
    let all: BTreeSet<&str> = named.chain(of_debs).filter(is_foreign).collect();
    all.into_iter().map(str::to_owned).collect()
}

/// Brings the recipe's own packages into the store.
fn extra_debs(
    recipe: &Debian,
    fetcher: &Fetcher,
    pins: &Pins,
    observer: &dyn Observer,
) -> Result<Vec<ExtraDeb>, DebianSourceError> {
    let open = |location: &TarballLocation| {
        let (written, download) = match location {
            TarballLocation::Url { url, sha256 } => {
                let download = named::address(url, sha256.as_deref(), fetcher, pins, observer)?;
                (url, download)
            }
            TarballLocation::Path { file, sha256 } => {
                let (_, digest) = named::host_file(file, sha256.as_deref(), pins)?;
                let download = Download {
                    url: file_url(&std::path::absolute(&file.path)?),
                    digest,
                    size_bytes: None,
                };
                (&file.written, download)
            }
        };
        Ok(ExtraDeb::open(fetcher, written, &download, observer)?)
    };
    recipe.debs.iter().map(open).collect()
}

/// The `file:` URL of an absolute path.
fn file_url(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let path = percent::encode(path.as_os_str().as_bytes(), b"/-._~");
    format!("file://{path}")
}

/// The names of all packages that the recipe's root file system has, without fetching them.
///
/// # Errors
/// See [`DebianSourceError`].
pub fn closure(
    recipe: &Debian,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<Vec<String>, DebianSourceError> {
    let packages = open(recipe, fetcher, archive, observer)?.packages;
    Ok(packages.into_iter().map(|package| package.name).collect())
}

/// One line for each package that the recipe's root file system has, with its digest, without
/// fetching them.
///
/// # Errors
/// See [`DebianSourceError`].
pub fn pins(
    recipe: &Debian,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<Vec<String>, DebianSourceError> {
    let packages = open(recipe, fetcher, archive, observer)?.packages;
    Ok(packages.iter().map(SelectedPackage::pin).collect())
}

/// A Debian whose packages are chosen and not yet fetched.
#[derive(Debug)]
pub struct ResolvedDebian {
    packages: Vec<SelectedPackage>,
    options: SystemOptions,
    /// The InRelease files, one line each.
    suites: Vec<String>,
    archives: Vec<SuiteRequest>,
}

/// Chooses the recipe's packages, or looks them up in the lock.
///
/// # Errors
/// See [`DebianSourceError`].
pub fn resolve_debian(
    recipe: &Debian,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<ResolvedDebian, DebianSourceError> {
    let Opened {
        apt,
        suites,
        packages,
        requested,
        foreign,
    } = open(recipe, fetcher, archive, observer)?;
    let dates = suites.facts.iter().map(|facts| facts.date_seconds);
    let epoch = Timestamp::from_seconds(dates.max().unwrap_or_default());
    let lines = suites.facts.iter().zip(&apt).flat_map(|(facts, source)| {
        let digest = &facts.digest;
        let names = source.suites.iter();
        names.map(move |suite| format!("debian {suite} InRelease sha256:{digest}"))
    });
    Ok(ResolvedDebian {
        suites: lines.collect(),
        archives: suites.pinned(),
        packages,
        options: SystemOptions {
            architecture: architecture(recipe, archive).to_owned(),
            time: epoch,
            apt,
            paths: path_filter(&recipe.exclude),
            debconf: recipe.debconf.clone(),
            requested: requested.into_iter().collect(),
            configures: recipe.installation.is_configured(),
            foreign,
        },
    })
}

impl ResolvedDebian {
    /// The latest time that anything in the image may have.
    #[must_use]
    pub fn epoch(&self) -> Timestamp {
        self.options.time
    }

    /// Whether a guest configures what is unpacked.
    #[must_use]
    pub fn configures(&self) -> bool {
        self.options.configures
    }

    /// The suites' indices, one line each.
    #[must_use]
    pub fn suites(&self) -> &[String] {
        &self.suites
    }

    /// The suites that steps may have packages from, each with its index pinned.
    #[must_use]
    pub fn archives(&self) -> &[SuiteRequest] {
        &self.archives
    }

    /// One line for each input, with its digest.
    #[must_use]
    pub fn resolved(&self) -> Vec<String> {
        let pins = self.packages.iter().map(SelectedPackage::pin);
        self.suites.iter().cloned().chain(pins).collect()
    }

    /// Everything that can change the unpacked tree and the script that configures it: names and
    /// values.
    #[must_use]
    pub fn fields(&self) -> Vec<(String, String)> {
        let SystemOptions {
            architecture,
            foreign,
            time,
            paths,
            debconf,
            ..
        } = &self.options;
        let mut fields = vec![
            ("architecture".to_owned(), architecture.clone()),
            ("date of the suites".to_owned(), time.seconds.to_string()),
        ];
        for (number, source) in self.options.apt.iter().enumerate() {
            fields.push((format!("apt source {number}"), source.summary()));
            if let Some(keyring) = &source.keyring {
                let digest = Digest::of(keyring);
                fields.push((format!("keyring {number}"), digest.to_string()));
            }
        }
        for name in foreign {
            fields.push((format!("architecture {name}"), String::new()));
        }
        for (number, rule) in paths.rules.iter().enumerate() {
            let verb = if rule.include { "keep" } else { "leave out" };
            let value = format!("{verb} {}", rule.pattern);
            fields.push((format!("rule for paths {number}"), value));
        }
        for (number, answer) in debconf.iter().enumerate() {
            fields.push((format!("answer for debconf {number}"), answer.clone()));
        }
        for name in &self.options.requested {
            fields.push((format!("requested {name}"), String::new()));
        }
        for package in &self.packages {
            let SelectedPackage {
                name,
                version,
                architecture,
                download,
                ..
            } = package;
            let shown = match foreign.contains(architecture) {
                true => format!("package {name}:{architecture}"),
                false => format!("package {name}"),
            };
            fields.push((
                shown,
                format!("{version} {architecture} {}", download.digest),
            ));
        }
        fields
    }

    /// Fetches the packages and unpacks them as dpkg would leave them unpacked. What the store has
    /// and is damaged is fetched and unpacked again.
    ///
    /// # Errors
    /// See [`DebianSourceError`].
    pub fn unpack(
        &self,
        fetcher: &Fetcher,
        observer: &dyn Observer,
    ) -> Result<SourceTree, DebianSourceError> {
        match self.try_unpack(fetcher, observer) {
            Err(DebianSourceError::Deb(_) | DebianSourceError::Unpack(_))
                if self.heal(fetcher.store())? =>
            {
                let message = "packages in the cache were damaged; they are fetched again";
                observer.event(&Event::Warning { message });
                self.try_unpack(fetcher, observer)
            }
            result => result,
        }
    }

    fn try_unpack(
        &self,
        fetcher: &Fetcher,
        observer: &dyn Observer,
    ) -> Result<SourceTree, DebianSourceError> {
        let debs = fetch_debs(fetcher, &self.packages, observer)?;
        let system = build_system(debs, &self.options)?;
        Ok(SourceTree {
            tree: system.tree,
            epoch: self.epoch(),
            configure: system.script,
            resolved: self.resolved(),
        })
    }

    /// Sets aside what is damaged of the packages in the store; says whether there was any.
    fn heal(&self, store: &Store) -> Result<bool, DebianSourceError> {
        let mut found = false;
        for package in &self.packages {
            let digest = &package.download.digest;
            let whole = store.is_blob_whole(digest).map_err(DebError::from)?;
            let data = is_data_whole(store, *digest).map_err(DebError::from)?;
            found |= !whole || !data;
        }
        Ok(found)
    }
}

/// Resolves, fetches and unpacks the recipe's packages as dpkg would leave them unpacked.
///
/// # Errors
/// See [`DebianSourceError`].
pub fn debian(
    recipe: &Debian,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<SourceTree, DebianSourceError> {
    resolve_debian(recipe, fetcher, archive, observer)?.unpack(fetcher, observer)
}

fn path_filter(exclude: &Exclude) -> PathFilter {
    let rules = exclude.paths.iter().map(|rule| Rule {
        include: rule.include,
        pattern: rule.pattern.clone(),
    });
    PathFilter {
        rules: rules.collect(),
    }
}
