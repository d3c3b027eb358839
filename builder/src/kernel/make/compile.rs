//! From a .config to a kernel's files.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
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
const STRIPPED_NAME: &str = "coop-vmlinux";
const TASK: &str = "compile the kernel";
/// The words of lines that say that an object of the kernel is made.
const OBJECT_WORDS: [&str; 2] = ["CC", "AS"];

/// What a compilation gave.
pub(super) struct Compiled {
    pub(super) files: KernelFiles,
    /// How many objects were made: what the next build of this configuration counts against.
    pub(super) objects: u64,
}

/// Compiles, strips and gathers. `objects` is how many there will be, where that is known.
pub(super) fn compile(
    runner: &mut Runner<'_>,
    configured: &Configured,
    jobs: usize,
    objects: Option<u64>,
) -> Result<Compiled, MakeError> {
    let has_modules = configured.is_set("CONFIG_MODULES");
    let jobs = format!("-j{jobs}");
    let mut arguments: Vec<&OsStr> = vec![jobs.as_ref()];
    let goals: &[&str] = match runner.target {
        Target::Um => &["linux"],
        Target::X86_64 => &["vmlinux", "bzImage"],
    };
    arguments.extend(goals.iter().map(OsStr::new));
    if has_modules {
        arguments.push("modules".as_ref());
    }
    let mut progress = Progress::start(runner.observer, objects);
    let made = runner.make("compiling the kernel", &arguments, &mut |line| {
        progress.line(line);
    });
    let objects = progress.finish();
    made?;
    Ok(Compiled {
        files: gather(runner, configured, has_modules)?,
        objects,
    })
}

fn gather(
    runner: &mut Runner<'_>,
    configured: &Configured,
    has_modules: bool,
) -> Result<KernelFiles, MakeError> {
    let build = runner.folders.build.clone();
    let release = release(&build)?;
    let boot_image = match runner.target {
        Target::Um => None,
        Target::X86_64 => Some(inside::read(
            &build,
            "arch/x86/boot/bzImage",
            KERNEL_BYTES_MAX,
        )?),
    };
    let vmlinux = stripped(runner, &build)?;
    let is_dynamic = elf::is_dynamic(&vmlinux).map_err(|problem| MakeError::Result {
        problem: format!("the kernel {problem}"),
    })?;
    if is_dynamic && runner.target == Target::Um {
        return Err(MakeError::Result {
            problem: "the kernel was not linked statically".to_owned(),
        });
    }
    let modules = match has_modules {
        true => Some(install_modules(runner, &release)?),
        false => None,
    };
    Ok(KernelFiles {
        target: runner.target,
        release,
        vmlinux,
        boot_image,
        config: configured.config.clone(),
        minimal_config: Some(configured.minimal.clone()),
        modules,
        libraries: Vec::new(),
    })
}

fn release(build: &Path) -> Result<String, MakeError> {
    let bytes = inside::read(build, "include/config/kernel.release", 4096)?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
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

/// The kernel without what only a debugger reads. A kernel that runs as a program needs no symbols
/// at all; those of the other are what tools that load it look for.
fn stripped(runner: &mut Runner<'_>, build: &Path) -> Result<Vec<u8>, MakeError> {
    let how = match runner.target {
        Target::Um => "--strip-all",
        Target::X86_64 => "--strip-debug",
    };
    let (from, to) = (build.join("vmlinux"), build.join(STRIPPED_NAME));
    let arguments: [&OsStr; 4] = [how.as_ref(), "-o".as_ref(), to.as_ref(), from.as_ref()];
    runner.run("stripping the kernel", "strip", &arguments)?;
    Ok(inside::read(build, STRIPPED_NAME, KERNEL_BYTES_MAX)?)
}

/// Installs the modules and reads them back as a tree, with depmod's files. Nothing of the
/// folder's owners, modes and times is in it.
fn install_modules(runner: &mut Runner<'_>, release: &str) -> Result<Tree, MakeError> {
    let goal = [OsStr::new("modules_install")];
    runner.make("installing the kernel's modules", &goal, &mut |_| {})?;
    let path = format!("lib/modules/{release}");
    let descriptor = inside::folder(&runner.folders.install, &path)?;
    let options = folder::Options {
        cross_mounts: false,
        xattrs: false,
        check: Arc::new(|| Ok(())),
    };
    let found = folder::read(descriptor, &options).map_err(|error| MakeError::Result {
        problem: format!("the installed modules: {error}"),
    })?;
    let mut tree = found.tree;
    modules::depmod(&mut tree)?;
    plain(tree, Timestamp::from_seconds(runner.epoch_seconds))
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
struct Progress<'a> {
    observer: &'a dyn Observer,
    started: Instant,
    done: u64,
}

impl<'a> Progress<'a> {
    fn start(observer: &'a dyn Observer, total: Option<u64>) -> Self {
        observer.event(&Event::TaskStarted {
            task: TASK,
            total,
            unit: Unit::Items,
        });
        Self {
            observer,
            started: Instant::now(),
            done: 0,
        }
    }

    fn line(&mut self, line: &str) {
        let is_object = log::progress(line)
            .is_some_and(|(word, path)| OBJECT_WORDS.contains(&word) && path.ends_with(".o"));
        if is_object {
            self.done = self.done.saturating_add(1);
            self.observer.event(&Event::TaskProgress {
                task: TASK,
                done: self.done,
            });
        }
    }

    fn finish(self) -> u64 {
        self.observer.event(&Event::TaskFinished {
            task: TASK,
            elapsed: self.started.elapsed(),
        });
        self.done
    }
}
