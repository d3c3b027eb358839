//! Kernels from source through the program: configuration, proof, build, menu, and what goes wrong.
//!
//! `kernel/tree` is a kernel tree in miniature that answers what coop asks of one in a second. Its
//! Kconfig is settled by a few lines of awk. `kernel_guests` has the real kernel.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use tempfile::TempDir;

use crate::support::{self, Done};
use crate::terminal::Terminal;

/// The fake kernel takes a second; the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(180);

/// What every kernel in miniature wants.
const BASE: &str = "# What a user-mode kernel has.\nCONFIG_STATIC_LINK=y\nCONFIG_MODULES=y\n";
const WHOLE: &str = "{NET: y, INET: y, FILTER: m}";

/// A place with the kernel's archive, fragments, a cache and a recipe.
struct Place {
    folder: TempDir,
    digest: String,
}

impl Place {
    /// `None` where this host cannot confine a stranger's makefiles or has no compiler.
    fn new() -> Option<Self> {
        if !support::oracle("gcc") || !support::oracle("bison") || !support::oracle("flex") {
            return None;
        }
        if !has_landlock() {
            eprintln!("skipped: this host's kernel has no landlock");
            return None;
        }
        let folder = support::temp_folder();
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/suite/kernel");
        let archive = folder.path().join("linux.tar");
        let made = Command::new("tar")
            .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0"])
            .args(["--transform=s,^tree,linux-7.2,", "-C"])
            .arg(tree)
            .arg("-cf")
            .arg(&archive)
            .arg("tree")
            .status();
        assert!(made.unwrap().success());
        let digest = support::sha256(&archive);
        let place = Self { folder, digest };
        place.write("base.config", BASE);
        let cache = place.path("cache");
        fs::create_dir(&cache).unwrap();
        support::give(&cache);
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A recipe with this entry of `kernel.config` behind the base, and more lines of the source.
    fn recipe(&self, config: &str, source: &str) -> PathBuf {
        let digest = &self.digest;
        self.write(
            "r.yaml",
            &format!(
                "name: small\nrootfs:\n  source:\n    debian: {{suite: trixie, packages: [nftables]}}\n\
                 kernel:\n  source:\n    tarball: {{path: ./linux.tar, sha256: {digest}}}\n{source}\
                 \x20 config: [./base.config, {config}]\n"
            ),
        )
    }

    fn coop(&self, words: &[&str]) -> Command {
        let mut command = support::coop();
        command
            .args(words)
            .current_dir(self.folder.path())
            .env("COOP_CACHE", self.path("cache"));
        command
    }

    #[track_caller]
    fn run(&self, words: &[&str], code: i32) -> Done {
        support::run(&mut self.coop(words), DEADLINE).expect(code)
    }

    /// Runs, and checks the code and that all of the texts are on stderr.
    #[track_caller]
    fn refused(&self, words: &[&str], code: i32, texts: &[&str]) -> Done {
        let done = self.run(words, code);
        for text in texts {
            assert!(
                done.stderr.contains(text),
                "no '{text}' in: {}",
                done.stderr
            );
        }
        assert!(!self.path("out").exists());
        done
    }
}

/// Whether the kernel lists Landlock among its security modules.
fn has_landlock() -> bool {
    // Where the list cannot be read, coop itself has the word.
    fs::read_to_string("/sys/kernel/security/lsm").map_or(true, |list| list.contains("landlock"))
}

#[test]
fn a_configuration_is_shown_in_every_view() {
    let Some(place) = Place::new() else { return };
    place.recipe(WHOLE, "");
    let config = place.run(&["kernel", "config", "r.yaml"], 0).text();
    assert!(config.contains("\nCONFIG_FILTER=m\n"), "{config}");
    assert!(
        config.contains("\n# CONFIG_EXT4_FS is not set\n"),
        "{config}"
    );
    let minimal = place.run(&["kernel", "config", "r.yaml", "--minimal"], 0);
    assert!(!minimal.text().contains("CONFIG_UML"), "{}", minimal.text());
    assert!(!minimal.stderr.contains("unpack"), "{}", minimal.stderr);
    let wanted = place
        .run(&["kernel", "config", "r.yaml", "--wanted"], 0)
        .text();
    assert!(
        wanted.contains("CONFIG_STATIC_LINK=y  ./base.config:2\n"),
        "{wanted}"
    );
    assert!(wanted.contains("recipe:8\n"), "{wanted}");
    let json = place.run(&["kernel", "config", "r.yaml", "--json"], 0);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["target"], "um");
    assert_eq!(value["symbols"]["CONFIG_FILTER"], "m");
    assert_eq!(value["symbols"]["CONFIG_EXT4_FS"], "n");
}

#[test]
fn configurations_are_compared_and_the_exit_code_says_how_it_went() {
    let Some(place) = Place::new() else { return };
    let own = place.recipe(WHOLE, "");
    let other = place.path("other.yaml");
    fs::copy(&own, &other).unwrap();
    place.recipe("{NET: y, OVERLAY_FS: y, LOG_BUF_SHIFT: 17}", "");
    let diff =
        |other: &str, code| place.run(&["kernel", "config", "r.yaml", "--diff", other], code);
    assert_eq!(diff("r.yaml", 0).text(), "");
    assert_eq!(
        diff("other.yaml", 1).text(),
        "CONFIG_FILTER: n → m\nCONFIG_INET: n → y\nCONFIG_LOG_BUF_SHIFT: 17 → 14\n\
         CONFIG_OVERLAY_FS: y → n\n"
    );
    let text = place.run(&["kernel", "config", "r.yaml"], 0).text();
    place.write(
        "some.config",
        &text.replace("CONFIG_NET=y", "# CONFIG_NET is not set"),
    );
    assert_eq!(diff("some.config", 1).text(), "CONFIG_NET: y → n\n");
    diff("missing.config", 2);
    diff("linux.tar", 2);
    let json = place.run(
        &[
            "kernel",
            "config",
            "r.yaml",
            "--diff",
            "some.config",
            "--json",
        ],
        1,
    );
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["count"], 1);
    assert_eq!(value["differences"][0]["symbol"], "CONFIG_NET");
}

#[test]
fn a_kernel_is_built_once_and_written_as_a_folder() {
    let Some(place) = Place::new() else { return };
    place.recipe(WHOLE, "");
    let out = place.path("kernel");
    let words = ["kernel", "build", "r.yaml", "--progress", "plain", "-o"];
    let build = |code| {
        let mut command = place.coop(&words);
        command.arg(place.path("made/kernel"));
        support::run(&mut command, DEADLINE).expect(code)
    };
    support::give(place.folder.path());
    let first = build(0);
    assert!(
        first.stderr.contains("compile the kernel"),
        "{}",
        first.stderr
    );
    let out = if out.exists() {
        out
    } else {
        place.path("made/kernel")
    };
    let digest = support::sha256(&out.join("vmlinux"));
    for name in ["config", "defconfig", "kernel.json", "modules.tar"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let list = Command::new("tar")
        .arg("-tf")
        .arg(out.join("modules.tar"))
        .output();
    let list = String::from_utf8(list.unwrap().stdout).unwrap();
    for name in [
        "kernel/drivers/filter.ko",
        "modules.dep",
        "modules.alias.bin",
    ] {
        let path = format!("lib/modules/7.2.0-small/{name}");
        assert!(list.contains(&path), "{path} is not in {list}");
    }
    let second = build(0);
    assert!(!second.stderr.contains("compile"), "{}", second.stderr);
    assert_eq!(support::sha256(&out.join("vmlinux")), digest);
    // The folder is a kernel, so it can be compared; somebody else's folder is not replaced.
    let path = out.display().to_string();
    place.run(&["kernel", "config", "r.yaml", "--diff", &path], 0);
    let mine = place.path("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("letter"), "dear").unwrap();
    place.refused(&["kernel", "build", "r.yaml", "-o", "mine"], 1, &["mine"]);
    let listed = place.run(&["kernel", "list", "--json"], 0);
    let value: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(value["kernels"][0]["release"], "7.2.0-small");
    assert_eq!(value["kernels"].as_array().unwrap().len(), 1);
    // Without the cache, in another place, it is the same kernel.
    fs::remove_dir_all(place.path("cache")).unwrap();
    fs::create_dir(place.path("cache")).unwrap();
    support::give(&place.path("cache"));
    assert!(build(0).stderr.contains("compile the kernel"));
    assert_eq!(support::sha256(&out.join("vmlinux")), digest);
}

#[test]
fn a_symbol_that_did_not_hold_is_named_with_its_reason() {
    let Some(place) = Place::new() else { return };
    place.recipe("{FILTER: m, INETT: y}", "");
    let words = ["kernel", "build", "r.yaml"];
    let texts = [
        "CONFIG_FILTER is n, not m (recipe:8)",
        "INET",
        "NET",
        "CONFIG_INETT is n, not y (recipe:8)",
        "no such symbol",
        "hint: ",
        "--allow-dropped",
    ];
    place.refused(&words, 1, &texts);
    let texts = ["warning: CONFIG_FILTER is n", "warning: CONFIG_INETT is n"];
    let words = ["kernel", "config", "r.yaml", "--allow-dropped"];
    let done = place.refused(&words, 0, &texts);
    assert!(done.text().contains("# CONFIG_INET is not set") || !done.text().contains("INET="));
}

#[test]
fn two_places_that_contradict_each_other_are_both_named() {
    let Some(place) = Place::new() else { return };
    place.recipe("{MODULES: n}", "");
    let text = "CONFIG_MODULES is wanted as y by ./base.config:3 and as n by recipe:8";
    place.refused(&["kernel", "config", "r.yaml"], 0, &[text]);
    place.refused(&["kernel", "config", "r.yaml", "--wanted"], 0, &[text]);
}

#[test]
fn missing_tools_are_named_all_at_once() {
    let Some(place) = Place::new() else { return };
    let recipe = place.recipe(WHOLE, "");
    let empty = place.path("empty");
    fs::create_dir(&empty).unwrap();
    let mut command = support::unprivileged("/usr/bin/env");
    support::plain_environment(&mut command);
    command
        .arg(format!("PATH={}", empty.display()))
        .arg(support::program())
        .args(["kernel", "build"])
        .arg(recipe)
        .env("COOP_CACHE", place.path("cache"))
        .current_dir(place.folder.path());
    let done = support::run(&mut command, DEADLINE).expect(1);
    for text in ["make", "gcc", "flex", "bison", "bc", "apt-get install"] {
        assert!(
            done.stderr.contains(text),
            "no '{text}' in: {}",
            done.stderr
        );
    }
    assert!(!place.path("out").exists());
}

#[test]
fn a_failing_compilation_shows_its_error_and_the_log() {
    let Some(place) = Place::new() else { return };
    place.write(
        "break.patch",
        "--- a/kernel/fork.c\n+++ b/kernel/fork.c\n@@ -1,4 +1,4 @@\n int fork_one(void)\n {\n\
         -\treturn 0;\n+\treturn nothing;\n }\n",
    );
    place.recipe(WHOLE, "    patches: [./break.patch]\n");
    let texts = ["kernel/fork.c", "error:", "nothing", "the whole log is "];
    let done = place.refused(&["kernel", "build", "r.yaml"], 1, &texts);
    let (_, path) = done.stderr.split_once("the whole log is ").unwrap();
    let log = fs::read_to_string(path.lines().next().unwrap().trim()).unwrap();
    assert!(log.contains("fork.c") && log.contains("CC"), "{log}");
}

#[test]
fn a_patch_that_does_not_fit_names_file_and_hunk() {
    let Some(place) = Place::new() else { return };
    place.write(
        "bad.patch",
        "--- a/kernel/exit.c\n+++ b/kernel/exit.c\n@@ -1,3 +1,3 @@\n int somebody_else(void)\n {\n\
         -\treturn 5;\n+\treturn 6;\n",
    );
    place.recipe(WHOLE, "    patches: [./bad.patch]\n");
    let texts = ["bad.patch", "kernel/exit.c", "hunk 1"];
    place.refused(&["kernel", "config", "r.yaml"], 1, &texts);
}

#[test]
fn a_stranger_s_makefile_is_kept_where_it_is() {
    let Some(place) = Place::new() else { return };
    let secret = place.write("secret", "the user's own");
    place.write(
        "evil.patch",
        &format!(
            "--- a/scripts/kconfig/mconf\n+++ b/scripts/kconfig/mconf\n@@ -1,2 +1,2 @@\n #!/bin/sh\n\
             -# A menu of one line: takes settings from the terminal until it reads \"save\" or \
             \"quit\".\n+# nothing\n--- a/scripts/kconfig/conf\n+++ b/scripts/kconfig/conf\n\
             @@ -1,2 +1,3 @@\n #!/bin/sh\n+cat {0} && rm -f {0}; echo x > {0}\n # conf TARGET: settles \
             every symbol of Kconfig, in its order, and writes .config in $OUT.\n",
            secret.display()
        ),
    );
    support::give(&secret);
    place.recipe(WHOLE, "    patches: [./evil.patch]\n");
    let done = support::run(&mut place.coop(&["kernel", "config", "r.yaml"]), DEADLINE);
    assert!(!done.text().contains("the user's own"));
    assert_eq!(fs::read_to_string(&secret).unwrap(), "the user's own");
}

#[test]
fn the_menu_writes_what_was_changed() {
    let Some(place) = Place::new() else { return };
    if !Path::new("/usr/include/curses.h").exists() {
        eprintln!("skipped: ncurses' headers are missing");
        return;
    }
    let recipe = place.recipe(WHOLE, "").display().to_string();
    support::give(place.folder.path());
    let fragment = place.path("small.config");
    let words = ["kernel", "config", &recipe, "--menuconfig"];
    let mut terminal = Terminal::start(&words, DEADLINE);
    terminal.expect("menu> ");
    terminal.send("CONFIG_OVERLAY_FS=y\r");
    terminal.expect("menu> ");
    terminal.send("CONFIG_INET=n\r");
    terminal.expect("menu> ");
    terminal.send("save\r");
    terminal.expect("3 settings changed");
    terminal.expect("add ./small.config to kernel.config");
    assert_eq!(terminal.end(), Some(0));
    let text = fs::read_to_string(&fragment).unwrap();
    assert!(text.starts_with("# What the kernel of small has"), "{text}");
    let expected =
        "\n\n# CONFIG_FILTER is not set\n# CONFIG_INET is not set\nCONFIG_OVERLAY_FS=y\n";
    assert!(text.ends_with(expected), "{text}");
    // With the fragment, the recipe leads to what the menu has saved.
    place.recipe(&format!("{WHOLE}, ./small.config"), "");
    let config = place.run(&["kernel", "config", "r.yaml"], 0).text();
    assert!(config.contains("CONFIG_OVERLAY_FS=y") && !config.contains("FILTER=m"));
    let mut terminal = Terminal::start(&words, DEADLINE);
    terminal.expect("menu> ");
    terminal.send("quit\r");
    terminal.expect("nothing was changed");
    assert_eq!(terminal.end(), Some(0));
    assert_eq!(fs::read_to_string(&fragment).unwrap(), text);
    let piped = place.run(&["kernel", "config", "r.yaml", "--menuconfig"], 2);
    assert!(
        piped.stderr.contains("needs a terminal"),
        "{}",
        piped.stderr
    );
}

#[test]
fn check_names_the_packages_that_miss_something() {
    let Some(place) = Place::new() else { return };
    place.recipe(WHOLE, "");
    let texts = [
        "warning: package nftables needs CONFIG_NF_TABLES",
        "fragment 'netfilter'",
        "note: the kernel was not configured before",
        "note: the lists of suite 'trixie' are not in the cache",
    ];
    place.refused(&["check", "r.yaml"], 0, &texts);
    place.run(&["kernel", "config", "r.yaml"], 0);
    let known = place.refused(&["check", "r.yaml"], 0, &texts[..2]);
    assert!(!known.stderr.contains("not configured"), "{}", known.stderr);
    let json = place.run(&["check", "r.yaml", "--json"], 0);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["needs"][0]["package"], "nftables");
    assert!(value["needs"][0]["source"].is_string());
}

#[test]
fn wrong_usage_of_kernel_is_2() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("r.yaml"), "name: a\n").unwrap();
    for (words, part) in [
        (&["kernel"][..], "Usage: coop kernel"),
        (&["kernel", "confg"], "unrecognized subcommand"),
        (&["kernel", "config"], "required"),
        (&["kernel", "config", "none.yaml"], "no such file"),
        (&["kernel", "config", "r.yaml"], "rootfs"),
        (
            &["kernel", "config", "r.yaml", "--minimal", "--wanted"],
            "cannot be used with",
        ),
        (&["kernel", "config", "r.yaml", "-o", "x"], "--menuconfig"),
        (&["kernel", "build", "none.yaml"], "no such file"),
        (&["kernel", "list", "x"], "unexpected argument"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coop"));
        command.args(words).current_dir(home.path()).env_clear();
        command.env("COOP_CACHE", home.path().join("cache"));
        let done = support::run(&mut command, DEADLINE).expect(2);
        assert!(done.stderr.contains(part), "{words:?}: {}", done.stderr);
    }
}

#[test]
fn fragments_are_listed_with_what_they_are_for() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coop"));
    command.args(["kernel", "list", "--fragments"]).env_clear();
    let text = support::run(&mut command, DEADLINE).expect(0).text();
    for name in ["base", "containers", "virtio"] {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.len() > name.len() + 10, "{line}");
    }
}
