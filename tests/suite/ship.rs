//! Bundles: packed, signed, verified, unpacked, run; and what other programs say of them.

use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{self, Done, oracle, sha256};

/// No single run takes so long, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// A folder with an appliance `web` in it that nobody boots, keys and configurations.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(support::temp_folder());
        let web = place.path("web");
        fs::create_dir_all(web.join("evidence")).unwrap();
        let member = |path: &str, bytes: &[u8]| {
            let full = web.join(path);
            fs::write(&full, bytes).unwrap();
            json!({"path": path, "sha256": sha256(&full), "size_bytes": bytes.len()})
        };
        let program: Vec<u8> = (0..9_000_000_u32).flat_map(|i| [(i % 251) as u8]).collect();
        let root = web.join("root.cobd");
        let file = fs::File::create(&root).unwrap().into_parts().0;
        file.write_all_at(&program[..100_000], 50_000_000).unwrap();
        file.write_all_at(b"end", 104_857_600).unwrap();
        let size = file.metadata().unwrap().len();
        let image = json!({"path": "root.cobd", "sha256": sha256(&root), "size_bytes": size});
        let manifest = json!({
            "format": 1, "name": "web", "description": "", "architecture": "amd64", "inputs": "",
            "kernel": {
                "release": "7.2", "modules": null, "libraries": [], "cmdline": [],
                "vmlinux": member("vmlinux", &program), "config": member("config", b"CONFIG_UML=y\n"),
            },
            "machine": {"memory_bytes": 67_108_864, "cpus": 1},
            "cobd": [{"name": "root", "image": image, "filesystem": "unknown", "mount": null,
                      "readonly": false}],
            "conet": [], "cocon": {"columns": 80, "rows": 25}, "test": [],
            "evidence": [member("evidence/notes", b"notes\n")],
        });
        fs::write(web.join("appliance.json"), format!("{manifest:#}\n")).unwrap();
        place
    }

    /// The same with `web.coop`, and a key in `k` and `k.pub`.
    fn packed() -> Self {
        let place = Self::new();
        place.coop(&["pack", "web"]).expect(0);
        place.coop(&["sign", "--generate", "k"]).expect(0);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn coop(&self, words: &[&str]) -> Done {
        self.coop_with(words, &[])
    }

    fn coop_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Done {
        let mut command = support::coop();
        command.current_dir(self.0.path()).args(words);
        command.env("XDG_CONFIG_HOME", self.path("config"));
        command.env("COOP_CACHE", self.path("cache"));
        command.envs(variables.iter().copied());
        support::run(&mut command, DEADLINE)
    }

    /// Another program in the folder; gives what it wrote to stdout.
    #[track_caller]
    fn sh(&self, script: &str) -> Vec<u8> {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(self.0.path());
        support::run(&mut command, DEADLINE).expect(0).stdout
    }

    fn refused(&self, words: &[&str], says: &str) {
        let done = self.coop(words).expect(1);
        assert!(done.stderr.contains(says), "{words:?}: {}", done.stderr);
    }

    fn json(&self, words: &[&str]) -> Value {
        let done = self.coop(words).expect(0);
        serde_json::from_slice(&done.stdout).unwrap()
    }
}

#[test]
fn a_bundle_is_one_deterministic_file() {
    let place = Place::packed();
    let said = place.json(&["pack", "web", "-o", "again.coop", "--json"]);
    assert_eq!(
        sha256(&place.path("web.coop")),
        sha256(&place.path("again.coop"))
    );
    let size = fs::metadata(place.path("web.coop")).unwrap().len();
    assert_eq!(said["size_bytes"], size);
    assert!(size < 1_000_000, "holes cost nothing: {size}");
    // From somewhere else, by times and modes and holes of its own.
    place.sh("cp -r --sparse=never web other; chmod -R u=rwX,go= other; touch -d @1 other/config");
    support::give(&place.path("other"));
    place.sh(&format!("chown -R {0}:{0} other || true", support::NOBODY));
    place.coop(&["pack", "other", "-o", "other.coop"]).expect(0);
    assert_eq!(
        sha256(&place.path("other.coop")),
        sha256(&place.path("again.coop"))
    );
    assert!(
        place.path("cache").read_dir().is_err(),
        "nothing of it needs the cache"
    );
}

#[test]
fn a_bundle_that_is_trusted_becomes_the_appliance_again() {
    let place = Place::packed();
    place.coop(&["sign", "web.coop", "--key", "k"]).expect(0);
    let done = place
        .coop(&["unpack", "web.coop", "--key", "k.pub"])
        .expect(0);
    assert_eq!(done.text(), "out/web\n");
    place.sh("diff -r web out/web");
    let metadata = |name: &str| fs::metadata(place.path(name)).unwrap();
    assert!(
        metadata("out/web/root.cobd").blocks() < 500,
        "holes are kept"
    );
    assert_eq!(
        metadata("out/web/vmlinux").permissions().mode() & 0o777,
        0o755
    );
    let secret = metadata("k").permissions().mode() & 0o777;
    assert_eq!(secret, 0o600, "the secret key is its owner's");
    // Nothing that is there is overwritten, and no half of a pair is left.
    let before = sha256(&place.path("k"));
    place.refused(&["sign", "--generate", "k"], "is not overwritten");
    fs::rename(place.path("k.pub"), place.path("kept")).unwrap();
    place.refused(&["sign", "--generate", "k"], "is not overwritten");
    assert!(!place.path("k.pub").exists() && sha256(&place.path("k")) == before);
    fs::rename(place.path("kept"), place.path("k.pub")).unwrap();
    place.coop(&["verify", "out/web"]).expect(0);
    let shown = place.json(&["verify", "web.coop", "--key", "k.pub", "--json"]);
    assert_eq!(shown["signer"]["name"], "k.pub");
    let text = place
        .coop(&["inspect", "web.coop", "--verify"])
        .expect(0)
        .text();
    let digest = shown["digest"].as_str().unwrap();
    assert!(
        text.contains(digest) && text.contains("minisign key"),
        "{text}"
    );
    // Into a folder of somebody's own: no.
    fs::create_dir(place.path("mine")).unwrap();
    fs::write(place.path("mine/letter"), "dear").unwrap();
    let done = place
        .coop(&["unpack", "web.coop", "--key", "k.pub", "-o", "mine"])
        .expect(1);
    assert!(
        done.stderr.contains("is not overwritten"),
        "{}",
        done.stderr
    );
}

/// Each with a sentence of its own.
#[test]
fn what_nobody_trusted_signed_is_refused() {
    let place = Place::packed();
    place.coop(&["sign", "--generate", "other"]).expect(0);
    place.refused(
        &["unpack", "web.coop", "--key", "k.pub"],
        "it is not signed",
    );
    place.refused(&["run", "web.coop"], "it is not signed");
    place.sh("cp web.coop unsigned.coop");
    place.coop(&["sign", "web.coop", "--key", "k"]).expect(0);
    place.refused(&["unpack", "web.coop"], "no key is trusted for anything");
    let others = ["unpack", "web.coop", "--key", "other.pub"];
    place.refused(&others, "which is not trusted");
    place.refused(
        &["verify", "web.coop", "--key", "other.pub"],
        "which is not trusted",
    );
    assert!(!place.path("out").exists(), "nothing was unpacked");
    // The signature of one appliance on another.
    place.sh("sed -i 's/web/wab/' web/appliance.json");
    place.coop(&["pack", "web", "-o", "wab.coop"]).expect(0);
    place.sh(
        "mkdir a b; tar -xf web.coop -C a; tar -xf wab.coop -C b; cp a/blobs/sha256/* b/blobs/sha256",
    );
    let digest = |place: &Place, name: &str| {
        let shown = place.json(&["inspect", name, "--json"]);
        shown["digest"].as_str().unwrap().to_owned()
    };
    let (web, wab) = (digest(&place, "web.coop"), digest(&place, "wab.coop"));
    let index: Value =
        serde_json::from_slice(&fs::read(place.path("a/index.json")).unwrap()).unwrap();
    let referrer = index["manifests"][1]["digest"].as_str().unwrap().to_owned();
    let blob = |digest: &str| place.path("b/blobs/sha256").join(&digest[7..]);
    let forged = fs::read_to_string(blob(&referrer))
        .unwrap()
        .replace(&web, &wab);
    let size = fs::metadata(blob(&wab)).unwrap().len();
    let mut forged: Value = serde_json::from_str(&forged).unwrap();
    forged["subject"]["size"] = size.into();
    let forged = forged.to_string();
    let name = format!("sha256:{}", support::sha256_of(forged.as_bytes()));
    fs::write(blob(&name), &forged).unwrap();
    let mut index: Value =
        serde_json::from_slice(&fs::read(place.path("b/index.json")).unwrap()).unwrap();
    let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
                       "digest": name, "size": forged.len()});
    index["manifests"].as_array_mut().unwrap().push(entry);
    fs::write(place.path("b/index.json"), index.to_string()).unwrap();
    place.sh("tar -cf swapped.coop -C b oci-layout index.json blobs");
    for waived in [&[][..], &["--insecure-allow-unsigned"]] {
        let words = [&["unpack", "swapped.coop", "-o", "x"], waived].concat();
        let policy = place.path("k.pub");
        let key = ["--key", policy.to_str().unwrap()];
        place.refused(&[&words[..], &key].concat(), "it was swapped or changed");
    }
    // Whoever wants to, may; and is told.
    let waived = ["unpack", "unsigned.coop", "--insecure-allow-unsigned"];
    let done = place.coop(&waived).expect(0);
    assert!(
        done.stderr
            .contains("warning: unsigned.coop: it is not signed"),
        "{}",
        done.stderr
    );
    let waived = [&others[..], &["--insecure-allow-unsigned", "-o", "y"]].concat();
    let done = place.coop(&waived).expect(0);
    assert!(
        done.stderr.contains("which is not trusted"),
        "{}",
        done.stderr
    );
    // A folder is somebody's own.
    let done = place.coop(&["run", "web", "--key", "k.pub"]).expect(2);
    assert!(done.stderr.contains("only bundles"), "{}", done.stderr);
}

#[test]
fn content_that_was_swapped_is_refused() {
    let place = Place::packed();
    place.coop(&["sign", "web.coop", "--key", "k"]).expect(0);
    place.sh("mkdir a; tar -xf web.coop -C a");
    let shown = place.json(&["inspect", "web.coop", "--json"]);
    let layers = shown["oci_manifest"]["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 4);
    for (index, layer) in layers.iter().enumerate() {
        let digest = &layer["digest"].as_str().unwrap()[7..];
        place.sh(&format!(
            "cp -r a b; printf X | dd of=b/blobs/sha256/{digest} bs=1 conv=notrunc status=none
             tar -cf bad.coop -C b oci-layout index.json blobs; rm -r b"
        ));
        let words = ["unpack", "bad.coop", "--key", "k.pub", "-o", "out"];
        place.refused(&words, "damaged");
        assert!(!place.path("out").exists(), "{index}: half an appliance");
        place.refused(&["verify", "bad.coop", "--key", "k.pub"], "damaged");
        place.sh(&format!(
            "cp -r a b; rm b/blobs/sha256/{digest}
             tar -cf bad.coop -C b oci-layout index.json blobs; rm -r b"
        ));
        place.refused(&words, "is missing");
    }
    place.sh("ln -s /etc a/link; tar -cf bad.coop -C a oci-layout index.json blobs link");
    place.refused(
        &["unpack", "bad.coop", "--key", "k.pub"],
        "has no place in a bundle",
    );
    place.sh("head -c 5000 web.coop > bad.coop");
    place.refused(&["unpack", "bad.coop", "--key", "k.pub"], "cut off");
    let left = fs::read_dir(place.0.path()).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    let is_staging = |name: &std::ffi::OsString| name.to_string_lossy().starts_with('.');
    assert!(!names.iter().any(is_staging), "{names:?}");
}

#[test]
fn a_policy_names_the_trusted_keys() {
    let place = Place::packed();
    place.coop(&["sign", "web.coop", "--key", "k"]).expect(0);
    fs::create_dir_all(place.path("config/coop")).unwrap();
    let policy = place.path("config/coop/policy.yaml");
    fs::copy(place.path("k.pub"), place.path("config/coop/k.pub")).unwrap();
    fs::write(
        &policy,
        "keys:\n  - {name: release, file: k.pub, appliances: ['w*']}\n",
    )
    .unwrap();
    let text = place.coop(&["verify", "web.coop"]).expect(0).text();
    assert!(
        text.contains("4 files with their digests, signed by 'release'"),
        "{text}"
    );
    fs::write(
        &policy,
        "keys:\n  - {name: release, file: k.pub, appliances: ['db']}\n",
    )
    .unwrap();
    place.refused(
        &["verify", "web.coop"],
        "trusted for other appliances, not for 'web'",
    );
    fs::write(
        &policy,
        "keys:\n  - {name: release, file: k.pub, applianzes: ['db']}\n",
    )
    .unwrap();
    place.refused(&["verify", "web.coop"], "policy.yaml");
    fs::write(place.path("p.yaml"), "keys: []\n").unwrap();
    place.refused(
        &["verify", "web.coop", "--policy", "p.yaml"],
        "no key is trusted",
    );
}

#[test]
fn minisign_agrees() {
    if !oracle("minisign") {
        return;
    }
    let place = Place::packed();
    // It verifies what coop signs,
    place.coop(&["sign", "web.coop", "--key", "k"]).expect(0);
    place.sh("mkdir a; tar -xf web.coop -C a
         grep -l 'trusted comment' a/blobs/sha256/* > name; cp $(cat name) s.minisig");
    let message = place.coop(&["sign", "web.coop", "--message"]).expect(0);
    fs::write(place.path("m"), &message.stdout).unwrap();
    place.sh("minisign -V -p k.pub -m m -x s.minisig");
    place.sh("! minisign -V -p k.pub -m k.pub -x s.minisig");
    // signs with coop's keys,
    place.sh("minisign -S -W -s k -m m -x t.minisig; minisign -V -p k.pub -m m -x t.minisig");
    // and coop takes its keys and signatures, of both kinds, with a password and without.
    place.sh(
        "minisign -G -W -f -p w.pub -s w >&2; printf 'pw\\npw\\n' | minisign -G -f -p e.pub -s e >&2
         chmod 644 w e
         minisign -S -W -s w -m m -x w.minisig; minisign -S -l -W -s w -m m -x l.minisig",
    );
    for (signature, key) in [
        ("w.minisig", "w.pub"),
        ("l.minisig", "w.pub"),
        ("t.minisig", "k.pub"),
    ] {
        place.coop(&["pack", "web"]).expect(0);
        place
            .coop(&["sign", "web.coop", "--signature", signature])
            .expect(0);
        place.coop(&["verify", "web.coop", "--key", key]).expect(0);
    }
    place.coop(&["sign", "web.coop", "--key", "w"]).expect(0);
    place
        .coop(&["verify", "web.coop", "--key", "w.pub"])
        .expect(0);
    let sign = ["sign", "web.coop", "--key", "e"];
    place
        .coop_with(&sign, &[("COOP_KEY_PASSWORD", "pw")])
        .expect(0);
    place
        .coop(&["verify", "web.coop", "--key", "e.pub"])
        .expect(0);
}

#[test]
fn openssl_agrees() {
    if !oracle("openssl") {
        return;
    }
    let place = Place::packed();
    place.sh(
        "openssl genpkey -algorithm ed25519 -out r.pem; openssl pkey -in r.pem -pubout -out r.pub
         openssl genpkey -algorithm x25519 -out x.pem
         openssl pkey -in r.pem -aes256 -passout pass:x -out e.pem; chmod 644 *.pem",
    );
    place
        .coop(&["sign", "web.coop", "--key", "r.pem"])
        .expect(0);
    place
        .coop(&["verify", "web.coop", "--key", "r.pub"])
        .expect(0);
    let message = place.coop(&["sign", "web.coop", "--message"]).expect(0);
    fs::write(place.path("m"), &message.stdout).unwrap();
    place.sh(
        "mkdir a; tar -xf web.coop -C a; find a -size -65c -size +63c -exec cp {} s ';'
         openssl pkeyutl -verify -pubin -inkey r.pub -rawin -in m -sigfile s
         openssl pkeyutl -sign -inkey r.pem -rawin -in m -out t; cmp s t",
    );
    place.coop(&["pack", "web"]).expect(0);
    place
        .coop(&["sign", "web.coop", "--signature", "t"])
        .expect(0);
    place
        .coop(&["verify", "web.coop", "--key", "r.pub"])
        .expect(0);
    place.refused(
        &["verify", "web.coop", "--key", "k.pub"],
        "no trusted Ed25519 key",
    );
    place.refused(
        &["sign", "web.coop", "--key", "e.pem"],
        "encrypted PEM keys are not supported",
    );
    place.refused(&["sign", "web.coop", "--key", "x.pem"], "another algorithm");
}

#[test]
fn other_programs_read_the_layout() {
    let place = Place::packed();
    let names = String::from_utf8(place.sh("tar -tf web.coop")).unwrap();
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(names[..2], ["oci-layout", "index.json"]);
    assert!(names[2..].is_sorted() && names.len() == 8, "{names:?}");
    place.sh("mkdir a; tar -xf web.coop -C a; cd a/blobs/sha256; for f in *; do echo $f $f; done | sha256sum -c");
    let shown = place.json(&["inspect", "web.coop", "--json"]);
    if oracle("zstd") {
        let layers = shown["oci_manifest"]["layers"].as_array().unwrap();
        let title = "org.opencontainers.image.title";
        let is_kernel = |layer: &&Value| layer["annotations"][title] == "vmlinux";
        let layer = layers.iter().find(is_kernel).unwrap();
        let digest = &layer["digest"].as_str().unwrap()[7..];
        // Without holes the chunks are the file.
        place.sh(&format!(
            "zstd -q -d < a/blobs/sha256/{digest} | cmp - web/vmlinux"
        ));
    }
    if !oracle("skopeo") {
        return;
    }
    let manifest = place.sh("skopeo inspect --raw oci-archive:web.coop:web");
    assert_eq!(
        format!("sha256:{}", support::sha256_of(&manifest)),
        shown["digest"].as_str().unwrap()
    );
    // Through its hands and back, and it is the same appliance; its signature goes separately.
    place.coop(&["sign", "web.coop", "--key", "k"]).expect(0);
    place.sh("skopeo copy -q oci-archive:web.coop:web oci:folder:web
         skopeo copy -q oci:folder:web oci-archive:back.coop:web; chmod 644 back.coop");
    let back = place.json(&["inspect", "back.coop", "--json"]);
    assert_eq!(back["digest"], shown["digest"]);
    place.coop(&["sign", "back.coop", "--key", "k"]).expect(0);
    place
        .coop(&["unpack", "back.coop", "--key", "k.pub"])
        .expect(0);
    place.sh("diff -r web out/web");
    assert_eq!(
        sha256(&place.path("web.coop")),
        sha256(&place.path("back.coop"))
    );
}

#[test]
fn an_appliance_that_changed_is_not_packed() {
    let place = Place::new();
    place.sh("printf x | dd of=web/root.cobd bs=1 seek=5 conv=notrunc status=none");
    place.refused(&["pack", "web"], "root.cobd has sha256");
    assert!(!place.path("web.coop").exists());
}

/// Nobody unpacks anything: the cache has it, for as long as it may.
#[test]
fn a_bundle_boots() {
    let folder = support::temp_folder();
    let small = support::small();
    let coop = |words: &[&str]| {
        let mut command = support::coop();
        command.current_dir(folder.path()).args(words);
        command.env("COOP_CACHE", folder.path().join("cache"));
        support::run(&mut command, support::RUN_DEADLINE)
    };
    coop(&["pack", small.to_str().unwrap(), "-o", "s.coop"]).expect(0);
    coop(&["sign", "--generate", "k"]).expect(0);
    coop(&["sign", "s.coop", "--key", "k"]).expect(0);
    let words = [
        "run",
        "s.coop",
        "--key",
        "k.pub",
        "--",
        "cat",
        "/etc/os-release",
    ];
    for _ in 0..2 {
        let done = coop(&words).expect(0);
        assert!(done.text().contains("ID=debian"), "{}", done.text());
    }
    let done = coop(&["run", "s.coop", "--", "true"]).expect(125);
    assert!(done.stderr.contains("no key is trusted"), "{}", done.stderr);
    let done = coop(&["run", "s.coop", "--persist"]).expect(2);
    assert!(done.stderr.contains("not a bundle"), "{}", done.stderr);
    let installed = |folder: &Path| {
        let entries = fs::read_dir(folder.join("cache/v1/appliance")).unwrap();
        entries.count()
    };
    assert_eq!(installed(folder.path()), 1);
    coop(&["cache", "gc", "--steps"]).expect(0);
    assert_eq!(installed(folder.path()), 0);
    coop(&words).expect(0);
}
