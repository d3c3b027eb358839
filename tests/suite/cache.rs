//! The cache: what is in it is not done again, what is damaged is made again, and nothing that
//! builders leave who are killed is ever half.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fs_err as fs;
use serde_json::Value;

use crate::support::{
    BUILD_DEADLINE, Done, Process, coop, own_cache, recipe, run, sha256, small_archive, temp_folder,
};

/// How long builders are killed.
const KILLING: Duration = Duration::from_secs(20);
/// How many build at once.
const BUILDERS: usize = 8;

/// A folder with a cache and a recipe from the small archive.
struct Place {
    folder: tempfile::TempDir,
    cache: PathBuf,
}

impl Place {
    fn new() -> Self {
        // What the shared cache has to have.
        crate::support::small();
        let folder = temp_folder();
        let cache = own_cache(folder.path());
        let trees = cache.join("v1/result/tree-1");
        if trees.exists() {
            fs::remove_dir_all(trees).unwrap();
        }
        Self { folder, cache }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, motd: &str, steps: &[&str]) {
        self.write_as("r.yaml", motd, steps);
    }

    fn write_as(&self, name: &str, motd: &str, steps: &[&str]) {
        let archive = small_archive().display();
        let steps: String = steps
            .iter()
            .map(|step| format!("    - {{run: \"{step}\", network: false}}\n"))
            .collect();
        let text = format!(
            "name: r\n\
             rootfs:\n  \
               source: {{tarball: {{path: {archive}}}}}\n  \
               files:\n    \
                 - {{path: /etc/motd, content: \"{motd}\"}}\n  \
               run:\n{steps}"
        );
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = coop();
        command
            .current_dir(self.folder.path())
            .env("COOP_CACHE", &self.cache)
            .args(words);
        command
    }

    #[track_caller]
    fn coop(&self, words: &[&str]) -> Done {
        run(&mut self.command(words), BUILD_DEADLINE)
    }

    #[track_caller]
    fn json(&self, words: &[&str], code: i32) -> Value {
        let done = self.coop(words).expect(code);
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// What a build would do with each step, as `name status`.
    #[track_caller]
    fn explained(&self) -> Vec<String> {
        let words = ["explain", "r.yaml", "--offline", "--json"];
        let done = self.coop(&words).expect(0);
        assert!(!done.stderr.contains("the lock"), "{}", done.stderr);
        let value: Value = serde_json::from_slice(&done.stdout).unwrap();
        let steps = value["steps"].as_array().unwrap().iter();
        let word = |step: &Value, key: &str| step[key].as_str().unwrap().to_owned();
        steps
            .map(|step| {
                let changes = step["changes"].as_array().unwrap().iter();
                let changes: Vec<&str> = changes.map(|one| one.as_str().unwrap()).collect();
                let line = format!("{} {}", word(step, "name"), word(step, "status"));
                format!("{line} {}", changes.join("; "))
                    .trim_end()
                    .to_owned()
            })
            .collect()
    }

    /// Every tree in the cache.
    fn trees(&self) -> Vec<PathBuf> {
        let value = self.json(&["cache", "ls", "--objects", "--json"], 0);
        let objects = value["objects"].as_array().unwrap().iter();
        objects
            .filter(|object| object["kind"] == "tree-1")
            .map(|object| self.cache.join("v1").join(object["path"].as_str().unwrap()))
            .collect()
    }
}

#[test]
fn what_did_not_change_is_not_done_again() {
    let place = Place::new();
    place.write("one", &["echo a > /a", "echo b > /b"]);
    let told = place.explained();
    assert_eq!(
        told[2],
        "run: echo a > /a run this recipe was not built before"
    );
    place
        .coop(&["build", "r.yaml", "--offline", "-o", "out/r"])
        .expect(0);
    let first = sha256(&place.path("out/r/root.cobd"));
    assert_eq!(
        place.explained(),
        [
            "archive covered",
            "files covered",
            "run: echo a > /a cached",
            "run: echo b > /b cached",
            "image current"
        ]
    );
    // Another second step: the first one's tree is taken, and the guest runs once.
    place.write("one", &["echo a > /a", "echo c > /c"]);
    assert_eq!(
        place.explained()[2..4],
        [
            "run: echo a > /a cached",
            "run: echo c > /c run script changed"
        ]
    );
    let before = place.trees().len();
    let done = place
        .coop(&["build", "r.yaml", "--offline", "--progress", "plain"])
        .expect(0);
    let note = "step 'run: echo a > /a' and all before it: from the cache";
    assert!(done.stderr.contains(note), "{}", done.stderr);
    assert_eq!(place.trees().len(), before + 1);
    // A file comes before the steps, which may read it.
    place.write("two", &["echo a > /a", "echo c > /c"]);
    assert_eq!(
        place.explained()[1..],
        [
            "files run file /etc/motd changed",
            "run: echo a > /a run what comes before it changed",
            "run: echo c > /c run what comes before it changed",
            "image run what comes before it changed"
        ]
    );
    // Back again: all is known, and the bytes are those of the first time.
    place.write("one", &["echo a > /a", "echo b > /b"]);
    let done = place
        .coop(&["build", "r.yaml", "--offline", "--progress", "plain"])
        .expect(0);
    assert!(
        done.stderr.contains("step 'run: echo b > /b'"),
        "{}",
        done.stderr
    );
    assert_eq!(sha256(&place.path("out/r/root.cobd")), first);
    forgotten_steps_are_done_again(&place, &first);
    damaged_steps_are_done_again(&place, &first);
}

fn forgotten_steps_are_done_again(place: &Place, digest: &str) {
    let would = place.json(&["cache", "gc", "--steps", "--dry-run", "--json"], 0);
    // What an index answered is a result too.
    let removed = would["report"]["removed"].as_array().unwrap().iter();
    let trees = removed.filter(|entry| entry["kind"] == "tree-1").count();
    assert_eq!(place.trees().len(), trees);
    place.coop(&["cache", "gc", "--steps"]).expect(0);
    assert_eq!(place.trees(), Vec::<PathBuf>::new());
    fs::remove_dir_all(place.path("out")).unwrap();
    place.coop(&["build", "r.yaml", "--offline"]).expect(0);
    assert_eq!(sha256(&place.path("out/r/root.cobd")), digest);
}

fn damaged_steps_are_done_again(place: &Place, digest: &str) {
    let trees = place.trees();
    assert_eq!(trees.len(), 2);
    // One is cut off, the other has a wrong superblock.
    let file = fs::OpenOptions::new().write(true).open(&trees[0]).unwrap();
    file.set_len(5000).unwrap();
    let mut bytes = fs::read(&trees[1]).unwrap();
    bytes[1024 + 56] ^= 0xff;
    fs::write(&trees[1], bytes).unwrap();
    fs::remove_dir_all(place.path("out")).unwrap();
    place.coop(&["build", "r.yaml", "--offline"]).expect(0);
    assert_eq!(sha256(&place.path("out/r/root.cobd")), digest);
    // What only its digest tells is found in bulk, and nothing is lost silently.
    let trees = place.trees();
    let mut bytes = fs::read(&trees[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&trees[0], bytes).unwrap();
    let report = place.json(&["cache", "verify", "--json"], 1);
    assert_eq!(report["bad"].as_array().unwrap().len(), 1, "{report}");
    let report = place.json(&["cache", "verify", "--json"], 0);
    assert_eq!(report["bad"].as_array().unwrap().len(), 0);
    let bad = fs::read_dir(place.cache.join("v1/bad")).unwrap().count();
    assert_eq!(bad, 3);
}

/// The configured packages are one step that recipes share.
#[test]
fn one_changed_file_runs_no_guest() {
    let folder = temp_folder();
    let debian = fs::read_to_string(recipe("debian.yaml")).unwrap();
    let build = |motd: &str| {
        let files = format!("rootfs:\n  files: [{{path: /etc/motd, content: {motd}}}]\n");
        let text = debian.replacen("rootfs:\n", &files, 1);
        fs::write(
            folder.path().join("r.yaml"),
            text.replace("name: debian", "name: r"),
        )
        .unwrap();
        let mut command = coop();
        command
            .current_dir(folder.path())
            .args(["build", "r.yaml", "--progress", "plain"]);
        run(&mut command, BUILD_DEADLINE).expect(0)
    };
    crate::support::debian();
    for motd in ["one", "two"] {
        let done = build(motd);
        let note = "step 'configure' and all before it: from the cache";
        assert!(done.stderr.contains(note), "{}", done.stderr);
        assert!(!done.stderr.contains("Setting up"), "{}", done.stderr);
    }
}

#[test]
fn killed_builders_leave_nothing_half() {
    let place = Place::new();
    for (index, name) in (0..4).map(|index| (index, format!("r{index}.yaml"))) {
        let last = format!("echo {index} > /last");
        place.write_as(&name, "shared", &["echo a > /a", &last]);
    }
    let (started, killed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let end = Instant::now() + KILLING;
    std::thread::scope(|scope| {
        for builder in 0..BUILDERS {
            let (place, started, killed) = (&place, &started, &killed);
            scope.spawn(move || {
                let mut random = Random(builder as u64 + 1);
                while Instant::now() < end {
                    let count = started.fetch_add(1, Ordering::Relaxed);
                    // Two builders share each output.
                    let out = format!("out/{}", builder / 2);
                    let recipe = format!("r{}.yaml", random.below(4));
                    let words = [
                        "build",
                        &recipe,
                        "--offline",
                        "--progress",
                        "none",
                        "-o",
                        &out,
                    ];
                    let process = Process::start(&mut place.command(&words), BUILD_DEADLINE);
                    std::thread::sleep(Duration::from_millis(random.below(4000)));
                    process.signal(rustix::process::Signal::KILL);
                    if process.end().code().is_none() {
                        killed.fetch_add(1, Ordering::Relaxed);
                    }
                    if count % 7 == 6 {
                        place.coop(&["cache", "gc", "--steps"]).expect(0);
                    }
                }
            });
        }
    });
    assert!(killed.into_inner() > BUILDERS, "{started:?} were started");
    let report = place.json(&["cache", "verify", "--json"], 0);
    assert!(report["checked"].as_u64().unwrap() > 0);
    for builder in 0..BUILDERS / 2 {
        let out = format!("out/{builder}");
        if place.path(&out).exists() {
            place.coop(&["inspect", &out, "--verify"]).expect(0);
            // One that is up to date would be left as it is, with what lies beside it.
            fs::remove_dir_all(place.path(&out)).unwrap();
        }
        // Whatever was left, the next build does its work, and takes away what the dead left.
        place
            .coop(&["build", "r0.yaml", "--offline", "-o", &out])
            .expect(0);
        place.coop(&["inspect", &out, "--verify"]).expect(0);
    }
    let digests = (0..BUILDERS / 2).map(|n| sha256(&place.path(&format!("out/{n}/root.cobd"))));
    let digests: std::collections::BTreeSet<String> = digests.collect();
    assert_eq!(digests.len(), 1);
    let names = fs::read_dir(place.path("out")).unwrap();
    let names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.len(), BUILDERS / 2, "{names:?}");
}

/// Marsaglia's xorshift: a sequence that is the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
