//! The grammar of `coop cache`.

use clap::{Args, Subcommand};
use coop_builder::recipe::ByteCount;

/// `coop cache`.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List what the cache holds, by kind
    Ls(CacheListOptions),
    /// Remove what was used longest ago, or all results of steps
    #[command(after_long_help = GC_EXAMPLES)]
    Gc(CacheGcOptions),
    /// Compare everything with its digest; what is damaged is set aside, and made or fetched again
    /// when it is needed
    Verify(CacheVerifyOptions),
}

const GC_EXAMPLES: &str = "\
Examples:
  coop cache gc --max-size 20GiB    what was used longest ago goes until the rest fits
  coop cache gc --steps             all trees that steps left, and appliances of coop run
  coop cache gc --steps --dry-run   what that would remove

Builds that run keep what they have open; an appliance that runs stays. What a killed build left
unfinished goes by itself, without an option: its temporary files with the next build, and an object
that nothing names yet with the first gc an hour later (another build may be about to name it).";

/// `coop cache ls`.
#[derive(Args, Debug)]
pub(crate) struct CacheListOptions {
    /// List every file
    #[arg(long)]
    pub(crate) objects: bool,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `coop cache gc`.
#[derive(Args, Debug)]
pub(crate) struct CacheGcOptions {
    /// Keep no more than this, as 20GiB
    #[arg(long, value_name = "SIZE", value_parser = ByteCount::parse)]
    pub(crate) max_size: Option<ByteCount>,
    /// Forget the results of steps, and keep downloads and kernels
    #[arg(long)]
    pub(crate) steps: bool,
    /// Remove what was set aside as damaged
    #[arg(long)]
    pub(crate) bad: bool,
    /// Remove nothing: tell what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `coop cache verify`.
#[derive(Args, Debug)]
pub(crate) struct CacheVerifyOptions {
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}
