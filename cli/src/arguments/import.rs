//! The grammar of `coop import`.

use std::path::PathBuf;

use clap::Args;

pub(super) const EXAMPLES: &str = "\
Examples:
  coop import linux.conf -o linux.yaml    coLinux: words of key=value, with @file
  coop import colinux.default.xml         coLinux until 0.6
  coop import comosix.ini --json          coMosix
  coop run @linux.conf                    boots the images where they are, without a recipe

What could not be carried over is told with its line, on stderr and in the recipe. Names of files
in the recipe begin at the configuration's folder; paths of Windows are looked for there.";

/// `coop import`.
#[derive(Args, Debug)]
pub(crate) struct ImportOptions {
    /// The configuration
    pub(crate) configuration: PathBuf,
    /// Write the recipe to a new file [default: to stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print one JSON value on stdout: the recipe, and what was not carried over
    #[arg(long)]
    pub(crate) json: bool,
}
