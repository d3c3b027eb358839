//! `coop image`, `coop diff` and what `coop inspect` does with images, from outside.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fs_err as fs;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{self, Done, Process, oracle, root_oracle};

/// No single run takes so long, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// A folder of the ordinary user's with an archive in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(support::temp_folder())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A shell in the folder, as whoever runs the tests.
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        let output = Command::new("sh")
            .args(["-ec", script])
            .current_dir(self.0.path())
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `tree` with some of everything that an ordinary user can make, and `a.tar` of it.
    fn with_archive() -> Self {
        let place = Self::new();
        place.sh(
            "mkdir -p tree/sub/inner; echo hello > tree/sub/file; ln tree/sub/file tree/hard
             ln -s sub/file tree/link; : > tree/empty; mkfifo tree/pipe; chmod 2750 tree/sub
             head -c 3000000 /dev/urandom > tree/large; truncate -s 9M tree/sparse
             printf data | dd of=tree/sparse bs=1 seek=5000000 conv=notrunc status=none
             find tree -exec touch -h -d @1700000000.5 {} +
             tar --format=pax --sparse --sort=name -C tree -cf a.tar .",
        );
        if support::is_root() {
            place.sh(&format!("chown -R {0}:{0} tree", support::NOBODY));
        }
        place
    }

    fn coop(&self, words: &[&str]) -> Command {
        let mut command = support::coop();
        command.args(words).current_dir(self.0.path());
        command
    }

    #[track_caller]
    fn run(&self, words: &[&str], code: i32) -> Done {
        support::run(&mut self.coop(words), DEADLINE).expect(code)
    }

    fn names(&self) -> Vec<String> {
        names(self.0.path())
    }

    fn digest(&self, name: &str) -> String {
        support::sha256(&self.path(name))
    }

    #[track_caller]
    fn check(&self, image: &str) {
        if oracle("e2fsck") {
            self.sh(&format!("e2fsck -fn {image} >&2"));
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn the_same_archive_gives_the_same_image_however_it_comes() {
    let place = Place::with_archive();
    place.run(
        &["image", "build", "a.tar", "-o", "x.cobd", "--threads", "1"],
        0,
    );
    place.check("x.cobd");
    let digest = place.digest("x.cobd");
    place.run(
        &["image", "build", "a.tar", "-o", "x.cobd", "--threads", "8"],
        0,
    );
    assert_eq!(place.digest("x.cobd"), digest, "threads");
    for (program, words) in [
        ("cat", ""),
        ("gzip", "-1"),
        ("bzip2", "-1"),
        ("xz", "-0"),
        ("zstd", "-1"),
    ] {
        if !oracle(program) {
            continue;
        }
        place.sh(&format!("{program} {words} < a.tar > packed"));
        place.run(
            &["image", "build", "packed", "-o", "y.cobd", "--threads", "3"],
            0,
        );
        assert_eq!(place.digest("y.cobd"), digest, "{program}");
        let bytes = fs::read(place.path("packed")).unwrap();
        let mut command = place.coop(&["image", "build", "-", "-o", "z.cobd"]);
        support::run_with_input(&mut command, &bytes, DEADLINE).expect(0);
        assert_eq!(place.digest("z.cobd"), digest, "{program} from a pipe");
    }
    place.run(&["diff", "a.tar", "x.cobd"], 0);
}

#[test]
fn a_folder_gives_what_its_archive_gives() {
    let place = Place::with_archive();
    place.run(
        &["image", "build", "tree", "-o", "f.cobd", "--owner", "0:0"],
        0,
    );
    place.run(
        &["image", "build", "a.tar", "-o", "t.cobd", "--owner", "0:0"],
        0,
    );
    place.check("f.cobd");
    place.run(&["diff", "f.cobd", "t.cobd"], 0);
    place.run(&["diff", "f.cobd", "tree", "--ignore", "uid,gid"], 0);
    let again = place.digest("f.cobd");
    place.run(
        &["image", "build", "tree", "-o", "f.cobd", "--owner", "0:0"],
        0,
    );
    assert_eq!(place.digest("f.cobd"), again);
    let refused = place.run(&["image", "build", "tree", "-o", "tree/x.cobd"], 1);
    assert!(
        refused.stderr.contains("is inside tree"),
        "{}",
        refused.stderr
    );
    if support::is_root() {
        place.sh("echo x > tree/sub/secret; chmod 600 tree/sub/secret");
        let refused = place.run(&["image", "build", "tree", "-o", "f.cobd"], 1);
        assert!(refused.stderr.contains("sub/secret"), "{}", refused.stderr);
        assert_eq!(place.digest("f.cobd"), again);
    }
}

/// GNU tar's `--ignore-zeros` takes the archive behind the end of another; by default neither does.
#[test]
fn archives_behind_one_another_are_read_where_asked() {
    let place = Place::with_archive();
    place.sh(
        "mkdir more; echo more > more/more; tar -C more -cf b.tar more; cat a.tar b.tar > both.tar
         mkdir all; tar -C all --ignore-zeros --numeric-owner -xpf both.tar",
    );
    if support::is_root() {
        place.sh(&format!("chown -R {0}:{0} all", support::NOBODY));
    }
    for (flags, code) in [(&[][..], 1), (&["--ignore-zeros"], 0)] {
        let words = ["image", "build", "both.tar", "-o", "x.cobd"];
        place.run(&[&words[..], flags].concat(), 0);
        let words = ["diff", "x.cobd", "all", "--ignore", "uid,gid"];
        place.run(&words, code);
    }
    let refused = place.run(&["image", "build", "all", "-o", "y", "--ignore-zeros"], 2);
    assert!(refused.stderr.contains("archives"), "{}", refused.stderr);
}

#[test]
fn times_and_identity_are_as_asked() {
    let place = Place::with_archive();
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    place.run(
        &[
            "image",
            "build",
            "a.tar",
            "-o",
            "x.cobd",
            "--uuid",
            uuid,
            "--label",
            "marked",
            "--size",
            "64MiB",
            "--block-size",
            "1024",
            "--no-journal",
            "--inodes",
            "5000",
            "--reserved",
            "5%",
            "--time",
            "1000",
            "--strip-components",
            "1",
        ],
        0,
    );
    place.check("x.cobd");
    let shown = place.run(&["inspect", "x.cobd", "--json"], 0);
    let value: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(value["uuid"], uuid);
    assert_eq!(value["label"], "marked");
    assert_eq!(value["size_bytes"], 64 << 20);
    assert_eq!(value["block_size_bytes"], 1024);
    assert_eq!(value["blocks_journal"], 0);
    assert!(value["inodes"].as_u64().unwrap() >= 5000);
    assert_eq!(value["created"], 1000);
    let listing = place.run(&["inspect", "x.cobd", "--extract", "/", "-o", "o.tar"], 0);
    assert_eq!(listing.text(), "");
    if oracle("tar") {
        let listing = place.sh("TZ=UTC0 tar --full-time -tvf o.tar");
        assert!(
            listing
                .lines()
                // The root has no name of its own left in the archive.
                .filter(|line| !line.ends_with(" ./"))
                .all(|line| line.contains("1970-01-01 00:16:40")),
            "{listing}"
        );
    }
    let mut command = place.coop(&["image", "build", "a.tar", "-o", "y.cobd"]);
    support::run(command.env("SOURCE_DATE_EPOCH", "soon"), DEADLINE).expect(2);
    let mut command = place.coop(&["image", "build", "a.tar", "-o", "y.cobd"]);
    support::run(command.env("SOURCE_DATE_EPOCH", "1000"), DEADLINE).expect(0);
    let shown = place.run(&["inspect", "y.cobd", "--json"], 0);
    let value: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(value["created"], 1000);
}

#[test]
fn overrides_make_what_an_ordinary_user_cannot() {
    let place = Place::with_archive();
    fs::write(
        place.path("o.yaml"),
        "- {path: /sub, owner: 7, group: 8, recursive: true}\n\
         - {path: /sub/file, mode: 0o4755}\n\
         - {path: /dev/console, make: {char: 5:1}, mode: 0o600}\n\
         - {path: /large, removed: true}\n",
    )
    .unwrap();
    let words = [
        "image",
        "build",
        "tree",
        "-o",
        "x.cobd",
        "--owner",
        "0:0",
        "--overrides",
    ];
    place.run(&[&words[..], &["o.yaml"]].concat(), 0);
    place.check("x.cobd");
    let told = place
        .run(
            &[
                "diff",
                "tree",
                "x.cobd",
                "--all",
                "--ignore",
                "mtime,mtime-ns",
            ],
            1,
        )
        .text();
    for line in [
        "/sub/inner: gid: ",
        "/hard: mode: 0644, 4755",
        "/large: presence: file, nothing",
        "/dev: presence: nothing, directory",
    ] {
        assert!(told.contains(line), "no '{line}' in: {told}");
    }
    fs::write(place.path("o.yaml"), "- path: /nowhere\n  mode: 0o644\n").unwrap();
    let wrong = place.run(&[&words[..], &["o.yaml"]].concat(), 2);
    assert!(wrong.stderr.contains("o.yaml:1:3"), "{}", wrong.stderr);
}

#[test]
fn each_kind_of_difference_is_named() {
    let place = Place::with_archive();
    for (change, expected) in [
        ("chmod 600 b/empty", "/empty: mode: 0644, 0600"),
        (
            "touch -d @5 b/empty",
            "/empty: mtime: 1700000000.500000000, 5.000000000",
        ),
        ("touch -d @1700000000.25 b/empty", "/empty: mtime-ns: "),
        ("printf hellO > b/sub/file", "/hard: size: 6, 5"),
        (
            "printf 'hellO\\n' > b/sub/file",
            "/hard: content at byte 4: 0x6f, 0x4f",
        ),
        ("ln -sfn x b/link", "/link: target: sub/file, x"),
        (
            "rm b/hard; cp b/sub/file b/hard",
            "/sub/file: hardlink: the same file as /hard, nothing",
        ),
        ("rm b/pipe; : > b/pipe", "/pipe: kind: fifo, file"),
        ("rm b/empty", "/empty: presence: file, nothing"),
        ("mkdir b/sub/new", "/sub/new: presence: nothing, directory"),
    ] {
        place.sh(&format!(
            "rm -rf b; cp -a --sparse=always tree b; {change}
             find b -type d -exec touch -d @1700000000.5 {{}} +
             case '{change}' in *hellO*|*'cp b'*|*link*|*': >'*) touch -h -d @1700000000.5 b/sub/file b/hard b/link b/pipe;; esac
             tar --format=pax --sparse -C b -cf b.tar ."
        ));
        for second in ["b", "b.tar"] {
            let told = place
                .run(&["diff", "a.tar", second, "--ignore", "uid,gid"], 1)
                .text();
            assert!(told.starts_with(expected), "{change}: {told}");
            assert_eq!(told.lines().count(), 1);
        }
    }
    let told = place.run(
        &[
            "diff", "a.tar", "b.tar", "--json", "--all", "--ignore", "uid,gid",
        ],
        1,
    );
    let value: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(value["equal"], false);
    assert_eq!(value["differences"][0]["path"], "/sub/new");
    place.run(
        &["diff", "a.tar", "b.tar", "--ignore", "presence,uid,gid"],
        0,
    );
    place.run(&["diff", "a.tar", "none.tar"], 2);
    place.run(&["diff", "a.tar", "b.tar", "--ignore", "colour"], 2);
}

#[test]
fn what_is_taken_out_is_what_is_in() {
    let place = Place::with_archive();
    place.run(&["image", "build", "a.tar", "-o", "x.cobd"], 0);
    place.run(&["inspect", "x.cobd", "--extract", "/", "-o", "all.tar"], 0);
    place.run(&["diff", "all.tar", "x.cobd"], 0);
    let part = place.run(&["inspect", "x.cobd", "--extract", "sub"], 0);
    fs::write(place.path("part.tar"), part.stdout).unwrap();
    place.sh("mkdir out; tar -C out -xf part.tar; chmod -R a+rX out");
    place.run(&["diff", "out", "tree/sub", "--ignore", "uid,gid,mode"], 0);
    place.run(
        &["inspect", "x.cobd", "--extract", "link", "-o", "one.tar"],
        0,
    );
    assert_eq!(place.sh("tar -tf one.tar"), "./link\n");
    let wrong = place.run(&["inspect", "x.cobd", "--extract", "none"], 1);
    assert!(
        wrong.stderr.contains("'none' does not exist"),
        "{}",
        wrong.stderr
    );
    place.run(&["inspect", "x.cobd", "--extract", "../x"], 2);
}

#[test]
fn another_size_is_the_same_file_system() {
    let place = Place::with_archive();
    place.run(
        &[
            "image", "build", "a.tar", "-o", "x.cobd", "--label", "kept", "--free", "30%",
        ],
        0,
    );
    for size in ["256MiB", "+64MiB", "fit"] {
        place.run(
            &["image", "resize", "x.cobd", "--size", size, "-o", "y.cobd"],
            0,
        );
        place.check("y.cobd");
        place.run(&["diff", "x.cobd", "y.cobd", "--times"], 0);
    }
    let shown = |image| {
        let shown = place.run(&["inspect", image, "--json"], 0);
        serde_json::from_slice::<serde_json::Value>(&shown.stdout).unwrap()
    };
    let (before, after) = (shown("x.cobd"), shown("y.cobd"));
    for key in ["uuid", "label", "created", "block_size_bytes", "features"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    assert_eq!(before["minimum_bytes"], after["size_bytes"]);
    assert_eq!(after["minimum_bytes"], after["size_bytes"]);
    let digest = place.digest("y.cobd");
    let refused = place.run(&["image", "resize", "y.cobd", "--size", "1MiB"], 1);
    let least = after["size_bytes"].to_string();
    assert!(refused.stderr.contains(&least), "{}", refused.stderr);
    assert_eq!(place.digest("y.cobd"), digest);
    if oracle("mke2fs") {
        place.sh("truncate -s 20M old; mke2fs -q -t ext3 -d tree old; chmod 666 old");
        let done = place.run(&["image", "resize", "old", "--size", "fit"], 0);
        assert!(done.stderr.contains("has now extent"), "{}", done.stderr);
        place.check("old");
        place.run(
            &["diff", "old", "tree", "--ignore", "mtime,mtime-ns,uid,gid"],
            0,
        );
    }
}

#[test]
fn a_damaged_archive_leaves_no_image() {
    let place = Place::with_archive();
    let bytes = fs::read(place.path("a.tar")).unwrap();
    let before = place.names();
    let length = bytes.len();
    for cut in [
        1,
        100,
        511,
        513,
        1024,
        5000,
        length / 3,
        length / 2,
        length - 15_000,
    ] {
        fs::write(place.path("a.tar"), &bytes[..cut]).unwrap();
        let refused = place.run(&["image", "build", "a.tar", "-o", "x.cobd"], 1);
        assert!(
            refused.stderr.contains("a.tar"),
            "{cut}: {}",
            refused.stderr
        );
        assert!(refused.stderr.contains("byte"), "{cut}: {}", refused.stderr);
        assert_eq!(place.names(), before, "{cut}");
    }
    for (script, part) in [
        (
            "tar -P -cf a.tar --transform 's,empty,../empty,' tree/empty",
            "'..'",
        ),
        (
            "tar -C tree -cf - . | gzip -1 | head -c 100000 > a.tar",
            "cannot read the tar archive, entry './large'",
        ),
        (
            "tar -cf a.tar --transform 's,hard,gone,' tree/sub/file tree/hard; tar --delete -f a.tar tree/sub/file",
            "gone",
        ),
        ("head -c 400000000 /dev/zero | zstd -q -1 > a.tar", "a.tar"),
        ("echo no archive at all > a.tar", "a.tar"),
    ] {
        if script.contains("zstd") && !oracle("zstd") {
            continue;
        }
        place.sh(script);
        let refused = place.run(&["image", "build", "a.tar", "-o", "x.cobd"], 1);
        assert!(
            refused.stderr.contains(part),
            "{script}: {}",
            refused.stderr
        );
        assert_eq!(place.names(), before, "{script}");
    }
    place.run(&["image", "build", "a.tar", "-o", "-"], 2);
}

/// Starts a build that has got half of an archive and waits for more.
fn waiting(place: &Place) -> (Process, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = place.coop(&["image", "build", "-", "-o", "x.cobd", "--progress", "json"]);
    let build = Process::start(command.stdin(reader), DEADLINE);
    let bytes = fs::read(place.path("a.tar")).unwrap();
    writer.write_all(&bytes[..bytes.len() / 2]).unwrap();
    build.expect_on_stderr("task_started");
    (build, writer)
}

#[test]
fn a_stopped_build_leaves_the_old_image() {
    let place = Place::with_archive();
    fs::write(place.path("x.cobd"), "old").unwrap();
    let before = place.names();
    for (signal, code) in [
        (Signal::INT, Some(130)),
        (Signal::TERM, Some(143)),
        (Signal::KILL, None),
    ] {
        let (build, _writer) = waiting(&place);
        build.signal(signal);
        assert_eq!(build.end().code(), code);
        assert_eq!(place.names(), before);
        assert_eq!(fs::read_to_string(place.path("x.cobd")).unwrap(), "old");
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    if !root_oracle() {
        return;
    }
    let place = Place::with_archive();
    place.sh("mkdir small; mount -t tmpfs -o size=2m,mode=777 none small");
    let refused = support::run(
        &mut place.coop(&["image", "build", "a.tar", "-o", "small/x.cobd"]),
        DEADLINE,
    );
    let left = names(&place.path("small"));
    let used = place.sh("stat -f -c '%b %f' small");
    place.sh("umount small");
    let refused = refused.expect(1);
    assert!(
        refused.stderr.contains("No space left"),
        "{}",
        refused.stderr
    );
    assert_eq!(left, [""; 0]);
    let mut blocks = used.split_whitespace();
    assert_eq!(
        blocks.next(),
        blocks.next(),
        "something holds the disk's space"
    );
}

/// How large the archive is that streams: 2 GB where COOP_TEST_LARGE is set.
fn stream_bytes() -> u64 {
    match std::env::var_os("COOP_TEST_LARGE") {
        Some(_) => 2_000_000_000,
        None => 50_000_000,
    }
}

#[test]
fn a_pipe_needs_no_copy_beyond_the_output() {
    if !oracle("strace") {
        return;
    }
    let place = Place::new();
    let data = File::create(place.path("data")).unwrap();
    data.set_len(stream_bytes()).unwrap();
    for offset in (0..stream_bytes()).step_by(1 << 16) {
        data.write_all_at(&offset.to_le_bytes(), offset).unwrap();
    }
    let mut archive = Command::new("tar")
        .args(["-cf", "-", "data"])
        .current_dir(place.0.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut command = support::unprivileged("strace");
    support::plain_environment(&mut command);
    command
        .args(["-f", "-o", "trace", "-e", "trace=%file,memfd_create"])
        .arg(support::program())
        .args(["image", "build", "-", "-o", "x.cobd"])
        .env("TMPDIR", "/nonexistent")
        .current_dir(place.0.path())
        .stdin(archive.stdout.take().unwrap());
    Process::start(&mut command, 4 * DEADLINE).end().expect(0);
    assert!(archive.wait().unwrap().success());
    let trace = fs::read_to_string(place.path("trace")).unwrap();
    let written: Vec<&str> = trace
        .lines()
        .filter(|line| {
            line.contains("O_WRONLY") || line.contains("O_RDWR") || line.contains("memfd")
        })
        .collect();
    assert_eq!(written.len(), 1, "{written:#?}");
    assert!(
        written[0].contains("O_TMPFILE") || written[0].contains("x.cobd"),
        "{written:?}"
    );
    place.check("x.cobd");
    let mode = fs::metadata(place.path("x.cobd"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o400, 0o400);
}
