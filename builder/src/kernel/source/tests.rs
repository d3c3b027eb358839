//! Sources made by the tests, in archives good and bad, and real ones where the environment names
//! them.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use coop_runtime::event::{Event, Silent};
use fs_err as fs;
use tempfile::TempDir;

use super::filter::Filter;
use super::folder::Folder;
use super::packed::Count;
use super::unpack::{Unpacking, unpack};
use super::*;
use crate::debian::mirror::AptSources;
use crate::debian::suite::{SuiteRequest, Suites};
use crate::debian::testing::{Archive as Mirror, HOUR, NOW, NOW_TEXT, Recipe as Package, keyring};
use crate::digest::Digest;
use crate::fetch::Options;
use crate::kernel::Target;
use crate::lock::Pins;
use crate::recipe::{BuildPlace, HostFile, KernelLocation, TarballLocation};
use crate::store::Store;

const TIME: i64 = 1_789_000_000;
const MAKEFILE: &str = "VERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 13\nEXTRAVERSION =\n";

/// An entry of a tar archive: path, type, mode, link target, content.
#[derive(Clone, Copy)]
struct Raw<'a> {
    path: &'a str,
    kind: u8,
    mode: u32,
    target: &'a str,
    content: &'a [u8],
}

fn file<'a>(path: &'a str, content: &'a str) -> Raw<'a> {
    Raw {
        path,
        kind: b'0',
        mode: 0o640,
        target: "",
        content: content.as_bytes(),
    }
}

fn other<'a>(path: &'a str, kind: u8, target: &'a str) -> Raw<'a> {
    Raw {
        kind,
        target,
        ..file(path, "")
    }
}

/// The archive with nothing checked.
fn tar_of(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let mut header = [0; 512];
        let mut put = |at: usize, text: &str| {
            header[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(0, entry.path);
        put(100, &format!("{:07o}", entry.mode));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", entry.content.len()));
        put(136, &format!("{TIME:011o}"));
        put(148, "        ");
        put(157, entry.target);
        put(257, "ustar\u{0}00");
        header[156] = entry.kind;
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(entry.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// What every kernel source has, below `linux-7.2`.
fn kernel() -> Vec<Raw<'static>> {
    let mut script = file("linux-7.2/scripts/run.sh", "#!/bin/sh\n");
    script.mode = 0o750;
    vec![
        other("linux-7.2/", b'5', ""),
        file("linux-7.2/Makefile", MAKEFILE),
        file("linux-7.2/Kconfig", "config X\n"),
        file("linux-7.2/Kbuild", "obj-y += fs/\n"),
        file("linux-7.2/fs/a.c", "one\ntwo\nthree\n"),
        file("linux-7.2/scripts/kconfig/Makefile", "all:\n"),
        script,
        file("linux-7.2/Documentation/a.rst", "text\n"),
        file("linux-7.2/Documentation/Kconfig", "# none\n"),
        file("linux-7.2/arch/arm64/boot/a.dts", "dts\n"),
        file("linux-7.2/arch/um/a.c", "um\n"),
        other("linux-7.2/scripts/up", b'2', "../arch/um"),
    ]
}

struct Case {
    home: TempDir,
    fetcher: Fetcher,
}

impl Case {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        for folder in ["out", "out/tree"] {
            fs::create_dir(home.path().join(folder)).unwrap();
        }
        let store = Store::open(&home.path().join("cache")).unwrap();
        let fetcher = Fetcher::new(store, Options::default());
        Self { home, fetcher }
    }

    fn tree(&self) -> PathBuf {
        self.home.path().join("out/tree")
    }

    /// Everything below `out`, with what links lead to.
    fn listing(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut waiting = vec![self.home.path().join("out")];
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let shown = path.strip_prefix(self.home.path().join("out")).unwrap();
                let shown = shown.display().to_string();
                match fs::symlink_metadata(&path).unwrap().file_type() {
                    kind if kind.is_dir() => waiting.push(path),
                    kind if kind.is_symlink() => {
                        let target = fs::read_link(&path).unwrap();
                        found.push(format!("{shown} -> {}", target.display()));
                    }
                    _ => found.push(shown),
                }
            }
        }
        found.sort();
        found
    }

    fn unpack(&self, archive: &[u8], filter: &Filter) -> Result<unpack::Unpacked, SourceError> {
        unpack(
            Cursor::new(archive.to_vec()),
            &Unpacking {
                name: "linux.tar",
                filter,
                folder: &Folder::open(&self.tree()).unwrap(),
                count: Count::default(),
                packed_bytes: archive.len() as u64,
                observer: &Silent,
            },
        )
    }

    fn tarball(&self, bytes: &[u8], patches: &[(&str, &str)]) -> KernelSource {
        let host_file = |name: &str, bytes: &[u8]| {
            let path = self.home.path().join(name);
            fs::write(&path, bytes).unwrap();
            HostFile {
                written: format!("./{name}"),
                path,
            }
        };
        KernelSource {
            target: Target::Um,
            place: BuildPlace::Host,
            location: KernelLocation::Tarball(TarballLocation::Path {
                file: host_file("linux.tar", bytes),
                sha256: None,
            }),
            patches: patches
                .iter()
                .map(|(name, text)| host_file(name, text.as_bytes()))
                .collect(),
        }
    }

    fn resolve(&self, source: &KernelSource) -> Result<ResolvedSource, SourceError> {
        let archive = Archive {
            environment: None,
            snapshots: None,
            apt: &AptSources::default(),
            architecture: "amd64",
            now_seconds: TIME,
            pins: &Pins::live(),
        };
        resolve(source, &self.fetcher, &archive, &Silent)
    }

    fn prepare(&self, source: &KernelSource) -> Result<SourceTree, SourceError> {
        self.resolve(source)?
            .prepare(&self.fetcher, &Silent, &self.tree(), Extent::Build)
    }
}

#[test]
fn a_source_is_unpacked_without_what_no_build_reads() {
    let case = Case::new();
    let archive = tar_of(&kernel());
    let unpacked = case
        .unpack(
            &archive,
            &Filter::Needless {
                touched: BTreeSet::new(),
            },
        )
        .unwrap();
    assert_eq!((unpacked.files, unpacked.left_out), (9, 2));
    assert_eq!(
        (&*unpacked.top, unpacked.latest_seconds),
        (&b"linux-7.2"[..], TIME)
    );
    assert_eq!(
        case.listing(),
        [
            "tree/Documentation/Kconfig",
            "tree/Kbuild",
            "tree/Kconfig",
            "tree/Makefile",
            "tree/arch/um/a.c",
            "tree/fs/a.c",
            "tree/scripts/kconfig/Makefile",
            "tree/scripts/run.sh",
            "tree/scripts/up -> ../arch/um",
        ]
    );
    for (path, expected) in [("fs/a.c", 0o644), ("scripts/run.sh", 0o755), ("fs", 0o755)] {
        let state = fs::metadata(case.tree().join(path)).unwrap();
        assert_eq!(state.permissions().mode() & 0o7777, expected, "{path}");
        assert!(state.is_dir() || state.mtime() == TIME, "{path}");
    }
    let whole = Case::new();
    let unpacked = whole.unpack(&archive, &Filter::Nothing).unwrap();
    assert_eq!((unpacked.files, unpacked.left_out), (11, 0));
}

#[test]
fn hostile_archives_make_nothing_outside() {
    let long = "n".repeat(90) + "/";
    let deep = format!("linux-7.2/{}x", "d/".repeat(40));
    for (entries, problem) in [
        (vec![file("/etc/x", "")], "absolute path"),
        (vec![file("linux-7.2/../x", "")], "'..' in its path"),
        (vec![file("../x", "")], "'..' in its path"),
        (vec![file("other/x", "")], "is not in 'linux-7.2'"),
        (vec![file("x", "")], "lies at the archive's top"),
        (vec![other("x", b'2', "y")], "lies at the archive's top"),
        (
            vec![other("linux-7.2/h", b'1', "linux-7.2/Makefile")],
            "is a hard link",
        ),
        (vec![other("linux-7.2/d", b'3', "")], "is a device"),
        (vec![other("linux-7.2/d", b'4', "")], "is a device"),
        (vec![other("linux-7.2/p", b'6', "")], "is a named pipe"),
        (
            vec![other("linux-7.2/l", b'2', "/etc")],
            "to an absolute path",
        ),
        (
            vec![other("linux-7.2/l", b'2', "..")],
            "leads out of the source",
        ),
        (
            vec![other("linux-7.2/fs/l", b'2', "../../x")],
            "leads out of the source",
        ),
        (
            vec![other("linux-7.2/l", b'2', "fs/../..")],
            "'..' behind a name",
        ),
        (
            vec![
                other("linux-7.2/l", b'2', "fs"),
                file("linux-7.2/l/x", "through a link"),
            ],
            "is below a link or a file",
        ),
        (
            vec![
                other("linux-7.2/fs/up", b'2', ".."),
                other("linux-7.2/fs/out", b'2', "up/../.."),
            ],
            "'..' behind a name",
        ),
        // Which of the two is refused depends on who comes first.
        (vec![file("linux-7.2/Makefile/x", "")], "'Makefile"),
        (vec![file("linux-7.2/Makefile", "again")], "comes twice"),
        (
            vec![other("linux-7.2/Makefile", b'2', "Kconfig")],
            "comes twice",
        ),
        (
            vec![file("linux-7.2/fs", "a file over a folder")],
            "comes twice",
        ),
        (
            vec![file(&deep, ""), file(&format!("linux-7.2/{long}"), "")],
            "",
        ),
    ] {
        let case = Case::new();
        let archive = tar_of(&[kernel(), entries].concat());
        match case.unpack(&archive, &Filter::Nothing) {
            Err(error) => {
                let error = error.to_string();
                assert!(
                    !problem.is_empty() && error.contains(problem),
                    "{problem}: {error}"
                );
                assert!(error.starts_with("linux.tar: '"), "{error}");
            }
            Ok(_) => assert_eq!(problem, "", "it was unpacked"),
        }
        for found in case.listing() {
            assert!(found.starts_with("tree/"), "{found}");
            assert!(
                !found.contains("-> /") && !found.contains("-> .. "),
                "{found}"
            );
        }
        assert_eq!(fs::read_dir(case.home.path()).unwrap().count(), 2);
    }
}

#[test]
fn folders_that_are_links_on_the_host_are_not_followed() {
    let case = Case::new();
    let outside = case.home.path().join("outside");
    fs::create_dir(&outside).unwrap();
    // As if somebody had won a race.
    std::os::unix::fs::symlink(&outside, case.tree().join("fs")).unwrap();
    let error = case
        .unpack(&tar_of(&kernel()), &Filter::Nothing)
        .unwrap_err();
    assert!(
        error.to_string().contains("below a link or a file"),
        "{error}"
    );
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn damaged_archives_are_named() {
    let archive = tar_of(&kernel());
    for length in (0..archive.len() - 1024).step_by(301) {
        let case = Case::new();
        let result = case.unpack(&archive[..length], &Filter::Nothing);
        // Between two entries an archive may end.
        if let Err(error) = result {
            assert!(error.to_string().starts_with("linux.tar: "), "{error}");
        }
    }
    let case = Case::new();
    let error = case.prepare(&case.tarball(b"", &[])).unwrap_err();
    assert!(error.to_string().contains("empty"), "{error}");
    let case = Case::new();
    let error = case.prepare(&case.tarball(&[0; 1024], &[])).unwrap_err();
    assert!(error.to_string().contains("has nothing in it"), "{error}");
    let case = Case::new();
    let no_kernel = tar_of(&[file("x/Makefile", "all:\n"), file("x/main.c", "")]);
    let error = case.prepare(&case.tarball(&no_kernel, &[])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "./linux.tar is no kernel source: it has no Kconfig"
    );
}

#[test]
fn a_tarball_is_prepared_and_patched() {
    let case = Case::new();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &tar_of(&kernel())).unwrap();
    let packed = packed.finish().unwrap();
    // The second patch touches what a build does not need.
    let patches = [
        (
            "1.patch",
            "--- a/fs/a.c\n+++ b/fs/a.c\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n",
        ),
        (
            "2.patch",
            "--- a/Documentation/a.rst\n+++ b/Documentation/a.rst\n@@ -1 +1 @@\n-text\n+more\n\
             --- a/Makefile\n+++ b/Makefile\n@@ -2,3 +2,3 @@\n PATCHLEVEL = 2\n SUBLEVEL = 13\n\
             -EXTRAVERSION =\n+EXTRAVERSION = -site\n",
        ),
    ];
    let source = case.tarball(&packed, &patches);
    let resolved = case.resolve(&source).unwrap();
    let pins = resolved.pins();
    assert_eq!(pins.len(), 3);
    assert!(pins[0].starts_with("kernel tarball sha256:"), "{pins:?}");
    assert!(
        pins[1].starts_with("kernel patch 1.patch sha256:"),
        "{pins:?}"
    );
    let tree = case.prepare(&source).unwrap();
    assert_eq!(tree.version.to_string(), "7.2.13-site");
    assert_eq!((tree.epoch_seconds, tree.left_out), (TIME, 1));
    let text = |path: &str| fs::read_to_string(case.tree().join(path)).unwrap();
    assert_eq!(text("fs/a.c"), "one\n2\nthree\n");
    assert_eq!(text("Documentation/a.rst"), "more\n");
    // The same again: the folder is not empty any more.
    let error = case.prepare(&source).unwrap_err().to_string();
    assert!(error.ends_with("is not empty"), "{error}");
    // Fewer patches, or another order, are another source.
    let identity = |patches: &[HostFile]| {
        let source = KernelSource {
            patches: patches.to_vec(),
            ..source.clone()
        };
        case.resolve(&source).unwrap().identity()
    };
    let files = &source.patches;
    let swapped = [files[1].clone(), files[0].clone()];
    assert_eq!(identity(files), resolved.identity());
    assert_ne!(identity(files), identity(&files[..1]));
    assert_ne!(identity(files), identity(&swapped));
}

#[test]
fn a_patch_that_does_not_fit_names_the_source() {
    let case = Case::new();
    let patch = "--- a/fs/a.c\n+++ b/fs/a.c\n@@ -1,3 +1,3 @@\n one\n-too\n+2\n three\n";
    let source = case.tarball(&tar_of(&kernel()), &[("0002-x.patch", patch)]);
    assert_eq!(
        case.prepare(&source).unwrap_err().to_string(),
        "./0002-x.patch does not apply: fs/a.c, hunk 1 at line 1 (line 2 is 'two', the patch has \
         'too'); the source is ./linux.tar"
    );
}

#[test]
fn another_archive_than_the_pinned_one_is_refused() {
    let case = Case::new();
    let mut source = case.tarball(&tar_of(&kernel()), &[]);
    let KernelLocation::Tarball(TarballLocation::Path { sha256, .. }) = &mut source.location else {
        unreachable!();
    };
    *sha256 = Some(Digest::of(b"").to_string());
    let error = case.resolve(&source).unwrap_err();
    assert!(
        matches!(error, SourceError::Named(NamedFileError::Changed { .. })),
        "{error}"
    );
}

fn package(bytes: &[u8], path: &str) -> (Vec<u8>, crate::debian::suite::SelectedPackage) {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let recipe = Package {
        name: "linux-source-7.2",
        version: "7.2.13-1",
        fields: "Architecture: all\n",
        control: &[],
        files: &[
            ("usr/share/doc/linux-source-7.2/copyright", "x"),
            (path, &text),
        ],
    };
    let deb = recipe.bytes();
    let selected = recipe.selected(&deb);
    (deb, selected)
}

#[test]
fn a_package_is_prepared_from_its_inner_archive() {
    let case = Case::new();
    let (deb, mut selected) = package(&tar_of(&kernel()), "usr/src/linux-source-7.2.tar");
    let path = case.home.path().join("x.deb");
    fs::write(&path, &deb).unwrap();
    selected.download.url = format!("file://{}", path.display());
    let resolved = ResolvedSource::of_package(selected.clone());
    assert_eq!(resolved.name(), "linux-source-7.2 7.2.13-1");
    assert_eq!(resolved.version().unwrap().to_string(), "7.2.13");
    assert_eq!(resolved.pins(), [selected.pin()]);
    let tree = resolved
        .prepare(&case.fetcher, &Silent, &case.tree(), Extent::Whole)
        .unwrap();
    assert_eq!(
        (tree.files, tree.version.to_string()),
        (11, "7.2.13".into())
    );
    // Nothing but the package itself is kept.
    assert!(!case.fetcher.store().root().join("derived").exists());

    let case = Case::new();
    let (deb, mut selected) = package(&tar_of(&kernel()), "usr/src/other.tar");
    fs::write(&path, &deb).unwrap();
    selected.download.url = format!("file://{}", path.display());
    let error = ResolvedSource::of_package(selected)
        .prepare(&case.fetcher, &Silent, &case.tree(), Extent::Build)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has no file usr/src/linux-source-7.2.tar"),
        "{error}"
    );
}

/// Counts and calls off.
#[derive(Default)]
struct Watcher {
    events: Mutex<Vec<String>>,
    asked: AtomicU64,
    cancel_after: u64,
}

impl Observer for Watcher {
    fn event(&self, event: &Event<'_>) {
        if let Event::TaskStarted { task, .. } | Event::TaskFinished { task, .. } = event {
            self.events.lock().unwrap().push((*task).to_owned());
        }
    }

    fn is_cancelled(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) >= self.cancel_after
    }
}

#[test]
fn it_can_be_called_off() {
    let case = Case::new();
    let source = case.tarball(&tar_of(&kernel()), &[]);
    let resolved = case.resolve(&source).unwrap();
    let watcher = Watcher {
        cancel_after: 3,
        ..Watcher::default()
    };
    let error = resolved
        .prepare(&case.fetcher, &watcher, &case.tree(), Extent::Build)
        .unwrap_err();
    assert_eq!(error.to_string(), "unpacking ./linux.tar was called off");
    assert_eq!(watcher.events.lock().unwrap().len(), 2);
}

#[test]
fn packages_that_are_none_are_refused() {
    let case = Case::new();
    let source = KernelSource {
        target: Target::Um,
        place: BuildPlace::Host,
        location: KernelLocation::Debian {
            package: "bash".into(),
            suite: "sid".into(),
        },
        patches: Vec::new(),
    };
    let error = case.resolve(&source).unwrap_err().to_string();
    assert!(error.contains("'bash' has no kernel source"), "{error}");
}

#[test]
fn what_configuration_reads_is_kept() {
    let case = Case::new();
    let patch = "--- a/fs/a.c\n+++ b/fs/a.c\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n\
                 --- a/Kconfig\n+++ b/Kconfig\n@@ -1 +1 @@\n-config X\n+config Y\n";
    let source = case.tarball(&tar_of(&kernel()), &[("1.patch", patch)]);
    let resolved = case.resolve(&source).unwrap();
    let prepare = |name: &str| {
        let into = case.home.path().join("out").join(name);
        fs::create_dir(&into).unwrap();
        let tree = resolved
            .prepare(&case.fetcher, &Silent, &into, Extent::Configuration)
            .unwrap();
        let mut listing = case.listing();
        listing.retain(|path| path.starts_with(name));
        let text = |path: &str| fs::read_to_string(into.join(path)).unwrap();
        let texts = [text("fs/a.c"), text("Kconfig"), text("scripts/run.sh")];
        let mode = fs::metadata(into.join("scripts/run.sh")).unwrap().mode();
        fs::remove_dir_all(into).unwrap();
        (tree.epoch_seconds, tree.version, listing, texts, mode)
    };
    let first = prepare("x");
    let kept = kept::find(case.fetcher.store(), resolved.identity()).unwrap();
    assert!(kept.is_some());
    let second = prepare("x");
    assert_eq!(first, second);
    assert_eq!(first.0, TIME);
    assert_eq!(first.3[..2], ["one\n2\nthree\n", "config Y\n"]);
    assert!(
        !first.2.contains(&"x/arch/um/a.c".to_owned()),
        "{:?}",
        first.2
    );
}

#[test]
fn a_suites_packages_are_found_by_name() {
    let case = Case::new();
    let mirror = Mirror::new();
    let stanza = |name: &str, more: &str| {
        format!(
            "Package: {name}\nVersion: 7.2.13-1\nArchitecture: all\n{more}Filename: pool/{name}.deb\n\
             Size: 10\nSHA256: {}\n\n",
            Digest::of(b"")
        )
    };
    let packages = [
        stanza(
            "linux-source",
            "Depends: base-files, linux-source-7.2 (>= 7.2)\n",
        ),
        stanza("linux-source-7.2", ""),
        stanza("linux-source-7.1", ""),
        stanza("linux-source-tools", ""),
    ];
    mirror.publish(&packages.concat(), NOW_TEXT, "");
    let request = SuiteRequest {
        named_architecture: false,
        foreign: Vec::new(),
        priority: None,
        archive: String::new(),
        mirror: crate::debian::mirror::choose(Some(&mirror.url()), None, &AptSources::default())
            .unwrap(),
        suite: "trixie".into(),
        components: Vec::new(),
        architecture: "amd64".into(),
        keyring: Some(keyring(&mirror.key)),
        now_seconds: NOW + HOUR,
        pinned: None,
    };
    let pins = Pins::live();
    let suite = Suites::open(&case.fetcher, vec![request.clone()], &pins, &Silent).unwrap();
    let find = |name: &str| origin::find_in(&suite, name, "trixie");
    for name in ["linux-source", "linux-source-7.2"] {
        let found = find(name).unwrap();
        assert_eq!(found.name, "linux-source-7.2");
        assert_eq!(found.architecture, "all");
    }
    assert_eq!(
        find("linux-source-7.3").unwrap_err().to_string(),
        "suite 'trixie' has no package 'linux-source-7.3'; it has linux-source-7.1, linux-source-7.2"
    );
    // The lock answers the same questions without the archive, and no others.
    let lock = pins.seen();
    assert_eq!(lock.answers.len(), 2, "{lock:?}");
    fs::remove_dir_all(mirror.path("dists")).unwrap();
    let pins = Pins::locked(lock.clone());
    let suite = Suites::open(&case.fetcher, vec![request], &pins, &Silent).unwrap();
    let find = |name: &str| origin::find_in(&suite, name, "trixie");
    for name in ["linux-source", "linux-source-7.2"] {
        let found = find(name).unwrap();
        assert_eq!(found.name, "linux-source-7.2");
        assert!(found.download.url.starts_with(&mirror.url()), "{found:?}");
    }
    let error = find("linux-source-7.1").unwrap_err().to_string();
    assert!(error.contains("the lock does not have"), "{error}");
    assert_eq!(pins.seen(), lock);
}

/// With `COOP_TEST_KERNEL_SOURCE` as a linux-source package: all of it against tar(1).
#[test]
fn a_real_source_is_what_tar_makes_of_it() {
    let Some(deb) = std::env::var_os("COOP_TEST_KERNEL_SOURCE").map(PathBuf::from) else {
        eprintln!("skipped: COOP_TEST_KERNEL_SOURCE names no linux-source package");
        return;
    };
    let case = Case::new();
    let name = deb.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut parts = name.split('_');
    let digest = coop_appliance::sha256_of_file(&deb).unwrap();
    let selected = crate::debian::suite::SelectedPackage {
        name: parts.next().unwrap().to_owned(),
        version: parts.next().unwrap().to_owned(),
        architecture: "all".to_owned(),
        suite: "sid".to_owned(),
        path: String::new(),
        download: crate::fetch::Download {
            url: format!("file://{}", deb.display()),
            digest: Digest::from(digest),
            size_bytes: None,
        },
    };
    let resolved = ResolvedSource::of_package(selected);
    let extents = [
        Extent::Configuration,
        Extent::Configuration,
        Extent::Build,
        Extent::Whole,
    ];
    for (index, extent) in extents.into_iter().enumerate() {
        let target = case.home.path().join(format!("{extent:?}{index}"));
        fs::create_dir(&target).unwrap();
        let started = std::time::Instant::now();
        let before = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let tree = resolved
            .prepare(&case.fetcher, &Silent, &target, extent)
            .unwrap();
        let after = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let processor = after.tv_sec - before.tv_sec;
        eprintln!(
            "{:?}, {processor} s of processor: {tree:?}",
            started.elapsed()
        );
    }
    if std::env::var_os("COOP_TEST_KERNEL_SOURCE_FAST").is_some() {
        return;
    }
    let script = "dpkg-deb --fsys-tarfile \"$1\" | tar -xO --wildcards './usr/src/*.tar.xz' | \
                  tar -xJ --strip-components=1 -C \"$2\" && diff -r --no-dereference \"$2\" \"$3\"";
    let oracle = case.home.path().join("oracle");
    fs::create_dir(&oracle).unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .args([&deb, &oracle, &case.home.path().join("Whole3")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", &text[..text.len().min(2000)]);
}
