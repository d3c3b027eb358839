//! From a signed index to records, over an archive in a folder.

use coop_runtime::event::Silent;
use fs_err as fs;
use tempfile::TempDir;

use crate::debian::keys::Keyring;
use crate::debian::packages::{ListRequest, PackageList, PackagesError, Universe, fetch_list};
use crate::debian::release::{
    CLOCK_TOLERANCE_SECONDS, Release, ReleaseError, ReleaseRequest, VerifiedRelease, open_release,
};
use crate::debian::testing::{Archive, HOUR, NOW, NOW_TEXT, clear_sign, keyring, new_key};
use crate::digest::Digest;
use crate::fetch::{Fetcher, Options};
use crate::store::Store;

const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn fetcher() -> (TempDir, Fetcher) {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let options = Options {
        backoff: std::time::Duration::from_millis(1),
        ..Options::default()
    };
    (folder, Fetcher::new(store, options))
}

fn stanza(name: &str, more: &str) -> String {
    format!(
        "Package: {name}\nVersion: 1.0\nArchitecture: amd64\nDescription: dropped\n dropped too\n\
         Filename: pool/{name}.deb\nSize: 10\nSHA256: {DIGEST}\n{more}\n"
    )
}

struct Case {
    archive: Archive,
    keyring: Keyring,
    fetcher: Fetcher,
    _folder: TempDir,
}

fn lists_of<'a>(release: &'a VerifiedRelease, mirror: &'a str) -> ListRequest<'a> {
    ListRequest {
        release,
        mirror,
        suite: "trixie",
        key: "trixie",
        architecture: "amd64",
        priority: 500,
    }
}

impl Case {
    fn new() -> Self {
        let archive = Archive::new();
        let (folder, fetcher) = fetcher();
        archive.publish(&stanza("hello", ""), NOW_TEXT, "");
        Self {
            keyring: keyring(&archive.key),
            archive,
            fetcher,
            _folder: folder,
        }
    }

    fn open_with(
        &self,
        change: impl FnOnce(&mut ReleaseRequest<'_>),
    ) -> Result<VerifiedRelease, ReleaseError> {
        let mut request = ReleaseRequest {
            mirror: &self.archive.url(),
            suite: "trixie",
            keyring: &self.keyring,
            origins: &["Debian"],
            now_seconds: NOW + HOUR,
            check_valid_until: true,
            pinned: None,
            snapshot_seconds: None,
        };
        change(&mut request);
        open_release(&self.fetcher, &request)
    }

    fn open(&self) -> Result<VerifiedRelease, ReleaseError> {
        self.open_with(|_| {})
    }

    fn list(&self) -> Result<PackageList, PackagesError> {
        let release = self.open().unwrap();
        let mirror = self.archive.url();
        fetch_list(&self.fetcher, &lists_of(&release, &mirror), "main", &Silent)
    }
}

#[test]
fn a_suite_is_opened_and_its_packages_are_listed() {
    let case = Case::new();
    let release = case.open().unwrap();
    assert_eq!(
        (release.release.date_seconds, release.expired),
        (NOW, false)
    );
    assert!(
        case.open_with(|request| request.suite = "stable").is_err(),
        "no such folder"
    );
    let lists = [case.list().unwrap()];
    assert!(!lists[0].text.contains("dropped"));
    let universe = Universe::new(&lists).unwrap();
    let hello = universe.named("hello")[0];
    assert_eq!(universe.package(hello).version.as_str(), "1.0");
    let download = universe.download(hello).unwrap();
    assert_eq!(
        download.url,
        format!("{}/pool/hello.deb", case.archive.url())
    );
    assert_eq!(
        (download.size_bytes, download.digest.to_string().as_str()),
        (Some(10), DIGEST)
    );
}

#[test]
fn one_changed_byte_of_the_index_is_refused() {
    let case = Case::new();
    let path = case.archive.path("dists/trixie/InRelease");
    let good = fs::read(&path).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let start = text.find("Origin").unwrap();
    let end = text.find("-----BEGIN PGP SIGNATURE").unwrap();
    for index in (start..end - 1).step_by(29) {
        let mut bad = good.clone();
        bad[index] ^= 1;
        fs::write(&path, bad).unwrap();
        let error = case.open().unwrap_err();
        assert!(
            matches!(error, ReleaseError::Untrusted { .. }),
            "{index}: {error}"
        );
    }
    fs::write(&path, good).unwrap();
    assert!(case.open().is_ok());
}

#[test]
fn only_the_signed_part_counts() {
    let case = Case::new();
    let path = case.archive.path("dists/trixie/InRelease");
    let signed = fs::read_to_string(&path).unwrap();
    for (before, after) in [("Suite: sid\n\n", ""), ("", "\nOrigin: Evil\n")] {
        fs::write(&path, format!("{before}{signed}{after}")).unwrap();
        if let Ok(release) = case.open() {
            assert_eq!(release.release.suite, "stable");
            assert_eq!(release.release.origin, "Debian");
        }
    }
    fs::write(&path, "Origin: Debian\nSuite: stable\n").unwrap();
    assert!(matches!(case.open(), Err(ReleaseError::Untrusted { .. })));
}

#[test]
fn strangers_and_expired_keys_are_refused() {
    let mut case = Case::new();
    case.keyring = keyring(&new_key(None));
    let error = case.open().unwrap_err().to_string();
    assert!(error.contains("not in the keyring"), "{error}");
    case.archive.key = new_key(Some(90 * 60));
    case.keyring = keyring(&case.archive.key);
    case.archive.publish("", NOW_TEXT, "");
    assert!(
        case.open_with(|request| request.now_seconds = NOW + 20 * 60)
            .is_ok()
    );
    let error = case.open().unwrap_err();
    assert!(matches!(error, ReleaseError::Untrusted { .. }), "{error}");
}

#[test]
fn revoked_keys_are_refused() {
    use sequoia_openpgp::types::ReasonForRevocation;
    let mut case = Case::new();
    let key = case.archive.key.clone();
    let secret = key.primary_key().key().clone().parts_into_secret();
    let mut signer = secret.unwrap().into_keypair().unwrap();
    let revocation = key
        .revoke(&mut signer, ReasonForRevocation::KeyCompromised, b"stolen")
        .unwrap();
    let (revoked, _) = key.insert_packets([revocation]).unwrap();
    case.keyring = keyring(&revoked);
    assert!(matches!(case.open(), Err(ReleaseError::Untrusted { .. })));
}

#[test]
fn an_index_for_something_else_is_refused() {
    let case = Case::new();
    let write = |text: &str| {
        case.archive
            .write_release(&format!("{text}\nDate: {NOW_TEXT}\nSHA256:\n"));
        case.open().unwrap_err().to_string()
    };
    let error = write("Origin: Debian\nSuite: sid\nCodename: sid");
    assert!(
        error.ends_with("is for suite 'sid' ('sid'), not for 'trixie'"),
        "{error}"
    );
    let error = write("Origin: Other\nSuite: trixie");
    assert!(
        error.ends_with("is for origin 'Other', not for 'Debian'"),
        "{error}"
    );
    for suite in ["../x", "", "a//b", "trixie/", "a b", "a?b"] {
        let result = case.open_with(|request| request.suite = suite);
        assert!(
            matches!(result, Err(ReleaseError::InvalidSuite(_))),
            "{suite}"
        );
    }
}

#[test]
fn age_is_checked() {
    let case = Case::new();
    let valid_until = "Valid-Until: Sat, 12 Sep 2026 08:00:00 UTC\n";
    case.archive.publish("", NOW_TEXT, valid_until);
    let until = NOW + 4 * 60 + 19;
    let at = |now_seconds| case.open_with(|request| request.now_seconds = now_seconds);
    assert!(!at(until + CLOCK_TOLERANCE_SECONDS).unwrap().expired);
    let error = at(until + CLOCK_TOLERANCE_SECONDS + 1).unwrap_err();
    assert!(
        matches!(error, ReleaseError::Expired { age_hours: 1, .. }),
        "{error}"
    );
    let late = case.open_with(|request| {
        request.now_seconds = until + CLOCK_TOLERANCE_SECONDS + 1;
        request.check_valid_until = false;
    });
    assert!(late.unwrap().expired);
    assert!(at(NOW - CLOCK_TOLERANCE_SECONDS).is_ok());
    let error = at(NOW - CLOCK_TOLERANCE_SECONDS - 1).unwrap_err();
    assert!(
        matches!(error, ReleaseError::Future { ahead_hours: 1, .. }),
        "{error}"
    );
    let digest = Digest::of(&fs::read(case.archive.path("dists/trixie/InRelease")).unwrap());
    let pinned = |digest| {
        case.open_with(|request| {
            request.now_seconds = NOW + 100_000 * HOUR;
            request.pinned = Some(digest);
        })
    };
    assert!(pinned(digest).is_ok());
    assert!(matches!(
        pinned(Digest::of(b"other")),
        Err(ReleaseError::Moved { .. })
    ));
}

#[test]
fn a_snapshot_is_not_younger_than_its_instant() {
    let case = Case::new();
    let valid_until = "Valid-Until: Sat, 12 Sep 2026 08:00:00 UTC\n";
    case.archive.publish("", NOW_TEXT, valid_until);
    let year = 365 * 24 * HOUR;
    let at = |seconds| {
        case.open_with(|request| {
            request.now_seconds = NOW + year;
            request.snapshot_seconds = Some(seconds);
        })
    };
    assert!(at(NOW + HOUR / 2).is_ok());
    assert!(at(NOW).is_ok());
    let error = at(NOW - 1).unwrap_err();
    assert!(
        matches!(
            error,
            ReleaseError::Younger { .. } | ReleaseError::Untrusted { .. }
        ),
        "{error}"
    );
    assert!(matches!(
        at(NOW + 3 * HOUR),
        Err(ReleaseError::Expired { .. })
    ));
    assert!(matches!(
        at(NOW + year + 1),
        Err(ReleaseError::FutureSnapshot { ahead_hours: 1, .. })
    ));
}

#[test]
fn going_back_in_time_is_refused() {
    let case = Case::new();
    case.open().unwrap();
    case.archive
        .publish("", "Sat, 12 Sep 2026 07:55:40 UTC", "");
    let error = case.open().unwrap_err();
    assert!(
        matches!(error, ReleaseError::RolledBack { older_hours: 1, .. }),
        "{error}"
    );
    case.archive
        .publish("", "Sat, 12 Sep 2026 07:55:42 UTC", "");
    case.open().unwrap();
    case.archive.publish("", NOW_TEXT, "");
    assert!(case.open().is_err());
}

#[test]
fn wrong_lists_are_refused() {
    let case = Case::new();
    case.open().unwrap();
    let path = "dists/trixie/main/binary-amd64/Packages";
    let good = fs::read(case.archive.path(path)).unwrap();
    let mut bad = good.clone();
    bad[10] ^= 1;
    for bytes in [&bad[..], &good[1..], &[&good[..], b"\n"].concat()] {
        case.archive.write(path, bytes);
        assert!(matches!(case.list(), Err(PackagesError::Fetch(_))));
    }
    case.archive.write(path, &good);
    assert!(case.list().is_ok());
    let release = case.open().unwrap();
    let error =
        fetch_list(&case.fetcher, &lists_of(&release, "x"), "contrib", &Silent).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no component 'contrib' for amd64 (it has main)")
    );
}

#[test]
fn invalid_records_are_named() {
    let universe = |text: &str| {
        let lists = [PackageList {
            priority: 500,
            suites: Vec::new(),
            key: String::new(),
            mirror: String::new(),
            url: "u".to_owned(),
            text: text.to_owned(),
            only: None,
        }];
        let universe = Universe::new(&lists).map_err(|error| error.to_string())?;
        let downloads = universe.packages().map(|(id, _)| universe.download(id));
        let downloads: Result<Vec<_>, _> = downloads.collect();
        downloads
            .map(|list| list.len())
            .map_err(|error| error.to_string())
    };
    let good = stanza("hello", "Provides: aa, bb (= 2)\n");
    assert_eq!(universe(&good), Ok(1));
    assert_eq!(universe(""), Ok(0));
    for (old, new) in [
        ("Package: hello", "Package: ../x"),
        ("Version: 1.0", "Version: 1 0"),
        ("Size: 10", "Size: -1"),
        ("Filename: pool", "Filename: ../pool"),
        ("Filename: pool", "Filename: /pool"),
        ("SHA256: e3", "SHA256: "),
        ("Provides: aa", "Provides: a|"),
    ] {
        let error = universe(&good.replace(old, new)).unwrap_err();
        assert!(error.contains("invalid or missing"), "{error}");
    }
    for index in 0..good.len() {
        let mut bytes = good.as_bytes().to_vec();
        bytes[index] ^= 0x11;
        let _ = universe(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn mutated_release_files_are_parsed_or_refused() {
    let good = format!("Suite: s\nDate: {NOW_TEXT}\nSHA256:\n {DIGEST} 5 a/b\n");
    assert_eq!(Release::parse(good.as_bytes()).unwrap().files.len(), 1);
    for index in 0..good.len() {
        for flip in [1, 0x20, 0x80] {
            let mut bytes = good.as_bytes().to_vec();
            bytes[index] ^= flip;
            let _ = Release::parse(&bytes);
        }
    }
    for path in ["../x", "/x", "a//b", "a/../b", "."] {
        assert!(
            Release::parse(good.replace("a/b", path).as_bytes()).is_err(),
            "{path}"
        );
    }
    let twice = format!("{good} {DIGEST} 6 a/b\n");
    assert!(Release::parse(twice.as_bytes()).is_err());
}

#[test]
fn the_embedded_keys_are_there() {
    Keyring::debian().unwrap();
    assert!(Keyring::parse(b"").is_err());
    assert!(Keyring::parse(b"no keys").is_err());
    let key = new_key(None);
    assert!(keyring(&key).verify(&clear_sign(&key, "text"), NOW).is_ok());
    assert!(keyring(&key).verify(b"text", NOW).is_err());
}
