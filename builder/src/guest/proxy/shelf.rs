//! What the proxy has: the indices of suites as the build knows them, and the packages that these
//! name. Everything is verified by the digest that an index names before the guest sees it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use coop_runtime::event::Observer;
use fs_err as fs;

use crate::debian::is_plain_path;
use crate::debian::mirror::join_url;
use crate::debian::packages::{ListRequest, PackageList, fetch_index, fetch_list};
use crate::debian::release::{IndexFile, VerifiedRelease};
use crate::debian::suite::{SuiteRequest, open_suite};
use crate::digest::Digest;
use crate::fetch::{Download, Fetcher};

/// Why the guest does not get what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is none of the files of the suites.
    Unknown,
    /// It is one of them, but cannot be had; a sentence.
    Failed(String),
}

/// The most bytes of lists that are held at once; the guest says which architectures it asks for.
const LISTS_BYTES_MAX: usize = 512 << 20;

/// Lists by suite, component and architecture.
type Lists = BTreeMap<(usize, String, String), Arc<PackageList>>;

/// The suites of a recipe.
pub(super) struct Shelf<'a> {
    fetcher: &'a Fetcher,
    observer: &'a dyn Observer,
    suites: Vec<Suite<'a>>,
    lists: Mutex<Lists>,
}

struct Suite<'a> {
    request: &'a SuiteRequest,
    /// Its archive's address as the guest has it, without `http://`.
    base: String,
    release: OnceLock<Result<VerifiedRelease, String>>,
}

/// The address by which the guest knows an archive, which is always one that a proxy can serve.
pub(super) fn guest_url(url: &str, number: usize) -> String {
    let rest = match url.split_once("://") {
        Some(("http" | "https", rest)) => rest,
        _ => "",
    };
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || host.contains('@') {
        // A folder of the host, or an address with a password, which is not for the guest.
        return format!("http://archive-{number}.invalid");
    }
    format!("http://{rest}")
}

impl<'a> Shelf<'a> {
    pub(super) fn new(
        fetcher: &'a Fetcher,
        suites: &'a [SuiteRequest],
        observer: &'a dyn Observer,
    ) -> Self {
        let suite = |(number, request): (usize, &'a SuiteRequest)| Suite {
            request,
            base: plain_base(&guest_url(&request.mirror.url, number)),
            release: OnceLock::new(),
        };
        Self {
            fetcher,
            observer,
            suites: suites.iter().enumerate().map(suite).collect(),
            lists: Mutex::default(),
        }
    }

    /// Finds a file by its address, without `http://`.
    pub(super) fn find(&self, address: &str) -> Result<fs::File, Refusal> {
        let mut refusal = Refusal::Unknown;
        for (number, suite) in self.suites.iter().enumerate() {
            let below = address.strip_prefix(&suite.base);
            let Some(path) = below.and_then(|path| path.strip_prefix('/')) else {
                continue;
            };
            let dists = format!("dists/{}/", suite.request.suite);
            let found = match path.strip_prefix(&dists) {
                Some(index) => self.index(suite, index),
                None => self.package(number, suite, path),
            };
            match found {
                Err(Refusal::Unknown) => {}
                Err(other) => refusal = other,
                found => return found,
            }
        }
        Err(refusal)
    }

    /// Whether an address lies in one of the archives that are reached without encryption.
    pub(super) fn is_near(&self, address: &str) -> bool {
        let is_plain = |suite: &&Suite<'_>| suite.request.mirror.url.starts_with("http://");
        let mut suites = self.suites.iter().filter(is_plain);
        suites.any(|suite| {
            let rest = address.strip_prefix(&suite.base);
            rest.is_some_and(|rest| rest.starts_with('/'))
        })
    }

    /// A sentence with the addresses that the guest has in place of the archives' own, in which may
    /// be a password.
    pub(super) fn for_guest(&self, sentence: &str) -> String {
        self.suites.iter().fold(sentence.to_owned(), |text, suite| {
            let own = suite.request.mirror.url.trim_end_matches('/');
            text.replace(own, &format!("http://{}", suite.base))
        })
    }

    fn release<'s>(&self, suite: &'s Suite<'_>) -> Result<&'s VerifiedRelease, Refusal> {
        let opened = suite.release.get_or_init(|| {
            open_suite(self.fetcher, suite.request).map_err(|error| error.to_string())
        });
        opened
            .as_ref()
            .map_err(|error| Refusal::Failed(error.clone()))
    }

    fn index(&self, suite: &Suite<'_>, path: &str) -> Result<fs::File, Refusal> {
        let release = self.release(suite)?;
        if path == "InRelease" {
            let blob = self.fetcher.store().blob(&release.digest);
            let blob = blob.map_err(|error| failed(&error))?;
            return blob.ok_or_else(|| Refusal::Failed("the index has gone".to_owned()));
        }
        let files = &release.release.files;
        let Some((path, file)) = files.get_key_value(path).or_else(|| by_hash(files, path)) else {
            return Err(Refusal::Unknown);
        };
        fetch_index(self.fetcher, release, path, *file, self.observer)
            .map_err(|error| failed(&error))
    }

    fn package(&self, number: usize, suite: &Suite<'_>, path: &str) -> Result<fs::File, Refusal> {
        let name = path.strip_suffix(".deb").unwrap_or_default();
        let Some((_, architecture)) = name.rsplit_once('_') else {
            return Err(Refusal::Unknown);
        };
        let own = &suite.request.architecture;
        let architecture = match architecture {
            "all" => own,
            other => other,
        };
        let mut components: Vec<&str> = match suite.request.components.as_slice() {
            [] => vec!["main"],
            some => some.iter().map(String::as_str).collect(),
        };
        // The pool's first folder is the component, and the guest may have added one.
        if let Some(component) = path.split('/').nth(1)
            && !components.contains(&component)
        {
            components.push(component);
        }
        for component in components {
            let Some(list) = self.list(number, suite, component, architecture)? else {
                continue;
            };
            if let Some((digest, size_bytes)) = look_up(&list.text, path) {
                let download = Download {
                    url: join_url(&suite.request.mirror.url, path),
                    digest,
                    size_bytes: Some(size_bytes),
                };
                let mut files = self
                    .fetcher
                    .fetch(&[download], "download packages of a step", self.observer)
                    .map_err(|error| failed(&error))?;
                return files.pop().ok_or(Refusal::Unknown);
            }
        }
        Err(Refusal::Unknown)
    }

    /// The list of a component, if the suite has it.
    fn list(
        &self,
        number: usize,
        suite: &Suite<'_>,
        component: &str,
        architecture: &str,
    ) -> Result<Option<Arc<PackageList>>, Refusal> {
        let release = self.release(suite)?;
        let is_known = release
            .release
            .components
            .iter()
            .any(|one| one == component)
            && release
                .release
                .architectures
                .iter()
                .any(|one| one == architecture);
        if !is_known {
            return Ok(None);
        }
        let key = (number, component.to_owned(), architecture.to_owned());
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = lists.get(&key) {
            return Ok(Some(Arc::clone(list)));
        }
        let request = ListRequest {
            release,
            mirror: &suite.request.mirror.url,
            suite: &suite.request.suite,
            key: "",
            architecture,
            priority: 0,
        };
        let list = fetch_list(self.fetcher, &request, component, self.observer);
        let list = Arc::new(list.map_err(|error| failed(&error))?);
        let held: usize = lists.values().map(|list| list.text.len()).sum();
        if held.saturating_add(list.text.len()) > LISTS_BYTES_MAX {
            lists.clear();
        }
        lists.insert(key, Arc::clone(&list));
        Ok(Some(list))
    }
}

/// The file that `main/binary-amd64/by-hash/SHA256/…` names.
fn by_hash<'f>(
    files: &'f BTreeMap<String, IndexFile>,
    path: &str,
) -> Option<(&'f String, &'f IndexFile)> {
    let (folder, digest) = path.split_once("/by-hash/SHA256/")?;
    let digest: Digest = digest.parse().ok()?;
    let mut files = files.iter();
    files.find(|(path, file)| {
        let own = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        own == folder && file.digest == digest
    })
}

fn failed(error: &dyn std::error::Error) -> Refusal {
    Refusal::Failed(error.to_string())
}

/// Host and path as requests have them.
fn plain_base(url: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) => (host, format!("/{path}")),
        None => (rest, String::new()),
    };
    let host = host
        .strip_suffix(":80")
        .unwrap_or(host)
        .to_ascii_lowercase();
    format!("{host}{}", path.trim_end_matches('/'))
}

/// Digest and size of the package at a path, from the stanzas of a list.
fn look_up(text: &str, path: &str) -> Option<(Digest, u64)> {
    if !is_plain_path(path) {
        return None;
    }
    let line = format!("\nFilename: {path}\n");
    let at = memchr::memmem::find(text.as_bytes(), line.as_bytes())?;
    let start = text.get(..at)?.rfind("\n\n").map_or(0, |at| at + 2);
    let rest = text.get(at + 1..)?;
    let end = rest.find("\n\n").map_or(text.len(), |end| at + 1 + end);
    let stanza = text.get(start..end)?;
    let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
    let digest = field("SHA256: ")?.parse().ok()?;
    Some((digest, field("Size: ")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_have_addresses_without_encryption() {
        assert_eq!(
            guest_url("https://m.invalid/debian", 0),
            "http://m.invalid/debian"
        );
        for url in ["file:///srv/mirror", "https://me:secret@m.invalid/debian"] {
            assert_eq!(guest_url(url, 2), "http://archive-2.invalid");
        }
        assert_eq!(plain_base("http://M.invalid:80/debian"), "m.invalid/debian");
        assert_eq!(plain_base("http://m.invalid:8080"), "m.invalid:8080");
    }

    #[test]
    fn packages_are_looked_up_by_their_path() {
        let digest = Digest::of(b"b");
        let text = format!(
            "Package: a\nFilename: pool/a.deb\nSize: 1\nSHA256: {}\n\n\
             Package: b\nSHA256: {digest}\nSize: 22\nFilename: pool/b.deb\n\n\
             Package: c\nFilename: pool/c.deb\n",
            Digest::of(b"a")
        );
        assert_eq!(look_up(&text, "pool/b.deb"), Some((digest, 22)));
        assert_eq!(look_up(&text, "pool/a.deb"), Some((Digest::of(b"a"), 1)));
        for path in [
            "pool/c.deb",
            "pool/d.deb",
            "ool/a.deb",
            "pool/a",
            "../pool/a.deb",
        ] {
            assert_eq!(look_up(&text, path), None, "{path}");
        }
    }
}
