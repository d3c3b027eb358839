//! `coop sign`, and what all verbs that ask for signatures share.

use std::path::PathBuf;

use clap::Args;

use super::RegistryOptions;

/// What the long help ends with.
pub(super) const EXAMPLES: &str = "Examples:
  coop sign --generate release.key         makes release.key and release.key.pub
  coop sign web.coop --key release.key     attaches a signature
  coop sign web.coop --message | tee m     what is signed, for keys that are elsewhere:
  minisign -S -s token.key -m m            signs it with minisign
  coop sign web.coop --signature m.minisig attaches that
  coop sign oci://registry.example.org/team/web:1.2 --key release.key
                                           signs what the tag names now, in the registry

Keys are minisign's, or Ed25519 in PEM as openssl makes them. The password of a minisign key is
asked for on the terminal, or taken from COOP_KEY_PASSWORD.";

/// `coop sign`.
#[derive(Args, Debug)]
pub(crate) struct SignOptions {
    /// The bundle, or oci://HOST[:PORT]/NAME[:TAG|@sha256:DIGEST]
    #[arg(required_unless_present = "generate", conflicts_with = "generate")]
    pub(crate) bundle: Option<PathBuf>,
    /// Sign it with this secret key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["signature", "message", "generate"])]
    pub(crate) key: Option<PathBuf>,
    /// Attach a signature that was made elsewhere
    #[arg(long, value_name = "FILE", conflicts_with_all = ["message", "generate"])]
    pub(crate) signature: Option<PathBuf>,
    /// Print what is to be signed, and sign nothing
    #[arg(long, conflicts_with = "generate")]
    pub(crate) message: bool,
    /// Make a new key: the secret one in FILE, the public one in FILE.pub
    #[arg(long, value_name = "FILE")]
    pub(crate) generate: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) registry: RegistryOptions,
    /// Print one JSON value on stdout
    #[arg(long, conflicts_with = "message")]
    pub(crate) json: bool,
}

/// Whose signature is asked for.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TrustOptions {
    /// Trust this public key, and no other
    #[arg(long, value_name = "FILE", conflicts_with = "policy")]
    pub(crate) key: Option<PathBuf>,
    /// Trust the keys of this policy [default: coop/policy.yaml in XDG_CONFIG_HOME]
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Go on, with a warning, where no trusted key has signed it
    #[arg(long)]
    pub(crate) insecure_allow_unsigned: bool,
}

impl TrustOptions {
    /// Whether anything was said.
    pub(crate) fn is_given(&self) -> bool {
        self.key.is_some() || self.policy.is_some() || self.insecure_allow_unsigned
    }
}
