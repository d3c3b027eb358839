//! `run:` steps: who runs them and where, what they see of the host, what they reach, what is kept
//! of what they write, and what is left of it all.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;

use crate::support::{
    BUILD_DEADLINE, RUN_DEADLINE, coop, coop_in, give, own_cache, run, small_archive, temp_folder,
};
use crate::terminal::Terminal;

/// A name that no earlier run had, so that the store has no step of it.
fn new_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap().to_string_lossy();
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// A recipe on the small archive.
fn recipe(folder: &Path, rest: &str) -> String {
    let archive = small_archive().display();
    format!(
        "name: steps\n\
         rootfs:\n  \
           source: {{tarball: {{path: {archive}}}}}\n  \
           hostname: {}\n\
         {rest}\n\
         kernel: {{package: {{name: user-mode-linux, suite: sid}}}}\n\
         devices: {{cobd: [root: {{free: 0%}}]}}\n",
        new_name(folder)
    )
}

fn cat(folder: &Path, paths: &[&str]) -> String {
    let mut words = vec!["run", "out/steps", "--", "cat"];
    words.extend(paths);
    let mut command = coop();
    command.current_dir(folder).args(words);
    run(&mut command, RUN_DEADLINE).expect(0).text()
}

#[test]
fn a_step_has_what_its_recipe_says_and_leaves_no_more() {
    let folder = temp_folder();
    let at = folder.path();
    fs::create_dir_all(at.join("src/sub")).unwrap();
    fs::write(at.join("src/sub/a"), "from the host\n").unwrap();
    fs::write(at.join("tool"), "#!/bin/sh\necho by the tool\n").unwrap();
    fs::set_permissions(at.join("tool"), PermissionsExt::from_mode(0o700)).unwrap();
    for path in ["src", "src/sub", "src/sub/a", "tool"] {
        give(&at.join(path));
    }
    let steps = r#"  files: [{path: /srv/mine/.keep, content: "", owner: app}]
  users: [{name: app, uid: 1234, groups: [disk]}]
  run:
    - run: "[ \"$A\" = 'b c' ] && echo \"$A\" > /srv/environment"
      environment: {A: b c}
    - run: |
        while read -r name value; do
          case $name in Uid:|Gid:|Groups:) echo $name $value;; esac
        done < /proc/self/status > /tmp/ids
        { echo "$HOME $USER"; cat /tmp/ids; pwd; } > /tmp/said
        cat /tmp/said
        [ ! -w /etc/passwd ]
      user: app
      workdir: /tmp
    - run: cat sub/a > /srv/seen; /opt/tools/tool >> /srv/seen; ! echo x > sub/a
      workdir: /mnt/src
      mounts: [{source: ./src, target: /mnt/src}, {source: ./tool, target: /opt/tools/tool}]
    - run: "[ ! -e /mnt ] && [ ! -e /opt ] && [ ! -e /run/secrets ] && [ ! -e /coop-build/x ]"
    - {run: "[ ! -e /sys/class/net/eth0 ]", network: false}"#;
    fs::write(at.join("r.yaml"), recipe(at, steps)).unwrap();
    let built = coop_in(at, &["build", "r.yaml", "--json"]).expect(0);
    assert_eq!(
        cat(at, &["/srv/environment", "/srv/seen"]),
        "b c\nfrom the host\nby the tool\n"
    );
    let made: serde_json::Value = serde_json::from_slice(&built.stdout).unwrap();
    let log = made["log"].as_str().unwrap();
    let log = fs::read_to_string(log).unwrap();
    for line in [
        "/home/app app\nUid: 1234 1234 1234 1234\nGid: 1234 1234 1234 1234\nGroups: 6\n/tmp\n",
        "== run: cat sub/a",
    ] {
        let plain = log.replace('\t', " ");
        assert!(plain.contains(line), "{log}");
    }
    // Nothing to do: neither owners nor times of what is mounted matter.
    let touched = fs::File::options()
        .write(true)
        .open(at.join("src/sub/a"))
        .unwrap();
    touched
        .file()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let done = coop_in(at, &["build", "r.yaml"]).expect(0);
    assert!(done.stderr.contains("up to date"), "{}", done.stderr);
    fs::write(at.join("src/sub/a"), "changed\n").unwrap();
    coop_in(at, &["build", "r.yaml"]).expect(0);
    assert!(cat(at, &["/srv/seen"]).starts_with("changed\n"));
}

#[test]
fn a_secret_reaches_its_step_and_nothing_else() {
    const SECRET: &str = "correct-horse-battery-9127";
    let folder = temp_folder();
    let at = folder.path();
    let steps = r#"  users: [{name: app, uid: 1234}]
  run:
    - run: |
        value=$(cat /run/secrets/token)
        [ $${#value} = 26 ]
        echo "it begins with $${value%-battery*}"
        echo "the whole is $value" >&2
        ! echo x 2>/dev/null > /run/secrets/other
      user: app
      secrets: [token]
    - "[ ! -e /run/secrets ] && echo done > /srv-done""#;
    fs::write(at.join("r.yaml"), recipe(at, steps)).unwrap();
    fs::write(at.join("token"), format!("{SECRET}\n")).unwrap();
    give(&at.join("token"));
    let missing = coop_in(at, &["build", "r.yaml"]);
    assert_eq!(missing.code(), Some(1));
    assert!(
        missing.stderr.contains("--secret token=FILE"),
        "{}",
        missing.stderr
    );
    let words = ["build", "r.yaml", "--secret", "token=token"];
    let unasked = coop_in(at, &[&words[..], &["--secret", "x=env:HOME"]].concat());
    assert_eq!(unasked.code(), Some(1));
    assert!(
        unasked.stderr.contains("no step of the recipe asks"),
        "{}",
        unasked.stderr
    );
    // A cache of its own, which can be searched.
    let mut command = coop();
    let cache = own_cache(at);
    command
        .current_dir(at)
        .env("COOP_CACHE", &cache)
        .args([&words[..], &["--json"]].concat());
    let built = run(&mut command, BUILD_DEADLINE).expect(0);
    let shown = built.stderr.clone();
    assert!(shown.contains("the whole is ***"), "{shown}");
    assert!(!shown.contains(SECRET));
    fs::remove_file(at.join("token")).unwrap();
    let found = files_with(at, SECRET.as_bytes());
    assert!(found.is_empty(), "{found:?}");
    let mut command = coop();
    command
        .current_dir(at)
        .args(["build", "r.yaml", "-o", "again"])
        .args(["--secret", "token=env:TOKEN"])
        .env("TOKEN", SECRET.replace("horse", "sheep"));
    run(&mut command, BUILD_DEADLINE).expect(0);
    // Another value is the same build.
    for file in ["root.cobd", "appliance.json"] {
        let read = |folder: &str| fs::read(at.join(folder).join(file)).unwrap();
        assert!(read("out/steps") == read("again"), "{file}");
    }
}

/// The files below a folder that hold some bytes.
fn files_with(folder: &Path, wanted: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            found.extend(files_with(&path, wanted));
        } else if memchr(&fs::read(&path).unwrap_or_default(), wanted) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn memchr(bytes: &[u8], wanted: &[u8]) -> bool {
    let first = wanted[0];
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        rest = &rest[at..];
        if rest.starts_with(wanted) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[test]
fn a_failure_shows_the_last_lines_and_the_log() {
    let folder = temp_folder();
    let at = folder.path();
    let steps = "  run: [echo first, 'i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); done; exit 3']";
    fs::write(at.join("r.yaml"), recipe(at, steps)).unwrap();
    let failed = coop_in(at, &["build", "r.yaml", "--progress", "none"]);
    assert_eq!(failed.code(), Some(1));
    let said = &failed.stderr;
    assert!(said.contains("exited with 3 in the guest"), "{said}");
    assert!(
        said.contains(" line 39\n") && !said.contains(" line 19\n"),
        "{said}"
    );
    let path = said.split("wrote is in ").nth(1).unwrap();
    let path = path.lines().next().unwrap();
    let log = fs::read_to_string(path).unwrap();
    assert!(
        log.starts_with("== run: echo first\nfirst\n== run: i=0"),
        "{log}"
    );
    assert!(log.contains("line 0\nline 1\n"), "{log}");
    assert!(said.contains("--debug-shell"), "{said}");
    assert!(!at.join("out").join("steps").exists());
}

#[test]
fn with_a_lock_a_step_has_pinned_packages_and_no_world() {
    let folder = temp_folder();
    let at = folder.path();
    // The name server and the world are asked for in ways that need nothing but bash.
    let recipe = r#"
name: steps
rootfs:
  hostname: NAME
  source: {debian: {suite: trixie, packages: [apt], variant: essential}}
  run:
    - |
      set -e
      apt-get update
      apt-get install -y hello
      hello > /srv/said
    - script: ./world
    - {script: ./nothing, network: false}
kernel: {package: {name: user-mode-linux, suite: sid}}
devices: {cobd: [root: {free: 0%}]}
"#;
    let files = [
        ("r.yaml", &*recipe.replace("NAME", &new_name(at))),
        (
            "world",
            "#!/bin/bash\n\
             ! getent hosts www.example.org || exit 1\n\
             ! (exec 3<>/dev/tcp/203.0.113.80/80) || exit 2\n\
             exec 3<>/dev/tcp/10.0.2.2/3142 || exit 3\n\
             printf 'GET http://198.51.100.7/a HTTP/1.1\\r\\n\\r\\n' >&3\n\
             read -r answer <&3\n\
             echo \"$answer\"\n\
             [ -n \"$APT_CONFIG\" ] && [ ! -e /etc/apt/apt.conf ]\n",
        ),
        (
            "nothing",
            "#!/bin/bash\n[ -z \"$APT_CONFIG\" ] && ! (exec 3<>/dev/tcp/10.0.2.2/3142)\n",
        ),
    ];
    for (name, text) in files {
        fs::write(at.join(name), text).unwrap();
    }
    coop_in(at, &["lock", "r.yaml"]).expect(0);
    let built = coop_in(at, &["build", "r.yaml", "--locked"]).expect(0);
    let answer = "HTTP/1.1 404 none of the files of the recipe's suites";
    assert!(built.stderr.contains(answer), "{}", built.stderr);
    assert_eq!(cat(at, &["/srv/said"]), "Hello, world!\n");
    // All of it is in the store now.
    let words = ["build", "r.yaml", "--locked", "--offline", "-o", "again"];
    coop_in(at, &words).expect(0);
    let read = |folder: &str| fs::read(at.join(folder).join("root.cobd")).unwrap();
    assert!(read("out/steps") == read("again"));
}

#[test]
fn a_debug_shell_is_in_the_guest_as_it_was() {
    let folder = temp_folder();
    let at = folder.path();
    let steps = r#"  run:
    - run: echo made > /srv-made; echo in memory > /tmp/made; exit 9
      environment: {WHICH: the step's}
      workdir: /tmp
      mounts: [{source: r.yaml, target: /mnt/recipe}]"#;
    fs::write(at.join("r.yaml"), recipe(at, steps)).unwrap();
    let refused = coop_in(at, &["build", "r.yaml", "--debug-shell"]);
    assert_eq!(refused.code(), Some(2));
    assert!(
        refused.stderr.contains("needs a terminal"),
        "{}",
        refused.stderr
    );
    let (file, output) = (at.join("r.yaml"), at.join("out"));
    let [file, output] = [&file, &output].map(|path| path.to_str().unwrap());
    let words = [
        "build",
        "--debug-shell",
        "--progress",
        "none",
        "-o",
        output,
        file,
    ];
    let mut terminal = Terminal::start(&words, BUILD_DEADLINE);
    terminal.expect("exited with 9 in the guest");
    terminal.expect("a shell in the guest as the step left it");
    terminal.send("cat made /srv-made; echo \"$PWD, $WHICH\"; read -r a < /mnt/recipe; echo $a\r");
    terminal.expect("in memory");
    terminal.expect("made");
    terminal.expect("/tmp, the step's");
    terminal.expect("name: steps");
    terminal.send("exit\r");
    assert_eq!(terminal.end(), Some(1));
    assert!(!at.join("out").exists());
}
