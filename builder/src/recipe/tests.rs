use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::*;

const MINIMAL: &str = "name: a\nrootfs:\n  source:\n    debian: {suite: trixie}\n";

/// Parses as if the text were in a folder that holds `app` and `my.config`.
fn parse_in_folder(text: &str, sets: &[(&str, &str)]) -> Result<(Recipe, Vec<Warning>), String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("app"), "x").unwrap();
    fs::write(folder.path().join("disc.iso"), [0; 1024]).unwrap();
    fs::write(folder.path().join("my.config"), "CONFIG_A=y\nnonsense\n").unwrap();
    fs::write(
        folder.path().join("site.config"),
        "#: only um\nCONFIG_A=y\n\n# CONFIG_B is not set\n",
    )
    .unwrap();
    fs::create_dir(folder.path().join("patches")).unwrap();
    for (name, text) in [
        ("series", "# all\n\none.patch -p1\nsub/two.patch # why\n"),
        ("one.patch", "x"),
        ("sub/two.patch", "x"),
        ("wrong/series", "../one.patch\n"),
        ("level/series", "one.patch -p0\n"),
        ("level/one.patch", "x"),
        ("gone/series", "\none.patch\n"),
        ("twice/series", "one.patch\none.patch\n"),
        ("twice/one.patch", "x"),
    ] {
        let path = folder.path().join("patches").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let file = folder.path().join("r.yaml");
    let sets = sets
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    parse(text, &file, &sets).map_err(|diagnostics| {
        let shown = diagnostics.iter().map(render).collect::<String>();
        shown.replace(&format!("{}/", folder.path().display()), "")
    })
}

fn good(text: &str) -> Recipe {
    parse_in_folder(text, &[])
        .unwrap_or_else(|error| panic!("{error}"))
        .0
}

/// The message, the line with the place marked, the hint.
fn render(diagnostic: &Diagnostic) -> String {
    let mut text = format!("{diagnostic}\n");
    if let Some(place) = &diagnostic.place {
        let marks = "^".repeat(place.width);
        let indent = " ".repeat(place.column - 1);
        writeln!(text, "  | {}\n  | {indent}{marks}", place.text).unwrap();
    }
    if let Some(hint) = &diagnostic.hint {
        writeln!(text, "  hint: {hint}").unwrap();
    }
    text
}

/// `diagnostics.txt` holds cases: a line `=== name`, the recipe, a line `-->`, what is reported.
/// With COOP_UPDATE_GOLDEN=1 the last part is written anew.
#[test]
fn diagnostics_are_as_recorded() {
    let golden = include_str!("diagnostics.txt");
    let mut fresh = String::new();
    for case in golden.split("=== ").skip(1) {
        let (name, rest) = case.split_once('\n').unwrap();
        let recipe = rest.split("\n-->\n").next().unwrap();
        let recipe_text = format!("{recipe}\n");
        let error = match parse_in_folder(&recipe_text, &[]) {
            Ok(_) => "accepted\n".to_owned(),
            Err(error) => error,
        };
        write!(fresh, "=== {name}\n{recipe}\n-->\n{error}").unwrap();
    }
    if option_env!("COOP_UPDATE_GOLDEN").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/recipe/diagnostics.txt");
        fs::write(path, fresh).unwrap();
        return;
    }
    for (have, want) in fresh.split("=== ").zip(golden.split("=== ")) {
        assert_eq!(have, want);
    }
}

#[test]
fn defaults_are_filled_in() {
    let recipe = good(MINIMAL);
    assert_eq!(recipe.rootfs.hostname, "a");
    assert_eq!(recipe.devices.memory, ByteCount(256 << 20));
    assert_eq!(recipe.kernel.origin, KernelOrigin::Default);
    let conet = Conet::User {
        forward: Vec::new(),
        allow_host: false,
    };
    assert_eq!(recipe.devices.conet, [conet]);
    assert_eq!(
        canonical(&recipe),
        concat!(
            r#"{"name":"a","description":"","architecture":"amd64","rootfs":{"source":{"debian":"#,
            r#"{"suite":"trixie","packages":[],"components":["main"],"variant":"minimal","#,
            r#""mirror":"host","keyring":"debian","recommends":false}},"hostname":"a","files":[],"#,
            r#""users":[],"services":{"enable":[],"disable":[]},"run":[]},"kernel":{"origin":"#,
            r#""default","wanted":[],"defconfig":false,"modules":true,"cmdline":[]},"#,
            r#""devices":{"memory":268435456,"cpus":1,"cobd":[{"name":"root","#,
            r#""content":{"root":{"size":{"auto":{"free":20,"free_min":268435456}}}}}],"#,
            r#""conet":[{"user":{"forward":[],"#,
            r#""allow_host":false}}],"cocon":{"columns":80,"rows":25}},"test":[]}"#,
        )
    );
}

const FULL: &str = r#"
name: web
description: A small web appliance
architecture: amd64
extends: null
variables: {release: trixie, mem: 512MiB, n: 1}
rootfs:
  source:
    debian: {suite: "${release}", packages: [systemd-sysv, "libc6:amd64"], components: [main, contrib],
             variant: minimal, mirror: null, snapshot: null, keyring: null}
  hostname: web
  files:
    - {path: /etc/motd, content: "hello ${release} $${HOME}\n"}
    - {path: /usr/local/bin/app, source: ./app, mode: 0o755, owner: root, group: 33}
    - {path: /a, content: "", mode: 0755}
    - {path: /b, content: "", mode: "4755", owner: www-data}
  users:
    - {name: root, password: locked, ssh_keys: ["ssh-ed25519 AAAA me"]}
    - {name: me, password: {plain: secret}, uid: 1000, groups: [sudo]}
    - {name: you, password: {hash: "$6$x$y"}, shell: /bin/sh, home: /srv/you}
  services: {enable: [ssh], disable: []}
  run:
    - apt-get install -y nginx-light
    - {script: ./app, network: false}
    - run: make install
      environment: {DESTDIR: /srv, RELEASE: "${release}"}
      user: www-data:disk
      workdir: /mnt/src
      network: packages
      mounts: [{source: ., target: /mnt/src}, {source: ./app, target: /mnt/app}]
      secrets: [token]
  readonly: {writable: {/var: copy, /home: empty}, etc: [resolv.conf, network/ifstate]}
kernel:
  package: {name: user-mode-linux, suite: sid}
  config: [base, virtio, {CONFIG_FOO: y, CONFIG_BAR: 12}]
  modules: true
  cmdline: [quiet]
devices:
  memory: ${mem}
  cpus: ${n}
  root: cobd0
  cobd:
    - root: {filesystem: ext4, size: auto, free: 20%}
    - data: {filesystem: ext4, size: 1GiB, mount: /srv}
    - swap: {filesystem: swap, size: 256MiB}
    - media: {file: ./disc.iso, readonly: true}
  conet:
    - user: {forward: ["tcp:2222:22", tcp:8080:80], allow_host: true}
  cocon: {columns: 80, rows: 25}
test:
  - run: systemctl is-system-running --wait
  - run: curl -fsS http://localhost/
    expect: "Welcome"
    timeout: 30s
"#;

#[test]
fn the_whole_schema_is_read() {
    let text = FULL.replace("\"4755\"", "\"04755\"");
    let (recipe, warnings) = parse_in_folder(&text, &[("release", "forky")]).unwrap();
    let Source::Debian(debian) = &recipe.rootfs.source else {
        panic!("not a debian")
    };
    assert_eq!(debian.suite, "forky");
    let files = &recipe.rootfs.files;
    assert_eq!(
        files[0].content,
        FileContent::Text("hello forky ${HOME}\n".to_owned())
    );
    let modes: Vec<u16> = files.iter().map(|file| file.mode).collect();
    assert_eq!(modes, [0o644, 0o755, 0o755, 0o4755]);
    assert_eq!(files[1].owner, Owner::Id(0));
    assert_eq!(files[1].group, Owner::Id(33));
    let run = &recipe.rootfs.run;
    assert_eq!(run[0].network, StepNetwork::Default);
    assert_eq!((&*run[0].user, &*run[0].workdir), ("root", "/"));
    assert_eq!(run[1].network, StepNetwork::Off);
    assert_eq!(run[2].action, RunAction::Command("make install".to_owned()));
    assert_eq!(run[2].environment["RELEASE"], "forky");
    assert_eq!(
        (&*run[2].user, &*run[2].workdir),
        ("www-data:disk", "/mnt/src")
    );
    assert_eq!(run[2].network, StepNetwork::Packages);
    assert_eq!(run[2].mounts[1].target, "/mnt/app");
    assert_eq!(run[2].secrets, ["token"]);
    let readonly = recipe.rootfs.readonly.as_ref().unwrap();
    let writable: Vec<&str> = readonly.writable.keys().map(String::as_str).collect();
    assert_eq!(writable, ["/home", "/tmp", "/var"]);
    assert_eq!(readonly.etc, ["resolv.conf", "network/ifstate"]);
    assert_eq!(recipe.devices.memory, ByteCount(512 << 20));
    assert_eq!(recipe.devices.cobd.len(), 4);
    assert_eq!(recipe.test[1].timeout, std::time::Duration::from_secs(30));
    let places = |symbol: &str| -> Vec<String> {
        let wanted = recipe.kernel.wanted.iter();
        let found = wanted.filter(|wanted| wanted.symbol == symbol);
        found.map(|wanted| wanted.place.to_string()).collect()
    };
    assert_eq!(places("CONFIG_FOO"), ["recipe:35"]);
    assert!(places("CONFIG_VIRTIO_UML")[0].starts_with("fragment virtio, line "));
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].place.as_ref().unwrap().line, 19);
}

#[test]
fn what_a_debian_leaves_out_and_gets_beside_its_archives() {
    let head = "name: a\nrootfs:\n  source:\n    debian:\n      suite: trixie\n";
    let text = format!(
        "{head}      debs: [{{path: app}}]\n      exclude:\n        packages: [tzdata]\n        \
         paths: [locales, '/srv/*']\n        keep: [/usr/share/locale/de/*]\n      debconf:\n        \
         - |\n          # where\n          tzdata tzdata/Areas \\\n            select Europe\n        \
         - {{package: x, question: x/y, type: boolean, value: true}}\n"
    );
    let Source::Debian(debian) = good(&text).rootfs.source else {
        panic!("no debian");
    };
    assert!(
        matches!(&debian.debs[..], [TarballLocation::Path { file, sha256: None }] if file.written == "app")
    );
    assert_eq!(debian.exclude.packages, ["tzdata"]);
    let rules = debian.exclude.paths.iter();
    let rules: Vec<(bool, &str)> = rules.map(|r| (r.include, r.pattern.as_str())).collect();
    let expected = [
        (false, "/usr/share/locale/*"),
        (true, "/usr/share/locale/locale.alias"),
        (false, "/usr/share/man/*/man*/*"),
        (false, "/srv/*"),
        (true, "/usr/share/locale/de/*"),
    ];
    assert_eq!(rules, expected);
    let answers = ["tzdata tzdata/Areas   select Europe", "x x/y boolean true"];
    assert_eq!(debian.debconf, answers);
    // One text is as good as a list, and what is not there is not in the canonical form.
    let text = format!("{head}      debconf: a a/b note\n");
    let Source::Debian(debian) = good(&text).rootfs.source else {
        panic!("no debian");
    };
    assert_eq!(debian.debconf, ["a a/b note"]);
    assert!(!canonical(&good(head)).contains("exclude"));
}

#[test]
fn a_snapshot_is_an_instant_or_has_an_address_too() {
    let mirror = |text: &str| {
        let text = format!(
            "name: a\nrootfs: {{source: {{debian: {{suite: trixie, snapshot: {text}}}}}}}\n"
        );
        match good(&text).rootfs.source {
            Source::Debian(debian) => debian.mirror,
            Source::Tarball(_) | Source::Disk(_) => panic!("no debian"),
        }
    };
    let snapshot = |url: Option<&str>| Mirror::Snapshot {
        instant: "20260801T000000Z".to_owned(),
        url: url.map(str::to_owned),
    };
    assert_eq!(mirror("20260801T000000Z"), snapshot(None));
    assert_eq!(mirror("{at: 20260801T000000Z}"), snapshot(None));
    assert_eq!(
        mirror("{at: 20260801T000000Z, url: http://s.invalid}"),
        snapshot(Some("http://s.invalid"))
    );
    assert_eq!(mirror("null"), Mirror::Host);
}

/// Nothing of it is in the canonical form of other recipes, and nothing is free in such a root.
#[test]
fn a_readonly_root_has_defaults_of_its_own() {
    let recipe = good(&format!("{MINIMAL}  readonly: {{}}\n"));
    let readonly = recipe.rootfs.readonly.unwrap();
    let writable: Vec<&str> = readonly.writable.keys().map(String::as_str).collect();
    assert_eq!(writable, ["/home", "/root", "/tmp", "/var"]);
    assert_eq!(readonly.etc, ["resolv.conf", "fstab", "motd"]);
    let none = CobdContent::Root {
        size: RootSize::Auto {
            free: Percent(0),
            free_min: ByteCount(0),
        },
    };
    assert_eq!(recipe.devices.cobd[0].content, none);
    assert!(!canonical(&good(MINIMAL)).contains("readonly"));
}

#[test]
fn the_canonical_form_does_not_know_the_folder() {
    let text = FULL.replace("\"4755\"", "\"04755\"");
    let (first, _) = parse_in_folder(&text, &[]).unwrap();
    let (second, _) = parse_in_folder(&text, &[]).unwrap();
    assert_ne!(first, second);
    assert_eq!(canonical(&first), canonical(&second));
}

#[test]
fn sets_are_checked() {
    let text = format!("variables: {{release: a, key: null}}\n{MINIMAL}");
    let error = parse_in_folder(&text, &[("relase", "x")]).unwrap_err();
    assert!(error.contains("no variable 'relase' to set"), "{error}");
    assert!(error.contains("did you mean 'release'?"), "{error}");
    let text = text.replace("suite: trixie", "suite: \"${key}\"");
    let error = parse_in_folder(&text, &[]).unwrap_err();
    assert!(error.contains("variable 'key' has no value"), "{error}");
    let recipe = parse_in_folder(&text, &[("key", "sid")]).unwrap().0;
    assert!(canonical(&recipe).contains(r#""suite":"sid""#));
}

#[test]
fn large_inputs_are_refused_quickly() {
    let refused = |text: &str| {
        let error = parse_in_folder(text, &[]).unwrap_err();
        assert!(error.len() < 20_000, "{error}");
        error
    };
    assert!(refused(&"a".repeat(2 << 20)).contains("limit"));
    refused(&"[".repeat(100_000));
    refused(&"{a: ".repeat(10_000));
    refused(
        &(0..5000)
            .map(|i| format!("{}- x\n", " ".repeat(i % 900)))
            .collect::<String>(),
    );
    let unknown: String = (0..20_000).map(|i| format!("k{i}: 1\n")).collect();
    assert_eq!(refused(&unknown).matches("unknown key").count(), 50);
    // An alias bomb by events, and one by the size of its text.
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
                e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    assert!(refused(bomb).contains("aliases"));
    let long = "x".repeat(500_000);
    let text = format!("a: &a \"{long}\\n\"\nb: [{}]\n", "*a,".repeat(150));
    refused(&text);
    // A variable that is used too often.
    let uses = "${v}".repeat(10_000);
    let text = format!(
        "variables: {{v: {}}}\n{MINIMAL}description: {uses}\n",
        "x".repeat(60_000)
    );
    assert!(refused(&text).contains("expands to more than"));
}

#[test]
fn numbers_out_of_range_are_refused() {
    for value in [
        "1e999",
        "99999999999999999999999999999999999999999999",
        "-1",
        "0x1",
        "1.5",
        ".inf",
        ".nan",
    ] {
        let text = format!("{MINIMAL}devices: {{cocon: {{columns: {value}}}}}\n");
        assert!(parse_in_folder(&text, &[]).is_err(), "{value}");
    }
}

/// One byte of a good recipe changed, removed, doubled or cut off: never a panic, and every place
/// lies within its line.
#[test]
fn mutations_never_panic() {
    let file = PathBuf::from("r.yaml");
    let sets = BTreeMap::new();
    let check = |bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        for diagnostic in parse(text, &file, &sets).err().unwrap_or_default() {
            if let Some(place) = &diagnostic.place {
                let length = place.text.chars().count();
                assert!(place.column >= 1 && place.column <= length + 1);
                assert!(place.width >= 1);
            }
            assert!(!diagnostic.to_string().contains('\n'), "{diagnostic}");
        }
    };
    let original = FULL.as_bytes();
    let mut state = 7_u32;
    for index in 0..original.len() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut changed = original.to_vec();
        let candidates = b"{}[]:,#&*!|>'\"%@` \n\t-?0xZ$~\0";
        changed[index] = candidates[usize::try_from(state >> 16).unwrap() % candidates.len()];
        check(&changed);
        changed[index] = original[index];
        changed.remove(index);
        check(&changed);
        changed.insert(index, original[index]);
        changed.insert(index, original[index]);
        check(&changed);
        if index % 7 == 0 {
            check(&original[..index]);
        }
    }
}

#[test]
fn shipped_recipes_are_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let given = |name: &str| match name {
        "server.yaml" => vec![("ssh_key", "ssh-ed25519 AAAA me")],
        "tarball.yaml" => vec![("archive", archive.to_str().unwrap())],
        _ => Vec::new(),
    };
    let mut paths = Vec::new();
    shipped(&folder, &mut paths);
    for path in &paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        let sets = given(name)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let (recipe, warnings) = read(path, &sets).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(format!("{}.yaml", recipe.name), name);
        assert_eq!(warnings, []);
    }
    assert!(paths.len() >= 5, "{paths:?}");
}

/// Every recipe of a folder and of the folders in it.
fn shipped(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            shipped(&path, paths);
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            paths.push(path);
        }
    }
}

fn kernel_of(text: &str) -> Kernel {
    good(&format!("{MINIMAL}kernel:\n{text}")).kernel
}

#[test]
fn a_kernel_from_source_is_read_in_every_form() {
    let debian = |package: &str, suite: &str| KernelLocation::Debian {
        package: package.to_owned(),
        suite: suite.to_owned(),
    };
    for (text, location) in [
        (
            "{debian: linux-source-7.2}",
            debian("linux-source-7.2", "sid"),
        ),
        (
            "{debian: linux-source-7.2, suite: forky}",
            debian("linux-source-7.2", "forky"),
        ),
        (
            "{debian: {package: linux-source-6.12, suite: trixie}}",
            debian("linux-source-6.12", "trixie"),
        ),
        (
            "{debian: {package: linux-source-6.12}, suite: trixie}",
            debian("linux-source-6.12", "trixie"),
        ),
    ] {
        let kernel = kernel_of(&format!("  source: {text}\n"));
        let expected = KernelOrigin::Source(KernelSource {
            location,
            patches: Vec::new(),
            target: crate::kernel::Target::Um,
            place: BuildPlace::Host,
        });
        assert_eq!(kernel.origin, expected, "{text}");
    }
    let kernel = kernel_of(
        "  source:\n    tarball: {path: ./app}\n    patches: [./app, ./patches/series]\n    \
         target: x86_64\n    in: guest\n  config: [defconfig, base]\n  modules: false\n",
    );
    let KernelOrigin::Source(source) = &kernel.origin else {
        panic!("not from source")
    };
    let patches = source.patches.iter().map(|patch| patch.written.as_str());
    assert!(patches.eq(["./app", "./patches/one.patch", "./patches/sub/two.patch"]));
    assert_eq!(source.target, crate::kernel::Target::X86_64);
    assert_eq!(source.place, BuildPlace::Guest);
    assert!(kernel.defconfig && !kernel.modules);
    assert_eq!(
        kernel.wanted.last().unwrap().line(),
        "# CONFIG_MODULES is not set"
    );
}

#[test]
fn symbols_of_a_recipe_become_lines_of_a_configuration() {
    let text = "  config:\n    - ./site.config\n    - A: y\n      CONFIG_B: true\n      C: false\n      \
                D: 12\n      E: 0x1F\n      F: some \"text\"\n      G: '\"quoted\"'\n      H: \"12\"\n      \
                I: ''\n      J: -1\n      K: ${n}\n      L: ${t}\n";
    let text = format!("variables: {{n: 7, t: a b}}\n{MINIMAL}kernel:\n{text}");
    let kernel = good(&text).kernel;
    let lines: Vec<String> = kernel.wanted.iter().map(|wanted| wanted.line()).collect();
    assert_eq!(
        lines,
        [
            "CONFIG_A=y",
            "# CONFIG_B is not set",
            "CONFIG_A=y",
            "CONFIG_B=y",
            "# CONFIG_C is not set",
            "CONFIG_D=12",
            "CONFIG_E=0x1F",
            r#"CONFIG_F="some \"text\"""#,
            r#"CONFIG_G="quoted""#,
            r#"CONFIG_H="12""#,
            r#"CONFIG_I="""#,
            "CONFIG_J=-1",
            "CONFIG_K=7",
            r#"CONFIG_L="a b""#,
        ]
    );
    let place = |index: usize| kernel.wanted[index].place.to_string();
    assert_eq!(place(0), "./site.config:2");
    assert_eq!(place(2), "recipe:9");
}

#[test]
fn unknown_fragments_are_told_the_known_ones() {
    let text = format!("{MINIMAL}kernel: {{config: [nonsense]}}\n");
    let error = parse_in_folder(&text, &[]).unwrap_err();
    assert!(error.contains("hint: known are base, "), "{error}");
    assert!(
        error.contains(", defconfig; a file's path has a slash in it"),
        "{error}"
    );
}

/// The lines around a symbol say nothing of the kernel.
#[test]
fn places_are_not_in_the_canonical_form() {
    let first = good(&format!("{MINIMAL}kernel: {{config: [{{A: y}}]}}\n"));
    let second = good(&format!(
        "# a comment\n{MINIMAL}kernel: {{config: [{{A: y}}]}}\n"
    ));
    assert_ne!(first.kernel, second.kernel);
    assert_eq!(canonical(&first), canonical(&second));
}

/// Writes a recipe out and reads it back, with its files where the names lead.
fn restated(text: &str, sets: &[(&str, &str)]) -> (String, String) {
    let (recipe, _) = parse_in_folder(text, sets).unwrap_or_else(|error| panic!("{error}"));
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let file = |file: &HostFile| {
        let name = format!("inputs/{}", file.written.trim_start_matches(['.', '/']));
        let name = format!("{}.in", name.trim_end_matches('/'));
        put(&name, &"x".repeat(512));
        name
    };
    let names = Names {
        file: &file,
        mount: &file,
        fragment: "inputs/config",
    };
    let said = restate(&recipe, &names);
    put(
        "inputs/config",
        said.fragment.as_deref().unwrap_or_default(),
    );
    let path = folder.path().join("r.json");
    let again = parse(&said.recipe, &path, &BTreeMap::new());
    let (again, _) = again.unwrap_or_else(|errors| panic!("{errors:?}\n{}", said.recipe));
    (canonical(&recipe), canonical(&again))
}

/// Whatever a new key means must also be said by [`restate`].
#[test]
fn a_recipe_that_is_said_again_means_the_same() {
    let odd = "name: a\ndescription: \"$${x} $$${y} é \\u2028 '\\\"\\n\"\nrootfs:\n  source:\n    \
               debian: {suite: sid, variant: essential, mirror: 'http://m/debian/', recommends: true, \
               keyring: app, repositories: [{suite: sid-security, priority: 7}, \
               {suite: x, mirror: 'https://x', components: [a, b], keyring: app}]}\n\
               kernel:\n  source: {debian: {package: linux-source, suite: x}, target: x86_64, in: guest, \
               patches: [patches/series]}\n  config: [defconfig, ./site.config, base, {A: 'b c', B: 0x1}]\n  \
               modules: false\n  cmdline: [quiet]\n\
               devices: {conet: [], cobd: [{root: {free: 7%}}, {s: {filesystem: swap, size: 1MiB}}, \
               {d: {filesystem: ext4, size: 4100KiB, mount: /d}}, {f: {file: disc.iso, readonly: true}}]}\n";
    let sized = "name: a\nrootfs: {source: {tarball: {path: app, strip_components: 2}}}\n\
                 kernel: {package: {name: linux-image-amd64}}\n\
                 devices: {cobd: [{root: {size: 8MiB}}], memory: 70000KiB, cpus: 2}\n";
    let extras = "name: a\nrootfs:\n  source:\n    debian:\n      suite: sid\n      debs: [{path: app}]\n      \
                  exclude: {packages: [tzdata], paths: [/usr/share/doc/*, documentation, '/srv/*', locales], \
                  keep: [/usr/share/locale/de/*]}\n      debconf:\n        - |\n          # a\n          \
                  tzdata tzdata/Areas \\\n            select $${x} Europe\n";
    let steps = "name: a\nrootfs:\n  source: {tarball: {path: app}}\n  run:\n    - a $${b}\n    \
                 - {run: x, environment: {A: 'b c', B: '$${c}'}, user: 'u:7', workdir: /w, \
                 network: packages, mounts: [{source: patches, target: /p}], secrets: [s]}\n    \
                 - {script: app, network: false}\n    - {script: app, network: true}\n";
    let bare = "name: a\nrootfs: {source: {tarball: {url: 'http://x/y', sha256: \"${d}\"}}}\n\
                variables: {d: null}\nkernel: {modules: false, config: [{FOO: y}]}\n";
    let disk = "name: a\nrootfs: {source: {disk: {path: app, partition: 2, keep_state: true}}}\n";
    let named = "name: a\nrootfs: {source: {disk: {path: app, partition: 'a $${b}'}}}\n";
    let chained = "name: a\nrootfs: {source: {disk: {path: app, chain: [app, app]}}}\n";
    let digest = "a".repeat(64);
    let sets: &[(&str, &str)] = &[("d", &digest)];
    let full = FULL.replace("\"4755\"", "\"04755\"");
    for (text, sets) in [
        (&*full, &[][..]),
        (MINIMAL, &[]),
        (odd, &[]),
        (sized, &[]),
        (steps, &[]),
        (extras, &[]),
        (bare, sets),
        (disk, &[]),
        (named, &[]),
        (chained, &[]),
    ] {
        let (first, again) = restated(text, sets);
        assert_eq!(first, again);
    }
}
