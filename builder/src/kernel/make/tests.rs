//! Kernel trees that only pretend to be one, and the real one where the environment names it.
//!
//! `COOP_TEST_LINUX` is the folder of an unpacked kernel tree; a test with it takes minutes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use coop_image::tree::{Inode, InodeId, Kind, Metadata, Times, Tree};
use fs_err as fs;
use tempfile::TempDir;

use super::*;
use crate::debian::mirror::AptSources;
use crate::fetch::Options;
use crate::kernel::Target;
use crate::kernel::config::parse;
use crate::lock::{Lock, Pins};
use crate::recipe::{HostFile, TarballLocation};

/// What a kernel's top Makefile does for us, in a second: it takes what is wanted but for
/// symbols with DROPPED in their names, and `linux` is a program that ends.
const MAKEFILE: &str = r#"VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 3
EXTRAVERSION =
R = $(INSTALL_MOD_PATH)/lib/modules/6.12.3
allnoconfig:
	grep -v DROPPED $(KCONFIG_ALLCONFIG) > $(O)/.config
defconfig:
	echo CONFIG_FROM_DEFCONFIG=y > $(O)/.config
olddefconfig:
	sort -u -o $(O)/.config $(O)/.config
savedefconfig:
	cp $(O)/.config $(O)/defconfig
linux:
	@echo '  CC      start.o'
	@mkdir -p $(O)/include/config
	@echo 6.12.3 > $(O)/include/config/kernel.release
	$(EVIL)
	gcc $(KCFLAGS) -g -static -nostdlib -o $(O)/vmlinux start.c
modules:
	gcc $(KCFLAGS) -c -o $(O)/a.ko a.c
modules_install:
	mkdir -p $(R)/kernel
	cp $(O)/a.ko $(R)/kernel/
	echo kernel/a.ko > $(R)/modules.order
	ln -s /etc $(R)/build
"#;
const START: &str = "void _start(void) { __asm__(\"mov $60, %eax; xor %edi, %edi; syscall\"); \
                     } const char *file = __FILE__;\n";
const MODULE: &str = "static const char name[] __attribute__((section(\".modinfo\"), used)) = \
                      \"name=a\";\n";
const KCONFIG: &str = "config A\n\tbool \"a\"\nconfig DROPPED\n\tbool \"d\"\n\tdepends on B\n\
                       config B\n\tbool \"b\"\n";
const UM: &str = "CONFIG_UML=y\nCONFIG_64BIT=y\nCONFIG_STATIC_LINK=y\n";

/// What the observer heard.
#[derive(Default)]
struct Heard {
    lines: Mutex<Vec<String>>,
    /// Calls the work off when a line has this in it.
    cancel_at: Option<&'static str>,
    cancelled: AtomicBool,
}

impl Observer for Heard {
    fn event(&self, event: &Event<'_>) {
        let line = match event {
            Event::Warning { message } => format!("warning: {message}"),
            Event::Note { message } => format!("note: {message}"),
            Event::TaskStarted { task, total, .. } => format!("start: {task} {total:?}"),
            Event::TaskProgress { task, done } => format!("{task}: {done}"),
            Event::TaskFinished { task, .. } => format!("end: {task}"),
            Event::GuestLine { line } => (*line).to_owned(),
        };
        if self.cancel_at.is_some_and(|part| line.contains(part)) {
            self.cancelled.store(true, Ordering::SeqCst);
        }
        self.lines.lock().unwrap().push(line);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

impl Heard {
    fn has(&self, part: &str) -> bool {
        let lines = self.lines.lock().unwrap();
        lines.iter().any(|line| line.contains(part))
    }
}

/// A pretended kernel, a store, and what is asked of them.
struct Bench {
    home: TempDir,
    fetcher: Fetcher,
    apt: AptSources,
    source: KernelSource,
    wanted: Vec<Wanted>,
    defconfig: bool,
    allow_dropped: bool,
    programs: Vec<PathBuf>,
    heard: Arc<Heard>,
    host: Host,
}

impl Bench {
    fn new() -> Self {
        Self::with(MAKEFILE, UM)
    }

    /// With a Makefile whose `linux` also does this.
    fn evil(line: &str) -> Self {
        Self::with(&MAKEFILE.replace("$(EVIL)", line), UM)
    }

    fn with(makefile: &str, wanted: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let archive = home.path().join("linux.tar");
        let files = [
            ("Makefile", makefile),
            ("Kconfig", KCONFIG),
            ("Kbuild", ""),
            ("scripts/kconfig/Makefile", ""),
            ("start.c", START),
            ("a.c", MODULE),
        ];
        write_tar(&archive, &files);
        let store = Store::open(&home.path().join("cache")).unwrap();
        Self {
            fetcher: Fetcher::new(store, Options::default()),
            apt: AptSources::default(),
            source: KernelSource {
                location: KernelLocation::Tarball(TarballLocation::Path {
                    file: HostFile {
                        written: "./linux.tar".to_owned(),
                        path: archive,
                    },
                    sha256: None,
                }),
                patches: Vec::new(),
                target: Target::Um,
                place: BuildPlace::Host,
            },
            wanted: parse(wanted, "fragment t").unwrap(),
            defconfig: false,
            allow_dropped: false,
            programs: vec!["/usr/bin".into(), "/bin".into()],
            heard: Arc::default(),
            host: Host {
                memory: Vec::new(),
                scratch: home.path().to_owned(),
                instances: home.path().to_owned(),
                resolvers: Vec::new(),
            },
            home,
        }
    }

    fn wants(&mut self, text: &str) {
        self.wanted.extend(parse(text, "./site.config").unwrap());
    }

    fn request<T>(&self, work: impl FnOnce(&MakeRequest<'_>) -> T) -> T {
        self.request_with(&Pins::live(), work)
    }

    fn request_with<T>(&self, pins: &Pins, work: impl FnOnce(&MakeRequest<'_>) -> T) -> T {
        let archive = Archive {
            environment: None,
            snapshots: None,
            apt: &self.apt,
            architecture: "amd64",
            now_seconds: 0,
            pins,
        };
        let observer: Arc<dyn Observer> = Arc::<Heard>::clone(&self.heard);
        work(&MakeRequest {
            source: &self.source,
            wanted: &self.wanted,
            defconfig: self.defconfig,
            allow_dropped: self.allow_dropped,
            only_stored: false,
            fetcher: &self.fetcher,
            archive: &archive,
            programs: &self.programs,
            host: &self.host,
            observer: &observer,
        })
    }

    fn build(&self) -> Result<FetchedKernel, MakeError> {
        self.request(build)
    }

    fn error(&self) -> MakeError {
        self.build().map(|kernel| kernel.resolved).unwrap_err()
    }

    fn logs(&self) -> Vec<PathBuf> {
        let folder = self.fetcher.store().root().join("log/kernel");
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// What is left in the store's temporary folders, but for the locks.
    fn left(&self) -> usize {
        let temp = self.fetcher.store().root().join("temp");
        let mut count = 0;
        for session in fs::read_dir(temp).into_iter().flatten().flatten() {
            let entries = fs::read_dir(session.path()).into_iter().flatten().flatten();
            count += entries.filter(|entry| entry.file_name() != "lock").count();
        }
        count
    }
}

fn write_tar(path: &Path, files: &[(&str, &str)]) {
    let metadata = |mode| Metadata {
        mode,
        times: Times::all(Timestamp::from_seconds(1_789_000_000)),
        ..Metadata::default()
    };
    let mut tree = Tree::new(metadata(0o755));
    for (name, text) in files {
        let content = tree.add_bytes(text.as_bytes().to_vec()).unwrap();
        let id = tree
            .add_inode(Inode {
                metadata: metadata(0o644),
                kind: Kind::File(content),
            })
            .unwrap();
        let path = format!("/linux-6.12/{name}");
        let (folder, name) = path.rsplit_once('/').unwrap();
        let folder = tree
            .make_directories(folder.as_bytes(), &metadata(0o755))
            .unwrap();
        tree.link(folder, name.as_bytes(), id).unwrap();
    }
    let file = fs::File::create(path).unwrap();
    coop_image::tar::write(&tree, file).unwrap();
}

/// Where the test machine has no compiler, these tests have nothing to run.
fn has_tools() -> bool {
    let programs = Programs::of_system(&["/usr/bin".into(), "/bin".into()]);
    let missing = tools::missing(Target::Um, &programs).unwrap();
    if missing.is_empty() {
        return true;
    }
    let required = std::env::var("COOP_REQUIRE_ORACLES").is_ok_and(|value| value == "1");
    assert!(!required, "{}", tools::sentence(&missing));
    eprintln!("skipped: {}", tools::sentence(&missing));
    false
}

#[test]
fn a_kernel_is_made_once_and_then_taken_from_the_store() {
    if !has_tools() {
        return;
    }
    let mut bench = Bench::new();
    bench.wants("CONFIG_A=y\nCONFIG_MODULES=y\n");
    let made = bench.build().unwrap();
    assert!(bench.heard.has("compile the kernel: 1"));
    assert_eq!(made.files.release, "6.12.3");
    assert!(made.files.config.contains("CONFIG_A=y\n"));
    assert!(made.files.vmlinux.starts_with(b"\x7fELF"));
    let text = String::from_utf8_lossy(&made.files.vmlinux).into_owned();
    assert!(
        text.contains("start.c") && !text.contains("cache"),
        "a path is in it"
    );
    let modules = made.files.modules.unwrap();
    assert!(modules.resolve(b"/kernel/a.ko").is_ok());
    assert!(modules.resolve(b"/modules.dep").is_ok());
    assert!(modules.child(InodeId::ROOT, b"build").is_none());
    assert!(
        made.resolved
            .iter()
            .any(|line| line.starts_with("cc1 sha256:"))
    );
    assert_eq!(bench.left(), 0);

    let before = bench.heard.lines.lock().unwrap().len();
    let again = bench.build().unwrap();
    assert_eq!(
        bench.heard.lines.lock().unwrap().len(),
        before,
        "it was made again"
    );
    assert_eq!(again.files.vmlinux, made.files.vmlinux);
    assert_eq!(again.files.minimal_config, made.files.minimal_config);
    assert_eq!(again.resolved, made.resolved);

    let listed = stored(bench.fetcher.store()).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].release.as_str(), listed[0].target),
        ("6.12.3", Target::Um)
    );
    assert!(is_stored(bench.fetcher.store(), &listed[0].key));
    assert!(listed[0].size_bytes > 10_000);

    // Without tools, the latest one has to do.
    bench.programs = Vec::new();
    assert_eq!(bench.build().unwrap().files.vmlinux, made.files.vmlinux);
    bench.wants("CONFIG_B=y\n");
    assert!(matches!(bench.error(), MakeError::Missing(_)));
}

#[test]
fn a_lock_names_the_compiler() {
    if !has_tools() {
        return;
    }
    let mut bench = Bench::new();
    let pins = Pins::making(Lock::default(), BTreeSet::new());
    bench.request_with(&pins, pin).unwrap();
    let lock = pins.seen();
    assert!(lock.answers[0].question.contains("compiler of um kernels"));
    let live = Pins::live();
    let made = bench.request_with(&live, build).unwrap();
    assert_eq!(live.seen(), lock);
    let locked = |bench: &Bench, lock: &Lock| {
        let pins = Pins::locked(lock.clone());
        let made = bench.request_with(&pins, build)?;
        assert_eq!(pins.seen(), *lock);
        Ok::<_, MakeError>(made.files.vmlinux)
    };
    assert_eq!(locked(&bench, &lock).unwrap(), made.files.vmlinux);
    // Whoever has the kernel needs no compiler.
    let programs = std::mem::take(&mut bench.programs);
    assert_eq!(locked(&bench, &lock).unwrap(), made.files.vmlinux);
    let mut other = lock.clone();
    other.answers[0].names[1] = format!("cc1 sha256:{}", Digest::of(b""));
    assert!(matches!(
        locked(&bench, &other),
        Err(MakeError::NoCompiler(_))
    ));
    bench.programs = programs;
    let error = locked(&bench, &other).unwrap_err().to_string();
    assert!(error.ends_with("(other: cc1)"), "{error}");
    other.answers.clear();
    assert!(matches!(
        locked(&bench, &other),
        Err(MakeError::NotLocked(_))
    ));
}

#[test]
fn the_same_in_another_folder_is_the_same_to_the_byte() {
    if !has_tools() {
        return;
    }
    let all = |bench: &Bench| {
        bench.build().unwrap();
        let listed = stored(bench.fetcher.store()).unwrap();
        let key = stored::path(bench.fetcher.store(), listed[0].key);
        fs::read(key).unwrap()
    };
    let (first, second) = (Bench::new(), Bench::new());
    assert!(all(&first) == all(&second));
}

#[test]
fn what_is_missing_is_named_all_at_once() {
    let mut bench = Bench::new();
    bench.programs = vec![bench.home.path().to_owned()];
    let error = bench.error().to_string();
    for part in [
        "make",
        "gcc",
        "flex",
        "bison",
        "bc",
        "apt-get install",
        "in: guest",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let programs = Programs::exactly(vec![bench.home.path().to_owned()]);
    fs::write(bench.home.path().join("make"), "").unwrap();
    let missing = tools::missing(Target::Um, &programs).unwrap();
    assert!(
        missing.iter().any(|tool| tool.tool == "make"),
        "it cannot be executed"
    );
    let sentence = tools::sentence(&missing);
    assert_eq!(sentence.matches("binutils").count(), 1, "{sentence}");
    let header = tools::missing_for(&DotConfig::parse("CONFIG_KERNEL_LZO=y\n"), &programs);
    assert_eq!(header.unwrap()[0].package, "lzop");
}

#[test]
fn what_is_dropped_is_an_error_with_place_and_reason_unless_allowed() {
    if !has_tools() {
        return;
    }
    let mut bench = Bench::new();
    bench.wants("CONFIG_A=y\n\nCONFIG_DROPPED=y\n");
    let error = bench.error();
    let text = error.to_string();
    assert!(matches!(error, MakeError::Dropped { .. }), "{text}");
    assert!(
        text.contains("CONFIG_DROPPED is n, not y (./site.config:3): "),
        "{text}"
    );
    assert!(text.contains("depends on"), "{text}");
    let configured = bench.request(configure).unwrap();
    assert_eq!(configured.dropped.len(), 1);
    assert!(configured.config.contains("CONFIG_A=y"));

    bench.allow_dropped = true;
    bench.build().unwrap();
    assert!(bench.heard.has("warning: CONFIG_DROPPED is n, not y"));
    let listed = stored(bench.fetcher.store()).unwrap();
    assert_eq!(listed[0].dropped, 1);
    // What the store has is judged as what is new.
    bench.allow_dropped = false;
    assert!(matches!(bench.error(), MakeError::Dropped { .. }));
}

#[test]
fn a_configuration_is_remembered_and_conflicts_are_told() {
    if !has_tools() {
        return;
    }
    let mut bench = Bench::new();
    bench.wants("CONFIG_A=n\nCONFIG_64BIT=n\nCONFIG_64BIT=y\n");
    let first = bench.request(configure).unwrap();
    assert_eq!(first.conflicts.len(), 2);
    assert!(bench.heard.has("configure the kernel"));
    bench.heard.lines.lock().unwrap().clear();
    assert_eq!(bench.request(configure).unwrap(), first);
    assert!(!bench.heard.has("configure the kernel"));
    assert_eq!(bench.left(), 0);
    bench.defconfig = true;
    let other = bench.request(configure).unwrap();
    assert!(other.config.contains("CONFIG_FROM_DEFCONFIG=y"));
    bench.build().unwrap();
    assert!(bench.heard.has("warning: CONFIG_64BIT is wanted as"));
}

#[test]
fn a_failing_compilation_shows_why_and_where_the_log_is() {
    if !has_tools() {
        return;
    }
    let bench = Bench::evil("@echo 'start.c:3:1: error: no such thing'; exit 3");
    let text = bench.error().to_string();
    let log = bench.logs().remove(0);
    for part in [
        "compiling the kernel failed: make exited with 2",
        "start.c:3:1: error: no such thing",
        &log.display().to_string(),
    ] {
        assert!(text.contains(part), "{text}");
    }
    let whole = fs::read_to_string(&log).unwrap();
    assert!(whole.contains("+ make") && whole.contains("error: no such thing"));
    assert_eq!(bench.left(), 0);
    // The next attempt replaces the log.
    assert!(bench.build().is_err());
    assert_eq!(fs::read_to_string(&log).unwrap().len(), whole.len());
    assert_eq!(stored(bench.fetcher.store()).unwrap(), []);
}

#[test]
fn a_build_that_is_called_off_leaves_nothing() {
    if !has_tools() {
        return;
    }
    let number = format!("{}.75", 100_000 + std::process::id());
    let mut bench = Bench::evil(&format!("(sleep {number} &) ; sleep {number}"));
    bench.heard = Arc::new(Heard {
        cancel_at: Some("compile the kernel: 1"),
        ..Heard::default()
    });
    assert!(matches!(bench.error(), MakeError::Cancelled));
    assert_eq!(bench.left(), 0);
    let runs = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&number)
    });
    assert!(!runs);
}

#[test]
fn makefiles_stay_behind_their_walls() {
    if !has_tools() {
        return;
    }
    if landlock_state() == LandlockState::Absent {
        eprintln!("skipped: this host's kernel has no landlock");
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let path = secret.display();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let tried = [
        format!("cat {path}"),
        format!("echo x > {path}"),
        format!("touch {}/new", outside.path().display()),
        "echo x >> start.c".to_owned(),
        "echo x > Makefile".to_owned(),
        format!("bash -c 'echo x > /dev/tcp/127.0.0.1/{port}'"),
        "cat /etc/shadow".to_owned(),
        format!("kill {}", std::process::id()),
        "setsid -f -w true".to_owned(),
        "test -n \"$$PATH_NOT_SET$$CARGO_MANIFEST_DIR\"".to_owned(),
    ];
    let line = |(number, script): (usize, &String)| {
        format!("@if {{ {script}; }} 2>/dev/null; then echo 'error: got out: {number}'; exit 1; fi")
    };
    let lines: Vec<String> = tried.iter().enumerate().map(line).collect();
    let bench = Bench::evil(&lines.join("\n\t"));
    bench.build().unwrap();
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

#[test]
fn results_that_are_traps_are_not_stepped_into() {
    if !has_tools() {
        return;
    }
    let run = |line: &str| {
        let makefile = MAKEFILE.replace("$(EVIL)", "").replace(
            "\tgcc $(KCFLAGS) -g -static -nostdlib -o $(O)/vmlinux start.c",
            &format!("\t{line}"),
        );
        Bench::with(&makefile, UM).error().to_string()
    };
    for line in [
        "ln -s /bin/sh $(O)/coop-vmlinux; cp /bin/true $(O)/vmlinux; rm -rf $(O)/include; \
         ln -s /etc $(O)/include",
        "mkfifo $(O)/vmlinux",
        "echo text > $(O)/vmlinux",
        "echo '../../x' > $(O)/include/config/kernel.release; cp /bin/true $(O)/vmlinux",
        // Dynamic.
        "cp /bin/true $(O)/vmlinux",
        "true",
    ] {
        let error = run(line);
        assert!(error.len() > 20, "{line}: {error}");
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    if !has_tools() {
        return;
    }
    let bench = Bench::evil("dd if=/dev/zero of=$(O)/huge bs=1 count=1 seek=8589934592");
    let text = bench.error().to_string();
    assert!(
        text.contains("File size limit exceeded") || text.contains("File too large"),
        "{text}"
    );
    assert_eq!(bench.left(), 0);
}

#[test]
fn a_second_builder_waits_for_the_first() {
    if !has_tools() {
        return;
    }
    let bench = Bench::evil("sleep 1");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.build().unwrap().files.vmlinux);
        let second = scope.spawn(|| bench.build().unwrap().files.vmlinux);
        assert_eq!(first.join().unwrap(), second.join().unwrap());
    });
    assert!(bench.heard.has("note: another coop makes the same kernel"));
    let lines = bench.heard.lines.lock().unwrap();
    let compiled = lines
        .iter()
        .filter(|line| line.starts_with("start: compile"));
    assert_eq!(compiled.count(), 1);
}
