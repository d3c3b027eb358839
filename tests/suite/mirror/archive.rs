//! An archive on the loopback, signed with a key of the test's own, whose server can be made to lie.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};

use fs_err as fs;
use sequoia_openpgp::cert::Cert;
use sequoia_openpgp::serialize::SerializeInto;
use tempfile::TempDir;

use super::server::{Request, Server, response};
use crate::failures::archive::signing;
use crate::support::{self, Done, RUN_DEADLINE};

pub(super) const DATE: &str = signing::NOW_TEXT;
pub(super) const LIST: &str = "main/binary-amd64/Packages";

/// What a server does instead of what it should: from a request, how many there were before for the
/// same path, and the body, to a whole response; or nothing where it behaves.
type Fault = Box<dyn Fn(&Request, usize, &[u8]) -> Option<Vec<u8>> + Send>;

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    asked: BTreeMap<String, usize>,
    fault: Option<Fault>,
}

impl State {
    fn answer(&mut self, request: &Request) -> Vec<u8> {
        let count = self.asked.entry(request.path.clone()).or_default();
        let before = *count;
        *count += 1;
        let Some(body) = self.files.get(&request.path) else {
            return response("404 Not Found", "", b"");
        };
        let fault = self.fault.as_ref();
        if let Some(response) = fault.and_then(|fault| fault(request, before, body)) {
            return response;
        }
        match request.range_start.filter(|start| *start < body.len()) {
            None => response("200 OK", "", body),
            Some(start) => part(body, start),
        }
    }
}

/// The rest of a body from an offset.
pub(super) fn part(body: &[u8], start: usize) -> Vec<u8> {
    let (last, all) = (body.len() - 1, body.len());
    let range = format!("Content-Range: bytes {start}-{last}/{all}\r\n");
    response("206 Partial Content", &range, &body[start..])
}

/// A package whose content nobody opens: name, version, and further fields.
pub(super) type Package<'a> = (&'a str, &'a str, &'a str);

/// How a suite's index is to be.
pub(super) struct Index<'a> {
    pub(super) date: &'a str,
    /// Further lines of the Release file.
    pub(super) more: &'a str,
    /// Whether the list is offered compressed only.
    pub(super) compressed: bool,
}

impl Default for Index<'_> {
    fn default() -> Self {
        Self {
            date: DATE,
            more: "",
            compressed: false,
        }
    }
}

/// The archive, its server, and a folder with a recipe and a cache.
pub(super) struct Mirror {
    server: Server,
    state: Arc<Mutex<State>>,
    key: Cert,
    folder: TempDir,
}

impl Mirror {
    pub(super) fn new() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let server = Server::start(move |request| shared.lock().unwrap().answer(request));
        let mirror = Self {
            server,
            state,
            key: signing::new_key(None),
            folder: support::temp_folder(),
        };
        let key = mirror.key.armored().to_vec().unwrap();
        fs::write(mirror.path("key.asc"), key).unwrap();
        // Nothing looks into it before somebody builds it.
        fs::write(mirror.path("linux.tar"), "a kernel").unwrap();
        mirror.write_recipe("app");
        mirror
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn url(&self) -> &str {
        &self.server.url
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn write_recipe(&self, packages: &str) {
        self.write_recipe_with(packages, &format!("mirror: \"{}\"", self.url()));
    }

    pub(super) fn write_recipe_with(&self, packages: &str, mirror: &str) {
        let text = format!(
            "name: m\nrootfs:\n  source:\n    debian:\n      suite: trixie\n      \
             variant: essential\n      {mirror}\n      keyring: key.asc\n      \
             packages: [{packages}]\n\
             kernel: {{source: {{tarball: {{path: linux.tar}}}}}}\n"
        );
        fs::write(self.path("r.yaml"), text).unwrap();
    }

    /// Puts a file where the server finds it.
    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        self.state()
            .files
            .insert(format!("/{path}"), bytes.to_vec());
    }

    pub(super) fn get(&self, path: &str) -> Vec<u8> {
        self.state().files[&format!("/{path}")].clone()
    }

    pub(super) fn remove(&self, path: &str) {
        self.state().files.remove(&format!("/{path}")).unwrap();
    }

    pub(super) fn fault(
        &self,
        fault: impl Fn(&Request, usize, &[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) {
        let mut state = self.state();
        state.asked.clear();
        state.fault = Some(Box::new(fault));
    }

    pub(super) fn heal(&self) {
        self.state().fault = None;
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// Writes and signs the index of these packages.
    pub(super) fn publish(&self, packages: &[Package<'_>], index: &Index<'_>) {
        let mut stanzas = String::new();
        for (name, version, fields) in packages {
            let path = deb(name, version);
            let content = format!("the package {name} in its version {version}").repeat(99);
            stanzas.push_str(&stanza(name, version, fields, &path, content.as_bytes()));
            self.put(&path, content.as_bytes());
        }
        self.publish_list(&stanzas, index);
    }

    pub(super) fn publish_list(&self, stanzas: &str, index: &Index<'_>) {
        let (path, list) = match index.compressed {
            false => (LIST.to_owned(), stanzas.as_bytes().to_vec()),
            true => (format!("{LIST}.gz"), gzip(stanzas.as_bytes())),
        };
        let (size, digest) = (list.len(), support::sha256_of(&list));
        self.put(&format!("dists/trixie/{path}"), &list);
        self.publish_release(&format!(
            "Origin: Test\nSuite: stable\nCodename: trixie\nDate: {}\n{}\
             Architectures: all amd64\nComponents: main\nSHA256:\n {digest} {size} {path}\n",
            index.date, index.more
        ));
    }

    fn publish_release(&self, text: &str) {
        let signed = signing::clear_sign(&self.key, text);
        self.put("dists/trixie/InRelease", &signed);
    }

    /// Runs the program on the recipe, with a cache of this test's own.
    #[track_caller]
    pub(super) fn coop(&self, words: &[&str]) -> Done {
        self.coop_with(words, &[])
    }

    #[track_caller]
    pub(super) fn coop_with(&self, words: &[&str], environment: &[(&str, &str)]) -> Done {
        let mut command = support::coop();
        command
            .env("COOP_CACHE", self.path("cache"))
            .env("NO_PROXY", "127.0.0.1")
            .envs(environment.iter().copied())
            .current_dir(self.folder.path())
            .args(words)
            .args(["r.yaml", "--progress", "none"]);
        support::run(&mut command, RUN_DEADLINE)
    }

    /// Fetching is refused with these words; nothing that is not in the archive is in the cache
    /// afterwards, no lock and no output were written. Says which of the archive's files were stored.
    #[track_caller]
    pub(super) fn refused(&self, words: &[&str]) -> BTreeSet<String> {
        let mut stored = BTreeSet::new();
        for verb in ["fetch", "lock"] {
            let done = self.coop(&[verb]);
            if verb == "lock" && done.code() == Some(0) {
                // Locks do not look at packages.
                fs::remove_file(self.path("r.yaml.lock")).unwrap();
                continue;
            }
            assert_eq!(done.code(), Some(1), "{verb}: {}", done.stderr);
            for word in words {
                assert!(
                    done.stderr.contains(word),
                    "{verb}, {word}: {}",
                    done.stderr
                );
            }
            assert_eq!(done.text(), "");
            stored = self.stored();
            assert!(!self.path("r.yaml.lock").exists());
        }
        stored
    }

    /// The digests of what the cache has, each of which fits.
    #[track_caller]
    pub(super) fn stored(&self) -> BTreeSet<String> {
        let mut stored = BTreeSet::new();
        let root = self.path("cache/v1");
        for shard in entries(&root.join("blob")) {
            for blob in entries(&shard) {
                let name = blob.file_name().unwrap().to_str().unwrap().to_owned();
                assert_eq!(support::sha256(&blob), name, "a blob of another digest");
                stored.insert(name);
            }
        }
        for session in entries(&root.join("temp")) {
            let left = entries(&session).into_iter();
            let left: Vec<PathBuf> = left.filter(|path| !path.ends_with("lock")).collect();
            assert!(left.is_empty(), "left in the cache: {left:?}");
        }
        stored
    }

    /// Whether the cache remembers an index.
    pub(super) fn has_note(&self) -> bool {
        !entries(&self.path("cache/v1/note/release-1")).is_empty()
    }
}

pub(super) fn deb(name: &str, version: &str) -> String {
    format!("pool/{name}_{version}.deb")
}

pub(super) fn stanza(
    name: &str,
    version: &str,
    fields: &str,
    path: &str,
    content: &[u8],
) -> String {
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{fields}\
         Filename: {path}\nSize: {}\nSHA256: {}\n\n",
        content.len(),
        support::sha256_of(content)
    )
}

fn entries(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .arg("-nc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap().stdout
}
