//! The grammar of `coop kernel`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::RecipeOptions;

/// `coop kernel`.
#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Show the configuration of a recipe's kernel, compare it, or change it in the kernel's menu
    #[command(after_long_help = CONFIG_EXAMPLES)]
    Config(Box<KernelConfigOptions>),
    /// Build a recipe's kernel alone, and write its files into a folder
    #[command(after_long_help = BUILD_EXAMPLES)]
    Build(KernelBuildOptions),
    /// List the kernels in the cache, or the fragments that coop carries
    List(KernelListOptions),
}

const CONFIG_EXAMPLES: &str = "\
Examples:
  coop kernel config recipes/kernel.yaml > .config
  coop kernel config recipes/kernel.yaml --wanted
  coop kernel config recipes/kernel.yaml --diff recipes/server.yaml
  coop kernel config recipes/kernel.yaml --diff running
  coop kernel config recipes/kernel.yaml --menuconfig

The configuration comes from the cache where the kernel was built before; else the kernel's own
configuration is run, which takes seconds but needs the source. With --diff the exit code is 0 where
both are equal, 1 where they differ and 2 where nobody knows; a symbol that is not set and one that
is not there are the same. --menuconfig needs ncurses' development files (Debian: libncurses-dev).";

const BUILD_EXAMPLES: &str = "\
Examples:
  coop kernel build recipes/kernel.yaml
  coop kernel build recipes/kernel.yaml -o /srv/kernel --json

The folder has vmlinux, config (as the kernel was built), defconfig (what of it is not the default),
kernel.json (release, target, digests), bzImage for x86_64, and modules.tar where there are modules;
tar -x -C ROOT takes them apart. A prebuilt kernel that needs its own C library has it in lib.";

/// `coop kernel config`.
#[derive(Args, Debug)]
pub(crate) struct KernelConfigOptions {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// Show only what is not the default (the kernel's savedefconfig)
    #[arg(long, conflicts_with_all = ["wanted", "diff", "menuconfig"])]
    pub(crate) minimal: bool,
    /// Show what the recipe asks for, and where
    #[arg(long, conflicts_with_all = ["diff", "menuconfig"])]
    pub(crate) wanted: bool,
    /// Show what differs from another kernel: a recipe, an appliance's folder, a .config (also
    /// packed by gzip), a vmlinux that carries its configuration, or the word running
    #[arg(long, value_name = "OTHER", conflicts_with = "menuconfig")]
    pub(crate) diff: Option<PathBuf>,
    /// Open the kernel's own menu on the terminal, and write what was changed as a fragment
    #[arg(long, conflicts_with = "json")]
    pub(crate) menuconfig: bool,
    /// The fragment that --menuconfig writes [default: NAME.config beside the recipe]
    #[arg(short, long, value_name = "FRAGMENT", requires = "menuconfig")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) recipe_options: RecipeOptions,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `coop kernel build`.
#[derive(Args, Debug)]
pub(crate) struct KernelBuildOptions {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// The folder for the kernel's files [default: out/NAME-kernel]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) recipe_options: RecipeOptions,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `coop kernel list`.
#[derive(Args, Debug)]
pub(crate) struct KernelListOptions {
    /// List the fragments that kernel.config can name instead
    #[arg(long)]
    pub(crate) fragments: bool,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Arguments;

    #[test]
    fn one_view_at_a_time() {
        let accepts = |words: &[&str]| {
            let words = ["coop", "kernel"].iter().chain(words);
            Arguments::try_parse_from(words).is_ok()
        };
        assert!(accepts(&["config", "r", "--minimal", "--json"]));
        assert!(accepts(&["config", "r", "--diff", "running", "--json"]));
        assert!(accepts(&["config", "r", "--menuconfig", "-o", "f.config"]));
        assert!(accepts(&["list", "--fragments", "--json"]));
        for wrong in [
            &["config"][..],
            &["config", "r", "--minimal", "--wanted"],
            &["config", "r", "--diff", "x", "--menuconfig"],
            &["config", "r", "--menuconfig", "--json"],
            &["config", "r", "-o", "f"],
            &["list", "r"],
            &["build"],
        ] {
            assert!(!accepts(wrong), "{wrong:?}");
        }
    }
}
