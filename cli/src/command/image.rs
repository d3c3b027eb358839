//! `coop image`: work on single images.

use std::fs::File;
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::Path;

use coop_appliance::MANIFEST_NAME;
use coop_builder::cobd::{
    self, Archive, Made, MakeError, MakeRequest, ResizeError, ResizeRequest, Source,
};
use coop_builder::recipe;
use coop_image::ext4::{self, Journal, Size};
use coop_image::tree::Timestamp;
use fs_err as fs;
use serde_json::json;

use super::Ended;
use super::subject::{self, Kind};
use super::watched::Watched;
use crate::arguments::{ImageBuildOptions, ImageResizeOptions, ImageSize};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{Output, bytes, data, json as render_json, line};

/// The name of standard input, and of standard output.
const STANDARD: &str = "-";

/// Makes an image, and prints its path.
pub(crate) fn build(
    options: &ImageBuildOptions,
    environment: &Environment,
    output: &Output,
) -> Ended {
    if options.output == Path::new(STANDARD) {
        let failure = Failure::usage("an image cannot be written to standard output");
        return Err(failure
            .with_hint("an image has holes and is written out of order; name a file with -o"));
    }
    let overrides = options.overrides.as_deref().map(recipe::read_overrides);
    let request = MakeRequest {
        source: open(options)?,
        output: &options.output,
        options: shape(options),
        uuid: options.uuid.map(|uuid| uuid.0),
        time: time(options, environment)?,
        owner: options.owner,
        overrides: overrides.transpose().map_err(Failure::recipe)?,
        sync: !options.no_sync,
    };
    let watched = Watched::start(options.progress, output)?;
    let made = cobd::make(request, &watched.observer).map_err(|error| {
        let stopped = watched.stopped("the work was stopped by a signal; the output is as it was");
        stopped.unwrap_or_else(|| explain(error))
    })?;
    if options.json {
        render_json::value(&describe(options, &made));
    } else {
        line(&sentence(&made));
        data(&format!("{}\n", options.output.display()));
    }
    Ok(0)
}

/// Writes a file system in another size, and prints the image's path.
pub(crate) fn resize(options: &ImageResizeOptions) -> Ended {
    subject::expect(&options.image, &[Kind::Image])?;
    let path = options.output.as_ref().unwrap_or(&options.image);
    if options.output.is_none() {
        refuse_member(path)?;
    }
    let request = ResizeRequest {
        image: &options.image,
        output: path,
        size: options.size,
        threads: options.threads.unwrap_or_else(processors),
        sync: !options.no_sync,
    };
    let resized = cobd::resize(&request).map_err(|error| {
        let failure = Failure::work(&error);
        match error {
            ResizeError::BelowMinimum { .. } => failure.with_hint("--size fit is the least"),
            ResizeError::InUse { .. } => failure.with_hint("stop the machine that runs with it"),
            _ => failure,
        }
    })?;
    if options.json {
        render_json::value(&json!({
            "image": render_json::path(path),
            "before_bytes": resized.before_bytes,
            "size_bytes": resized.after.size_bytes,
            "blocks_free": resized.after.blocks_free,
            "block_size_bytes": resized.after.block_size_bytes,
            "inodes": resized.after.inodes,
            "features_added": resized.features_added,
            "features_removed": resized.features_removed,
        }));
        return Ok(0);
    }
    line(&format!(
        "{} before, {} now, {} of it free",
        bytes(resized.before_bytes),
        bytes(resized.after.size_bytes),
        bytes(resized.after.blocks_free * u64::from(resized.after.block_size_bytes)),
    ));
    for (features, what) in [
        (&resized.features_added, "has now"),
        (&resized.features_removed, "no longer has"),
    ] {
        if !features.is_empty() {
            line(&format!(
                "note: the file system {what} {}",
                features.join(", ")
            ));
        }
    }
    data(&format!("{}\n", path.display()));
    Ok(0)
}

/// Refuses to change an appliance's image behind its manifest's back, or to put a file beside them
/// that the next build would remove.
pub(super) fn refuse_member(image: &Path) -> Result<(), Failure> {
    // What is not there yet has a folder all the same, or fails where it is made.
    let found = fs::canonicalize(image);
    let place = match (&found, image.parent()) {
        (Ok(found), _) => found.parent().map(Path::to_path_buf),
        (Err(_), Some(parent)) => fs::canonicalize(Path::new(".").join(parent)).ok(),
        (Err(_), None) => None,
    };
    let Some(folder) = place.filter(|folder| folder.join(MANIFEST_NAME).is_file()) else {
        return Ok(());
    };
    let (image, folder) = (image.display(), folder.display());
    let message = match found {
        Ok(_) => {
            format!("{image} belongs to the appliance {folder}, whose manifest states its size")
        }
        Err(_) => format!("{image} would lie in the appliance {folder}, which knows nothing of it"),
    };
    let hint = "write another file, or change the recipe and build again";
    Err(Failure::usage(message).with_hint(hint))
}

fn open(options: &ImageBuildOptions) -> Result<Source, Failure> {
    let (name, file) = if options.source == Path::new(STANDARD) {
        if std::io::stdin().is_terminal() {
            let failure = Failure::usage("an archive cannot be typed in");
            return Err(failure.with_hint("lead one into standard input, or name a file"));
        }
        let stdin = std::io::stdin().as_fd().try_clone_to_owned();
        let file = File::from(stdin.map_err(|error| Failure::work(&error))?);
        ("standard input".to_owned(), file)
    } else if options.source.is_dir() {
        if options.strip_components > 0 {
            return Err(Failure::usage("--strip-components is for archives"));
        }
        if options.ignore_zeros {
            return Err(Failure::usage("--ignore-zeros is for archives"));
        }
        return Ok(Source::Folder {
            path: options.source.clone(),
            cross_mounts: options.cross_mounts,
            xattrs: !options.no_xattrs,
        });
    } else {
        subject::expect(&options.source, &[Kind::File, Kind::Bundle, Kind::Folder])?;
        let file = fs::File::open(&options.source).map_err(|error| Failure::work(&error))?;
        (options.source.display().to_string(), file.into_parts().0)
    };
    Ok(Source::Archive {
        archive: Archive { name, file },
        strip_components: options.strip_components,
        ignore_zeros: options.ignore_zeros,
    })
}

fn shape(options: &ImageBuildOptions) -> ext4::Options {
    let journal = match options.journal {
        _ if options.no_journal => Journal::None,
        None => Journal::Auto,
        Some(size) => {
            let blocks = size.0 / u64::from(options.block_size.bytes());
            Journal::Blocks(u32::try_from(blocks).unwrap_or(u32::MAX))
        }
    };
    ext4::Options {
        block_size: options.block_size,
        size: match options.size {
            ImageSize::Auto => Size::with_free_percent(options.free.0),
            ImageSize::Given(bytes) => Size::Bytes(bytes.0),
        },
        label: options.label.clone(),
        journal,
        inodes: options.inodes.unwrap_or_default(),
        reserved_percent: options.reserved.0,
        threads: options.threads.unwrap_or_else(processors),
        ..ext4::Options::new([0; 16], [0; 16], Timestamp::default())
    }
}

/// One thread for each processor.
pub(super) fn processors() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn time(
    options: &ImageBuildOptions,
    environment: &Environment,
) -> Result<Option<Timestamp>, Failure> {
    if options.time.is_some() {
        return Ok(options.time.map(Timestamp::from_seconds));
    }
    let Some(text) = &environment.source_date else {
        return Ok(None);
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    let seconds = seconds
        .filter(|seconds| *seconds >= 0)
        .ok_or_else(|| Failure::usage("SOURCE_DATE_EPOCH is not a number of seconds since 1970"))?;
    Ok(Some(Timestamp::from_seconds(seconds)))
}

fn explain(error: MakeError) -> Failure {
    let failure = Failure::work(&error);
    match error {
        MakeError::Override(diagnostic) => Failure::recipe(vec![*diagnostic]),
        MakeError::Folder { .. } => failure.with_hint(
            "a folder that its user may not read whole can be packed by somebody who may: tar -C DIR -c . | coop image build -",
        ),
        MakeError::Ext4 {
            source: ext4::WriteError::TooSmall { .. },
            ..
        } => failure.with_hint("--size auto takes as much as is needed"),
        _ => failure,
    }
}

fn sentence(made: &Made) -> String {
    let image = &made.image;
    let free = image.blocks_free * u64::from(image.block_size_bytes);
    format!(
        "{} names, {} of content; the image has {}, {} of it free",
        made.names,
        bytes(made.content_bytes),
        bytes(image.size_bytes),
        bytes(free),
    )
}

fn describe(options: &ImageBuildOptions, made: &Made) -> serde_json::Value {
    let image = &made.image;
    json!({
        "image": render_json::path(&options.output),
        "uuid": uuid_text(&made.uuid),
        "label": options.label,
        "size_bytes": image.size_bytes,
        "block_size_bytes": image.block_size_bytes,
        "blocks": image.blocks,
        "blocks_free": image.blocks_free,
        "blocks_journal": image.blocks_journal,
        "inodes": image.inodes,
        "inodes_free": image.inodes_free,
        "names": made.names,
        "content_bytes": made.content_bytes,
        "ignored": made.ignored,
    })
}

/// A UUID as people write it.
pub(super) fn uuid_text(uuid: &[u8; 16]) -> String {
    let digits: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let cuts = [0, 8, 12, 16, 20, 32];
    let groups: Vec<&str> = cuts
        .windows(2)
        .filter_map(|ends| digits.get(ends[0]..ends[1]))
        .collect();
    groups.join("-")
}
