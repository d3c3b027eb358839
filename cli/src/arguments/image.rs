//! The grammar of `coop image`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use coop_builder::cobd::{NewSize, Owner};
use coop_builder::recipe::{ByteCount, Percent};
use coop_image::ext4::{BlockSize, Inodes};

use super::Progress;

/// `coop image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Make an ext4 image from an archive or a folder
    #[command(after_long_help = BUILD_EXAMPLES)]
    Build(Box<ImageBuildOptions>),
    /// Write the file system of an image in another size
    #[command(after_long_help = RESIZE_EXAMPLES)]
    Resize(ImageResizeOptions),
}

const RESIZE_EXAMPLES: &str = "\
Examples:
  coop image resize root.cobd --size 4GiB
  coop image resize root.cobd --size +1GiB -o larger.cobd
  coop image resize old-ext3.img --size fit -o small.cobd

The file system is written anew as ext4: UUID, label, hash seed, time, block size, the shares of
inodes and reserved blocks, and whether there is a journal stay. coop inspect shows the least size.";

const BUILD_EXAMPLES: &str = "\
Examples:
  coop image build rootfs.tar.xz -o root.cobd --free 20%
  tar -C rootfs -c . | coop image build - -o root.cobd --size 2GiB
  coop image build ./rootfs -o root.cobd --owner 0:0
  SOURCE_DATE_EPOCH=0 coop image build rootfs.tar -o root.cobd

The image is raw ext4 without a partition table, and the same bytes for the same archive, compressed
or not, from a file or a pipe. It appears whole at the end, or not at all. From a folder all times of
a file become its modification time; nothing needs root, and --owner and --time make the image the
same on every host.

A file of overrides is a list, done in its order and after --owner:
  - {path: /usr/bin/sudo, mode: 0o4755, owner: 0, group: 0}
  - {path: /home/me, owner: 1000, group: 1000, recursive: true}
  - {path: /usr/bin/app, xattrs: {user.note: text, user.bytes: 0x00ff}}
  - {path: /dev/console, make: {char: \"5:1\"}, mode: 0o600}   # or block, symlink: TARGET
  - {path: /run/pipe, make: fifo}                              # or directory
  - {path: /var/cache/junk, removed: true}";

/// `coop image build`.
#[derive(Args, Debug)]
pub(crate) struct ImageBuildOptions {
    /// A folder, or a tar archive, plain or gzip, bzip2, xz or zstd, decided by content; - is an
    /// archive on standard input
    pub(crate) source: PathBuf,
    /// The image; an old one is replaced
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Size of the image, as 2GiB, or auto: as small as content and free space allow
    #[arg(long, value_name = "SIZE", default_value = "auto", value_parser = parse_size)]
    pub(crate) size: ImageSize,
    /// Share of the image that is left free, where its size is auto
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = Percent::parse)]
    pub(crate) free: Percent,
    /// Size of a block in bytes: 1024, 2048 or 4096
    #[arg(long, value_name = "BYTES", default_value = "4096", value_parser = parse_block_size)]
    pub(crate) block_size: BlockSize,
    /// Label of the file system, at most 16 bytes
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) label: String,
    /// UUID of the file system [default: derived from names, sizes, owners and times in it]
    #[arg(long, value_name = "UUID", value_parser = parse_uuid)]
    pub(crate) uuid: Option<Uuid>,
    /// Size of the journal, as 16MiB [default: by the size of the image, none below 2048 blocks]
    #[arg(long, value_name = "SIZE", value_parser = ByteCount::parse)]
    pub(crate) journal: Option<ByteCount>,
    /// Make no journal
    #[arg(long, conflicts_with = "journal")]
    pub(crate) no_journal: bool,
    /// How many inodes at least, as 50000, or one for so many bytes, as 16KiB [default: what the
    /// content needs, and some for the free space]
    #[arg(long, value_name = "COUNT|SIZE", value_parser = parse_inodes)]
    pub(crate) inodes: Option<Inodes>,
    /// Share of the blocks that only root may use
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = Percent::parse)]
    pub(crate) reserved: Percent,
    /// Time of the file system, and the latest that a file in it may have, in seconds since 1970
    /// [default: SOURCE_DATE_EPOCH, else the time of the youngest file]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) time: Option<i64>,
    /// Make this user and group, as numbers, the owner of everything
    #[arg(long, value_name = "UID:GID", value_parser = parse_owner)]
    pub(crate) owner: Option<Owner>,
    /// Change owners, modes and attributes, make devices, or remove things, as this YAML file says
    #[arg(long, value_name = "FILE")]
    pub(crate) overrides: Option<PathBuf>,
    /// Drop so many leading components from the names of an archive
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) strip_components: usize,
    /// Read an archive behind its end marker, too: for archives that were put behind one another
    #[arg(long)]
    pub(crate) ignore_zeros: bool,
    /// Take in what is mounted below a folder; otherwise it stays empty
    #[arg(long)]
    pub(crate) cross_mounts: bool,
    /// Leave out the extended attributes of a folder: labels of the host's, lists, capabilities
    #[arg(long)]
    pub(crate) no_xattrs: bool,
    /// How many threads may work [default: one for each processor]; changes nothing in the image
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Do not wait until the image is on the disk: after a crash of the host it may be damaged
    #[arg(long)]
    pub(crate) no_sync: bool,
    /// How to show progress, on stderr
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: Progress,
    /// Print one JSON value on stdout: sizes, counts and UUID
    #[arg(long)]
    pub(crate) json: bool,
}

/// `coop image resize`.
#[derive(Args, Debug)]
pub(crate) struct ImageResizeOptions {
    /// An ext2, ext3 or ext4 image without a partition table
    pub(crate) image: PathBuf,
    /// The new size, as 4GiB; +1GiB is so much more; fit is the least that is enough
    #[arg(long, value_name = "SIZE", value_parser = parse_new_size)]
    pub(crate) size: NewSize,
    /// The new image [default: takes the old one's place]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// How many threads may work [default: one for each processor]; changes nothing in the image
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Do not wait until the image is on the disk: after a crash of the host it may be damaged
    #[arg(long)]
    pub(crate) no_sync: bool,
    /// Print one JSON value on stdout: sizes, and which features changed
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_new_size(text: &str) -> Result<NewSize, String> {
    if text == "fit" {
        return Ok(NewSize::Fit);
    }
    match text.strip_prefix('+') {
        Some(more) => ByteCount::parse(more).map(|more| NewSize::More(more.0)),
        None => ByteCount::parse(text).map(|size| NewSize::Bytes(size.0)),
    }
}

/// The size that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageSize {
    /// As small as possible.
    Auto,
    /// This.
    Given(ByteCount),
}

/// A UUID's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uuid(pub(crate) [u8; 16]);

fn parse_size(text: &str) -> Result<ImageSize, String> {
    match text {
        "auto" => Ok(ImageSize::Auto),
        _ => ByteCount::parse(text).map(ImageSize::Given),
    }
}

fn parse_block_size(text: &str) -> Result<BlockSize, String> {
    match text {
        "1024" | "1KiB" => Ok(BlockSize::Kib1),
        "2048" | "2KiB" => Ok(BlockSize::Kib2),
        "4096" | "4KiB" => Ok(BlockSize::Kib4),
        _ => Err("a block has 1024, 2048 or 4096 bytes".to_owned()),
    }
}

fn parse_inodes(text: &str) -> Result<Inodes, String> {
    if let Ok(count) = text.parse() {
        return Ok(Inodes::Count(count));
    }
    let bytes = ByteCount::parse(text)?;
    u32::try_from(bytes.0)
        .map(Inodes::PerBytes)
        .map_err(|_| "one inode for 4GiB or more is too few".to_owned())
}

fn parse_owner(text: &str) -> Result<Owner, String> {
    let pair = text.split_once(':');
    let numbers = pair.and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    numbers
        .map(|(uid, gid)| Owner { uid, gid })
        .ok_or_else(|| "write two numbers, as 0:0".to_owned())
}

fn parse_uuid(text: &str) -> Result<Uuid, String> {
    let wrong = || "write 32 hexadecimal digits in groups of 8-4-4-4-12".to_owned();
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let digits: String = text.split('-').collect();
    let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if lengths != [8, 4, 4, 4, 12] || !hexadecimal {
        return Err(wrong());
    }
    let number = u128::from_str_radix(&digits, 16).map_err(|_| wrong())?;
    Ok(Uuid(number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let uuid = parse_uuid("00112233-4455-6677-8899-AABBCCDDEEFF").unwrap();
        assert_eq!(uuid.0[..3], [0, 0x11, 0x22]);
        assert_eq!(uuid.0[15], 0xff);
        for wrong in [
            "",
            "0",
            "0011223-34455-6677-8899-aabbccddeeff",
            "+0112233-4455-6677-8899-aabbccddeeff",
        ] {
            assert!(parse_uuid(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_inodes("12"), Ok(Inodes::Count(12)));
        assert_eq!(parse_inodes("16KiB"), Ok(Inodes::PerBytes(16384)));
        assert!(parse_inodes("8GiB").is_err());
        assert_eq!(parse_owner("1:2"), Ok(Owner { uid: 1, gid: 2 }));
        assert!(parse_owner("root:root").is_err());
        assert_eq!(parse_size("auto"), Ok(ImageSize::Auto));
        assert!(parse_size("12").is_err());
    }
}
