//! Packages that the tests make, opened, unpacked, and compared with what dpkg does.

use std::collections::BTreeSet;
use std::process::Command;

use coop_image::tree::{Kind, Timestamp, Tree};
use fs_err as fs;
use tempfile::TempDir;

use crate::debian::apt::{AptSource, Preference, choose_pins};
use crate::debian::deb::DebError;
use crate::debian::paths::{PathFilter, Rule};
use crate::debian::system::{System, SystemOptions, build_system};
use crate::debian::testing::{NOW, Recipe, open};
use crate::debian::unpack::{UnpackError, unpack_files};
use crate::store::Store;

const EMPTY: Recipe<'_> = Recipe {
    name: "empty",
    version: "1",
    fields: "",
    control: &[],
    files: &[],
};

fn store() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn options() -> SystemOptions {
    SystemOptions {
        architecture: "amd64".to_owned(),
        foreign: Vec::new(),
        time: Timestamp::from_seconds(NOW),
        apt: Vec::new(),
        paths: PathFilter::default(),
        debconf: Vec::new(),
        requested: BTreeSet::new(),
        configures: true,
    }
}

fn build(recipes: &[Recipe<'_>]) -> Result<System, UnpackError> {
    let (_folder, store) = store();
    let debs = recipes.iter().map(|recipe| recipe.deb(&store)).collect();
    build_system(debs, &options())
}

fn text(tree: &Tree, path: &str) -> String {
    let id = tree
        .resolve(path.as_bytes())
        .unwrap_or_else(|error| panic!("{error}"));
    String::from_utf8(tree.read_file(id, 1 << 20).unwrap()).unwrap()
}

fn names(tree: &Tree, path: &str) -> Vec<String> {
    let entries = tree
        .entries(tree.resolve(path.as_bytes()).unwrap())
        .unwrap();
    entries
        .keys()
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

fn oracle_is_missing(program: &str) -> bool {
    let missing = Command::new(program).arg("--version").output().is_err();
    if missing {
        let required = std::env::var_os("COOP_REQUIRE_ORACLES").is_some_and(|value| value == "1");
        assert!(!required, "{program} is missing");
        eprintln!("skipped: {program} is missing");
    }
    missing
}

/// A library, its configuration, and somebody who waits for it.
const SAMPLES: [Recipe<'_>; 3] = [
    Recipe {
        name: "base-files",
        version: "13",
        fields: "Essential: yes\nSection: admin\nPriority: required\n",
        control: &[("conffiles", "/etc/issue\n")],
        files: &[
            ("bin", "->usr/bin"),
            ("lib", "->usr/lib"),
            ("usr/bin/", ""),
            ("usr/lib/", ""),
            ("etc/issue", "hello\n"),
            ("var/lib/dpkg/", ""),
        ],
    },
    Recipe {
        name: "libx1",
        version: "1:2.0-1",
        fields: "Multi-Arch: same\nSource: x\nDepends: base-files (>= 2)\nHomepage: http://x.invalid\n",
        control: &[
            ("conffiles", "/etc/x.conf\n/etc/x.d/y\n"),
            ("triggers", "# comment\nactivate-noawait ldconfig\n"),
            ("md5sums", "0 usr/lib/libx.so.1\n"),
        ],
        files: &[
            ("etc/x.conf", "x\n"),
            ("etc/x.d/y", "y\n"),
            ("lib/libx.so.1", "library"),
            ("usr/share/doc/libx1/copyright", "free\n"),
        ],
    },
    Recipe {
        name: "waiter",
        version: "1",
        fields: "Architecture: all\n",
        control: &[(
            "triggers",
            "interest-noawait /usr/lib\ninterest ldconfig\ninterest /etc\n",
        )],
        files: &[("usr/bin/wait", "#!/bin/sh\n")],
    },
];

#[test]
fn packages_lie_as_dpkg_leaves_them() {
    let tree = build(&SAMPLES).unwrap().tree;
    assert_eq!(
        text(&tree, "/usr/lib/libx.so.1"),
        "library",
        "through the link /lib"
    );
    assert_eq!(
        names(&tree, "/etc"),
        ["issue.dpkg-new", "x.conf.dpkg-new", "x.d"]
    );
    assert_eq!(
        text(&tree, "/var/lib/dpkg/info/libx1:amd64.list"),
        "/.\n/etc\n/etc/x.conf\n/etc/x.d\n/etc/x.d/y\n/lib\n/lib/libx.so.1\n/usr\n/usr/share\n\
         /usr/share/doc\n/usr/share/doc/libx1\n/usr/share/doc/libx1/copyright\n"
    );
    assert_eq!(
        text(&tree, "/var/lib/dpkg/triggers/File"),
        "/usr/lib waiter/noawait\n/etc waiter\n"
    );
    assert_eq!(text(&tree, "/var/lib/dpkg/triggers/ldconfig"), "waiter\n");
    let id = tree.resolve(b"/usr/bin/wait").unwrap();
    assert_eq!(tree.inode(id).metadata.mode, 0o755);
    let made = tree.resolve(b"/var/lib/dpkg/status").unwrap();
    assert_eq!(
        tree.inode(made).metadata.times.modified,
        Timestamp::from_seconds(NOW)
    );
}

#[test]
fn dpkg_itself_leaves_the_same() {
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|out| out.stdout == b"0\n");
    if oracle_is_missing("dpkg") || !is_root {
        return;
    }
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("root");
    for path in ["info", "updates", "triggers"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(path)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    for recipe in &SAMPLES {
        let path = folder.path().join(format!("{}.deb", recipe.name));
        fs::write(&path, recipe.bytes()).unwrap();
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", root.display()));
        // A host that is not amd64 is as good.
        command.args([
            "--force-depends",
            "--force-architecture",
            "--force-bad-path",
            "--unpack",
        ]);
        let output = command.arg(&path).env("LC_ALL", "C").output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let tree = build(&SAMPLES).unwrap().tree;
    let theirs = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    // dpkg puts symbolic links last, as dpkg-deb does and this test's archives do not.
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for path in [
        "var/lib/dpkg/status",
        "var/lib/dpkg/triggers/File",
        "var/lib/dpkg/triggers/ldconfig",
        "var/lib/dpkg/info/format",
        "var/lib/dpkg/info/base-files.list",
        "var/lib/dpkg/info/libx1:amd64.list",
        "var/lib/dpkg/info/libx1:amd64.triggers",
        "var/lib/dpkg/info/waiter.list",
        "etc/issue.dpkg-new",
    ] {
        let (ours, theirs) = (text(&tree, &format!("/{path}")), theirs(path));
        match path.ends_with(".list") {
            true => assert_eq!(sorted(ours), sorted(theirs), "{path}"),
            false => assert_eq!(ours, theirs, "{path}"),
        }
    }
    let info = fs::read_dir(root.join("var/lib/dpkg/info")).unwrap();
    let mut listed: Vec<String> = info
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    listed.sort();
    // dpkg makes up missing checksums from the files.
    listed.retain(|name| !["base-files.md5sums", "waiter.md5sums"].contains(&name.as_str()));
    assert_eq!(names(&tree, "/var/lib/dpkg/info"), listed);
}

#[test]
fn every_compression_is_read() {
    if oracle_is_missing("dpkg-deb") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let source = folder.path().join("source");
    fs::create_dir_all(source.join("DEBIAN")).unwrap();
    fs::write(source.join("file"), "text").unwrap();
    let control =
        "Package: empty\nVersion: 1\nArchitecture: amd64\nMaintainer: t\nDescription: t\n";
    fs::write(source.join("DEBIAN/control"), control).unwrap();
    for kind in ["none", "gzip", "xz", "zstd"] {
        let path = folder.path().join(format!("{kind}.deb"));
        let mut command = Command::new("dpkg-deb");
        command.args(["--root-owner-group", "--build", &format!("-Z{kind}")]);
        assert!(
            command
                .arg(&source)
                .arg(&path)
                .output()
                .unwrap()
                .status
                .success(),
            "{kind}"
        );
        let bytes = fs::read(&path).unwrap();
        let (_folder, store) = store();
        let selected = EMPTY.selected(&bytes);
        for _ in ["cold", "warm"] {
            let deb = open(&store, &selected, &bytes).unwrap();
            assert_eq!(
                text(&unpack_files(&deb).unwrap(), "/file"),
                "text",
                "{kind}"
            );
        }
    }
}

#[test]
fn a_package_is_taken_apart_without_a_database() {
    let (_folder, store) = store();
    let tree = unpack_files(&SAMPLES[1].deb(&store)).unwrap();
    assert_eq!(names(&tree, "/"), ["etc", "lib", "usr"]);
    assert_eq!(text(&tree, "/etc/x.conf"), "x\n");
}

#[test]
fn the_same_file_twice_needs_a_replaces() {
    let with = |fields| Recipe {
        name: "second",
        fields,
        files: &[("usr/x", "second"), ("usr/y", "")],
        ..EMPTY
    };
    let first = |fields| Recipe {
        name: "first",
        fields,
        files: &[("usr/x", "first")],
        ..EMPTY
    };
    let error = build(&[first(""), with("")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "package 'second' has the file '/usr/x', which is also in package 'first'"
    );
    let error = build(&[first(""), with("Replaces: first (<< 1)\n")]).unwrap_err();
    assert!(matches!(error, UnpackError::Conflict { .. }));
    let list = |tree: &Tree, name| text(tree, &format!("/var/lib/dpkg/info/{name}.list"));
    let tree = build(&[first(""), with("Replaces: first (<= 1)\n")])
        .unwrap()
        .tree;
    assert_eq!(text(&tree, "/usr/x"), "second");
    assert_eq!(list(&tree, "first"), "/.\n/usr\n");
    let tree = build(&[first("Replaces: second\n"), with("")])
        .unwrap()
        .tree;
    assert_eq!(text(&tree, "/usr/x"), "first");
    assert_eq!(list(&tree, "second"), "/.\n/usr\n/usr/y\n");
}

#[test]
fn folders_links_and_files_in_each_others_way() {
    let package = |name, files| Recipe {
        name,
        files,
        ..EMPTY
    };
    let build = |first, second| build(&[package("first", first), package("second", second)]);
    let tree = build(&[("a/b", "")], &[("a", "->/tmp")]).unwrap().tree;
    assert!(
        tree.entries(tree.lookup(b"/a").unwrap()).is_some(),
        "the folder stays"
    );
    let tree = build(&[("real/x", ""), ("link", "->real")], &[("link/y", "")])
        .unwrap()
        .tree;
    assert_eq!(names(&tree, "/real"), ["x", "y"]);
    for (first, second) in [
        (&[("a", "")], &[("a/b", "")]),
        (&[("a/b", "")], &[("a", "")]),
        (&[("a", "->nowhere")], &[("a/b", "")]),
        (&[("a", "->a")], &[("a/b", "")]),
    ] {
        let error = build(first, second).unwrap_err();
        assert!(matches!(error, UnpackError::Path { .. }), "{error}");
    }
}

#[test]
fn older_suites_get_a_merged_usr() {
    let base = Recipe {
        name: "base-files",
        files: &[("etc/x", "")],
        ..EMPTY
    };
    let shell = Recipe {
        name: "dash",
        files: &[("bin/sh", "#!"), ("lib/x", "")],
        ..EMPTY
    };
    let tree = build(&[shell, base]).unwrap().tree;
    assert_eq!(text(&tree, "/usr/bin/sh"), "#!");
    assert!(matches!(
        tree.inode(tree.lookup(b"/bin").unwrap()).kind,
        Kind::Symlink(_)
    ));
}

#[test]
fn scripts_run_in_the_order_of_need() {
    let package = |name, fields, control| Recipe {
        name,
        fields,
        control,
        ..EMPTY
    };
    let preinst: &[(&str, &str)] = &[("preinst", "#!/bin/sh\nset -e\ntouch /x\n")];
    let idle: &[(&str, &str)] = &[(
        "preinst",
        "#!/bin/sh\nset -e\n# x\ndpkg-maintscript-helper a -- \"$@\"\nexit 0\n",
    )];
    let divert: &[(&str, &str)] = &[("preinst", "#!/bin/sh\ndpkg-divert --add --rename /x\n")];
    let recipes = [
        package("libc6", "Multi-Arch: same\n", preinst),
        package("dpkg", "Essential: yes\nDepends: libc6\n", idle),
        package("base-passwd", "Essential: yes\n", preinst),
        package("helper", "Provides: virtual\n", &[]),
        package("plain", "Depends: helper\n", &[]),
        package("needy", "Pre-Depends: dpkg, virtual\n", preinst),
        package("mover", "", divert),
    ];
    let system = build(&recipes).unwrap();
    let script = system.script.as_deref().unwrap();
    let from = script.find("chmod 755 /usr/sbin").unwrap();
    let lines = script[from..].lines().skip(1);
    let (sums, lines): (Vec<&str>, Vec<&str>) =
        lines.partition(|line| line.starts_with("make_md5sums "));
    assert_eq!(sums[..2], ["make_md5sums libc6:amd64", "make_md5sums dpkg"]);
    assert_eq!(
        lines,
        [
            "preinst base-passwd amd64",
            "preinst libc6:amd64 amd64",
            "dpkg --force-depends --configure libc6:amd64 dpkg base-passwd",
            "# needy needs these to be configured before",
            "dpkg --force-depends --configure helper",
            "preinst needy amd64",
            "dpkg --force-depends --unpack /var/cache/coop-deferred/0000-mover.deb",
            "rm -rf /var/cache/coop-deferred",
            "dpkg --configure -a",
            "dpkg --audit",
            "give_apt_its_folders",
            "rm -f /usr/sbin/policy-rc.d",
        ]
    );
    assert!(!text(&system.tree, "/var/lib/dpkg/status").contains("mover"));
    let (_folder, store) = store();
    let id = system
        .tree
        .resolve(b"/var/cache/coop-deferred/0000-mover.deb")
        .unwrap();
    let bytes = system.tree.read_file(id, 1 << 20).unwrap();
    assert!(open(&store, &recipes[6].selected(&bytes), &bytes).is_ok());
}

#[test]
fn the_shell_takes_the_script() {
    let system = build(&SAMPLES).unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("script");
    fs::write(&path, system.script.as_deref().unwrap()).unwrap();
    let status = Command::new("sh").arg("-n").arg(&path).status().unwrap();
    assert!(status.success());
}

#[test]
fn excluded_paths_stay_in_the_lists_only() {
    let (_folder, store) = store();
    let documented = Recipe {
        name: "documented",
        control: &[("conffiles", "/etc/x.conf\n")],
        files: &[
            ("usr/share/doc/x/copyright", "free"),
            ("usr/share/doc/x/sub/readme", "read"),
            ("usr/share/docs/y", "y"),
            ("etc/x.conf", "x"),
        ],
        ..EMPTY
    };
    let dpkg = Recipe {
        name: "dpkg",
        files: &[("etc/dpkg/dpkg.cfg.d/", "")],
        ..EMPTY
    };
    let rule = |include, pattern: &str| Rule {
        include,
        pattern: pattern.to_owned(),
    };
    let options = SystemOptions {
        paths: PathFilter {
            rules: vec![
                rule(false, "/usr/share/doc*"),
                rule(true, "/usr/share/doc/*/copyright"),
                rule(false, "/etc/x*"),
            ],
        },
        ..options()
    };
    let debs = vec![documented.deb(&store), dpkg.deb(&store)];
    let tree = build_system(debs, &options).unwrap().tree;
    // As dpkg 1.21 leaves it with these options.
    assert_eq!(names(&tree, "/usr/share"), ["doc", "docs"]);
    assert_eq!(names(&tree, "/usr/share/doc/x"), ["copyright", "sub"]);
    assert!(names(&tree, "/usr/share/doc/x/sub").is_empty());
    assert_eq!(names(&tree, "/etc"), ["dpkg"]);
    let list = text(&tree, "/var/lib/dpkg/info/documented.list");
    assert!(
        list.contains("/etc/x.conf\n") && list.contains("/sub/readme\n"),
        "{list}"
    );
    let config = text(&tree, "/etc/dpkg/dpkg.cfg.d/coop");
    assert!(config.contains("\npath-exclude=/etc/x*\n"), "{config}");
}

#[test]
fn answers_for_debconf_come_before_the_questions() {
    let (_folder, store) = store();
    let preinst = [("preinst", "#!/bin/sh\nask\n")];
    let base = |name| Recipe {
        name,
        fields: "Essential: yes\n",
        control: &preinst,
        ..EMPTY
    };
    let options = SystemOptions {
        debconf: vec!["tzdata tzdata/Areas select it's $HOME".to_owned()],
        ..options()
    };
    let debs = || {
        let mut debs = vec![base("adduser").deb(&store), base("base-passwd").deb(&store)];
        let debconf = Recipe {
            name: "debconf",
            files: &[("usr/bin/debconf-set-selections", "#!/bin/sh\n")],
            ..EMPTY
        };
        debs.push(debconf.deb(&store));
        debs
    };
    let script = build_system(debs(), &options).unwrap().script.unwrap();
    let place = |text: &str| script.find(text).unwrap_or_else(|| panic!("{script}"));
    let answer = place(
        "\ndebconf-set-selections <<'coop-end-of-answers'\ntzdata tzdata/Areas select it's $HOME\ncoop-end-of-answers\n",
    );
    assert!(place("preinst base-passwd") < answer && answer < place("preinst adduser"));
    let mut without = debs();
    without.pop();
    let error = build_system(without, &options).unwrap_err();
    assert!(matches!(error, UnpackError::NoDebconf), "{error}");
}

#[test]
fn who_diverts_a_file_of_another_comes_later() {
    let (_folder, store) = store();
    let divert: &[(&str, &str)] = &[("preinst", "#!/bin/sh\ndpkg-divert --add --no-rename /x\n")];
    let file: &[(&str, &str)] = &[("usr/bin/x", "x")];
    let package = |name, control, files| Recipe {
        name,
        control,
        files,
        ..EMPTY
    };
    let build = |recipes: [Recipe<'_>; 2]| {
        let debs = recipes.iter().map(|recipe| recipe.deb(&store)).collect();
        build_system(debs, &options())
    };
    for order in [
        [package("aa", divert, file), package("bb", &[], file)],
        [package("bb", &[], file), package("aa", divert, file)],
    ] {
        let system = build(order).unwrap();
        assert_eq!(
            names(&system.tree, "/var/cache/coop-deferred"),
            ["0000-aa.deb"]
        );
        assert!(system.tree.resolve(b"/var/lib/dpkg/info/aa.list").is_err());
    }
    let error = build([package("aa", &[], file), package("bb", &[], file)]).unwrap_err();
    assert!(matches!(error, UnpackError::Conflict { .. }), "{error}");
}

#[test]
fn architectures_share_their_files() {
    let (_folder, store) = store();
    let library = |fields, files| {
        let recipe = Recipe {
            name: "libx1",
            fields,
            files,
            ..EMPTY
        };
        let bytes = recipe.bytes();
        let mut selected = recipe.selected(&bytes);
        if fields.contains("i386") {
            selected.architecture = "i386".to_owned();
        }
        open(&store, &selected, &bytes).unwrap()
    };
    let options = SystemOptions {
        foreign: vec!["i386".to_owned()],
        ..options()
    };
    let own = || {
        library(
            "Multi-Arch: same\n",
            &[("usr/lib/x86/x", "x"), ("usr/share/doc/x", "shared")],
        )
    };
    let foreign = "Multi-Arch: same\nArchitecture: i386\n";
    let files: &[(&str, &str)] = &[("usr/lib/i386/x", "y"), ("usr/share/doc/x", "shared")];
    let tree = build_system(vec![own(), library(foreign, files)], &options)
        .unwrap()
        .tree;
    assert_eq!(names(&tree, "/usr/lib"), ["i386", "x86"]);
    for architecture in ["amd64", "i386"] {
        let list = text(
            &tree,
            &format!("/var/lib/dpkg/info/libx1:{architecture}.list"),
        );
        assert!(list.contains("/usr/share/doc/x\n"), "{list}");
    }
    assert_eq!(text(&tree, "/var/lib/dpkg/arch"), "amd64\ni386\n");
    let files: &[(&str, &str)] = &[("usr/share/doc/x", "shareD")];
    let error = build_system(vec![own(), library(foreign, files)], &options).unwrap_err();
    assert!(matches!(error, UnpackError::Conflict { .. }), "{error}");
}

#[test]
fn what_is_only_unpacked_has_its_script_with_it() {
    let (_folder, store) = store();
    let options = SystemOptions {
        architecture: "arm64".to_owned(),
        configures: false,
        debconf: vec!["tzdata tzdata/Areas select Europe".to_owned()],
        ..options()
    };
    let debconf = Recipe {
        name: "debconf",
        files: &[("usr/bin/debconf-set-selections", "#!/bin/sh\n")],
        ..EMPTY
    };
    let debs = vec![SAMPLES[0].deb(&store), debconf.deb(&store)];
    let system = build_system(debs, &options).unwrap();
    assert_eq!(system.script, None);
    let script = text(&system.tree, "/var/lib/coop/configure");
    assert!(script.starts_with("#!/bin/sh\n") && script.contains("\ndpkg --configure -a\n"));
    assert!(script.contains("\ntzdata tzdata/Areas select Europe\n"));
    assert_eq!(text(&system.tree, "/var/lib/dpkg/arch"), "arm64\n");
}

#[test]
fn apt_knows_what_nobody_asked_for() {
    let (_folder, store) = store();
    let package = |name, fields, files| Recipe {
        name,
        fields,
        files,
        ..EMPTY
    };
    let debs = [
        package("base", "Essential: yes\nDepends: libbase\n", &[]),
        package("libbase", "", &[]),
        package("libtool", "Architecture: all\n", &[]),
        package("apt", "Depends: libapt\n", &[("var/lib/apt/", "")]),
        package("libapt", "", &[]),
        package("tool", "Depends: libtool\n", &[]),
    ];
    let options = SystemOptions {
        requested: ["base", "apt", "tool"].map(str::to_owned).into(),
        ..options()
    };
    let debs = debs.iter().map(|recipe| recipe.deb(&store)).collect();
    let tree = build_system(debs, &options).unwrap().tree;
    assert_eq!(
        text(&tree, "/var/lib/apt/extended_states"),
        "Package: libapt\nArchitecture: amd64\nAuto-Installed: 1\n\n\
         Package: libtool\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    );
}

#[test]
fn apt_learns_the_mirror() {
    let (_folder, store) = store();
    let apt = Recipe {
        name: "apt",
        files: &[
            ("etc/apt/apt.conf.d/", ""),
            ("usr/share/keyrings/debian-archive-keyring.pgp", ""),
        ],
        ..EMPTY
    };
    let stanza = |url: &str, keyring: Option<&[u8]>| {
        let source = AptSource {
            url: url.to_owned(),
            suites: vec!["trixie".to_owned()],
            components: vec!["main".to_owned(), "contrib".to_owned()],
            keyring: keyring.map(<[u8]>::to_vec),
            check_valid_until: keyring.is_none(),
            pin: None,
        };
        let options = SystemOptions {
            apt: vec![source],
            ..options()
        };
        build_system(vec![apt.deb(&store)], &options).unwrap().tree
    };
    let path = "/etc/apt/sources.list.d/debian.sources";
    assert_eq!(
        text(&stanza("http://m.invalid/debian", None), path),
        "Types: deb\nURIs: http://m.invalid/debian\nSuites: trixie\nComponents: main contrib\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp\n"
    );
    let own = stanza("http://m.invalid/debian", Some(b"-----BEGIN PGP"));
    assert!(text(&own, path).ends_with("/etc/apt/keyrings/coop.asc\nCheck-Valid-Until: no\n"));
    assert_eq!(text(&own, "/etc/apt/keyrings/coop.asc"), "-----BEGIN PGP");
    assert!(
        stanza("file:/srv/debian", None)
            .resolve(path.as_bytes())
            .is_err()
    );
}

#[test]
fn apt_learns_every_repository() {
    let (_folder, store) = store();
    let apt = Recipe {
        name: "apt",
        files: &[("etc/apt/", "")],
        ..EMPTY
    };
    let source = |suite: &str, keyring: Option<&[u8]>| AptSource {
        url: "http://m.invalid/debian".to_owned(),
        suites: vec![suite.to_owned()],
        components: vec!["main".to_owned()],
        keyring: keyring.map(<[u8]>::to_vec),
        check_valid_until: true,
        pin: None,
    };
    let mut sources = [
        source("trixie", None),
        source("trixie-backports", None),
        source("a", Some(b"-----BEGIN A")),
        source("b", Some(b"B")),
        source("c", Some(b"-----BEGIN A")),
    ];
    let priorities = [None, Some(990), None, Some(1), None];
    let preferences = sources.iter().zip(priorities);
    let preferences: Vec<Preference> = preferences
        .map(|(source, priority)| Preference {
            codename: source.suites[0].clone(),
            priority,
        })
        .collect();
    choose_pins(&mut sources, &preferences).unwrap();
    let options = SystemOptions {
        apt: sources.to_vec(),
        ..options()
    };
    let tree = build_system(vec![apt.deb(&store)], &options).unwrap().tree;
    let sources = text(&tree, "/etc/apt/sources.list.d/debian.sources");
    let signed: Vec<&str> = sources
        .lines()
        .filter_map(|line| line.strip_prefix("Signed-By: /etc/apt/keyrings/"))
        .collect();
    assert_eq!(signed, ["coop-2.asc", "coop-3.pgp", "coop-2.asc"]);
    assert_eq!(sources.split("\n\n").count(), 5);
    assert_eq!(text(&tree, "/etc/apt/keyrings/coop-3.pgp"), "B");
    assert_eq!(
        text(&tree, "/etc/apt/preferences.d/coop.pref"),
        "Package: *\nPin: release n=trixie-backports\nPin-Priority: 990\n\n\
         Package: *\nPin: release n=b\nPin-Priority: 1\n"
    );
}

#[test]
fn another_package_than_the_index_names_is_refused() {
    let (_folder, store) = store();
    let bytes = EMPTY.bytes();
    let mut selected = EMPTY.selected(&bytes);
    selected.version = "2".to_owned();
    let error = open(&store, &selected, &bytes).unwrap_err().to_string();
    assert_eq!(
        error,
        "package 'empty' says in its control file that its Version is '1', not '2'"
    );
}

#[test]
fn damaged_packages_are_refused() {
    let (_folder, store) = store();
    let bytes = SAMPLES[1].bytes();
    let open_changed = |bytes: &[u8]| open(&store, &SAMPLES[1].selected(bytes), bytes);
    for length in (0..bytes.len() - 600).step_by(97) {
        assert!(open_changed(&bytes[..length]).is_err(), "{length}");
    }
    for index in (0..bytes.len().min(1500)).chain((1500..bytes.len()).step_by(61)) {
        let mut bad = bytes.clone();
        bad[index] ^= 0x15;
        // What changes the text of a file only is none of our business here.
        if let Ok(deb) = open_changed(&bad) {
            let _ = unpack_files(&deb);
            let _ = build_system(vec![deb], &options());
        }
    }
    let other = |old: &[u8], new: &[u8]| {
        let mut bad = bytes.clone();
        let at = bad
            .windows(old.len())
            .position(|window| window == old)
            .unwrap();
        bad[at..at + old.len()].copy_from_slice(new);
        open_changed(&bad).unwrap_err()
    };
    assert!(matches!(other(b"2.0\n", b"3.0\n"), DebError::Format { .. }));
    assert!(matches!(
        other(b"data.tar", b"nope.tar"),
        DebError::Format { .. }
    ));
    assert!(matches!(other(b"ustar", b"uster"), DebError::Tar { .. }));
}

#[test]
fn paths_do_not_leave_the_package() {
    let (_folder, store) = store();
    let recipe = Recipe {
        files: &[("aa/bb", "evil")],
        ..EMPTY
    };
    let mut bytes = recipe.bytes();
    let at = bytes
        .windows(7)
        .rposition(|window| window == b"./aa/bb")
        .unwrap();
    bytes[at..at + 7].copy_from_slice(b"./../bb");
    let field = at + 148..at + 156;
    bytes[field.clone()].fill(b' ');
    let sum: u32 = bytes[at..at + 512]
        .iter()
        .map(|byte| u32::from(*byte))
        .sum();
    bytes[field].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let deb = open(&store, &recipe.selected(&bytes), &bytes).unwrap();
    let error = unpack_files(&deb).unwrap_err().to_string();
    assert_eq!(
        error,
        "package 'empty' has the path './../bb', which leads out of the package"
    );
}
