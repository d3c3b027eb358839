//! Debian's docker-registry on the loopback, and an appliance that is quickly made.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coop_appliance::{
    Cobd, Cocon, FORMAT, Filesystem, Kernel, MANIFEST_NAME, Machine, Manifest, Member, Root, Target,
};
use fs_err as fs;

use crate::support::{Process, eventually, give, temp_folder, unprivileged};

/// How long the whole of a test may take.
const DEADLINE: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs until it is dropped.
pub struct Server {
    pub authority: String,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Server {
    /// A registry that everybody may use.
    pub fn start() -> Self {
        Self::with("")
    }

    /// More lines of its configuration; `FOLDER` in them is its folder.
    pub fn with(more: &str) -> Self {
        Self::prepared(more, |_| {})
    }

    /// As [`Server::with`], with files in its folder.
    pub fn prepared(more: &str, prepare: impl Fn(&Path)) -> Self {
        let folder = temp_folder();
        prepare(folder.path());
        // Nobody else gets the port in the short time until the registry has it.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let authority = format!("127.0.0.1:{port}");
        let root = folder.path().display().to_string();
        let (http, rest) = more.split_once("---\n").unwrap_or(("", more));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {root}/store}}\n\
             http:\n  addr: {authority}\n  secret: x\n{http}{rest}",
        )
        .replace("FOLDER", &root);
        let config = folder.path().join("config.yml");
        fs::write(&config, text).unwrap();
        let mut command = unprivileged("docker-registry");
        command.arg("serve").arg(&config).current_dir(folder.path());
        let process = Process::start(&mut command, DEADLINE);
        assert!(eventually(PATIENCE, || TcpStream::connect(&authority).is_ok()));
        Self {
            authority,
            _process: process,
            _folder: folder,
        }
    }
}

/// Bytes that nothing makes smaller, the same each time.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An appliance that cannot be booted: a kernel that takes several pieces to push, a cobd with holes.
pub fn appliance(parent: &Path) -> PathBuf {
    let folder = parent.join("appliance");
    fs::create_dir(&folder).unwrap();
    give(&folder);
    fs::write(folder.join("vmlinux"), noise(14 << 20, 1)).unwrap();
    fs::write(folder.join("config"), "CONFIG_UML=y\n").unwrap();
    let cobd = fs::File::create(folder.join("root.cobd")).unwrap();
    cobd.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(cobd.file(), &noise(1 << 20, 2), 32 << 20).unwrap();
    let member = |name: &str| Member::of(&folder, name).unwrap();
    let manifest = Manifest {
        format: FORMAT,
        name: "web".to_owned(),
        description: "a test".to_owned(),
        architecture: "amd64".to_owned(),
        inputs: String::new(),
        kernel: Kernel {
            release: "7.2".to_owned(),
            target: Target::Um,
            sources: Vec::new(),
            vmlinux: member("vmlinux"),
            boot_image: None,
            initramfs: None,
            config: member("config"),
            modules: None,
            libraries: Vec::new(),
            cmdline: Vec::new(),
        },
        machine: Machine {
            memory_bytes: 64 << 20,
            cpus: 1,
        },
        cobd: vec![Cobd {
            name: "root".to_owned(),
            image: member("root.cobd"),
            filesystem: Filesystem::Unknown,
            mount: None,
            readonly: false,
        }],
        root: Root::default(),
        readonly: None,
        conet: Vec::new(),
        cocon: Cocon {
            columns: 80,
            rows: 25,
        },
        test: Vec::new(),
        evidence: Vec::new(),
    };
    fs::write(folder.join(MANIFEST_NAME), manifest.to_json()).unwrap();
    folder
}
