//! Why a kernel was not made.

use std::io;
use std::path::PathBuf;

use coop_image::tree::TreeError;
use coop_runtime::tool::ToolError;

use super::Dropped;
use super::tools::{self, MissingTool};
use crate::guest::GuestError;
use crate::kernel::modules::DepmodError;
use crate::kernel::source::SourceError;
use crate::kernel::{KernelError, KernelSourceError, Target};
use crate::lock::NotLocked;
use crate::source::DebianSourceError;
use crate::store::StoreError;

/// Why a kernel was not made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The store has no such kernel, and none is to be made.
    #[error("the kernel is not in the cache, and would have to be made")]
    NotStored,
    /// The host's file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The cache.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The host cannot run what it has.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The host lacks programs or headers.
    #[error("{}", tools::sentence(.0))]
    Missing(Vec<MissingTool>),
    /// The lock does not have what is asked for.
    #[error(transparent)]
    NotLocked(#[from] NotLocked),
    /// The host has another compiler than the lock names.
    #[error("the lock has the kernel made by {pinned}, and this host has {found} (other: {parts})")]
    OtherCompiler {
        /// What the lock's compiler calls itself.
        pinned: String,
        /// What the host's does.
        found: String,
        /// The programs that differ, those of the lock.
        parts: String,
    },
    /// The host has no compiler, and the store has no kernel from the one that the lock names.
    #[error("the lock has the kernel made by {0}, and this host has no compiler")]
    NoCompiler(String),
    /// A program that was there is there no more.
    #[error("{0} was there a moment ago, and is gone")]
    Gone(&'static str),
    /// The host cannot confine a stranger's makefiles.
    #[error(
        "the host's kernel has no landlock, so the makefiles of {0} could read and change every \
         file of this user; only Debian's own sources are built here without it"
    )]
    Unconfined(String),
    /// Too little room.
    #[error(
        "a kernel's build needs {} MiB in the cache folder '{}', where {} MiB are free",
        .needed >> 20, path.display(), .free >> 20
    )]
    Space {
        /// The store.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// Makefiles cannot work there.
    #[error(
        "the kernel's makefiles cannot work in the cache folder '{}': its path has a blank, or one \
         of : $ # %", .0.display()
    )]
    Path(PathBuf),
    /// The menu needs more than a build.
    #[error(
        "this host lacks what the kernel's menu is built with: {0} (on Debian: apt-get install \
         libncurses-dev)"
    )]
    Menu(&'static str),
    /// The menu is for the host's terminal.
    #[error(
        "the kernel's menu is not there for a kernel with in: guest; leave that out of \
         kernel.source while you use the menu"
    )]
    MenuInGuest,
    /// The configuration is not what was wanted.
    #[error("kernel {version} cannot have all of kernel.config:{}", dropped_text(.dropped))]
    Dropped {
        /// Which kernel.
        version: String,
        /// Each symbol.
        dropped: Vec<Dropped>,
    },
    /// The configuration cannot become a kernel for the target.
    #[error("a kernel with this configuration {problem} (target {target})")]
    Target {
        /// What it was to be for.
        target: Target,
        /// What is in the way.
        problem: &'static str,
    },
    /// make, or a program that it needs, failed.
    #[error("{doing} failed: {how}{}\nthe whole log is {}", lines_text(.lines), log.display())]
    Failed {
        /// What was done.
        doing: &'static str,
        /// `make exited with 2`.
        how: String,
        /// The lines that say why.
        lines: Vec<String>,
        /// The log.
        log: PathBuf,
    },
    /// make did not fail, and what it made cannot be used.
    #[error("the kernel's build gave nothing to use: {problem}")]
    Result {
        /// What is wrong with it.
        problem: String,
    },
    /// The modules.
    #[error(transparent)]
    Depmod(#[from] DepmodError),
    /// The tree of modules.
    #[error("kernel modules: {0}")]
    Tree(#[from] TreeError),
    /// A kernel of the store cannot be read.
    #[error("{} in the cache is damaged: {problem}; remove it", path.display())]
    Stored {
        /// The object.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Whoever watches called the work off.
    #[error("the kernel's build was called off")]
    Cancelled,
    /// The guest's compiler.
    #[error("the compiler for the guest: {0}")]
    Toolchain(#[from] DebianSourceError),
    /// The kernel that the guest boots.
    #[error("the kernel of the guest that compiles: {0}")]
    GuestKernel(#[from] KernelSourceError),
    /// The modules of that kernel.
    #[error("the kernel of the guest that compiles: {0}")]
    GuestModules(#[from] KernelError),
    /// The guest did not do its work.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

fn dropped_text(dropped: &[Dropped]) -> String {
    dropped.iter().map(|one| format!("\n  {one}")).collect()
}

fn lines_text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}
