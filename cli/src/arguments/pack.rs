//! `coop pack` and `coop unpack`.

use std::path::PathBuf;

use clap::Args;

use super::TrustOptions;

/// What the long help of `coop pack` ends with.
pub(super) const PACK_EXAMPLES: &str = "Examples:
  coop pack out/web                        web.coop, one file: an OCI image layout in a tar
  coop sign web.coop --key release.key     which others ask for
  coop run web.coop                        boots it, without unpacking it here

The same appliance gives the same bytes.";

/// What the long help of `coop unpack` ends with.
pub(super) const UNPACK_EXAMPLES: &str = "Examples:
  coop unpack web.coop                     into out/web, if a key of the policy has signed it
  coop unpack web.coop --key release.pub   if this one has";

/// `coop pack`.
#[derive(Args, Debug)]
pub(crate) struct PackOptions {
    /// The appliance's folder
    pub(crate) appliance: PathBuf,
    /// The bundle, which appears whole or not at all [default: NAME.coop]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `coop unpack`.
#[derive(Args, Debug)]
pub(crate) struct UnpackOptions {
    /// The bundle
    pub(crate) bundle: PathBuf,
    /// The appliance's folder, which appears whole or not at all [default: out/NAME]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) trust: TrustOptions,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}
