//! Appliances in registries: Debian's docker-registry on the loopback, and what stands between.

mod proxy;
mod referrers;
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use serde_json::Value;

use crate::support::{
    Done, Process, RUN_DEADLINE, coop, eventually, give, oracle, run, sha256_of, small,
    temp_folder, unprivileged,
};
use proxy::{Proxy, Request, Verdict, answer};
use server::{Server, appliance};

const DEADLINE: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(60);
const UNSIGNED: &str = "--insecure-allow-unsigned";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A folder with an appliance and caches.
struct Place {
    folder: tempfile::TempDir,
    appliance: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = temp_folder();
        let appliance = appliance(folder.path());
        Self { folder, appliance }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `coop` with a cache of this name.
    fn coop(&self, cache: &str, words: &[&str]) -> Command {
        let mut command = coop();
        command
            .env("COOP_CACHE", self.path(cache))
            .current_dir(self.folder.path())
            .args(words);
        command
    }

    #[track_caller]
    fn push(&self, to: &str) -> Done {
        let path = self.appliance.display().to_string();
        run(
            &mut self.coop("push", &["push", "--json", &path, to]),
            DEADLINE,
        )
    }

    #[track_caller]
    fn pull(&self, cache: &str, from: &str, to: &str) -> Done {
        run(
            &mut self.coop(cache, &["pull", UNSIGNED, from, "-o", to]),
            DEADLINE,
        )
    }

    #[track_caller]
    fn same(&self, other: &str) {
        let mut diff = Command::new("diff");
        diff.arg("-r").arg(&self.appliance).arg(self.path(other));
        run(&mut diff, DEADLINE).expect(0);
    }

    /// What is in the folder beside what was there at the beginning, hidden or not.
    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let known = ["appliance", "push", "pull"];
        names
            .filter(|name| !known.contains(&name.as_str()))
            .collect()
    }
}

fn json(done: &Done) -> Value {
    serde_json::from_slice(&done.stdout).unwrap()
}

fn server() -> Option<Server> {
    oracle("docker-registry").then(Server::start)
}

#[test]
fn what_is_pushed_is_pulled_elsewhere() {
    let Some(server) = server() else { return };
    let place = Place::new();
    let name = format!("oci://{}/team/web:1.0", server.authority);
    let pushed = json(&place.push(&name).expect(0));
    assert!(
        pushed["sent_bytes"].as_u64().unwrap() > 14 << 20,
        "{pushed}"
    );
    let pinned = pushed["pinned"].as_str().unwrap();
    place.pull("pull", &name, "by-tag").expect(0);
    place.same("by-tag");
    place.pull("other", pinned, "by-digest").expect(0);
    place.same("by-digest");
    // What is there is not sent or fetched again, and an appliance is replaced whole.
    let again = json(&place.push(&name).expect(0));
    assert_eq!(
        (&again["sent_blobs"], &again["digest"]),
        (&0.into(), &pushed["digest"])
    );
    place.pull("pull", &name, "by-tag").expect(0);
    // A bundle of it, twice the same.
    for (cache, to) in [("pull", "a.coop"), ("other", "b.coop")] {
        place.pull(cache, &name, to).expect(0);
    }
    let bundle = fs::read(place.path("a.coop")).unwrap();
    assert!(bundle == fs::read(place.path("b.coop")).unwrap());
    let missing = format!("oci://{}/team/web:2.0", server.authority);
    let refused = place.pull("pull", &missing, "none").expect(1);
    assert!(
        refused.stderr.contains("the registry has no"),
        "{}",
        refused.stderr
    );
    let refused = run(&mut place.coop("pull", &["pull", &name]), DEADLINE).expect(1);
    assert!(refused.stderr.contains("not signed"), "{}", refused.stderr);
    assert!(!place.path("out").exists());
}

#[test]
fn skopeo_copies_it() {
    let Some(server) = server() else { return };
    if !oracle("skopeo") {
        return;
    }
    let place = Place::new();
    let name = format!("oci://{}/team/web:1.0", server.authority);
    let digest = json(&place.push(&name).expect(0))["digest"].clone();
    let source = format!("docker://{}/team/web:1.0", server.authority);
    let target = format!("docker://{}/copied/web:2.0", server.authority);
    let mut copy = unprivileged("skopeo");
    copy.args([
        "--insecure-policy",
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ]);
    copy.args(["--preserve-digests", &source, &target]);
    copy.env("HOME", place.folder.path())
        .current_dir(place.folder.path());
    run(&mut copy, DEADLINE).expect(0);
    let mut inspect = unprivileged("skopeo");
    inspect.env("HOME", place.folder.path());
    inspect.args(["inspect", "--raw", "--tls-verify=false", &target]);
    let raw = run(&mut inspect, DEADLINE).expect(0);
    let found = format!("sha256:{}", sha256_of(&raw.stdout));
    assert_eq!(digest, found);
    let copied = format!("oci://{}/copied/web:2.0", server.authority);
    place.pull("pull", &copied, "copied").expect(0);
    place.same("copied");
}

#[test]
fn signatures_go_and_come_with_it() {
    let Some(server) = server() else { return };
    let place = Place::new();
    let name = format!("oci://{}/team/web:1.0", server.authority);
    let appliance = place.appliance.display().to_string();
    for words in [
        &["pack", &appliance, "-o", "web.coop"][..],
        &["sign", "--generate", "good.key"],
        &["sign", "--generate", "other.key"],
        &["sign", "web.coop", "--key", "good.key"],
        &["push", "web.coop", &name],
        &["pull", &name, "-o", "web", "--key", "good.key.pub"],
        &["pull", &name, "-o", "back.coop", "--key", "good.key.pub"],
    ] {
        let mut command = place.coop("push", words);
        command.env("COOP_KEY_PASSWORD", "");
        run(&mut command, DEADLINE).expect(0);
    }
    place.same("web");
    let bundle = fs::read(place.path("web.coop")).unwrap();
    assert!(
        bundle == fs::read(place.path("back.coop")).unwrap(),
        "with its signature"
    );
    let words = ["pull", &name, "-o", "no", "--key", "other.key.pub"];
    let refused = run(&mut place.coop("push", &words), DEADLINE).expect(1);
    assert!(
        refused.stderr.contains("which is not trusted"),
        "{}",
        refused.stderr
    );
    assert!(!place.path("no").exists());
}

/// Signs, verifies and inspects what a registry has, without its files.
fn sign_there(authority: &str) {
    let place = Place::new();
    let name = format!("oci://{authority}/team/web:1.0");
    place.push(&name).expect(0);
    let coop = |words: &[&str]| run(&mut place.coop("cache", words), DEADLINE);
    for key in ["good", "other"] {
        coop(&["sign", "--generate", key]).expect(0);
    }
    let verify = ["verify", &name, "--key", "good.pub"];
    let refused = coop(&verify).expect(1);
    assert!(refused.stderr.contains("not signed"), "{}", refused.stderr);
    let message = coop(&["sign", &name, "--message"]).expect(0).text();
    let digest = message.strip_prefix("coop appliance ").unwrap().trim_end();
    let sign = |key| json(&coop(&["sign", &name, "--key", key, "--json"]).expect(0));
    for (key, count) in [("good", 1), ("good", 1), ("other", 2)] {
        let told = sign(key);
        assert_eq!(told["signatures"], count, "{told}");
        let pinned = format!("oci://{authority}/team/web@{digest}");
        assert_eq!(
            (&told["pinned"], &told["digest"]),
            (&pinned.into(), &digest.into())
        );
    }
    let text = coop(&verify).expect(0).text();
    assert!(
        text.starts_with(digest)
            && text.contains("signed by 'good.pub'")
            && text.contains("not checked: the content of 3 files (15"),
        "{text}"
    );
    let told = json(&coop(&[&verify[..], &["--json"]].concat()).expect(0));
    assert_eq!(
        (&told["verified"], &told["unchecked"][0]),
        (&false.into(), &"files".into())
    );
    let text = coop(&["inspect", &name]).expect(0).text();
    assert!(
        text.contains(digest) && text.matches("signature of  minisign key").count() == 2,
        "{text}"
    );
    for words in [
        ["inspect", &name, "--verify"],
        ["verify", &name, "--rebuild"],
    ] {
        coop(&words).expect(2);
    }
    let largest = || {
        let sizes = files(&place.path("cache/v1/blob"));
        sizes
            .iter()
            .map(|path| fs::metadata(path).unwrap().len())
            .max()
    };
    assert!(largest() < Some(10_000), "no file came");
    let text = coop(&[&verify[..], &["--download"]].concat())
        .expect(0)
        .text();
    assert!(text.contains("3 files with their digests"), "{text}");
    assert!(largest() > Some(10 << 20));
    coop(&["sign", "--generate", "third"]).expect(0);
    let refused = coop(&["verify", &name, "--key", "third.pub"]).expect(1);
    assert!(refused.stderr.contains("not trusted"), "{}", refused.stderr);
    // Whoever pulls finds it, into a bundle with both signatures.
    coop(&["pull", &name, "--key", "other.pub", "-o", "web.coop"]).expect(0);
    coop(&["verify", "web.coop", "--key", "good.pub"]).expect(0);
}

#[test]
fn what_a_registry_has_is_signed_there() {
    let Some(server) = server() else { return };
    sign_there(&server.authority);
}

#[test]
fn what_a_registry_with_a_list_of_referrers_has_is_signed_there() {
    let Some(server) = server() else { return };
    let proxy = referrers::with_list(&server.authority);
    sign_there(&proxy.authority);
    let seen = proxy.seen();
    let of = |part: &str| seen.iter().filter(|one| one.path.contains(part)).count();
    assert!(of("/referrers/sha256:") > 0);
    assert_eq!(of("/manifests/sha256-"), 0, "no tag stands for the list");
}

#[test]
fn what_a_registry_has_is_booted() {
    let Some(server) = server() else { return };
    let name = format!("oci://{}/small", server.authority);
    let folder = temp_folder();
    let with_cache = |words: &[&str]| {
        let mut command = coop();
        command.env("COOP_CACHE", folder.path().join("cache"));
        command.current_dir(folder.path()).args(words);
        run(&mut command, RUN_DEADLINE)
    };
    let small = small().display().to_string();
    let pushed = with_cache(&["push", &small, &name]).expect(0);
    let pinned = pushed.text().trim_end().to_owned();
    let words = ["run", UNSIGNED, &name, "--", "cat", "/etc/os-release"];
    let done = with_cache(&words).expect(0);
    assert!(done.text().contains("ID=debian"), "{}", done.text());
    let refused = with_cache(&["run", &name, "--", "true"]).expect(125);
    assert!(refused.stderr.contains("not signed"), "{}", refused.stderr);
    let refused = with_cache(&["run", "oci://h/A", "--", "true"]).expect(2);
    assert!(
        refused.stderr.contains("no valid name"),
        "{}",
        refused.stderr
    );
    // What was signed and came once needs no registry, if it is named by its digest.
    for key in ["good", "other"] {
        with_cache(&["sign", "--generate", key]).expect(0);
    }
    with_cache(&["sign", &name, "--key", "good"]).expect(0);
    with_cache(&["run", &name, "--key", "good.pub", "--", "true"]).expect(0);
    let refused = with_cache(&["run", &pinned, "--key", "other.pub", "--", "true"]).expect(125);
    assert!(refused.stderr.contains("not trusted"), "{}", refused.stderr);
    drop(server);
    let words = [
        "run", &pinned, "--key", "good.pub", "--", "sh", "-c", "exit 3",
    ];
    with_cache(&words).expect(3);
    let refused = with_cache(&["run", &name, "--key", "good.pub", "--", "true"]).expect(125);
    assert!(refused.stderr.contains("@sha256:"), "{}", refused.stderr);
}

#[test]
fn a_killed_push_goes_on() {
    let Some(server) = server() else { return };
    let place = Place::new();
    // The third piece never comes to the registry.
    let proxy = Proxy::start(&server.authority, |request| match request.method.as_str() {
        "PATCH" if request.number == 2 => Verdict::Stall(0),
        _ => Verdict::Forward,
    });
    let name = format!("oci://{}/team/web:1.0", proxy.authority);
    let path = place.appliance.display().to_string();
    let pieces = || {
        proxy
            .seen()
            .into_iter()
            .filter(|one| one.method == "PATCH")
            .collect::<Vec<_>>()
    };
    let killed = Process::start(&mut place.coop("push", &["push", &path, &name]), DEADLINE);
    assert!(eventually(PATIENCE, || pieces().len() == 3));
    killed.signal(rustix::process::Signal::KILL);
    killed.end();
    place.push(&name).expect(0);
    let stalled = pieces()[2].header("content-range").to_owned();
    assert_eq!(
        pieces()[3].header("content-range"),
        stalled,
        "it goes on behind the second"
    );
    assert!(!stalled.starts_with("0-"));
    place.pull("pull", &name, "web").expect(0);
    place.same("web");
}

#[test]
fn a_killed_pull_goes_on_and_leaves_nothing() {
    let Some(server) = server() else { return };
    let place = Place::new();
    place
        .push(&format!("oci://{}/team/web:1.0", server.authority))
        .expect(0);
    let half = 5 << 20;
    // The first answer that is long enough stays in the middle.
    let proxy = Proxy::start(&server.authority, move |request| {
        let is_blob = request.method == "GET" && request.path.contains("/blobs/");
        match is_blob && request.header("range").is_empty() {
            true => Verdict::Stall(half),
            false => Verdict::Forward,
        }
    });
    let name = format!("oci://{}/team/web:1.0", proxy.authority);
    let words = ["pull", UNSIGNED, &name, "-o", "web"];
    // Small blobs come whole all the same; the large one is killed.
    let killed = Process::start(&mut place.coop("pull", &words), DEADLINE);
    let partial = place.path("pull/v1/partial");
    let came = || {
        files(&partial)
            .iter()
            .map(|path| fs::metadata(path).map_or(0, |m| m.len()))
            .max()
    };
    assert!(eventually(PATIENCE, || files(&partial).len() == 1
        && came().is_some_and(|length| length >= half as u64)));
    killed.signal(rustix::process::Signal::KILL);
    killed.end();
    assert_eq!(place.left(), Vec::<String>::new());
    let before = came().unwrap();
    place.pull("pull", &name, "web").expect(0);
    place.same("web");
    assert_eq!(place.left(), ["web"]);
    let ranges: Vec<Request> = proxy
        .seen()
        .into_iter()
        .filter(|one| !one.header("range").is_empty())
        .collect();
    assert_eq!(ranges.len(), 1);
    assert_eq!(ranges[0].header("range"), format!("bytes={before}-"));
    assert_eq!(files(&partial).len(), 0);
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// A word of the answer's body becomes another one of the same length.
fn swap(head: &str, body: Vec<u8>, from: &str, to: &str) -> (String, Vec<u8>) {
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains(from) && from.len() == to.len(), "{text}");
    (head.to_owned(), text.replacen(from, to, 1).into_bytes())
}

/// How a proxy lies, and what `coop pull` says of it.
type Lie = (&'static str, fn(&Request) -> Verdict);

fn is_manifest(request: &Request) -> bool {
    request.path.ends_with("/manifests/1.0")
}

fn is_blob(request: &Request) -> bool {
    request.path.contains("/blobs/")
}

const LIES: &[Lie] = &[
    // A manifest whose bytes are not those that the registry says.
    ("has the digest sha256:", |request| {
        match is_manifest(request) {
            true => Verdict::Change(|head, body| swap(head, body, "a test", "a lie!")),
            false => Verdict::Forward,
        }
    }),
    // The same without the registry's word for it: the config is another one then.
    ("do not agree", |request| match is_manifest(request) {
        true => Verdict::Change(|head, body| {
            let head: Vec<&str> = head.split_inclusive("\r\n").collect();
            let is_digest = |line: &&str| {
                line.to_ascii_lowercase()
                    .starts_with("docker-content-digest")
            };
            let head: String = head.into_iter().filter(|line| !is_digest(line)).collect();
            swap(&head, body, "\"root.cobd\"", "\"toor.cobd\"")
        }),
        false => Verdict::Forward,
    }),
    (
        "is longer than 4194304 bytes",
        |request| match is_manifest(request) {
            true => Verdict::Answer(answer(
                "200 OK",
                &[("Content-Type", MANIFEST)],
                &[b' '; 5 << 20],
            )),
            false => Verdict::Forward,
        },
    ),
    (
        "its media type is 'application/vnd.oci.image.index.v1+json'",
        |request| {
            let text =
                format!("{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[]}}");
            match is_manifest(request) {
                true => Verdict::Answer(answer(
                    "200 OK",
                    &[("Content-Type", MANIFEST)],
                    text.as_bytes(),
                )),
                false => Verdict::Forward,
            }
        },
    ),
    (
        "was sent as 'application/vnd.oci.image.index.v1+json'",
        |request| match is_manifest(request) {
            true => Verdict::Change(|head, body| (head.replace(MANIFEST, INDEX), body)),
            false => Verdict::Forward,
        },
    ),
    ("it has a list of manifests, as an index has", |request| {
        let text = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"layers\":[],\"manifests\":[]}}"
        );
        match is_manifest(request) {
            true => Verdict::Answer(answer(
                "200 OK",
                &[("Content-Type", MANIFEST)],
                text.as_bytes(),
            )),
            false => Verdict::Forward,
        }
    }),
    // Blobs that are others, longer, or cut each time.
    ("has the digest sha256:", |request| match is_blob(request) {
        true => Verdict::Change(|head, mut body| {
            if let Some(byte) = body.first_mut() {
                *byte ^= 1;
            }
            (head.to_owned(), body)
        }),
        false => Verdict::Forward,
    }),
    ("is longer than", |request| match is_blob(request) {
        true => Verdict::Answer(answer("200 OK", &[], &[0; 1 << 20])),
        false => Verdict::Forward,
    }),
    ("ended after 10 of", |request| match is_blob(request) {
        true => Verdict::Answer(answer("200 OK", &[], b"0123456789")),
        false => Verdict::Forward,
    }),
    (
        "which is another host; only blobs may come from one",
        |request| match is_manifest(request) {
            true => Verdict::Answer(answer(
                "307 Elsewhere",
                &[("Location", "http://127.0.0.1:9/x")],
                b"",
            )),
            false => Verdict::Forward,
        },
    ),
    ("with a user or password in it", |request| {
        match is_blob(request) {
            true => Verdict::Answer(answer(
                "307 Elsewhere",
                &[("Location", "http://a:b@127.0.0.1:9/x")],
                b"",
            )),
            false => Verdict::Forward,
        }
    }),
    ("which is not encrypted", |request| match is_blob(request) {
        true => Verdict::Answer(answer(
            "307 Elsewhere",
            &[("Location", "http://elsewhere.example/x")],
            b"",
        )),
        false => Verdict::Forward,
    }),
];

#[test]
fn lies_are_refused_each_with_its_sentence() {
    let Some(server) = server() else { return };
    let place = Place::new();
    place
        .push(&format!("oci://{}/team/web:1.0", server.authority))
        .expect(0);
    for (index, (says, lie)) in LIES.iter().enumerate() {
        let proxy = Proxy::start(&server.authority, lie);
        let name = format!("oci://{}/team/web:1.0", proxy.authority);
        let cache = format!("cache{index}");
        let refused = place.pull(&cache, &name, "web").expect(1);
        assert!(refused.stderr.contains(says), "{index}: {}", refused.stderr);
        assert!(!place.path("web").exists(), "{says}");
        // Nothing that was a lie is believed later.
        let honest = format!("oci://{}/team/web:1.0", server.authority);
        if index == 6 {
            place.pull(&cache, &honest, "honest").expect(0);
            place.same("honest");
        }
        fs::remove_dir_all(place.path(&cache)).unwrap();
    }
}

/// `me:secret`, as htpasswd -B writes it and as a file of credentials has it.
const HTPASSWD: &str = "me:$2b$04$nucFCBwM2TOIfTAaQSHKoeJOsYeCTAWzAclzBHX1KSTz42HkIWFL2";
const AUTH: &str = "bWU6c2VjcmV0";

#[test]
fn credentials_are_shown_to_the_registry_and_to_nobody_else() {
    if !oracle("docker-registry") {
        return;
    }
    let more = "auth:\n  htpasswd: {realm: r, path: FOLDER/htpasswd}\n";
    let server = Server::prepared(more, |folder| {
        fs::write(folder.join("htpasswd"), format!("{HTPASSWD}\n")).unwrap();
    });
    let place = Place::new();
    let name = format!("oci://{}/team/web:1.0", server.authority);
    let refused = place.push(&name).expect(1);
    let text = refused.text();
    assert!(
        text.contains("does not let whoever has no credentials for it push to 'team/web'"),
        "{text}"
    );
    assert!(text.contains("docker login"), "{text}");
    let docker = place.path("docker");
    fs::create_dir(&docker).unwrap();
    let config = docker.join("config.json");
    let login = |authority: &str, auth: &str| {
        let text = format!("{{\"auths\": {{\"{authority}\": {{\"auth\": \"{auth}\"}}}}}}");
        fs::write(&config, text).unwrap();
    };
    let path = place.appliance.display().to_string();
    let with = |words: &[&str]| {
        let mut command = place.coop("push", words);
        command.env("DOCKER_CONFIG", &docker);
        run(&mut command, DEADLINE)
    };
    login(&server.authority, "bWU6d3Jvbmc=");
    let refused = with(&["push", &path, &name]).expect(1);
    assert!(
        refused.stderr.contains("does not let 'me' push to"),
        "{}",
        refused.stderr
    );
    login(&server.authority, AUTH);
    with(&["push", &path, &name]).expect(0);
    // A registry that sends on to another host with the blobs.
    let elsewhere = Proxy::start(&server.authority, |_| Verdict::Forward);
    let target = elsewhere.authority.clone();
    let proxy = Proxy::start(&server.authority, move |request| {
        let away = request.method == "GET"
            && is_blob(request)
            && !request.header("authorization").is_empty();
        let location = format!("http://{target}{}", request.path);
        match away {
            true => Verdict::Answer(answer("307 Elsewhere", &[("Location", &location)], b"")),
            false => Verdict::Forward,
        }
    });
    login(&proxy.authority, AUTH);
    let name = format!("oci://{}/team/web:1.0", proxy.authority);
    let refused = with(&["pull", UNSIGNED, &name, "-o", "web"]).expect(1);
    assert!(refused.stderr.contains("401"), "{}", refused.stderr);
    let seen = elsewhere.seen();
    assert!(
        !seen.is_empty()
            && seen
                .iter()
                .all(|one| one.header("authorization").is_empty())
    );
    assert!(
        proxy
            .seen()
            .iter()
            .any(|one| one.header("authorization") == format!("Basic {AUTH}"))
    );
}

#[test]
fn tls_is_trusted_by_the_hosts_roots() {
    if !oracle("docker-registry") || !oracle("openssl") {
        return;
    }
    let more = "  tls: {certificate: FOLDER/cert.pem, key: FOLDER/key.pem}\n---\n";
    let place = Place::new();
    let root = place.path("root.pem");
    let server = Server::prepared(more, |folder| {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(folder).args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-days",
            "2",
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
        run(&mut openssl, DEADLINE).expect(0);
        for name in ["key.pem", "cert.pem"] {
            give(&folder.join(name));
        }
        fs::copy(folder.join("cert.pem"), &root).unwrap();
    });
    let name = format!("oci://{}/team/web:1.0", server.authority);
    let refused = place.push(&name).expect(1);
    assert!(refused.text().contains("certificate"), "{}", refused.text());
    let path = place.appliance.display().to_string();
    let mut push = place.coop("push", &["push", &path, &name]);
    push.env("SSL_CERT_FILE", &root);
    run(&mut push, DEADLINE).expect(0);
}
