//! `coop verify`.

use std::path::PathBuf;

use clap::Args;

use super::{Progress, RecipeOptions, RegistryOptions, SecretSource, TrustOptions, parse_secret};

/// What the long help ends with.
pub(super) const EXAMPLES: &str = "Examples:
  coop verify out/web                      every file has its digest, and there are no others
  coop verify web.coop --key release.pub   the same of a bundle, and this key has signed it
  coop verify oci://registry.example.org/team/web:1.2
                                           a trusted key has signed it; --download compares its
                                           files, too
  coop verify --rebuild out/web            and building it again gives the same bytes
  coop verify --rebuild web --context .    files too large for the evidence are searched for here

A kernel that was made from source is taken from the cache. Making it again means to run the
recipe's sources on this host: --build-kernel allows that, for recipes that you trust.";

/// `coop verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyOptions {
    /// The appliance's folder, a bundle, or oci://HOST[:PORT]/NAME[:TAG|@sha256:DIGEST]
    pub(crate) appliance: PathBuf,
    #[command(flatten)]
    pub(crate) trust: TrustOptions,
    #[command(flatten)]
    pub(crate) registry: RegistryOptions,
    /// Get the files that a registry has into the cache, and compare every digest
    #[arg(long, conflicts_with = "rebuild")]
    pub(crate) download: bool,
    /// Build it again, from its own recipe and lock, and tell where the result differs first
    #[arg(long)]
    pub(crate) rebuild: bool,
    /// Where files of the recipe are searched for that are not kept in the appliance [default: here]
    #[arg(long, value_name = "DIR", requires = "rebuild")]
    pub(crate) context: Option<PathBuf>,
    /// Make the kernel on this host, where it was made from source and is not in the cache: only for
    /// recipes that you trust
    #[arg(long, requires = "rebuild")]
    pub(crate) build_kernel: bool,
    /// Fetch nothing: fail where something is not in the cache
    #[arg(long, requires = "rebuild")]
    pub(crate) offline: bool,
    /// Give a secret of the recipe's steps its value: what a file holds, or, as NAME=env:VARIABLE, a
    /// variable of the environment
    #[arg(long = "secret", value_name = "NAME=FILE", value_parser = parse_secret, requires = "rebuild")]
    pub(crate) secrets: Vec<(String, SecretSource)>,
    /// How to show progress, on stderr
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: Progress,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

impl RecipeOptions {
    /// Those of building an appliance again.
    pub(crate) fn rebuilding(options: &VerifyOptions, allow_dropped: bool) -> Self {
        Self {
            offline: options.offline,
            locked: true,
            allow_dropped,
            secrets: options.secrets.clone(),
            progress: options.progress,
            ..Self::looking(None)
        }
    }
}
