//! The grammar of the verbs for machines that are left running.

use std::ffi::OsString;

use clap::Args;

/// `coop ps`.
#[derive(Args, Debug)]
pub(crate) struct PsOptions {
    /// List machines that have ended, too: the last of those that were left running
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `coop attach`, `stop`, `kill`.
#[derive(Args, Debug)]
pub(crate) struct MachineOptions {
    /// The machine, as coop run --detach and coop ps name it, or its name where that is the only one
    pub(crate) machine: String,
}

/// `coop logs`.
#[derive(Args, Debug)]
pub(crate) struct LogsOptions {
    #[command(flatten)]
    pub(crate) machine: MachineOptions,
    /// Go on until the machine ends
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `coop exec`.
#[derive(Args, Debug)]
pub(crate) struct ExecOptions {
    #[command(flatten)]
    pub(crate) machine: MachineOptions,
    /// Give the command a terminal
    #[arg(short = 't', long = "tty")]
    pub(crate) tty: bool,
    /// What runs in the guest; its exit code is coop's
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// `coop cp`.
#[derive(Args, Debug)]
pub(crate) struct CpOptions {
    /// A file, which keeps its permissions: PATH of the host or MACHINE:PATH
    pub(crate) source: OsString,
    /// Where it goes, a folder or with a name: PATH of the host or MACHINE:PATH; one of the two is a
    /// machine's
    pub(crate) destination: OsString,
}
