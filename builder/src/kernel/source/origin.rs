//! From what a recipe says to one pinned package or archive and its patches, and from there to a
//! folder.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use coop_image::tree::display;
use coop_runtime::event::Observer;

use super::filter::Filter;
use super::folder::{Folder, Found};
use super::kept;
use super::packed::{self, Count};
use super::patch::{self, Patch};
use super::unpack::{Unpacked, Unpacking, unpack};
use super::{Extent, KernelVersion, PatchError, SourceError, SourceTree};
use crate::debian::resolve::ResolveError;
use crate::debian::suite::{DebianError, SelectedPackage, SuiteRequest, Suites};
use crate::digest::Digest;
use crate::fetch::{Download, FetchError, Fetcher};
use crate::inputs::Record;
use crate::lock::Pins;
use crate::recipe::{KernelLocation, KernelSource, TarballLocation};
use crate::source::{self, Archive};

/// Changes whenever the same package and patches give another tree than before.
const FORMAT: &str = "1";
/// What packages with a kernel's source are named like; the one without a version depends on the
/// suite's newest.
const PACKAGE_PREFIX: &str = "linux-source-";
const NEWEST_PACKAGE: &str = "linux-source";
/// How many packages are named where there is none of the name.
const NAMED_MAX: usize = 5;
/// The most bytes of a top Makefile (Linux 7.2 has 80,539).
const MAKEFILE_BYTES_MAX: u64 = 4 << 20;

/// A source that is pinned: which bytes, and which patches. Nothing of a package or of a URL has
/// been fetched yet.
#[derive(Debug)]
pub struct ResolvedSource {
    /// For messages: `linux-source-7.2 7.2.13-1`, or the archive's name in the recipe.
    name: String,
    content: Content,
    patches: Vec<Patch>,
}

#[derive(Debug)]
enum Content {
    Package(SelectedPackage),
    Url(Download),
    File { file: Arc<File>, digest: Digest },
}

/// Finds the package in its suite, or hashes the archive, and reads the patches.
///
/// # Errors
/// [`SourceError`]: no such package or file, another archive than the recipe pins, or a patch that
/// is none.
pub fn resolve(
    source: &KernelSource,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<ResolvedSource, SourceError> {
    // What needs no network comes first.
    let patches = patch::read_all(&source.patches).map_err(SourceError::Patch)?;
    let (name, content) = match &source.location {
        KernelLocation::Debian { package, suite } => {
            let package = find(package, suite, fetcher, archive, observer)?;
            let name = format!("{} {}", package.name, package.version);
            (name, Content::Package(package))
        }
        KernelLocation::Tarball(location) => tarball(location, fetcher, archive.pins, observer)?,
    };
    Ok(ResolvedSource {
        name,
        content,
        patches,
    })
}

fn find(
    package: &str,
    suite: &str,
    fetcher: &Fetcher,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> Result<SelectedPackage, SourceError> {
    if package != NEWEST_PACKAGE && !package.starts_with(PACKAGE_PREFIX) {
        return Err(SourceError::OtherPackage(package.to_owned()));
    }
    let request = SuiteRequest {
        suite: suite.to_owned(),
        ..archive.request(archive.mirror(None)?)
    };
    find_in(
        &archive.open(fetcher, vec![request], observer)?,
        package,
        suite,
    )
}

/// The package itself, or the one that `linux-source` stands for.
pub(super) fn find_in(
    opened: &Suites<'_>,
    package: &str,
    suite: &str,
) -> Result<SelectedPackage, SourceError> {
    let found = match package {
        NEWEST_PACKAGE => opened.dependencies(package).and_then(|names| {
            let with_source = |name: &&String| name.starts_with(PACKAGE_PREFIX);
            opened.find(
                names
                    .iter()
                    .find(with_source)
                    .map_or(package, String::as_str),
            )
        }),
        package => opened.find(package),
    };
    match found {
        Ok(found) if found.name == NEWEST_PACKAGE => Err(SourceError::OtherPackage(found.name)),
        Err(DebianError::Resolve(ResolveError::Unknown { .. })) => Err(SourceError::NoPackage {
            package: package.to_owned(),
            suite: suite.to_owned(),
            hint: hint(opened)?,
        }),
        found => Ok(found?),
    }
}

/// Which packages with kernel sources a suite has.
fn hint(suite: &Suites<'_>) -> Result<String, SourceError> {
    let is_version = |name: &String| {
        let version = name.strip_prefix(PACKAGE_PREFIX).unwrap_or_default();
        version
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    let mut names = suite.names_beginning(PACKAGE_PREFIX)?;
    names.retain(is_version);
    names.truncate(NAMED_MAX);
    Ok(match &*names {
        [] => "; it has no kernel sources at all".to_owned(),
        names => format!("; it has {}", names.join(", ")),
    })
}

fn tarball(
    location: &TarballLocation,
    fetcher: &Fetcher,
    pins: &Pins,
    observer: &dyn Observer,
) -> Result<(String, Content), SourceError> {
    match location {
        TarballLocation::Url { url, sha256 } => {
            let download = source::address(url, sha256.as_deref(), fetcher, pins, observer)?;
            Ok((url.clone(), Content::Url(download)))
        }
        TarballLocation::Path { file, sha256 } => {
            let (opened, digest) = source::host_file(file, sha256.as_deref(), pins)?;
            let content = Content::File {
                file: Arc::new(opened),
                digest,
            };
            Ok((file.written.clone(), content))
        }
    }
}

impl ResolvedSource {
    /// A package without patches.
    #[cfg(test)]
    pub(super) fn of_package(package: SelectedPackage) -> Self {
        Self {
            name: format!("{} {}", package.name, package.version),
            content: Content::Package(package),
            patches: Vec::new(),
        }
    }

    /// What messages call it: `linux-source-7.2 7.2.13-1`, or the archive's name in the recipe.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes whenever the tree that [`ResolvedSource::prepare`] makes does.
    #[must_use]
    pub fn identity(&self) -> Digest {
        let mut record = Record::new("kernel source");
        record.put("format", FORMAT.as_bytes());
        record.put("content", self.digest().as_bytes());
        for patch in &self.patches {
            record.put("patch", patch.digest.as_bytes());
        }
        record.finish()
    }

    /// One line for the package or archive and one for each patch, with their digests: for a lock.
    #[must_use]
    pub fn pins(&self) -> Vec<String> {
        let first = match &self.content {
            Content::Package(package) => package.pin(),
            Content::Url(_) | Content::File { .. } => {
                format!("kernel tarball sha256:{}", self.digest())
            }
        };
        let patch = |name: &str, digest| {
            // Where it lies is the builder's own matter.
            let name = name.rsplit('/').next().unwrap_or_default();
            format!("kernel patch {name} sha256:{digest}")
        };
        let patches = self.patches.iter().map(|p| patch(&p.name, p.digest));
        std::iter::once(first).chain(patches).collect()
    }

    /// Which kernel it is, as far as the package's version tells; the tree has the last word.
    #[must_use]
    pub fn version(&self) -> Option<KernelVersion> {
        match &self.content {
            Content::Package(package) => KernelVersion::of_package(&package.version),
            Content::Url(_) | Content::File { .. } => None,
        }
    }

    fn digest(&self) -> Digest {
        match &self.content {
            Content::Package(package) => package.download.digest,
            Content::Url(download) => download.digest,
            Content::File { digest, .. } => *digest,
        }
    }

    /// Fetches what is missing, unpacks into an empty folder that nobody else writes to, and
    /// applies the patches. After an error the folder holds a part of it.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn prepare(
        &self,
        fetcher: &Fetcher,
        observer: &dyn Observer,
        into: &Path,
        extent: Extent,
    ) -> Result<SourceTree, SourceError> {
        let root = std::path::absolute(into)?;
        let folder = self.open_folder(&root)?;
        let unpacked = match extent {
            Extent::Configuration => self.configuration(fetcher, observer, &folder)?,
            Extent::Build | Extent::Whole => self.patched(fetcher, observer, &folder, extent)?,
        };
        Ok(SourceTree {
            version: self.read_version(&folder)?,
            root,
            epoch_seconds: unpacked.latest_seconds,
            files: unpacked.files,
            bytes: unpacked.bytes,
            left_out: unpacked.left_out,
        })
    }

    /// From the store, or made and put there.
    fn configuration(
        &self,
        fetcher: &Fetcher,
        observer: &dyn Observer,
        folder: &Folder,
    ) -> Result<Unpacked, SourceError> {
        let (store, identity) = (fetcher.store(), self.identity());
        if let Some(file) = kept::find(store, identity)? {
            return self.unpack(file, &Filter::Nothing, observer, folder);
        }
        let unpacked = self.patched(fetcher, observer, folder, Extent::Configuration)?;
        let time = unpacked.latest_seconds;
        kept::put(store, identity, folder, time, observer)?;
        Ok(unpacked)
    }

    /// Fetched, unpacked and patched.
    fn patched(
        &self,
        fetcher: &Fetcher,
        observer: &dyn Observer,
        folder: &Folder,
        extent: Extent,
    ) -> Result<Unpacked, SourceError> {
        let touched = patch::paths(&self.patches).map_err(SourceError::Patch)?;
        let filter = match extent {
            Extent::Build => Filter::Needless { touched },
            Extent::Configuration => Filter::Configuration { touched },
            Extent::Whole => Filter::Nothing,
        };
        let file = self.fetch(fetcher, observer)?;
        let unpacked = match &self.content {
            Content::Package(package) => {
                let (count, size) = (Count::default(), file.metadata()?.len());
                let archive = packed::in_package(package, file, Arc::clone(&count))?;
                let unpacking = self.unpacking(&filter, observer, folder, count, size);
                unpack(archive, &unpacking)?
            }
            Content::Url(_) | Content::File { .. } => {
                self.unpack(file, &filter, observer, folder)?
            }
        };
        self.patch(folder, unpacked.latest_seconds, observer)?;
        Ok(unpacked)
    }

    /// An archive, compressed or not.
    fn unpack(
        &self,
        file: File,
        filter: &Filter,
        observer: &dyn Observer,
        folder: &Folder,
    ) -> Result<Unpacked, SourceError> {
        let (count, size) = (Count::default(), file.metadata()?.len());
        let archive = packed::tarball(Arc::new(file), Arc::clone(&count))?;
        unpack(
            archive,
            &self.unpacking(filter, observer, folder, count, size),
        )
    }

    fn unpacking<'a>(
        &'a self,
        filter: &'a Filter,
        observer: &'a dyn Observer,
        folder: &'a Folder,
        count: Count,
        packed_bytes: u64,
    ) -> Unpacking<'a> {
        Unpacking {
            name: &self.name,
            filter,
            folder,
            count,
            packed_bytes,
            observer,
        }
    }

    fn open_folder(&self, path: &Path) -> Result<Folder, SourceError> {
        let refused = |problem: String| SourceError::Folder {
            path: path.to_owned(),
            problem,
        };
        let cannot = |error: std::io::Error| refused(format!("cannot be used: {error}"));
        let folder = Folder::open(path).map_err(cannot)?;
        match folder.is_empty().map_err(cannot)? {
            true => Ok(folder),
            false => Err(refused("is not empty".to_owned())),
        }
    }

    fn fetch(&self, fetcher: &Fetcher, observer: &dyn Observer) -> Result<File, SourceError> {
        let download = match &self.content {
            Content::Package(package) => &package.download,
            Content::Url(download) => download,
            Content::File { file, .. } => return Ok(file.try_clone()?),
        };
        let downloads = std::slice::from_ref(download);
        let mut files = fetcher.fetch(downloads, "download kernel source", observer)?;
        let file = files.pop();
        let file = file.ok_or_else(|| FetchError::Offline(download.url.clone()))?;
        Ok(file.into_parts().0)
    }

    fn patch(
        &self,
        folder: &Folder,
        modified_seconds: i64,
        observer: &dyn Observer,
    ) -> Result<(), SourceError> {
        let patching = |patch: PatchError| SourceError::Patching {
            patch,
            name: self.name.clone(),
        };
        let applied = patch::apply(&self.patches, folder, modified_seconds, observer);
        match applied.map_err(patching)? {
            true => Ok(()),
            false => Err(SourceError::Cancelled(self.name.clone())),
        }
    }

    fn read_version(&self, folder: &Folder) -> Result<KernelVersion, SourceError> {
        let problem = |problem: &str| SourceError::NotAKernel {
            name: self.name.clone(),
            problem: problem.to_owned(),
        };
        for needed in ["Kconfig", "Kbuild", "scripts/kconfig/Makefile"] {
            if !matches!(
                folder.read(needed.as_bytes(), MAKEFILE_BYTES_MAX)?,
                Found::File { .. }
            ) {
                return Err(problem(&format!(
                    "it has no {}",
                    display(needed.as_bytes())
                )));
            }
        }
        match folder.read(b"Makefile", MAKEFILE_BYTES_MAX)? {
            Found::File { content, .. } => KernelVersion::of_makefile(&content)
                .ok_or_else(|| problem("its Makefile says no VERSION, PATCHLEVEL and SUBLEVEL")),
            _ => Err(problem("it has no Makefile")),
        }
    }
}
