//! The grammar of `coop export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Progress;

pub(super) const EXAMPLES: &str = "\
Examples:
  coop export out/web --format container -o web.tar
  podman run --rm oci-archive:web.tar -- cat /etc/os-release
  coop export out/web --format container -o image && skopeo copy oci:image docker://…

The image holds this very program with the C library that it needs, and the appliance. What stands
behind the image's name are further words of coop run. It needs no privileges in the container, and
writes nothing but into /tmp, /var/tmp and /dev/shm.";

/// What an appliance becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// An OCI image that boots the appliance
    Container,
}

/// `coop export`.
#[derive(Args, Debug)]
pub(crate) struct ExportOptions {
    /// The appliance's folder
    pub(crate) appliance: PathBuf,
    /// What it becomes
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: ExportFormat,
    /// An OCI layout's folder, or one archive if its name ends with .tar
    #[arg(short, long, value_name = "DIR|X.tar")]
    pub(crate) output: PathBuf,
    /// How to show progress, on stderr
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: Progress,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}
