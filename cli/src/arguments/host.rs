//! The grammar of the verbs about coop itself and its host.

use clap::Args;
use clap_complete::Shell;

/// `coop completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsOptions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// `coop doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorOptions {
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}
