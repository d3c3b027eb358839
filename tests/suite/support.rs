//! What the tests share: the program as an ordinary user, deadlines, oracles, recipes.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fs_err as fs;

/// The ordinary user as whom the program runs where the tests run as root.
pub const NOBODY: u32 = 65534;

/// A folder that the ordinary user may enter, with the program and the recipes in it. It stays
/// between runs, so that packages are fetched once on a machine.
pub fn home() -> &'static Path {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    HOME.get_or_init(|| {
        let home = std::env::temp_dir().join(format!("coop-suite-{}", ordinary_uid()));
        fs::create_dir_all(&home).unwrap();
        copy_program(&home);
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        copy_folder(&repository.join("recipes"), &home.join("recipes"));
        for folder in ["cache", "work"] {
            fs::create_dir_all(home.join(folder)).unwrap();
            give(&home.join(folder));
        }
        home
    })
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

/// The cache that tests share.
pub fn cache() -> PathBuf {
    home().join("cache")
}

/// Any program, as the ordinary user without a single privilege.
pub fn unprivileged(program: impl AsRef<OsStr>) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--no-new-privs",
        ])
        .arg(program);
    command
}

/// `coop`, as the ordinary user, with an environment of nothing but what is stated here: HOME
/// cannot be written.
pub fn coop() -> Command {
    let mut command = unprivileged(home().join("coop"));
    plain_environment(&mut command);
    command
}

/// Sets the environment that every run of the program gets.
pub fn plain_environment(command: &mut Command) {
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/nonexistent")
        .env("COOP_CACHE", cache())
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

/// Runs a program in a session of its own; at the deadline its whole process group is killed and
/// the test fails.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &[u8], deadline: Duration) -> Done {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    std::thread::spawn(move || {
        // A program that does not read its input may close it.
        let _ = stdin.write_all(&input);
    });
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let status = wait(&mut child, deadline.saturating_sub(started.elapsed()));
    let elapsed = started.elapsed();
    let Some(status) = status else {
        kill_group(&child);
        panic!(
            "no end after {deadline:?}: {command:?}\nstdout: {}\nstderr: {}",
            String::from_utf8_lossy(&stdout.join().unwrap()),
            String::from_utf8_lossy(&stderr.join().unwrap())
        );
    };
    Done {
        status,
        stdout: stdout.join().unwrap(),
        stderr: String::from_utf8_lossy(&stderr.join().unwrap()).into_owned(),
        elapsed,
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

/// Waits for a child, but not for ever.
pub fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    while started.elapsed() < patience {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Kills the process group that a child leads, and reaps the child.
pub fn kill_group(child: &Child) {
    let group = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
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
    use sha2::Digest;
    let digest = sha2::Sha256::digest(fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
