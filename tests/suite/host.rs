//! `coop test`, `schema`, `completions` and `doctor`, from outside.

use std::time::Duration;

use fs_err as fs;

use crate::support::{self, Done, RUN_DEADLINE, give, small_archive, temp_folder};

/// No run without a guest takes so long.
const DEADLINE: Duration = Duration::from_secs(60);

#[track_caller]
fn coop(words: &[&str], code: i32) -> Done {
    support::run(support::coop().args(words), DEADLINE).expect(code)
}

#[test]
fn the_steps_of_a_recipe_are_tested_in_its_guest() {
    let folder = temp_folder();
    let recipe = folder.path().join("t.yaml");
    let archive = small_archive().display();
    let with = |steps: &str, code: i32| {
        let text = format!(
            "name: t\nrootfs: {{source: {{tarball: {{path: {archive}}}}}}}\n\
             devices: {{memory: 128MiB}}\n{steps}"
        );
        fs::write(&recipe, text).unwrap();
        give(&recipe);
        let mut command = support::coop();
        command.current_dir(folder.path());
        command.args(["test", "t.yaml", "--json", "--progress", "none"]);
        let done = support::run(&mut command, RUN_DEADLINE).expect(code);
        serde_json::from_slice::<serde_json::Value>(&done.stdout).unwrap()
    };
    let value = with("test: [{run: cat /etc/os-release, expect: Debian}]\n", 0);
    assert_eq!(value["passed"], true);
    let steps = "test:\n  - {run: cat /etc/os-release, expect: Debian}\n  - run: echo no >&2; exit 3\n  \
                 - {run: echo hello, expect: bye}\n  - {run: sleep 1000, timeout: 1s}\n  \
                 - {run: echo after, expect: after}\n";
    let value = with(steps, 1);
    assert_eq!(value["passed"], false);
    let told: Vec<_> = value["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["outcome"].as_str().unwrap())
        .collect();
    let expected = ["passed", "exited", "unexpected", "timed_out", "passed"];
    assert_eq!(told, expected);
    assert_eq!(value["steps"][1]["exit_code"], 3);
    assert_eq!(value["steps"][1]["output"], "no\n");
    let value = with("", 2);
    let message = value["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("no steps under test:"), "{message}");
}

#[test]
fn what_other_programs_read_of_coop_is_printed() {
    let schema = coop(&["schema"], 0);
    let value: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert!(value["properties"]["rootfs"].is_object());
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = coop(&["completions", shell], 0).text();
        assert!(script.contains("completions"), "{shell}");
    }
    coop(&["completions", "csh"], 2);
}

#[test]
fn the_doctor_says_what_is_missing_and_how_to_help() {
    let done = coop(&["doctor", "--json"], 0);
    let value: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(value["able"], true);
    let findings = value["findings"].as_array().unwrap();
    assert!(findings.iter().any(|one| one["what"] == "landlock"));
    for one in findings {
        assert_eq!(one["hint"].is_null(), one["state"] == "good", "{one}");
    }
    let mut command = support::coop();
    command.args(["doctor"]).env("COOP_CACHE", "/proc/none");
    let done = support::run(&mut command, DEADLINE).expect(1);
    assert!(done.text().contains("missing  cache: "), "{}", done.text());
}
