//! What appliances tell about themselves: complete, valid by others' word, the same wherever and
//! whenever they are built, and good for building them again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use serde_json::Value;

use crate::support::{
    self, BUILD_DEADLINE, Done, RUN_DEADLINE, coop, from_archive, in_debian, oracle, run, sha256,
    temp_folder,
};

/// Of every file of an appliance, by its path in there.
fn digests(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(name, sha256(&path));
            }
        }
    }
    found
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap()
}

/// Python with the validators, as COOP_TEST_SBOM_PYTHON names it.
fn validator() -> Option<Command> {
    let python = std::env::var_os("COOP_TEST_SBOM_PYTHON").unwrap_or_else(|| "python3".into());
    let mut probe = Command::new(&python);
    probe.args(["-c", "import spdx_tools.spdx, cyclonedx.validation.json"]);
    let there = probe.output().is_ok_and(|done| done.status.success());
    if !there {
        assert!(
            std::env::var_os("COOP_REQUIRE_ORACLES").is_none(),
            "spdx-tools and cyclonedx-python-lib[json-validation] are missing"
        );
        eprintln!("skipped: spdx-tools and cyclonedx-python-lib are missing");
        return None;
    }
    Some(Command::new(python))
}

/// Both validators bring their schemas; SPDX's also knows licences and what refers to what.
const VALIDATE: &str = r"
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
spdx, cyclonedx = sys.argv[1:]
wrong = [str(one.validation_message) for one in validate_full_spdx_document(parse_file(spdx), 'SPDX-2.3')]
text = open(cyclonedx, encoding='utf-8').read()
found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
wrong += [str(found)] if found else []
print('\n'.join(wrong[:20]) or 'valid')
sys.exit(bool(wrong))
";

#[test]
fn others_find_the_bills_of_materials_valid() {
    let evidence = support::debian().join("evidence");
    let Some(mut python) = validator() else {
        return;
    };
    python.args(["-c", VALIDATE]);
    python.arg(evidence.join("spdx.json"));
    python.arg(evidence.join("cyclonedx.json"));
    assert_eq!(run(&mut python, BUILD_DEADLINE).expect(0).text(), "valid\n");
}

#[test]
fn the_bills_of_materials_have_what_the_guest_has() {
    let evidence = support::debian().join("evidence");
    let spdx = json(&evidence.join("spdx.json"));
    let cyclonedx = json(&evidence.join("cyclonedx.json"));
    let format = "${Package} ${Version} ${Architecture}\n";
    let told = in_debian(&["dpkg-query", "-W", "-f", format]).expect(0);
    let installed: BTreeSet<String> = told.text().lines().map(str::to_owned).collect();
    let of_component = |one: &Value| {
        let purl = one["purl"].as_str()?;
        let arch = purl.split("arch=").nth(1)?.split('&').next()?;
        let (name, version) = (one["name"].as_str()?, one["version"].as_str()?);
        assert!(purl.starts_with("pkg:deb/debian/"), "{purl}");
        assert!(purl.ends_with("&distro=trixie"), "{purl}");
        assert!(one["hashes"][0]["content"].as_str()?.len() == 64);
        Some(format!("{name} {version} {arch}"))
    };
    let components = list(&cyclonedx, "components").iter();
    let listed: BTreeSet<String> = components.filter_map(of_component).collect();
    assert_eq!(listed, installed);
    // The files' owners, by dpkg's own list.
    let mut ids = BTreeMap::new();
    for package in list(&spdx, "packages") {
        ids.insert(
            package["SPDXID"].as_str().unwrap(),
            package["name"].as_str().unwrap(),
        );
    }
    let mut owners = BTreeMap::new();
    for relation in list(&spdx, "relationships") {
        let owner = ids.get(relation["spdxElementId"].as_str().unwrap());
        owners.insert(relation["relatedSpdxElement"].as_str().unwrap(), owner);
    }
    let owner_of = |path: &str| {
        let mut files = list(&spdx, "files").iter();
        let file = files.find(|file| file["fileName"] == path).unwrap();
        *owners[file["SPDXID"].as_str().unwrap()].unwrap()
    };
    assert_eq!(owner_of("./usr/bin/dash"), "dash");
    assert_eq!(owner_of("./usr/bin/bash"), "bash");
    let files = in_debian(&["sha1sum", "/usr/bin/dash"]).expect(0);
    let sum = files.text().split(' ').next().unwrap().to_owned();
    let mut dash = list(&spdx, "files").iter();
    let dash = dash
        .find(|file| file["fileName"] == "./usr/bin/dash")
        .unwrap();
    assert_eq!(dash["checksums"][0]["checksumValue"], *sum);
}

#[test]
fn the_provenance_is_a_statement_about_every_file() {
    let debian = support::debian();
    let statement = json(&debian.join("evidence/provenance.json"));
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let named: BTreeMap<PathBuf, String> = list(&statement, "subject")
        .iter()
        .map(|one| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&one["name"]).into(), text(&one["digest"]["sha256"]))
        })
        .collect();
    let mut all = digests(debian);
    all.retain(|path, _| !path.starts_with("evidence") && path != Path::new("appliance.json"));
    assert_eq!(named, all);
    let definition = &statement["predicate"]["buildDefinition"];
    let lock = json(&debian.join("evidence/lock.json"));
    let known: BTreeSet<&str> = list(definition, "resolvedDependencies")
        .iter()
        .map(|one| one["digest"]["sha256"].as_str().unwrap())
        .collect();
    for package in list(&lock, "answers")
        .iter()
        .flat_map(|one| one["packages"].as_array())
        .flatten()
    {
        assert!(
            known.contains(package["sha256"].as_str().unwrap()),
            "{package}"
        );
    }
    for suite in list(&lock, "suites") {
        assert!(
            known.contains(suite["inrelease"].as_str().unwrap()),
            "{suite}"
        );
    }
}

/// A system that is built in seconds, with a file of the host's, a user and a step.
const RECIPE: &str = "\
name: evident
rootfs:
  source:
    debian: {suite: trixie, variant: essential}
  files:
    - {path: /opt/app, source: ./app, mode: 0o755}
  users:
    - {name: ann, password: {plain: geheim}}
  run:
    - id > /opt/what
kernel: {package: {name: user-mode-linux, suite: sid}}
";

fn write_recipe(at: &Path) {
    fs::write(at.join("r.yaml"), RECIPE).unwrap();
    fs::write(at.join("app"), "#!/bin/sh\n").unwrap();
}

/// `coop build` under a program that changes what is around it.
fn build_under(wrapper: &[&str], recipe: &Path, output: &Path, cwd: &Path) -> Done {
    let mut command = match wrapper {
        [] => coop(),
        [program, words @ ..] => {
            let mut command = support::unprivileged(program);
            support::plain_environment(&mut command);
            command.args(words).arg(support::program());
            command
        }
    };
    command.arg("build").arg(recipe).arg("-o").arg(output);
    command.args(["--progress", "none"]).current_dir(cwd);
    run(&mut command, BUILD_DEADLINE)
}

#[test]
fn nothing_around_a_build_reaches_its_files() {
    let folder = temp_folder();
    let at = folder.path();
    write_recipe(at);
    let recipe = at.join("r.yaml");
    let build = |name: &str, wrapper: &[&str]| {
        build_under(wrapper, &recipe, &at.join(name), at).expect(0);
        digests(&at.join(name))
    };
    let first = build("first", &[]);
    let secret = |path: &PathBuf| {
        let bytes = fs::read(at.join("first").join(path)).unwrap();
        bytes.windows(6).any(|part| part == b"geheim")
    };
    assert!(
        !first
            .keys()
            .filter(|path| path.starts_with("evidence"))
            .any(secret)
    );
    let mut lock = coop();
    lock.args(["lock", "r.yaml"]).current_dir(at);
    run(&mut lock, BUILD_DEADLINE).expect(0);
    let around = [
        "env",
        "TZ=Pacific/Chatham",
        "LC_ALL=tr_TR.UTF-8",
        "HOME=/tmp",
    ];
    assert_eq!(build("locked", &around), first);
    assert_eq!(
        build("umask", &["sh", "-c", "umask 077; exec \"$@\"", "sh"]),
        first
    );
    assert_eq!(build("one", &["taskset", "-c", "0"]), first);
    if oracle("faketime") {
        assert_eq!(build("later", &["faketime", "-f", "+370d"]), first);
    }
    // Another folder, another file system, another user.
    let memory = tempfile::Builder::new()
        .prefix("coop-suite-")
        .tempdir_in("/dev/shm")
        .unwrap();
    for name in ["r.yaml", "r.yaml.lock", "app"] {
        fs::copy(at.join(name), memory.path().join(name)).unwrap();
    }
    support::give(memory.path());
    let output = memory.path().join("out");
    build_under(&[], &memory.path().join("r.yaml"), &output, memory.path()).expect(0);
    assert_eq!(digests(&output), first);
    identical_when_built_again(&output);
}

/// From a copy that knows nothing of where it was built.
fn identical_when_built_again(appliance: &Path) {
    let folder = temp_folder();
    let copy = folder.path().join("copy");
    let mut cp = support::unprivileged("cp");
    cp.args(["-a", "--sparse=always"]).arg(appliance).arg(&copy);
    run(&mut cp, RUN_DEADLINE).expect(0);
    let verify = |words: &[&str]| {
        let mut command = coop();
        command
            .args(["verify", "copy", "--progress", "none"])
            .args(words);
        command.current_dir(folder.path());
        run(&mut command, BUILD_DEADLINE)
    };
    verify(&[]).expect(0);
    let done = verify(&["--rebuild"]).expect(0);
    assert!(done.text().starts_with("identical: "), "{}", done.text());
    if oracle("debugfs") {
        let mut change = support::unprivileged("debugfs");
        support::plain_environment(&mut change);
        change.args(["-w", "-R", "set_inode_field /etc/hostname mode 0100600"]);
        change.arg(copy.join("root.cobd"));
        run(&mut change, RUN_DEADLINE).expect(0);
        let done = verify(&[]);
        assert_eq!(done.code(), Some(1), "{}", done.text());
        seal(&copy, "root.cobd");
        let done = verify(&["--rebuild"]);
        assert_eq!(done.code(), Some(1), "{}", done.stderr);
        let expected = "root.cobd: /etc/hostname: mode: 0600, 0644\n";
        assert_eq!(done.text(), expected, "{}", done.stderr);
    }
    fs::write(copy.join("more"), "").unwrap();
    let done = verify(&[]);
    assert_eq!(done.code(), Some(1));
    assert!(done.stderr.contains("'more'"), "{}", done.stderr);
}

/// Makes the manifest tell of a file as it is now.
fn seal(appliance: &Path, name: &str) {
    let path = appliance.join("appliance.json");
    let mut manifest = json(&path);
    let digest = sha256(&appliance.join(name));
    let size = fs::metadata(appliance.join(name)).unwrap().len();
    let mut sealed = 0;
    let mut pending = vec![&mut manifest];
    while let Some(value) = pending.pop() {
        if value["path"] == name {
            value["sha256"] = digest.clone().into();
            value["size_bytes"] = size.into();
            sealed += 1;
            continue;
        }
        match value {
            Value::Object(map) => pending.extend(map.values_mut()),
            Value::Array(list) => pending.extend(list),
            _ => {}
        }
    }
    assert_eq!(sealed, 1, "{name}");
    fs::write(path, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
}

/// An archive is too large to be kept with the evidence: it is found by its digest, under any name.
#[test]
fn large_files_are_searched_for() {
    let folder = temp_folder();
    let at = folder.path();
    let build = |output: &str, archive: &Path| {
        let words: [OsString; 3] = from_archive(archive);
        let mut command = coop();
        command
            .args(["build", "--progress", "none", "-o", output])
            .args(words);
        run(command.current_dir(at), BUILD_DEADLINE).expect(0);
    };
    build("one", support::small_archive());
    fs::create_dir_all(at.join("deep/er")).unwrap();
    let last = support::small_archive().file_name().unwrap();
    let moved = at.join("deep/er").join(last);
    fs::copy(support::small_archive(), &moved).unwrap();
    support::give(&at.join("deep"));
    // Where it lies is not told.
    build("two", &moved);
    assert_eq!(digests(&at.join("one")), digests(&at.join("two")));
    let verify = |context: &str| {
        let mut command = coop();
        command.args([
            "verify",
            "--rebuild",
            "one",
            "--progress",
            "none",
            "--context",
            context,
        ]);
        run(command.current_dir(at), BUILD_DEADLINE)
    };
    verify("deep").expect(0);
    let done = verify("one");
    assert_eq!(done.code(), Some(1));
    assert!(done.stderr.contains("small.tar"), "{}", done.stderr);
    // What a stranger's recipe may not do.
    let recipe = at.join("one/evidence/recipe.json");
    let text = fs::read_to_string(&recipe).unwrap();
    let start = text.find("inputs/").unwrap();
    let end = start + text[start..].find('"').unwrap();
    let name = text[start..end].to_owned();
    for (other, part) in [
        ("/etc/passwd", "none of the files"),
        ("inputs/../../../etc/passwd", "none of the files"),
    ] {
        fs::write(&recipe, text.replace(&name, other)).unwrap();
        seal(&at.join("one"), "evidence/recipe.json");
        let done = verify("deep");
        assert_eq!(done.code(), Some(1));
        assert!(done.stderr.contains(part), "{}", done.stderr);
        assert!(!done.stderr.contains("root:"), "{}", done.stderr);
    }
    fs::write(&recipe, text.replace("\"tarball\",", "\"other\",")).unwrap();
    seal(&at.join("one"), "evidence/recipe.json");
    let done = verify("deep");
    assert_eq!(done.code(), Some(1));
    assert!(done.stderr.contains("not the recipe"), "{}", done.stderr);
}
