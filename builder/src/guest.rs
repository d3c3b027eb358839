//! Runs what a root file system needs done from inside: in a guest booted by the same runtime that
//! runs appliances, so that a build needs no more rights than a run.
//!
//! A tree becomes a scratch image, the guest works on it, and the image is read back into a tree
//! whose content stays in the image. The scratch image lies in the store's temporary space and is
//! gone with the last tree that refers to it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coop_appliance::Filesystem;
use coop_image::ext4::{self, Journal, ReadError, Size, WriteError};
use coop_image::tree::{InodeId, Metadata, Timestamp, Tree, TreeError};
use coop_runtime::event::{Event, Observer};
use coop_runtime::{
    BOOT_TIMEOUT, Cause, CheckError, DiskSpec, DiskWrites, ExecError, ExecRequest, ExecStreams,
    Exit, Host, KernelSpec, Machine, MachineSpec, NetworkSpec, Pin, Report, SessionEnd, StartError,
    Watch, Workload,
};

use crate::rootfs::{RootfsError, put_file};
use crate::store::{Store, StoreError};

/// Free space for what the guest installs, in bytes. It costs nothing until it is used.
const SCRATCH_BYTES: u64 = 8 << 30;
/// Guest memory while building, in bytes: enough for dpkg, apt and most maintainer scripts.
const MEMORY_BYTES: u64 = 1 << 30;
/// How many of a failed script's last lines are kept for the message.
const TAIL_LINES: usize = 20;
/// The longest line of a guest that is passed on, in bytes; longer ones are cut into several.
const LINE_BYTES_MAX: usize = 4096;
/// How long the guest may take to stop by itself.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(60);
/// Where the scripts lie while the guest runs; removed again.
const FOLDER: &str = "coop-build";

/// Why a guest did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The scratch image cannot be made.
    #[error("scratch image {}: {source}", path.display())]
    Write {
        /// The image, in the cache.
        path: PathBuf,
        /// Why.
        source: WriteError,
    },
    /// The scratch image cannot be read back.
    #[error("the file system that the guest left cannot be read: {0}")]
    Read(#[from] ReadError),
    /// The cache has no place for it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The script cannot be put into the tree.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The tree's structure is in the way.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The host cannot run a guest.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The guest did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The guest did not come up.
    #[error("the guest that builds did not come up: {0}")]
    Boot(String),
    /// A command could not be run.
    #[error("{step}: {source}")]
    Exec {
        /// What ran.
        step: String,
        /// Why not.
        source: ExecError,
    },
    /// A script failed.
    #[error("{step} {how} in the guest{}", tail_text(.tail))]
    Failed {
        /// What ran.
        step: String,
        /// `exited with 1`.
        how: String,
        /// The last lines that it wrote.
        tail: Vec<String>,
    },
    /// Whoever watches called the work off.
    #[error("the build was called off")]
    Cancelled,
    /// The guest did not stop as it should, so its file system may not be whole.
    #[error("the guest that builds did not stop cleanly: {0}")]
    Unclean(String),
}

fn tail_text(tail: &[String]) -> String {
    if tail.is_empty() {
        return String::new();
    }
    let lines = tail.iter().map(|line| format!("\n  {line}"));
    format!("; its last lines:{}", lines.collect::<String>())
}

/// Something to do in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is, for messages: `run: apt-get install nginx`.
    pub name: String,
    /// A program with its interpreter line.
    pub script: Vec<u8>,
    /// Whether the guest has a network meanwhile.
    pub network: bool,
}

/// What guests that build are made of.
#[derive(Clone)]
pub struct GuestContext<'a> {
    /// The appliance's own kernel.
    pub kernel: KernelSpec,
    /// What the host offers.
    pub host: Host,
    /// Where the scratch image lies.
    pub store: &'a Store,
    /// Who watches.
    pub observer: Arc<dyn Observer>,
    /// Identity of the scratch image; it shows in nothing that the guest leaves.
    pub seed: [u8; 16],
    /// The time in the scratch image's superblock.
    pub epoch: Timestamp,
}

/// Runs steps in order, in one guest for each run of steps that agree about the network, and
/// gives the tree that they leave.
///
/// # Errors
/// The first step that fails stops the rest; the host's and the guest's failures each have their
/// own sentence.
pub fn run(mut tree: Tree, steps: &[Step], context: &GuestContext<'_>) -> Result<Tree, GuestError> {
    for group in steps.chunk_by(|left, right| left.network == right.network) {
        tree = run_group(tree, group, context)?;
    }
    Ok(tree)
}

fn run_group(
    mut tree: Tree,
    steps: &[Step],
    context: &GuestContext<'_>,
) -> Result<Tree, GuestError> {
    for (index, step) in steps.iter().enumerate() {
        let content = tree.add_bytes(step.script.clone())?;
        let metadata = Metadata {
            mode: 0o700,
            ..Metadata::default()
        };
        put_file(&mut tree, script_path(index).as_bytes(), content, metadata)?;
    }
    let image = context.store.temp_file()?;
    let options = ext4::Options {
        size: Size::Bytes(scratch_size(&tree)),
        // Nobody reads the image if the guest does not stop cleanly.
        journal: Journal::None,
        ..ext4::Options::new(context.seed, context.seed, context.epoch)
    };
    ext4::write(&tree, &options, image.as_file()).map_err(|source| GuestError::Write {
        path: image.path().to_owned(),
        source,
    })?;
    drop(tree);
    boot_and_run(steps, image.path(), context)?;
    let mut tree = ext4::read(Arc::new(image.into_file()))?;
    remove_scripts(&mut tree)?;
    Ok(tree)
}

fn script_path(index: usize) -> String {
    format!("/{FOLDER}/{index:03}")
}

fn scratch_size(tree: &Tree) -> u64 {
    let content: u64 = tree
        .inodes()
        .iter()
        .map(|inode| match &inode.kind {
            coop_image::tree::Kind::File(content) => content.size,
            _ => 0,
        })
        .fold(0, u64::saturating_add);
    content.saturating_mul(2).saturating_add(SCRATCH_BYTES) & !4095
}

fn remove_scripts(tree: &mut Tree) -> Result<(), TreeError> {
    match tree.child(InodeId::ROOT, FOLDER.as_bytes()) {
        Some(_) => tree.unlink(InodeId::ROOT, FOLDER.as_bytes()).map(|_| ()),
        None => Ok(()),
    }
}

fn boot_and_run(
    steps: &[Step],
    image: &std::path::Path,
    context: &GuestContext<'_>,
) -> Result<(), GuestError> {
    let machine = Machine::check(spec(steps, image, context))?;
    let running = machine.start(Watch {
        observer: Arc::clone(&context.observer),
        kernel_log: None,
    })?;
    if let Err(end) = running.wait_ready() {
        running.kill();
        return Err(GuestError::Boot(boot_failure(&end, &running.wait())));
    }
    let result = steps
        .iter()
        .enumerate()
        .try_for_each(|(index, step)| run_step(&running, index, step, context));
    if let Err(error) = result {
        // Nothing of the image is wanted any more.
        running.kill();
        let report = running.wait();
        return Err(match (&error, &report.cause) {
            // The guest's own end says more than the broken channel.
            (GuestError::Exec { .. }, Cause::Panic(_) | Cause::DeviceFailed { .. }) => {
                GuestError::Unclean(report.cause.to_string())
            }
            _ => error,
        });
    }
    running.shut_down(SHUTDOWN_PATIENCE);
    let report = running.wait();
    let stopped = matches!(report.cause, Cause::PoweredOff | Cause::Exited(_));
    if !stopped || report.clean != Some(true) {
        return Err(GuestError::Unclean(report.cause.to_string()));
    }
    Ok(())
}

fn boot_failure(end: &SessionEnd, report: &Report) -> String {
    match &report.cause {
        Cause::Stopped => end.to_string(),
        cause => cause.to_string(),
    }
}

fn spec(steps: &[Step], image: &std::path::Path, context: &GuestContext<'_>) -> MachineSpec {
    let network = steps.first().is_some_and(|step| step.network);
    MachineSpec {
        kernel: context.kernel.clone(),
        memory_bytes: MEMORY_BYTES,
        cpus: 1,
        disks: vec![DiskSpec {
            name: "root".to_owned(),
            path: image.to_owned(),
            writes: DiskWrites::Kept { ignore_flush: true },
            filesystem: Filesystem::Ext4,
            mount: Some("/".to_owned()),
        }],
        network: network.then(|| NetworkSpec {
            resolvers: context.host.resolvers.clone(),
            ..NetworkSpec::default()
        }),
        console: None,
        workload: Workload::Commands,
        hostname: None,
        environment: Vec::new(),
        pin: Pin::Automatic,
        memory_folders: context.host.memory.clone(),
        scratch_folder: context.host.scratch.clone(),
        instances_folder: context.host.instances.clone(),
        timeout: None,
        boot_timeout: BOOT_TIMEOUT,
    }
}

fn run_step(
    running: &coop_runtime::Running,
    index: usize,
    step: &Step,
    context: &GuestContext<'_>,
) -> Result<(), GuestError> {
    let tail = Arc::new(Mutex::new(VecDeque::new()));
    let lines = || {
        Box::new(Lines {
            line: Vec::new(),
            tail: Arc::clone(&tail),
            observer: Arc::clone(&context.observer),
        })
    };
    let request = ExecRequest {
        argv: vec![script_path(index).into()],
        environment: Vec::new(),
        folder: Some("/".into()),
        user: None,
        terminal: None,
    };
    let streams = ExecStreams {
        stdin: None,
        stdout: lines(),
        stderr: lines(),
    };
    let exec_error = |source| GuestError::Exec {
        step: step.name.clone(),
        source,
    };
    let execution = running.exec(&request, streams).map_err(exec_error)?;
    let exit = execution.wait().map_err(exec_error)?;
    let how = match exit {
        Exit::Code(0) => return Ok(()),
        Exit::Code(code) => format!("exited with {code}"),
        Exit::Signal(number) => format!("was killed by signal {number}"),
    };
    let tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    Err(GuestError::Failed {
        step: step.name.clone(),
        how,
        tail: tail.iter().cloned().collect(),
    })
}

/// Cuts a stream into lines for the observer, and keeps the last ones.
struct Lines {
    line: Vec<u8>,
    tail: Arc<Mutex<VecDeque<String>>>,
    observer: Arc<dyn Observer>,
}

impl Lines {
    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        // A progress bar rewrites its line; only its last state matters.
        let text = text
            .trim_end_matches('\r')
            .rsplit('\r')
            .next()
            .unwrap_or("");
        let line: String = text.chars().filter(|c| !c.is_control()).collect();
        self.line.clear();
        self.observer.event(&Event::GuestLine { line: &line });
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' || self.line.len() == LINE_BYTES_MAX {
                self.end_line();
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coop_runtime::event::Silent;

    #[test]
    fn lines_are_cut_cleaned_and_kept() {
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let mut lines = Lines {
            line: Vec::new(),
            tail: Arc::clone(&tail),
            observer: Arc::new(Silent),
        };
        for number in 0..TAIL_LINES {
            writeln!(lines, "line {number}").unwrap();
        }
        lines
            .write_all(b"10%\r50%\r100%\r\n\x1b[1mbold\xff")
            .unwrap();
        drop(lines);
        let tail = tail.lock().unwrap();
        assert_eq!(tail.len(), TAIL_LINES);
        assert_eq!(tail[0], "line 2");
        assert_eq!(tail[TAIL_LINES - 2], "100%");
        assert_eq!(tail[TAIL_LINES - 1], "[1mbold\u{fffd}");
    }
}
