use std::io::Read;
use std::time::Duration;

use coop_appliance::bundle::{
    AttachedSignature, BlobDigest, Blobs, BundleError, Descriptor, Layout, OciIndex, OciManifest,
    SignatureForm, media,
};
use coop_runtime::event::Silent;
use tempfile::TempDir;

use super::progress::Progress;
use super::testing::{self, Contents, Fake, Seen, answer, put_manifest};
use super::*;
use crate::digest::Digest;
use crate::store::Store;

const CHUNK: usize = 1000;

struct Memory(Vec<u8>);

impl Blobs for Memory {
    fn open(&self, _: &Descriptor) -> Result<Box<dyn Read + Send + '_>, BundleError> {
        Ok(Box::new(&*self.0))
    }
}

fn store() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn connect(authority: &str, access: Access, credentials: &Credentials) -> Registry {
    let text = format!("oci://{authority}/team/web:v1");
    let options = Options {
        attempts: 3,
        backoff: Duration::from_millis(1),
        silence: Duration::from_secs(5),
        chunk_bytes: CHUNK,
        ..Options::default()
    };
    let reference = Reference::parse(&text).unwrap();
    Registry::new(&reference, access, credentials, options).unwrap()
}

fn at(fake: &Fake, access: Access) -> Registry {
    connect(&fake.authority, access, &Credentials::default())
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| u8::try_from(n * 7 % 251).unwrap())
        .collect()
}

fn upload(fake: &Fake, bytes: &[u8], store: &Store) -> Result<bool, RegistryError> {
    let blob = Descriptor::of(media::FILE, bytes);
    let registry = at(fake, Access::Push);
    registry.upload(&blob, &Memory(bytes.to_vec()), store, &Progress::silent())
}

fn download(fake: &Fake, blob: &Descriptor, store: &Store) -> Result<Vec<u8>, RegistryError> {
    at(fake, Access::Pull).download(blob, store, &Progress::silent())?;
    let mut bytes = Vec::new();
    let digest = Digest::from(*blob.digest.as_bytes());
    store.blob(&digest)?.unwrap().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn offered(registry: &Registry) -> Result<Offered, RegistryError> {
    let (_folder, store) = store();
    registry.offered(&store)
}

/// How many requests of a kind there were.
fn count(fake: &Fake, method: &str, part: &str) -> usize {
    let asked = fake.asked();
    asked
        .iter()
        .filter(|one| one.starts_with(method) && one.contains(part))
        .count()
}

#[test]
fn blobs_of_every_size_go_and_come_back() {
    let (_folder, store) = store();
    let fake = Fake::start(|_, _| None);
    for length in [0, 1, CHUNK, CHUNK + 1, 5 * CHUNK] {
        let bytes = pattern(length);
        assert!(upload(&fake, &bytes, &store).unwrap(), "{length}");
        let blob = Descriptor::of(media::FILE, &bytes);
        assert_eq!(download(&fake, &blob, &store).unwrap(), bytes);
    }
    assert_eq!(count(&fake, "PATCH", ""), 2 + 5);
    let before = fake.asked().len();
    assert!(
        !upload(&fake, &pattern(CHUNK), &store).unwrap(),
        "it is there"
    );
    // And nobody asks for what the store has. One request is whether it speaks TLS.
    let blob = Descriptor::of(media::FILE, &pattern(CHUNK));
    download(&fake, &blob, &store).unwrap();
    let new = fake.asked()[before..]
        .iter()
        .filter(|one| one.contains("/v2/"))
        .count();
    assert_eq!(new, 1);
}

#[test]
fn a_registry_without_pieces_gets_a_stream() {
    let (_folder, store) = store();
    let fake = Fake::start(|seen, _| {
        (seen.method == "PATCH").then(|| answer("405 Method Not Allowed", &[], b""))
    });
    let bytes = pattern(300 * CHUNK);
    assert!(upload(&fake, &bytes, &store).unwrap());
    let digest = BlobDigest::of(&bytes).to_string();
    assert_eq!(fake.contents.lock().unwrap().blobs[&digest], bytes);
    assert_eq!(count(&fake, "PATCH", ""), 1);
}

/// The third piece arrives in part, and nobody is told.
fn cut_third_piece(seen: &Seen, contents: &mut Contents) -> Option<Vec<u8>> {
    let number = contents
        .seen
        .iter()
        .filter(|one| one.method == "PATCH")
        .count();
    if seen.method != "PATCH" || number != 3 {
        return None;
    }
    let id = seen.path.rsplit('/').next().unwrap();
    contents
        .uploads
        .get_mut(id)
        .unwrap()
        .extend_from_slice(&seen.body[..400]);
    Some(Vec::new())
}

#[test]
fn an_upload_goes_on_behind_what_arrived() {
    let (_folder, store) = store();
    let fake = Fake::start(cut_third_piece);
    assert!(upload(&fake, &pattern(5 * CHUNK), &store).unwrap());
    let contents = fake.contents.lock().unwrap();
    let sent: usize = contents.seen.iter().map(|one| one.body.len()).sum();
    // Only the 600 bytes that did not arrive went twice.
    assert_eq!(sent, 5 * CHUNK + 600);
}

#[test]
fn another_process_goes_on_with_an_upload() {
    let (_folder, store) = store();
    let fake = Fake::start(|seen, contents| {
        let number = contents
            .seen
            .iter()
            .filter(|one| one.method == "PATCH")
            .count();
        (seen.method == "PATCH" && number == 4).then(|| answer("403 Forbidden", &[], b""))
    });
    let bytes = pattern(6 * CHUNK);
    let error = upload(&fake, &bytes, &store).unwrap_err().to_string();
    assert!(
        error.contains("does not let whoever has no credentials"),
        "{error}"
    );
    assert!(upload(&fake, &bytes, &store).unwrap());
    assert_eq!(count(&fake, "POST", "uploads"), 1);
    assert_eq!(count(&fake, "PATCH", "uploads"), 7);
    let ranges = fake.contents.lock().unwrap();
    let ranges = ranges
        .seen
        .iter()
        .filter_map(|one| one.headers.get("content-range"));
    assert!(ranges.clone().any(|range| range == "3000-3999"));
    assert_eq!(ranges.filter(|range| *range == "0-999").count(), 1);
}

#[test]
fn an_upload_that_the_registry_lost_begins_anew() {
    let (_folder, store) = store();
    let fake = Fake::start(|seen, contents| {
        let number = contents
            .seen
            .iter()
            .filter(|one| one.method == "PATCH")
            .count();
        if seen.method == "PATCH" && number == 3 {
            contents.uploads.clear();
        }
        None
    });
    assert!(upload(&fake, &pattern(5 * CHUNK), &store).unwrap());
    assert_eq!(count(&fake, "POST", "uploads"), 2);
}

#[test]
fn a_download_goes_on_with_what_another_process_left() {
    let (_folder, store) = store();
    let bytes = pattern(3000);
    let blob = Descriptor::of(media::FILE, &bytes);
    let stopped = Fake::start({
        let bytes = bytes.clone();
        move |seen, _| {
            let whole = seen.method == "GET" && !seen.headers.contains_key("range");
            let status = if whole { "200 OK" } else { "403 Forbidden" };
            Some(answer(
                status,
                &[("Content-Length", "3000")],
                &bytes[..1200],
            ))
        }
    });
    assert!(download(&stopped, &blob, &store).is_err());
    let fake = Fake::start(|_, _| None);
    let name = blob.digest.to_string();
    fake.contents
        .lock()
        .unwrap()
        .blobs
        .insert(name, bytes.clone());
    assert_eq!(download(&fake, &blob, &store).unwrap(), bytes);
    let contents = fake.contents.lock().unwrap();
    assert_eq!(
        contents.seen.last().unwrap().headers["range"],
        "bytes=1200-"
    );
}

#[test]
fn what_an_earlier_process_left_may_be_wrong() {
    let (_folder, store) = store();
    let bytes = pattern(3000);
    let blob = Descriptor::of(media::FILE, &bytes);
    let digest = Digest::from(*blob.digest.as_bytes());
    for left in [&b"something else"[..], &pattern(5000), &bytes] {
        let mut partial = store.partial(&digest).unwrap();
        std::io::Write::write_all(partial.file(), left).unwrap();
        drop(partial);
        let fake = Fake::start(|_, _| None);
        let name = blob.digest.to_string();
        fake.contents
            .lock()
            .unwrap()
            .blobs
            .insert(name, bytes.clone());
        assert_eq!(download(&fake, &blob, &store).unwrap(), bytes);
        fs_err::remove_file(store.blob_path(&digest)).unwrap();
    }
}

#[test]
fn blobs_that_are_not_what_they_should_be_are_refused() {
    let bytes = pattern(3000);
    let blob = Descriptor::of(media::FILE, &bytes);
    let longer = pattern(3001);
    let other = vec![7; 3000];
    let lies: [(&str, Vec<u8>); 5] = [
        ("has the digest", answer("200 OK", &[], &other)),
        ("is longer than 3000 bytes", answer("200 OK", &[], &longer)),
        (
            "ended after 10 of 3000 bytes",
            answer("200 OK", &[], &bytes[..10]),
        ),
        ("registry has no", answer("404 Not Found", &[], b"")),
        (
            "answered 418 I'm a teapot: UNSUPPORTED, short and stout",
            answer(
                "418 I'm a teapot",
                &[],
                br#"{"errors":[{"code":"UNSUPPORTED","message":"short and stout"}]}"#,
            ),
        ),
    ];
    for (says, lie) in lies {
        let (_folder, store) = store();
        let fake = Fake::start(move |_, _| Some(lie.clone()));
        let error = download(&fake, &blob, &store).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        let digest = Digest::from(*blob.digest.as_bytes());
        assert!(store.blob(&digest).unwrap().is_none());
    }
}

#[test]
fn manifests_that_are_not_what_was_asked_for_are_refused() {
    let good = OciManifest::new(
        media::APPLIANCE,
        Descriptor::of(media::CONFIG, b"{}"),
        Vec::new(),
    );
    let good = String::from_utf8(good.to_bytes()).unwrap();
    let sent =
        |kind: &str, text: &str| answer("200 OK", &[("Content-Type", kind)], text.as_bytes());
    let manifest = media::OCI_MANIFEST;
    for (says, lie) in [
        ("was sent as 'text/html'", sent("text/html", &good)),
        (
            "was sent as 'application/vnd.oci.image.index.v1+json'",
            sent(media::OCI_INDEX, &good),
        ),
        (
            "its media type is 'application/vnd.oci.image.index.v1+json'",
            sent(manifest, &good.replace("image.manifest", "image.index")),
        ),
        (
            "it has a list of manifests, as an index has",
            sent(
                manifest,
                &good.replace("\"layers\"", "\"manifests\":[],\"layers\""),
            ),
        ),
        (
            "it has schema version 1",
            sent(manifest, &good.replace(":2,\"media", ":1,\"media")),
        ),
        (
            "is not what it was sent as: expected value",
            sent(manifest, "<html>"),
        ),
        (
            "its artifact type is 'other'",
            sent(manifest, &good.replace(media::APPLIANCE, "other")),
        ),
        (
            "is longer than 4194304 bytes",
            sent(manifest, &" ".repeat(5 << 20)),
        ),
        (
            "is longer than 4194304 bytes",
            answer(
                "200 OK",
                &[
                    ("Content-Type", manifest),
                    ("Content-Length", "99999999999"),
                ],
                b"",
            ),
        ),
        (
            "the size of the config is 5000000000",
            sent(manifest, &good.replace("\"size\":2", "\"size\":5000000000")),
        ),
        (
            "has the digest",
            answer(
                "200 OK",
                &[
                    ("Content-Type", manifest),
                    ("Docker-Content-Digest", &BlobDigest::of(b"").to_string()),
                ],
                good.as_bytes(),
            ),
        ),
    ] {
        let fake = Fake::start(move |seen, _| seen.path.contains("manifests").then(|| lie.clone()));
        let error = offered(&at(&fake, Access::Pull)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    // What is named by its digest is nothing else.
    let fake = Fake::start(|_, _| None);
    let digest = BlobDigest::of(b"another");
    put_manifest(
        &mut fake.contents.lock().unwrap(),
        &digest.to_string(),
        good.as_bytes(),
    );
    let registry = at(&fake, Access::Pull);
    let error = registry
        .manifest(&Version::Digest(digest), manifest)
        .unwrap_err();
    assert!(matches!(error, RegistryError::Mismatch { .. }), "{error}");
}

#[test]
fn signatures_are_found_by_a_tag_where_the_registry_lists_none() {
    let (_folder, store) = store();
    let fake = Fake::start(|_, _| None);
    let subject = Descriptor::of(media::OCI_MANIFEST, b"a manifest");
    let other = Descriptor::of(media::OCI_MANIFEST, b"another manifest");
    let registry = at(&fake, Access::Push);
    let signature = |text: &str| AttachedSignature {
        form: SignatureForm::Minisign,
        bytes: text.as_bytes().to_vec(),
    };
    assert_eq!(registry.signatures(subject.digest, &store).unwrap().0, []);
    for (text, about) in [
        ("one", &subject),
        ("two", &subject),
        ("one", &subject),
        ("x", &other),
    ] {
        registry.attach(&signature(text), about, &store).unwrap();
    }
    let found = registry.signatures(subject.digest, &store).unwrap().0;
    assert_eq!(found, [signature("one"), signature("two")]);
    let found = registry.signatures(other.digest, &store).unwrap().0;
    assert_eq!(found, [signature("x")]);
    let tag = format!("sha256-{}", subject.digest.hex());
    assert!(fake.contents.lock().unwrap().manifests.contains_key(&tag));
}

/// The API of referrers: two to a page, of every type, and the registry says what it lists.
fn list_referrers(seen: &Seen, contents: &mut Contents) -> Option<Vec<u8>> {
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let parsed = |bytes: &[u8]| OciManifest::parse(bytes).ok();
    if seen.method == "PUT" && path.contains("/manifests/sha256:") {
        let subject = parsed(&seen.body)?.subject?;
        let digest = BlobDigest::of(&seen.body).to_string();
        put_manifest(contents, &digest, &seen.body);
        let listed = [("OCI-Subject", &*subject.digest.to_string())];
        return Some(answer("201 Created", &listed, b""));
    }
    let subject = path.strip_prefix("/v2/team/web/referrers/")?;
    let about = contents.manifests.values().filter_map(|(_, bytes)| {
        let manifest = parsed(bytes)?;
        let is_about = manifest.subject?.digest.to_string() == subject;
        let mut descriptor = Descriptor::of(media::OCI_MANIFEST, bytes);
        descriptor.artifact_type = manifest.artifact_type;
        is_about.then_some(descriptor)
    });
    let from = query.split_once("from=").map_or("0", |(_, from)| from);
    let from: usize = from.parse().unwrap();
    let page: Vec<Descriptor> = about.skip(from).take(2).collect();
    let next = format!("<{path}?from={}>; rel=\"next\"", from + 2);
    let mut headers = vec![("Content-Type", media::OCI_INDEX)];
    if page.len() == 2 {
        headers.push(("Link", &next));
    }
    let index = OciIndex::new(page).to_bytes();
    Some(answer("200 OK", &headers, &index))
}

#[test]
fn signatures_are_found_by_a_list_where_the_registry_keeps_one() {
    let (_folder, store) = store();
    let fake = Fake::start(list_referrers);
    let registry = at(&fake, Access::Push);
    let subject = Descriptor::of(media::OCI_MANIFEST, b"a manifest");
    assert_eq!(registry.signatures(subject.digest, &store).unwrap().0, []);
    let signature = |text: &str| AttachedSignature {
        form: SignatureForm::Minisign,
        bytes: text.as_bytes().to_vec(),
    };
    let five = ["a", "b", "c", "d", "e"].map(signature);
    for one in &five {
        registry.attach(one, &subject, &store).unwrap();
    }
    let other = Descriptor::of(media::OCI_MANIFEST, b"another manifest");
    registry.attach(&signature("x"), &other, &store).unwrap();
    let mut found = registry.signatures(subject.digest, &store).unwrap().0;
    found.sort();
    assert_eq!(found, five);
    assert_eq!(count(&fake, "GET", "/referrers/"), 1 + 3);
    assert_eq!(
        count(&fake, "", "sha256-"),
        0,
        "no tag is asked for or written"
    );
}

/// What was offered once is known without the registry, by its digest and from there alone.
#[test]
fn offers_are_remembered() {
    let (_folder, store) = store();
    let home = TempDir::new().unwrap();
    let appliance = testing::appliance(home.path());
    let scratch = tempfile::tempfile().unwrap();
    let layout = Layout::of_appliance(&appliance, scratch).unwrap();
    let package = layout.package();
    let signature = AttachedSignature {
        form: SignatureForm::Ed25519,
        bytes: vec![7; 64],
    };
    let fake = Fake::start(|_, _| None);
    let pushing = at(&fake, Access::Push);
    let named = |version| pushing.reference().with_version(version);
    let pinned = named(Version::Digest(package.digest()));
    let remembered = |reference: &Reference| Offered::remembered(reference, &store).unwrap();
    pushing
        .push(package, &layout, &[], &store, &Silent)
        .unwrap();
    at(&fake, Access::Pull).offered(&store).unwrap();
    assert!(remembered(&pinned).is_none(), "nothing was signed");
    let subject = package.descriptor();
    pushing.attach(&signature, &subject, &store).unwrap();
    let offered = at(&fake, Access::Pull).offered(&store).unwrap();
    assert!(
        offered.stored(&store).unwrap().is_none(),
        "no file came yet"
    );
    pushing.pull(package, &store, &Silent).unwrap();
    drop(fake);
    let found = remembered(&pinned).unwrap();
    assert_eq!(found.package.bytes(), package.bytes());
    assert_eq!(found.signatures, [signature]);
    assert!(found.stored(&store).unwrap().is_some());
    let elsewhere = Reference {
        repository: "team/other".to_owned(),
        ..pinned.clone()
    };
    for other in [&named(Version::Tag("v1".to_owned())), &elsewhere] {
        assert!(remembered(other).is_none(), "{other}");
    }
    let config = Digest::from(*package.manifest().config.digest.as_bytes());
    fs_err::write(store.blob_path(&config), "{}").unwrap();
    assert!(
        remembered(&pinned).is_none(),
        "what is damaged says nothing"
    );
}

/// A registry that wants a token of `realm`, and what gives them out.
fn guarded(realm: impl Fn(&str) -> String + Send + Sync + 'static) -> Fake {
    Fake::start(move |seen, _| {
        if seen.path.starts_with("/token") {
            return None;
        }
        let authorization = seen.headers.get("authorization").map(String::as_str);
        if authorization == Some("Bearer good") {
            return None;
        }
        let realm = realm(&seen.headers["host"]);
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#;
        Some(answer(
            "401 Unauthorized",
            &[("WWW-Authenticate", &challenge)],
            body,
        ))
    })
}

fn credentials(authority: &str, entry: &str) -> (TempDir, Credentials) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.json");
    let text = format!("{{\"auths\": {{\"{authority}\": {entry}}}}}");
    fs_err::write(&path, text).unwrap();
    let credentials = Credentials {
        files: vec![path],
        programs: Vec::new(),
    };
    (folder, credentials)
}

#[test]
fn tokens_are_asked_for_with_what_somebody_is_known_by() {
    for (entry, method, sent) in [
        (r#"{"auth": "bWU6c2VjcmV0"}"#, "GET", "Basic bWU6c2VjcmV0"),
        (r#"{"identitytoken": "it"}"#, "POST", "refresh_token=it"),
        ("null", "GET", ""),
    ] {
        let giver = Fake::start(|_, _| {
            Some(answer(
                "200 OK",
                &[],
                br#"{"token": "good", "expires_in": 60}"#,
            ))
        });
        let realm = format!("http://{}/token", giver.authority);
        let fake = guarded(move |_| realm.clone());
        let (_folder, credentials) = credentials(&fake.authority, entry);
        let registry = connect(&fake.authority, Access::Push, &credentials);
        let blob = Descriptor::of(media::FILE, b"x");
        for _ in 0..2 {
            assert!(!registry.has(&blob).unwrap());
        }
        let given = giver.contents.lock().unwrap();
        assert_eq!(given.seen.len(), 1, "one token is enough");
        let asked = &given.seen[0];
        assert_eq!(asked.method, method);
        let body = String::from_utf8_lossy(&asked.body);
        let authorization = asked
            .headers
            .get("authorization")
            .map_or("", String::as_str);
        let text = format!("{} {body}", asked.path);
        assert!(
            text.contains("scope=repository%3Ateam%2Fweb%3Apull%2Cpush"),
            "{text}"
        );
        assert!(text.contains("service=s"), "{text}");
        assert!(
            authorization == sent || body.contains(sent) && !sent.is_empty(),
            "{asked:?}"
        );
    }
}

#[test]
fn tokens_are_not_asked_for_just_anywhere() {
    for (realm, says) in [
        (
            "http://registry.example/token",
            "neither encrypted nor on this machine",
        ),
        ("ftp://localhost/token", "not an http: or https: URL"),
        ("nowhere", "which is no address"),
        (
            "https://a:b@localhost/token",
            "with a user or password in it",
        ),
    ] {
        let fake = guarded(move |_| realm.to_owned());
        let (_folder, credentials) = credentials(&fake.authority, r#"{"auth": "bWU6c2VjcmV0"}"#);
        let registry = connect(&fake.authority, Access::Pull, &credentials);
        let error = offered(&registry).unwrap_err().to_string();
        assert!(
            error.contains(says) && error.contains("nothing was sent there"),
            "{error}"
        );
        assert!(!error.contains("a:b"), "{error}");
    }
}

#[test]
fn answers_that_give_no_token_are_told_of() {
    for (given, says) in [
        (
            answer("401 Unauthorized", &[], b""),
            "does not take the credentials",
        ),
        (
            answer("200 OK", &[], b"{}"),
            "has none of a possible length",
        ),
        (
            answer("200 OK", &[], b"{\"token\": \"a\\nb\"}"),
            "characters that no header may have",
        ),
        (answer("200 OK", &[], b"<html>"), "not the JSON of a token"),
        (
            answer("200 OK", &[], &vec![b' '; 2 << 20]),
            "longer than 1048576 bytes",
        ),
        (
            answer("302 Found", &[("Location", "http://127.0.0.1:1/")], b""),
            "it answered 302 Found",
        ),
    ] {
        let giver = Fake::start(move |_, _| Some(given.clone()));
        let realm = format!("http://{}/token", giver.authority);
        let fake = guarded(move |_| realm.clone());
        let (_folder, credentials) = credentials(&fake.authority, r#"{"auth": "bWU6c2VjcmV0"}"#);
        let registry = connect(&fake.authority, Access::Pull, &credentials);
        let error = offered(&registry).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("secret"), "{error}");
    }
    // One that is given and not taken, and no way that coop knows.
    let giver = Fake::start(|_, _| Some(answer("200 OK", &[], br#"{"access_token": "bad"}"#)));
    let realm = format!("http://{}/token", giver.authority);
    let fake = guarded(move |_| realm.clone());
    let error = offered(&at(&fake, Access::Pull)).unwrap_err().to_string();
    assert!(
        error.contains("to pull from 'team/web': UNAUTHORIZED, who are you")
            || error.contains("pull from 'team/web': UNAUTHORIZED, who are you"),
        "{error}"
    );
    let fake = Fake::start(|_, _| {
        Some(answer(
            "401 Unauthorized",
            &[("WWW-Authenticate", "Negotiate")],
            b"",
        ))
    });
    let error = offered(&at(&fake, Access::Pull)).unwrap_err().to_string();
    assert!(error.contains("asks for 'negotiate'"), "{error}");
}

#[test]
fn another_host_gets_no_credentials() {
    let bytes = pattern(2000);
    let blob = Descriptor::of(media::FILE, &bytes);
    let other = Fake::start({
        let bytes = bytes.clone();
        move |_, _| Some(answer("200 OK", &[], &bytes))
    });
    let target = format!("http://{}/elsewhere?token=x", other.authority);
    let fake = Fake::start(move |seen, _| {
        let Some(authorization) = seen.headers.get("authorization") else {
            let challenge = [("WWW-Authenticate", "Basic realm=\"r\"")];
            return Some(answer("401 Unauthorized", &challenge, b""));
        };
        assert_eq!(authorization, "Basic bWU6c2VjcmV0");
        Some(answer(
            "307 Temporary Redirect",
            &[("Location", &target)],
            b"",
        ))
    });
    let (_folder, credentials) = credentials(&fake.authority, r#"{"auth": "bWU6c2VjcmV0"}"#);
    let (_cache, store) = store();
    let registry = connect(&fake.authority, Access::Push, &credentials);
    registry
        .download(&blob, &store, &Progress::silent())
        .unwrap();
    {
        let contents = other.contents.lock().unwrap();
        assert_eq!(contents.seen.len(), 1);
        assert!(!contents.seen[0].headers.contains_key("authorization"));
    }
    // What no digest checks comes from nowhere else, and nothing is sent elsewhere.
    let error = offered(&registry).unwrap_err().to_string();
    assert!(error.contains("only blobs may come from one"), "{error}");
    let error = registry.upload(
        &Descriptor::of("a/b", b"y"),
        &Memory(b"y".to_vec()),
        &store,
        &Progress::silent(),
    );
    assert!(error.is_err());
    assert_eq!(
        other.contents.lock().unwrap().seen.len(),
        2,
        "only whether the blob is there"
    );
}

#[test]
fn redirects_with_a_user_or_in_a_circle_are_not_followed() {
    let blob = Descriptor::of(media::FILE, b"x");
    for (target, says) in [
        (
            "http://me:secret@127.0.0.1:1/",
            "with a user or password in it",
        ),
        ("file:///etc/passwd", "not an http: or https: URL"),
        ("http://registry.example/", "which is not encrypted"),
        ("/v2/team/web/again", "and so on, too often"),
    ] {
        let fake = Fake::start(move |_, _| Some(answer("302 Found", &[("Location", target)], b"")));
        let (_folder, store) = store();
        let error = download(&fake, &blob, &store).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("secret"), "{error}");
    }
}

#[test]
fn an_upload_is_led_to_no_unencrypted_place() {
    let (_folder, store) = store();
    let fake = Fake::start(|seen, _| {
        let target = [("Location", "http://registry.example/up")];
        (seen.method == "POST").then(|| answer("202 Accepted", &target, b""))
    });
    let error = upload(&fake, b"x", &store).unwrap_err().to_string();
    assert!(error.contains("which is not encrypted"), "{error}");
}

#[test]
fn a_pull_is_called_off_and_leaves_what_came() {
    struct Impatient;
    impl coop_runtime::event::Observer for Impatient {
        fn event(&self, _: &coop_runtime::event::Event<'_>) {}
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let (_folder, store) = store();
    let bytes = pattern(3000);
    let blob = Descriptor::of(media::FILE, &bytes);
    let fake = Fake::start(move |_, _| Some(answer("200 OK", &[], &bytes)));
    let progress = Progress::start("pull", 0, &Impatient);
    let registry = at(&fake, Access::Pull);
    let error = registry.download(&blob, &store, &progress).unwrap_err();
    assert!(matches!(error, RegistryError::Cancelled(_)), "{error}");
}
