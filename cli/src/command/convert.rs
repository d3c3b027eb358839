//! `coop convert`: disks of other machines.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use coop_builder::convert::{
    self, ConvertError, Converted, Input, Left, OpenOptions, OutputFormat, Part, Prepared, Request,
    Wanted, Which,
};
use coop_builder::lock::Pins;
use coop_image::disk::DiskError;
use coop_image::partition::{FileSystem, Partition, PartitionError, TableKind};
use coop_image::tree::display;
use coop_runtime::event::{Event, Observer};
use serde_json::{Value, json};

use super::Ended;
use super::build;
use super::image::{processors, refuse_member};
use super::means::Means;
use super::subject::{self, Kind};
use super::watched::Watched;
use crate::arguments::ConvertOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{Output, bytes, data, json as render_json, line, plain};

/// Lists, converts, or makes an appliance.
pub(crate) fn run(options: &ConvertOptions, environment: &Environment, output: &Output) -> Ended {
    subject::expect(&options.source, &[Kind::Image])?;
    let input = Input::open(
        &options.source,
        &OpenOptions {
            chain: options.allow_chain.as_deref(),
            use_backup: options.use_backup_table,
        },
    )
    .map_err(|error| explain(&error))?;
    if options.list {
        list(&input, options);
        return Ok(0);
    }
    if let Some(folder) = &options.appliance {
        return appliance(&input, folder, options, environment, output);
    }
    match &options.output {
        Some(path) => convert(&input, path, options, output),
        None => Err(Failure::usage("there is no output")),
    }
}

fn convert(input: &Input, path: &Path, options: &ConvertOptions, output: &Output) -> Ended {
    let format = format(path, options)?;
    refuse_member(path)?;
    let watched = Watched::start(options.progress, output)?;
    let request = Request {
        input,
        source: &options.source,
        which: options.partition.as_ref(),
        output: path,
        format,
        threads: options.threads.unwrap_or_else(processors),
        sync: !options.no_sync,
    };
    let done = convert::convert(&request, &watched.observer).map_err(|error| {
        let stopped = watched.stopped("the work was stopped by a signal; the output is as it was");
        stopped.unwrap_or_else(|| explain(&error))
    })?;
    if options.json {
        render_json::value(&json!({
            "source": render_json::path(&options.source),
            "source_format": input.disk.format().name(),
            "output": render_json::path(path),
            "format": format.name(),
            "partition": done.part.as_ref().map(describe),
            "wrapped": done.is_wrapped,
            "size_bytes": done.size_bytes,
            "data_bytes": done.data_bytes,
            "left_behind": done.left,
        }));
        return Ok(0);
    }
    line(&sentence(&done, format));
    tell_left(&done.left);
    data(&format!("{}\n", path.display()));
    Ok(0)
}

fn format(path: &Path, options: &ConvertOptions) -> Result<OutputFormat, Failure> {
    let given = options.format.map(OutputFormat::from);
    given
        .or_else(|| OutputFormat::of_path(path))
        .ok_or_else(|| {
            let message = format!(
                "the name {} does not say what is to be written",
                path.display()
            );
            Failure::usage(message).with_hint(
            "end it with .cobd, .raw, .img or .qcow2, or say --format cobd|raw|qcow2; coop writes \
             no other formats",
        )
        })
}

fn appliance(
    input: &Input,
    folder: &Path,
    options: &ConvertOptions,
    environment: &Environment,
    output: &Output,
) -> Ended {
    if options.use_backup_table {
        let failure = Failure::usage("--use-backup-table does not go with --appliance");
        let hint = "convert the disk to a cobd first, then make the appliance of that";
        return Err(failure.with_hint(hint));
    }
    let wanted = Wanted {
        input,
        source: &options.source,
        which: options.partition.as_ref().unwrap_or(&Which::Root),
        folder,
        size: options.size,
    };
    let prepared = convert::prepare(&wanted).map_err(|error| explain(&error))?;
    let mut means = Means::prepare(&options.recipe_options(), Pins::live(), environment, output)?;
    means.observer = Arc::new(Knowing {
        inner: Arc::clone(&means.observer),
        told: told(&prepared),
    });
    let (built, _) = build::build(&prepared.recipe, &options.source, folder, &means)?;
    if options.json {
        render_json::value(&json!({
            "source": render_json::path(&options.source),
            "source_format": input.disk.format().name(),
            "appliance": render_json::path(folder),
            "fresh": built.fresh,
            "partition": describe(&prepared.part),
            "fix_ups": prepared.fix_ups.changes,
            "stays": prepared.fix_ups.stays,
            "left_behind": prepared.left,
            "manifest": built.appliance.manifest,
        }));
        return Ok(0);
    }
    if !built.fresh {
        line(&format!("{} is up to date", folder.display()));
    }
    line(&format!("the root is {}", of_part(&prepared.part)));
    for change in &prepared.fix_ups.changes {
        line(&format!("changed {}", plain(&change.to_string())));
    }
    for sentence in &prepared.fix_ups.stays {
        line(&format!("note: {}", plain(sentence)));
    }
    tell_left(&prepared.left);
    data(&format!("{}\n", folder.display()));
    Ok(0)
}

/// What is told here, and by the build, too.
fn told(prepared: &Prepared) -> BTreeSet<String> {
    let changes = prepared.fix_ups.changes.iter().map(ToString::to_string);
    changes
        .chain(prepared.fix_ups.stays.iter().cloned())
        .collect()
}

/// An observer that does not pass on what is known already.
struct Knowing {
    inner: Arc<dyn Observer>,
    told: BTreeSet<String>,
}

impl Observer for Knowing {
    fn event(&self, event: &Event<'_>) {
        let is_known = matches!(event, Event::Note { message } if self.told.contains(*message));
        if !is_known {
            self.inner.event(event);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.inner.is_cancelled()
    }
}

fn sentence(done: &Converted, format: OutputFormat) -> String {
    let what = match &done.part {
        Some(part) => of_part(part),
        None => "the whole disk".to_owned(),
    };
    let around = match done.is_wrapped {
        true => " with a partition table (GPT) around it",
        false => "",
    };
    format!(
        "{what}{around}, as {}: {}, of which {} are not holes",
        format.name(),
        bytes(done.size_bytes),
        bytes(done.data_bytes)
    )
}

fn of_part(part: &Part) -> String {
    let mut text = format!("{part} ({}", part.kind_name());
    if !part.label().is_empty() {
        text.push_str(&format!(" '{}'", part.label()));
    }
    text.push(')');
    text
}

fn tell_left(left: &[Left]) {
    for one in left {
        line(&format!("left behind: {}", plain(&one.to_string())));
    }
}

fn list(input: &Input, options: &ConvertOptions) {
    let root = input.choose(&Which::Root).ok();
    let root = root.map(|part| part.first_byte);
    let also = input.disk.left_behind().iter().map(ToString::to_string);
    let also = also.chain(beside_table(&input.table.kind));
    let also = also.chain(input.parts.iter().filter_map(Part::shortage));
    let in_use = "a machine that runs may write to it; what is shown may be torn";
    let also = also.chain(input.is_in_use.then(|| in_use.to_owned()));
    if options.json {
        let of_part = |part: &Part| {
            let mut value = describe(part);
            value["is_root"] = (root == Some(part.first_byte)).into();
            value
        };
        render_json::value(&json!({
            "disk": render_json::path(&options.source),
            "format": input.disk.format().name(),
            "size_bytes": input.disk.size_bytes(),
            "table": input.table_name(),
            "sector_size_bytes": input.table.sector_size.bytes(),
            "partitions": input.parts.iter().map(of_part).collect::<Vec<_>>(),
            "also": also.collect::<Vec<_>>(),
        }));
        return;
    }
    let mut text = format!(
        "{} disk of {}, partition table: {}\n",
        input.disk.format().name(),
        bytes(input.disk.size_bytes()),
        input.table_name(),
    );
    let mut rows = vec![["no", "size", "file system", "label", "uuid", "type"].map(str::to_owned)];
    for part in &input.parts {
        rows.push([
            part.number()
                .map_or("-".to_owned(), |number| number.to_string()),
            bytes(part.length_bytes),
            part.kind_name().to_owned(),
            plain(label(part)),
            part.volume.as_ref().map_or("", |one| &*one.uuid).to_owned(),
            kind(part, root),
        ]);
    }
    text.push_str(&table(&rows));
    for one in also {
        text.push_str(&format!("also: {}\n", plain(&one)));
    }
    data(&text);
}

/// What a table has that is not looked into.
fn beside_table(table: &TableKind) -> Vec<String> {
    let TableKind::Gpt {
        from_backup,
        damage,
        is_hybrid,
        ..
    } = table
    else {
        return Vec::new();
    };
    let mut also = Vec::new();
    if let Some(damage) = damage {
        let which = if *from_backup { "first" } else { "second" };
        also.push(format!(
            "the partition table's {which} copy is damaged: {damage}"
        ));
    }
    if *is_hybrid {
        also.push("a hybrid MBR, whose partitions are not looked at".to_owned());
    }
    also
}

/// The file system's label, else the partition's name.
fn label(part: &Part) -> &str {
    match (part.label(), &part.partition) {
        ("", Some(partition)) => &partition.name,
        (label, _) => label,
    }
}

fn kind(part: &Part, root: Option<u64>) -> String {
    let mut text = part.kind().map_or("", |kind| kind.name()).to_owned();
    if root == Some(part.first_byte) {
        let comma = if text.is_empty() { "" } else { ", " };
        text.push_str(&format!("{comma}taken as the root"));
    }
    text
}

/// Rows in columns that are as wide as they need to be.
fn table(rows: &[[String; 6]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn describe(part: &Part) -> Value {
    let of = |value: fn(&Partition) -> Value| part.partition.as_ref().map(value);
    json!({
        "number": part.number(),
        "type": of(|one| one.kind.to_string().into()),
        "type_name": of(|one| one.kind.name().into()),
        "name": of(|one| display(one.name.as_bytes()).into()),
        "partuuid": of(|one| one.uuid.clone().into()),
        "bootable": of(|one| one.is_bootable.into()),
        "first_byte": part.first_byte,
        "size_bytes": part.length_bytes,
        "file_system": part.volume.as_ref().map(|volume| volume.name),
        "label": part.volume.as_ref().map(|volume| &volume.label),
        "uuid": part.volume.as_ref().map(|volume| &volume.uuid),
    })
}

/// A failure with how to go on.
fn explain(error: &ConvertError) -> Failure {
    let failure = Failure::work(error);
    match error {
        _ if error.is_refused_file() => failure.with_hint(
            "a disk can name any file of yours; --allow-chain DIR lets this one have those of a \
             folder",
        ),
        ConvertError::Table {
            source: PartitionError::PrimaryDamaged { .. },
            ..
        } => failure.with_hint("--use-backup-table uses it"),
        ConvertError::Table {
            source: PartitionError::NoTable,
            ..
        } => failure.with_hint("qemu-img convert copies a disk whatever is on it"),
        ConvertError::Choice { list, .. } if list.is_empty() => {
            failure.with_hint("without --partition all of it is taken")
        }
        ConvertError::Choice { closed, .. } => {
            let take = "--partition N takes one of them";
            match closed.and_then(way_into) {
                Some(way) => failure.with_hint(format!("{take}; {way}")),
                None => failure.with_hint(take),
            }
        }
        _ => explain_in_recipe(error),
    }
}

/// The same for a disk that a recipe names.
pub(super) fn explain_in_recipe(error: &ConvertError) -> Failure {
    let failure = Failure::work(error);
    let hint = match error {
        _ if error.is_refused_file() => {
            "a disk can name any file of yours; rootfs.source.disk.chain lists those that this one \
             may have"
        }
        ConvertError::Choice { .. } => "rootfs.source.disk.partition takes one of them",
        ConvertError::NotExt4 { found, .. } => found
            .and_then(way_into)
            .unwrap_or("coop convert DISK --list shows what else there is"),
        ConvertError::InUse(_) => "stop the machine that runs with it",
        ConvertError::CutOff { .. } => {
            "get all of the disk, or make the file system as small as its place where it is whole: \
             resize2fs"
        }
        ConvertError::Disk { source, .. } => match source {
            DiskError::Unknown(_) => {
                "qemu-img convert -O qcow2 OLD NEW.qcow2 makes one of it that coop reads"
            }
            DiskError::NotAFile => {
                "a disk is not read in order: what comes from a pipe goes into a file first"
            }
            _ => return failure,
        },
        _ => return failure,
    };
    failure.with_hint(hint)
}

/// How to get at what is in something that coop does not look into.
fn way_into(found: FileSystem) -> Option<&'static str> {
    match found {
        FileSystem::Lvm => Some(
            "a copy of the logical volume is a disk that coop reads: dd if=/dev/GROUP/VOLUME \
             of=root.raw, on a machine that has the volumes active",
        ),
        FileSystem::Luks => Some(
            "a copy of what is in it is a disk that coop reads: cryptsetup open, then dd \
             if=/dev/mapper/NAME of=root.raw, on a machine that has the key",
        ),
        FileSystem::Xfs | FileSystem::Btrfs | FileSystem::SquashFs | FileSystem::Erofs => Some(
            "an archive of the files is a root for recipes (rootfs.source.tarball): tar --xattrs \
             --acls --numeric-owner -C ROOT -cf root.tar . , on a machine that mounts it",
        ),
        _ => None,
    }
}
