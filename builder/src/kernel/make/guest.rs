//! A kernel compiled in a guest: the host needs no compiler, and its own makes no difference.
//!
//! The guest has Debian's compiler, taken from a suite as any root file system is, and kept in the
//! store once its packages are configured. Its disk has the patched source beside it. One boot
//! configures; the host compares the result with what was wanted; another boot compiles.

use std::ffi::OsString;
use std::io::BufWriter;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use coop_appliance::Root;
use coop_image::tar;
use coop_image::tree::{Inode, InodeId, Kind, Metadata, Timestamp, Tree};
use coop_runtime::event::{Event, Observer};
use coop_runtime::{Host, KernelSpec};
use fs_err as fs;

use super::compile::{self, Compiled, Progress, Results, STRIPPED_NAME, gather, read_folder};
use super::compiler::Compiler;
use super::configure::{self, WANTED_NAME};
use super::log::Log;
use super::runner::variables;
use super::{Configured, MakeError, MakeRequest};
use crate::assemble::{self, AssembleError};
use crate::digest::Digest;
use crate::guest::{self, GuestContext, GuestError, Step, StepMeans};
use crate::inputs::{Record, seed};
use crate::kernel::config::Merged;
use crate::kernel::files::graft;
use crate::kernel::source::SourceTree;
use crate::kernel::{self, modules};
use crate::recipe::{Debian, Exclude, Installation, KernelPackage, Keyring, Mirror, Variant};
use crate::source;
use crate::store::DerivedKey;

/// The suite of the guest's compiler.
const SUITE: &str = "trixie";
/// What the guest has beyond the essential packages: the tools of every kernel for our targets.
const PACKAGES: &[&str] = &[
    "bc",
    "bison",
    "bzip2",
    "cpio",
    "flex",
    "gcc",
    "libc6-dev",
    "libelf-dev",
    "libssl-dev",
    "lz4",
    "lzop",
    "make",
    "openssl",
    "xz-utils",
    "zstd",
];
/// The store's kind of configured guests; its number changes with the way in which they are made.
const TOOLS_KIND: &str = "kernel-tools-1";
/// Where the kernel's folders are in the guest.
const TOP: &str = "/coop-kernel";

/// The packages that a guest compiles with.
pub(super) struct Toolchain {
    debian: Debian,
    /// One line for each package, with its digest.
    pub(super) compiler: Compiler,
}

impl Toolchain {
    /// Resolves the packages; nothing is fetched but the suite's lists.
    pub(super) fn resolve(request: &MakeRequest<'_>) -> Result<Self, MakeError> {
        let debian = Debian {
            suite: SUITE.to_owned(),
            packages: PACKAGES.iter().map(|name| (*name).to_owned()).collect(),
            components: vec!["main".to_owned()],
            variant: Variant::Essential,
            mirror: Mirror::Host,
            keyring: Keyring::Debian,
            recommends: false,
            repositories: Vec::new(),
            debs: Vec::new(),
            exclude: Exclude::default(),
            debconf: Vec::new(),
            installation: Installation::Configured,
        };
        let MakeRequest {
            fetcher, archive, ..
        } = *request;
        let lines = source::pins(&debian, fetcher, archive, &**request.observer)?;
        Ok(Self {
            debian,
            compiler: Compiler { lines },
        })
    }

    /// The configured guest, from the store or made.
    fn tree(&self, request: &MakeRequest<'_>, kernel: &GuestKernel) -> Result<Tree, MakeError> {
        let store = request.fetcher.store();
        let mut record = Record::new("coop kernel tools");
        for line in &self.compiler.lines {
            record.put("package", line.as_bytes());
        }
        let input = record.finish();
        let key = DerivedKey {
            kind: TOOLS_KIND,
            input,
        };
        if let Some(file) = store.derived(key)? {
            return read_tools(file, &store.derived_path(key)?);
        }
        let MakeRequest {
            fetcher, archive, ..
        } = *request;
        let source = source::debian(&self.debian, fetcher, archive, &**request.observer)?;
        let mut tree = source.tree;
        if let Some(script) = source.configure {
            let step = Step::new("configuring the compiler's packages", script.into_bytes());
            let context = kernel.context(request, &input, source.epoch, request.observer);
            tree = guest::run(tree, &[step], &context)?;
        }
        let file = store.temp_file()?;
        let written = tar::write(&tree, BufWriter::with_capacity(1 << 20, file.as_file()));
        written.map_err(|error| MakeError::Result {
            problem: format!("the guest with the compiler: {error}"),
        })?;
        let file = store.publish_derived(file, key)?;
        read_tools(file, &store.derived_path(key)?)
    }
}

fn read_tools(file: fs::File, path: &Path) -> Result<Tree, MakeError> {
    let mut tree = Tree::new(Metadata::default());
    let blob = tree.add_blob(Arc::new(file.into_parts().0))?;
    match tar::read_blob(&mut tree, blob, &tar::Options::default()) {
        Ok(_) => Ok(tree),
        Err(error) => Err(MakeError::Stored {
            path: path.to_owned(),
            problem: error.to_string(),
        }),
    }
}

/// The kernel that the guest itself boots: a prebuilt one, whose files are in a folder.
struct GuestKernel {
    spec: KernelSpec,
    host: Host,
}

impl GuestKernel {
    fn prepare(request: &MakeRequest<'_>, folder: &Path) -> Result<Self, MakeError> {
        let MakeRequest {
            fetcher, archive, ..
        } = *request;
        let package = KernelPackage::user_mode_linux();
        let fetched = kernel::fetch::fetch(&package, fetcher, archive, &**request.observer)?;
        let files = &fetched.files;
        let boot = match &files.modules {
            Some(tree) => modules::boot(tree, files.target, &Root::Cobd)?,
            None => Vec::new(),
        };
        fs::create_dir(folder)?;
        let written = assemble::write_kernel(files, &boot, &fetched.resolved, &[], folder);
        let member = written.map_err(|error| match error {
            AssembleError::Io(error) => MakeError::Io(error),
            other => MakeError::Result {
                problem: other.to_string(),
            },
        })?;
        Ok(Self {
            spec: crate::build::kernel_spec(&member, folder),
            host: request.host.clone(),
        })
    }

    fn context<'a>(
        &self,
        request: &MakeRequest<'a>,
        key: &Digest,
        epoch: Timestamp,
        observer: &Arc<dyn Observer>,
    ) -> GuestContext<'a> {
        GuestContext {
            kernel: self.spec.clone(),
            host: self.host.clone(),
            store: request.fetcher.store(),
            observer: Arc::clone(observer),
            seed: seed(key, "kernel scratch"),
            epoch,
            means: StepMeans::default(),
            packages: None,
        }
    }
}

/// One build in a guest.
pub(super) struct GuestBuild<'a> {
    request: &'a MakeRequest<'a>,
    kernel: GuestKernel,
    key: Digest,
    /// Everything: compiler, source, and what was made so far.
    tree: Tree,
    source: SourceTree,
    listening: Arc<Listening>,
}

impl<'a> GuestBuild<'a> {
    /// Puts compiler and source together.
    pub(super) fn new(
        request: &'a MakeRequest<'a>,
        toolchain: &Toolchain,
        key: Digest,
        source: SourceTree,
        temporary: &Path,
        log: Log,
    ) -> Result<Self, MakeError> {
        let kernel = GuestKernel::prepare(request, &temporary.join("kernel"))?;
        let mut tree = toolchain.tree(request, &kernel)?;
        let metadata = Metadata {
            mode: 0o755,
            ..Metadata::default()
        };
        for name in ["build", "install", "home"] {
            tree.make_directories(format!("{TOP}/{name}").as_bytes(), &metadata)?;
        }
        let folder = tree.make_directories(format!("{TOP}/source").as_bytes(), &metadata)?;
        let opened: OwnedFd = fs::File::open(&source.root)?.into_parts().0.into();
        let unpacked = read_folder(opened)?;
        graft(&unpacked, InodeId::ROOT, &mut tree, folder)?;
        Ok(Self {
            listening: Arc::new(Listening {
                inner: Arc::clone(request.observer),
                log: Mutex::new(log),
                progress: Mutex::new(None),
            }),
            request,
            kernel,
            key,
            tree,
            source,
        })
    }

    /// Configures, and compares with what is wanted.
    pub(super) fn configure(&mut self, merged: &Merged) -> Result<Configured, MakeError> {
        let folder = self.tree.lookup(TOP.as_bytes())?;
        let content = self.tree.add_bytes(merged.text().into_bytes())?;
        let wanted = self.tree.add_inode(Inode {
            metadata: Metadata {
                mode: 0o644,
                ..Metadata::default()
            },
            kind: Kind::File(content),
        })?;
        self.tree.replace(folder, WANTED_NAME.as_bytes(), wanted)?;
        let first = match self.request.defconfig {
            true => format!("make_ defconfig\ncat {TOP}/{WANTED_NAME} >>.config\n"),
            false => format!("make_ KCONFIG_ALLCONFIG={TOP}/{WANTED_NAME} allnoconfig\n"),
        };
        let script = format!("{first}make_ olddefconfig\nmake_ savedefconfig\n");
        self.run("the kernel's configuration", &script)?;
        let target = self.request.source.target;
        configure::finish(self, merged, &self.source.root, target)
    }

    /// Compiles, strips and gathers.
    pub(super) fn compile(
        mut self,
        configured: &Configured,
        objects: Option<u64>,
    ) -> Result<Compiled, MakeError> {
        let target = self.request.source.target;
        let goals = compile::goals(target, configured).join(" ");
        let strip = compile::strip_option(target);
        let mut script =
            format!("make_ -j$(nproc) {goals}\nstrip {strip} -o {STRIPPED_NAME} vmlinux\n");
        if compile::has_modules(configured) {
            script.push_str("make_ modules_install\n");
        }
        let progress = Progress::start(&*self.listening.inner, objects);
        *lock(&self.listening.progress) = Some(progress);
        let made = self.run("compiling the kernel", &script);
        let progress = lock(&self.listening.progress).take();
        let objects = progress.map_or(0, |progress| progress.finish(&*self.listening.inner));
        made?;
        let files = gather(&self, target, configured, self.source.epoch_seconds)?;
        Ok(Compiled { files, objects })
    }

    fn run(&mut self, doing: &'static str, script: &str) -> Result<(), MakeError> {
        let step = Step::new(doing, self.script(script).into_bytes());
        let epoch = Timestamp::from_seconds(self.source.epoch_seconds);
        let observer: Arc<dyn Observer> = Arc::<Listening>::clone(&self.listening);
        let context = self
            .kernel
            .context(self.request, &self.key, epoch, &observer);
        lock(&self.listening.log).begin(doing)?;
        let tree = std::mem::replace(&mut self.tree, Tree::new(Metadata::default()));
        match guest::run(tree, &[step], &context) {
            Ok(tree) => {
                self.tree = tree;
                Ok(())
            }
            Err(GuestError::Cancelled) => Err(MakeError::Cancelled),
            Err(GuestError::Failed { how, .. }) => {
                let log = lock(&self.listening.log);
                Err(MakeError::Failed {
                    doing,
                    how: format!("in the guest it {how}"),
                    lines: log.reason(),
                    log: log.path().to_owned(),
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A script with the same environment as on the host.
    fn script(&self, body: &str) -> String {
        let (source, build) = (format!("{TOP}/source"), format!("{TOP}/build"));
        let mut environment = variables(
            self.request.source.target,
            self.source.epoch_seconds,
            source.as_ref(),
            build.as_ref(),
        );
        let own: [(&str, String); 6] = [
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("LC_ALL", "C".to_owned()),
            ("TZ", "UTC".to_owned()),
            ("HOME", format!("{TOP}/home")),
            ("INSTALL_MOD_PATH", format!("{TOP}/install")),
            ("INSTALL_MOD_STRIP", "1".to_owned()),
        ];
        environment.extend(own.map(|(key, value)| (key.into(), value.into())));
        let export = |(key, value): (OsString, OsString)| {
            format!("export {}='{}'\n", key.display(), value.display())
        };
        let exports: String = environment.into_iter().map(export).collect();
        format!(
            "#!/bin/sh\nset -e\numask 022\n{exports}cd {build}\n\
             make_() {{ make --no-print-directory -C {source} O={build} \"$@\"; }}\n{body}"
        )
    }
}

impl Results for GuestBuild<'_> {
    fn read(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, MakeError> {
        let path = format!("{TOP}/build/{name}");
        let id = self.tree.lookup(path.as_bytes())?;
        Ok(self.tree.read_file(id, limit_bytes)?)
    }

    fn installed(&self, name: &str) -> Result<Tree, MakeError> {
        let path = format!("{TOP}/install/{name}");
        let top = self.tree.lookup(path.as_bytes())?;
        let mut tree = Tree::new(self.tree.inode(top).metadata.clone());
        graft(&self.tree, top, &mut tree, InodeId::ROOT)?;
        Ok(tree)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the guest's lines for the log and the count; everything else goes on.
struct Listening {
    inner: Arc<dyn Observer>,
    log: Mutex<Log>,
    progress: Mutex<Option<Progress>>,
}

impl Observer for Listening {
    fn event(&self, event: &Event<'_>) {
        let Event::GuestLine { line } = event else {
            return self.inner.event(event);
        };
        let text = format!("{line}\n");
        // A log that cannot be written does not end a build that can go on.
        let _ = lock(&self.log).take(text.as_bytes(), &mut |_| {});
        if let Some(progress) = &*lock(&self.progress) {
            progress.line(&*self.inner, line);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.inner.is_cancelled()
    }
}
