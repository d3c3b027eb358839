//! The grammar of `coop convert`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use coop_builder::convert::{OutputFormat, RootSize, Which};
use coop_builder::recipe::ByteCount;

use super::{DefaultKernel, Progress, RecipeOptions};

pub(super) const EXAMPLES: &str = "\
Examples:
  coop convert disk.qcow2 --list                 what is on it
  coop convert disk.qcow2 root.cobd              the partition that looks like a root
  coop convert disk.vmdk data.cobd --partition 5
  coop convert disk.qcow2 --appliance out/old    with a kernel, fitted so that it boots:
  coop run out/old
  coop convert root.cobd disk.qcow2              with a partition table (GPT) around it
  coop convert disk.vmdk disk.raw                a whole disk as it is

What is read is told by content: raw, qcow2 (versions 2 and 3) and VMDK (monolithicSparse and
streamOptimized). What is written goes by the name: .cobd is one file system without a table, .raw
and .img a whole disk, .qcow2 a whole disk in QEMU's format; --format says it otherwise. A file system
without a table gets one (GPT) in a whole disk. A file that is named .cobd is read as it is, whatever
its first bytes look like.

--partition takes a number, root, or a label. root is the one with a root's type in a GPT, the only
Linux file system, or the only one with /etc and /usr.

What holds zeroes becomes a hole. What is left behind (boot loader, other partitions, snapshots) is
told, also with --json. --appliance reads file by file, changes /etc where the old machine's disks,
terminals and network are named, and tells each change; logs, keys and identity stay.";

/// `coop convert`.
#[derive(Args, Debug)]
pub(crate) struct ConvertOptions {
    /// The disk, or the cobd
    pub(crate) source: PathBuf,
    /// The cobd, or the disk; an old one is replaced
    #[arg(
        value_name = "OUTPUT",
        required_unless_present_any = ["list", "appliance"],
        conflicts_with_all = ["list", "appliance"]
    )]
    pub(crate) output: Option<PathBuf>,
    /// Show what is on the disk and write nothing
    #[arg(long, conflicts_with_all = ["appliance", "partition"])]
    pub(crate) list: bool,
    /// Make an appliance in this folder that coop run boots
    #[arg(long, value_name = "DIR")]
    pub(crate) appliance: Option<PathBuf>,
    /// Which partition: a number, a label, or root [default: root; of a disk into a disk, all]
    #[arg(long, value_name = "N|root|LABEL", value_parser = parse_which)]
    pub(crate) partition: Option<Which>,
    /// What is written, whatever the name says
    #[arg(long, value_enum, value_name = "FORMAT", requires = "output")]
    pub(crate) format: Option<Format>,
    /// Let the disk name files of this folder and below as parts of itself: backing files, data
    /// files, extents
    #[arg(long, value_name = "DIR")]
    pub(crate) allow_chain: Option<PathBuf>,
    /// Use the copy of a partition table (GPT) at the disk's end where the first one is damaged
    #[arg(long)]
    pub(crate) use_backup_table: bool,
    /// Size of the appliance's root, as 4GiB, or auto: what its files need, and some free space
    /// [default: the partition's]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "appliance")]
    pub(crate) size: Option<RootSize>,
    /// The appliance's kernel [default: auto]
    #[arg(long, value_enum, value_name = "WHICH", requires = "appliance")]
    pub(crate) kernel: Option<DefaultKernel>,
    /// Fetch nothing for the kernel: fail where something is not in the cache
    #[arg(long, requires = "appliance")]
    pub(crate) offline: bool,
    /// How many threads may work [default: one for each processor]; changes nothing in the output
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Do not wait until the output is on the disk: after a crash of the host it may be damaged
    #[arg(long)]
    pub(crate) no_sync: bool,
    /// How to show progress, on stderr
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: Progress,
    /// Print one JSON value on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

impl ConvertOptions {
    /// Those of the build of an appliance.
    pub(crate) fn recipe_options(&self) -> RecipeOptions {
        RecipeOptions {
            offline: self.offline,
            progress: self.progress,
            allow_dropped: false,
            ..RecipeOptions::looking(self.kernel)
        }
    }
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One file system, without a partition table
    Cobd,
    /// A whole disk, as it is
    Raw,
    /// A whole disk in QEMU's format
    Qcow2,
}

impl From<Format> for OutputFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Cobd => Self::Cobd,
            Format::Raw => Self::Raw,
            Format::Qcow2 => Self::Qcow2,
        }
    }
}

fn parse_which(text: &str) -> Result<Which, String> {
    match text {
        "" => Err("write a number, root, or a label".to_owned()),
        _ => Ok(Which::parse(text)),
    }
}

fn parse_size(text: &str) -> Result<RootSize, String> {
    match text {
        "auto" => Ok(RootSize::Auto),
        _ => ByteCount::parse(text).map(RootSize::Given),
    }
}
