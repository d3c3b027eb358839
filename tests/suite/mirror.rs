//! A mirror that the test makes: with an own key and own packages, over HTTP on the loopback, by a
//! server that can be made to lie. Whatever it does is refused or survived, with a sentence, and
//! nothing wrong is kept.

mod archive;
#[path = "../../builder/src/testing.rs"]
#[allow(dead_code)]
mod server;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fs_err as fs;

use crate::failures::tiny;
use crate::support::{self, BUILD_DEADLINE, RUN_DEADLINE, oracle, sha256, sha256_of};
use archive::{Index, LIST, Mirror, deb, part, stanza};
use server::{announced, response};

const LATER: &str = "Sat, 12 Sep 2026 08:55:41 UTC";
const APP: &[archive::Package<'_>] = &[("app", "1", "Depends: lib\n"), ("lib", "1", "")];

/// Locks of kernels from source name the host's compiler.
fn has_tools() -> bool {
    let tools = ["gcc", "make", "flex", "bison", "bc", "gzip"];
    tools.iter().all(|tool| oracle(tool))
}

fn mirror() -> Option<Mirror> {
    if !has_tools() {
        return None;
    }
    let mirror = Mirror::new();
    mirror.publish(APP, &Index::default());
    Some(mirror)
}

/// Whether the cache has what the server has under a path.
#[track_caller]
fn is_stored(mirror: &Mirror, path: &str) -> bool {
    mirror.stored().contains(&sha256_of(&mirror.get(path)))
}

#[track_caller]
fn fetched(mirror: &Mirror) {
    mirror.coop(&["fetch"]).expect(0);
    for (name, version, _) in APP {
        assert!(is_stored(mirror, &deb(name, version)));
    }
}

#[test]
fn a_tampered_index_is_refused() {
    let Some(mirror) = mirror() else { return };
    let path = "dists/trixie/InRelease";
    let good = String::from_utf8(mirror.get(path)).unwrap();
    for (from, to) in [
        ("Codename: trixie", "Codename: trixiE"),
        ("Suite: stable\n", "Suite: stable\nValid-Until: never\n"),
        ("-----BEGIN PGP SIGNED MESSAGE-----", ""),
    ] {
        mirror.put(path, good.replacen(from, to, 1).as_bytes());
        let stored = mirror.refused(&["dists/trixie/InRelease", "cannot be trusted"]);
        assert!(stored.is_empty() && !mirror.has_note());
    }
    let stranger = Mirror::new();
    stranger.publish(APP, &Index::default());
    mirror.put(path, &stranger.get(path));
    mirror.refused(&["cannot be trusted", "not in the keyring"]);
    mirror.put(path, good.as_bytes());
    fetched(&mirror);
}

/// What a server may have in place of a file, and what is said of it.
fn tampered(good: &[u8]) -> [(Vec<u8>, String); 3] {
    let size = good.len();
    let mut bad = good.to_vec();
    bad[30] ^= 1;
    [
        (bad, "has the SHA-256".to_owned()),
        (
            [good, b"\n"].concat(),
            format!("is longer than {size} bytes"),
        ),
        (
            good[..size - 9].to_vec(),
            format!("ended after {} of {size} bytes", size - 9),
        ),
    ]
}

#[test]
fn a_tampered_list_is_refused() {
    let Some(mirror) = mirror() else { return };
    let path = format!("dists/trixie/{LIST}");
    let good = mirror.get(&path);
    for (bytes, words) in tampered(&good) {
        mirror.put(&path, &bytes);
        let stored = mirror.refused(&[LIST, &words]);
        assert_eq!(stored.len(), 1, "the index alone");
    }
    mirror.put(&path, &good);
    fetched(&mirror);
}

#[test]
fn a_tampered_package_is_refused() {
    let Some(mirror) = mirror() else { return };
    let path = deb("lib", "1");
    let good = mirror.get(&path);
    for (bytes, words) in tampered(&good) {
        mirror.put(&path, &bytes);
        let stored = mirror.refused(&["pool/lib_1.deb", &words]);
        assert!(!stored.contains(&sha256_of(&bytes)) && !stored.contains(&sha256_of(&good)));
    }
    mirror.put(&path, &good);
    fetched(&mirror);
}

#[test]
fn an_expired_or_future_index_is_refused() {
    let Some(mirror) = mirror() else { return };
    let publish = |date, more| {
        let index = Index {
            date,
            more,
            ..Index::default()
        };
        mirror.publish(APP, &index);
    };
    publish(LATER, "Valid-Until: Sat, 12 Sep 2026 09:00:00 UTC\n");
    let stored = mirror.refused(&["InRelease", "expired", "hours ago"]);
    assert!(stored.is_empty() && !mirror.has_note());
    publish("Sat, 12 Sep 2099 07:55:41 UTC", "");
    let stored = mirror.refused(&["InRelease"]);
    assert!(stored.is_empty() && !mirror.has_note());
    publish(LATER, "");
    fetched(&mirror);
}

#[test]
fn an_index_that_goes_back_is_refused_unless_a_lock_names_it() {
    let Some(mirror) = mirror() else { return };
    mirror.coop(&["lock"]).expect(0);
    let lock = fs::read(mirror.path("r.yaml.lock")).unwrap();
    fs::remove_file(mirror.path("r.yaml.lock")).unwrap();
    let old = mirror.get("dists/trixie/InRelease");
    let index = Index {
        date: LATER,
        ..Index::default()
    };
    mirror.publish(&[("app", "2", "")], &index);
    mirror.coop(&["fetch"]).expect(0);
    let newer = mirror.stored();
    mirror.put("dists/trixie/InRelease", &old);
    assert_eq!(
        mirror.refused(&["1 hours older", "went back in time"]),
        newer
    );
    fs::write(mirror.path("r.yaml.lock"), lock).unwrap();
    mirror.coop(&["fetch", "--locked"]).expect(0);
    assert!(is_stored(&mirror, &deb("app", "1")));
}

#[test]
fn a_cut_download_is_resumed() {
    let Some(mirror) = mirror() else { return };
    mirror.fault(|request, before, body| {
        let is_cut = request.path.ends_with(".deb") && before == 0;
        is_cut.then(|| announced("200 OK", "", body.len(), &body[..100]))
    });
    fetched(&mirror);
    let resumed = |request: &server::Request| request.range_start == Some(100);
    assert_eq!(mirror.requests().iter().filter(|r| resumed(r)).count(), 2);
}

#[test]
fn a_server_that_ignores_ranges_is_believed() {
    let Some(mirror) = mirror() else { return };
    mirror.fault(|request, before, body| match request.range_start {
        None if before == 0 && request.path.ends_with(".deb") => {
            Some(announced("200 OK", "", body.len(), &body[..100]))
        }
        _ => Some(response("200 OK", "", body)),
    });
    fetched(&mirror);
}

#[test]
fn a_range_of_another_file_is_noticed() {
    let Some(mirror) = mirror() else { return };
    mirror.fault(|request, before, body| {
        let other = vec![b'x'; body.len()];
        match request.range_start {
            None if before == 0 && request.path.ends_with(".deb") => {
                Some(announced("200 OK", "", body.len(), &other[..100]))
            }
            // The end of the right one, behind the begin of another.
            Some(start) => Some(part(body, start)),
            None => None,
        }
    });
    fetched(&mirror);
}

#[test]
fn redirects_to_files_are_not_followed() {
    let Some(mirror) = mirror() else { return };
    for target in ["file:///etc/passwd", "ftp://127.0.0.1/x"] {
        let header = format!("Location: {target}\r\n");
        mirror.fault(move |request, _, _| {
            let is_package = request.path.ends_with(".deb");
            is_package.then(|| response("302 Found", &header, b""))
        });
        mirror.refused(&["pool/", "redirects to", target]);
        let header = format!("Location: {target}\r\n");
        mirror.fault(move |_, _, _| Some(response("302 Found", &header, b"")));
        mirror.refused(&["InRelease", "redirects to", target]);
    }
    // Others are.
    let header = format!("Location: {}/elsewhere\r\n", mirror.url());
    mirror.put("elsewhere", &mirror.get(&deb("lib", "1")));
    mirror.fault(move |request, _, _| {
        let is_lib = request.path.contains("lib_1");
        is_lib.then(|| response("302 Found", &header, b""))
    });
    fetched(&mirror);
}

#[test]
fn the_digest_of_a_compression_is_for_no_other() {
    let Some(mirror) = mirror() else { return };
    let index = Index {
        compressed: true,
        ..Index::default()
    };
    let plain = mirror.get(&format!("dists/trixie/{LIST}"));
    mirror.publish(APP, &index);
    let path = format!("dists/trixie/{LIST}.gz");
    let packed = mirror.get(&path);
    // The right list, but not in the form that was signed.
    mirror.put(&path, &plain);
    let stored = mirror.refused(&["Packages.gz"]);
    assert!(!stored.contains(&sha256_of(&plain)));
    // The form that was signed, of which there is none.
    mirror.remove(&path);
    mirror.refused(&["Packages.gz", "404"]);
    mirror.put(&path, &packed);
    fetched(&mirror);
}

#[test]
fn lists_are_found_by_their_digest_or_their_name() {
    let Some(mirror) = mirror() else { return };
    let index = Index {
        more: "Acquire-By-Hash: yes\n",
        ..Index::default()
    };
    mirror.publish(APP, &index);
    let path = format!("dists/trixie/{LIST}");
    let list = mirror.get(&path);
    // There is none by its digest: then by its name.
    fetched(&mirror);
    let asked = mirror.requests();
    assert!(asked.iter().any(|request| request.path.contains("by-hash")));
    // A mirror in the middle of an update: the name has a newer list already.
    let newer = Mirror::new();
    newer.publish(APP, &index);
    let by_hash = format!(
        "dists/trixie/main/binary-amd64/by-hash/SHA256/{}",
        sha256_of(&list)
    );
    newer.put(&by_hash, &list);
    newer.put(&path, b"newer");
    fetched(&newer);
}

#[test]
fn a_dying_server_is_asked_again() {
    let Some(mirror) = mirror() else { return };
    // Twice it dies before a word, then it is overloaded, then it is slow.
    mirror.fault(|_, before, body| match before {
        0 | 1 => Some(Vec::new()),
        2 => Some(response("503 Service Unavailable", "", b"")),
        _ => {
            std::thread::sleep(Duration::from_millis(200));
            Some(response("200 OK", "", body))
        }
    });
    mirror.coop(&["fetch"]).expect(0);
    let before = mirror.stored();
    fs::remove_dir_all(mirror.path("cache")).unwrap();
    mirror.fault(|request, _, _| request.path.ends_with(".deb").then(Vec::new));
    let stored = mirror.refused(&["pool/", "_1.deb"]);
    assert!(stored.len() < before.len());
    mirror.heal();
    fetched(&mirror);
}

#[test]
fn a_lock_moves_only_what_is_to_move() {
    let Some(mirror) = mirror() else { return };
    let lock = || fs::read_to_string(mirror.path("r.yaml.lock")).unwrap();
    let says = |words: &[&str]| mirror.coop(words).expect(0).text();
    let old: &[archive::Package<'_>] = &[
        ("app", "1", "Depends: lib, tool\n"),
        ("lib", "1", ""),
        ("tool", "1", "Depends: data (= 1)\n"),
        ("data", "1", ""),
    ];
    mirror.publish(old, &Index::default());
    assert_eq!(says(&["lock"]), "r.yaml.lock\n");
    let first = lock();
    let index = Index {
        date: LATER,
        ..Index::default()
    };
    // The archive forgets the old versions.
    let new: &[archive::Package<'_>] = &[
        ("app", "2", "Depends: lib, tool\n"),
        ("lib", "2", ""),
        ("tool", "2", "Depends: data (= 2)\n"),
        ("data", "2", ""),
        ("more", "1", "Depends: lib\n"),
    ];
    mirror.publish(new, &index);
    assert_eq!(says(&["lock"]), "r.yaml.lock\n");
    assert_eq!(lock(), first);
    let unknown = mirror.coop(&["lock", "--update", "lip"]);
    // The recipe's name comes last here: what is before it is taken for a recipe.
    assert_ne!(unknown.code(), Some(0));
    let update = |names: &[&str]| {
        let mut command = support::coop();
        command
            .env("COOP_CACHE", mirror.path("cache"))
            .env("NO_PROXY", "127.0.0.1")
            .current_dir(mirror.path(""))
            .args(["lock", "r.yaml", "--progress", "none", "--update"])
            .args(names);
        support::run(&mut command, RUN_DEADLINE)
    };
    let unknown = update(&["lip"]);
    assert_eq!(unknown.code(), Some(2));
    assert!(
        unknown.stderr.contains("did you mean 'lib'"),
        "{}",
        unknown.stderr
    );
    assert_eq!(lock(), first);
    let moved = update(&["lib"]).expect(0).text();
    assert!(moved.contains("  lib 1 → 2\n"), "{moved}");
    assert!(!moved.contains("tool") && !moved.contains("app"), "{moved}");
    // What has to go with it goes with it.
    let moved = update(&["tool"]).expect(0).text();
    assert!(moved.contains("  data 1 → 2\n"), "{moved}");
    assert!(moved.contains("  tool 1 → 2\n"), "{moved}");
    assert!(!moved.contains("app"), "{moved}");
    // A recipe that asks for more gets that, and keeps what it has.
    mirror.write_recipe("app, more");
    let moved = says(&["lock"]);
    assert!(moved.contains("+ more 1\n"), "{moved}");
    assert!(!moved.contains('→'), "{moved}");
    let drift = mirror.coop(&["lock", "--check"]);
    assert_eq!(drift.code(), Some(1));
    assert!(drift.text().contains("  app 1 → 2\n"), "{}", drift.text());
    let moved = update(&[]).expect(0).text();
    assert!(moved.contains("  app 1 → 2\n"), "{moved}");
    mirror.coop(&["lock", "--check"]).expect(0);
}

#[test]
fn offline_tells_all_that_is_missing() {
    let Some(mirror) = mirror() else { return };
    let refused = mirror.coop(&["fetch", "--offline"]);
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.stderr.contains("dists/trixie/InRelease"),
        "{}",
        refused.stderr
    );
    mirror.coop(&["lock"]).expect(0);
    let size = mirror.get(&deb("lib", "1")).len();
    for lock in [true, false] {
        if !lock {
            fs::remove_file(mirror.path("r.yaml.lock")).unwrap();
        }
        let refused = mirror.coop(&["fetch", "--offline"]);
        assert_eq!(refused.code(), Some(1));
        for part in [
            "2 files",
            "pool/app_1.deb",
            &format!("pool/lib_1.deb ({size} bytes)"),
        ] {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
    }
    fetched(&mirror);
    mirror.coop(&["fetch", "--offline"]).expect(0);
}

#[test]
fn a_snapshot_is_of_its_instant() {
    let Some(mirror) = mirror() else { return };
    let at = |instant: &str| mirror.write_recipe_with("app", &format!("snapshot: {instant}"));
    at("20260912T080000Z");
    let missing = mirror.coop(&["fetch"]);
    assert_eq!(missing.code(), Some(1));
    assert!(
        missing.stderr.contains("COOP_DEBIAN_SNAPSHOT"),
        "{}",
        missing.stderr
    );
    let copy = |instant: &str| {
        for path in ["dists/trixie/InRelease", &format!("dists/trixie/{LIST}")]
            .into_iter()
            .chain([&*deb("app", "1"), &*deb("lib", "1")])
        {
            let bytes = mirror.get(path);
            mirror.put(&format!("archive/debian/{instant}/{path}"), &bytes);
        }
    };
    let environment = [("COOP_DEBIAN_SNAPSHOT", mirror.url())];
    let run = |words: &[&str]| mirror.coop_with(words, &environment);
    copy("20260912T080000Z");
    run(&["fetch"]).expect(0);
    run(&["lock"]).expect(0);
    run(&["fetch", "--locked", "--offline"]).expect(0);
    let lock = fs::read_to_string(mirror.path("r.yaml.lock")).unwrap();
    assert!(lock.contains("trixie at 20260912T080000Z"), "{lock}");
    assert!(!lock.contains("127.0.0.1"), "{lock}");
    fs::remove_file(mirror.path("r.yaml.lock")).unwrap();
    // A server that gives what it has now, whatever it is asked for.
    at("20260801T000000Z");
    copy("20260801T000000Z");
    let refused = run(&["fetch"]);
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.stderr.contains("does not heed the timestamp"),
        "{}",
        refused.stderr
    );
    at("20990101T000000Z");
    let refused = run(&["fetch"]);
    assert!(
        refused.stderr.contains("in the future"),
        "{}",
        refused.stderr
    );
}

/// Packages that can be installed, built into an appliance from the mirror and then without it.
#[test]
fn a_system_is_built_from_a_mirror() {
    if !has_tools() || !oracle("dpkg-deb") || !oracle("ldd") {
        return;
    }
    // From now on the cache has the kernel.
    tiny::appliance();
    let mirror = Mirror::new();
    let folder = tempfile::tempdir().unwrap();
    tiny::fill(folder.path());
    let fields = "Essential: yes\nPriority: required\n";
    let content = real_deb(folder.path(), fields);
    mirror.put("pool/tiny.deb", &content);
    let list = stanza("tiny", "1", fields, "pool/tiny.deb", &content);
    mirror.publish_list(&list, &Index::default());
    let text = fs::read_to_string(mirror.path("r.yaml")).unwrap();
    let text = text.replace("packages: [app]", "packages: []");
    let text = text.split("kernel:").next().unwrap().to_owned();
    fs::write(mirror.path("r.yaml"), text).unwrap();
    let at = mirror.path("");
    let build = |program: Option<&Path>, words: &[&str]| {
        let mut command = match program {
            None => support::coop(),
            Some(calls) => {
                let mut command = support::unprivileged("strace");
                support::plain_environment(&mut command);
                command
                    .args(["-f", "-qq", "-e", "trace=connect", "-o"])
                    .arg(calls)
                    .arg(support::program());
                command
            }
        };
        command
            .env("NO_PROXY", "127.0.0.1")
            .current_dir(&at)
            .args(["build", "r.yaml"])
            .args(words);
        support::run(&mut command, BUILD_DEADLINE).expect(0)
    };
    build(None, &["-o", "live"]);
    let live = sha256(&mirror.path("live/root.cobd"));
    // Without a lock and without a network: what the cache has of the indices.
    let calls = mirror.path("calls");
    let traced = oracle("strace").then_some(calls.as_path());
    build(traced, &["-o", "offline", "--offline"]);
    assert_eq!(sha256(&mirror.path("offline/root.cobd")), live);
    if traced.is_some() {
        let calls = fs::read_to_string(&calls).unwrap();
        assert!(!calls.contains("AF_INET"), "{calls}");
    }
}

fn real_deb(folder: &Path, fields: &str) -> Vec<u8> {
    let control = folder.join("DEBIAN");
    fs::create_dir(&control).unwrap();
    let text = format!(
        "Package: tiny\nVersion: 1\nArchitecture: amd64\n\
         Maintainer: T <t@example.invalid>\n{fields}Description: test\n"
    );
    fs::write(control.join("control"), text).unwrap();
    let deb = tempfile::NamedTempFile::new().unwrap();
    let made = Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Znone", "--build"])
        .args([folder, deb.path()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    fs::read(deb.path()).unwrap()
}
