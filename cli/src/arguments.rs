//! The command line's grammar. Its comments are the help that people read, brackets included.
#![allow(rustdoc::broken_intra_doc_links)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use coop_appliance::Forward;
use coop_builder::recipe::{ByteCount, check_memory, parse_duration, parse_forward};

mod cache;
mod convert;
mod detached;
mod diff;
mod explain;
mod export;
mod host;
mod image;
mod import;
mod kernel;
mod lock;
mod node;
mod pack;
mod registry;
mod serve;
mod sign;
mod test;
mod verify;

pub(crate) use cache::{CacheCommand, CacheGcOptions, CacheListOptions, CacheVerifyOptions};
pub(crate) use convert::ConvertOptions;
pub(crate) use detached::{CpOptions, ExecOptions, LogsOptions, MachineOptions, PsOptions};
pub(crate) use diff::DiffOptions;
pub(crate) use explain::ExplainOptions;
pub(crate) use export::{ExportFormat, ExportOptions};
pub(crate) use host::{CompletionsOptions, DoctorOptions};
pub(crate) use image::{ImageBuildOptions, ImageCommand, ImageResizeOptions, ImageSize};
pub(crate) use import::ImportOptions;
pub(crate) use kernel::{
    KernelBuildOptions, KernelCommand, KernelConfigOptions, KernelListOptions,
};

pub(crate) use lock::{FetchOptions, LockOptions};
pub(crate) use node::NodeOptions;
pub(crate) use pack::{PackOptions, UnpackOptions};
pub(crate) use registry::{PullOptions, PushOptions, RegistryOptions};
pub(crate) use serve::ServeOptions;
pub(crate) use sign::{SignOptions, TrustOptions};
pub(crate) use test::TestOptions;
pub(crate) use verify::VerifyOptions;

/// What the long help of `coop` ends with.
const CODES: &str = "\
Exit codes: 0 it is done; 1 the work failed; 2 wrong usage or a wrong recipe. coop run and coop exec
with a command end with its code.";

/// What the long help of `coop run` ends with.
const RUN_EXAMPLES: &str = "\
Examples:
  coop run recipes/debian.yaml                  builds it first if need be
  coop run recipes/debian.yaml -- uname -a      one command
  coop run out/server -p tcp:2300:22            at another port of the host
  coop run --detach out/web                     then coop ps, exec, logs, stop

Ctrl-] and q on the console end the guest. With a command the exit code is its own, 126 where it
cannot be run, 127 where there is none, 124 after --timeout, and 125 where coop failed.";

impl Arguments {
    /// The program's own words.
    ///
    /// # Errors
    /// They are wrong, or ask for help or the version.
    pub(crate) fn of_program() -> Result<Self, clap::Error> {
        let mut grammar = with_flowing_help(Self::command());
        let matches = grammar.try_get_matches_from_mut(std::env::args_os())?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut grammar))
    }
}

/// The same grammar, with what follows each long help as paragraphs.
fn with_flowing_help(verb: clap::Command) -> clap::Command {
    let verb = match verb.get_after_long_help().map(ToString::to_string) {
        Some(text) => verb.after_long_help(flowing(&text)),
        None => verb,
    };
    verb.mut_subcommands(with_flowing_help)
}

/// A help's lines as paragraphs, which are broken where the terminal ends; lines that are indented
/// stay lines.
fn flowing(text: &str) -> String {
    let mut flowing = String::with_capacity(text.len());
    let mut before = "";
    for line in text.lines() {
        let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
        if !flowing.is_empty() {
            let goes_on = is_prose(before) && is_prose(line);
            flowing.push(if goes_on { ' ' } else { '\n' });
        }
        flowing.push_str(line);
        before = line;
    }
    flowing
}

/// Builds appliances from recipes and boots them, without privileges.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_long_help = CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an appliance from a recipe
    Build(BuildOptions),
    /// Boot an appliance, or what a recipe builds; with a command, run it and pass its exit code
    #[command(after_long_help = RUN_EXAMPLES)]
    Run(Box<RunOptions>),
    /// List the machines that are left running
    Ps(PsOptions),
    /// Show what a machine has said that is or was left running
    Logs(LogsOptions),
    /// Join the terminal to the console of a machine that is left running
    Attach(MachineOptions),
    /// Run a command in a machine that is left running
    Exec(ExecOptions),
    /// Copy a file into or out of a machine that is left running
    Cp(CpOptions),
    /// Shut a machine down that is left running
    Stop(MachineOptions),
    /// End a machine at once that is left running
    Kill(MachineOptions),
    /// Boot an appliance, or what a recipe builds, and run the steps of its test: in there
    Test(TestOptions),
    /// Check a recipe without building it
    Check(CheckOptions),
    /// Pin everything that a recipe's names stand for, in RECIPE.lock
    #[command(after_long_help = lock::EXAMPLES)]
    Lock(LockOptions),
    /// Tell what a build would do, step by step, and why
    #[command(after_long_help = explain::EXAMPLES)]
    Explain(ExplainOptions),
    /// Download all that a build needs, as for a build with --offline
    Fetch(FetchOptions),
    /// Show what an appliance or an image is made of, or take a folder or file out of it
    Inspect(InspectOptions),
    /// Tell what two appliances, images, archives or folders differ in
    #[command(after_long_help = diff::EXAMPLES)]
    Diff(DiffOptions),
    /// Make a cobd or an appliance from a disk of another machine, or a disk from a cobd
    #[command(after_long_help = convert::EXAMPLES)]
    Convert(ConvertOptions),
    /// Make one file of an appliance, to hand on
    #[command(after_long_help = pack::PACK_EXAMPLES)]
    Pack(PackOptions),
    /// Make a folder of a bundle that is trusted
    #[command(after_long_help = pack::UNPACK_EXAMPLES)]
    Unpack(UnpackOptions),
    /// Sign a bundle or what a registry has, or make a key for that
    #[command(after_long_help = sign::EXAMPLES)]
    Sign(SignOptions),
    /// Tell whether an appliance is what its manifest says, who signed it, and what building it
    /// again gives
    #[command(after_long_help = verify::EXAMPLES)]
    Verify(VerifyOptions),
    /// Bring an appliance and its signatures to a registry
    #[command(after_long_help = registry::PUSH_EXAMPLES)]
    Push(PushOptions),
    /// Get an appliance from a registry
    #[command(after_long_help = registry::PULL_EXAMPLES)]
    Pull(PullOptions),
    /// Make an appliance into something that runs without coop
    #[command(after_long_help = export::EXAMPLES)]
    Export(ExportOptions),
    /// Serve an appliance's root to other machines, read-only, by NFS
    #[command(after_long_help = serve::EXAMPLES)]
    Serve(ServeOptions),
    /// Make images from archives and folders, without a recipe
    #[command(subcommand)]
    Image(ImageCommand),
    /// Make a recipe of a configuration of coLinux or coMosix
    #[command(after_long_help = import::EXAMPLES)]
    Import(ImportOptions),
    /// Show what the cache holds, make it smaller, or check it
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Tell what this host has of what coop uses, and what it lacks
    Doctor(DoctorOptions),
    /// Print the JSON schema of recipes, for editors
    Schema,
    /// Print a shell's completions
    Completions(CompletionsOptions),
    /// Configure, compare and build the kernel of a recipe alone
    #[command(subcommand)]
    Kernel(KernelCommand),
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// Bars on a terminal, lines elsewhere
    #[default]
    Auto,
    /// Lines
    Plain,
    /// One JSON value a line
    Json,
    /// Nothing but warnings
    None,
}

/// The kernel of a recipe that names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DefaultKernel {
    /// The trimmed one where it was built before or can be built, else the prebuilt one
    Auto,
    /// Debian's user-mode-linux
    Prebuilt,
    /// The one that coop composes and builds; it boots fastest
    Trimmed,
}

/// What a build from a recipe needs to know.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecipeOptions {
    /// Give a variable of the recipe a value
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_set)]
    sets: Vec<(String, String)>,
    /// Fetch nothing: fail where something is not in the cache
    #[arg(long)]
    pub(crate) offline: bool,
    /// Use RECIPE.lock, which must be there [default: use it where it is there]
    #[arg(long)]
    pub(crate) locked: bool,
    /// Go on, with a warning, where the kernel's configuration does not hold what was asked for
    #[arg(long)]
    pub(crate) allow_dropped: bool,
    /// The kernel of a recipe that names none [default: auto]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub(crate) kernel: Option<DefaultKernel>,
    /// See [`SecretOptions`].
    #[arg(skip)]
    pub(crate) secrets: Vec<(String, SecretSource)>,
    /// How to show progress, on stderr
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: Progress,
}

/// What the verbs that run a recipe's steps need beside that.
#[derive(Args, Clone, Debug)]
pub(crate) struct SecretOptions {
    /// Give a secret of the recipe's steps its value: what a file holds, or, as NAME=env:VARIABLE, a
    /// variable of the environment
    #[arg(long = "secret", value_name = "NAME=FILE", value_parser = parse_secret)]
    given: Vec<(String, SecretSource)>,
}

/// Where a secret's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
}

fn parse_secret(text: &str) -> Result<(String, SecretSource), String> {
    match text.split_once('=') {
        Some((name, source)) if !name.is_empty() && !source.is_empty() => {
            let source = match source.strip_prefix("env:") {
                Some(variable) => SecretSource::Variable(variable.to_owned()),
                None => SecretSource::File(source.into()),
            };
            Ok((name.to_owned(), source))
        }
        _ => Err("write NAME=FILE or NAME=env:VARIABLE".to_owned()),
    }
}

impl RecipeOptions {
    /// Those of work that only looks at what is there.
    pub(crate) fn looking(kernel: Option<DefaultKernel>) -> Self {
        Self {
            sets: Vec::new(),
            offline: true,
            locked: false,
            allow_dropped: true,
            kernel,
            secrets: Vec::new(),
            progress: Progress::None,
        }
    }

    /// Those that are given and say something of a recipe or its kernel alone.
    pub(crate) fn given_for_recipes(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            (!self.sets.is_empty(), "--set"),
            (!self.secrets.is_empty(), "--secret"),
            (self.locked, "--locked"),
            (self.allow_dropped, "--allow-dropped"),
            (self.kernel.is_some(), "--kernel"),
        ];
        let given = given.into_iter().filter(|(is_given, _)| *is_given);
        given.map(|(_, name)| name)
    }

    /// With the secrets of a verb that runs steps.
    pub(crate) fn with(&self, secrets: &SecretOptions) -> Self {
        Self {
            secrets: secrets.given.clone(),
            ..self.clone()
        }
    }

    /// The variables; the last of two values for one wins.
    pub(crate) fn sets(&self) -> BTreeMap<String, String> {
        self.sets.iter().cloned().collect()
    }
}

/// `coop build`.
#[derive(Args, Debug)]
pub(crate) struct BuildOptions {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// The appliance's folder [default: out/NAME]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) recipe_options: RecipeOptions,
    #[command(flatten)]
    pub(crate) secrets: SecretOptions,
    /// Where a step fails, open a shell in its guest as it was; needs a terminal
    #[arg(long, conflicts_with = "json")]
    pub(crate) debug_shell: bool,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `coop check`.
#[derive(Args, Debug)]
pub(crate) struct CheckOptions {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// Give a variable of the recipe a value
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_set)]
    sets: Vec<(String, String)>,
    /// The kernel of a recipe that names none [default: auto]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub(crate) kernel: Option<DefaultKernel>,
    /// Print one JSON value on stdout: the recipe with all defaults, or its errors
    #[arg(long)]
    pub(crate) json: bool,
}

impl CheckOptions {
    /// The variables; the last of two values for one wins.
    pub(crate) fn sets(&self) -> BTreeMap<String, String> {
        self.sets.iter().cloned().collect()
    }
}

/// `coop inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectOptions {
    /// The appliance's folder, a bundle, oci://HOST[:PORT]/NAME[:TAG|@sha256:DIGEST], or an image;
    /// with --extract an archive too
    pub(crate) appliance: PathBuf,
    /// Compare every file of the appliance with its digest
    #[arg(long)]
    pub(crate) verify: bool,
    /// Write this folder or file as a tar archive to stdout, with owners, modes, times, attributes
    /// and holes; names begin at the folder, as with tar -C FOLDER -c .
    #[arg(long, value_name = "PATH", conflicts_with_all = ["verify", "json"])]
    pub(crate) extract: Option<OsString>,
    /// Write the archive to a file, which appears whole or not at all
    #[arg(short, long, value_name = "FILE", requires = "extract")]
    pub(crate) output: Option<PathBuf>,
    /// Which cobd of an appliance --extract reads [default: the root]
    #[arg(long, value_name = "NAME", requires = "extract")]
    pub(crate) cobd: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryOptions,
    /// Print one JSON value: the manifest, or what an image says about itself
    #[arg(long)]
    pub(crate) json: bool,
}

/// `coop run`.
#[derive(Args, Debug)]
pub(crate) struct RunOptions {
    /// A recipe, an appliance's folder, a bundle, oci://HOST[:PORT]/NAME[:TAG|@sha256:DIGEST], or
    /// @FILE: a configuration of coLinux or coMosix
    pub(crate) target: PathBuf,
    /// Run this in the guest instead of its init, and exit with its code
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
    /// Guest memory, as 512MiB [default: the appliance's]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub(crate) memory: Option<ByteCount>,
    /// Processors, as many as the kernel can have [default: the appliance's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) cpus: Option<u32>,
    /// Lead ports of the host's loopback into the guest: tcp|udp:HOST:GUEST[:COUNT]; takes the
    /// place of the appliance's forward to the same ports
    #[arg(short = 'p', long = "forward", value_name = "FORWARD", value_parser = parse_forward)]
    pub(crate) forwards: Vec<Forward>,
    /// Let the guest reach the host's loopback and own addresses
    #[arg(long)]
    pub(crate) allow_host: bool,
    /// Attach a disk image as a further cobd
    #[arg(long = "disk", value_name = "FILE")]
    pub(crate) disks: Vec<PathBuf>,
    /// Keep what the guest writes [default: a throw-away overlay]
    #[arg(long)]
    pub(crate) persist: bool,
    /// End the guest after this time, as 30s, with exit code 124
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Share a folder of the host: HOST:GUEST[:ro]; not supported yet
    #[arg(long = "share", value_name = "SHARE", hide = true)]
    pub(crate) shares: Vec<OsString>,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// Give the command a terminal
    #[arg(short = 't', long = "tty", requires = "command")]
    pub(crate) tty: bool,
    /// Leave the machine running once it is up, and print its name; see coop ps
    #[arg(long, conflicts_with_all = ["tty", "json", "nodes"])]
    pub(crate) detach: bool,
    /// What --detach starts
    #[arg(long, hide = true, conflicts_with_all = ["tty", "json", "detach", "nodes"])]
    pub(crate) supervise: bool,
    #[command(flatten)]
    pub(crate) trust: TrustOptions,
    #[command(flatten)]
    pub(crate) registry: RegistryOptions,
    #[command(flatten)]
    pub(crate) recipe_options: RecipeOptions,
    #[command(flatten)]
    pub(crate) secrets: SecretOptions,
    /// Print a report as one JSON value on stdout; what the guest says goes to stderr
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| "it has no '='; write NAME=VALUE".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_memory(text: &str) -> Result<ByteCount, String> {
    let memory = ByteCount::parse(text)?;
    check_memory(memory)?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_is_broken_where_the_terminal_ends() {
        let text = "Examples:\n  a\n  b\n\none\ntwo\n\nthree";
        let flown = "Examples:\n  a\n  b\n\none two\n\nthree";
        assert_eq!(flowing(text), flown);
        let inner = clap::Command::new("b").after_long_help(text);
        let verb = with_flowing_help(clap::Command::new("a").subcommand(inner));
        let help = verb.find_subcommand("b").unwrap().get_after_long_help();
        assert_eq!(help.unwrap().to_string(), flown);
    }

    #[test]
    fn a_command_comes_after_two_dashes() {
        let words = [
            "coop", "run", "a", "-p", "tcp:1:2", "--", "sh", "-c", "exit 7",
        ];
        let Command::Run(options) = Arguments::try_parse_from(words).unwrap().command else {
            panic!("not run")
        };
        assert_eq!(options.command, ["sh", "-c", "exit 7"]);
        assert_eq!(options.forwards.len(), 1);
        assert!(Arguments::try_parse_from(["coop", "run", "a", "b"]).is_err());
        assert!(Arguments::try_parse_from(["coop", "run", "a", "--memory", "1"]).is_err());
        assert!(Arguments::try_parse_from(["coop", "run", "a", "-t"]).is_err());
    }
}
