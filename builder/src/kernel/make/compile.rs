//! From a .config to a kernel's files.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use coop_image::folder;
use coop_image::tree::{Inode, InodeId, Kind, Metadata, Times, Timestamp, Tree};
use coop_runtime::event::{Event, Observer, Unit};

use super::runner::Runner;
use super::{Configured, MakeError, inside, log};
use crate::kernel::{KernelFiles, Target, elf, modules};

/// The largest kernel, in bytes.
const KERNEL_BYTES_MAX: u64 = 1 << 30;
/// The longest name of a release, in bytes: what `uname -r` can hold.
const RELEASE_BYTES_MAX: usize = 64;
/// The stripped kernel, beside the one that make leaves.
pub(super) const STRIPPED_NAME: &str = "coop-vmlinux";
const TASK: &str = "compile the kernel";
/// The words of lines that say that an object of the kernel is made.
const OBJECT_WORDS: [&str; 2] = ["CC", "AS"];

/// What a compilation gave.
pub(super) struct Compiled {
    pub(super) files: KernelFiles,
    /// How many objects were made: what the next build of this configuration counts against.
    pub(super) objects: u64,
}

/// What make is to make.
pub(super) fn goals(target: Target, configured: &Configured) -> Vec<&'static str> {
    let mut goals = match target {
        Target::Um => vec!["linux"],
        Target::X86_64 => vec!["vmlinux", "bzImage"],
    };
    if has_modules(configured) {
        goals.push("modules");
    }
    goals
}

/// Whether modules are to be installed.
pub(super) fn has_modules(configured: &Configured) -> bool {
    configured.is_set("CONFIG_MODULES")
}

/// How the kernel is stripped. One that runs as a program needs no symbols at all; those of the
/// other are what tools that load it look for.
pub(super) fn strip_option(target: Target) -> &'static str {
    match target {
        Target::Um => "--strip-all",
        Target::X86_64 => "--strip-debug",
    }
}

/// Compiles, strips and gathers. `objects` is how many there will be, where that is known.
pub(super) fn compile(
    runner: &mut Runner<'_>,
    configured: &Configured,
    jobs: usize,
    objects: Option<u64>,
) -> Result<Compiled, MakeError> {
    let jobs = format!("-j{jobs}");
    let mut arguments: Vec<&OsStr> = vec![jobs.as_ref()];
    let goals = goals(runner.target, configured);
    arguments.extend(goals.iter().map(OsStr::new));
    let observer = runner.observer;
    let progress = Progress::start(observer, objects);
    let made = runner.make("compiling the kernel", &arguments, &mut |line| {
        progress.line(observer, line);
    });
    let objects = progress.finish(observer);
    made?;
    let build = runner.folders.build.clone();
    let (from, to) = (build.join("vmlinux"), build.join(STRIPPED_NAME));
    let how = strip_option(runner.target);
    let arguments: [&OsStr; 4] = [how.as_ref(), "-o".as_ref(), to.as_ref(), from.as_ref()];
    runner.run("stripping the kernel", "strip", &arguments)?;
    if has_modules(configured) {
        let goal = [OsStr::new("modules_install")];
        runner.make("installing the kernel's modules", &goal, &mut |_| {})?;
    }
    Ok(Compiled {
        files: gather(runner, runner.target, configured, runner.epoch_seconds)?,
        objects,
    })
}

/// The folders in which make has worked, wherever they are. Nothing in them is trusted.
pub(super) trait Results {
    /// A regular file of the build folder.
    fn read(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, MakeError>;
    /// A folder of the folder for modules.
    fn installed(&self, name: &str) -> Result<Tree, MakeError>;
}

impl Results for Runner<'_> {
    fn read(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, MakeError> {
        Ok(inside::read(&self.folders.build, name, limit_bytes)?)
    }

    fn installed(&self, name: &str) -> Result<Tree, MakeError> {
        let descriptor = inside::folder(&self.folders.install, name)?;
        read_folder(descriptor)
    }
}

/// A folder as a tree.
pub(super) fn read_folder(folder: OwnedFd) -> Result<Tree, MakeError> {
    let options = folder::Options {
        cross_mounts: false,
        xattrs: false,
        check: Arc::new(|| Ok(())),
    };
    let found = folder::read(folder, &options).map_err(|error| MakeError::Result {
        problem: error.to_string(),
    })?;
    Ok(found.tree)
}

/// Reads what was made.
pub(super) fn gather(
    results: &dyn Results,
    target: Target,
    configured: &Configured,
    epoch_seconds: i64,
) -> Result<KernelFiles, MakeError> {
    let release = release(&results.read("include/config/kernel.release", 4096)?)?;
    let boot_image = match target {
        Target::Um => None,
        Target::X86_64 => Some(results.read("arch/x86/boot/bzImage", KERNEL_BYTES_MAX)?),
    };
    let vmlinux = results.read(STRIPPED_NAME, KERNEL_BYTES_MAX)?;
    let is_dynamic = elf::is_dynamic(&vmlinux).map_err(|problem| MakeError::Result {
        problem: format!("the kernel {problem}"),
    })?;
    if is_dynamic && target == Target::Um {
        return Err(MakeError::Result {
            problem: "the kernel was not linked statically".to_owned(),
        });
    }
    let modules = match has_modules(configured) {
        true => {
            let mut tree = results.installed(&format!("lib/modules/{release}"))?;
            modules::depmod(&mut tree)?;
            Some(plain(tree, Timestamp::from_seconds(epoch_seconds))?)
        }
        false => None,
    };
    Ok(KernelFiles {
        target,
        release,
        vmlinux,
        boot_image,
        config: configured.config.clone(),
        minimal_config: Some(configured.minimal.clone()),
        modules,
        libraries: Vec::new(),
    })
}

fn release(bytes: &[u8]) -> Result<String, MakeError> {
    let text = String::from_utf8_lossy(bytes).trim().to_owned();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._~".contains(&byte);
    let is_name = !text.is_empty() && text != "." && text != "..";
    if !is_name || text.len() > RELEASE_BYTES_MAX || !text.bytes().all(plain) {
        let text = text.escape_debug().to_string();
        return Err(MakeError::Result {
            problem: format!("'{text}' cannot be a kernel's release"),
        });
    }
    Ok(text)
}

/// Files and folders, and nothing else: the links to source and build folder lead nowhere in a
/// guest.
fn plain(mut tree: Tree, time: Timestamp) -> Result<Tree, MakeError> {
    let links: Vec<Vec<u8>> = tree
        .entries(InodeId::ROOT)
        .into_iter()
        .flatten()
        .filter(|(_, id)| matches!(tree.inode(**id).kind, Kind::Symlink(_)))
        .map(|(name, _)| name.to_vec())
        .collect();
    for name in links {
        tree.unlink(InodeId::ROOT, &name)?;
    }
    for (path, id) in tree.paths() {
        let Inode { metadata, kind } = tree.inode_mut(id);
        let mode = match kind {
            Kind::Directory(_) => 0o755,
            Kind::File(_) => 0o644,
            _ => {
                return Err(MakeError::Result {
                    problem: format!(
                        "'{}' among the installed modules is neither a file nor a folder",
                        coop_image::tree::display(&path)
                    ),
                });
            }
        };
        *metadata = Metadata {
            mode,
            times: Times::all(time),
            ..Metadata::default()
        };
    }
    Ok(tree)
}

/// Counts the objects that are made. How many there will be only an earlier build of the same
/// configuration knows; where there was none, the count stands alone.
pub(super) struct Progress {
    started: Instant,
    done: AtomicU64,
}

impl Progress {
    pub(super) fn start(observer: &dyn Observer, total: Option<u64>) -> Self {
        observer.event(&Event::TaskStarted {
            task: TASK,
            total,
            unit: Unit::Items,
        });
        Self {
            started: Instant::now(),
            done: AtomicU64::new(0),
        }
    }

    pub(super) fn line(&self, observer: &dyn Observer, line: &str) {
        let is_object = log::progress(line)
            .is_some_and(|(word, path)| OBJECT_WORDS.contains(&word) && path.ends_with(".o"));
        if is_object {
            let before = self.done.fetch_add(1, Ordering::Relaxed);
            observer.event(&Event::TaskProgress {
                task: TASK,
                done: before.saturating_add(1),
            });
        }
    }

    pub(super) fn finish(&self, observer: &dyn Observer) -> u64 {
        observer.event(&Event::TaskFinished {
            task: TASK,
            elapsed: self.started.elapsed(),
        });
        self.done.load(Ordering::Relaxed)
    }
}
