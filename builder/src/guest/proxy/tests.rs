use coop_runtime::event::Silent;

use super::*;
use crate::debian::mirror::{Mirror, MirrorOrigin};
use crate::debian::testing::{Archive, NOW, NOW_TEXT, keyring};
use crate::digest::Digest;
use crate::fetch::Options;
use crate::store::Store;

struct Bench {
    archive: Archive,
    fetcher: Fetcher,
    suites: Vec<SuiteRequest>,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// An archive with one package, whose index has expired, and which has moved on since.
    fn new() -> Self {
        let archive = Archive::new();
        archive.write("pool/main/a/a_1_amd64.deb", b"the package");
        let digest = Digest::of(b"the package");
        let stanza = format!(
            "Package: a\nVersion: 1\nArchitecture: amd64\nFilename: pool/main/a/a_1_amd64.deb\n\
             Size: 11\nSHA256: {digest}\n\nPackage: b\nVersion: 1\nArchitecture: amd64\n\
             Filename: pool/main/b/b_1_amd64.deb\nSize: 3\nSHA256: {digest}\n"
        );
        archive.publish(&stanza, NOW_TEXT, "");
        let index = fs_err::read(archive.path("dists/trixie/InRelease")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("cache")).unwrap();
        let suites = vec![SuiteRequest {
            named_architecture: false,
            foreign: Vec::new(),
            mirror: Mirror {
                url: archive.url(),
                origin: MirrorOrigin::Recipe,
                check_valid_until: true,
                snapshot: None,
            },
            archive: String::new(),
            suite: "trixie".to_owned(),
            components: Vec::new(),
            architecture: "amd64".to_owned(),
            keyring: Some(keyring(&archive.key)),
            priority: None,
            now_seconds: NOW,
            pinned: Some(Digest::of(&index)),
        }];
        Self {
            archive,
            fetcher: Fetcher::new(store, Options::default()),
            suites,
            _folder: folder,
        }
    }

    /// What the proxy answers to all of this.
    fn ask(&self, text: &str) -> String {
        let packages = Packages {
            fetcher: &self.fetcher,
            suites: &self.suites,
            is_locked: true,
        };
        serve(&packages, Network::Packages, &Silent, |service| {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            (service.accept)(theirs);
            ours.write_all(text.as_bytes()).unwrap();
            ours.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            ours.read_to_end(&mut answer).unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        })
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!(
            "GET http://archive-0.invalid/{path} HTTP/1.1\r\n\r\n"
        ))
    }
}

#[test]
fn indices_and_packages_are_served_as_pinned() {
    let bench = Bench::new();
    let index = bench.get("dists/trixie/InRelease");
    assert!(index.starts_with("HTTP/1.1 200 OK\r\n"), "{index}");
    // The archive moves on; what is pinned stays.
    bench.archive.publish("", NOW_TEXT, "Changed: yes\n");
    assert_eq!(bench.get("dists/trixie/InRelease"), index);
    bench
        .archive
        .write("pool/main/a/a_1_amd64.deb", b"another one");
    let refused = bench.get("pool/main/a/a_1_amd64.deb");
    // The list itself is gone from the archive, too, and nobody had fetched it.
    assert!(refused.starts_with("HTTP/1.1 424 "), "{refused}");
    let bench = Bench::new();
    let list = bench.get("dists/trixie/main/binary-amd64/Packages");
    assert!(
        list.contains("\nFilename: pool/main/a/a_1_amd64.deb\n"),
        "{list}"
    );
    let digest = Digest::of(list.split_once("\r\n\r\n").unwrap().1.as_bytes());
    let path = format!("dists/trixie/main/binary-amd64/by-hash/SHA256/{digest}");
    assert_eq!(bench.get(&path), list);
    let both = "GET http://archive-0.invalid/pool/main/a/a_1_amd64.deb HTTP/1.1\r\n\r\n";
    let answers = bench.ask(&both.repeat(2));
    assert_eq!(answers.matches("the package").count(), 2, "{answers}");
    bench
        .archive
        .write("pool/main/a/a_1_amd64.deb", b"another one");
    // From the store.
    assert!(
        bench
            .get("pool/main/a/a_1_amd64.deb")
            .ends_with("the package")
    );
    let head = bench.ask(&both.replace("GET", "HEAD"));
    assert!(head.contains("Content-Length: 11") && !head.contains("the package"));
}

#[test]
fn everything_else_is_refused_with_a_sentence() {
    let bench = Bench::new();
    for path in [
        "dists/trixie/main/binary-i386/Packages",
        "dists/sid/InRelease",
        "pool/main/c/c_1_amd64.deb",
        "pool/main/a/a_1_i386.deb",
        "pool/main/a/a_1.dsc",
        "etc/passwd",
    ] {
        let answer = bench.get(path);
        let status = "HTTP/1.1 404 none of the files of the recipe's suites\r\n";
        assert!(answer.starts_with(status), "{path}: {answer}");
    }
    // What the index names, and the archive has not.
    let missing = bench.get("pool/main/b/b_1_amd64.deb");
    assert!(missing.starts_with("HTTP/1.1 424 "), "{missing}");
    let other = bench.ask("GET http://elsewhere.invalid/a HTTP/1.1\r\n\r\n");
    assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
    let connect = bench.ask("CONNECT elsewhere.invalid:443 HTTP/1.1\r\n\r\nGET");
    assert!(connect.starts_with("HTTP/1.1 403 encrypted"), "{connect}");
    assert!(connect.contains("\r\nConnection: close\r\n"));
    assert_eq!(bench.ask("GET http://half"), "");
    // No body, so that the answer behind it is found.
    let both = "HEAD http://elsewhere.invalid/a HTTP/1.1\r\n\r\n".repeat(2);
    let answers = bench.ask(&both);
    assert!(answers.ends_with("\r\n\r\n"), "{answers}");
    let heads: Vec<&str> = answers.split_terminator("\r\n\r\n").collect();
    assert!(heads.len() == 2 && heads.iter().all(|head| head.starts_with("HTTP/1.1 404 ")));
    // A lock whose index nobody has any more says so.
    let mut bench = Bench::new();
    bench.suites[0].pinned = Some(Digest::of(b"long ago"));
    let gone = bench.get("dists/trixie/InRelease");
    assert!(gone.contains("but the lock names"), "{gone}");
}

#[test]
fn a_guest_is_not_told_the_password_of_an_archive() {
    let mut bench = Bench::new();
    bench.suites[0].mirror.url = "https://me:hunter2@127.0.0.1:1/debian/".to_owned();
    let refused = bench.get("dists/trixie/InRelease");
    assert!(refused.starts_with("HTTP/1.1 424 "), "{refused}");
    assert!(
        refused.contains("http://archive-0.invalid/dists/trixie/InRelease"),
        "{refused}"
    );
    assert!(!refused.contains("hunter2"), "{refused}");
}

#[test]
fn a_guest_that_opens_many_connections_is_bounded() {
    let bench = Bench::new();
    let packages = Packages {
        fetcher: &bench.fetcher,
        suites: &bench.suites,
        is_locked: false,
    };
    serve(&packages, Network::World, &Silent, |service| {
        let mut streams = Vec::new();
        for _ in 0..10 * CONNECTIONS_MAX {
            let (ours, theirs) = UnixStream::pair().unwrap();
            (service.accept)(theirs);
            streams.push(ours);
        }
        std::thread::sleep(Duration::from_millis(50));
        let mut closed = 0;
        for mut stream in streams {
            stream.set_nonblocking(true).unwrap();
            closed += usize::from(matches!(stream.read(&mut [0]), Ok(0)));
        }
        assert!(closed >= 8 * CONNECTIONS_MAX, "{closed}");
    });
}
