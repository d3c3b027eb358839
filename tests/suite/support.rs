//! What the tests share: the program as an ordinary user, deadlines, oracles, recipes.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fs_err as fs;
use sha2::Digest;

/// The ordinary user as whom the program runs where the tests run as root.
pub const NOBODY: u32 = 65534;

/// How long a build of a whole Debian may take on a busy machine.
pub const BUILD_DEADLINE: Duration = Duration::from_secs(600);
/// How long a build of a kernel from source may take on a busy machine.
pub const KERNEL_DEADLINE: Duration = Duration::from_secs(1800);
/// How long a boot, a short command and the power-off may take on a busy machine.
pub const RUN_DEADLINE: Duration = Duration::from_secs(120);

/// A folder that the ordinary user may enter, with the program and the recipes in it. Every
/// checkout has its own, for its own program.
pub fn home() -> &'static Path {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    HOME.get_or_init(|| {
        let checkout = sha256_of(env!("CARGO_MANIFEST_DIR").as_bytes());
        let home = common().join(&checkout[..8]);
        fs::create_dir_all(&home).unwrap();
        copy_program(&home);
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        copy_folder(&repository.join("recipes"), &home.join("recipes"));
        owned_folder(&home.join("work"));
        home
    })
}

/// What all checkouts share. It stays between runs, so that packages are fetched once on a machine.
fn common() -> PathBuf {
    std::env::temp_dir().join(format!("coop-suite-{}", ordinary_uid()))
}

/// The cache that tests share.
pub fn cache() -> PathBuf {
    let cache = common().join("cache");
    owned_folder(&cache);
    cache
}

/// A cache of a test's own, in its folder, with what the shared one has and in no more room.
pub fn own_cache(folder: &Path) -> PathBuf {
    let own = folder.join("cache");
    owned_folder(&own);
    owned_folder(&own.join("v1"));
    for part in ["blob", "object", "note", "result"] {
        link_all(&cache().join("v1").join(part), &own.join("v1").join(part));
    }
    own
}

fn link_all(from: &Path, to: &Path) {
    owned_folder(to);
    for entry in fs::read_dir(from).into_iter().flatten() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            link_all(&path, &target);
        } else {
            // Another test may take it away meanwhile.
            let _ = fs::hard_link(&path, &target);
        }
    }
}

/// The kernel of recipes without one, as COOP_KERNEL names it: `prebuilt`, because the trimmed one
/// has to be built first, which takes minutes. COOP_TEST_DEFAULT_KERNEL=trimmed has it built once,
/// and everything tested with it.
pub fn kernel() -> &'static str {
    static KERNEL: OnceLock<String> = OnceLock::new();
    KERNEL.get_or_init(|| {
        let wanted = std::env::var("COOP_TEST_DEFAULT_KERNEL");
        let kernel = wanted.unwrap_or_else(|_| "prebuilt".to_owned());
        if kernel == "trimmed" {
            let mut command = unprivileged(program());
            environment_with(&mut command, &kernel);
            command
                .args(["kernel", "build", "--progress", "none"])
                .arg(recipe("debian.yaml"))
                .arg("-o")
                .arg(home().join("work/kernel"));
            run(&mut command, KERNEL_DEADLINE).expect(0);
        }
        kernel
    })
}

fn owned_folder(path: &Path) {
    fs::create_dir_all(path).unwrap();
    give(path);
}

/// The appliance of `recipes/debian.yaml`, built once for all tests that want it, by the program
/// as it is now. It lies in `out/debian` of [`debian_folder`], where `coop run RECIPE` looks.
pub fn debian() -> &'static Path {
    static DEBIAN: OnceLock<PathBuf> = OnceLock::new();
    DEBIAN.get_or_init(|| {
        let folder = debian_folder().join("out/debian");
        let _ = fs::remove_dir_all(&folder);
        let mut command = coop();
        command
            .args(["build", "--progress", "none"])
            .arg(recipe("debian.yaml"))
            .current_dir(debian_folder());
        let done = run(&mut command, BUILD_DEADLINE).expect(0);
        assert_eq!(done.text(), "out/debian\n");
        folder
    })
}

/// The working folder of the build that tests share.
pub fn debian_folder() -> PathBuf {
    let folder = home().join("work/debian");
    owned_folder(&folder);
    folder
}

/// Runs a command in the Debian that tests share.
#[track_caller]
pub fn in_debian(words: &[&str]) -> Done {
    let mut command = coop();
    command.arg("run").arg(debian()).arg("--").args(words);
    run(&mut command, RUN_DEADLINE)
}

/// An archive of the few files of that Debian that a shell needs, made by its own tar.
pub fn small_archive() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let files = "bin sbin lib lib64 usr/lib64/ld-linux-x86-64.so.2 \
                     usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 \
                     usr/lib/x86_64-linux-gnu/libc.so.6 \
                     usr/bin/sh usr/bin/dash usr/bin/cat usr/bin/sleep usr/bin/true \
                     etc/passwd etc/group etc/os-release usr/lib/os-release dev proc sys tmp";
        let mut words = vec!["tar", "-c", "--no-recursion", "-C", "/"];
        words.extend(files.split_whitespace());
        let archive = home().join("work/small.tar");
        let made = in_debian(&words).expect(0);
        fs::write(&archive, made.stdout).unwrap();
        archive
    })
}

/// The appliance of `recipes/tarball.yaml` from that archive.
pub fn small() -> &'static Path {
    static SMALL: OnceLock<PathBuf> = OnceLock::new();
    SMALL.get_or_init(|| {
        let folder = home().join("work/small");
        let _ = fs::remove_dir_all(&folder);
        let mut command = coop();
        command.args(["build", "--progress", "none", "-o"]);
        command.arg(&folder).args(from_archive(small_archive()));
        run(&mut command, RUN_DEADLINE).expect(0);
        folder
    })
}

/// The words that have `recipes/tarball.yaml` take an archive.
pub fn from_archive(archive: &Path) -> [OsString; 3] {
    let mut variable = OsString::from("archive=");
    variable.push(archive);
    [recipe("tarball.yaml").into(), "--set".into(), variable]
}

/// Runs a command in the small appliance.
#[track_caller]
pub fn in_small(words: &[&str]) -> Done {
    let mut command = coop();
    command.arg("run").arg(small()).arg("--").args(words);
    run(&mut command, RUN_DEADLINE)
}

/// A new version of the program takes the old one's name: the old one may be running.
fn copy_program(home: &Path) {
    let new = home.join(format!("coop.{}", std::process::id()));
    fs::copy(env!("CARGO_BIN_EXE_coop"), &new).unwrap();
    fs::rename(new, home.join("coop")).unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn ordinary_uid() -> u32 {
    if is_root() {
        NOBODY
    } else {
        rustix::process::geteuid().as_raw()
    }
}

/// Makes a path the ordinary user's.
pub fn give(path: &Path) {
    if is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// A temporary folder of the ordinary user's.
pub fn temp_folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new()
        .prefix("t")
        .tempdir_in(home().join("work"))
        .unwrap();
    give(folder.path());
    folder
}

/// A recipe of the repository.
pub fn recipe(name: &str) -> PathBuf {
    home().join("recipes").join(name)
}

/// Any program, as the ordinary user without a single privilege.
pub fn unprivileged(program: impl AsRef<OsStr>) -> Command {
    as_user(is_root().then_some(NOBODY), program)
}

/// Any program, as a user of this number and group without a single privilege; with no number, as
/// whoever runs the tests.
pub fn as_user(uid: Option<u32>, program: impl AsRef<OsStr>) -> Command {
    let Some(uid) = uid else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={uid}"), format!("--regid={uid}")])
        .args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
        .arg("--no-new-privs")
        .arg(program);
    command
}

/// The program's place.
pub fn program() -> PathBuf {
    home().join("coop")
}

/// `coop`, as the ordinary user, with an environment of nothing but what is stated here: HOME
/// cannot be written.
pub fn coop() -> Command {
    let mut command = unprivileged(program());
    plain_environment(&mut command);
    command
}

/// Runs `coop` in a folder.
pub fn coop_in(folder: &Path, words: &[&str]) -> Done {
    let mut command = coop();
    command.current_dir(folder).args(words);
    run(&mut command, BUILD_DEADLINE)
}

/// `coop` in a mount namespace of its own, after the shell has run `before` as root; `after` runs
/// in the same namespace, and the code is coop's.
pub fn in_namespace(before: &str, coop: &Command, after: &str) -> Command {
    let script = format!("set -e\n{before}\nset +e\n\"$@\"\ncode=$?\n{after}\nexit $code");
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation=private",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(coop.get_program())
        .args(coop.get_args());
    plain_environment(&mut command);
    command.envs(
        coop.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command
}

/// Sets the environment that every run of the program gets.
pub fn plain_environment(command: &mut Command) {
    environment_with(command, kernel());
}

fn environment_with(command: &mut Command, kernel: &str) {
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/nonexistent")
        .env("COOP_CACHE", cache())
        .env("COOP_KERNEL", kernel)
        .current_dir(home());
    for name in [
        "COOP_DEBIAN_MIRROR",
        "SSL_CERT_FILE",
        "http_proxy",
        "https_proxy",
    ] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// What a program did.
#[derive(Debug)]
pub struct Done {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub elapsed: Duration,
}

impl Done {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Panics with everything that the program said unless it exited with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            Some(code),
            "{:?}\nstdout: {}\nstderr: {}",
            self.status,
            self.text(),
            self.stderr
        );
        self
    }
}

/// Runs a program with nothing to read. See [`run_with_input`].
#[track_caller]
pub fn run(command: &mut Command, deadline: Duration) -> Done {
    run_with_input(command, b"", deadline)
}

/// Runs a program in a process group of its own; at the deadline the whole group is killed and the
/// test fails.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &[u8], deadline: Duration) -> Done {
    let mut process = Process::start(command.stdin(Stdio::piped()), deadline);
    if let Some(mut stdin) = process.child.stdin.take() {
        let input = input.to_vec();
        std::thread::spawn(move || {
            // A program that does not read its input may close it.
            let _ = stdin.write_all(&input);
        });
    }
    process.end()
}

/// How long the output's end may come after a program's own.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(10);

/// A running program that leads a process group, with a deadline. Dropping it kills the group.
pub struct Process {
    child: Child,
    command: String,
    started: Instant,
    deadline: Duration,
    stdout: Stream,
    stderr: Stream,
}

impl Process {
    /// Starts it. What it reads is the command's own matter.
    pub fn start(command: &mut Command, deadline: Duration) -> Self {
        let started = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            command: format!("{command:?}"),
            started,
            deadline,
            stdout: Stream::collect(child.stdout.take().unwrap()),
            stderr: Stream::collect(child.stderr.take().unwrap()),
            child,
        }
    }

    /// Waits until it has written a text to stdout.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        self.expect_on(&self.stdout, text);
    }

    /// Waits until it has written a text to stderr.
    #[track_caller]
    pub fn expect_on_stderr(&self, text: &str) {
        self.expect_on(&self.stderr, text);
    }

    #[track_caller]
    fn expect_on(&self, stream: &Stream, text: &str) {
        let said = || String::from_utf8_lossy(&stream.bytes()).contains(text);
        if !eventually(self.left(), || said() || stream.has_ended()) || !said() {
            self.fail(&format!("'{text}' is not said"));
        }
    }

    /// Sends a signal to the program alone, as `kill` does.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end and the end of its output.
    #[track_caller]
    pub fn end(mut self) -> Done {
        let left = self.left();
        let Some(status) = wait(&mut self.child, left) else {
            self.fail("no end before the deadline");
        };
        let elapsed = self.started.elapsed();
        if !eventually(OUTPUT_PATIENCE, || {
            self.stdout.has_ended() && self.stderr.has_ended()
        }) {
            self.fail("something outlives the program and holds its output open");
        }
        Done {
            status,
            stdout: self.stdout.bytes(),
            stderr: String::from_utf8_lossy(&self.stderr.bytes()).into_owned(),
            elapsed,
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.started.elapsed())
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        panic!(
            "{what} (after {:?}): {}\nstdout: {}\nstderr: {}",
            self.started.elapsed(),
            self.command,
            String::from_utf8_lossy(&self.stdout.bytes()),
            String::from_utf8_lossy(&self.stderr.bytes())
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A leader that was waited for has no number any more that would be its own.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = rustix::process::kill_process_group(self.pid(), rustix::process::Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// What comes out of a pipe, gathered as it comes.
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Stream {
    fn collect(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1 << 16];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                shared.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, thread }
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Waits for a child, but not for ever.
pub fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let mut status = None;
    eventually(patience, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status
}

/// Waits until something holds, but not for ever; says whether it came to hold.
pub fn eventually(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if started.elapsed() >= patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether an oracle is there. Where COOP_REQUIRE_ORACLES is set a missing one fails the test.
#[track_caller]
pub fn oracle(program: &str) -> bool {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let found = path.split(':').any(|f| Path::new(f).join(program).exists());
    missing_is_an_error(found, program)
}

/// Whether the tests run as root, for oracles that need it.
#[track_caller]
pub fn root_oracle() -> bool {
    missing_is_an_error(is_root(), "root")
}

#[track_caller]
fn missing_is_an_error(found: bool, what: &str) -> bool {
    if !found {
        assert!(
            std::env::var_os("COOP_REQUIRE_ORACLES").is_none(),
            "oracle '{what}' is missing"
        );
        eprintln!("skipped: oracle '{what}' is missing");
    }
    found
}

/// The processes whose command line names a path, for tests of what a run leaves behind.
pub fn processes_naming(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let is_process = entry
            .file_name()
            .to_string_lossy()
            .chars()
            .all(|c| c.is_ascii_digit());
        let own = entry.file_name().to_string_lossy() == std::process::id().to_string();
        if !is_process || own {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) {
            found.push(line);
        }
    }
    found
}

/// SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> String {
    let mut file = fs::File::open(path).unwrap();
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hexadecimal(&hasher.finalize()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// SHA-256 of bytes, in hexadecimal.
pub fn sha256_of(bytes: &[u8]) -> String {
    hexadecimal(&sha2::Sha256::digest(bytes))
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
