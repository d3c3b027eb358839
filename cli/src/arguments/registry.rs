//! The grammars of `coop push` and `coop pull`.

use std::path::PathBuf;

use clap::Args;
use coop_builder::registry::Reference;

use super::{Progress, TrustOptions};

pub(super) const PUSH_EXAMPLES: &str = "\
Examples:
  coop push out/web oci://registry.example.org/team/web:1.2
  coop push web.coop oci://localhost:5000/web       with the signatures that are in the bundle

What the registry has is not sent again, and what was interrupted goes on. Who you are to a registry
is read where docker and podman keep it (docker login, podman login): in $DOCKER_CONFIG/config.json,
$XDG_RUNTIME_DIR/containers/auth.json and ~/.docker/config.json, with their credential helpers.";

pub(super) const PULL_EXAMPLES: &str = "\
Examples:
  coop pull oci://registry.example.org/team/web:1.2              out/web
  coop pull oci://registry.example.org/team/web@sha256:… -o web.coop
  coop run oci://registry.example.org/team/web:1.2 -- uname -a

An appliance must be signed by a key that is trusted. What was interrupted goes on.";

/// How registries are spoken to.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RegistryOptions {
    /// Speak to the registry without encryption, also where it is not on this machine
    #[arg(long)]
    pub(crate) plain_http: bool,
}

/// `coop push`.
#[derive(Args, Debug)]
pub(crate) struct PushOptions {
    /// The appliance's folder, or a bundle
    pub(crate) appliance: PathBuf,
    /// Where to: oci://HOST[:PORT]/NAME[:TAG] [default tag: latest]
    #[arg(value_name = "REFERENCE", value_parser = parse_reference)]
    pub(crate) reference: Reference,
    #[command(flatten)]
    pub(crate) registry: RegistryOptions,
    /// How to show progress, on stderr
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: Progress,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `coop pull`.
#[derive(Args, Debug)]
pub(crate) struct PullOptions {
    /// What: oci://HOST[:PORT]/NAME[:TAG|@sha256:DIGEST] [default tag: latest]
    #[arg(value_name = "REFERENCE", value_parser = parse_reference)]
    pub(crate) reference: Reference,
    /// The appliance's folder, or a bundle's file if its name ends with .coop [default: out/NAME]
    #[arg(short, long, value_name = "DIR|X.coop")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) trust: TrustOptions,
    #[command(flatten)]
    pub(crate) registry: RegistryOptions,
    /// How to show progress, on stderr
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: Progress,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_reference(text: &str) -> Result<Reference, String> {
    Reference::parse(text).map_err(|error| error.to_string())
}
