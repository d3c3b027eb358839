//! `coop import` and `coop run @FILE`, from outside.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;

use crate::support::{self, Done, RUN_DEADLINE, give, small, temp_folder};

/// No run without a guest takes so long.
const DEADLINE: Duration = Duration::from_secs(60);

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../builder/src/import/golden")
}

#[track_caller]
fn coop(folder: &Path, words: &[&str], code: i32) -> Done {
    let mut command = support::coop();
    command.args(words).current_dir(folder);
    support::run(&mut command, DEADLINE).expect(code)
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    give(&path);
}

/// Every image that a golden configuration names.
fn images(folder: &Path) {
    let sub = folder.join("images");
    fs::create_dir(&sub).unwrap();
    give(&sub);
    for name in [
        "root fs.img",
        "root_fs",
        "root.img",
        "swap",
        "swap.img",
        "swap & more",
        "scratch.img",
        "extra.img",
        "images/home.img",
    ] {
        write(folder, name, vec![0; 4096]);
    }
}

/// Each recipe is the golden one, and right.
#[test]
fn every_golden_configuration_becomes_a_right_recipe() {
    let folder = temp_folder();
    let folder = folder.path();
    images(folder);
    let more = fs::read(golden().join("full.more.conf")).unwrap();
    write(folder, "more.conf", more);
    let mut count = 0;
    for entry in fs::read_dir(golden()).unwrap() {
        let recipe = entry.unwrap().path();
        let name = recipe.file_stem().unwrap().to_str().unwrap().to_owned();
        if recipe
            .extension()
            .is_none_or(|extension| extension != "yaml")
        {
            continue;
        }
        write(folder, &name, fs::read(golden().join(&name)).unwrap());
        let shown = coop(folder, &["import", &name], 0);
        let expected = fs::read_to_string(&recipe).unwrap();
        assert_eq!(shown.text(), expected, "{name}");
        let output = format!("{name}.yaml");
        let done = coop(folder, &["import", &name, "-o", &output, "--json"], 0);
        let value: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(value["recipe"], expected, "{name}");
        assert_eq!(value["output"], *output, "{name}");
        let notes = value["notes"].as_array().unwrap();
        assert_eq!(notes.len(), shown.stderr.lines().count(), "{name}");
        coop(folder, &["check", &output], 0);
        count += 1;
    }
    assert_eq!(count, 8);
}

#[test]
fn a_recipe_elsewhere_finds_the_images_and_none_is_overwritten() {
    let folder = temp_folder();
    let folder = folder.path();
    fs::create_dir(folder.join("recipes")).unwrap();
    give(&folder.join("recipes"));
    write(folder, "x.ini", "[NFS]\nserver=a\n[cobd]\npath_0=swap\n");
    write(folder, "swap", [0; 4096]);
    let words = ["import", "x.ini", "-o", "recipes/x.yaml"];
    let done = coop(folder, &words, 0);
    assert_eq!(done.text(), "recipes/x.yaml\n");
    coop(folder, &["check", "recipes/x.yaml"], 0);
    let recipe = fs::read(folder.join("recipes/x.yaml")).unwrap();
    let refused = coop(folder, &words, 2);
    assert!(
        refused.stderr.contains("is not overwritten"),
        "{}",
        refused.stderr
    );
    assert_eq!(fs::read(folder.join("recipes/x.yaml")).unwrap(), recipe);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let folder = temp_folder();
    let folder = folder.path();
    write(folder, "x.conf", "mem=1\n\ncobd0= cobd32=a\n@none.conf\n");
    for words in [&["import", "x.conf"][..], &["run", "@x.conf"]] {
        let done = coop(folder, words, 2);
        for part in [
            "x.conf:3: cobd0 has no value",
            "x.conf:3: cobd32",
            "x.conf:4: @none.conf",
        ] {
            assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
        }
        assert_eq!(done.text(), "");
    }
    write(folder, "x.conf", "cobd0=none.img\n");
    let done = coop(folder, &["run", "@x.conf"], 2);
    assert!(
        done.stderr.contains("x.conf:1: cobd0: there is no file"),
        "{}",
        done.stderr
    );
    coop(folder, &["import", "none.conf"], 2);
}

/// coLinux's way: the images where they are. What the guest writes is thrown away, or kept.
#[test]
fn a_configuration_boots_on_its_images() {
    let folder = temp_folder();
    let folder = folder.path();
    write(
        folder,
        "root_fs",
        fs::read(small().join("root.cobd")).unwrap(),
    );
    write(folder, "swap.img", [b's'; 8192]);
    let configuration = "kernel=vmlinux mem=128\n\"cobd0=c:\\coLinux\\root_fs\"\ncobd3=swap.img\n\
                         root=/dev/cobd0 ro from=colinux\n";
    write(folder, "x.conf", configuration);
    let run = |more: &[&str], line: &str| {
        let mut command = support::coop();
        command.current_dir(folder).args(["run", "@x.conf"]);
        command.args(more).args(["--", "sh", "-c", line]);
        support::run(&mut command, RUN_DEADLINE)
    };
    let line = "cat /proc/cmdline; cat /dev/cobd1; echo; test ! -e /kept && echo 1 > /kept";
    let done = run(&[], line).expect(0);
    let said = done.text();
    assert!(said.contains("from=colinux"), "{said}");
    assert!(!said.contains("root=/dev/cobd0"), "{said}");
    assert!(said.contains(&"s".repeat(8192)), "no second image");
    for part in [
        "x.conf:1: kernel=vmlinux: a kernel of coLinux runs inside of coLinux only",
        "x.conf:2: the root: coLinux ran programs of 32 bits",
        "x.conf:3: cobd3: is /dev/cobd1 in the guest",
    ] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    run(&["--persist"], line).expect(0);
    run(&[], "cat /kept; exit 7").expect(7);
}
