//! A small registry on the loopback that tests can make lie.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use coop_appliance::bundle::{BlobDigest, media};
use coop_appliance::{Appliance, MANIFEST_NAME, Member};

/// A request as the registry saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) method: String,
    /// With the query.
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
    /// Whether the body was cut off.
    pub(super) cut: bool,
}

/// What it has.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) blobs: BTreeMap<String, Vec<u8>>,
    pub(super) manifests: BTreeMap<String, (String, Vec<u8>)>,
    pub(super) uploads: BTreeMap<String, Vec<u8>>,
    pub(super) seen: Vec<Seen>,
}

/// What it does with a request in place of what it should: a whole answer, or what it should.
pub(super) type Lie = dyn Fn(&Seen, &mut Contents) -> Option<Vec<u8>> + Send + Sync;

/// Serves until it is dropped.
pub(super) struct Fake {
    pub(super) authority: String,
    pub(super) contents: Arc<Mutex<Contents>>,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Fake {
    pub(super) fn start(
        lie: impl Fn(&Seen, &mut Contents) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let contents = Arc::new(Mutex::new(Contents::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let lie: Arc<Lie> = Arc::new(lie);
        let (shared, stopped) = (contents.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (shared, lie) = (shared.clone(), lie.clone());
                let stream = stream.unwrap();
                std::thread::spawn(move || serve(&stream, &shared, &*lie));
            }
        });
        Self {
            authority: address.to_string(),
            contents,
            address,
            stop,
        }
    }

    /// The requests so far, as `METHOD PATH`.
    pub(super) fn asked(&self) -> Vec<String> {
        let contents = self.contents.lock().unwrap();
        let seen = contents.seen.iter();
        seen.map(|one| format!("{} {}", one.method, one.path))
            .collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: &TcpStream, contents: &Mutex<Contents>, lie: &Lie) {
    let Some(seen) = read(stream) else {
        return;
    };
    let answer = {
        let mut contents = contents.lock().unwrap();
        contents.seen.push(seen.clone());
        let lied = lie(&seen, &mut contents);
        lied.unwrap_or_else(|| honest(&seen, &mut contents))
    };
    let mut stream = stream;
    let _ = stream.write_all(&answer);
}

fn read(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let mut seen = Seen {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        ..Seen::default()
    };
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        seen.headers
            .insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = seen.headers.get("content-length");
    let length: u64 = length.map_or(0, |length| length.parse().unwrap());
    let _ = reader.take(length).read_to_end(&mut seen.body);
    seen.cut = seen.body.len() as u64 != length;
    Some(seen)
}

/// A whole answer.
pub(super) fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// What a registry does, without the API of referrers, as Docker's.
fn honest(seen: &Seen, contents: &mut Contents) -> Vec<u8> {
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let missing = || {
        answer(
            "404 Not Found",
            &[],
            b"{\"errors\":[{\"code\":\"NAME_UNKNOWN\"}]}",
        )
    };
    let rest = path.strip_prefix("/v2/team/web/").unwrap_or_default();
    let digest = query
        .strip_prefix("digest=")
        .map(|text| text.replace("%3A", ":"));
    match (
        seen.method.as_str(),
        rest.split('/').collect::<Vec<_>>().as_slice(),
    ) {
        ("POST", ["blobs", "uploads", ""]) => {
            let id = contents.seen.len().to_string();
            contents.uploads.insert(id.clone(), Vec::new());
            progress(&id, 0, "202 Accepted")
        }
        ("PATCH", ["blobs", "uploads", id]) => match contents.uploads.get_mut(*id) {
            Some(upload) => {
                let range = &seen.headers["content-range"];
                assert_eq!(range.split('-').next().unwrap(), upload.len().to_string());
                upload.extend_from_slice(&seen.body);
                progress(id, upload.len(), "202 Accepted")
            }
            None => missing(),
        },
        ("GET", ["blobs", "uploads", id]) => match contents.uploads.get(*id) {
            Some(upload) => progress(id, upload.len(), "204 No Content"),
            None => missing(),
        },
        ("PUT", ["blobs", "uploads", id]) => match contents.uploads.remove(*id) {
            Some(mut upload) => {
                upload.extend_from_slice(&seen.body);
                let digest = digest.unwrap();
                if BlobDigest::of(&upload).to_string() != digest {
                    let body = b"{\"errors\":[{\"code\":\"DIGEST_INVALID\"}]}";
                    return answer("400 Bad Request", &[], body);
                }
                contents.blobs.insert(digest, upload);
                answer("201 Created", &[], b"")
            }
            None => missing(),
        },
        (method, ["blobs", digest]) => match contents.blobs.get(*digest) {
            Some(blob) => blob_answer(seen, method, blob),
            None => missing(),
        },
        ("PUT", ["manifests", version]) => {
            let kind = seen.headers["content-type"].clone();
            let digest = BlobDigest::of(&seen.body).to_string();
            let manifest = (kind, seen.body.clone());
            contents
                .manifests
                .insert((*version).to_owned(), manifest.clone());
            contents.manifests.insert(digest, manifest);
            answer("201 Created", &[], b"")
        }
        ("GET", ["manifests", version]) => match contents.manifests.get(*version) {
            Some((kind, bytes)) => answer("200 OK", &[("Content-Type", kind)], bytes),
            None => missing(),
        },
        _ => missing(),
    }
}

fn progress(id: &str, length: usize, status: &str) -> Vec<u8> {
    let location = format!("/v2/team/web/blobs/uploads/{id}");
    let range = format!("0-{}", length.saturating_sub(1));
    answer(status, &[("Location", &location), ("Range", &range)], b"")
}

fn blob_answer(seen: &Seen, method: &str, blob: &[u8]) -> Vec<u8> {
    if method == "HEAD" {
        let length = blob.len().to_string();
        return answer("200 OK", &[("Content-Length", &length)], b"");
    }
    let start = seen.headers.get("range").map(|range| {
        let range = range.strip_prefix("bytes=").unwrap();
        range.trim_end_matches('-').parse::<usize>().unwrap()
    });
    match start {
        None => answer("200 OK", &[], blob),
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
            answer(
                "206 Partial Content",
                &[("Content-Range", &range)],
                &blob[start..],
            )
        }
    }
}

/// A manifest of the media type that every appliance's has.
pub(super) fn put_manifest(contents: &mut Contents, version: &str, bytes: &[u8]) {
    let manifest = (media::OCI_MANIFEST.to_owned(), bytes.to_vec());
    contents.manifests.insert(version.to_owned(), manifest);
}

/// An appliance that nobody boots.
pub(super) fn appliance(folder: &Path) -> Appliance {
    let member = |name: &str, bytes: &[u8]| {
        fs_err::write(folder.join(name), bytes).unwrap();
        Member::of(folder, name).unwrap()
    };
    let manifest = serde_json::json!({
        "format": 1, "name": "web", "description": "", "architecture": "amd64", "inputs": "",
        "kernel": {
            "release": "7.2", "modules": null, "libraries": [], "cmdline": [],
            "vmlinux": member("vmlinux", b"kernel"), "config": member("config", b"CONFIG_UML=y\n"),
        },
        "machine": {"memory_bytes": 67_108_864, "cpus": 1}, "cobd": [], "conet": [],
        "cocon": {"columns": 80, "rows": 25}, "test": [],
    });
    fs_err::write(folder.join(MANIFEST_NAME), manifest.to_string()).unwrap();
    Appliance::open(folder).unwrap()
}
