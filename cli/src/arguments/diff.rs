//! The grammar of `coop diff`.

use std::path::PathBuf;

use clap::Args;
use coop_image::compare::Field;

pub(super) const EXAMPLES: &str = "\
Examples:
  coop diff out/server out/server-next
  coop diff rootfs.tar.zst root.cobd --all --ignore mtime-ns
  coop diff out/server ./rootfs --json

Nothing is written and the exit code is 0 where both are equal, 1 where they differ.
Fields: presence kind mode uid gid mtime mtime-ns atime ctime crtime size content target device
hardlink xattr manifest. Of the times only the modification time counts, unless --times is given.
Holes and zeroes are the same content. An appliance beside something else counts as its root file
system.";

/// `coop diff`.
#[derive(Args, Debug)]
pub(crate) struct DiffOptions {
    /// An appliance, an ext2/3/4 image, a tar archive (compressed or not), or a folder
    pub(crate) first: PathBuf,
    /// Another one
    pub(crate) second: PathBuf,
    /// Tell all differences, not only the first
    #[arg(long)]
    pub(crate) all: bool,
    /// Fields that do not count
    #[arg(long, value_name = "FIELD,…", value_delimiter = ',', value_parser = parse_field)]
    pub(crate) ignore: Vec<Field>,
    /// Compare times of access, change and birth too
    #[arg(long)]
    pub(crate) times: bool,
    /// Print one JSON value on stdout: whether they are equal, and the differences
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_field(text: &str) -> Result<Field, String> {
    let known = || Field::ALL.map(Field::name).join(", ");
    Field::ALL
        .into_iter()
        .find(|field| field.name() == text)
        .ok_or_else(|| format!("known fields are {}", known()))
}
